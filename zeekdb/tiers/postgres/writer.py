"""Writes the catalogue behind: one task, one batch of rows at a time, each batch once.

**Once.** A batch has a number and writes it in its transaction (kv_cache_writers); when the connection is cut while
COMMIT is on its way, the batch is sent again under the same number, and is left alone if that is there already. A
batch is kept until it is known to be in, whatever the database does meanwhile; the queues behind it are bounded and
count what they drop (events.py).

**How rows go over.** As arrays, `INSERT … SELECT FROM unnest($1::bytea[], …)`. COPY into a temporary table and one
INSERT from there was measured beside it (`python bench/catalogue.py write`): at 1000 rows a batch it was as fast or up
to 40 % faster, at 4000 a tenth to a third. But it is refused to whoever row-level security applies to, as it does to a
writer that does not own the tables, and it needs a temporary table and three round trips instead of one. A statement
has STATEMENT_ROWS at most: asyncpg encodes it in one go, and the loop has others to serve.

**Durable.** Facts are committed with synchronous_commit as the database has it (the embedded one: on). The access
log and the counts, which nobody decides anything by, are committed without waiting for the disk: a crash of the
database's machine loses the last moments of them.

**Deadlocks** between nodes are kept rare by the order of digests within a statement; one that happens is a failure
like others, and the batch is tried again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from zeekdb.tiers.envelope import digest
from zeekdb.tiers.guard import TierFailed
from zeekdb.tiers.postgres.events import Access, Accesses, Batch, Context, Fact, Facts, Merger, Overwritten, State
from zeekdb.tiers.postgres.pool import Database, transaction
from zeekdb.tiers.tier import Flow, Meta, Name

if TYPE_CHECKING:
    from asyncpg import Connection

logger = logging.getLogger(__name__)
T = TypeVar("T")

STATEMENT_ROWS: Final = 200
TURN_ROWS: Final = 50  # made in one go
BATCH_S: Final = 10.0  # that a batch may take; then the connection is given up
PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)  # after a batch that failed
METADATA_BYTES_MAX: Final = 16 << 10  # of a block's JSON; more is left out, and counted
TEXT_MAX: Final = 1000  # characters of who and why
LEVELS: Final = ("warm", "postgres", "objects")  # from the upper to the lower
ROW_BYTES: Final = 300  # of a row beside its names, about: for the flow of bytes
NO_CONTEXT: Final = Context()

SIGN: Final = 1 << 63


def signed(number: int) -> int:
    """64 bits, read as PostgreSQL's bigint."""
    return number - (1 << 64) if number & SIGN else number


def unsigned(number: int) -> int:
    """And back."""
    return number & ((1 << 64) - 1)


def raw_digest(name: Name | Meta) -> bytes:
    """As the tables have it."""
    return bytes.fromhex(digest(name))


def clean(text: str, most: int = TEXT_MAX) -> str:
    """What PostgreSQL takes as text: no NULs, no half characters."""
    return text[:most].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


# ---- statements ----------------------------------------------------------------------------------------------------

# column: (type of the array, what goes into the column; `r` is the row that was sent)
_META: Final = {
    "digest": "bytea", "model": "bytea", "salt": "bytea", "key": "bytea", "size": "bigint", "checksum": "bigint",
    "deadline": "bigint", "block_group": "bytea", "codec": "text", "node": "text", "changed_by": "text",
    "change_reason": "text",
}  # fmt: skip
_CONTEXT: Final = {
    "layer_from": "integer", "layer_to": "integer", "token_from": "bigint", "token_to": "bigint", "sequence": "bytea",
    "parent": "bytea", "plain_size": "bigint", "vector_id": "text", "metadata": "text",
}  # fmt: skip
_PLACE: Final = {
    "levels": "text", "storage_backend": "text", "storage_key": "text", "stored_size": "bigint", "compression": "text",
}  # fmt: skip
_READ_AS: Final = {
    "levels": "string_to_array(r.levels, ',')",
    "vector_id": "nullif(r.vector_id, '')::uuid",
    "metadata": "r.metadata::jsonb",
}
_FIXED: Final = ("digest", "model", "salt", "key")
# What is said of other bytes than the row has does not concern them.
_ELSE: Final = {
    "levels": "'{}'", "storage_backend": "''", "storage_key": "''", "stored_size": "0", "compression": "'raw'",
}  # fmt: skip


def _upsert(has_context: bool, has_place: bool, is_old: bool = False) -> str:
    """Inserts or updates rows by what is known of them."""
    columns = {**_META, **(_CONTEXT if has_context else {}), **(_PLACE if has_place else {})}
    same = "m.checksum = EXCLUDED.checksum"
    sets = []
    for column in columns:
        if column in ("changed_by", "change_reason"):
            sets.append(f"{column} = CASE WHEN {same} THEN m.{column} ELSE EXCLUDED.{column} END")
        elif column not in _FIXED:
            sets.append(f"{column} = EXCLUDED.{column}")
    if not has_place:
        sets += [f"{column} = CASE WHEN {same} THEN m.{column} ELSE {other} END" for column, other in _ELSE.items()]
    arrays = ", ".join(f"${at}::{kind}[]" for at, kind in enumerate(columns.values(), 1))
    read = ", ".join(_READ_AS.get(column, f"r.{column}") for column in columns)
    names = ", ".join(columns)
    only = " WHERE m.checksum <> EXCLUDED.checksum" if is_old else ""
    return (
        f"INSERT INTO zeekdb.kv_cache_metadata AS m ({names}) SELECT {read} FROM unnest({arrays}) AS r ({names}) "
        f"ORDER BY r.digest ON CONFLICT (digest) DO UPDATE SET {', '.join(sets)}{only}"
    )


UPSERTS: Final = {(context, place): _upsert(context, place) for context in (False, True) for place in (False, True)}
UPSERT_OLD: Final = _upsert(has_context=False, has_place=False, is_old=True)
REMOVE: Final = """
DELETE FROM zeekdb.kv_cache_metadata AS m USING (
    SELECT d.digest FROM zeekdb.kv_cache_metadata AS d WHERE d.digest = ANY($1::bytea[]) ORDER BY d.digest FOR UPDATE
) AS gone WHERE m.digest = gone.digest
"""
# The version that a trigger has just written of the bytes that were replaced.
SNAPSHOT: Final = """
UPDATE zeekdb.kv_cache_versions AS v SET snapshot = r.snapshot, snapshot_coding = r.coding
FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::text[]) AS r (digest, checksum, snapshot, coding)
    JOIN zeekdb.kv_cache_metadata AS m ON m.digest = r.digest
WHERE v.digest = r.digest AND v.version = m.parent_version AND v.checksum = r.checksum
"""
SHARE: Final = """
INSERT INTO zeekdb.kv_cache_shared AS s (digest, node, refs, model, salt)
SELECT r.digest, $5, r.refs, r.model, r.salt
FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bytea[]) AS r (digest, refs, model, salt) ORDER BY r.digest
ON CONFLICT (digest, node) DO UPDATE SET refs = s.refs + EXCLUDED.refs, at = now()
"""
UNSHARE: Final = """
WITH fewer AS (
    UPDATE zeekdb.kv_cache_shared AS s SET refs = greatest(s.refs + r.refs, 0), at = now()
    FROM unnest($1::bytea[], $2::bigint[]) AS r (digest, refs)
    WHERE s.digest = r.digest AND s.node = $3 AND s.refs > -r.refs
)
DELETE FROM zeekdb.kv_cache_shared AS s USING unnest($1::bytea[], $2::bigint[]) AS r (digest, refs)
WHERE s.digest = r.digest AND s.node = $3 AND s.refs <= -r.refs
"""
# The size is the catalogue's of this moment: here it is one look by key, in a roll-up of millions of rows it would be a
# join of two large tables, and the block may be gone by then.
LOG: Final = """
INSERT INTO zeekdb.kv_cache_access_log
    (at, request_id, latency_us, bytes, hit, digest, access_type, tier, node, model, salt)
SELECT to_timestamp(r.at), r.request, r.latency,
    (SELECT m.size FROM zeekdb.kv_cache_metadata AS m WHERE m.digest = r.digest),
    r.hit, r.digest, r.kind, r.tier, $10, r.model, r.salt
FROM unnest($1::float8[], $2::bigint[], $3::bigint[], $4::boolean[], $5::bytea[], $6::text[], $7::text[], $8::bytea[],
    $9::bytea[]) AS r (at, request, latency, hit, digest, kind, tier, model, salt)
"""
COUNT: Final = """
SELECT zeekdb.update_cache_access($1::bytea[], $2::bigint[],
    (SELECT array_agg(to_timestamp(a) ORDER BY n) FROM unnest($3::float8[]) WITH ORDINALITY AS r (a, n)))
"""
NUMBER: Final = """
INSERT INTO zeekdb.kv_cache_writers AS w (writer, batch) VALUES ($1, $2)
ON CONFLICT (writer) DO UPDATE SET batch = EXCLUDED.batch, at = now() WHERE w.batch < EXCLUDED.batch RETURNING true
"""
FORGET: Final = "DELETE FROM zeekdb.kv_cache_writers WHERE at < now() - interval '7 days'"  # runs that ended long ago


# ---- rows ----------------------------------------------------------------------------------------------------------


def jsonb(value: Mapping[str, Any] | str, most: int = METADATA_BYTES_MAX) -> str:
    """As PostgreSQL takes it, whatever a client has put there; `{}` where it is more than `most` bytes."""
    if isinstance(value, str):
        return value
    if not value:
        return "{}"
    try:
        text = json.dumps(_plain(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return "{}"
    return text if len(text) <= most else "{}"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value, METADATA_BYTES_MAX)
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "backslashreplace"), METADATA_BYTES_MAX)
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _row(state: State, node: str) -> tuple[Any, ...]:
    """In the order of the columns of its statement."""
    meta = state.meta
    assert meta is not None
    who, why = node, ""
    if state.overwritten is not None:
        who, why = clean(state.overwritten.who) or node, clean(state.overwritten.why)
    row: tuple[Any, ...] = (
        raw_digest(meta), meta.model, meta.salt, meta.key, meta.size, signed(meta.checksum), meta.deadline, meta.group,
        clean(meta.codec), node, who, why,
    )  # fmt: skip
    if state.context is not None:
        context = state.context
        parent = raw_digest(Name(meta.model, meta.salt, context.parent)) if context.parent else None
        row += (
            context.layer_from, context.layer_to, context.token_from, context.token_to, context.sequence, parent,
            context.plain_size, context.vector_id, jsonb(context.metadata),
        )  # fmt: skip
    if state.placed is not None:
        levels = [level for level in LEVELS if level in state.placed.levels]
        row += (
            ",".join(levels), levels[-1] if levels else "", row[0].hex() if levels else "", state.placed.stored_size,
            clean(state.placed.coding),
        )  # fmt: skip
    return row


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _parts(items: Sequence[Any], most: int = STATEMENT_ROWS) -> Iterable[Sequence[Any]]:
    return (items[at : at + most] for at in range(0, len(items), most))


async def _made(sources: Sequence[tuple[Any, ...]], make: Callable[..., T]) -> list[T]:
    """What each becomes; the loop has its turns meanwhile."""
    made: list[T] = []
    for part in _parts(sources, TURN_ROWS):
        made += [make(*source) for source in part]
        await asyncio.sleep(0)
    return made


async def apply_facts(connection: Connection, batch: Batch, node: str, snapshots: dict[int, tuple[str, bytes]]) -> int:
    """The batch's rows, within a transaction; how many they were."""
    count = 0
    for states in batch.rounds:
        groups: dict[tuple[bool, bool], list[State]] = {}
        olds: list[State] = []
        gone: list[bytes] = []
        replaced: list[Overwritten] = []
        for name, state in states.items():
            if state.meta is None:
                gone.append(raw_digest(name))
            elif state.is_old:
                olds.append(state)
            else:
                groups.setdefault((state.context is not None, state.placed is not None), []).append(state)
                if state.overwritten is not None and id(state.overwritten) in snapshots:
                    replaced.append(state.overwritten)
        for statement, rows in [(UPSERT_OLD, olds), *((UPSERTS[shape], rows) for shape, rows in groups.items())]:
            for part in _parts(rows):
                await connection.execute(statement, *_columns(await _made([(state, node) for state in part], _row)))
        for part in _parts(gone):
            await connection.execute(REMOVE, part)
        for event in replaced:  # each may be as large as a block
            coding, data = snapshots[id(event)]
            await connection.execute(
                SNAPSHOT, [raw_digest(event.old)], [signed(event.old.checksum)], [data], [coding]
            )
        count += len(states)
    for part in _parts(sorted((name, change) for name, change in batch.shared.items() if change > 0)):
        names, changes = _columns(part)
        digests = [raw_digest(name) for name in names]
        models, salts = [name.model for name in names], [name.salt for name in names]
        await connection.execute(SHARE, digests, changes, models, salts, node)
    for part in _parts(sorted((name, change) for name, change in batch.shared.items() if change < 0)):
        names, changes = _columns(part)
        await connection.execute(UNSHARE, [raw_digest(name) for name in names], changes, node)
    return count + len(batch.shared)


async def apply_accesses(connection: Connection, accesses: Sequence[Access], logged: Sequence[bool], node: str) -> int:
    """The log's rows of those that are sampled, and the counts of all, within a transaction; how many were logged."""
    names = list({access.name for access in accesses})
    digests = dict(zip(names, await _made([(name,) for name in names], raw_digest), strict=True))
    sampled = [access for access, is_logged in zip(accesses, logged, strict=True) if is_logged]
    for part in _parts(sampled):
        rows = [
            (each.at_s, each.request & (SIGN - 1), each.latency_us, each.is_hit, digests[each.name], each.kind,
             each.tier or "none", each.name.model, each.name.salt)
            for each in part
        ]  # fmt: skip
        await connection.execute(LOG, *_columns(rows), node)
    counts: dict[bytes, tuple[int, float]] = {}
    for each in accesses:
        if each.is_hit and each.kind == "read":
            number, _ = counts.get(digests[each.name], (0, 0.0))
            counts[digests[each.name]] = (number + 1, each.at_s)
    if counts:
        numbers, times = [number for number, _ in counts.values()], [at for _, at in counts.values()]
        await connection.execute(COUNT, list(counts), numbers, times)
    return len(sampled)


# ---- the task ------------------------------------------------------------------------------------------------------


class Writer:
    """The task and its queues."""

    def __init__(
        self, database: Database, node: str, *, batch_rows: int = 1000, log_sample: float = 100.0, versions: int = 8,
        sample: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self.log_sample = log_sample  # percent; may be changed at any time, and so may
        self.versions = versions  # kept of each block
        self.facts = Facts()
        self.accesses = Accesses()
        self.flow = Flow()
        self.rejected = 0  # events that the database will never take: a bug of ours, logged
        self.retried = 0
        self.batches = 0
        self.error = ""
        self._database = database
        self._node = clean(node, 200)
        self._name = f"{self._node}/{os.urandom(8).hex()}"
        self._numbers = {"facts": 0, "log": 0}
        self._batch_rows = batch_rows
        self._sample = sample or _Dice().percent
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """There may be something to do."""
        if self.facts or self.accesses:
            self._idle.clear()
            self._wanted.set()

    @property
    def waiting(self) -> int:
        """Events."""
        return len(self.facts) + len(self.accesses)

    async def flush(self, deadline_s: float) -> bool:
        """Until all that was told before is in the database; False: it was not, in that time."""
        self.wake()
        if not self._wanted.is_set() and self._idle.is_set():
            return True
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """The end; what is not written is not."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            if not self.facts and not self.accesses:
                self._idle.set()
                self._wanted.clear()
                await self._wanted.wait()
            if facts := self.facts.take(self._batch_rows):
                await self._all(facts, self._write_facts)
            if accesses := self.accesses.take(self._batch_rows, self.facts.taken):
                await self._all(accesses, self._write_accesses)

    async def _all(self, events: list[Any], write: Callable[[list[Any]], Awaitable[None]]) -> None:
        """Write these, and should the database refuse them, all but those that it refuses."""
        parts = [events]
        while parts:
            part = parts.pop()
            try:
                await write(part)
                self.error = ""
            except Exception as error:
                if len(part) == 1:
                    self.rejected += 1
                    self.error = "a row was refused: " + type(error).__name__
                    logger.exception("The catalogue can't be told of %s", type(part[0]).__name__)
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]

    async def _write_facts(self, events: list[Fact]) -> None:
        merger = Merger()
        for part in _parts(events, TURN_ROWS):
            merger.add(part)
            await asyncio.sleep(0)
        kept = [event for event in events if isinstance(event, Overwritten) and event.snapshot is not None]
        snapshots = await asyncio.get_running_loop().run_in_executor(None, _packed, kept) if kept else {}

        async def work(connection: Connection) -> int:
            return await apply_facts(connection, merger.batch, self._node, snapshots)

        await self._commit("facts", work)

    async def _write_accesses(self, accesses: list[Access]) -> None:
        logged = [self.log_sample >= 100 or self._sample() < self.log_sample for _ in accesses]

        async def work(connection: Connection) -> int:
            await connection.execute("SET LOCAL synchronous_commit = off")
            return await apply_accesses(connection, accesses, logged, self._node)

        await self._commit("log", work)

    async def _commit(self, stream: str, work: Callable[[Connection], Awaitable[int]]) -> None:
        """The work in a transaction that happens once, however often it must be tried."""
        self._numbers[stream] += 1
        writer, number = f"{self._name}/{stream}", self._numbers[stream]

        async def once(connection: Connection) -> int:
            async with transaction(connection):
                await connection.execute(
                    f"SET LOCAL statement_timeout = {int(BATCH_S * 1000)}; SET LOCAL zeekdb.versions = {self.versions}"
                )
                if await connection.fetchval(NUMBER, writer, number) is None:
                    return 0  # it is in already, and only the answer was lost
                if number == 1:
                    await connection.execute(FORGET)
                return await work(connection)

        began, failures = time.perf_counter_ns(), 0
        while True:
            try:
                count = await self._database.write(once, timeout_s=BATCH_S, retry=False)
                break
            except TierFailed as error:
                self.error = str(error)
                self.flow.errors += 1
                self.retried += 1
            await asyncio.sleep(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
            failures += 1
        self.batches += 1
        self.flow.count += count
        self.flow.bytes += count * ROW_BYTES
        self.flow.waits.record(time.perf_counter_ns() - began)


class _Dice:
    """Cheap numbers from 0 to 100, as even as a sample needs."""

    def __init__(self) -> None:
        self._state = int.from_bytes(os.urandom(4), "little")

    def percent(self) -> float:
        self._state = (self._state * 1664525 + 1013904223) & 0xFFFFFFFF
        return self._state * (100 / (1 << 32))


def _packed(events: Sequence[Overwritten]) -> dict[int, tuple[str, bytes]]:
    """Snapshots by their events, compressed where that saves something; in a thread."""
    try:
        import zstandard
    except ImportError:
        return {id(event): ("raw", event.snapshot) for event in events if event.snapshot is not None}
    packer = zstandard.ZstdCompressor(level=1)
    found: dict[int, tuple[str, bytes]] = {}
    for event in events:
        if event.snapshot is None:
            continue
        smaller = packer.compress(event.snapshot)
        if len(smaller) < len(event.snapshot) * 0.95:
            found[id(event)] = ("zstd", smaller)
        else:
            found[id(event)] = ("raw", event.snapshot)
    return found
