"""The device arena and the codecs' kernels on an NVIDIA GPU, against what the machine can do.

    python -m bench.gpu [--megabytes 4,32,80] [--seconds 1] [--write]

| measured | beside | bar |
|---|---|---|
| upload, download through the arena, registered memory | as many copies from, to page-locked memory, one stream | 85% |
| the same from and to ordinary memory, through staging | the same | none: one core's memcpy bounds it |
| encode and decode on the device | copies from device to device: bytes read and written per second | 60% |
| another process reading slots in place by CUDA IPC, device to device | the same copies within one process | 80% |

Without CuPy, or without a GPU, it says so and measures nothing. Many blocks take turns, more than the caches hold.
`--stand-in` runs all of it on tests/contract/fake_cupy.py, with small blocks: whether it runs, not how fast.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench.servers import ROOT, machine, save, table, write_block
from zeekdb.tensors.codecs import for_model
from zeekdb.tensors.codecs_gpu import ALIGN, GpuCodec, is_copy
from zeekdb.tensors.device import Place
from zeekdb.tensors.layout import CODECS, Layout

BARS: dict[str, float | None] = {"upload": 0.85, "download": 0.85, "codec": 0.60, "attached": 0.80}
SLOTS = 16
ROUNDS_MIN = 3
LAYOUTS = {"bf16": Layout(32, 8, 128, "bf16", 256), "f16": Layout(32, 8, 128, "f16", 256)}
HEAD = ["measured", "GB/s", "beside", "GB/s", "share", "bar"]


def missing() -> str:
    """Why nothing can be measured here; empty if it can."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy is not installed ({error}); pip install 'zeekdb[gpu]'"
    try:
        return "" if cupy.cuda.runtime.getDeviceCount() else "the driver knows of none"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return str(error)


def stand_in() -> None:
    """CuPy is a stand-in from now on, blocks are small, and no rate is held against anything."""
    from tests.contract import fake_cupy

    fake_cupy.install()
    BARS.update(dict.fromkeys(BARS))
    LAYOUTS.update(bf16=Layout(2, 2, 64, "bf16", 16), f16=Layout(2, 2, 64, "f16", 16))


def rate(step: Callable[[], None], size: int, seconds: float) -> float:
    """GB/s of the best round; a step ends with the device idle."""
    step()
    best, rounds, end = float("inf"), 0, time.perf_counter() + seconds
    while rounds < ROUNDS_MIN or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - begin)
        rounds += 1
    return size / best / 1e9


class Table:
    """Rows as they are found."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.data: dict[str, dict[str, float]] = {}

    def add(self, name: str, found: float, beside: str, reference: float, bar: float | None) -> None:
        """One measurement and what it is held against."""
        share = found / reference
        verdict = "" if bar is None else f"{bar:.0%} {'met' if share >= bar else 'missed'}"
        self.rows.append([name, f"{found:.1f}", beside, f"{reference:.1f}", f"{share:.0%}", verdict])
        self.data[name] = {"gb_s": found, "reference_gb_s": reference, "share": share}
        print(" | ".join(self.rows[-1]), file=sys.stderr)


# --- host and GPU -------------------------------------------------------------------------------------------------


def pinned_rate(size: int, upload: bool, seconds: float) -> float:
    """Plain copies of `size` bytes, SLOTS of them, on one stream."""
    import cupy
    from cupy.cuda import runtime

    from zeekdb.tensors.device import address_of

    host = np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.uint8, size)
    host[:] = 1
    there = cupy.zeros(size, np.uint8)
    stream = cupy.cuda.Stream(non_blocking=True)
    kind = runtime.memcpyHostToDevice if upload else runtime.memcpyDeviceToHost
    places = (there.data.ptr, address_of(host)) if upload else (address_of(host), there.data.ptr)

    def step() -> None:
        for _ in range(SLOTS):
            runtime.memcpyAsync(*places, size, kind, stream.ptr)
        stream.synchronize()

    return rate(step, SLOTS * size, seconds)


async def arena_rate(size: int, upload: bool, registered: bool, seconds: float) -> float:
    """The arena's copies, SLOTS of them queued at once."""
    from zeekdb.tensors.device_cupy import CupyArena

    arena = CupyArena(SLOTS, size)
    slots = [slot for slot in (arena.take() for _ in range(SLOTS)) if slot is not None]
    hosts = np.ones((SLOTS, size), np.uint8)
    if registered:
        arena.register(hosts.reshape(-1))
    copy = arena.upload if upload else arena.download
    best, rounds, end = float("inf"), 0, time.perf_counter() + seconds
    while rounds <= ROUNDS_MIN or time.perf_counter() < end:
        begin = time.perf_counter()
        await asyncio.gather(*(copy(slot, host) for slot, host in zip(slots, hosts, strict=True)))
        best = min(best, time.perf_counter() - begin) if rounds else best
        rounds += 1
    await arena.close()
    return SLOTS * size / best / 1e9


def copies(found: Table, megabytes: list[int], seconds: float) -> None:
    """Host to GPU and back."""
    for size in megabytes:
        for way in ("upload", "download"):
            plain = pinned_rate(size << 20, way == "upload", seconds)
            for registered in (True, False):
                got = asyncio.run(arena_rate(size << 20, way == "upload", registered, seconds))
                how = "registered" if registered else "staged"
                bar = BARS[way] if registered else None
                found.add(f"{way}, {SLOTS} × {size} MiB, {how}", got, "plain pinned copy", plain, bar)


# --- on the GPU ---------------------------------------------------------------------------------------------------


def device_rate(size: int, seconds: float) -> float:
    """Bytes read and written per second by plain copies on the device, of SLOTS arrays."""
    import cupy

    source, target = cupy.ones((SLOTS, size), np.uint8), cupy.empty((SLOTS, size), np.uint8)

    def step() -> None:
        for at in range(SLOTS):
            target[at].data.copy_from_device_async(source[at].data, size)
        cupy.cuda.get_current_stream().synchronize()

    return rate(step, 2 * SLOTS * size, seconds)


def codecs(found: Table, seconds: float) -> None:
    """Kernels against the bandwidth of the memory."""
    import cupy

    for dtype, layout in LAYOUTS.items():
        plain = device_rate(layout.block_bytes, seconds)
        numbers = cupy.random.standard_normal((SLOTS, layout.block_bytes // 2), dtype=np.float32)
        blocks = numbers.astype(np.float16).view(np.uint8) if dtype == "f16" else _upper_halves(numbers)
        for name in CODECS:
            gpu = GpuCodec(for_model(name, layout))
            if is_copy(gpu.codec):
                continue
            room = -(-gpu.codec.encoded_size // ALIGN) * ALIGN
            encoded = cupy.empty((SLOTS, room), np.uint8)[:, : gpu.codec.encoded_size]
            decoded = cupy.empty_like(blocks)
            for way, source, target in (("encode", blocks, encoded), ("decode", encoded, decoded)):
                got = rate(_all(getattr(gpu, way), source, target), source.nbytes + target.nbytes, seconds)
                found.add(f"{way} {name} of {dtype}", got, "device copy, read + written", plain, BARS["codec"])


def _upper_halves(numbers: Any) -> Any:
    """f32 to bf16, cut off."""
    import cupy

    return cupy.ascontiguousarray(numbers.view(np.uint16)[:, 1::2]).view(np.uint8)


def _all(step: Callable[[Any, Any], None], sources: Any, targets: Any) -> Callable[[], None]:
    import cupy

    def run() -> None:
        for source, target in zip(sources, targets, strict=True):
            step(source, target)
        cupy.cuda.get_current_stream().synchronize()

    return run


# --- from another process -----------------------------------------------------------------------------------------


def attached_reader(size: int, seconds: float) -> None:
    """In another process: reads the slots whose places come on standard input; prints GB/s, read and written."""
    import cupy

    from zeekdb.tensors.device_cupy import CupyAttachment

    attachment = CupyAttachment()
    places = [Place(bytes.fromhex(handle), offset, size) for handle, offset in json.load(sys.stdin)]
    sources = [attachment.array(place) for place in places]
    target = cupy.empty((len(places), size), np.uint8)

    def step() -> None:
        for at, source in enumerate(sources):
            target[at].data.copy_from_device_async(source.data, size)
        cupy.cuda.get_current_stream().synchronize()

    print(rate(step, 2 * len(places) * size, seconds))
    attachment.close()


async def attached(found: Table, size: int, seconds: float) -> None:
    """Slots read in place by another process."""
    from zeekdb.tensors.device_cupy import CupyArena

    arena = CupyArena(SLOTS, size)
    slots = [slot for slot in (arena.take() for _ in range(SLOTS)) if slot is not None]
    places = [arena.ipc_handle(slot) for slot in slots]
    told = json.dumps([(place.handle.hex(), place.offset) for place in places]).encode()
    program = [sys.executable, "-m", "bench.gpu", "--attach", str(size), "--seconds", str(seconds)]
    if "tests.contract.fake_cupy" in sys.modules:
        program.append("--stand-in")
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = await process.communicate(told)
    plain = device_rate(size, seconds)
    found.add(f"attached, {SLOTS} × {size >> 20} MiB", float(out), "device copy", plain, BARS["attached"])
    await arena.close()


# --- the program --------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--megabytes", type=lambda text: [int(part) for part in text.split(",")], default=[4, 32, 80])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each rate")
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md as well")
    parser.add_argument("--stand-in", action="store_true", help="run on the host, for a look at the program itself")
    parser.add_argument("--attach", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stand_in:
        stand_in()
        arguments.megabytes = arguments.megabytes[:1]
    if why := missing():
        print(f"There is no GPU here, nothing was measured: {why}")
        return
    if arguments.attach:
        attached_reader(arguments.attach, arguments.seconds)
        return
    import cupy

    found = Table()
    print(f"on {cupy.cuda.runtime.getDeviceProperties(0)['name'].decode()}", file=sys.stderr)
    copies(found, arguments.megabytes, arguments.seconds)
    codecs(found, arguments.seconds)
    asyncio.run(attached(found, arguments.megabytes[-1] << 20, arguments.seconds))
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    text = f"{name}; {machine()}; CuPy {cupy.__version__}.\n\n{table(HEAD, found.rows)}"
    print(text)
    if arguments.stand_in:
        return
    save("gpu", {"gpu": name, "cupy": cupy.__version__, "rows": found.data})
    if arguments.write:
        write_block(Path(__file__).with_name("README.md"), "gpu", text)


if __name__ == "__main__":
    main()
