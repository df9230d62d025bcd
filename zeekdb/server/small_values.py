"""Up to which size the structures keep their values packed: the directives of "Small values", handed to each type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeekdb.hot import hashes, lists, sets, streams, zsets

if TYPE_CHECKING:
    from zeekdb.config.config import Config

LIMITS = (
    "hash-max-listpack-entries", "hash-max-listpack-value", "set-max-intset-entries", "set-max-listpack-entries",
    "set-max-listpack-value", "zset-max-listpack-entries", "zset-max-listpack-value", "list-max-listpack-size",
    "stream-node-max-bytes", "stream-node-max-entries",
)  # fmt: skip


def limit_small_values(config: Config) -> None:
    """All of LIMITS, as they are now."""
    hashes.set_limits(entries=config.hash_max_listpack_entries, value=config.hash_max_listpack_value)
    sets.set_limits(
        intset=config.set_max_intset_entries,
        entries=config.set_max_listpack_entries,
        value=config.set_max_listpack_value,
    )
    zsets.set_limits(entries=config.zset_max_listpack_entries, value=config.zset_max_listpack_value)
    lists.set_limits(size=config.list_max_listpack_size)
    streams.set_limits(size=config.stream_node_max_bytes, entries=config.stream_node_max_entries)
