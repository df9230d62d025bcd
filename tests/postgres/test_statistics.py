"""Minutes, hours and days agree with the log; merged ones with it as far as a histogram goes."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.postgres import traffic
from tests.postgres.traffic import NASTY, NOW, Access, percentile
from zeekdb.tiers.postgres import reports

MODELS = (b"llama", b"qwen", *NASTY[:4])
DAYS = timedelta(days=4)


def begins(at: datetime, bucket: str) -> datetime:
    at = at.replace(second=0, microsecond=0)
    if bucket != "minute":
        at = at.replace(minute=0)
    return at.replace(hour=0) if bucket == "day" else at


def expected(accesses: list[Access], bucket: str) -> dict[tuple[float, bytes, str], dict[str, Any]]:
    """What the statistics should be."""
    groups: dict[tuple[float, bytes, str], list[Access]] = defaultdict(list)
    for access in accesses:
        groups[(begins(access.at, bucket).timestamp(), access.block.name.model, access.tier)].append(access)
    found = {}
    for key, group in groups.items():
        took = [access.latency_us for access in group]
        kinds = [access.kind for access in group]
        asked = [access for access in group if access.kind in ("read", "lookup")]
        moved = [a for a in group if a.kind == "write" or (a.kind == "read" and a.hit)]
        found[key] = {
            "reads": kinds.count("read"), "writes": kinds.count("write"), "lookups": kinds.count("lookup"),
            "deletes": kinds.count("delete"), "bytes": sum(a.size or 0 for a in moved),
            "hits": sum(a.hit for a in asked), "misses": sum(not a.hit for a in asked),
            "mean_us": pytest.approx(sum(took) / len(took)),
            "p50_us": percentile(took, 0.5), "p95_us": percentile(took, 0.95), "p99_us": percentile(took, 0.99),
        }  # fmt: skip
    return found


async def shown(owner: Any, bucket: str) -> dict[tuple[float, bytes, str], dict[str, Any]]:
    rows = await reports.statistics(owner, bucket, since=(NOW - DAYS).timestamp(), until=NOW.timestamp())
    assert len({(row.at, row.model, row.tier) for row in rows}) == len(rows)
    assert [row.at for row in rows] == sorted(row.at for row in rows)
    return {(row.at, row.model, row.tier): row._asdict() for row in rows}


def same(found: dict[Any, dict[str, Any]], wanted: dict[Any, dict[str, Any]], source: str = "log") -> None:
    assert found.keys() == wanted.keys()
    for key, figures in wanted.items():
        assert {name: found[key][name] for name in figures} == figures, key
        assert found[key]["source"] == source


async def aggregate(owner: Any, bucket: str, since: datetime = NOW - DAYS, until: datetime = NOW, **more: int) -> int:
    rows: int = await owner.fetchval(
        "SELECT zeekdb.aggregate_cache_stats($1, $2, $3, $4)", bucket, since, until, more.get("exact_rows_max", 10**6)
    )
    return rows


@pytest.fixture
async def accesses(owner: Any) -> list[Access]:
    """Generated traffic, in the database; another seed for each server."""
    dice = random.Random(owner.get_server_version().major)
    blocks = traffic.make_blocks(dice, 200, MODELS)
    made = traffic.make_accesses(dice, 4000, blocks)
    await traffic.store_blocks(owner, blocks)
    await traffic.store_accesses(owner, made)
    return made


async def test_agree_with_the_log(owner: Any, accesses: list[Access]) -> None:
    for bucket in reports.BUCKETS:
        wanted = expected(accesses, bucket)
        assert await aggregate(owner, bucket) == len(wanted)
        same(await shown(owner, bucket), wanted)
        assert await aggregate(owner, bucket) == len(wanted)  # again: nothing counts twice
        same(await shown(owner, bucket), wanted)


async def test_what_comes_late_counts(owner: Any, accesses: list[Access]) -> None:
    await aggregate(owner, "minute")
    dice = random.Random(3)
    late = traffic.make_accesses(dice, 50, [accesses[0].block], span_s=600)
    await traffic.store_accesses(owner, late)
    for bucket in reports.BUCKETS:
        await aggregate(owner, bucket, since=late[0].at)
        wanted = expected([*accesses, *late], bucket)
        found = await shown(owner, bucket)
        touched = {key: wanted[key] for key in wanted if key[0] >= begins(late[0].at, bucket).timestamp()}
        same({key: found[key] for key in touched}, touched)


def near(found: dict[Any, dict[str, Any]], wanted: dict[Any, dict[str, Any]]) -> None:
    """Counts are equal, percentiles within what a slot of the histogram is wide."""
    assert found.keys() == wanted.keys()
    for key, figures in wanted.items():
        for name, value in figures.items():
            if name in ("p50_us", "p95_us", "p99_us"):
                assert abs(found[key][name] - value) <= value / 16 + 0.5, (key, name)
            else:
                assert found[key][name] == value, (key, name)
        assert found[key]["source"] == "merged"


async def test_merged_where_the_log_is_gone(owner: Any, accesses: list[Access]) -> None:
    await aggregate(owner, "minute")
    today = NOW.date()
    assert await owner.fetchval("SELECT zeekdb.cleanup_old_access_logs(1, $1)", today) >= 2
    left = [access for access in accesses if access.at.date() >= today - timedelta(days=1)]
    gone = [access for access in accesses if access.at.date() < today - timedelta(days=1)]
    assert gone and await owner.fetchval("SELECT count(*) FROM zeekdb.kv_cache_access_log") == len(left)
    same(await shown(owner, "minute"), expected(accesses, "minute"))  # what was rolled up stays
    for bucket in ("hour", "day"):
        await aggregate(owner, bucket)
        found = await shown(owner, bucket)
        old, new = expected(gone, bucket), expected(left, bucket)
        assert not old.keys() & new.keys()
        near({key: found[key] for key in found if key in old}, old)
        same({key: found[key] for key in found if key not in old}, new)


async def test_merged_where_the_log_is_too_long(owner: Any, accesses: list[Access]) -> None:
    for bucket in reports.BUCKETS:
        await aggregate(owner, bucket, exact_rows_max=0)
    same(await shown(owner, "minute"), expected(accesses, "minute"))
    for bucket in ("hour", "day"):
        near(await shown(owner, bucket), expected(accesses, bucket))
    await aggregate(owner, "hour")  # exact takes the place of merged
    same(await shown(owner, "hour"), expected(accesses, "hour"))
    await aggregate(owner, "hour", exact_rows_max=0)  # and merged does not take that of exact
    same(await shown(owner, "hour"), expected(accesses, "hour"))


async def test_the_summary(owner: Any, accesses: list[Access]) -> None:
    await aggregate(owner, "hour")
    rows = await owner.fetch("SELECT * FROM zeekdb.cache_stats_summary WHERE bucket = 'hour'")
    groups: dict[tuple[bytes, str], list[Access]] = defaultdict(list)
    for access in accesses:
        groups[(access.block.name.model, access.tier)].append(access)
    assert {(row["model"], row["tier"]) for row in rows} == set(groups)
    for row in rows:
        group = groups[(row["model"], row["tier"])]
        asked = [a for a in group if a.kind in ("read", "lookup")]
        assert row["reads"] + row["writes"] + row["lookups"] + row["deletes"] == len(group)
        assert row["hit_rate"] == (pytest.approx(sum(a.hit for a in asked) / len(asked)) if asked else None)
        assert row["mean_us"] == pytest.approx(sum(a.latency_us for a in group) / len(group))


async def test_slots_of_the_histogram(owner: Any) -> None:
    """Every latency's slot stands for a value within 1/16 of it, and slots grow with latencies."""
    dice = random.Random(5)
    values = [*range(3000), *(2**n + d for n in range(4, 62) for d in (-1, 0, 1))]
    values += [dice.randrange(2**40) for _ in range(2000)]
    rows = await owner.fetch(
        "SELECT v, zeekdb.latency_slot(v) AS slot, zeekdb.slot_latency(zeekdb.latency_slot(v)) AS value "
        "FROM unnest($1::bigint[]) AS v ORDER BY v", values,
    )  # fmt: skip
    assert all(abs(row["value"] - row["v"]) <= row["v"] / 16 + 0.5 for row in rows)
    slots = [row["slot"] for row in rows]
    assert slots == sorted(slots)
    assert await owner.fetchval("SELECT zeekdb.latency_slot(-5)") == 0


async def test_no_such_bucket(owner: Any) -> None:
    with pytest.raises(ValueError, match="week"):
        await reports.statistics(owner, "week", since=0, until=1)
    with pytest.raises(Exception, match=r"no such bucket|invalid input syntax"):
        await aggregate(owner, "fortnight")
