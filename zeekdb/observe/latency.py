"""LATENCY: a short history of spikes per event, and what it says about them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

SAMPLES_MAX = 160  # per event
EVENTS_MAX = 100  # names of events come from this program; the bound guards against a mistake

ADVICE = {
    "command": "Commands of high complexity run long. SLOWLOG GET names them; if not, lower slowlog-log-slower-than.",
    "fast-command": "Even fast commands ran long: the process was not scheduled, or the machine swaps.",
    "expire-cycle": "Many keys expire at the same time. Spread their deadlines, or lower active-expire-effort.",
    "eviction-cycle": "Eviction runs long. Raise maxmemory, or lower maxmemory-eviction-tenacity.",
    "aof-fsync-always": "The disk is slow to sync. appendfsync everysec waits for it less often.",
    "event-loop": "A turn of the event loop ran long: look for large values or slow commands.",
}


@dataclass(slots=True)
class Series:
    """The spikes of one event: (Unix second, ms), at most one a second, oldest first."""

    samples: list[tuple[int, int]] = field(default_factory=list)
    max_ms: int = 0


class LatencyMonitor:
    """Whoever measures compares with `latency-monitor-threshold` and calls `add`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.events: dict[str, Series] = {}

    def add(self, event: str, latency_ms: int) -> None:
        """Record a spike."""
        now_s = int(self._clock())
        series = self.events.get(event)
        if series is None:
            if len(self.events) >= EVENTS_MAX:
                return
            series = self.events[event] = Series()
        series.max_ms = max(series.max_ms, latency_ms)
        if series.samples and series.samples[-1][0] == now_s:
            series.samples[-1] = (now_s, max(series.samples[-1][1], latency_ms))
            return
        series.samples.append((now_s, latency_ms))
        del series.samples[:-SAMPLES_MAX]

    def reset(self, *events: str) -> int:
        """Forget these events, or all; how many there were."""
        names = events or tuple(self.events)
        return sum(self.events.pop(name, None) is not None for name in names)

    def graph(self, event: str) -> str:
        """A small drawing of an event's history; newest right."""
        now_s = int(self._clock())
        series = self.events[event]
        low = min(ms for _, ms in series.samples)
        head = f"{event} - high {series.max_ms} ms, low {low} ms (all time high {series.max_ms} ms)\n" + "-" * 80 + "\n"
        points = series.samples[-80:]
        top = max(ms for _, ms in points)
        heights = [1 + (ms - low) * 3 // max(1, top - low) for _, ms in points]
        marks = ["_oO#"[height - 1] for height in heights]
        bars = list(zip(heights, marks, strict=True))
        rows = [[mark if height >= level else " " for height, mark in bars] for level in (4, 3, 2, 1)]
        ages = [_age(now_s - at) for at, _ in points]
        rows += [[age[i : i + 1] or " " for age in ages] for i in range(max(map(len, ages)))]
        lines = ["".join(row).rstrip() for row in rows]
        return head + "\n".join(line for line in lines if line) + "\n"

    def doctor(self, enabled: bool) -> str:
        """What the recorded events suggest, in words."""
        now_s = int(self._clock())
        if not enabled and not self.events:
            return (
                "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this server. You may use "
                '"CONFIG SET latency-monitor-threshold <milliseconds>." in order to enable it.\n'
            )
        if not self.events:
            return (
                "Dave, no latency spike was observed during the lifetime of this instance, "
                "not in the slightest bit.\n"
            )
        lines = ["Dave, I have observed latency spikes in this instance:", ""]
        for number, (event, series) in enumerate(sorted(self.events.items()), 1):
            values = [ms for _, ms in series.samples]
            mean = statistics.fmean(values)
            deviation = statistics.fmean(abs(ms - mean) for ms in values)
            span = max(1, now_s - series.samples[0][0])
            lines.append(
                f"{number}. {event}: {len(values)} latency spikes (average {mean:.0f}ms, "
                f"mean deviation {deviation:.0f}ms, period {span / len(values):.2f} sec). "
                f"Worst all time event {series.max_ms}ms."
            )
        advice = [ADVICE[event] for event in sorted(self.events) if event in ADVICE]
        if advice:
            lines += ["", "I have a few advices for you:", "", *(f"- {line}" for line in advice)]
        return "\n".join(lines) + "\n"


def _age(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
