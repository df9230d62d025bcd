"""Filter expressions: the language, its conversions, its bounds, and that nothing a client sends breaks it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeekdb.types.vector_filter import TOKENS_MAX, Filter, FilterError, parse_attributes

ALICE = {
    "age": 25, "name": "Alice", "active": True, "idle": False, "scores": [85, 90], "city": "New York", "none": None,
    "number": "12", "empty": "", "tags": ["a", 1, True, None], "nested": {"x": 1}, "mixed": [[1]], "a-b_c": 7,
    "quoted": 'a"b', "other": "O'Brien", "slash": "x\\y", "lines": "l1\nl2", "ä": 1,
}  # fmt: skip


def passes(expression: str, attributes: dict[str, Any] | None = None) -> bool:
    fields = parse_attributes(json.dumps(ALICE if attributes is None else attributes).encode())
    assert fields is not None
    return Filter(expression).matches(fields)


@pytest.mark.parametrize(
    "expression",
    [
        ".age == 25", ".age > 24", ".age >= 25", ".age < 26", ".age <= 25", ".age != 24", "25 == .age",
        '.name == "Alice"', ".name == 'Alice'", '.name != "Bob"', ".active", "not .idle", "!.idle", ".active == 1",
        ".age > 20 and .age < 30", ".age > 20 && .age < 30", ".age > 30 or .active", ".age > 30 || .active",
        ".age>20and.age<30", "!(.age == 24)", "!!.active == 1", "not not .active", "!!!.idle", "!.idle and !!.active",
        ".age in [25, 35]", '.name in ["Alice", "David"]', '"lic" in .name', '"" in .name', '"" in ""', "90 in .scores",
        ".age + 10 == 35", ".age - 10 == 15", ".age -10 == 15", ".age * 2 > 49", ".age / 5 == 5", ".age % 2 == 1",
        ".age ** 2 == 625", "2 ** 3 ** 2 == 512", "(2 ** 3) ** 2 == 64", "2 + 3 * 4 == 14", "(2 + 3) * 4 == 20",
        "-5 + 10 == 5", "3 - -2 == 5", "(1)-1 == 0", "-1 < 0", "[] in [] == 0", "1e2 == 100", "1.5E-1 == 0.15",
        ".scores", ".number + 1 == 13", '.number == 12', "null == .none", ".none == null", ".none != 0", "not null",
        'not ""', "not .empty", ".a-b_c == 7", "1 / 0 > 1e300", "-1 / 0 < -1e300", "0 / 0 != 0 / 0", "-8 ** 0.5 != 1",
        "10 ** 400 > 1e300", ".tags", "1 in .tags", "null in .tags", '"a" in .tags', ".age > (20 + 4)", "'x' == 0",
        '.quoted == "a\\"b"', ".other == 'O\\'Brien'", '.other == "O\'Brien"', '.slash == "x\\\\y"',
        '.lines == "l1\\nl2"', '"\\"b" in .quoted', '.quoted in ["zzz", "a\\"b"]', "5 % 0 != 1", "\t.age\n==\r25 ",
        ".age == 25 or .age == 25 and 0", "(((((.active)))))", "[1,2,]", "7 in [1, 7,]",
    ],
)  # fmt: skip
def test_expressions_that_hold(expression: str) -> None:
    assert passes(expression)
    assert not passes(f"not ({expression})")


@pytest.mark.parametrize(
    "expression",
    [
        ".missing", "not .missing", ".missing or 1", "1 or .missing", ".nested", "not .nested", ".mixed", "not .mixed",
        ".nested == null", ".age-10 == 15",  # the field "age-10"
    ],
)  # fmt: skip
def test_fields_that_cannot_be_read_never_pass(expression: str) -> None:
    assert not passes(expression)


@pytest.mark.parametrize(
    ("expression", "place"),
    [
        ("", 0), ("   ", 3), ("(", 0), (")", 0), ("1 +", 2), ("1 2", 3), ('.a == "b', 6), (".", 0), (". a", 0),
        ("and", 0), ("1 and", 2), (".a ~ 2", 3), ("[1", 2), ("[1 2]", 3), ("[[1]]", 1), ("[.a]", 1), ("((1)", 0),
        ("1)", 1), ("1e5e5", 0), ("1.2.3", 0), (".a.b", 4), ("foo", 0), (".a = 1", 3), ("not", 0), ("-", 0), ("é", 0),
        ("1 == [1, x]", 9), ("--1", 0), ("\0", 0),
    ],
)  # fmt: skip
def test_syntax_errors_tell_their_place(expression: str, place: int) -> None:
    with pytest.raises(FilterError) as caught:
        Filter(expression)
    assert caught.value.place == place


def test_size_is_bounded() -> None:
    assert passes(" or ".join([".age == 1"] * 1000 + [".active"]))
    assert passes("(" * 1500 + ".active" + ")" * 1500)
    assert passes("!" * 4000 + ".active")
    assert passes(f"'{'x' * 65000}' != .name")
    many = ("1" + "+1" * TOKENS_MAX, "(" * (TOKENS_MAX + 1), f"1 in [{'1,' * TOKENS_MAX}]")
    for long in (*many, "1" * 256, " " * 65537):
        with pytest.raises(FilterError):
            Filter(long)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"nonsense", b"[1]", b"1", b'"x"', b"{", b'{"a":NaN}', b'{"a":Infinity}', b"[" * 100_000,
        b'{"a":' * 100_000, b'{"a":' + b"9" * 5000 + b"}", b'{"a":1} x', b'{"a":"' + b"x" * (1 << 20) + b'"}',
    ],
)  # fmt: skip
def test_what_is_no_object_has_no_fields(text: bytes) -> None:
    assert parse_attributes(text) is None


def test_odd_json() -> None:
    assert parse_attributes(b'{"a":"\xff","a":1e999}') == {"a": math.inf}
    assert parse_attributes(b' {"big":123456789012345678901234567890} ') == {"big": 123456789012345678901234567890.0}
    fields = parse_attributes(b'{"a":"\xff\xfe"}')
    assert fields is not None
    assert Filter('.a == "\udcff\udcfe"').matches(fields)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=5,
)
WORDS = st.sampled_from([
    ".a", ".b", "1", "-2.5", "0", '"x"', "'1'", "[1, 'x']", "null", "(", ")", "+", "-", "*", "/", "%", "**", "==", "!=",
    ">", ">=", "<", "<=", "in", "and", "or", "not", "!", "&&", "||",
])  # fmt: skip


@given(st.lists(WORDS, max_size=15), st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2))
def test_anything_compiles_or_is_refused(words: list[str], attributes: dict[str, Any]) -> None:
    try:
        compiled = Filter(" ".join(words))
    except FilterError:
        return
    fields = parse_attributes(json.dumps(attributes).encode())
    assert fields is None or compiled.matches(fields) in (True, False)


NUMBERS = st.integers(-9, 9).map(str).map(lambda text: f"({text})")
SUMS = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "<", "<=", "==", "!=", "and", "or"]), inner).map(
        " ".join
    ),
    max_leaves=8,
)


@given(SUMS)
def test_precedence_is_pythons_but_for_comparisons_in_a_row(expression: str) -> None:
    if sum(expression.count(f" {sign} ") for sign in ("<", "<=", "==", "!=")) > 1:
        return
    assert Filter(expression).matches({}) == bool(eval(expression))
