"""The tiers that the directives ask for, in the order of the stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeekdb.errors import Unavailable
from zeekdb.hot.checksum import checksum
from zeekdb.tiers import factory
from zeekdb.tiers.ssd import SsdTier
from zeekdb.tiers.stack import Level, SsdOwner, StackOwner
from zeekdb.tiers.tier import Meta

if TYPE_CHECKING:
    from zeekdb.config.config import Config
    from zeekdb.tensors.layout import Layout
    from zeekdb.tiers.postgres.pool import Database


def make_levels(
    config: Config, owner: StackOwner, layout_of: Callable[[bytes], Layout | None]
) -> tuple[list[Level], SsdOwner]:  # fmt: skip
    """None of them is open yet. Unavailable: a package is missing."""
    levels: list[Level] = []
    ssd_owner = SsdOwner(owner)
    if config.kv_ssd_path:
        levels.append(Level(SsdTier(Path(config.kv_ssd_path), config.kv_ssd_size, ssd_owner, checksum)))
    levels += [Level(tier, *_habits(config, f"kv_{tier.name}")) for tier in factory.make_levels(config, layout_of)]
    return levels, ssd_owner


def retune(levels: Sequence[Level], config: Config) -> None:
    """Pass on what CONFIG SET has changed."""
    factory.retune([level.shared for level in levels if level.shared is not None], config)


def coded_by(levels: Sequence[Level]) -> Callable[[Meta, Sequence[str]], tuple[int, str]]:
    """Tells (bytes, coding) of a block in the lowest of some of the levels."""
    packers: dict[str, Any] = {level.name: getattr(level.tier, "packer", None) for level in levels}

    def coded(meta: Meta, names: Sequence[str]) -> tuple[int, str]:
        packer = packers.get(names[-1])
        return packer.stored(meta) if packer is not None else (meta.size, "raw")

    return coded


def database_of(levels: Sequence[Level], config: Config) -> Database:
    """The catalogue's: the one that cold blocks are in, too, where they are. Unavailable: a package is missing."""
    for level in levels:
        database: Database | None = getattr(level.tier, "database", None)
        if database is not None:
            return database
    try:
        return factory.make_database(config)
    except ImportError as error:
        raise Unavailable(
            f"kv-postgres-url needs a package that is not installed ({error.name}): pip install 'zeekdb[tiers]'"
        ) from None


def _habits(config: Config, prefix: str) -> tuple[Callable[[], tuple[int, int]], Callable[[], bool]]:
    """What goes to a tier by itself, and when, as the directives say at that moment."""
    return (
        lambda: (getattr(config, f"{prefix}_min"), getattr(config, f"{prefix}_max")),
        lambda: getattr(config, f"{prefix}_write") == "store",
    )
