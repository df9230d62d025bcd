"""Carries out on the host what `codecs_gpu.plan` says: kernels.cu, compiled by the compiler of the hot room."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from zeekdb.tensors import codecs_gpu
from zeekdb.tensors.codecs import Codec

# Every kernel's call; the compiler converts the numbers to what its prototype says.
CALLS = """
static const void *from; static void *to; static const long long *n; static int kernel;
static void thread(void) {
    switch (kernel) {
    case 0: convert(from, to, n[0]); break;
    case 1: encode_token(from, to, n[0], n[1], n[2], n[3], n[4]); break;
    case 2: encode_channel(from, to, n[0], n[1], n[2], n[3], n[4]); break;
    case 3: decode_token(from, to, n[0], n[1], n[2], n[3], n[4]); break;
    case 4: decode_channel(from, to, n[0], n[1], n[2], n[3], n[4]); break;
    }
}
void run(int which, const void *source, void *target, const long long *numbers, unsigned blocks, unsigned size) {
    kernel = which; from = source; to = target; n = numbers;
    run_blocks(blocks, size);
}
"""
KERNELS = ("convert", "encode_token", "encode_channel", "decode_token", "decode_channel")


@cache
def library(options: tuple[str, ...]) -> Any:
    """The kernels for one pair of types."""
    source = codecs_gpu.SOURCE.read_text().replace('extern "C" ', "")
    shim = Path(__file__).with_name("host_gpu.h").read_text()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels"
        path.with_suffix(".c").write_text(shim + source + CALLS)
        strict = ["-O1", "-ffp-contract=off", "-Wall", "-Wno-unused-function", "-Werror", "-shared", "-fPIC"]
        command = ["cc", *strict, *options, "-o", f"{path}.so", f"{path}.c", "-lm"]
        subprocess.run(command, check=True)
        return ctypes.CDLL(f"{path}.so")


def run(
    kernel: str, options: tuple[str, ...], blocks: int, threads: int, source: int, target: int, numbers: list[int]
) -> None:
    """One launch; `source` and `target` are addresses."""
    array = (ctypes.c_longlong * len(numbers))(*numbers)
    places = ctypes.c_void_p(source), ctypes.c_void_p(target)
    library(options).run(KERNELS.index(kernel), *places, array, blocks, threads)


def aligned(size: int) -> np.ndarray:
    """Bytes that begin where a device's memory does, full of rubbish."""
    whole = np.full(size + codecs_gpu.ALIGN, 0xA5, np.uint8)
    begin = -whole.ctypes.data % codecs_gpu.ALIGN
    return whole[begin : begin + size]


class HostGpuCodec:
    """`codecs_gpu.GpuCodec`, on the host."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def encode(self, block: bytes) -> bytes:
        return self._run(block, False, self.codec.encoded_size)

    def decode(self, data: bytes) -> bytes:
        return self._run(data, True, self.codec.layout.block_bytes)

    def _run(self, data: bytes, decode: bool, size: int) -> bytes:
        if codecs_gpu.is_copy(self.codec):
            return data
        source, target = aligned(len(data)), aligned(size)
        source[:] = np.frombuffer(data, np.uint8)
        if not decode and codecs_gpu.has_gaps(self.codec):
            target[:] = 0
        for launch in codecs_gpu.plan(self.codec, decode):
            places = source.ctypes.data + launch.source, target.ctypes.data + launch.target
            numbers = [value for _, value in launch.numbers]
            run(launch.kernel, launch.options, launch.blocks, codecs_gpu.THREADS, *places, numbers)
        return target.tobytes()
