"""maxmemory and what goes when it is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support import Server, Wire, encode, wait_for

StartServer = Callable[..., Server]
OOM = "OOM command not allowed when used memory > 'maxmemory'."
VALUE = b"x" * 1000
EVICTING = (
    "allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-fifo", "allkeys-s3fifo", "allkeys-learned", "volatile-ttl",
    "volatile-lru", "volatile-lfu", "volatile-random", "volatile-fifo", "volatile-s3fifo", "volatile-learned",
)  # fmt: skip


def number(wire: Wire, section: str, name: str) -> int:
    for line in wire("INFO", section).decode().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split(":")[1])
    raise KeyError(name)


@pytest.fixture
def full(wire: Wire) -> Iterator[Wire]:
    """A connection to a server that may hold 5 MB more than it does; afterwards there is no limit again."""
    wait_for(lambda: number(wire, "memory", "lazyfree_pending_objects") == 0)
    wire("CONFIG", "SET", "maxmemory", number(wire, "memory", "used_memory") + 5_000_000)
    yield wire
    wire("CONFIG", "SET", "maxmemory", 0, "maxmemory-policy", "noeviction")


def fill(wire: Wire, name: str, count: int, *options: object) -> list[object]:
    replies: list[object] = []
    for at in range(0, count, 500):
        replies += wire.pipeline([("SET", f"{name}:{n}", VALUE, *options) for n in range(at, at + 500)])
    return replies


@pytest.mark.parametrize("policy", EVICTING)
def test_memory_stays_within_the_limit(full: Wire, policy: str) -> None:
    full("CONFIG", "SET", "maxmemory-policy", policy)
    options = ("EX", 1000) if policy.startswith("volatile") else ()
    assert set(fill(full, "k", 20_000, *options)) == {"OK"}
    limit = int(full("CONFIG", "GET", "maxmemory")[1])
    wait_for(lambda: number(full, "memory", "used_memory") <= limit)
    assert 2000 < full("DBSIZE") < 6000
    assert number(full, "stats", "evicted_keys") > 10_000
    full("CONFIG", "RESETSTAT")


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
def test_without_anything_that_may_go_writes_are_refused(full: Wire, policy: str) -> None:
    full("CONFIG", "SET", "maxmemory-policy", policy)
    replies = fill(full, "k", 10_000)
    assert replies[0] == "OK"
    assert replies[-1] == OOM
    kept = full("DBSIZE")
    assert full("GET", "k:0") == VALUE
    assert full("INCR", "n") == OOM
    assert full("LPOP", "none") is None
    assert full("EVAL", "return redis.call('set', 'a', 'b')", 0).startswith("OOM")
    assert full("EVAL", "return redis.call('get', 'k:1')", 0) == VALUE
    assert full("DEL", "k:0") == 1
    full("UNLINK", *[f"k:{n}" for n in range(kept)])
    wait_for(lambda: full("SET", "a", "b") == "OK")


def test_volatile_policies_leave_the_others_alone(full: Wire) -> None:
    full("CONFIG", "SET", "maxmemory-policy", "volatile-random")
    fill(full, "stays", 1000)
    fill(full, "goes", 10_000, "EX", 1000)
    assert full("EXISTS", *[f"stays:{n}" for n in range(1000)]) == 1000


def test_volatile_ttl_takes_what_would_go_first(full: Wire) -> None:
    full("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    full.pipeline([("SET", f"k:{n}", VALUE, "EX", 10_000 - n) for n in range(3000)])
    full.pipeline([("SET", f"late:{n}", VALUE, "EX", 100_000) for n in range(2500)])
    gone = [n for n in range(3000) if not full("EXISTS", f"k:{n}")]
    assert gone == list(range(gone[0], 3000))


def test_lru_keeps_what_is_used(full: Wire, server: Server) -> None:
    full("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    full.pipeline([("SET", f"used:{n}", VALUE) for n in range(200)])
    full.pipeline([("SET", f"idle:{n}", VALUE) for n in range(3000)])
    full.pipeline([("RESTORE", f"old:{n}", 0, full("DUMP", "idle:0"), "IDLETIME", 5000) for n in range(500)])
    full.pipeline([("GET", f"used:{n}") for n in range(200)])
    fill(full, "new", 2000)
    assert full("EXISTS", *[f"old:{n}" for n in range(500)]) < 250
    assert full("EXISTS", *[f"used:{n}" for n in range(200)]) > 120


def test_lfu_keeps_what_is_used_often(full: Wire) -> None:
    full("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    full.pipeline([("SET", f"often:{n}", VALUE) for n in range(200)])
    for _ in range(60):
        full.pipeline([("GET", f"often:{n}") for n in range(200)])
    fill(full, "k", 20_000)
    assert full("EXISTS", *[f"often:{n}" for n in range(200)]) > 190


def test_whoever_must_know_is_told(start_server: StartServer) -> None:
    server = start_server("--notify-keyspace-events", "Ee", "--appendonly", "yes", "--save", "")
    with server.wire() as wire, server.wire() as listener, server.wire() as watcher:
        listener("SUBSCRIBE", "__keyevent@0__:evicted")
        wire("SET", "watched", "v", "EX", 1000)
        watcher("WATCH", "watched")
        watcher("MULTI")
        wire("CONFIG", "SET", "maxmemory-policy", "volatile-lru", "maxmemory", 1)
        wire("PING")
        assert listener.read() == [b"message", b"__keyevent@0__:evicted", b"watched"]
        assert wire("EXISTS", "watched") == 0
        watcher("PING")
        assert not isinstance(watcher("EXEC"), list)
        assert wire("WAITAOF", 1, 0, 5000) == [1, 0]
    files = (server.directory / "appendonlydir").glob("*.incr.aof")
    assert any(encode("DEL", "watched") in file.read_bytes() for file in files)


def test_large_values_free_their_memory_before_others_go(full: Wire) -> None:
    full("CONFIG", "SET", "maxmemory-policy", "volatile-random")
    full("HSET", "large", *[word for n in range(20_000) for word in (f"field{n}", "x" * 50)])
    full("EXPIRE", "large", 1000)
    fill(full, "k", 4500)
    wait_for(lambda: full("EXISTS", "large") == 0)
    assert full("SET", "another", VALUE) == "OK"
    assert full("DBSIZE") == 4501
