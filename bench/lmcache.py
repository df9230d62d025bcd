"""LMCache's own benchmark, `lmcache bench l2`, against redis-server and ZeekDB in turns: `make compat-lmcache`.

    python bench/lmcache.py --python .venv-lmcache/bin/python [--turns 3] [--options '--maxmemory 8gb']

LMCache's adapter `{"type": "resp"}` stores, looks up and loads batches of 32 × 4 MiB and of 16 × 32 MiB (a block of
256 tokens of Llama-3.1-8B) over 8 blocking sockets, with new keys in each of 5 measured rounds after one to warm up;
what the last round loaded is compared with what it stored. Every key that is looked up is there. Both servers run at
the same time, the one not measured idle, and are emptied before each turn. A figure is the median over all rounds of
all turns; ratios are of those medians. The server's CPU time of a phase, from /proc, covers the round to warm up too.

Stored are bytes that the servers have never held, so memory is touched for the first time: that is what a cache that
fills does. The exit status says whether every key arrived, not how fast.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, machine, median, save, table
from tests.compat.lmcache import adapter, arguments_of, lmcache, prepare
from tests.support import Wire

SHAPES = ((32, 4), (16, 32))  # keys, MiB
ROUNDS, WARMUP = 5, 1
PHASES = ("Store", "Load", "Lookup")
# Store and load: how many times as fast as redis-server; lookup: at most this much of its time.
BARS = {"Store": 4.0, "Load": 1.5, "Lookup": 1.0}
TURN_S_MAX = 300.0
FLUSH_S_MAX = 60.0
BEGINNING = re.compile(r"^\[(Store|Lookup|Load|Verify)\] ")
ROUND = re.compile(r"^ +\[(Store|Lookup|Load)\] Round (\d+): ([\d.]+) ms, \w+=(\d+)/(\d+)")


@dataclass
class Phase:
    """One phase of one or more turns."""

    rounds_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # the server's, per round
    failed: int = 0  # keys that did not arrive


def turn(server: Server, python: Path, keys: int, mib: int, phases: dict[str, Phase]) -> bool:
    """One run of `lmcache bench l2`, added to the phases; whether all rounds ran and the bytes were the same."""
    arguments = [str(python.parent / "lmcache"), "bench", "l2", "--l2-adapter", adapter(server.port)]
    arguments += ["--num-keys", str(keys), "--data-size-kb", str(mib << 10), "--rounds", str(ROUNDS)]
    arguments += ["--warmup-rounds", str(WARMUP), "--lookup-max-hit-rate", "1.0", "--no-skip-verify"]
    running, before, rounds, verified = "", 0.0, 0, False
    lines: list[str] = []
    with lmcache(python, arguments, TURN_S_MAX) as output:
        for line in output:
            lines.append(line)
            if found := BEGINNING.match(line):
                now = server.cpu_s()
                if running in phases:
                    phases[running].cpu_ms.append((now - before) * 1e3 / (ROUNDS + WARMUP))
                running, before = found[1], now
            elif found := ROUND.match(line):
                rounds += 1
                phase = phases[found[1]]
                phase.failed += int(found[5]) - int(found[4])
                if int(found[2]) > WARMUP:
                    phase.rounds_ms.append(float(found[3]))
            verified = verified or "data verified OK" in line
    whole = rounds == len(PHASES) * (ROUNDS + WARMUP) and verified
    if not whole:
        print(*lines[-30:], sep="", file=sys.stderr)
    return whole


def rows_of(keys: int, mib: int, figures: dict[str, dict[str, Phase]], data: dict[str, object]) -> list[list[str]]:
    """The table's rows of one shape; the figures behind them go into the data."""
    rows = []
    for phase in PHASES:
        redis, zeekdb = (figures[kind][phase] for kind in ("redis", "zeekdb"))
        slow, fast = median(redis.rounds_ms), median(zeekdb.rounds_ms)
        if not (slow and fast):
            continue  # the run has failed, and says so
        faster, bar = slow / fast, BARS[phase]
        met = fast <= slow * bar if phase == "Lookup" else faster >= bar
        size = keys * mib * (1 << 20)
        speeds = ["", ""] if phase == "Lookup" else [f"{size / ms / 1e6:.2f}" for ms in (slow, fast)]
        rows.append([
            f"{phase.lower()} {keys} × {mib} MiB", f"{slow:.2f}", f"{fast:.2f}", *speeds,
            f"**{fast / slow if phase == 'Lookup' else faster:.2f}**",
            f"{'≤' if phase == 'Lookup' else '≥'} {bar} {'met' if met else 'missed'}",
            f"{median(redis.cpu_ms):.2f}", f"{median(zeekdb.cpu_ms):.2f}",
        ])  # fmt: skip
        data[rows[-1][0]] = {
            "ratio": round(fast / slow if phase == "Lookup" else faster, 3),
            "bar": bar,
            "redis ms": redis.rounds_ms,
            "zeekdb ms": zeekdb.rounds_ms,
            "redis cpu ms": [round(ms, 3) for ms in redis.cpu_ms],
            "zeekdb cpu ms": [round(ms, 3) for ms in zeekdb.cpu_ms],
        }
    return rows


def main() -> int:
    """1 when a key did not arrive as it was stored."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--turns", type=int, default=3, help="of each server, one after the other")
    parser.add_argument("--servers", default="redis,zeekdb", help="one alone to profile it; nothing is saved then")
    parser.add_argument("--shape", type=int, choices=range(len(SHAPES)), help="32 × 4 MiB (0) or 16 × 32 MiB (1) only")
    given = arguments_of(parser)
    options = tuple(shlex.split(given.options))
    kinds = given.servers.split(",")
    shapes = SHAPES if given.shape is None else (SHAPES[given.shape],)
    rows: list[list[str]] = []
    data: dict[str, object] = {"options": list(options), "turns": given.turns, "rounds": ROUNDS}
    failures = 0
    servers = [Server(kind, *(options if kind == "zeekdb" else ())) for kind in kinds]
    try:
        for server in servers:
            if server.kind == "zeekdb":
                with Wire(("127.0.0.1", server.port)) as wire:
                    prepare(wire, options)
        for keys, mib in shapes:
            figures = {server.kind: {phase: Phase() for phase in PHASES} for server in servers}
            for _ in range(given.turns):
                for server in servers:
                    with Wire(("127.0.0.1", server.port), FLUSH_S_MAX) as wire:
                        wire("FLUSHALL", "SYNC")
                    failures += not turn(server, given.python, keys, mib, figures[server.kind])
            failures += sum(phase.failed for phases in figures.values() for phase in phases.values())
            if len(kinds) > 1:
                rows += rows_of(keys, mib, figures, data)
            else:
                for name, phase in figures[kinds[0]].items():
                    print(f"{name} {keys} × {mib} MiB: {phase.rounds_ms} ms, server CPU {phase.cpu_ms} ms a round")
        for server in servers:
            server.call("FLUSHALL")
    finally:
        for server in servers:
            server.stop()
    if len(kinds) > 1:
        print(machine() + ".\n")
        head = ["", "Redis ms", "ZeekDB ms", "Redis GB/s", "ZeekDB GB/s", "factor (lookup: of the time)", "bar"]
        print(table([*head, "Redis CPU ms", "ZeekDB CPU ms"], rows))
        if len(shapes) == len(SHAPES) and not failures:
            save("lmcache", data)
    if failures:
        print(f"\n{failures} keys or runs failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
