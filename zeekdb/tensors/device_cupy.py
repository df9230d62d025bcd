"""The arena in the memory of an NVIDIA GPU, through CuPy. Importing this module needs CuPy; nothing else does.

Slabs are plain `cudaMalloc`s, never managed memory: CUDA IPC shares only those, and managed memory that does not fit
can hang the GPU. They bypass CuPy's pool, which would keep them after `close`."""

from __future__ import annotations

from typing import Any, Final

import cupy
import numpy as np
from cupy.cuda import runtime

from zeekdb.errors import Unavailable
from zeekdb.tensors.device import STAGING_BYTES, Bytes, DeviceArena, Lane, Place, address_of

SLAB_ALIGN: Final = 2 << 20  # below 2 MiB the driver cuts several allocations from one, and an IPC handle shares that
HOST_REGISTER_PORTABLE: Final = 1  # cudaHostRegisterPortable: page-locked for every context


class Slab:
    """One allocation on the device."""

    def __init__(self, device: int, size: int) -> None:
        self.device = device
        self.size = -(-size // SLAB_ALIGN) * SLAB_ALIGN
        with cupy.cuda.Device(device):
            try:
                self.address = runtime.malloc(self.size)
            except runtime.CUDARuntimeError as error:
                raise Unavailable(f"{self.size} bytes of device memory: {error}") from error

    def close(self) -> None:
        """Frees it, whoever still has an array on it."""
        with cupy.cuda.Device(self.device):
            runtime.free(self.address)


class CupyLane(Lane):
    """A stream of its own, and an event for each copy."""

    def __init__(self, device: int, upload: bool) -> None:
        self.upload = upload
        runtime.setDevice(device)  # of this thread, which makes no other calls
        self.stream = cupy.cuda.Stream(non_blocking=True)

    def copy(self, slab: Slab, offset: int, host: Bytes) -> Any:
        """Queues the copy; the token is an event behind it."""
        there, here = slab.address + offset, address_of(host)
        if self.upload:
            runtime.memcpyAsync(there, here, host.nbytes, runtime.memcpyHostToDevice, self.stream.ptr)
        else:
            runtime.memcpyAsync(here, there, host.nbytes, runtime.memcpyDeviceToHost, self.stream.ptr)
        event = cupy.cuda.Event(block=True, disable_timing=True)
        event.record(self.stream)
        return event

    def wait(self, token: Any) -> None:
        """Sleeps, without the interpreter's lock, until the copy has ended."""
        token.synchronize()

    def close(self) -> None:
        """Waits for the stream; it goes with its last reference."""
        self.stream.synchronize()


def page_lock(host: Bytes, device: int = 0) -> None:
    """Page-locks host memory for the copy engines of every GPU; it takes all of it, now. Unavailable."""
    try:
        with cupy.cuda.Device(device):
            runtime.hostRegister(address_of(host), host.nbytes, HOST_REGISTER_PORTABLE)
    except runtime.CUDARuntimeError as error:
        raise Unavailable(f"{host.nbytes} bytes cannot be page-locked: {error}") from error


def page_unlock(address: int, device: int = 0) -> None:
    """Undoes `page_lock` of what begins there."""
    with cupy.cuda.Device(device):
        runtime.hostUnregister(address)


def device_count() -> int:
    """How many GPUs there are. Unavailable where that cannot be known."""
    try:
        return int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        raise Unavailable(f"no GPU: {error}") from error


class CupyArena(DeviceArena):
    """An arena on one GPU. Unavailable if there is none, or too little memory."""

    def __init__(self, slots: int, slot_bytes: int, staging_bytes: int = STAGING_BYTES, device: int = 0) -> None:
        self.device = device
        if device >= device_count():
            raise Unavailable(f"there is no GPU {device}")
        super().__init__(slots, slot_bytes, staging_bytes)

    def _allocate(self, size: int) -> Slab:
        return Slab(self.device, size)

    def _deallocate(self, slab: Slab) -> None:
        slab.close()

    def _lane(self, upload: bool) -> Lane:
        return CupyLane(self.device, upload)

    def _staging(self, size: int) -> Bytes:
        return np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.uint8, size)

    def _pin(self, host: Bytes) -> None:
        page_lock(host, self.device)

    def _unpin(self, address: int, size: int) -> None:
        page_unlock(address, self.device)

    def _handle(self, slab: Slab) -> bytes:
        with cupy.cuda.Device(self.device):
            return bytes(runtime.ipcGetMemHandle(slab.address))

    def _array(self, slab: Slab, offset: int, size: int) -> Any:
        return _view(slab.address + offset, size, slab, slab.device)


class CupyAttachment:
    """Slots of an arena in another process, seen in place. A process cannot attach to itself."""

    def __init__(self, device: int = 0) -> None:
        self.device = device
        self._slabs: dict[bytes, int] = {}  # address by handle

    def array(self, place: Place) -> Any:
        """A slot's bytes as a cupy array of uint8; valid until `close`, and as long as the arena is there."""
        if place.handle not in self._slabs:
            with cupy.cuda.Device(self.device):
                self._slabs[place.handle] = runtime.ipcOpenMemHandle(place.handle)
        return _view(self._slabs[place.handle] + place.offset, place.size, self, self.device)

    def read(self, place: Place, out: Any, codec: Any = None, stream: Any = None) -> None:
        """Queues a copy of a slot's bytes to `out`, an array of uint8 on the device, decoded by a `GpuCodec`.

        The slot must stay under lease until the stream (the current one unless told) has come past it.
        """
        source = self.array(place)
        if codec is not None:
            codec.decode(source, out, stream)
            return
        if out.nbytes != place.size:
            raise ValueError(f"{place.size} bytes to {out.nbytes}")
        with stream or cupy.cuda.get_current_stream():
            out.data.copy_from_device_async(source.data, place.size)

    def close(self) -> None:
        """Detaches; arrays from here must not be used any more."""
        with cupy.cuda.Device(self.device):
            while self._slabs:
                runtime.ipcCloseMemHandle(self._slabs.popitem()[1])


def _view(address: int, size: int, owner: object, device: int) -> Any:
    """An array on memory that CuPy did not allocate."""
    memory = cupy.cuda.UnownedMemory(address, size, owner, device)
    return cupy.ndarray((size,), np.uint8, cupy.cuda.MemoryPointer(memory, 0))
