"""The SSD tier against a plain file test on the same disk: GB/s written and read, as ratios.

    python bench/ssd.py [--folder DIR] [--mib 512] [--rounds 5] [--sizes 1,4] [--server]

The plain test is what a few threads can do with one file, the same block size and the same flags (O_DIRECT where the
file system has it), the same number of threads as the tier, and one fdatasync for each batch of as many bytes as the
tier makes safe together. The tier is driven as the region drives it: batches of blocks from one arena, several calls
under way, each block checksummed by the tier when it is read. Both take their turns within a round, and the order
changes from round to round, because disks of virtual machines are anything but steady; what counts is the median of the
rounds' ratios.

Also: how long a start takes that finds 100,000 records, finished segments or not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, machine, median, save, table, write_block
from zeekdb.tiers.log import WRITE_THREADS
from zeekdb.tiers.ssd import BATCH_BYTES, READ_THREADS, SsdTier
from zeekdb.tiers.tier import Get, Meta, Put

MIB = 1 << 20
GB = 1e9


def fallback_checksum(data: memoryview) -> int:
    """The sum of the 64-bit words: as much memory traffic as a fast hash, where that is not built."""
    whole = data.nbytes - data.nbytes % 8
    return int(np.frombuffer(data[:whole], np.uint64).sum()) ^ int.from_bytes(data[whole:], "little")


def checksum_function() -> tuple[str, Callable[[memoryview], int]]:
    """The region's hash where it is built; its name, and itself."""
    try:
        from zeekdb.hot import checksum
    except ImportError:
        return "a sum of words", fallback_checksum
    return "zeekdb.hot.checksum", checksum.checksum


class Owner:
    """Every block lives, and none is worth a copy."""

    def is_live(self, meta: Meta, place: int) -> bool:
        return True

    def is_worth(self, meta: Meta, place: int) -> bool:
        return False

    def moved(self, meta: Meta, old_place: int, new_place: int) -> bool:
        return True

    def dropped(self, meta: Meta, place: int) -> None:
        raise AssertionError("the limit is too small for this test")


def arena(total: int) -> memoryview:
    """Memory with random content, every page of it touched."""
    view = memoryview(mmap(-1, total))
    pattern = os.urandom(MIB + 4096)
    for at in range(0, total, MIB):
        shift = at // MIB % 4096
        view[at : at + MIB] = pattern[shift : shift + MIB]
    return view


def plain(folder: Path, source: memoryview, target: memoryview, size: int) -> tuple[float, float]:
    """(seconds of writing, of reading) of one file."""
    path, total = folder / "plain", source.nbytes
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    try:
        fd = os.open(path, flags | os.O_DIRECT)
    except OSError:
        fd = os.open(path, flags)
    try:
        with ThreadPoolExecutor(WRITE_THREADS) as threads:
            began = time.perf_counter()
            for at in range(0, total, BATCH_BYTES):
                blocks = range(at, min(at + BATCH_BYTES, total), size)
                list(threads.map(lambda at: os.pwritev(fd, [source[at : at + size]], at), blocks))
                os.fdatasync(fd)
            writing = time.perf_counter() - began
        with ThreadPoolExecutor(READ_THREADS) as threads:
            began = time.perf_counter()
            list(threads.map(lambda at: os.preadv(fd, [target[at : at + size]], at), range(0, total, size)))
            reading = time.perf_counter() - began
    finally:
        os.close(fd)
        path.unlink()
    assert target[-size:] == source[-size:]
    return writing, reading


async def tiered(folder: Path, source: memoryview, target: memoryview, size: int) -> tuple[float, float]:
    """The same of the tier: all blocks put, then all read."""
    _, checksum = checksum_function()
    tier = SsdTier(folder / "tier", 4 * source.nbytes + 1024 * MIB, Owner(), checksum)
    await tier.open()
    places = range(0, source.nbytes, size)
    views = [source[at : at + size] for at in places]
    metas = [Meta(b"model", b"", b"%032d" % at, size, checksum(view)) for at, view in zip(places, views, strict=True)]
    each = max(16 * MIB // size, 1)  # blocks of a call
    puts = [Put(meta, view) for meta, view in zip(metas, views, strict=True)]
    began = time.perf_counter()
    stored = await asyncio.gather(*(tier.put(puts[at : at + each]) for at in range(0, len(puts), each)))
    writing = time.perf_counter() - began
    found = [place for some in stored for place in some]
    gets = [
        Get(meta, place, target[at : at + size])
        for meta, place, at in zip(metas, found, places, strict=True)
        if place is not None
    ]
    assert len(gets) == len(puts)
    target[:] = bytes(len(target))
    began = time.perf_counter()
    read = await asyncio.gather(*(tier.get(gets[at : at + each]) for at in range(0, len(gets), each)))
    reading = time.perf_counter() - began
    assert all(all(some) for some in read)
    assert target[-size:] == source[-size:]
    await tier.close()
    shutil.rmtree(folder / "tier")
    return writing, reading


MGET_BYTES = 64 * MIB


def is_faulted_in(server: Server, size: int) -> bool:
    """Whether the host arena has all of its memory."""
    with server.connect() as sock:
        sock.sendall(b"KV.TIERS\r\n")
        return b"faulted_bytes\r\n:%d" % size in sock.recv(65536)


def served(folder: Path, source: memoryview, target: memoryview, size: int) -> tuple[float, float, float]:
    """The same of a server: blocks in its host memory are written below, read again, and got over its Unix socket.

    (seconds of KV.DEMOTE until all are below, of KV.PREFETCH until all are back, of KV.MGETs of MGET_BYTES each of
    blocks that are below). Only the last goes through the socket.
    """
    from zeekdb.client import Region

    total = source.nbytes
    keys = [b"%032d" % at for at in range(0, total, size)]
    each = max(MGET_BYTES // size, 1)
    options = ["--kv-memory", str(2 * total), "--kv-watermark", "100", "--kv-prefault", "yes"]
    options += ["--kv-ssd-path", str(folder / "served"), "--kv-ssd-size", str(4 * total + 1024 * MIB)]
    with Server("zeekdb", *options, "--kv-ssd-uses", "1") as server, Region(f"unix://{server.unix}", "m") as region:
        region.declare()

        def wait(command: str, tier: int) -> float:
            began = time.perf_counter()
            left = keys
            while left:
                server.call(command, "m", str(len(left)), *(key.decode() for key in left))
                left = [key for key, at in zip(left, region.lookup(left).tiers, strict=True) if at != tier]
                time.sleep(0.02)
            return time.perf_counter() - began

        while not is_faulted_in(server, 2 * total):
            time.sleep(0.05)
        for at in range(0, len(keys), each):
            views = [source[begin : begin + size] for begin in range(at * size, min((at + each) * size, total), size)]
            assert region.put_from(keys[at : at + each], views) == [1] * len(views)
        writing = wait("KV.DEMOTE", 3)
        reading = wait("KV.PREFETCH", 2)
        wait("KV.DEMOTE", 3)
        target[:] = bytes(len(target))
        began = time.perf_counter()
        for at in range(0, len(keys), each):
            views = [target[begin : begin + size] for begin in range(at * size, min((at + each) * size, total), size)]
            assert all(region.get_into(keys[at : at + each], views))
        getting = time.perf_counter() - began
    assert target[-size:] == source[-size:]
    shutil.rmtree(folder / "served")
    return writing, reading, getting


def serve_rounds(arguments: argparse.Namespace, source: memoryview, target: memoryview) -> str:
    """The table of `--server`."""
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for size in arguments.sizes:
            rounds = [
                (plain(folder, source, target, size * MIB), served(folder, source, target, size * MIB))
                for _ in range(arguments.rounds)
            ]
            for at, way in enumerate(("write", "read", "KV.MGET")):
                seconds = [(one[min(at, 1)], two[at]) for one, two in rounds]
                ratios = [one / two for one, two in seconds]
                speeds = [source.nbytes / GB / median(column) for column in zip(*seconds, strict=True)]
                rows.append([
                    f"{way}, {size} MiB", f"{speeds[0]:.2f}", f"{speeds[1]:.2f}", f"{median(ratios) * 100:.0f}%",
                    f"{min(ratios) * 100:.0f} … {max(ratios) * 100:.0f}%",
                ])  # fmt: skip
    head = ["blocks", "plain GB/s", "server GB/s", "ratio", "of the rounds"]
    return f"{machine()}; {arguments.mib} MiB in {arguments.rounds} rounds.\n\n{table(head, rows)}"


async def start_seconds(folder: Path, count: int, finish: bool) -> float:
    """Opening and scanning so many records of one byte."""
    def tier() -> SsdTier:
        return SsdTier(folder / "start", 1 << 40, Owner(), checksum_function()[1])

    first, data = tier(), memoryview(b"x")
    checksum = checksum_function()[1](data)
    await first.open()
    for at in range(0, count, 10_000):
        puts = [Put(Meta(b"model", b"", b"%032d" % n, 1, checksum), data) for n in range(at, min(at + 10_000, count))]
        assert None not in await first.put(puts)
    await first.close()
    if not finish:
        for path in (folder / "start").glob("*.seg"):
            os.truncate(path, path.stat().st_size - 4096)
    for path in (folder / "start").glob("*.seg"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    second = tier()
    began = time.perf_counter()
    await second.open()
    found = 0
    async for some in second.scan():
        found += len(some)
    elapsed = time.perf_counter() - began
    assert found == count
    await second.close()
    shutil.rmtree(folder / "start")
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; else a temporary one")
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=lambda text: [int(word) for word in text.split(",")], default=[1, 4])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--server", action="store_true", help="the tier in a server instead, commands and all")
    parser.add_argument("--write", action="store_true", help="keep the figures and put the table into bench/README.md")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]  # beside other work the ratios are all there is
    source, target = arena(arguments.mib * MIB), arena(arguments.mib * MIB)
    if arguments.server:
        text = serve_rounds(arguments, source, target)
        print(text)
        if arguments.write:
            write_block(Path(__file__).with_name("README.md"), "ssd-server", text)
        return
    data: dict[str, object] = {"checksum": checksum_function()[0], "load average": load}
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for size in arguments.sizes:
            rounds: dict[str, list[tuple[float, float]]] = {"plain": [], "tier": []}
            for number in range(arguments.rounds):
                for kind in ("plain", "tier") if number % 2 else ("tier", "plain"):
                    if kind == "plain":
                        rounds[kind].append(plain(folder, source, target, size * MIB))
                    else:
                        rounds[kind].append(asyncio.run(tiered(folder, source, target, size * MIB)))
            for way, at in (("write", 0), ("read", 1)):
                pairs = [(one[at], two[at]) for one, two in zip(rounds["plain"], rounds["tier"], strict=True)]
                ratios = [one / two for one, two in pairs]
                speeds = [source.nbytes / GB / median(seconds) for seconds in zip(*pairs, strict=True)]
                data[f"{way} {size} MiB"] = {"plain GB/s": speeds[0], "tier GB/s": speeds[1], "ratios": ratios}
                rows.append([
                    f"{way}, {size} MiB", f"{speeds[0]:.2f}", f"{speeds[1]:.2f}", f"{median(ratios) * 100:.0f}%",
                    f"{min(ratios) * 100:.0f} … {max(ratios) * 100:.0f}%",
                ])  # fmt: skip
                print(rows[-1], file=sys.stderr)
        starts = [asyncio.run(start_seconds(folder, arguments.records, finish)) for finish in (True, False)]
    data["start, s"] = {"finished": starts[0], "killed": starts[1]}
    head = ["blocks", "plain GB/s", "tier GB/s", "ratio", "of the rounds"]
    text = (
        f"{machine()}; {arguments.mib} MiB in {arguments.rounds} rounds, load average {load:.1f}, "
        f"checksum: {data['checksum']}.\n\n"
        f"{table(head, rows)}\n\nA start with {arguments.records:,} records: {starts[0]:.2f} s; "
        f"{starts[1]:.2f} s where every summary is missing."
    )
    print(text)
    if arguments.write:
        save("ssd", data)
        write_block(Path(__file__).with_name("README.md"), "ssd", text)


if __name__ == "__main__":
    main()
