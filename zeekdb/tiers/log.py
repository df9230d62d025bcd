"""The SSD tier's appending end: batches of records, made safe together, and what happens when the device fails.

One append runs at a time (`lock`), so the order of records in the files is the order in which they were handed over: a
tombstone stands after every record that it is about, and a copy made by cleaning before every tombstone that came after
it was asked for. Within an append the records are written by several threads, in runs; then one fdatasync covers all.

After a failure the log is `failing`. What the failed batch has left beyond the segment's safe end is cut off, and the
segment is given up unless the device was just full: after a sync has failed nobody knows what the kernel still has of
the file. Then a probe is tried with growing pauses, which is a record as any other; it carries the tombstones that
could not be written meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from zeekdb.tiers.record import (
    BODY_MAX,
    GRID,
    NUMBER_MAX,
    Kind,
    header_pages,
    pack_block,
    pack_body,
    pages_of,
    place_of,
)
from zeekdb.tiers.segment import Segment, SegmentFiles
from zeekdb.tiers.tier import Meta
from zeekdb.tiers.transfer import RUN_BYTES_MAX, RUN_RECORDS_MAX, is_aligned, layout, write_all

logger = logging.getLogger(__name__)

WRITE_THREADS: Final = 2
DELETES_PENDING_MAX: Final = 100_000  # tombstones kept while the device fails; the oldest go first
NAMES_BYTES: Final = BODY_MAX - 64  # of a record of tombstones

Name = tuple[bytes, bytes, bytes]  # model, salt, key
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Append:
    """A record on its way: a block, or the names of deleted ones."""

    meta: Meta | None
    data: memoryview
    names: Sequence[Name] = ()
    place: int | None = None  # once it is safe

    @property
    def size(self) -> int:
        """Bytes in the file, about."""
        return 2 * GRID + self.data.nbytes

    def body(self, batch: int) -> bytes:
        """Of its header."""
        if self.meta is None:
            return pack_body(Kind.TOMBSTONES, batch, 0, *self.names)
        return pack_block(batch, self.meta)


def tombstones(names: Sequence[Name]) -> list[Append]:
    """As few records as hold the names."""
    groups: list[list[Name]] = [[]]
    room = NAMES_BYTES
    for name in names:
        size = 16 + sum(map(len, name))
        if size > room:
            groups.append([])
            room = NAMES_BYTES
        groups[-1].append(name)
        room -= size
    return [Append(None, memoryview(b""), group) for group in groups if group]


@dataclass(eq=False, slots=True)
class Run:
    """Adjacent records that one thread writes with one system call."""

    page: int
    is_direct: bool
    records: list[tuple[int, bytes, memoryview]]  # page, body, data
    bytes: int = 0


class Log:
    """The segments, the youngest of which is appended to."""

    def __init__(
        self,
        files: SegmentFiles,
        segment_bytes: int,
        is_direct: bool,
        retry_s: tuple[float, float],
        healed: Callable[[], None],
    ) -> None:
        self.files = files
        self.segment_bytes = segment_bytes
        self.is_direct = is_direct
        self.segments: dict[int, Segment] = {}  # oldest first
        self.active: Segment | None = None
        self.used_bytes = 0
        self.lock = asyncio.Lock()
        self.state = "ok"
        self.error = ""
        self.next_number = 1
        self.names_pending: list[Name] = []
        self._retry_first_s, self._retry_most_s = retry_s
        self._retry_s = self._retry_first_s
        self._healed = healed
        self._healing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._threads = ThreadPoolExecutor(WRITE_THREADS, "zeekdb-ssd-write")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """In a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    # ---- what is live ----------------------------------------------------------------------------------------------

    def count(self, place: int, size: int, sign: int = 1) -> None:
        """A block is live from now on, or, with sign -1, no longer."""
        segment = self.segments.get(place >> 36)
        if segment is not None:
            segment.live_blocks = max(segment.live_blocks + sign, 0)
            segment.live_bytes = max(segment.live_bytes + sign * size, 0)

    # ---- appending -------------------------------------------------------------------------------------------------

    async def append(self, appends: Sequence[Append]) -> None:
        """Write the records and make them safe; under the lock. OSError: those whose place is None are not safe."""
        rest = list(appends)
        while rest:
            segment = self.active or await self._begin()
            count, size = 0, segment.end
            while count < len(rest) and (size + rest[count].size <= self.segment_bytes or size == GRID):
                size += rest[count].size
                count += 1
            if count:
                await self._write(segment, rest[:count])
                rest = rest[count:]
            else:
                await self.finish()
        self._retry_s = self._retry_first_s

    async def _begin(self) -> Segment:
        if self.next_number > NUMBER_MAX:
            raise OSError(errno.EOVERFLOW, "out of segment numbers")
        segment = await self.run(self.files.create, self.next_number)
        self.next_number += 1
        self.active = self.segments[segment.number] = segment
        self.used_bytes += segment.end
        return segment

    async def finish(self) -> None:
        """Nothing more goes into the youngest segment; under the lock."""
        segment, self.active = self.active, None
        if segment is None:
            return
        before = segment.end
        with contextlib.suppress(OSError):  # it does without a summary
            segment.end = await self.run(self.files.finish, segment)
        self.used_bytes += segment.end - before
        segment.written = []
        segment.is_finished = True

    async def _write(self, segment: Segment, appends: list[Append]) -> None:
        runs: list[Run] = []
        batch, page = segment.batch + 1, segment.end // GRID
        written, places = [], []
        for append in appends:
            body = append.body(batch)
            count = header_pages(body)
            is_direct = self.is_direct and is_aligned(append.data)
            run = runs[-1] if runs else None
            full = run is None or run.bytes + append.data.nbytes > RUN_BYTES_MAX or len(run.records) >= RUN_RECORDS_MAX
            if run is None or full or run.is_direct != is_direct:
                run = Run(page, is_direct, [])
                runs.append(run)
            run.records.append((page, body, append.data))
            run.bytes += append.data.nbytes
            written.append((page, body))
            places.append(place_of(segment.number, page, count))
            page += count + pages_of(append.data.nbytes)
        growth = page * GRID - segment.end
        self.used_bytes += growth
        try:
            tasks = (self.run(self._write_run, segment, run) for run in runs)
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):  # all have ended, whatever happened
                if outcome is not None:
                    raise outcome
            await self.run(self._sync, segment)
        except BaseException:
            self.used_bytes -= growth
            raise
        segment.batch, segment.end = batch, page * GRID
        segment.written += written
        for append, place in zip(appends, places, strict=True):
            append.place = place
            if append.meta is not None:
                self.count(place, append.meta.size)

    def _write_run(self, segment: Segment, run: Run) -> None:
        scratch, headers, buffers = layout([(header_pages(body), data) for _, body, data in run.records])
        seed = self.files.seed(segment)
        for (page, body, data), at in zip(run.records, headers, strict=True):
            seed.write(scratch, at, page, body)
            if tail := data.nbytes % GRID:
                begin = at + header_pages(body) * GRID
                scratch[begin : begin + tail] = data[-tail:]
        if run.is_direct:
            try:
                with self.files.files.use(segment.path, direct=True, writable=True) as fd:
                    return write_all(self.files.device, fd, buffers, run.page * GRID)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self.is_direct = False  # the file system knows no direct I/O, or not with this grid
        with self.files.files.use(segment.path, direct=False, writable=True) as fd:
            return write_all(self.files.device, fd, buffers, run.page * GRID)

    def _sync(self, segment: Segment) -> None:
        with self.files.files.use(segment.path, direct=self.is_direct, writable=True) as fd:
            self.files.device.fdatasync(fd)

    # ---- failing and healing ---------------------------------------------------------------------------------------

    def fail(self, error: OSError) -> None:
        """The device has refused something."""
        self.error = error.strerror or str(error)
        if self.state != "ok":
            return
        logger.warning("The SSD tier in %s cannot write: %s", self.files.folder, self.error)
        self.state = "failing"
        self._healing = asyncio.get_running_loop().create_task(self._heal(error.errno == errno.ENOSPC))

    def keep_names(self, names: Sequence[Name]) -> None:
        """Of blocks whose tombstones could not be written."""
        self.names_pending += names
        del self.names_pending[:-DELETES_PENDING_MAX]

    async def _heal(self, is_full: bool) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._retry_s)
                return
            self._retry_s = min(self._retry_s * 2, self._retry_most_s)
            pause_s = self._retry_s
            async with self.lock:
                try:
                    await self._repair(is_full)
                except OSError as error:
                    self.error = error.strerror or str(error)
                    is_full = is_full and error.errno == errno.ENOSPC
                    continue
            self._retry_s = pause_s  # until a batch of the region's own has gone through: a probe needs little room
            self.state = "ok"
            logger.warning("The SSD tier in %s writes again", self.files.folder)
            self._healed()
            return

    async def _repair(self, is_full: bool) -> None:
        if self.active is not None:
            with contextlib.suppress(OSError):
                await self.run(self.files.cut, self.active)
            if not is_full:
                self.active.is_finished = True
                self.active.written = []
                self.active = None
        names, self.names_pending = self.names_pending, []
        try:
            await self.append(tombstones(names) or [Append(None, memoryview(b""))])
        except OSError:
            self.keep_names(names)
            raise

    # ---- the end ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Finish the youngest segment and let go of all."""
        self._closing.set()
        if self._healing is not None:
            await self._healing
        async with self.lock:
            if self.state == "ok":
                await self.finish()
        await self.run(self.files.files.forget)
        self._threads.shutdown()
        self.state = "closed"
