"""Client-side caching: who is told that a key has changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import Push, Server, Wire, wait_for


@pytest.fixture
def cache(server: Server, wire: Wire) -> Iterator[Wire]:
    """A connection in RESP3."""
    with server.wire() as connection:
        connection("HELLO", "3")
        yield connection


def told(cache: Wire) -> list[bytes] | None:
    message = cache.read()
    assert isinstance(message, Push)
    assert message[0] == b"invalidate"
    keys: list[bytes] | None = message[1]
    return keys


def test_what_was_read_is_told_once(wire: Wire, cache: Wire) -> None:
    wire.pipeline([("SET", "a", "1"), ("SET", "b", "1")])
    assert cache("CLIENT", "TRACKING", "ON") == "OK"
    cache("MGET", "a", "c")
    wire.pipeline([("SET", "b", "2"), ("SET", "a", "2"), ("SET", "a", "3"), ("SET", "c", "1")])
    assert told(cache) == [b"a"]
    assert told(cache) == [b"c"]
    assert cache.quiet()
    cache("GET", "a")
    wire("EVAL", "redis.call('set', KEYS[1], 'x')", "1", "a")
    assert told(cache) == [b"a"]


def test_expiry_and_flush_are_told(wire: Wire, cache: Wire) -> None:
    cache("CLIENT", "TRACKING", "ON")
    wire("SET", "k", "v", "PX", "30")
    cache("GET", "k")
    assert told(cache) == [b"k"]
    cache("GET", "k")
    wire("FLUSHALL")
    assert told(cache) is None


def test_own_changes_come_behind_the_reply_or_not_at_all(cache: Wire) -> None:
    cache("CLIENT", "TRACKING", "ON")
    cache("GET", "k")
    assert cache("SET", "k", "v") == "OK"
    assert told(cache) == [b"k"]
    cache("CLIENT", "TRACKING", "ON", "NOLOOP")
    cache("GET", "k")
    assert cache("SET", "k", "w") == "OK"
    assert cache.quiet()


def test_broadcast(wire: Wire, cache: Wire) -> None:
    cache("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "a:", "PREFIX", "b:")
    wire("MSET", "a:1", "1", "c:1", "1", "b:1", "1", "a:2", "1")
    assert sorted([told(cache) or [], told(cache) or []]) == [[b"a:1", b"a:2"], [b"b:1"]]
    wire("INCR", "c:1")
    assert cache.quiet()
    cache("CLIENT", "TRACKING", "OFF")
    wire("INCR", "a:1")
    assert cache.quiet()


def test_opt_in_and_out(wire: Wire, cache: Wire) -> None:
    cache("CLIENT", "TRACKING", "ON", "OPTIN")
    cache("GET", "a")
    cache("CLIENT", "CACHING", "YES")
    cache("GET", "b")
    cache("GET", "c")
    wire("MSET", "a", "1", "b", "1", "c", "1")
    assert told(cache) == [b"b"]
    assert cache.quiet()
    cache("CLIENT", "TRACKING", "OFF")
    cache("CLIENT", "TRACKING", "ON", "OPTOUT")
    cache("CLIENT", "CACHING", "NO")
    cache("GET", "a")
    cache("GET", "b")
    wire("MSET", "a", "2", "b", "2")
    assert told(cache) == [b"b"]
    assert cache.quiet()


def test_redirection(wire: Wire, server: Server) -> None:
    with server.wire() as reader, server.wire() as listener:
        number = listener("CLIENT", "ID")
        listener("SUBSCRIBE", "__redis__:invalidate")
        assert reader("CLIENT", "TRACKING", "ON", "REDIRECT", number) == "OK"
        assert reader("CLIENT", "GETREDIR") == number
        reader("GET", "k")
        wire("SET", "k", "1")
        assert listener.read() == [b"message", b"__redis__:invalidate", [b"k"]]
        assert wire("INFO", "clients").count(b"tracking_clients:1") == 1
    wait_for(lambda: b"tracking_clients:0" in wire("INFO", "clients"))


def test_the_table_is_bounded(wire: Wire, cache: Wire) -> None:
    wire("CONFIG", "SET", "tracking-table-max-keys", "10")
    try:
        cache("CLIENT", "TRACKING", "ON")
        cache.pipeline([("GET", f"k{n}") for n in range(10)])
        assert cache.quiet()
        cache("GET", "one more")
        assert told(cache) == [b"k0"]
        assert b"tracking_total_keys:10" in wire("INFO", "stats")
    finally:
        wire("CONFIG", "SET", "tracking-table-max-keys", "1000000")
