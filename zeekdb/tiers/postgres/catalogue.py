"""What is where, in PostgreSQL: told of everything, asked only by who has a miss on his hands.

Telling is a tuple on a queue: never a wait, never an error, whatever the database does (writer.py). Asking (`find`
and the others) is one statement behind the guard, within its timeout; where the database cannot be asked, nothing is
found. A row is found by the digest of a name and believed only when the name it has is the one that was asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from zeekdb.tiers.guard import TierFailed
from zeekdb.tiers.postgres.events import Context, Overwritten, Placed, Removed, Shared, Stored
from zeekdb.tiers.postgres.pool import Database
from zeekdb.tiers.postgres.upkeep import Upkeep
from zeekdb.tiers.postgres.writer import Writer, jsonb, raw_digest, unsigned
from zeekdb.tiers.tier import Flow, Meta, Name, TierStats, name_of

if TYPE_CHECKING:
    from asyncpg import Connection, Record

T = TypeVar("T")

UPKEEP_S: Final = 1.0  # from one look at what is due to the next
UPKEEP_TASK_S: Final = 40.0  # longer than any statement of it may take
CLOSE_S: Final = 5.0  # for what is still queued
CLOSE_FAILING_S: Final = 0.5  # where the database does not answer anyway
SETTLE_S: Final = 0.5  # that a question about the past waits for what was told a moment ago
FIND_MAX: Final = 1000  # names of one statement
PAGE_ROWS: Final = 1000
SNAPSHOT_BYTES_MAX: Final = 1 << 20  # of a version's bytes; those of larger blocks are not kept
SNAPSHOT_S: Final = 10.0

_META: Final = "digest, model, salt, key, size, checksum, deadline, block_group, codec"
FIND: Final = f"SELECT {_META}, levels, node FROM zeekdb.kv_cache_metadata WHERE digest = ANY($1::bytea[])"
POPULAR: Final = f"SELECT {_META}, levels, node FROM zeekdb.popular_entries ORDER BY rank LIMIT $1"
ADOPTABLE: Final = f"""
SELECT {_META}, levels, node, created_at FROM zeekdb.kv_cache_metadata
WHERE cardinality(levels) > 0 AND (deadline = 0 OR deadline > $2)
    AND ($3::timestamptz IS NULL OR (created_at, digest) < ($3, $4::bytea))
ORDER BY created_at DESC, digest DESC LIMIT $1
"""
HISTORY: Final = f"""
SELECT {_META}, version, coalesce(extract(epoch FROM stored_at), 0)::float8 AS stored_at,
    extract(epoch FROM at)::float8 AS replaced_at, who, why, stored_size, snapshot IS NOT NULL AS has_snapshot
FROM zeekdb.kv_cache_versions WHERE digest = $1
UNION ALL
SELECT {_META}, version, extract(epoch FROM updated_at)::float8, 0, changed_by, change_reason, stored_size, false
FROM zeekdb.kv_cache_metadata WHERE digest = $1
ORDER BY version DESC
"""
SNAPSHOT: Final = f"""
SELECT {_META}, snapshot_coding, snapshot FROM zeekdb.kv_cache_versions
WHERE digest = $1 AND version = $2 AND snapshot IS NOT NULL
"""


class Found(NamedTuple):
    """A block that somebody stored."""

    meta: Meta
    levels: tuple[str, ...]  # that have it, of warm, postgres and objects
    node: str  # who told so last


class Version(NamedTuple):
    """What a name stood for, from one moment to another."""

    version: int
    meta: Meta
    stored_at_s: float  # unix
    replaced_at_s: float  # 0: it is what there is now
    who: str  # replaced it; of what there is now, who stored it
    why: str
    stored_size: int
    has_snapshot: bool  # it can be restored


class Catalogue:
    """See the module. All methods are called on one loop; those that are not async return at once."""

    def __init__(
        self,
        database: Database | str,
        *,
        node: str,
        batch_rows: int = 1000,
        log_sample: float = 100.0,
        log_days: int = 7,
        versions: int = 8,
        snapshot_bytes_max: int = SNAPSHOT_BYTES_MAX,
    ) -> None:
        """`database`: what the blobs share, or a URL. `log_sample`: percent of the accesses that are logged."""
        self.database = Database(database) if isinstance(database, str) else database
        self.writer = Writer(self.database, node, batch_rows=batch_rows, log_sample=log_sample, versions=versions)
        self.upkeep = Upkeep(self._aside, failures=(TierFailed,), log_days=log_days, node=node)
        self.state = "closed"
        self._upkeep_at_s = 0.0
        self._keeping: asyncio.Task[object] | None = None
        self.snapshot_bytes_max = snapshot_bytes_max
        self._reads = Flow()
        self._misses = 0
        self._snapshots_left_out = 0

    async def open(self) -> None:
        """Begin; also where the database does not answer yet. Unavailable: it never will."""
        if self.state != "closed":
            return
        await self.database.open()
        self.state = "ok"
        self.writer.start()

    async def close(self) -> None:
        """Write what is queued, as far as CLOSE_S lets it. Harmless when repeated."""
        if self.state == "closed":
            return
        self.state = "closed"
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        is_well = self.database.is_open and self.database.guard.state == "closed"
        await self.writer.flush(CLOSE_S if is_well else CLOSE_FAILING_S)
        await self.writer.stop()
        await self.database.close()

    def retune(self, *, log_sample: float, log_days: int, versions: int) -> None:
        """What may change at any time."""
        self.writer.log_sample, self.writer.versions = log_sample, versions
        self.upkeep.log_days = log_days

    def tick(self, now_s: float) -> None:
        """Ten times a second: writes what has come, and sees to the tables' upkeep. `now_s`: unix."""
        self.writer.wake()
        if now_s < self._upkeep_at_s or self.state == "closed" or not self.database.is_open:
            return
        if self._keeping is None or self._keeping.done():
            self._upkeep_at_s = now_s + UPKEEP_S
            self._keeping = asyncio.get_running_loop().create_task(self.upkeep.tick(now_s))

    async def _aside(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return await self.database.aside(work, timeout_s=UPKEEP_TASK_S)

    async def flush(self, deadline_s: float = CLOSE_S) -> bool:
        """Until what was told is written; False: not in that time."""
        return await self.writer.flush(deadline_s)

    # ---- telling ------------------------------------------------------------------------------------------------

    def stored(self, meta: Meta, context: Context) -> None:
        """The region has it now."""
        if context.metadata:
            context = context._replace(metadata=jsonb(context.metadata))  # its size is known from here on
        self.writer.facts.add(Stored(meta, context))

    def placed(self, meta: Meta, levels: tuple[str, ...], stored_size: int, coding: str = "raw") -> None:
        """These of the shared tiers have it now, and no others; `stored_size` bytes in the lowest, coded so."""
        self.writer.facts.add(Placed(meta, levels, stored_size, coding))

    def removed(self, name: Name) -> None:
        """Nobody has it any more."""
        self.writer.facts.add(Removed(name))

    def accessed(self, name: Name, kind: str, tier: str, hit: bool, latency_us: int, request: int) -> None:
        """Somebody asked for it: `kind` is read, write, lookup or delete, `tier` who answered."""
        writer = self.writer
        writer.accesses.add(name, kind, tier, hit, latency_us, request, writer.facts.number)

    def overwritten(self, old: Meta, new: Meta, who: str, why: str, snapshot: memoryview | bytes | None) -> None:
        """Other bytes took its place: a version is written. `snapshot`: the old bytes, copied here."""
        kept = None
        if snapshot is not None and self.writer.versions:
            if len(snapshot) <= self.snapshot_bytes_max:
                kept = bytes(snapshot)
            else:
                self._snapshots_left_out += 1
        self.writer.facts.add(Overwritten(old, new, who, why, kept))

    def shared(self, names: Sequence[Name], count: int = 1) -> None:
        """So many more contexts of this node have these blocks in common; fewer, below 0."""
        self.writer.facts.add(Shared(tuple(names), count))

    # ---- asking ---------------------------------------------------------------------------------------------------

    async def find(self, names: Sequence[Name], timeout_s: float | None = None) -> list[Found | None]:
        """What others have stored under these names; None: nothing, or the database does not say in time."""
        found: dict[bytes, Found] = {}
        digests = [raw_digest(name) for name in names]
        for at in range(0, len(digests), FIND_MAX):
            part = digests[at : at + FIND_MAX]
            rows = await self._ask(partial(_fetch, FIND, part), timeout_s=timeout_s)
            if rows is None:
                break
            found |= {row["digest"]: _found(row) for row in rows}
        now = int(time.time())
        answers: list[Found | None] = []
        for name, key in zip(names, digests, strict=True):
            one = found.get(key)
            if one is None or name_of(one.meta) != name or 0 < one.meta.deadline <= now:
                answers.append(None)
                self._misses += 1
            else:
                answers.append(one)
        return answers

    async def history(self, name: Name) -> list[Version]:
        """The block's versions, the newest first, what it is now included; what was told is waited for a moment."""
        await self.writer.flush(SETTLE_S)
        rows = await self._ask(partial(_fetch, HISTORY, raw_digest(name)))
        return [
            Version(row["version"], meta, row["stored_at"], row["replaced_at"], row["who"], row["why"],
                    row["stored_size"], row["has_snapshot"])
            for row in rows or () if name_of(meta := _meta(row)) == name
        ]  # fmt: skip

    async def snapshot(self, name: Name, version: int) -> tuple[Meta, bytes] | None:
        """An earlier version and its bytes, whose checksum is the caller's to compare; None: they were not kept."""
        await self.writer.flush(SETTLE_S)
        rows = await self._ask(partial(_fetch, SNAPSHOT, raw_digest(name), version), timeout_s=SNAPSHOT_S)
        if not rows or name_of(meta := _meta(row := rows[0])) != name:
            return None
        data: bytes | None = row["snapshot"]
        if row["snapshot_coding"] == "zstd":
            data = await asyncio.get_running_loop().run_in_executor(None, _inflated, row["snapshot"], meta.size)
        return (meta, data) if data is not None and len(data) == meta.size else None

    async def popular(self, limit: int) -> list[Found]:
        """What is asked for most and lies in a shared tier, as of the last refresh of the view."""
        rows = await self._ask(partial(_fetch, POPULAR, limit), as_writer=True)
        now = int(time.time())
        return [one for row in rows or () if not 0 < (one := _found(row)).meta.deadline <= now]

    async def adoptable(self, limit: int) -> AsyncIterator[list[Found]]:
        """All that lies in a shared tier, the youngest first, `limit` blocks at most; ends where it can't be asked."""
        last_at: object = None
        last_digest: bytes | None = None
        now = int(time.time())
        while limit > 0:
            page = partial(_fetch, ADOPTABLE, min(limit, PAGE_ROWS), now, last_at, last_digest)
            rows = await self._ask(page)
            if not rows:
                return
            last_at, last_digest = rows[-1]["created_at"], rows[-1]["digest"]
            limit -= len(rows)
            yield [_found(row) for row in rows]

    async def _ask(
        self, work: Callable[[Connection], Awaitable[T]], *, timeout_s: float | None = None, as_writer: bool = False
    ) -> T | None:
        """None: it can't be asked."""
        if self.state == "closed":
            return None
        began = time.perf_counter_ns()
        try:
            answer = await self.database.read(work, timeout_s=timeout_s, retry=False, as_writer=as_writer)
        except TierFailed:
            self._reads.errors += 1
            return None
        self._reads.record(0, time.perf_counter_ns() - began)
        return answer

    def stats(self) -> TierStats:
        """Writes are rows, reads are questions."""
        writer, error = self.writer, self.database.error
        state = self.state if self.state == "closed" or not error else "failing"
        return TierStats(
            "catalogue", state, error or writer.error, write=writer.flow, read=self._reads, misses=self._misses,
            dropped=writer.facts.dropped + writer.accesses.dropped,
            queue_bytes=writer.facts.bytes + writer.accesses.bytes,
            more={
                **self.database.guard.figures(),
                "queue_facts": len(writer.facts), "queue_accesses": len(writer.accesses),
                "dropped_facts": writer.facts.dropped, "dropped_accesses": writer.accesses.dropped,
                "rejected": writer.rejected, "batches": writer.batches, "batches_retried": writer.retried,
                "snapshots_left_out": self._snapshots_left_out,
            },
        )  # fmt: skip


async def _fetch(statement: str, *arguments_and_connection: Any) -> list[Record]:
    *arguments, connection = arguments_and_connection
    rows: list[Record] = await connection.fetch(statement, *arguments)
    return rows


def session_settings(versions: int) -> dict[str, str]:
    """What the schema's functions read where a batch does not say: how many versions of a block are kept."""
    return {"zeekdb.versions": str(versions)}


def _meta(row: Record) -> Meta:
    return Meta(
        row["model"], row["salt"], row["key"], row["size"], unsigned(row["checksum"]), row["deadline"],
        row["block_group"], row["codec"],
    )  # fmt: skip


def _found(row: Record) -> Found:
    return Found(_meta(row), tuple(row["levels"]), row["node"])


def _inflated(data: bytes, size: int) -> bytes | None:
    import zstandard

    try:
        inflated: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=max(size, 1))
    except zstandard.ZstdError:
        return None
    return inflated
