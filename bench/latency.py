"""What a second connection feels while the keyspace grows, expires and is flushed; and many connections.

    python bench/latency.py [--keys 10000000]        # a ping each millisecond beside the work
    python bench/latency.py --connections            # 10,000 idle ones; 1,000 active ones at pipeline 16
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import socket
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import vs_redis
from bench.servers import Server, encode, machine, save, table

BATCH = 500
TICK_S = 0.001


def ping(port: int, pipe: Connection) -> None:
    """Pings every millisecond until told to stop, then reports the waits in ms, sorted."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waits = []
    pipe.send("ready")
    while not pipe.poll():
        begin = time.perf_counter()
        sock.sendall(b"*1\r\n$4\r\nPING\r\n")
        sock.recv(64)
        wait = time.perf_counter() - begin
        waits.append(wait * 1e3)
        if wait < TICK_S:
            time.sleep(TICK_S - wait)
    pipe.send(sorted(waits))


class Pinger:
    """A process that pings while the block runs; `.worst` and `.p999` are ms."""

    def __init__(self, server: Server) -> None:
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=ping, args=(server.port, other), daemon=True)

    def __enter__(self) -> Pinger:
        self.process.start()
        self.pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.send("stop")
        waits = self.pipe.recv()
        self.process.join()
        self.worst = waits[-1]
        self.p999 = waits[int(len(waits) * 0.999)]


def insert(server: Server, begin: int, end: int, deadline_ms: int = 0) -> None:
    """Keys begin..end, pipelined by BATCH."""
    tail = (b"PXAT", b"%d" % deadline_ms) if deadline_ms else ()
    with server.connect() as sock:
        for first in range(begin, end, BATCH):
            keys = (b"key:%012d" % number for number in range(first, first + BATCH))
            sock.sendall(b"".join(encode(b"SET", key, b"value", *tail) for key in keys))
            left = 5 * BATCH
            while left:
                left -= len(sock.recv(left))


def growth(kind: str, keys: int) -> dict[str, tuple[float, float]]:
    """(worst, p99.9) in ms of each phase."""
    found = {}
    with Server(kind) as server:
        with Pinger(server) as pinger:
            insert(server, 0, keys)
        found[f"insert {keys:,} keys"] = (pinger.worst, pinger.p999)
        expiring = keys // 10
        deadline_ms = int(time.time() * 1000) + max(4000, expiring // 60)
        insert(server, keys, keys + expiring, deadline_ms)
        size = int(server.call("DBSIZE")[1:])
        time.sleep(max(deadline_ms / 1000 - 0.2 - time.time(), 0))
        with Pinger(server) as pinger:
            limit = time.monotonic() + 60
            while int(server.call("DBSIZE")[1:]) > keys and time.monotonic() < limit:
                time.sleep(0.05)
        found[f"{size - keys:,} keys expire at once"] = (pinger.worst, pinger.p999)
        with Pinger(server) as pinger:
            server.call("FLUSHALL")
            time.sleep(3)
        found[f"FLUSHALL of {keys:,} keys"] = (pinger.worst, pinger.p999)
    return found


def connections() -> None:
    """Idle and active connections."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (30_000, 30_000))
    data = {}
    for kind in ("redis", "zeekdb"):
        with Server(kind, "--maxclients", "20000") as server:
            before = server.rss()
            held = []
            for i in range(10_000):
                sock = socket.create_connection(("127.0.0.1", server.port), source_address=(f"127.0.0.{2 + i % 4}", 0))
                held.append(sock)
            for sock in held:
                sock.sendall(b"*1\r\n$4\r\nPING\r\n")
                sock.recv(64)
            data[kind] = (server.rss() - before) / len(held)
            for sock in held:
                sock.close()
    print(f"10,000 idle connections, bytes each: Redis {data['redis']:,.0f}, ZeekDB {data['zeekdb']:,.0f} (bar 10,240)")
    rows = []
    with Server("redis", "--maxclients", "20000") as redis, Server("zeekdb", "--maxclients", "20000") as zeekdb:
        for test in ("set", "get", "lpush", "hset"):
            for server in (redis, zeekdb):
                for count in (50, 1000):
                    runs = [vs_redis.run(server, test, 16, count, False) for _ in range(3)]
                    data[f"{server.kind} {test} {count}"] = sorted(r["cpu_us"] for r in runs)[1]
            factor = [data[f"redis {test} {count}"] / data[f"zeekdb {test} {count}"] for count in (50, 1000)]
            cpu_us = [data[f"{kind} {test} {count}"] for kind in ("redis", "zeekdb") for count in (50, 1000)]
            factors = (*factor, factor[1] / vs_redis.bar(test, 16))
            rows.append([test.upper(), *(f"{us:.3f}" for us in cpu_us), *(f"{f:.2f}" for f in factors)])
    print(table(["pipeline 16", "Redis µs, 50", "Redis µs, 1000", "ZeekDB µs, 50", "ZeekDB µs, 1000", "factor, 50",
                 "factor, 1000", "of the bar (0.8 wanted)"], rows))  # fmt: skip
    save("connections", data)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--connections", action="store_true")
    arguments = parser.parse_args()
    print(machine() + ".\n")
    if arguments.connections:
        connections()
        return
    found = {kind: growth(kind, arguments.keys) for kind in ("redis", "zeekdb")}
    rows = []
    for phase in found["zeekdb"]:
        r, z = found["redis"].get(phase, (0, 0)), found["zeekdb"][phase]
        rows.append([phase, f"{r[0]:.1f}", f"{z[0]:.1f}", f"{r[1]:.2f}", f"{z[1]:.2f}",
                     "met" if z[0] <= 10 and z[0] <= max(r[0], 1) else "missed"])  # fmt: skip
    heads = ["phase", "Redis worst ms", "ZeekDB worst ms", "Redis p99.9", "ZeekDB p99.9", "10 ms, and Redis's worst"]
    print(table(heads, rows))
    save("latency", found)


if __name__ == "__main__":
    main()
