"""One server's region over tiers in memory: the paths between memory and the tiers, without sockets and commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

from tests.contract.levels import Disk, Shared, Store, Warm, levels_of, slow
from zeekdb.hot import region
from zeekdb.server.tensors import Tensors
from zeekdb.tensors.layout import Model
from zeekdb.tensors.region import Tenant
from zeekdb.tiers.stack import Stack
from zeekdb.tiers.tier import Meta

ARENA = 1 << 20


class Node:
    """One server's region, over tiers whose engines outlive it."""

    def __init__(self, log: list[tuple[Meta, bytes | None]], stores: dict[str, Store], random: Random) -> None:
        self.disk = Disk(log)
        self.warm = Warm(stores["warm"])
        self.objects = Shared("objects", stores["objects"])
        self.all = (self.disk, self.warm, self.objects)
        for tier in self.all:
            tier.faults.turns = slow(random, 30)
        config = SimpleNamespace(kv_versions=0)
        server: Any = SimpleNamespace(config=config, loop=asyncio.get_running_loop())
        self.tensors = Tensors(server)
        self.tensors.arena_bytes = ARENA
        self.below = self.tensors.below

    async def open(self, on_store: Sequence[str], has_disk: bool) -> None:
        self.tensors.region.declare(Model(b"m"))
        levels = levels_of(*(self.all if has_disk else self.all[1:]), on_store=on_store)
        await self.below.open(Stack(levels, self.below), ARENA)
        self.below.fleet.adopt_max = 1000
        self.tick()

    async def close(self) -> None:
        await self.below.close()
        for space in list(self.tensors.region.by_space):
            region.close_space(space)

    @property
    def tenant(self) -> Tenant:
        return self.tensors.region.tenant(b"m", b"")

    def tick(self) -> None:
        region.set_clock(int(time.time() * 1000))
        self.below.tick(1)
        region.relieve(ARENA // 10)
        self.below.write_soon()

    def set(self, key: bytes, value: bytes) -> bool:
        return self.tensors.replace_now(self.tenant, key, value, 0, None) >= 0

    def delete(self, key: bytes) -> asyncio.Future[None] | None:
        return self.tensors._remove(self.tenant, [key])[1]

    async def read(self, key: bytes) -> bytes | None:
        if not region.count_present(self.tenant.space, [key]):
            await self.below.fleet.find(self.tenant, [key], 20)
        (found,) = region.get(self.tenant.space, [key])
        if not isinstance(found, int):
            return bytes(memoryview(found)) if found is not None else None
        async with self.below.bringing(self.tenant, [key]) as coming:
            view = await coming[0].view() if coming[0] is not None else None
            return bytes(memoryview(view)) if view is not None else None

    def is_idle(self) -> bool:
        fleet, stack = self.below.fleet, self.below.tier
        self.tick()
        return not (
            fleet._shares or fleet._deletes or fleet._deleting or fleet._finds or fleet._sharing
            or self.below._tasks or self.below._gone or self.below._writing or region.totals()["spilling_bytes"]
            or stack is None or stack._late or stack._paying or any(level.owed for level in stack.levels)
        )  # fmt: skip
