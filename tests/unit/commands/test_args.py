"""Numbers as strict and as precise as Redis's."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeekdb.commands.args import (
    INT64_MAX,
    INT64_MIN,
    add_long_doubles,
    format_float,
    format_long_double,
    parse_bit,
    parse_cursor,
    parse_float,
    parse_int,
    parse_long_double,
    parse_range,
    parse_uint,
    show,
    to_float,
    to_int,
    to_long_double,
)
from zeekdb.errors import CommandError, NotFloat, NotInteger


@pytest.mark.parametrize("text", [b"0", b"-1", b"7", b"9223372036854775807", b"-9223372036854775808"])
def test_integers(text: bytes) -> None:
    assert parse_int(text) == int(text)


@pytest.mark.parametrize(
    "text",
    [b"", b"+1", b"-0", b"00", b"01", b" 1", b"1 ", b"1.0", b"1_0", b"0x1", b"9223372036854775808", b"-", b"1\n",
     b"-9223372036854775809", b"1" * 40, "١".encode()],
)  # fmt: skip
def test_no_integers(text: bytes) -> None:
    assert to_int(text) is None
    with pytest.raises(NotInteger):
        parse_int(text)


@given(st.integers(-(1 << 65), 1 << 65))
def test_an_integer_has_one_spelling(number: int) -> None:
    inside = INT64_MIN <= number <= INT64_MAX
    assert to_int(b"%d" % number) == (number if inside else None)


def test_messages_of_integers() -> None:
    for text in (b"-1", b"x"):
        with pytest.raises(CommandError, match="must be positive"):
            parse_uint(text)
    with pytest.raises(CommandError, match="value must between 1 and 3"):
        parse_range(b"4", 1, 3)
    with pytest.raises(CommandError, match="not an integer"):
        parse_range(b"x", 1, 3)
    with pytest.raises(CommandError, match="ERR mine"):
        parse_int(b"x", "ERR mine")
    assert (parse_uint(b"3"), parse_range(b"3", 1, 3), parse_bit(b"0"), parse_bit(b"1")) == (3, 3, 0, 1)
    with pytest.raises(CommandError, match="ERR bit is not"):
        parse_bit(b"2")


def test_cursors_are_what_strtoul_takes() -> None:
    assert [parse_cursor(text) for text in (b"", b"0", b"+5", b"-1", b"18446744073709551615")] == [
        0, 0, 5, (1 << 64) - 1, (1 << 64) - 1,
    ]  # fmt: skip
    for text in (b" 5", b"5 ", b"x", b"-", b"18446744073709551616", b"9" * 5000):
        with pytest.raises(CommandError, match="invalid cursor"):
            parse_cursor(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [(b"1", 1.0), (b"+1.", 1.0), (b".5", 0.5), (b"-1e3", -1000.0), (b"0x1p3", 8.0), (b"inf", math.inf),
     (b"-Infinity", -math.inf), (b"0e999999", 0.0), (b"4.9e-324", 5e-324)],
)  # fmt: skip
def test_floats(text: bytes, number: float) -> None:
    assert parse_float(text) == number


@pytest.mark.parametrize(
    "text", [b"", b".", b"nan", b" 1", b"1 ", b"1_0", b"1e", b"1e400", b"-1e400", b"1e-400", b"0x", b"0x1p9999", b"1\0"]
)
def test_no_floats(text: bytes) -> None:
    assert to_float(text) is None
    with pytest.raises(NotFloat):
        parse_float(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.1, b"0.1"), (3.0, b"3"), (-0.0, b"-0"), (0.0, b"0"), (1e20, b"1e+20"), (1e-7, b"1e-7"), (1.5e-5, b"0.000015"),
     (3e17, b"300000000000000000"), (5e18, b"5e+18"), (1.25e-9, b"1.25e-9"), (1.2345678901234567e25,
     b"1.2345678901234568e+25"), (math.inf, b"inf"), (-math.inf, b"-inf"), (math.nan, b"nan"), (-12.5, b"-12.5")],
)  # fmt: skip
def test_spelling_of_floats(number: float, text: bytes) -> None:
    assert format_float(number) == text or float(format_float(number)) == number


@given(st.floats(allow_nan=False))
def test_floats_read_back_the_same(number: float) -> None:
    back = to_float(format_float(number))
    assert back is not None
    assert struct.pack("<d", back) == struct.pack("<d", number)


def test_show_keeps_every_byte() -> None:
    assert show(b"a\xff\xc3\xa4").encode("utf-8", "surrogateescape") == b"a\xff\xc3\xa4"


# --- long doubles: the expected values are redis-server's ----------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "total"),
    [
        (b"0.1", b"0.2", b"0.3"),
        (b"10.5", b"0.1", b"10.6"),
        (b"5.0e3", b"200", b"5200"),
        (b"3", b"1.1", b"4.1"),
        (b"1", b"-1", b"0"),
        (b"-0.00000000000000000001", b"0", b"0"),
        (b"0.3", b"1e20", b"100000000000000000000"),
        (b"9223372036854775807", b"1", b"9223372036854775808"),
        (b"0x1.8p1", b"0", b"3"),
        (b"1e-17", b"0", b"0.00000000000000001"),
    ],
)
def test_sums_of_long_doubles(left: bytes, right: bytes, total: bytes) -> None:
    assert format_long_double(add_long_doubles(parse_long_double(left), parse_long_double(right))) == total


def test_long_doubles_at_the_edges() -> None:
    largest = to_long_double(b"1.18973149535723176502e+4932")
    assert largest is not None
    assert len(format_long_double(largest)) == 4933
    assert to_long_double(b"3.6e-4951") == (1, -16445)
    for text in (b"1.2e4932", b"1e-4960", b"1e999999999999", b"1" * 6000, b"nan", b"", b" 1", b"1_0", b"0x"):
        assert to_long_double(text) is None
    for left, right in ((b"inf", b"1"), (b"inf", b"-inf"), (b"1.18e4932", b"1.18e4932")):
        with pytest.raises(CommandError, match="NaN or Infinity"):
            add_long_doubles(parse_long_double(left), parse_long_double(right))


@given(st.integers(-(1 << 62), 1 << 62), st.integers(-(1 << 62), 1 << 62))
def test_integers_are_exact_in_long_doubles(left: int, right: int) -> None:
    total = add_long_doubles(parse_long_double(b"%d" % left), parse_long_double(b"%d" % right))
    assert format_long_double(total) == b"%d" % (left + right)
