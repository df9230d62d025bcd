"""What every tier keeps to (zeekdb/tiers/tier.py). A tier joins by a line in TIERS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple
from urllib.parse import quote

import pytest

from tests.contract.memory import MemoryTier
from tests.contract.region import Region, block, checksum, content
from tests.rigs.redis import cluster_url, sentinel_url
from tests.rigs.s3 import ACCESS_KEY, REGION, SECRET_KEY
from tests.rigs.shared import Rigs
from zeekdb.tiers.objects import ObjectTier
from zeekdb.tiers.packing import Packer
from zeekdb.tiers.postgres.blobs import BlobTier
from zeekdb.tiers.postgres.pool import Database
from zeekdb.tiers.ssd import SsdTier
from zeekdb.tiers.tier import (
    PLACE_LOCAL,
    PLACE_MAX,
    Budget,
    Get,
    Held,
    Name,
    Put,
    SharedTier,
    Tier,
    name_of,
    place_of,
    settle,
)
from zeekdb.tiers.warm import WarmTier

MIB = 1 << 20
SIZES = (0, 1, 511, 512, 4095, 4096, 4097, 100_000, 1 << 20, (1 << 20) + 1)


Build = Callable[[Region], Tier]


class Maker:
    """Makes tiers of one kind, one after the other, over what the last one has left."""

    def __init__(self, kind: Kind, build: Build) -> None:
        self.kind = kind
        self._build = build

    def __call__(self, region: Region) -> Tier:
        return self._build(region)


class Kind(NamedTuple):
    """How a kind of tier is set up for one test, in a place where nothing is yet, and what is true of it alone."""

    setup: Callable[[Rigs, Path], Build]  # the path is the test's own folder
    shared: bool = False  # a SharedTier: other nodes write there too, the place is made of the checksum


def ssd(rigs: Rigs, folder: Path) -> Build:
    return lambda region: SsdTier(folder / "ssd", 256 * MIB, region, checksum, segment_bytes=16 * MIB)


def warm(url: str) -> Build:
    return lambda region: WarmTier(url, Packer(checksum=checksum), chunk_bytes=256 << 10, timeout_s=5)


def objects_folder(rigs: Rigs, folder: Path) -> Build:
    return lambda region: ObjectTier(f"file://{folder}/objects", coding="zstd", checksum=checksum)


def objects_s3(rigs: Rigs, folder: Path) -> Build:
    server = rigs.s3()
    url = f"s3://{server.bucket()}/a/prefix?endpoint={server.endpoint}&region={REGION}"
    keys = f"&access_key_id={ACCESS_KEY}&secret_access_key={quote(SECRET_KEY)}"
    return lambda region: ObjectTier(url + keys, coding="zstd", checksum=checksum)


def blobs(url: str) -> Build:
    database = Database(url, timeout_s=10)  # all the nodes of a test use one: two can't start a server in one folder
    return lambda region: BlobTier(database, Packer("zstd", checksum=checksum), max_bytes=64 * MIB)


def postgres_embedded(rigs: Rigs, folder: Path) -> Build:
    return blobs(f"embedded:{rigs.embedded_folder()}")


def postgres_debian(rigs: Rigs, folder: Path) -> Build:
    return blobs(rigs.database_url())


# A tier joins here. Its setup asks the rigs for servers (rigs.redis().url, rigs.database_url(), rigs.s3().bucket() …:
# empty or new for this test, skipped where the machine has none) and returns what makes a Tier from a region.
TIERS: dict[str, Kind] = {
    "ssd": Kind(ssd),
    "memory": Kind(lambda rigs, folder: lambda region: MemoryTier(str(folder)), shared=True),
    "warm redis": Kind(lambda rigs, _: warm(rigs.redis().url), shared=True),
    "warm sentinel": Kind(lambda rigs, _: warm(sentinel_url(rigs.sentinels())), shared=True),
    "warm cluster": Kind(lambda rigs, _: warm(cluster_url(rigs.cluster())), shared=True),
    "warm zeekdb": Kind(lambda rigs, _: warm(f"redis://127.0.0.1:{rigs.zeekdb().port}"), shared=True),
    "postgres: embedded": Kind(postgres_embedded, shared=True),
    "postgres: debian": Kind(postgres_debian, shared=True),
    "objects: folder": Kind(objects_folder, shared=True),
    "objects: s3": Kind(objects_s3, shared=True),
}


@pytest.fixture(params=list(TIERS))
def make(request: pytest.FixtureRequest, rigs: Rigs, tmp_path: Path) -> Maker:
    """Makes tiers of each kind in turn; a fresh place for each test."""
    kind = TIERS[request.param]
    return Maker(kind, kind.setup(rigs, tmp_path))


async def reopen(tier: Tier, make: Maker, region: Region) -> Tier:
    """As after a restart of the server: the index is made anew."""
    await tier.close()
    region.index.clear()
    tier = make(region)
    await region.load(tier)
    return tier


@pytest.mark.parametrize("offset", [0, 1, 64])
async def test_blocks_of_all_sizes_come_back(make: Maker, offset: int) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    items = [block(seed, size, offset=offset) for seed, size in enumerate(SIZES)]
    places = await tier.put(items)
    assert all(place is not None and 0 <= place <= PLACE_LOCAL for place in places)
    if make.kind.shared:
        assert places == [place_of(item.meta) for item in items]
    assert len(set(places)) == len(places)
    gets = [Get(item.meta, place or 0, block(0, item.meta.size, offset=offset).data) for item, place in
            zip(items, places, strict=True)]  # fmt: skip
    order = Random(1).sample(range(len(gets)), len(gets))
    assert await tier.get([gets[at] for at in order]) == [True] * len(gets)
    assert [bytes(got.into) for got in gets] == [content(seed, size) for seed, size in enumerate(SIZES)]
    await tier.close()


async def test_memory_of_any_kind_serves(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    item = block(1, 50_000)
    (place,) = await tier.put([Put(item.meta, memoryview(bytes(item.data)))])
    assert place is not None
    into = bytearray(50_000)
    assert await tier.get([Get(item.meta, place, memoryview(into))]) == [True]
    assert into == content(1, 50_000)
    await tier.close()


async def test_scan_is_what_was_put_minus_what_was_deleted(make: Maker) -> None:
    random, region = Random(7), Region()
    tier = make(region)
    await region.load(tier)
    assert not region.index
    there: dict[bytes, tuple[int, int]] = {}
    for number in range(4):
        for _ in range(12):
            items = [block(random.randrange(200), random.choice(SIZES[:8])) for _ in range(6)]
            fresh = {item.meta.key: item for item in items if item.meta.key not in there}
            assert all(await region.put(tier, list(fresh.values())))
            there |= {key: (int(key[4:]), item.meta.size) for key, item in fresh.items()}
            gone = random.sample(sorted(there), min(len(there), 3))
            assert all(await region.delete(tier, gone))
            for key in gone:
                del there[key]
        tier = await reopen(tier, make, region)
        assert {name[2] for name in region.index} == set(there), f"round {number}"
        for key, got in zip(there, await region.get(tier, list(there)), strict=True):
            assert got == content(*there[key])
    if not make.kind.shared:  # what other nodes did there since is not counted at every moment
        assert tier.stats().blocks == len(there)
        assert tier.stats().bytes == sum(size for _, size in there.values())
    await tier.close()


async def test_meta_comes_back_whole(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    metas = []
    for seed, key in enumerate((b"", b"\x00\xff" * 50, b"k" * 5000)):
        item = block(seed, 10_000)
        meta = item.meta._replace(
            model=b"model", salt=b"salt\x00", key=key, deadline=int(time.time()) + 1000, group=b"\xfe", codec="fp8",
        )  # fmt: skip
        metas.append(meta)
        assert await region.put(tier, [Put(meta, item.data)]) == [True]
    tier = await reopen(tier, make, region)
    assert sorted(held.meta for held in region.index.values()) == sorted(metas)
    assert await region.get(tier, [metas[2].key], b"salt\x00") == [None], "another model's"
    await tier.close()


async def test_a_key_of_another_salt_is_another_block(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    assert all(await region.put(tier, [block(1, 5000, key=b"k"), block(2, 5000, key=b"k", salt=b"s")]))
    assert await region.delete(tier, [b"k"]) == [True]
    tier = await reopen(tier, make, region)
    assert await region.get(tier, [b"k"]) == [None]
    assert await region.get(tier, [b"k"], b"s") == [content(2, 5000)]
    await tier.close()


async def test_what_is_too_large_is_not_stored(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    monster = block(1, 100, key=b"k" * 10_000_000)
    stored = await region.put(tier, [monster, block(2, 100)])
    assert stored[1]
    assert await region.get(tier, [b"key:2"]) == [content(2, 100)]
    if stored[0]:
        assert await region.get(tier, [monster.meta.key]) == [content(1, 100)]
    await tier.close()


async def test_what_has_expired_is_not_scanned(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    now = int(time.time())
    assert all(await region.put(tier, [block(1, 100, deadline=now - 5), block(2, 100, deadline=now + 5000)]))
    tier = await reopen(tier, make, region)
    assert [name[2] for name in region.index] == [b"key:2"]
    await tier.close()


async def test_misses(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    assert all(await region.put(tier, [block(1, 9000), block(2, 9000)]))
    one, two = (region.index[b"m", b"", key] for key in (b"key:1", b"key:2"))
    other = one.meta._replace(checksum=one.meta.checksum ^ 1)
    cases = [(other, place_of(other) if make.kind.shared else one.place), (one.meta._replace(key=b"other"), one.place)]
    if not make.kind.shared:  # there a place says nothing that the block does not
        cases += [(one.meta, two.place), (one.meta, one.place + 1), (one.meta, PLACE_MAX)]
    wrong = [Get(meta, place, memoryview(bytearray(9000))) for meta, place in cases]
    for item in wrong:
        assert await tier.get([item]) == [False]
        assert await tier.contains([Held(item.meta, item.place)]) == [False]
    right = Get(one.meta, one.place, memoryview(bytearray(9000)))
    assert await tier.get([*wrong, right]) == [False] * len(wrong) + [True]
    assert await tier.contains([one, two]) == [True, True]
    assert tier.stats().misses == 2 * len(wrong)
    await tier.close()


async def test_thousands_in_one_call(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    items = [block(seed, seed % 7) for seed in range(1500)]
    assert all(await region.put(tier, items))
    keys = [item.meta.key for item in items]
    assert await region.get(tier, keys) == [bytes(item.data) for item in items]
    assert all(await region.delete(tier, keys[::2]))
    tier = await reopen(tier, make, region)
    assert {name[2] for name in region.index} == set(keys[1::2])
    await tier.close()


async def test_nothing_is_lost_by_empty_calls(make: Maker) -> None:
    tier = make(Region())
    await tier.open()
    assert (await tier.put([]), await tier.get([]), await tier.delete([]), await tier.contains([])) == ([], [], [], [])
    await tier.close()


async def test_after_the_end(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    assert await region.put(tier, [block(1, 100)]) == [True]
    held = region.index[b"m", b"", b"key:1"]
    await tier.close()
    await tier.close()
    assert await tier.put([block(2, 100)]) == [None]
    assert await tier.get([Get(held.meta, held.place, memoryview(bytearray(100)))]) in ([False], [None])
    assert await tier.contains([held]) == [False]
    assert await tier.delete([held]) == [False]
    assert tier.stats().state == "closed"


async def test_closing_amid_work_answers_all_of_it(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)
    work = [asyncio.ensure_future(region.put(tier, [block(seed, 300_000)])) for seed in range(40)]
    work += [asyncio.ensure_future(region.get(tier, [b"key:1"])) for _ in range(10)]
    await asyncio.sleep(0)
    await tier.close()
    stored = [seed for seed, found in enumerate(await asyncio.gather(*work[:40])) if found == [True]]
    await asyncio.gather(*work[40:])
    region.index.clear()
    tier = make(region)
    await region.load(tier)
    got = await region.get(tier, [b"key:%d" % seed for seed in stored])
    assert got == [content(seed, 300_000) for seed in stored]
    await tier.close()


async def test_many_at_once(make: Maker) -> None:
    region = Region()
    tier = make(region)
    await region.load(tier)

    async def user(number: int) -> None:
        random = Random(number)
        for turn in range(6):
            seeds = [number * 1000 + turn * 10 + at for at in range(4)]
            sizes = [random.choice(SIZES) for _ in seeds]
            assert all(await region.put(tier, [block(seed, size) for seed, size in zip(seeds, sizes, strict=True)]))
            got = await region.get(tier, [b"key:%d" % seed for seed in seeds])
            assert got == [content(seed, size) for seed, size in zip(seeds, sizes, strict=True)]
            assert await region.delete(tier, [b"key:%d" % seeds[0]]) == [True]

    await asyncio.gather(*(user(number) for number in range(8)))
    stats = tier.stats()
    assert make.kind.shared or stats.blocks == 8 * 6 * 3
    assert stats.write.count == stats.read.count == 8 * 6 * 4
    assert stats.deleted == 8 * 6
    assert stats.write.errors == stats.read.errors == stats.misses == stats.corrupt == 0
    figures = stats.write.figures()
    assert 0 < figures["p50_us"] <= figures["p95_us"] <= figures["p99_us"]
    assert stats.queue_bytes == 0
    await tier.close()


# ---- tiers that nodes share ----------------------------------------------------------------------------------------


@pytest.fixture
def share(make: Maker) -> Callable[[Region], SharedTier]:
    """Makes one more node's view of the same place."""
    if not make.kind.shared:
        pytest.skip("one node's own")

    def build(region: Region) -> SharedTier:
        tier = make(region)
        assert isinstance(tier, SharedTier)
        return tier

    return build


async def test_what_one_node_stored_another_finds(share: Callable[[Region], SharedTier]) -> None:
    here, there = share(Region()), share(Region())
    await here.open()
    await there.open()
    await here.probe()
    item, salted = block(1, 30_000, deadline=int(time.time()) + 1000), block(2, 100, salt=b"s", key=b"\x00'\":/" * 2000)
    assert await here.put([item, salted]) == [place_of(item.meta), place_of(salted.meta)]
    names = [name_of(item.meta), Name(b"m", b"", b"nothing"), name_of(salted.meta), Name(b"other", b"", item.meta.key)]
    found = await there.find(names)
    assert found == [item.meta, None, salted.meta, None]
    into = memoryview(bytearray(30_000))
    assert await there.get([Get(item.meta, place_of(item.meta), into)]) == [True]
    assert into == item.data
    assert await there.delete([Held(item.meta, place_of(item.meta))]) == [True]
    assert await here.find(names) == [None, None, salted.meta, None]
    await here.close()
    assert await there.get([Get(salted.meta, place_of(salted.meta), memoryview(bytearray(100)))]) == [True]
    await there.close()


async def test_the_last_put_of_a_name_is_what_there_is(share: Callable[[Region], SharedTier]) -> None:
    here, there = share(Region()), share(Region())
    await here.open()
    await there.open()
    old, new = block(1, 5000, key=b"k"), block(2, 7000, key=b"k")
    assert all([*await here.put([old]), *await there.put([new]), *await there.put([new])])
    assert await here.find([name_of(old.meta)]) == [new.meta]
    gets = [Get(item.meta, place_of(item.meta), memoryview(bytearray(item.meta.size))) for item in (old, new)]
    assert await here.get(gets[:1]) == [False], "its bytes are no longer there"
    assert await here.get(gets[1:]) == [True]
    assert await here.contains([Held(old.meta, place_of(old.meta)), Held(new.meta, place_of(new.meta))]) == [
        False,
        True,
    ]
    await here.close()
    await there.close()


async def test_all_fields_of_a_meta_are_found(share: Callable[[Region], SharedTier]) -> None:
    tier = share(Region())
    await tier.open()
    item = block(3, 10, key=b"")
    meta = item.meta._replace(group=b"\xff\x00", codec="fp8", deadline=int(time.time()) + 5000, salt=b"\x00")
    assert all(await tier.put([Put(meta, item.data)]))
    assert await tier.find([name_of(meta)]) == [meta]
    assert await tier.find([name_of(item.meta)]) == [None], "no salt is another name"
    await tier.close()


# ---- what tiers are made of ----------------------------------------------------------------------------------------


async def test_a_budget_keeps_order_and_its_bound() -> None:
    budget, order = Budget(10), []

    async def take(name: int, amount: int) -> None:
        await budget.take(amount)
        order.append(name)

    await budget.take(8)
    tasks = [asyncio.ensure_future(take(name, amount)) for name, amount in enumerate((5, 1, 100))]
    await asyncio.sleep(0)
    assert order == []
    assert budget.taken == 8
    budget.give(8)
    await asyncio.wait(tasks[:2])
    assert (order, budget.taken) == ([0, 1], 6)
    tasks[2].cancel()
    await asyncio.wait(tasks)
    await asyncio.wait_for(budget.take(4), 5)
    budget.give(10)
    await asyncio.wait_for(budget.take(100), 5)  # more than there ever is goes alone
    assert budget.taken == 100


async def test_whoever_is_cancelled_waits_for_the_work() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(settle(work))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    work.set_result(1)
    await asyncio.wait([waiting])
    assert waiting.cancelled()
