"""Conversions between formats, for all codes of 16 bits and those of 32 that are hard, against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from zeekdb.tensors import floats
from zeekdb.tensors.floats import FORMATS

SMALL = ("f16", "bf16", "f8e4m3")


def every(name: str) -> np.ndarray:
    """All codes; of f32 those around every code and every middle of the small formats, and some at random."""
    form = FORMATS[name]
    if name != "f32":
        return np.arange(form.sign * 2, dtype=np.uint32).astype(form.codes)
    found = [np.random.default_rng(1).integers(0, 1 << 32, 200_000)]
    for small in SMALL:
        grid = floats.magnitudes(small)
        for values in (grid, (grid[1:] + grid[:-1]) / 2):
            codes = values.astype(np.float32).view(np.uint32).astype(np.int64)
            found += [codes + step for step in (-2, -1, 0, 1, 2)]
    odd = np.array([0x7F800000, 0x7F800001, 0x7FFFFFFF, 0x7FC00000, 0x7F7FFFFF, 1, 0x007FFFFF])
    codes = np.concatenate([*found, odd]).clip(0).astype(np.uint32)
    return np.concatenate([codes, codes ^ np.uint32(1 << 31)])


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_conversion(source: str, target: str) -> None:
    codes = every(source)
    out = np.empty(len(codes), FORMATS[target].codes)
    floats.convert(source, target, codes, out)
    if source == target:
        assert (out == codes).all()
        return
    values = floats.values(source, codes)
    if target != "f32":
        assert (out == floats.nearest(target, values)).all()
        return
    numbers = out.view(np.float32)
    np.testing.assert_array_equal(numbers, values.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(numbers), np.signbit(values))


def test_numpy_agrees_on_what_f16_is() -> None:
    codes = every("f16")
    np.testing.assert_array_equal(floats.values("f16", codes), codes.view(np.float16).astype(np.float64))
    wide = every("f32")
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = wide.view(np.float32).astype(np.float16).view(np.uint16)
    ours = np.empty(len(wide), np.uint16)
    floats.convert("f32", "f16", wide, ours)
    number = np.isfinite(wide.view(np.float32))
    finite = (theirs & 0x7FFF) < 0x7C00
    assert (ours[finite] == theirs[finite]).all()
    assert ((ours[number & ~finite] & 0x7FFF) == 0x7BFF).all()  # where numpy says infinity


def test_the_table_of_f8e4m3() -> None:
    """Table 2 of the OCP specification."""
    values = floats.values("f8e4m3", np.arange(256, dtype=np.uint8))
    assert values[0x7E] == 448 and np.isnan(values[0x7F]) and np.isnan(values[0xFF])
    assert (values[0x01], values[0x07], values[0x08]) == (2.0**-9, 0.875 * 2.0**-6, 2.0**-6)
    assert values[0x38] == 1 and values[0xB8] == -1 and np.signbit(values[0x80])
    assert np.isfinite(values).sum() == 254


@pytest.mark.parametrize("name", SMALL)
def test_nearest_is_nearest(name: str) -> None:
    """By exact fractions, on a sample: no neighbour is nearer, and of two equally near the even one is taken."""
    grid = [Fraction(float(value)) for value in floats.magnitudes(name)]
    random = np.random.default_rng(2)
    places = random.integers(0, len(grid) - 1, 300)
    values = [(grid[at] + grid[at + 1]) / 2 for at in places]  # ties
    values += [grid[at] + (grid[at + 1] - grid[at]) * Fraction(int(random.integers(0, 64)), 64) for at in places]
    found = floats.nearest(name, np.array([float(value) for value in values]))
    for value, code in zip(values, found.tolist(), strict=True):
        distance = abs(grid[code] - value)
        for other in (code - 1, code + 1):
            if 0 <= other < len(grid):
                assert distance < abs(grid[other] - value) or (distance == abs(grid[other] - value) and code % 2 == 0)


def test_nothing_is_written_beyond_the_end() -> None:
    for source in FORMATS:
        for target in FORMATS:
            codes = np.zeros(5, FORMATS[source].codes)
            out = np.full(7, 0x5A, FORMATS[target].codes)
            floats.convert(source, target, codes, out[1:6])
            assert out.tolist() == [0x5A, 0, 0, 0, 0, 0, 0x5A]
            floats.convert(source, target, codes[:0], out[:0])
