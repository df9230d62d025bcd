"""The tensor region's index: blocks of bytes by key, in spaces that know nothing of each other.

A block is immutable. It is in the host arena, in the tier below, on a device (`region_device`), or in several of them.
Who asks for a block uses it; what was used least goes first where room is needed, a context's tail before its head,
and never what is leased or pinned, nor one of a group of which another is. `index` is a space's number; one that is not
open: IndexError. Times are those of `set_clock`. Keys are bytes of any length; the commands bound them.
"""

from collections.abc import Sequence
from typing import Any

from typing_extensions import Buffer

from zeekdb.hot.blobview import BlobView
from zeekdb.hot.region_below import (
    Pending as Pending,
)
from zeekdb.hot.region_below import (
    adopt as adopt,
)
from zeekdb.hot.region_below import (
    demote as demote,
)
from zeekdb.hot.region_below import (
    has_place as has_place,
)
from zeekdb.hot.region_below import (
    note_fetched as note_fetched,
)
from zeekdb.hot.region_below import (
    place_added as place_added,
)
from zeekdb.hot.region_below import (
    place_lost as place_lost,
)
from zeekdb.hot.region_below import (
    place_moved as place_moved,
)
from zeekdb.hot.region_below import (
    promote as promote,
)
from zeekdb.hot.region_below import (
    recoded as recoded,
)
from zeekdb.hot.region_below import (
    reserve as reserve,
)
from zeekdb.hot.region_below import (
    set_away as set_away,
)
from zeekdb.hot.region_below import (
    spilled as spilled,
)
from zeekdb.hot.region_below import (
    take_spilling as take_spilling,
)

def set_clock(now_ms: int) -> None:
    """Unix time; the engine sets it at every turn. Set back, it ends no lease and prolongs none."""

def open_space(quota: int = 0) -> int:
    """A new space; `quota` bytes in host memory at most, 0: no limit. MemoryError beyond 65,536 spaces."""

def configure_space(index: int, quota: int) -> None:
    """A smaller quota evicts what can go: 65,536 blocks at once, the rest as others are stored."""

def configure_spilling(limit: int, uses: int, own_uses: int = 0) -> None:
    """`limit`: bytes that may wait for the tier below, 0: there is none; `uses` make a block worth to be written.

    `own_uses` make it worth to be written to the first tier (bit 59 of a place) also where others have it; 0: never.
    """

def close_space(index: int) -> tuple[int, list[tuple[bytes, int | None]]]:
    """Removes a space and its blocks: (how many there were, [(key, place), …] of those that the tier below has)."""

def put(
    index: int,
    keys: list[bytes],
    values: Sequence[Buffer],
    deadline_s: int = 0,
    group: bytes | None = None,
    parent: bytes | None = None,
) -> list[int]:
    """Stores blocks, the keys of one context in its order: 1 (stored), 0 (shared) or -1 (dropped) for each.

    Shared: a block was there under this key and stays what it is; it lives as long as the later of the two deadlines
    (Unix seconds, 0: none). Dropped: no room could be made, or another block expired under this key and is still leased
    or pinned. What the call has stored or found stays while it stores what follows. A value that lies in the arena is
    taken over, another is copied there. `group`: what leaves together; 1024 blocks at most, those beyond are in none.
    `parent` is the key before the first. TypeError for a value that is no buffer; those before it are stored.
    """

def replace(
    index: int, key: bytes, value: Buffer, deadline_s: int = 0, group: bytes | None = None
) -> tuple[int, int | None]:
    """The block under this key is this one from now on, or none, where there is no room, leased or not.

    (as `put`, the old block's place in the tier below, which is the caller's to take back).
    """

def lookup(
    index: int, keys: list[bytes], lease_ms: int = 0, locate: bool = False, touch: bool = True
) -> tuple[int, bytes, bytes, bytes | None]:
    """Asks which blocks are there: (how many from the first on, bitmap, tiers, places).

    Bit i of the bitmap is `byte[i >> 3] >> (i & 7) & 1`. Tiers are a byte each: 0 absent, 1 on a device,
    2 host memory, 3 below only.
    `lease_ms`: all that are there stay so long at least, and their groups with them. `touch` counts as a use of the
    prefix. With `locate`, places are 24 bytes each, little-endian uint64: offset in the arena's file (2^64-1 where the
    block is not in host memory), bytes, checksum; what was located is not moved before its lease is over.
    """

def get(index: int, keys: list[bytes], touch: bool = True) -> list[BlobView | int | None]:
    """Each block's bytes; its place where it is in the tier below only, -1 where it is not in host memory but on a
    device; None where it is not there. `touch` False: neither a use nor a hit or miss; else places are not counted yet,
    see `note_fetched`."""

def describe(index: int, key: bytes) -> dict[str, Any] | None:
    """size (bytes), checksum, place, slot, in_host, deadline_s, leases, pins, grade, group, queue; None: not there."""

def count_present(index: int, keys: list[bytes]) -> int:
    """How many of the keys are there, in whatever tier."""

def unlock(index: int, keys: list[bytes]) -> int:
    """Gives one lease of each back; how many there were."""

def pin(index: int, keys: list[bytes], pinned: bool) -> int:
    """Pins blocks, or takes one pin of each back; how many were there (and pinned)."""

def remove(index: int, keys: list[bytes]) -> list[tuple[bytes, int | None]]:
    """Blocks leave every tier, leased or not: (key, place in the tier below or None) of those that were there."""

def relieve(free_bytes: int, most: int = 256) -> int:
    """Evicts until the arena has so many bytes free, `most` blocks at a time; how many.

    Before that, leases that are over are ended, 65,536 at a time.
    """

def sweep(index: int, cursor: int) -> tuple[int, list[tuple[bytes, int | None]]]:
    """Removes the expired among some more blocks, 0 to begin: (next cursor, 0 at the end; [(key, place), …]).

    Those that are leased or pinned are left for later.
    """

def space_stats(index: int | None) -> dict[str, int]:
    """blocks; host_blocks, host_bytes; ssd_blocks, ssd_bytes; quota; and since the space was opened: hits and misses of
    blocks asked for, stored, shared and dropped by `put`, evicted, expired, spilled, promoted, bytes_in, bytes_out.
    None: the same of no space, all 0."""

def index_bytes(index: int) -> int:
    """What the index of a space takes: tables, entries and the blobs' headers. A walk over all of it."""

def totals() -> dict[str, int]:
    """Of the whole region: leased_blocks; waiting_blocks, spilling_bytes: to be written below or being written."""

def release_late() -> None:
    """At the end: blocks that were removed under a lease give their memory back at once."""

def fix(view: BlobView) -> int:
    """Where a reserved blob lies in the arena's file; it stays there. ValueError: it is not in the arena."""
