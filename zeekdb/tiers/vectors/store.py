"""The vectors of contexts: what the server says to whatever engine keeps them.

A context is named by its last block. Its row has the vector, and in the payload: model, tenant (a digest of the salt)
and salt, the layers pooled, the range of tokens, how many blocks it has, and their keys from the first on as far as
KEYS_KEPT and KEYS_BYTES go. Client's bytes are latin-1 in there, which keeps each; names of collections and ids of rows
are digests, so that nothing that a client calls its models and blocks can mean anything to an engine.

Nothing here stands in a command's way but its own search. Rows wait in a queue of bounded size, one for each id, the
newest; a task writes them in batches, and what an engine that is down has not taken stays in the queue until it is full
(`dropped` counts what came then). Every call goes through a guard: while the engine is down searches fail at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from zeekdb.errors import Unavailable
from zeekdb.tiers.envelope import digest
from zeekdb.tiers.guard import Guard, TierDown, TierFailed
from zeekdb.tiers.tier import Flow, Name, TierStats
from zeekdb.tiers.vectors.engine import TENANT, Engine, EngineFailed, Hit, Options, Row

T = TypeVar("T")
log = logging.getLogger("zeekdb")

QUEUE_MAX: Final = 8192  # rows
QUEUE_BYTES: Final = 64 << 20
BATCH_BYTES: Final = 1 << 20  # written at a time, whatever the batch: packing it takes the event loop a millisecond
KEYS_KEPT: Final = 1024  # of a context: its first ones
KEYS_BYTES: Final = 32 << 10
SEARCHES_MAX: Final = 64  # under way; who comes then is told so
CLOSE_S: Final = 5.0  # for what waits to be written
REFUSED_MAX: Final = 8  # times that an engine which is well otherwise refuses a batch; then it is dropped
PAUSE_S: Final = 0.25  # between looks whether the engine is back
COUNT_S: Final = 1.0  # figures of the engine are as old as this
NEAR_PAGE: Final = 64  # rows compared at a time
NEAR_COUNT: Final = 16  # neighbours looked at of each
NEAR_ROWS_MAX: Final = 20_000
NEAR_S: Final = 10.0
TENANT_BYTES: Final = 16


class Context(NamedTuple):
    """A context to keep, and what its vector is made of."""

    name: Name  # of its last block
    vector: bytes
    keys: tuple[bytes, ...]  # in their order, the first ones where there are many
    blocks: int
    tokens: tuple[int, int]
    layers: tuple[int, int]  # the first pooled, and the one after the last
    norm: float = 0.0  # see tensors/embedding.Finished; 0: the vector is the client's own
    is_whole: bool = True  # False: what stands before its first block is not known


class Match(NamedTuple):
    """A context that was found."""

    key: bytes
    score: float
    keys: tuple[bytes, ...]
    blocks: int
    tokens: tuple[int, int]
    is_own: bool  # the client's own vector
    is_whole: bool  # from the context's first block on


class Known(NamedTuple):
    """A context's vector, as it is kept."""

    vector: bytes
    norm: float
    match: Match


class Pair(NamedTuple):
    """Two contexts that are nearly the same."""

    first: bytes
    second: bytes
    score: float


class _Waiting(NamedTuple):
    """A row to be written, or (`row` None) deleted."""

    collection: str
    row: Row | None
    size: int


def collection_prefix(model: bytes, version: int) -> str:
    """What the names of a model's collections begin with. `version`: of the embedding."""
    return f"zeekdb-v{version}-{hashlib.blake2b(model, digest_size=16).hexdigest()}-"


def tenant_of(salt: bytes) -> str:
    """What searches filter on."""
    return hashlib.blake2b(salt, digest_size=TENANT_BYTES, person=b"zeekdb tenant").hexdigest()


def kept_keys(keys: Sequence[bytes]) -> tuple[bytes, ...]:
    """The first of a context's keys, as many as a row has."""
    size, kept = 0, []
    for key in islice(keys, KEYS_KEPT):
        size += len(key)
        if size > KEYS_BYTES:
            break
        kept.append(key)
    return tuple(kept)


def _match(payload: dict[str, Any], score: float) -> Match:
    """What a payload says. TierFailed: it is none of ours."""
    try:
        keys = tuple(key.encode("latin-1") for key in payload["keys"])
        begin, end = map(int, payload["tokens"])
        return Match(
            payload["key"].encode("latin-1"), float(score), keys, int(payload["blocks"]), (begin, end),
            bool(payload["own"]), bool(payload["whole"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TierFailed(f"vectors: a row that makes no sense: {error!r}") from None


def engine_of(url: str, options: Options, timeout_s: float) -> Engine:
    """The engine that a URL names. Unavailable: its package is not installed."""
    try:
        if url.startswith("embedded:"):
            from zeekdb.tiers.vectors.edge import EdgeEngine

            return EdgeEngine(url.removeprefix("embedded:"), options)
        from zeekdb.tiers.vectors.client import ClientEngine

        return ClientEngine(url, options, timeout_s)
    except ImportError:
        raise Unavailable(
            "kv-qdrant-url needs a package that is not installed: pip install 'zeekdb[tiers]'"
        ) from None  # fmt: skip


class VectorStore:
    """See the module. Made, opened and used on one event loop."""

    def __init__(
        self, engine: Engine, *, dim: int = 512, version: int = 1, batch: int = 256,
        timeout_s: float = 1.0, scrub: Callable[[str], str] = str,
    ) -> None:  # fmt: skip
        self.engine = engine
        self.dim = dim
        self.version = version
        self.batch = batch
        self.guard = Guard("qdrant", engine.probe, failures=(EngineFailed, OSError), timeout_s=timeout_s, scrub=scrub)
        self.written = Flow()
        self.searched = Flow()
        self.dropped = 0
        self.deleted = 0
        self._waiting: dict[tuple[str, str], _Waiting] = {}  # by collection and id, the oldest first
        self._drops: dict[str, None] = {}  # collections to forget, before what waits is written
        self._bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._refused = 0  # times in a row that the batch at the head has failed
        self._searching = 0
        self._writer: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._counted = (0.0, 0)
        self._is_closed = False
        self._stopping = False

    # ------------------------------------------------------------ coming and going

    async def open(self) -> None:
        """Begins. Unavailable: see Engine.open."""
        await self.engine.open()
        self._writer = asyncio.get_running_loop().create_task(self._write_forever())

    async def close(self) -> None:
        """Writes what waits, for CLOSE_S at most, and lets go."""
        if self._is_closed:
            return
        self._is_closed = self._stopping = True
        self._wake.set()
        for task in (self._writer, self._counting):
            if task is not None:
                _, late = await asyncio.wait([task], timeout=CLOSE_S)
                for each in late:
                    each.cancel()
        if self._waiting:
            log.warning("%d vectors of contexts were not written: %s", len(self._waiting), self.guard.last_error)
        await self.guard.close()
        await self.engine.close()

    def collection(self, model: bytes) -> str:
        """The name of a model's collection."""
        return f"{collection_prefix(model, self.version)}{self.dim}"

    # ------------------------------------------------------------ behind

    def put(self, context: Context) -> bool:
        """Queues a context; False: the queue is full, and it is dropped."""
        name = context.name
        keys = kept_keys(context.keys)
        payload = {
            "model": name.model.decode("latin-1"), TENANT: tenant_of(name.salt), "salt": name.salt.decode("latin-1"),
            "key": name.key.decode("latin-1"), "keys": [key.decode("latin-1") for key in keys],
            "blocks": context.blocks, "tokens": list(context.tokens), "layers": list(context.layers),
            "norm": context.norm, "own": not context.norm, "whole": context.is_whole,
        }  # fmt: skip
        size = len(context.vector) + sum(map(len, keys)) + len(name.key) + 512
        return self._queue(self.collection(name.model), digest(name), Row(digest(name), context.vector, payload), size)

    def remove(self, names: Sequence[Name]) -> None:
        """Queues the end of contexts."""
        for name in names:
            self._queue(self.collection(name.model), digest(name), None, 128)

    def drop(self, model: bytes) -> None:
        """Queues the end of a model's collection."""
        name = self.collection(model)
        for place in [place for place in self._waiting if place[0] == name]:
            self._bytes -= self._waiting.pop(place).size
        self._drops[name] = None
        self._go_on()

    def _queue(self, collection: str, number: str, row: Row | None, size: int) -> bool:
        place = (collection, number)
        old = self._waiting.get(place)
        more = size - (old.size if old is not None else 0)
        is_full = (old is None and len(self._waiting) >= QUEUE_MAX) or self._bytes + more > QUEUE_BYTES
        if self._is_closed or is_full:
            self.dropped += 1
            return False
        self._waiting[place] = _Waiting(collection, row, size)
        self._bytes += more
        self._go_on()
        return True

    def _go_on(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def settled(self) -> None:
        """Until all that waited has been written."""
        await self._idle.wait()

    async def _write_forever(self) -> None:
        while True:
            try:
                while self._drops or self._waiting:
                    await self._write()
            except TierFailed as error:
                if self._stopping:
                    return
                self._refused += not isinstance(error, TierDown)
                await self._wait_for_engine()
                continue
            except Exception:
                log.exception("Writing vectors of contexts")  # a bug of ours
                await asyncio.sleep(PAUSE_S)
            self._idle.set()
            if self._stopping:
                return
            self._wake.clear()
            await self._wake.wait()

    async def _wait_for_engine(self) -> None:
        while not self._stopping:  # close() cannot wait for longer than that
            await asyncio.sleep(PAUSE_S)
            if self.guard.state == "closed":
                return

    async def _write(self) -> None:
        """One batch, of one collection and kind. What fails waits again, unless something newer does. TierFailed."""
        while self._drops:
            name = next(iter(self._drops))
            await self.guard.call(partial(self.engine.drop, name))
            self._drops.pop(name, None)
        if not self._waiting:
            return
        first = next(iter(self._waiting.values()))
        taken: dict[tuple[str, str], _Waiting] = {}
        size = 0
        for place, each in self._waiting.items():
            if each.collection != first.collection or (each.row is None) != (first.row is None):
                break
            taken[place] = each
            size += each.size
            if len(taken) >= self.batch or size >= BATCH_BYTES:
                break
        for place, each in taken.items():
            del self._waiting[place]
            self._bytes -= each.size
        begin_ns = time.perf_counter_ns()
        rows = [each.row for each in taken.values() if each.row is not None]
        try:
            if rows:
                await self.guard.call(lambda: self.engine.upsert(first.collection, rows))
            else:
                ids = [number for _, number in taken]
                await self.guard.call(lambda: self.engine.delete(first.collection, ids))
                self.deleted += len(ids)
        except BaseException:
            if self._refused >= REFUSED_MAX:
                log.warning("%d vectors of contexts are dropped: %s", len(taken), self.guard.last_error)
                self.dropped += len(taken)
                self._refused = 0
            else:
                self._take_back(taken)
            raise
        self._refused = 0
        self._note(self.written, len(rows), size, begin_ns)

    def _take_back(self, taken: dict[tuple[str, str], _Waiting]) -> None:
        if next(iter(taken))[0] in self._drops:
            return
        self.written.errors += 1
        later, self._waiting = self._waiting, {}
        for place, each in taken.items():
            if place not in later:
                self._waiting[place] = each
                self._bytes += each.size
        self._waiting.update(later)

    @staticmethod
    def _note(flow: Flow, count: int, size: int, begin_ns: int) -> None:
        flow.count += count
        flow.bytes += size
        flow.waits.record(time.perf_counter_ns() - begin_ns)

    # ------------------------------------------------------------ asking

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._searching >= SEARCHES_MAX:
            raise TierFailed(f"qdrant: {SEARCHES_MAX} searches are under way already")
        self._searching += 1
        begin_ns = time.perf_counter_ns()
        try:
            found = await self.guard.call(work, retry=False)
            self._note(self.searched, 1, 0, begin_ns)
            return found
        except TierFailed as error:
            self.searched.errors += not isinstance(error, TierDown)
            raise
        finally:
            self._searching -= 1

    async def search(self, model: bytes, salt: bytes, vector: bytes, count: int, least: float | None) -> list[Match]:
        """The nearest contexts of a tenant, the nearest first; none whose cosine is under `least`. TierFailed."""
        name, tenant = self.collection(model), tenant_of(salt)
        hits = (await self._ask(lambda: self.engine.search(name, [vector], count, tenant, least)))[0]
        return [_match(hit.payload, hit.score) for hit in hits]

    async def known(self, names: Sequence[Name]) -> list[Known | None]:
        """The vectors of contexts of one model. TierFailed."""
        if not names:
            return []
        collection = self.collection(names[0].model)
        rows = await self._ask(lambda: self.engine.get(collection, [digest(name) for name in names]))
        return [None if row is None else self._known(name, row) for name, row in zip(names, rows, strict=True)]

    def _known(self, name: Name, row: Row) -> Known | None:
        match = _match(row.payload, 1.0)
        if match.key != name.key or len(row.vector) != 4 * self.dim:
            return None
        return Known(row.vector, float(row.payload.get("norm") or 0.0), match)

    async def near(self, model: bytes, salt: bytes, least: float, limit: int) -> tuple[list[Pair], bool]:
        """Pairs of a tenant's contexts whose cosine is at least that; whether all rows were looked at. TierFailed.

        The best `limit` of those found; of each row NEAR_COUNT neighbours are looked at, of NEAR_ROWS_MAX rows, for
        NEAR_S.
        """
        name, tenant = self.collection(model), tenant_of(salt)
        pairs: dict[tuple[str, str], Pair] = {}
        after: str | None = None
        seen, end_s = 0, time.monotonic() + NEAR_S
        while True:
            rows, after = await self._ask(partial(self.engine.page, name, tenant, after, NEAR_PAGE))
            vectors = [row.vector for row in rows]
            found: list[list[Hit]] = []
            if vectors:
                found = await self._ask(partial(self.engine.search, name, vectors, NEAR_COUNT, tenant, least))
            for row, hits in zip(rows, found, strict=True):
                for hit in hits:
                    if hit.id != row.id and (place := (min(hit.id, row.id), max(hit.id, row.id))) not in pairs:
                        one, other = sorted((_match(row.payload, 0).key, _match(hit.payload, 0).key))
                        pairs[place] = Pair(one, other, hit.score)
            if len(pairs) > 2 * limit + NEAR_PAGE:
                best = sorted(pairs.items(), key=lambda item: -item[1].score)[:limit]
                pairs = dict(best)
            seen += len(rows)
            if after is None or seen >= NEAR_ROWS_MAX or time.monotonic() > end_s:
                break
        ordered = sorted(pairs.values(), key=lambda pair: (-pair.score, pair.first, pair.second))
        return ordered[:limit], after is None

    # ------------------------------------------------------------ figures

    def _count_soon(self) -> None:
        """Asks the engine how many rows there are, where nobody has of late."""
        if self._is_closed or self._counting is not None or time.monotonic() - self._counted[0] < COUNT_S:
            return

        async def count() -> None:
            try:
                found = await self.guard.call(lambda: self.engine.count(f"zeekdb-v{self.version}-"), retry=False)
                self._counted = (time.monotonic(), sum(found.values()))
            except TierFailed:
                self._counted = (time.monotonic(), self._counted[1])
            finally:
                self._counting = None

        self._counting = asyncio.get_running_loop().create_task(count())

    def stats(self) -> TierStats:
        """Blocks are contexts here; their number is COUNT_S old."""
        self._count_soon()
        state = "closed" if self._is_closed else "ok" if self.guard.state == "closed" else "failing"
        stats = TierStats("vectors", state, self.guard.last_error, blocks=self._counted[1])
        stats.write, stats.read = self.written, self.searched
        stats.deleted, stats.dropped, stats.queue_bytes = self.deleted, self.dropped, self._bytes
        stats.more = {
            "engine": self.engine.name, "dim": self.dim, "queue": len(self._waiting), **self.guard.figures(),
        }  # fmt: skip
        return stats
