"""The catalogue in PostgreSQL: how fast it starts, takes rows, answers, and keeps cold blocks.

Embedded unless --url names a server; every round has an empty database. Rows per second are those of the catalogue as
the server uses it: told on the loop, merged, sent and committed. Beside them the two ways to send a batch, arrays and
COPY, alternate on the same rows. "The loop waits" is the CPU time between two turns of another task while rows are
written, in rounds of their own.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.servers import command_line, machine, median, publish, table
from zeekdb.hot.checksum import checksum
from zeekdb.tiers.envelope import digest
from zeekdb.tiers.packing import Packer
from zeekdb.tiers.postgres import writer
from zeekdb.tiers.postgres.blobs import BlobTier
from zeekdb.tiers.postgres.catalogue import Catalogue
from zeekdb.tiers.postgres.embedded import Embedded
from zeekdb.tiers.postgres.events import Context, State
from zeekdb.tiers.postgres.pool import Database, transaction
from zeekdb.tiers.tier import Get, Meta, Put, name_of, place_of

Way = Callable[[Any, list[tuple[Any, ...]]], Awaitable[None]]

SUBJECTS = ("start", "write", "read", "blobs")
STAGED = "CREATE TEMPORARY TABLE IF NOT EXISTS staged ({columns}) ON COMMIT DELETE ROWS"


def meta(number: int) -> Meta:
    """A block of 16 tokens, as a fleet names it."""
    key = digest(Meta(b"", b"", b"%d" % number, 0, 0)).encode()
    return Meta(b"meta-llama/Llama-3.1-8B-Instruct", b"tenant", key, 2 << 20, number * 0x9E3779B97F4A7C15 % (1 << 64))


def context(number: int) -> Context:
    at = number % 64 * 16
    sequence = b"sequence:%d" % (number // 64)
    return Context(0, 32, at, at + 16, b"parent:%d" % (number - 1), sequence, 2 << 20, {"topic": "x"})


def quantiles_ms(seconds: list[float]) -> tuple[float, float]:
    """p50, p99."""
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49] * 1e3, cuts[98] * 1e3


async def starts(rounds: int) -> dict[str, list[float]]:
    """Seconds to a first answer: where nothing is, after a stop, and after a crash of PostgreSQL."""
    found: dict[str, list[float]] = {"new": [], "again": [], "after kill -9": [], "stop": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            for kind in ("new", "again", "after kill -9"):
                database = Database(f"embedded:{name}/pg", timeout_s=10)
                began = time.perf_counter()
                await database.open(60)
                found[kind].append(time.perf_counter() - began)
                assert database.is_open
                if kind == "again":
                    await killed(database.embedded)
                began = time.perf_counter()
                await database.close()
                if kind != "again":
                    found["stop"].append(time.perf_counter() - began)
    return found


async def killed(server: Embedded | None) -> None:
    """Ended as a crash would, and not started again."""
    assert server is not None and server._watching is not None and server._process is not None
    server._watching.cancel()
    os.kill(int((server.data / "postmaster.pid").read_text().split("\n")[0]), 9)
    await asyncio.to_thread(server._process.wait)


async def lag(waits: list[float]) -> None:
    """What others of the loop compute between two turns of a task that wants to run always."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        waits.append(time.thread_time() - began)


async def written(url: str, rows: int, is_watched: bool = False) -> tuple[float, list[float]]:
    """(rows/s, what the loop waits meanwhile)."""
    catalogue = Catalogue(Database(url, timeout_s=10), node="bench")
    await catalogue.open()
    await catalogue.database.write(lambda connection: connection.execute("TRUNCATE zeekdb.kv_cache_metadata"))
    metas = [meta(number) for number in range(rows)]
    waits: list[float] = []
    began = time.perf_counter()
    for number, each in enumerate(metas):
        catalogue.stored(each, context(number))
        catalogue.placed(each, ("postgres",), 1 << 20, "zstd")
        if number % 100 == 99:
            catalogue.tick(0)
            await asyncio.sleep(0)
    if is_watched:
        watching = asyncio.create_task(lag(waits))
    assert await catalogue.flush(120)
    took_s = time.perf_counter() - began
    if is_watched:
        watching.cancel()
    assert catalogue.stats().dropped == 0
    await catalogue.close()
    return rows / took_s, waits


async def sent(url: str, rows: int, batch: int) -> dict[str, float]:
    """Rows/s of the two ways to send the same batches, which insert at first and update the second time."""
    database = Database(url, timeout_s=60)
    await database.open(60)
    columns = {**writer._META, **writer._CONTEXT, **writer._PLACE}
    arrays = writer.UPSERTS[True, True]
    copied = arrays[: arrays.index("unnest(")] + "staged AS r " + arrays[arrays.index("ORDER BY") :]
    declared = ", ".join(f"{name} {kind}" for name, kind in columns.items())

    async def by_arrays(connection: Any, part: list[tuple[Any, ...]]) -> None:
        async with transaction(connection):
            await connection.execute(arrays, *writer._columns(part))

    async def by_copy(connection: Any, part: list[tuple[Any, ...]]) -> None:
        async with transaction(connection):
            await connection.copy_records_to_table("staged", records=part, columns=list(columns))
            await connection.execute(copied)

    async def work(connection: Any) -> dict[str, float]:
        await connection.execute(STAGED.format(columns=declared))
        await connection.execute("SET statement_timeout = 0")
        ways: dict[str, Way] = {"arrays": by_arrays, "COPY": by_copy}
        found: dict[str, float] = {}
        for number, (name, way) in enumerate(ways.items()):
            states = [State(meta(at), context(at)) for at in range(number * rows, (number + 1) * rows)]
            placed = writer.LEVELS[1], "postgres", "key", 1, "raw"
            data = [(*writer._row(state, "bench"), *placed) for state in states]
            for what in ("insert", "update"):
                began = time.perf_counter()
                for at in range(0, rows, batch):
                    await way(connection, data[at : at + batch])
                found[f"{name}, {what}"] = rows / (time.perf_counter() - began)
        return found

    try:
        return await database.write(work, timeout_s=120, retry=False)
    finally:
        await database.close()


async def read(url: str, rows: int, count: int) -> dict[str, tuple[float, float]]:
    """p50 and p99 in ms of `find`, alone and while rows are written."""
    catalogue = Catalogue(Database(url, timeout_s=10), node="bench")
    await catalogue.open()
    for number in range(rows):
        catalogue.placed(meta(number), ("postgres",), 1 << 20)
    assert await catalogue.flush(120)
    await catalogue.database.write(lambda connection: connection.execute("ANALYZE zeekdb.kv_cache_metadata"))
    found = {}
    for kind, names in (("1 name", 1), ("64 names", 64), ("1 name, while rows are written", 1)):
        waits = []
        for number in range(count):
            asked = [name_of(meta((number * 7919 + at) % rows)) for at in range(names)]
            if "while" in kind and catalogue.writer.waiting < 2000:
                for at in range(2000):
                    catalogue.placed(meta(at), ("postgres", "objects"), number)
                catalogue.tick(0)
            began = time.perf_counter()
            answers = await catalogue.find(asked)
            waits.append(time.perf_counter() - began)
            assert all(answers)
        found[kind] = quantiles_ms(waits)
    await catalogue.flush(60)
    await catalogue.close()
    return found


async def blobs(url: str, size: int, total: int, coding: str) -> tuple[float, float]:
    """MB/s of put and get, 16 blocks a call, of bytes that nothing compresses."""
    database = Database(url, timeout_s=60)
    tier = BlobTier(database, Packer(coding), max_bytes=size)
    await tier.open()
    data = memoryview(os.urandom(size + 4096 * 64))
    items = []
    for number in range(total // size):
        view = data[number % 64 * 4096 :][:size]
        items.append(Put(Meta(b"m", b"", b"%d" % number, size, checksum(view)), view))
    began = time.perf_counter()
    for at in range(0, len(items), 16):
        assert all(place is not None for place in await tier.put(items[at : at + 16]))
    put_s = time.perf_counter() - began
    room = memoryview(bytearray(16 * size))
    began = time.perf_counter()
    for at in range(0, len(items), 16):
        part = items[at : at + 16]
        gets = [Get(each.meta, place_of(each.meta), room[n * size :][:size]) for n, each in enumerate(part)]
        assert await tier.get(gets) == [True] * len(part)
    get_s = time.perf_counter() - began
    await database.write(lambda connection: connection.execute("TRUNCATE zeekdb.kv_cache_blobs"))
    await tier.close()
    return total / put_s / 1e6, total / get_s / 1e6


async def run(arguments: Any, url: str) -> tuple[dict[str, Any], list[str]]:
    data: dict[str, Any] = {}
    texts = []
    if "start" in arguments.subjects:
        data["start, s"] = seconds = await starts(arguments.rounds)
        rows = [[kind, f"{median(each):.2f}", f"{max(each):.2f}"] for kind, each in seconds.items()]
        texts.append(table(["start of the embedded server", "s, median", "s, most"], rows))
    if "write" in arguments.subjects:
        rounds = [await written(url, arguments.rows) for _ in range(arguments.rounds)]
        waits = sorted((await written(url, arguments.rows, is_watched=True))[1])
        ways = [await sent(url, arguments.rows // 2, arguments.batch) for _ in range(arguments.rounds)]
        data["write, rows/s"] = [each[0] for each in rounds]
        most = [waits[-n] * 1e3 for n in (1, 10, 100)]
        data["loop waits, ms: longest, tenth longest, hundredth longest"] = most
        data["send, rows/s"] = {way: [each[way] for each in ways] for way in ways[0]}
        rows = [["catalogue", f"{median(data['write, rows/s']):,.0f}", f"{min(data['write, rows/s']):,.0f}"]]
        rows += [[way, f"{median(each):,.0f}", f"{min(each):,.0f}"] for way, each in data["send, rows/s"].items()]
        texts.append(table(["metadata rows", "rows/s, median", "rows/s, least"], rows))
        texts.append(
            f"The loop waits {most[0]:.1f} ms at most while {arguments.rows:,} rows are written, "
            f"{most[1]:.1f} ms the tenth time."
        )
    if "read" in arguments.subjects:
        data["find, ms p50 and p99"] = found = await read(url, arguments.rows, arguments.reads)
        rows = [[kind, *(f"{ms:.2f}" for ms in each)] for kind, each in found.items()]
        texts.append(table(["find", "p50 ms", "p99 ms"], rows))
    if "blobs" in arguments.subjects:
        rows = []
        for size in (64 << 10, 1 << 20):
            for coding in ("raw", "zstd"):
                rounds = [await blobs(url, size, arguments.mib << 20, coding) for _ in range(arguments.rounds)]
                data[f"blobs {size >> 10} KiB {coding}, MB/s"] = rounds
                speeds = [median(each[at] for each in rounds) for at in (0, 1)]
                rows.append([f"{size >> 10} KiB, {coding}", *(f"{speed:.0f}" for speed in speeds)])
        texts.append(table(["blocks", "put MB/s", "get MB/s"], rows))
    return data, texts


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help="all of them without")
    parser.add_argument("--url", help="of an empty database; else an embedded server in a temporary folder")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--reads", type=int, default=2000)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.subjects = arguments.subjects or SUBJECTS
    load = os.getloadavg()[0]
    uvloop.install()
    with tempfile.TemporaryDirectory() as name:
        url = arguments.url or f"embedded:{Path(name)}/pg"
        data, texts = asyncio.run(run(arguments, url))
    data["load average"] = load
    shown = "a server by URL" if arguments.url else "embedded"
    head = f"{machine()}; {shown}, {arguments.rounds} rounds, batches of {arguments.batch}, load average {load:.1f}."
    publish("catalogue", data, "\n\n".join([head, *texts]), arguments.write)


if __name__ == "__main__":
    main()
