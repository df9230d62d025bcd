"""SORT over lists, sets and sorted sets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeekdb.commands.sorting
import zeekdb.commands.strings  # noqa: F401
from tests.unit.commands.harness import Bench
from zeekdb.commands.spec import REGISTRY
from zeekdb.types import Hash, List, Set, ZSet

SYNTAX = "ERR syntax error"


def fill(bench: Bench, key: bytes, items: list[bytes]) -> None:
    made = bench.ctx.db.create(key, List)
    for item in items:
        made.push(item, False)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    db = made.ctx.db
    fill(made, b"l", [b"3", b"1", b"2", b"10"])
    db.create(b"s", Set).add_many([b"b", b"a", b"c"])
    scores = db.create(b"z", ZSet)
    for score, member in enumerate((b"x", b"a", b"m", b"b")):
        scores.add(member, float(score))
    for number, weight in ((1, 30), (2, 20), (3, 10)):
        made("SET", f"w_{number}", weight)
        fields = db.create(b"h_%d" % number, Hash)
        fields.put(b"weight", b"%d" % weight)
        fields.put(b"name", b"n%d" % number)
    return made


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("l", "1 2 3 10"),
        ("l DESC", "10 3 2 1"),
        ("l ALPHA", "1 10 2 3"),
        ("l ALPHA DESC", "3 2 10 1"),
        ("l LIMIT 1 2", "2 3"),
        ("l LIMIT -5 2", "1 2"),
        ("l LIMIT 9 2", ""),
        ("l LIMIT 1 -1", "2 3 10"),
        ("l LIMIT 1 0", ""),
        ("l BY nosort", "3 1 2 10"),
        ("l BY nosort DESC", "10 2 1 3"),
        ("l BY nosort LIMIT 1 2", "1 2"),
        ("l BY nosort DESC LIMIT 1 2", "2 1"),
        ("l BY w_*", "10 3 2 1"),
        ("l BY w_* DESC", "1 2 3 10"),
        ("l BY w_* ALPHA", "10 3 2 1"),
        ("l BY h_*->weight", "10 3 2 1"),
        ("l BY h_*->", "1 10 2 3"),
        ("s ALPHA", "a b c"),
        ("s ALPHA DESC LIMIT 0 2", "c b"),
        ("z ALPHA", "a b m x"),
        ("z BY nosort", "x a m b"),
        ("z BY nosort DESC", "b m a x"),
        ("z BY nosort DESC LIMIT 1 2", "m a"),
        ("none", ""),
        ("none BY nosort", ""),
    ],
)
def test_orders(bench: Bench, words: str, expected: str) -> None:
    assert bench("SORT", *words.split()) == expected.encode().split()
    assert bench("SORT_RO", *words.split()) == expected.encode().split()


def test_get(bench: Bench) -> None:
    assert bench("SORT", "l", "GET", "#", "GET", "w_*", "GET", "h_*->name", "LIMIT", 2, 2) == [
        b"3", b"10", b"n3", b"10", None, None,
    ]  # fmt: skip
    assert bench("SORT", "l", "GET", "fixed", "LIMIT", 0, 1) == [None]
    assert bench("SORT", "l", "GET", "h_*", "LIMIT", 0, 1) == [None]  # a hash is no string
    assert bench("SORT", "l", "GET", "w_*->name", "LIMIT", 0, 1) == [None]


def test_store(bench: Bench) -> None:
    assert bench.events_of("SORT", "l", "STORE", "out") == ["sortstore"]
    assert bench("SORT", "out", "BY", "nosort") == [b"1", b"2", b"3", b"10"]
    assert bench("SORT", "l", "GET", "w_*", "STORE", "l") == 4
    assert bench("SORT", "l", "BY", "nosort") == [b"30", b"20", b"10", b""]
    assert bench("SORT", "s", "BY", "nosort", "STORE", "out") == 3
    assert bench("SORT", "out", "BY", "nosort") == [b"a", b"b", b"c"]
    assert bench.events_of("SORT", "none", "STORE", "out") == ["del"]
    assert bench.events_of("SORT", "none", "STORE", "out") == []


def test_mistakes(bench: Bench) -> None:
    assert bench("SORT", "w_1") == "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert bench("SORT", "s") == "ERR One or more scores can't be converted into double"
    assert bench("SORT", "l", "LIMIT", "x", 1) == "ERR value is not an integer or out of range"
    for words in ("LIMIT 1", "BY", "GET", "STORE", "UP"):
        assert bench("SORT", "l", *words.split()) == SYNTAX
    assert bench("SORT_RO", "l", "STORE", "out") == SYNTAX


def test_keys_of_a_sort() -> None:
    find: Any = REGISTRY["SORT"].get_keys
    assert find((b"SORT", b"k")) == [1]
    assert find((b"SORT", b"k", b"BY", b"STORE", b"store", b"out")) == [1, 5]
    assert find((b"SORT", b"k", b"STORE", b"a", b"LIMIT", b"0", b"1", b"STORE", b"b")) == [1, 8]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=30), st.booleans())
def test_numbers_in_order(numbers: list[float], descending: bool) -> None:
    bench = Bench()
    if numbers:
        fill(bench, b"l", [repr(number).encode() for number in numbers])
    found = bench("SORT", "l", *(["DESC"] if descending else []))
    assert [float(number) for number in found] == sorted(numbers, reverse=descending)
