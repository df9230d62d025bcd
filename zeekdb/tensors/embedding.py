"""The vector of a context, made of the keys in its blocks.

    block → keys of up to four layers → mean over the block's tokens → signed square root → each head to length one
          → random projection to `dim` numbers → sum over the context's blocks from the first on → length one

*What it keeps.* The mean of a head's keys says which keys there were, not in which order: contexts with the same
passages, words or manner come out near each other, wherever in the context these stand. Contexts with a common prefix
share the contributions of its blocks exactly. *What it loses*: order, negation, rare words among many others, and
whatever the model keeps in its values. It warms tiers and finds duplicates; it decides nothing.

*Rotary positions.* Keys are kept rotated (Su et al., arXiv:2104.09864): pair i of a head at position p is turned by
p·θ^(-2i/d). Over a block of 256 tokens pairs that turn fast cancel to the size of noise, slow ones stay. To turn them
back one would have to know the model's θ, its scaling and which dimensions are pairs; a layout does not say. Measured
(`python bench/vectors_tier.py --parts embedding`), turning back finds topics as well (trained weights) or somewhat
better (random ones), and prefixes worse with both: there, what is left of the fast pairs is as good as a signature. So
the rotated mean is taken as it is.

*The square root* (Perronnin, Sánchez, Mensink, ECCV 2010, power normalisation) takes weight from the few channels of
keys that are large at all tokens (Liu et al., KIVI, arXiv:2402.02750) and would make all contexts alike; lengths per
head do so for heads and layers. *The layers* are from a third to five sixths of the depth: the first ones know single
tokens only, the last ones the next token.

*The projection* keeps angles within an error of about 1/√dim (Johnson and Lindenstrauss, 1984); it is Achlioptas's of
signs (J. Comput. Syst. Sci. 66, 2003) in the sparse form of Kane and Nelson (J. ACM 61, 2014): each number goes, with a
sign, to one of the outputs in each of SPREAD ranges. Ranges, outputs and signs come from SplitMix64 (Steele, Lea,
Flood, OOPSLA 2014) with a fixed seed: the same keys give the same vector on every machine, to the rounding of float32.
It is linear, so `dim` numbers are all that a context needs to go on.

Elements that are NaN count as 0; where one is infinite, or too large to be summed up, none counts for more than
LARGEST.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from zeekdb.tensors import floats
from zeekdb.tensors.codecs import for_model
from zeekdb.tensors.floats import FORMATS
from zeekdb.tensors.layout import Layout

VERSION: Final = 1  # of all that is said above: vectors of two versions have nothing to do with each other
LAYERS_MAX: Final = 4
SPREAD: Final = 8
SEED: Final = 0x5A_45_45_4B
LARGEST: Final = 1e4
FEATURES_MAX: Final = 1 << 18  # numbers of a block that are projected: 14 MiB of tables
TABLES_CACHED_MAX: Final = 8
Vector = npt.NDArray[np.float64]


class Finished(NamedTuple):
    """A context's vector as engines keep it."""

    vector: bytes  # dim little-endian float32, of length one
    norm: float  # what it was divided by: vector × norm goes on with the blocks that follow


def layers_of(layers: int) -> tuple[int, ...]:
    """Those whose keys are pooled."""
    first = layers / 3
    last = max(layers * 5 / 6 - 1, first)
    return tuple(sorted({int(each) for each in np.linspace(first, last, LAYERS_MAX)}))


class Embedder:
    """Of one layout, the codec its blocks are kept with, and a number of dimensions. Safe in threads."""

    def __init__(self, layout: Layout, codec: str, dim: int) -> None:
        self.layout = layout
        self.dim = dim
        self.layers = layers_of(layout.layers)
        self._codec = for_model(codec, layout) if codec != "raw" else None
        self.block_bytes = self._codec.encoded_size if self._codec is not None else layout.block_bytes

    def block(self, data: Any) -> Vector:
        """What a block, `block_bytes` as they are kept, adds to its context: float64[dim]."""
        with memoryview(data) as view:
            if view.nbytes != self.block_bytes:
                raise ValueError(f"a block has {self.block_bytes} bytes, not {view.nbytes}")
            pooled = np.concatenate([self.pooled(view.cast("B"), layer) for layer in self.layers])
        heads = self.powered(pooled).reshape(-1, self.layout.dim)
        lengths = np.linalg.norm(heads, axis=1, keepdims=True)
        features = np.divide(heads, lengths, out=np.zeros_like(heads), where=lengths > 0).reshape(-1)
        outputs, signs = projection(len(features), self.dim)
        sums = np.bincount(outputs, weights=(signs * features).reshape(-1), minlength=self.dim)
        return sums.astype(np.float64, copy=False)

    @staticmethod
    def powered(pooled: Vector) -> Vector:
        """The signed square root."""
        return np.sign(pooled) * np.sqrt(np.abs(pooled))

    def pooled(self, view: memoryview, layer: int) -> Vector:
        """The mean of a layer's keys: float64[heads × dim]."""
        keys = self.keys(view, layer)
        with np.errstate(over="ignore", invalid="ignore"):
            total = keys.sum(axis=0)
        if not np.isfinite(total).all():  # rare, and looking at each number first would take longer than the sum
            np.nan_to_num(keys, copy=False, nan=0.0, posinf=LARGEST, neginf=-LARGEST)
            total = np.clip(keys, -LARGEST, LARGEST).sum(axis=0)
        return np.asarray(total, np.float64) / len(keys)

    def keys(self, view: memoryview, layer: int) -> npt.NDArray[np.float32]:
        """A layer's keys: [tokens, heads × dim]."""
        layout = self.layout
        plane = self._codes(view, layer)
        wide = np.empty(len(plane), np.uint32)
        floats.convert(layout.dtype, "f32", plane, wide)
        return wide.view(np.float32).reshape(layout.block, -1)

    def _codes(self, view: memoryview, layer: int) -> npt.NDArray[Any]:
        """A layer's keys as codes of the layout's dtype; the block's own memory where it is kept as it came."""
        codes = FORMATS[self.layout.dtype].codes
        if self._codec is None:
            begin, size = self.layout.slices(layer, layer + 1)[0]
            return np.frombuffer(view, codes, size // np.dtype(codes).itemsize, begin)
        one = for_model(self._codec.name, self.layout.some_layers(layer, layer + 1))
        spans = self._codec.encoded_slices(layer, layer + 1)
        plain = bytearray(one.layout.block_bytes)
        one.decode(b"".join(view[begin : begin + size] for begin, size in spans), plain)
        return np.frombuffer(plain, codes, self.layout.plane_items)

    def nothing(self) -> Vector:
        """The sum of no blocks."""
        return np.zeros(self.dim)


def finished(total: Vector) -> Finished | None:
    """The vector of the blocks whose contributions `total` is the sum of; None: there is nothing in them."""
    norm = float(np.linalg.norm(total))
    if not norm:
        return None
    return Finished((total / norm).astype("<f4").tobytes(), norm)


def resumed(vector: bytes, norm: float) -> Vector:
    """The sum that a finished vector came from, to the rounding of float32."""
    return np.frombuffer(vector, "<f4").astype(np.float64) * norm


@lru_cache(maxsize=TABLES_CACHED_MAX * 32)
def embedder(layout: Layout, codec: str, dim: int) -> Embedder | None:
    """None: a token's keys of this layout are too many numbers."""
    if len(layers_of(layout.layers)) * layout.heads * layout.dim > FEATURES_MAX:
        return None
    return Embedder(layout, codec, dim)


@lru_cache(maxsize=TABLES_CACHED_MAX)
def projection(features: int, dim: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Where each number goes, int32[SPREAD × features], and with which factor, float32[SPREAD, features]."""
    random = _splitmix(np.arange(SPREAD * features, dtype=np.uint64)).reshape(SPREAD, features)
    edges = np.arange(SPREAD + 1, dtype=np.uint64) * np.uint64(dim) // np.uint64(SPREAD)
    widths = np.diff(edges)[:, None]
    outputs = edges[:-1, None] + (random >> np.uint64(1)) % widths
    signs = np.where(random & np.uint64(1), 1.0, -1.0).astype(np.float32) / np.float32(np.sqrt(SPREAD))
    return outputs.astype(np.int32).reshape(-1), signs


def _splitmix(counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The SplitMix64 numbers of these places in the sequence that SEED begins."""
    mixed = (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
