"""The warm tier beside plain redis-py pipelines to the same redis-server: GB/s of put and get, as ratios.

    python bench/warm.py [--mib 64] [--rounds 15] [--callers 4] [--sizes 64,1024,4096] [--chunks] [--write]

Plain is what redis-py does with the same blocks: a pipeline of SET, then one of GET, of 8 MiB each, values as bytes
objects that nobody looks at. The tier asks first whether it has a block, writes headers and times to live, and reads
into the caller's memory with every byte's checksum compared. As many callers are under way on both sides, over one
Unix socket path, on uvloop; the sides take turns within a round, and the order changes from round to round. What counts
is the median of the rounds' ratios. The bar: 70%.

`--chunks` instead compares sizes of chunks for blocks of 32 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import redis.asyncio as redis_py
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, command_line, machine, median, publish, table
from zeekdb.hot.checksum import checksum
from zeekdb.tiers.tier import Get, Meta, Put, place_of
from zeekdb.tiers.warm import BATCH_BYTES, WarmTier

KIB, MIB, GB = 1 << 10, 1 << 20, 1e9
BAR = 0.7
CHUNK_SIZES = (256 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB, 8 * MIB)

Side = Callable[[], Awaitable[tuple[float, float]]]


def blocks(source: memoryview, size: int) -> list[Put]:
    """All of the source as blocks."""
    views = [source[at : at + size] for at in range(0, source.nbytes, size)]
    return [Put(Meta(b"model", b"", b"%032d" % at, size, checksum(v)), v) for at, v in enumerate(views)]


async def side_by_side(work: Callable[[list[int]], Awaitable[None]], count: int, each: int, callers: int) -> float:
    """Seconds for pieces of `each` of so many blocks, taken by so many callers."""
    pieces = [list(range(at, min(at + each, count))) for at in range(0, count, each)]

    async def caller() -> None:
        while pieces:
            await work(pieces.pop())

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.perf_counter() - began


async def plain(path: str, puts: list[Put], callers: int) -> tuple[float, float]:
    """(seconds of writing, of reading) of pipelines."""
    client = redis_py.Redis(unix_socket_path=path, max_connections=callers)
    each = max(BATCH_BYTES // puts[0].meta.size, 1)
    await asyncio.gather(*(client.ping() for _ in range(callers)))

    async def write(piece: list[int]) -> None:
        pipeline = client.pipeline(transaction=False)
        for at in piece:
            pipeline.set(puts[at].meta.key, puts[at].data)
        assert all(await pipeline.execute())

    async def read(piece: list[int]) -> None:
        pipeline = client.pipeline(transaction=False)
        for at in piece:
            pipeline.get(puts[at].meta.key)
        assert [len(value) for value in await pipeline.execute()] == [puts[at].meta.size for at in piece]

    seconds = [await side_by_side(work, len(puts), each, callers) for work in (write, read)]
    await client.flushall()
    await client.aclose()
    return seconds[0], seconds[1]


async def tiered(path: str, puts: list[Put], target: memoryview, callers: int, **options: int) -> tuple[float, float]:
    """The same of the tier."""
    tier = WarmTier(f"unix://{path}", timeout_s=30, batch=256, **options)
    await tier.open()
    await asyncio.gather(*(tier.probe() for _ in range(callers)))
    size = puts[0].meta.size
    each = max(BATCH_BYTES // size, 1)
    gets = [Get(put.meta, place_of(put.meta), target[at * size :][:size]) for at, put in enumerate(puts)]

    async def write(piece: list[int]) -> None:
        assert None not in await tier.put([puts[at] for at in piece])

    async def read(piece: list[int]) -> None:
        assert all(await tier.get([gets[at] for at in piece]))

    seconds = [await side_by_side(work, len(puts), each, callers) for work in (write, read)]
    await tier.client.ask([(b"FLUSHALL",)])
    await tier.close()
    return seconds[0], seconds[1]


def compare(path: str, arguments: argparse.Namespace, source: memoryview, target: memoryview) -> None:
    """The table, and whether the bar is met."""
    data: dict[str, object] = {"load average": os.getloadavg()[0]}
    rows = []
    for size in arguments.sizes:
        puts = blocks(source, size * KIB)
        rounds: dict[str, list[tuple[float, float]]] = {"plain": [], "tier": []}
        for number in range(arguments.rounds):
            for kind in ("plain", "tier") if number % 2 else ("tier", "plain"):
                if kind == "plain":
                    rounds[kind].append(uvloop.run(plain(path, puts, arguments.callers)))
                else:
                    rounds[kind].append(uvloop.run(tiered(path, puts, target, arguments.callers)))
        assert target[-size * KIB :] == source[-size * KIB :]
        for at, way in enumerate(("put", "get")):
            pairs = [(one[at], two[at]) for one, two in zip(rounds["plain"], rounds["tier"], strict=True)]
            ratios = [one / two for one, two in pairs]
            speeds = [source.nbytes / GB / median(seconds) for seconds in zip(*pairs, strict=True)]
            data[f"{way} {size} KiB"] = {"plain GB/s": speeds[0], "tier GB/s": speeds[1], "ratios": ratios}
            rows.append([
                f"{way}, {size} KiB", f"{speeds[0]:.2f}", f"{speeds[1]:.2f}",
                f"**{median(ratios) * 100:.0f}%** {'met' if median(ratios) >= BAR else 'missed'}",
                f"{min(ratios) * 100:.0f} … {max(ratios) * 100:.0f}%",
            ])  # fmt: skip
            print(rows[-1], file=sys.stderr)
    head = ["blocks", "plain GB/s", "tier GB/s", f"ratio (bar {BAR:.0%})", "of the rounds"]
    text = (
        f"{machine()}; {arguments.mib} MiB in {arguments.rounds} rounds, {arguments.callers} callers, "
        f"load average {data['load average']:.1f} at the start.\n\n{table(head, rows)}"
    )
    publish("warm", data, text, arguments.write)


def compare_chunks(path: str, arguments: argparse.Namespace, source: memoryview, target: memoryview) -> None:
    """How chunks of several sizes do."""
    puts = blocks(source, 32 * MIB)
    rounds = [
        [uvloop.run(tiered(path, puts, target, arguments.callers, chunk_bytes=size)) for size in CHUNK_SIZES]
        for _ in range(arguments.rounds)
    ]
    rows = []
    for size, seconds in zip(CHUNK_SIZES, zip(*rounds, strict=True), strict=True):
        speeds = [source.nbytes / GB / median(column) for column in zip(*seconds, strict=True)]
        rows.append([f"{size // KIB} KiB", *(f"{speed:.2f}" for speed in speeds)])
    print(table(["chunk", "put GB/s", "get GB/s"], rows))


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--sizes", type=lambda text: [int(word) for word in text.split(",")], default=[64, 1024, 4096])
    parser.add_argument("--chunks", action="store_true")
    arguments = parser.parse_args()
    source = memoryview(os.urandom(arguments.mib * MIB))
    target = memoryview(bytearray(arguments.mib * MIB))
    with Server("redis", "--save", "", "--appendonly", "no") as server:
        (compare_chunks if arguments.chunks else compare)(server.unix, arguments, source, target)


if __name__ == "__main__":
    main()
