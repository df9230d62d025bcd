"""Hash commands: replies, errors, events."""

from __future__ import annotations

import pytest

import zeekdb.commands.hashes
import zeekdb.commands.strings  # noqa: F401
from tests.unit.commands.harness import Bench

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
RANGE = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made("SET", "string", "v")
    made("HSET", "h", "a", "1", "b", "2", "c", "three")
    made.events.clear()
    return made


def test_hset(bench: Bench) -> None:
    assert bench("HSET", "h", "a", "one", "d", "4") == 1
    assert bench("HSET", "h", "a", "one") == 0
    assert bench.events == [("hset", b"h"), ("hset", b"h")]
    assert bench("HSET", "new", "f", "v", "f", "w") == 1
    assert bench("HGETALL", "new") == {b"f": b"w"}
    assert bench("HMSET", "h", "e", "5") == "OK"
    assert bench("HSET", "h", "a", "1", "b") == "ERR wrong number of arguments for 'hset' command"
    assert bench("HMSET", "h", "a", "1", "b") == "ERR wrong number of arguments for 'hmset' command"
    assert bench("HSET", "string", "f", "v") == WRONG_TYPE


def test_hsetnx(bench: Bench) -> None:
    assert bench.events_of("HSETNX", "h", "a", "9") == []
    assert bench("HGET", "h", "a") == b"1"
    assert bench.events_of("HSETNX", "h", "z", "9") == ["hset"]
    assert bench("HSETNX", "new", "z", "9") == 1
    assert bench("HSETNX", "string", "z", "9") == WRONG_TYPE


def test_reads(bench: Bench) -> None:
    assert [bench("HGET", "h", "a"), bench("HGET", "h", "x"), bench("HGET", "none", "a")] == [b"1", None, None]
    assert bench("HMGET", "h", "a", "x", "c", "a") == [b"1", None, b"three", b"1"]
    assert bench("HMGET", "none", "a", "x") == [None, None]
    assert [bench("HLEN", "h"), bench("HLEN", "none")] == [3, 0]
    assert [bench("HSTRLEN", "h", "c"), bench("HSTRLEN", "h", "x"), bench("HSTRLEN", "none", "x")] == [5, 0, 0]
    assert [bench("HEXISTS", "h", "c"), bench("HEXISTS", "h", "x"), bench("HEXISTS", "none", "x")] == [1, 0, 0]
    assert bench("HKEYS", "h") == [b"a", b"b", b"c"]
    assert bench("HVALS", "h") == [b"1", b"2", b"three"]
    assert bench("HGETALL", "h") == {b"a": b"1", b"b": b"2", b"c": b"three"}
    assert [bench("HKEYS", "none"), bench("HVALS", "none"), bench("HGETALL", "none")] == [[], [], {}]
    for name in ("HKEYS", "HVALS", "HGETALL", "HLEN", "HRANDFIELD"):
        assert bench(name, "string") == WRONG_TYPE
    for name in ("HGET", "HMGET", "HSTRLEN", "HEXISTS"):
        assert bench(name, "string", "f") == WRONG_TYPE
    assert bench.events == []


def test_hdel(bench: Bench) -> None:
    assert bench.events_of("HDEL", "h", "x") == []
    assert bench.events_of("HDEL", "h", "a", "b", "a") == ["hdel"]
    assert bench("HGETALL", "h") == {b"c": b"three"}
    assert bench.events_of("HDEL", "h", "c", "c") == ["hdel", "del"]
    assert bench.keyspace.databases[0].peek(b"h") is None
    assert [bench("HDEL", "none", "a"), bench("HDEL", "string", "a")] == [0, WRONG_TYPE]


def test_hincrby(bench: Bench) -> None:
    assert bench("HINCRBY", "h", "a", 41) == 42
    assert bench("HINCRBY", "new", "f", -3) == -3
    assert bench("HGET", "new", "f") == b"-3"
    assert bench.events == [("hincrby", b"h"), ("hincrby", b"new")]
    assert bench("HINCRBY", "h", "a", "1.5") == NOT_INTEGER
    assert bench("HINCRBY", "h", "c", 1) == "ERR hash value is not an integer"
    bench("HSET", "h", "big", (1 << 63) - 2, "spaces", " 1")
    assert bench("HINCRBY", "h", "big", 1) == (1 << 63) - 1
    assert bench("HINCRBY", "h", "big", 1) == "ERR increment or decrement would overflow"
    assert bench("HINCRBY", "h", "spaces", 1) == "ERR hash value is not an integer"
    assert bench("HINCRBY", "string", "f", 1) == WRONG_TYPE
    assert bench("HINCRBY", "string", "f", "x") == NOT_INTEGER


def test_hincrbyfloat(bench: Bench) -> None:
    assert bench("HINCRBYFLOAT", "h", "a", "0.1") == b"1.1"
    assert bench("HINCRBYFLOAT", "new", "f", "1e2") == b"100"
    assert bench.events == [("hincrbyfloat", b"h"), ("hincrbyfloat", b"new")]
    assert bench("HINCRBYFLOAT", "h", "c", 1) == "ERR hash value is not a float"
    assert bench("HINCRBYFLOAT", "h", "a", "x") == "ERR value is not a valid float"
    assert bench("HINCRBYFLOAT", "h", "a", "inf") == "ERR value is NaN or Infinity"
    bench("HSET", "h", "inf", "inf")
    assert bench("HINCRBYFLOAT", "h", "inf", 1) == "ERR increment would produce NaN or Infinity"
    assert bench("HINCRBYFLOAT", "string", "f", 1) == WRONG_TYPE


def test_hscan(bench: Bench) -> None:
    everything = [b"a", b"1", b"b", b"2", b"c", b"three"]
    assert bench("HSCAN", "h", 0) == [b"0", everything]
    assert bench("HSCAN", "h", 0, "match", "*", "count", 1) == [b"0", everything]
    assert bench("HSCAN", "h", 0, "MATCH", "[ac]") == [b"0", [b"a", b"1", b"c", b"three"]]
    assert bench("HSCAN", "none", 0, "nonsense") == [b"0", []]
    assert bench("HSCAN", "h", "x") == "ERR invalid cursor"
    for options in (("COUNT", 0), ("COUNT",), ("MATCH",), ("TYPE", "hash"), ("COUNT", 1, "x")):
        assert bench("HSCAN", "h", 0, *options) == SYNTAX
    assert bench("HSCAN", "h", 0, "COUNT", "x") == NOT_INTEGER
    assert bench("HSCAN", "string", 0, "x") == WRONG_TYPE
    for n in range(1000):
        bench("HSET", "large", n, -n)
    cursor, seen = b"0", {}
    while True:
        cursor, flat = bench("HSCAN", "large", cursor)
        seen.update(zip(flat[::2], flat[1::2], strict=True))
        if cursor == b"0":
            break
    assert seen == {b"%d" % n: b"%d" % -n for n in range(1000)}


@pytest.mark.parametrize("protocol", [2, 3])
def test_hrandfield(bench: Bench, protocol: int) -> None:
    bench.client.protocol = protocol
    pairs = {b"a": b"1", b"b": b"2", b"c": b"three"}
    assert bench("HRANDFIELD", "h") in pairs
    assert [bench("HRANDFIELD", "none"), bench("HRANDFIELD", "none", 2), bench("HRANDFIELD", "h", 0)] == [None, [], []]
    assert sorted(bench("HRANDFIELD", "h", 5)) == sorted(pairs)
    assert len(set(bench("HRANDFIELD", "h", 2))) == 2
    assert len(bench("HRANDFIELD", "h", -20)) == 20
    drawn = bench("HRANDFIELD", "h", -20, "WITHVALUES")
    if protocol == 2:
        drawn = list(zip(drawn[::2], drawn[1::2], strict=True))
    assert len(drawn) == 20
    assert dict(drawn).items() <= pairs.items()
    assert bench("HRANDFIELD", "h", "x") == NOT_INTEGER
    assert bench("HRANDFIELD", "h", -(1 << 63)) == RANGE
    assert bench("HRANDFIELD", "h", 1, "x") == bench("HRANDFIELD", "h", 1, "WITHVALUES", "x") == SYNTAX
    assert bench("HRANDFIELD", "h", -(1 << 62) - 1, "WITHVALUES") == "ERR value is out of range"
    assert bench("HRANDFIELD", "h", -(1 << 62)) == "ERR value is out of range"
