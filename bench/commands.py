"""Commands beyond redis-benchmark's list, at pipeline 100: the server's CPU time per request, both servers in turns.

    python bench/commands.py                    # three rounds
    python bench/commands.py --only EVAL PUBLISH
    python bench/commands.py --quick            # one short round: does everything run?
    python bench/commands.py --write            # and put the table into bench/README.md

16 connections send batches of 100 requests over keys drawn from KEYS, made beforehand, and read the replies up to an
ECHO that ends each batch. What a collection holds and how many there are stands in the table. DEL alternates with SETs
that bring the keys back, which are timed apart. PUBLISH has 100 subscribers, which another process drains.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, command_line, encode, machine, median, publish, table

KEYS = 10_000
BATCH = 100
BATCHES = 160  # different ones, sent over and over
CONNECTIONS = 16
SUBSCRIBERS = 100
MEMBERS = 1_000_000
MARK = b"=end="
END = encode(b"ECHO", MARK)
TAIL = b"$5\r\n=end=\r\n"

Words = tuple[bytes, ...]


@dataclass
class Case:
    """A kind of request: what there is beforehand, and one request of it."""

    name: str
    bar: float
    what: str
    request: Callable[[random.Random], list[Words]]
    setup: Callable[[], list[Words]] = list
    restore: Callable[[list[Words]], list[Words]] | None = None  # undoes a batch, not timed


def key(dice: random.Random, letter: bytes) -> bytes:
    """One of KEYS."""
    return b"%b:%06d" % (letter, dice.randrange(KEYS))


def strings() -> list[Words]:
    """Every string key."""
    return [(b"SET", b"s:%06d" % n, b"value:%06d" % n) for n in range(KEYS)]


def collections(command: bytes, letter: bytes, item: Callable[[int], Words]) -> Callable[[], list[Words]]:
    """1,000 collections of 20."""
    return lambda: [
        (command, b"%b:%06d" % (letter, n), *(word for k in range(20) for word in item(k))) for n in range(1000)
    ]


def small(dice: random.Random, letter: bytes) -> bytes:
    """One of the 1,000 collections."""
    return b"%b:%06d" % (letter, dice.randrange(1000))


def million() -> list[Words]:
    """The large sorted set."""
    pairs = [(b"%d" % (n * 7919 % MEMBERS), b"m%07d" % n) for n in range(MEMBERS)]
    return [
        (b"ZADD", b"big", *(word for pair in pairs[at : at + 1000] for word in pair)) for at in range(0, MEMBERS, 1000)
    ]


CASES = [
    Case("XADD", 2, "1,000 streams, 1 field", lambda r: [(b"XADD", small(r, b"x"), b"*", b"field", b"value")]),
    Case("MGET of 10", 2, "10,000 keys", lambda r: [(b"MGET", *(key(r, b"s") for _ in range(10)))], strings),
    Case("HGET", 2, "1,000 hashes of 20", lambda r: [(b"HGET", small(r, b"h"), b"f%d" % r.randrange(20))],
         collections(b"HSET", b"h", lambda k: (b"f%d" % k, b"value:%d" % k))),
    Case("ZSCORE", 2, "1,000 sorted sets of 20", lambda r: [(b"ZSCORE", small(r, b"z"), b"m%d" % r.randrange(20))],
         collections(b"ZADD", b"z", lambda k: (b"%d" % k, b"m%d" % k))),
    Case("SISMEMBER", 2, "1,000 sets of 20", lambda r: [(b"SISMEMBER", small(r, b"t"), b"m%d" % r.randrange(30))],
         collections(b"SADD", b"t", lambda k: (b"m%d" % k,))),
    Case("EXPIRE", 2, "10,000 keys", lambda r: [(b"EXPIRE", key(r, b"s"), b"%d" % r.randrange(1000, 9999))], strings),
    Case("DEL", 2, "10,000 keys", lambda r: [(b"DEL", key(r, b"s"))], strings,
         lambda batch: [(b"SET", words[1], b"value") for words in batch]),
    Case("EXISTS", 2, "10,000 keys", lambda r: [(b"EXISTS", key(r, b"s"))], strings),
    Case("PUBLISH", 1, f"{SUBSCRIBERS} subscribers",
         lambda r: [(b"PUBLISH", b"channel", b"message:%06d" % r.randrange(10))]),
    Case("EVAL", 1, "return redis.call('get', KEYS[1])",
         lambda r: [(b"EVAL", b"return redis.call('get', KEYS[1])", b"1", key(r, b"s"))], strings),
    Case("MULTI/EXEC of 3", 1, "SET, GET, INCR",
         lambda r: [(b"MULTI",), (b"SET", key(r, b"s"), b"1"), (b"GET", key(r, b"s")), (b"INCR", key(r, b"n")),
                    (b"EXEC",)], strings),
    Case("ZADD, 1M members", 1.5, "one set of 1,000,000",
         lambda r: [(b"ZADD", b"big", b"%d" % r.randrange(MEMBERS), b"m%07d" % r.randrange(MEMBERS))], million),
    Case("ZRANK, 1M members", 1.5, "one set of 1,000,000",
         lambda r: [(b"ZRANK", b"big", b"m%07d" % r.randrange(MEMBERS))], million),
]  # fmt: skip


def exchange_all(socks: list[socket.socket], payloads: list[bytes]) -> None:
    """Every connection sends a batch, then all replies are read."""
    for sock, payload in zip(socks, payloads, strict=True):
        sock.sendall(payload + END)
    for sock in socks:
        read_to_end(sock)


def exchange(sock: socket.socket, payload: bytes) -> None:
    """Sends a batch and reads to its end."""
    sock.sendall(payload + END)
    read_to_end(sock)


def read_to_end(sock: socket.socket) -> None:
    """Reads the replies of a batch."""
    tail = b""
    while not tail.endswith(TAIL):
        part = sock.recv(1 << 20)
        if not part:
            raise RuntimeError("the server closed the connection")
        tail = (tail + part)[-len(TAIL) :]


def drain(port: int, ready: object) -> None:
    """The subscribers, in a process of their own."""
    socks = []
    for _ in range(SUBSCRIBERS):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(encode(b"SUBSCRIBE", b"channel"))
        sock.recv(4096)
        socks.append(sock)
    ready.set()  # type: ignore[attr-defined]
    while True:
        for sock in select.select(socks, [], [])[0]:
            if not sock.recv(1 << 20):
                return


class Run:
    """One case on one server: set up once, timed in every round."""

    def __init__(self, case: Case, server: Server) -> None:
        self.case, self.server = case, server
        dice = random.Random(7)
        batches = [[case.request(dice) for _ in range(BATCH)] for _ in range(BATCHES)]
        self.payloads = [b"".join(encode(*words) for request in batch for words in request) for batch in batches]
        self.restores = [
            b"".join(encode(*words) for words in case.restore([request[0] for request in batch]))
            for batch in batches
        ] if case.restore else []  # fmt: skip
        self.figures: list[float] = []

    def prepare(self) -> None:
        """An empty server gets what the case needs."""
        with self.server.connect() as sock:
            exchange(sock, encode(b"FLUSHALL"))
            words = self.case.setup()
            for at in range(0, len(words), 500):
                exchange(sock, b"".join(encode(*each) for each in words[at : at + 500]))

    def time(self, seconds: float) -> None:
        """CPU microseconds of the server for one request."""
        subscribers = None
        if self.case.name == "PUBLISH":
            ready = multiprocessing.Event()
            subscribers = multiprocessing.Process(target=drain, args=(self.server.port, ready), daemon=True)
            subscribers.start()
            ready.wait(30)
        spent, requests, at = 0.0, 0, 0
        socks = [self.server.connect() for _ in range(CONNECTIONS)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(10):
                chosen = [(at + n) % BATCHES for n in range(CONNECTIONS)]
                if self.restores:
                    exchange_all(socks, [self.restores[n] for n in chosen])
                begin = self.server.cpu_s()
                exchange_all(socks, [self.payloads[n] for n in chosen])
                spent += self.server.cpu_s() - begin
                requests += CONNECTIONS * BATCH
                at += CONNECTIONS
        for sock in socks:
            sock.close()
        if subscribers is not None:
            subscribers.kill()
            subscribers.join()
        self.figures.append(spent / requests * 1e6)


def measure(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Every case, the servers in turns."""
    rows: list[dict[str, object]] = []
    with Server("redis") as redis, Server("zeekdb") as zeekdb:
        for case in CASES:
            if arguments.only and not any(case.name.startswith(name) for name in arguments.only):
                continue
            runs = [Run(case, redis), Run(case, zeekdb)]
            for run in runs:
                run.prepare()
            for turn in range(arguments.rounds):
                for run in runs if turn % 2 == 0 else reversed(runs):
                    run.time(arguments.seconds)
            mine, theirs = median(runs[1].figures), median(runs[0].figures)
            rows.append({
                "command": case.name, "what": case.what, "bar": case.bar, "redis_us": theirs, "zeekdb_us": mine,
                "factor": theirs / mine,
            })  # fmt: skip
            print(f"{case.name:18} {theirs:8.3f} {mine:8.3f} {theirs / mine:6.2f}", file=sys.stderr)
    return rows


def show(rows: list[dict[str, object]]) -> str:
    """The table."""
    head = ["command", "over", "Redis CPU µs", "ZeekDB CPU µs", "factor", "bar"]
    lines = []
    for row in rows:
        factor, bar = float(str(row["factor"])), float(str(row["bar"]))
        verdict = f"{bar:.1f} {'met' if factor >= bar else 'missed'}"
        lines.append([
            str(row["command"]), str(row["what"]), f"{float(str(row['redis_us'])):.3f}",
            f"{float(str(row['zeekdb_us'])):.3f}", f"**{factor:.2f}**", verdict,
        ])  # fmt: skip
    return f"{machine()}.\n\n{table(head, lines)}"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 0.3
    rows = measure(arguments)
    text = show(rows)
    publish("commands", rows, text, arguments.write)


if __name__ == "__main__":
    main()
