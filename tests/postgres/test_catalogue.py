"""The catalogue on real servers: what was told is found, once, whatever the server does meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random
from typing import Any

import pytest

from tests.contract.region import checksum, content, wait_until
from tests.postgres.conftest import asyncpg
from tests.postgres.test_embedded import postmaster_of
from tests.postgres.traffic import NASTY
from tests.rigs import postgres as rig
from tests.rigs.postgres import PASSWORD
from tests.rigs.shared import Rigs
from zeekdb.tiers.envelope import digest
from zeekdb.tiers.guard import TierFailed
from zeekdb.tiers.postgres.catalogue import Catalogue, Found, session_settings
from zeekdb.tiers.postgres.embedded import _standing
from zeekdb.tiers.postgres.events import ACCESSES_MAX, FACTS_MAX, Context
from zeekdb.tiers.postgres.pool import Database
from zeekdb.tiers.tier import Meta, Name, name_of

Make = Callable[..., Catalogue]


def meta(number: int, version: int = 0, size: int = 1000) -> Meta:
    data = content(number * 1000 + version, size)
    return Meta(b"model", b"salt", b"key:%d" % number, size, checksum(memoryview(data)), 0, b"group", "raw")


def data_of(number: int, version: int = 0, size: int = 1000) -> memoryview:
    return memoryview(content(number * 1000 + version, size))


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes catalogues, and closes them with the test."""
    made: list[Catalogue] = []

    def catalogue(url: str, node: str = "here", versions: int = 8, timeout_s: float = 10, **options: Any) -> Catalogue:
        settings = session_settings(versions)
        database = Database(url, timeout_s=timeout_s, settings=settings, connections=4)
        made.append(Catalogue(database, node=node, versions=versions, **options))
        return made[-1]

    yield catalogue
    for each in made:
        await each.close()


@pytest.fixture
def url(rigs: Rigs) -> str:
    return rigs.database_url()


async def rows(catalogue: Catalogue, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """As the owner of the tables."""
    found = await catalogue.database.write(lambda connection: connection.fetch(statement, *arguments))
    return [tuple(row) for row in found]


# ---- what was told is found ------------------------------------------------------------------------------------------


async def test_one_tells_and_another_finds(make: Make, url: str) -> None:
    here, there = make(url, "here"), make(url, "there")
    await here.open()
    await there.open()
    one, two, gone = meta(1), meta(2), meta(3)
    for each in (one, two, gone):
        here.stored(each, Context(0, 32, 16, 32, b"parent", b"sequence", 2000, {"topic": "x"}))
    here.placed(one, ("postgres", "warm"), 500, "zstd")
    here.placed(gone, ("warm",), 500)
    assert await here.flush()
    here.removed(name_of(gone))
    assert await here.flush()
    nowhere, other_salt = Name(b"model", b"salt", b"nothing"), name_of(one)._replace(salt=b"other")
    names = [name_of(one), nowhere, name_of(two), name_of(gone), other_salt]
    found = await there.find(names)
    assert found == [Found(one, ("warm", "postgres"), "here"), None, Found(two, (), "here"), None, None]
    (row,) = await rows(
        here, "SELECT layer_to, token_from, token_to, sequence, plain_size, stored_size, compression, storage_backend, "
        "storage_key, metadata, parent, changed_by FROM zeekdb.kv_cache_metadata WHERE key = $1", one.key,
    )  # fmt: skip
    parent = bytes.fromhex(digest(Name(b"model", b"salt", b"parent")))
    assert row[:8] == (32, 16, 32, b"sequence", 2000, 500, "zstd", "postgres")
    assert row[8:] == (digest(one), '{"topic": "x"}', parent, "here")
    there.placed(one, ("objects",), 600)
    assert await there.flush()
    assert await here.find([name_of(one)]) == [Found(one, ("objects",), "there")]
    (row,) = await rows(here, "SELECT layer_to, sequence FROM zeekdb.kv_cache_metadata WHERE key = $1", one.key)
    assert row == (32, b"sequence"), "who says where it lies says nothing of what it is"


async def test_other_bytes_are_nowhere_until_they_are_placed(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    catalogue.placed(meta(1), ("warm",), 10)
    await catalogue.flush()
    catalogue.stored(meta(1, 1), Context())
    await catalogue.flush()
    assert await catalogue.find([name_of(meta(1))]) == [Found(meta(1, 1), (), "here")]


async def test_what_has_expired_is_not_found(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    now = int(time.time())
    metas = [meta(1)._replace(deadline=now - 5), meta(2)._replace(deadline=now + 500)]
    for each in metas:
        catalogue.placed(each, ("warm",), 1)
    await catalogue.flush()
    assert await catalogue.find([name_of(each) for each in metas]) == [None, Found(metas[1], ("warm",), "here")]
    assert [page async for page in catalogue.adoptable(10)] == [[Found(metas[1], ("warm",), "here")]]


async def test_any_bytes_are_a_name_and_any_text_is_kept(make: Make, url: str) -> None:
    here, there = make(url, node="no'de\0\ud800" + "x" * 300), make(url)
    await here.open()
    await there.open()
    metas = [Meta(model, salt, key, 5, 2**64 - 1 - at, 0, key[:50], "raw")
             for at, (model, salt, key) in enumerate(
                 (NASTY[at], NASTY[at - 3], NASTY[at - 7]) for at in range(len(NASTY)))]  # fmt: skip
    for each in metas:
        said = {"a'\0": "\ud800;--", "deep": {"list": [1, None, b"\xff\x00"]}, each.key.decode("latin-1"): True}
        here.stored(each, Context(parent=each.key, sequence=each.key, metadata=said))
        here.placed(each, ("objects",), 5)
        here.accessed(name_of(each), "read", "objects", True, 5, 2**64 - 1)
        new, why = each._replace(checksum=7), "why; DROP SCHEMA zeekdb CASCADE; --"
        here.overwritten(each, new, "who\0'\ud800", why, b"12345")
        here.shared([name_of(each)], 1)
    assert await here.flush(20)
    found = await there.find([name_of(each) for each in metas])
    assert [one and one.meta for one in found] == [each._replace(checksum=7) for each in metas]
    for each in metas:
        versions = await there.history(name_of(each))
        assert [version.meta for version in versions] == [each._replace(checksum=7), each]
        assert (versions[1].who, versions[1].why) == ("who\\x00'\\ud800", "why; DROP SCHEMA zeekdb CASCADE; --")
        assert await there.snapshot(name_of(each), versions[1].version) == (each, b"12345")
    assert await rows(here, "SELECT count(*) FROM zeekdb.kv_cache_access_log") == [(len(metas),)]
    assert here.writer.rejected == 0


async def test_json_that_is_none_is_left_out(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    knot: dict[str, Any] = {}
    knot["self"] = knot
    for at, said in enumerate(({"x": object()}, {"x": float("nan")}, knot, {"x": "y" * 100_000}, {1: {2: 3}})):
        catalogue.stored(meta(at), Context(metadata=said))
    assert await catalogue.flush()
    found = await rows(catalogue, "SELECT metadata FROM zeekdb.kv_cache_metadata ORDER BY key")
    assert found == [("{}",)] * 4 + [('{"1": {"2": 3}}',)]


# ---- history -------------------------------------------------------------------------------------------------------


async def test_every_overwrite_is_a_version_that_can_be_restored(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    datas = [bytes(data_of(1)), b"ab" * 1000, b"", content(7, 3000)]  # the second can be compressed
    metas = [meta(1)._replace(size=len(data), checksum=checksum(memoryview(data))) for data in datas]
    catalogue.stored(metas[0], Context())
    for number in (1, 2, 3):
        data = memoryview(datas[number - 1])
        catalogue.overwritten(metas[number - 1], metas[number], f"user {number}", f"reason {number}", data)
    history = await catalogue.history(name_of(meta(1)))
    assert [each.meta for each in history] == metas[::-1]
    assert [each.replaced_at_s > 0 for each in history] == [False, True, True, True]
    assert [(each.who, each.why) for each in history[1:]] == [(f"user {n}", f"reason {n}") for n in (3, 2, 1)]
    assert [each.has_snapshot for each in history] == [False, True, True, True]
    for number, each in enumerate(history[:0:-1]):
        assert await catalogue.snapshot(name_of(meta(1)), each.version) == (metas[number], datas[number])
    assert await catalogue.snapshot(name_of(meta(1)), 99) is None
    assert await catalogue.snapshot(name_of(meta(2)), 1) is None
    assert await catalogue.history(name_of(meta(2))) == []


async def test_an_overwrite_of_what_nobody_told_is_a_version_too(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    catalogue.overwritten(meta(1), meta(1, 1), "me", "why", data_of(1))
    catalogue.overwritten(meta(1, 1), meta(1, 1), "me", "the same bytes", data_of(1, 1))
    catalogue.overwritten(meta(1, 5), meta(1, 6), "me", "the catalogue had missed some", None)
    history = await catalogue.history(name_of(meta(1)))
    assert [each.meta for each in history] == [meta(1, 6), meta(1, 5), meta(1, 1), meta(1)]


async def test_so_many_versions_are_kept(make: Make, url: str) -> None:
    some, none = make(url, versions=3), make(url, versions=0)
    await some.open()
    await none.open()
    for version in range(10):
        some.overwritten(meta(1, version), meta(1, version + 1), "me", "", data_of(1, version))
    assert [each.meta for each in await some.history(name_of(meta(1)))] == [meta(1, at) for at in (10, 9, 8, 7)]
    none.overwritten(meta(2), meta(2, 1), "me", "", data_of(2))
    assert [each.meta for each in await none.history(name_of(meta(2)))] == [meta(2, 1)]


async def test_how_many_is_said_while_it_runs(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    for kept in (2, 0, 1):
        catalogue.retune(log_sample=100, log_days=7, versions=kept)
        for version in range(4):
            number = kept * 10 + version
            catalogue.overwritten(meta(1, number), meta(1, number + 1), "me", "", None)
        await catalogue.flush()
    assert len(await catalogue.history(name_of(meta(1)))) == 2


async def test_large_snapshots_are_left_out_and_counted(make: Make, url: str) -> None:
    catalogue = make(url, snapshot_bytes_max=999)
    await catalogue.open()
    catalogue.overwritten(meta(1), meta(1, 1), "me", "", data_of(1))
    assert [each.has_snapshot for each in await catalogue.history(name_of(meta(1)))] == [False, False]
    assert catalogue.stats().more["snapshots_left_out"] == 1


# ---- accesses and references ---------------------------------------------------------------------------------------


async def test_accesses_are_logged_and_counted(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    catalogue.stored(meta(1), Context())
    for number in range(15):
        catalogue.accessed(name_of(meta(1)), "read", "host", True, 100 + number, number)
    catalogue.accessed(name_of(meta(2)), "lookup", "none", False, 20_000, 99)
    await catalogue.flush()
    assert await rows(catalogue, "SELECT access_count FROM zeekdb.kv_cache_metadata") == [(15,)]
    log = "SELECT access_type, tier, hit, latency_us, request_id, node FROM zeekdb.kv_cache_access_log ORDER BY 5"
    expected = [("read", "host", True, 100 + number, number, "here") for number in range(15)]
    assert await rows(catalogue, log) == [*expected, ("lookup", "none", False, 20_000, 99, "here")]
    assert len(await rows(catalogue, "SELECT FROM zeekdb.hot_cache_entries")) == 1


@pytest.mark.parametrize(("percent", "least", "most"), [(0, 0, 0), (25, 350, 650), (100, 2000, 2000)])
async def test_a_sample_is_logged_and_all_is_counted(
    make: Make, url: str, percent: int, least: int, most: int
) -> None:
    catalogue = make(url, log_sample=percent)
    await catalogue.open()
    catalogue.stored(meta(1), Context())
    for number in range(2000):
        catalogue.accessed(name_of(meta(1)), "read", "host", True, 1, number)
    await catalogue.flush()
    ((count,),) = await rows(catalogue, "SELECT count(*) FROM zeekdb.kv_cache_access_log")
    assert least <= count <= most
    assert await rows(catalogue, "SELECT access_count FROM zeekdb.kv_cache_metadata") == [(2000,)]


async def test_references_of_each_node(make: Make, url: str) -> None:
    here, there = make(url, "here"), make(url, "there")
    await here.open()
    await there.open()
    names = [name_of(meta(number)) for number in range(3)]
    here.shared(names, 2)
    await here.flush()
    here.shared(names[:2], -1)
    here.shared(names[2:], -5)
    there.shared(names)
    await here.flush()
    await there.flush()
    found = await rows(here, "SELECT node, refs FROM zeekdb.kv_cache_shared ORDER BY node, digest")
    assert found == [("here", 1), ("here", 1), ("there", 1), ("there", 1), ("there", 1)]


async def test_warming_and_adopting(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    for number in range(1500):
        catalogue.placed(meta(number), ("warm",) if number % 3 else (), 10)
        if number < 30:
            for _ in range(number + 1):
                catalogue.accessed(name_of(meta(number)), "read", "host", True, 1, 1)
    await catalogue.flush(20)
    await rows(catalogue, "SELECT zeekdb.refresh_popular_entries()")
    popular = await catalogue.popular(5)
    assert [found.meta for found in popular] == [meta(number) for number in (29, 28, 26, 25, 23)]
    pages = [page async for page in catalogue.adoptable(10_000)]
    assert {found.meta.key for page in pages for found in page} == {meta(n).key for n in range(1500) if n % 3}
    assert sum(map(len, pages)) == 1000
    assert sum([len(page) async for page in catalogue.adoptable(700)]) == 700


async def test_upkeep_runs_with_the_ticks(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    gone = meta(1)._replace(deadline=int(time.time()) - 10)
    catalogue.placed(gone, ("warm",), 1)
    await catalogue.flush()
    now = [time.time()]

    def done() -> bool:
        now[0] += 0.1
        catalogue.tick(now[0])
        return catalogue.upkeep.done.get("expired", 0) > 0

    await wait_until(done, 20)
    assert await rows(catalogue, "SELECT FROM zeekdb.kv_cache_metadata") == []


# ---- a server that fails -------------------------------------------------------------------------------------------


def tell(catalogue: Catalogue, numbers: range) -> None:
    """Facts of which it shows when they count twice, or not at all."""
    for number in numbers:
        catalogue.stored(meta(number), Context())
        catalogue.shared([name_of(meta(number)), name_of(meta(-1))], 1)
        catalogue.accessed(name_of(meta(number)), "read", "host", True, 1, number)


async def check_once(catalogue: Catalogue, count: int, is_log_whole: bool = True) -> None:
    assert await rows(catalogue, "SELECT count(*) FROM zeekdb.kv_cache_metadata") == [(count,)]
    refs = "SELECT refs, count(*) FROM zeekdb.kv_cache_shared GROUP BY refs ORDER BY refs"
    assert await rows(catalogue, refs) == [(1, count), (count, 1)]
    log = "SELECT count(*), count(DISTINCT request_id) FROM zeekdb.kv_cache_access_log"
    ((logged, distinct),) = await rows(catalogue, log)
    assert logged == distinct
    assert logged == count if is_log_whole else logged <= count
    ((counted,),) = await rows(catalogue, "SELECT sum(access_count)::bigint FROM zeekdb.kv_cache_metadata")
    assert counted == logged


async def test_rows_are_there_once_whenever_the_server_is_killed(make: Make, rigs: Rigs) -> None:
    folder = rigs.embedded_folder()
    random = Random(5)
    catalogue = make(f"embedded:{folder}", batch_rows=200)
    await catalogue.open()
    embedded = catalogue.database.embedded
    assert embedded is not None
    count = 0
    for kill in range(1, 5):
        tell(catalogue, range(count, count + 1000))
        count += 1000
        batches = catalogue.writer.batches + random.randrange(1, 8)

        def is_amid(batches: int = batches) -> bool:
            catalogue.tick(0)
            return catalogue.writer.batches >= batches

        await wait_until(is_amid, 20)
        for pid in (random.choice(list(_standing(folder / "data"))), postmaster_of(folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await wait_until(lambda kill=kill: embedded.starts > kill, 20)
    assert await catalogue.flush(30)
    await wait_until(lambda: catalogue.stats().state == "ok", 10)
    # what was logged in the last moments before a kill may be gone: nobody waited for the disk
    await check_once(catalogue, count, is_log_whole=False)
    assert (catalogue.writer.rejected, catalogue.stats().dropped) == (0, 0)
    assert catalogue.writer.retried > 0


async def test_rows_are_there_once_wherever_the_connection_is_cut(make: Make, rigs: Rigs) -> None:
    server = rigs.postgres()
    database = rigs.database()
    proxy = rigs.proxy(server.address)
    catalogue = make(server.tcp_url(database, port=proxy.port), batch_rows=50, timeout_s=2.0)
    await catalogue.open()
    random, count = Random(11), 0
    for _ in range(12):
        cuts = proxy.cuts
        proxy.cut(random.randrange(1, 400))
        tell(catalogue, range(count, count + 200))
        count += 200
        catalogue.tick(0)
        await wait_until(lambda cuts=cuts: proxy.cuts > cuts, 20)
        proxy.passing()
        assert await catalogue.flush(20), catalogue.stats()
    await check_once(catalogue, count)
    assert catalogue.writer.retried >= 6
    assert catalogue.stats().dropped == 0


async def test_a_batch_whose_commit_was_not_heard_of_is_not_written_twice(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    write, calls = catalogue.database.write, 0

    async def deaf(work: Any, **options: Any) -> Any:
        nonlocal calls
        answer = await write(work, **options)
        calls += 1
        if calls % 2:
            catalogue.database.guard.failed(OSError("cut"))
            raise TierFailed("cut")
        return answer

    catalogue.database.write = deaf  # type: ignore[method-assign]
    tell(catalogue, range(100))
    assert await catalogue.flush()
    catalogue.database.write = write  # type: ignore[method-assign]
    await check_once(catalogue, 100)
    assert catalogue.writer.retried >= 2


async def test_a_server_that_starts_later(make: Make) -> None:
    with rig.postgres() as server:
        url = server.tcp_url(server.database())
        server.kill()
        catalogue = make(url, timeout_s=1.0)
        began = time.monotonic()
        await catalogue.open()
        assert time.monotonic() - began < 6
        tell(catalogue, range(100))
        assert await catalogue.find([name_of(meta(1))]) == [None]
        stats = catalogue.stats()
        assert stats.state == "failing" and "Connect call failed" in stats.error and PASSWORD not in stats.error
        server.start()
        assert await catalogue.flush(20)
        await check_once(catalogue, 100)
        assert catalogue.stats().state == "ok"


@contextlib.contextmanager
def stopped(server: rig.Postgres) -> Iterator[None]:
    """All its processes hear nothing and say nothing."""
    pids = list(_standing(server.data))
    assert len(pids) > 2

    def tell_all(number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # some come and go
                os.kill(pid, number)

    tell_all(signal.SIGSTOP)
    try:
        yield
    finally:
        tell_all(signal.SIGCONT)


async def test_questions_end_in_time_while_the_server_is_stopped(make: Make) -> None:
    with rig.postgres() as server:
        catalogue = make(server.url(server.database()), timeout_s=0.2)
        await catalogue.open()
        tell(catalogue, range(10))
        await catalogue.flush()
        assert (await catalogue.find([name_of(meta(1))]))[0] is not None
        with stopped(server):
            tell(catalogue, range(10, 20))
            catalogue.tick(0)
            worst = 0.0
            for _ in range(8):
                began = time.monotonic()
                assert await catalogue.find([name_of(meta(1))]) == [None]
                worst = max(worst, time.monotonic() - began)
            assert worst < 5, "many times the timeout, and still far from waiting for the server"
            assert catalogue.stats().state == "failing"
            assert catalogue.stats().more["breaker_opens"] == 1
        await wait_until(lambda: catalogue.stats().state == "ok", 10)
        assert (await catalogue.find([name_of(meta(1))]))[0] is not None
        assert await catalogue.flush(20)
        await check_once(catalogue, 20)


async def test_closing_does_not_wait_for_a_stopped_server(make: Make) -> None:
    with rig.postgres() as server:
        catalogue = make(server.url(server.database()), timeout_s=0.2)
        await catalogue.open()
        with stopped(server):
            tell(catalogue, range(10))
            async with asyncio.timeout(30):
                await catalogue.close()


async def test_full_queues_drop_and_count(make: Make) -> None:
    catalogue = make("postgresql://nobody:secret@127.0.0.1:1/nothing", timeout_s=0.2)
    await catalogue.open()
    for number in range(FACTS_MAX + 5000):
        catalogue.stored(meta_cheap(number), NO_CONTEXT)
    for number in range(ACCESSES_MAX + 700):
        catalogue.accessed(ONE, "read", "host", True, 1, number)
    for number in range(100):
        catalogue.removed(name_of(meta_cheap(number)))
    stats = catalogue.stats()
    assert stats.more["queue_facts"] <= FACTS_MAX and stats.more["queue_accesses"] <= ACCESSES_MAX
    assert stats.more["queue_facts"] + stats.more["dropped_facts"] >= FACTS_MAX + 5000
    assert stats.dropped > 5000
    assert "secret" not in repr(stats)


NO_CONTEXT = Context()
ONE = Name(b"m", b"", b"k")


def meta_cheap(number: int) -> Meta:
    return Meta(b"m", b"", b"%d" % number, 1, 1)


# ---- who may, and how they speak -----------------------------------------------------------------------------------


async def test_a_writer_need_not_own_the_tables(make: Make, rigs: Rigs) -> None:
    server = rigs.postgres()
    database = rigs.database()
    owner = make(server.url(database))
    await owner.open()
    server.sql("DROP ROLE IF EXISTS just_writes; DROP ROLE IF EXISTS just_reads", database)
    server.sql("CREATE ROLE just_writes LOGIN IN ROLE zeekdb_writer")
    server.sql("CREATE ROLE just_reads LOGIN IN ROLE zeekdb_reader")
    settings = session_settings(8)
    both = Database(
        server.url(database, "just_writes"), reader_url=server.url(database, "just_reads"), settings=settings,
        timeout_s=10,
    )  # fmt: skip
    catalogue = Catalogue(both, node="here")
    await catalogue.open()
    tell(catalogue, range(20))
    catalogue.overwritten(meta(1), meta(1, 1), "me", "", data_of(1))
    catalogue.placed(meta(2), ("warm",), 1)
    catalogue.removed(name_of(meta(3)))
    catalogue.shared([name_of(meta(4))], -1)
    assert await catalogue.flush()
    assert (await catalogue.find([name_of(meta(1)), name_of(meta(3))])) == [Found(meta(1, 1), (), "here"), None]
    assert await catalogue.snapshot(name_of(meta(1)), 1) == (meta(1), bytes(data_of(1)))
    await catalogue.upkeep.tick(time.time())
    assert catalogue.upkeep.error == ""
    assert [found.meta for found in await catalogue.popular(10)] == [meta(2)]
    assert catalogue.writer.rejected == 0
    with pytest.raises(asyncpg.PostgresError):
        async with both._readers.acquire() as connection:  # type: ignore[union-attr]
            await connection.execute("DELETE FROM zeekdb.kv_cache_metadata")
    await catalogue.close()
    await owner.close()
    server.sql("DROP ROLE just_writes; DROP ROLE just_reads", database)


async def test_tls_through_the_url(make: Make, rigs: Rigs) -> None:
    certificates = rigs.certificates()
    with rig.postgres(tls=certificates) as server:
        url = server.tcp_url(server.database())
        verified = url.replace("sslmode=require", "sslmode=verify-full")
        catalogue = make(f"{verified}&sslrootcert={certificates.authority}")
        await catalogue.open()
        assert catalogue.stats().state == "ok", catalogue.stats()
        assert await rows(catalogue, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
        plain = make(url.replace("sslmode=require", "sslmode=disable"), timeout_s=1.0)
        await plain.open()
        assert plain.stats().state == "failing"


async def test_secrets_stay_here(make: Make, rigs: Rigs, caplog: pytest.LogCaptureFixture) -> None:
    server = rigs.postgres()
    catalogue = make(server.tcp_url(rigs.database(), password="wrong-and-secret"), timeout_s=1.0)
    await catalogue.open()
    assert await catalogue.find([name_of(meta(1))]) == [None]
    stats = catalogue.stats()
    assert (stats.state, "authentication failed" in stats.error) == ("failing", True)
    assert "wrong-and-secret" not in repr(stats) + caplog.text


async def test_after_the_end(make: Make, url: str) -> None:
    catalogue = make(url)
    await catalogue.open()
    tell(catalogue, range(10))
    await catalogue.close()
    await catalogue.close()
    assert catalogue.stats().state == "closed"
    assert await catalogue.find([name_of(meta(1))]) == [None]
    assert await catalogue.history(name_of(meta(1))) == []
    again = make(url)
    await again.open()
    await check_once(again, 10)
