"""Vector sets: named elements with a vector each, found by how alike they are.

The vectors live in the index alone (`vector_index`), under keys 0 … n-1 without holes: whoever removes element k gives
k to the last one. All that is known of an element beside its vector stands at place k of lists: its name, the norm and
the Q8 range of its vector. Names are also kept sorted, for VRANGE. Attributes are JSON as the client sent it, parsed
when a filter looks at them.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Generator, Iterable
from typing import Any, Final, NamedTuple

from sortedcontainers import SortedList

from zeekdb.types import vector_dump
from zeekdb.types.vector_codec import Codec, Encoded, Floats, Row, project
from zeekdb.types.vector_filter import Filter, parse_attributes
from zeekdb.types.vector_index import EF_BUILD, VectorIndex

ELEMENT_BYTES: Final = 8 + 8 + 33 + 8 + 104 + 28  # two floats, place, a bytes header, sorted place, dict slot, int
ATTRIBUTE_BYTES: Final = 33 + 104
JUDGED_PER_SLICE: Final = 500  # some 2 ms
FILTER_GROWTH: Final = 4  # how much wider a filtered search looks when it has not found enough

_last_uid = 0


def _next_uid() -> int:
    global _last_uid
    _last_uid += 1
    return _last_uid


class Match(NamedTuple):
    """An element and its distance from the query: 1 - cosine, 0 to 2."""

    name: bytes
    distance: float

    @property
    def score(self) -> float:
        """1 for the same direction, 0 for the opposite."""
        return 1.0 - self.distance / 2


class VectorSet:
    """Elements of one dimension and one quantisation."""

    __slots__ = (
        "__weakref__", "_attributes", "_bytes", "_index", "_key", "_names", "_norms", "_ranges", "_sorted", "added",
        "codec", "dim", "input_dim", "m", "uid",
    )  # fmt: skip
    type_name: Final = "vectorset"
    encoding: Final = "raw"

    def __init__(self, codec: Codec, dim: int, m: int, input_dim: int = 0) -> None:
        """`input_dim` is what clients send where that is reduced to `dim`, 0 where it is not."""
        self.codec = codec
        self.dim = dim
        self.m = m
        self.input_dim = input_dim
        self.uid = _next_uid()
        self.added = 0  # insertions so far, updates included
        self._index = VectorIndex(codec, dim, m)
        self._key: dict[bytes, int] = {}
        self._names: list[bytes] = []
        self._norms = array("f")
        self._ranges = array("f")
        self._sorted: SortedList[bytes] = SortedList()
        self._attributes: dict[bytes, bytes] = {}
        self._bytes = 0  # of names and attributes

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: bytes) -> bool:
        return name in self._key

    def __sizeof__(self) -> int:
        """Bytes, estimated, index included."""
        return (
            object.__sizeof__(self)
            + self._index.memory()
            + len(self._names) * ELEMENT_BYTES
            + len(self._attributes) * ATTRIBUTE_BYTES
            + self._bytes
        )

    # --- writing --------------------------------------------------------------------------------------------------

    def prepare(self, values: Floats) -> Encoded:
        """A client's vector as this set stores it. ValueError when it has no finite norm."""
        if self.input_dim and len(values) != self.dim:
            values = project(values, self.dim)
        return self.codec.encode(values)

    def add(self, name: bytes, stored: Encoded, ef: int = EF_BUILD) -> bool:
        """Insert an element or give it a new vector; whether it is new."""
        key = self._key.get(name)
        fresh = key is None
        if key is None:
            key = len(self._names)
            self._index.add(key, stored.row, ef)
            self._key[name] = key
            self._names.append(name)
            self._norms.append(stored.norm)
            self._ranges.append(stored.range)
            self._sorted.add(name)
            self._bytes += len(name)
        else:
            self._index.remove(key)
            self._index.add(key, stored.row, ef)
            self._norms[key] = stored.norm
            self._ranges[key] = stored.range
        self.added += 1
        return fresh

    def remove(self, name: bytes) -> bool:
        """Whether the element was there."""
        key = self._key.pop(name, None)
        if key is None:
            return False
        self._index.remove(key)
        last = len(self._names) - 1
        if key != last:
            self._index.rename(last, key)
            moved = self._names[last]
            self._key[moved] = key
            self._names[key] = moved
            self._norms[key] = self._norms[last]
            self._ranges[key] = self._ranges[last]
        self._names.pop()
        self._norms.pop()
        self._ranges.pop()
        self._sorted.remove(name)
        self._bytes -= len(name) + len(self._attributes.pop(name, b""))
        return True

    def set_attributes(self, name: bytes, text: bytes) -> bool:
        """Keep the text with an element, or with b"" none any more; whether the element is there."""
        if name not in self._key:
            return False
        self._bytes += len(text) - len(self._attributes.pop(name, b""))
        if text:
            self._attributes[name] = text
        return True

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def attribute_count(self) -> int:
        """Elements with attributes."""
        return len(self._attributes)

    @property
    def max_level(self) -> int:
        """The graph's highest layer."""
        return self._index.max_level

    def attributes(self, name: bytes) -> bytes | None:
        """The text as it was set; None without."""
        return self._attributes.get(name)

    def stored(self, name: bytes) -> Encoded | None:
        """The element's vector in the set's own form; None without the element."""
        key = self._key.get(name)
        if key is None:
            return None
        return Encoded(self._index.row(key), self._norms[key], self._ranges[key])

    def sample(self, count: int) -> list[bytes]:
        """Elements drawn at random, each at most once."""
        return random.sample(self._names, min(count, len(self._names)))

    def draw(self, count: int) -> list[bytes]:
        """Elements drawn at random, repetitions allowed. The set is not empty."""
        return random.choices(self._names, k=count)

    def between(
        self, low: bytes | None, high: bytes | None, inclusive: tuple[bool, bool], count: int
    ) -> Iterable[bytes]:
        """Names in the order of their bytes, None for no bound; at most `count` where that is not negative."""
        start = 0
        if low is not None:
            start = self._sorted.bisect_left(low) if inclusive[0] else self._sorted.bisect_right(low)
        stop = len(self._sorted)
        if high is not None:
            stop = self._sorted.bisect_right(high) if inclusive[1] else self._sorted.bisect_left(high)
        if count >= 0:
            stop = min(stop, start + count)
        found: Iterable[bytes] = self._sorted.islice(start, max(start, stop))
        return found

    # --- searching ------------------------------------------------------------------------------------------------

    def nearest(self, row: Row, count: int, ef: int, exact: bool = False) -> list[Match]:
        """The elements most like a row of `prepare` or `stored`, most alike first."""
        keys, distances = self._index.nearest(row, count, ef, exact)
        names, convert, dim = self._names, self.codec.cosine_distance, self.dim
        return [
            Match(names[key], convert(distance, dim))
            for key, distance in zip(keys.tolist(), distances.tolist(), strict=True)
        ]

    def nearest_matching(
        self, row: Row, count: int, ef: int, wanted: Filter, effort: int, exact: bool = False
    ) -> Generator[None, None, list[Match]]:
        """The same among the elements that pass a filter, looking at no more than `effort` of them (0: all).

        The graph cannot be searched under a condition, so ever more neighbours are fetched until enough have passed;
        each is judged once. Yields after every JUDGED_PER_SLICE of them: the set may change meanwhile.
        """
        verdicts: dict[bytes, bool] = {}
        look = max(ef, count)
        while self._attributes:
            limit = len(self) if exact else min(len(self), effort or len(self))
            look = limit if exact else min(limit, look)
            passed: list[Match] = []
            keys, distances = self._index.nearest(row, look, ef, exact)
            names = [self._names[key] for key in keys.tolist()]  # keys change hands when elements are removed
            for name, distance in zip(names, distances.tolist(), strict=True):
                verdict = verdicts.get(name)
                if verdict is None:
                    verdict = verdicts[name] = self._passes(name, wanted)
                    if not len(verdicts) % JUDGED_PER_SLICE:
                        yield
                if verdict:
                    passed.append(Match(name, self.codec.cosine_distance(distance, self.dim)))
                    if len(passed) == count:
                        return passed
            if look >= limit:
                return passed
            look *= FILTER_GROWTH
        return []

    def _passes(self, name: bytes, wanted: Filter) -> bool:
        text = self._attributes.get(name)
        if text is None:
            return False
        fields: dict[str, Any] | None = parse_attributes(text)
        return fields is not None and wanted.matches(fields)

    def neighbours(self, name: bytes) -> list[Match]:
        """The elements nearest to one, as many as the graph's lowest layer may link it with. The name is there."""
        stored = self.stored(name)
        assert stored is not None
        count = 2 * self.m
        return [match for match in self.nearest(stored.row, count + 1, EF_BUILD) if match.name != name][:count]

    # --- whole sets -----------------------------------------------------------------------------------------------

    def copy(self) -> VectorSet:
        """A deep copy with an identity of its own."""
        twin = VectorSet(self.codec, self.dim, self.m, self.input_dim)
        twin.added = self.added
        twin._index = self._index.copy()
        twin._key = self._key.copy()
        twin._names = self._names.copy()
        twin._norms = self._norms[:]
        twin._ranges = self._ranges[:]
        twin._sorted = self._sorted.copy()
        twin._attributes = self._attributes.copy()
        twin._bytes = self._bytes
        return twin

    def to_bytes(self) -> bytes:
        """The whole set; see `vector_dump`. The set is not empty."""
        if vector_dump.graphs_are_known(self.codec):
            form, index = vector_dump.GRAPH, self._index.dump()
        else:
            form, index = vector_dump.ROWS, self._index.rows(len(self)).tobytes()
        return vector_dump.pack(
            vector_dump.Parts(
                self.codec, self.m, self.dim, self.input_dim, self.added, self._names,
                [self._attributes.get(name, b"") for name in self._names], self._norms.tobytes(),
                self._ranges.tobytes(), form, index,
            )
        )  # fmt: skip

    @staticmethod
    def from_bytes(data: bytes) -> VectorSet:
        """What `to_bytes` gave. ValueError for anything else, whoever wrote it."""
        parts = vector_dump.unpack(data)
        made = VectorSet(parts.codec, parts.dim, parts.m, parts.input_dim)
        if parts.form == vector_dump.GRAPH:
            count = len(parts.names)
            removed = vector_dump.check_graph(parts.codec, parts.dim, parts.m, count, parts.body)
            made._index.load(parts.body, removed)
        else:
            for key, row in enumerate(vector_dump.check_rows(parts)):
                made._index.add(key, row)
        made.added = parts.added
        made._names = parts.names
        made._key = {name: key for key, name in enumerate(parts.names)}
        made._norms.frombytes(parts.norms)
        made._ranges.frombytes(parts.ranges)
        made._sorted.update(parts.names)
        made._attributes = {
            name: text for name, text in zip(parts.names, parts.attributes, strict=True) if text
        }
        made._bytes = sum(map(len, parts.names)) + sum(map(len, parts.attributes))
        return made
