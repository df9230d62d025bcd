from typing import TypedDict

from typing_extensions import Buffer

class ArenaStats(TypedDict):
    size: int  # bytes, as all but the counts
    used: int  # what the blobs take, steps of 64 bytes or 4 KiB included
    free: int  # size - used
    largest: int  # free in one piece
    blobs: int
    high: int  # nothing beyond was ever in use
    faulted: int  # from the beginning on
    fault_errno: int  # no count: why the thread that faults in has given up, 0 otherwise
    moved_blobs: int
    moved_bytes: int

def arena_open(size: int) -> None:
    """Maps the process's arena of `size` bytes, rounded up to 4 KiB; no memory is taken before the first blob.

    OSError with what failed; ValueError for size 0; RuntimeError when it is open.
    """

def arena_close() -> None:
    """Unmaps it, if it is open. RuntimeError while it holds blobs."""

def arena_fault_in() -> None:
    """Has all of it faulted in by its thread, instead of what will be used next. RuntimeError when it is closed."""

def arena_fd() -> int:
    """The memfd that others may map, its size sealed; -1 when closed."""

def arena_stats() -> ArenaStats:
    """All zeroes when closed."""

def arena_audit() -> None:
    """Walks all that is known of the arena, for tests. AssertionError where it does not agree."""

class Block:
    """A blob in the arena. As a buffer it is its `size` bytes, writable, and does not move while the buffer is held."""

    @staticmethod
    def reserve(size: int) -> Block | None:
        """One with room for `size` bytes, fixed and empty; None when there is no room in one piece."""
    @property
    def offset(self) -> int:
        """Where it begins in the memfd, bytes. This and what follows: ValueError once released."""
    @property
    def capacity(self) -> int: ...
    @property
    def size(self) -> int:
        """Bytes written."""
    @property
    def fixed(self) -> bool:
        """Whether it must stay where it is."""
    @fixed.setter
    def fixed(self, value: bool) -> None: ...
    def write(self, data: Buffer) -> None:
        """Replaces the contents. ValueError when they do not fit."""
    def trim(self) -> None:
        """Gives back what lies beyond the contents."""
    def checksum(self) -> int:
        """Of the contents, see checksum.pyi."""
    def release(self) -> None:
        """Gives it back; done as well when it is collected."""
    def __buffer__(self, flags: int, /) -> memoryview: ...
