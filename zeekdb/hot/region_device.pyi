"""Which blocks of the tensor region lie in slots of device memory.

Spaces and devices are numbers; a space that is gone has no blocks, a device that is gone is an IndexError.
"""

from zeekdb.hot.blobview import BlobView

def open_device(slots: int, size: int) -> int:
    """The number of a new device, all of whose slots are free; blocks of `size` bytes fit. MemoryError: too many."""

def close_device(index: int) -> int:
    """Its blocks leave it, and the index where nothing else has them; how many lay there."""

def assign(space: int, device: int) -> None:
    """The space's blocks may lie on this device from now on. IndexError."""

def device_stats(index: int) -> dict[str, int]:
    """slots, bytes_each (of a block), blocks, bytes, hits (uses of blocks that lay there), waiting (that want to)."""

def arena_memory() -> memoryview | None:
    """All of the host arena's mapping, writable; None when closed. Not to be used after the arena is."""

def take_wanted(index: int) -> tuple[int, bytes, BlobView, int] | None:
    """The block that has waited longest to be copied there: (space, key, bytes, checksum)."""

def candidate(space: int, key: bytes) -> tuple[BlobView, int] | None:
    """A block's (bytes, checksum) if it is in host memory and could be copied to the device."""

def placed(index: int, slot: int, space: int, key: bytes, check: int) -> bool:
    """The block with this checksum lies in the slot; False: it is gone, or there already: the slot is free."""

def take_left(index: int) -> list[int]:
    """Slots whose blocks are gone since the last call; under a lease: once it has ended."""

def victim(index: int) -> tuple[int, bytes, bool] | None:
    """Of the blocks that nobody relies on the one used least recently: (space, key, whether nothing else has it)."""

def held(space: int, key: bytes) -> tuple[int, int, int] | None:
    """(slot, size, checksum) of a block that lies on the device."""

def may_leave(space: int, key: bytes) -> bool:
    """Whether the block lies on the device and nobody relies on it."""

def leave(space: int, key: bytes) -> bool:
    """The block leaves the device. False: it was not there, somebody relies on it, or nothing else has it."""

def lost(space: int, key: bytes, slot: int) -> bool:
    """The slot's bytes are not the block's: it leaves the device, whoever relies on it. False: it was not there."""

def arrived(space: int, key: bytes, view: BlobView, check: int, asked: bool) -> bool:
    """The block's bytes have been copied to `view`, which is its place in host memory from now on.

    `asked`: somebody wanted it. False: the block is gone, or another, or in host memory already.
    """

def locate(space: int, keys: list[bytes], per_slab: int, stride: int) -> bytes:
    """Per key four little-endian u64: slab (2^64-1: not on the device), offset in it, size, checksum."""
