"""DUMP and RESTORE without a server: options, errors, events, what stays and what goes."""

from __future__ import annotations

import pytest

import zeekdb.commands.generic
import zeekdb.commands.hashes
import zeekdb.commands.lists
import zeekdb.commands.serialisation
import zeekdb.commands.strings  # noqa: F401
from tests.unit.commands.harness import NOW_MS, Bench
from zeekdb.persistence import payload


@pytest.fixture
def bench() -> Bench:
    return Bench(rdbcompression=True)


def dumped(bench: Bench, text: bytes = b"value") -> bytes:
    bench("SET", "source", text)
    data = bench("DUMP", "source")
    assert isinstance(data, bytes)
    return data


def test_dump_of_nothing(bench: Bench) -> None:
    misses = bench.keyspace.misses
    assert bench("DUMP", "none") is None
    assert bench.keyspace.misses == misses + 1


def test_there_and_back(bench: Bench) -> None:
    assert bench("RESTORE", "k", 0, dumped(bench)) == "OK"
    assert bench("GET", "k") == b"value"
    assert bench("PTTL", "k") == -1
    bench("RPUSH", "l", *range(1000))
    bench("RESTORE", "m", 0, bench("DUMP", "l"))
    assert bench("LRANGE", "m", 0, -1) == [b"%d" % n for n in range(1000)]


def test_compression_is_a_directive(bench: Bench) -> None:
    short = dumped(bench, b"x" * 1000)
    bench.config.rdbcompression = False
    long = dumped(bench, b"x" * 1000)
    assert len(short) < 100 < 1000 < len(long)
    for data in (short, long):
        assert bench("RESTORE", "k", 0, data, "REPLACE") == "OK"
        assert bench("GET", "k") == b"x" * 1000


def test_deadlines(bench: Bench) -> None:
    data = dumped(bench)
    bench("RESTORE", "k", 5000, data)
    assert bench("PEXPIRETIME", "k") == NOW_MS + 5000
    bench("RESTORE", "k", NOW_MS + 77, data, "ABSTTL", "REPLACE")
    assert bench("PEXPIRETIME", "k") == NOW_MS + 77
    bench("RESTORE", "k", 0, data, "REPLACE", "ABSTTL")
    assert bench("PTTL", "k") == -1
    assert bench("RESTORE", "other", (1 << 63) - 1, data) == "ERR Invalid TTL value, must be >= 0"


def test_a_deadline_in_the_past_deletes(bench: Bench) -> None:
    data = dumped(bench)
    assert bench.events_of("RESTORE", "none", NOW_MS - 1, data, "ABSTTL") == []
    assert bench("EXISTS", "none") == 0
    bench("SET", "k", "old")
    assert bench.events_of("RESTORE", "k", NOW_MS - 1, data, "ABSTTL", "REPLACE") == ["del"]
    assert bench("EXISTS", "k") == 0


def test_an_existing_key_stays(bench: Bench) -> None:
    data = dumped(bench)
    bench("RPUSH", "k", "a")
    assert bench("RESTORE", "k", 0, data) == "BUSYKEY Target key name already exists."
    assert bench("RESTORE", "k", "x", b"damaged") == "BUSYKEY Target key name already exists."
    assert bench("TYPE", "k") == "list"
    assert bench.events_of("RESTORE", "k", 0, data, "replace") == ["restore"]
    assert bench("TYPE", "k") == "string"


def test_damage_changes_nothing(bench: Bench) -> None:
    data = dumped(bench)
    bench("SET", "k", "old", "PX", 1000)
    for bad, error in (
        (data[:-1], "ERR DUMP payload version or checksum are wrong"),
        (b"", "ERR DUMP payload version or checksum are wrong"),
        (b"\x00\x05abc" + payload.footer(b"\x00\x05abc"), "ERR Bad data format"),
    ):
        assert bench("RESTORE", "k", 0, bad, "REPLACE") == error
        assert bench.events_of("RESTORE", "k", 0, bad, "REPLACE") == []
        assert bench("GET", "k") == b"old"
        assert bench("PTTL", "k") == 1000


def test_a_string_over_the_limit_is_refused(bench: Bench) -> None:
    data = dumped(bench, b"x" * 5000)
    bench.config.proto_max_bulk_len = 4999
    assert bench("RESTORE", "k", 0, data) == "ERR Bad data format"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("FOO",), "ERR syntax error"),
        (("IDLETIME",), "ERR syntax error"),
        (("FREQ",), "ERR syntax error"),
        (("IDLETIME", 1, "FREQ", 1), "ERR syntax error"),
        (("FREQ", 1, "IDLETIME", 1), "ERR syntax error"),
        (("IDLETIME", -1), "ERR Invalid IDLETIME value, must be >= 0"),
        (("IDLETIME", "x"), "ERR value is not an integer or out of range"),
        (("FREQ", 256), "ERR Invalid FREQ value, must be >= 0 and <= 255"),
        (("FREQ", -1), "ERR Invalid FREQ value, must be >= 0 and <= 255"),
    ],
)
def test_wrong_words(bench: Bench, words: tuple[str | int, ...], error: str) -> None:
    assert bench("RESTORE", "k", 0, dumped(bench), *words) == error
    assert bench("EXISTS", "k") == 0


def test_wrong_ttls(bench: Bench) -> None:
    data = dumped(bench)
    assert bench("RESTORE", "k", "x", data) == "ERR value is not an integer or out of range"
    assert bench("RESTORE", "k", -1, data) == "ERR Invalid TTL value, must be >= 0"


def test_recency(bench: Bench) -> None:
    data = dumped(bench)
    bench("RESTORE", "k", 0, data, "IDLETIME", 1000)
    assert bench.ctx.db.idle_s(b"k") == 1000
    bench("RESTORE", "k", 0, data, "REPLACE", "FREQ", 100)  # no effect under LRU
    assert bench.ctx.db.idle_s(b"k") == 0
    bench.keyspace.touch_lfu = True
    try:
        bench("RESTORE", "k", 0, data, "REPLACE", "FREQ", 100)
        assert bench.ctx.db.frequency(b"k") == 100
        bench("RESTORE", "k", 0, data, "REPLACE")
        assert bench.ctx.db.frequency(b"k") == 5  # as any new key
    finally:
        bench.keyspace.touch_lfu = False


def test_restore_asking_is_restore(bench: Bench) -> None:
    assert bench("RESTORE-ASKING", "k", 0, dumped(bench)) == "OK"
    assert bench("GET", "k") == b"value"
