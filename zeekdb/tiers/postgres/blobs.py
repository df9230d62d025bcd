"""Cold blocks in PostgreSQL: a row for a name, with the header of tiers/envelope.py and what a Packer made of the
bytes.

For blocks of some KiB to some MiB: a row's bytes go through WAL and TOAST, so that a byte costs more here than in a
file, but a block is there with the commit that says so, beside its catalogue, in every backup of the database.

Many blocks go over at once, bounded by bytes: PUT_BYTES of a transaction, GET_BYTES of an answer, UNDER_WAY_BYTES of
all. Before a put the headers under its names are read (they are small), and what is there already is not sent again.
A `get` tells the server how large a payload it has room for, and a larger one is not sent: who else writes there is
not trusted with this server's memory. Rows whose deadline has passed are not seen by anybody, and deleted by the
catalogue's upkeep (upkeep.py), some at a time.

Packing, unpacking and comparing checksums happen in threads; asyncpg copies payloads on the loop, a chunk at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from zeekdb.tiers.envelope import HEADER_MAX, Damaged, Sealed, seal, unseal
from zeekdb.tiers.guard import Guard, TierFailed
from zeekdb.tiers.packing import Packer, is_asked
from zeekdb.tiers.postgres.pool import Database
from zeekdb.tiers.postgres.writer import raw_digest, signed
from zeekdb.tiers.tier import Budget, Flow, Get, Held, Meta, Name, Put, SharedTier, TierStats, place_of, settle

if TYPE_CHECKING:
    from asyncpg import Connection, Record

logger = logging.getLogger(__name__)
T = TypeVar("T")

PUT_BYTES: Final = 8 << 20  # of blocks of one transaction
GET_BYTES: Final = 8 << 20  # of blocks of one answer
PUT_ROWS: Final = 256
GET_ROWS: Final = 1000
PAGE_ROWS: Final = 500  # of a scan
UNDER_WAY_BYTES: Final = 64 << 20  # of blocks that were taken up
HEADERS_OF: Final = 1000  # names of one statement
RATE_MIN: Final = 4 << 20  # bytes/s: slower is failing
INLINE_BYTES: Final = 32 << 10  # what is not worth a thread
THREADS: Final = 2
DOUBTFUL_MAX: Final = 4096  # names
REFUSED_S: Final = 1.0  # how long no further block is offered to a server that reads but does not write: a full disk
SPARE: Final = 3  # connections that blocks leave to the catalogue

_LIVES: Final = "(b.deadline = 0 OR b.deadline > $2)"
HEADERS: Final = f"""
SELECT b.digest, b.header FROM zeekdb.kv_cache_blobs AS b WHERE b.digest = ANY($1::bytea[]) AND {_LIVES}
"""
PUT: Final = """
INSERT INTO zeekdb.kv_cache_blobs AS b (digest, checksum, size, deadline, model, salt, header, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (digest) DO UPDATE SET checksum = EXCLUDED.checksum, size = EXCLUDED.size, deadline = EXCLUDED.deadline,
    header = EXCLUDED.header, payload = EXCLUDED.payload, stored_at = now()
"""
GET: Final = f"""
SELECT b.digest, b.header, CASE WHEN octet_length(b.payload) <= r.room THEN b.payload END AS payload
FROM unnest($1::bytea[], $3::bigint[]) AS r (digest, room) JOIN zeekdb.kv_cache_blobs AS b ON b.digest = r.digest
WHERE {_LIVES}
"""
LIVE_ON: Final = """
UPDATE zeekdb.kv_cache_blobs AS b SET deadline = r.deadline FROM (
    SELECT d.digest, u.deadline FROM unnest($1::bytea[], $2::bigint[]) AS u (digest, deadline)
        JOIN zeekdb.kv_cache_blobs AS d ON d.digest = u.digest ORDER BY d.digest FOR UPDATE OF d
) AS r WHERE b.digest = r.digest AND b.deadline > 0 AND b.deadline < r.deadline
"""
DELETE: Final = """
DELETE FROM zeekdb.kv_cache_blobs AS b USING (
    SELECT d.digest FROM zeekdb.kv_cache_blobs AS d WHERE d.digest = ANY($1::bytea[]) ORDER BY d.digest FOR UPDATE
) AS gone WHERE b.digest = gone.digest
"""
PAGE: Final = f"""
SELECT b.digest, b.header FROM zeekdb.kv_cache_blobs AS b WHERE b.digest > $1 AND {_LIVES} ORDER BY b.digest LIMIT $3
"""


class Row(NamedTuple):
    """A block on its way there."""

    digest: bytes
    checksum: int
    size: int
    deadline: int
    model: bytes
    salt: bytes
    header: bytes
    payload: bytes | bytearray | memoryview


class BlobTier(SharedTier):
    """See the module. `ttl_s`: how long a block stays at most; 0: for good. `max_bytes`: of a block."""

    name = "postgres"

    def __init__(
        self, database: Database, packer: Packer | None = None, *, ttl_s: int = 0, max_bytes: int = 1 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.database = database
        self.packer = packer or Packer()
        self.is_lossy = self.packer.is_lossy
        self.ttl_s = ttl_s
        self.max_bytes = max_bytes
        self.write, self.read = Flow(), Flow()
        self.blocks = self.plain_bytes = 0
        self.misses = self.corrupt = self.deleted = self.unchanged = 0
        self.sent_bytes = self.sent_plain_bytes = 0
        self._clock = clock
        self._requests = Budget(max(1, database.connections - SPARE))
        self._bytes = Budget(UNDER_WAY_BYTES)
        self._threads = ThreadPoolExecutor(THREADS, "zeekdb-blobs")
        self._doubtful: OrderedDict[bytes, None] = OrderedDict()
        self._state = "closed"
        self._refusal = ""  # why it takes no blocks; reads may go well meanwhile, so that no breaker opens
        self._refused_until = 0.0
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # ---- coming and going -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Also where the database does not answer yet. Unavailable: it never will."""
        if self._state == "closed":
            await self.database.open()
            self._state = "ok"

    async def close(self) -> None:
        """Ends what is under way. Harmless when repeated."""
        if self._state != "ok":
            return
        self._state = "closing"
        await self._idle.wait()
        await self.database.close()
        self._threads.shutdown(wait=False)
        self._state = "closed"

    @property
    def guards(self) -> Sequence[Guard]:
        """See SharedTier."""
        return (self.database.guard,)

    async def probe(self) -> None:
        """One round trip."""
        await self.database.probe()

    async def _settled(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result. Whoever is cancelled is so when it has ended: it uses the caller's memory."""
        self._calls += 1
        self._idle.clear()
        try:
            return await settle(asyncio.ensure_future(work))
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _thread(self, size: int, work: Callable[..., T], *arguments: Any) -> T:
        if size <= INLINE_BYTES:
            return work(*arguments)
        return await settle(asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments))

    async def _part(self, size: int, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The work, when there are a connection and memory for it."""
        await self._bytes.take(size)
        try:
            await self._requests.take(1)
            try:
                return await work()
            finally:
                self._requests.give(1)
        finally:
            self._bytes.give(size)

    def _patience_s(self, size: int) -> float:
        return self.database.guard.timeout_s + size / RATE_MIN

    def _now(self) -> int:
        return int(self._clock())

    # ---- headers ----------------------------------------------------------------------------------------------------

    async def _headers(self, digests: Sequence[bytes]) -> dict[bytes, Sealed]:
        """What lies there, by digest. TierFailed."""
        found: dict[bytes, Sealed] = {}
        for at in range(0, len(digests), HEADERS_OF):
            part = digests[at : at + HEADERS_OF]

            async def work(connection: Connection, part: Sequence[bytes] = part) -> list[Record]:
                rows: list[Record] = await connection.fetch(HEADERS, part, self._now())
                return rows

            for row in await self.database.read(work):
                sealed = self._unsealed(row["digest"], row["header"])
                if sealed is not None:
                    found[row["digest"]] = sealed
        return found

    def _unsealed(self, key: bytes, header: bytes) -> Sealed | None:
        """The header's fields, if they are of the block that the row is called by."""
        try:
            sealed, _ = unseal(header)
        except Damaged as error:
            self._doubt(key, str(error))
            return None
        if raw_digest(sealed.meta) != key:
            self._doubt(key, "it is another block's")
            return None
        return None if 0 < sealed.meta.deadline <= self._now() else sealed

    def _doubt(self, key: bytes, why: str) -> None:
        """Something lies there that will not do: the next put writes it anew."""
        self.corrupt += 1
        logger.warning("Tier postgres: %s is damaged: %s", key.hex(), why)
        self._doubtful[key] = None
        if len(self._doubtful) > DOUBTFUL_MAX:
            self._doubtful.popitem(last=False)

    async def find(self, names: Sequence[Name]) -> list[Meta | None]:
        """What is there under these names now; None: nothing, or it can't be asked."""
        if self._state != "ok" or not names:
            return [None] * len(names)
        digests = [raw_digest(name) for name in names]
        try:
            found = await self._settled(self._headers(digests))
        except TierFailed:
            self.read.errors += 1
            return [None] * len(names)
        metas = [sealed.meta if (sealed := found.get(key)) is not None else None for key in digests]
        return [meta if meta and meta[:3] == name else None for meta, name in zip(metas, names, strict=True)]

    async def contains(self, items: Sequence[Held]) -> list[bool]:
        """Whether the header is there and says what it should."""
        if self._state != "ok" or not items:
            return [False] * len(items)
        digests = [raw_digest(item.meta) for item in items]
        try:
            found = await self._settled(self._headers(digests))
        except TierFailed:
            self.read.errors += 1
            return [False] * len(items)
        return [key in found and is_asked(found[key], item.meta) for key, item in zip(digests, items, strict=True)]

    # ---- putting ----------------------------------------------------------------------------------------------------

    async def put(self, items: Sequence[Put]) -> list[int | None]:
        """The places of the blocks, once they are committed; None: not stored."""
        if self._state != "ok" or not items or time.monotonic() < self._refused_until:
            return [None] * len(items)
        return await self._settled(self._put_all(items))

    async def _put_all(self, items: Sequence[Put]) -> list[int | None]:
        began_ns = time.perf_counter_ns()
        places: list[int | None] = [None] * len(items)
        taken = [at for at, item in enumerate(items) if self._takes(item.meta)]
        sizes = [item.meta.size for item in items]

        async def part(some: Sequence[int]) -> None:
            try:
                stored = await self._put_some([items[at] for at in some])
            except TierFailed as error:
                self.write.errors += len(some)
                self._refusal = str(error)
                self._refused_until = time.monotonic() + REFUSED_S
                return
            self._refusal = ""
            took_ns = time.perf_counter_ns() - began_ns
            for at, is_stored in zip(some, stored, strict=True):
                if is_stored:
                    places[at] = place_of(items[at].meta)
                    self.write.record(sizes[at], took_ns)

        await self._parts(taken, sizes, PUT_ROWS, PUT_BYTES, part)
        return places

    async def _parts(
        self, chosen: Sequence[int], sizes: Sequence[int], rows: int, most: int,
        work: Callable[[Sequence[int]], Coroutine[Any, Any, None]],
    ) -> None:  # fmt: skip
        """The work on each part, as many at a time as there is room for."""
        async with asyncio.TaskGroup() as group:
            for some in _portions(chosen, sizes, rows, most):
                size = sum(sizes[at] for at in some)
                group.create_task(self._part(size, lambda some=some: work(some)))  # type: ignore[misc]

    def _takes(self, meta: Meta) -> bool:
        names = len(meta.model) + len(meta.salt) + len(meta.key) + len(meta.group) + len(meta.codec)
        return meta.size <= self.max_bytes and names < HEADER_MAX

    async def _put_some(self, items: Sequence[Put]) -> list[bool]:
        """Which of them are there now. TierFailed."""
        digests = [raw_digest(item.meta) for item in items]
        there = await self._headers(digests)
        stored = [False] * len(items)
        rows: dict[bytes, Row] = {}  # of two blocks of one name the later counts
        unchanged: dict[bytes, int] = {}  # until when each may stay
        for at, (key, item) in enumerate(zip(digests, items, strict=True)):
            if key not in rows and key in there and self._will_do(key, there[key], item.meta):
                unchanged[key] = self._deadline(item.meta)
                stored[at] = True
                continue
            try:
                rows[key] = await self._row(key, item)
                stored[at] = True
            except ValueError:
                continue  # names that no header takes
        self.unchanged += len(unchanged)
        if self.ttl_s and unchanged:
            await self.database.write(partial(_execute, LIVE_ON, list(unchanged), list(unchanged.values())))
        if rows:
            await self._send(sorted(rows.values(), key=lambda row: row.digest))
            for key in rows:
                self._doubtful.pop(key, None)
            self._count(items, digests, rows, there)
        return stored

    def _count(
        self, items: Sequence[Put], digests: Sequence[bytes], rows: dict[bytes, Row], there: dict[bytes, Sealed]
    ) -> None:
        sizes = {key: item.meta.size for key, item in zip(digests, items, strict=True) if key in rows}
        for key, size in sizes.items():
            old = there.get(key)
            self.blocks += old is None
            self.plain_bytes += size - (old.meta.size if old is not None else 0)
            self.sent_plain_bytes += size
            self.sent_bytes += rows[key].size

    def _will_do(self, key: bytes, found: Sealed, meta: Meta) -> bool:
        """Whether the block there need not be written again: whole for all we know, and it lives long enough."""
        deadline = found.meta.deadline
        lives = not deadline or (meta.deadline > 0 and deadline >= meta.deadline)
        return lives and is_asked(found, meta) and key not in self._doubtful

    async def _row(self, key: bytes, item: Put) -> Row:
        """ValueError."""
        meta = item.meta
        sealed, payload = await self._thread(meta.size, self.packer.pack, meta, item.data)
        return Row(
            key, signed(meta.checksum), sealed.stored_size, self._deadline(meta), meta.model, meta.salt, seal(sealed),
            payload,
        )  # fmt: skip

    def _deadline(self, meta: Meta) -> int:
        """The row's: the block's own, or the time to live, whichever is first."""
        if not self.ttl_s:
            return meta.deadline
        latest = self._now() + self.ttl_s
        return min(meta.deadline or latest, latest)

    async def _send(self, rows: Sequence[Row]) -> None:
        """In one transaction, in the order of their digests. TierFailed."""

        async def work(connection: Connection) -> None:
            await connection.executemany(PUT, rows)

        await self.database.write(work, timeout_s=self._patience_s(sum(row.size for row in rows)))

    # ---- getting ----------------------------------------------------------------------------------------------------

    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        """Fill the views. False: absent or doubtful; None: can't be asked now."""
        if self._state != "ok" or not items:
            return [None] * len(items)
        return await self._settled(self._get_all(items))

    async def _get_all(self, items: Sequence[Get]) -> list[bool | None]:
        began_ns = time.perf_counter_ns()
        answers: list[bool | None] = [None] * len(items)
        sizes = [item.meta.size for item in items]

        async def part(some: Sequence[int]) -> None:
            try:
                found = await self._get_some([items[at] for at in some])
            except TierFailed:
                self.read.errors += len(some)
                return
            took_ns = time.perf_counter_ns() - began_ns
            for at, is_there in zip(some, found, strict=True):
                answers[at] = is_there
                if is_there:
                    self.read.record(sizes[at], took_ns)
                else:
                    self.misses += 1

        await self._parts(range(len(items)), sizes, GET_ROWS, GET_BYTES, part)
        return answers

    async def _get_some(self, items: Sequence[Get]) -> list[bool]:
        digests = [raw_digest(item.meta) for item in items]
        rooms: dict[bytes, int] = {}
        for key, item in zip(digests, items, strict=True):
            rooms[key] = max(rooms.get(key, 0), item.meta.size)

        async def work(connection: Connection) -> list[Record]:
            rows: list[Record] = await connection.fetch(GET, list(rooms), self._now(), list(rooms.values()))
            return rows

        rows = await self.database.read(work, timeout_s=self._patience_s(sum(rooms.values())))
        found = {row["digest"]: row for row in rows}
        return [await self._fill(key, item, found.get(key)) for key, item in zip(digests, items, strict=True)]

    async def _fill(self, key: bytes, item: Get, row: Record | None) -> bool:
        if row is None:
            return False
        sealed = self._unsealed(key, row["header"])
        if sealed is None or not is_asked(sealed, item.meta):
            return False
        payload = row["payload"]
        if payload is None or sealed.meta.size != item.meta.size:
            self._doubt(key, "its sizes make no sense")
            return False
        is_whole = await self._thread(item.meta.size, self.packer.unpack, sealed, payload, item.into)
        if not is_whole:
            self._doubt(key, "its bytes do not agree with their checksum")
        return is_whole

    # ---- removing, and all there is ---------------------------------------------------------------------------------

    async def delete(self, items: Sequence[Held]) -> list[bool]:
        """Forget the blocks for good. False: it could not be asked."""
        if self._state != "ok" or not items:
            return [False] * len(items)
        return await self._settled(self._delete(items))

    async def _delete(self, items: Sequence[Held]) -> list[bool]:
        digests = sorted({raw_digest(item.meta) for item in items})
        for at in range(0, len(digests), HEADERS_OF):
            part = digests[at : at + HEADERS_OF]

            async def work(connection: Connection, part: Sequence[bytes] = part) -> str:
                tag: str = await connection.execute(DELETE, part)
                return tag

            try:
                tag = await self.database.write(work)
            except TierFailed:
                self.write.errors += 1
                return [False] * len(items)
            self.blocks = max(self.blocks - int(tag.rsplit(" ", 1)[-1]), 0)
        self.deleted += len(items)
        self.plain_bytes = max(self.plain_bytes - sum(item.meta.size for item in items), 0)
        return [True] * len(items)

    async def scan(self) -> AsyncIterator[list[Held]]:
        """Every live block, once, in the order of their digests; ends early where it can't be asked."""
        self.blocks = self.plain_bytes = 0
        last = b""
        while self._state == "ok":

            async def work(connection: Connection, last: bytes = last) -> list[Record]:
                rows: list[Record] = await connection.fetch(PAGE, last, self._now(), PAGE_ROWS)
                return rows

            try:
                rows = await self.database.read(work)
            except TierFailed as error:
                self.read.errors += 1
                logger.warning("Tier postgres cannot be listed: %s", error)
                return
            if not rows:
                return
            last = rows[-1]["digest"]
            found = [self._unsealed(row["digest"], row["header"]) for row in rows]
            held = [Held(sealed.meta, place_of(sealed.meta)) for sealed in found if sealed is not None]
            self.blocks += len(held)
            self.plain_bytes += sum(item.meta.size for item in held)
            yield held

    @property
    def is_readable(self) -> bool:
        """Also while it takes no blocks."""
        return self._state == "ok" and not self.database.error

    def stats(self) -> TierStats:
        """Blocks and bytes are those that a scan met and this node has put and deleted since."""
        error = self.database.error or (self._refusal if time.monotonic() < self._refused_until else "")
        state = "closed" if self._state != "ok" else "failing" if error else "ok"
        return TierStats(
            self.name, state, error, self.blocks, self.plain_bytes, write=self.write, read=self.read,
            misses=self.misses, corrupt=self.corrupt, deleted=self.deleted, queue_bytes=self._bytes.taken,
            more={
                **self.database.guard.figures(), "coding": self.packer.coding, "unchanged": self.unchanged,
                "sent_bytes": self.sent_bytes, "sent_plain_bytes": self.sent_plain_bytes,
            },
        )  # fmt: skip


async def _execute(statement: str, *arguments_and_connection: Any) -> None:
    *arguments, connection = arguments_and_connection
    await connection.execute(statement, *arguments)


def _portions(chosen: Sequence[int], sizes: Sequence[int], rows: int, most: int) -> Iterator[list[int]]:
    """Parts of so many rows and bytes at most; what is larger goes alone."""
    part: list[int] = []
    size = 0
    for at in chosen:
        if part and (len(part) >= rows or size + sizes[at] > most):
            yield part
            part, size = [], 0
        part.append(at)
        size += sizes[at]
    if part:
        yield part
