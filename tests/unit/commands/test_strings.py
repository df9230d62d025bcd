"""String commands: replies, errors, events, expiry."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeekdb.commands.strings  # noqa: F401
from tests.unit.commands.harness import NOW_MS, Bench
from zeekdb.commands.lcs import common_subsequence, common_subsequence_length
from zeekdb.types import Set

SYNTAX = "ERR syntax error"
WRONGTYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_INTEGER = "ERR value is not an integer or out of range"


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.keyspace.databases[0].create(b"aset", Set).add(b"member")
    return made


def ttl_ms(bench: Bench, key: bytes) -> int:
    deadline = bench.ctx.db.deadline(key)
    return deadline - NOW_MS if deadline >= 0 else deadline


def test_set_and_get(bench: Bench) -> None:
    assert bench("GET", "k") is None
    assert bench("SET", "k", "v") == "OK"
    assert bench("GET", "k") == b"v"
    assert bench("GET", "aset") == WRONGTYPE
    assert bench("SET", "aset", b"\0\xff") == "OK"
    assert bench("GET", "aset") == b"\0\xff"


@pytest.mark.parametrize(
    ("words", "reply", "ttl"),
    [
        ("EX 10", "OK", 10_000),
        ("px 10", "OK", 10),
        ("EXAT 1700000001", "OK", 1000),
        ("PXAT 1700000000005", "OK", 5),
        ("EX 10 EX 20", "OK", 20_000),
        ("KEEPTTL", "OK", 500),
        ("GET", b"old", -1),
        ("XX GET EX 1", b"old", 1000),
        ("NX GET", b"old", 500),
        ("NX", None, 500),
        ("XX XX", "OK", -1),
        ("XX NX", SYNTAX, 500),
        ("EX 10 PX 10", SYNTAX, 500),
        ("EX 10 KEEPTTL", SYNTAX, 500),
        ("KEEPTTL EX 10", SYNTAX, 500),
        ("PERSIST", SYNTAX, 500),
        ("EX", SYNTAX, 500),
        ("EX x", NOT_INTEGER, 500),
        ("EX 0", "ERR invalid expire time in 'set' command", 500),
        ("EX 9223372036854776", "ERR invalid expire time in 'set' command", 500),
        ("PX 9223372036854775807", "ERR invalid expire time in 'set' command", 500),
        ("EX -1 NX", "ERR invalid expire time in 'set' command", 500),
    ],
)
def test_set_options(bench: Bench, words: str, reply: Any, ttl: int) -> None:
    bench("SET", "k", "old", "PX", 500)
    assert bench("SET", "k", "new", *words.split()) == reply
    assert ttl_ms(bench, b"k") == ttl


def test_set_on_absent_keys_and_other_types(bench: Bench) -> None:
    assert bench("SET", "k", "v", "XX") is None
    assert bench("SET", "k", "v", "XX", "GET") is None
    assert bench("GET", "k") is None
    assert bench("SET", "k", "v", "NX", "GET") is None
    assert bench("GET", "k") == b"v"
    assert bench("SET", "aset", "v", "GET") == WRONGTYPE


def test_what_is_set_in_the_past_is_gone(bench: Bench) -> None:
    assert bench("SET", "k", "v", "PXAT", 1) == "OK"
    assert bench("GET", "k") is None


def test_the_older_setters(bench: Bench) -> None:
    assert [bench("SETNX", "k", 1), bench("SETNX", "k", 2), bench("GETSET", "k", 3)] == [1, 0, b"1"]
    assert bench("SETEX", "k", 10, "v") == "OK"
    assert ttl_ms(bench, b"k") == 10_000
    assert bench("PSETEX", "k", 10, "v") == "OK"
    assert ttl_ms(bench, b"k") == 10
    assert bench("GETSET", "k", "w") == b"v"
    assert ttl_ms(bench, b"k") == -1
    assert bench("SETEX", "k", 0, "v") == "ERR invalid expire time in 'setex' command"
    assert bench("PSETEX", "k", -1, "v") == "ERR invalid expire time in 'psetex' command"
    assert bench("GETSET", "aset", "v") == WRONGTYPE
    assert [bench("GETDEL", "k"), bench("GETDEL", "k"), bench("GETDEL", "aset")] == [b"w", None, WRONGTYPE]


def test_getex(bench: Bench) -> None:
    assert bench("GETEX", "k", "EX", 0) is None
    bench("SET", "k", "v")
    assert bench("GETEX", "k", "EX", 0) == "ERR invalid expire time in 'getex' command"
    assert bench.events_of("GETEX", "k") == []
    assert bench.events_of("GETEX", "k", "PERSIST") == []
    assert bench.events_of("GETEX", "k", "PX", 5) == ["expire"]
    assert ttl_ms(bench, b"k") == 5
    assert bench.events_of("GETEX", "k", "PERSIST") == ["persist"]
    for words in ("PERSIST EX 1", "EX 1 PERSIST", "KEEPTTL", "GET", "NX", "EX"):
        assert bench("GETEX", "k", *words.split()) == SYNTAX
    assert bench("GETEX", "k", "PXAT", NOW_MS) == b"v"
    assert bench("GET", "k") is None
    assert bench("GETEX", "aset") == WRONGTYPE


def test_many_at_once(bench: Bench) -> None:
    assert bench("MSET", "a", 1, "b", 2, "a", 3) == "OK"
    assert bench("MGET", "a", "b", "c", "aset") == [b"3", b"2", None, None]
    assert bench("MSET", "a", 1, "b") == "ERR wrong number of arguments for 'mset' command"
    assert bench("MSETNX", "a", 1, "b") == "ERR wrong number of arguments for 'msetnx' command"
    assert [bench("MSETNX", "c", 1, "b", 9), bench("MSETNX", "c", 1, "d", 9)] == [0, 1]
    assert bench.events_of("MSET", "a", 1, "b", 2) == ["set", "set"]


def test_events(bench: Bench) -> None:
    assert bench.events_of("SET", "k", "1") == ["set"]
    assert bench.events_of("SET", "k", "1", "EX", 5) == ["set", "expire"]
    assert bench.events_of("SET", "k", "1", "NX") == []
    assert bench.events_of("DECR", "k") == ["incrby"]
    assert bench.events_of("INCRBYFLOAT", "k", "1.5") == ["incrbyfloat"]
    assert bench.events_of("APPEND", "k", "") == ["append"]
    assert bench.events_of("SETRANGE", "k", 0, "") == []
    assert bench.events_of("SETRANGE", "k", 0, "a") == ["setrange"]
    assert bench.events_of("GETDEL", "k") == ["del"]


# --- parts --------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=20), st.integers(-25, 25), st.integers(-25, 25))
def test_getrange(value: bytes, start: int, stop: int) -> None:
    bench = Bench()
    bench("SET", "k", value)
    first = max(start + len(value), 0) if start < 0 else start
    last = max(stop + len(value), 0) if stop < 0 else stop
    expected = b"" if start < 0 and stop < 0 and start > stop else value[first : last + 1]
    assert bench("GETRANGE", "k", start, stop) == bench("SUBSTR", "k", start, stop) == expected


@given(st.none() | st.binary(max_size=20), st.integers(0, 30), st.binary(max_size=20))
def test_setrange_and_append(value: bytes | None, offset: int, data: bytes) -> None:
    bench = Bench()
    if value is not None:
        bench("SET", "k", value, "EX", 100)
    before = value or b""
    after = before if not data else before.ljust(offset, b"\0")[:offset] + data + before[offset + len(data) :]
    assert bench("SETRANGE", "k", offset, data) == len(after)
    assert bench("GET", "k") == (after if after or value is not None else None)
    assert bench("APPEND", "k", data) == len(after + data)
    assert bench("GET", "k") == after + data
    assert bench("STRLEN", "k") == len(after + data)
    assert ttl_ms(bench, b"k") == (-1 if value is None else 100_000)


def test_parts_of_nothing_and_of_other_types(bench: Bench) -> None:
    assert bench("GETRANGE", "none", 0, -1) == b""
    assert bench("STRLEN", "none") == 0
    for words in ("APPEND aset x", "STRLEN aset", "GETRANGE aset 0 1", "SETRANGE aset 0 x"):
        assert bench(*words.split()) == WRONGTYPE
    assert bench("SETRANGE", "k", -1, "x") == "ERR offset is out of range"
    assert bench("SETRANGE", "k", "x", "x") == NOT_INTEGER
    assert bench("GETRANGE", "k", "x", 0) == NOT_INTEGER


def test_strings_have_a_largest_size(bench: Bench) -> None:
    bench.config.proto_max_bulk_len = 10
    error = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    bench("SET", "k", "123456")
    assert [bench("APPEND", "k", "12345"), bench("SETRANGE", "k", 9, "ab"), bench("SETRANGE", "new", 10, "a")] == [
        error
    ] * 3
    assert bench("SETRANGE", "k", (1 << 63) - 1, "a") == error
    assert bench("APPEND", "k", "1234") == 10


# --- numbers ------------------------------------------------------------------------------------------------------


def test_counting(bench: Bench) -> None:
    assert [bench("INCR", "n"), bench("INCRBY", "n", 10), bench("DECR", "n"), bench("DECRBY", "n", 3)] == [1, 11, 10, 7]
    bench.ctx.db.set_deadline(b"n", NOW_MS + 9)
    bench("INCR", "n")
    assert ttl_ms(bench, b"n") == 9
    assert bench("DECRBY", "n", -(1 << 63)) == "ERR decrement would overflow"
    assert bench("INCRBY", "n", "1.5") == NOT_INTEGER
    bench("SET", "n", (1 << 63) - 1)
    assert bench("INCR", "n") == "ERR increment or decrement would overflow"
    bench("SET", "n", -(1 << 63))
    assert bench("DECR", "n") == "ERR increment or decrement would overflow"
    for text in ("x", "", " 1", "01", "1.0"):
        bench("SET", "n", text)
        assert bench("INCR", "n") == NOT_INTEGER
    assert bench("INCR", "aset") == WRONGTYPE


def test_counting_in_fractions(bench: Bench) -> None:
    assert bench("INCRBYFLOAT", "n", "10.5") == b"10.5"
    assert bench("INCRBYFLOAT", "n", "0.1") == b"10.6"
    assert bench("INCRBYFLOAT", "n", "-5e-1") == b"10.1"
    assert bench("INCRBYFLOAT", "n", "inf") == "ERR increment would produce NaN or Infinity"
    assert bench("INCRBYFLOAT", "n", "x") == "ERR value is not a valid float"
    bench("SET", "n", "")
    assert bench("INCRBYFLOAT", "n", "1") == "ERR value is not a valid float"
    assert bench("INCRBYFLOAT", "aset", "1") == WRONGTYPE


# --- LCS ----------------------------------------------------------------------------------------------------------


def test_lcs(bench: Bench) -> None:
    bench("MSET", "a", "ohmytext", "b", "mynewtext")
    assert bench("LCS", "a", "b") == b"mytext"
    assert bench("LCS", "a", "b", "LEN") == 6
    assert bench("LCS", "a", "b", "IDX") == {b"matches": [[[4, 7], [5, 8]], [[2, 3], [0, 1]]], b"len": 6}
    assert bench("LCS", "a", "b", "IDX", "MINMATCHLEN", 4, "WITHMATCHLEN") == {
        b"matches": [[[4, 7], [5, 8], 4]],
        b"len": 6,
    }
    assert bench("LCS", "a", "none") == b""
    assert bench("LCS", "a", "aset") == "ERR The specified keys must contain string values"
    assert bench("LCS", "a", "b", "IDX", "LEN") == ("ERR If you want both the length and indexes, please just use IDX.")
    assert bench("LCS", "a", "b", "MINMATCHLEN") == SYNTAX
    assert bench("LCS", "a", "b", "MINMATCHLEN", "x") == NOT_INTEGER
    bench.config.proto_max_bulk_len = 9 * 10 * 4 - 1
    assert bench("LCS", "a", "b", "LEN") == (
        "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
    )


def by_the_book(one: bytes, two: bytes) -> tuple[bytes, list[tuple[int, int, int]]]:
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(two):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    found, runs = b"", []
    i, j, run = len(one), len(two), 0
    while i and j:
        if one[i - 1] == two[j - 1]:
            i, j, run = i - 1, j - 1, run + 1
            found = one[i : i + 1] + found
            continue
        if run:
            runs.append((i, j, run))
        run = 0
        i, j = (i - 1, j) if table[i - 1][j] > table[i][j - 1] else (i, j - 1)
    return found, [*runs, (i, j, run)] if run else runs


words = st.lists(st.sampled_from(b"abc"), max_size=40).map(bytes) | st.binary(max_size=40)


@given(words, words)
def test_lcs_is_the_one_of_the_textbook(one: bytes, two: bytes) -> None:
    found = common_subsequence(one, two)
    assert found == by_the_book(one, two)
    assert common_subsequence_length(one, two) == len(found[0])
