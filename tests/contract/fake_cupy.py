"""The part of CuPy that ZeekDB calls, on the host: so that those calls are made, in order, where there is no GPU.

Device memory is shared memory. A copy on a stream moves nothing until its stream or an event behind it is waited for,
as late as CUDA allows; kernels are those of `host_gpu` and run at once. Names and signatures are CuPy 14's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.contract import host_gpu


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for an error code of CUDA."""


def at(address: int, size: int) -> np.ndarray:
    """Bytes at an address."""
    return np.frombuffer((ctypes.c_ubyte * size).from_address(address), np.uint8)


class Runtime:
    """cupy.cuda.runtime."""

    CUDARuntimeError = CUDARuntimeError
    memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice = 1, 2, 3

    def __init__(self) -> None:
        self.memory: dict[int, tuple[int, mmap.mmap]] = {}  # by address: file, mapping
        self.locked: dict[int, int] = {}  # registered host memory: size by address
        self.pinned: list[np.ndarray] = []  # page-locked from the start
        self.streams: dict[int, Stream] = {}

    def getDeviceCount(self) -> int:
        return 1

    def getDeviceProperties(self, device: int) -> dict[str, Any]:
        return {"name": b"no GPU, but a stand-in"}

    def setDevice(self, device: int) -> None:
        assert device == 0

    def malloc(self, size: int) -> int:
        fd = os.memfd_create("fake")
        os.ftruncate(fd, size)
        return self._map(fd)

    def _map(self, fd: int) -> int:
        mapped = mmap.mmap(fd, 0)
        address = np.frombuffer(mapped, np.uint8).ctypes.data
        self.memory[address] = fd, mapped
        return address

    def free(self, address: int) -> None:
        os.close(self.memory.pop(address)[0])

    def hostRegister(self, address: int, size: int, flags: int) -> None:
        if address in self.locked:
            raise CUDARuntimeError("cudaErrorHostMemoryAlreadyRegistered")
        self.locked[address] = size

    def hostUnregister(self, address: int) -> None:
        del self.locked[address]

    def memcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        host = source if kind == self.memcpyHostToDevice else target
        locked = [*self.locked.items(), *((array.ctypes.data, array.nbytes) for array in self.pinned)]
        assert any(low <= host and host + size <= low + n for low, n in locked), "not page-locked"
        self.streams[stream].queued.append((target, source, size))

    def ipcGetMemHandle(self, address: int) -> bytes:
        return f"/proc/{os.getpid()}/fd/{self.memory[address][0]}".encode()

    def ipcOpenMemHandle(self, handle: bytes) -> int:
        return self._map(os.open(handle, os.O_RDWR))

    def ipcCloseMemHandle(self, address: int) -> None:
        self.free(address)


runtime = Runtime()


class Stream:
    """A queue that moves when it must."""

    def __init__(self, non_blocking: bool = False) -> None:
        self.queued: list[tuple[int, int, int]] = []
        self.done = 0
        self.ptr = id(self)
        runtime.streams[self.ptr] = self

    def run(self, until: int) -> None:
        while self.done < until:
            target, source, size = self.queued[self.done]
            at(target, size)[:] = at(source, size)
            self.done += 1

    def synchronize(self) -> None:
        self.run(len(self.queued))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Event:
    """A place in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        assert block, "would spin"

    def record(self, stream: Stream) -> None:
        self.stream, self.place = stream, len(stream.queued)

    def synchronize(self) -> None:
        self.stream.run(self.place)


class Device:
    """A context."""

    def __init__(self, device: int) -> None:
        assert device == 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Memory(SimpleNamespace):
    """UnownedMemory and MemoryPointer."""

    def copy_from_device_async(self, source: Memory, size: int) -> None:
        at(self.ptr, size)[:] = at(source.ptr, size)


class Array(np.ndarray):
    """cupy.ndarray: numpy's, with an address."""

    @property
    def data(self) -> Memory:  # type: ignore[override]
        return Memory(ptr=self.ctypes.data)


def ndarray(shape: tuple[int], dtype: type, memptr: Memory) -> Array:
    return at(memptr.ptr, shape[0]).view(Array)


def full(size: int, value: int, dtype: type) -> Array:
    array = host_gpu.aligned(size)
    array[:] = value
    return array.view(Array)


def empty(shape: int | tuple[int, ...], dtype: type) -> Array:
    items = int(np.prod(shape))
    return host_gpu.aligned(items * np.dtype(dtype).itemsize).view(dtype).reshape(shape).view(Array)


def filled(value: int) -> Any:
    """cupy.zeros, cupy.ones."""

    def make(shape: int | tuple[int, ...], dtype: type) -> Array:
        made = empty(shape, dtype)
        made[...] = value
        return made

    return make


def asarray(array: np.ndarray) -> Array:
    made = empty(array.shape, array.dtype.type)
    made[...] = array
    return made


def standard_normal(shape: tuple[int, ...], dtype: type) -> Array:
    return asarray(np.random.default_rng(0).standard_normal(shape, dtype))


def alloc_pinned_memory(size: int) -> bytearray:
    made = bytearray(size)
    runtime.pinned.append(np.frombuffer(made, np.uint8))
    return made


class RawKernel:
    """A kernel of kernels.cu, carried out on the host."""

    def __init__(self, code: str, name: str, options: tuple[str, ...]) -> None:
        assert f" {name}(" in code and options[0].startswith("-std=")
        self.name, self.options = name, options[1:]

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        source, target, *numbers = arguments
        assert all(isinstance(number, np.integer) for number in numbers)
        host_gpu.run(self.name, self.options, grid[0], block[0], source, target, [int(n) for n in numbers])


def modules() -> dict[str, ModuleType]:
    """What stands in sys.modules for CuPy."""
    cupy, cuda = ModuleType("cupy"), ModuleType("cupy.cuda")
    vars(cuda).update(
        runtime=runtime, Stream=Stream, Event=Event, Device=Device, alloc_pinned_memory=alloc_pinned_memory,
        MemoryPointer=lambda memory, offset: Memory(ptr=memory.ptr + offset),
        UnownedMemory=lambda ptr, size, owner, device_id: Memory(ptr=ptr, size=size, owner=owner),
        get_current_stream=Stream,
    )  # fmt: skip
    vars(cupy).update(
        cuda=cuda, ndarray=ndarray, full=full, asarray=asarray, asnumpy=np.asarray, RawKernel=RawKernel,
        int32=np.int32, int64=np.int64, empty=empty, zeros=filled(0), ones=filled(1), __version__="none",
        empty_like=lambda array: empty(array.shape, array.dtype.type), ascontiguousarray=asarray,
        random=SimpleNamespace(standard_normal=standard_normal), uint8=np.uint8,
    )  # fmt: skip
    return {"cupy": cupy, "cupy.cuda": cuda}


def install() -> None:
    """For a process of its own."""
    sys.modules.update(modules())
