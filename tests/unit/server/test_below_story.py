"""Random stories of one node over tiers that fail at random, held against what was acknowledged.

What is checked: a read that begins after a command was acknowledged never gives other bytes than the last ones, and
nothing of what was deleted; with a disk that works everything that was acknowledged is there in the end; all queues
drain; what was deleted is in no tier then, and does not come back after a start.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from tests.contract.levels import Store
from tests.contract.node import ARENA, Node
from tests.contract.region import wait_until
from zeekdb.hot import region
from zeekdb.hot.arena import arena_close, arena_open
from zeekdb.hot.checksum import checksum
from zeekdb.server import below as below_module
from zeekdb.server import fleet as fleet_module
from zeekdb.tensors.layout import Model
from zeekdb.tiers import stack as stack_module
from zeekdb.tiers.tier import Meta

SIZE = 12_000
KEYS = [b"k%d" % number for number in range(12)]
STEPS = 250
WELL_S = 0.05


class Story:
    """What was acknowledged, and when."""

    def __init__(self, seed: int, is_disk_sound: bool) -> None:
        self.random = Random(seed)
        self.is_disk_sound = is_disk_sound
        self.log: list[tuple[Meta, bytes | None]] = []
        self.stores: dict[str, Store] = {"warm": {}, "objects": {}}
        self.said: dict[bytes, list[bytes | None]] = {key: [None] for key in KEYS}  # what each was, in time
        self.count = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.node = Node(self.log, self.stores, self.random)

    def content(self) -> bytes:
        self.count += 1
        return self.random.randbytes(self.random.choice((1, SIZE // 2, SIZE)))

    def now(self, key: bytes) -> bytes | None:
        return self.said[key][-1]

    async def reads(self, key: bytes) -> None:
        begin = len(self.said[key]) - 1
        found = await self.node.read(key)
        known = self.said[key][begin:]
        assert found is None or found in known, f"{key!r}: bytes of another time, or of none"

    def spawn(self, work: Any) -> None:
        self.tasks.add(asyncio.get_running_loop().create_task(work))

    def fail(self) -> None:
        tier = self.random.choice(self.node.all[1:] if self.is_disk_sound else self.node.all)
        what = self.random.choice(("is_down", "refuses", "silent", "gate", "well", "well"))
        if what == "gate":
            tier.faults.gate.clear()
            return
        tier.faults.gate.set()
        for fault in ("is_down", "refuses", "silent"):
            setattr(tier.faults, fault, fault == what and not (tier is self.node.disk and fault == "silent"))

    def heal(self) -> None:
        for tier in self.node.all:
            tier.faults.gate.set()
            tier.faults.is_down = tier.faults.refuses = tier.faults.silent = False

    async def step(self) -> None:
        key = self.random.choice(KEYS)
        kind = self.random.choices(
            ("set", "same", "filler", "read", "delete", "demote", "sink", "fail", "tick", "turns", "pin", "lease",
             "model", "lose"),
            (50, 10, 90, 60, 20, 20, 20, 10, 40, 40, 10, 10, 1, 0 if self.is_disk_sound else 5),
        )[0]
        node, space = self.node, self.node.tenant.space
        if kind == "set" or (kind == "same" and self.now(key) is not None):
            value = self.content() if kind == "set" else self.now(key) or b""
            self.said[key] += [value] if node.set(key, value) else [value, None]
        elif kind == "filler":
            keys = [b"filler%d.%d" % (self.count, number) for number in range(self.random.choice((1, 1, 2)))]
            node.tensors.store_now(node.tenant, keys, [self.content() for _ in keys], group=b"g%d" % (self.count % 50))
        elif kind == "read":
            self.spawn(self.reads(key))
        elif kind == "delete":
            self.said[key].append(None)
            node.delete(key)
        elif kind == "demote":
            region.demote(space, [key])
        elif kind == "sink":
            node.below.sink(node.tenant, [key])
        elif kind == "fail":
            self.fail()
        elif kind == "pin":
            region.pin(space, [key], self.random.random() < 0.3)
        elif kind == "lease":
            region.lookup(space, [key], 20)
        elif kind == "model":
            for said in self.said.values():
                said.append(None)
            node.tensors._forget(b"m")
            node.tensors.declare(Model(b"m"))
        elif kind == "lose":
            self.random.choice([*self.stores.values()]).clear()
        elif kind == "tick":
            node.tick()
        else:
            for _ in range(self.random.randrange(40)):
                await asyncio.sleep(0)

    async def settle(self) -> None:
        self.heal()
        await wait_until(lambda: self.node.is_idle() and not self.node.below.fleet._dead, what="everything drains")
        await asyncio.gather(*self.tasks)

    async def check(self, is_all_there: bool) -> None:
        for key in KEYS:
            found = await self.node.read(key)
            assert found in (self.now(key), None if not is_all_there else self.now(key)), key
        for store in self.stores.values():
            for name, (meta, data) in store.items():
                assert checksum(memoryview(data)) == meta.checksum
                if name.key in self.said:
                    assert data == self.now(name.key), f"{name.key!r} is still there"


@pytest.fixture
async def arena(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(stack_module, "PATIENCE_S", 0.005)
    monkeypatch.setattr(stack_module, "WAIT_S", 0.05)
    monkeypatch.setattr(fleet_module, "DEAD_S", WELL_S)
    monkeypatch.setattr(fleet_module, "FORGET_S", 0.02)
    monkeypatch.setattr(fleet_module, "UNKNOWN_S", 0.0)
    monkeypatch.setattr(below_module, "ROOM_WAIT_S", 0.05)
    arena_open(ARENA)
    yield
    gc.collect()
    arena_close()


@pytest.mark.parametrize("is_disk_sound", [True, False])
@pytest.mark.parametrize("seed", range(6))
async def test_a_story(arena: None, seed: int, is_disk_sound: bool) -> None:
    story = Story(seed, is_disk_sound)
    on_store = (("warm",), ("warm", "objects"), ())[seed % 3]
    await story.node.open(on_store, is_disk_sound or seed % 2 == 0)
    for _ in range(STEPS):
        await story.step()
    await story.settle()
    await story.check(is_disk_sound)
    below = {
        key for key in KEYS
        if (known := region.describe(story.node.tenant.space, key)) is not None and known["place"] is not None
    }  # fmt: skip
    await story.node.close()
    story.node = Node(story.log, story.stores, story.random)
    await story.node.open(("warm",), True)
    story.node.below.fleet.adopt_soon()
    await wait_until(lambda: story.node.below.fleet._adopting is None)
    for key in KEYS:
        found = await story.node.read(key)
        assert found == story.now(key) or (found is None and not (is_disk_sound and key in below)), key
    await story.node.close()
