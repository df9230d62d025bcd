"""Commands on keys of any kind."""

from __future__ import annotations

import pytest

import zeekdb.commands.generic
import zeekdb.commands.strings  # noqa: F401
from tests.unit.commands.harness import NOW_MS, Bench
from zeekdb.types import Set

SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
NO_KEY = "ERR no such key"
SAME = "ERR source and destination objects are the same"
NO_DB = "ERR DB index is out of range"


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.keyspace.databases[0].create(b"aset", Set).add(b"member")
    made("SET", "k", "v")
    made.events.clear()
    return made


def test_existence(bench: Bench) -> None:
    assert bench("EXISTS", "k", "k", "none", "aset") == 3
    assert bench("TOUCH", "k", "k", "none") == 2
    assert [bench("TYPE", "k"), bench("TYPE", "aset"), bench("TYPE", "none")] == ["string", "set", "none"]
    assert bench("DEL", "k", "k", "none") == 1
    assert bench.events == [("del", b"k")]
    assert bench.events_of("UNLINK", "aset", "none") == ["del"]
    assert bench("RANDOMKEY") is None
    bench("SET", "only", 1)
    assert bench("RANDOMKEY") == b"only"


def test_keys(bench: Bench) -> None:
    bench("SET", "other", 1)
    assert sorted(bench("KEYS", "*")) == [b"aset", b"k", b"other"]
    assert bench("KEYS", "o?her") == [b"other"]
    assert bench("KEYS", "x*") == []


def test_rename(bench: Bench) -> None:
    bench("EXPIRE", "k", 10)
    assert bench.events_of("RENAME", "k", "aset") == ["rename_from", "rename_to"]
    assert bench.events == [("rename_from", b"k"), ("rename_to", b"aset")]
    assert [bench("GET", "aset"), bench("TTL", "aset"), bench("EXISTS", "k")] == [b"v", 10, 0]
    assert bench.events_of("RENAME", "aset", "aset") == []
    assert bench("RENAME", "none", "none") == bench("RENAMENX", "none", "k") == NO_KEY
    bench("SET", "k", 1)
    assert [bench("RENAMENX", "aset", "k"), bench("RENAMENX", "aset", "aset"), bench("RENAMENX", "aset", "b")] == [
        0, 0, 1,
    ]  # fmt: skip


def test_move(bench: Bench) -> None:
    assert bench("MOVE", "k", 0) == SAME
    assert bench("MOVE", "k", 16) == bench("MOVE", "k", -1) == NO_DB
    assert bench("MOVE", "k", "x") == NOT_INTEGER
    assert bench("MOVE", "k", 1 << 40) == "ERR value is out of range, value must between -2147483648 and 2147483647"
    assert bench.events_of("MOVE", "k", 3) == ["move_from", "move_to@3"]
    assert bench("MOVE", "k", 3) == 0
    bench("SET", "k", "again")
    assert bench("MOVE", "k", 3) == 0
    assert bench("GET", "k") == b"again"


def test_copy(bench: Bench) -> None:
    bench("EXPIRE", "k", 10)
    assert bench("COPY", "none", "x") == 0
    assert bench("COPY", "k", "aset") == 0
    assert bench.events_of("COPY", "k", "aset", "replace") == ["copy_to"]
    assert [bench("GET", "aset"), bench("TTL", "aset")] == [b"v", 10]
    assert bench.events_of("COPY", "k", "k", "DB", 2) == ["copy_to@2"]
    assert bench("COPY", "k", "k", "DB", 2) == 0
    assert bench("COPY", "k", "k", "DB", 0) == bench("COPY", "k", "k") == SAME
    assert bench("COPY", "k", "x", "DB", 99) == NO_DB
    assert bench("COPY", "k", "x", "DB", "x") == NOT_INTEGER
    assert bench("COPY", "k", "x", "DB") == bench("COPY", "k", "x", "KEEP") == SYNTAX


# --- expiry -------------------------------------------------------------------------------------------------------


def test_expiry(bench: Bench) -> None:
    assert [bench("TTL", "k"), bench("PTTL", "k"), bench("TTL", "none"), bench("PTTL", "none")] == [-1, -1, -2, -2]
    assert bench.events_of("EXPIRE", "k", 10) == ["expire"]
    assert [bench("TTL", "k"), bench("PTTL", "k")] == [10, 10_000]
    assert bench("PEXPIRE", "k", 1499) == 1
    assert [bench("TTL", "k"), bench("PTTL", "k"), bench("PEXPIRETIME", "k")] == [1, 1499, NOW_MS + 1499]
    assert bench("EXPIREAT", "k", NOW_MS // 1000 + 7) == 1
    assert [bench("TTL", "k"), bench("EXPIRETIME", "k")] == [7, NOW_MS // 1000 + 7]
    assert bench("PEXPIREAT", "k", NOW_MS + 1500) == 1
    assert bench("TTL", "k") == 2
    assert [bench("PERSIST", "k"), bench("PERSIST", "k"), bench("PERSIST", "none")] == [1, 0, 0]
    assert [bench("EXPIRETIME", "k"), bench("PEXPIRETIME", "none")] == [-1, -2]
    bench("PEXPIRE", "k", 5)
    bench.advance(5)
    assert [bench("EXISTS", "k"), bench("TTL", "k"), bench("EXPIRE", "k", 1)] == [0, -2, 0]


def test_a_deadline_that_has_passed_deletes(bench: Bench) -> None:
    for command in (("EXPIRE", "k", -1), ("PEXPIRE", "k", 0), ("EXPIREAT", "k", 1), ("PEXPIREAT", "k", NOW_MS)):
        bench("SET", "k", "v")
        assert bench.events_of(*command) == ["del"]
        assert bench("EXISTS", "k") == 0


@pytest.mark.parametrize(
    ("before", "words", "outcome"),
    [
        (None, "20 NX", 20), (10, "20 NX", 10), (None, "20 XX", -1), (10, "20 XX", 20), (10, "20 GT", 20),
        (10, "5 GT", 10), (10, "10 GT", 10), (None, "20 GT", -1), (10, "5 LT", 5), (10, "20 LT", 10),
        (None, "20 LT", 20), (10, "20 xx gt", 20), (None, "20 XX LT", -1), (10, "-1 GT", 10), (10, "-1 LT", -2),
    ],
)  # fmt: skip
def test_conditions(bench: Bench, before: int | None, words: str, outcome: int) -> None:
    if before is not None:
        bench("EXPIRE", "k", before)
    bench("EXPIRE", "k", *words.split())
    assert bench("TTL", "k") == outcome


def test_mistakes_of_expiry(bench: Bench) -> None:
    assert bench("EXPIRE", "k", "x") == NOT_INTEGER
    assert bench("EXPIRE", "k", 10, "AB\xff") == "ERR Unsupported option AB\xff"
    assert bench("EXPIRE", "k", 10, "NX", "GT") == (
        "ERR NX and XX, GT or LT options at the same time are not compatible"
    )
    assert bench("EXPIRE", "k", 10, "LT", "GT") == "ERR GT and LT options at the same time are not compatible"
    for name, amount in (
        ("expire", 9223372036854776), ("expire", -9223372036854776), ("expireat", 9223372036854776),
        ("pexpire", (1 << 63) - 1), ("expire", 9223372036854775),
    ):  # fmt: skip
        assert bench(name, "k", amount) == f"ERR invalid expire time in '{name}' command"
    assert bench("TTL", "k") == -1


# --- SCAN, OBJECT -------------------------------------------------------------------------------------------------


def test_scan(bench: Bench) -> None:
    for number in range(50):
        bench("SET", f"n{number}", number)
    seen: set[bytes] = set()
    cursor: bytes = b"0"
    while True:
        cursor, found = bench("SCAN", cursor, "COUNT", 7)
        seen.update(found)
        if cursor == b"0":
            break
    assert seen == {b"k", b"aset", *(b"n%d" % number for number in range(50))}
    assert bench("SCAN", 0, "TYPE", "SET", "COUNT", 1 << 62) == [b"0", [b"aset"]]
    assert bench("SCAN", 0, "MATCH", "a*", "COUNT", 1000) == [b"0", [b"aset"]]
    assert bench("SCAN", 0, "TYPE", "nothing", "COUNT", 1000) == [b"0", []]


def test_mistakes_of_scan(bench: Bench) -> None:
    assert bench("SCAN", "x") == "ERR invalid cursor"
    assert bench("SCAN", 0, "COUNT", "x", "y") == NOT_INTEGER
    for words in ("COUNT 0", "COUNT", "MATCH", "WHERE x", "MATCH a TYPE", "TYPE set COUNT -1"):
        assert bench("SCAN", 0, *words.split()) == SYNTAX


def test_object(bench: Bench) -> None:
    bench("MSET", "int", "123", "text", "x" * 44, "long", "x" * 45, "almost", "0123")
    encodings = [bench("OBJECT", "ENCODING", key) for key in ("int", "text", "long", "almost", "none")]
    assert encodings == [b"int", b"embstr", b"raw", b"embstr", None]
    assert isinstance(bench("OBJECT", "encoding", "aset"), bytes)
    assert [bench("OBJECT", "REFCOUNT", "k"), bench("OBJECT", "REFCOUNT", "none")] == [1, None]
    assert [bench("OBJECT", "IDLETIME", "k"), bench("OBJECT", "FREQ", "none")] == [0, None]
    assert bench("OBJECT", "FREQ", "k").startswith("ERR An LFU maxmemory policy is not selected, access frequency")
    bench.keyspace.touch_lfu = True
    assert bench("OBJECT", "IDLETIME", "k").startswith("ERR An LFU maxmemory policy is selected, idle time not")
    bench.keyspace.touch_lfu = False
    assert bench("OBJECT", "HELP")[0].startswith("OBJECT <subcommand>")
