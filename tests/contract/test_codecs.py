"""What every codec promises: the same bytes from every implementation, and errors within the documented bounds.

Implementations: numpy's; the GPU's kernels carried out on the host; and, marked `gpu`, the kernels on a GPU. The bounds
are checked against float64, with rounding written down once more in a way that has nothing in common with ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.contract.devices import fake_gpu, gpu
from tests.contract.host_gpu import HostGpuCodec
from zeekdb.tensors import codecs, floats
from zeekdb.tensors.codecs import for_model
from zeekdb.tensors.layout import CODECS, Layout

INT8 = ("int8", "int8-channel", "int8-token")
PAIRS = [(name, dtype) for name in CODECS for dtype in sorted(CODECS[name])]
BOUNDED = [(name, dtype) for name, dtype in PAIRS if name in codecs.TARGETS and dtype != "f8e4m3"]
# format: bits of mantissa with the leading one, smallest normal exponent, largest number
PRECISION = {"fp16": (11, -14, 65504.0), "bf16": (8, -126, float.fromhex("0x1.fep127")), "fp8": (4, -6, 448.0)}
DTYPE_PRECISION = {"f32": (24, -126), "f16": (11, -14), "bf16": (8, -126)}


class Numpy:
    """The implementation for hosts, with the signature of the others."""

    def __init__(self, codec: codecs.Codec) -> None:
        self.codec = codec

    def encode(self, block: bytes) -> bytes:
        out = bytearray(b"\xa5" * self.codec.encoded_size)
        self.codec.encode(block, out)
        return bytes(out)

    def decode(self, data: bytes) -> bytes:
        out = bytearray(b"\xa5" * self.codec.layout.block_bytes)
        self.codec.decode(data, out)
        return bytes(out)


class Gpu:
    """The kernels on a GPU."""

    def __init__(self, codec: codecs.Codec) -> None:
        from zeekdb.tensors.codecs_gpu import GpuCodec

        self.codec = codec
        self.gpu = GpuCodec(codec)

    def encode(self, block: bytes) -> bytes:
        return self._run(self.gpu.encode, block, self.codec.encoded_size)

    def decode(self, data: bytes) -> bytes:
        return self._run(self.gpu.decode, data, self.codec.layout.block_bytes)

    @staticmethod
    def _run(step: Callable[[Any, Any], None], data: bytes, size: int) -> bytes:
        import cupy

        out = cupy.full(size, 0xA5, np.uint8)
        step(cupy.asarray(np.frombuffer(data, np.uint8)), out)
        return bytes(cupy.asnumpy(out))


class FakeGpu(Gpu):
    """The same calls of CuPy, on the host."""

    def __init__(self, codec: codecs.Codec) -> None:
        with fake_gpu():
            super().__init__(codec)

    def encode(self, block: bytes) -> bytes:
        with fake_gpu():
            return super().encode(block)

    def decode(self, data: bytes) -> bytes:
        with fake_gpu():
            return super().decode(data)


EVERY = [pytest.param(Numpy, id="numpy"), pytest.param(HostGpuCodec, id="kernels on the host")]
EVERY.append(pytest.param(FakeGpu, id="fake CuPy"))
EVERY.append(pytest.param(Gpu, id="gpu", marks=gpu))
KERNELS = EVERY[1:]


# --- data ---------------------------------------------------------------------------------------------------------


def layout(dtype: str, **other: int) -> Layout:
    return Layout(**{"layers": 3, "heads": 4, "dim": 32, "block": 40, "dtype": dtype} | other)  # type: ignore[arg-type]


def numbers(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """float64 [parts, layers, tokens, heads, dim] of one kind."""
    random = np.random.default_rng(seed)
    plain = random.standard_normal(shape)
    if kind == "outliers":  # of keys: some channels far larger than the rest
        plain *= np.where(random.random(shape[-2:]) < 0.05, 60.0, 1.0)
    elif kind == "wide":
        plain *= 10.0 ** random.uniform(-12, 6, shape)
    elif kind == "zeros":
        plain[:] = np.where(random.random(shape) < 0.5, 0.0, -0.0)
    elif kind == "subnormal":
        plain *= 2.0 ** random.uniform(-150, -120, shape)
    elif kind == "huge":
        plain *= 10.0 ** random.uniform(30, 38, shape)
    elif kind == "not finite":
        odd = np.array([np.inf, -np.inf, np.nan, -np.nan])
        plain = np.where(random.random(shape) < 0.02, odd[random.integers(0, 4, shape)], plain)
        plain[0, 0] = np.inf  # channels and rows without anything finite
        plain[-1, -1, :, 0] = np.nan
        plain[0, -1] = np.where(random.random(shape[2:]) < 0.5, 0.0, -np.inf)
    return plain


KINDS = ("normal", "outliers", "wide", "zeros", "subnormal", "huge", "not finite")


def block_of(values: np.ndarray, dtype: str) -> bytes:
    """As a block."""
    if dtype == "f32":
        largest = float(np.finfo(np.float32).max)
        with np.errstate(over="ignore"):
            return np.where(np.isfinite(values), np.clip(values, -largest, largest), values).astype("<f4").tobytes()
    return floats.nearest(dtype, values.reshape(-1)).tobytes()


def values_of(data: bytes, dtype: str) -> np.ndarray:
    return floats.values(dtype, np.frombuffer(data, floats.FORMATS[dtype].codes))


def rounded(values: np.ndarray, bits: int, exponent_min: int, largest: float) -> np.ndarray:
    """To nearest, ties to even, on float64: in units of the last place."""
    with np.errstate(invalid="ignore"):
        exponent = np.maximum(np.frexp(values)[1] - 1, exponent_min)
        place = np.ldexp(1.0, exponent - bits + 1)
        found = np.rint(values / place) * place
        return np.where(np.isfinite(values), np.clip(found, -largest, largest), found)


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal numbers, NaN at the same places, and equal signs, those of zeros included."""
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))


# --- every implementation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "dtype"), BOUNDED)
def test_float_codecs_round_once_to_nearest_even(name: str, dtype: str, kind: str) -> None:
    shape = layout(dtype)
    block = block_of(numbers(kind, shape.shape, 1), dtype)
    codec = Numpy(for_model(name, shape))
    data = codec.encode(block)
    before, after = values_of(block, dtype), values_of(data, codecs.TARGETS[name])
    wanted = before if codecs.TARGETS[name] == dtype else rounded(before, *PRECISION[name])
    if name == "fp8":
        wanted = np.where(np.isinf(before), np.copysign(448.0, before), wanted)
    same(after, wanted)
    back = values_of(codec.decode(data), dtype)
    same(back, _as(dtype, after))


def _as(dtype: str, values: np.ndarray) -> np.ndarray:
    """What is left of numbers in a block of this type."""
    largest = floats.values(dtype, np.array([floats.FORMATS[dtype].largest], floats.FORMATS[dtype].codes))[0]
    return rounded(values, *DTYPE_PRECISION[dtype], largest)


@pytest.mark.parametrize(("name", "dtype"), BOUNDED)
def test_documented_bounds_of_float_codecs(name: str, dtype: str) -> None:
    bits, exponent_min, largest = PRECISION[name]
    for seed, kind in enumerate(KINDS):
        shape = layout(dtype)
        block = block_of(numbers(kind, shape.shape, seed), dtype)
        codec = Numpy(for_model(name, shape))
        before = values_of(block, dtype)
        after = values_of(codec.encode(block), codecs.TARGETS[name])
        fits = np.isfinite(before) & (np.abs(before) <= largest)
        error = np.abs(after[fits] - before[fits])
        bound = np.maximum(np.abs(before[fits]) * 2.0**-bits, 2.0 ** (exponent_min - bits))
        assert (error <= bound).all()
        beyond = np.isfinite(before) & ~fits
        same(after[beyond], np.copysign(largest, before[beyond]))
        assert (np.isnan(after) == np.isnan(before)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", INT8)
def test_documented_bounds_of_int8(name: str, dtype: str, kind: str) -> None:
    shape = layout(dtype)
    block = block_of(numbers(kind, shape.shape, 2), dtype)
    codec = for_model(name, shape)
    assert isinstance(codec, codecs.Int8Codec)
    before = values_of(block, dtype).reshape(shape.shape)
    after = values_of(Numpy(codec).decode(Numpy(codec).encode(block)), dtype).reshape(shape.shape)
    finite = np.where(np.isfinite(before), np.abs(before), 0)
    for part in range(2):
        axis = 1 if codec.by_channel(part) else 3
        largest = finite[part].max(axis=axis, keepdims=True)
        bound = np.where(largest < 2.0**-119, largest, largest / 254 * 1.001)
        # half a last place of what decoding rounds to
        bits, exponent_min = DTYPE_PRECISION[dtype]
        place = np.ldexp(1.0, np.maximum(np.frexp(after[part])[1] - 1, exponent_min) - bits)
        fits = np.isfinite(before[part])
        assert (np.abs(after[part] - before[part]) <= bound + place)[fits].all()
    assert (np.isnan(after) == np.isnan(before)).all()
    assert not np.isinf(after).any()
    endless = np.isinf(before)
    assert (np.signbit(after) == np.signbit(before))[endless].all() and (after != 0)[endless].all()


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_every_implementation_writes_the_same_bytes(name: str, dtype: str, implementation: type[Numpy]) -> None:
    for seed, kind in enumerate(KINDS):
        codec = for_model(name, layout(dtype))
        ours, theirs = Numpy(codec), implementation(codec)
        block = block_of(numbers(kind, codec.layout.shape, seed), dtype)
        data = ours.encode(block)
        assert theirs.encode(block) == data, kind
        assert theirs.decode(data) == ours.decode(data), kind


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize(
    "shape",
    [
        Layout(2, 1, 1, "bf16", 1),
        Layout(3, 1, 7, "bf16", 5),  # gaps after scales and codes, one element at a time
        Layout(2, 3, 8, "f16", 17),
        Layout(2, 2, 136, "bf16", 3),  # more columns than the threads of a row take at once
        Layout(1, 3, 24, "f32", 33, parts=1),
        Layout(61, 1, 576, "bf16", 2, parts=1),
    ],
    ids=str,
)
def test_odd_shapes(shape: Layout, implementation: type[Numpy]) -> None:
    for name in ("fp16", "fp8", *INT8):
        codec = for_model(name, shape)
        block = block_of(numbers("not finite", shape.shape, 3), shape.dtype)
        ours, theirs = Numpy(codec), implementation(codec)
        assert theirs.encode(block) == (data := ours.encode(block)), name
        assert theirs.decode(data) == ours.decode(data), name


@pytest.mark.parametrize("implementation", EVERY)
def test_every_bit_pattern_of_16_bits_is_taken(implementation: type[Numpy]) -> None:
    """Rubbish in blocks is the client's affair: it comes out as what it was or as a number, and nothing fails."""
    shape = Layout(2, 8, 128, "bf16", 16)
    every = np.arange(1 << 16, dtype="<u2").tobytes()
    assert len(every) == shape.block_bytes
    for dtype in ("bf16", "f16"):
        shape = Layout(2, 8, 128, dtype, 16)
        for name in ("fp16", "bf16", "fp8", *INT8):
            codec = for_model(name, shape)
            made = implementation(codec)
            data = made.encode(every)
            assert data == Numpy(codec).encode(every)
            assert made.decode(data) == Numpy(codec).decode(data)


# --- numpy's, which decides what the bytes are --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_the_layers_of_an_encoded_block_are_the_encoded_layers(name: str, dtype: str) -> None:
    whole = layout(dtype, layers=7)
    block = block_of(numbers("normal", whole.shape, 4), dtype)
    codec = for_model(name, whole)
    data = Numpy(codec).encode(block)
    for first, last in ((0, 7), (0, 1), (2, 5), (6, 7)):
        cut = b"".join(block[at : at + size] for at, size in whole.slices(first, last))
        encoded = b"".join(data[at : at + size] for at, size in codec.encoded_slices(first, last))
        assert encoded == Numpy(for_model(name, whole.some_layers(first, last))).encode(cut)


@pytest.mark.parametrize("items", [1, 2, floats.PIECE - 1, floats.PIECE, floats.PIECE + 3, 3 * floats.PIECE + 1])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_pieces_join_without_a_seam(dtype: str, items: int) -> None:
    """A plane of one row and of one column: cut anywhere, the result is that of small blocks side by side."""
    random = np.random.default_rng(items)
    block = block_of(random.standard_normal(items), dtype)
    for name in ("fp8", "bf16"):
        codec = Numpy(for_model(name, Layout(1, 1, 1, dtype, 1, parts=1)))
        size = len(block) // items
        wanted = b"".join(codec.encode(block[at : at + size]) for at in range(0, min(len(block), 500 * size), size))
        source, target = dtype, codecs.TARGETS[name]
        out = np.empty(items, floats.FORMATS[target].codes)
        floats.convert(source, target, np.frombuffer(block, floats.FORMATS[source].codes), out)
        assert out.tobytes()[: len(wanted)] == wanted
        tail = Numpy(for_model(name, Layout(1, 1, 1, dtype, 1, parts=1))).encode(block[-size:])
        assert out.tobytes()[-len(tail) :] == tail


@pytest.mark.parametrize(
    "shape",
    [
        Layout(5, 4, 8192, "bf16", 3, parts=1),  # a row of channels in pieces of half a PIECE
        Layout(2, 3, 65_536, "bf16", 2, parts=1),  # wider than a PIECE
        Layout(9, 2, 64, "bf16", 16, parts=1),  # several planes in a piece
        Layout(2, 2, 64, "bf16", 4096, parts=1),  # several pieces in a plane
    ],
    ids=str,
)
def test_int8_by_the_book(shape: Layout) -> None:
    """The format as the docstring has it, written down plainly."""
    values = numbers("outliers", shape.shape, 5)
    block = block_of(values, "bf16")
    exact = values_of(block, "bf16").reshape(shape.shape)[0].astype(np.float32)
    for name, axes in (("int8-channel", 1), ("int8-token", 3)):
        codec = for_model(name, shape)
        data = Numpy(codec).encode(block)
        largest = np.abs(exact).max(axis=axes, keepdims=True)
        codes = np.rint(exact * (np.float32(127) / largest)).astype(np.int8).reshape(shape.layers, -1)
        scales = (largest / np.float32(127)).reshape(shape.layers, -1)
        pad = b"\0" * (-scales.shape[1] * 4 % 16), b"\0" * (-codes.shape[1] % 16)
        planes = zip(scales, codes, strict=True)
        assert data == b"".join(s.tobytes() + pad[0] + c.tobytes() + pad[1] for s, c in planes)
        back = Numpy(codec).decode(data)
        decoded = (codes.reshape(exact.shape) * scales.reshape(largest.shape)).astype(np.float64)
        assert back == floats.nearest("bf16", decoded.reshape(-1)).tobytes()


def test_plain_int8_takes_keys_by_channel_and_values_by_token() -> None:
    shape = layout("bf16")
    block = block_of(numbers("outliers", shape.shape, 6), "bf16")
    both, channel, token = (Numpy(for_model(name, shape)).encode(block) for name in INT8)
    assert both == channel[: len(channel) // 2] + token[len(token) // 2 :]
    latent = layout("bf16", parts=1)
    block = block_of(numbers("normal", latent.shape, 6), "bf16")
    assert Numpy(for_model("int8", latent)).encode(block) == Numpy(for_model("int8-token", latent)).encode(block)


def test_the_largest_f32_survives_int8() -> None:
    largest = np.finfo(np.float32).max
    for top in (largest, np.nextafter(largest, np.float32(0)), np.float32("inf")):
        shape = Layout(1, 1, 4, "f32", 1, parts=1)
        block = np.array([top, -top, 0, 1], "<f4").tobytes()
        codec = Numpy(for_model("int8-token", shape))
        back = np.frombuffer(codec.decode(codec.encode(block)), "<f4")
        assert np.isfinite(back).all() and back[0] == -back[1] > 0


@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_views_may_begin_anywhere(name: str, dtype: str) -> None:
    codec = for_model(name, layout(dtype))
    block = block_of(numbers("normal", codec.layout.shape, 7), dtype)
    data, back = Numpy(codec).encode(block), Numpy(codec).decode(Numpy(codec).encode(block))
    shifted, encoded, decoded = (bytearray(1 + len(each)) for each in (block, data, block))
    shifted[1:] = block
    codec.encode(memoryview(shifted)[1:], memoryview(encoded)[1:])
    codec.decode(memoryview(encoded)[1:], memoryview(decoded)[1:])
    assert (encoded[1:], decoded[1:]) == (data, back)


@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_sizes_are_known_beforehand_and_checked(name: str, dtype: str) -> None:
    codec = for_model(name, layout(dtype))
    block, data = bytearray(codec.layout.block_bytes), bytearray(codec.encoded_size)
    assert codecs.encoded_size(name, codec.layout) == len(data)
    for wrong in (block[:-1], block + b"\0"):
        with pytest.raises(ValueError, match="block has"):
            codec.encode(wrong, data)
        with pytest.raises(ValueError, match="out has"):
            codec.decode(data, wrong)
    with pytest.raises(ValueError, match="data has"):
        codec.decode(data[:-1], block)
    with pytest.raises(ValueError, match="out has"):
        codec.encode(block, data[:-1])


def test_sizes_of_a_real_model() -> None:
    llama = Layout(32, 8, 128, "bf16", 256)
    assert codecs.encoded_size("raw", llama) == 32 << 20
    assert codecs.encoded_size("fp8", llama) == 16 << 20
    # a scale of 4 bytes for 256 tokens of a channel, or for 128 elements of a token and head
    assert codecs.encoded_size("int8-channel", llama) == (16 << 20) * (256 + 4) // 256
    assert codecs.encoded_size("int8-token", llama) == (16 << 20) * (128 + 4) // 128


@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_any_bytes_can_be_decoded(name: str, dtype: str) -> None:
    codec = for_model(name, layout(dtype))
    random = np.random.default_rng(8)
    for _ in range(3):
        with np.errstate(all="ignore"):
            Numpy(codec).decode(random.bytes(codec.encoded_size))
