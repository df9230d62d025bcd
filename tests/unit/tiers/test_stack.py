"""The tiers below as one, over tiers in memory that fail as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.contract.levels import Disk, Shared, Warm, levels_of
from tests.contract.region import block, wait_until
from zeekdb.tiers import stack as stack_module
from zeekdb.tiers.stack import BITS, PLACE_BITS, SsdOwner, Stack
from zeekdb.tiers.tier import PLACE_LOCAL, Get, Held, Meta, Name, Put, name_of, place_of

SSD, WARM, POSTGRES, OBJECTS = (BITS[name] for name in ("ssd", "warm", "postgres", "objects"))


class Index:
    """The region, as the stack sees it."""

    def __init__(self) -> None:
        self.blocks: dict[Name, list[int]] = {}  # checksum, place (-1: in memory alone)
        self.buried: list[Held] = []
        self.away_bits = 0

    def take(self, *items: Put) -> None:
        for item in items:
            self.blocks[name_of(item.meta)] = [item.meta.checksum, -1]

    def place(self, meta: Meta) -> int:
        return self.blocks[name_of(meta)][1]

    def is_wanted(self, meta: Meta) -> bool:
        return self.blocks.get(name_of(meta), [None])[0] == meta.checksum

    def is_live(self, meta: Meta, place: int) -> bool:
        checksum, here = self.blocks.get(name_of(meta), (0, -1))
        if here < 0 or place >> PLACE_BITS & ~(here >> PLACE_BITS):
            return False
        local = place & PLACE_LOCAL
        return local == here & PLACE_LOCAL if place & SSD else local in (0, checksum & PLACE_LOCAL)

    def is_worth(self, meta: Meta, place: int) -> bool:
        return False

    def moved(self, meta: Meta, old_place: int, new_place: int) -> bool:
        raise NotImplementedError

    def dropped(self, meta: Meta, place: int) -> None:
        if not self.is_live(meta, place):
            return
        checksum, here = self.blocks[name_of(meta)]
        bits = here & ~PLACE_LOCAL & ~place
        if not bits:
            del self.blocks[name_of(meta)]
        else:
            self.blocks[name_of(meta)][1] = bits | (here if bits & SSD else checksum) & PLACE_LOCAL

    def lost(self, meta: Meta, place: int) -> None:
        if self.is_live(meta, place):
            self.dropped(meta, place)
            self.buried.append(Held(meta, place))

    def goes_down(self, meta: Meta, place: int) -> bool:
        return False

    async def hand_down(self, items: Sequence[Put]) -> list[bool]:
        raise NotImplementedError

    def added(self, meta: Meta, place: int) -> bool:
        if not self.is_wanted(meta):
            return False
        here = max(self.place(meta), 0)
        local = place if place & SSD or not here else here
        self.blocks[name_of(meta)][1] = (here | place) & ~PLACE_LOCAL | local & PLACE_LOCAL
        return True

    def away(self, bits: int) -> None:
        self.away_bits = bits


class Rig:
    """A stack of all four."""

    def __init__(self, on_store: Sequence[str] = ("warm",)) -> None:
        self.index = Index()
        self.ssd, self.warm = Disk(), Warm()
        self.postgres, self.objects = Shared("postgres"), Shared("objects")
        self.stack = Stack(levels_of(self.ssd, self.warm, self.postgres, self.objects, on_store=on_store), self.index)
        self.ssd_owner = SsdOwner(self.index)
        self.ssd_owner.stack = self.stack

    async def share(self, *items: Put) -> list[int | None]:
        self.index.take(*items)
        return await self.stack.share(items)

    async def put(self, *items: Put) -> list[int | None]:
        """As the region writes: what is not noted yet is at once."""
        self.index.take(*items)
        places = await self.stack.put(items)
        for item, place in zip(items, places, strict=True):
            if place is not None:
                self.index.added(item.meta, place)
        return places

    async def read(self, item: Put) -> bytes | bool | None:
        into = memoryview(bytearray(item.meta.size))
        (answer,) = await self.stack.get([Get(item.meta, self.index.place(item.meta), into)])
        return bytes(into) if answer else answer


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(stack_module, "PATIENCE_S", 0.01)
    rig = Rig()
    await rig.stack.open()
    return rig


A, B = block(1, 100, key=b"a"), block(2, 100, key=b"b")
A2 = block(3, 100, key=b"a")  # other bytes under the name of A


# ---- down ------------------------------------------------------------------------------------------------------------


async def test_what_is_shared_goes_nowhere_else(rig: Rig) -> None:
    assert await rig.put(A) == [WARM | place_of(A.meta)]
    assert not rig.ssd.log and await rig.read(A) == A.data


async def test_what_no_shared_tier_takes_goes_to_the_disk_and_what_the_disk_does_not_take_to_others(rig: Rig) -> None:
    rig.warm.faults.refuses = True
    rig.ssd.room = 100
    large = block(5, 200)
    assert await rig.put(A, large, B) == [SSD | 1, POSTGRES | place_of(large.meta), SSD | 2]
    assert [await rig.read(each) for each in (A, large, B)] == [A.data, large.data, B.data]


async def test_a_shared_tier_that_hangs_does_not_hold_up_the_disk(rig: Rig) -> None:
    rig.warm.faults.gate.clear()
    for number in range(10):
        item = block(100 + number, 10)
        assert await rig.put(item) == [SSD | number + 1]
    assert await rig.read(block(100, 10)) == block(100, 10).data
    rig.warm.faults.gate.set()
    first = block(100, 10).meta
    await wait_until(lambda: rig.index.place(first) & WARM != 0, what="what was begun is noted")
    assert rig.index.place(first) == SSD | WARM | 1
    await rig.stack.close()


async def test_a_tier_that_hangs_keeps_the_others_from_nothing(rig: Rig) -> None:
    rig.stack = Stack(levels_of(rig.warm, rig.objects, on_store=("warm", "objects")), rig.index)
    rig.objects.faults.gate.clear()
    sharing = asyncio.ensure_future(rig.share(A))
    await wait_until(lambda: name_of(A.meta) in rig.warm.store and rig.index.place(A.meta) > 0)
    assert rig.index.place(A.meta) == WARM | place_of(A.meta)
    rig.objects.faults.gate.set()
    assert await sharing == [WARM | OBJECTS | place_of(A.meta)]


# ---- puts and deletions of one name ----------------------------------------------------------------------------------


async def test_what_is_removed_while_it_is_put_goes_out_again(rig: Rig) -> None:
    rig.warm.faults.gate.clear()
    sharing = asyncio.ensure_future(rig.share(A))
    await wait_until(lambda: bool(rig.warm.calls))
    rig.index.blocks.clear()
    rig.warm.faults.gate.set()
    assert await sharing == [None]
    assert not rig.warm.store


async def test_what_is_replaced_before_its_turn_is_not_put(rig: Rig) -> None:
    """It would take the place of its successor, which a quicker task has put there."""
    rig.warm.faults.gate.clear()
    other = asyncio.ensure_future(rig.share(B))
    await wait_until(lambda: bool(rig.warm.calls))
    successor = asyncio.ensure_future(rig.share(A2))
    await asyncio.sleep(0)
    late = asyncio.ensure_future(rig.stack.share([A]))
    rig.warm.faults.gate.set()
    assert await late == [None]
    assert await other == [WARM | place_of(B.meta)] and await successor == [WARM | place_of(A2.meta)]
    assert rig.warm.store[name_of(A.meta)][1] == A2.data


async def test_a_deletion_does_not_take_the_next_block_of_the_name(rig: Rig) -> None:
    await rig.share(A)
    rig.warm.faults.gate.clear()
    other = asyncio.ensure_future(rig.share(B))
    await wait_until(lambda: len(rig.warm.calls) == 2)
    del rig.index.blocks[name_of(A.meta)]
    successor = asyncio.ensure_future(rig.share(A2))
    await asyncio.sleep(0)
    deleting = asyncio.ensure_future(rig.stack.delete([Held(A.meta, WARM)]))
    rig.warm.faults.gate.set()
    await asyncio.gather(other, successor)
    assert await deleting == [True]
    assert await rig.read(A2) == A2.data


async def test_what_is_owed_does_not_take_the_next_block_of_the_name(rig: Rig) -> None:
    await rig.share(A)
    rig.warm.faults.is_down = True
    del rig.index.blocks[name_of(A.meta)]
    assert await rig.stack.delete([Held(A.meta, WARM)]) == [False]
    assert rig.stack.is_owed(name_of(A.meta), WARM) and not rig.stack.is_owed(name_of(A.meta), OBJECTS)
    rig.warm.faults.is_down = False
    rig.warm.faults.gate.clear()
    successor = asyncio.ensure_future(rig.share(A2))
    await asyncio.sleep(0)
    rig.stack.tick()
    rig.warm.faults.gate.set()
    await successor
    await wait_until(lambda: not rig.stack.by_name["warm"].owed)
    assert await rig.read(A2) == A2.data


async def test_what_is_owed_is_told_once_the_tier_is_back(rig: Rig) -> None:
    items = [block(seed, 10) for seed in range(10, 20)]
    await rig.share(*items)
    rig.warm.faults.silent = True
    rig.index.blocks.clear()
    assert await rig.stack.delete([Held(item.meta, WARM) for item in items]) == [False] * 10
    assert rig.stack.tier_stats()[1].more["deletes_owed"] == 10
    rig.warm.faults.silent = False
    rig.stack.tick()
    await wait_until(lambda: not rig.warm.store)
    assert rig.stack.tier_stats()[1].more["deletes_owed"] == 0


async def test_a_deletion_waits_for_no_other_tier(rig: Rig) -> None:
    await rig.share(A)
    rig.objects.faults.gate.clear()
    rig.postgres.faults.gate.clear()
    del rig.index.blocks[name_of(A.meta)]
    deleting = asyncio.ensure_future(rig.stack.delete([Held(A.meta, rig.stack.everywhere(None))]))
    await wait_until(lambda: not rig.warm.store)
    rig.objects.faults.gate.set()
    rig.postgres.faults.gate.set()
    assert await deleting == [True]


# ---- up --------------------------------------------------------------------------------------------------------------


async def test_what_the_disk_cannot_read_comes_from_another_tier_and_is_buried_there(rig: Rig) -> None:
    await rig.share(A)
    (place,) = await rig.ssd.put([A])
    rig.index.added(A.meta, SSD | (place or 0))
    rig.ssd.bad.add(b"a")
    assert await rig.read(A) == A.data
    assert rig.index.place(A.meta) == WARM | place_of(A.meta)
    assert rig.index.buried == [Held(A.meta, SSD | 1)], "a start would bring it back after it was deleted"


async def test_what_cannot_be_asked_is_not_forgotten(rig: Rig) -> None:
    await rig.share(A)
    (place,) = await rig.ssd.put([A])
    rig.index.added(A.meta, SSD | (place or 0))
    rig.ssd.bad.add(b"a")
    rig.warm.faults.silent = True
    assert await rig.read(A) is None
    rig.warm.faults.silent = False
    assert await rig.read(A) == A.data


async def test_a_block_in_tiers_that_this_node_has_not_got_is_forgotten(rig: Rig) -> None:
    rig.stack = Stack(levels_of(rig.warm), rig.index)
    rig.index.take(A)
    rig.index.added(A.meta, OBJECTS | place_of(A.meta))
    assert await rig.read(A) is False
    assert not rig.index.blocks


async def test_what_was_replaced_meanwhile_is_not_held_against_its_successor(rig: Rig) -> None:
    await rig.share(A2)
    into = memoryview(bytearray(100))
    assert await rig.stack.get([Get(A.meta, WARM | place_of(A.meta), into)]) == [False]
    assert await rig.read(A2) == A2.data


async def test_a_cold_block_is_read_once_for_all_and_keeps_its_deadline(rig: Rig) -> None:
    item = block(7, 50, deadline=1 << 31)
    rig.warm.faults.is_down = True
    rig.index.take(item)
    await rig.stack.put_into([rig.stack.by_name["objects"]], [item])
    rig.warm.faults.is_down = False
    assert await asyncio.gather(*(rig.read(item) for _ in range(20))) == [item.data] * 20
    assert sum(what == "get" for what, _ in rig.objects.calls) == 1
    assert rig.warm.store[name_of(item.meta)][0] == item.meta


async def test_a_reader_does_not_wait_for_a_warm_tier_that_hangs(rig: Rig) -> None:
    rig.index.take(A)
    await rig.stack.put_into([rig.stack.by_name["objects"]], [A])
    rig.warm.faults.gate.clear()
    assert await rig.read(A) == A.data
    assert rig.index.place(A.meta) == OBJECTS | place_of(A.meta)
    rig.warm.faults.gate.set()
    await wait_until(lambda: rig.index.place(A.meta) & WARM != 0)


# ---- from one to the next --------------------------------------------------------------------------------------------


async def demote(rig: Rig, item: Put) -> bool:
    into = memoryview(bytearray(item.meta.size))
    return await rig.stack.demote(Get(item.meta, rig.index.place(item.meta), into))


async def test_down_through_every_tier_and_back(rig: Rig) -> None:
    rig.warm.faults.refuses = True
    await rig.put(A)
    rig.warm.faults.refuses = False
    for bit in (WARM, POSTGRES, OBJECTS):
        assert await demote(rig, A)
        assert rig.index.place(A.meta) == bit | place_of(A.meta)
    assert rig.index.buried == [Held(A.meta, SSD | 1)]
    assert not rig.warm.store and not rig.postgres.store
    assert not await demote(rig, A), "there is nothing below"
    assert await rig.read(A) == A.data


async def test_what_the_lower_tier_has_lost_is_put_there_again_before_the_upper_lets_go(rig: Rig) -> None:
    await rig.share(A)
    (place,) = await rig.ssd.put([A])
    rig.index.added(A.meta, SSD | (place or 0))
    rig.warm.store.clear()
    assert await demote(rig, A)
    assert await rig.read(A) == A.data


async def test_what_no_lower_tier_takes_stays(rig: Rig) -> None:
    rig.warm.faults.refuses = rig.postgres.faults.refuses = rig.objects.faults.refuses = True
    await rig.put(A)
    assert not await demote(rig, A)
    assert await rig.read(A) == A.data and not rig.index.buried


async def test_a_block_replaced_on_its_way_down_takes_nothing_of_its_successor(rig: Rig) -> None:
    await rig.share(A)
    rig.postgres.faults.gate.clear()
    sinking = asyncio.ensure_future(demote(rig, A))
    await wait_until(lambda: ("put", [b"a"]) in rig.postgres.calls)
    await rig.share(A2)
    rig.postgres.faults.gate.set()
    await sinking
    assert await rig.read(A2) == A2.data
    assert not rig.postgres.store


async def test_the_disk_hands_down_also_what_a_lower_tier_once_had(rig: Rig) -> None:
    await rig.share(A, B)
    for item in (A, B):
        (place,) = await rig.ssd.put([item])
        rig.index.added(item.meta, SSD | (place or 0))
    del rig.warm.store[name_of(A.meta)]  # its time to live is over
    assert rig.ssd_owner.goes_down(A.meta, 1) and rig.ssd_owner.goes_down(B.meta, 2)
    rig.warm.calls.clear()
    assert await rig.ssd_owner.hand_down([A, B]) == [True, True]
    assert ("put", [b"a"]) in rig.warm.calls, "B is still there"
    rig.ssd_owner.dropped(A.meta, 1)
    assert await rig.read(A) == A.data


# ---- beginning and end -----------------------------------------------------------------------------------------------


async def test_a_check_that_breaks_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(rig.warm, "check", check)
    monkeypatch.setattr(stack_module, "CHECK_S", 0.0)
    rig.stack._check_at = 0.0
    rig.stack.tick()
    await wait_until(lambda: "a bug" in caplog.text)


async def test_tiers_that_are_down_are_away(rig: Rig) -> None:
    rig.warm.faults.is_down = True
    rig.stack.tick()
    assert rig.index.away_bits == WARM
    rig.warm.faults.is_down = False
    rig.stack.tick()
    assert rig.index.away_bits == 0


async def test_the_end_waits_for_what_goes_on_by_itself(rig: Rig) -> None:
    rig.warm.faults.gate.clear()
    await rig.put(A)
    closing = asyncio.ensure_future(rig.stack.close())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not closing.done()
    rig.warm.faults.gate.set()
    await closing
    assert rig.index.place(A.meta) == SSD | WARM | 1
