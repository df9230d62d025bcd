"""Conversions between f32, f16, bf16 and f8e4m3, on their bits.

numpy has no bf16 and no 8-bit float, and converts f16 one element at a time. Here every format is an array of unsigned
integers, its *codes*, and a conversion is one of three:

- *Widening to f32* is exact: shifts put exponent and mantissa in place, a multiplication by a power of two corrects the
  exponent's bias, and turns f16's subnormal numbers into normal ones on its way.
- *Narrowing from f32* rounds to nearest, ties to even, in integers: adding half of the last place that stays, less one,
  plus that place's own bit, carries exactly where it should, into the exponent too. Subnormal results have a fixed last
  place; adding the power of two whose last place is the same lets the adder round. The right one of the two is the
  larger, once the sum has been kept from growing beyond the smallest normal number.
- *Between 16 bits and fewer* a table of all 65,536 codes answers; codes of 8 bits go through theirs in pairs, half as
  many steps. f32 goes to f8e4m3 through such a table as well: its upper 16 bits are a bf16, whose last bit becomes 1 if
  any of the lower 16 is (rounding to odd), so that the second rounding errs no more than a single one.

What does not fit:
- Finite numbers beyond a format's largest become that largest: an infinity would turn into NaN in attention.
- Infinity stays infinity; f8e4m3 has none, so it becomes ±448.
- NaN becomes the format's quiet NaN with the same sign (bf16 to f32, a shift, keeps its bits).
- -0 stays -0. Subnormal numbers are exact or rounded like others, never flushed.

Formats: IEEE 754 binary16 and binary32; bfloat16; E4M3 of the OCP 8-bit Floating Point Specification 1.0 ("FN": no
infinities, NaN is S.1111.111, largest 448).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
U32 = npt.NDArray[np.uint32]


class Format(NamedTuple):
    """A floating-point format. Codes carry the sign in their top bit, then the exponent, then the mantissa."""

    codes: type[np.unsignedinteger[Any]]
    mantissa_bits: int  # without the leading one
    bias: int
    largest: int  # code of the largest finite number
    infinity: int  # code that infinity becomes
    nan: int
    sign: int


FORMATS: Final = {
    "f32": Format(np.uint32, 23, 127, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 1 << 31),
    "f16": Format(np.uint16, 10, 15, 0x7BFF, 0x7C00, 0x7E00, 1 << 15),
    "bf16": Format(np.uint16, 7, 127, 0x7F7F, 0x7F80, 0x7FC0, 1 << 15),
    "f8e4m3": Format(np.uint8, 3, 7, 0x7E, 0x7E, 0x7F, 1 << 7),
}

PIECE: Final = 1 << 16  # elements worked on at a time: the intermediate arrays stay in a core's second cache
TAKEN: Final = 1 << 15  # elements looked up at a time: the index takes eight bytes for each
INFINITE: Final = 0x7F800000  # f32: from here up infinity and NaN
_MAGNITUDE: Final = np.uint32(0x7FFFFFFF)


class Room:
    """Intermediate arrays of one conversion of up to `items` elements. Not for two threads at once."""

    __slots__ = ("first", "index", "items", "second", "third")

    def __init__(self, items: int = PIECE) -> None:
        self.items = items
        self.first, self.second, self.third = (np.empty(items, np.uint32) for _ in range(3))
        self.index = np.empty(items, np.intp)


def convert(source: str, target: str, codes: Codes, out: Codes) -> None:
    """Writes `codes` of format `source` as codes of `target`; both contiguous, of one dimension and equal length."""
    if source == target:
        np.copyto(out, codes)
        return
    room, step = Room(min(PIECE, len(codes))), converter(source, target)
    for begin in range(0, len(codes), PIECE):
        step(codes[begin : begin + PIECE], out[begin : begin + PIECE], room)


@cache
def converter(source: str, target: str) -> Callable[[Codes, Codes, Room], None]:
    """The conversion of one piece."""
    if source == target:
        return lambda codes, out, room: np.copyto(out, codes)
    if source == "f8e4m3":
        return lambda codes, out, room: _take_pairs(target, codes, out, room)
    if source == "f32":
        return {"f16": _narrow_f16, "bf16": _narrow_bf16, "f8e4m3": _narrow_f8}[target]
    if target == "f32":
        return {"f16": _widen_f16, "bf16": _widen_bf16}[source]
    return lambda codes, out, room: _take(table(source, target), codes, out, room)


# --- tables -------------------------------------------------------------------------------------------------------


@cache
def magnitudes(name: str) -> npt.NDArray[np.float64]:
    """The value of every finite code without sign, ascending (f16, bf16, f8e4m3)."""
    form = FORMATS[name]
    codes = np.arange(form.largest + 1)
    exponent, mantissa = codes >> form.mantissa_bits, codes & ((1 << form.mantissa_bits) - 1)
    lead = np.where(exponent > 0, 1 << form.mantissa_bits, 0)
    places = np.maximum(exponent, 1) - form.bias - form.mantissa_bits
    return np.asarray(np.ldexp((lead + mantissa).astype(np.float64), places))


def nearest(name: str, values: npt.NDArray[np.float64]) -> Codes:
    """The codes of `values` by search: nearest, ties to even, saturating. Slow; tables come from it."""
    form, grid = FORMATS[name], magnitudes(name)
    middles = (grid[1:] + grid[:-1]) / 2  # exact: one bit more than the format has
    found = np.searchsorted(middles, np.abs(values))  # a tie stays below
    tied = (found < len(middles)) & (middles[np.minimum(found, len(middles) - 1)] == np.abs(values))
    found += tied & (found & 1 == 1)
    found = np.where(np.isinf(values), form.infinity, found)
    found = np.where(np.isnan(values), form.nan, found)
    return (found | np.where(np.signbit(values), form.sign, 0)).astype(form.codes)


def values(name: str, codes: Codes) -> npt.NDArray[np.float64]:
    """What codes stand for, as float64. Slow: for tables, tests and measurements."""
    if name == "f32":
        with np.errstate(invalid="ignore"):  # signalling NaN
            return codes.view(np.float32).astype(np.float64)
    form, grid = FORMATS[name], magnitudes(name)
    plain = codes & form.codes(form.sign - 1)
    found = grid[np.minimum(plain, form.largest)]
    if form.infinity > form.largest:
        found = np.where(plain == form.infinity, np.inf, found)
    found = np.where(plain > max(form.infinity, form.largest), np.nan, found)
    return np.copysign(found, np.where(codes & form.codes(form.sign), -1.0, 1.0))


@cache
def table(source: str, target: str) -> Codes:
    """For each code of `source` (f16, bf16, f8e4m3) that of `target`."""
    form = FORMATS[source]
    numbers = values(source, np.arange(form.sign * 2, dtype=np.uint32).astype(form.codes))
    if target != "f32":
        return nearest(target, numbers)
    codes = numbers.astype(np.float32).view(np.uint32)
    quiet = np.where(np.signbit(numbers), 0xFFC00000, 0x7FC00000).astype(np.uint32)
    return np.where(np.isnan(numbers), quiet, codes)


@cache
def _pair_table(target: str) -> Codes:
    """For each two neighbouring codes of f8e4m3 the two of `target`, in one integer of twice its size."""
    single = table("f8e4m3", target)
    pairs = np.arange(1 << 16, dtype="<u2").view(np.uint8)
    return single[pairs].view(np.uint64 if target == "f32" else np.uint32)


def _take(lookup: Codes, codes: Codes, out: Codes, room: Room) -> None:
    """out = lookup[codes]. The index is made by us, and `wrap` costs less than the other modes, which check it."""
    for begin in range(0, len(codes), TAKEN):
        some = codes[begin : begin + TAKEN]
        index = room.index[: len(some)]
        np.copyto(index, some, casting="unsafe")
        np.take(lookup, index, out=out[begin : begin + TAKEN], mode="wrap")


def _take_pairs(target: str, codes: Codes, out: Codes, room: Room) -> None:
    even = len(codes) & ~1
    lookup = _pair_table(target)
    _take(lookup, codes[:even].view(np.uint16), out[:even].view(lookup.dtype), room)
    out[even:] = table("f8e4m3", target)[codes[even:]]


# --- widening -----------------------------------------------------------------------------------------------------


def _widen_bf16(codes: Codes, out: Codes, room: Room) -> None:
    np.copyto(out, codes)
    np.left_shift(out, 16, out=out)


def _widen_f16(codes: Codes, out: Codes, room: Room) -> None:
    numbers = out.view(np.float32)
    np.copyto(out.view(np.int32), codes.view(np.int16))  # extends the sign
    np.left_shift(out, 13, out=out)
    np.bitwise_and(out, np.uint32(0x8FFFE000), out=out)
    np.multiply(numbers, np.float32(2.0**112), out=numbers)
    # Exponent 31 has become 2^16 and up, which no finite f16 reaches.
    plain = np.bitwise_and(codes, np.uint16(0x7FFF), out=room.third.view(np.uint16)[: len(codes)])
    if len(codes) and plain.max() >= 0x7C00:
        odd = np.flatnonzero(plain >= 0x7C00)
        out[odd] = table("f16", "f32")[codes[odd]]


# --- narrowing ----------------------------------------------------------------------------------------------------


@cache
def _filled(value: float) -> F32:
    """A piece of one value: numpy's minimum with a scalar takes five times as long as with an array."""
    return np.full(PIECE, value, np.float32)


def _mend(target: str, limit: int, codes: Codes, plain: U32, out: Codes) -> None:
    """What is infinite, NaN or beyond the largest number, from `limit` up (`plain`: codes without sign)."""
    if not len(plain) or plain.max() < limit:
        return
    form = FORMATS[target]
    odd = np.flatnonzero(plain >= limit)
    found = np.where(plain[odd] > INFINITE, form.nan, np.where(plain[odd] == INFINITE, form.infinity, form.largest))
    out[odd] = found.astype(out.dtype) | np.where(codes[odd] >> 31, form.sign, 0).astype(out.dtype)


def _narrow_bf16(codes: Codes, out: Codes, room: Room) -> None:
    rounded = room.first[: len(codes)]
    np.right_shift(codes, 16, out=rounded)
    np.bitwise_and(rounded, np.uint32(1), out=rounded)
    np.add(rounded, codes, out=rounded)
    np.add(rounded, np.uint32(0x7FFF), out=rounded)
    np.right_shift(rounded, 16, out=rounded)
    np.copyto(out, rounded, casting="unsafe")
    _mend("bf16", 0x7F7F8000, codes, np.bitwise_and(codes, _MAGNITUDE, out=rounded), out)


def _narrow_f16(codes: Codes, out: Codes, room: Room) -> None:
    size = len(codes)
    plain, normal, small = room.first[:size], room.second[:size], room.third[:size]
    np.bitwise_and(codes, _MAGNITUDE, out=plain)
    # normal = (plain + 0xFFF + last bit that stays - 112 of exponent) >> 13
    np.right_shift(plain, 13, out=normal)
    np.bitwise_and(normal, np.uint32(1), out=normal)
    np.add(normal, plain, out=normal)
    np.subtract(normal, np.uint32((112 << 23) - 0xFFF), out=normal)
    signed = normal.view(np.int32)
    np.right_shift(signed, 13, out=signed)
    # 0.5 has the last place of f16's subnormal numbers, 2^-24; 2^-14 is the smallest normal one
    number = small.view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaN
        np.minimum(plain.view(np.float32), _filled(2.0**-14)[:size], out=number)
        np.add(number, np.float32(0.5), out=number)
    np.subtract(small, np.uint32(0x3F000000), out=small)
    np.maximum(signed, small.view(np.int32), out=signed)
    np.right_shift(codes, 16, out=small)
    np.bitwise_and(small, np.uint32(0x8000), out=small)
    np.bitwise_or(small, normal, out=small)
    np.copyto(out, small, casting="unsafe")
    _mend("f16", 0x477FF000, codes, plain, out)  # 65,520: half way to what would be the next number


def _narrow_f8(codes: Codes, out: Codes, room: Room) -> None:
    upper, rest = room.first[: len(codes)], room.second[: len(codes)]
    np.right_shift(codes, 16, out=upper)
    np.bitwise_and(codes, np.uint32(0xFFFF), out=rest)
    np.add(rest, np.uint32(0xFFFF), out=rest)
    np.right_shift(rest, 16, out=rest)  # 1 if there was a rest
    np.bitwise_or(upper, rest, out=upper)
    _take(table("bf16", "f8e4m3"), upper, out, room)
