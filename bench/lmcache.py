"""LMCache's own benchmark, `lmcache bench l2`, against redis-server and ZeekDB in turns: `make compat-lmcache`.

    python bench/lmcache.py --python .venv-lmcache/bin/python [--turns 3] [--options '--maxmemory 8gb']

LMCache's adapter `{"type": "resp"}` stores, looks up and loads batches of 32 × 4 MiB and of 16 × 32 MiB (a block of
256 tokens of Llama-3.1-8B) over 8 blocking sockets, with new keys in each of 5 measured rounds after one to warm up;
what the last round loaded is compared with what it stored. Every key that is looked up is there. A lookup takes less
than a millisecond, whatever the blocks' size, and 5 of them measure the scheduler: 100 of 32 keys stand for it.

All servers run at the same time, those not measured idle; who is first changes from turn to turn. In the first turn
the blocks are new to the server (*filling*); the later turns store the same keys again (*replacing*), which is what a
cache does for the rest of its life. Filling measures the kernel's page faults as well, and in a virtual machine that
gives free memory back to its host, the host's. A figure is the median over all rounds; ratios are of those medians.
The server's CPU time of a phase, from /proc, covers the round to warm up too.

The third server is the ceiling: bench/plain_blocks.py does nothing but move bytes between the sockets and memory that
it touched before. LMCache's own share of the time, and the kernel's, cannot be had back by any server.

The exit status says whether every key arrived, not how fast.
"""

from __future__ import annotations

import argparse
import re
import shlex
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, machine, median, save, table
from tests.compat.lmcache import adapter, arguments_of, lmcache, prepare
from tests.support import Wire

SHAPES = ((32, 4096, 5), (16, 32768, 5), (32, 1, 100))  # keys, KiB, rounds
WARMUP = 1
FILLING, REPLACING = "Store, filling", "Store, replacing"
PHASES = (FILLING, REPLACING, "Load", "Lookup")
# Store and load: how many times as fast as redis-server; lookup: at most this much of its time.
BARS = {FILLING: 4.0, REPLACING: 4.0, "Load": 1.5, "Lookup": 1.0}
KINDS = ("redis", "zeekdb", "plain")
PLAIN_GIB = 4
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


def turn(server: Server, python: Path, shape: tuple[int, int, int], phases: dict[str, Phase], store: str) -> bool:
    """One run of `lmcache bench l2`, added to the phases; whether all rounds ran and the bytes were the same."""
    keys, kib, rounds = shape
    phases = phases | {"Store": phases[store]}
    arguments = [str(python.parent / "lmcache"), "bench", "l2", "--l2-adapter", adapter(server.port)]
    arguments += ["--num-keys", str(keys), "--data-size-kb", str(kib), "--rounds", str(rounds)]
    arguments += ["--warmup-rounds", str(WARMUP), "--lookup-max-hit-rate", "1.0", "--no-skip-verify"]
    running, before, seen, verified = "", 0.0, 0, False
    lines: list[str] = []
    with lmcache(python, arguments, TURN_S_MAX) as output:
        for line in output:
            lines.append(line)
            if found := BEGINNING.match(line):
                now = server.cpu_s()
                if running in phases:
                    phases[running].cpu_ms.append((now - before) * 1e3 / (rounds + WARMUP))
                running, before = found[1], now
            elif found := ROUND.match(line):
                seen += 1
                phase = phases[found[1]]
                phase.failed += int(found[5]) - int(found[4])
                if int(found[2]) > WARMUP:
                    phase.rounds_ms.append(float(found[3]))
            verified = verified or "data verified OK" in line
    whole = seen == 3 * (rounds + WARMUP) and verified
    if not whole:
        print(*lines[-30:], sep="", file=sys.stderr)
    return whole


def quartiles(values: list[float]) -> list[float]:
    """Least, first quartile, median, third quartile and most."""
    if len(values) < 2:
        return values
    return [min(values), *statistics.quantiles(values, method="inclusive"), max(values)]


def rows_of(
    shape: tuple[int, int, int], figures: dict[str, dict[str, Phase]], data: dict[str, object]
) -> list[list[str]]:
    """The table's rows of one shape; the figures behind them go into the data."""
    keys, kib, _ = shape
    size = f"{keys} × {kib >> 10} MiB" if kib >= 1024 else f"{keys} × {kib} KiB"
    rows = []
    for phase in PHASES:
        if (phase == "Lookup") == (kib >= 1024):
            continue
        parts = [figures[kind][phase] for kind in KINDS]
        redis, zeekdb, plain = (median(part.rounds_ms) for part in parts)
        redis_cpu, zeekdb_cpu, plain_cpu = (median(part.cpu_ms) for part in parts)
        if not all(part.rounds_ms for part in parts):
            continue  # not run, or failed, which is said elsewhere
        lookup, bar = phase == "Lookup", BARS[phase]
        ratio = zeekdb / redis if lookup else redis / zeekdb
        met = ratio <= bar if lookup else ratio >= bar
        speed = "" if lookup else f" ({keys * (kib << 10) / zeekdb / 1e6:.2f} GB/s)"
        rows.append([
            f"{phase.lower()} {size}", f"{redis:.2f}", f"{zeekdb:.2f}{speed}", f"**{ratio:.2f}**",
            f"{'≤' if lookup else '≥'} {bar} {'met' if met else 'missed'}",
            f"{plain:.2f}", f"{plain / redis if lookup else redis / plain:.2f}",
            f"{redis_cpu:.2f}", f"{zeekdb_cpu:.2f}", f"{redis_cpu / zeekdb_cpu:.2f}", f"{plain_cpu:.2f}",
        ])  # fmt: skip
        data[rows[-1][0]] = {"ratio": round(ratio, 3), "bar": bar} | {
            f"{kind} {what}": [round(ms, 3) for ms in quartiles(values)]
            for kind, part in zip(KINDS, parts, strict=True)
            for what, values in (("ms", part.rounds_ms), ("cpu ms", part.cpu_ms))
        }
    return rows


def measure(
    servers: list[Server], python: Path, shape: tuple[int, int, int], turns: int
) -> dict[str, dict[str, Phase]]:
    """All turns of one shape: kind → phase → figures. Failed runs are counted with the loads."""
    figures = {server.kind: {phase: Phase() for phase in PHASES} for server in servers}
    for server in servers:
        if server.kind != "plain":
            with Wire(("127.0.0.1", server.port), FLUSH_S_MAX) as wire:
                wire("FLUSHALL", "SYNC")
    for n in range(turns):
        for server in servers if n % 2 == 0 else servers[::-1]:
            store = REPLACING if n else FILLING
            if not turn(server, python, shape, figures[server.kind], store):
                figures[server.kind]["Load"].failed += 1
    return figures


def main() -> int:
    """1 when a key did not arrive as it was stored."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--turns", type=int, default=3, help="of each server, one after the other")
    parser.add_argument("--servers", default=",".join(KINDS), help="one alone to profile it; nothing is saved then")
    parser.add_argument("--shape", type=int, choices=range(len(SHAPES)), help="only this one of SHAPES")
    given = arguments_of(parser)
    options = tuple(shlex.split(given.options))
    kinds = given.servers.split(",")
    shapes = SHAPES if given.shape is None else (SHAPES[given.shape],)
    rows: list[list[str]] = []
    data: dict[str, object] = {"options": list(options), "turns": given.turns}
    failures = 0
    servers: list[Server] = []
    try:
        for kind in kinds:
            extra = {"zeekdb": options, "plain": (str(PLAIN_GIB),)}.get(kind, ())
            servers.append(Server(kind, *extra))
            if kind == "zeekdb":
                with Wire(("127.0.0.1", servers[-1].port)) as wire:
                    prepare(wire, options)
        for shape in shapes:
            figures = measure(servers, given.python, shape, given.turns)
            failures += sum(phase.failed for phases in figures.values() for phase in phases.values())
            if set(kinds) == set(KINDS):
                rows += rows_of(shape, figures, data)
            else:
                for kind, phases in figures.items():
                    for name, phase in phases.items():
                        print(f"{kind} {name} {shape}: {phase.rounds_ms} ms, CPU {phase.cpu_ms} ms a round")
    finally:
        for server in servers:
            server.stop()
    if rows:
        print(machine() + ".\n")
        head = ["", "Redis ms", "ZeekDB ms", "factor (lookup: of the time)", "bar", "ceiling ms", "ceiling's factor"]
        print(table([*head, "Redis CPU ms", "ZeekDB CPU ms", "CPU factor", "ceiling CPU ms"], rows))
        if len(shapes) == len(SHAPES) and not failures:
            save("lmcache", data)
    if failures:
        print(f"\n{failures} keys or runs failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
