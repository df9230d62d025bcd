"""The SSD tier: blocks in a directory of segments that are only appended to; see record, segment, log, cleaning.

Why a log: a device writes large and in sequence several times faster than small and all over the place, and wears
less; a record that is never overwritten cannot be torn by a crash after it was confirmed; and what is oldest lies
together, so that the size limit is kept by removing files. A file per block was rejected (a directory entry, an inode
and a sync for each), and so was one preallocated file with a bitmap: random writes, and a second truth beside the data.

    put       queue → batch → several threads write runs of records from the callers' views → one fdatasync → places
    get       a thread per run of adjacent records reads straight into the callers' views, then compares checksums
    delete    a tombstone; goes through the same queue
    scan      the headers, newest segment first: the first record of a block that is met is its last one

What is bounded: bytes that wait to be written (WRITE_QUEUE_BYTES; `put` waits), bytes written between two syncs
(BATCH_BYTES, BATCH_RECORDS), reads under way (READ_RUNS_MAX; `get` waits), threads, open files, and the device's space.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Final, TypeVar

from zeekdb.errors import Unavailable
from zeekdb.tiers.cleaning import Cleaner
from zeekdb.tiers.log import Append, Log, Name, tombstones
from zeekdb.tiers.record import (
    BODY_MAX,
    GRID,
    NUMBER_MAX,
    Kind,
    Record,
    header_pages,
    pack_block,
    pages_of,
    place_of,
    split_place,
)
from zeekdb.tiers.segment import Segment, SegmentFiles, file_name, numbers
from zeekdb.tiers.tier import Budget, Checksum, Flow, Get, Held, Owner, Put, Tier, TierStats, settle
from zeekdb.tiers.transfer import RUN_BYTES_MAX, RUN_RECORDS_MAX, Device, OpenFiles, is_aligned, layout, read_all

logger = logging.getLogger(__name__)

MIB: Final = 1 << 20
SEGMENT_BYTES: Final = 256 * MIB
SEGMENTS_LEAST: Final = 4  # that the limit has room for
WRITE_QUEUE_BYTES: Final = 256 * MIB
BATCH_BYTES: Final = 64 * MIB
BATCH_RECORDS: Final = 256  # the loop plans a batch in one go, about 2 ms for so many
READ_THREADS: Final = 4
READ_RUNS_MAX: Final = 64
SCAN_AHEAD: Final = 2  # segments whose headers are being read; it is Python's work, and more threads take longer for it
BATCH_MAX: Final = (1 << 31) - 1  # what a batch's number may grow to, for the size of a header
SMALL_NAMES_BYTES: Final = 1024  # with names of so many bytes a header surely fits a page
LOCK_FILE: Final = "LOCK"


T = TypeVar("T")


class Verdict(Enum):
    """What became of a read."""

    OK = 0
    ABSENT = 1
    CORRUPT = 2
    FAILED = 3


class ReadRun:
    """Adjacent records that one thread reads with one system call."""

    __slots__ = ("bytes", "end", "indices", "is_direct", "items", "page", "segment")

    def __init__(self, segment: Segment, page: int, is_direct: bool) -> None:
        self.segment = segment
        self.page = self.end = page
        self.is_direct = is_direct
        self.items: list[Get] = []
        self.indices: list[int] = []
        self.bytes = 0

    def add(self, index: int, item: Get) -> None:
        """The record that begins where the run ends."""
        _, page, pages = split_place(item.place)
        self.items.append(item)
        self.indices.append(index)
        self.end = page + pages + pages_of(item.meta.size)
        self.bytes += item.meta.size


class SsdTier(Tier):
    """See the module. `limit_bytes` bounds the files, plus at most one segment."""

    name = "ssd"

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        owner: Owner,
        checksum: Checksum,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        is_direct: bool = True,
        device: Device | None = None,
        clock: Callable[[], float] = time.time,
        retry_s: tuple[float, float] = (0.1, 10.0),
    ) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.segment_bytes = min(segment_bytes, limit_bytes // SEGMENTS_LEAST) // GRID * GRID
        if self.segment_bytes < 4 * GRID:
            raise ValueError(f"an SSD tier takes at least {SEGMENTS_LEAST * 4 * GRID} bytes")
        self.clock = clock
        self.checksum = checksum
        self.device = device or Device()
        self.files = SegmentFiles(self.device, folder, OpenFiles(self.device), checksum, is_direct)
        self.log = Log(self.files, self.segment_bytes, is_direct, retry_s, self._healed)
        self.cleaner = Cleaner(self.log, owner, self.get_quietly, self._now, limit_bytes)
        self.write, self.read = Flow(), Flow()
        self.misses = self.corrupt = self.deleted = 0
        self._queue: deque[tuple[Append, asyncio.Future[int | None]]] = deque()
        self._queued = Budget(WRITE_QUEUE_BYTES)
        self._reading = Budget(READ_RUNS_MAX)
        self._wake = asyncio.Event()
        self._is_closing = False
        self._is_closed = True
        self._writer: asyncio.Task[None] | None = None
        self._lock_fd = -1
        self._threads = ThreadPoolExecutor(READ_THREADS, "zeekdb-ssd-read")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """In a reading thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _now(self) -> int:
        return int(self.clock())

    # ---- beginning and end -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the directory. Unavailable: it cannot be read, or another process has it."""
        try:
            await self.run(self._open)
        except OSError as error:
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1
            reason = "another process uses it" if isinstance(error, BlockingIOError) else error.strerror or str(error)
            raise Unavailable(f"no SSD tier in {self.folder}: {reason}") from error
        self._is_closed = False
        self.cleaner.is_ready = not self.log.segments
        self._writer = asyncio.get_running_loop().create_task(self._write_forever())

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / LOCK_FILE
        try:
            self._lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            self._lock_fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)  # a folder that may only be read
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for number in numbers(self.folder):
            if not 0 < number <= NUMBER_MAX:
                continue
            path = str(self.folder / file_name(number))
            self.log.segments[number] = Segment(number, path, self.device.size(path))
            self.log.next_number = number + 1
        self.log.used_bytes = sum(segment.end for segment in self.log.segments.values())
        self.files.find_nonce(list(self.log.segments.values()), self._lock_fd)

    async def close(self) -> None:
        """Write what is queued, finish the segment, give the directory back."""
        if self._is_closed or self._is_closing:
            return
        self._is_closing = True
        self._wake.set()
        self.cleaner.stop()
        if self._writer is not None:
            await self._writer
        await self.cleaner.wait()
        for segment in self.log.segments.values():
            await segment.wait_unused()
        await self.log.close()
        self._threads.shutdown()
        os.close(self._lock_fd)
        self._lock_fd = -1
        self._is_closed = True

    async def scan(self) -> AsyncIterator[list[Held]]:
        """Every live block, a list per segment, the newest segment first.

        Who is met twice has been put twice, or moved by a cleaning whose end the crash has prevented: the later counts.
        Of each block 64 bits are kept meanwhile; that two of a million are taken for one is a chance of 3 in 10^8, and
        costs a miss.
        """
        met: set[int] = set()
        waiting = list(self.log.segments.values())
        ahead: deque[tuple[Segment, asyncio.Future[list[Record]]]] = deque()
        while waiting or ahead:
            while waiting and len(ahead) < SCAN_AHEAD:
                segment = waiting.pop()
                ahead.append((segment, asyncio.ensure_future(self.run(self.files.recover, segment))))
            segment, reading = ahead.popleft()
            try:
                records = await reading
            except OSError as error:
                logger.warning("The SSD tier cannot read %s: %s", segment.path, error)
                segment.is_doubtful = True
                continue
            live = await self.run(self._live, segment, records, met)
            if live:
                yield live
        self.log.used_bytes = sum(segment.end for segment in self.log.segments.values())
        self.cleaner.is_ready = True
        self.cleaner.begin()

    def _live(self, segment: Segment, records: list[Record], met: set[int]) -> list[Held]:
        live: list[Held] = []
        now = self._now()
        for record in reversed(records):
            if record.kind == Kind.TOMBSTONES:
                met.update(hash(tuple(name)) for name in record.fields)
                continue
            meta = record.meta
            name = hash((meta.model, meta.salt, meta.key))
            if name in met:
                continue
            met.add(name)
            if not meta.deadline or meta.deadline > now:
                live.append(Held(meta, place_of(segment.number, record.page, record.pages)))
        segment.live_blocks, segment.live_bytes = len(live), sum(held.meta.size for held in live)
        return live

    # ---- writing ---------------------------------------------------------------------------------------------------

    def _takes(self, item: Put) -> bool:
        if item.data.nbytes != item.meta.size:
            raise ValueError(f"{item.data.nbytes} bytes for a block of {item.meta.size}")
        if not self._is_writable():
            return False
        meta, count = item.meta, 1
        if len(meta.model) + len(meta.salt) + len(meta.key) + len(meta.group) + len(meta.codec) > SMALL_NAMES_BYTES:
            body = pack_block(BATCH_MAX, meta)
            count = header_pages(body)
            if len(body) > BODY_MAX:
                return False
        return (2 + count) * GRID + meta.size <= self.segment_bytes

    def _is_writable(self) -> bool:
        return self.log.state == "ok" and not self._is_closing and not self._is_closed

    async def put(self, items: Sequence[Put]) -> list[int | None]:
        """The places once the blocks are on the device; waits while WRITE_QUEUE_BYTES wait to be written."""
        work = asyncio.ensure_future(self._put(items))
        try:
            return await settle(work)
        finally:  # whoever called runs on before anything else does, and knows the places then
            if not work.cancelled() and work.exception() is None:
                self._report(work.result())

    def _report(self, places: list[int | None]) -> None:
        for place in places:
            segment = self.log.segments.get(place >> 36) if place is not None else None
            if segment is not None:
                segment.unreported -= 1
        self.cleaner.begin()

    async def _put(self, items: Sequence[Put]) -> list[int | None]:
        began_ns = time.perf_counter_ns()
        taken = [self._takes(item) for item in items]
        waits: list[asyncio.Future[int | None] | None] = []
        for item, is_taken in zip(items, taken, strict=True):
            waits.append(await self._enqueue(Append(item.meta, item.data.cast("B"))) if is_taken else None)
            if len(waits) % BATCH_RECORDS == 0:
                await asyncio.sleep(0)  # the loop has others to serve
        places = [await wait if wait is not None else None for wait in waits]
        took_ns = time.perf_counter_ns() - began_ns
        for item, place in zip(items, places, strict=True):
            if place is None:
                self.write.errors += 1
            else:
                self.write.record(item.meta.size, took_ns)
        return places

    async def _enqueue(self, append: Append) -> asyncio.Future[int | None]:
        await self._queued.take(append.size)
        done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        if self._is_closing:  # the writer may have gone
            self._queued.give(append.size)
            done.set_result(None)
            return done
        self._queue.append((append, done))
        self._wake.set()
        return done

    async def _write_forever(self) -> None:
        while self._queue or not self._is_closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch: list[tuple[Append, asyncio.Future[int | None]]] = []
            size = 0
            most = min(BATCH_BYTES, self.segment_bytes)
            while self._queue and len(batch) < BATCH_RECORDS and (not batch or size + self._queue[0][0].size <= most):
                batch.append(self._queue.popleft())
                size += batch[-1][0].size
            await self._write_batch(batch, size)

    async def _write_batch(self, batch: list[tuple[Append, asyncio.Future[int | None]]], size: int) -> None:
        bug: Exception | None = None
        appends = [append for append, _ in batch]
        try:
            if any(append.meta is not None for append in appends) and not await self.cleaner.wait_for_room(size):
                appends = [append for append in appends if append.meta is None]  # deletions need no room to speak of
            async with self.log.lock:
                if self.log.state == "ok":
                    await self.log.append(appends)
        except OSError as error:
            self.log.fail(error)
        except Exception as error:
            logger.exception("A batch of the SSD tier")
            bug = error
        self._queued.give(size)
        for append, _ in batch:
            if append.place is not None and append.meta is not None:
                self.log.segments[append.place >> 36].unreported += 1
        for append, done in batch:
            if bug is not None:
                done.set_exception(bug)
            else:
                done.set_result(append.place)
        self.cleaner.begin()

    def _healed(self) -> None:
        self.cleaner.begin()

    async def delete(self, items: Sequence[Held]) -> list[bool]:
        """Tombstones; a block whose segment is gone needs none. While the device fails they wait for it to heal."""
        names: list[Name] = []
        for meta, place in items:
            if place >> 36 in self.log.segments:
                names.append((meta.model, meta.salt, meta.key))
                self.log.count(place, meta.size, -1)
        if self._is_closing or self._is_closed:
            return [False] * len(items)
        self.deleted += len(items)
        safe = not names or await settle(asyncio.ensure_future(self._bury(names)))
        self.cleaner.begin()
        return [safe] * len(items)

    async def _bury(self, names: list[Name]) -> bool:
        appends = tombstones(names)
        if self._is_writable():
            waits = [await self._enqueue(append) for append in appends]
            for wait in waits:
                await wait
        lost = [append for append in appends if append.place is None]
        for append in lost:
            self.log.keep_names(append.names)
        return not lost

    # ---- reading ---------------------------------------------------------------------------------------------------

    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        """Fill the views; a block that is adjacent to another in the file is read together with it."""
        began_ns = time.perf_counter_ns()
        verdicts = await self._verdicts(items)
        took_ns = time.perf_counter_ns() - began_ns
        for item, verdict in zip(items, verdicts, strict=True):
            if verdict is Verdict.OK:
                self.read.record(item.meta.size, took_ns)
            elif verdict is Verdict.FAILED:
                self.read.errors += 1
            else:
                self.misses += 1
                self.corrupt += verdict is Verdict.CORRUPT
        return [verdict is Verdict.OK for verdict in verdicts]

    async def get_quietly(self, items: Sequence[Get]) -> list[bool]:
        """`get` for the tier itself: nobody asked, so nothing is counted."""
        return [verdict is Verdict.OK for verdict in await self._verdicts(items)]

    async def _verdicts(self, items: Sequence[Get]) -> list[Verdict]:
        verdicts = [Verdict.ABSENT] * len(items)
        runs = [] if self._is_closing or self._is_closed else self._plan(items)
        if runs:
            await settle(asyncio.gather(*(self._read(run, verdicts) for run in runs)))
        return verdicts

    def _plan(self, items: Sequence[Get]) -> list[ReadRun]:
        runs: list[ReadRun] = []
        for index in sorted(range(len(items)), key=lambda index: items[index].place):
            item = items[index]
            if item.into.nbytes != item.meta.size:
                raise ValueError(f"{item.into.nbytes} bytes for a block of {item.meta.size}")
            number, page, _ = split_place(item.place)
            segment = self.log.segments.get(number)
            if segment is None or segment.is_retired or page * GRID >= segment.end:
                continue
            run = runs[-1] if runs else None
            is_direct = self.log.is_direct and is_aligned(item.into)
            if (
                run is None or run.segment is not segment or run.end != page or run.is_direct != is_direct
                or run.bytes + item.meta.size > RUN_BYTES_MAX or len(run.items) >= RUN_RECORDS_MAX
            ):  # fmt: skip
                run = ReadRun(segment, page, is_direct)
                runs.append(run)
                segment.users += 1
            run.add(index, item)
        return runs

    async def _read(self, run: ReadRun, verdicts: list[Verdict]) -> None:
        await self._reading.take(1)
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._threads, self._read_run, run)
            for index, verdict in zip(run.indices, found, strict=True):
                verdicts[index] = verdict
        finally:
            self._reading.give(1)
            run.segment.users -= 1
            if not run.segment.users:
                run.segment.unused.set()

    def _read_run(self, run: ReadRun) -> list[Verdict]:
        try:
            return self._read_items(run.segment, run.items, run.is_direct)
        except OSError:
            pass
        verdicts = []
        for item in run.items:  # one bad place, or a file system without direct I/O, costs the neighbours nothing
            try:
                verdicts += self._read_items(run.segment, [item], is_direct=False)
            except FileNotFoundError:
                verdicts.append(Verdict.ABSENT)
            except OSError as error:
                logger.warning("The SSD tier cannot read from %s: %s", run.segment.path, error)
                verdicts.append(Verdict.FAILED)
        return verdicts

    def _read_items(self, segment: Segment, items: Sequence[Get], is_direct: bool) -> list[Verdict]:
        """Records that follow each other. OSError."""
        begin = split_place(items[0].place)[1]
        views = [item.into.cast("B") for item in items]
        headers = [split_place(item.place)[2] for item in items]
        scratch, at, buffers = layout(list(zip(headers, views, strict=True)))
        with self.files.files.use(segment.path, direct=is_direct) as fd:
            got = read_all(self.device, fd, buffers, begin * GRID)
        seed = self.files.seed(segment)
        verdicts, page = [], begin
        for item, view, pages, header_at in zip(items, views, headers, at, strict=True):
            size = view.nbytes
            data_at = header_at + pages * GRID
            if tail := size % GRID:
                view[size - tail :] = scratch[data_at : data_at + tail]
            record = seed.read(scratch[header_at:data_at], page)
            is_read = (page - begin + pages) * GRID + size <= got
            verdicts.append(self._judge(record, item, view) if is_read else Verdict.ABSENT)
            page += pages + pages_of(size)
        return verdicts

    def _judge(self, record: Record | None, item: Get, view: memoryview) -> Verdict:
        if record is None or record.kind != Kind.BLOCK:
            return Verdict.CORRUPT
        found, wanted = record.meta, item.meta
        if (found.model, found.salt, found.key, found.size) != (wanted.model, wanted.salt, wanted.key, wanted.size):
            return Verdict.ABSENT
        is_same = found.checksum == wanted.checksum and self.checksum(view) == wanted.checksum
        return Verdict.OK if is_same else Verdict.CORRUPT

    async def contains(self, items: Sequence[Held]) -> list[bool]:
        """Whether the header is there and says what it should."""
        if self._is_closing or self._is_closed:
            return [False] * len(items)
        return await self.run(self._contains, list(items))

    def _contains(self, items: Sequence[Held]) -> list[bool]:
        found = []
        for meta, place in items:
            number, page, pages = split_place(place)
            segment, record = self.log.segments.get(number), None
            if segment is not None and not segment.is_retired:
                with contextlib.suppress(OSError):
                    record = self.files.header(segment, page, pages)
            is_block = record is not None and record.kind == Kind.BLOCK
            found.append(is_block and record is not None and record.meta[:5] == meta[:5])
        return found

    # ---- figures ---------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether it takes blocks now."""
        return not self._is_closed and self.log.state == "ok"

    @property
    def is_readable(self) -> bool:
        """Whatever the state of what is written."""
        return not self._is_closed

    def stats(self) -> TierStats:
        """Figures of this moment."""
        segments = self.log.segments.values()
        return TierStats(
            self.name,
            state="closed" if self._is_closed else self.log.state,
            error=self.log.error,
            blocks=sum(segment.live_blocks for segment in segments),
            bytes=sum(segment.live_bytes for segment in segments),
            used_bytes=self.log.used_bytes,
            limit_bytes=self.limit_bytes,
            write=self.write,
            read=self.read,
            misses=self.misses,
            corrupt=self.corrupt,
            deleted=self.deleted,
            dropped=self.cleaner.dropped,
            moved=self.cleaner.moved,
            queue_bytes=self._queued.taken,
            more={
                "segments": len(segments),
                "segment_bytes": self.segment_bytes,
                "cleaned_segments": self.cleaner.cleaned,
                "direct_io": int(self.log.is_direct),
                "deletes_pending": len(self.log.names_pending),
            },
        )
