"""The index's slots on a device: each promise, and random calls against what a dictionary says."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.unit.tensors.spaces import MIB, Clock, fill, opened, put, told, value
from zeekdb.hot import region, region_device
from zeekdb.hot.checksum import checksum

SIZE = 4096
SLOTS = 6
DEVICE, HOST = 1, 2
ACTIONS = ("put", "put", "put", "use", "up", "up", "down", "leave", "remove", "victim", "lease", "lost", "time")


@pytest.fixture
def clock() -> Iterator[Clock]:
    with opened(MIB) as clock:
        yield clock


class Shelf:
    """A space with a device, and slots given out as `tensors.device` does."""

    def __init__(self, slots: int = SLOTS, size: int = SIZE) -> None:
        self.space = region.open_space()
        self.device = region_device.open_device(slots, size)
        region_device.assign(self.space, self.device)
        self.free = list(range(slots))

    def collect(self) -> None:
        for slot in region_device.take_left(self.device):
            assert slot not in self.free
            self.free.append(slot)

    def raise_(self, key: bytes) -> bool:
        """A promotion at once."""
        found = region_device.candidate(self.space, key)
        self.collect()
        if found is None or not self.free:
            return False
        slot = self.free.pop()
        if not region_device.placed(self.device, slot, self.space, key, found[1]):
            self.free.append(slot)
            return False
        return True

    def lower(self, key: bytes, data: bytes) -> bool:
        """A copy down, of the bytes that the device would have."""
        view = region.reserve(len(data), self.space)
        if view is None or region_device.held(self.space, key) is None:
            return False
        memoryview(view)[:] = data
        return region_device.arrived(self.space, key, view, checksum(data), True)

    def tier(self, key: bytes) -> int:
        return region.lookup(self.space, [key], touch=False)[2][0]

    def used(self) -> int:
        return region_device.device_stats(self.device)["blocks"]


def test_a_third_use_makes_a_block_wanted(clock: Clock) -> None:
    shelf = Shelf()
    put(shelf.space, b"a", b"b", size=SIZE)
    put(shelf.space, b"small", size=SIZE - 1)
    keys = [b"a", b"small"]
    region.lookup(shelf.space, keys)
    assert region_device.device_stats(shelf.device)["waiting"] == 0  # stored and used once
    for _ in range(4):
        region.lookup(shelf.space, keys)
        assert region_device.device_stats(shelf.device)["waiting"] == 1
    assert region_device.device_stats(shelf.device)["waiting"] == 1  # once, and only what fits
    wanted = region_device.take_wanted(shelf.device)
    assert wanted is not None
    space, key, view, check = wanted
    data = value(b"a", SIZE)
    assert (space, key, bytes(memoryview(view)), check) == (shelf.space, b"a", data, checksum(data))
    region.lookup(shelf.space, keys)
    region.remove(shelf.space, [b"a"])
    assert region_device.take_wanted(shelf.device) is None  # it is gone


def test_who_waits_is_bounded(clock: Clock) -> None:
    shelf = Shelf(size=64)
    names = [b"%d" % at for at in range(300)]
    put(shelf.space, *names, size=64)
    for _ in range(3):
        region.lookup(shelf.space, names)
    assert region_device.device_stats(shelf.device)["waiting"] == 128


def test_a_copy_that_ends_too_late_is_refused(clock: Clock) -> None:
    shelf, other = Shelf(), Shelf()
    put(shelf.space, b"a", size=SIZE)
    check = told(shelf.space, b"a")["checksum"]
    assert not region_device.placed(shelf.device, 0, shelf.space, b"a", check ^ 1)
    assert not region_device.placed(other.device, 0, shelf.space, b"a", check)
    assert not region_device.placed(shelf.device, 0, 60_000, b"a", check)
    region.replace(shelf.space, b"a", value(b"other", SIZE))
    assert not region_device.placed(shelf.device, 0, shelf.space, b"a", check)
    region.remove(shelf.space, [b"a"])
    assert not region_device.placed(shelf.device, 0, shelf.space, b"a", check)
    assert shelf.used() == other.used() == 0


def test_eviction_leaves_it_on_the_device(clock: Clock) -> None:
    shelf = Shelf()
    put(shelf.space, b"a", b"b", size=SIZE)
    assert shelf.raise_(b"a") and not shelf.raise_(b"a")
    fill(shelf.space, 2 * MIB // SIZE, SIZE)
    assert (shelf.tier(b"a"), shelf.tier(b"b")) == (DEVICE, 0)
    assert region.get(shelf.space, [b"a", b"b"]) == [-1, None]
    assert shelf.lower(b"a", value(b"a", SIZE))
    assert [bytes(memoryview(view)) for view in region.get(shelf.space, [b"a"])] == [value(b"a", SIZE)]
    assert region_device.leave(shelf.space, b"a") and shelf.tier(b"a") == HOST
    assert not region_device.leave(shelf.space, b"a")


def test_bytes_of_another_block_do_not_arrive(clock: Clock) -> None:
    shelf = Shelf()
    put(shelf.space, b"a", size=SIZE)
    shelf.raise_(b"a")
    fill(shelf.space, 2 * MIB // SIZE, SIZE)
    assert not shelf.lower(b"a", value(b"x", SIZE))
    held = region_device.held(shelf.space, b"a")
    assert held is not None and not region_device.lost(shelf.space, b"a", held[0] + 1)
    assert region_device.lost(shelf.space, b"a", held[0])
    assert region.describe(shelf.space, b"a") is None  # nothing else had it
    assert shelf.used() == 0


def test_the_victim_is_the_one_used_least_recently_that_nobody_needs(clock: Clock) -> None:
    shelf = Shelf()
    names = [b"%d" % at for at in range(SLOTS)]
    put(shelf.space, *names, size=SIZE)
    assert all(shelf.raise_(name) for name in names)
    region.lookup(shelf.space, [names[0]])
    region.lookup(shelf.space, [names[1]], 1000, touch=False)
    region.pin(shelf.space, [names[2]], True)
    assert region_device.victim(shelf.device) == (shelf.space, names[3], False)
    assert not region_device.leave(shelf.space, names[1]) and not region_device.may_leave(shelf.space, names[2])
    for name in names[3:]:
        assert region_device.leave(shelf.space, name)
    assert region_device.victim(shelf.device) == (shelf.space, names[0], False)
    fill(shelf.space, 2 * MIB // SIZE, SIZE)
    assert region_device.victim(shelf.device) == (shelf.space, names[0], True)  # nothing else has it
    assert not region_device.leave(shelf.space, names[0])
    clock.on(2000)
    region.pin(shelf.space, [names[2]], False)
    region_device.lost(shelf.space, names[0], region_device.held(shelf.space, names[0])[0])  # type: ignore[index]
    assert region_device.victim(shelf.device)[1] == names[1]  # type: ignore[index]


def test_a_group_stays_whole(clock: Clock) -> None:
    """One of a chunk's two blocks has no slot: while the chunk is in use both are there, then neither."""
    shelf = Shelf()
    for at in range(SLOTS):
        put(shelf.space, b"kv%d" % at, size=SIZE, group=b"g%d" % at)
        put(shelf.space, b"meta%d" % at, size=100, group=b"g%d" % at)
        assert shelf.raise_(b"kv%d" % at)
    seen = set()
    for at in range(40 * MIB // SIZE):
        assert fill(shelf.space, 1, SIZE, b"f%d-" % at) == [1]  # the groups are not in the way
        region.lookup(shelf.space, [b"kv0"])
        for chunk in range(SLOTS):
            both = shelf.tier(b"kv%d" % chunk), shelf.tier(b"meta%d" % chunk)
            seen.add(both)
            assert both in ((DEVICE, HOST), (0, 0))
    assert (0, 0) in seen and shelf.tier(b"kv0") == DEVICE
    region.lookup(shelf.space, [b"kv0"], 60_000)
    for at in range(40 * MIB // SIZE):
        assert fill(shelf.space, 1, SIZE, b"h%d-" % at) == [1]
    assert (shelf.tier(b"kv0"), shelf.tier(b"meta0")) == (DEVICE, HOST)  # leased


def test_storing_again_while_groups_leave(clock: Clock) -> None:
    """Making room for a block that the device has must not remove the block itself."""
    shelf = Shelf()
    for at in range(SLOTS):
        put(shelf.space, b"kv%d" % at, size=SIZE, group=b"g")
        shelf.raise_(b"kv%d" % at)
    put(shelf.space, b"meta", size=100, group=b"g")
    for at in range(6 * MIB // SIZE):
        fill(shelf.space, 1, SIZE, b"f%d-" % at)
        chunk = b"kv%d" % (at % SLOTS)
        assert put(shelf.space, chunk, size=SIZE, group=b"g", parent=b"kv0")[0] in (0, 1)
        assert shelf.tier(chunk) in (DEVICE, HOST)


def test_its_own_room_costs_no_block_its_life(clock: Clock) -> None:
    """Nothing can go but the group of the very block that is stored again."""
    shelf = Shelf()
    put(shelf.space, b"kv", size=SIZE, group=b"g")
    assert shelf.raise_(b"kv")
    put(shelf.space, b"meta", size=100, group=b"g")
    stays = 0
    while shelf.tier(b"kv") and put(shelf.space, b"p%d" % stays, size=SIZE) == [1]:
        region.pin(shelf.space, [b"p%d" % stays], True)
        stays += 1
        if not told(shelf.space, b"kv")["in_host"]:
            break
    assert not told(shelf.space, b"kv")["in_host"] and told(shelf.space, b"meta")["in_host"]
    assert put(shelf.space, b"kv", size=SIZE) == [0]
    assert (shelf.tier(b"kv"), shelf.tier(b"meta")) == (DEVICE, HOST)
    assert put(shelf.space, b"child", size=SIZE, parent=b"kv") == [-1]  # nor does what comes behind it
    assert (shelf.tier(b"kv"), shelf.tier(b"meta")) == (DEVICE, HOST)
    assert region.pin(shelf.space, [b"kv"], False) == 0  # nobody's pin is left


def test_a_quota_that_is_full_does_not_remove_what_is_stored_again(clock: Clock) -> None:
    shelf = Shelf()
    put(shelf.space, b"kv", size=SIZE, group=b"g")
    assert shelf.raise_(b"kv")
    put(shelf.space, b"meta", size=100, group=b"g")
    at = 0
    while told(shelf.space, b"kv")["in_host"]:
        fill(shelf.space, 1, SIZE, b"f%d-" % at)
        at += 1
    region.remove(shelf.space, [b"f%d-0" % i for i in range(at)])
    region.configure_space(shelf.space, SIZE + 50)
    assert (shelf.tier(b"kv"), shelf.tier(b"meta")) == (DEVICE, HOST)
    assert put(shelf.space, b"kv", size=SIZE) == [0]
    assert (shelf.tier(b"kv"), shelf.tier(b"meta")) == (DEVICE, HOST)


def test_closing(clock: Clock) -> None:
    shelf = Shelf()
    put(shelf.space, b"a", b"b", size=SIZE)
    assert shelf.raise_(b"a") and shelf.raise_(b"b")
    region.close_space(shelf.space)
    assert shelf.used() == 0
    shelf.collect()
    assert sorted(shelf.free) == list(range(SLOTS))
    other = Shelf()
    put(other.space, b"c", b"d", size=SIZE)
    assert other.raise_(b"c")
    fill(other.space, 2 * MIB // SIZE, SIZE)
    put(other.space, b"e", size=SIZE)
    assert other.raise_(b"e")
    assert region_device.close_device(other.device) == 2
    assert (other.tier(b"c"), other.tier(b"e")) == (0, HOST)
    with pytest.raises(IndexError):
        region_device.device_stats(other.device)
    with pytest.raises(IndexError):
        region_device.assign(other.space, other.device)
    region_device.close_device(shelf.device)


def test_a_slot_rests_while_somebody_may_read_it(clock: Clock) -> None:
    shelf = Shelf(1)
    put(shelf.space, b"a", b"b", size=SIZE)
    assert shelf.raise_(b"a")
    region.lookup(shelf.space, [b"a"], 1000)
    region.remove(shelf.space, [b"a"])
    assert shelf.used() == 0 and not shelf.raise_(b"b")
    clock.on(500)
    assert not shelf.raise_(b"b")
    clock.on(600)
    assert shelf.raise_(b"b")


def test_expired_blocks_give_their_slots_back(clock: Clock) -> None:
    shelf = Shelf()
    put(shelf.space, b"a", size=SIZE, deadline_s=clock.s + 2)
    assert shelf.raise_(b"a")
    clock.on(3000)
    assert shelf.tier(b"a") == 0 and region_device.held(shelf.space, b"a") is None
    region.sweep(shelf.space, 0)
    assert shelf.used() == 0


@pytest.mark.parametrize("seed", range(8))
def test_random_calls(seed: int, clock: Clock) -> None:
    """No two blocks share a slot, none is lost from the books, and what is served is what was stored."""
    dice = random.Random(seed)
    shelf = Shelf()
    names = [b"k%d" % at for at in range(400)]
    where: dict[bytes, int] = {}  # slots as they were given out
    for _ in range(3000):
        key = dice.choice(names[: 3 * SLOTS] if dice.random() < 0.6 else names)
        data = value(key, SIZE if key[-1] & 1 else 500)
        action = dice.choice(ACTIONS)
        if action == "put":
            group = b"g%d" % (names.index(key) // 2) if names.index(key) < 40 else None
            region.put(shelf.space, [key], [data], group=group)
        elif action == "use":
            region.lookup(shelf.space, [key, dice.choice(names)])
        elif action == "up":
            shelf.raise_(key)
        elif action == "down":
            shelf.lower(key, data)
        elif action == "leave":
            region_device.leave(shelf.space, key)
        elif action == "remove":
            region.remove(shelf.space, [key])
        elif action == "victim":
            found = region_device.victim(shelf.device)
            assert found is None or region_device.leave(shelf.space, found[1]) is not found[2]
        elif action == "lease":
            region.lookup(shelf.space, [key], 500)
        elif action == "lost" and (held := region_device.held(shelf.space, key)):
            assert region_device.lost(shelf.space, key, held[0])
        else:
            clock.on(100)
        where = {name: held[0] for name in names if (held := region_device.held(shelf.space, name))}
        assert len(set(where.values())) == len(where) == shelf.used()
        shelf.collect()
        taken = {*where.values(), *shelf.free}
        assert len(taken) == len(where) + len(shelf.free)  # the others' readers may not be done
        for name in dice.sample(names, 5):
            known = region.describe(shelf.space, name)
            assert known is None or known["in_host"] or name in where
            if known is not None and known["in_host"]:
                assert known["queue"] != "nowhere"
                assert checksum(region.get(shelf.space, [name], False)[0]) == checksum(value(name, known["size"]))
    clock.on(1000)
    shelf.collect()
    assert sorted([*where.values(), *shelf.free]) == list(range(SLOTS))
    region_device.close_device(shelf.device)
