"""What upkeep does, when, and that of many nodes one does it; the clock is the tests'."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tests.postgres import traffic
from tests.postgres.conftest import Connect, asyncpg
from tests.postgres.test_statistics import expected, same, shown
from tests.postgres.traffic import NOW
from zeekdb.tiers.postgres import upkeep
from zeekdb.tiers.postgres.upkeep import TASKS, Upkeep

ALL = {task.name for task in TASKS}


def node(connection: Any, name: str = "n1", **options: Any) -> Upkeep:
    """Upkeep on one connection, a call at a time; a statement that was cancelled has taken a minute."""
    turn = asyncio.Lock()
    spent_s = 0.0

    async def call(work: Callable[[Any], Awaitable[Any]]) -> Any:
        nonlocal spent_s
        async with turn:
            try:
                return await work(connection)
            except asyncpg.QueryCanceledError:
                spent_s += 60
                raise

    failures = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
    options = {"is_clock_ours": True, **options}
    return Upkeep(call, failures=failures, node=name, timer=lambda: spent_s, **options)


async def until_idle(keeper: Upkeep, now: float) -> list[upkeep.Done]:
    """Ticks until nothing is left to do, and the two minutes after it: hours and days wait for minutes and hours."""
    did: list[upkeep.Done] = []
    for _ in range(4):
        for _ in range(3000):
            done = await keeper.tick(now)
            did += done
            if not any(each.more for each in done):
                break
        else:
            raise AssertionError(f"never idle: {did[-5:]}")
        now += 31
    return did


async def partitions(connection: Any) -> list[str]:
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relname ~ '^kv_cache_access_log_\\d+$' ORDER BY relname"
    )
    return [row[0].removeprefix("kv_cache_access_log_") for row in rows]


async def drop_partitions(connection: Any) -> None:
    for name in await partitions(connection):
        await connection.execute(f"DROP TABLE zeekdb.kv_cache_access_log_{name}")


async def test_everything_is_done_when_it_is_due(owner: Any) -> None:
    keeper = node(owner)
    start = NOW.timestamp()
    first = await until_idle(keeper, start)
    assert {each.task for each in first} == ALL
    counts = dict.fromkeys(ALL, 0)
    for second in range(120, 2 * 3600 + 120, 5):
        for each in await keeper.tick(start + second):
            counts[each.task] += 1
    assert not keeper.failed and not keeper.error
    assert 115 <= counts["minute"] <= 121
    assert 11 <= counts["hour"] <= 40 and 1 <= counts["day"] <= 10
    assert 22 <= counts["popular"] <= 24 and 600 <= counts["expired"] <= 720
    assert counts["partitions"] in (1, 2) and counts["log"] in (1, 2) and counts["old"] in (1, 2)


async def test_of_a_fleet_one_node_does_it(connect: Connect, database: str) -> None:
    keepers = [node(await connect(database), f"n{number}") for number in range(4)]
    start = NOW.timestamp()
    await until_idle(keepers[0], start)
    did: dict[str, int] = dict.fromkeys(ALL, 0)
    for second in range(120, 1920, 5):
        for done in await asyncio.gather(*(keeper.tick(start + second) for keeper in keepers)):
            for each in done:
                did[each.task] += 1
    assert not any(keeper.failed for keeper in keepers), [keeper.error for keeper in keepers]
    assert 27 <= did["minute"] <= 34 and 5 <= did["popular"] <= 8 and did["partitions"] <= 1


async def test_statistics_follow_the_log(owner: Any) -> None:
    """Traffic comes as time goes by; at the end the statistics are those of the whole log."""
    dice = random.Random(8)
    blocks = traffic.make_blocks(dice, 50, (b"m1", b"m2"))
    await traffic.store_blocks(owner, blocks)
    keeper = node(owner)
    span_s = 3 * 3600
    accesses = traffic.make_accesses(dice, 2000, blocks, span_s=span_s)
    await owner.execute("SELECT zeekdb.ensure_log_partitions($1, $2)", NOW.date() - timedelta(days=1), NOW.date())
    begin = NOW - timedelta(hours=4, minutes=30)
    written = 0
    for step in range(0, int((NOW - begin).total_seconds()) + 60, 50):
        now = begin + timedelta(seconds=step)
        batch = []
        while written < len(accesses) and accesses[written].at <= now - timedelta(seconds=dice.randrange(0, 30)):
            batch.append(accesses[written])
            written += 1
        if batch:
            await traffic.store_accesses(owner, batch)
        await keeper.tick(now.timestamp())
    assert written == len(accesses)
    await until_idle(keeper, NOW.timestamp() + 3700)
    for bucket in ("minute", "hour", "day"):
        same(await shown(owner, bucket), expected(accesses, bucket))


async def test_goes_on_after_days_without(owner: Any) -> None:
    dice = random.Random(9)
    blocks = traffic.make_blocks(dice, 50, (b"m1", b"m2"))
    accesses = traffic.make_accesses(dice, 1500, blocks, span_s=86_400)
    await traffic.store_blocks(owner, blocks)
    await traffic.store_accesses(owner, accesses)
    keeper = node(owner)
    did = await until_idle(keeper, NOW.timestamp())
    pieces = sum(each.task == "minute" for each in did)
    assert 140 < pieces < 170  # many small transactions, not a large one, and no more than there is to count
    await until_idle(keeper, NOW.timestamp() + 3700)
    for bucket in ("minute", "hour", "day"):
        same(await shown(owner, bucket), expected(accesses, bucket))


async def test_a_piece_that_takes_too_long_is_tried_smaller(owner: Any) -> None:
    """A database that is too slow for ten minutes of the log, and for an exact hour, still gets its statistics."""
    dice = random.Random(10)
    blocks = traffic.make_blocks(dice, 20, (b"m",))
    accesses = traffic.make_accesses(dice, 600, blocks, span_s=3 * 3600)
    await traffic.store_accesses(owner, accesses)
    await owner.execute(
        """
        ALTER FUNCTION zeekdb.aggregate_cache_stats RENAME TO fast;
        CREATE FUNCTION zeekdb.aggregate_cache_stats(b text, since timestamptz, until timestamptz, exact bigint)
        RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
            IF b = 'minute' AND until - since > interval '4 min' OR b <> 'minute' AND exact > 100000 THEN
                RAISE query_canceled USING MESSAGE = 'canceling statement due to statement timeout';
            END IF;
            RETURN zeekdb.fast(b, since, until, CASE WHEN b = 'minute' THEN 0 ELSE 1 END);
        END $$
        """
    )
    keeper = node(owner)
    now = NOW.timestamp()
    for _ in range(400):
        await keeper.tick(now)
        now += 16
    assert 3 < keeper.failed < 20 and keeper.done["day"] >= 1
    same(await shown(owner, "minute"), expected(accesses, "minute"))
    for bucket in ("hour", "day"):
        counts = {key: row["reads"] for key, row in (await shown(owner, bucket)).items()}
        assert counts == {key: row["reads"] for key, row in expected(accesses, bucket).items()}


async def test_a_node_whose_clock_is_wrong_does_no_harm(owner: Any) -> None:
    """The database's clock counts: a year ahead of it, the log is not dropped and nothing is put off for the others."""
    before = await partitions(owner)
    now = datetime.now(UTC)
    wrong = node(owner, "wrong", log_days=1, is_clock_ours=False)
    await until_idle(wrong, now.timestamp() + 366 * 86_400)
    assert set(await partitions(owner)) >= {f"{now:%Y%m%d}", f"{now - timedelta(days=1):%Y%m%d}"} & set(before)
    latest = await owner.fetchval("SELECT max(greatest(at, done_until)) FROM zeekdb.kv_cache_upkeep")
    assert abs((latest - now).total_seconds()) < 60
    right = node(owner, "right", is_clock_ours=True)
    did = await right.tick(now.timestamp() + 120)
    assert "minute" in {each.task for each in did}


async def test_an_outage_makes_no_piece_smaller(owner: Any) -> None:
    keeper = node(owner)
    await owner.execute("ALTER FUNCTION zeekdb.aggregate_cache_stats RENAME TO gone")
    for step in range(20):
        await keeper.tick(NOW.timestamp() + 20 * step)
    assert keeper.failed >= 10
    assert keeper._minutes == upkeep.MINUTES_A_TICK and keeper._exact_rows == upkeep.EXACT_ROWS_MAX


async def test_days_of_the_log_come_and_go(owner: Any) -> None:
    await drop_partitions(owner)
    blocks = traffic.make_blocks(random.Random(1), 1, (b"m",))
    keeper = node(owner, log_days=3)
    names = lambda first, last: [f"{date.fromordinal(day):%Y%m%d}" for day in range(first, last + 1)]  # noqa: E731
    today = NOW.date().toordinal()
    seen = []
    for day in range(6):
        now = NOW + timedelta(days=day)
        await until_idle(keeper, now.timestamp())
        access = traffic.Access(now, blocks[0], "read", "host", True, 10 + day, day)
        await traffic.store_accesses(owner, [access])
        await until_idle(keeper, now.timestamp() + 4000)
        await until_idle(keeper, now.timestamp() + 8000)
        seen.append(await partitions(owner))
        assert seen[-1][-1] == names(today + day + 2, today + day + 2)[0]
    assert seen[-1] == names(today + 5 - 3, today + 5 + 2)
    assert await owner.fetchval("SELECT count(*) FROM zeekdb.kv_cache_stats WHERE bucket = 'day'") == 6
    assert await owner.fetchval("SELECT count(*) FROM zeekdb.kv_cache_access_log") == 4


async def test_the_log_is_not_dropped_before_it_is_counted(owner: Any) -> None:
    """But not kept for ever either, when counting never succeeds."""
    await drop_partitions(owner)
    await owner.execute("SELECT zeekdb.ensure_log_partitions($1, $2)", NOW.date() - timedelta(days=9), NOW.date())
    keeper = node(owner, log_days=3)
    await owner.execute("ALTER FUNCTION zeekdb.aggregate_cache_stats RENAME TO gone")
    await keeper.tick(NOW.timestamp())
    assert keeper.failed >= 1 and "aggregate_cache_stats" in keeper.error
    assert (await partitions(owner))[0] == f"{NOW.date() - timedelta(days=6):%Y%m%d}"
    await owner.execute("ALTER FUNCTION zeekdb.gone RENAME TO aggregate_cache_stats")
    await until_idle(keeper, NOW.timestamp() + 60)
    await until_idle(keeper, NOW.timestamp() + 3700)
    await until_idle(keeper, NOW.timestamp() + 7500)
    assert not keeper.error
    assert (await partitions(owner))[0] == f"{NOW.date() - timedelta(days=3):%Y%m%d}"


async def test_rows_before_their_day_are_kept_and_moved(owner: Any) -> None:
    """A node's clock is a year ahead: nothing fails, and the row is in its day's partition later."""
    at = NOW + timedelta(days=365)
    await owner.execute(
        "INSERT INTO zeekdb.kv_cache_access_log (at, latency_us, hit, digest, access_type, tier, model) "
        "VALUES ($1, 1, true, '', 'read', 'host', 'm'), ($2, 2, true, '', 'read', 'host', 'm')",
        at, at - timedelta(days=3000),
    )  # fmt: skip
    assert await owner.fetchval("SELECT count(*) FROM zeekdb.kv_cache_access_log_rest") == 2
    assert await owner.fetchval("SELECT zeekdb.ensure_log_partitions($1, $1)", at.date()) == 1
    assert await owner.fetchval("SELECT zeekdb.ensure_log_partitions($1, $1)", at.date()) == 0
    where = await owner.fetchval("SELECT tableoid::regclass::text FROM zeekdb.kv_cache_access_log WHERE latency_us = 1")
    assert where == f"zeekdb.kv_cache_access_log_{at:%Y%m%d}"
    await until_idle(node(owner), NOW.timestamp())
    assert await owner.fetchval("SELECT array_agg(latency_us) FROM zeekdb.kv_cache_access_log") == [1]


async def test_what_has_expired_goes_in_steps(owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "STEP_ROWS", 100)
    now = int(NOW.timestamp())
    await owner.execute(
        "INSERT INTO zeekdb.kv_cache_metadata (digest, size, checksum, model, key, deadline) SELECT "
        "substr(sha256(g::text::bytea), 1, 16), 1, 1, 'm', '', "
        "CASE WHEN g % 3 = 0 THEN 0 ELSE $1::bigint - 500 + g END FROM generate_series(1, 1000) AS g", now,
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO zeekdb.kv_cache_blobs (digest, checksum, size, deadline, model, header, payload) "
        "SELECT digest, 1, 1, deadline, 'm', '', '' FROM zeekdb.kv_cache_metadata"
    )
    keeper = node(owner)
    first = [each for each in await keeper.tick(now) if each.task == "expired"]
    assert first == [upkeep.Done("expired", 200, more=True)]
    did = first
    while did[-1].more:
        did += [each for each in await keeper.tick(now) if each.task == "expired"]
    gone = sum(1 for g in range(1, 1001) if g % 3 and g <= 500)
    assert sum(each.rows for each in did) == 2 * gone and max(each.rows for each in did) == 200
    for table in ("kv_cache_metadata", "kv_cache_blobs"):
        assert await owner.fetchval(f"SELECT count(*) FROM zeekdb.{table}") == 1000 - gone
        assert await owner.fetchval(f"SELECT min(deadline) FROM zeekdb.{table} WHERE deadline > 0") > now


async def test_what_is_old_goes(owner: Any) -> None:
    for bucket, days in (("minute", 8), ("minute", 6), ("hour", 91), ("hour", 89), ("day", 1100), ("day", 1000)):
        await owner.execute(
            "INSERT INTO zeekdb.kv_cache_stats (bucket, at, tier, model, reads, writes, lookups, deletes, hits, "
            "misses, bytes, latency_sum_us, p50_us, p95_us, p99_us, latencies, source) "
            "VALUES ($1, $2, 'host', 'm', 1, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, '{}', 'log')",
            bucket, NOW - timedelta(days=days),
        )  # fmt: skip
    there = bytes(16)
    await owner.execute(
        "INSERT INTO zeekdb.kv_cache_metadata (digest, size, checksum, model, key) VALUES ($1, 1, 1, '', '')", there
    )
    for digest, days in ((there, 40), (b"\1" * 16, 40), (b"\2" * 16, 20)):
        await owner.execute(
            "INSERT INTO zeekdb.kv_cache_versions (digest, version, at, size, checksum, model, key) "
            "VALUES ($1, 1, $2, 1, 1, '', '')", digest, NOW - timedelta(days=days),
        )  # fmt: skip
    for number, (refs, days) in enumerate(((0, 2), (0, 0.5), (1, 30))):
        await owner.execute(
            "INSERT INTO zeekdb.kv_cache_shared (digest, node, refs, at, model) VALUES ($1, 'n', $2, $3, '')",
            bytes([number]) * 16, refs, NOW - timedelta(days=days),
        )  # fmt: skip
    did = [each for each in await until_idle(node(owner), NOW.timestamp()) if each.task == "old"]
    assert [each.rows for each in did] == [3 + 1 + 1]
    left = await owner.fetch("SELECT digest FROM zeekdb.kv_cache_versions ORDER BY digest")
    assert [row[0] for row in left] == [there, b"\2" * 16]
    assert await owner.fetchval("SELECT array_agg(refs ORDER BY refs) FROM zeekdb.kv_cache_shared") == [0, 1]


async def test_popular_entries(owner: Any) -> None:
    blocks = traffic.make_blocks(random.Random(3), 300, (b"m",))
    for block in blocks:
        block.created = datetime.now(UTC)
    blocks[0].deadline = 1  # over
    blocks[0].access_count, blocks[0].levels = 10**6, ("warm",)
    await traffic.store_blocks(owner, blocks)
    await until_idle(node(owner), NOW.timestamp())
    rows = await owner.fetch("SELECT rank, digest, access_count, score FROM zeekdb.popular_entries ORDER BY rank")
    wanted = [b for b in blocks if b.access_count > 0 and b.levels and not b.deadline]
    assert {row["digest"] for row in rows} == {b.digest for b in wanted} and len(rows) == len(wanted)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert rows[0]["access_count"] == max(b.access_count for b in wanted)


async def test_who_is_refused_tries_again(connect: Connect, database: str) -> None:
    """A reader of the log keeps its old days from being dropped: upkeep gives up soon, and does it later."""
    keeper_side, holder = await connect(database), await connect(database)
    keeper = node(keeper_side, log_days=1)
    await until_idle(keeper, NOW.timestamp())
    await keeper_side.execute("SELECT zeekdb.ensure_log_partitions($1, $1)", NOW.date())
    later = NOW + timedelta(days=9)
    async with holder.transaction():
        await holder.fetch("SELECT * FROM zeekdb.kv_cache_access_log")
        for step in range(3):
            await keeper.tick(later.timestamp() + step)
        assert keeper.failed >= 1 and "lock timeout" in keeper.error
    await until_idle(keeper, later.timestamp() + 120)
    await until_idle(keeper, later.timestamp() + 4000)
    assert f"{NOW:%Y%m%d}" not in await partitions(holder)
    assert not keeper.error
