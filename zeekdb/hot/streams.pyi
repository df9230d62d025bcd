from collections.abc import Sequence
from typing import Any, NamedTuple

class StoredEntry(NamedTuple):
    """An entry as a block holds it."""

    id: int
    dead: bool
    fields: list[bytes] | None
    """None: the block's names."""
    values: list[bytes]

class StoredBlock(NamedTuple):
    """A block as it is: its id, the names of its first entry's fields, all entries, tombstones included."""

    id: int
    names: list[bytes]
    entries: list[StoredEntry]

class Stream:
    """A stream of the keyspace: a log of entries and the consumer groups on it.

    Ids are ints of 128 bits, `milliseconds << 64 | sequence`; an entry is field, value, field, value …, in order and
    with repetitions. The door owns nothing: it is good until its key is removed.
    """

    last_id: int
    """The largest id ever given, 0 at first; XSETID sets it."""
    first_id: int
    """The first entry's, 0 when empty; kept up by itself, to be set only when a stream is restored."""
    max_deleted_id: int
    """The largest id that XDEL ever deleted; whoever calls `remove` keeps it up."""
    entries_added: int
    """Entries ever added; `append` counts."""
    groups: dict[bytes, Any]
    """Consumer groups by name (`zeekdb.types.stream_groups.Group`); the stream's own dict, to be changed in place."""
    @property
    def encoding(self) -> str:
        """OBJECT ENCODING's word: "stream"."""
    @property
    def block_count(self) -> int:
        """Blocks, which are Redis's radix-tree-keys."""
    def __len__(self) -> int: ...
    def __contains__(self, id: int) -> bool: ...
    def next_id(self, now_ms: int) -> int | None:
        """The id for an entry that is given none; None when the last one is used."""
    def append(self, id: int, fields: Sequence[bytes]) -> None:
        """Add an entry (field, value …). ValueError unless the id is above `last_id`, and over 1 GiB."""
    def remove(self, id: int) -> bool: ...
    def trim_to_length(self, length: int, whole_blocks: bool = False, most: int = 0) -> int:
        """Remove the oldest entries until `length` are left; how many went.

        `whole_blocks` removes only what needs no change inside a block, `most` entries at most (0: no limit).
        """
    def trim_below(self, id: int, whole_blocks: bool = False, most: int = 0) -> int:
        """The same with the entries below an id."""
    def entries(self, start: int, end: int, count: int = 0, reverse: bool = False) -> list[tuple[int, list[bytes]]]:
        """Entries with start <= id <= end, `count` at most (0: all); reverse: the last first."""
    def range(self, start: int, end: int, count: int = 0, reverse: bool = False) -> list[list[Any]]:
        """The same as commands reply them: [b"ms-seq", [field, value …]]."""
    def get(self, id: int) -> list[bytes] | None:
        """An entry's fields and values."""
    def last_entry_id(self) -> int:
        """Of the last entry that is there, 0 when empty."""
    def node_count(self) -> int:
        """Redis's radix-tree-nodes: a tree of the blocks' ids; estimated from 65,536 blocks on."""
    # for serialisers
    def next_block(self, after: int = -1) -> StoredBlock | None:
        """The first block with an id above `after`."""
    def add_block(self, block: StoredBlock) -> None:
        """Append a block as it is; last_id, entries_added, first_id and the rest are the caller's to set.

        ValueError when its ids do not ascend from the block's own, which is above all present; one without live
        entries is left out.
        """

def format_id(id: int) -> bytes:
    """b"ms-seq"."""

def set_limits(*, size: int, entries: int) -> None:
    """stream-node-max-bytes and stream-node-max-entries, 0 for no limit. Present blocks stay as they are."""
