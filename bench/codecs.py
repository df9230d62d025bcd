"""What the codecs save, what they lose, and how fast they are in numpy on one thread.

    python -m bench.codecs [--write] [--seconds 1]

A block of Llama-3.1-8B's shape (32 layers, 8 heads of 128, 256 tokens; 16 layers in f32) is filled with numbers like
those of a KV cache: keys whose channels differ in scale, three in a hundred of them twenty times larger than the rest
and away from zero, values of one scale. Errors are those of decoded against plain elements, in float64. The relative
error of an element is meaningless near zero, where int8 rounds to zero (1), so the table also has that of the whole:
norm of the errors over norm of the block. GB/s are plain bytes over CPU time, the best of some rounds in which both
buffers have been touched before; other work on the machine shares its caches and makes them smaller, never larger.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench.servers import machine, save, table, write_block
from zeekdb.tensors import floats
from zeekdb.tensors.codecs import for_model
from zeekdb.tensors.layout import CODECS, Layout

LAYOUTS = {
    "bf16": Layout(32, 8, 128, "bf16", 256),
    "f16": Layout(32, 8, 128, "f16", 256),
    "f32": Layout(16, 8, 128, "f32", 256),
}
ROUNDS_MIN = 3
OUTLIERS = 0.03  # of the channels
OUTLIER_SCALE = 20.0
HEAD = ["elements", "codec", "bytes saved", "max abs", "max relative", "mean relative", "norm", "encode", "decode"]


def kv_like(layout: Layout, seed: int = 1) -> np.ndarray:
    """float64 numbers of the layout's shape."""
    random = np.random.default_rng(seed)
    numbers = random.standard_normal(layout.shape)
    channels = (layout.layers, 1, layout.heads, layout.dim)
    scales = random.lognormal(0, 0.5, channels)
    outlying = random.random(channels) < OUTLIERS
    numbers[0] *= np.where(outlying, OUTLIER_SCALE, scales)
    numbers[0] += np.where(outlying, 2 * OUTLIER_SCALE, 0)
    numbers[1] *= 0.3
    return numbers


def as_block(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Bytes of a block."""
    codes = np.empty(numbers.size, floats.FORMATS[dtype].codes)
    floats.convert("f32", dtype, numbers.astype(np.float32).reshape(-1).view(np.uint32), codes)
    return codes.view(np.uint8)


def errors(plain: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
    """Of decoded elements, all float64."""
    wrong = np.abs(decoded - plain)
    there = plain != 0
    relative = wrong[there] / np.abs(plain[there])
    return {
        "max_abs": float(wrong.max()),
        "max_relative": float(relative.max()),
        "mean_relative": float(relative.mean()),
        "norm_relative": float(np.linalg.norm(wrong) / np.linalg.norm(plain)),
    }


def rate(step: Callable[[], None], size: int, seconds: float) -> float:
    """GB/s of the best round."""
    best, rounds, end = float("inf"), 0, time.perf_counter() + seconds
    while rounds < ROUNDS_MIN or time.perf_counter() < end:
        begin = time.thread_time()
        step()
        best = min(best, time.thread_time() - begin)
        rounds += 1
    return size / best / 1e9


def measure(name: str, layout: Layout, block: np.ndarray, seconds: float) -> dict[str, Any]:
    """One codec on one block."""
    codec = for_model(name, layout)
    data, back = bytearray(codec.encoded_size), np.empty(layout.block_bytes, np.uint8)
    codec.encode(block, data)
    codec.decode(data, back)
    form = floats.FORMATS[layout.dtype].codes
    found: dict[str, Any] = {"saved": 1 - codec.encoded_size / layout.block_bytes}
    found |= errors(floats.values(layout.dtype, block.view(form)), floats.values(layout.dtype, back.view(form)))
    found["encode_gb_s"] = rate(lambda: codec.encode(block, data), layout.block_bytes, seconds)
    found["decode_gb_s"] = rate(lambda: codec.decode(data, back), layout.block_bytes, seconds)
    return found


def row(dtype: str, name: str, found: dict[str, Any]) -> list[str]:
    """Its line of the table."""
    lost = [f"{found[key]:.2g}" for key in ("max_abs", "max_relative", "mean_relative", "norm_relative")]
    return [dtype, name, f"{found['saved']:.1%}", *lost, f"{found['encode_gb_s']:.1f}", f"{found['decode_gb_s']:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each rate")
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md as well")
    arguments = parser.parse_args()
    rows, results = [], {}
    for dtype, layout in LAYOUTS.items():
        block = as_block(kv_like(layout), dtype)
        for name in CODECS:
            results[f"{dtype}, {name}"] = found = measure(name, layout, block, arguments.seconds)
            rows.append(row(dtype, name, found))
            print(" | ".join(rows[-1]), file=sys.stderr)
    made = table(HEAD, rows)
    text = f"{machine()}; numpy {np.__version__}, one thread, GB/s of plain bytes and CPU time, 32 MiB.\n\n{made}"
    print(text)
    save("codecs", results)
    if arguments.write:
        write_block(Path(__file__).with_name("README.md"), "codecs", text)


if __name__ == "__main__":
    main()
