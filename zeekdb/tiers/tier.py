"""The contract of every tier below host memory.

A tier keeps the bytes of blocks, and nothing about them that the region needs before it reads them: there is one index,
the region's. What `put` returns, the *place*, is the region's to keep beside the block and to show again to `get`,
`delete` and `contains`. When a tier moves a block by itself it tells the region; when it wants to know whether a block
is still wanted it asks (`Owner`). So there is no second dictionary that could disagree with the first, and a million
blocks cost no memory here.

What holds for every tier:

- All calls are made on one event loop, and so are all calls of the owner. The views that a caller hands over are the
  tier's until the call has returned, also when it is cancelled: it then waits for the threads that still read or write
  them.
- The world's failures are answers, never exceptions: `put` says None, `get` False, `delete` False, and `stats` says
  `failing` and why until the tier has healed by itself. An exception is a bug of ours.
- `put` confirms when the block would survive the end of this process and, where the tier is a device, of the power.
  None means that the caller must not count on it; the block may yet turn up in the `scan` of a later start (the device
  took it and could not say so). It is whole then.
- The region writes the places down as soon as `put` has returned, before it waits for anything: until then the tier
  keeps its hands off these blocks.
- `get` answers True only for exactly the bytes whose checksum the block was put with. Whatever is doubtful is False, a
  miss, and what the view then holds is undefined. None says that the tier cannot be asked now: the block may well be
  there.
- The region takes a block out of its index before it calls `delete`, so that a tier which asks `is_live` and moves the
  block in the same breath cannot overtake the deletion. After `delete` has said True the block does not come back.
- A block may be put again while the tier has it (its region thought it lost). The region then keeps the new place and
  just forgets the old one: `delete` is about the block, wherever it is.
- `scan` is called once, after `open` and before everything else, and yields what is there: the blocks put and neither
  deleted nor dropped, in lists; those whose deadline has passed are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from zeekdb.observe.histogram import Histogram
from zeekdb.tiers.guard import Guard, TierFailed

T = TypeVar("T")

PLACE_MAX = (1 << 63) - 1
PLACE_LOCAL = (1 << 59) - 1  # what a tier's own places fit in: the bits above say which tiers have the block
Checksum = Callable[[memoryview], int]
"""64 bits of a block's bytes. Called from threads: it must be safe there, and quick only if it lets go of the GIL."""


class Meta(NamedTuple):
    """What a block is, beside its bytes."""

    model: bytes
    salt: bytes
    key: bytes
    size: int  # bytes
    checksum: int  # 64 bits, of the bytes as they are stored
    deadline: int = 0  # unix seconds; 0: none
    group: bytes = b""
    codec: str = "raw"


class Name(NamedTuple):
    """What a block is called by."""

    model: bytes
    salt: bytes
    key: bytes


def name_of(meta: Meta) -> Name:
    """The block's name."""
    return Name(meta.model, meta.salt, meta.key)


class Held(NamedTuple):
    """A block, and where the tier has it."""

    meta: Meta
    place: int


class Put(NamedTuple):
    """A block to store: `data` is meta.size bytes, contiguous."""

    meta: Meta
    data: memoryview


class Get(NamedTuple):
    """A block to read: `into` is meta.size writable bytes, contiguous."""

    meta: Meta
    place: int
    into: memoryview


class Owner(Protocol):
    """The region, as a tier sees it. Called on the loop, never blocks."""

    def is_live(self, meta: Meta, place: int) -> bool:
        """Whether the index still has this block at this place."""

    def is_worth(self, meta: Meta, place: int) -> bool:
        """Whether the block has earned a longer stay: it was used since it came to this place."""

    def moved(self, meta: Meta, old_place: int, new_place: int) -> bool:
        """The block is at the new place from now on; False: nobody wants it any more."""

    def dropped(self, meta: Meta, place: int) -> None:
        """The tier gives the block up, to keep its size limit or because it cannot be read."""

    def goes_down(self, meta: Meta, place: int) -> bool:
        """Whether a tier below should have the block before this one drops it."""

    async def hand_down(self, items: Sequence[Put]) -> list[bool]:
        """Which of these a tier below has now."""


class Tier(ABC):
    """See the module. Lists answer item by item."""

    name: str

    @abstractmethod
    async def open(self) -> None:
        """Begin. Unavailable: nothing can be kept there at all."""

    @abstractmethod
    def scan(self) -> AsyncIterator[list[Held]]:
        """Every live block, once, in lists of bounded length."""

    @abstractmethod
    async def put(self, items: Sequence[Put]) -> list[int | None]:
        """The places of the blocks, 0 … PLACE_LOCAL, once they are safe; None: not stored."""

    @abstractmethod
    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        """Fill the views, none of which overlap. False: absent or doubtful; None: can't be asked now."""

    @abstractmethod
    async def delete(self, items: Sequence[Held]) -> list[bool]:
        """Forget the blocks for good. False: gone for now, but a restart may bring it back."""

    @abstractmethod
    async def contains(self, items: Sequence[Held]) -> list[bool]:
        """Whether the block is there, without reading its data."""

    @abstractmethod
    def stats(self) -> TierStats:
        """Figures of this moment."""

    @property
    def is_up(self) -> bool:
        """Whether it takes blocks now."""
        return self.stats().state == "ok"

    @property
    def is_readable(self) -> bool:
        """Whether it can be asked for blocks now, full as it may be."""
        return self.is_up

    @abstractmethod
    async def close(self) -> None:
        """Finish what was begun, and let go. Harmless when repeated."""


class SharedTier(Tier):
    """A tier that other nodes write to as well: nobody here knows what it has until it is asked.

    It holds one block under a name, the one that was put last; a put of what is there already writes nothing. A block
    is found by its name and told from others of that name by its checksum, so `place` is no more than `place_of(meta)`,
    and a whole block of another checksum than the one asked for is False: whoever asked looks what there is now.
    """

    is_lossy: bool = False
    """Whether a block may come back as what a lossy coding made of it; its checksum is then its caller's to compute."""

    @abstractmethod
    async def find(self, names: Sequence[Name]) -> list[Meta | None]:
        """What is there under these names now; None: nothing, or it can't be asked."""

    async def drop(self, items: Sequence[Held]) -> list[bool]:
        """`delete`, of blocks that are elsewhere and stay: no other node needs to hear of it."""
        return await self.delete(items)

    @property
    @abstractmethod
    def guards(self) -> Sequence[Guard]:
        """Those that stand before it, the one of reads first."""

    async def check(self) -> None:
        """One cheap round trip; the guard of reads draws the conclusions."""
        with contextlib.suppress(TierFailed):
            await self.guards[0].call(self.probe)

    @abstractmethod
    async def probe(self) -> None:
        """One cheap round trip; raises what a call would."""


def place_of(meta: Meta) -> int:
    """A block's place in a shared tier."""
    return meta.checksum & PLACE_LOCAL


@dataclass(slots=True)
class Flow:
    """What went one way: blocks, bytes, failures, and how long a caller waited for a block (ns)."""

    count: int = 0
    bytes: int = 0
    errors: int = 0
    waits: Histogram = field(default_factory=lambda: Histogram(ticks_per_us=1000))

    def record(self, size: int, wait_ns: int) -> None:
        """One block that arrived."""
        self.count += 1
        self.bytes += size
        self.waits.record(wait_ns)

    def figures(self) -> dict[str, float]:
        """count, bytes, errors, p50_us, p95_us, p99_us."""
        p50, p95, p99 = self.waits.percentiles_us((50, 95, 99))
        counts = {"count": self.count, "bytes": self.bytes, "errors": self.errors}
        return {**counts, "p50_us": p50, "p95_us": p95, "p99_us": p99}


@dataclass(slots=True)
class TierStats:
    """What KV.TIERS shows of a tier."""

    name: str
    state: str = "ok"  # ok, failing, closed
    error: str = ""  # the last one
    blocks: int = 0
    bytes: int = 0  # of the blocks
    used_bytes: int = 0  # of the device
    limit_bytes: int = 0  # 0: none
    write: Flow = field(default_factory=Flow)
    read: Flow = field(default_factory=Flow)
    misses: int = 0  # asked for and not there
    corrupt: int = 0  # there, and not what was put
    deleted: int = 0
    dropped: int = 0  # by the size limit
    moved: int = 0  # by cleaning
    queue_bytes: int = 0  # waiting to be written
    more: dict[str, int | str] = field(default_factory=dict)  # what only this tier has


class Budget:
    """A bound on what is under way: who wants more than is left waits, in the order of asking."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def _fits(self, amount: int) -> bool:
        return not self.taken or self.taken + amount <= self.most  # more than there can ever be goes alone

    async def take(self, amount: int) -> None:
        """Waits until there is room."""
        if not self._waiting and self._fits(amount):
            self.taken += amount
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (amount, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(amount)
            else:
                with contextlib.suppress(ValueError):  # a turn that came to it meanwhile took it out
                    self._waiting.remove(entry)
                self._wake()
            raise

    def give(self, amount: int) -> None:
        """Back."""
        self.taken -= amount
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            amount, turn = self._waiting.popleft()
            if not turn.done():
                self.taken += amount
                turn.set_result(None)


async def settle(work: asyncio.Future[T]) -> T:
    """The work's result; whoever is cancelled meanwhile is so only after the work has ended.

    For work in threads that reads or fills the caller's memory: the caller may free it as soon as it runs again.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.cancelled() or work.exception()  # seen, so that nobody warns of it
        raise cancelled
    return work.result()
