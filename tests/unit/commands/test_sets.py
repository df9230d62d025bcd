"""Set commands: replies, errors, events."""

from __future__ import annotations

from typing import Any

import pytest

import zeekdb.commands.sets
import zeekdb.commands.strings  # noqa: F401
from tests.unit.commands.harness import Bench

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
NOT_POSITIVE = "ERR value is out of range, must be positive"
RANGE = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made("SET", "string", "v")
    made("SADD", "s", "a", "b", "c")
    made("SADD", "t", "b", "c", "d")
    made("SADD", "n", 3, 1, 2)
    made.events.clear()
    return made


def encoding(bench: Bench, key: bytes) -> Any:
    return bench.keyspace.databases[0].peek(key).encoding


def gone(bench: Bench, key: bytes) -> bool:
    return bench.keyspace.databases[0].peek(key) is None


def test_sadd_and_srem(bench: Bench) -> None:
    assert bench("SADD", "s", "a", "x", "x") == 1
    assert bench.events_of("SADD", "s", "a") == []
    assert bench.events_of("SADD", "s", "y", "z") == ["sadd"]
    assert bench("SREM", "s", "x", "x", "y", "none") == 2
    assert bench.events_of("SREM", "s", "none") == []
    assert bench.events_of("SREM", "s", "a", "b", "c", "z") == ["srem", "del"]
    assert gone(bench, b"s")
    assert [bench("SREM", "none", "a"), bench("SREM", "string", "a"), bench("SADD", "string", "a")] == [
        0, WRONG_TYPE, WRONG_TYPE,
    ]  # fmt: skip


def test_reads(bench: Bench) -> None:
    assert [bench("SISMEMBER", "s", "a"), bench("SISMEMBER", "s", "x"), bench("SISMEMBER", "none", "x")] == [1, 0, 0]
    assert bench("SMISMEMBER", "s", "a", "x", "a") == [1, 0, 1]
    assert bench("SMISMEMBER", "none", "a", "x") == [0, 0]
    assert [bench("SCARD", "s"), bench("SCARD", "none")] == [3, 0]
    assert [bench("SMEMBERS", "s"), bench("SMEMBERS", "n")] == [[b"a", b"b", b"c"], [b"1", b"2", b"3"]]
    assert bench("SMEMBERS", "none") == []
    bench.client.protocol = 3
    assert [bench("SMEMBERS", "s"), bench("SMEMBERS", "none")] == [{b"a", b"b", b"c"}, set()]
    for name in ("SMEMBERS", "SCARD", "SRANDMEMBER", "SPOP", "SINTER", "SUNION", "SDIFF"):
        assert bench(name, "string") == WRONG_TYPE
    for name in ("SISMEMBER", "SMISMEMBER"):
        assert bench(name, "string", "m") == WRONG_TYPE


def test_smove(bench: Bench) -> None:
    assert bench("SMOVE", "s", "t", "a") == 1
    assert bench.events == [("srem", b"s"), ("sadd", b"t")]
    assert bench.events_of("SMOVE", "s", "t", "b") == ["srem"]
    assert bench.events_of("SMOVE", "s", "new", "c") == ["srem", "del", "sadd"]
    assert gone(bench, b"s")
    assert [bench("SMOVE", "none", "string", "a"), bench("SMOVE", "t", "s", "x")] == [0, 0]
    assert gone(bench, b"s")
    assert [bench("SMOVE", "t", "t", "b"), bench("SMOVE", "t", "t", "x")] == [1, 0]
    assert bench("SMOVE", "string", "t", "a") == bench("SMOVE", "t", "string", "b") == WRONG_TYPE
    assert bench("SISMEMBER", "t", "b") == 1


def test_spop(bench: Bench) -> None:
    assert bench("SPOP", "s") in {b"a", b"b", b"c"}
    assert bench.events == [("spop", b"s")]
    assert [bench("SPOP", "none"), bench("SPOP", "none", 3), bench("SPOP", "s", 0)] == [None, [], []]
    assert bench.events_of("SPOP", "s", 5) == ["spop", "del"]
    assert gone(bench, b"s")
    bench.client.protocol = 3
    assert bench("SPOP", "t", 9) == {b"b", b"c", b"d"}
    assert {bench("SPOP", "n") for _ in range(3)} == {b"1", b"2", b"3"}
    assert gone(bench, b"n")
    assert bench("SPOP", "s", -1) == bench("SPOP", "s", "x") == NOT_POSITIVE
    assert bench("SPOP", "s", 1, 2) == SYNTAX


def test_srandmember(bench: Bench) -> None:
    assert bench("SRANDMEMBER", "s") in {b"a", b"b", b"c"}
    assert [bench("SRANDMEMBER", "none"), bench("SRANDMEMBER", "none", 3), bench("SRANDMEMBER", "s", 0)] == [
        None, [], [],
    ]  # fmt: skip
    assert bench("SRANDMEMBER", "s", 7) == [b"a", b"b", b"c"]
    assert len(set(bench("SRANDMEMBER", "s", 2))) == 2
    drawn = bench("SRANDMEMBER", "s", -30)
    assert len(drawn) == 30
    assert set(drawn) <= {b"a", b"b", b"c"}
    assert bench("SRANDMEMBER", "s", "x") == NOT_INTEGER
    assert bench("SRANDMEMBER", "s", -(1 << 63)) == RANGE
    assert bench("SRANDMEMBER", "s", 1, 2) == SYNTAX
    assert bench.events == []


def test_sscan(bench: Bench) -> None:
    assert bench("SSCAN", "s", 0) == [b"0", [b"a", b"b", b"c"]]
    assert bench("SSCAN", "n", 0, "COUNT", 1, "MATCH", "[13]") == [b"0", [b"1", b"3"]]
    assert bench("SSCAN", "none", 0, "COUNT") == [b"0", []]
    assert bench("SSCAN", "s", "x") == "ERR invalid cursor"
    assert bench("SSCAN", "s", 0, "COUNT") == bench("SSCAN", "s", 0, "COUNT", -1) == SYNTAX
    assert bench("SSCAN", "string", 0) == WRONG_TYPE
    for n in range(1000):
        bench("SADD", "large", n)
    cursor, seen = b"0", set()
    while True:
        cursor, found = bench("SSCAN", "large", cursor)
        seen.update(found)
        if cursor == b"0":
            break
    assert seen == {b"%d" % n for n in range(1000)}


def test_algebra(bench: Bench) -> None:
    assert bench("SINTER", "s", "t") == [b"b", b"c"]
    assert bench("SINTER", "s", "none") == []
    assert bench("SINTER", "none", "string") == WRONG_TYPE
    assert bench("SUNION", "s", "none", "t") == [b"a", b"b", b"c", b"d"]
    assert bench("SDIFF", "s", "t") == [b"a"]
    assert bench("SDIFF", "none", "t") == bench("SDIFF", "s", "s") == []
    assert [bench("SINTER", "s", "s", "s"), bench("SDIFF", "s")] == [[b"a", b"b", b"c"], [b"a", b"b", b"c"]]
    bench.client.protocol = 3
    assert [bench("SINTER", "s", "t"), bench("SDIFF", "s", "t")] == [{b"b", b"c"}, {b"a"}]


def test_store(bench: Bench) -> None:
    assert bench.events_of("SINTERSTORE", "s", "s", "t") == ["sinterstore"]
    assert bench("SMEMBERS", "s") == [b"b", b"c"]
    assert bench.events_of("SUNIONSTORE", "string", "n") == ["sunionstore"]
    assert [bench("SMEMBERS", "string"), encoding(bench, b"string")] == [[b"1", b"2", b"3"], "intset"]
    assert bench.events_of("SDIFFSTORE", "s", "t", "s") == ["sdiffstore"]
    assert bench("SMEMBERS", "s") == [b"d"]
    assert bench.events_of("SDIFFSTORE", "s", "none", "t") == ["del"]
    assert gone(bench, b"s")
    assert bench.events_of("SINTERSTORE", "s", "none", "t") == []
    assert bench("SUNIONSTORE", "new", "t", "n") == 6
    bench("SET", "string", "v")
    assert bench("SINTERSTORE", "new", "none", "string") == WRONG_TYPE
    assert bench("SCARD", "new") == 6


def test_sintercard(bench: Bench) -> None:
    assert bench("SINTERCARD", 2, "s", "t") == 2
    assert bench("SINTERCARD", 2, "s", "t", "limit", 1) == 1
    assert bench("SINTERCARD", 2, "s", "t", "LIMIT", 0) == 2
    assert bench("SINTERCARD", 2, "s", "none") == 0
    assert bench("SINTERCARD", 0, "s") == bench("SINTERCARD", "x", "s") == "ERR numkeys should be greater than 0"
    assert bench("SINTERCARD", 2, "s") == "ERR Number of keys can't be greater than number of args"
    assert bench("SINTERCARD", 1, "s", "t") == bench("SINTERCARD", 1, "s", "LIMIT") == SYNTAX
    assert bench("SINTERCARD", 1, "s", "LIMIT", -1) == "ERR LIMIT can't be negative"
    assert bench("SINTERCARD", 1, "s", "LIMIT", "x") == "ERR LIMIT can't be negative"
    assert bench("SINTERCARD", 1, "string") == WRONG_TYPE
