"""The region's index: random calls against a model of plain dictionaries, and the promises that it makes one by one."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from zeekdb.hot import grades, region
from zeekdb.hot.arena import arena_close, arena_open, arena_stats
from zeekdb.hot.blobview import BlobView
from zeekdb.hot.checksum import checksum

KIB, MIB = 1 << 10, 1 << 20
BEGIN_MS = 1_700_000_000_000
GROUP_MAX = 1024


class Clock:
    """The index's, which only tests set."""

    def __init__(self) -> None:
        self.ms = BEGIN_MS
        region.set_clock(self.ms)

    def on(self, ms: int) -> None:
        self.ms += ms
        region.set_clock(self.ms)

    @property
    def s(self) -> int:
        return self.ms // 1000


@contextlib.contextmanager
def opened(size: int) -> Iterator[Clock]:
    """At the end nothing may be left in the arena: `arena_close` refuses otherwise."""
    arena_open(size)
    grades.forget()
    region.configure_spilling(0, 1)
    try:
        yield Clock()
    finally:
        for space in range(64):
            with contextlib.suppress(IndexError):
                region.close_space(space)
        region.configure_spilling(0, 1)
        gc.collect()
        totals = region.totals()
        stats = arena_stats()
        arena_close()
    assert (totals["leased_blocks"], totals["waiting_blocks"], totals["spilling_bytes"]) == (0, 0, 0)
    assert (stats["used"], stats["blobs"], stats["largest"]) == (0, 0, stats["size"])


@pytest.fixture
def clock() -> Iterator[Clock]:
    with opened(MIB) as clock:
        yield clock


def value(key: bytes, size: int) -> bytes:
    return (key * (size // max(len(key), 1) + 1))[:size]


def told(space: int, key: bytes) -> dict[str, Any]:
    found = region.describe(space, key)
    assert found is not None, key
    return found


def put(space: int, *keys: bytes, size: int = 1024, **options: Any) -> list[int]:
    return region.put(space, list(keys), [value(key, size) for key in keys], **options)


def fill(space: int, count: int, size: int = 1024, stem: bytes = b"fill") -> list[int]:
    """Blocks stored one by one, as strangers do."""
    return [put(space, b"%b%d" % (stem, i), size=size)[0] for i in range(count)]


def write_below(count: int = 1 << 30, first: int = 0) -> int:
    """Plays a tier that takes everything; how many blocks."""
    batch = region.take_spilling(count)
    for at, pending in enumerate(batch):
        assert region.spilled(pending, first + at)
    return len(batch)


# ---- random calls against a model ------------------------------------------------------------------------------------


@dataclass
class Known:
    """What the model holds of a block."""

    data: bytes
    deadline_s: int = 0
    group: bytes | None = None
    lease_end_ms: int = 0
    leases: int = 0
    pins: int = 0
    in_host: bool = True
    place: int | None = None
    writing: int = 0  # batches that it is part of


@dataclass
class Tenant:
    space: int
    quota: int
    blocks: dict[bytes, Known] = field(default_factory=dict)


class Story:
    """Random calls; after each of them every promise is checked."""

    SIZES = (1, 63, 64, 900, 4096, 9000, 30_000, 65_536, 70_001)

    def __init__(self, seed: int, clock: Clock) -> None:
        self.dice = random.Random(seed)
        self.clock = clock
        self.tenants = [self.opened() for _ in range(3)]
        self.pending: list[tuple[Tenant, region.Pending]] = []
        self.views: list[tuple[BlobView, bytes]] = []
        self.places: dict[int, bytes] = {}
        self.next_place = 1
        self.may_leave: set[tuple[int, bytes]] = set()  # in this step, for other reasons than eviction
        self.spills = False

    def opened(self) -> Tenant:
        quota = self.dice.choice((0, 0, 200_000))
        return Tenant(region.open_space(quota), quota)

    # -- the calls

    def keys(self) -> list[bytes]:
        count = self.dice.choice((1, 1, 2, 5))
        return [b"key%d" % self.dice.randrange(40) * self.dice.choice((1, 1, 9)) for _ in range(count)]

    def data(self, key: bytes) -> bytes:
        """Of one length and content for each key, as clients do."""
        size = self.SIZES[sum(key) % len(self.SIZES)]
        return value(key, size)

    def live(self, tenant: Tenant, key: bytes) -> Known | None:
        known = tenant.blocks.get(key)
        return known if known and not (known.deadline_s and known.deadline_s <= self.clock.s) else None

    def step(self) -> None:
        self.may_leave.clear()
        tenant = self.dice.choice(self.tenants)
        name = self.dice.choice((
            "put", "put", "put", "put", "replace", "get", "lookup", "lease", "lease", "unlock", "pin", "unpin", "unpin",
            "remove", "deadline", "demote", "take", "take", "written", "written", "promote", "adopt", "moved", "lost",
            "relieve", "sweep", "clock", "clock", "reopen", "spilling", "view", "quota",
        ))  # fmt: skip
        before = {each.space: dict(each.blocks) for each in self.tenants}
        getattr(self, f"do_{name}")(tenant)
        try:
            self.check(before)
        except AssertionError as error:
            raise AssertionError(f"after {name}: {error}") from error

    def do_put(self, tenant: Tenant) -> None:
        keys = self.keys()
        deadline_s = self.dice.choice((0, 0, 0, self.clock.s + self.dice.randrange(1, 60)))
        group = self.dice.choice((None, None, b"group%d" % self.dice.randrange(6)))
        parent = self.dice.choice((None, b"key%d" % self.dice.randrange(40)))
        datas = [self.data(key) for key in keys]
        said = region.put(tenant.space, keys, list(datas), deadline_s, group, parent)
        for key, data, each in zip(keys, datas, said, strict=True):
            known = self.live(tenant, key)
            assert each in (1, 0, -1)
            if each == 1:
                if known:  # it went to make room for those before it
                    assert not known.pins and known.lease_end_ms <= self.clock.ms and known.place is None
                tenant.blocks[key] = Known(data, deadline_s, group)
            elif known and region.describe(tenant.space, key):
                assert each == 0
                if deadline_s == 0 or (known.deadline_s and known.deadline_s < deadline_s):
                    known.deadline_s = deadline_s
            elif each == 0 and key in tenant.blocks:  # it had expired, but somebody holds it: it lives again
                old = tenant.blocks[key]
                assert old.pins or old.lease_end_ms > self.clock.ms
                old.deadline_s = deadline_s
            if each >= 0:  # whatever came behind it in the same call
                assert region.describe(tenant.space, key), (key, each)
                assert told(tenant.space, key)["in_host"] or each == 0

    def do_replace(self, tenant: Tenant) -> None:
        key = self.keys()[0]
        data = self.dice.choice((self.data(key), self.dice.randbytes(self.dice.choice((1, 5000)))))
        known = self.live(tenant, key)
        said, below = region.replace(tenant.space, key, data)
        self.may_leave.add((tenant.space, key))
        if known and known.data == data:
            assert (said, below) == (0, None)
            known.deadline_s = 0
            return
        if below is not None:
            assert self.places.pop(below) == tenant.blocks[key].data
        tenant.blocks.pop(key, None)
        assert said in (1, -1)
        if said == 1:
            tenant.blocks[key] = Known(data)

    def do_get(self, tenant: Tenant) -> None:
        keys = self.keys()
        for key, found in zip(keys, region.get(tenant.space, keys, self.dice.random() < 0.5), strict=True):
            known = self.live(tenant, key)
            if known is None:
                assert found is None
            elif known.in_host:
                assert bytes(found) == known.data
            else:
                assert found == known.place

    def do_lookup(self, tenant: Tenant, lease_ms: int = 0) -> None:
        keys = self.keys()
        prefix, bitmap, tiers, places = region.lookup(tenant.space, keys, lease_ms, True)
        there = [self.live(tenant, key) for key in keys]
        assert prefix == next((i for i, each in enumerate(there) if each is None), len(keys))
        assert [bitmap[i >> 3] >> (i & 7) & 1 for i in range(len(keys))] == [each is not None for each in there]
        assert list(tiers) == [0 if each is None else 2 if each.in_host else 3 for each in there]
        for i, each in enumerate(there):
            offset, size, check = (int.from_bytes(places[24 * i + at : 24 * i + at + 8], "little") for at in (0, 8, 16))
            assert (offset == 2**64 - 1) == (each is None or not each.in_host)
            assert size == (len(each.data) if each else 0)
            if each and each.in_host:
                assert check == checksum(each.data)
            if each and lease_ms:
                each.leases = each.leases + 1 if each.lease_end_ms > self.clock.ms else 1
                each.lease_end_ms = max(each.lease_end_ms, self.clock.ms + lease_ms)

    def do_lease(self, tenant: Tenant) -> None:
        self.do_lookup(tenant, self.dice.choice((1, 15, 16, 17, 500, 20_000, 90_000)))

    def do_unlock(self, tenant: Tenant) -> None:
        for key in set(self.keys()):
            known = self.live(tenant, key)
            held = bool(known and known.leases and known.lease_end_ms > self.clock.ms)
            given = region.unlock(tenant.space, [key])
            assert given or not held  # a lease may last up to two ticks longer than was asked
            if given and known:
                known.leases -= 1
                if known.leases <= 0:
                    known.lease_end_ms = 0

    def do_pin(self, tenant: Tenant) -> None:
        for key in self.keys():
            known = self.live(tenant, key)
            assert region.pin(tenant.space, [key], True) == (known is not None)
            if known:
                known.pins += 1

    def do_unpin(self, tenant: Tenant) -> None:
        for key in self.keys():
            known = self.live(tenant, key)
            assert region.pin(tenant.space, [key], False) == bool(known and known.pins)
            if known and known.pins:
                known.pins -= 1

    def do_remove(self, tenant: Tenant) -> None:
        keys = list(dict.fromkeys(self.keys()))
        expected = [(key, known.place) for key in keys if (known := self.live(tenant, key))]
        assert region.remove(tenant.space, keys) == expected
        for key, place in expected:
            del tenant.blocks[key]
            if place is not None:
                del self.places[place]

    def do_deadline(self, tenant: Tenant) -> None:
        key = self.keys()[0]
        known = self.live(tenant, key)
        deadline_s = self.dice.choice((0, self.clock.s + self.dice.randrange(1, 30)))
        assert region.set_deadline(tenant.space, key, deadline_s) == (known is not None)
        if known:
            known.deadline_s = deadline_s

    def do_demote(self, tenant: Tenant) -> None:
        keys = list(dict.fromkeys(self.keys()))
        region.demote(tenant.space, keys)

    def do_spilling(self, tenant: Tenant) -> None:
        self.spills = not self.spills
        region.configure_spilling(300_000 if self.spills else 0, self.dice.choice((1, 2)))

    def do_take(self, tenant: Tenant) -> None:
        for pending in region.take_spilling(self.dice.choice((1, 100_000))):
            owner = next(each for each in self.tenants if each.space == pending.space)
            known = owner.blocks[pending.key]
            assert bytes(pending.view) == known.data and pending.checksum == checksum(known.data)
            assert (pending.deadline_s, pending.group) == (known.deadline_s, known.group)
            known.writing += 1
            self.pending.append((owner, pending))

    def do_written(self, tenant: Tenant) -> None:
        if not self.pending:
            return
        owner, pending = self.pending.pop(self.dice.randrange(len(self.pending)))
        place = None
        if self.dice.random() < 0.8:
            place = self.next_place
            self.next_place += 1
        took = region.spilled(pending, place)
        known = self.live(owner, pending.key) if owner in self.tenants else None
        if took and place is not None:
            assert known is not None and known.place is None and known.data == bytes(pending.view)
            known.place = place
            self.places[place] = known.data

    def do_promote(self, tenant: Tenant) -> None:
        key = self.keys()[0]
        size = len(self.data(key))
        view = region.reserve(size, tenant.space if self.dice.random() < 0.5 else None)
        if view is None:
            return
        known = self.live(tenant, key)
        memoryview(view)[:] = self.data(key)
        done = region.promote(tenant.space, key, view)
        assert not done or (known is not None and not known.in_host)
        if done and known:
            known.in_host = True
            known.data = self.data(key) if len(known.data) == size else known.data

    def do_adopt(self, tenant: Tenant) -> None:
        key = self.keys()[0]
        data = self.data(key)
        place = self.next_place
        group = self.dice.choice((None, b"group1"))
        done = region.adopt(tenant.space, key, len(data), checksum(data), place, 0, group)
        assert done == (key not in tenant.blocks)
        if done:
            self.next_place += 1
            tenant.blocks[key] = Known(data, 0, group, in_host=False, place=place)
            self.places[place] = data

    def do_moved(self, tenant: Tenant) -> None:
        for key, known in tenant.blocks.items():
            if known.place is not None:
                assert not region.place_moved(tenant.space, key, 1 << 40, 1)
                assert region.place_moved(tenant.space, key, known.place, self.next_place)
                self.places[self.next_place] = self.places.pop(known.place)
                known.place = self.next_place
                self.next_place += 1
                return

    def do_lost(self, tenant: Tenant) -> None:
        for key, known in list(tenant.blocks.items()):
            if known.place is not None and self.dice.random() < 0.3:
                assert not region.place_lost(tenant.space, key, 1 << 40)
                assert region.place_lost(tenant.space, key, known.place)
                del self.places[known.place]
                known.place = None
                if not known.in_host:
                    del tenant.blocks[key]
                return

    def do_relieve(self, tenant: Tenant) -> None:
        region.relieve(self.dice.randrange(MIB))

    def do_sweep(self, tenant: Tenant) -> None:
        cursor = -1
        while cursor:
            cursor, gone = region.sweep(tenant.space, max(cursor, 0))
            for key, place in gone:
                known = tenant.blocks.pop(key)
                assert known.deadline_s and known.deadline_s <= self.clock.s and not known.pins
                assert known.lease_end_ms <= self.clock.ms and place == known.place
                self.places.pop(place, None)

    def do_clock(self, tenant: Tenant) -> None:
        self.clock.on(self.dice.choice((1, 7, 16, 100, 2000, 30_000)))

    def do_reopen(self, tenant: Tenant) -> None:
        if self.dice.random() < 0.2:
            _, places = region.close_space(tenant.space)
            assert dict(places) == {key: known.place for key, known in tenant.blocks.items() if known.place is not None}
            for _, place in places:
                del self.places[place]
            self.tenants.remove(tenant)
            self.tenants.append(self.opened())

    def do_view(self, tenant: Tenant) -> None:
        """A client to whom a block is being sent: the bytes stay what they are."""
        key = self.keys()[0]
        known = self.live(tenant, key)
        if known and known.in_host:
            self.views.append((region.get(tenant.space, [key])[0], known.data))
        while len(self.views) > 4:
            self.views.pop(self.dice.randrange(len(self.views)))

    def do_quota(self, tenant: Tenant) -> None:
        tenant.quota = self.dice.choice((0, 150_000, 300_000))
        region.configure_space(tenant.space, tenant.quota, 0)

    # -- what must hold

    def check(self, before: dict[int, dict[bytes, Known]]) -> None:
        for view, data in self.views:
            assert bytes(view) == data
        leased = 0
        for tenant in self.tenants:
            leased += self.check_tenant(tenant, before.get(tenant.space, {}))
        assert region.totals()["leased_blocks"] >= leased

    def check_tenant(self, tenant: Tenant, before: dict[bytes, Known]) -> int:
        host_bytes = host_blocks = below_bytes = below_blocks = leased = 0
        held = {
            known.group for known in tenant.blocks.values()
            if known.group and known.in_host and (known.pins or known.lease_end_ms > self.clock.ms)
        }  # fmt: skip
        for key, known in list(tenant.blocks.items()):
            expired = bool(known.deadline_s and known.deadline_s <= self.clock.s)
            found = region.describe(tenant.space, key)
            relied_on = known.pins or known.lease_end_ms > self.clock.ms
            if expired:
                assert found is None
            elif found is None or not found["in_host"]:
                if known.in_host:
                    assert not relied_on, f"{key!r} had to stay"
                    assert known.group is None or known.group not in held, f"{key!r} left its group"
                    known.in_host = False
                assert (found is None) == (known.place is None), f"{key!r} is neither here nor below"
                if found is None:
                    del tenant.blocks[key]
                    continue
            else:
                assert known.in_host or (tenant.space, key) in self.may_leave or known.place is not None
                known.in_host = True
            if found:
                assert found["size"] == len(known.data) and found["checksum"] == checksum(known.data)
                assert (found["place"], found["deadline_s"], found["pins"]) == (known.place, known.deadline_s, known.pins)
                assert found["in_host"] or found["place"] is not None
                assert found["queue"] != "held"
                if found["in_host"] and found["queue"] == "nowhere":
                    assert known.pins or known.writing, f"{key!r} can never leave"
                leased += found["queue"] == "leased" and known.lease_end_ms > self.clock.ms
        for key, known in tenant.blocks.items():  # the expired are counted until they are swept
            host_bytes += len(known.data) * known.in_host
            host_blocks += known.in_host
            below_bytes += len(known.data) * (known.place is not None)
            below_blocks += known.place is not None
        stats = region.space_stats(tenant.space)
        expired_any = any(known.deadline_s and known.deadline_s <= self.clock.s for known in tenant.blocks.values())
        if not expired_any:
            assert stats["blocks"] == len(tenant.blocks)
            assert (stats["host_bytes"], stats["host_blocks"]) == (host_bytes, host_blocks)
            assert (stats["ssd_bytes"], stats["ssd_blocks"]) == (below_bytes, below_blocks)
        else:  # one of them may have been evicted, which nobody can see
            self.settle(tenant, stats)
        return leased

    def settle(self, tenant: Tenant, stats: dict[str, int]) -> None:
        known_bytes = sum(len(known.data) for known in tenant.blocks.values() if known.in_host)
        assert stats["host_bytes"] <= known_bytes and stats["blocks"] <= len(tenant.blocks)
        self.forget_expired(tenant)

    def forget_expired(self, tenant: Tenant) -> None:
        """Sweeps, and forgets those that were evicted before."""
        self.do_sweep(tenant)
        for key, known in list(tenant.blocks.items()):
            if known.deadline_s and known.deadline_s <= self.clock.s:
                if known.pins or known.lease_end_ms > self.clock.ms - 32:
                    continue
                del tenant.blocks[key]
                self.places.pop(known.place or 0, None)


@pytest.mark.parametrize("seed", range(6))
def test_random_calls(seed: int) -> None:
    with opened(MIB) as clock:
        story = Story(seed, clock)
        for _ in range(1500):
            story.step()
        story.views.clear()
        while story.pending:
            region.spilled(story.pending.pop()[1], None)


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
        assert region.count_present(space, keys) == 0


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
