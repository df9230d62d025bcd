"""MULTI, EXEC and WATCH over sockets, by the engine's own queue and behind gates."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.support import Failure, NullArray, Server, Wire, encode, wait_for

NOT_A_LIST = "WRONGTYPE Operation against a key holding the wrong kind of value"


@pytest.fixture
def other(server: Server) -> Iterator[Wire]:
    with server.wire() as connection:
        yield connection


def test_replies_come_as_one(wire: Wire) -> None:
    replies = wire.pipeline([
        ("MULTI",), ("SET", "a", "1"), ("INCR", "a"), ("LPUSH", "a", "x"), ("MGET", "a", "b"), ("PING",), ("EXEC",),
    ])  # fmt: skip
    assert replies == ["OK", *["QUEUED"] * 5, ["OK", 2, NOT_A_LIST, [b"2", None], "PONG"]]
    assert wire("GET", "a") == b"2"


def test_nothing_runs_before_exec(wire: Wire, other: Wire) -> None:
    wire.pipeline([("MULTI",), ("SET", "k", "1")])
    assert other("GET", "k") is None
    assert wire("DISCARD") == "OK"
    assert wire("GET", "k") is None
    assert wire("EXEC") == "ERR EXEC without MULTI"
    assert wire("DISCARD") == "ERR DISCARD without MULTI"


@pytest.mark.parametrize(
    "bad", [("nonsense", "1"), ("GET",), ("CLIENT", "nonsense"), ("CONFIG", "GET"), ("SHUTDOWN", "NOSAVE")]
)
def test_what_cannot_be_queued_spoils_the_whole(wire: Wire, bad: tuple[str, ...]) -> None:
    replies = wire.pipeline([("MULTI",), ("SET", "k", "1"), bad, ("SET", "k", "2"), ("EXEC",), ("EXISTS", "k")])
    assert isinstance(replies[2], Failure)
    assert replies[4:] == ["EXECABORT Transaction discarded because of previous errors.", 0]


def test_nested_multi_and_watch_are_refused_and_harmless(wire: Wire) -> None:
    replies = wire.pipeline([("MULTI",), ("MULTI",), ("WATCH", "k"), ("PING",), ("EXEC",)])
    assert replies == [
        "OK", "ERR MULTI calls can not be nested", "ERR WATCH inside MULTI is not allowed", "QUEUED", ["PONG"],
    ]  # fmt: skip


@pytest.mark.parametrize("change", [
    ("SET", "k", "2"), ("INCR", "k"), ("DEL", "k"), ("APPEND", "k", "0"), ("EXPIRE", "k", "100"), ("RENAME", "k", "l"),
    ("FLUSHDB",), ("FLUSHALL",), ("SWAPDB", "0", "1"), ("MSET", "j", "1", "k", "1"), ("MOVE", "k", "1"),
])  # fmt: skip
def test_a_change_of_a_watched_key_ends_the_transaction(wire: Wire, other: Wire, change: tuple[str, ...]) -> None:
    wire("SET", "k", "1")
    wire("WATCH", "x", "k")
    other(*change)
    assert wire.pipeline([("MULTI",), ("SET", "done", "1"), ("EXEC",)])[2] == NullArray()
    assert wire.pipeline([("MULTI",), ("SET", "done", "1"), ("EXEC",)])[2] == ["OK"]


@pytest.mark.parametrize("change", [("SET", "other", "2"), ("GET", "k"), ("DEL", "x"), ("SWAPDB", "2", "3")])
def test_other_changes_do_not(wire: Wire, other: Wire, change: tuple[str, ...]) -> None:
    wire("SET", "k", "1")
    wire("WATCH", "x", "k")
    other(*change)
    assert wire.pipeline([("MULTI",), ("GET", "k"), ("EXEC",)])[2] == [b"1"]


def test_the_same_name_in_another_database_is_another_key(wire: Wire, other: Wire) -> None:
    wire("WATCH", "k")
    other.pipeline([("SELECT", "1"), ("SET", "k", "1")])
    assert wire.pipeline([("MULTI",), ("PING",), ("EXEC",)])[2] == ["PONG"]


def test_unwatch_and_discard_forget(wire: Wire, other: Wire) -> None:
    wire("WATCH", "k")
    wire("UNWATCH")
    other("SET", "k", "1")
    assert wire.pipeline([("MULTI",), ("PING",), ("EXEC",)])[2] == ["PONG"]
    wire("WATCH", "k")
    wire.pipeline([("MULTI",), ("DISCARD",)])
    other("SET", "k", "1")
    assert wire.pipeline([("MULTI",), ("PING",), ("EXEC",)])[2] == ["PONG"]


def test_a_watched_key_that_expires_ends_the_transaction(wire: Wire) -> None:
    wire("SET", "k", "1", "PX", "30")
    wire("WATCH", "k")
    wait_for(lambda: wire("EXISTS", "k") == 0)
    assert wire.pipeline([("MULTI",), ("PING",), ("EXEC",)])[2] == NullArray()
    wire("WATCH", "k")  # absent by now: that it is gone is no change
    assert wire.pipeline([("MULTI",), ("PING",), ("EXEC",)])[2] == ["PONG"]


def test_inside_exec_nothing_waits(wire: Wire) -> None:
    waiting = [("BLPOP", "l", "0"), ("BRPOPLPUSH", "l", "m", "0"), ("BLMOVE", "l", "m", "LEFT", "LEFT", "0"),
               ("BZPOPMIN", "z", "0"), ("BLMPOP", "0", "1", "l", "LEFT"), ("BZMPOP", "0", "1", "z", "MIN")]  # fmt: skip
    replies = wire.pipeline([("MULTI",), *waiting, ("EXEC",)])
    assert replies[-1] == [NullArray(), None, None, NullArray(), NullArray(), NullArray()]


def test_behind_gates_the_order_is_kept(server: Server, wire: Wire) -> None:
    with server.wire() as monitor:
        assert monitor("MONITOR") == "OK"
        replies = wire.pipeline([("MULTI",), ("SET", "k", "1"), ("CLIENT", "GETNAME"), ("INCR", "k"), ("EXEC",)])
        assert replies[-1] == ["OK", None, 2]
        seen = [str(monitor.read()).split("] ", 1)[1] for _ in range(5)]
    assert seen == ['"MULTI"', '"SET" "k" "1"', '"CLIENT" "GETNAME"', '"INCR" "k"', '"EXEC"']


def test_a_queue_is_bounded(start_server: Callable[..., Server]) -> None:
    server = start_server("--client-query-buffer-limit", "1mb")
    with server.wire() as wire:
        wire("MULTI")
        with contextlib.suppress(OSError):  # it may end while we still send
            for _ in range(64):
                wire.send(encode("SET", "k", "x" * 100_000))
        wait_for(wire.closed)
    with server.wire() as wire:
        assert wire("EXISTS", "k") == 0


def test_a_large_transaction_is_one(wire: Wire, other: Wire) -> None:
    wire.pipeline([("MULTI",), *(("RPUSH", "l", f"v{n}") for n in range(5000))])
    assert wire("EXEC") == list(range(1, 5001))
    assert other("LLEN", "l") == 5000


def test_reset_and_quit_leave_the_transaction(wire: Wire) -> None:
    assert wire.pipeline([("MULTI",), ("SET", "k", "1"), ("RESET",), ("EXISTS", "k")])[2:] == ["RESET", 0]
    assert wire.pipeline([("MULTI",), ("QUIT",)])[1] == "OK"
    assert wire.closed()


def test_client_list_tells_of_it(wire: Wire, other: Wire) -> None:
    number = wire("CLIENT", "ID")
    wire.pipeline([("WATCH", "k"), ("MULTI",), ("GET", "k"), ("GET", "k")])
    line = other("CLIENT", "LIST", "ID", number).decode()
    assert " multi=2 " in line
    assert " flags=x " in line
    assert " multi-mem=0 " not in line
    wire("DISCARD")
