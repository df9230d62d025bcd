"""Counters of the server, and rates sampled from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

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

    def reset(self) -> None:
        """Zero everything but the peak of memory."""
        for item in fields(self):
            if item.name != "peak_memory":
                setattr(self, item.name, 0)


class Sampler:
    """Rates per second of counters that only grow. Whoever has a timer calls `sample` about ten times a second."""

    def __init__(self, **counters: Callable[[], int]) -> None:
        self._counters = counters
        self._last: dict[str, int] = {}
        self._last_s = 0.0
        self._ring: dict[str, list[float]] = {name: [] for name in counters}

    def sample(self, now_s: float) -> None:
        """Read the counters."""
        elapsed = now_s - self._last_s
        for name, counter in self._counters.items():
            value = counter()
            if name in self._last and elapsed > 0:
                ring = self._ring[name]
                ring.append(max(0.0, (value - self._last[name]) / elapsed))
                del ring[:-SAMPLES]
            self._last[name] = value
        self._last_s = now_s

    def rate(self, name: str) -> float:
        """Average per second over the last samples; 0 before the second sample and for unknown names."""
        ring = self._ring.get(name)
        return sum(ring) / len(ring) if ring else 0.0

    def reset(self) -> None:
        """Start anew."""
        self._last.clear()
        for ring in self._ring.values():
            ring.clear()
