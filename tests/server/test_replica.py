"""Following a primary: a redis-server, and one of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import REDIS, ZEEKDB, Server, Wire, wait_for

Start = Callable[..., Server]
LIBRARY = """#!lua name=lib
redis.register_function{function_name='echo', callback=function(keys, args) return args[1] end, flags={'no-writes'}}
redis.register_function('writes', function(keys, args) return redis.call('set', 'k', 'v') end)"""


def fill(wire: Wire) -> None:
    """Something of every type that both kinds of server know."""
    wire.pipeline([
        ("SET", "s", "v" * 300), ("SET", "n", "12345"), ("RPUSH", "l", *range(300)), ("SADD", "t", *range(300)),
        ("HSET", "h", *[word for n in range(300) for word in (f"f{n}", "x" * (n % 70))]), ("EXPIRE", "h", "1000"),
        ("ZADD", "z", *[word for n in range(200) for word in (n, f"m{n}")]), ("XADD", "x", "1-1", "a", "b"),
        ("XGROUP", "CREATE", "x", "g", "0"), ("PFADD", "p", *range(100)), ("SELECT", "3"), ("SADD", "u", "a", "b"),
        ("SELECT", "0"),
    ])  # fmt: skip


def contents(wire: Wire) -> dict[tuple[int, bytes], Any]:
    """Every key of databases 0 and 3, comparable."""
    found: dict[tuple[int, bytes], Any] = {}
    for index in (0, 3):
        assert wire("SELECT", index) == "OK"
        for key in wire("KEYS", "*"):
            kind = str(wire("TYPE", key))
            look = {
                "string": ("GET", key), "list": ("LRANGE", key, "0", "-1"), "set": ("SMEMBERS", key),
                "hash": ("HGETALL", key), "zset": ("ZRANGE", key, "0", "-1"), "stream": ("XRANGE", key, "-", "+"),
            }[kind]  # fmt: skip
            value = wire(*look)
            found[index, key] = (kind, value if kind in ("string", "list", "zset", "stream") else sorted(value))
    wire("SELECT", 0)
    return found


def link_is_up(wire: Wire) -> bool:
    return b"master_link_status:up" in wire("INFO", "replication")


@pytest.mark.parametrize("kind", [REDIS, ZEEKDB], ids=["redis-server", "zeekdb"])
def test_following(start_server: Start, kind: tuple[str, ...]) -> None:
    primary, replica = start_server("--save", "", program=kind), start_server()
    with primary.wire() as theirs, replica.wire() as ours:
        fill(theirs)
        theirs("FUNCTION", "LOAD", LIBRARY)
        ours("SET", "old", "1")
        assert ours("REPLICAOF", "127.0.0.1", str(primary.port)) == "OK"
        wait_for(lambda: link_is_up(ours))
        assert contents(ours) == contents(theirs)
        assert 900 < ours("TTL", "h") <= 1000
        assert ours("FCALL", "echo", "0", "hi") == b"hi"
        assert ours("FCALL", "writes", "0").startswith("READONLY ")
        theirs.pipeline([
            ("MULTI",), ("INCR", "a"), ("SPOP", "t", "3"), ("EXEC",), ("LPUSH", "l", "new"), ("SELECT", "3"),
            ("SREM", "u", "a"), ("SELECT", "0"), ("EVAL", "redis.call('set', 'e', ARGV[1])", "0", "x"),
        ])  # fmt: skip
        wait_for(lambda: contents(ours) == contents(theirs))
        assert theirs("WAIT", "1", "5000") == 1
        assert ours("ROLE")[0] == b"slave"
        assert ours("SET", "k", "v") == "READONLY You can't write against a read only replica."
        assert ours("EVAL_RO", "return redis.call('get', 'n')", "0") == b"12345"


def test_a_link_that_breaks_goes_on_where_it_was(start_server: Start) -> None:
    primary, replica = start_server("--save", "", program=REDIS), start_server()
    with primary.wire() as theirs, replica.wire() as ours:
        fill(theirs)
        ours("REPLICAOF", "127.0.0.1", str(primary.port))
        wait_for(lambda: link_is_up(ours))
        theirs("CLIENT", "KILL", "TYPE", "replica")
        theirs("SET", "meanwhile", "1")
        wait_for(lambda: ours("GET", "meanwhile") == b"1")
        assert b"sync_partial_ok:1" in theirs("INFO", "stats")


def test_a_chain_and_a_promotion(start_server: Start) -> None:
    first, second, third = start_server(), start_server(), start_server()
    with first.wire() as one, second.wire() as two, third.wire() as three:
        fill(one)
        two("REPLICAOF", "127.0.0.1", str(first.port))
        wait_for(lambda: link_is_up(two))
        three("REPLICAOF", "127.0.0.1", str(second.port))
        wait_for(lambda: link_is_up(three))
        one("SET", "through", "1")
        wait_for(lambda: three("GET", "through") == b"1")
        assert two("REPLICAOF", "NO", "ONE") == "OK"
        assert two("SET", "mine", "1") == "OK"
        wait_for(lambda: three("GET", "mine") == b"1")
        assert one("EXISTS", "mine") == 0
        assert two("ROLE")[0] == b"master"


def test_without_its_primary(start_server: Start) -> None:
    replica = start_server("--replica-serve-stale-data", "no")
    with replica.wire() as wire:
        wire("SET", "k", "v")
        assert wire("REPLICAOF", "127.0.0.1", "1") == "OK"
        down = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."
        assert wire("GET", "k") == down
        assert wire("PING") == down
        assert wire("INFO", "replication").startswith(b"# Replication")
        assert wire("REPLICAOF", "NO", "ONE") == "OK"
        assert wire("GET", "k") == b"v"
