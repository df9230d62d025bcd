"""The tiers that the directives ask for, in the order of the stack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zeekdb.hot.checksum import checksum
from zeekdb.tiers import factory
from zeekdb.tiers.ssd import SsdTier
from zeekdb.tiers.stack import Level, SsdOwner, StackOwner

if TYPE_CHECKING:
    from zeekdb.config.config import Config
    from zeekdb.tensors.layout import Layout


def make_levels(
    config: Config, owner: StackOwner, layout_of: Callable[[bytes], Layout | None]
) -> tuple[list[Level], SsdOwner]:  # fmt: skip
    """None of them is open yet. Unavailable: a package is missing."""
    levels: list[Level] = []
    ssd_owner = SsdOwner(owner)
    if config.kv_ssd_path:
        levels.append(Level(SsdTier(Path(config.kv_ssd_path), config.kv_ssd_size, ssd_owner, checksum)))
    for tier in factory.make_levels(config, layout_of):
        levels.append(Level(tier, *_habits(config, f"kv_{tier.name}")))
    return levels, ssd_owner


def _habits(config: Config, prefix: str) -> tuple[Callable[[], tuple[int, int]], Callable[[], bool]]:
    """What goes to a tier by itself, and when, as the directives say at that moment."""
    return (
        lambda: (getattr(config, f"{prefix}_min"), getattr(config, f"{prefix}_max")),
        lambda: getattr(config, f"{prefix}_write") == "store",
    )
