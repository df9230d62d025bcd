"""Channels, patterns and shard channels in both protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support import Push, Server, Wire, encode, wait_for


@pytest.fixture
def other(server: Server) -> Iterator[Wire]:
    with server.wire() as connection:
        yield connection


def test_messages_reach_channels_and_patterns(wire: Wire, other: Wire) -> None:
    assert other("SUBSCRIBE", "a", "b") == [b"subscribe", b"a", 1]
    assert other.read() == [b"subscribe", b"b", 2]
    assert other("PSUBSCRIBE", "a*") == [b"psubscribe", b"a*", 3]
    assert wire("PUBLISH", "a", "hello") == 2
    assert other.read() == [b"message", b"a", b"hello"]
    assert other.read() == [b"pmessage", b"a*", b"a", b"hello"]
    assert wire("PUBLISH", "c", "x") == 0
    assert wire("PUBSUB", "CHANNELS") == [b"a", b"b"]
    assert wire("PUBSUB", "CHANNELS", "[a]") == [b"a"]
    assert wire("PUBSUB", "NUMSUB", "a", "z") == [b"a", 1, b"z", 0]
    assert wire("PUBSUB", "NUMPAT") == 1
    assert other("UNSUBSCRIBE") == [b"unsubscribe", b"a", 2]
    assert other.read() == [b"unsubscribe", b"b", 1]
    assert other("PUNSUBSCRIBE", "none") == [b"punsubscribe", b"none", 1]
    assert other("PUNSUBSCRIBE") == [b"punsubscribe", b"a*", 0]
    assert other("UNSUBSCRIBE") == [b"unsubscribe", None, 0]
    assert other("SET", "k", "v") == "OK"


def test_what_a_subscriber_may_say(wire: Wire) -> None:
    wire("SUBSCRIBE", "a")
    assert wire("GET", "k") == (
        "ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this "
        "context"
    )
    assert wire("PING", "x") == [b"pong", b"x"]
    assert wire("RESET") == "RESET"
    assert wire("GET", "k") is None
    assert wire("PUBLISH", "a", "x") == 0


def test_resp3_pushes_and_goes_on(wire: Wire, other: Wire) -> None:
    other("HELLO", "3")
    pushed = other("SUBSCRIBE", "a")
    assert isinstance(pushed, Push)
    assert other("SET", "k", "v") == "OK"
    wire("PUBLISH", "a", "x")
    message = other.read()
    assert isinstance(message, Push)
    assert message == [b"message", b"a", b"x"]
    other.send(encode("PUBLISH", "a", "to myself"))
    assert [other.read(), other.read()] == [[b"message", b"a", b"to myself"], 1]


def test_shard_channels_are_apart(wire: Wire, other: Wire) -> None:
    assert other("SSUBSCRIBE", "a") == [b"ssubscribe", b"a", 1]
    assert wire("PUBLISH", "a", "x") == 0
    assert wire("SPUBLISH", "a", "x") == 1
    assert other.read() == [b"smessage", b"a", b"x"]
    assert wire("PUBSUB", "SHARDCHANNELS") == [b"a"]
    assert wire("PUBSUB", "SHARDNUMSUB", "a") == [b"a", 1]
    assert other("SUNSUBSCRIBE") == [b"sunsubscribe", b"a", 0]


def test_whoever_leaves_is_forgotten(wire: Wire, server: Server) -> None:
    with server.wire() as gone:
        gone("SUBSCRIBE", "a")
        assert b" sub=1 " in wire("CLIENT", "LIST", "TYPE", "pubsub")
    wait_for(lambda: wire("PUBSUB", "CHANNELS") == [])
    assert wire("PUBLISH", "a", "x") == 0


def test_a_subscriber_that_does_not_read_is_closed(start_server: Callable[..., Server]) -> None:
    server = start_server("--client-output-buffer-limit", "pubsub 1mb 0 0")
    with server.wire() as deaf, server.wire() as wire:
        deaf("SUBSCRIBE", "a")
        wait_for(lambda: wire("PUBLISH", "a", "x" * 100_000) == 0)
        assert b"client_output_buffer_limit_disconnections:1" in wire("INFO", "stats")


def test_many_messages_in_order(wire: Wire, server: Server) -> None:
    listeners = [server.wire() for _ in range(20)]
    for each in listeners:
        each("SUBSCRIBE", "a")
    assert wire.pipeline([("PUBLISH", "a", str(n)) for n in range(500)]) == [20] * 500
    for each in listeners:
        assert [each.read()[2] for _ in range(500)] == [b"%d" % n for n in range(500)]
        each.close()


@pytest.mark.parametrize(("command", "events"), [
    (("SET", "k", "v"), ["set"]), (("SET", "k", "v", "EX", "10"), ["set", "expire"]), (("LPUSH", "k", "v"), ["lpush"]),
    (("HSET", "k", "f", "v"), ["hset"]), (("SADD", "k", "m"), ["sadd"]), (("ZADD", "k", "1", "m"), ["zadd"]),
    (("XADD", "k", "*", "f", "v"), ["xadd"]), (("PFADD", "k", "a"), ["pfadd"]), (("INCR", "k"), ["incrby"]),
])  # fmt: skip
def test_keyspace_notifications(wire: Wire, other: Wire, command: tuple[str, ...], events: list[str]) -> None:
    assert wire("CONFIG", "SET", "notify-keyspace-events", "KEA") == "OK"
    try:
        other("PSUBSCRIBE", "__key*__:*")
        wire(*command)
        for event in events:
            assert other.read() == [b"pmessage", b"__key*__:*", b"__keyspace@0__:k", event.encode()]
            assert other.read() == [b"pmessage", b"__key*__:*", f"__keyevent@0__:{event}".encode(), b"k"]
    finally:
        wire("CONFIG", "SET", "notify-keyspace-events", "")
    wire("SET", "silent", "1")
    assert other.quiet()


def test_notifications_of_misses_new_keys_and_expiries(wire: Wire, other: Wire) -> None:
    wire("CONFIG", "SET", "notify-keyspace-events", "Emnx")
    try:
        other("PSUBSCRIBE", "*")
        wire("GET", "absent")
        assert other.read()[2:] == [b"__keyevent@0__:keymiss", b"absent"]
        wire("SET", "k", "v", "PX", "20")
        assert other.read()[2:] == [b"__keyevent@0__:new", b"k"]
        assert other.read()[2:] == [b"__keyevent@0__:expired", b"k"]
    finally:
        wire("CONFIG", "SET", "notify-keyspace-events", "")
