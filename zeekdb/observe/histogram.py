"""A histogram of durations in buckets of powers of two.

Bucket i counts the durations d with floor(log2(d)) == i, in whatever unit the clock ticks (the hot room counts
processor ticks and converts nothing while it serves); durations of 0 and 1 share bucket 0. Percentiles are
interpolated inside a bucket, so their error is bounded by a factor of two and in practice far smaller. HdrHistogram
with two digits, which Redis has, would bound it to 1% for some tens of kilobytes per command, touched at every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

BUCKETS = 40


class Histogram:
    """Counts per bucket, and how many ticks a microsecond has."""

    __slots__ = ("buckets", "ticks_per_us")

    def __init__(self, buckets: Sequence[int] | None = None, ticks_per_us: float = 1.0) -> None:
        self.buckets: Sequence[int] = [0] * BUCKETS if buckets is None else buckets
        self.ticks_per_us = ticks_per_us

    def record(self, ticks: int) -> None:
        """Count a duration, where the buckets are a list of our own."""
        self.buckets[min(max(ticks.bit_length() - 1, 0), BUCKETS - 1)] += 1  # type: ignore[index]

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.buckets)

    def percentiles_us(self, wanted: Iterable[float]) -> list[float]:
        """The durations in µs that so many percent did not exceed; zeros when nothing was counted."""
        total = self.total
        return [self._at_rank(percentile / 100 * total) / self.ticks_per_us if total else 0.0 for percentile in wanted]

    def _at_rank(self, rank: float) -> float:
        seen, last = 0, 0.0
        for index, count in enumerate(self.buckets):
            if count:
                low = float(1 << index)
                if seen + count >= rank:
                    return low + low * max(rank - seen, 0.0) / count
                seen, last = seen + count, 2 * low
        return last

    def cumulative_us(self) -> list[tuple[int, int]]:
        """(bound in µs, how many took no longer), as LATENCY HISTOGRAM shows them: bounds are powers of two.

        Only bounds at which the count grows are there.
        """
        rows: dict[int, int] = {}
        seen = 0
        for index, count in enumerate(self.buckets):
            if count:
                seen += count
                bound_us = (1 << (index + 1)) / self.ticks_per_us
                rows[1 << max(0, int(bound_us - 1e-9).bit_length())] = seen
        return list(rows.items())
