"""Tiers in memory that fail as they are told, to try a stack of them: a disk, a warm tier, cold ones.

`turns` is how slow a call is, in turns of the loop; `gate` holds calls that come while it is not set.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from zeekdb.tiers.guard import Guard
from zeekdb.tiers.stack import Level
from zeekdb.tiers.tier import (
    Flow,
    Get,
    Held,
    Meta,
    Name,
    Put,
    SharedTier,
    Tier,
    TierStats,
    name_of,
    place_of,
)

Store = dict[Name, tuple[Meta, bytes]]


@dataclass
class Faults:
    """What goes wrong."""

    is_down: bool = False  # and known to be
    refuses: bool = False  # puts; nobody knows
    silent: bool = False  # every call says that it could not be asked; nobody knows
    turns: Callable[[], int] = lambda: 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def wait(self) -> None:
        for _ in range(self.turns()):
            await asyncio.sleep(0)
        await self.gate.wait()


class Shared(SharedTier):
    """One that nodes share: `store` is the engine."""

    def __init__(self, name: str, store: Store | None = None) -> None:
        self.name = name
        self.store: Store = {} if store is None else store
        self.faults = Faults()
        self.calls: list[tuple[str, list[bytes]]] = []
        self.is_open = False
        self.flow = Flow()

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    @property
    def guards(self) -> Sequence[Guard]:
        return ()

    async def check(self) -> None:
        """Nothing to find out."""

    async def probe(self) -> None:
        """The same."""

    async def _ask(self, what: str, keys: Iterable[bytes]) -> bool:
        self.calls.append((what, list(keys)))
        await self.faults.wait()
        return not (self.faults.is_down or self.faults.silent)

    async def put(self, items: Sequence[Put]) -> list[int | None]:
        if not await self._ask("put", [item.meta.key for item in items]) or self.faults.refuses:
            return [None] * len(items)
        for meta, data in items:
            self.store[name_of(meta)] = (meta, bytes(data))
        return [place_of(item.meta) for item in items]

    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        if not await self._ask("get", [item.meta.key for item in items]):
            return [None] * len(items)
        answers: list[bool | None] = []
        for meta, _, into in items:
            found, data = self.store.get(name_of(meta), (None, b""))
            is_it = found is not None and found.checksum == meta.checksum
            if is_it:
                into[:] = data
            answers.append(is_it)
        return answers

    async def delete(self, items: Sequence[Held]) -> list[bool]:
        if not await self._ask("delete", [item.meta.key for item in items]):
            return [False] * len(items)
        for meta, _ in items:
            self.store.pop(name_of(meta), None)
        return [True] * len(items)

    async def contains(self, items: Sequence[Held]) -> list[bool]:
        if not await self._ask("contains", [item.meta.key for item in items]):
            return [False] * len(items)
        found = [self.store.get(name_of(item.meta)) for item in items]
        return [each is not None and each[0][:5] == item.meta[:5] for each, item in zip(found, items, strict=True)]

    async def find(self, names: Sequence[Name]) -> list[Meta | None]:
        if not await self._ask("find", [name.key for name in names]):
            return [None] * len(names)
        return [self.store[name][0] if name in self.store else None for name in names]

    async def scan(self) -> AsyncIterator[list[Held]]:
        yield [Held(meta, place_of(meta)) for meta, _ in list(self.store.values())]

    def stats(self) -> TierStats:
        state = "closed" if not self.is_open else "failing" if self.faults.is_down else "ok"
        return TierStats(self.name, state, blocks=len(self.store), write=self.flow, read=self.flow)


class Warm(Shared):
    """With what the stack asks of a warm tier beside: locks that everybody gets, and a channel that says nothing."""

    def __init__(self, store: Store | None = None) -> None:
        super().__init__("warm", store)
        self.loading_now: dict[Name, asyncio.Event] = {}
        self.announced: list[tuple[str, bytes]] = []

    @contextlib.asynccontextmanager
    async def loading(self, names: Sequence[Name]) -> AsyncIterator[list[bool]]:
        await self.faults.wait()
        mine = [name not in self.loading_now for name in names]
        held = {name for name, is_mine in zip(names, mine, strict=True) if is_mine}
        ended = asyncio.Event()
        self.loading_now |= dict.fromkeys(held, ended)
        try:
            yield mine
        finally:
            ended.set()
            for name in held:
                del self.loading_now[name]

    async def wait_for(self, name: Name, timeout_s: float) -> Meta | None:
        if name in self.loading_now:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.loading_now[name].wait()
        return self.store[name][0] if name in self.store else None

    def announce(self, kind: str, metas: Iterable[Meta]) -> None:
        self.announced += [(kind, meta.key) for meta in metas]

    def listen(self, listener: Callable[[Any], None]) -> None:
        self.hear = listener


class Disk(Tier):
    """A log, as the SSD tier is: what was written last under a name counts after a start. `log` is the device."""

    name = "ssd"

    def __init__(self, log: list[tuple[Meta, bytes | None]] | None = None) -> None:
        self.log: list[tuple[Meta, bytes | None]] = [] if log is None else log
        self.faults = Faults()
        self.bad: set[bytes] = set()  # keys that cannot be read
        self.room = 1 << 40  # bytes of a block

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """The same."""

    async def put(self, items: Sequence[Put]) -> list[int | None]:
        await self.faults.wait()
        places: list[int | None] = []
        for meta, data in items:
            if self.faults.refuses or self.faults.is_down or meta.size > self.room:
                places.append(None)
                continue
            self.log.append((meta, bytes(data)))
            places.append(len(self.log))
        return places

    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        await self.faults.wait()
        answers: list[bool | None] = []
        for meta, place, into in items:
            found, data = self.log[place - 1] if 0 < place <= len(self.log) else (None, None)
            is_it = found is not None and data is not None and found[:5] == meta[:5] and meta.key not in self.bad
            if is_it and data is not None:
                into[:] = data
            answers.append(is_it)
        return answers

    async def delete(self, items: Sequence[Held]) -> list[bool]:
        await self.faults.wait()
        self.log += [(item.meta, None) for item in items]
        return [True] * len(items)

    async def contains(self, items: Sequence[Held]) -> list[bool]:
        return [0 < item.place <= len(self.log) for item in items]

    async def scan(self) -> AsyncIterator[list[Held]]:
        last = {name_of(meta): (at, meta, data) for at, (meta, data) in enumerate(self.log, 1)}
        yield [Held(meta, at) for at, meta, data in last.values() if data is not None]

    def stats(self) -> TierStats:
        return TierStats(self.name, "failing" if self.faults.is_down else "ok", blocks=len(self.log))

    @property
    def is_readable(self) -> bool:
        return True


def levels_of(*tiers: Tier, on_store: Sequence[str] = ("warm",), sizes: tuple[int, int] = (0, 1 << 40)) -> list[Level]:
    """The tiers as levels, which take every block; those of `on_store` as it is stored."""
    return [
        Level(tier, lambda: sizes, lambda name=tier.name: name in on_store) if isinstance(tier, SharedTier)  # type: ignore[misc]
        else Level(tier)
        for tier in tiers
    ]  # fmt: skip


def slow(random: Random, most: int) -> Callable[[], int]:
    """So many turns at most, mostly none."""
    return lambda: random.randrange(most) if random.random() < 0.3 else 0
