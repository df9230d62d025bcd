"""The planner takes the index that was made for a question, by its own choice, with 50,000 blocks in the catalogue.

Nothing is switched off for it. What is not here (savings) reads a table to its end: its answer is about all of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.postgres.conftest import Connect
from tests.postgres.traffic import NOW
from tests.rigs.postgres import Postgres
from zeekdb.tiers.postgres import migrate, reports, upkeep
from zeekdb.tiers.postgres.writer import LOG

BLOCKS = 50_000
FILL = f"""
    SELECT setseed(0.5);
    INSERT INTO zeekdb.kv_cache_metadata (digest, size, stored_size, checksum, model, key, created_at, access_count,
        layer_from, layer_to, token_from, token_to, sequence, deadline, metadata, levels)
    SELECT substr(sha256(g::text::bytea), 1, 16), 1000, 500, g, convert_to('model-' || g % 20, 'UTF8'), g::text::bytea,
        now() - random() * interval '30 days', CASE WHEN g % 10 = 0 THEN (1 / (random() + 0.001))::bigint ELSE 0 END,
        0, 32, (g / 20 % 100) * 256, (g / 20 % 100) * 256 + 256, convert_to('seq-' || g / 2000, 'UTF8'),
        CASE WHEN g % 4 = 0 THEN {int(NOW.timestamp())} + g ELSE 0 END,
        jsonb_build_object('topic', g % 500, 'user', 'u' || g % 1000), '{{warm}}'
    FROM generate_series(1, {BLOCKS}) AS g;
    INSERT INTO zeekdb.kv_cache_blobs (digest, checksum, size, deadline, model, header, payload)
        SELECT digest, checksum, size, deadline, model, 'h', 'p' FROM zeekdb.kv_cache_metadata;
    INSERT INTO zeekdb.kv_cache_access_log (at, latency_us, hit, digest, access_type, tier, model)
    SELECT $at$::timestamptz - g * interval '2 s', (200 / (random() + 0.005))::bigint, random() < 0.7, '\\x00', 'read',
        'warm', convert_to('model-' || g % 20, 'UTF8') FROM generate_series(120000, 1, -1) AS g;
    INSERT INTO zeekdb.kv_cache_stats (bucket, at, tier, model, reads, writes, lookups, deletes, hits, misses, bytes,
        latency_sum_us, p50_us, p95_us, p99_us, latencies, source)
    SELECT 'minute', $at$::timestamptz - g * interval '1 min', 'warm', convert_to('model-' || m, 'UTF8'), 1, 0, 0, 0,
        1, 0, 1, 1, 1, 1, 1, '{{}}', 'log' FROM generate_series(1, 3000) AS g, generate_series(0, 19) AS m;
    INSERT INTO zeekdb.kv_cache_versions (digest, version, at, size, checksum, model, key)
        SELECT digest, 1, created_at, 1, 1, model, '' FROM zeekdb.kv_cache_metadata;
""".replace("$at$", f"'{NOW.isoformat()}'")


class Explaining:
    """A connection that answers with nothing and remembers how it would have found it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.plan: dict[str, Any] = {}

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        found = await self._connection.fetchval("EXPLAIN (FORMAT JSON) " + statement, *arguments)
        self.plan = json.loads(found)[0]["Plan"]
        return []

    def nodes(self) -> Iterator[dict[str, Any]]:
        waiting = [self.plan]
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            yield node

    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes() if "Index Name" in node}

    def read_whole(self) -> set[str]:
        return {node["Relation Name"] for node in self.nodes() if node["Node Type"] == "Seq Scan"}


@pytest.fixture
async def big(server: Postgres, connect: Connect) -> AsyncIterator[Any]:
    """The same database for all tests of this module, which change nothing."""
    name = "zeekdb_big"
    if not server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
        server.sql(f"CREATE DATABASE {name}")
        connection = await connect(name)
        await migrate.up(connection)
        for day in range(5):
            await connection.execute("SELECT zeekdb.ensure_log_partitions($1, $1)", (NOW - timedelta(days=day)).date())
        await connection.execute(FILL)
        await connection.execute("VACUUM ANALYZE")
    connection = await connect(name)
    await connection.execute("BEGIN READ ONLY")
    yield connection
    await connection.execute("ROLLBACK")


Question = Callable[[Any], Awaitable[Any]]
NOW_S = NOW.timestamp()
QUESTIONS: dict[str, tuple[Question, set[str]]] = {
    "entries": (lambda on: reports.entries(on, b"model-3"), {"kv_cache_metadata_model"}),
    "entries, a later page": (
        lambda on: reports.entries(on, b"model-3", before=(time.time() - 10 * 86_400, b"\x80" * 16)),
        {"kv_cache_metadata_model"},
    ),
    "recent": (lambda on: reports.recent_entries(on), {"kv_cache_metadata_created"}),
    "hot": (lambda on: reports.hot_entries(on), {"kv_cache_metadata_heat"}),
    "tokens": (
        lambda on: reports.token_range(on, b"model-3", b"seq-7", 5, 1000, 3000), {"kv_cache_metadata_tokens"}
    ),
    "metadata": (lambda on: reports.with_metadata(on, {"topic": 7, "user": "u7"}), {"kv_cache_metadata_json"}),
    "slowest": (
        lambda on: reports.slow_accesses(on, now=NOW_S), {"kv_cache_access_log_20260305_at_tier_latency_us_idx"}
    ),
    "statistics": (
        lambda on: reports.statistics(on, "minute", since=NOW_S - 3600, until=NOW_S), {"kv_cache_stats_pkey"}
    ),
    "statistics of a model": (
        lambda on: reports.statistics(on, "minute", since=NOW_S - 36_000, until=NOW_S, model=b"model-5"),
        {"kv_cache_stats_model"},
    ),
    "hit rates": (lambda on: reports.hit_rates(on, now=NOW_S), {"kv_cache_access_log_20260305_at_idx"}),
    "slow tiers": (lambda on: reports.slow_tiers(on, now=NOW_S), {"kv_cache_access_log_20260305_at_idx"}),
    "a block": (
        lambda on: on.fetch("SELECT * FROM zeekdb.kv_cache_metadata WHERE digest = $1", b"\0" * 16),
        {"kv_cache_metadata_pkey"},
    ),
    "many blocks": (
        lambda on: on.fetch(
            "SELECT * FROM zeekdb.kv_cache_metadata WHERE digest = ANY($1)", [bytes([n]) * 16 for n in range(64)]
        ),
        {"kv_cache_metadata_pkey"},
    ),
    "history": (
        lambda on: on.fetch(
            "SELECT * FROM zeekdb.kv_cache_versions WHERE digest = $1 ORDER BY version DESC", b"\0" * 16
        ),
        {"kv_cache_versions_pkey"},
    ),
    "blobs that expire": (
        lambda on: on.fetch(upkeep.EXPIRED[0], int(NOW_S) + 100, 1000),
        {"kv_cache_blobs_pkey", "kv_cache_blobs_deadline"},
    ),
    "entries that expire": (
        lambda on: on.fetch(upkeep.EXPIRED[1], int(NOW_S) + 100, 1000),
        {"kv_cache_metadata_pkey", "kv_cache_metadata_deadline"},
    ),
    "accesses to log": (
        lambda on: on.fetch(
            LOG, *([value] * 500 for value in (NOW_S, 1, 1, True, b"\0" * 16, "read", "host", b"m", b"")), "n"
        ),
        {"kv_cache_metadata_pkey"},
    ),
    "old statistics": (
        lambda on: on.fetch(upkeep.OLD_STATS, NOW - timedelta(days=2), 1000, "minute"), {"kv_cache_stats_pkey"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", QUESTIONS)
async def test_the_index_is_taken(big: Any, name: str) -> None:
    question, wanted = QUESTIONS[name]
    on = Explaining(big)
    await question(on)
    assert on.indexes() == wanted, json.dumps(on.plan, indent=1)
    assert not on.read_whole()


@pytest.mark.parametrize("name", ["hit rates", "slow tiers", "slowest"])
async def test_only_the_days_that_matter_are_read(big: Any, name: str) -> None:
    on = Explaining(big)
    await QUESTIONS[name][0](on)
    read = {node["Relation Name"] for node in on.nodes() if "Relation Name" in node}
    assert read <= {"kv_cache_access_log_20260305", "kv_cache_access_log_rest"}


async def test_a_reader_of_one_tenant_takes_it_too(big: Any, server: Postgres) -> None:
    """The policy is part of the statement, not a call for each row that an index could not be used beside."""
    await big.execute("SELECT set_config('zeekdb.tenant', zeekdb.tenant('model-3'), true)")
    await big.execute("SET LOCAL ROLE zeekdb_reader")
    on = Explaining(big)
    await reports.token_range(on, b"model-3", b"seq-7", 5, 1000, 3000)  # type: ignore[arg-type]
    assert on.indexes() == {"kv_cache_metadata_tokens"}
