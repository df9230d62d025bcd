"""How a vector set keeps its vectors: normalised and, unless asked otherwise, quantised.

| quantisation | a component | distance in the index | error |
|---|---|---|---|
| Q8 (`int8`) | -127 … 127 times range/127; range: the largest one of the unit vector | cosine | range/254 |
| NOQUANT (`f32`) | 32-bit float | 1 - dot product | rounding |
| BIN (`bin`) | its sign, one bit | Hamming | all but the sign |

Each vector has a range of its own: 768 components of a unit vector are about 0.036 each, so that a common range of 1
would leave nine levels. The index compares cosines, which do not see the ranges. Beside the row stand the L2 norm the
vector came with and, for Q8, the range, so that VEMB gives it back as it was.

Distances leave here as 1 - cosine, from 0 to 2, for all three; BIN estimates the cosine by the share of equal signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Row = npt.NDArray[Any]

DIM_MAX: Final = 1 << 16
Q8_MAX: Final = 127
RAW_WORD_BYTES: Final = 8  # VEMB RAW gives whole 64-bit words of a bitmap


class Encoded(NamedTuple):
    """A vector as it is stored."""

    row: Row
    norm: float  # L2, before the vector was normalised
    range: float  # Q8: what 127 stands for in the unit vector; 0 otherwise


@dataclass(frozen=True)
class Codec:
    """One quantisation. `name` is VINFO's word, `scalar` and `metric` are the index library's."""

    code: int  # in serialised sets: do not renumber
    name: str
    scalar: str
    metric: str

    def dtype(self) -> np.dtype[Any]:
        """Of rows."""
        return np.dtype({"f32": np.float32, "i8": np.int8, "b1": np.uint8}[self.scalar])

    def row_length(self, dim: int) -> int:
        """Items of a row."""
        return (dim + 7) // 8 if self.scalar == "b1" else dim

    def row_bytes(self, dim: int) -> int:
        """Bytes of a row."""
        return self.row_length(dim) * self.dtype().itemsize

    def encode(self, values: Floats) -> Encoded:
        """Normalise and quantise. ValueError for what has no finite norm."""
        wide = values.astype(np.float64)
        norm = float(np.sqrt(wide @ wide))
        if not math.isfinite(norm) or norm > float(np.finfo(np.float32).max):
            raise ValueError("not a finite vector")
        if self.scalar == "b1":
            return Encoded(np.packbits(values > 0, bitorder="little"), norm, 0.0)
        if self.scalar == "f32":
            return Encoded((wide / (norm or 1.0)).astype(np.float32), norm, 0.0)
        largest = float(np.abs(wide).max())
        if not largest:
            return Encoded(np.zeros(len(values), np.int8), 0.0, 0.0)
        return Encoded(np.rint(wide * (Q8_MAX / largest)).astype(np.int8), norm, largest / norm)

    def decode(self, stored: Encoded, dim: int) -> Floats:
        """The vector as it came, as far as the row tells; BIN tells -1 or 1 for each component."""
        if self.scalar == "b1":
            bits = np.unpackbits(stored.row, count=dim, bitorder="little")
            return bits.astype(np.float32) * 2 - 1
        scale = stored.norm if self.scalar == "f32" else stored.norm * stored.range / Q8_MAX
        decoded: Floats = (stored.row * np.float64(scale)).astype(np.float32)
        return decoded

    def raw(self, row: Row) -> bytes:
        """The row as VEMB RAW shows it."""
        data = row.tobytes()
        return data + bytes(-len(data) % RAW_WORD_BYTES) if self.scalar == "b1" else data

    def cosine_distance(self, distance: float, dim: int) -> float:
        """The index's distance as 1 - cosine, rounding errors beyond the ends cut off."""
        if self.scalar == "b1":
            distance = distance * 2 / dim
        return min(max(distance, 0.0), 2.0)


Q8: Final = Codec(1, "int8", "i8", "cos")
NOQUANT: Final = Codec(0, "f32", "f32", "ip")
BIN: Final = Codec(2, "bin", "b1", "hamming")
BY_CODE: Final = {codec.code: codec for codec in (Q8, NOQUANT, BIN)}


# --- REDUCE -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _signs(count: int) -> Floats:
    """±1 for every place, the same in every process: the top bit of splitmix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.where(x >> np.uint64(63), np.float32(1), np.float32(-1))


def project(values: Floats, dim: int) -> Floats:
    """A random projection to `dim` components (dim <= len(values)) that nearly keeps angles and needs no matrix.

    Signs are flipped at random, the components added up modulo a power of two, and the sums mixed by a fast
    Walsh-Hadamard transform, of which the first `dim` are kept: Johnson and Lindenstrauss's lemma with O(n log n) work
    (Ailon and Chazelle 2009). A matrix of 65,536 × 65,536 floats, which a client could ask for, would be 16 GiB.
    """
    size = 1 << (dim - 1).bit_length()
    padded = np.zeros(-(-len(values) // size) * size, np.float32)
    padded[: len(values)] = values * _signs(len(values))
    mixed = padded.reshape(-1, size).sum(axis=0)
    width = 1
    while width < size:
        pairs = mixed.reshape(-1, 2, width)
        mixed = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1).reshape(size)
        width *= 2
    projected: Floats = (mixed[:dim] / np.float32(math.sqrt(len(values)))).astype(np.float32)
    return projected
