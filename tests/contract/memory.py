"""The plainest tier that nodes share, dictionaries within one process: it tests the contract's tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from zeekdb.tiers.guard import Guard
from zeekdb.tiers.tier import Get, Held, Meta, Name, Put, SharedTier, TierStats, name_of, place_of

Store = dict[Name, tuple[Meta, bytes]]
PLACES: dict[str, Store] = {}
PAGE = 100


class MemoryTier(SharedTier):
    """`fails` is raised by every call to the engine while it is set."""

    name = "memory"

    def __init__(self, place: str) -> None:
        self.place = place
        self.store: Store = {}
        self.fails = ""
        self._stats = TierStats("memory", "closed")

    async def open(self) -> None:
        self.store = PLACES.setdefault(self.place, {})
        self._stats.state = "ok"

    def _is_up(self) -> bool:
        if self._stats.state == "closed":
            return False
        self._stats.state, self._stats.error = ("failing", self.fails) if self.fails else ("ok", "")
        return not self.fails

    @property
    def guards(self) -> Sequence[Guard]:
        return (Guard(self.name, self.probe, failures=(ConnectionError,)),)

    async def probe(self) -> None:
        if not self._is_up():
            raise ConnectionError(self.fails or "closed")

    async def scan(self) -> AsyncIterator[list[Held]]:
        now = time.time()
        live = [meta for meta, _ in self.store.values() if not meta.deadline or meta.deadline > now]
        for at in range(0, len(live), PAGE):
            yield [Held(meta, place_of(meta)) for meta in live[at : at + PAGE]]

    async def put(self, items: Sequence[Put]) -> list[int | None]:
        begin = time.monotonic_ns()
        await asyncio.sleep(0)
        if not self._is_up():
            return [None] * len(items)
        for meta, data in items:
            self.store[name_of(meta)] = (meta, bytes(data))
            self._stats.write.record(meta.size, time.monotonic_ns() - begin)
        return [place_of(item.meta) for item in items]

    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        begin = time.monotonic_ns()
        await asyncio.sleep(0)
        if not self._is_up():
            return [None] * len(items)
        out: list[bool | None] = []
        for meta, place, into in items:
            found = self.store.get(name_of(meta))
            good = found is not None and found[0].checksum == meta.checksum and place == place_of(meta)
            if found is not None and good:
                into[:] = found[1]
                self._stats.read.record(meta.size, time.monotonic_ns() - begin)
            else:
                self._stats.misses += 1
            out.append(good)
        return out

    async def delete(self, items: Sequence[Held]) -> list[bool]:
        if not self._is_up():
            return [False] * len(items)
        for meta, _ in items:
            found = self.store.get(name_of(meta))
            if found is not None and found[0].checksum == meta.checksum:
                del self.store[name_of(meta)]
                self._stats.deleted += 1
        return [True] * len(items)

    async def contains(self, items: Sequence[Held]) -> list[bool]:
        if not self._is_up():
            return [False] * len(items)
        return [self.store.get(name_of(meta), (None,))[0] == meta for meta, _ in items]

    async def find(self, names: Sequence[Name]) -> list[Meta | None]:
        if not self._is_up():
            return [None] * len(names)
        nothing: tuple[Any, ...] = (None,)
        return [self.store.get(name, nothing)[0] for name in names]

    def stats(self) -> TierStats:
        self._stats.blocks = len(self.store)
        self._stats.bytes = sum(meta.size for meta, _ in self.store.values())
        return self._stats

    async def close(self) -> None:
        self._stats.state = "closed"
