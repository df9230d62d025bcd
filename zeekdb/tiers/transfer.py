"""Bytes between the caller's memory and a file, without a copy; what runs in the tiers' threads.

Direct I/O takes memory and lengths that lie on the device's grid. A block's whole pages go straight from or into the
caller's view. Its last bytes, when they fill no page, and the headers go through scratch pages, so at most 4,095 bytes
of a block are copied. In the file, the last page of a record is followed by the header of the next, and so it is in
scratch: a run of records is one system call.

    scratch   [header 0][tail 0, header 1]        [tail 1]
    file      [header 0]  pages of block 0  [tail 0][header 1]  pages of block 1  [tail 1]
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import Final

import numpy as np

from zeekdb.tiers.record import GRID

ALIGNED: Final = 512  # bytes; what direct I/O asks of an address
RUN_BYTES_MAX: Final = 4 << 20  # a run is a job of one thread; a larger record goes alone
RUN_RECORDS_MAX: Final = 256  # two buffers each, and the system takes 1,024
FILES_OPEN_MAX: Final = 128
SCRATCH_PAGES_MAX: Final = 64  # kept by each thread; larger runs map their own


class Device:
    """The system calls, all of them: tests put one in its place that fails.

    How to write was measured on ext4 on a virtual disk, blocks of 4 MiB, one to four threads, GB/s: O_DIRECT and one
    fdatasync at the end 2.6 to 3.4, buffered and the same 0.9 to 2.4, O_DIRECT | O_DSYNC 1.0 to 2.8, an fdatasync per
    block 1.0 to 3.1 (direct) and 0.3 to 0.7 (buffered). With an fdatasync per 64 MiB direct writes made 1.4 to 2.6, and
    extending or preallocating the file before them no difference that could be seen in that noise. Hence: direct, and
    one fdatasync per batch.
    """

    def open(self, path: str, flags: int) -> int:
        """A descriptor."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, fd: int) -> None:
        """Let go."""
        os.close(fd)

    def size(self, path: str) -> int:
        """Bytes."""
        return os.stat(path).st_size

    def pwritev(self, fd: int, buffers: Sequence[memoryview], at: int) -> int:
        """How many bytes were written."""
        return os.pwritev(fd, buffers, at)

    def preadv(self, fd: int, buffers: Sequence[memoryview], at: int) -> int:
        """How many bytes were read."""
        return os.preadv(fd, buffers, at)

    def fdatasync(self, fd: int) -> None:
        """What was written survives a power failure."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut."""
        os.ftruncate(fd, size)

    def unlink(self, path: str) -> None:
        """Remove."""
        os.unlink(path)

    def sync_folder(self, path: str) -> None:
        """The folder's names survive a power failure."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class OpenFiles:
    """Descriptors of files that were used lately, FILES_OPEN_MAX of them; safe in threads."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, bool, bool], list[int]] = OrderedDict()  # [descriptor, users]

    @contextlib.contextmanager
    def use(self, path: str, direct: bool, writable: bool = False) -> Iterator[int]:
        """A descriptor while the block runs. OSError."""
        key = (path, direct, writable)
        with self._lock:
            entry = self._open.get(key)
            if entry is None:
                flags = (os.O_RDWR if writable else os.O_RDONLY) | (os.O_DIRECT if direct else 0)
                entry = self._open[key] = [self.device.open(path, flags), 0]
            self._open.move_to_end(key)
            entry[1] += 1
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1
                self._trim(FILES_OPEN_MAX)

    def _trim(self, most: int) -> None:
        if len(self._open) <= most:
            return
        for key in [key for key, (_, users) in self._open.items() if not users][: len(self._open) - most]:
            self.device.close(self._open.pop(key)[0])

    def forget(self, path: str | None = None) -> None:
        """Close what is open of a file that nobody uses any more, or of all."""
        with self._lock:
            for key in [key for key, (_, users) in self._open.items() if path in (None, key[0]) and not users]:
                self.device.close(self._open.pop(key)[0])


def is_aligned(view: memoryview) -> bool:
    """Whether direct I/O can use the view's whole pages."""
    if view.nbytes < GRID:
        return True  # it has none
    address: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return address % ALIGNED == 0


def pages(count: int) -> memoryview:
    """Zeroed memory on the grid."""
    return memoryview(mmap(-1, max(count, 1) * GRID))


_local = threading.local()


def _scratch(count: int) -> memoryview:
    """Zeroed pages, this thread's until it asks again. A mapping for each run waits while the arena is faulted in."""
    if count > SCRATCH_PAGES_MAX:
        return pages(count)
    kept: memoryview | None = getattr(_local, "scratch", None)
    if kept is None:
        kept = _local.scratch = pages(SCRATCH_PAGES_MAX)
    part = kept[: max(count, 1) * GRID]
    part[:] = bytes(part.nbytes)
    return part


def layout(records: Sequence[tuple[int, memoryview]]) -> tuple[memoryview, list[int], list[memoryview]]:
    """(scratch, where each header begins in it, the buffers in the order of the file) of adjacent records.

    A record is (pages of its header, data). Its tail follows its header in scratch, which is the thread's until it
    calls again.
    """
    scratch = _scratch(sum(count + (data.nbytes % GRID > 0) for count, data in records))
    headers, buffers, begin, at = [], [], 0, 0
    for count, data in records:
        headers.append(at)
        at += count * GRID
        if whole := data.nbytes - data.nbytes % GRID:
            buffers += [scratch[begin:at], data[:whole]]
            begin = at
        at += GRID * (data.nbytes % GRID > 0)
    if at > begin:
        buffers.append(scratch[begin:at])
    return scratch, headers, buffers


def _rest(buffers: list[memoryview], done: int) -> list[memoryview]:
    for index, buffer in enumerate(buffers):
        if done < buffer.nbytes:
            return [buffer[done:], *buffers[index + 1 :]]
        done -= buffer.nbytes
    return []


def write_all(device: Device, fd: int, buffers: list[memoryview], at: int) -> None:
    """Every byte. OSError."""
    while buffers:
        done = device.pwritev(fd, buffers, at)
        if done <= 0:
            raise OSError(5, "nothing was written")
        buffers, at = _rest(buffers, done), at + done


def read_all(device: Device, fd: int, buffers: list[memoryview], at: int) -> int:
    """As many bytes as the file has. OSError."""
    begin = at
    while buffers:
        done = device.preadv(fd, buffers, at)
        at += done
        if done <= 0 or done % GRID:  # the end of the file
            break
        buffers = _rest(buffers, done)
    return at - begin
