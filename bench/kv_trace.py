"""Prefix hits of the tensor region: chat prompts replayed block by block through ZeekDB and redis-server.

    python bench/kv_trace.py [--file TRACE.jsonl.gz] [--traces shared_prompts,tenants] [--parts 5,10,25] [--write]

A request asks for the blocks of a prompt and stores those that were not there. What counts is the prefix: the blocks
before the first that is missing. ZeekDB is asked by KV.LOOKUP and given by KV.MSET, redis-server by MGET and SET; the
values have 1 KiB. The room is what N blocks need, N being 5%, 10% or 25% of the trace's blocks: a quota of N blocks in
ZeekDB (whose index is not counted), and in redis-server, measured, what it needs for that part of all keys. Both held
counts are in the table.

A replay compresses an hour into seconds, in which Redis's LRU clock, of one second, hardly moves, and its LFU counters,
which fall by the minute, do not fall at all: the columns of LRU and LFU are exact ones over single blocks, which say
what either would do at leisure. The optimum knows the future (`traces.chain_optimum`); unbounded is a cache that never
lets go. Each figure is also kept for both halves of the requests.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import traces
from bench.servers import Server, encode, machine, save, table, write_block

SIZE = 1024
MODEL = b"trace"
REDIS = ("lru", "lfu")
TRACE = Path(__file__).resolve().parents[2] / "shared" / "data" / "conversation_trace.jsonl.gz"
SPARE_BYTES = 64 << 20  # of the arena, above the blocks: its spans and the room that a moving block needs
BATCH = 1_000

IN_PROCESS: dict[str, Callable[[traces.Chains, int], list[int]]] = {
    "optimum": traces.chain_optimum,
    "LRU": traces.chain_lru,
    "LFU": traces.chain_lfu,
}
Reply = int | bytes | list["Reply"] | None


def key_of(block: int) -> bytes:
    return b"%012d" % block


def value_of(block: int) -> bytes:
    """Bytes that no other block has."""
    return b"%016d" % block * (SIZE // 16)


class Connection:
    """One connection, and replies of the kinds that the commands here have."""

    def __init__(self, server: Server) -> None:
        self.sock: socket.socket = server.connect()
        self.replies = self.sock.makefile("rb", buffering=1 << 16)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.replies.close()
        self.sock.close()

    def send(self, *commands: Sequence[bytes]) -> None:
        self.sock.sendall(b"".join([encode(*words) for words in commands]))

    def call(self, *words: bytes) -> Reply:
        self.send(words)
        return self.read()

    def read(self) -> Reply:
        line = self.replies.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.replies.read(size + 2)[:-2]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        raise RuntimeError(f"unexpected reply {line!r}")


def numbers(reply: Reply, count: int) -> list[int]:
    if not isinstance(reply, list) or len(reply) != count:
        raise RuntimeError(f"expected {count} integers, not {reply!r}")
    return [int(item) for item in reply if isinstance(item, int)]


def region_request(connection: Connection, chain: list[int]) -> tuple[int, int]:
    """Prefix hits of one request to ZeekDB, and how many blocks it dropped instead of storing them."""
    keys = [key_of(block) for block in chain]
    reply = connection.call(b"KV.LOOKUP", MODEL, b"%d" % len(keys), *keys)
    if not isinstance(reply, list) or not isinstance(reply[0], int) or not isinstance(reply[1], bytes):
        raise RuntimeError(f"unexpected reply to KV.LOOKUP: {reply!r}")
    found, bitmap = reply[0], reply[1]
    there = [bool(bitmap[at >> 3] >> (at & 7) & 1) for at in range(len(chain))]
    if found != next((at for at, is_there in enumerate(there) if not is_there), len(chain)):
        raise RuntimeError("the prefix is not what the bitmap says")
    missing = [block for block, is_there in zip(chain, there, strict=True) if not is_there]
    if not missing:
        return found, 0
    words = [word for block in missing for word in (key_of(block), value_of(block))]
    stored = numbers(connection.call(b"KV.MSET", MODEL, b"%d" % len(missing), *words), len(missing))
    return found, stored.count(-1)


def redis_request(connection: Connection, chain: list[int]) -> tuple[int, int]:
    """Likewise for redis-server, which drops nothing."""
    reply = connection.call(b"MGET", *[key_of(block) for block in chain])
    assert isinstance(reply, list)
    found = next((at for at, value in enumerate(reply) if value is None), len(chain))
    missing = [block for block, value in zip(chain, reply, strict=True) if value is None]
    connection.send(*[(b"SET", key_of(block), value_of(block)) for block in missing])
    for _ in missing:
        if connection.read() != b"OK":
            raise RuntimeError("a SET was refused")
    return found, 0


def count_held(connection: Connection, blocks: int, *command: bytes) -> int:
    """How many of all blocks are there in the end; blocks are numbered from 0."""
    held = 0
    for at in range(0, blocks, BATCH):
        keys = [key_of(block) for block in range(at, min(at + BATCH, blocks))]
        count = [b"%d" % len(keys)] if command[0] == b"KV.EXISTS" else []
        found = connection.call(*command, *count, *keys)
        assert isinstance(found, int)
        held += found
    return held


def replay_region(requests: traces.Chains, blocks: int, capacity: int) -> tuple[list[int], int, int]:
    """Prefix hits of each request, blocks dropped, blocks held in the end."""
    room = capacity * SIZE
    with Server("zeekdb", "--kv-memory", str(2 * room + SPARE_BYTES)) as server, Connection(server) as connection:
        if connection.call(b"KV.MODEL", b"SET", MODEL, b"QUOTA", b"%d" % room) != b"OK":
            raise RuntimeError("the model was refused")
        answers = [region_request(connection, chain) for chain in requests]
        held = count_held(connection, blocks, b"KV.EXISTS", MODEL)
    if held > capacity:
        raise RuntimeError(f"{held} blocks where {capacity} should fit")
    return [found for found, _ in answers], sum(dropped for _, dropped in answers), held


def room_for(blocks: int) -> int:
    """Bytes that redis-server needs for all blocks."""
    with Server("redis") as server, Connection(server) as connection:
        before = int(server.info("memory", "used_memory"))
        for at in range(0, blocks, BATCH):
            batch = range(at, min(at + BATCH, blocks))
            connection.send(*[(b"SET", key_of(block), value_of(block)) for block in batch])
            for _ in batch:
                connection.read()
        return int(server.info("memory", "used_memory")) - before


def replay_redis(policy: str, requests: traces.Chains, blocks: int, room: int) -> tuple[list[int], int]:
    """Prefix hits of each request, blocks held in the end."""
    with Server("redis") as server, Connection(server) as connection:
        limit = int(server.info("memory", "used_memory")) + room
        server.call("CONFIG", "SET", "maxmemory", str(limit), "maxmemory-policy", f"allkeys-{policy}")
        answers = [redis_request(connection, chain) for chain in requests]
        return [found for found, _ in answers], count_held(connection, blocks, b"EXISTS")


def renumbered(requests: traces.Chains) -> tuple[traces.Chains, int]:
    """The same with blocks from 0 in the order of their first use, and how many there are."""
    numbers_of: dict[int, int] = {}
    return [[numbers_of.setdefault(block, len(numbers_of)) for block in chain] for chain in requests], len(numbers_of)


def ratios(hits: list[int], requests: traces.Chains) -> list[float]:
    """Prefix hits over references: of all requests, of the first half, of the second."""
    middle = len(requests) // 2
    parts = (slice(None), slice(middle), slice(middle, None))
    return [sum(hits[part]) / sum(len(chain) for chain in requests[part]) for part in parts]


def measure(
    requests: traces.Chains, blocks: int, part: int, need: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """The ratios of each column, and what was held and dropped."""
    capacity = blocks * part // 100
    found = {"unbounded": ratios(traces.chain_lru(requests, blocks), requests)}
    for name, simulate in IN_PROCESS.items():
        found[name] = ratios(simulate(requests, capacity), requests)
    counts = {"room": capacity}
    for policy in REDIS:
        hits, counts["redis"] = replay_redis(policy, requests, blocks, need * part // 100)
        found[f"Redis {policy}"] = ratios(hits, requests)
    hits, counts["dropped"], counts["zeekdb"] = replay_region(requests, blocks, capacity)
    found["ZeekDB"] = ratios(hits, requests)
    return found, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--file", type=Path, default=TRACE, help="a trace of chat requests (.jsonl.gz)")
    parser.add_argument(
        "--traces", type=lambda text: [name for name in text.split(",") if name], default=list(traces.CHAINS)
    )
    parser.add_argument("--parts", type=lambda text: [int(part) for part in text.split(",")], default=[5, 10, 25])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="keep the figures and put the table into bench/README.md")
    arguments = parser.parse_args()
    found = [(name, traces.CHAINS[name](arguments.seed)) for name in arguments.traces]
    if arguments.file.exists():
        found.insert(0, (arguments.file.name.split(".")[0], traces.chains(arguments.file)))
    else:
        print(f"{arguments.file} is not there: without the real trace", file=sys.stderr)
    head: list[str] = []
    rows, data = [], []
    for name, chains in found:
        requests, blocks = renumbered(chains)
        references, need = sum(len(chain) for chain in requests), room_for(blocks)
        for part in arguments.parts:
            line, counts = measure(requests, blocks, part, need)
            data.append({"trace": name, "references": references, "blocks": blocks, "part": part, **line, **counts})
            rivals = max(ratio[0] for column, ratio in line.items() if column in ("LRU", "LFU") or "Redis" in column)
            head = ["trace", "room", *line, "over the best rival", "blocks held, Redis / ZeekDB", "dropped"]
            shown = [f"{ratio[0] * 100:.1f}" for ratio in line.values()]
            ahead = f"{(line['ZeekDB'][0] - rivals) * 100:+.1f}"
            held = f"{counts['redis']:,} / {counts['zeekdb']:,}"
            rows.append([name, f"{part}%", *shown, ahead, held, str(counts["dropped"])])
            print(" | ".join(rows[-1]), file=sys.stderr)
    text = f"{machine()}. Prefix hits in percent of block references; seed {arguments.seed}.\n\n{table(head, rows)}"
    print(text)
    if arguments.write:
        save("kv_trace", data)
        write_block(Path(__file__).with_name("README.md"), "kv-trace", text)


if __name__ == "__main__":
    main()
