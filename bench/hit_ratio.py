"""Hit ratios of the eviction policies: traces replayed through ZeekDB and redis-server with the same room for data.

    python bench/hit_ratio.py [--traces scans,loops] [--file trace.jsonl.gz] [--parts 10,25,50] [--write]

A client as most are: GET, and SET when there is nothing (values of 512 bytes). Requests go in windows of up to 32
different keys, the GETs first, then the SETs. `maxmemory` is what redis-server needs for 10%, 25% or 50% of a trace's
keys, measured, above what each server uses when it is empty. A replay compresses hours into seconds, in which Redis's
LRU clock, of one second, hardly moves: the column of an exact LRU says what LRU would do at leisure. Belady's optimum
and the exact LRU are computed for as many keys as redis-server holds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import traces
from bench.servers import Server, command_line, machine, publish, table

WINDOW = 32
VALUE = b"v" * 512
OURS = ("lru", "lfu", "random", "fifo", "s3fifo", "learned")
THEIRS = ("lru", "lfu")
GET = [b"*2\r\n$3\r\nGET\r\n$12\r\n", b"\r\n"]
SET = [b"*3\r\n$3\r\nSET\r\n$12\r\n", b"\r\n$%d\r\n%s\r\n" % (len(VALUE), VALUE)]


def windows(trace: traces.Trace) -> list[list[int]]:
    """The trace in pieces without a key twice."""
    found: list[list[int]] = []
    piece: dict[int, None] = {}
    for key in trace.tolist():
        if key in piece or len(piece) == WINDOW:
            found.append(list(piece))
            piece = {}
        piece[key] = None
    return [*found, list(piece)]


def replay(server: Server, pieces: list[list[int]], words: list[bytes]) -> int:
    """Hits."""
    hits = 0
    with server.connect() as sock, sock.makefile("rb", buffering=1 << 16) as replies:
        for piece in pieces:
            sock.sendall(b"".join([words[key].join(GET) for key in piece]))
            missed = []
            for key in piece:
                head = replies.readline()
                if head == b"$-1\r\n":
                    missed.append(key)
                else:
                    replies.read(len(VALUE) + 2)
                    hits += 1
            if missed:
                sock.sendall(b"".join([words[key].join(SET) for key in missed]))
                for _ in missed:
                    if replies.readline() != b"+OK\r\n":
                        raise RuntimeError("a SET was refused")
    return hits


def used_memory(server: Server) -> int:
    """Bytes."""
    return int(server.info("memory", "used_memory"))


def room_for(words: list[bytes]) -> int:
    """Bytes that redis-server needs for all the keys."""
    with Server("redis") as server:
        before = used_memory(server)
        with server.connect() as sock, sock.makefile("rb") as replies:
            for at in range(0, len(words), 1000):
                sock.sendall(b"".join([word.join(SET) for word in words[at : at + 1000]]))
                for _ in words[at : at + 1000]:
                    replies.readline()
            return used_memory(server) - before


def measure(kind: str, policy: str, room: int, pieces: list[list[int]], words: list[bytes]) -> tuple[int, int]:
    """Hits, and the keys that were held in the end."""
    with Server(kind) as server:
        limit = used_memory(server) + room
        server.call("CONFIG", "SET", "maxmemory", str(limit), "maxmemory-policy", f"allkeys-{policy}")
        hits = replay(server, pieces, words)
        return hits, int(server.call("DBSIZE")[1:])


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--traces", type=lambda text: text.split(","), default=list(traces.MADE))
    parser.add_argument("--file", type=Path, action="append", default=[], help="a trace of chat requests (.jsonl.gz)")
    parser.add_argument("--parts", type=lambda text: [int(part) for part in text.split(",")], default=[10, 25, 50])
    parser.add_argument("--policies", type=lambda text: text.split(","), default=list(OURS))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    head = ["trace", "room", "optimum", "exact LRU", *(f"Redis {policy}" for policy in THEIRS), *arguments.policies]
    head += ["keys held, Redis / ZeekDB", "best over Redis's best"]
    rows, data = [], []
    found = [(name, traces.MADE[name](np.random.default_rng(arguments.seed))) for name in arguments.traces if name]
    found += [(path.name.split(".")[0], traces.conversations(path)) for path in arguments.file]
    for name, trace in found:
        distinct, trace = np.unique(trace, return_inverse=True)
        words = [b"%012d" % key for key in range(len(distinct))]
        pieces, need = windows(trace), room_for(words)
        for part in arguments.parts:
            room, capacity = need * part // 100, len(words) * part // 100
            line: dict[str, float] = {
                "optimum": traces.belady(trace, capacity) / len(trace),
                "exact LRU": traces.exact_lru(trace, capacity) / len(trace),
            }
            held = {}
            for kind, policies in (("redis", THEIRS), ("zeekdb", arguments.policies)):
                for policy in policies:
                    hits, held[kind] = measure(kind, policy, room, pieces, words)
                    line[policy if kind == "zeekdb" else f"Redis {policy}"] = hits / len(trace)
            theirs = max(line[f"Redis {policy}"] for policy in THEIRS)
            best = max(arguments.policies, key=lambda policy: line[policy])
            data.append({"trace": name, "requests": len(trace), "keys": len(words), "part": part, **line, "held": held})
            shown = {column: f"{ratio * 100:.1f}" for column, ratio in line.items()}
            shown[best] = f"**{shown[best]}**"
            keys, ahead = f"{held['redis']:,} / {held['zeekdb']:,}", f"{(line[best] - theirs) * 100:+.1f}"
            rows.append([name, f"{part}%", *shown.values(), keys, ahead])
            print(" | ".join(rows[-1]), file=sys.stderr)
    text = f"{machine()}. Hits in percent of requests; seed {arguments.seed}.\n\n{table(head, rows)}"
    publish("hit_ratio", data, text, arguments.write)


if __name__ == "__main__":
    main()
