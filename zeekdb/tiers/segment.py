"""A segment: a file of records that is only ever appended to. What runs in the SSD tier's threads.

The first page names the file: format, the directory's nonce, the segment's number. The lock file has a copy. A finished
segment ends with a summary of its headers and a trailer that points to it, so that a start reads one stretch per file.
Where they are missing (the process was killed) or damaged, the headers are read one by one, from each to where the next
must be. A header that is damaged is looked for again on every page after it: what follows is lost neither to a bad
sector nor to a hole that unordered writes have left.

Summary and trailer are not synced: without them a start is slower, not poorer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from zlib import crc32

import msgpack

from zeekdb.tiers.record import (
    FORMAT,
    GRID,
    HEADER_PAGES_MAX,
    MAGIC,
    Kind,
    Record,
    Seed,
    pack_body,
    pages_of,
    unpack_body,
)
from zeekdb.tiers.tier import Checksum
from zeekdb.tiers.transfer import Device, OpenFiles, layout, pages, read_all, write_all

SUFFIX: Final = ".seg"
SEARCH_PAGES: Final = 256  # read at once where headers are looked for
SMALL_PAGES: Final = 16  # reading over a record of fewer is quicker than another system call
NO_NONCE: Final = bytes(16)


@dataclass(eq=False)
class Segment:
    """What the tier knows of a file: no more than fits a line."""

    number: int
    path: str
    end: int = GRID  # bytes that are safe; what is beyond may be torn
    is_finished: bool = True  # nothing is appended any more
    is_retired: bool = False  # about to be removed
    is_doubtful: bool = False  # the device would not read all of it
    live_blocks: int = 0
    live_bytes: int = 0
    batch: int = 0
    unreported: int = 0  # blocks that were put here and whose places the region does not know yet
    failures: int = 0  # of reading its headers
    users: int = 0  # reads under way
    unused: asyncio.Event = field(default_factory=asyncio.Event)
    written: list[tuple[int, bytes]] = field(default_factory=list)  # page and body of what was appended, until finished

    async def wait_unused(self) -> None:
        """Until no read is under way."""
        while self.users:
            self.unused.clear()
            await self.unused.wait()


def file_name(number: int) -> str:
    """Of a segment."""
    return f"{number:010d}{SUFFIX}"


def numbers(folder: Path) -> list[int]:
    """The segments that are there, oldest first. OSError."""
    stems = (name.removesuffix(SUFFIX) for name in os.listdir(folder) if name.endswith(SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


class SegmentFiles:
    """Reads and writes of segments."""

    def __init__(self, device: Device, folder: Path, files: OpenFiles, checksum: Checksum, is_direct: bool) -> None:
        self.device = device
        self.folder = folder
        self.files = files
        self.checksum = checksum
        self.is_direct = is_direct
        self.nonce = NO_NONCE

    def seed(self, segment: Segment) -> Seed:
        """What the segment's headers are checked with."""
        return Seed(self.nonce, segment.number)

    def find_nonce(self, segments: Sequence[Segment], lock_fd: int) -> None:
        """From the first segment whose first page is whole, else from the copy in the lock file, else a new one.

        OSError: there may be one, and it cannot be read: with another everything would seem torn, and be cut off.
        """
        self.nonce = self._nonce_of_segments(segments) or self._nonce_of(memoryview(os.pread(lock_fd, GRID, 0)), 0)
        if not self.nonce:
            self.nonce = os.urandom(16)
        body = pack_body(Kind.SEGMENT, 0, 0, FORMAT, self.nonce, 0)
        page = pages(1)
        Seed(NO_NONCE, 0).write(page, 0, 0, body)
        with contextlib.suppress(OSError):  # a folder that may only be read, or a full one
            os.pwrite(lock_fd, page, 0)

    def _nonce_of(self, page: memoryview, number: int) -> bytes:
        """What a file's first page says; empty: nothing. OSError: it is of another format."""
        record = Seed(NO_NONCE, number).read(page, 0)
        if record is None or record.kind != Kind.SEGMENT:
            return b""
        if record.fields[0] != FORMAT:
            raise OSError(errno.EPROTONOSUPPORT, f"format {record.fields[0]} is not known here")
        nonce: bytes = record.fields[1]
        return nonce

    def _nonce_of_segments(self, segments: Sequence[Segment]) -> bytes:
        failure: OSError | None = None
        for segment in segments:
            try:
                page = self._read(segment, 0, 1)
            except OSError as error:
                failure = error
                continue
            if nonce := self._nonce_of(page, segment.number):
                return nonce
        if failure is not None:
            raise failure
        return b""

    def create(self, number: int) -> Segment:
        """A new file, whose name and first page are safe. OSError."""
        segment = Segment(number, str(self.folder / file_name(number)), is_finished=False)
        body = pack_body(Kind.SEGMENT, 0, 0, FORMAT, self.nonce, number)
        scratch, _, buffers = layout([(1, memoryview(b""))])
        Seed(NO_NONCE, number).write(scratch, 0, 0, body)
        fd = self.device.open(segment.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            write_all(self.device, fd, buffers, 0)
            self.device.fdatasync(fd)
        finally:
            self.device.close(fd)
        self.device.sync_folder(str(self.folder))
        return segment

    def finish(self, segment: Segment) -> int:
        """Write summary and trailer after the segment's records; the bytes that the file now has. OSError."""
        data = msgpack.packb([part for entry in segment.written for part in entry])
        page = segment.end // GRID
        summary = pack_body(Kind.SUMMARY, segment.batch, len(data), crc32(data))
        trailer = pack_body(Kind.TRAILER, segment.batch, 0, page)
        last = page + 1 + pages_of(len(data))
        scratch = pages(last + 1 - page)
        seed = self.seed(segment)
        seed.write(scratch, 0, page, summary)
        scratch[GRID : GRID + len(data)] = data
        seed.write(scratch, (last - page) * GRID, last, trailer)
        with self.files.use(segment.path, direct=False, writable=True) as fd:
            write_all(self.device, fd, [scratch], segment.end)
        return (last + 1) * GRID

    def cut(self, segment: Segment) -> None:
        """Remove what lies beyond the safe end. OSError."""
        with self.files.use(segment.path, direct=False, writable=True) as fd:
            self.device.truncate(fd, segment.end)
            self.device.fdatasync(fd)

    def remove(self, segment: Segment) -> None:
        """The file is gone for good: no older one may come back after a newer has gone. OSError."""
        self.files.forget(segment.path)
        with contextlib.suppress(FileNotFoundError):
            self.device.unlink(segment.path)
        self.device.sync_folder(str(self.folder))

    # ---- reading headers -------------------------------------------------------------------------------------------

    def records(self, segment: Segment) -> list[Record]:
        """BLOCK and TOMBSTONES records in the order of the file. OSError."""
        size = self.device.size(segment.path)
        found = self._summary(segment, size)
        return found if found is not None else list(self._walk(segment, size))

    def recover(self, segment: Segment) -> list[Record]:
        """The same, at start: a file that was not finished loses what is torn, and is finished. OSError.

        segment.end is then what the file has.
        """
        size = segment.end = self.device.size(segment.path)
        found = self._summary(segment, size)
        if found is not None:
            return found
        walked = list(self._walk(segment, size))
        last = max((record.batch for record in walked), default=0)
        whole = [record for record in walked if record.batch < last or self._is_whole(segment, record)]
        if not segment.is_doubtful:  # else there may be more than was found
            with contextlib.suppress(OSError):  # a folder that may only be read, or a full one: walked again next time
                self._finish_found(segment, whole)
        return whole

    def _finish_found(self, segment: Segment, found: list[Record]) -> None:
        segment.batch = max((record.batch for record in found), default=0)
        segment.end = max((record.end for record in found), default=1) * GRID
        for record in found:
            packed = pack_body(record.kind, record.batch, record.size, *record.fields)
            segment.written.append((record.page, packed))
        self.cut(segment)
        segment.end = self.finish(segment)
        segment.written = []

    def _read(self, segment: Segment, page: int, count: int) -> memoryview:
        """So many pages, fewer at the file's end. OSError."""
        into = pages(count)
        if self.is_direct:  # what is read once needs no place in the page cache
            try:
                with self.files.use(segment.path, direct=True) as fd:
                    return into[: read_all(self.device, fd, [into], page * GRID)]
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self.is_direct = False
        with self.files.use(segment.path, direct=False) as fd:
            return into[: read_all(self.device, fd, [into], page * GRID)]

    def _try_read(self, segment: Segment, page: int, count: int) -> memoryview:
        """The same; nothing where the device fails."""
        try:
            return self._read(segment, page, count)
        except OSError:
            segment.is_doubtful = True
            return memoryview(b"")

    def header(self, segment: Segment, page: int, count: int) -> Record | None:
        """The record that begins at this page. OSError."""
        return self.seed(segment).read(self._read(segment, page, count), page)

    def _summary(self, segment: Segment, size: int) -> list[Record] | None:
        """The records that the file's summary names; None: it has none, or a damaged one."""
        last = size // GRID - 1
        if size % GRID or last < 1:
            return None
        seed = self.seed(segment)
        trailer = seed.read(self._try_read(segment, last, 1), last)
        if trailer is None or trailer.kind != Kind.TRAILER:
            return None
        page = trailer.fields[0]
        data = self._try_read(segment, page, last - page)
        summary = seed.read(data, page)
        if summary is None or summary.kind != Kind.SUMMARY:
            return None
        packed = data[summary.pages * GRID :][: summary.size]
        if crc32(packed) != summary.fields[0]:
            return None
        entries = iter(msgpack.unpackb(packed))
        records = (unpack_body(body, page) for page, body in zip(entries, entries, strict=True))
        return [record for record in records if record is not None]

    def _walk(self, segment: Segment, size: int) -> Iterator[Record]:
        """Read the headers one by one; those of small records many at once, with what lies between them."""
        seed = self.seed(segment)
        page, last = 1, size // GRID
        window, window_page, ahead = memoryview(b""), 0, 1
        while page < last:
            if not window_page <= page < window_page + window.nbytes // GRID:
                window, window_page = self._try_read(segment, page, min(ahead, last - page)), page
            record = seed.read(window[(page - window_page) * GRID :], page)
            record = record or seed.read(self._header(segment, page), page)  # it may go on behind the window
            if record is None:
                page = self._search(segment, page + 1, last)
                continue
            if record.end > last:  # its data was never written
                page = self._search(segment, page + record.pages, last)
                continue
            if record.kind in (Kind.BLOCK, Kind.TOMBSTONES):
                yield record
            ahead = SEARCH_PAGES if record.end - page < SMALL_PAGES else 1
            page = record.end

    def _header(self, segment: Segment, page: int) -> memoryview:
        """What a header at this page would lie in: one page, more where it says so."""
        first = self._try_read(segment, page, 1)
        length = int.from_bytes(first[8:12], "little")
        count = min(pages_of(length + 12), HEADER_PAGES_MAX)
        return first if count <= 1 else self._try_read(segment, page, count)

    def _search(self, segment: Segment, page: int, last: int) -> int:
        """The next page that a whole header begins on; `last` where there is none."""
        seed = self.seed(segment)
        step = SEARCH_PAGES
        while page < last:
            chunk = self._try_read(segment, page, min(step, last - page))
            if not chunk and step > 1:
                step = 1  # page by page around what cannot be read
                continue
            for at in range(0, chunk.nbytes, GRID):
                here = page + at // GRID
                if bytes(chunk[at : at + len(MAGIC)]) == MAGIC and seed.read(self._header(segment, here), here):
                    return here
            page += step
        return last

    def _is_whole(self, segment: Segment, record: Record) -> bool:
        """Whether a record's data is what its header says."""
        if record.kind != Kind.BLOCK:
            return True
        data = self._try_read(segment, record.data_page, pages_of(record.size))
        return data.nbytes >= record.size and self.checksum(data[: record.size]) == record.meta.checksum


