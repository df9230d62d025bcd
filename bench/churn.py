"""Resident memory while a full cache of mixed sizes turns over again and again: how far above `maxmemory` it goes.

    python bench/churn.py [--minutes 10] [--maxmemory 400] [--policy allkeys-lru] [--kinds redis,zeekdb] [--write]

Both servers run in one call, one after the other. `--write` keeps the figures in bench/results/churn.json, under what
the call has asked for: a run of three minutes stands beside one of ten.

Keys are set at random, with values of 8 bytes to 32 KiB (log-normal); the median wanders from 100 bytes to 2 KB and
back each two minutes, so that what is freed has other sizes than what comes. One value in ten is a hash of ten fields,
one in fifty a list. The resident memory of an empty server is subtracted; each second counts.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import RESULTS, Server, encode, machine, median, save, table

BATCH = 200
ROUND_S = 120
FILLER = random.Random(1).randbytes(64 << 10)


def commands(rng: random.Random, share: float) -> bytes:
    """A batch of writes, `share` of the way round."""
    middle = math.log(100) + (math.log(2000) - math.log(100)) * (0.5 - 0.5 * math.cos(2 * math.pi * share))
    parts = []
    for _ in range(BATCH):
        key = b"key:%d" % rng.randrange(5_000_000)
        size = min(max(int(rng.lognormvariate(middle, 1.2)), 8), 32 << 10)
        at = rng.randrange(len(FILLER) - size)
        kind = rng.random()
        if kind < 0.88:
            parts.append(encode(b"SET", key, FILLER[at : at + size]))
        elif kind < 0.98:
            words = [word for n in range(10) for word in (b"field%d" % n, FILLER[at + n : at + n + size // 10])]
            parts.append(encode(b"HSET", b"h:" + key, *words))
        else:
            parts.append(encode(b"RPUSH", b"l:" + key, *[FILLER[at : at + size // 20 + 1]] * 20))
    return b"".join(parts)


def churn(kind: str, limit: int, policy: str, seconds: float) -> dict[str, float]:
    """The resident memory over the empty server's in relation to the limit: median and most, once it was reached."""
    rng = random.Random(7)
    with Server(kind) as server, server.connect() as sock, sock.makefile("rb") as replies:
        empty = server.rss()
        server.call("CONFIG", "SET", "maxmemory", str(limit), "maxmemory-policy", policy)
        begin = last = time.monotonic()
        ratios: list[float] = []
        writes, full = 0, False
        while (now := time.monotonic()) < begin + seconds:
            sock.sendall(commands(rng, (now - begin) / ROUND_S))
            for _ in range(BATCH):
                line = replies.readline()
                if line.startswith(b"-"):
                    raise RuntimeError(line.decode())
            writes += BATCH
            if now - last >= 1:
                last = now
                full = full or evicted_keys(server) > 0
                if full:
                    ratios.append((server.rss() - empty) / limit)
        evicted = evicted_keys(server)
        return {"median": median(ratios), "most": max(ratios), "writes": writes, "evicted": evicted, "last": ratios[-1]}


def evicted_keys(server: Server) -> int:
    """Since its start."""
    return int(server.info("stats", "evicted_keys"))


def keep(asked: str, figures: dict[str, dict[str, float]]) -> None:
    """Beside the figures of other runs, in the place of an earlier one that has asked for the same."""
    path = RESULTS / "churn.json"
    runs = json.loads(path.read_text())["data"] if path.exists() else {}
    save("churn", {**runs, asked: figures})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--maxmemory", type=int, default=400, help="MB")
    parser.add_argument("--policy", default="allkeys-lru")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=["redis", "zeekdb"])
    parser.add_argument("--write", action="store_true", help="keep the figures in bench/results/churn.json")
    arguments = parser.parse_args()
    asked = f"{arguments.minutes:g} minutes, maxmemory {arguments.maxmemory} MB, {arguments.policy}"
    rows, data = [], {}
    for kind in arguments.kinds:
        figures = churn(kind, arguments.maxmemory * 1_000_000, arguments.policy, arguments.minutes * 60)
        data[kind] = figures
        rows.append([kind, *(f"{figures[name] * 100:.1f}%" for name in ("median", "most")),
                     *(f"{figures[name]:,.0f}" for name in ("writes", "evicted"))])  # fmt: skip
        print(rows[-1], file=sys.stderr)
    print(f"{machine()}; {asked}.\n")
    print(table(["server", "resident / maxmemory, median", "most", "writes", "evicted"], rows))
    if arguments.write:
        keep(asked, data)


if __name__ == "__main__":
    main()
