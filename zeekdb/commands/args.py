"""Arguments to numbers and numbers to replies, exactly as strict and as precise as Redis.

A number in Redis has one spelling: `string2ll` takes no sign `+`, no leading zero and no space, because a string that
passes is stored as the number and has to come back byte for byte. Floating point goes through `strtod`, which is
laxer (hexadecimal, `infinity`). INCRBYFLOAT and HINCRBYFLOAT calculate with x87's long double, 64 bits of mantissa;
that is done here with integers, so that results do not depend on the machine.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

from zeekdb.errors import CommandError, NotFloat, NotInteger

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
UINT64_MASK: Final = (1 << 64) - 1

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_DECIMAL = re.compile(rb"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")
_HEXADECIMAL = re.compile(rb"([+-]?)0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP]([+-]?[0-9]+))?")
_INFINITY = re.compile(rb"([+-]?)inf(?:inity)?", re.IGNORECASE)
_CURSOR = re.compile(rb"[+-]?[0-9]+")


# --- integers -----------------------------------------------------------------------------------------------------


def to_int(text: bytes) -> int | None:
    """The 64-bit integer that `text` spells, None when it spells none."""
    if _INTEGER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if INT64_MIN <= number <= INT64_MAX else None


def parse_int(text: bytes, message: str | None = None) -> int:
    """A 64-bit integer; otherwise `message`, or Redis's "value is not an integer or out of range"."""
    number = to_int(text)
    if number is None:
        raise NotInteger if message is None else CommandError(message)
    return number


def parse_uint(text: bytes, message: str = "ERR value is out of range, must be positive") -> int:
    """An integer from 0 up. One message serves both mistakes, as in Redis."""
    number = to_int(text)
    if number is None or number < 0:
        raise CommandError(message)
    return number


def parse_range(text: bytes, low: int, high: int, message: str | None = None) -> int:
    """An integer from `low` to `high`, both included."""
    number = parse_int(text, message)
    if not low <= number <= high:
        raise CommandError(message or f"ERR value is out of range, value must between {low} and {high}")
    return number


def parse_bit(text: bytes) -> int:
    """A bit's value, 0 or 1."""
    if text == b"0":
        return 0
    if text == b"1":
        return 1
    raise CommandError("ERR bit is not an integer or out of range")


def parse_timeout(text: bytes) -> int:
    """How long to block: seconds with fractions, as milliseconds rounded up; 0 is for ever."""
    value = to_long_double(text)
    if value is None:
        raise CommandError("ERR timeout is not a float or out of range")
    if value == math.inf:
        raise CommandError("ERR timeout is out of range")
    if isinstance(value, float):
        raise CommandError("ERR timeout is negative")
    mantissa, exponent = value
    thousandfold = mantissa * 1000
    milliseconds = thousandfold << exponent if exponent >= 0 else -(-thousandfold >> -exponent)
    if milliseconds > INT64_MAX:
        raise CommandError("ERR timeout is out of range")
    if milliseconds < 0:
        raise CommandError("ERR timeout is negative")
    return milliseconds


def parse_cursor(text: bytes) -> int:
    """A SCAN cursor: what `strtoul` takes, so the empty string is 0 and -1 the largest."""
    if not text:
        return 0
    if _CURSOR.fullmatch(text) is None or len(text) > 40:
        raise CommandError("ERR invalid cursor")
    number = int(text)
    if abs(number) > UINT64_MASK:
        raise CommandError("ERR invalid cursor")
    return number & UINT64_MASK


def show(text: bytes) -> str:
    """A client's argument inside an error message: every byte comes out as it went in."""
    return text.decode("utf-8", "surrogateescape")


# --- doubles ------------------------------------------------------------------------------------------------------


def to_float(text: bytes) -> float | None:
    """The double that `text` spells to `strtod`; None for anything else, NaN, overflow and underflow to zero."""
    match = _DECIMAL.fullmatch(text)
    if match is not None:
        number = float(text)
        if math.isinf(number) or (number == 0 and match[2].strip(b"0.")):
            return None
        return number
    match = _INFINITY.fullmatch(text)
    if match is not None:
        return -math.inf if match[1] == b"-" else math.inf
    match = _HEXADECIMAL.fullmatch(text)
    if match is None:
        return None
    try:
        number = float.fromhex(text.decode("ascii"))
    except OverflowError:
        return None
    return None if number == 0 and match[2].strip(b"0.") else number


def parse_float(text: bytes, message: str | None = None) -> float:
    """A double, infinities included; otherwise `message`, or Redis's "value is not a valid float"."""
    number = to_float(text)
    if number is None:
        raise NotFloat if message is None else CommandError(message)
    return number


def format_float(number: float) -> bytes:
    """A double as Redis 7.2 replies it: the shortest digits that read back the same.

    Source: `d2string` in util.c, and `emit_digits` of deps/fpconv for where the exponent begins.
    """
    if not math.isfinite(number):
        return b"nan" if math.isnan(number) else b"inf" if number > 0 else b"-inf"
    if number == 0:
        return b"-0" if math.copysign(1.0, number) < 0 else b"0"
    if abs(number) <= float(INT64_MAX // 2) and number == int(number):
        return b"%d" % int(number)
    mantissa, _, exponent = repr(number).lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    digits = (whole + fraction).lstrip("0")
    power = int(exponent or 0) - len(fraction)  # the value is digits * 10 ** power
    bare = digits.rstrip("0")
    power += len(digits) - len(bare)
    sign = "-" if number < 0 else ""
    return (sign + _place_point(bare, power)).encode()


def _place_point(digits: str, power: int) -> str:
    scientific = len(digits) + power - 1
    if power >= 0 and abs(scientific) < len(digits) + 7:
        return digits + "0" * power
    if power < 0 and (power > -7 or abs(scientific) < 4):
        point = len(digits) + power
        return digits[:point] + "." + digits[point:] if point > 0 else "0." + "0" * -point + digits
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{scientific:+d}"


# --- long doubles -------------------------------------------------------------------------------------------------

_MANTISSA_BITS = 64
_EXPONENT_MIN = -16445  # of the mantissa's last bit: the smallest denormal
_EXPONENT_MAX = 16384  # first power of two beyond the range
_LONG_DOUBLE_BYTES_MAX = 5 * 1024  # MAX_LONG_DOUBLE_CHARS in util.h

LongDouble = tuple[int, int] | float
"""`(m, e)` is exactly m * 2**e; a float stands for an infinity or NaN only."""


def _round(numerator: int, denominator: int, exponent: int) -> LongDouble:
    """numerator / denominator * 2**exponent to the nearest long double, ties to even."""
    if not numerator:
        return (0, 0)
    sign = -1 if numerator < 0 else 1
    numerator = abs(numerator)
    shift = _MANTISSA_BITS + 1 - (numerator.bit_length() - denominator.bit_length())
    shift = min(shift, exponent - _EXPONENT_MIN)  # denormals have fewer bits
    if shift > 0:
        numerator <<= shift
    else:
        denominator <<= -shift
    mantissa, rest = divmod(numerator, denominator)
    exponent -= shift
    excess = mantissa.bit_length() - _MANTISSA_BITS
    if excess > 0:
        lost = mantissa & ((1 << excess) - 1)
        mantissa >>= excess
        exponent += excess
        half = 1 << (excess - 1)
        up = lost > half or (lost == half and (rest or mantissa & 1))
    else:
        up = 2 * rest > denominator or (2 * rest == denominator and bool(mantissa & 1))
    mantissa += bool(up)
    if mantissa.bit_length() + exponent > _EXPONENT_MAX:
        return sign * math.inf
    return (sign * mantissa, exponent)


def to_long_double(text: bytes) -> LongDouble | None:
    """The long double that `text` spells to `strtold`, None where Redis refuses it."""
    if len(text) >= _LONG_DOUBLE_BYTES_MAX:
        return None
    if match := _INFINITY.fullmatch(text):
        return -math.inf if match[1] == b"-" else math.inf
    if match := _DECIMAL.fullmatch(text):
        base, digit_bits = 10, 0
    elif match := _HEXADECIMAL.fullmatch(text):
        base, digit_bits = 16, 4
    else:
        return None
    whole, _, fraction = match[2].partition(b".")
    digits = (whole + fraction).lstrip(b"0")
    if not digits:
        return (0, 0)
    power = max(-100_000, min(100_000, int(Decimal((match[3] or b"0").decode()))))  # beyond: out of range anyway
    # Decimal reads and writes any number of digits; int() stops at 4300 of them.
    number = int(Decimal(digits.decode())) if base == 10 else int(digits, 16)
    if base == 10:
        power -= len(fraction)
        if not -6000 < len(digits) + power < 6000:
            return None
        value = _round(number * 10**power, 1, 0) if power >= 0 else _round(number, 10**-power, 0)
    else:
        value = _round(number, 1, power - digit_bits * len(fraction))
    if isinstance(value, float) or not value[0]:
        return None  # ERANGE
    return (-value[0], value[1]) if match[1] == b"-" else value


def parse_long_double(text: bytes, message: str | None = None) -> LongDouble:
    """A long double, infinities included; otherwise `message`, or Redis's "value is not a valid float"."""
    value = to_long_double(text)
    if value is None:
        raise NotFloat if message is None else CommandError(message)
    return value


def add_long_doubles(left: LongDouble, right: LongDouble) -> LongDouble:
    """The sum, rounded once as x87 does. CommandError when it is no finite number, as INCRBYFLOAT answers."""
    total: LongDouble = math.inf
    if not isinstance(left, float) and not isinstance(right, float):
        exponent = min(left[1], right[1])
        total = _round((left[0] << (left[1] - exponent)) + (right[0] << (right[1] - exponent)), 1, exponent)
    if isinstance(total, float):
        raise CommandError("ERR increment would produce NaN or Infinity")
    return total


def format_long_double(value: LongDouble) -> bytes:
    """`%.17Lf` without trailing zeros: what INCRBYFLOAT and HINCRBYFLOAT store and reply."""
    if isinstance(value, float):
        return format_float(value)
    mantissa, exponent = value
    scaled = abs(mantissa) * 10**17
    if exponent >= 0:
        scaled <<= exponent
    else:
        lost = scaled & ((1 << -exponent) - 1)
        half = 1 << (-exponent - 1)
        scaled >>= -exponent
        scaled += lost > half or (lost == half and bool(scaled & 1))
    digits = f"{Decimal(scaled):f}".rjust(18, "0")
    text = f"{digits[:-17]}.{digits[-17:]}".rstrip("0").rstrip(".")
    return (f"-{text}" if mantissa < 0 and text != "0" else text).encode()
