"""From a configuration to the tiers that nodes share, and what stands beside them: which there are, and with what.

A level is a line in LEVELS, from the top down; its module, and with it the packages that it needs, is imported where
the level is made, so a server without tiers pays nothing. `make` raises Unavailable where a package is missing or a URL
makes no sense; whether somebody answers at that URL is seen when the tier is opened, and is no error.

The catalogue and the cold blocks share one `Database`, which counts who has opened it: make it first, hand it to both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from zeekdb.config.config import Config
from zeekdb.config.urls import scrubber
from zeekdb.errors import Unavailable
from zeekdb.tiers.tier import SharedTier

if TYPE_CHECKING:
    from zeekdb.tiers.packing import LayoutOf
    from zeekdb.tiers.postgres.catalogue import Catalogue
    from zeekdb.tiers.postgres.pool import Database
    from zeekdb.tiers.vectors.store import VectorStore

    Build = Callable[[Config, LayoutOf, Database | None], SharedTier]

URLS: Final = ("kv_warm_url", "kv_postgres_url", "kv_postgres_reader_url", "kv_qdrant_url", "kv_objects_url")


class Level(NamedTuple):
    """One of the shared tiers."""

    name: str  # the tier's
    prefix: str  # of its directives, as attributes
    build: Build
    retune: Callable[[SharedTier, Config], None]  # what CONFIG SET may change

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

    def make(self, config: Config, layout_of: LayoutOf, database: Database | None = None) -> SharedTier:
        """The tier, not opened; with a database of its own where it needs one and gets none. Unavailable."""
        try:
            tier = self.build(config, layout_of, database)
        except ImportError as error:
            directive = f"{self.prefix}_url".replace("_", "-")
            raise Unavailable(
                f"{directive} needs a package that is not installed ({error.name}): pip install 'zeekdb[tiers]'"
            ) from None
        except ValueError as error:
            raise Unavailable(f"{self.prefix}_url: {error}".replace("_", "-")) from None
        self.retune(tier, config)
        return tier


def configured_urls(config: Config) -> list[str]:
    """All URLs that may hold secrets."""
    return [url for name in URLS if (url := getattr(config, name))]


def make_levels(config: Config, layout_of: LayoutOf, database: Database | None = None) -> list[SharedTier]:
    """The shared tiers of the configuration, from the top down, none opened. Unavailable.

    `layout_of` tells the layout of a model whose blocks are kept as they come, None of all others; called from threads.
    """
    return [level.make(config, layout_of, database) for level in LEVELS if level.is_on(config)]


def retune(tiers: Sequence[SharedTier], config: Config) -> None:
    """Pass on what CONFIG SET has changed: the hook of the directives that are not immutable."""
    levels = {level.name: level for level in LEVELS}
    for tier in tiers:
        levels[tier.name].retune(tier, config)


# ---- each of them --------------------------------------------------------------------------------------------------


def _warm(config: Config, layout_of: LayoutOf, _: Database | None) -> SharedTier:
    from zeekdb.tiers.packing import Packer
    from zeekdb.tiers.warm import WarmTier

    return WarmTier(
        config.kv_warm_url, Packer(config.kv_warm_compression, layout_of), pool=config.kv_warm_pool,
        batch=config.kv_warm_batch, timeout_s=config.kv_warm_timeout / 1000,
    )  # fmt: skip


def _retune_warm(tier: SharedTier, config: Config) -> None:
    from zeekdb.tiers.warm import WarmTier

    if isinstance(tier, WarmTier):
        tier.ttl_s, tier.least, tier.most = config.kv_warm_ttl, config.kv_warm_min, config.kv_warm_max


def _postgres(config: Config, layout_of: LayoutOf, database: Database | None) -> SharedTier:
    from zeekdb.tiers.packing import Packer
    from zeekdb.tiers.postgres.blobs import BlobTier

    return BlobTier(database or make_database(config), Packer(config.kv_postgres_compression, layout_of))


def _retune_postgres(tier: SharedTier, config: Config) -> None:
    from zeekdb.tiers.postgres.blobs import BlobTier

    if isinstance(tier, BlobTier):
        tier.ttl_s, tier.max_bytes = config.kv_postgres_ttl, config.kv_postgres_max


def _objects(config: Config, layout_of: LayoutOf, _: Database | None) -> SharedTier:
    from zeekdb.tiers.objects import ObjectTier

    return ObjectTier(
        absolute(config.kv_objects_url), coding=config.kv_objects_compression, layout_of=layout_of,
        pool=config.kv_objects_pool, timeout_s=config.kv_objects_timeout / 1000,
    )  # fmt: skip


def _retune_objects(tier: SharedTier, config: Config) -> None:
    from zeekdb.tiers.objects import ObjectTier

    if isinstance(tier, ObjectTier):
        tier.ttl_days, tier.max_bytes = config.kv_objects_ttl, config.kv_objects_max


def absolute(url: str) -> str:
    """A folder's URL that begins where the server stands (`file:tiers/objects`), from the root; others as they are."""
    path = url.removeprefix("file:")
    return url if path == url or path.startswith("/") else Path(path).resolve().as_uri()


LEVELS: Final = (
    Level("warm", "kv_warm", _warm, _retune_warm),
    Level("postgres", "kv_postgres", _postgres, _retune_postgres),
    Level("objects", "kv_objects", _objects, _retune_objects),
)


# ---- what stands beside the levels ---------------------------------------------------------------------------------


def make_database(config: Config) -> Database:
    """The PostgreSQL that `kv-postgres-url` names, not opened. Unavailable."""
    from zeekdb.tiers.postgres.catalogue import session_settings
    from zeekdb.tiers.postgres.pool import Database

    return Database(
        config.kv_postgres_url, reader_url=config.kv_postgres_reader_url, connections=config.kv_postgres_pool,
        timeout_s=config.kv_postgres_timeout / 1000, settings=session_settings(config.kv_versions),
    )  # fmt: skip


def make_catalogue(config: Config, node: str, database: Database) -> Catalogue:
    """What is where, in that database."""
    from zeekdb.tiers.postgres.catalogue import Catalogue

    return Catalogue(
        database, node=node, batch_rows=config.kv_postgres_batch, log_sample=config.kv_log_sample,
        log_days=config.kv_log_days, versions=config.kv_versions,
    )  # fmt: skip


def make_vectors(config: Config) -> VectorStore:
    """The Qdrant that `kv-qdrant-url` names, not opened. Unavailable."""
    from zeekdb.tiers.vectors.engine import Options
    from zeekdb.tiers.vectors.store import VectorStore, engine_of

    url, timeout_s = config.kv_qdrant_url, config.kv_qdrant_timeout / 1000
    options = Options(config.kv_qdrant_dim, config.kv_qdrant_m, config.kv_qdrant_ef)
    return VectorStore(
        engine_of(url, options, timeout_s), dim=options.dim, batch=config.kv_qdrant_batch, timeout_s=timeout_s,
        scrub=scrubber([url]),
    )  # fmt: skip
