"""Blocks between host memory and the tier below. `zeekdb.hot.region` hands all of this on.

A *place* is the number by which the tiers below know a block. Its bits 59 to 62 say which of them have it, one bit
each; those below are for the first of them to choose, and the checksum's where that one has not got the block. A space
that is not open: IndexError.
"""

from zeekdb.hot.blobview import BlobView

class Pending:
    """A block on its way to the tier below: what the tier is to write, and whose it is."""

    @property
    def space(self) -> int: ...
    @property
    def key(self) -> bytes: ...
    @property
    def view(self) -> BlobView: ...
    @property
    def checksum(self) -> int: ...
    @property
    def deadline_s(self) -> int:
        """Unix time, 0: none."""
    @property
    def group(self) -> bytes | None: ...
    @property
    def place(self) -> int | None:
        """Where tiers have it already."""

def demote(index: int, keys: list[bytes]) -> int:
    """Blocks that nobody relies on leave host memory: at once where the tier below has them, else once it has.

    How many. Those of a group of which one has to stay, and those for which no room to wait is left, stay.
    """

def take_spilling(bytes_max: int) -> list[Pending]:
    """The next blocks to be written below, until they have `bytes_max` bytes; each comes back through `spilled`."""

def spilled(pending: Pending, place: int | None) -> bool:
    """The tier below has written the block (`place`) or not (None).

    Written it leaves host memory, unless somebody relies on it.
    False: the block is gone, is another meanwhile, or was written already: nothing refers to `place`.
    """

def reserve(size: int, index: int | None = None) -> BlobView | None:
    """Room in host memory for a block that is yet to come, bytes: a writable view; None where no room can be made.

    Within the quota of the space, where one is named. What is never promoted is free once the view is gone.
    """

def promote(index: int, key: bytes, view: BlobView) -> bool:
    """The block's bytes have been read into `view`, which nobody writes any more.

    False: it is not there any more, has another size, or is in memory already.
    """

def note_fetched(index: int, hits: int, misses: int, bytes_out: int) -> None:
    """Counts what became of blocks that `region.get` found in other tiers than host memory."""

def adopt(
    index: int, key: bytes, size: int, check: int, place: int, deadline_s: int = 0, group: bytes | None = None
) -> bool:
    """At the start: a block that the tier below has, bytes and checksum. False: the key is there already."""

def recoded(index: int, key: bytes, old: int, new: int) -> bool:
    """A lossy tier gives back a block of another checksum than it was given: from now on that is the block.

    False: it is gone, or is another meanwhile, or its bytes as they were are at hand.
    """

def set_away(levels: int) -> None:
    """Tiers, as bits of a place, that cannot be asked now: lookups leave out what only they have."""

def place_added(index: int, key: bytes, check: int, place: int) -> bool:
    """Tiers below have the block as well. False: it is gone, or one of another checksum is under this key."""

def place_moved(index: int, key: bytes, old: int, new: int) -> bool:
    """The block is in the tiers of `new` instead of those of `old`; False: it is none of ours any more, or not there.

    A closed space is no error.
    """

def place_lost(index: int, key: bytes, place: int) -> bool:
    """The tiers that the place names have the block no longer, or not whole. False, and no error, as `place_moved`."""

def has_place(index: int, key: bytes, place: int) -> tuple[bool, bool]:
    """(whether the block lies there, whether somebody relies on it or has used it more than once).

    Of a place without bit 59 the lower bits are the checksum of the block that is meant, or 0: whichever.
    """
