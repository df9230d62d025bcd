"""Blocks as objects: S3, GCS, Azure, or a directory (kv-objects-url; `buckets.py` says what it may be).

    <prefix>/blocks/<2 hex digits>/<30 hex digits>   one block: header (`envelope.py`), then payload (`packing.py`)
    <prefix>/archive/<32 hex digits>/<version>       earlier versions, in the same form; nothing expires there
    <prefix>/probe/<32 hex digits>                   there for a moment, while a breaker tries whether writing works
    <prefix>/zeekdb.tier, <prefix>/tmp/              of directories

The digits are `envelope.digest` of the block's name: nothing that clients choose is part of a path, and the first two
spread the objects over 256 directories, or prefixes. Header and payload are one object, so that a block and what is
known of it cannot part. Whoever has a URL of an object (`url`) reads the header, whose length stands in it, and then
the payload.

*Put* reads the header of what is there (one request of some hundred bytes) and uploads only what differs. An upload is
visible when it is whole; large ones go in parts. *Get* asks for header and payload at once, as the reader knows how
large both can be, and for the rest of a large object in parallel ranges; raw bytes are copied once, from the HTTP
client's memory to the caller's. An object that says it is the asked one and is damaged is remembered, so that the next
put writes it anew instead of finding it there.

*Expiry.* Deadlines stand in the header: what is past them is not there, for whoever asks. What takes room is deleted in
steps, a 256th of the names every EXPIRY_S: objects that nobody has written for `ttl_days`, and in a directory, where
reading headers costs nothing, those past their deadline. A lifecycle rule of the bucket does the former without
requests (docs/KV.md has one).

Reads and writes have a breaker each: a full disk, or keys that may only read, must not hide what is there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from zeekdb.config.urls import scrubber
from zeekdb.errors import Unavailable
from zeekdb.hot.checksum import checksum as block_checksum
from zeekdb.tiers.buckets import PART, RATE_MIN, Bucket, environment_secrets, open_bucket, said
from zeekdb.tiers.envelope import HEADER_MAX, PREFIX, Damaged, Sealed, digest, seal, unseal
from zeekdb.tiers.guard import Guard, TierFailed
from zeekdb.tiers.packing import LayoutOf, Packer, copy, is_asked
from zeekdb.tiers.tier import (
    Budget,
    Checksum,
    Flow,
    Get,
    Held,
    Meta,
    Name,
    Put,
    SharedTier,
    TierStats,
    place_of,
    settle,
)

T = TypeVar("T")
U = TypeVar("U")
log = logging.getLogger("zeekdb")

UNDER_WAY_BYTES: Final = 256 << 20  # of copies of blocks, beside what callers hold
HEADER_GUESS: Final = 512  # bytes of a header without its names
RANGES_AT_ONCE: Final = 4  # of one object
INLINE_BYTES: Final = 32 << 10  # what is not worth a thread
THREADS_MAX: Final = 8
DOUBTFUL_MAX: Final = 4096  # names
DAY_S: Final = 86_400
EXPIRY_S: Final = 60.0
PARTITIONS: Final = 256
HEADERS_MAX: Final = 5000  # that expiry reads in a step, for their deadlines
VERSIONS_MAX: Final = 10_000  # of a block that are listed
URL_S_MAX: Final = 7 * DAY_S  # what S3 signs for


class ObjectTier(SharedTier):
    """See the module. `layout_of` as `packing.Packer` takes it; `max_bytes`: of a block, and of what is believed."""

    name = "objects"

    def __init__(
        self, url: str, *, coding: str = "raw", layout_of: LayoutOf = lambda _: None, pool: int = 16,
        ttl_days: int = 0, max_bytes: int = 4 << 30, timeout_s: float = 10.0, checksum: Checksum = block_checksum,
    ) -> None:  # fmt: skip
        self.ttl_days = ttl_days
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.packer = Packer(coding, layout_of, checksum)
        self.is_lossy = self.packer.is_lossy
        self._threads = ThreadPoolExecutor(THREADS_MAX, "zeekdb-objects")
        self._disk = ThreadPoolExecutor(THREADS_MAX, "zeekdb-objects-disk")  # a disk that hangs takes no other threads
        self.bucket: Bucket = open_bucket(url, timeout_s, self._disk)
        scrub = scrubber([url])
        hidden = environment_secrets()

        def clean(text: str) -> str:
            text = said(text)
            for secret in hidden:
                text = text.replace(secret, "***")
            return scrub(text)

        failures = self.bucket.failures
        self.reading = Guard(self.name, self.bucket.probe, failures=failures, timeout_s=timeout_s, scrub=clean)
        self.writing = Guard(
            f"{self.name} (writing)", self._probe_writing, failures=failures, timeout_s=timeout_s, scrub=clean
        )
        self._probe_path = f"probe/{secrets.token_hex(16)}"
        self._requests = Budget(pool)
        self._bytes = Budget(UNDER_WAY_BYTES)
        self._doubtful: OrderedDict[str, None] = OrderedDict()
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closing = self._is_closed = False
        self._expiry: asyncio.Task[None] | None = None
        self._partition = secrets.randbelow(PARTITIONS)  # nodes that share the bucket begin in different places
        self.write, self.read = Flow(), Flow()
        self.blocks = self.plain_bytes = 0
        self.counts = dict.fromkeys(("misses", "corrupt", "deleted", "expired", "unchanged", "archived"), 0)
        self.sent_bytes = self.sent_plain_bytes = 0

    # ---- coming and going -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Nothing that may heal keeps a server from starting: `stats` tells of it."""
        for guard, work in ((self.writing, self.bucket.open), (self.reading, self.bucket.probe)):
            try:
                await guard.call(work)
            except TierFailed as error:
                log.warning("Tier %s: %s", self.name, error)
        self._expiry = asyncio.get_running_loop().create_task(self._expire_by_and_by())

    @property
    def is_readable(self) -> bool:
        """Also while it takes no objects."""
        return not self._is_closed and self.reading.state == "closed"

    async def close(self) -> None:
        """Ends what is under way."""
        self._is_closing = True
        if self._expiry is not None:
            self._expiry.cancel()
            await asyncio.gather(self._expiry, return_exceptions=True)
        await self._idle.wait()
        await self.reading.close()
        await self.writing.close()
        self._threads.shutdown(wait=False)
        self._disk.shutdown(wait=False)
        self._is_closed = True

    @property
    def guards(self) -> Sequence[Guard]:
        """See SharedTier."""
        return (self.reading, self.writing)

    async def probe(self) -> None:
        """A request for a few bytes."""
        await self.bucket.probe()

    async def _probe_writing(self) -> None:
        await self.bucket.write(self._probe_path, [memoryview(b"probe")])
        await self.bucket.remove([self._probe_path])

    # ---- calls over many blocks -------------------------------------------------------------------------------------

    async def _all(self, work: Callable[[U], Awaitable[T]], items: Sequence[U], refused: T) -> list[T]:
        """The work's answers. Whoever is cancelled is so when it has ended: it uses the caller's memory."""
        if self._is_closing or not items:
            return [refused] * len(items)
        out = [refused] * len(items)
        left = iter(range(len(items)))

        async def worker() -> None:
            for at in left:
                await self._requests.take(1)  # before any clock runs
                try:
                    out[at] = await work(items[at])
                finally:
                    self._requests.give(1)

        await self._settled(_together(worker() for _ in range(min(len(items), self._requests.most))))
        return out

    async def _settled(self, work: Coroutine[Any, Any, T]) -> T:
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

    def _patience_s(self, size: int) -> float:
        return self.timeout_s + size / RATE_MIN

    def _count(self, what: str) -> None:
        self.counts[what] += 1

    # ---- headers ----------------------------------------------------------------------------------------------------

    async def _header(self, name: Name | Meta) -> Sealed | None:
        """What lies under the name, if it is what it says and its time has not come. TierFailed."""
        path = path_of(name)
        guess = _header_guess(name)

        async def work() -> memoryview | None:
            data = await self.bucket.read(path, 0, guess)
            if data is not None and guess == len(data) < (size := _header_size(data)):
                data = await self.bucket.read(path, 0, size)
            return data

        data = await self.reading.call(work)
        return None if data is None else self._unsealed(name, data)

    def _unsealed(self, name: Name | Meta, data: memoryview) -> Sealed | None:
        try:
            sealed, _ = unseal(data)
        except Damaged as error:
            self._doubt(name, str(error))
            return None
        if sealed.meta[:3] != (name.model, name.salt, name.key):
            self._doubt(name, "it is another block's")
            return None
        return None if _is_past(sealed.meta, time.time()) else sealed

    def _doubt(self, name: Name | Meta, why: str) -> None:
        """Something lies there that will not do: the next put writes it anew."""
        if digest(name) in self._doubtful:
            return
        self._count("corrupt")
        log.warning("Tier %s: %s is damaged: %s", self.name, path_of(name), why)
        self._doubtful[digest(name)] = None
        if len(self._doubtful) > DOUBTFUL_MAX:
            self._doubtful.popitem(last=False)

    async def find(self, names: Sequence[Name]) -> list[Meta | None]:
        """What is there under these names now; None: nothing, or it can't be asked."""
        return await self._all(self._find, names, None)

    async def _find(self, name: Name) -> Meta | None:
        try:
            sealed = await self._header(name)
        except TierFailed:
            self.read.errors += 1
            return None
        return None if sealed is None else sealed.meta

    async def contains(self, items: Sequence[Held]) -> list[bool]:
        """Whether the header is there and says what it should."""
        return await self._all(self._contains, items, False)

    async def _contains(self, item: Held) -> bool:
        try:
            sealed = await self._header(item.meta)
        except TierFailed:
            self.read.errors += 1
            return False
        return sealed is not None and is_asked(sealed, item.meta)

    # ---- putting ----------------------------------------------------------------------------------------------------

    async def put(self, items: Sequence[Put]) -> list[int | None]:
        """The places of the blocks, once they are safe; None: not stored."""
        return await self._all(self._put, items, None)

    async def _put(self, item: Put) -> int | None:
        begin_ns = time.perf_counter_ns()
        meta = item.meta
        if meta.size > self.max_bytes or _header_guess(meta) > HEADER_MAX:
            return None
        try:
            found = await self._header(meta)
            if found is not None and self._will_do(found, meta):
                self._count("unchanged")
            else:
                await self._store(path_of(meta), meta, item.data)
                self._doubtful.pop(digest(meta), None)
                self.blocks += found is None
                self.plain_bytes += meta.size - (found.meta.size if found is not None else 0)
        except TierFailed:
            self.write.errors += 1
            return None
        except ValueError:  # names that no header takes
            return None
        self.write.record(meta.size, time.perf_counter_ns() - begin_ns)
        return place_of(meta)

    def _will_do(self, found: Sealed, meta: Meta) -> bool:
        """Whether the block there need not be written again: whole for all we know, and it lives long enough."""
        deadline = found.meta.deadline
        lives = not deadline or (meta.deadline and deadline >= meta.deadline)
        return is_asked(found, meta) and bool(lives) and digest(meta) not in self._doubtful

    async def _store(self, path: str, meta: Meta, data: memoryview) -> None:
        """TierFailed, ValueError."""
        await self._bytes.take(meta.size)
        try:
            sealed, payload = await self._thread(meta.size, self.packer.pack, meta, data)
            pieces = [memoryview(seal(sealed)), memoryview(payload).cast("B")]
            size = sum(map(len, pieces))

            await self.writing.call(
                lambda: self.bucket.write(path, pieces), timeout_s=self._patience_s(size), retry=size <= PART
            )
        finally:
            self._bytes.give(meta.size)
        self.sent_bytes += size
        self.sent_plain_bytes += meta.size

    # ---- getting ----------------------------------------------------------------------------------------------------

    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        """Fill the views. False: absent or doubtful; None: can't be asked now."""
        return await self._all(self._get, items, None)

    async def _get(self, item: Get) -> bool | None:
        begin_ns = time.perf_counter_ns()
        meta = item.meta

        async def work() -> bool:
            return await self._load(path_of(meta), meta, item.into)

        await self._bytes.take(meta.size)
        try:
            is_there = await self.reading.call(work, timeout_s=self._patience_s(meta.size))
        except TierFailed:
            self.read.errors += 1
            return None
        finally:
            self._bytes.give(meta.size)
        if is_there:
            self.read.record(meta.size, time.perf_counter_ns() - begin_ns)
        else:
            self._count("misses")
        return is_there

    async def _load(self, path: str, meta: Meta, into: memoryview) -> bool:
        """Whether the block is there, whole, and now in `into`. What `bucket.failures` are."""
        guess = _header_guess(meta)
        data = await self.bucket.read(path, 0, min(guess + meta.size, PART))
        if data is None:
            return False
        if len(data) < (size := _header_size(data)):  # a group with a long name
            data = await self.bucket.read(path, 0, size + min(meta.size, PART))
            if data is None:
                return False
        sealed = self._unsealed(meta, data)
        if sealed is None or not is_asked(sealed, meta):
            return False
        if sealed.stored_size > sealed.meta.size:  # no coding makes a block larger
            self._doubt(meta, "its sizes make no sense")
            return False
        is_whole = await self._body(path, sealed, data, into)
        if not is_whole:
            self._doubt(meta, "its bytes do not agree with their checksum")
        return is_whole

    async def _body(self, path: str, sealed: Sealed, begin: memoryview, into: memoryview) -> bool:
        """The payload behind a header, of which the begin is there."""
        head, size = _header_size(begin), sealed.stored_size
        here = begin[head : head + size]
        if len(here) == size:
            return await self._thread(sealed.meta.size, self.packer.unpack, sealed, here, into)
        is_raw = sealed.coding == "raw"
        room = memoryview(into).cast("B") if is_raw else memoryview(bytearray(size))
        await self._thread(len(here), copy, here, room[: len(here)])
        starts = iter(range(len(here), size, PART))

        async def worker() -> bool:
            for at in starts:
                length = min(PART, size - at)
                data = await self.bucket.read(path, head + at, length)
                if data is None or len(data) != length:
                    return False
                await self._thread(length, copy, data, room[at : at + length])
            return True

        if not all(await _together(worker() for _ in range(RANGES_AT_ONCE))):
            return False
        if is_raw:
            return await self._thread(size, self.packer.is_whole, sealed, room)
        return await self._thread(size, self.packer.unpack, sealed, room, into)

    # ---- removing ---------------------------------------------------------------------------------------------------

    async def delete(self, items: Sequence[Held]) -> list[bool]:
        """Forget the blocks for good. False: it could not be asked."""
        if self._is_closing or not items:
            return [False] * len(items)
        paths = list(dict.fromkeys(path_of(meta) for meta, _ in items))
        if not await self._settled(self._remove(paths)):
            return [False] * len(items)
        self.counts["deleted"] += len(items)
        self.blocks = max(0, self.blocks - len(paths))
        self.plain_bytes = max(0, self.plain_bytes - sum(meta.size for meta, _ in items))
        return [True] * len(items)

    async def _remove(self, paths: Sequence[str]) -> bool:
        try:
            await self.writing.call(lambda: self.bucket.remove(paths), timeout_s=self.timeout_s + len(paths) / 100)
        except TierFailed:
            self.write.errors += 1
            return False
        return True

    # ---- all there is -----------------------------------------------------------------------------------------------

    async def scan(self) -> AsyncIterator[list[Held]]:
        """Every live block, once, a page of a listing at a time; ends early where the listing fails."""
        self.blocks = self.plain_bytes = 0
        try:
            pages = self.bucket.pages("blocks")
            while (page := await self.reading.call(lambda: anext(pages, None), retry=False)) is not None:
                found = await self._all(self._listed, [each.path for each in page], None)
                now_s = time.time()
                held = [Held(meta, place_of(meta)) for meta in found if meta is not None and not _is_past(meta, now_s)]
                self.blocks += len(held)
                self.plain_bytes += sum(meta.size for meta, _ in held)
                yield held
        except TierFailed as error:
            self.read.errors += 1
            log.warning("Tier %s cannot be listed: %s", self.name, error)

    async def _listed(self, path: str) -> Meta | None:
        """Of an object that is a block of ours, in its place, though its time may have come."""

        async def work() -> memoryview | None:
            data = await self.bucket.read(path, 0, HEADER_GUESS)
            if data is not None and HEADER_GUESS == len(data) < (size := _header_size(data)):
                data = await self.bucket.read(path, 0, size)
            return data

        try:
            data = await self.reading.call(work)
            sealed = None if data is None else unseal(data)[0]
        except TierFailed:
            self.read.errors += 1
            return None
        except Damaged:
            self._count("corrupt")
            return None
        return sealed.meta if sealed is not None and path_of(sealed.meta) == path else None

    async def _expire_by_and_by(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_S)
            try:
                await self.expire(time.time())
            except TierFailed:
                pass  # the guard has told
            except Exception:
                log.exception("Tier %s, what has expired", self.name)

    async def expire(self, now_s: float) -> int:
        """Deletes of the next 256th of all names what has stayed for longer than `ttl_days`, and, in a directory, what
        is past its deadline; how many. TierFailed."""
        is_folder = self.bucket.folder is not None
        if self._is_closing or not (self.ttl_days or is_folder):
            return 0
        partition, self._partition = self._partition, (self._partition + 1) % PARTITIONS
        oldest_s = now_s - self.ttl_days * DAY_S if self.ttl_days else 0.0
        count = looked_at = 0
        pages = self.bucket.pages(f"blocks/{partition:02x}")
        while (page := await self.reading.call(lambda: anext(pages, None), retry=False)) is not None:
            gone = [each.path for each in page if each.modified_s < oldest_s]
            if is_folder and looked_at < HEADERS_MAX:
                rest = [each.path for each in page if each.modified_s >= oldest_s]
                metas = await self._all(self._listed, rest, None)
                gone += [path for path, meta in zip(rest, metas, strict=True) if _is_past(meta, now_s)]
                looked_at += len(rest)
            is_gone = await self._settled(self._remove(gone))
            count += len(gone) if is_gone else 0
        self.counts["expired"] += count
        self.blocks = max(0, self.blocks - count)
        return count

    # ---- archives, and URLs -----------------------------------------------------------------------------------------

    async def archive(self, meta: Meta, data: memoryview, version: int) -> bool:
        """Keeps a version of a block, whatever happens to the block; False: it could not be."""
        if self._is_closing or meta.size > self.max_bytes or _header_guess(meta) > HEADER_MAX:
            return False
        try:
            await self._settled(self._store(archive_path(meta, version), meta, data))
        except TierFailed:
            self.write.errors += 1
            return False
        except ValueError:
            return False
        self._count("archived")
        return True

    async def restore(self, name: Name | Meta, version: int) -> tuple[Meta, memoryview] | None:
        """That version, which may be what a lossy coding made of it; None: it is not there, or not whole.

        TierFailed: it can't be asked.
        """
        if self._is_closing:
            return None
        return await self._settled(self._restore(archive_path(name, version), name))

    async def _restore(self, path: str, name: Name | Meta) -> tuple[Meta, memoryview] | None:
        async def work() -> memoryview | None:
            return await self.bucket.read(path, 0, HEADER_MAX)

        data = await self.reading.call(work)
        try:
            sealed = None if data is None else unseal(data)[0]
        except Damaged:
            sealed = None
            self._count("corrupt")
        if data is None or sealed is None or sealed.meta[:3] != (name.model, name.salt, name.key):
            return None
        if sealed.meta.size > self.max_bytes or sealed.stored_size > sealed.meta.size:
            return None  # a header is believed no further than that
        begin, room = data, memoryview(bytearray(sealed.meta.size))
        size = sealed.meta.size
        await self._bytes.take(size)
        try:
            is_whole = await self.reading.call(
                lambda: self._body(path, sealed, begin, room), timeout_s=self._patience_s(size)
            )
        finally:
            self._bytes.give(size)
        if not is_whole:
            self._count("corrupt")
            return None
        return sealed.meta._replace(checksum=sealed.plain_checksum), room

    async def archived(self, name: Name | Meta) -> list[int]:
        """The versions that are kept, the oldest first; VERSIONS_MAX at most. TierFailed."""
        versions: list[int] = []
        pages = self.bucket.pages(f"archive/{digest(name)}")
        while (page := await self.reading.call(lambda: anext(pages, None), retry=False)) is not None:
            versions += [int(word) for each in page if (word := each.path.rpartition("/")[2]).isdecimal()]
            if len(versions) >= VERSIONS_MAX:
                break
        return sorted(versions)

    async def discard(self, name: Name | Meta, versions: Sequence[int]) -> bool:
        """Forgets versions; False: it could not be asked."""
        if self._is_closing:
            return False
        return await self._settled(self._remove([archive_path(name, version) for version in versions]))

    async def url(self, name: Name | Meta, seconds: int) -> str | None:
        """A URL that anybody may GET the object from, for so long; None: there is no such block.

        The object is a header and then the payload: `envelope.unseal` and `Packer.unpack` read them. Unavailable: a
        directory has no URLs, or the storage can't be asked.
        """
        if self.bucket.folder is not None:
            return await self.bucket.sign("", 1)
        if self._is_closing:
            raise Unavailable("the tier is closed")
        if not 0 < seconds <= URL_S_MAX:
            raise ValueError(f"a URL lives from 1 to {URL_S_MAX} seconds")
        try:
            if await self._header(name) is None:
                return None
            return await self.reading.call(lambda: self.bucket.sign(path_of(name), seconds))
        except TierFailed as error:
            raise Unavailable(str(error)) from None

    # ---- figures ----------------------------------------------------------------------------------------------------

    def stats(self) -> TierStats:
        """Figures of this moment; blocks and bytes as far as this node knows them."""
        failing = [guard for guard in (self.reading, self.writing) if guard.state != "closed"]
        state = "closed" if self._is_closed else "failing" if failing else "ok"
        error = next((guard.last_error for guard in failing), "") or self.reading.last_error or self.writing.last_error
        more: dict[str, int | str] = {
            "breaker": self.reading.state, "write_breaker": self.writing.state,
            "breaker_opens": self.reading.opens + self.writing.opens,
            "retries": self.reading.retries + self.writing.retries,
            "failures": self.reading.failures_total + self.writing.failures_total,
            "requests": self._requests.taken, "sent_bytes": self.sent_bytes, "sent_plain_bytes": self.sent_plain_bytes,
            **{name: self.counts[name] for name in ("unchanged", "expired", "archived")},
        }  # fmt: skip
        return TierStats(
            self.name, state=state, error=error, blocks=self.blocks, bytes=self.plain_bytes, write=self.write,
            read=self.read, misses=self.counts["misses"], corrupt=self.counts["corrupt"],
            deleted=self.counts["deleted"], queue_bytes=self._bytes.taken, more=more,
        )  # fmt: skip


# ---- names and headers ---------------------------------------------------------------------------------------------


def path_of(name: Name | Meta) -> str:
    """Where a block lies."""
    digits = digest(name)
    return f"blocks/{digits[:2]}/{digits[2:]}"


def archive_path(name: Name | Meta, version: int) -> str:
    """Where a version of it does."""
    return f"archive/{digest(name)}/{version:d}"


def _header_guess(name: Name | Meta) -> int:
    """At least as many bytes as the header has, unless the block's group has a long name."""
    group = name.group if isinstance(name, Meta) else b""
    return HEADER_GUESS + len(name.model) + len(name.salt) + len(name.key) + len(group)


def _header_size(data: memoryview) -> int:
    """Bytes of the header that begins with these; 0: they begin none."""
    if len(data) < PREFIX.size:
        return 0
    size = PREFIX.size + int(PREFIX.unpack_from(data)[2]) + 4
    return size if size <= HEADER_MAX else 0


def _is_past(meta: Meta | None, now_s: float) -> bool:
    return meta is not None and 0 < meta.deadline <= now_s


async def _together(work: Any) -> list[Any]:
    """Their results. Where one fails the others are ended, and waited for, before that is told."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
