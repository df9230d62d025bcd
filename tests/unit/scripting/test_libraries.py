"""cjson, cmsgpack, struct and bit against Python's own, known values and themselves."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scripting.lua_desk import Desk

DESK = Desk()
MANY = settings(max_examples=60, deadline=None)

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False, width=64))
trees = st.recursive(
    st.one_of(texts, st.integers(-(10**13), 10**13), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text("abcdef", min_size=1), inner, min_size=1, max_size=4)
    ),
    max_leaves=20,
)  # fmt: skip


def fit(tree: Any) -> Any:
    """As JSON comes back from Lua, where an empty array is an empty table, which is an object."""
    if isinstance(tree, list):
        return [fit(item) for item in tree] if tree else {}
    return {key: fit(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


# --- cjson ------------------------------------------------------------------------------------------------------------


@MANY
@given(trees)
def test_json_comes_back(tree: Any) -> None:
    found = DESK.run("return cjson.encode(cjson.decode(ARGV[1]))", json.dumps([tree]).encode())
    assert json.loads(found) == [fit(tree)]


@MANY
@given(texts)
def test_json_strings(text: str) -> None:
    for ascii_only in (True, False):
        word = json.dumps(text, ensure_ascii=ascii_only).encode()
        assert DESK.run("return cjson.decode(ARGV[1])", word) == text.encode()
    assert json.loads(DESK.run("return cjson.encode(ARGV[1])", text.encode())) == text


@MANY
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_json_numbers(number: float) -> None:
    found = DESK.run("return string.format('%.17g', cjson.decode(ARGV[1]))", json.dumps(number).encode())
    assert float(found) == number
    encoded = json.loads(DESK.run("return cjson.encode(tonumber(ARGV[1]))", repr(number).encode()))
    assert math.isclose(encoded, number, rel_tol=1e-13)


@MANY
@given(st.binary(max_size=40))
def test_json_of_anything_is_an_error_or_a_value(data: bytes) -> None:
    DESK.run("return pcall(cjson.decode, ARGV[1])", data)
    DESK.run("return pcall(cjson.decode, '[' .. ARGV[1] .. ']')", data)


@pytest.mark.parametrize(
    ("source", "reply"),
    [
        ("cjson.encode({})", b"{}"), ("cjson.encode({1, 2, 3})", b"[1,2,3]"), ("cjson.encode({a = cjson.null})",
        b'{"a":null}'),
        ("cjson.encode({1, nil, 3})", b"[1,null,3]"), ("cjson.encode({[1] = 1, [3] = 2})", b"[1,null,2]"),
        ("cjson.encode(0.1)", b"0.1"), ("cjson.encode(1e20)", b"1e+20"), ("cjson.encode('/\"\\n')", b'"\\/\\"\\n"'),
        ("cjson.decode('[1,[2]]')[2][1]", 2), ("cjson.decode('null') == cjson.null", 1),
        ("cjson.decode('\"\\\\u00e9\"')", b"\xc3\xa9"),
        ("cjson.decode('\"\\\\ud83d\\\\ude00\"')", "😀".encode()), ("type(cjson.new().encode)", b"function"),
    ],
)  # fmt: skip
def test_json_known(source: str, reply: Any) -> None:
    assert DESK.run(f"return {source}") == reply


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("cjson.encode({[100] = 1})", "excessively sparse"), ("cjson.encode(0/0)", "NaN or Inf"),
        ("cjson.encode(string.len)", "function"),
        ("cjson.encode({[{}] = 1})", "must be a number or string"), ("local t = {} t.x = t cjson.encode(t)",
        "excessive depth"),
        ("cjson.decode(('['):rep(2000))", "too many nested"), ("cjson.decode('[1,]')", "Expected value"),
        ("cjson.decode('{\"a\"}')", "Expected colon"), ("cjson.decode('\"\\\\ud800\"')", "unicode escape"),
        ("cjson.decode('\\0\\0')", "UTF-16"), ("cjson.decode('1 2')", "Expected the end"),
    ],
)  # fmt: skip
def test_json_errors(source: str, why: str) -> None:
    assert why in DESK.fails(source)


# --- cmsgpack ---------------------------------------------------------------------------------------------------------


@MANY
@given(trees)
def test_msgpack_comes_back(tree: Any) -> None:
    source = "return cjson.encode(cmsgpack.unpack(cmsgpack.pack(cjson.decode(ARGV[1]))))"
    assert json.loads(DESK.run(source, json.dumps([tree]).encode())) == [fit(tree)]


@MANY
@given(numbers)
def test_msgpack_numbers(number: float) -> None:
    source = "local n = tonumber(ARGV[1]) return cmsgpack.unpack(cmsgpack.pack(n)) == n"
    assert DESK.run(source, repr(number).encode()) == 1


@MANY
@given(st.binary(max_size=40))
def test_msgpack_of_anything_is_an_error_or_values(data: bytes) -> None:
    DESK.run("return pcall(cmsgpack.unpack, ARGV[1])", data)


@pytest.mark.parametrize(
    ("source", "packed"),
    [
        ("nil", "c0"), ("true", "c3"), ("false", "c2"), ("0", "00"), ("127", "7f"), ("128", "cc80"), ("65535",
        "cdffff"),
        ("65536", "ce00010000"), ("2^32", "cf0000000100000000"), ("-1", "ff"), ("-32", "e0"), ("-33", "d0df"),
        ("-129", "d1ff7f"),
        ("-32769", "d2ffff7fff"), ("1.5", "ca3fc00000"), ("0.1", "cb3fb999999999999a"), ("'a'", "a161"),
        ("('a'):rep(32)", "d920" + "61" * 32),
        ("{1, 2}", "920102"), ("{a = 1}", "81a16101"), ("{}", "90"), ("1, 2", "0102"),
    ],
)  # fmt: skip
def test_msgpack_known(source: str, packed: str) -> None:
    assert DESK.run(f"return cmsgpack.pack({source})").hex() == packed


def test_msgpack_in_portions() -> None:
    assert DESK.run("return {cmsgpack.unpack_one(cmsgpack.pack(1, 2, 3))}") == [1, 1]
    assert DESK.run("return {cmsgpack.unpack_one(cmsgpack.pack(1, 2, 3), 2)}") == [-1, 3]
    assert DESK.run("return {cmsgpack.unpack_limit(cmsgpack.pack(1, 2, 3), 2)}") == [2, 1, 2]
    assert "Missing bytes" in DESK.fails("cmsgpack.unpack('\\219\\255\\255\\255\\255')")


# --- struct -----------------------------------------------------------------------------------------------------------

INTEGERS = {"b": "b", "B": "B", "h": "h", "H": "H", "i4": "i", "I4": "I", "i2": "h", "I1": "B"}


@MANY
@given(
    st.lists(st.tuples(st.sampled_from(sorted(INTEGERS)), st.integers(0, 2**32 - 1)), min_size=1, max_size=6),
    st.sampled_from("<>"),
)
def test_struct_integers(items: list[tuple[str, int]], order: str) -> None:
    codes = [INTEGERS[option] for option, _ in items]
    sizes = [struct.calcsize(f"={code}") for code in codes]
    whole = [value % (1 << 8 * size) for (_, value), size in zip(items, sizes, strict=True)]
    data = b"".join(struct.pack(order + code.upper(), value) for code, value in zip(codes, whole, strict=True))
    form = order + "".join(option for option, _ in items)
    values = ", ".join(str(value) for value in whole)
    assert DESK.run(f"return struct.pack('{form}', {values})") == data
    expected = [*struct.unpack(order + "".join(codes), data), len(data) + 1]
    assert DESK.run(f"return {{struct.unpack('{form}', ARGV[1])}}", data) == expected
    assert DESK.run(f"return struct.size('{form}')") == len(data)


@MANY
@given(st.floats(allow_nan=False), st.sampled_from("<>"))
def test_struct_doubles(value: float, order: str) -> None:
    data = struct.pack(f"{order}d", value)
    assert DESK.run(f"return struct.pack('{order}d', (struct.unpack('{order}d', ARGV[1])))", data) == data


@MANY
@given(st.text("<>=!bBhHlLTiIfdcsx 0123456789", max_size=12), st.binary(max_size=40))
def test_struct_of_anything_is_an_error_or_values(form: str, data: bytes) -> None:
    DESK.run("return {pcall(struct.unpack, ARGV[1], ARGV[2])}", form.encode(), data)
    DESK.run("return {pcall(struct.pack, ARGV[1], 1, 'abc', 2, 3)}", form.encode())
    DESK.run("return {pcall(struct.size, ARGV[1])}", form.encode())


def test_struct_known() -> None:
    assert DESK.run("return struct.pack('>I2sc3', 258, 'ab', 'xyz')") == b"\x01\x02ab\0xyz"
    assert DESK.run("return struct.pack('!4bi4', 1, 2)") == b"\x01\0\0\0\x02\0\0\0"
    assert DESK.run("return {struct.unpack('Bc0s', '\\3abcde\\0')}") == [b"abc", b"de", 8]
    assert "data string too short" in DESK.fails("struct.unpack('i4', 'abc')")
    assert "larger than limit" in DESK.fails("struct.pack('i33', 1)")
    assert "power of 2" in DESK.fails("struct.pack('!3i4', 1)")


# --- bit --------------------------------------------------------------------------------------------------------------


def signed(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


@MANY
@given(st.integers(-(2**50), 2**50), st.integers(-(2**50), 2**50), st.integers(0, 31))
def test_bits(a: int, b: int, n: int) -> None:
    low = a % (1 << 32)
    expected = [
        signed(a), signed(~a), signed(a & b), signed(a | b), signed(a ^ b), signed(low << n),
        signed(low >> n), signed(a) >> n,
        signed(low << n | low >> (32 - n)), signed(low >> n | low << (32 - n)),
        signed(int.from_bytes(low.to_bytes(4, "little"), "big")),
    ]  # fmt: skip
    source = (
        f"local a, b, n = {a}, {b}, {n} "
        "return {bit.tobit(a), bit.bnot(a), bit.band(a, b), bit.bor(a, b), bit.bxor(a, b), "
        "bit.lshift(a, n), bit.rshift(a, n), bit.arshift(a, n), bit.rol(a, n), bit.ror(a, n), bit.bswap(a)}"
    )
    assert DESK.run(source) == expected
    assert DESK.run(f"return bit.tohex({a})") == b"%08x" % low


def test_bits_of_no_numbers() -> None:
    assert DESK.run("return bit.tobit(0/0)") == 0
    assert DESK.run("return {bit.tohex(255, 2), bit.tohex(255, -4)}") == [b"ff", b"00FF"]
    assert DESK.run("return bit.tohex(1, -2147483648)") == b"00000001"
    assert "number expected" in DESK.fails("bit.band('x')")
