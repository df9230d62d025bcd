"""What replicas are told, byte by byte; and a real redis-server as a replica of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.support import REDIS, Server, Wire, encode, wait_for


class Feed:
    """A connection that has said SYNC: after the image it reads commands."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        wire.send(b"SYNC\r\n")
        self.image = wire.file.read(int(wire.file.readline()[1:]))

    def read(self) -> str:
        return " ".join(word.decode() for word in self.wire.read())

    def told(self, n: int) -> list[str]:
        return [self.read() for _ in range(n)]


@pytest.fixture
def feed(server: Server, wire: Wire) -> Iterator[Feed]:
    with server.wire() as connection:
        yield Feed(connection)


def test_an_image_is_an_rdb_file(feed: Feed) -> None:
    assert feed.image.startswith(b"REDIS0010")
    assert b"redis-ver" in feed.image


@pytest.mark.parametrize(("command", "effect"), [
    ("SET k v", "SET k v"), ("SET k v EX 100", "SET k v PXAT *"), ("SETEX k 100 v", "SET k v PXAT *"),
    ("SET k v GET", "SET k v"), ("SET n v XX", ""), ("GETDEL s", "DEL s"), ("GETEX s EX 10", "PEXPIREAT s *"),
    ("GETEX s", ""), ("EXPIRE s 10", "PEXPIREAT s *"), ("EXPIRE s -1", "DEL s"),
    ("INCRBYFLOAT f 0.5", "SET f 2 KEEPTTL"),
    ("HINCRBYFLOAT h f 1", "HSET h f 2"), ("SPOP one", "SREM one m"), ("SPOP one 5", "DEL one"),
    ("LMPOP 1 l LEFT COUNT 9", "LPOP l 2"),
    ("BLPOP l 0", "LPOP l"), ("BRPOPLPUSH l m 0", "LMOVE l m RIGHT LEFT"),
    ("BLMOVE l m LEFT LEFT 0", "LMOVE l m LEFT LEFT"),
    ("ZMPOP 1 z MAX", "ZPOPMAX z 1"), ("BZPOPMIN z 0", "ZPOPMIN z"), ("LPOP none", ""), ("DEL none", ""), ("GET s", ""),
    ("RENAME s t", "RENAME s t"), ("FLUSHALL", "FLUSHALL"),
])  # fmt: skip
def test_effects(server: Server, wire: Wire, command: str, effect: str) -> None:
    wire.pipeline([
        ("SET", "s", "v"), ("SET", "f", "1.5"), ("HSET", "h", "f", "1"), ("SADD", "one", "m"), ("RPUSH", "l", "a", "b"),
        ("ZADD", "z", "1", "m", "2", "n"),
    ])  # fmt: skip
    with server.wire() as connection:
        feed = Feed(connection)
        wire(*command.split())
        wire("SET", "end", "1")
        told = feed.told(3 if effect else 2)
    assert told[0] == "SELECT 0"
    assert told[-1] == "SET end 1"
    if effect:
        head, star, _ = effect.partition("*")
        assert told[1].startswith(head) if star else told[1] == effect


def test_transactions_are_one_and_single_effects_stand_alone(wire: Wire, feed: Feed) -> None:
    wire.pipeline([("MULTI",), ("SET", "a", "1"), ("GET", "a"), ("INCR", "a"), ("EXEC",)])
    wire.pipeline([("MULTI",), ("SET", "a", "1"), ("EXEC",), ("MULTI",), ("GET", "a"), ("EXEC",)])
    wire("SET", "end", "1")
    assert feed.told(7) == ["SELECT 0", "MULTI", "SET a 1", "INCR a", "EXEC", "SET a 1", "SET end 1"]


def test_databases_are_selected(wire: Wire, feed: Feed) -> None:
    wire.pipeline([("SET", "a", "1"), ("SELECT", "2"), ("SET", "b", "1"), ("SET", "c", "1"), ("SELECT", "0")])
    assert feed.told(5) == ["SELECT 0", "SET a 1", "SELECT 2", "SET b 1", "SET c 1"]


def test_an_expiry_is_a_deletion(wire: Wire, feed: Feed) -> None:
    wire("SET", "k", "v", "PX", "20")
    assert feed.told(2)[1].startswith("SET k v PXAT ")
    wait_for(lambda: wire("EXISTS", "k") == 0)
    assert feed.read() == "DEL k"


def test_whoever_waited_is_told_as_what_it_took(server: Server, wire: Wire, feed: Feed) -> None:
    with server.wire() as waiter:
        waiter.send(encode("BLPOP", "k", "0"))
        wait_for(lambda: b" flags=b " in wire("CLIENT", "LIST"))
        wire("RPUSH", "k", "a", "b")
        assert waiter.read() == [b"k", b"a"]
    assert feed.told(3) == ["SELECT 0", "RPUSH k a b", "LPOP k"]


def test_a_stream_that_broke_goes_on(server: Server, wire: Wire) -> None:
    with server.wire() as first:
        Feed(first)
        wire("SET", "a", "1")
    offset = int(wire("INFO", "replication").split(b"master_repl_offset:")[1].split()[0])
    identity = wire("INFO", "replication").split(b"master_replid:")[1].split()[0].decode()
    wire("SET", "b", "2")
    with server.wire() as again:
        assert again("PSYNC", identity, str(offset + 1)) == f"CONTINUE {identity}"
        assert again.read() == [b"SET", b"b", b"2"]
    with server.wire() as stranger:
        assert stranger("PSYNC", "?", "-1").startswith(f"FULLRESYNC {identity} ")


def test_a_redis_server_follows(start_server: Callable[..., Server]) -> None:
    ours = start_server()
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(ours.wire())
        wire.pipeline([
            ("SET", "s", "v" * 300), ("SET", "n", "12345"), ("RPUSH", "l", *range(600)), ("SADD", "t", *range(600)),
            ("HSET", "h", *[word for n in range(600) for word in (f"f{n}", "x" * n)]), ("EXPIRE", "h", "1000"),
            *[("ZADD", "z", n * 3, f"m{n}") for n in range(300)],
            ("SELECT", "3"), ("SADD", "u", "a", "b"), ("SELECT", "0"),
        ])  # fmt: skip
        theirs = stack.enter_context(Server("--replicaof", "127.0.0.1", str(ours.port), "--save", "", program=REDIS))
        replica = stack.enter_context(theirs.wire())
        wait_for(lambda: b"master_link_status:up" in replica("INFO", "replication"))
        wire.pipeline([
            ("MULTI",), ("SET", "a", "1"), ("INCR", "a"), ("EXEC",), ("SPOP", "t"), ("SET", "e", "1", "EX", "100"),
        ])  # fmt: skip
        assert wire("WAIT", "1", "5000") == 1
        assert wire("WAIT", "2", "10") == 1
        for index in ("0", "3"):
            assert wire("SELECT", index) == replica("SELECT", index) == "OK"
            keys = sorted(wire("KEYS", "*"))
            assert keys == sorted(replica("KEYS", "*"))
            for key in keys:
                kind = wire("TYPE", key)
                assert replica("TYPE", key) == kind
                assert abs(replica("PTTL", key) - wire("PTTL", key)) < 1000
                look = {
                    "string": ("GET", key), "list": ("LRANGE", key, "0", "-1"), "set": ("SMEMBERS", key),
                    "hash": ("HGETALL", key), "zset": ("ZRANGE", key, "0", "-1", "WITHSCORES"),
                }[str(kind)]  # fmt: skip
                mine, yours = wire(*look), replica(*look)
                assert (sorted(mine), len(mine)) == (sorted(yours), len(yours)) if kind != "string" else mine == yours
        assert wire("ROLE")[0] == b"master"
        assert len(wire("ROLE")[2]) == 1
