"""What packing saves and costs on keys and values, and what goes through the object tier per second.

    python -m bench.objects [--write] [--torch PYTHON] [--megabytes 128]

Blocks are the keys and values that bench/llama.py's model computes for 256 tokens, made by an interpreter that has
torch (`--torch`, this one unless told; without any, numbers with their shape of distribution from bench/codecs.py), and
noise. Packing is MB of plain bytes per second of CPU time, one thread, the best of some rounds. `zstd -1` and `zstd -3`
are the library on the plain bytes, without planes.

Storage is MB of plain bytes per second of the clock, all blocks in one call of the tier (which puts 16 under way), the
best of three rounds: a directory (synced, file by file), and moto's S3 server, which is Python and the bound there.
Beside the tier stands bare obstore with the same number under way, which knows no header, no checksum, and syncs
nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 256
ROUNDS = 3
UNDER_WAY = 16
SIZES = (1 << 20, 4 << 20)
PACKING_HEAD = ["block", "coding", "bytes saved", "pack MB/s", "unpack MB/s"]
STORAGE_HEAD = ["storage", "block", "coding", "put MB/s", "get MB/s", "bare put", "bare get"]


def make_blocks(folder: Path) -> None:
    """In an interpreter with torch: the second 256 tokens' keys and values, as files."""
    import random

    import torch

    from bench.llama import Llama, Shape

    random_ = random.Random(1)
    words = [random_.randrange(16_384) for _ in range(400)]
    tokens = [words[min(399, int(random_.expovariate(1 / 60)))] for _ in range(2 * TOKENS)]  # some often, as in text
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        model = Llama.random(Shape(), dtype)
        cache = model.cache(2 * TOKENS)
        model.forward(tokens, cache)
        block = cache.kv[:, :, TOKENS:].contiguous()
        block.view(torch.uint8).numpy().tofile(folder / name)


def blocks_of(python: str) -> Iterator[tuple[str, bytes, Any]]:
    """(name, bytes, layout)."""
    import numpy as np

    from bench.codecs import as_block, kv_like
    from zeekdb.tensors.layout import Layout

    with tempfile.TemporaryDirectory() as folder:
        words = [python, "-c", f"from bench.objects import *; make_blocks(Path({folder!r}))"]
        is_made = subprocess.run(words, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 0
        for dtype in ("bf16", "f32"):
            layout = Layout(12, 4, 64, dtype, TOKENS)
            if is_made:
                yield f"{dtype}, model's", (Path(folder) / dtype).read_bytes(), layout
            else:
                yield f"{dtype}, drawn", as_block(kv_like(layout), dtype).tobytes(), layout
    yield "noise", np.random.default_rng(1).bytes(4 << 20), None


def rate(step: Callable[[], object], size: int) -> float:
    """MB/s of CPU time."""
    best, rounds, end = float("inf"), 0, time.perf_counter() + 0.5
    while rounds < ROUNDS or time.perf_counter() < end:
        begin = time.thread_time()
        step()
        best = min(best, time.thread_time() - begin)
        rounds += 1
    return size / best / 1e6


def packing(name: str, block: bytes, layout: Any) -> Iterator[dict[str, Any]]:
    """Every coding of one block."""
    import zstandard

    from zeekdb.hot.checksum import checksum
    from zeekdb.tiers.packing import Packer
    from zeekdb.tiers.tier import Meta

    meta = Meta(b"m", b"", b"k", len(block), checksum(block))
    into = memoryview(bytearray(len(block)))
    for coding in ("zstd", "fp16", "int8"):
        packer = Packer(coding, lambda _: layout)
        sealed, payload = packer.pack(meta, block)
        if sealed.coding != coding and coding != "zstd":  # of noise it tells how soon zstd gives up
            continue
        assert packer.unpack(sealed, payload, into)
        yield {
            "block": name, "coding": coding, "saved": 1 - len(payload) / len(block),
            "pack_mb_s": rate(lambda p=packer: p.pack(meta, block), len(block)),
            "unpack_mb_s": rate(lambda p=packer, s=sealed, d=payload: p.unpack(s, d, into), len(block)),
        }  # fmt: skip
    for level in (1, 3):
        there, back = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
        data = there.compress(block)
        yield {
            "block": name, "coding": f"zstd -{level}", "saved": 1 - len(data) / len(block),
            "pack_mb_s": rate(lambda c=there: c.compress(block), len(block)),
            "unpack_mb_s": rate(lambda b=back, d=data: b.decompress(d), len(block)),
        }  # fmt: skip


def cut(block: bytes, size: int, count: int) -> list[bytes]:
    """Different blocks of a size, out of a model's."""
    whole = block * (size // len(block) + 2)
    return [number.to_bytes(8, "little") + whole[at : at + size - 8]
            for number in range(count) for at in (number * 64 % len(block),)]  # fmt: skip


async def timed(work: Callable[[], Awaitable[object]], size: int) -> float:
    """MB/s of the clock."""
    begin = time.perf_counter()
    await work()
    return size / (time.perf_counter() - begin) / 1e6


async def through_tier(url: str, coding: str, datas: list[bytes]) -> tuple[float, float]:
    """(put, get)."""
    from zeekdb.hot.checksum import checksum
    from zeekdb.tiers.objects import ObjectTier
    from zeekdb.tiers.tier import Get, Held, Meta, Put, place_of

    tier, size = ObjectTier(url, coding=coding, pool=UNDER_WAY, timeout_s=60), sum(map(len, datas))
    await tier.open()
    puts = [Put(Meta(b"m", b"", b"%d" % at, len(data), checksum(data)), memoryview(data))
            for at, data in enumerate(datas)]  # fmt: skip
    gets = [Get(put.meta, place_of(put.meta), memoryview(bytearray(put.meta.size))) for put in puts]
    best_put = best_get = 0.0
    for _ in range(ROUNDS):
        best_put = max(best_put, await timed(lambda: tier.put(puts), size))
        best_get = max(best_get, await timed(lambda: tier.get(gets), size))
        assert all(bytes(get.into) == data for get, data in zip(gets, datas, strict=True))
        assert all(await tier.delete([Held(put.meta, 0) for put in puts]))
    await tier.close()
    return best_put, best_get


async def bare(url: str, datas: list[bytes]) -> tuple[float, float]:
    """The same with obstore alone."""
    import obstore

    from zeekdb.tiers.buckets import open_bucket

    bucket, size = open_bucket(url, 60, None), sum(map(len, datas))  # type: ignore[arg-type]
    turns = asyncio.Semaphore(UNDER_WAY)

    async def put(at: int) -> None:
        await obstore.put_async(bucket.store, f"bare/{at}", datas[at], use_multipart=False)

    async def get(at: int) -> None:
        await obstore.get_range_async(bucket.store, f"bare/{at}", start=0, length=len(datas[at]))

    async def each(work: Callable[[int], Awaitable[object]]) -> None:
        async def one(at: int) -> None:
            async with turns:
                await work(at)

        await asyncio.gather(*(one(at) for at in range(len(datas))))

    best_put = best_get = 0.0
    for _ in range(ROUNDS):
        best_put = max(best_put, await timed(lambda: each(put), size))
        best_get = max(best_get, await timed(lambda: each(get), size))
        await obstore.delete_async(bucket.store, [f"bare/{at}" for at in range(len(datas))])
    return best_put, best_get


def storage(block: bytes, megabytes: int) -> Iterator[dict[str, Any]]:
    """A directory and S3, with blocks of both sizes."""
    from tests.rigs.s3 import ACCESS_KEY, REGION, s3

    folder = Path(tempfile.mkdtemp(prefix="bench-objects-", dir=ROOT / "bench"))
    try:
        with s3() as server:
            keys = f"region={REGION}&access_key_id={ACCESS_KEY}&secret_access_key=x"
            urls = {
                "directory": f"file://{folder}",
                "moto": f"s3://{server.bucket()}?endpoint={server.endpoint}&{keys}",
            }
            for name, url in urls.items():
                for size in SIZES:
                    datas = cut(block, size, max(1, (megabytes << 20) // size))
                    plain = asyncio.run(bare(url, datas))
                    for coding in ("raw", "zstd"):
                        put, get = asyncio.run(through_tier(url, coding, datas))
                        yield {
                            "storage": name, "block": f"{size >> 20} MiB", "coding": coding, "put_mb_s": put,
                            "get_mb_s": get, "bare_put_mb_s": plain[0], "bare_get_mb_s": plain[1],
                        }  # fmt: skip
    finally:
        shutil.rmtree(folder)


def main() -> None:
    from bench.servers import command_line, machine, publish, table

    parser = command_line(__doc__)
    parser.add_argument("--torch", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--megabytes", type=int, default=128, help="of blocks in each round")
    arguments: argparse.Namespace = parser.parse_args()
    blocks = list(blocks_of(arguments.torch))
    packed = [found for block in blocks for found in packing(*block)]
    stored = list(storage(blocks[0][1], arguments.megabytes))
    rows = [
        [each["block"], each["coding"], f"{each['saved']:.1%}",
         *(f"{each[f'{way}_mb_s']:,.0f}" for way in ("pack", "unpack"))]
        for each in packed
    ]  # fmt: skip
    lines = [
        [each["storage"], each["block"], each["coding"],
         *(f"{each[f'{way}_mb_s']:,.0f}" for way in ("put", "get", "bare_put", "bare_get"))]
        for each in stored
    ]  # fmt: skip
    text = (
        f"{machine()}. Packing, one thread, MB of plain bytes per second of CPU time:\n\n"
        f"{table(PACKING_HEAD, rows)}\n\n"
        f"Storage, {arguments.megabytes} MiB of {blocks[0][0]} blocks, {UNDER_WAY} under way, by the clock of a "
        f"machine that others use too:\n\n{table(STORAGE_HEAD, lines)}"
    )
    publish("objects", {"packing": packed, "storage": stored}, text, arguments.write)


if __name__ == "__main__":
    main()
