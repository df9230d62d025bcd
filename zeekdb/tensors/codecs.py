"""How blocks are kept smaller than they come: the codecs of KV.MODEL SET, in numpy.

| codec | an element | bytes of bf16 saved | error of an element x |
|---|---|---|---|
| raw | as it came | 0% | none |
| fp16 | IEEE half | 0% (f32: 50%) | 2^-11 of x; under 2^-14 at most 2^-25; beyond 65,504 it becomes ±65,504 |
| bf16 | bfloat16 | 0% (f32: 50%) | 2^-8 of x; under 2^-126 at most 2^-134 |
| fp8 | OCP E4M3 | 50% (f32: 75%) | 2^-4 of x; under 2^-6 at most 2^-10; beyond 448 it becomes ±448 |
| int8-channel | multiples of its (part, layer, head, dim)'s scale | 50% less the scales | the channel's largest / 254 |
| int8-token | multiples of its (part, layer, token, head)'s scale | 50% less the scales | the row's largest / 254 |
| int8 | keys by channel, values by token; one part: by token | 50% less the scales | of its part's kind |

To the errors of int8 come a thousandth of themselves (scales are f32) and half a last place of the block's own type,
to which decoding rounds. Keys have a few channels that are much larger than the rest, at all tokens, and values have
not (Liu et al., KIVI, ICML 2024, section 3): that is why plain int8 treats them differently.

*Every plane is encoded on its own* (`Layout`: one layer of one part), and encoded planes stand in the order of the
plain ones. So the planes of some layers, cut out by `encoded_slices` and joined, are what encoding the cut-out block
would have given: `for_model(codec, layout.some_layers(a, b))` decodes them, and a lower tier need not read the rest.

*int8*, a plane: scales (f32, little-endian), zeros up to a multiple of 16 bytes, codes, zeros up to a multiple of 16.
Scales come in the plane's order, [heads, dim] or [tokens, heads]. The scale is the largest finite magnitude / 127 and
the code is x / scale, rounded to nearest, ties to even, from -127 to 127. -128 is NaN. Infinity counts as the largest
finite magnitude of its row or channel; where nothing else is there, as the largest number of the type. Rows and
channels whose largest is under 2^-119 become zeros: the reciprocal of their scale would not fit f32. -0 becomes 0.

NaN stays NaN in every codec, and no finite number becomes infinite (`floats` says more). All arithmetic is f32 in a
fixed order, so that the kernels for GPUs (`kernels.cu`) give the same bytes, and blocks encoded here can be decoded
there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np

from zeekdb.tensors import floats
from zeekdb.tensors.floats import F32, FORMATS, PIECE, Codes, Room
from zeekdb.tensors.layout import Layout

MODELS_CACHED_MAX: Final = 256  # codecs kept ready, one for each layout in use
INT8_ALIGN: Final = 16  # bytes: GPUs read 16 at a time
LEVELS: Final = np.float32(127)
NAN_CODE: Final = -128
TINY: Final = np.float32(2.0**-119)  # 127 / TINY is finite
SCALE_MAX: Final = np.float32(float.fromhex("0x1.020406p+121"))  # largest whose 127-fold is finite

TARGETS: Final = {"fp16": "f16", "bf16": "bf16", "fp8": "f8e4m3"}
PLANES_ITEMS: Final = 1 << 18  # elements whose scales are found at a time
Piece = tuple[slice, slice, slice]
Slices = tuple[tuple[int, int], ...]
Buffer = bytes | bytearray | memoryview


class Codec(ABC):
    """One codec for one layout. Has no state: any number of threads may use it at once."""

    def __init__(self, name: str, layout: Layout) -> None:
        self.name = name
        self.layout = layout
        self.plane_bytes = tuple(self._plane_bytes(part) for part in range(layout.parts))
        self.encoded_size = layout.layers * sum(self.plane_bytes)  # bytes

    def encoded_slices(self, first: int, last: int) -> Slices:
        """Where layers from `first` to `last` (excluded) lie in an encoded block: (offset, bytes) for each part."""
        self.layout.slices(first, last)  # checks the range
        found, start = [], 0
        for plane in self.plane_bytes:
            found.append((start + first * plane, (last - first) * plane))
            start += self.layout.layers * plane
        return tuple(found)

    def encode(self, block: Buffer, out: Buffer) -> None:
        """Writes the encoded `block` to `out`; ValueError unless both have exactly the sizes of the layout."""
        self._check("block", block, self.layout.block_bytes)
        self._check("out", out, self.encoded_size)
        self._encode(np.frombuffer(block, np.uint8), np.frombuffer(out, np.uint8))

    def decode(self, data: Buffer, out: Buffer) -> None:
        """Writes the block that was encoded as `data` to `out`; ValueError as for `encode`."""
        self._check("data", data, self.encoded_size)
        self._check("out", out, self.layout.block_bytes)
        self._decode(np.frombuffer(data, np.uint8), np.frombuffer(out, np.uint8))

    @staticmethod
    def _check(what: str, buffer: Buffer, size: int) -> None:
        if (found := memoryview(buffer).nbytes) != size:
            raise ValueError(f"{what} has {found} bytes, not {size}")

    @abstractmethod
    def _plane_bytes(self, part: int) -> int: ...

    @abstractmethod
    def _encode(self, block: Codes, out: Codes) -> None: ...

    @abstractmethod
    def _decode(self, data: Codes, out: Codes) -> None: ...


class FloatCodec(Codec):
    """Each element in another floating-point format; raw is the block's own."""

    def __init__(self, name: str, layout: Layout) -> None:
        self.target = TARGETS.get(name, layout.dtype)
        super().__init__(name, layout)

    def _plane_bytes(self, part: int) -> int:
        return self.layout.plane_items * np.dtype(FORMATS[self.target].codes).itemsize

    def _encode(self, block: Codes, out: Codes) -> None:
        self._convert(self.layout.dtype, self.target, block, out)

    def _decode(self, data: Codes, out: Codes) -> None:
        self._convert(self.target, self.layout.dtype, data, out)

    @staticmethod
    def _convert(source: str, target: str, data: Codes, out: Codes) -> None:
        floats.convert(source, target, data.view(FORMATS[source].codes), out.view(FORMATS[target].codes))


class Int8Codec(Codec):
    """8-bit integers with f32 scales, by channel or by token."""

    def by_channel(self, part: int) -> bool:
        """Whether this part's scales belong to channels."""
        if self.name == "int8":
            return part == 0 and self.layout.parts == 2
        return self.name == "int8-channel"

    def plane_shape(self, part: int) -> tuple[int, int]:
        """A plane as (rows, columns), with a scale for each column (channels) or each row (tokens)."""
        layout = self.layout
        if self.by_channel(part):
            return layout.block, layout.heads * layout.dim
        return layout.block * layout.heads, layout.dim

    def scales(self, part: int) -> int:
        """How many scales a plane has."""
        return self.plane_shape(part)[1 if self.by_channel(part) else 0]

    def head_bytes(self, part: int) -> int:
        """Bytes of a plane before its codes."""
        return _aligned(self.scales(part) * 4)

    def _plane_bytes(self, part: int) -> int:
        return self.head_bytes(part) + _aligned(self.layout.plane_items)

    def _parts(self, block: Codes, data: Codes) -> Iterator[_Part]:
        """Both forms of each part, side by side."""
        start, layers = 0, self.layout.layers
        codes = block.view(FORMATS[self.layout.dtype].codes).reshape(self.layout.parts, layers, -1)
        for part, plane in enumerate(self.plane_bytes):
            encoded = data[start : start + layers * plane].reshape(layers, plane)
            yield _Part(self, part, codes[part], encoded)
            start += layers * plane

    def _encode(self, block: Codes, out: Codes) -> None:
        for part in self._parts(block, out):
            part.encode()

    def _decode(self, data: Codes, out: Codes) -> None:
        for part in self._parts(out, data):
            part.decode()


class _Part:
    """The keys, or the values, of one block: plain codes [layers, rows, columns] and their encoded planes.

    Scales are found for some planes at a time, which stay in the third cache until they have been encoded. Both steps
    go in pieces of about PIECE elements: several planes, one, or some rows of one, always contiguous in the plain
    block. Wide rows of channels are cut too; a token's are not, as DIM_MAX bounds them.
    """

    def __init__(self, codec: Int8Codec, part: int, codes: Codes, encoded: Codes) -> None:
        self.dtype = codec.layout.dtype
        self.layers = codec.layout.layers
        self.rows, self.columns = codec.plane_shape(part)
        self.by_channel = codec.by_channel(part)
        self.axis = 1 if self.by_channel else 2
        count, head, items = codec.scales(part), codec.head_bytes(part), self.rows * self.columns
        self.plain = codes.reshape(self.layers, self.rows, self.columns)
        self.codes = encoded[:, head : head + items].view(np.int8).reshape(self.plain.shape)
        self.scales = np.expand_dims(encoded[:, : 4 * count].view("<f4"), self.axis)
        self.gaps = encoded[:, 4 * count : head], encoded[:, head + items :]
        self.width = min(self.columns, PIECE) if self.by_channel else self.columns
        self.height = max(1, min(self.rows, PIECE // self.width))
        self.depth = max(1, min(self.layers, PIECE // items))
        self.room = Room(self.depth * self.height * self.width)

    def pieces(self, planes: slice) -> Iterator[tuple[Piece, Piece]]:
        """Where each piece lies in the plain planes, and where its scales do."""
        whole = slice(None)
        for some in _steps(planes, self.depth):
            for columns in _steps(slice(0, self.columns), self.width):
                for rows in _steps(slice(0, self.rows), self.height):
                    yield (some, rows, columns), (some, whole, columns) if self.by_channel else (some, rows, whole)

    def encode(self) -> None:
        """From plain to encoded."""
        for gap in self.gaps:
            gap[:] = 0
        for planes in _steps(slice(0, self.layers), max(1, PLANES_ITEMS // (self.rows * self.columns))):
            inverse, odd = self._scale(planes)
            for piece, scale in self.pieces(planes):
                self._encode_piece(piece, inverse[_behind(planes, scale)], odd)

    def _scale(self, planes: slice) -> tuple[F32, bool]:
        """Writes the scales of some planes; what to multiply with, and whether anything is not finite."""
        form = FORMATS[self.dtype]
        largest = np.zeros(self.scales[planes].shape, form.codes)
        for piece, scale in self.pieces(planes):
            top = largest[_behind(planes, scale)]
            np.maximum(top, self._magnitudes(piece).max(axis=self.axis, keepdims=True), out=top)
        infinite = np.zeros(largest.shape, bool)
        odd = bool(largest.max() >= form.infinity)
        if odd:
            largest[:] = 0
            for piece, scale in self.pieces(planes):
                where, plain = _behind(planes, scale), self._magnitudes(piece)
                infinite[where] |= (plain == form.infinity).any(axis=self.axis, keepdims=True)
                plain[plain >= form.infinity] = 0
                np.maximum(largest[where], plain.max(axis=self.axis, keepdims=True), out=largest[where])
        scales, inverse = _scales(_widened(self.dtype, largest), infinite, self.dtype)
        self.scales[planes] = scales
        return inverse, odd

    def _magnitudes(self, piece: Piece) -> Codes:
        """Codes without sign, which are ordered as the numbers are."""
        form, codes = FORMATS[self.dtype], self.plain[piece]
        plain = self.room.first.view(form.codes)[: codes.size].reshape(codes.shape)
        return np.bitwise_and(codes, form.codes(form.sign - 1), out=plain)

    def _encode_piece(self, piece: Piece, inverse: F32, odd: bool) -> None:
        codes = self.plain[piece]
        wide = self.room.second[: codes.size]
        floats.converter(self.dtype, "f32")(codes.reshape(-1), wide, self.room)
        numbers = wide.view(np.float32).reshape(codes.shape)
        if odd:
            with np.errstate(invalid="ignore"):  # signalling NaN
                nowhere = np.isnan(numbers)
                np.multiply(numbers, inverse, out=numbers)
                np.clip(numbers, -LEVELS, LEVELS, out=numbers)
            numbers[nowhere] = NAN_CODE
        else:
            np.multiply(numbers, inverse, out=numbers)
        np.rint(numbers, out=numbers)
        np.copyto(self.codes[piece], numbers, casting="unsafe")

    def decode(self) -> None:
        """From encoded to plain."""
        narrow = floats.converter("f32", self.dtype)
        for piece, scale in self.pieces(slice(0, self.layers)):
            codes = self.codes[piece]
            wide = self.room.index.view(np.uint32)[: codes.size]  # `narrow` uses the rest of the room
            numbers = wide.view(np.float32).reshape(codes.shape)
            np.copyto(numbers, codes)
            if codes.min() == NAN_CODE:
                numbers[codes == NAN_CODE] = np.nan
            np.multiply(numbers, self.scales[scale], out=numbers)
            narrow(wide, self.plain[piece].reshape(-1), self.room)


def _scales(largest: F32, infinite: Codes, dtype: str) -> tuple[F32, F32]:
    """Scales and what to multiply with, from the largest magnitudes."""
    tiny = largest < TINY
    if tiny.any():
        most = _widened(dtype, np.array(FORMATS[dtype].largest, FORMATS[dtype].codes))
        largest = np.where(tiny, np.where(infinite, most, np.float32(0)), largest)
    with np.errstate(divide="ignore"):
        inverse = np.where(largest > 0, LEVELS / largest, np.float32(0))
    return np.minimum(largest / LEVELS, SCALE_MAX), inverse


def _widened(dtype: str, codes: Codes) -> F32:
    """As f32."""
    flat = np.ascontiguousarray(codes).reshape(-1)
    out = np.empty(len(flat), np.uint32)
    floats.convert(dtype, "f32", flat, out)
    return out.view(np.float32).reshape(codes.shape)


def _aligned(size: int) -> int:
    return -(-size // INT8_ALIGN) * INT8_ALIGN


def _steps(whole: slice, step: int) -> Iterator[slice]:
    return (slice(begin, min(begin + step, whole.stop)) for begin in range(whole.start, whole.stop, step))


def _behind(planes: slice, where: Piece) -> Piece:
    """The same place in an array that begins with these planes."""
    return slice(where[0].start - planes.start, where[0].stop - planes.start), *where[1:]


@lru_cache(MODELS_CACHED_MAX)
def for_model(name: str, layout: Layout) -> Codec:
    """The codec of a model, by the name that KV.MODEL SET takes (`layout.CODECS`, which also says for which types)."""
    kind = Int8Codec if name.startswith("int8") else FloatCodec
    return kind(name, layout)


def encoded_size(name: str, layout: Layout) -> int:
    """Bytes of an encoded block."""
    return for_model(name, layout).encoded_size
