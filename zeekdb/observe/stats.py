"""Counters of the server, and rates sampled from them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields

from zeekdb.observe.histogram import Histogram

SAMPLE_S_MIN = 0.05
SAMPLES = 16  # ten a second: rates are averages over the last 1.6 s, as in Redis


@dataclass(slots=True)
class Stats:
    """The plain implementation of `commands.ports.StatsPort`."""

    total_connections_received: int = 0
    total_commands_processed: int = 0
    total_net_input_bytes: int = 0
    total_net_output_bytes: int = 0
    total_reads_processed: int = 0
    total_writes_processed: int = 0
    rejected_connections: int = 0
    total_error_replies: int = 0
    unexpected_error_replies: int = 0
    client_query_buffer_limit_disconnections: int = 0
    client_output_buffer_limit_disconnections: int = 0
    evicted_clients: int = 0
    peak_memory: int = 0
    eventloop_cycles: int = 0
    eventloop_duration_us: int = 0
    eventloop_duration_cmd_us: int = 0
    keys_expired_per_cycle_max_reached: int = 0
    sync_full: int = 0
    sync_partial_ok: int = 0
    sync_partial_err: int = 0

    def reset(self) -> None:
        """Zero everything but the peak of memory."""
        for item in fields(self):
            if item.name != "peak_memory":
                setattr(self, item.name, 0)


@dataclass(slots=True)
class CommandCounters:
    """The plain implementation of `commands.ports.CommandStats`."""

    calls: int = 0
    usec: int = 0
    rejected_calls: int = 0
    failed_calls: int = 0
    buckets: Sequence[int] | None = None
    ticks_per_us: float = 1.0

    @property
    def histogram(self) -> Histogram | None:
        """Durations; None when none was recorded."""
        return Histogram(self.buckets, self.ticks_per_us) if self.buckets and any(self.buckets) else None

    def added_to(self, other: CommandCounters) -> CommandCounters:
        """Both together: a command that the keyspace or the tensor region may answer."""
        return CommandCounters(
            self.calls + other.calls,
            self.usec + other.usec,
            self.rejected_calls + other.rejected_calls,
            self.failed_calls + other.failed_calls,
            [a + b for a, b in zip(self.buckets or (), other.buckets or (), strict=True)],
            self.ticks_per_us,
        )


class Sampler:
    """Rates per second of counters that only grow. Whoever has a timer calls `sample` about ten times a second."""

    counters = ("total_commands_processed", "total_net_input_bytes", "total_net_output_bytes")

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._last_s = 0.0
        self._ring: dict[str, deque[float]] = {name: deque(maxlen=SAMPLES) for name in self.counters}

    def sample(self, now_s: float, stats: object) -> None:
        """Read the counters, attributes of `stats`. Calls in quick succession count as one."""
        elapsed = now_s - self._last_s
        if elapsed < SAMPLE_S_MIN and self._last:
            return
        for name in self.counters:
            value: int = getattr(stats, name)
            if name in self._last:
                self._ring[name].append(max(0.0, (value - self._last[name]) / elapsed))
            self._last[name] = value
        self._last_s = now_s

    def rate(self, name: str) -> float:
        """Average per second over the last samples; 0 before the second one."""
        ring = self._ring[name]
        return sum(ring) / len(ring) if ring else 0.0
