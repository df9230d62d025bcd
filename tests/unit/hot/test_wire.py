"""Doubles as text: the shortest digits in replies, any that read back the same in payloads."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from zeekdb.commands.args import format_float
from zeekdb.hot.wire import show_double, spelled_double

SHORT = st.tuples(st.integers(-(10**16), 10**16), st.integers(-25, 25)).map(lambda n: float(f"{n[0]}e{n[1]}"))


@given(st.floats(allow_nan=False) | SHORT)
@example(0.1)
@example(-0.0)
@example(5e-324)
@example(1.7976931348623157e308)
@example(999999999999999.9)
@example(math.inf)
def test_doubles(number: float) -> None:
    assert show_double(number) == format_float(number)
    text = spelled_double(number)
    assert float(text) == number
    assert math.copysign(1, float(text)) == math.copysign(1, number)
    assert len(text) <= 32
