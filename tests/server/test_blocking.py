"""Commands that wait: who is served, in which order, and how waiting ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.support import Failure, NullArray, Server, Wire, encode, wait_for


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[], Wire]]:
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(server.wire())


@pytest.fixture
def block(wire: Wire, connect: Callable[[], Wire]) -> Callable[..., Wire]:
    """A new connection that waits in a command."""

    def start(*command: str) -> Wire:
        waiter = connect()
        number = waiter("CLIENT", "ID")
        waiter.send(encode(*command))
        wait_for(lambda: b" flags=b " in wire("CLIENT", "LIST", "ID", number))
        return waiter

    return start


@pytest.mark.parametrize(("command", "fill", "reply"), [
    (("BLPOP", "k", "0"), ("RPUSH", "k", "a", "b"), [b"k", b"a"]),
    (("BRPOP", "j", "k", "0"), ("RPUSH", "k", "a", "b"), [b"k", b"b"]),
    (("BLMOVE", "k", "to", "LEFT", "RIGHT", "0"), ("RPUSH", "k", "a", "b"), b"a"),
    (("BRPOPLPUSH", "k", "to", "0"), ("RPUSH", "k", "a", "b"), b"b"),
    (("BLMPOP", "0", "2", "j", "k", "RIGHT", "COUNT", "5"), ("RPUSH", "k", "a", "b"), [b"k", [b"b", b"a"]]),
    (("BZPOPMIN", "k", "0"), ("ZADD", "k", "1", "a", "2", "b"), [b"k", b"a", b"1"]),
    (("BZPOPMAX", "k", "0"), ("ZADD", "k", "1", "a", "2", "b"), [b"k", b"b", b"2"]),
    (("BZMPOP", "0", "1", "k", "MIN", "COUNT", "5"), ("ZADD", "k", "1", "a"), [b"k", [[b"a", b"1"]]]),
    (("BLPOP", "k", "0"), ("LINSERT", "none", "BEFORE", "a", "b"), None),
    (("BLPOP", "k", "0"), ("RENAME", "source", "k"), [b"k", b"s"]),
    (("BLPOP", "k", "0"), ("COPY", "source", "k"), [b"k", b"s"]),
    (("BLPOP", "k", "0"), ("SORT", "source", "ALPHA", "STORE", "k"), [b"k", b"s"]),
    (("BZPOPMIN", "k", "0"), ("ZUNIONSTORE", "k", "1", "members"), [b"k", b"m", b"1"]),
])  # fmt: skip
def test_a_change_serves(
    wire: Wire, block: Callable[..., Wire], command: tuple[str, ...], fill: tuple[str, ...], reply: object
) -> None:
    wire("RPUSH", "source", "s")
    wire("SADD", "members", "m")
    waiter = block(*command)
    wire(*fill)
    if reply is None:
        assert wire("CLIENT", "UNBLOCK", waiter_id(wire)) == 1
        assert waiter.read() == NullArray()
    else:
        assert waiter.read() == reply


def waiter_id(wire: Wire) -> str:
    """The id of the one connection that waits."""
    [line] = [line for line in wire("CLIENT", "LIST").decode().splitlines() if " flags=b " in line]
    return line.split()[0].removeprefix("id=")


def test_first_come_first_served(wire: Wire, block: Callable[..., Wire]) -> None:
    first, second, third = (block("BLPOP", "k", "0") for _ in range(3))
    assert wire("RPUSH", "k", "a", "b") == 2
    assert first.read() == [b"k", b"a"]
    assert second.read() == [b"k", b"b"]
    assert wire("EXISTS", "k") == 0
    assert wire("RPUSH", "k", "c") == 1
    assert third.read() == [b"k", b"c"]


def test_served_once_at_the_end_of_a_transaction(wire: Wire, block: Callable[..., Wire]) -> None:
    waiter = block("BLPOP", "k", "0")
    wire.pipeline([("MULTI",), ("RPUSH", "k", "a"), ("DEL", "k"), ("SADD", "k", "x"), ("EXEC",)])
    wire.pipeline([("MULTI",), ("DEL", "k"), ("RPUSH", "k", "b", "c"), ("LPOP", "k"), ("EXEC",)])
    assert waiter.read() == [b"k", b"c"]


def test_other_types_do_not_serve(wire: Wire, block: Callable[..., Wire]) -> None:
    waiter = block("BLPOP", "k", "0")
    wire.pipeline([("SET", "k", "x"), ("DEL", "k"), ("ZADD", "k", "1", "m"), ("DEL", "k"), ("RPUSH", "k", "a")])
    assert waiter.read() == [b"k", b"a"]


def test_a_move_serves_whoever_waits_for_its_target(wire: Wire, block: Callable[..., Wire]) -> None:
    last = block("BLPOP", "c", "0")
    middle = block("BLMOVE", "b", "c", "LEFT", "LEFT", "0")
    first = block("BRPOPLPUSH", "a", "b", "0")
    wire("RPUSH", "a", "x")
    assert (first.read(), middle.read(), last.read()) == (b"x", b"x", [b"c", b"x"])
    assert wire("DBSIZE") == 0


def test_a_target_of_another_type_is_an_error_and_loses_nothing(wire: Wire, block: Callable[..., Wire]) -> None:
    wire("SET", "to", "x")
    waiter = block("BLMOVE", "k", "to", "LEFT", "LEFT", "0")
    wire("RPUSH", "k", "a")
    assert waiter.read() == "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert wire("LRANGE", "k", "0", "-1") == [b"a"]


def test_swapdb_serves(wire: Wire, connect: Callable[[], Wire], block: Callable[..., Wire]) -> None:
    waiter = block("BLPOP", "k", "0")
    there = connect()
    there.pipeline([("SELECT", "1"), ("RPUSH", "k", "a")])
    assert wire("SWAPDB", "0", "1") == "OK"
    assert waiter.read() == [b"k", b"a"]


@pytest.mark.parametrize(("command", "reply"), [
    (("BLPOP", "k", "0.05"), NullArray()), (("BLMOVE", "k", "l", "LEFT", "LEFT", "0.01"), None),
    (("BZPOPMIN", "k", "0.001"), NullArray()), (("BLMPOP", "0.01", "1", "k", "LEFT"), NullArray()),
])  # fmt: skip
def test_time_is_up(wire: Wire, command: tuple[str, ...], reply: object) -> None:
    assert wire(*command) == reply
    assert wire("PING") == "PONG"


@pytest.mark.parametrize(("timeout", "message"), [
    ("-1", "ERR timeout is negative"), ("x", "ERR timeout is not a float or out of range"),
    ("1e300", "ERR timeout is out of range"), ("inf", "ERR timeout is out of range"),
])  # fmt: skip
def test_timeouts_are_checked(wire: Wire, timeout: str, message: str) -> None:
    assert wire("BLPOP", "k", timeout) == message


def test_unblock(wire: Wire, block: Callable[..., Wire]) -> None:
    waiter = block("BLPOP", "k", "0")
    number = waiter_id(wire)
    assert wire("CLIENT", "UNBLOCK", number, "ERROR") == 1
    assert waiter.read() == "UNBLOCKED client unblocked via CLIENT UNBLOCK"
    assert isinstance(waiter("PING"), str)
    assert wire("CLIENT", "UNBLOCK", number) == 0


def test_what_waits_behind_runs_after(wire: Wire, block: Callable[..., Wire]) -> None:
    waiter = block("BLPOP", "k", "0")
    waiter.send(encode("SET", "after", "1") + encode("GET", "after"))
    assert wire("EXISTS", "after") == 0
    wire("RPUSH", "k", "a")
    assert [waiter.read() for _ in range(3)] == [[b"k", b"a"], "OK", b"1"]


def test_whoever_leaves_is_not_served(wire: Wire, block: Callable[..., Wire]) -> None:
    gone, here = block("BLPOP", "k", "0"), block("BLPOP", "k", "0")
    gone.close()
    wait_for(lambda: wire("CLIENT", "LIST").count(b" flags=b ") == 1)
    wire("RPUSH", "k", "a")
    assert here.read() == [b"k", b"a"]


def test_a_key_that_expires_before_the_end_serves_nobody(wire: Wire, block: Callable[..., Wire]) -> None:
    waiter = block("BLPOP", "k", "0")
    replies = wire.pipeline([("MULTI",), ("RPUSH", "k", "a"), ("PEXPIREAT", "k", "1"), ("EXEC",)])
    assert replies[-1] == [1, 1]
    wire("RPUSH", "k", "b")
    assert waiter.read() == [b"k", b"b"]


def test_wrong_types_are_errors_at_once(wire: Wire) -> None:
    wire("SET", "k", "x")
    assert isinstance(wire("BLPOP", "k", "0"), Failure)
    assert isinstance(wire("BZPOPMAX", "k", "0"), Failure)
    assert isinstance(wire("BLMOVE", "k", "l", "LEFT", "LEFT", "0"), Failure)
