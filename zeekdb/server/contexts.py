"""Vectors of contexts: made of what is stored, searched, and used to bring blocks up before they are asked for.

Behind a command that stores blocks of a model with a layout a job is queued, which names them: their keys, and the key
before them. One task takes jobs in turn; for each block it looks whether the block is still in host memory, has a
thread read its keys (`tensors/embedding.py`), and adds that to the sum of the blocks before it. The sums of the
last STATES_MAX blocks are kept, 4 KiB each, so a context goes on where it ended; of an older one the store knows the
vector and its length, which is the sum again. Where neither is known the context begins with what came.

One row for a context: who goes on from the end of another takes its place. Rows of contexts that branch off stay.

Nothing here decides what a lookup answers. A full queue drops jobs and counts them; a store that is down fails
searches, in words, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import OrderedDict, deque
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from zeekdb.config.urls import scrubber
from zeekdb.errors import CommandError
from zeekdb.hot import region
from zeekdb.hot.blobview import BlobView
from zeekdb.tensors.layout import Layout
from zeekdb.tiers.guard import TierFailed
from zeekdb.tiers.tier import Name, settle

if TYPE_CHECKING:
    from zeekdb.server.tensors import Tensors
    from zeekdb.tensors.embedding import Embedder, Vector
    from zeekdb.tensors.region import Tenant
    from zeekdb.tiers.vectors.store import Context, Match, Pair, VectorStore

T = TypeVar("T")
log = logging.getLogger("zeekdb")

JOBS_MAX: Final = 4096
JOB_KEYS_MAX: Final = 131_072  # of all jobs that wait
STATES_MAX: Final = 4096  # blocks whose sums are kept
CHECK_S: Final = 2.0
OWN_MAX: Final = 65_536  # contexts whose vector is known to be the client's
PREFETCH_KEYS_MAX: Final = 65_536  # of one KV.PREFETCH … LIKE
BY_POSITION: Final = re.compile(rb"\0[kv]\d+:\d+:\d+:\d+:")  # names of KV.PUT, which are no blocks of a context
KNOWN_ASKED: Final = 256  # names asked for at a time


class Job(NamedTuple):
    """Blocks that have been stored, in the order of their context."""

    tenant: Tenant
    keys: list[bytes]
    parent: bytes | None


@dataclass(slots=True)
class State:
    """A context up to a block."""

    layout: Layout
    total: Vector
    keys: tuple[bytes, ...]  # the first ones
    blocks: int
    is_whole: bool  # from its first block on
    has_row: bool = False


class Contexts:
    """The vectors of one server's contexts. Without kv-qdrant-url all of this does nothing."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.store: VectorStore | None = None
        self.dropped = 0
        self.embedded = 0  # blocks
        self.failed = 0  # jobs that a bug of ours ended
        self._jobs: deque[Job] = deque()
        self._keys = 0
        self._states: OrderedDict[Name, State] = OrderedDict()
        self._own: OrderedDict[Name, None] = OrderedDict()
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._check_at = 0.0  # on the clock of `tick`
        self._checking: asyncio.Task[None] | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._is_working = False

    # ------------------------------------------------------------ coming and going

    async def start(self) -> None:
        """Opens the store, where there is one. Unavailable."""
        config = self.tensors.server.config
        if not config.kv_qdrant_url:
            return
        from zeekdb.tensors.embedding import VERSION
        from zeekdb.tiers.vectors.engine import Options
        from zeekdb.tiers.vectors.store import VectorStore, engine_of

        url, timeout_s = config.kv_qdrant_url, config.kv_qdrant_timeout / 1000
        options = Options(config.kv_qdrant_dim, config.kv_qdrant_m, config.kv_qdrant_ef)
        store = VectorStore(
            engine_of(url, options, timeout_s), dim=options.dim, version=VERSION, batch=config.kv_qdrant_batch,
            timeout_s=timeout_s, scrub=scrubber([url]),
        )  # fmt: skip
        await store.open()
        self.store = store
        self._threads = ThreadPoolExecutor(1, "zeekdb-embedding")
        self._worker = asyncio.get_running_loop().create_task(self._work_forever())

    async def stop(self) -> None:
        """Lets jobs go that wait, writes vectors that do."""
        for task in (self._checking, self._worker):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self._checking = self._worker = None
        self._jobs.clear()
        self._states.clear()
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        if self.store is not None:
            await self.store.close()

    # ------------------------------------------------------------ behind commands

    def stored(
        self, tenant: Tenant, keys: Sequence[bytes], values: Sequence[Any], said: Sequence[int], parent: bytes | None
    ) -> None:  # fmt: skip
        """Blocks were stored (1), there already (0) or dropped (-1): in the order of their context, after `parent`."""
        if self.store is None or not keys or tenant.model.layout is None or BY_POSITION.match(keys[0]):
            return
        whole = list(keys[: said.index(-1)] if -1 in said else keys)
        if not whole or (1 not in said and Name(tenant.model.name, tenant.salt, whole[-1]) in self._states):
            return
        if len(self._jobs) >= JOBS_MAX or self._keys + len(whole) > JOB_KEYS_MAX:
            self.dropped += 1
            return
        self._jobs.append(Job(tenant, whole, parent))
        self._keys += len(whole)
        self._wake.set()

    def removed(self, tenant: Tenant, keys: Sequence[bytes]) -> None:
        """KV.DEL: contexts that end with these blocks are not found any more."""
        if self.store is None:
            return
        names = [Name(tenant.model.name, tenant.salt, key) for key in keys if not BY_POSITION.match(key)]
        for name in names:
            self._states.pop(name, None)
            self._own.pop(name, None)
        self.store.remove(names)

    def forget(self, model: bytes) -> None:
        """KV.MODEL DEL: with all of its tenants."""
        if self.store is None:
            return
        for names in (self._states, self._own):
            for name in [name for name in names if name.model == model]:
                del names[name]
        self.store.drop(model)

    async def _work_forever(self) -> None:
        while True:
            while self._jobs:
                job = self._jobs.popleft()
                self._keys -= len(job.keys)
                self._is_working = True
                try:
                    await self._work(job)
                except Exception:
                    self.failed += 1
                    log.exception("Making the vector of a context")  # a bug of ours
                finally:
                    self._is_working = False
            self._wake.clear()
            await self._wake.wait()

    async def _work(self, job: Job) -> None:
        """Adds the job's blocks, as far as they are in host memory, and queues the context's vector."""
        from zeekdb.tensors.embedding import embedder, finished

        tenant, layout, store = job.tenant, job.tenant.model.layout, self.store
        if store is None or layout is None:
            return
        maker = embedder(layout, tenant.model.codec, store.dim)
        if maker is None:
            return
        done, origin, state = await self._begin(job, layout, maker)
        last = None
        for key in job.keys[done:]:
            more = await self._block(tenant, layout, key, maker)
            if more is None or not self._is_there(tenant, key):
                break
            last = Name(tenant.model.name, tenant.salt, key)
            state = _grown(state, key, more)
            self._keep(last, state)
            self.embedded += 1
        if last is None or not self._is_there(tenant, last.key):
            return  # what was deleted meanwhile must not be found
        if origin is not None:
            self._replace(origin)
        made = finished(state.total)
        if made is not None and last not in self._own:
            layers = (maker.layers[0], maker.layers[-1] + 1)
            state.has_row = store.put(_context(last, state, made.vector, made.norm, layers))

    async def _begin(self, job: Job, layout: Layout, maker: Embedder) -> tuple[int, Name | None, State]:
        """How many of the job's blocks are known to be in a sum, the name of the last one or of the one before, it."""
        model, salt = job.tenant.model.name, job.tenant.salt
        names = [Name(model, salt, key) for key in job.keys]
        for at in range(len(names) - 1, -1, -1):
            state = self._states.get(names[at])
            if state is not None and state.layout == layout:
                self._states.move_to_end(names[at])
                return at + 1, names[at], state
        fresh = State(layout, maker.nothing(), (), 0, job.parent is None)
        if job.parent is not None:
            parent = Name(model, salt, job.parent)
            state = self._states.get(parent) or (await self._recalled([parent], layout))[1]
            return (0, parent, state) if state is not None and state.layout == layout else (0, None, fresh)
        if isinstance(region.get(job.tenant.space, job.keys[:1], False)[0], BlobView):
            return 0, None, fresh
        asked = names[-KNOWN_ASKED:]  # its first blocks are below: the store may know what they added
        at, state = await self._recalled(asked, layout)
        return (len(names) - len(asked) + at + 1, asked[at], state) if state is not None else (0, None, fresh)

    async def _recalled(self, names: Sequence[Name], layout: Layout) -> tuple[int, State | None]:
        """The last of the contexts whose pooled vector the store has, as the sum that it was."""
        from zeekdb.tensors.embedding import resumed

        assert self.store is not None
        try:
            known = await self.store.known(names)
        except TierFailed:
            return 0, None
        for at in range(len(names) - 1, -1, -1):
            found = known[at]
            if found is not None and found.norm:
                total = resumed(found.vector, found.norm)
                return at, State(layout, total, found.match.keys, found.match.blocks, found.match.is_whole, True)
        return 0, None

    async def _block(self, tenant: Tenant, layout: Layout, key: bytes, maker: Embedder) -> Vector | None:
        """What a block adds; None: it is not in host memory, or none of the layout's."""
        if not self.tensors.below.is_open(tenant) or tenant.model.layout != layout:
            return None
        view: Any = region.get(tenant.space, [key], False)[0]
        if not isinstance(view, BlobView) or len(view) != maker.block_bytes:
            return None
        return await settle(asyncio.get_running_loop().run_in_executor(self._threads, maker.block, view))

    def _is_there(self, tenant: Tenant, key: bytes) -> bool:
        return self.tensors.below.is_open(tenant) and bool(region.count_present(tenant.space, [key]))

    def _keep(self, name: Name, state: State) -> None:
        self._states[name] = state
        self._states.move_to_end(name)
        while len(self._states) > STATES_MAX:
            self._states.popitem(last=False)

    def _replace(self, name: Name) -> None:
        """The context that ended there goes on: its row goes, unless it is the client's own."""
        assert self.store is not None
        state = self._states.get(name)
        if name not in self._own and (state is None or state.has_row):
            self.store.remove([name])
            if state is not None:
                state.has_row = False

    # ------------------------------------------------------------ commands

    def _open_store(self) -> VectorStore:
        if self.store is None:
            raise CommandError("ERR no vectors of contexts are kept: kv-qdrant-url is not set")
        return self.store

    @property
    def dim(self) -> int:
        """Dimensions of a vector. CommandError: none are kept."""
        return self._open_store().dim

    def embed(self, tenant: Tenant, key: bytes, vector: bytes) -> None:
        """KV.EMBED: the client's own vector of the context that ends with the block. CommandError."""
        from zeekdb.tiers.vectors.store import Context

        store = self._open_store()
        name = Name(tenant.model.name, tenant.salt, key)
        layout, state = tenant.model.layout, self._states.get(name)
        layers = (0, layout.layers if layout is not None else 0)
        if state is not None and state.layout == layout:
            context = _context(name, state, vector, 0.0, layers)
        else:  # what stands before its last block is not known
            tokens = (0, layout.block if layout is not None else 0)
            context = Context(name, vector, (key,), 1, tokens, layers, 0.0, False)
        if not store.put(context):
            raise CommandError("ERR too many vectors wait to be written, try again later")
        self._own[name] = None
        self._own.move_to_end(name)
        while len(self._own) > OWN_MAX:
            self._own.popitem(last=False)

    async def like(self, model: bytes, salt: bytes, keys: Sequence[bytes]) -> bytes:
        """The vector of the longest context that ends with one of these blocks. CommandError: none is known."""
        from zeekdb.tensors.embedding import finished

        store = self._open_store()
        names = [Name(model, salt, key) for key in keys]
        for end in range(len(names), 0, -KNOWN_ASKED):
            some = names[max(0, end - KNOWN_ASKED) : end]
            known = await _asked(store.known(some))
            for name, row in zip(reversed(some), reversed(known), strict=True):
                if row is not None:
                    return row.vector
                state = self._states.get(name)
                made = finished(state.total) if state is not None else None
                if made is not None:
                    return made.vector
        raise CommandError("ERR no vector of this context is known")

    async def search(
        self, model: bytes, salt: bytes, vector: bytes, count: int, least: float | None
    ) -> list[tuple[Match, int]]:  # fmt: skip
        """The nearest contexts, and how many of each one's blocks are there, from the first on. CommandError."""
        found = []
        for match in await _asked(self._open_store().search(model, salt, vector, count, least)):
            tenant = self.tensors.region.reader(model, salt)  # which may have changed meanwhile
            present = region.lookup(tenant.space, list(match.keys), touch=False)[0] if match.keys else 0
            found.append((match, present))
            await asyncio.sleep(0)
        return found

    async def near(self, model: bytes, salt: bytes, least: float, limit: int) -> list[Pair]:
        """KV.NEAR: pairs of contexts at least so near. CommandError."""
        pairs, _ = await _asked(self._open_store().near(model, salt, least, limit))
        return pairs

    async def prefetch(self, model: bytes, salt: bytes, key: bytes, count: int, to_gpu: bool) -> int:
        """KV.PREFETCH … LIKE: begins to bring up the blocks of the nearest contexts; how many. CommandError."""
        vector = await self.like(model, salt, [key])
        wanted: dict[bytes, None] = {}
        for match, _ in await self.search(model, salt, vector, count, None):
            wanted.update(dict.fromkeys(match.keys[: PREFETCH_KEYS_MAX - len(wanted)]))
        tenant = self.tensors.region.reader(model, salt)
        bring = self.tensors.gpu.prefetch if to_gpu else self.tensors.prefetch
        return int(bring(tenant, list(wanted)))

    # ------------------------------------------------------------ figures

    def tick(self, now_s: float) -> None:
        """Now and then: asks the store how it is, so that what is said of one that nobody uses is true."""
        if self.store is None or now_s < self._check_at or (self._checking is not None and not self._checking.done()):
            return
        self._check_at = now_s + CHECK_S
        self._checking = asyncio.get_running_loop().create_task(self._check(self.store))

    @staticmethod
    async def _check(store: VectorStore) -> None:
        with contextlib.suppress(TierFailed):
            await store.guard.call(store.engine.probe)

    def tier(self) -> dict[str, Any] | None:
        """What KV.TIERS shows; blocks are contexts. None: there is no store."""
        if self.store is None:
            return None
        stats = self.store.stats()
        return {
            "name": b"vectors", "state": stats.state.encode(), "error": stats.error.encode(), "blocks": stats.blocks,
            "deleted": stats.deleted, "dropped": stats.dropped + self.dropped, "queue_bytes": stats.queue_bytes,
            **stats.more, "jobs": len(self._jobs) + self._is_working, "embedded": self.embedded, "bugs": self.failed,
            **{f"write_{key}": value for key, value in stats.write.figures().items()},
            **{f"read_{key}": value for key, value in stats.read.figures().items()},
        }  # fmt: skip


async def _asked(work: Coroutine[Any, Any, T]) -> T:
    """What the store answers. CommandError: it can't."""
    try:
        return await work
    except TierFailed as error:
        said = f"ERR vectors can't be searched now: {error}"
        raise CommandError(said.replace("\r", " ").replace("\n", " ")) from None


def _grown(state: State, key: bytes, more: Vector) -> State:
    """The context with a block more."""
    from zeekdb.tiers.vectors.store import kept_keys

    keys = kept_keys((*state.keys, key)) if len(state.keys) == state.blocks else state.keys
    return State(state.layout, state.total + more, keys, state.blocks + 1, state.is_whole)


def _context(name: Name, state: State, vector: bytes, norm: float, layers: tuple[int, int]) -> Context:
    from zeekdb.tiers.vectors.store import Context

    tokens = (0, state.blocks * state.layout.block)
    return Context(name, vector, state.keys, state.blocks, tokens, layers, norm, state.is_whole)
