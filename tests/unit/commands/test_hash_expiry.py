"""Commands on the time to live of hash fields: replies, errors, events, and what the other hash commands make of it.

The facts are those of Redis 7.4 (HEXPIRE and its kin) and 8.0 (HGETEX, HSETEX, HGETDEL).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import zeekdb.commands.generic
import zeekdb.commands.hash_expiry
import zeekdb.commands.hashes
import zeekdb.commands.strings  # noqa: F401
from tests.journal import listening
from tests.unit.commands.harness import NOW_MS, Bench
from zeekdb.hot import hashes

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_INTEGER = "ERR value is not an integer or out of range"
NEGATIVE = "ERR invalid expire time, must be >= 0"
NO_FIELDS = "ERR Mandatory argument FIELDS is missing or not at the right position"
MISMATCH = "ERR The `numfields` parameter must match the number of arguments"
FEW_FIELDS = "ERR Number of fields must be a positive integer"
ONE_EXPIRY = "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified"
ONE_CONDITION = "ERR Only one of FXX or FNX arguments can be specified"
HSETEX_ARITY = "ERR wrong number of arguments for 'hsetex' command"
NOW_S = NOW_MS // 1000
LIMIT_MS = 1 << 46
SETTERS = ("HEXPIRE", "HPEXPIRE", "HEXPIREAT", "HPEXPIREAT")
GETTERS = ("HTTL", "HPTTL", "HEXPIRETIME", "HPEXPIRETIME")


@pytest.fixture(params=[128, 0], ids=["packed", "large"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    hashes.set_limits(entries=request.param)
    made = Bench()
    made("SET", "string", "v")
    made("HSET", "h", "a", "1", "b", "2", "c", "three")
    made.events.clear()
    yield made
    hashes.set_limits(entries=128)


def events(bench: Bench) -> list[str]:
    """What was reported of `h` since the last look."""
    seen = [event for event, key in bench.events if key == b"h"]
    bench.events.clear()
    return seen


def dirty(bench: Bench, *words: str | int) -> int:
    """What a command adds to the changes since the last save."""
    before = bench.keyspace.dirty
    bench(str(words[0]), *words[1:])
    return bench.keyspace.dirty - before


# --- HEXPIRE, HPEXPIRE, HEXPIREAT, HPEXPIREAT -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [("HEXPIRE", 10), ("HPEXPIRE", 10_000), ("HEXPIREAT", NOW_S + 10), ("HPEXPIREAT", NOW_MS + 10_000)],
)
def test_four_ways_to_name_a_moment(bench: Bench, name: str, number: int) -> None:
    assert bench(name, "h", number, "fields", 3, "a", "x", "c") == [1, -2, 1]
    assert events(bench) == ["hexpire"]
    assert bench("HPEXPIRETIME", "h", "FIELDS", 4, "a", "b", "c", "x") == [NOW_MS + 10_000, -1, NOW_MS + 10_000, -2]
    assert bench("HEXPIRETIME", "h", "FIELDS", 2, "a", "b") == [NOW_S + 10, -1]
    assert bench("HTTL", "h", "FIELDS", 2, "a", "x") == [10, -2]
    assert bench("HPTTL", "h", "FIELDS", 1, "a") == [10_000]
    assert dirty(bench, name, "h", number, "FIELDS", 2, "a", "b") == 2


def test_seconds_left_are_rounded_up(bench: Bench) -> None:
    bench("HPEXPIRE", "h", 1001, "FIELDS", 1, "a")
    assert bench("HTTL", "h", "FIELDS", 1, "a") == [2]
    assert bench("HEXPIRETIME", "h", "FIELDS", 1, "a") == [NOW_S + 2]
    bench.advance(1000)
    assert bench("HTTL", "h", "FIELDS", 1, "a") == [1]
    bench.advance(1)
    assert bench("HTTL", "h", "FIELDS", 1, "a") == [-2]


@pytest.mark.parametrize("name", SETTERS)
def test_setters_without_key(bench: Bench, name: str) -> None:
    assert bench(name, "none", 1000, "FIELDS", 2, "a", "b") == [-2, -2]
    assert bench("EXISTS", "none") == 0
    assert bench(name, "string", 1000, "FIELDS", 1, "a") == WRONG_TYPE
    assert bench(name, "string", "x", "FIELDS", 1, "a") == WRONG_TYPE
    assert bench.events == []


@pytest.mark.parametrize("name", SETTERS)
def test_setters_that_are_wrong(bench: Bench, name: str) -> None:
    lower = name.lower()
    too_few = f"ERR wrong number of arguments for '{lower}' command"
    assert bench(name, "h", 10, "FIELDS", 1) == too_few
    assert bench(name, "h", -1, "FIELDS", 1, "a") == NEGATIVE
    assert bench(name, "none", -(1 << 63), "FIELDS", 1, "a") == NEGATIVE
    assert bench(name, "h", "1.5", "FIELDS", 1, "a") == NOT_INTEGER
    assert bench(name, "h", 1 << 63, "FIELDS", 1, "a") == NOT_INTEGER
    assert bench(name, "h", (1 << 63) - 1, "FIELDS", 1, "a") == f"ERR invalid expire time in '{lower}' command"
    assert bench(name, "h", 10, "FELDS", 1, "a") == NO_FIELDS
    assert bench(name, "h", 10, "NX", "XX", "FIELDS", 1, "a") == NO_FIELDS
    assert bench(name, "h", 10, "NX", "FIELDS", 1) == MISMATCH
    for count in (0, -1, "x", 1 << 63):
        assert bench(name, "h", 10, "FIELDS", count, "a") == "ERR Parameter `numFields` should be greater than 0"
    assert bench(name, "h", 10, "FIELDS", 2, "a") == MISMATCH
    assert bench(name, "h", 10, "FIELDS", 1, "a", "b") == MISMATCH
    assert bench.events == []


def test_moments_end_at_2_to_the_46(bench: Bench) -> None:
    assert bench("HPEXPIRE", "h", LIMIT_MS - NOW_MS - 1, "FIELDS", 1, "a") == [1]
    assert bench("HPEXPIRETIME", "h", "FIELDS", 1, "a") == [LIMIT_MS - 1]
    assert bench("HPEXPIRE", "h", LIMIT_MS - NOW_MS, "FIELDS", 1, "a").startswith("ERR invalid expire time in")
    assert bench("HPEXPIREAT", "h", LIMIT_MS - 1, "FIELDS", 1, "a") == [1]
    assert bench("HEXPIREAT", "h", LIMIT_MS // 1000, "FIELDS", 1, "a") == [1]
    assert bench("HEXPIREAT", "h", LIMIT_MS // 1000 + 1, "FIELDS", 1, "a").startswith("ERR invalid expire time in")


def test_conditions(bench: Bench) -> None:
    assert bench("HPEXPIRE", "h", 1000, "NX", "FIELDS", 1, "a") == [1]
    assert bench("HPEXPIRE", "h", 2000, "nx", "FIELDS", 2, "a", "b") == [0, 1]
    assert bench("HPEXPIRE", "h", 1500, "XX", "FIELDS", 2, "a", "c") == [1, 0]
    assert bench("HPEXPIRE", "h", 1500, "GT", "FIELDS", 4, "a", "b", "c", "x") == [0, 0, 0, -2]
    assert bench("HPEXPIRE", "h", 1800, "GT", "FIELDS", 2, "a", "b") == [1, 0]
    assert bench("HPEXPIRE", "h", 1800, "LT", "FIELDS", 3, "a", "b", "c") == [0, 1, 1]
    assert bench("HPTTL", "h", "FIELDS", 3, "a", "b", "c") == [1800, 1800, 1800]
    bench.events.clear()
    assert dirty(bench, "HPEXPIRE", "h", 5, "NX", "FIELDS", 3, "a", "b", "c") == 0
    assert events(bench) == []


def test_a_moment_that_has_come_deletes(bench: Bench) -> None:
    bench("HEXPIRE", "h", 1000, "FIELDS", 1, "c")
    bench.events.clear()
    gone = bench.keyspace.expired_fields
    assert bench("HPEXPIREAT", "h", NOW_MS, "NX", "FIELDS", 5, "a", "b", "a", "x", "c") == [2, 2, -2, -2, 0]
    assert events(bench) == ["hdel"]
    assert bench("HGETALL", "h") == {b"c": b"three"}
    assert bench.keyspace.expired_fields - gone == 2
    assert dirty(bench, "HEXPIRE", "h", 0, "FIELDS", 1, "c") == 1
    assert events(bench) == ["hdel", "del"]
    assert bench("EXISTS", "h") == 0


# --- HTTL, HPTTL, HEXPIRETIME, HPEXPIRETIME, HPERSIST ---------------------------------------------------------------


@pytest.mark.parametrize("name", [*GETTERS, "HPERSIST", "HGETDEL", "HGETEX"])
def test_the_common_form(bench: Bench, name: str) -> None:
    absent = None if name.startswith("HGET") else -2
    lower = name.lower()
    assert bench(name, "none", "FIELDS", 2, "a", "b") == [absent, absent]
    assert bench(name, "h", "FIELDS", 1, "x") == [absent]
    assert bench(name, "string", "FIELDS", 1, "a") == WRONG_TYPE
    assert bench(name, "string", "FELDS", 1, "a") == WRONG_TYPE
    assert bench(name, "h", "FIELDS", 1) == f"ERR wrong number of arguments for '{lower}' command"
    assert bench(name, "h", "FELDS", 1, "a") == NO_FIELDS
    for count in (0, -1, "x", 1 << 63):
        assert bench(name, "h", "FIELDS", count, "a") == FEW_FIELDS
    assert bench(name, "h", "FIELDS", 2, "a") == MISMATCH
    assert bench(name, "none", "FIELDS", 1, "a", "b") == MISMATCH
    assert bench.events == []


def test_hpersist(bench: Bench) -> None:
    bench("HEXPIRE", "h", 10, "FIELDS", 2, "a", "b")
    bench.events.clear()
    assert bench("HPERSIST", "h", "FIELDS", 4, "a", "c", "x", "a") == [1, -1, -2, -1]
    assert events(bench) == ["hpersist"]
    assert dirty(bench, "HPERSIST", "h", "FIELDS", 2, "a", "c") == 0
    assert events(bench) == []
    assert dirty(bench, "HPERSIST", "h", "FIELDS", 1, "b") == 1
    bench.advance(10_000)
    assert bench("HMGET", "h", "a", "b", "c") == [b"1", b"2", b"three"]


# --- HGETDEL, HGETEX ------------------------------------------------------------------------------------------------


def test_hgetdel(bench: Bench) -> None:
    assert dirty(bench, "HGETDEL", "h", "FIELDS", 2, "a", "x") == 1
    assert events(bench) == ["hdel"]
    assert bench("HGETDEL", "h", "FIELDS", 1, "a") == [None]
    assert bench("HGETDEL", "h", "FIELDS", 3, "b", "b", "c") == [b"2", None, b"three"]
    assert events(bench) == ["hdel", "del"]
    assert bench("EXISTS", "h") == 0


def test_hgetdel_of_what_has_expired(bench: Bench) -> None:
    bench("HPEXPIRE", "h", 5, "FIELDS", 2, "a", "b")
    bench.advance(5)
    bench.events.clear()
    assert bench("HGETDEL", "h", "FIELDS", 3, "a", "c", "b") == [None, b"three", None]
    assert events(bench) == ["hexpired", "hdel", "del"]


def test_hgetex(bench: Bench) -> None:
    assert bench("HGETEX", "h", "FIELDS", 2, "a", "x") == [b"1", None]
    assert events(bench) == []
    for option, number in (("EX", 10), ("px", 10_000), ("EXAT", NOW_S + 10), ("PXAT", NOW_MS + 10_000)):
        assert dirty(bench, "HGETEX", "h", option, number, "FIELDS", 3, "a", "x", "b") == 2
        assert events(bench) == ["hexpire"]
        assert bench("HPTTL", "h", "FIELDS", 3, "a", "b", "c") == [10_000, 10_000, -1]
        assert bench("HGETEX", "h", "PERSIST", "FIELDS", 3, "a", "b", "c") == [b"1", b"2", b"three"]
        assert events(bench) == ["hpersist"]
        assert bench("HTTL", "h", "FIELDS", 2, "a", "b") == [-1, -1]
    assert dirty(bench, "HGETEX", "h", "PERSIST", "FIELDS", 1, "a") == 0
    assert events(bench) == []
    assert bench("HGETEX", "h", "PXAT", 1, "FIELDS", 4, "a", "b", "a", "c") == [b"1", b"2", None, b"three"]
    assert events(bench) == ["hdel", "del"]


def test_hgetex_that_is_wrong(bench: Bench) -> None:
    assert bench("HGETEX", "h", "EX", "x", "FIELDS", 1, "a") == NOT_INTEGER
    assert bench("HGETEX", "h", "PXAT", -1, "FIELDS", 1, "a") == NEGATIVE
    assert bench("HGETEX", "h", "EX", 1 << 48, "FIELDS", 1, "a") == "ERR invalid expire time in 'hgetex' command"
    assert bench("HGETEX", "h", "PXAT", 1, "1") == NO_FIELDS
    assert bench("HGETEX", "h", "PXAT", 1, "FIELDS") == FEW_FIELDS
    assert bench("HGETEX", "h", "PERSIST", 1, "FIELDS", 1, "a") == NO_FIELDS
    assert bench("HGETEX", "h", "EX", 1, "PX", 1, "FIELDS", 1, "a") == NO_FIELDS
    assert bench.events == []


# --- HSETEX ---------------------------------------------------------------------------------------------------------


def test_hsetex(bench: Bench) -> None:
    assert dirty(bench, "HSETEX", "h", "FIELDS", 2, "a", "one", "d", "4") == 2
    assert events(bench) == ["hset"]
    assert bench("HMGET", "h", "a", "d") == [b"one", b"4"]
    for option, number in (("EX", 10), ("px", 10_000), ("EXAT", NOW_S + 10), ("PXAT", NOW_MS + 10_000)):
        assert bench("HSETEX", "new", option, number, "FIELDS", 2, "a", "1", "b", "2") == 1
        assert bench("HPTTL", "new", "FIELDS", 2, "a", "b") == [10_000, 10_000]
        assert bench("HSETEX", "new", "FIELDS", 1, "a", "3") == 1
        assert bench("HPTTL", "new", "FIELDS", 2, "a", "b") == [-1, 10_000]
        bench("DEL", "new")
    bench.events.clear()
    assert dirty(bench, "HSETEX", "h", "EX", 5, "FIELDS", 2, "a", "2", "e", "5") == 2
    assert events(bench) == ["hset", "hexpire"]
    assert bench("HSETEX", "h", "KEEPTTL", "FIELDS", 2, "a", "3", "c", "4") == 1
    assert bench("HTTL", "h", "FIELDS", 3, "a", "c", "e") == [5, -1, 5]
    assert bench("HGET", "h", "a") == b"3"
    assert bench("HSETEX", "string", "FIELDS", 1, "a", "b") == WRONG_TYPE


def test_hsetex_conditions(bench: Bench) -> None:
    assert bench("HSETEX", "none", "FXX", "FIELDS", 1, "a", "b") == 0
    assert bench("EXISTS", "none") == 0
    assert bench("HSETEX", "h", "FXX", "FIELDS", 2, "a", "x", "new", "x") == 0
    assert bench("HSETEX", "h", "fnx", "FIELDS", 2, "new", "x", "a", "x") == 0
    assert events(bench) == []
    assert bench("HGET", "h", "a") == b"1"
    assert bench("HSETEX", "h", "FXX", "EX", 10, "FIELDS", 2, "a", "x", "b", "x") == 1
    assert bench("HSETEX", "h", "PX", 5, "FNX", "FIELDS", 1, "new", "x") == 1
    assert bench("HPTTL", "h", "FIELDS", 3, "a", "b", "new") == [10_000, 10_000, 5]
    bench.advance(5)
    assert bench("HSETEX", "h", "FXX", "FIELDS", 1, "new", "y") == 0
    assert bench("HSETEX", "h", "FNX", "FIELDS", 1, "new", "y") == 1
    assert bench("HSETEX", "string", "FNX", "FIELDS", 1, "new", "y") == WRONG_TYPE


def test_hsetex_in_the_past(bench: Bench) -> None:
    assert dirty(bench, "HSETEX", "h", "PXAT", NOW_MS, "FIELDS", 2, "a", "x", "new", "x") == 2
    assert events(bench) == ["hset", "hdel"]
    assert bench("HGETALL", "h") == {b"b": b"2", b"c": b"three"}
    bench("DEL", "h")
    bench.events.clear()
    assert bench("HSETEX", "h", "EXAT", 0, "FIELDS", 1, "a", "x") == 1
    assert events(bench) == ["hset", "hdel", "del"]
    assert bench("EXISTS", "h") == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("FIELDS 2 a b", HSETEX_ARITY),
        ("FIELDS 2 a b c", HSETEX_ARITY),
        ("FIELDS 1 a b unknown", HSETEX_ARITY),
        ("FIELDS 3 a b c d e f g", HSETEX_ARITY),
        ("EX 100 FXX FNX", ONE_CONDITION),
        ("EX 100 PX 100", ONE_EXPIRY),
        ("EX 100 FIELDS 1 a", HSETEX_ARITY),
        ("EX 100 FXX KEEPTTL", ONE_EXPIRY),
        ("KEEPTTL KEEPTTL FIELDS 1 a b", ONE_EXPIRY),
        ("KEEPTTL PXAT 100 FIELDS 1 a b", ONE_EXPIRY),
        ("FXX FXX FIELDS 1 a b", ONE_CONDITION),
        ("EX FIELDS 1 a b", NOT_INTEGER),
        ("FXX KEEPTTL NX EX", "ERR unknown argument: NX"),
        ("FXX KEEPTTL FIELDS 1", HSETEX_ARITY),
        ("nx FIELDS 1 a b", "ERR unknown argument: nx"),
        ("FXX EX 100 EX", ONE_EXPIRY),
        ("FXX KEEPTTL FNX FIELDS", ONE_CONDITION),
        ("FXX 1 2 EX", "ERR unknown argument: 1"),
        ("EXAT -1 1 a b", NEGATIVE),
        ("EXAT 281474976710656 1 a b", "ERR invalid expire time in 'hsetex' command"),
        ("FIELDS x a b", "ERR invalid number of fields"),
        ("FIELDS 0 a b", "ERR invalid number of fields"),
        ("FIELDS -1 a b", "ERR invalid number of fields"),
        ("FIELDS 2147483648 a b", "ERR invalid number of fields"),
        ("FNX KEEPTTL", HSETEX_ARITY),
        ("FNX FXX FNX PX", ONE_CONDITION),
        ("FXX KEEPTTL FIELDS 1 a", HSETEX_ARITY),
    ],
)
def test_hsetex_that_is_wrong(bench: Bench, words: str, error: str) -> None:
    assert bench("HSETEX", "string", *words.split()) == error
    assert bench.events == []


def test_hsetex_that_ends_before_its_time(bench: Bench) -> None:
    assert bench("HSETEX", "h", "FXX", "PX", "100", "FIELDS", 1, "a") == HSETEX_ARITY
    assert bench("HSETEX", "h", "FNX", "KEEPTTL", "fnx", "PX") == ONE_CONDITION
    assert bench("HSETEX", "h", "FXX", "PX") == HSETEX_ARITY
    assert bench("HSETEX", "h", "FXX", "FIELDS", 1, "x") == HSETEX_ARITY


# --- the other commands ---------------------------------------------------------------------------------------------


@pytest.fixture
def half(bench: Bench) -> Bench:
    """`h` has lost a and c at this moment; only b is left."""
    bench("HPEXPIRE", "h", 10, "FIELDS", 2, "a", "c")
    bench.advance(10)
    bench.events.clear()
    return bench


def test_reads_do_not_see_what_has_expired(half: Bench) -> None:
    gone = half.keyspace.expired_fields
    assert half("HGET", "h", "a") is None
    assert events(half) == ["hexpired"]
    assert half.keyspace.expired_fields - gone == 2
    assert half("HMGET", "h", "a", "b", "c") == [None, b"2", None]
    assert half("HGETALL", "h") == {b"b": b"2"}
    assert (half("HKEYS", "h"), half("HVALS", "h"), half("HLEN", "h")) == ([b"b"], [b"2"], 1)
    assert (half("HEXISTS", "h", "a"), half("HSTRLEN", "h", "c"), half("HSTRLEN", "h", "b")) == (0, 0, 1)
    assert half("HSCAN", "h", 0) == [b"0", [b"b", b"2"]]
    assert half("HRANDFIELD", "h", 5) == [b"b"]
    assert half("HRANDFIELD", "h") == b"b"
    assert half("HTTL", "h", "FIELDS", 2, "a", "b") == [-2, -1]
    assert half("HPERSIST", "h", "FIELDS", 1, "a") == [-2]
    assert half("HEXPIRE", "h", 10, "FIELDS", 1, "a") == [-2]
    assert events(half) == []


def test_writes_do_not_see_what_has_expired(half: Bench) -> None:
    assert half("HDEL", "h", "a") == 0
    assert half("HSETNX", "h", "a", "new") == 1
    assert half("HSET", "h", "c", "new") == 1
    assert half("HTTL", "h", "FIELDS", 2, "a", "c") == [-1, -1]
    half("HPEXPIRE", "h", 10, "FIELDS", 2, "a", "b")
    half.advance(10)
    assert half("HINCRBY", "h", "a", 5) == 5
    assert half("HINCRBYFLOAT", "h", "b", 5) == b"5"
    assert half("HTTL", "h", "FIELDS", 2, "a", "b") == [-1, -1]


@pytest.mark.parametrize(
    "words", ["HGET h b", "HLEN h", "HRANDFIELD h", "EXISTS h", "TYPE h", "HDEL h b", "HTTL h FIELDS 1 b", "TTL h"]
)
def test_the_key_goes_with_its_last_field(half: Bench, words: str) -> None:
    half("HPEXPIRE", "h", 10, "FIELDS", 1, "b")
    half.advance(10)
    half.events.clear()
    name, *rest = words.split()
    half(name, *rest)
    assert events(half) == ["hexpired", "del"]
    assert half("EXISTS", "h") == 0
    assert half("HSET", "h", "b", "again") == 1


def test_increments_keep_the_deadline_and_new_values_do_not(bench: Bench) -> None:
    bench("HEXPIRE", "h", 10, "FIELDS", 3, "a", "b", "c")
    assert bench("HINCRBY", "h", "a", 4) == 5
    assert bench("HINCRBYFLOAT", "h", "b", "0.5") == b"2.5"
    bench("HSET", "h", "c", "3")
    assert bench("HTTL", "h", "FIELDS", 3, "a", "b", "c") == [10, 10, -1]
    assert bench("HSET", "h", "a", "1", "d", "2") == 1
    assert bench("HMSET", "h", "b", "1") == "OK"
    assert bench("HTTL", "h", "FIELDS", 3, "a", "b", "d") == [-1, -1, -1]
    bench.advance(10_000)
    assert bench("HLEN", "h") == 4


def test_deadlines_go_where_the_hash_goes(bench: Bench) -> None:
    bench("HEXPIRE", "h", 10, "FIELDS", 1, "a")
    bench("RENAME", "h", "i")
    bench("COPY", "i", "j")
    bench("MOVE", "i", 1)
    assert bench("HTTL", "j", "FIELDS", 2, "a", "b") == [10, -1]
    assert bench("RENAMENX", "j", "h") == 1
    assert bench("HTTL", "h", "FIELDS", 2, "a", "b") == [10, -1]
    bench.keyspace.swap(0, 1)
    assert bench("HTTL", "i", "FIELDS", 2, "a", "b") == [10, -1]
    bench("PEXPIRE", "i", 20_000)
    bench.advance(10_000)
    assert bench("HGETALL", "i") == {b"b": b"2", b"c": b"three"}
    assert (bench("TTL", "i"), bench("HTTL", "i", "FIELDS", 1, "b")) == (10, [-1])
    bench.keyspace.swap(0, 1)
    assert bench("HGETALL", "h") == {b"b": b"2", b"c": b"three"}


def test_encodings() -> None:
    bench = Bench()
    bench("HSET", "h", "a", "1")
    assert bench("OBJECT", "ENCODING", "h") == b"listpack"
    bench("HEXPIRE", "h", 10, "XX", "FIELDS", 1, "a")
    assert bench("OBJECT", "ENCODING", "h") == b"listpack"
    bench("HEXPIRE", "h", 10, "FIELDS", 1, "a")
    assert bench("OBJECT", "ENCODING", "h") == b"listpackex"
    bench("HPERSIST", "h", "FIELDS", 1, "a")
    assert bench("OBJECT", "ENCODING", "h") == b"listpackex"
    bench("HSET", "h", *(f"field{n // 2}" for n in range(400)))
    assert bench("OBJECT", "ENCODING", "h") == b"hashtable"


@pytest.mark.parametrize(
    ("words", "effects"),
    [
        ("HEXPIRE h 10 FIELDS 2 a x", [f"HPEXPIREAT h {NOW_MS + 10_000} FIELDS 1 a"]),
        ("HEXPIRE h 0 FIELDS 2 a b", ["HDEL h a b"]),
        ("HGETDEL h FIELDS 2 a x", ["HDEL h a"]),
        ("HGETEX h PX 7 FIELDS 2 a x", [f"HPEXPIREAT h {NOW_MS + 7} FIELDS 1 a"]),
        ("HGETEX h PERSIST FIELDS 2 d a", ["HPERSIST h FIELDS 1 d"]),
        ("HSETEX h EX 1 FIELDS 1 a v", [f"HSETEX h PXAT {NOW_MS + 1000} FIELDS 1 a v"]),
        ("HSETEX h EXAT 1 FIELDS 1 a v", ["HDEL h a"]),
        ("HINCRBYFLOAT h a 1", ["HSET h a 2"]),
        ("HINCRBYFLOAT h d 1", ["HSETEX h KEEPTTL FIELDS 1 d 5"]),
        ("HGETEX h FIELDS 1 a", []),
    ],
)
def test_what_replicas_are_told(bench: Bench, words: str, effects: list[str]) -> None:
    bench("HSETEX", "h", "EX", 100, "FIELDS", 1, "d", "4")
    name, *rest = words.split()
    with listening() as told:
        bench(name, *rest)
        assert told() == effects
