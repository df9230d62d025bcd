"""What people ask a catalogue, as functions from a connection to typed rows.

Names are bytes, times Unix seconds, latencies microseconds, sizes bytes. Nothing that a client has said becomes part of
a statement. What each costs is said with it; all lists are bounded.

Percentiles are percentile_disc: the smallest latency that the given share of accesses did not exceed, so one that was
seen. A hit rate counts reads and lookups, and is None where there were none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from asyncpg import Connection

LIMIT: Final = 100  # rows, where nobody says how many
LIMIT_MAX: Final = 10_000
WINDOW_S: Final = 3600.0
SLOW_MS: Final = 10.0
MEGABYTE: Final = 1_000_000
BUCKETS: Final = ("minute", "hour", "day")

# As `kv_cache_metadata.model_text`: the index has this much of a model's name, the rest is compared.
MODEL_IS: Final = "m.model_text = encode(substr($1::bytea, 1, 200), 'escape') AND m.model = $1::bytea"


class Entry(NamedTuple):
    """A block of the catalogue."""

    digest: bytes
    model: bytes
    salt: bytes
    key: bytes
    sequence: bytes
    layer_from: int
    layer_to: int  # the first layer behind
    token_from: int
    token_to: int  # the first token behind
    size: int
    stored_size: int  # 0: in no tier that nodes share
    ratio: float | None
    compression: str
    levels: tuple[str, ...]
    node: str
    version: int
    access_count: int
    created_at: float
    accessed_at: float
    deadline: int
    metadata: dict[str, Any]


class HitRate(NamedTuple):
    """Of a model's reads and lookups."""

    model: bytes
    hits: int
    misses: int
    rate: float | None


class TierLatency(NamedTuple):
    """What a tier took, and how much of it was slow."""

    tier: str
    accesses: int
    slow: int  # accesses above the threshold
    mean_us: float
    p50_us: int
    p95_us: int
    p99_us: int
    max_us: int


class SlowAccess(NamedTuple):
    """An access above the threshold."""

    at: float
    tier: str
    model: bytes
    digest: bytes
    access_type: str
    latency_us: int
    request_id: int
    node: str


class Savings(NamedTuple):
    """What compression spares in the shared tiers."""

    model: bytes
    blocks: int
    plain_bytes: int
    stored_bytes: int
    ratio: float | None
    saved_mb: float  # of 1,000,000 bytes


class Bucket(NamedTuple):
    """A model's accesses at a tier in a minute, an hour or a day."""

    bucket: str
    at: float
    model: bytes
    tier: str
    reads: int
    writes: int
    lookups: int
    deletes: int
    hits: int
    misses: int
    bytes: int
    mean_us: float
    p50_us: int
    p95_us: int
    p99_us: int
    source: str  # log: exact; merged: percentiles within 1/16


ENTRY: Final = """
    m.digest, m.model, m.salt, m.key, m.sequence, m.layer_from, m.layer_to, m.token_from, m.token_to, m.size,
    m.stored_size, m.ratio, m.compression, m.levels, m.node, m.version, m.access_count, m.created_at, m.accessed_at,
    m.deadline, m.metadata
"""


async def entries(
    connection: Connection, model: bytes, *, limit: int = LIMIT, before: tuple[float, bytes] | None = None
) -> list[Entry]:
    """A model's blocks, the newest first; `before` (created_at, digest) of the last one brings the next page.

    One range of the index (model_text, created_at DESC, digest) for each page.
    """
    behind = "AND m.created_at <= $3 AND (m.created_at < $3 OR m.digest > $4) " if before else ""
    rows = await connection.fetch(
        f"SELECT {ENTRY} FROM zeekdb.kv_cache_metadata AS m WHERE {MODEL_IS} {behind}"
        "ORDER BY m.created_at DESC, m.digest LIMIT $2",
        model, _bounded(limit), *((_moment(before[0]), before[1]) if before else ()),
    )  # fmt: skip
    return [_entry(row) for row in rows]


async def recent_entries(connection: Connection, *, limit: int = LIMIT) -> list[Entry]:
    """The blocks of the last day, the newest first. One range of the index on created_at."""
    rows = await connection.fetch(f"SELECT {ENTRY} FROM zeekdb.recent_cache_entries AS m LIMIT $1", _bounded(limit))
    return [_entry(row) for row in rows]


async def hot_entries(connection: Connection, *, limit: int = LIMIT) -> list[Entry]:
    """Blocks with more than 10 accesses, the most first. Reads the index on heat from its hottest end."""
    rows = await connection.fetch(f"SELECT {ENTRY} FROM zeekdb.hot_cache_entries AS m LIMIT $1", _bounded(limit))
    return [_entry(row) for row in rows]


async def token_range(
    connection: Connection, model: bytes, sequence: bytes, layer: int, first: int, last: int, *, limit: int = LIMIT_MAX
) -> list[Entry]:
    """The blocks of a sequence that hold any of the tokens first … last - 1 of a layer, in their order.

    One range of the index (model, sequence, token_from): the sequence's blocks that begin before `last`.
    """
    rows = await connection.fetch(
        f"SELECT {ENTRY} FROM zeekdb.kv_cache_metadata AS m WHERE {MODEL_IS} "
        "AND m.sequence <> '' AND substr(m.sequence, 1, 200) = substr($2::bytea, 1, 200) AND m.sequence = $2::bytea "
        "AND m.layer_from <= $3 AND m.layer_to > $3 AND m.token_from < $5 AND m.token_to > $4 "
        "ORDER BY m.token_from, m.layer_from, m.digest LIMIT $6",
        model, sequence, layer, first, last, _bounded(limit),
    )  # fmt: skip
    return [_entry(row) for row in rows]


async def with_metadata(connection: Connection, wanted: dict[str, Any], *, limit: int = LIMIT) -> list[Entry]:
    """Blocks whose metadata contains all that is wanted. The GIN index on metadata."""
    rows = await connection.fetch(
        f"SELECT {ENTRY} FROM zeekdb.kv_cache_metadata AS m WHERE m.metadata @> $1::text::jsonb LIMIT $2",
        json.dumps(wanted), _bounded(limit),
    )  # fmt: skip
    return [_entry(row) for row in rows]


async def hit_rates(connection: Connection, *, now: float, window_s: float = WINDOW_S) -> list[HitRate]:
    """Of each model in the last hour (or `window_s`). The log's partitions of that time, and their BRIN index."""
    rows = await connection.fetch(
        "SELECT l.model, count(*) FILTER (WHERE l.hit), count(*) FILTER (WHERE NOT l.hit), "
        "count(*) FILTER (WHERE l.hit)::double precision / nullif(count(*), 0) "
        "FROM zeekdb.kv_cache_access_log AS l "
        "WHERE l.at > $1 AND l.at <= $2 AND l.access_type IN ('read', 'lookup') "
        "GROUP BY l.model ORDER BY count(*) DESC, l.model LIMIT $3",
        _moment(now - window_s), _moment(now), LIMIT_MAX,
    )  # fmt: skip
    return [HitRate(*row) for row in rows]


async def slow_tiers(
    connection: Connection, *, now: float, over_ms: float = SLOW_MS, window_s: float = WINDOW_S
) -> list[TierLatency]:
    """Tiers whose 95th percentile in the window is above `over_ms`, the slowest first. Costs as `hit_rates`."""
    rows = await connection.fetch(
        "SELECT t.tier, t.count, t.slow, t.mean, t.p[1], t.p[2], t.p[3], t.most FROM ("
        "SELECT l.tier, count(*) AS count, count(*) FILTER (WHERE l.latency_us > $3) AS slow, "
        "avg(l.latency_us)::double precision AS mean, max(l.latency_us) AS most, "
        "percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY l.latency_us) AS p "
        "FROM zeekdb.kv_cache_access_log AS l WHERE l.at > $1 AND l.at <= $2 GROUP BY l.tier) AS t "
        "WHERE t.p[2] > $3 ORDER BY t.p[2] DESC, t.tier LIMIT $4",
        _moment(now - window_s), _moment(now), int(over_ms * 1000), LIMIT_MAX,
    )  # fmt: skip
    return [TierLatency(*row) for row in rows]


async def slow_accesses(
    connection: Connection, *, now: float, over_ms: float = SLOW_MS, window_s: float = WINDOW_S, limit: int = LIMIT
) -> list[SlowAccess]:
    """Single accesses above `over_ms`, the latest first. The index of accesses of 10 ms and more, where it will do."""
    least_us = int(over_ms * 1000)
    indexed = "AND l.latency_us >= 10000 " if least_us >= 9999 else ""  # the index's condition, for the planner to see
    rows = await connection.fetch(
        "SELECT extract(epoch FROM l.at)::double precision, l.tier, l.model, l.digest, l.access_type, l.latency_us, "
        "l.request_id, l.node FROM zeekdb.kv_cache_access_log AS l "
        f"WHERE l.at > $1 AND l.at <= $2 AND l.latency_us > $3 {indexed}ORDER BY l.at DESC LIMIT $4",
        _moment(now - window_s), _moment(now), least_us, _bounded(limit),
    )  # fmt: skip
    return [SlowAccess(*row) for row in rows]


async def savings(connection: Connection) -> list[Savings]:
    """Of each model, the most saved first. Reads the whole table, which is what such a sum takes."""
    rows = await connection.fetch(
        "SELECT m.model, count(*), sum(CASE WHEN m.plain_size > 0 THEN m.plain_size ELSE m.size END)::bigint, "
        "sum(m.stored_size)::bigint FROM zeekdb.kv_cache_metadata AS m WHERE m.stored_size > 0 "
        "GROUP BY m.model ORDER BY 3 DESC, m.model LIMIT $1",
        LIMIT_MAX,
    )
    found = [
        Savings(model, blocks, plain, stored, plain / stored if stored else None, (plain - stored) / MEGABYTE)
        for model, blocks, plain, stored in rows
    ]
    return sorted(found, key=lambda each: (-each.saved_mb, each.model))


async def statistics(
    connection: Connection, bucket: str, *, since: float, until: float, model: bytes | None = None,
    limit: int = LIMIT_MAX,
) -> list[Bucket]:  # fmt: skip
    """The minutes, hours or days that begin in [since, until), in order of time. ValueError: no such bucket.

    One range of the primary key, or of the index (bucket, model_text, at).
    """
    if bucket not in BUCKETS:
        raise ValueError(f"no such bucket: {bucket!r}")
    one = "" if model is None else f"AND {MODEL_IS.replace('$1', '$5')} "
    rows = await connection.fetch(
        "SELECT m.bucket, extract(epoch FROM m.at)::double precision, m.model, m.tier, m.reads, m.writes, m.lookups, "
        "m.deletes, m.hits, m.misses, m.bytes, "
        "(m.latency_sum_us / (m.reads + m.writes + m.lookups + m.deletes))::double precision, "
        "m.p50_us, m.p95_us, m.p99_us, m.source FROM zeekdb.kv_cache_stats AS m "
        f"WHERE m.bucket = $1 AND m.at >= $2 AND m.at < $3 {one}ORDER BY m.at, m.model_text, m.tier LIMIT $4",
        bucket, _moment(since), _moment(until), _bounded(limit), *([] if model is None else [model]),
    )  # fmt: skip
    return [Bucket(*row) for row in rows]


def _entry(row: Sequence[Any]) -> Entry:
    fields = list(row)
    fields[13] = tuple(fields[13])
    fields[17], fields[18] = fields[17].timestamp(), fields[18].timestamp()
    if isinstance(fields[20], str):
        fields[20] = json.loads(fields[20])
    return Entry(*fields)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _bounded(limit: int) -> int:
    return max(0, min(limit, LIMIT_MAX))
