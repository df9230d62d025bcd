"""What `maxmemory` costs: requests/s and server CPU per request without a limit, and under policies.

    python bench/limited.py [--policies allkeys-lru,allkeys-lfu] [--rounds 3]

Two cases, against ZeekDB without a limit in turns: a limit that is not reached, and one that is, so that every SET of a
new key evicts another (`full`; 100-byte values, keys drawn from four times as many as fit; redis-server beside it).
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, command_line, machine, median, publish, table

TESTS = ("set", "get", "incr", "lpush", "hset")
PIPELINES = (1, 16, 100)
REQUESTS = {1: 60_000, 16: 400_000, 100: 1_000_000}


def drive(server: Server, test: str, pipeline: int, keys: int, size: int) -> tuple[float, float]:
    """Requests/s, and microseconds of server CPU per request."""
    before = server.cpu_s()
    shown = subprocess.run(
        ["redis-benchmark", "-p", str(server.port), "-P", str(pipeline), "-n", str(REQUESTS[pipeline]), "-t", test,
         "-r", str(keys), "-d", str(size), "--csv"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rate = float(next(csv.DictReader(io.StringIO(shown)))["rps"])
    return rate, (server.cpu_s() - before) / REQUESTS[pipeline] * 1e6


def unreached(policies: list[str], rounds: int) -> tuple[list[list[str]], dict[str, object]]:
    """A limit of 8 GB: rows of the factor by which each policy's CPU per request is larger, and its rate."""
    names = ["none", *policies]
    servers = {name: Server("zeekdb") for name in names}
    rows, data = [], {}
    try:
        for name in policies:
            servers[name].call("CONFIG", "SET", "maxmemory", "8gb", "maxmemory-policy", name)
        for test in TESTS:
            for pipeline in PIPELINES:
                found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
                for _ in range(rounds):
                    for name in names:
                        found[name].append(drive(servers[name], test, pipeline, 100_000, 3))
                rate = {name: median(one[0] for one in found[name]) for name in names}
                cpu = {name: median(one[1] for one in found[name]) for name in names}
                data[f"{test} P{pipeline}"] = {"rate": rate, "cpu_us": cpu}
                rows.append([f"{test.upper()} P{pipeline}", *(
                    f"{rate[name] / rate['none']:.2f}, {cpu[name] / cpu['none']:.2f}" for name in policies
                )])  # fmt: skip
                print(rows[-1], file=sys.stderr)
    finally:
        for server in servers.values():
            server.stop()
    return rows, data


def full(policies: list[str], rounds: int) -> list[list[str]]:
    """Each policy under a limit of 100 MB that every new key exceeds: SETs/s and CPU, beside redis-server."""
    rows = []
    for policy in policies:
        kinds = ["zeekdb", "redis"] if policy.endswith(("lru", "lfu")) else ["zeekdb"]
        figures = {}
        for kind in kinds:
            with Server(kind) as server:
                server.call("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", policy)
                for _ in range(3):
                    drive(server, "set", 100, 3_000_000, 100)
                found = [drive(server, "set", 16, 3_000_000, 100) for _ in range(rounds)]
                figures[kind] = median(one[0] for one in found), median(one[1] for one in found)
        ours, theirs = figures["zeekdb"], figures.get("redis")
        rows.append([policy, f"{ours[0]:,.0f}", f"{ours[1]:.2f}",
                     *((f"{theirs[0]:,.0f}", f"{theirs[1]:.2f}") if theirs else ("", ""))])  # fmt: skip
        print(rows[-1], file=sys.stderr)
    return rows


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--policies", type=lambda text: text.split(","), default=["allkeys-lru", "allkeys-lfu"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows, data = unreached(arguments.policies, arguments.rounds)
    evicting = full([*arguments.policies, "allkeys-s3fifo", "allkeys-learned"], arguments.rounds)
    text = (
        f"{machine()}. A limit that is not reached; rate and CPU per request, each in relation to none:\n\n"
        f"{table(['test', *arguments.policies], rows)}\n\n"
        "Every SET evicts (limit 100 MB, pipeline 16):\n\n"
        f"{table(['policy', 'SET/s', 'CPU µs', 'redis-server SET/s', 'CPU µs'], evicting)}"
    )
    publish("limited", data, text, arguments.write)


if __name__ == "__main__":
    main()
