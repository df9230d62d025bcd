"""Keys as the commands that make them again: nothing is another afterwards, and what is shown is one moment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.commands.harness import NOW_MS, Bench
from tests.unit.persistence.test_snapshot import busy, desk, state
from zeekdb.hot.snapshot import Snapshot
from zeekdb.persistence import aof_base

ITEMS = 64  # of a command


def commands(data: bytes) -> Iterator[list[bytes]]:
    """What a file of commands says. AssertionError when it is not whole."""
    at = 0

    def number(mark: bytes) -> int:
        nonlocal at
        end = data.index(b"\r\n", at)
        assert data[at : at + 1] == mark
        at, found = end + 2, int(data[at + 1 : end])
        return found

    while at < len(data):
        words = []
        for _ in range(number(b"*")):
            size = number(b"$")
            assert data[at + size : at + size + 2] == b"\r\n"
            words.append(data[at : at + size])
            at += size + 2
        yield words


def written(bench: Bench) -> list[list[bytes]]:
    snapshot = Snapshot(bench.keyspace.databases, True, False, True)
    assert snapshot.step(0)
    return list(commands(snapshot.take()))


def replayed(said: list[list[bytes]]) -> Bench:
    """A fresh keyspace after these commands, none of which fails."""
    bench = desk()
    for name, *words in said:
        if name == b"SELECT":
            bench.ctx.db = bench.keyspace.databases[int(words[0])]
            continue
        reply = bench(name.decode(), *words)
        assert not isinstance(reply, str) or reply == "OK", (name, words, reply)
    bench.ctx.db = bench.keyspace.databases[0]
    return bench


def comparable(found: dict[bytes, Any]) -> dict[bytes, Any]:
    """Without what commands do not carry: orders, how a stream lies in memory, when its consumers were seen."""
    for name, value, _ in found.values():
        if name == b"set":
            value.sort()
        if isinstance(value, dict) and b"groups" in value:
            del value[b"radix-tree-keys"], value[b"radix-tree-nodes"]
            for group in value[b"groups"]:
                for consumer in group[b"consumers"]:
                    del consumer[b"seen-time"], consumer[b"active-time"]
                group[b"consumers"].sort(key=lambda consumer: consumer[b"name"])
    return found


@pytest.mark.parametrize("seed", range(4))
def test_it_shows_the_moment_when_it_began(seed: int) -> None:
    dice = random.Random(seed)
    bench = desk()
    busy(dice, bench, 1500)
    before = comparable(state(bench))
    snapshot = Snapshot(bench.keyspace.databases, True, False, True)
    pieces = []
    while not snapshot.step(1):
        pieces.append(snapshot.take())
        busy(dice, bench, 5)
    pieces.append(snapshot.take())
    assert comparable(state(replayed(list(commands(b"".join(pieces)))))) == before
    assert comparable(state(bench)) != before


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 1000])
def test_large_collections_come_in_pieces(count: int) -> None:
    bench = desk()
    bench("RPUSH", "l", *range(count))
    bench("SADD", "s", *(f"m{n}" for n in range(count)))
    bench("SADD", "i", *range(count))
    bench("ZADD", "z", *(word for n in range(count) for word in (n / 3, n)))
    bench("HSET", "h", *(word for n in range(count) for word in (n, "v")))
    bench("HSET", "t", *(word for n in range(count) for word in (n, "v")))
    bench("HPEXPIRE", "t", 10_000, "FIELDS", 1, 0)
    said = written(bench)
    words = {b"RPUSH": 1, b"SADD": 1, b"ZADD": 2, b"HMSET": 2}
    for key in b"lsizht":
        sizes = [(len(each) - 2) // words[each[0]] for each in said if each[0] in words and each[1] == bytes([key])]
        assert sizes == [ITEMS] * (count // ITEMS) + [count % ITEMS] * bool(count % ITEMS)
    assert comparable(state(replayed(said))) == comparable(state(bench))


def test_deadlines_of_keys_and_of_fields() -> None:
    bench = desk()
    bench("SET", "gone", "1", "PX", 10)
    bench("SET", "stays", "1", "PX", 10_000)
    bench("HSET", "h", "a", 1, "b", 2, "c", 3)
    bench("HPEXPIRE", "h", 10, "FIELDS", 1, "a")
    bench("HPEXPIRE", "h", 10_000, "FIELDS", 1, "b")
    bench("HSET", "empty", "a", 1)
    bench("HPEXPIRE", "empty", 10, "FIELDS", 1, "a")
    bench.keyspace.set_clock(NOW_MS + 10)
    said = written(bench)
    assert sorted(said[1:]) == [
        [b"HMSET", b"h", b"b", b"2", b"c", b"3"],
        [b"HPEXPIREAT", b"h", b"%d" % (NOW_MS + 10_000), b"FIELDS", b"1", b"b"],
        [b"PEXPIREAT", b"stays", b"%d" % (NOW_MS + 10_000)],
        [b"SET", b"stays", b"1"],
    ]
    again = replayed(said)
    assert again("HPEXPIRETIME", "h", "FIELDS", 3, "a", "b", "c") == [-2, NOW_MS + 10_000, -1]


@pytest.mark.parametrize(
    "made",
    [
        [("XGROUP", "CREATE", "x", "g", "$", "MKSTREAM")],
        [("XADD", "x", "5-5", "f", "v"), ("XDEL", "x", "5-5")],
        [("XADD", "x", "MAXLEN", 0, "18446744073709551615-18446744073709551615", "f", "v")],
        [("XADD", "x", "1-1", "f", "v", "g", "w"), ("XADD", "x", "1-2", "f", "w", "g", "v"),
         ("XADD", "x", "2-0", "h", "")],
        [("XADD", "x", f"1-{n}", "f", "v") for n in range(1, 10)] + [("XSETID", "x", "7-0", "ENTRIESADDED", 100)],
        [("XADD", "x", f"1-{n}", "f", n) for n in range(1, 500)]
        + [("XDEL", "x", "1-3", "1-77"), ("XGROUP", "CREATE", "x", "g", "1-5", "ENTRIESREAD", 3),
           ("XGROUP", "CREATECONSUMER", "x", "g", "idle"),
           ("XREADGROUP", "GROUP", "g", "c", "COUNT", 70, "STREAMS", "x", ">"),
           ("XCLAIM", "x", "g", "d", 0, "1-9", "TIME", 12345, "RETRYCOUNT", 8, "JUSTID")],
    ],
)  # fmt: skip
def test_streams(made: list[tuple[Any, ...]]) -> None:
    bench = desk()
    for command in made:
        bench(*command)
    said = written(bench)
    assert b"RESTORE" not in {each[0] for each in said}
    assert comparable(state(replayed(said))) == comparable(state(bench))


def test_what_no_command_makes_comes_as_its_payload() -> None:
    """An entry that was deleted while it was pending: XCLAIM would not take it."""
    bench = desk()
    for command in (
        ("XADD", "x", "1-1", "f", "v"), ("XADD", "x", "1-2", "f", "v"), ("XGROUP", "CREATE", "x", "g", "0"),
        ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "x", ">"), ("XDEL", "x", "1-1"), ("PEXPIRE", "x", 5000),
    ):  # fmt: skip
        bench(*command)
    said = written(bench)
    assert [each[0] for each in said] == [b"SELECT", b"RESTORE", b"PEXPIREAT"]
    assert comparable(state(replayed(said))) == comparable(state(bench))


def test_the_head() -> None:
    assert aof_base.head([], None) == b""
    head = aof_base.head([b"one", b"two\r\n"], 1000)
    assert head.startswith(b"#TS:1000\r\n")
    assert list(commands(head[10:])) == [[b"FUNCTION", b"LOAD", b"one"], [b"FUNCTION", b"LOAD", b"two\r\n"]]
