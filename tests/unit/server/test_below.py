"""Between memory and the tiers below: what is not lost, what does not come back, and who does not wait."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.node import ARENA, Node
from tests.contract.region import wait_until
from zeekdb.hot import region
from zeekdb.hot.arena import arena_close, arena_open
from zeekdb.hot.checksum import checksum
from zeekdb.server import below as below_module
from zeekdb.server import fleet as fleet_module
from zeekdb.server import versions as versions_module
from zeekdb.server.fetching import Reading
from zeekdb.tensors.layout import Model
from zeekdb.tensors.region import Range, Region
from zeekdb.tiers import stack as stack_module
from zeekdb.tiers.stack import BITS
from zeekdb.tiers.tier import Meta, Name, place_of

SSD, WARM, OBJECTS = BITS["ssd"], BITS["warm"], BITS["objects"]
ALL = ("warm",)


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(stack_module, "PATIENCE_S", 0.01)
    monkeypatch.setattr(fleet_module, "FORGET_S", 0.01)
    monkeypatch.setattr(below_module, "FORGET_S", 0.01)
    arena_open(ARENA)
    made = Node([], {"warm": {}, "objects": {}}, Random(1))
    for tier in made.all:
        tier.faults.turns = lambda: 0
    yield made
    for tier in made.all:
        tier.faults.gate.set()
    await made.close()
    gc.collect()
    arena_close()


def told(node: Node, key: bytes) -> dict[str, Any]:
    found = region.describe(node.tenant.space, key)
    assert found is not None
    return found


def levels(node: Node, key: bytes) -> int:
    return (told(node, key)["place"] or 0) >> 59 << 59


async def idle(node: Node) -> None:
    await wait_until(node.is_idle)


def meta_of(key: bytes, data: bytes, deadline: int = 0) -> Meta:
    return Meta(b"m", b"", key, len(data), checksum(memoryview(data)), deadline)


def event(kind: str, key: bytes, check: int = 0) -> Any:
    return SimpleNamespace(kind=kind, name=Name(b"m", b"", key), checksum=check)


def store(node: Node, key: bytes, data: bytes) -> Meta:
    """As another node does."""
    meta = meta_of(key, data)
    node.warm.store[Name(b"m", b"", key)] = (meta, data)
    return meta


# ---- down ------------------------------------------------------------------------------------------------------------


async def test_a_block_that_is_written_and_shared_at_once_can_leave_memory(node: Node) -> None:
    await node.open(ALL, False)
    node.warm.faults.gate.clear()
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    await wait_until(lambda: bool(node.warm.calls))
    assert region.demote(node.tenant.space, [b"a"]) == 1
    node.below.write_soon()
    await wait_until(lambda: bool(node.below._writing))
    node.warm.faults.gate.set()
    await idle(node)
    assert not told(node, b"a")["in_host"] and levels(node, b"a") == WARM
    assert await node.read(b"a") == b"data"


@pytest.mark.parametrize("fault", ["refuses", "silent"])
async def test_a_block_that_a_tier_fails_to_take_stays_in_memory(node: Node, fault: str) -> None:
    await node.open((), False)
    setattr(node.warm.faults, fault, True)
    setattr(node.objects.faults, fault, True)
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    region.demote(node.tenant.space, [b"a"])
    node.below.write_soon()
    await idle(node)
    assert told(node, b"a")["queue"] == "order"
    setattr(node.warm.faults, fault, False)
    region.demote(node.tenant.space, [b"a"])
    node.below.write_soon()
    await idle(node)
    assert not told(node, b"a")["in_host"] and await node.read(b"a") == b"data"


async def test_a_block_that_no_tier_ever_takes_goes_in_the_end(node: Node) -> None:
    await node.open((), False)
    node.warm.faults.refuses = node.objects.faults.refuses = True
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    for _ in range(below_module.SPILL_TRIES):
        assert region.describe(node.tenant.space, b"a") is not None
        region.demote(node.tenant.space, [b"a"])
        node.below.write_soon()
        await idle(node)
    assert region.describe(node.tenant.space, b"a") is None and not node.below._refused


async def test_a_block_shared_while_it_could_not_be_written_stays(node: Node) -> None:
    await node.open(ALL, True)
    node.warm.faults.gate.clear()
    node.disk.faults.gate.clear()
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    region.demote(node.tenant.space, [b"a"])
    node.below.write_soon()
    await wait_until(lambda: bool(node.below._writing) and bool(node.warm.calls))
    node.warm.faults.gate.set()
    await wait_until(lambda: levels(node, b"a") == WARM)
    node.disk.faults.refuses = True
    node.disk.faults.gate.set()
    await idle(node)
    assert await node.read(b"a") == b"data"


async def test_memory_does_not_let_go_for_tiers_that_are_away(node: Node) -> None:
    await node.open(ALL, True)
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    await idle(node)
    node.warm.faults.is_down = True
    node.tick()
    assert levels(node, b"a") == WARM
    region.demote(node.tenant.space, [b"a"])
    assert await node.read(b"a") == b"data"


async def test_as_many_blocks_sink_at_a_time_as_may(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(below_module, "SINKS_MAX", 3)
    await node.open(ALL, False)
    keys = [b"k%d" % number for number in range(10)]
    node.tensors.store_now(node.tenant, keys, list(keys))
    await idle(node)
    assert region.demote(node.tenant.space, keys) == 10
    assert node.below.sink(node.tenant, keys) == 3
    await idle(node)
    assert [await node.read(key) for key in keys] == keys


# ---- removing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_disk", [True, False])
async def test_who_deletes_does_not_wait_for_a_tier_that_hangs(node: Node, has_disk: bool) -> None:
    await node.open(ALL, has_disk)
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    await idle(node)
    node.warm.faults.gate.clear()
    for key in (b"a", b"nobody's"):
        buried = node.delete(key)
        assert buried is not None
        async with asyncio.timeout(5):
            await buried
    assert await node.read(b"a") is None
    node.warm.faults.gate.set()
    await idle(node)
    assert not node.warm.store and await node.read(b"a") is None


async def test_the_same_bytes_again_take_nothing_back(node: Node) -> None:
    await node.open(ALL, False)
    assert node.set(b"a", b"data")
    await idle(node)
    assert node.set(b"a", b"data")
    await idle(node)
    assert Name(b"m", b"", b"a") in node.warm.store and not node.below.fleet._dead
    assert region.demote(node.tenant.space, [b"a"]) == 1
    assert await node.read(b"a") == b"data"


async def test_a_model_that_is_declared_again_does_not_get_its_blocks_back(node: Node) -> None:
    await node.open(ALL, True)
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    await idle(node)
    node.warm.faults.gate.clear()
    node.tensors._forget(b"m")
    node.tensors.declare(Model(b"m"))
    assert not node.below.fleet.adopt(meta_of(b"a", b"data"), WARM)
    node.warm.faults.gate.set()
    await idle(node)
    assert not node.warm.store and await node.read(b"a") is None


async def test_what_has_expired_here_is_not_deleted_for_others(node: Node) -> None:
    await node.open(ALL, False)
    node.tensors.store_now(node.tenant, [b"a"], [b"data"], deadline_s=int(time.time()) + 100)
    await idle(node)
    fresh = store(node, b"a", b"data")  # of another node, for longer
    region.set_clock(int(time.time() * 1000) + 200_000)
    node.tensors._sweep()
    assert region.space_stats(node.tenant.space)["blocks"] == 0
    await idle(node)
    assert node.warm.store[Name(b"m", b"", b"a")][0] == fresh
    assert await node.read(b"a") == b"data"


async def test_deletions_that_wait_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "DELETES_MAX", 3)
    await node.open(ALL, False)
    node.warm.faults.gate.clear()
    for number in range(10):
        node.delete(b"k%d" % number)
    figures = node.below.fleet.figures()
    assert figures["deletes_waiting"] == 3 and figures["deletes_dropped"] == 7


async def test_the_end_does_not_wait_for_ever(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "CLOSE_S", 0.01)
    monkeypatch.setattr(fleet_module, "SHARE_BATCH", 1)
    await node.open(ALL, False)
    keys = [b"k%d" % number for number in range(100)]
    node.warm.faults.turns = lambda: 50 if node.below._stopping else 0
    node.warm.faults.gate.clear()
    node.tensors.store_now(node.tenant, keys, list(keys))
    closing = asyncio.ensure_future(node.below.close())
    await wait_until(lambda: node.below.fleet._is_given_up)
    node.warm.faults.gate.set()
    await closing
    assert len(node.warm.store) < len(keys)


# ---- other nodes -----------------------------------------------------------------------------------------------------


async def test_what_another_node_has_replaced_meanwhile_stays_there(node: Node) -> None:
    await node.open(ALL, False)
    node.warm.faults.gate.clear()
    node.tensors.store_now(node.tenant, [b"a"], [b"mine"])
    await wait_until(lambda: bool(node.warm.calls))
    node.warm.faults.gate.set()
    await idle(node)
    theirs = store(node, b"a", b"theirs")
    node.warm.hear(event("replaced", b"a", theirs.checksum))
    await idle(node)
    assert await node.read(b"a") == b"theirs"


async def test_what_another_node_stores_after_a_deletion_here_is_served(node: Node) -> None:
    """Also where its announcement was lost: nothing went wrong, so that it cannot be what was deleted."""
    await node.open(ALL, False)
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    await idle(node)
    node.delete(b"a")
    await wait_until(lambda: not node.below.fleet._deletes and not node.below.fleet._deleting)
    store(node, b"a", b"data")
    assert await node.read(b"a") == b"data"
    await idle(node)
    assert node.warm.store


async def test_what_comes_back_after_trouble_is_deleted_again(node: Node) -> None:
    await node.open(ALL, False)
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    await idle(node)
    node.warm.faults.is_down = True
    node.tick()
    node.delete(b"a")
    node.warm.faults.is_down = False
    node.tick()
    await wait_until(lambda: not node.warm.store)
    store(node, b"a", b"data")  # a put of before that was long on its way
    assert await node.read(b"a") is None
    await wait_until(lambda: not node.warm.store)


async def test_what_cannot_be_a_block_is_not_believed(node: Node) -> None:
    await node.open(ALL, False)
    fleet, good = node.below.fleet, meta_of(b"a", b"data")
    wrong: tuple[dict[str, Any], ...] = (
        {"size": 1 << 33}, {"size": 1 << 30}, {"deadline": 1 << 40}, {"key": bytes(1 << 20)}, {"codec": "x"},
    )  # fmt: skip
    for fields in wrong:
        assert not fleet.adopt(good._replace(**fields), WARM), fields
    assert not fleet.adopt(good._replace(deadline=1), WARM) and not fleet.adopt(good, 0)
    assert fleet.adopt(good, WARM)


async def test_an_answer_from_before_a_deletion_brings_nothing_back(node: Node) -> None:
    await node.open(ALL, False)
    store(node, b"a", b"data")
    answer, asked = asyncio.Event(), asyncio.Event()

    async def catalogue(names: Sequence[Name]) -> Any:
        asked.set()
        await answer.wait()
        return [(meta_of(name.key, b"data"), WARM) for name in names]

    node.below.fleet.catalogue = catalogue
    finding = asyncio.ensure_future(node.below.fleet.find(node.tenant, [b"a", b"b"], 60_000))
    await asked.wait()
    node.delete(b"a")
    await wait_until(lambda: not node.warm.store and not node.below.fleet._deleting)
    answer.set()
    await finding
    assert region.count_present(node.tenant.space, [b"a"]) == 0


async def test_who_has_what_is_asked_for_is_enough(node: Node) -> None:
    await node.open(ALL, False)
    store(node, b"a", b"data")
    node.objects.faults.gate.clear()
    async with asyncio.timeout(5):
        await node.below.fleet.find(node.tenant, [b"a"], 60_000)
    assert await node.read(b"a") == b"data"
    assert node.below.fleet.late == 0


async def test_what_the_catalogue_says_wrongly_is_believed_once(node: Node) -> None:
    async def catalogue(names: Sequence[Name]) -> Any:
        return [(meta_of(name.key, b"data"), WARM | BITS["postgres"]) for name in names]

    await node.open(ALL, False)
    node.below.fleet.catalogue = catalogue
    await node.below.fleet.find(node.tenant, [b"a"], 5000)
    assert levels(node, b"a") == WARM, "this node has no postgres"
    assert await node.read(b"a") is None
    await node.below.fleet.find(node.tenant, [b"a"], 5000)
    assert region.count_present(node.tenant.space, [b"a"]) == 0
    node.warm.hear(event("stored", b"a"))
    store(node, b"a", b"data")
    await wait_until(lambda: region.count_present(node.tenant.space, [b"a"]) == 1)


async def test_what_is_announced_is_looked_for_where_it_was_announced(node: Node) -> None:
    await node.open(ALL, False)
    store(node, b"a", b"data")
    node.warm.hear(event("stored", b"a"))
    await wait_until(lambda: region.count_present(node.tenant.space, [b"a"]) == 1)
    await idle(node)
    assert not node.objects.calls


# ---- up --------------------------------------------------------------------------------------------------------------


async def test_a_block_that_is_not_where_it_was_said_to_be_is_found_where_it_is(node: Node) -> None:
    await node.open((), False)
    data = b"data" * 100
    node.objects.store[Name(b"m", b"", b"a")] = (meta_of(b"a", data), data)
    assert node.below.fleet.adopt(meta_of(b"a", data), WARM), "as the catalogue has said, who was told late"
    fetching, tenant = node.tensors.fetching, node.tenant
    reading = Reading(tenant, [b"a"], 0, find_ms=5000)
    found = region.get(tenant.space, [b"a"])
    (view,) = await fetching._fetch_later(reading, found, [0], None, lambda views: [bytes(each) for each in views])
    assert view == data and levels(node, b"a") & OBJECTS


async def test_a_cold_block_keeps_its_deadline_and_group_on_its_way(node: Node) -> None:
    await node.open(("objects",), False)
    deadline_s = int(time.time()) + 1000
    node.tensors.store_now(node.tenant, [b"a"], [b"data"], deadline_s=deadline_s, group=b"g")
    await idle(node)
    region.demote(node.tenant.space, [b"a"])
    assert await node.read(b"a") == b"data"
    await idle(node)
    meta, _ = node.warm.store[Name(b"m", b"", b"a")]
    assert (meta.deadline, meta.group) == (deadline_s, b"g")


async def test_what_the_disk_cannot_read_is_not_forgotten_and_does_not_come_back_once_deleted(node: Node) -> None:
    await node.open((), True)
    node.tensors.store_now(node.tenant, [b"a"], [b"data"])
    region.demote(node.tenant.space, [b"a"])
    node.below.write_soon()
    await idle(node)
    store(node, b"a", b"data")
    assert node.below.fleet.adopt(meta_of(b"a", b"data"), WARM)
    assert levels(node, b"a") == SSD | WARM
    node.disk.bad.add(b"a")
    assert await node.read(b"a") == b"data"
    await idle(node)
    assert levels(node, b"a") == WARM and node.disk.log[-1][1] is None
    node.delete(b"a")
    await idle(node)
    assert [held async for held in node.disk.scan()] == [[]]


async def test_ranges_in_a_tier_that_is_away_are_not_forgotten() -> None:
    models = Region()
    models.declare(Model(b"m"))
    tenant = models.tenant(b"m", b"")
    added = models.add_range(tenant, b"s", 0, 0, 10)
    for name in added.names(b"s", 0):
        region.adopt(tenant.space, name, 10, 5, WARM | 5)
    region.set_away(WARM)
    try:
        assert region.count_present(tenant.space, list(added.names(b"s", 0))) == 0
        assert models.is_known(tenant, b"s", 0, added)
        models.add_range(tenant, b"other", 0, 0, 10)  # walks over the first
        assert tenant.positions[(b"s", 0)] == [added]
    finally:
        region.set_away(0)
        region.close_space(tenant.space)


async def test_a_range_that_is_taken_in_again_is_there_once() -> None:
    models = Region()
    models.declare(Model(b"m"))
    tenant = models.tenant(b"m", b"")
    keys, _ = Range(0, 10, 3).names(b"s", 0)
    models.adopt_range(tenant, keys)
    models.adopt_range(tenant, keys)
    assert tenant.positions == {(b"s", 0): [Range(0, 10, 3)]} and models.last_version == 3
    region.close_space(tenant.space)


async def test_set_does_not_wait_for_what_it_replaces(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions_module, "READ_S", 0.01)
    await node.open(ALL, False)
    node.tensors.store_now(node.tenant, [b"a"], [b"old"])
    await idle(node)
    region.demote(node.tenant.space, [b"a"])
    node.warm.faults.gate.clear()
    ctx: Any = SimpleNamespace(client=SimpleNamespace(user="u", addr="a"))
    async with asyncio.timeout(5):
        await node.tensors.versions.replace_below(ctx, node.tenant, b"a", b"new", 0, None, "SET")
    node.warm.faults.gate.set()
    await idle(node)
    assert await node.read(b"a") == b"new"
    assert node.warm.store[Name(b"m", b"", b"a")][0].checksum == meta_of(b"a", b"new").checksum
    assert place_of(meta_of(b"a", b"new")) == told(node, b"a")["checksum"] & ((1 << 59) - 1)
