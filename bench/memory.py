"""Resident memory per key, 1,000,000 keys of each mix, a fresh server each time: ZeekDB beside redis-server.

    python bench/memory.py [--keys 1000000] [--mixes strings_3,hashes]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, encode, machine, save, table

BATCH = 1000
MEMBERS = [b"member%02d" % i for i in range(10)]
FIELDS = [part for i in range(10) for part in (b"field%d" % i, b"value%d" % i)]
SCORES = [part for i in range(10) for part in (b"%d" % (i * 10), b"member%02d" % i)]
MIXES: dict[str, tuple[float, Callable[[bytes], bytes]]] = {
    "strings of 3": (0.7, lambda key: encode(b"SET", key, b"xxx")),
    "strings of 32": (0.7, lambda key: encode(b"SET", key, b"x" * 32)),
    "strings of 100": (0.7, lambda key: encode(b"SET", key, b"x" * 100)),
    "hashes": (0.9, lambda key: encode(b"HSET", key, *FIELDS)),
    "lists": (0.9, lambda key: encode(b"RPUSH", key, *MEMBERS)),
    "sets": (0.9, lambda key: encode(b"SADD", key, *MEMBERS)),
    "sorted sets": (0.9, lambda key: encode(b"ZADD", key, *SCORES)),
}


def load(server: Server, build: Callable[[bytes], bytes], keys: int) -> float:
    """Bytes of resident memory per key."""
    before = server.rss()
    with server.connect() as sock:
        replies = sock.makefile("rb")
        for begin in range(0, keys, BATCH):
            sock.sendall(b"".join(build(b"key:%012d" % i) for i in range(begin, begin + BATCH)))
            for _ in range(BATCH):
                replies.readline()
    time.sleep(0.5)  # a resize under way may end
    return (server.rss() - before) / keys


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--mixes", type=lambda text: text.split(","), default=list(MIXES))
    arguments = parser.parse_args()
    rows, data = [], {}
    for name in arguments.mixes:
        bar, build = MIXES[name]
        figures = {}
        for kind in ("redis", "zeekdb"):
            with Server(kind) as server:
                figures[kind] = load(server, build, arguments.keys)
        ratio = figures["zeekdb"] / figures["redis"]
        data[name] = figures
        rows.append([name, f"{figures['redis']:.0f}", f"{figures['zeekdb']:.0f}", f"**{ratio:.2f}**",
                     f"{bar} {'met' if ratio <= bar else 'missed'}"])  # fmt: skip
        print(rows[-1], file=sys.stderr)
    print(machine() + f", {arguments.keys:,} keys of 16 bytes.\n")
    print(table(["mix", "Redis bytes/key", "ZeekDB bytes/key", "ratio", "bar"], rows))
    save("memory", data)


if __name__ == "__main__":
    main()
