"""The caller's memory as flat bytes: anything with the buffer protocol, numpy arrays, torch tensors on the CPU.

torch is never imported here. A tensor is known by its methods, and is seen through numpy as bytes, so that types which
numpy lacks (bfloat16, float8) work too.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

THREAD_BYTES_MIN: Final = 8 << 20  # what a thread more has to be worth

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def memory_of(buffer: Any, writable: bool = False) -> memoryview:
    """The buffer's bytes, shape [nbytes], without a copy; the view keeps the buffer alive.

    ValueError where they do not lie one after the other in C order on this machine's CPU, or are to be written and
    cannot be; TypeError for what has no buffer.
    """
    if hasattr(buffer, "data_ptr"):
        buffer = _array_of_tensor(buffer)
    if isinstance(buffer, np.ndarray):
        if not buffer.flags.c_contiguous:
            raise ValueError("the array is not contiguous")
        if writable and not buffer.flags.writeable:
            raise ValueError("the array is read-only")
        view = buffer.reshape(-1).view(np.uint8).data if buffer.size else memoryview(bytearray())
    else:
        view = memoryview(buffer)
        if not view.c_contiguous:
            raise ValueError("the buffer is not contiguous")
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B") if view.nbytes else memoryview(bytearray())
    if writable and view.readonly:
        raise ValueError("the buffer is read-only")
    return view


def _array_of_tensor(tensor: Any) -> Bytes:
    """A torch tensor's bytes as numpy sees them."""
    if tensor.device.type != "cpu":
        raise ValueError(f"the tensor is on {tensor.device}, not in host memory")
    if not tensor.is_contiguous():
        raise ValueError("the tensor is not contiguous")
    array: Bytes = tensor.detach().reshape(-1).view(sys.modules["torch"].uint8).numpy()
    return array


def copy_all(pairs: list[tuple[memoryview, memoryview]], threads: ThreadPoolExecutor | None, count: int = 1) -> None:
    """Copies (target, source) pairs of equal sizes; the GIL is free meanwhile. Large ones are split over `threads`."""
    arrays = [(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8)) for target, source in pairs if target]
    size = sum(target.nbytes for target, _ in arrays)
    share = max(-(-size // count), THREAD_BYTES_MIN)
    if threads is None or size <= share:
        for target, source in arrays:
            np.copyto(target, source)
        return
    parts: list[list[tuple[Bytes, Bytes]]] = [[]]
    room = share
    for target, source in arrays:
        at = 0
        while at < target.nbytes:
            step = min(room, target.nbytes - at)
            parts[-1].append((target[at : at + step], source[at : at + step]))
            at += step
            room -= step
            if not room:
                parts.append([])
                room = share
    list(threads.map(_copy, parts))


def _copy(pairs: list[tuple[Bytes, Bytes]]) -> None:
    for target, source in pairs:
        np.copyto(target, source)
