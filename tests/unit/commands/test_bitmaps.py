"""Bitmaps against plain models of bits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeekdb.commands.bitmaps
from tests.unit.commands.harness import Bench
from zeekdb.types import Set

SYNTAX = "ERR syntax error"
WRONGTYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_INTEGER = "ERR value is not an integer or out of range"
OFFSET = "ERR bit offset is not an integer or out of range"


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.keyspace.databases[0].create(b"aset", Set).add(b"member")
    return made


def bits_of(value: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in value)


def test_single_bits(bench: Bench) -> None:
    assert bench("GETBIT", "k", 7) == 0
    assert bench.events_of("SETBIT", "k", 7, 1) == ["setbit"]
    assert bench("GET", "k") == b"\1"
    assert bench("SETBIT", "k", 7, 0) == 1
    assert bench.events_of("SETBIT", "k", 7, 0) == []
    assert bench.events_of("SETBIT", "k", 20, 0) == ["setbit"]
    assert bench("GET", "k") == b"\0\0\0"
    assert bench("GETBIT", "k", 1000) == 0
    assert bench("SETBIT", "k", 0, 2) == "ERR bit is not an integer or out of range"
    for offset in ("-1", "x", "4294967296", "#1"):
        assert bench("SETBIT", "k", offset, 1) == OFFSET
        assert bench("GETBIT", "k", offset) == OFFSET
    assert bench("SETBIT", "aset", 0, 1) == bench("GETBIT", "aset", 0) == WRONGTYPE


@given(st.lists(st.tuples(st.integers(0, 70), st.integers(0, 1)), max_size=30))
def test_bits_are_kept(writes: list[tuple[int, int]]) -> None:
    bench = Bench()
    model: dict[int, int] = {}
    for offset, bit in writes:
        assert bench("SETBIT", "k", offset, bit) == model.get(offset, 0)
        model[offset] = bit
    assert [bench("GETBIT", "k", offset) for offset in range(80)] == [model.get(offset, 0) for offset in range(80)]


values = st.binary(max_size=12) | st.lists(st.sampled_from(b"\0\xff\x0f"), max_size=12).map(bytes)
places = st.integers(-110, 110)


def cut(length: int, start: int, stop: int, backwards: bool = False) -> range:
    """The places that a Redis range means; BITPOS minds no range that runs backwards."""
    if start < 0 and stop < 0 and start > stop and not backwards:
        return range(0)
    start = max(start + length, 0) if start < 0 else start
    stop = max(stop + length, 0) if stop < 0 else min(stop, length - 1)
    return range(start, min(stop, length - 1) + 1)


@given(values, places, places, st.sampled_from(["", "BYTE", "bit"]), st.integers(1, 5))
def test_bitcount(value: bytes, start: int, stop: int, unit: str, chunk: int) -> None:
    bench = Bench()
    bench("SET", "k", value)
    zeekdb.commands.bitmaps.CHUNK_BYTES, before = chunk, zeekdb.commands.bitmaps.CHUNK_BYTES
    try:
        assert bench("BITCOUNT", "k") == bits_of(value).count("1")
        got = bench("BITCOUNT", "k", start, stop, *unit.split())
    finally:
        zeekdb.commands.bitmaps.CHUNK_BYTES = before
    bits = bits_of(value)
    if unit == "bit":
        assert got == sum(bits[at] == "1" for at in cut(len(bits), start, stop))
    else:
        assert got == sum(bits_of(value[at : at + 1]).count("1") for at in cut(len(value), start, stop))


@given(values, st.integers(0, 1), places, places, st.sampled_from(["", "BYTE", "BIT"]), st.integers(1, 5))
def test_bitpos(value: bytes, bit: int, start: int, stop: int, unit: str, chunk: int) -> None:
    bench = Bench()
    bench("SET", "k", value)
    bits = bits_of(value)
    zeekdb.commands.bitmaps.CHUNK_BYTES, before = chunk, zeekdb.commands.bitmaps.CHUNK_BYTES
    try:
        got = bench("BITPOS", "k", bit, start, stop, *unit.split())
        endless = bench("BITPOS", "k", bit, start)
    finally:
        zeekdb.commands.bitmaps.CHUNK_BYTES = before
    if unit == "BIT":
        span = cut(len(bits), start, stop, backwards=True)
    else:
        whole = cut(len(value), start, stop, backwards=True)
        span = range(whole.start * 8, whole.stop * 8)
    assert got == next((at for at in span if bits[at] == str(bit)), -1)
    whole = cut(len(value), start, -1, backwards=True)
    beyond = len(bits) if bit == 0 and len(whole) else -1
    assert endless == next((at for at in range(whole.start * 8, whole.stop * 8) if bits[at] == str(bit)), beyond)


def test_ranges_that_are_none(bench: Bench) -> None:
    bench("SET", "k", "a")
    for words in ("BITCOUNT k 0", "BITCOUNT k 0 1 byte x", "BITCOUNT k 0 1 word", "BITPOS k 1 0 1 word"):
        assert bench(*words.split()) == SYNTAX
    for words in ("BITCOUNT k x 1", "BITCOUNT none 0 x", "BITPOS k x", "BITPOS k 1 x", "BITPOS none 1 0 x"):
        assert bench(*words.split()) == NOT_INTEGER
    assert bench("BITPOS", "k", 2) == "ERR The bit argument must be 1 or 0."
    assert [bench("BITCOUNT", "none"), bench("BITPOS", "none", 0), bench("BITPOS", "none", 1)] == [0, 0, -1]
    assert bench("BITCOUNT", "aset") == bench("BITPOS", "aset", 1) == WRONGTYPE


@given(st.lists(st.none() | values, min_size=1, max_size=4), st.sampled_from(["AND", "or", "XOR"]))
def test_bitop(sources: list[bytes | None], name: str) -> None:
    bench = Bench()
    length = max(len(source or b"") for source in sources)
    for at, source in enumerate(sources):
        if source is not None:
            bench("SET", f"k{at}", source)
    keys = [f"k{at}" for at in range(len(sources))]
    assert bench("BITOP", name, "out", *keys) == length
    numbers = [int.from_bytes((source or b"").ljust(length, b"\0"), "big") for source in sources]
    total = numbers[0]
    for number in numbers[1:]:
        total = total & number if name == "AND" else total | number if name == "or" else total ^ number
    assert bench("GET", "out") == (total.to_bytes(length, "big") if length else None)


def test_bitop_not_and_its_mistakes(bench: Bench) -> None:
    bench("SET", "k", b"\x0f\xff")
    assert bench("BITOP", "NOT", "out", "k") == 2
    assert bench("GET", "out") == b"\xf0\0"
    assert bench("BITOP", "NOT", "out", "k", "k") == "ERR BITOP NOT must be called with a single source key."
    assert bench("BITOP", "NAND", "out", "k") == SYNTAX
    assert bench("BITOP", "AND", "out", "k", "aset") == WRONGTYPE
    assert bench.events_of("BITOP", "AND", "out", "none") == ["del"]
    assert bench.events_of("BITOP", "AND", "out", "none") == []
    assert bench.events_of("BITOP", "OR", "out", "k") == ["set"]


# --- BITFIELD -----------------------------------------------------------------------------------------------------


def test_bitfield_by_hand(bench: Bench) -> None:
    assert bench("BITFIELD", "k") == []
    assert bench("BITFIELD", "k", "GET", "u8", 0) == [0]
    assert bench("GET", "k") is None
    assert bench("BITFIELD", "k", "SET", "u8", 0, 200, "INCRBY", "u8", 0, 100) == [0, 44]
    assert bench("BITFIELD", "k", "OVERFLOW", "SAT", "INCRBY", "u8", 0, 250) == [255]
    assert bench("BITFIELD", "k", "OVERFLOW", "FAIL", "INCRBY", "u8", 0, 1) == [None]
    assert bench("BITFIELD", "k", "SET", "i8", "#1", -1, "GET", "u4", 8) == [0, 15]
    assert bench("BITFIELD", "k", "SET", "u8", 0, -1) == [255]
    assert bench("BITFIELD", "k", "OVERFLOW", "SAT", "SET", "u4", 0, -1) == [15]
    assert bench("BITFIELD_RO", "k", "GET", "i8", 8) == [-1]
    assert bench("BITFIELD_RO", "k", "SET", "i8", 0, 1) == "ERR BITFIELD_RO only supports the GET subcommand"


def test_bitfield_events(bench: Bench) -> None:
    assert bench.events_of("BITFIELD", "k", "OVERFLOW", "FAIL", "SET", "u4", 100, 16) == []
    assert bench("STRLEN", "k") == 13
    assert bench.events_of("BITFIELD", "k", "SET", "u4", 0, 1, "SET", "u4", 0, 2) == ["setbit"]
    assert bench.events_of("BITFIELD", "k", "SET", "u4", 0, 2) == []
    assert bench.events_of("BITFIELD", "k", "SET", "u4", 200, 0) == ["setbit"]


def test_bitfield_mistakes(bench: Bench) -> None:
    kind = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
    for field in ("u64", "i65", "x8", "U8", "u0", "u", "8", "u08"):
        assert bench("BITFIELD", "k", "GET", field, 0) == kind
    for offset in ("-1", "x", "#", "#-1", "4294967296", "#999999999999"):
        assert bench("BITFIELD", "k", "GET", "u8", offset) == OFFSET
    assert bench("BITFIELD", "k", "OVERFLOW", "none") == "ERR Invalid OVERFLOW type specified"
    assert bench("BITFIELD", "k", "SET", "u8", 0, "x") == NOT_INTEGER
    for words in ("GET u8", "SET u8 0", "INCRBY u8 0", "OVERFLOW", "PUT u8 0"):
        assert bench("BITFIELD", "k", *words.split()) == SYNTAX
    assert bench("GET", "k") is None
    assert bench("BITFIELD", "aset", "GET", "u8", 0) == bench("BITFIELD", "aset", "SET", "u8", 0, 1) == WRONGTYPE


fields = st.tuples(st.booleans(), st.integers(1, 63))
steps = st.tuples(
    st.sampled_from(["GET", "SET", "INCRBY"]), fields, st.integers(0, 100), st.integers(-(1 << 63), (1 << 63) - 1)
)


def model_step(bits: list[str], step: Any, overflow: str) -> int | None:
    name, (signed, width), offset, operand = step
    text = "".join(bits[offset : offset + width])
    old = int(text, 2) - (1 << width if signed and text[0] == "1" else 0)
    if name == "GET":
        return old
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    target = old + operand if name == "INCRBY" else operand if signed else operand % (1 << 64)
    new = target
    if not low <= target <= high:
        if overflow == "FAIL":
            return None
        new = (min(max(target, low), high)) if overflow == "SAT" else (target - low) % (1 << width) + low
    bits[offset : offset + width] = f"{new % (1 << width):0{width}b}"
    return old if name == "SET" else new


@given(st.binary(max_size=24), st.lists(steps, max_size=6), st.sampled_from(["WRAP", "SAT", "FAIL"]))
def test_bitfield_against_a_model(value: bytes, plan: list[Any], overflow: str) -> None:
    bench = Bench()
    bench("SET", "k", value)
    words: list[Any] = ["OVERFLOW", overflow]
    for name, (signed, width), offset, operand in plan:
        words += [name, f"{'i' if signed else 'u'}{width}", offset, *([] if name == "GET" else [operand])]
    bits = list(bits_of(value).ljust(400, "0"))
    assert bench("BITFIELD", "k", *words) == [model_step(bits, step, overflow) for step in plan]
    writes = [offset + width for name, (_, width), offset, _ in plan if name != "GET"]
    length = max(len(value), (max(writes, default=0) + 7) // 8)
    assert bits_of(bench("GET", "k")) == "".join(bits[: length * 8])
