"""Histograms, the slow log, the latency monitor, rates, and the log's lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeekdb.observe import log
from zeekdb.observe.histogram import Histogram
from zeekdb.observe.info import human
from zeekdb.observe.latency import LatencyMonitor
from zeekdb.observe.slowlog import SlowLog, shortened
from zeekdb.observe.stats import CommandCounters, Sampler, Stats


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0, 100))
def test_percentiles_are_within_a_factor_of_two(ticks: list[int], percentile: float) -> None:
    histogram = Histogram(ticks_per_us=1.0)
    for each in ticks:
        histogram.record(each)
    (found,) = histogram.percentiles_us([percentile])
    assert found <= 2 * max(ticks) + 2
    assert found >= min(ticks) / 2
    assert histogram.total == len(ticks)


def test_histograms_convert_ticks() -> None:
    histogram = Histogram(ticks_per_us=1000.0)
    for us in (1, 3, 3, 100):
        histogram.record(us * 1000)
    assert histogram.cumulative_us() == [(2, 1), (8, 3), (256, 4)]
    bounds = [bound for bound, _ in histogram.cumulative_us()]
    assert all(bound & (bound - 1) == 0 for bound in bounds)
    assert Histogram().percentiles_us([50]) == [0.0]
    assert Histogram().cumulative_us() == []


def test_counters_have_a_histogram_once_something_was_counted() -> None:
    assert CommandCounters(0, 0, 0, 0, [0] * 40, 1.0).histogram is None
    assert CommandCounters(1, 5, 0, 0, [1] + [0] * 39, 1.0).histogram is not None


def test_the_slow_log_keeps_the_newest() -> None:
    clock = Clock()
    slow = SlowLog(clock)
    for number in range(5):
        slow.add([b"GET", b"%d" % number], 10 + number, "1.2.3.4:5", b"me", 3)
    assert len(slow) == 3
    assert [entry.id for entry in slow.get(-1)] == [4, 3, 2]
    assert slow.get(1)[0].duration_us == 14
    assert slow.get(1)[0].time_s == 1000
    slow.reset()
    assert not slow.get(-1)
    slow.add([b"X"], 1, "", b"", 3)
    assert slow.get(1)[0].id == 5
    slow.add([b"X"], 1, "", b"", 0)
    assert len(slow) == 0


def test_long_commands_are_shortened() -> None:
    assert shortened([b"x" * 200])[0] == b"x" * 128 + b"... (72 more bytes)"
    many = shortened([b"%d" % n for n in range(40)])
    assert len(many) == 32
    assert many[-1] == b"... (9 more arguments)"
    assert len(shortened([b"a"] * 32)) == 32


def test_latency_events() -> None:
    clock = Clock()
    monitor = LatencyMonitor(clock)
    assert "disabled" in monitor.doctor(enabled=False)
    assert "no latency spike" in monitor.doctor(enabled=True)
    monitor.add("command", 10)
    monitor.add("command", 30)  # the same second: the larger one
    clock.now_s += 3700
    monitor.add("command", 20)
    assert monitor.events["command"].samples == [(1000, 30), (4700, 20)]
    assert monitor.events["command"].max_ms == 30
    assert "high 30 ms, low 20 ms" in monitor.graph("command")
    assert "1. command: 2 latency spikes (average 25ms" in monitor.doctor(enabled=True)
    for _ in range(500):
        clock.now_s += 1
        monitor.add("command", 1)
    assert len(monitor.events["command"].samples) == 160
    assert monitor.reset("nope") == 0
    assert monitor.reset() == 1
    assert not monitor.events


def test_rates() -> None:
    stats, sampler = Stats(), Sampler()
    assert sampler.rate("total_commands_processed") == 0
    sampler.sample(100.0, stats)
    stats.total_commands_processed = 50
    sampler.sample(100.01, stats)  # too soon: counts as one with the next
    sampler.sample(100.5, stats)
    assert sampler.rate("total_commands_processed") == pytest.approx(100)
    stats.peak_memory = 7
    stats.reset()
    assert (stats.total_commands_processed, stats.peak_memory) == (0, 7)
    sampler.sample(101.0, stats)
    assert sampler.rate("total_commands_processed") >= 0


def test_sizes_for_people() -> None:
    assert [human(n) for n in (0, 1023, 1536, 5 << 20, 3 << 30)] == ["0B", "1023B", "1.50K", "5.00M", "3.00G"]


def test_log_lines_look_like_redis(tmp_path: Path) -> None:
    path = tmp_path / "z.log"
    before = list(log.logger.handlers), log.logger.level, log.logger.propagate
    try:
        log.configure("notice", str(path))
        log.notice("ready %d", 1)
        log.verbose("not shown")
        log.logger.warning("careful")
        log.set_level("verbose")
        log.verbose("shown")
        path.rename(tmp_path / "rotated.log")
        log.notice("in a new file")
    finally:
        log.logger.handlers[:], log.logger.propagate = before[0], before[2]
        log.logger.setLevel(before[1])
    lines = (tmp_path / "rotated.log").read_text().splitlines()
    assert [line.split(" ", 5)[5] for line in lines] == ["* ready 1", "# careful", "- shown"]
    assert path.read_text().endswith("* in a new file\n")
    with pytest.raises(OSError, match="directory"):
        log.configure("notice", str(tmp_path / "none" / "z.log"))
