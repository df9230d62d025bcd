"""The graph behind a vector set: usearch's HNSW over rows of one codec, under keys 0 … n-1.

Chosen by `bench/vectors.py` (100,000 × 768, EF 100, one thread) over hnswlib, though hnswlib searches 32-bit floats in
0.22 ms where usearch takes 0.31 ms for int8 and 0.54 ms for floats. But floats are all that hnswlib has: 312 MiB where
int8, the default quantisation, takes 98 MiB at 1.5% of recall, which is the quantisation's and no graph wins back.
usearch also keeps bits, scans exhaustively with the same kernels, releases the GIL while it works, and comes as a wheel
where hnswlib wants a compiler. Both are far below the bar of 2 ms.

- *Exhaustive or graph.* A scan reads the rows one after the other, a graph search jumps: a unit of EF costs as much as
  scanning some 50 to 80 rows. So a search with EF >= n / 32 scans. Small sets are thereby exact, and no EF can make a
  search slower than one scan (5 ms at 100,000 × 768).
- *Removal.* usearch keeps a removed row as a waypoint until an insertion reuses its place. An emptied index is thrown
  away; one that is mostly waypoints is rebuilt by its owner.
- *Not safe for two threads at once*: usearch gives every caller that asks for one thread the same scratch space.

Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs" (2016).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from usearch.index import Index

from zeekdb.types.vector_codec import Codec, Row

Keys = npt.NDArray[np.uint64]

M_DEFAULT: Final = 16
M_MIN: Final = 4
M_MAX: Final = 4096
EF_MAX: Final = 1_000_000
EF_BUILD: Final = 200
EF_SEARCH: Final = 100
ROWS_PER_EF: Final = 32
NODE_BYTES: Final = 10 + 8 + 16  # key and level, the node's pointer, its place in the table of keys
LINK_BYTES: Final = 4


class VectorIndex:
    """Rows by key, and the keys nearest to a row."""

    __slots__ = ("_index", "codec", "dim", "m", "removed")

    def __init__(self, codec: Codec, dim: int, m: int) -> None:
        self.codec = codec
        self.dim = dim
        self.m = m
        self.removed = 0  # waypoints
        self._index: Any = self._empty()  # its stubs lack setters and have unions of all that its calls may return

    def _empty(self) -> Any:
        return Index(
            ndim=self.dim,
            metric=self.codec.metric,
            dtype=self.codec.scalar,
            connectivity=self.m,
            expansion_add=EF_BUILD,
            expansion_search=EF_SEARCH,
        )

    def __len__(self) -> int:
        return len(self._index)

    def add(self, key: int, row: Row, ef: int = EF_BUILD) -> None:
        """A row under a key that has none."""
        self._index.expansion_add = ef
        self._index.add(key, row, copy=True, threads=1)
        self.removed -= bool(self.removed)

    def remove(self, key: int) -> None:
        """The row of a key that has one."""
        self._index.remove(key, threads=1)
        self.removed += 1
        if not len(self._index):
            self._index = self._empty()
            self.removed = 0

    def rename(self, old: int, new: int) -> None:
        """Give the row of `old` to `new`, which has none."""
        self._index.rename(old, new)

    def row(self, key: int) -> Row:
        """The row of a key that has one."""
        found: Row = self._index.get(key)
        return found.view(self.codec.dtype())

    def rows(self, count: int) -> Row:
        """The rows of keys 0 … count-1, one below the other."""
        found = np.stack(self._index.get(np.arange(count, dtype=np.uint64)))
        return found.view(self.codec.dtype())

    def nearest(self, row: Row, count: int, ef: int, exact: bool = False) -> tuple[Keys, npt.NDArray[np.float32]]:
        """Up to `count` keys, nearest first, and their distances in the index's own terms."""
        size = len(self._index)
        count = min(count, size)
        if not count:
            return np.empty(0, np.uint64), np.empty(0, np.float32)
        ef = max(ef, count)
        exact = exact or ef * ROWS_PER_EF >= size
        if not exact:
            self._index.expansion_search = ef
        found = self._index.search(row, count, exact=exact, threads=1)
        return found.keys, found.distances

    @property
    def max_level(self) -> int:
        """The graph's highest layer."""
        return max(int(self._index.max_level), 0)

    def memory(self) -> int:
        """Bytes, estimated: the library counts whole arenas."""
        links = (2 * self.m + 1) * LINK_BYTES + (self.m + 1) * LINK_BYTES // (self.m - 1)
        return (len(self._index) + self.removed) * (self.codec.row_bytes(self.dim) + NODE_BYTES + links)

    def copy(self) -> VectorIndex:
        """A deep copy."""
        twin = VectorIndex.__new__(VectorIndex)
        twin.codec, twin.dim, twin.m, twin.removed = self.codec, self.dim, self.m, self.removed
        twin._index = self._index.copy()
        return twin

    def dump(self) -> bytes:
        """Rows and graph in usearch's format."""
        return bytes(self._index.save())

    def load(self, data: bytes, removed: int) -> None:
        """Take over what `dump` gave. The library trusts it: `vector_dump` checks it before."""
        try:
            self._index.load(data)
        except RuntimeError as error:
            raise ValueError(str(error)) from None
        self.removed = removed

    def close(self) -> None:
        """Give the memory back now."""
        self._index.reset()
