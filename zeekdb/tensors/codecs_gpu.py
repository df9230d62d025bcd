"""The codecs on an NVIDIA GPU, through CuPy: the same bytes as `codecs` writes, between two places in device memory.

`plan` says which kernels of kernels.cu run over which part of a block, from the layout alone; it knows no GPU, so that
the tests can carry a plan out on the host. CuPy is imported by `GpuCodec`, and nowhere before it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from zeekdb.tensors.codecs import Codec, FloatCodec, Int8Codec

VEC: Final = 8  # kernels.cu
LANES: Final = 16
ALIGN: Final = 16  # bytes
THREADS: Final = LANES * LANES
KERNEL_NAMES: Final = {"f32": "f32", "f16": "f16", "bf16": "bf16", "f8e4m3": "f8"}
SOURCE: Final = Path(__file__).with_name("kernels.cu")


class Launch(NamedTuple):
    """One kernel over one part of a block."""

    kernel: str
    options: tuple[str, ...]  # of the compiler: types, and elements at a time
    blocks: int  # of THREADS threads
    source: int  # byte offset
    target: int
    numbers: tuple[tuple[str, int], ...]  # the arguments after the two addresses: type in C, value


def plan(codec: Codec, decode: bool) -> list[Launch]:
    """What encodes or decodes a block of the codec's layout, both forms beginning at addresses that divide by ALIGN."""
    dtype = codec.layout.dtype
    if isinstance(codec, Int8Codec):
        found, plain, encoded = [], 0, 0
        for part in range(codec.layout.parts):
            found.append(_int8(codec, part, plain, encoded, decode))
            plain += codec.layout.block_bytes // codec.layout.parts
            encoded += codec.layout.layers * codec.plane_bytes[part]
        return found
    assert isinstance(codec, FloatCodec)
    source, target = (codec.target, dtype) if decode else (dtype, codec.target)
    items = codec.layout.block_bytes // codec.layout.item_bytes
    vec = VEC if items % VEC == 0 else 1
    return [Launch("convert", _options(source, target, vec), _blocks(items, vec), 0, 0, (("long long", items),))]


def _int8(codec: Int8Codec, part: int, plain: int, encoded: int, decode: bool) -> Launch:
    """One part, whose planes begin at these offsets."""
    rows, columns = codec.plane_shape(part)
    layers, dtype, channel = codec.layout.layers, codec.layout.dtype, codec.by_channel(part)
    vec = VEC if columns % VEC == 0 and plain % ALIGN == 0 else 1
    options = _options(dtype, dtype, vec)
    kind = "channel" if channel else "token"
    head, stride = ("long long", codec.head_bytes(part)), ("long long", codec.plane_bytes[part])
    if decode:
        total, items = layers * rows * columns, rows * columns
        shape = ("long long", total), ("long long", items), ("int", columns)
        return Launch(f"decode_{kind}", options, _blocks(total, vec), encoded, plain, (*shape, head, stride))
    if channel:
        groups = -(-columns // (LANES * vec))
        shape = ("int", groups), ("int", rows), ("int", columns)
        return Launch("encode_channel", options, layers * groups, plain, encoded, (*shape, head, stride))
    total = layers * rows
    shape = ("long long", total), ("int", rows), ("int", columns)
    return Launch("encode_token", options, _blocks(total * LANES, 1), plain, encoded, (*shape, head, stride))


def _options(source: str, target: str, vec: int) -> tuple[str, ...]:
    return f"-DFROM={KERNEL_NAMES[source]}", f"-DTO={KERNEL_NAMES[target]}", f"-DVEC={vec}"


def _blocks(items: int, vec: int) -> int:
    """Blocks of threads for so many elements."""
    return -(-items // (THREADS * vec))


class GpuCodec:
    """A codec whose blocks lie in device memory. Raises ImportError without CuPy."""

    def __init__(self, codec: Codec) -> None:
        import cupy

        self.codec = codec
        self._cupy = cupy
        self._types = {"int": cupy.int32, "long long": cupy.int64}

    def encode(self, block: Any, out: Any, stream: Any = None) -> None:
        """Queues the encoding of `block` to `out`: cupy arrays of uint8, contiguous. ValueError for wrong sizes
        and places."""
        self._run(False, block, self.codec.layout.block_bytes, out, self.codec.encoded_size, stream)

    def decode(self, data: Any, out: Any, stream: Any = None) -> None:
        """Queues the decoding of `data` to `out`."""
        self._run(True, data, self.codec.encoded_size, out, self.codec.layout.block_bytes, stream)

    def _run(self, decode: bool, source: Any, source_bytes: int, target: Any, target_bytes: int, stream: Any) -> None:
        if (source.nbytes, target.nbytes) != (source_bytes, target_bytes):
            raise ValueError(f"{source.nbytes} bytes to {target.nbytes}, not {source_bytes} to {target_bytes}")
        if source.data.ptr % ALIGN or target.data.ptr % ALIGN:
            raise ValueError(f"blocks in device memory begin at multiples of {ALIGN} bytes")
        with stream or self._cupy.cuda.get_current_stream():
            codec = self.codec
            if is_copy(codec):
                target.data.copy_from_device_async(source.data, target_bytes)
                return
            if not decode and has_gaps(codec):
                target[:] = 0  # small or odd shapes only: those of models leave no gaps, and are written once
            for launch in plan(codec, decode):
                numbers = [self._types[kind](value) for kind, value in launch.numbers]
                places = source.data.ptr + launch.source, target.data.ptr + launch.target
                _kernel(launch.kernel, launch.options)((launch.blocks,), (THREADS,), (*places, *numbers))


def is_copy(codec: Codec) -> bool:
    """Whether the encoded form is the plain one, and no kernel runs."""
    return isinstance(codec, FloatCodec) and codec.target == codec.layout.dtype


def has_gaps(codec: Codec) -> bool:
    """Whether encoded planes have bytes that no kernel writes."""
    if not isinstance(codec, Int8Codec):
        return False
    items = codec.layout.plane_items
    return any(codec.scales(p) * 4 + items != codec.plane_bytes[p] for p in range(codec.layout.parts))


@cache
def _kernel(name: str, options: tuple[str, ...]) -> Any:
    """A compiled kernel; CuPy keeps the compiled code on disk too."""
    import cupy

    return cupy.RawKernel(SOURCE.read_text(), name, options=("-std=c++17", *options))
