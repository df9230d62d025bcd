"""A vector set as bytes, for DUMP, RESTORE and snapshots: little-endian throughout.

    head        magic, quantisation, form, M, dimension, input dimension, elements, insertions so far
    names       a length (u32) each, then the bytes
    attributes  the same; length 0: none
    norms       f32 each
    ranges      f32 each
    index       form GRAPH: the index library's own format, rows and links; form ROWS: the rows in the order of keys

The bytes may come from a client by RESTORE, and the library follows the numbers in its format without looking. So
`check_graph` reads it first, whole: sizes, levels, keys, and that every link leads to a node which exists on the
link's level. A format that it does not know is not written in the first place, but form ROWS, so that a newer library
costs time (an insertion for each element when loading) and not data.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zeekdb.types.vector_codec import BY_CODE, DIM_MAX, Codec, Row
from zeekdb.types.vector_index import M_MAX, M_MIN, VectorIndex

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]

MAGIC: Final = b"ZVS\x01"
ROWS: Final = 0
GRAPH: Final = 1
ELEMENTS_MAX: Final = 1 << 31
LEVEL_MAX: Final = 64
UNIT_ERROR_MAX: Final = 1e-3  # how far a 32-bit row may be from a unit vector

_HEAD: Final = struct.Struct("<4sBBHIIQQ")
_SHAPE: Final = struct.Struct("<II")
_FORMAT: Final = struct.Struct("<7sHHHBBBBQQQB")  # usearch: magic, version, kinds, present, deleted, dimensions, multi
_FORMAT_BYTES: Final = 64
_GRAPH_HEAD: Final = struct.Struct("<QQQQQ")  # nodes, M, M of the lowest layer, highest level, entry
_METRICS: Final = {"cos": ord("c"), "ip": ord("i"), "hamming": ord("b")}
_SCALARS: Final = {"f32": 11, "i8": 23, "b1": 1}
_KEY_BYTES: Final = 10  # key and level
_LINK_BYTES: Final = 4
_SAMPLE_ROWS: Final = 64  # enough for a second level
_FREE_KEY: Final = (1 << 64) - 1


class Parts(NamedTuple):
    """What a set is made of."""

    codec: Codec
    m: int
    dim: int
    input_dim: int
    added: int
    names: list[bytes]
    attributes: list[bytes]  # b"" for none
    norms: bytes
    ranges: bytes
    form: int
    body: bytes  # the index


def pack(parts: Parts) -> bytes:
    """All of it as one string."""
    head = _HEAD.pack(
        MAGIC, parts.codec.code, parts.form, parts.m, parts.dim, parts.input_dim, len(parts.names), parts.added
    )
    return b"".join((head, *_texts(parts.names), *_texts(parts.attributes), parts.norms, parts.ranges, parts.body))


def _texts(texts: list[bytes]) -> tuple[bytes, bytes]:
    return np.array([len(text) for text in texts], "<u4").tobytes(), b"".join(texts)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.place:
            raise ValueError("cut short")
        self.place += size
        return self.data[self.place - size : self.place]

    def texts(self, count: int) -> list[bytes]:
        lengths = np.frombuffer(self.take(4 * count), "<u4")
        ends = np.cumsum(lengths, dtype=np.int64)
        whole = self.take(int(ends[-1]))
        return [whole[end - size : end] for end, size in zip(ends.tolist(), lengths.tolist(), strict=True)]

    def floats(self, count: int) -> bytes:
        data = self.take(4 * count)
        numbers = np.frombuffer(data, "<f4")
        if not (np.isfinite(numbers) & (numbers >= 0)).all():
            raise ValueError("no length of a vector")
        return data


def unpack(data: bytes) -> Parts:
    """What `pack` was given. ValueError for anything that it cannot have written; the index is still to be checked."""
    reader = _Reader(data)
    magic, code, form, m, dim, input_dim, count, added = _HEAD.unpack(reader.take(_HEAD.size))
    codec = BY_CODE.get(code)
    if magic != MAGIC or codec is None or form not in (ROWS, GRAPH) or not M_MIN <= m <= M_MAX:
        raise ValueError("not a vector set")
    if not 0 < dim <= DIM_MAX or (input_dim and not dim <= input_dim <= DIM_MAX):
        raise ValueError("dimensions out of range")
    if not 0 < count <= min(ELEMENTS_MAX, len(data)):
        raise ValueError("more elements than bytes")
    names = reader.texts(count)
    attributes = reader.texts(count)
    if len(set(names)) != count:
        raise ValueError("an element twice")
    norms, ranges = reader.floats(count), reader.floats(count)
    return Parts(
        codec, m, dim, input_dim, added, names, attributes, norms, ranges, form, reader.take(len(data) - reader.place)
    )


def check_rows(parts: Parts) -> Row:
    """The rows of form ROWS, one below the other. ValueError unless they are all there and sound."""
    length = parts.codec.row_length(parts.dim)
    if len(parts.body) != len(parts.names) * parts.codec.row_bytes(parts.dim):
        raise ValueError("rows cut short")
    rows: Row = np.frombuffer(parts.body, parts.codec.dtype()).reshape(-1, length)
    _check_values(parts.codec, rows)
    return rows


def _check_values(codec: Codec, rows: Row) -> None:
    if codec.scalar != "f32":
        return
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        unit = np.abs(squares - 1) <= UNIT_ERROR_MAX
    if not (unit | (squares == 0)).all():
        raise ValueError("a row that is no unit vector")


@cache
def graphs_are_known(codec: Codec) -> bool:
    """Whether what the installed library writes is what `check_graph` reads."""
    sample = VectorIndex(codec, 8, M_MIN)
    for key in range(_SAMPLE_ROWS):
        sample.add(key, codec.encode(np.arange(key, key + 8, dtype=np.float32) - 4).row)
    sample.remove(_SAMPLE_ROWS - 1)
    try:
        return check_graph(codec, 8, M_MIN, len(sample), sample.dump()) == 1
    except ValueError:
        return False


def check_graph(codec: Codec, dim: int, m: int, count: int, data: bytes) -> int:
    """How many removed rows the index of `count` elements still holds. ValueError unless it is sound throughout."""
    reader = _Reader(data)
    size, width = _SHAPE.unpack(reader.take(_SHAPE.size))
    if width != codec.row_bytes(dim) or size < count:
        raise ValueError("another shape")
    rows = np.frombuffer(reader.take(size * width), codec.dtype()).reshape(size, -1)
    _check_values(codec, rows)
    head = _FORMAT.unpack(reader.take(_FORMAT_BYTES)[: _FORMAT.size])
    kinds = (_METRICS[codec.metric], _SCALARS[codec.scalar], 14, 15)  # keys of 64 bits, places of 32
    if head[0] != b"usearch" or head[4:8] != kinds or head[8:] != (count, size - count, dim, 0):
        raise ValueError("another format")
    nodes, links, base_links, level_max, entry = _GRAPH_HEAD.unpack(reader.take(_GRAPH_HEAD.size))
    levels = np.frombuffer(reader.take(2 * size), "<i2").astype(np.int64)
    if (nodes, links, base_links) != (size, m, 2 * m) or (levels < 0).any() or level_max > LEVEL_MAX:
        raise ValueError("another graph")
    if entry >= size or level_max != levels[entry] or level_max != levels.max():
        raise ValueError("no entry to the graph")
    _check_nodes(m, count, levels, np.frombuffer(reader.take(len(data) - reader.place), np.uint8))
    return int(size - count)


def _check_nodes(m: int, count: int, levels: Numbers, tape: Bytes) -> None:
    base_bytes = _LINK_BYTES * (1 + 2 * m)
    layer_bytes = _LINK_BYTES * (1 + m)
    sizes = _KEY_BYTES + base_bytes + levels * layer_bytes
    if int(sizes.sum()) != len(tape):
        raise ValueError("nodes cut short")
    begins = np.cumsum(sizes) - sizes
    keys = _gather(tape, begins, 8, "<u8")[:, 0]
    if not (_gather(tape, begins + 8, 2, "<i2")[:, 0] == levels).all():
        raise ValueError("levels that differ")
    live = np.sort(keys[keys != _FREE_KEY])
    if len(live) != count or (live != np.arange(count, dtype=np.uint64)).any():
        raise ValueError("keys that are not 0 and up")
    for level in range(int(levels.max()) + 1):
        on_level = levels >= level
        begin = begins[on_level] + _KEY_BYTES
        if level:
            begin = begin + base_bytes + (level - 1) * layer_bytes
        _check_links(_gather(tape, begin, layer_bytes if level else base_bytes, "<u4"), on_level)


def _gather(tape: Bytes, begins: Numbers, size: int, dtype: str) -> Numbers:
    """`size` bytes from each beginning, as rows of numbers."""
    found: Numbers = tape[begins[:, None] + np.arange(size)].view(dtype)
    return found


def _check_links(lists: Numbers, on_level: Numbers) -> None:
    """Lists of a count and that many links, which lead to nodes of the level."""
    counts = lists[:, 0].astype(np.int64)
    if (counts >= lists.shape[1]).any():
        raise ValueError("more links than fit")
    links = lists[:, 1:][np.arange(lists.shape[1] - 1) < counts[:, None]]
    if (links >= len(on_level)).any() or not on_level[links].all():
        raise ValueError("a link to nowhere")
