"""What every arena of device slots promises, on the twin and, marked `gpu`, on a GPU.

`late` is the twin with a bus that moves nothing until somebody waits for it, at the last moment that the contract
allows: whatever reuses a buffer too early, or reports a copy before it has ended, shows there.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.contract import fake_cupy
from tests.contract.devices import fake_gpu, gpu
from tests.support import ROOT
from zeekdb.errors import Unavailable
from zeekdb.tensors import device
from zeekdb.tensors.device import ArenaBusy, DeviceArena, HostAttachment, HostLane, HostSlab, HostTwin, Lane

SLOT = 100_000  # bytes: neither a multiple of the alignment nor of the staging pieces
STAGING = 7_000
Maker = Callable[..., DeviceArena]


class LateLane(HostLane):
    """Copies when it is waited for, and then everything before that too."""

    def __init__(self, upload: bool) -> None:
        super().__init__(upload)
        self.queued: list[tuple[HostSlab, int, np.ndarray]] = []
        self.done = 0

    def copy(self, slab: HostSlab, offset: int, host: np.ndarray) -> Any:
        self.queued.append((slab, offset, host))
        return len(self.queued)

    def wait(self, token: Any) -> None:
        while self.done < token:
            super().copy(*self.queued[self.done])
            self.done += 1

    def close(self) -> None:
        assert self.done == len(self.queued)


class LateTwin(HostTwin):
    def _lane(self, upload: bool) -> Lane:
        return LateLane(upload)


class StoppedLane(LateLane):
    """Waits for a signal before a copy ends; fails if told to."""

    def __init__(self, upload: bool, go: threading.Event) -> None:
        super().__init__(upload)
        self.go = go
        self.failure: Exception | None = None

    def wait(self, token: Any) -> None:
        assert self.go.wait(30)
        super().wait(token)
        if self.failure:
            raise self.failure


class StoppedTwin(HostTwin):
    """A twin whose copies in either direction end when the test says so."""

    def __init__(self, *arguments: Any) -> None:
        self.go = {True: threading.Event(), False: threading.Event()}
        self.lanes: dict[bool, StoppedLane] = {}
        super().__init__(*arguments)

    def _lane(self, upload: bool) -> Lane:
        self.lanes[upload] = StoppedLane(upload, self.go[upload])
        return self.lanes[upload]


def cupy_arena(*arguments: Any) -> DeviceArena:
    from zeekdb.tensors.device_cupy import CupyArena

    return CupyArena(*arguments)


EVERY = [pytest.param(HostTwin, id="twin"), pytest.param(LateTwin, id="late"), pytest.param("fake", id="fake CuPy")]
EVERY.append(pytest.param(cupy_arena, id="gpu", marks=gpu))


@pytest.fixture(params=EVERY)
def make(request: pytest.FixtureRequest) -> Iterator[Maker]:
    if request.param != "fake":
        yield request.param
        return
    with fake_gpu():
        yield cupy_arena
    assert not fake_cupy.runtime.memory and not fake_cupy.runtime.locked  # everything was given back


def rubbish(size: int, seed: int) -> bytearray:
    return bytearray(np.random.default_rng(seed).bytes(size))


def slots_of(arena: DeviceArena, count: int) -> list[int]:
    taken = [arena.take() for _ in range(count)]
    assert None not in taken
    return taken  # type: ignore[return-value]


# --- slots --------------------------------------------------------------------------------------------------------


async def test_slots_are_taken_once_and_come_back(make: Maker) -> None:
    arena = make(5, SLOT, STAGING)
    assert (arena.slots, arena.slot_bytes, arena.free) == (5, SLOT, 5)
    taken = slots_of(arena, 5)
    assert sorted(taken) == list(range(5))
    assert arena.take() is None and arena.free == 0
    arena.give(taken[2])
    assert arena.free == 1 and arena.take() == taken[2]
    await arena.close()


async def test_what_is_not_taken_cannot_be_used(make: Maker) -> None:
    arena = make(2, SLOT, STAGING)
    (slot,) = slots_of(arena, 1)
    other = 1 - slot
    for wrong in (other, -1, 2):
        for use in (arena.give, arena.ipc_handle, arena.array):
            with pytest.raises(ValueError, match="not taken"):
                use(wrong)
        with pytest.raises(ValueError, match="not taken"):
            arena.upload(wrong, b"x")
    arena.give(slot)
    with pytest.raises(ValueError, match="not taken"):
        arena.give(slot)
    await arena.close()


@pytest.mark.parametrize(("slots", "size"), [(0, 1), (-1, 1), (1, 0), (1, device.SLAB_BYTES_MAX + 1), (1 << 40, 1)])
async def test_impossible_arenas(make: Maker, slots: int, size: int) -> None:
    with pytest.raises(ValueError, match="slots of"):
        make(slots, size)


# --- copies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 255, STAGING, STAGING + 1, 3 * STAGING, SLOT - 1, SLOT])
@pytest.mark.parametrize("registered", [False, True])
async def test_bytes_come_back(make: Maker, size: int, registered: bool) -> None:
    arena = make(3, SLOT, STAGING)
    host = np.frombuffer(rubbish(2 * SLOT, size), np.uint8)
    wanted = host[:size].tobytes()
    if registered:
        arena.register(host)
    first, second, _ = slots_of(arena, 3)
    await arena.upload(first, host[:size])
    await arena.upload(second, host[size : 2 * size])
    host[SLOT:] = 0xEE
    await arena.download(first, host[SLOT : SLOT + size])
    assert host[SLOT : SLOT + size].tobytes() == wanted
    assert (host[SLOT + size :] == 0xEE).all()  # nothing beyond the view
    await arena.close()


async def test_any_buffer_will_do(make: Maker) -> None:
    arena = make(1, SLOT)
    (slot,) = slots_of(arena, 1)
    await arena.upload(slot, b"constant bytes")
    back = bytearray(14)
    await arena.download(slot, memoryview(back))
    assert back == b"constant bytes"
    back = bytearray(4)
    await arena.download(slot, back)
    assert back == b"cons"
    for wrong, message in ((b"", "nothing to copy"), (bytearray(SLOT + 1), "a slot has")):
        with pytest.raises(ValueError, match=message):
            arena.upload(slot, wrong)
    with pytest.raises(ValueError, match="read-only"):
        arena.download(slot, b"constant bytes")
    await arena.close()


@pytest.mark.parametrize("registered", ["none", "all", "half"])
async def test_many_copies_at_once(make: Maker, registered: str) -> None:
    """Both directions, all slots, nothing awaited in between: the order on each slot is that of the calls."""
    arena = make(8, SLOT, STAGING)
    slots = slots_of(arena, 8)
    hosts = [np.frombuffer(rubbish(SLOT, seed), np.uint8) for seed in range(16)]
    backs = [np.zeros(SLOT, np.uint8) for _ in range(16)]
    for array in {"none": [], "all": hosts + backs, "half": hosts[::2] + backs[::3]}[registered]:
        arena.register(array)
    copies = []
    for at, (host, back) in enumerate(zip(hosts, backs, strict=True)):
        slot = slots[at % 8]
        copies += [arena.upload(slot, host), arena.download(slot, back)]
    await asyncio.gather(*copies)
    for host, back in zip(hosts, backs, strict=True):
        assert (host == back).all()
    await arena.close()


async def test_slots_do_not_overlap(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "SLAB_BYTES_MAX", 1 << 20)  # several slabs
    arena = make(25, SLOT, STAGING)
    slots = slots_of(arena, 25)
    for slot in slots:
        await arena.upload(slot, bytes([slot]) * SLOT)
    back = bytearray(SLOT)
    for slot in slots:
        await arena.download(slot, back)
        assert back == bytes([slot]) * SLOT
    assert len({arena.ipc_handle(slot).handle for slot in slots}) > 1
    await arena.close()


async def test_the_array_is_the_slot(make: Maker) -> None:
    arena = make(3, SLOT)
    _, slot, _ = slots_of(arena, 3)
    data = rubbish(SLOT, 1)
    await arena.upload(slot, data)
    array = arena.array(slot)
    assert (array.dtype, array.shape) == (np.uint8, (SLOT,))
    array[10:20] = 7
    assert arena.array(slot, 15).shape == (15,)
    if not isinstance(array, np.ndarray):
        import cupy

        cupy.cuda.get_current_stream().synchronize()
    back = bytearray(SLOT)
    await arena.download(slot, back)
    assert back == data[:10] + b"\7" * 10 + data[20:]
    del array
    await arena.close()


ATTACH = """
import hashlib, sys
from zeekdb.tensors.device import Place
place = Place(bytes.fromhex(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
if sys.argv[1] == "fake":
    from tests.contract import fake_cupy
    fake_cupy.install()
if sys.argv[1] == "host":
    from zeekdb.tensors.device import HostAttachment as Attachment
else:
    from zeekdb.tensors.device_cupy import CupyAttachment as Attachment
attachment = Attachment()
array = attachment.array(place)
data = bytes(array.get() if hasattr(array, "get") else array)
attachment.close()
print(hashlib.sha256(data).hexdigest())
"""


async def test_another_process_sees_a_slot(make: Maker, request: pytest.FixtureRequest) -> None:
    arena = make(3, SLOT)
    _, slot, _ = slots_of(arena, 3)
    data = rubbish(SLOT, 2)
    await arena.upload(slot, data)
    place = arena.ipc_handle(slot)
    assert place.size == SLOT and place.offset % device.SLOT_ALIGN == 0
    kind = "host" if isinstance(arena, HostTwin) else "fake" if "fake" in request.node.name else "gpu"
    arguments = [kind, place.handle.hex(), str(place.offset), str(place.size)]
    program = [sys.executable, "-c", ATTACH, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT, **pipes)
    out, errors = await process.communicate()
    assert out.decode().strip() == hashlib.sha256(data).hexdigest(), errors.decode()
    await arena.close()


# --- the end ------------------------------------------------------------------------------------------------------


async def test_close_finishes_what_was_queued(make: Maker) -> None:
    arena = make(2, SLOT, STAGING)
    slot, _ = slots_of(arena, 2)
    host, back = rubbish(SLOT, 3), bytearray(SLOT)
    copies = [arena.upload(slot, host), arena.download(slot, back)]
    await arena.close()
    assert all(copy.done() for copy in copies) and back == host
    await arena.close()
    for use in (arena.take, lambda: arena.upload(slot, host), lambda: arena.ipc_handle(slot)):
        with pytest.raises(Unavailable, match="closed"):
            use()
    arena.give(slot)  # whoever held it may let go


# --- what only a twin can show ------------------------------------------------------------------------------------


async def test_the_loop_runs_while_copies_do() -> None:
    arena = StoppedTwin(1, SLOT, STAGING)
    (slot,) = slots_of(arena, 1)
    copy = arena.upload(slot, rubbish(SLOT, 4))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not copy.done()
    arena.go[True].set()
    await copy
    await arena.close()


async def test_a_slot_given_back_during_a_copy_is_free_after_it() -> None:
    arena = StoppedTwin(1, SLOT, STAGING)
    (slot,) = slots_of(arena, 1)
    copies = [arena.upload(slot, b"first"), arena.upload(slot, b"second")]
    arena.give(slot)
    assert arena.free == 0 and arena.take() is None
    with pytest.raises(ValueError, match="not taken"):
        arena.give(slot)
    arena.go[True].set()
    await asyncio.gather(*copies)
    assert arena.free == 1 and arena.take() == slot
    await arena.close()


async def test_cancelling_waits_for_the_copy() -> None:
    arena = StoppedTwin(1, SLOT, STAGING)
    (slot,) = slots_of(arena, 1)
    copy = arena.upload(slot, b"bytes")

    async def caller() -> None:
        await copy

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done() and not copy.done()  # the buffer is in use, and its owner still waits
    arena.go[True].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert copy.done() and copy.exception() is None
    await arena.close()


async def test_a_download_waits_for_the_upload_before_it_and_for_no_other() -> None:
    arena = StoppedTwin(2, SLOT, STAGING)
    slot, other = slots_of(arena, 2)
    arena.go[False].set()
    back, beside = bytearray(5), bytearray(5)
    free = arena.download(other, beside)
    up, down = arena.upload(slot, b"bytes"), arena.download(slot, back)
    await free
    assert not up.done() and not down.done()
    arena.go[True].set()
    await asyncio.gather(up, down)
    assert back == b"bytes"
    await arena.close()


async def test_directions_that_wait_for_each_other_crosswise_do_not_lock() -> None:
    arena = LateTwin(2, SLOT, STAGING)
    first, second = slots_of(arena, 2)
    hosts = [np.zeros(SLOT, np.uint8) for _ in range(4)]
    for host in hosts:
        arena.register(host)  # in flight together
    copies = []
    for _ in range(20):
        copies += [arena.upload(first, hosts[0]), arena.download(second, hosts[1])]
        copies += [arena.upload(second, hosts[2]), arena.download(first, hosts[3])]
    await asyncio.wait_for(asyncio.gather(*copies), 30)
    await arena.close()


async def test_too_many_copies_are_refused() -> None:
    arena = StoppedTwin(1, SLOT, STAGING)
    (slot,) = slots_of(arena, 1)
    copies = [arena.upload(slot, b"bytes") for _ in range(device.COPIES_MAX)]
    with pytest.raises(ArenaBusy):
        arena.upload(slot, b"bytes")
    arena.go[False].set()
    arena.go[True].set()
    await asyncio.gather(*copies)
    await arena.upload(slot, b"bytes")
    await arena.close()


@pytest.mark.parametrize("registered", [False, True])
async def test_a_device_that_fails_fails_the_copy_alone(registered: bool) -> None:
    arena = StoppedTwin(2, SLOT, STAGING)
    slot, other = slots_of(arena, 2)
    host = np.frombuffer(rubbish(SLOT, 5), np.uint8)
    if registered:
        arena.register(host)
    arena.lanes[True].failure = RuntimeError("the bus fell off")
    arena.go[True].set()
    with pytest.raises(Unavailable, match="the bus fell off"):
        await arena.upload(slot, host)
    arena.lanes[True].failure = None
    await arena.upload(slot, host)
    arena.give(slot)
    arena.give(other)
    assert arena.free == 2
    await arena.close()


async def test_a_device_that_cannot_start_leaves_nothing_behind() -> None:
    class Broken(HostTwin):
        closed: list[HostSlab] = []

        def _lane(self, upload: bool) -> Lane:
            if not upload:
                raise RuntimeError("no stream")
            return super()._lane(upload)

        def _deallocate(self, slab: HostSlab) -> None:
            self.closed.append(slab)
            super()._deallocate(slab)

    threads = threading.active_count()
    with pytest.raises(Unavailable, match="no stream"):
        Broken(1, SLOT)
    assert len(Broken.closed) == 1 and threading.active_count() == threads


async def test_the_twin_attaches_read_only() -> None:
    arena = HostTwin(1, SLOT)
    (slot,) = slots_of(arena, 1)
    attachment = HostAttachment()
    array = attachment.array(arena.ipc_handle(slot))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    await arena.upload(slot, b"seen at once")
    assert array[:12].tobytes() == b"seen at once"
    place = arena.ipc_handle(slot)
    await arena.close()
    attachment.close()
    with pytest.raises(OSError):
        attachment.array(place)
