"""The region's index: random calls against a model of plain dictionaries."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from tests.unit.tensors.spaces import MIB, Clock, opened, told, value
from zeekdb.hot import region
from zeekdb.hot.blobview import BlobView
from zeekdb.hot.checksum import checksum


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
            "remove", "demote", "take", "take", "written", "written", "promote", "adopt", "moved", "lost",
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

    def do_demote(self, tenant: Tenant) -> None:
        keys = list(dict.fromkeys(self.keys()))
        region.demote(tenant.space, keys)

    def do_spilling(self, tenant: Tenant) -> None:
        self.spills = not self.spills
        own_uses = self.dice.choice((0, 1, 2))
        region.configure_spilling(300_000 if self.spills else 0, self.dice.choice((1, 2)), own_uses)

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
        if known is not None and len(known.data) == size:  # `replace` may have stored something else
            memoryview(view)[:] = known.data
        done = region.promote(tenant.space, key, view)
        assert not done or (known is not None and not known.in_host)
        if done and known:
            known.in_host = True

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
        region.configure_space(tenant.space, tenant.quota)

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
                assert (found["place"], found["pins"]) == (known.place, known.pins)
                assert found["deadline_s"] == known.deadline_s
                assert found["in_host"] or found["place"] is not None
                assert found["queue"] != "held"
                if found["in_host"] and found["queue"] == "nowhere":
                    assert known.pins or known.writing, f"{key!r} can never leave"
                leased += found["queue"] == "leased" and known.lease_end_ms > self.clock.ms
        for known in tenant.blocks.values():  # the expired are counted until they are swept
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
