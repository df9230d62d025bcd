"""A histogram of durations: logarithmic buckets, each power of two cut into eight.

The layout is fixed so that the hot room can count into a plain array (`buckets[index_of(ns)] += 1`): a duration v below
8 ns has bucket v; above, with e = floor(log2 v), bucket (e - 2) * 8 + the three bits that follow v's highest one. A
bucket is at most 1/8 wide relative to its start, which bounds the error of a percentile to 12.5%, at 272 counters a
histogram. HdrHistogram with two digits would bound it to 1%, at several times the memory that a command touches.
Beyond 2**36 ns (68 s) everything falls in the last bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SUB_BITS = 3
SUB = 1 << SUB_BITS
EXPONENT_MAX = 35
BUCKETS = (EXPONENT_MAX - SUB_BITS + 2) * SUB  # 272


def index_of(ns: int) -> int:
    """The bucket of a duration in nanoseconds."""
    if ns < SUB:
        return max(ns, 0)
    exponent = ns.bit_length() - 1
    if exponent > EXPONENT_MAX:
        return BUCKETS - 1
    return ((exponent - SUB_BITS + 1) << SUB_BITS) | ((ns >> (exponent - SUB_BITS)) & (SUB - 1))


def upper_bound(index: int) -> int:
    """The longest duration, in nanoseconds, that falls in a bucket."""
    if index < SUB:
        return index
    exponent = (index >> SUB_BITS) + SUB_BITS - 1
    return ((SUB + (index & (SUB - 1)) + 1) << (exponent - SUB_BITS)) - 1


class Histogram:
    """Counts per bucket; `buckets` may be a view of an array that the hot room counts into."""

    __slots__ = ("buckets",)

    def __init__(self, buckets: Sequence[int] | None = None) -> None:
        self.buckets: Sequence[int] = [0] * BUCKETS if buckets is None else buckets

    def record(self, ns: int, count: int = 1) -> None:
        """Count a duration in nanoseconds."""
        self.buckets[index_of(ns)] += count  # type: ignore[index]  # a list, or a writable view

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.buckets)

    def percentiles(self, wanted: Iterable[float]) -> list[int]:
        """The durations in nanoseconds that so many percent did not exceed; zeros when nothing was counted."""
        total = self.total
        found = []
        for percentile in wanted:
            rank = max(1, -int(-percentile * total // 100))
            seen = at = 0
            for index, count in enumerate(self.buckets):
                if count:
                    seen += count
                    at = index
                    if seen >= rank:
                        break
            found.append(upper_bound(at) if total else 0)
        return found

    def cumulative_usec(self) -> list[tuple[int, int]]:
        """(bound in µs, how many took no longer), bounds powers of two, as LATENCY HISTOGRAM shows them.

        Only bounds at which the count grows are there, from the first that is not empty.
        """
        rows: list[tuple[int, int]] = []
        seen, index = 0, 0
        total = self.total
        bound_ns = 1024  # Redis prints these powers of two of about a microsecond as 1, 2, 4 …
        while seen < total:
            before = seen
            while index < BUCKETS and (upper_bound(index) < bound_ns or index == BUCKETS - 1):
                seen += self.buckets[index]
                index += 1
            if seen > before:
                rows.append((bound_ns >> 10, seen))
            bound_ns <<= 1
        return rows
