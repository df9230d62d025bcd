"""Cold blocks as rows: what the contract of tiers (tests/contract) does not ask."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest

from tests.contract.region import block, checksum, wait_until
from tests.postgres.test_catalogue import stopped
from tests.postgres.test_embedded import postmaster_of
from tests.rigs import postgres as rig
from tests.rigs.shared import Rigs
from zeekdb.tiers.envelope import seal, unseal
from zeekdb.tiers.packing import Packer
from zeekdb.tiers.postgres.blobs import GET_BYTES, PUT_ROWS, BlobTier
from zeekdb.tiers.postgres.pool import Database
from zeekdb.tiers.tier import Get, Held, Put, name_of, place_of

Make = Callable[..., BlobTier]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes tiers, and closes them with the test."""
    made: list[BlobTier] = []

    def tier(url: str, coding: str = "raw", timeout_s: float = 10, **options: Any) -> BlobTier:
        database = Database(url, timeout_s=timeout_s, connections=5)
        made.append(BlobTier(database, Packer(coding, checksum=checksum), **options))
        return made[-1]

    yield tier
    for each in made:
        await each.close()


@pytest.fixture
def url(rigs: Rigs) -> str:
    return rigs.database_url()


async def sql(tier: BlobTier, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    rows = await tier.database.write(lambda connection: connection.fetch(statement, *arguments))
    return [tuple(row) for row in rows]


def get_of(item: Put) -> Get:
    return Get(item.meta, place_of(item.meta), memoryview(bytearray(item.meta.size)))


async def test_what_is_there_is_not_written_again(make: Make, url: str) -> None:
    tier = make(url)
    await tier.open()
    item = block(1, 5000)
    where = "SELECT xmin::text, ctid::text FROM zeekdb.kv_cache_blobs"
    await tier.put([item])
    first = await sql(tier, where)
    assert await tier.put([item, item]) == [place_of(item.meta)] * 2
    assert await sql(tier, where) == first
    assert (tier.unchanged, tier.blocks) == (1, 1)
    late = Put(item.meta._replace(deadline=int(time.time()) + 100), item.data)
    await tier.put([late])
    assert await sql(tier, where) == first, "it lives longer than it must"


async def test_of_two_blocks_of_one_name_the_later_counts(make: Make, url: str) -> None:
    tier = make(url)
    await tier.open()
    one, two = block(1, 100, key=b"k"), block(2, 200, key=b"k")
    assert await tier.put([one, two]) == [place_of(one.meta), place_of(two.meta)]
    assert await tier.find([name_of(one.meta)]) == [two.meta]
    assert await tier.put([two, one, two]) == [place_of(two.meta), place_of(one.meta), place_of(two.meta)]
    assert await tier.find([name_of(one.meta)]) == [two.meta]


async def test_a_time_to_live_begins_anew_with_each_put(make: Make, url: str) -> None:
    now = [1_000_000.0]
    tier = make(url, ttl_s=100, clock=lambda: now[0])
    await tier.open()
    item, sooner = block(1, 100), block(2, 100, deadline=1_000_050)
    await tier.put([item, sooner])
    deadlines = "SELECT deadline FROM zeekdb.kv_cache_blobs ORDER BY deadline"
    assert await sql(tier, deadlines) == [(1_000_050,), (1_000_100,)]
    now[0] += 60
    assert await tier.find([name_of(item.meta), name_of(sooner.meta)]) == [item.meta, None]
    await tier.put([item])
    assert tier.unchanged == 1
    assert await sql(tier, deadlines) == [(1_000_050,), (1_000_160,)]
    now[0] += 99
    assert await tier.get([get_of(item)]) == [True]
    now[0] += 1
    assert await tier.get([get_of(item)]) == [False]
    assert [held async for page in tier.scan() for held in page] == []


async def test_what_is_damaged_is_no_block_until_it_is_put_again(make: Make, url: str) -> None:
    tier = make(url)
    await tier.open()
    items = [block(seed, 5000) for seed in range(5)]
    await tier.put(items)
    swap = "UPDATE zeekdb.kv_cache_blobs SET {} WHERE checksum = $1"
    checksums = [item.meta.checksum - (1 << 64) * (item.meta.checksum >> 63) for item in items]
    await sql(tier, swap.format("payload = set_byte(payload, 99, 255 - get_byte(payload, 99))"), checksums[0])
    await sql(tier, swap.format("header = '\\x00'"), checksums[1])
    await sql(tier, swap.format("payload = ''"), checksums[2])
    ((header,),) = await sql(tier, "SELECT header FROM zeekdb.kv_cache_blobs WHERE checksum = $1", checksums[4])
    await sql(tier, swap.format("header = $2"), checksums[3], header)
    assert await tier.get([get_of(item) for item in items]) == [False] * 4 + [True]
    assert tier.corrupt == 4
    assert (await tier.find([name_of(item.meta) for item in items]))[1:] == [None, items[2].meta, None, items[4].meta]
    assert all(place is not None for place in await tier.put(items))
    assert await tier.get([get_of(item) for item in items]) == [True] * 5


async def test_a_payload_that_there_is_no_room_for_is_not_sent(make: Make, url: str) -> None:
    tier = make(url)
    await tier.open()
    item = block(1, 1000)
    await tier.put([item])
    ((header,),) = await sql(tier, "SELECT header FROM zeekdb.kv_cache_blobs")
    hostile = unseal(header)[0]._replace(stored_size=50_000_000)
    huge = "UPDATE zeekdb.kv_cache_blobs SET header = $1, payload = convert_to(repeat('x', 50000000), 'UTF8')"
    await sql(tier, huge, seal(hostile))
    assert await tier.get([get_of(item)]) == [False]
    assert tier.corrupt == 1


async def test_more_than_one_transaction_takes(make: Make, url: str) -> None:
    tier = make(url, max_bytes=GET_BYTES * 2)
    await tier.open()
    items = [block(seed, 10) for seed in range(2 * PUT_ROWS + 1)] + [block(9999, GET_BYTES + 1)]
    assert all(place is not None for place in await tier.put(items))
    gets = [get_of(item) for item in items]
    assert await tier.get(gets) == [True] * len(items)
    assert all(get.into == item.data for get, item in zip(gets, items, strict=True))
    assert await tier.put([block(1, GET_BYTES * 2 + 1)]) == [None]


async def test_a_writer_need_not_own_the_tables(make: Make, rigs: Rigs) -> None:
    server = rigs.postgres()
    database = rigs.database()
    owner = make(server.url(database))
    await owner.open()
    server.sql("DROP ROLE IF EXISTS just_stores", database)
    server.sql("CREATE ROLE just_stores LOGIN IN ROLE zeekdb_writer", database)
    tier = make(server.url(database, "just_stores"))
    await tier.open()
    item = block(1, 5000)
    assert await tier.put([item]) == [place_of(item.meta)]
    assert await tier.get([get_of(item)]) == [True]
    assert await tier.delete([Held(item.meta, place_of(item.meta))]) == [True]
    await tier.close()
    server.sql("DROP ROLE just_stores", database)


# ---- a server that fails -------------------------------------------------------------------------------------------


async def test_wherever_it_is_cut_nothing_confirmed_is_lost_and_nothing_wrong_is_said(make: Make, rigs: Rigs) -> None:
    server = rigs.postgres()
    proxy = rigs.proxy(server.address)
    tier = make(server.tcp_url(rigs.database(), port=proxy.port), coding="zstd", timeout_s=2)
    await tier.open()
    random = Random(3)
    confirmed: list[Put] = []
    for number in range(15):
        proxy.cut(random.randrange(1, 30_000))
        items = [block(number * 10 + at, random.randrange(20_000)) for at in range(5)]
        places = await tier.put(items)
        confirmed += [item for item, place in zip(items, places, strict=True) if place is not None]
        gets = [get_of(item) for item in confirmed]
        for get, item, answer in zip(gets, confirmed, await tier.get(gets), strict=True):
            assert answer is not False, "it is there: it could not be asked"
            assert answer is None or get.into == item.data
        proxy.passing()
        await wait_until(lambda: tier.stats().state == "ok")
    assert proxy.cuts > 0
    assert await tier.get([get_of(item) for item in confirmed]) == [True] * len(confirmed)
    assert tier.stats().queue_bytes == 0


async def test_while_it_is_stopped_nothing_can_be_asked(make: Make) -> None:
    with rig.postgres() as server:
        tier = make(server.url(server.database()), timeout_s=0.2)
        await tier.open()
        item, other = block(1, 5000), block(2, 5000)
        await tier.put([item])
        with stopped(server):
            began = time.monotonic()
            assert await tier.get([get_of(item)]) == [None]
            assert await tier.put([other]) == [None]
            assert await tier.find([name_of(item.meta)]) == [None]
            assert await tier.delete([Held(item.meta, place_of(item.meta))]) == [False]
            assert [page async for page in tier.scan()] == []
            assert time.monotonic() - began < 10
            assert tier.stats().state == "failing"
        await wait_until(lambda: tier.stats().state == "ok", 10)
        assert await tier.get([get_of(item)]) == [True]
        assert await tier.put([other]) == [place_of(other.meta)]


async def test_what_was_confirmed_survives_a_kill(make: Make, rigs: Rigs) -> None:
    folder = rigs.embedded_folder()
    tier = make(f"embedded:{folder}", timeout_s=5)
    await tier.open()
    embedded = tier.database.embedded
    assert embedded is not None
    confirmed: list[Put] = []
    for kill in range(1, 4):
        items = [block(kill * 100 + at, 20_000) for at in range(20)]
        places = await tier.put(items)
        confirmed += [item for item, place in zip(items, places, strict=True) if place is not None]
        os.kill(postmaster_of(folder), signal.SIGKILL)
        await wait_until(lambda kill=kill: embedded.starts > kill and tier.stats().state == "ok", 20)
    assert len(confirmed) >= 20
    assert await tier.get([get_of(item) for item in confirmed]) == [True] * len(confirmed)
