"""The region's index: its promises one by one, and what it costs."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator

import pytest

from tests.unit.tensors.spaces import MIB, Clock, fill, opened, put, told, value
from zeekdb.hot import region
from zeekdb.hot.checksum import checksum

GROUP_MAX = 1024


@pytest.fixture
def clock() -> Iterator[Clock]:
    with opened(MIB) as clock:
        yield clock


# ---- who stays, and who goes first -----------------------------------------------------------------------------------


def test_a_context_loses_its_tail_before_its_head(clock: Clock) -> None:
    space = region.open_space()
    keys = [b"c%02d" % i for i in range(20)]
    put(space, *keys[:12], size=4096)
    put(space, *keys[12:], size=4096, parent=keys[11])
    gone = 0
    fill(space, 200, 4096)
    while gone < 20:
        prefix = region.lookup(space, keys, touch=False)[0]
        assert region.count_present(space, keys) == prefix, "a block is there without those before it"
        assert prefix <= 20 - gone
        gone = 20 - prefix
        fill(space, 7, 4096, b"more%d-" % clock.ms)
        clock.on(16)


def test_what_a_context_brings_does_not_push_its_own_head_out(clock: Clock) -> None:
    space = region.open_space()
    keys = [b"long%d" % i for i in range(300)]
    said = put(space, *keys, size=4096)  # the arena has room for 256
    assert said == [1] * 256 + [-1] * 44
    assert region.lookup(space, keys)[0] == 256
    said = put(space, *keys[:200], *(b"new%d" % i for i in range(100)), size=4096)
    assert said == [0] * 200 + [1] * 56 + [-1] * 44
    assert region.lookup(space, keys[:200])[0] == 200
    assert {told(space, key)["queue"] for key in keys[:200]} == {"order"}


def test_a_parent_stays_while_its_tail_is_stored(clock: Clock) -> None:
    space = region.open_space()
    put(space, b"parent", size=4096)
    fill(space, 255, 4096)
    assert put(space, *(b"t%d" % i for i in range(300)), size=4096, parent=b"parent").count(1) == 255
    assert region.count_present(space, [b"parent"]) == 1


def test_a_call_that_fails_half_way_leaves_nothing_behind(clock: Clock) -> None:
    space = region.open_space()
    with pytest.raises(TypeError):
        region.put(space, [b"a", b"b", b"c"], [b"1", None, b"3"])
    assert told(space, b"a")["queue"] == "order" and region.describe(space, b"b") is None


def test_a_lease_lasts_as_long_as_was_asked(clock: Clock) -> None:
    space = region.open_space()
    for lease_ms in range(1, 50):
        key = b"lease%d" % lease_ms
        put(space, key)
        region.lookup(space, [key], lease_ms)
        clock.on(lease_ms - 1)
        assert told(space, key)["leases"] == 1, f"{lease_ms} ms, and {lease_ms - 1} are over"
        clock.on(33)
        assert told(space, key)["leases"] == 0


def test_a_clock_that_is_set_back_neither_ends_nor_prolongs_leases(clock: Clock) -> None:
    space = region.open_space()
    put(space, b"a")
    region.lookup(space, [b"a"], 1000)
    clock.on(-3_600_000)
    assert told(space, b"a")["leases"] == 1
    clock.on(999)
    assert told(space, b"a")["leases"] == 1
    clock.on(40)
    assert told(space, b"a")["leases"] == 0
    region.relieve(MIB)
    assert region.describe(space, b"a") is None


def test_leases_of_several_clients_are_given_back_one_by_one(clock: Clock) -> None:
    space = region.open_space()
    put(space, b"a")
    region.lookup(space, [b"a"], 1000)
    region.lookup(space, [b"a"], 10_000)
    assert region.unlock(space, [b"a"]) == 1
    fill(space, 2000)
    assert region.count_present(space, [b"a"]) == 1
    assert region.unlock(space, [b"a", b"a"]) == 1
    fill(space, 2000)
    assert region.count_present(space, [b"a"]) == 0


def test_a_lease_longer_than_the_wheel(clock: Clock) -> None:
    space = region.open_space()
    put(space, b"a")
    region.lookup(space, [b"a"], 200_000)
    for _ in range(199):
        clock.on(1000)
        region.relieve(MIB)
        assert region.count_present(space, [b"a"]) == 1
    clock.on(2000)
    region.relieve(MIB)
    assert region.count_present(space, [b"a"]) == 0


@pytest.mark.parametrize("how", ["ended", "given back"])
def test_what_was_read_in_place_may_move_once_its_lease_is_over(clock: Clock, how: str) -> None:
    space = region.open_space()
    keys = [b"a", b"b", b"c", b"d"]
    put(space, *keys, size=MIB // 4)
    region.lookup(space, [b"b", b"d"], 100, True)
    region.remove(space, [b"a", b"c"])
    if how == "ended":
        clock.on(200)
        region.relieve(0)
    else:
        region.unlock(space, [b"b", b"d"])
    assert put(space, b"large", size=MIB // 2) == [1]
    assert region.count_present(space, [b"b", b"d"]) == 2


def test_leases_that_end_together_end_in_steps() -> None:
    with opened(8 * MIB) as clock:
        space = region.open_space()
        keys = [b"%d" % i for i in range(70_000)]
        assert put(space, *keys, size=64) == [1] * len(keys)
        region.lookup(space, keys, 100)
        clock.on(200)
        region.relieve(0)
        assert region.totals()["leased_blocks"] == 70_000 - 65_536
        region.relieve(0)
        assert region.totals()["leased_blocks"] == 0


def test_a_block_longer_than_its_size_can_tell_is_dropped() -> None:
    with opened(3 << 30), mmap.mmap(-1, 1 << 31) as data:
        assert region.put(region.open_space(), [b"k"], [data]) == [-1]


def test_many_empty_tenants_do_not_hide_those_with_blocks(clock: Clock) -> None:
    spaces = [region.open_space() for _ in range(3000)]
    kept = 0
    for at in range(40):
        for space in (spaces[0], spaces[1500], spaces[-1]):
            assert put(space, b"%d" % at, size=MIB // 16) == [1]
    for space in (spaces[0], spaces[1500], spaces[-1]):
        blocks = region.space_stats(space)["blocks"]
        assert blocks > 0
        kept += blocks
    assert kept == 16
    for space in spaces:
        region.close_space(space)


def test_leased_blocks_outlive_ten_times_the_room() -> None:
    """100,000 blocks under lease, and ten times what fits stored while they are."""
    count, size = 100_000, 64
    with opened(2 * count * size) as clock:
        space = region.open_space()
        keys = [b"%032d" % i for i in range(count)]
        payload = bytes(size)
        assert region.put(space, keys, [payload] * count) == [1] * count
        assert region.lookup(space, keys, 60_000)[0] == count
        assert region.totals()["leased_blocks"] == count
        for turn in range(20):
            clock.on(2500)
            others = [b"%031dx" % (turn * count + i) for i in range(count)]
            said = region.put(space, others[: count // 2], [payload] * (count // 2))
            said += region.put(space, others[count // 2 :], [payload] * (count // 2))
            assert said.count(1) == count
            assert region.count_present(space, keys) == count
        clock.on(10_100)  # the leases are over
        for turn in range(4):
            region.put(space, [b"%031dy" % (turn * 50_000 + i) for i in range(50_000)], [payload] * 50_000)
        assert region.count_present(space, keys) < count // 10, "they can leave like others again"


# ---- groups ----------------------------------------------------------------------------------------------------------


def test_a_group_leaves_together_or_stays(clock: Clock) -> None:
    space = region.open_space()
    put(space, b"k", b"m", group=b"g")
    region.lookup(space, [b"k"], 1000)
    fill(space, 3000)
    assert region.count_present(space, [b"k", b"m"]) == 2, "of a group one is leased"
    assert region.unlock(space, [b"k"]) == 1
    fill(space, 3000)
    assert region.count_present(space, [b"k", b"m"]) == 0


def test_a_lease_of_both_halves_is_given_back_whole(clock: Clock) -> None:
    space = region.open_space()
    put(space, b"k", b"m", group=b"g")
    region.lookup(space, [b"k", b"m"], 60_000)
    assert region.unlock(space, [b"k", b"m"]) == 2
    assert region.totals()["leased_blocks"] == 0
    fill(space, 3000)
    assert region.count_present(space, [b"k", b"m"]) == 0


@pytest.mark.parametrize("how", ["pin", "lease"])
def test_groups_that_stay_do_not_keep_others_from_leaving(clock: Clock, how: str) -> None:
    space = region.open_space()
    for i in range(200):
        put(space, b"k%d" % i, b"m%d" % i, group=b"g%d" % i)
    names = [b"k%d" % i for i in range(200)]
    if how == "pin":
        region.pin(space, names, True)
    else:
        region.lookup(space, names, 60_000)
    assert fill(space, 3000) == [1] * 3000
    assert region.count_present(space, names + [b"m%d" % i for i in range(200)]) == 400


def test_of_a_group_all_are_written_below_or_none(clock: Clock) -> None:
    """One of the two was used more often than the other."""
    space = region.open_space()
    region.configure_spilling(MIB, 2)
    put(space, b"k", b"m", group=b"g")
    region.get(space, [b"k"])
    while not region.totals()["waiting_blocks"]:
        fill(space, 50, stem=b"x%d-" % clock.ms)
        clock.on(1)
    waiting = region.take_spilling(1 << 30)
    assert {each.key for each in waiting} >= {b"k", b"m"} or not {b"k", b"m"} & {each.key for each in waiting}
    assert {each.key for each in waiting} & {b"k", b"m"}
    for at, each in enumerate(waiting):
        region.spilled(each, at)


def test_a_group_is_bounded_and_ends_quickly(clock: Clock) -> None:
    space = region.open_space()
    keys = [b"%d" % i for i in range(4000)]
    assert put(space, *keys, size=64, group=b"g") == [1] * 4000
    groups = [told(space, key)["group"] for key in keys]
    assert groups == [b"g"] * GROUP_MAX + [None] * (4000 - GROUP_MAX)
    assert len(region.remove(space, keys)) == 4000
    assert put(space, b"late", group=b"g") == [1] and told(space, b"late")["group"] == b"g"


# ---- between host memory and the tier below --------------------------------------------------------------------------


def below(space: int, *keys: bytes, size: int = 1024) -> None:
    """The blocks are in the tier below alone, at the places 0, 1, …"""
    for place, key in enumerate(keys):
        data = value(key, size)
        assert region.adopt(space, key, size, checksum(data), place)


def test_a_block_that_is_stored_again_comes_back_and_can_leave_again(clock: Clock) -> None:
    space = region.open_space()
    below(space, b"a")
    assert put(space, b"a") == [0]
    assert told(space, b"a")["queue"] == "order" and told(space, b"a")["in_host"]
    fill(space, 3000)
    assert not told(space, b"a")["in_host"], "it could never leave"


def test_other_bytes_under_the_key_of_a_block_below_are_not_taken(clock: Clock) -> None:
    """They would be served under a checksum that is not theirs."""
    space = region.open_space()
    below(space, b"a")
    assert region.put(space, [b"a"], [bytes(1024)]) == [0]
    assert not told(space, b"a")["in_host"]


def test_a_block_pinned_while_it_is_written_is_counted_once(clock: Clock) -> None:
    space = region.open_space()
    region.configure_spilling(MIB, 1)
    put(space, b"a")
    assert region.demote(space, [b"a"]) == 1
    first = region.take_spilling(1 << 20)
    region.pin(space, [b"a"], True)
    region.pin(space, [b"a"], False)
    assert region.demote(space, [b"a"]) == 1
    second = region.take_spilling(1 << 20)
    assert region.spilled(first[0], 7)
    assert not region.spilled(second[0], 8), "the tier is to take the second back"
    stats = region.space_stats(space)
    assert (stats["ssd_blocks"], stats["spilled"], told(space, b"a")["place"]) == (1, 1, 7)
    assert region.totals()["spilling_bytes"] == 0


def test_a_block_written_while_it_waits_again_leaves_the_queue(clock: Clock) -> None:
    space = region.open_space()
    region.configure_spilling(MIB, 1)
    put(space, b"a")
    region.demote(space, [b"a"])
    first = region.take_spilling(1 << 20)
    region.pin(space, [b"a"], True)
    region.pin(space, [b"a"], False)
    region.demote(space, [b"a"])
    assert region.spilled(first[0], 7)
    assert region.totals() == {"leased_blocks": 0, "waiting_blocks": 0, "spilling_bytes": 0}
    assert not told(space, b"a")["in_host"]


def test_an_expired_block_below_is_still_moved_and_lost(clock: Clock) -> None:
    space = region.open_space()
    region.adopt(space, b"a", 10, 0, 5, clock.s + 1)
    clock.on(2000)
    assert region.describe(space, b"a") is None
    assert region.place_moved(space, b"a", 5, 6)
    assert region.sweep(space, 0)[1] == [(b"a", 6)]


def test_an_expired_block_under_lease_is_not_overwritten(clock: Clock) -> None:
    space = region.open_space()
    put(space, b"a", deadline_s=clock.s + 1)
    region.lookup(space, [b"a"], 10_000)
    clock.on(2000)
    assert region.put(space, [b"a"], [b"other"]) == [-1]
    assert put(space, b"a") == [0], "the same bytes: it lives again"
    assert region.count_present(space, [b"a"]) == 1


def test_a_closed_space_takes_nothing_from_its_past(clock: Clock) -> None:
    region.configure_spilling(MIB, 1)
    space = region.open_space()
    put(space, b"a", b"b")
    region.demote(space, [b"a", b"b"])
    taken = region.take_spilling(1)
    region.close_space(space)
    again = region.open_space()
    assert again == space
    put(again, b"a")
    assert not region.spilled(taken[0], 3)
    assert told(again, b"a")["place"] is None and region.totals()["spilling_bytes"] == 0


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_a_quota_is_kept_among_the_own_blocks(clock: Clock) -> None:
    small, other = region.open_space(10_240), region.open_space()
    fill(other, 100)
    assert fill(small, 100) == [1] * 100
    assert region.space_stats(small)["host_bytes"] <= 10_240
    assert region.space_stats(other)["host_blocks"] == 100
    assert put(small, b"large", size=10_241) == [-1]
    assert put(small, *(b"c%d" % i for i in range(12))) == [1] * 10 + [-1] * 2
    with pytest.raises(IndexError):
        region.get(99, [b"a"])


def test_counters_add_up(clock: Clock) -> None:
    space = region.open_space()
    said = [each for i in range(40) for each in put(space, *(b"%d" % (i * 7 % 23 + j) for j in range(5)), size=9000)]
    region.get(space, [b"1", b"none"])
    region.lookup(space, [b"1", b"2", b"none", b"3"])
    stats = region.space_stats(space)
    assert (stats["stored"], stats["shared"], stats["dropped"]) == (said.count(1), said.count(0), said.count(-1))
    assert stats["bytes_in"] == 9000 * said.count(1)
    assert stats["stored"] - stats["evicted"] == stats["blocks"] == stats["host_blocks"]
    assert stats["hits"] + stats["misses"] == 6


@pytest.mark.parametrize(("key_bytes", "bytes_max"), [(32, 200), (90, 280)])
def test_a_block_costs_the_index_little(key_bytes: int, bytes_max: int) -> None:
    """Of 1,000,000 blocks in host memory, all headers counted."""
    count = 1_000_000
    with opened(count * 64) as clock:
        space = region.open_space()
        begin = time.perf_counter()
        for first in range(0, count, 10_000):
            keys = [b"%0*d" % (key_bytes, i) for i in range(first, first + 10_000)]
            assert region.put(space, keys, [b"x"] * 10_000) == [1] * 10_000
        each = region.index_bytes(space) / count
        print(f"{each:.1f} bytes a block with keys of {key_bytes}, {time.perf_counter() - begin:.1f} s, {clock.ms}")
        assert region.space_stats(space)["blocks"] == count
        assert each < bytes_max
