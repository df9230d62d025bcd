"""Snapshots and rewrites under load: what the clients feel, how long it takes, and the memory that it costs.

    python bench/persistence.py [--keys 5000000] [--size 100] [--kinds redis,zeekdb] [--rounds 8]

A server is filled with strings. redis-benchmark then writes and reads random ones of them over ten connections without
pipelining, a round at a time, and another connection pings each millisecond: alone at first, then during BGSAVE, then
during a rewrite of the append-only file, each as often as it takes for all rounds. A round counts when it lay within
what it is about. Last come SAVE without load and a start from the file.

Memory is the resident memory of the process and, for a forked child, what is private to it.
"""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, command_line, encode, machine, median, publish, table

BATCH = 1000
CLIENTS = 10
PHASES = {"alone": "alone", "BGSAVE": "alone", "alone with AOF": "alone with AOF", "rewrite": "alone with AOF"}
FIELDS = ("rps", "p50", "p99")


def is_on(server: Server, field: str) -> bool:
    """Whether INFO persistence says 1 of it."""
    return server.info("persistence", field) == "1"


def fill(server: Server, keys: int, size: int) -> None:
    """The keys that redis-benchmark draws from."""
    def value(key: int) -> bytes:
        return (b"x%d:%d:" % (size, key * 2654435761)).ljust(size, b"%d" % (key % 10))

    with server.connect() as sock, sock.makefile("rb") as replies:
        for at in range(0, keys, BATCH):
            sock.sendall(
                b"".join([
                    encode(b"SET", b"key:%012d" % key, value(key)) for key in range(at, min(at + BATCH, keys))
                ])
            )
            for _ in range(at, min(at + BATCH, keys)):
                replies.readline()


def load_round(server: Server, keys: int, size: int, requests: int) -> dict[str, float]:
    """SET and then GET: requests/s, and latencies in ms; the means of both."""
    shown = subprocess.run(
        ["redis-benchmark", "-p", str(server.port), "-c", str(CLIENTS), "-n", str(requests), "-r", str(keys),
         "-d", str(size), "-t", "set,get", "--csv"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(shown)))
    names = {"rps": "rps", "p50": "p50_latency_ms", "p99": "p99_latency_ms"}
    return {name: sum(float(row[column]) for row in rows) / len(rows) for name, column in names.items()}


class Pings:
    """Latencies in ms of a connection that pings each millisecond, while the block runs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.found: list[float] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._ping)

    def _ping(self) -> None:
        with self.server.connect() as sock:
            while not self.over.is_set():
                begin = time.perf_counter()
                sock.sendall(b"PING\r\n")
                sock.recv(64)
                self.found.append((time.perf_counter() - begin) * 1e3)
                time.sleep(0.001)

    def __enter__(self) -> Pings:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def memory(server: Server) -> int:
    """Bytes: the server's resident ones, and its children's private ones."""
    total = server.rss()
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    for child in children.read_text().split():
        try:
            rollup = Path(f"/proc/{child}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(size) * 1024 for size in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.M))
    return total


def phase(
    server: Server, begin: Callable[[], None] | None, field: str, rounds: int, run: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Rounds of load while what `begin` starts is under way, and INFO's field says so."""
    found: list[dict[str, float]] = []
    pings: list[float] = []
    before = most = memory(server)
    seconds: list[float] = []
    for _ in range(6 * rounds):
        if len(found) >= rounds:
            break
        if begin is None:
            with Pings(server) as pinging:
                found.append(run())
            pings += pinging.found
            continue
        started = time.monotonic()
        begin()
        while is_on(server, field):
            with Pings(server) as pinging:
                result = run()
            most = max(most, memory(server))
            if is_on(server, field):
                found.append(result)
                pings += pinging.found
        seconds.append(time.monotonic() - started)
    pings.sort()
    line = {name: median(result[name] for result in found) for name in FIELDS}
    return {
        **line, "rounds": len(found), "ping p99": pings[int(len(pings) * 0.99)] if pings else 0.0,
        "longest ping": pings[-1] if pings else 0.0, "memory": most / before - 1, "seconds": median(seconds),
    }  # fmt: skip


def measure(kind: str, keys: int, size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Everything about one server."""
    with tempfile.TemporaryDirectory() as folder:
        with Server(kind, "--dir", folder, "--auto-aof-rewrite-percentage", "0") as server:
            fill(server, keys, size)
            requests = 20_000

            def run() -> dict[str, float]:
                return load_round(server, keys, size, requests)

            run()
            found = {"alone": phase(server, None, "", rounds, run)}
            found["BGSAVE"] = phase(server, lambda: start(server, "BGSAVE"), "rdb_bgsave_in_progress", rounds, run)
            server.call("CONFIG", "SET", "appendonly", "yes")
            while is_on(server, "aof_rewrite_in_progress") or not is_on(server, "aof_enabled"):
                time.sleep(0.05)
            found["alone with AOF"] = phase(server, None, "", rounds, run)
            field = "aof_rewrite_in_progress"
            found["rewrite"] = phase(server, lambda: start(server, "BGREWRITEAOF"), field, rounds, run)
            server.call("CONFIG", "SET", "appendonly", "no")
            begin = time.monotonic()
            with server.connect() as sock:
                sock.settimeout(300)
                sock.sendall(encode(b"SAVE"))
                sock.recv(100)
            saving = time.monotonic() - begin
        begin = time.monotonic()
        with Server(kind, "--dir", folder) as server:
            while not server.call("DBSIZE")[1:].isdigit():
                time.sleep(0.02)
            loading = time.monotonic() - begin
        found["idle"] = {"SAVE": saving, "start": loading}
    return found


def start(server: Server, command: str) -> None:
    """BGSAVE or BGREWRITEAOF."""
    reply = server.call(command)
    if not reply.startswith(b"+"):
        raise RuntimeError(reply.decode())


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--keys", type=int, default=5_000_000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=["redis", "zeekdb"])
    arguments = parser.parse_args()
    data, rows = {}, []
    for kind in arguments.kinds:
        data[kind] = measure(kind, arguments.keys, arguments.size, arguments.rounds)
        for name, base in PHASES.items():
            figures, alone = data[kind][name], data[kind][base]
            rise = f"{(figures['p99'] / alone['p99'] - 1) * 100:+.0f}%" if name != base else ""
            rows.append([
                kind, name, f"{figures['rps']:,.0f}", f"{figures['p50']:.3f}", f"{figures['p99']:.3f}", rise,
                f"{figures['ping p99']:.2f}", f"{figures['longest ping']:.1f}",
                *((f"{figures['memory'] * 100:+.1f}%", f"{figures['seconds']:.1f}") if name != base else ("", "")),
                f"{figures['rounds']:.0f}",
            ])  # fmt: skip
            print(rows[-1], file=sys.stderr)
    head = ["server", "meanwhile", "requests/s", "p50 ms", "p99 ms", "p99 rises"]
    head += ["ping p99 ms", "longest ping ms", "memory", "seconds", "rounds"]
    idle = [[kind, *(f"{data[kind]['idle'][name]:.2f}" for name in ("SAVE", "start"))] for kind in arguments.kinds]
    text = (
        f"{machine()}; {arguments.keys:,} strings of {arguments.size} bytes.\n\n{table(head, rows)}\n\n"
        f"{table(['server', 'SAVE, s', 'start with load, s'], idle)}"
    )
    publish("persistence", data, text, arguments.write)


if __name__ == "__main__":
    main()
