"""Slots in the memory of a GPU: the arena's contract, and its twin in host memory.

An arena takes its memory once, as a few slabs, and cuts it into slots of one size. Slots are taken and given back on
the event loop; copies run on two threads, one for each direction, each with its own stream, and the loop hears of
their end.

*Copies.* The GPU's copy engines read and write page-locked host memory only. A host view that lies in memory which was
`register`ed (the host arena, once, at start) is copied from and to where it lies, at the speed of the bus. Anything
else goes through two pieces of page-locked staging memory: while one is on the bus, the processor fills or empties the
other, so the slower of the two sets the speed, usually one core's memcpy.

*Order.* Copies of one direction run as they were queued. A copy waits for those of the other direction that were queued
before it on the same slot, and for nothing else. A copy that waits only waits for older ones, so there is no circle.

*Danger.* Until its copy ends, a host view must not be reused and a slot must not be handed to another. So a slot that
is given back while copies are under way becomes free when the last of them ends, and a `Copy` cannot be cancelled: a
task that awaits one and is cancelled gets its CancelledError once the copy is over, milliseconds later.

`HostTwin` stands in for a GPU in tests and on machines without one; `tensors.device_cupy.CupyArena` is the real one.
Both are this class with another memory: they say how to allocate, copy, share, and nothing about threads, staging or
order. Rejected: one stream for both directions (half the bus), CUDA callbacks on the stream instead of threads (they
run Python on the driver's thread, which must not wait for the interpreter's lock), managed memory (it pages, and can
hang the GPU)."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zeekdb.errors import Unavailable

Bytes = npt.NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview | Bytes

SLOT_ALIGN: Final = 256  # bytes between the beginnings of slots are a multiple: what a GPU's own allocator keeps
SLAB_BYTES_MAX: Final = 1 << 30  # one allocation, and one IPC handle
SLOTS_MAX: Final = 1 << 24
STAGING_BYTES: Final = 4 << 20  # of one piece; there are PIECES in each direction
PIECES: Final = 2
IN_FLIGHT_MAX: Final = 8  # copies of registered memory on the bus at a time, so that it need not wait for our thread
NOWHERE: Final = (1 << 64) - 1  # in KV.LOOKUP's reply: the slab of a block that is in none
COPIES_MAX: Final = 256  # queued or under way in one direction


class ArenaBusy(Unavailable):
    """COPIES_MAX copies are waiting in this direction: keep the block where it is, try again later."""


class Place(NamedTuple):
    """What another process needs to see a slot: a slab's handle, and the slot's place in it."""

    handle: bytes
    offset: int
    size: int


def places_of(handles: list[bytes], located: bytes) -> list[Place | None]:
    """What KV.LOOKUP … LOCATE says of blocks on the device, by the slabs' handles of KV.ATTACH GPU; None: not there."""
    rows = np.frombuffer(located, "<u8").reshape(-1, 4).tolist()
    return [Place(handles[slab], offset, size) if slab != NOWHERE else None for slab, offset, size, _ in rows]


class Copy(asyncio.Future[None]):
    """One copy; done when the bytes have arrived. Fails with Unavailable if the device does."""

    def cancel(self, msg: Any = None) -> bool:
        """Refused: the buffers are in use until the copy has ended."""
        return False


@dataclass
class Job:
    """A copy on its way through a lane's thread."""

    upload: bool
    slot: int
    host: Bytes
    before: list[threading.Event]  # older copies of the other direction on the same slot
    copy: Copy
    ended: threading.Event = field(default_factory=threading.Event)


class Lane(ABC):
    """One direction's stream, used by one thread only. `slab` is what the arena's `_allocate` gave."""

    @abstractmethod
    def copy(self, slab: Any, offset: int, host: Bytes) -> Any:
        """Starts copying between a slab and page-locked host memory; the token is for `wait`."""

    @abstractmethod
    def wait(self, token: Any) -> None:
        """Returns when that copy, and all before it, have ended."""

    @abstractmethod
    def close(self) -> None:
        """Releases the stream."""


class DeviceArena(ABC):
    """`slots` slots of `slot_bytes` bytes. All methods belong to the event loop's thread."""

    def __init__(self, slots: int, slot_bytes: int, staging_bytes: int = STAGING_BYTES) -> None:
        if not (0 < slots <= SLOTS_MAX and 0 < slot_bytes <= SLAB_BYTES_MAX and staging_bytes > 0):
            raise ValueError(f"{slots} slots of {slot_bytes} bytes")
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.staging_bytes = min(staging_bytes, slot_bytes)
        self._stride = -(-slot_bytes // SLOT_ALIGN) * SLOT_ALIGN
        self._per_slab = max(1, min(slots, SLAB_BYTES_MAX // self._stride))
        self._free = list(range(slots - 1, -1, -1))
        self._taken: set[int] = set()
        self._leaving: set[int] = set()  # given back, with copies under way
        self._busy: dict[int, list[Job]] = {}  # by slot, oldest first
        self._registered: list[tuple[int, int]] = []  # addresses: begin, end
        self._pinned: list[tuple[int, int]] = []  # those of them that were page-locked here
        self._slabs: list[Any] = []
        self._lanes: dict[bool, _LaneThread] = {}  # by whether they upload
        self._closed = False
        try:
            for first in range(0, slots, self._per_slab):
                self._slabs.append(self._allocate(min(self._per_slab, slots - first) * self._stride))
            for upload in (True, False):
                self._lanes[upload] = _LaneThread(self, upload)
                self._lanes[upload].begin()
        except BaseException:
            self._release()
            raise

    # --- slots ---

    @property
    def free(self) -> int:
        """Slots that `take` can give."""
        return len(self._free)

    def take(self) -> int | None:
        """A slot with undefined content; None when all are taken."""
        self._check_open()
        if not self._free:
            return None
        slot = self._free.pop()
        self._taken.add(slot)
        return slot

    def give(self, slot: int) -> None:
        """Gives a slot back. If copies are under way on it, it is free when they have ended."""
        if slot not in self._taken:
            raise ValueError(f"slot {slot} is not taken")
        self._taken.remove(slot)
        if slot in self._busy:
            self._leaving.add(slot)
        else:
            self._free.append(slot)

    def array(self, slot: int, size: int | None = None) -> Any:
        """A slot's bytes as an array on the device (uint8, numpy's or CuPy's). Its copies must have ended."""
        self._check_taken(slot)
        slab, offset = self._where(slot)
        return self._array(slab, offset, self.slot_bytes if size is None else size)

    # --- copies ---

    def upload(self, slot: int, view: Buffer) -> Copy:
        """Copies host bytes to the beginning of a slot. ArenaBusy; ValueError for a view that does not fit."""
        return self._copy(True, slot, view)

    def download(self, slot: int, view: Buffer) -> Copy:
        """Copies the beginning of a slot to host bytes, as many as the view has. ArenaBusy; ValueError."""
        return self._copy(False, slot, view)

    def register(self, view: Buffer, is_locked: bool = False) -> None:
        """Page-locks host memory that lives as long as the arena: copies from and to it need no staging.

        Slow, and the memory must stay mapped until `close`. `is_locked`: it is page-locked already, and stays so until
        then; CUDA locks a page once, so several arenas share a memory this way. Unavailable where the device refuses.
        """
        self._check_open()
        host = _bytes(view)
        begin = address_of(host)
        place = begin, begin + host.nbytes
        if not is_locked:
            self._pin(host)
            self._pinned.append(place)
        self._registered.append(place)

    # --- sharing ---

    def ipc_handle(self, slot: int) -> Place:
        """Where another process on this machine finds the slot: see `attach` of the arena's module."""
        self._check_taken(slot)
        slab, offset = self._where(slot)
        return Place(self._handle(slab), offset, self.slot_bytes)

    @property
    def stride(self) -> int:
        """Bytes from the beginning of one slot to that of the next in the same slab."""
        return self._stride

    @property
    def slots_per_slab(self) -> int:
        """Slot s lies in slab s // slots_per_slab."""
        return self._per_slab

    def handles(self) -> list[bytes]:
        """Of all slabs, as `ipc_handle` has them."""
        self._check_open()
        return [self._handle(slab) for slab in self._slabs]

    # --- the end ---

    async def close(self) -> None:
        """Waits for the copies that were queued and releases everything. May be called again."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._release)

    def _release(self) -> None:
        for lane in self._lanes.values():
            lane.end()
        self._registered.clear()
        while self._pinned:
            begin, end = self._pinned.pop()
            self._unpin(begin, end - begin)
        while self._slabs:
            self._deallocate(self._slabs.pop())

    # --- inside ---

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the device arena is closed")

    def _check_taken(self, slot: int) -> None:
        self._check_open()
        if slot not in self._taken:
            raise ValueError(f"slot {slot} is not taken")

    def _where(self, slot: int) -> tuple[Any, int]:
        """(slab, offset in it)."""
        slab, place = divmod(slot, self._per_slab)
        return self._slabs[slab], place * self._stride

    def _copy(self, upload: bool, slot: int, view: Buffer) -> Copy:
        self._check_taken(slot)
        host = _bytes(view)
        if host.nbytes > self.slot_bytes:
            raise ValueError(f"{host.nbytes} bytes, a slot has {self.slot_bytes}")
        if not upload and not host.flags.writeable:
            raise ValueError("cannot download to a read-only view")
        lane, busy = self._lanes[upload], self._busy.get(slot, [])
        if lane.waiting >= COPIES_MAX:
            raise ArenaBusy("too many copies are waiting")
        before = [job.ended for job in busy if job.upload != upload]
        job = Job(upload, slot, host, before, Copy(loop=asyncio.get_running_loop()))
        self._busy.setdefault(slot, []).append(job)
        lane.waiting += 1
        lane.jobs.put(job)
        return job.copy

    def _ended(self, job: Job, error: Unavailable | None) -> None:
        """On the loop: a copy is over."""
        self._lanes[job.upload].waiting -= 1
        jobs = self._busy[job.slot]
        jobs.remove(job)
        if not jobs:
            del self._busy[job.slot]
            if job.slot in self._leaving:
                self._leaving.remove(job.slot)
                self._free.append(job.slot)
        if error is None:
            job.copy.set_result(None)
        else:
            job.copy.set_exception(error)

    def is_registered(self, host: Bytes) -> bool:
        """Whether a view lies wholly in one registered range."""
        begin = address_of(host)
        return any(low <= begin and begin + host.nbytes <= high for low, high in self._registered)

    # --- what a memory must say ---

    @abstractmethod
    def _allocate(self, size: int) -> Any:
        """A slab. MemoryError or Unavailable."""

    @abstractmethod
    def _deallocate(self, slab: Any) -> None: ...

    @abstractmethod
    def _lane(self, upload: bool) -> Lane:
        """A stream; called on the thread that will use it."""

    @abstractmethod
    def _staging(self, size: int) -> Bytes:
        """Page-locked host memory; called on a lane's thread, freed with the array."""

    @abstractmethod
    def _pin(self, host: Bytes) -> None: ...

    @abstractmethod
    def _unpin(self, address: int, size: int) -> None: ...

    @abstractmethod
    def _handle(self, slab: Any) -> bytes: ...

    @abstractmethod
    def _array(self, slab: Any, offset: int, size: int) -> Any: ...


class _LaneThread(threading.Thread):
    """Carries out one direction's copies, in order."""

    def __init__(self, arena: DeviceArena, upload: bool) -> None:
        super().__init__(name=f"device-{'upload' if upload else 'download'}", daemon=True)
        self.waiting = 0  # jobs queued or under way; the loop's
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # at most COPIES_MAX
        self._arena = arena
        self._upload = upload
        self._ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._flight: deque[tuple[Job, Any]] = deque()

    def begin(self) -> None:
        """Starts; Unavailable if there is no stream or staging memory to be had."""
        self.start()
        if (error := self._ready.get()) is not None:
            raise Unavailable(f"device: {error}") from error

    def end(self) -> None:
        """Finishes what is queued. May be called when the thread has ended, or never begun."""
        self.jobs.put(None)
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        """The thread."""
        try:
            self._lane = self._arena._lane(self._upload)
            self._staging = [self._arena._staging(self._arena.staging_bytes) for _ in range(PIECES)]
        except BaseException as error:
            self._ready.put(error)
            return
        self._ready.put(None)
        while (job := self._next()) is not None:
            try:
                self._start(job)
            except Exception as error:
                self._report(job, error)
            del job  # while it waits for the next the thread must not hold the last one's memory
        self._lane.close()

    def _next(self) -> Job | None:
        """The next job; while none is queued, and before the last None, what is in flight is brought home."""
        while self._flight:
            try:
                job = self.jobs.get_nowait()
            except queue.Empty:
                self._land()
                continue
            while len(self._flight) >= (IN_FLIGHT_MAX if job else 1):
                self._land()
            return job
        return self.jobs.get()

    def _start(self, job: Job) -> None:
        """Begins a copy from or to registered memory; makes any other one."""
        if not all(event.is_set() for event in job.before):
            self._land_all()  # somebody may wait for those
            for event in job.before:
                event.wait()
        if self._arena.is_registered(job.host):
            slab, offset = self._arena._where(job.slot)
            self._flight.append((job, self._lane.copy(slab, offset, job.host)))
            return
        self._land_all()  # staging may take long, and they have ended meanwhile
        self._stage(job)
        self._report(job, None)

    def _stage(self, job: Job) -> None:
        """A copy through staging memory: one piece is on the bus while the processor has the other."""
        slab, offset = self._arena._where(job.slot)
        size, step = job.host.nbytes, self._arena.staging_bytes
        moving: deque[tuple[int, Bytes, Any]] = deque()
        try:
            for number, begin in enumerate(range(0, size, step)):
                if len(moving) == PIECES:
                    self._arrive(job, *moving.popleft())
                piece = self._staging[number % PIECES][: min(step, size - begin)]
                if job.upload:
                    np.copyto(piece, job.host[begin : begin + len(piece)])
                moving.append((begin, piece, self._lane.copy(slab, offset + begin, piece)))
            while moving:
                self._arrive(job, *moving.popleft())
        finally:
            for _, _, token in moving:  # after an error: the pieces are in use until then
                with contextlib.suppress(Exception):
                    self._lane.wait(token)

    def _arrive(self, job: Job, begin: int, piece: Bytes, token: Any) -> None:
        self._lane.wait(token)
        if not job.upload:
            np.copyto(job.host[begin : begin + len(piece)], piece)

    def _land(self) -> None:
        """Waits for the oldest copy in flight."""
        job, token = self._flight.popleft()
        try:
            self._lane.wait(token)
        except Exception as error:
            self._report(job, error)
        else:
            self._report(job, None)

    def _land_all(self) -> None:
        while self._flight:
            self._land()

    def _report(self, job: Job, error: Exception | None) -> None:
        job.ended.set()
        failed = None if error is None else Unavailable(f"device: {error}")
        with contextlib.suppress(RuntimeError):  # the loop was closed before its copies ended
            job.copy.get_loop().call_soon_threadsafe(self._arena._ended, job, failed)


# --- the twin -----------------------------------------------------------------------------------------------------


class HostSlab:
    """Shared memory that stands for an allocation on a device."""

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("zeekdb-twin")
        os.ftruncate(self.fd, size)
        self.bytes: Bytes = np.frombuffer(mmap.mmap(self.fd, size), np.uint8)

    def close(self) -> None:
        """Its memory goes with the last array on it."""
        os.close(self.fd)
        self.bytes = self.bytes[:0].copy()


class HostLane(Lane):
    """Copies at once."""

    def __init__(self, upload: bool) -> None:
        self.upload = upload

    def copy(self, slab: HostSlab, offset: int, host: Bytes) -> None:
        """Copies."""
        there = slab.bytes[offset : offset + host.nbytes]
        if self.upload:
            np.copyto(there, host)
        else:
            np.copyto(host, there)

    def wait(self, token: None) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing to release."""


class HostTwin(DeviceArena):
    """An arena in host memory."""

    def _allocate(self, size: int) -> HostSlab:
        return HostSlab(size)

    def _deallocate(self, slab: HostSlab) -> None:
        slab.close()

    def _lane(self, upload: bool) -> Lane:
        return HostLane(upload)

    def _staging(self, size: int) -> Bytes:
        return np.empty(size, np.uint8)

    def _pin(self, host: Bytes) -> None:
        pass

    def _unpin(self, address: int, size: int) -> None:
        pass

    def _handle(self, slab: HostSlab) -> bytes:
        return f"/proc/{os.getpid()}/fd/{slab.fd}".encode()

    def _array(self, slab: HostSlab, offset: int, size: int) -> Bytes:
        return slab.bytes[offset : offset + size]


class HostAttachment:
    """What another process sees of a twin: the counterpart of `CupyAttachment`."""

    def __init__(self) -> None:
        self._slabs: dict[bytes, Bytes] = {}

    def array(self, place: Place) -> Bytes:
        """A slot's bytes, read-only. OSError if the arena is gone."""
        if place.handle not in self._slabs:
            fd = os.open(place.handle, os.O_RDONLY)
            try:
                self._slabs[place.handle] = np.frombuffer(mmap.mmap(fd, 0, access=mmap.ACCESS_READ), np.uint8)
            finally:
                os.close(fd)
        return self._slabs[place.handle][place.offset : place.offset + place.size]

    def read(self, place: Place, out: Bytes, codec: Any = None) -> None:
        """Copies a slot's bytes to `out`, decoded by a `codecs.Codec`."""
        if codec is None:
            np.copyto(out, self.array(place))
        else:
            codec.decode(self.array(place), out)

    def close(self) -> None:
        """Lets go; arrays that are still in use keep their memory."""
        self._slabs.clear()


def _bytes(view: Buffer) -> Bytes:
    """A view as an array; ValueError unless it is contiguous and has any bytes."""
    found = np.frombuffer(view, np.uint8)
    if not found.nbytes:
        raise ValueError("nothing to copy")
    return found


def address_of(host: Bytes) -> int:
    """Where an array begins."""
    return int(host.__array_interface__["data"][0])
