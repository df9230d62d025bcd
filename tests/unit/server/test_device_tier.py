"""The GPU tier where the device misbehaves: copies that fail, or bring other bytes, memory that is not to be had."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from zeekdb.errors import Unavailable
from zeekdb.hot import region, region_device
from zeekdb.hot.arena import arena_close, arena_open
from zeekdb.server import device_tier
from zeekdb.server.device_tier import DeviceTier, TwinDevice
from zeekdb.tensors.device import COPIES_MAX, ArenaBusy, DeviceArena, HostLane, HostTwin, Lane
from zeekdb.tensors.layout import Layout, Model
from zeekdb.tensors.region import Region, Tenant

LAYOUT = Layout(2, 2, 64, "f32", 8)
SIZE = LAYOUT.block_bytes
SLOTS = 4
MODEL = Model(b"m", LAYOUT)


class FailingLane(HostLane):
    """Copies as told by its arena."""

    arena: FailingTwin

    def copy(self, slab: Any, offset: int, host: Any) -> None:
        if self.arena.fails:
            raise RuntimeError("an illegal address")
        super().copy(slab, offset, host)


class FailingTwin(HostTwin):
    """A twin that fails when told to."""

    fails = False

    def __init__(self, slots: int, slot_bytes: int, device: Fake) -> None:
        self.device = device
        super().__init__(slots, slot_bytes)

    def _release(self) -> None:
        super()._release()
        self.device.open_now -= 1

    def _lane(self, upload: bool) -> Lane:
        lane = FailingLane(upload)
        lane.arena = self
        return lane


class Fake(TwinDevice):
    """Memory of failing twins."""

    no_lock = ""
    open_now = 0
    most_open = 0
    no_memory = ""

    def open(self, slots: int, slot_bytes: int) -> DeviceArena:
        if self.no_memory:
            raise Unavailable(self.no_memory)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        return FailingTwin(slots, slot_bytes, self)

    def lock(self, memory: memoryview) -> Callable[[], None]:
        if self.no_lock:
            raise Unavailable(self.no_lock)
        return super().lock(memory)


class House:
    """What the tier needs of `server.tensors.Tensors`."""

    def __init__(self, size: int = 1 << 20) -> None:
        arena_open(size)
        self.arena_bytes = size
        self.stopping = False
        self.region = Region()
        config = SimpleNamespace(kv_gpu=((b"m", SLOTS * SIZE),), kv_gpu_twin=True)
        self.server = SimpleNamespace(config=config)
        self.gpu = DeviceTier(self)  # type: ignore[arg-type]
        self.device = Fake()

    async def settle(self) -> None:
        while self.gpu.tasks:
            await asyncio.gather(*self.gpu.tasks)

    async def start(self) -> Tenant:
        self.region.declare(MODEL)
        await self.gpu.start()
        self.gpu.device = self.device
        await self.settle()
        return self.region.tenant(b"m", b"")

    @property
    def arena(self) -> FailingTwin:
        arena = self.gpu.models[b"m"].arena
        assert isinstance(arena, FailingTwin)
        return arena

    @property
    def row(self) -> dict[str, Any]:
        found = self.gpu.tier()
        assert found is not None
        return found

    async def heat(self, tenant: Tenant, key: bytes) -> None:
        """Uses a block until it is wanted, and lets it go up."""
        for _ in range(4):
            region.lookup(tenant.space, [key])
        self.gpu.tick()
        await self.settle()

    async def bring(self, tenant: Tenant, key: bytes) -> bytes | None:
        (found,) = await self.gpu.bring(tenant, [key])
        return bytes(memoryview(found)) if found is not None else None


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    house.stopping = True
    await house.gpu.stop()
    for space in list(house.region.by_space):
        region.close_space(space)
    house.region.devices.clear()
    gc.collect()
    arena_close()  # refuses while anybody holds a block


def block(key: bytes) -> bytes:
    return (key * SIZE)[:SIZE]


def put(tenant: Tenant, *keys: bytes) -> None:
    assert region.put(tenant.space, list(keys), [block(key) for key in keys]) == [1] * len(keys)


def push_out(tenant: Tenant, *keys: bytes) -> None:
    """Stores others until host memory has let go of these."""
    for at in range(100 * (1 << 20) // SIZE):
        put(tenant, b"filler%d" % at)
        if all(each == -1 for each in region.get(tenant.space, list(keys), False)):
            return
    raise AssertionError("they stay")


async def test_up_and_down(house: House) -> None:
    tenant = await house.start()
    put(tenant, b"a")
    await house.heat(tenant, b"a")
    push_out(tenant, b"a")
    assert region.get(tenant.space, [b"a"]) == [-1]
    assert await house.bring(tenant, b"a") == block(b"a")
    assert (house.row["promotions"], house.row["demotions"], house.row["state"]) == (1, 1, b"ok")


async def test_a_failed_promotion_changes_nothing_and_is_tried_again(house: House) -> None:
    tenant = await house.start()
    put(tenant, b"a")
    house.arena.fails = True
    await house.heat(tenant, b"a")
    assert house.row["state"] == b"failing" and b"illegal" in house.row["error"] and house.row["write_errors"] == 1
    assert region.lookup(tenant.space, [b"a"])[2] == b"\2" and house.arena.free == SLOTS
    house.arena.fails = False
    await house.heat(tenant, b"a")
    assert house.row["blocks"] == 0  # not so soon
    house.gpu.models[b"m"].retry_at_s = 0.0
    await house.heat(tenant, b"a")
    assert house.row["blocks"] == 1 and house.row["state"] == b"ok"


async def test_what_cannot_be_read_is_a_miss(house: House) -> None:
    tenant = await house.start()
    put(tenant, b"a", b"b")
    await house.heat(tenant, b"a")
    await house.heat(tenant, b"b")
    region.pin(tenant.space, [b"a"], True)
    push_out(tenant, b"b")
    house.arena.fails = True
    assert await house.bring(tenant, b"b") is None
    assert region.count_present(tenant.space, [b"a", b"b"]) == 1  # host memory has the pinned one
    assert house.row["state"] == b"failing" and house.row["blocks"] == 1


async def test_bytes_that_have_changed_are_a_miss(house: House) -> None:
    tenant = await house.start()
    put(tenant, b"a")
    await house.heat(tenant, b"a")
    push_out(tenant, b"a")
    held = region_device.held(tenant.space, b"a")
    assert held is not None
    house.arena.array(held[0])[17] ^= 1
    assert await house.bring(tenant, b"a") is None
    assert house.row["corrupt"] == 1 and house.row["blocks"] == 0
    assert region.count_present(tenant.space, [b"a"]) == 0


async def test_a_busy_bus_is_no_failure(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = await house.start()
    put(tenant, b"a")

    def busy(*_: Any) -> None:
        raise ArenaBusy("too many copies are waiting")

    with monkeypatch.context() as patched:
        patched.setattr(house.arena, "upload", busy)
        await house.heat(tenant, b"a")
    assert house.row["state"] == b"ok" and house.row["blocks"] == 0 and house.arena.free == SLOTS
    await house.heat(tenant, b"a")
    assert house.row["blocks"] == 1
    assert device_tier.DOWNLOADS_MAX < COPIES_MAX and device_tier.UPLOADS_MAX < COPIES_MAX


async def test_a_block_replaced_during_its_copy(house: House) -> None:
    tenant = await house.start()
    put(tenant, b"a")
    for _ in range(4):
        region.lookup(tenant.space, [b"a"])
    house.gpu.tick()
    region.replace(tenant.space, b"a", block(b"other"))
    await house.settle()
    assert house.row["blocks"] == 0 and house.arena.free == SLOTS
    await house.heat(tenant, b"a")
    push_out(tenant, b"a")
    assert await house.bring(tenant, b"a") == block(b"other")


async def test_a_block_removed_during_its_way_down(house: House) -> None:
    tenant = await house.start()
    put(tenant, b"a")
    await house.heat(tenant, b"a")
    push_out(tenant, b"a")
    coming = asyncio.ensure_future(house.bring(tenant, b"a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    region.remove(tenant.space, [b"a"])
    assert await coming in (block(b"a"), None)  # it was there when it was asked for
    assert region.count_present(tenant.space, [b"a"]) == 0
    await house.heat(tenant, b"a")
    house.gpu.tick()
    assert house.arena.free == SLOTS


async def test_many_ask_and_some_give_up(house: House) -> None:
    tenant = await house.start()
    put(tenant, b"a")
    await house.heat(tenant, b"a")
    push_out(tenant, b"a")
    asking = [asyncio.ensure_future(house.bring(tenant, b"a")) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError) and found[1:] == [block(b"a")] * 4
    assert house.row["demotions"] == 1  # one copy for all


async def test_what_is_on_its_way_down_is_not_sent_again(house: House) -> None:
    tenant = await house.start()
    put(tenant, b"a", b"b")
    for key in (b"a", b"b"):
        await house.heat(tenant, key)
    push_out(tenant, b"a", b"b")
    for _ in range(100):
        assert house.gpu.demote(tenant, [b"a", b"b"]) == (2, [])
        assert len(house.gpu.tasks) == 1
    await house.settle()
    assert house.row["demotions"] == 2 and house.arena.free == SLOTS - 2  # until it is collected
    house.gpu.tick()
    assert house.arena.free == SLOTS
    assert not house.gpu.models[b"m"].demoting
    assert house.gpu.demote(tenant, [b"a"]) == (0, [b"a"])


async def test_without_page_locks_copies_are_staged(house: House) -> None:
    house.device.no_lock = "not permitted"
    tenant = await house.start()
    put(tenant, b"a")
    await house.heat(tenant, b"a")
    push_out(tenant, b"a")
    assert await house.bring(tenant, b"a") == block(b"a")
    assert house.row["page_locked"] == 0


async def test_without_device_memory_the_model_stays_below(house: House) -> None:
    house.device.no_memory = "out of memory"
    tenant = await house.start()
    put(tenant, b"a")
    await house.heat(tenant, b"a")
    assert house.row["state"] == b"failing" and b"out of memory" in house.row["error"]
    assert house.gpu.prefetch(tenant, [b"a"]) == 0 and house.gpu.demote(tenant, [b"a"]) == (0, [b"a"])


async def test_another_layout_gets_other_slots(house: House) -> None:
    await house.start()
    first = house.arena
    wider = Model(b"m", Layout(2, 2, 128, "f32", 8))
    house.region.declare(wider)
    house.gpu.declare(wider)
    await house.settle()
    assert house.device.most_open == 1  # the device may have no room for both
    assert house.arena is not first and house.arena.slot_bytes == 2 * SIZE and house.arena.slots == SLOTS // 2
    house.region.declare(Model(b"m", ttl_s=5))
    house.gpu.declare(Model(b"m"))  # opaque: none
    await house.settle()
    assert b"m" not in house.gpu.models
