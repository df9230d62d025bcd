"""HyperLogLog: replies, errors, events, and strings as redis-server makes them."""

from __future__ import annotations

import hashlib

import pytest

import zeekdb.commands.hashes
import zeekdb.commands.hyperloglog
import zeekdb.commands.strings  # noqa: F401
from tests.fuzz import sketches
from tests.unit.commands.harness import Bench

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_ONE = "WRONGTYPE Key is not a valid HyperLogLog string value."
CORRUPT = "INVALIDOBJ Corrupted HLL object detected"
EMPTY = b"HYLL\x01\0\0\0" + b"\0" * 7 + b"\x80\x7f\xff"


@pytest.fixture
def bench() -> Bench:
    made = Bench(hll_sparse_max_bytes=3000)
    made("SET", "string", "v")
    made("HSET", "hash", "f", "v")
    made.events.clear()
    return made


def test_pfadd(bench: Bench) -> None:
    assert bench("PFADD", "h") == 1
    assert bench("GET", "h") == EMPTY
    assert bench("PFADD", "h") == 0
    assert bench("PFADD", "h", "a", "b", "c") == 1
    assert bench.events == [("pfadd", b"h"), ("pfadd", b"h")]
    assert bench.events_of("PFADD", "h", "a", "c") == []
    assert bench("GET", "h") == EMPTY[:16] + b"`\xf3\x80P\xb1\x84K\xfb\x80BZ"
    assert bench("PFADD", "string", "a") == NOT_ONE
    assert bench("PFADD", "hash", "a") == WRONG_TYPE


def test_pfcount(bench: Bench) -> None:
    assert bench("PFCOUNT", "none") == 0
    bench("PFADD", "h", *range(1000))
    bench("PFADD", "other", *range(500, 1500))
    bench.events.clear()
    before = bench("GET", "h")
    assert before[15] == 0x80
    counted = bench("PFCOUNT", "h")
    assert abs(counted - 1000) < 30
    assert bench("GET", "h") == before[:8] + counted.to_bytes(8, "little") + before[16:]
    assert len(bench.events) == 1
    assert bench.events_of("PFCOUNT", "h") == []
    assert abs(bench("PFCOUNT", "h", "none", "other") - 1500) < 40
    assert bench("PFCOUNT", "h", "string") == bench("PFCOUNT", "string") == NOT_ONE
    assert bench("PFCOUNT", "h", "hash") == WRONG_TYPE


def test_pfmerge(bench: Bench) -> None:
    bench("PFADD", "a", "1", "2")
    bench("PFADD", "b", "2", "3")
    bench("PFADD", "union", "1", "2", "3")
    assert bench.events_of("PFMERGE", "out", "a", "b", "none") == ["pfadd"]
    assert bench("GET", "out") == bench("GET", "union")
    assert bench("PFMERGE", "fresh") == "OK"
    assert bench("GET", "fresh") == EMPTY
    bench("PFDEBUG", "TODENSE", "a")
    bench("PFMERGE", "out", "a")
    assert bench("PFDEBUG", "ENCODING", "out") == "dense"
    assert bench("PFMERGE", "out", "string") == bench("PFMERGE", "string", "a") == NOT_ONE


def test_deadlines_stay(bench: Bench) -> None:
    db = bench.keyspace.databases[0]
    for key in ("h", "m"):
        bench("PFADD", key, "a")
        db.set_deadline(key.encode(), bench.keyspace.now_ms() + 1000)
    bench("PFADD", "h", "b")
    bench("PFMERGE", "m", "h")
    bench("PFCOUNT", "h")
    bench("PFDEBUG", "TODENSE", "m")
    assert db.deadline(b"h") == db.deadline(b"m") == bench.keyspace.now_ms() + 1000


def test_pfdebug(bench: Bench) -> None:
    assert bench("PFDEBUG", "ENCODING", "none") == "ERR The specified key does not exist"
    bench("PFADD", "h")
    assert bench("PFDEBUG", "DECODE", "h") == b"Z:16384"
    bench("PFADD", "h", "a")
    assert bench("PFDEBUG", "decode", "h") == b"Z:12711 v:2,1 Z:3672"
    assert bench("PFDEBUG", "ENCODING", "h") == "sparse"
    assert bench("PFDEBUG", "TODENSE", "h") == 1
    assert bench("PFDEBUG", "TODENSE", "h") == 0
    assert len(bench("GET", "h")) == 12304
    assert bench("PFDEBUG", "DECODE", "h") == "ERR HLL encoding is not sparse"
    registers = bench("PFDEBUG", "GETREG", "h")
    assert (len(registers), sum(registers), registers[12711]) == (16384, 2, 2)
    assert bench("PFDEBUG", "FOO", "h") == "ERR Unknown PFDEBUG subcommand 'FOO'"
    assert bench("PFDEBUG", "ENCODING", "string") == NOT_ONE
    assert bench("PFSELFTEST") == "OK"


@pytest.mark.parametrize("limit", [0, 100, 3000])
def test_a_sketch_turns_dense_at_its_limit(limit: int) -> None:
    bench = Bench(hll_sparse_max_bytes=limit)
    longest = 0
    for number in range(3000):
        bench("PFADD", "h", number)
        if bench("PFDEBUG", "ENCODING", "h") == "dense":
            break
        longest = len(bench("GET", "h"))
    assert longest <= limit
    assert longest > limit - 5 or not limit
    assert len(bench("GET", "h")) == 12304


@pytest.mark.parametrize("value", [b"", b"HYLL", b"HYLL\x02" + b"\0" * 20, b"HYLL\0" + b"\0" * 30, b"X" * 12304])
def test_what_is_no_sketch(bench: Bench, value: bytes) -> None:
    bench("SET", "h", value)
    for command in (("PFADD", "h", "a"), ("PFCOUNT", "h"), ("PFMERGE", "x", "h"), ("PFDEBUG", "GETREG", "h")):
        assert bench(*command) == NOT_ONE


@pytest.mark.parametrize("runs", [b"", b"\x00", b"\x7f\xff\x00", b"\x7f", b"\x7f\xff\x7f\xff", b"\x80" * 3 + b"\x40"])
def test_corrupt_sketches(bench: Bench, runs: bytes) -> None:
    bench("SET", "h", EMPTY[:16] + runs)
    for command in (("PFCOUNT", "h"), ("PFCOUNT", "h", "h"), ("PFMERGE", "x", "h"), ("PFDEBUG", "GETREG", "h")):
        assert bench(*command) == CORRUPT
    bench("PFADD", "h", *range(100))  # an error or not, but no crash
    assert bench("PFDEBUG", "TODENSE", "h") == CORRUPT or bench("PFDEBUG", "ENCODING", "h") == "dense"


def test_registers_that_no_hash_fills(bench: Bench) -> None:
    bench("SET", "h", b"HYLL\0\0\0\0" + b"\0" * 7 + b"\x80" + b"\xff" * 12288)
    assert bench("PFCOUNT", "h") == -(1 << 63)


def test_strings_are_those_of_redis(bench: Bench) -> None:
    """Made by redis-server 7.0.15 from the same elements."""
    digests = {10: "0ebf84842d7d96cc", 500: "7317e35b59590b5b", 5000: "5631d9dadff95537"}
    for count, counted in ((10, 10), (500, 503), (5000, 4985)):
        bench("PFADD", count, *range(count))
        assert bench("PFCOUNT", count) == counted
        assert hashlib.sha256(bench("GET", count)).hexdigest()[:16] == digests[count]


def test_damaged_strings() -> None:
    assert sketches.play(seed=1, rounds=60) == 60
