"""redis-benchmark's default list against redis-server and ZeekDB in turns: requests/s and server CPU per request.

    python bench/vs_redis.py                 # three rounds at pipeline 1, 16 and 100
    python bench/vs_redis.py --quick         # one short round: does everything run?
    python bench/vs_redis.py --write         # and put the tables into README.md and bench/README.md

The load generator is often the limit, so requests per second alone mislead: the figure to read is the server's CPU
time per request, as a factor in ZeekDB's favour. Ratios are of medians over the rounds.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import ROOT, Server, machine, median, save, table, write_block

TESTS = [
    "ping_inline", "ping_mbulk", "set", "get", "incr", "lpush", "rpush", "lpop", "rpop", "sadd", "hset", "spop", "zadd",
    "zpopmin", "lrange_100", "lrange_300", "lrange_500", "lrange_600", "mset",
]  # fmt: skip
IN_README = ("set", "get", "incr", "lpush", "hset", "zadd", "lrange_100", "mset")  # at pipeline 100
REQUESTS = {1: 100_000, 16: 800_000, 100: 2_400_000}
DIVISOR = {"mset": 6, "lrange_100": 8, "lrange_300": 24, "lrange_500": 40, "lrange_600": 48, "zadd": 2, "spop": 2}

# What the project wants of the CPU factor.
BARS_100 = {"set": 4.0, "get": 4.0, "incr": 4.0, "mset": 3.0}
BARS_100_RATE = {"set": 3.0, "get": 3.0, "incr": 3.0}
BARS_16 = {"set": 1.6, "get": 1.6}


def bar(test: str, pipeline: int) -> float:
    """The CPU factor wanted of a test."""
    if pipeline == 100:
        return BARS_100.get(test, 1.0 if test.startswith("ping") else 2.0)
    return BARS_16.get(test, 1.3) if pipeline == 16 else 1.0


def run(server: Server, test: str, pipeline: int, connections: int, quick: bool) -> dict[str, float]:
    """One call of redis-benchmark: requests/s, CPU µs per request, latencies in ms."""
    requests = max(REQUESTS[pipeline] // DIVISOR.get(test, 1) // (10 if quick else 1), 1000)
    if test.startswith("lrange"):  # the list that the test reads, outside the measurement
        server.call("DEL", "mylist")
        subprocess.run(
            ["redis-benchmark", "-p", str(server.port), "-n", "1000", "-P", "10", "-q", "LPUSH", "mylist", "xxx"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        last = str(int(test.split("_")[1]) - 1)
        what = ["LRANGE", "mylist", "0", last]
    else:
        what = ["-t", test]
    before = server.cpu_s()
    done = subprocess.run(
        ["redis-benchmark", "-p", str(server.port), "-n", str(requests), "-P", str(pipeline), "-c", str(connections),
         "-r", "100000", "--csv", *what],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    cpu = server.cpu_s() - before
    if "rror" in done.stdout + done.stderr:
        raise RuntimeError(done.stdout + done.stderr)
    row = list(csv.DictReader(io.StringIO(done.stdout)))[-1]
    return {
        "rate": float(row["rps"]),
        "cpu_us": cpu / requests * 1e6,
        "p50": float(row["p50_latency_ms"]),
        "p95": float(row["p95_latency_ms"]),
        "p99": float(row["p99_latency_ms"]),
        "max": float(row["max_latency_ms"]),
    }


def measure(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """All tests at all pipelines, the servers in turns."""
    results: list[dict[str, object]] = []
    with Server("redis") as redis, Server("zeekdb") as zeekdb:
        for pipeline in arguments.pipelines:
            for server in (redis, zeekdb):
                server.call("FLUSHALL")
            runs: dict[str, dict[str, list[dict[str, float]]]]
            runs = {test: {"redis": [], "zeekdb": []} for test in arguments.tests}
            for turn in range(arguments.rounds):
                for test in arguments.tests:
                    for server in (redis, zeekdb) if turn % 2 == 0 else (zeekdb, redis):
                        runs[test][server.kind].append(
                            run(server, test, pipeline, arguments.connections, arguments.quick)
                        )
                print(f"pipeline {pipeline}, round {turn + 1} of {arguments.rounds}", file=sys.stderr)
            for test in arguments.tests:
                row: dict[str, object] = {"test": test, "pipeline": pipeline}
                for kind in ("redis", "zeekdb"):
                    for name in ("rate", "cpu_us", "p50", "p95", "p99", "max"):
                        row[f"{kind}_{name}"] = median(r[name] for r in runs[test][kind])
                results.append(row)
    return results


def show(results: list[dict[str, object]]) -> str:
    """One table for each pipeline."""
    parts = [machine() + "."]
    for pipeline in sorted({int(str(row["pipeline"])) for row in results}):
        head = ["test", "Redis req/s", "ZeekDB req/s", "factor", "Redis CPU µs", "ZeekDB CPU µs", "CPU factor", "bar"]
        if pipeline == 1:
            head += ["p50 ms R / Z", "p99 ms R / Z"]
        rows = []
        for row in results:
            if row["pipeline"] != pipeline:
                continue
            f = {name: float(str(value)) for name, value in row.items() if name != "test"}
            test = str(row["test"])
            rate = f["zeekdb_rate"] / f["redis_rate"]
            cpu = f["redis_cpu_us"] / f["zeekdb_cpu_us"]
            met = cpu >= bar(test, pipeline) and (pipeline != 100 or rate >= BARS_100_RATE.get(test, 0))
            line = [
                test.upper(), f"{f['redis_rate']:,.0f}", f"{f['zeekdb_rate']:,.0f}", f"{rate:.2f}",
                f"{f['redis_cpu_us']:.3f}", f"{f['zeekdb_cpu_us']:.3f}", f"**{cpu:.2f}**",
                f"{bar(test, pipeline):.1f} {'met' if met else 'missed'}",
            ]  # fmt: skip
            if pipeline == 1:
                line += [f"{f[f'redis_{p}']:.3f} / {f[f'zeekdb_{p}']:.3f}" for p in ("p50", "p99")]
            rows.append(line)
        parts.append(f"Pipeline {pipeline}:\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tests", type=lambda text: text.split(","), default=TESTS)
    parser.add_argument("--pipelines", type=lambda text: [int(p) for p in text.split(",")], default=[100, 16, 1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true", help="update README.md and bench/README.md")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 1
    results = measure(arguments)
    text = show(results)
    print(text)
    if not arguments.quick:
        save("vs_redis" if arguments.connections == 50 else f"vs_redis_c{arguments.connections}", results)
    if arguments.write:
        write_block(ROOT / "bench" / "README.md", "bench", text)
        short = [r for r in results if r["pipeline"] == 100 and r["test"] in IN_README]
        short += [r for r in results if r["pipeline"] in (1, 16) and r["test"] in ("set", "get")]
        write_block(ROOT / "README.md", "bench", show(short))


if __name__ == "__main__":
    main()
