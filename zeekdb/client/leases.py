"""What a lookup finds, and how long one may rely on it: leases, and views of the server's memory under them.

A lease is the server's promise to keep blocks where they are until a moment. The client counts from before it asked,
and leaves a margin for the server's clock, so its own idea of the end comes first. The promise does not bind the owner
of the data: KV.DEL, KV.MODEL DEL and a block's own TTL take leased blocks as well, and the memory then gets another
block's bytes. What KV.UNLOCK counts shows it afterwards: the leases of a block that has gone are gone too. `get_into`
looks at both after its copy; a `View` can only ask the clock.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import numpy as np

from zeekdb.errors import Unavailable

MARGIN_S: Final = 0.05  # the server's clock may be so much late within a round of its loop, its ticks included

Array = np.ndarray[Any, np.dtype[Any]]


def end_of(asked_s: float, lease_ms: int) -> float:
    """Until when (`time.monotonic`) to rely on a lease that was asked for at `asked_s`."""
    return asked_s + lease_ms / 1e3 - min(MARGIN_S, lease_ms / 4e3)


class Lease:
    """Some blocks' lease. Without keys it is one of nothing: to give it back does nothing.

    Each lookup counts as one more lease of a block; a block may go when all were given back, or when the last of them
    ends. To give back what has ended is harmless, unless somebody else has leased the block since: give back early, or
    not at all.
    """

    __slots__ = ("_give_back", "end_s", "keys")

    def __init__(self, keys: Sequence[bytes], end_s: float, give_back: Callable[[Sequence[bytes]], Any]) -> None:
        self.keys = keys
        self.end_s = end_s
        self._give_back = give_back

    @property
    def valid(self) -> bool:
        """Whether it still runs, by this machine's clock."""
        return bool(self.keys) and time.monotonic() < self.end_s

    @property
    def left_s(self) -> float:
        """Seconds until its end; 0 when it is over or given back."""
        return max(self.end_s - time.monotonic(), 0.0) if self.keys else 0.0

    def _take(self) -> Sequence[bytes]:
        """What is to be given back, once; nothing after the end, when it could be another's."""
        keys = self.keys if self.valid else ()
        self.keys = ()
        return keys


class SyncLease(Lease):
    """A lease that ends with a `with` block."""

    __slots__ = ()

    def unlock(self) -> int:
        """Gives it back; how many leases the server still knew. Unavailable, and then the lease ends by itself."""
        keys = self._take()
        return int(self._give_back(keys)) if keys else 0

    def __enter__(self) -> SyncLease:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.unlock()
        except Unavailable:
            pass


class AsyncLease(Lease):
    """A lease that ends with an `async with` block."""

    __slots__ = ()

    async def unlock(self) -> int:
        """As SyncLease's."""
        keys = self._take()
        if not keys:
            return 0
        waiting: Awaitable[int] = self._give_back(keys)
        return await waiting

    async def __aenter__(self) -> AsyncLease:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.unlock()
        except Unavailable:
            pass


class Lookup:
    """What KV.LOOKUP says of n keys.

    `prefix`: how many from the first on are there; `present`: [n] bool; `tiers`: [n] uint8, 0 absent, 1 GPU, 2 host
    memory, 3 SSD; `lease`: of all present keys, of nothing where none was asked for.
    """

    __slots__ = ("lease", "prefix", "present", "tiers")

    def __init__(self, prefix: int, present: Array, tiers: Array, lease: Lease) -> None:
        self.prefix = prefix
        self.present = present
        self.tiers = tiers
        self.lease = lease


class SyncLookup(Lookup):
    """As a context manager it gives the lease back."""

    __slots__ = ()
    lease: SyncLease

    def __enter__(self) -> SyncLookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.lease.__exit__()


class AsyncLookup(Lookup):
    """As an asynchronous context manager it gives the lease back."""

    __slots__ = ()
    lease: AsyncLease

    async def __aenter__(self) -> AsyncLookup:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.lease.__aexit__()


class Mapping:
    """The server's host arena in this process. It stays mapped while any view of it lives, also after the server."""

    __slots__ = ("lease_ms_max", "memory", "size")

    def __init__(self, fd: int, size: int, lease_ms_max: int) -> None:
        """`fd` is the arena's memfd, not needed afterwards; `size` is in bytes. Unavailable if it cannot be mapped."""
        try:
            self.memory = memoryview(mmap.mmap(fd, size))
        except (OSError, ValueError) as error:
            raise Unavailable(f"can't map the server's arena: {error}") from None
        self.size = size
        self.lease_ms_max = lease_ms_max

    def piece(self, offset: int, size: int) -> memoryview:
        """The bytes of one block. Unavailable for a place outside."""
        if not 0 <= offset <= offset + size <= self.size:
            raise Unavailable("the server named a place outside of its arena")
        return self.memory[offset : offset + size]


class View:
    """A block's bytes where they lie: in the server's memory under a lease, or in memory of its own (`is_copy`).

    Read only while `valid`: afterwards the memory may hold another block. What was computed from it meanwhile counts if
    the view is valid still when the work is done.
    """

    __slots__ = ("_memory", "is_copy", "key", "lease")

    def __init__(self, key: bytes, memory: memoryview, lease: Lease | None) -> None:
        self.key = key
        self._memory = memory
        self.lease = lease
        self.is_copy = lease is None

    @property
    def valid(self) -> bool:
        """Whether the lease still runs; always so for a copy."""
        return self.lease is None or self.lease.valid

    @property
    def nbytes(self) -> int:
        """Size of the block."""
        return self._memory.nbytes

    @property
    def memory(self) -> memoryview:
        """Shape [nbytes], read-only."""
        return self._memory.toreadonly()

    def numpy(self, dtype: Any = np.uint8, shape: tuple[int, ...] = (-1,)) -> Array:
        """A read-only array over the bytes. ValueError where shape and type do not fit them."""
        return np.frombuffer(self.memory, dtype).reshape(shape)

    def torch(self, dtype: Any = None, shape: tuple[int, ...] = (-1,)) -> Any:
        """A tensor over the bytes, of uint8 without a type. RuntimeError where shape and type do not fit.

        torch knows no read-only memory: to write there would change the block for everybody.
        """
        import torch  # type: ignore[import-not-found,unused-ignore]

        return torch.frombuffer(self._memory, dtype=dtype or torch.uint8).reshape(shape)


class Views(list[View | None]):
    """Views of blocks, None for what is not there, under one lease that covers all of them."""

    lease: Lease


class SyncViews(Views):
    """As a context manager it gives the lease back."""

    lease: SyncLease

    def __enter__(self) -> SyncViews:
        return self

    def __exit__(self, *_: object) -> None:
        self.lease.__exit__()


class AsyncViews(Views):
    """As an asynchronous context manager it gives the lease back."""

    lease: AsyncLease

    async def __aenter__(self) -> AsyncViews:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.lease.__aexit__()
