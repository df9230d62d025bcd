"""From a configuration to the tiers that nodes share: which there are, in which order, and with what.

A level is a line in LEVELS, from the top down; its module, and with it the packages that it needs, is imported where
the level is made, so a server without tiers pays nothing. `make` raises Unavailable where a package is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from zeekdb.config.config import Config
from zeekdb.tiers.tier import SharedTier

if TYPE_CHECKING:
    from zeekdb.tiers.packing import LayoutOf

URLS: Final = ("kv_warm_url", "kv_postgres_url", "kv_postgres_reader_url", "kv_qdrant_url", "kv_objects_url")


class Level(NamedTuple):
    """One of the shared tiers."""

    name: str
    prefix: str  # of its directives, as attributes
    make: Callable[[Config, LayoutOf], SharedTier]

    def url(self, config: Config) -> str:
        """Where it is, secrets and all."""
        found: str = getattr(config, f"{self.prefix}_url")
        return found

    def sizes(self, config: Config) -> tuple[int, int]:
        """(smallest, largest) block that goes there, bytes."""
        return getattr(config, f"{self.prefix}_min"), getattr(config, f"{self.prefix}_max")

    def is_on(self, config: Config) -> bool:
        """Whether the configuration has it keep blocks."""
        return bool(self.url(config)) and self.sizes(config)[1] > 0


def configured_urls(config: Config) -> list[str]:
    """All URLs that may hold secrets."""
    return [url for name in URLS if (url := getattr(config, name))]


def make_levels(config: Config, layout_of: LayoutOf) -> list[SharedTier]:
    """The shared tiers of the configuration, from the top down; none is opened. Unavailable: a package is missing."""
    return [level.make(config, layout_of) for level in LEVELS if level.is_on(config)]


def make_warm(config: Config, layout_of: LayoutOf) -> SharedTier:
    """Redis and its kin."""
    from zeekdb.tiers.packing import Packer
    from zeekdb.tiers.warm import WarmTier

    return WarmTier(
        config.kv_warm_url, Packer(config.kv_warm_compression, layout_of), pool=config.kv_warm_pool,
        batch=config.kv_warm_batch, ttl_s=config.kv_warm_ttl, least=config.kv_warm_min, most=config.kv_warm_max,
        timeout_s=config.kv_warm_timeout / 1000,
    )  # fmt: skip


LEVELS: Final[tuple[Level, ...]] = (Level("warm", "kv_warm", make_warm),)
