"""CLIENT as connections see it, and MONITOR."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support import Server, Wire, encode, wait_for

Start = Callable[..., Server]


@pytest.fixture
def other(server: Server) -> Iterator[Wire]:
    with server.wire() as connection:
        yield connection


def fields(line: bytes) -> dict[str, str]:
    return dict(part.split("=", 1) for part in line.decode().split())


def test_list_and_info_say_who_is_there(wire: Wire, other: Wire) -> None:
    me, you = wire("CLIENT", "ID"), other("CLIENT", "ID")
    assert you > me
    assert wire("CLIENT", "SETNAME", "first") == "OK"
    mine = fields(wire("CLIENT", "INFO"))
    assert mine["id"] == str(me)
    assert mine["name"] == "first"
    assert mine["cmd"] == "client|info"
    assert mine["resp"] == "2"
    assert mine["user"] == "default"
    rows = {row["id"]: row for row in map(fields, wire("CLIENT", "LIST").splitlines())}
    assert {str(me), str(you)} <= rows.keys()
    assert rows[str(me)].keys() >= {
        "addr", "laddr", "fd", "name", "age", "idle", "flags", "db", "sub", "psub", "ssub", "multi", "qbuf",
        "qbuf-free", "argv-mem", "multi-mem", "rbs", "rbp", "obl", "oll", "omem", "tot-mem", "events", "cmd",
        "user", "redir", "resp",
    }  # fmt: skip
    assert [fields(row)["id"] for row in wire("CLIENT", "LIST", "ID", you).splitlines()] == [str(you)]
    assert len(wire("CLIENT", "LIST", "TYPE", "normal").splitlines()) >= 2
    assert wire("CLIENT", "LIST", "TYPE", "pubsub") == b""
    assert wire("CLIENT", "LIST", "TYPE", "x") == "ERR Unknown client type 'x'"


def test_names_have_no_spaces(wire: Wire) -> None:
    assert wire("CLIENT", "SETNAME", "a b").startswith("ERR Client names cannot contain spaces")
    assert wire("CLIENT", "GETNAME") is None
    assert wire("CLIENT", "SETNAME", "") == "OK"


def test_kill_by_id_address_and_filter(server: Server, wire: Wire) -> None:
    with server.wire() as victim:
        number = victim("CLIENT", "ID")
        assert wire("CLIENT", "KILL", "ID", number) == 1
        assert victim.closed()
    assert wire("CLIENT", "KILL", "ID", number) == 0
    with server.wire() as victim:
        address = fields(victim("CLIENT", "INFO"))["addr"]
        assert wire("CLIENT", "KILL", address) == "OK"
        assert victim.closed()
    assert wire("CLIENT", "KILL", "1.2.3.4:5") == "ERR No such client"
    with server.wire() as victim:
        address = fields(victim("CLIENT", "INFO"))["addr"]
        assert wire("CLIENT", "KILL", "ADDR", address, "TYPE", "normal", "USER", "default") == 1
        assert victim.closed()
    with server.wire() as victim:
        victim("PING")
        assert wire("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") >= 1
        assert victim.closed()
    assert wire("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no") == 1  # the killer itself, after its reply
    assert wire.closed()


def test_kill_in_the_middle_of_a_pipeline_ends_it(server: Server, wire: Wire) -> None:
    with server.wire() as suicidal:
        number = suicidal("CLIENT", "ID")
        kill = encode("CLIENT", "KILL", "ID", number, "SKIPME", "no")
        suicidal.send(encode("SET", "a", "1") + kill + encode("SET", "b", "2"))
        assert suicidal.read() == "OK"
        assert suicidal.read() == 1
        assert suicidal.closed()
    assert wire("MGET", "a", "b") == [b"1", None]


def test_reply_off_skip_on(wire: Wire) -> None:
    wire.send(encode("CLIENT", "REPLY", "OFF") + encode("SET", "k", "1") + encode("PING"))
    assert wire.quiet()
    wire.send(encode("CLIENT", "REPLY", "ON"))
    assert wire.read() == "OK"
    wire.send(encode("CLIENT", "REPLY", "SKIP") + encode("INCR", "k") + encode("GET", "k"))
    assert wire.read() == b"2"
    assert wire("CLIENT", "REPLY", "x") == "ERR syntax error"


def test_pause_holds_commands_back_and_unpause_lets_them_go(wire: Wire, other: Wire) -> None:
    assert wire("CLIENT", "PAUSE", 60_000, "WRITE") == "OK"
    assert other("GET", "k") is None  # reads go on
    other.send(encode("SET", "k", "v") + encode("GET", "k"))
    assert other.quiet()
    assert wire("EXISTS", "k") == 0
    assert wire("CLIENT", "UNPAUSE") == "OK"
    assert [other.read(), other.read()] == ["OK", b"v"]


def test_pause_all_ends_by_itself(wire: Wire, other: Wire) -> None:
    assert wire("CLIENT", "PAUSE", 200) == "OK"
    assert other("PING") == "PONG"
    assert wire("CLIENT", "PAUSE", "x") == "ERR timeout is not an integer or out of range"


def test_no_evict_no_touch_setinfo(wire: Wire) -> None:
    assert wire("CLIENT", "NO-EVICT", "on") == "OK"
    assert "e" in fields(wire("CLIENT", "INFO"))["flags"]
    assert wire("CLIENT", "NO-EVICT", "off") == "OK"
    assert wire("CLIENT", "NO-TOUCH", "on") == "OK"
    assert wire("CLIENT", "NO-TOUCH", "maybe") == "ERR syntax error"
    assert wire("CLIENT", "SETINFO", "LIB-NAME", "lib") == "OK"
    assert wire("CLIENT", "SETINFO", "lib-ver", "1.2") == "OK"
    assert wire("CLIENT", "UNBLOCK", 999_999) == 0
    info = fields(wire("CLIENT", "INFO"))
    assert (info["lib-name"], info["lib-ver"]) == ("lib", "1.2")


def test_monitor_shows_every_command_of_every_client(wire: Wire, server: Server) -> None:
    with server.wire() as monitor:
        assert monitor("MONITOR") == "OK"
        wire.pipeline([("SELECT", 3), ("SET", "k", b'a"\r\n\x01'), ("GET", "k"), ("SELECT", 0)])
        lines = [monitor.read() for _ in range(4)]
        assert lines[1].split(" ", 3)[1] == "[3"
        assert lines[1].endswith('"SET" "k" "a\\"\\r\\n\\x01"')
        assert lines[2].endswith('"GET" "k"')
        wire("AUTH", "x")  # passwords are never shown
        wire("PING")
        assert '"x"' not in monitor.read()
        assert wire("RESET") == "RESET"
        monitor.send(encode("RESET"))
        wait_for(lambda: monitor.read() == "RESET", what="monitoring ends")
        wire("PING")
        assert monitor("ECHO", "quiet") == b"quiet"


def test_a_monitor_that_does_not_read_is_let_go(start_server: Start) -> None:
    server = start_server("--client-output-buffer-limit", "normal 1000000 0 0 replica 1000000 0 0")
    with server.wire() as wire, server.wire() as monitor:
        monitor("MONITOR")
        for _ in range(300):
            wire.pipeline([("SET", "k", b"x" * 1000)] * 100)
        wait_for(lambda: len(wire("CLIENT", "LIST").splitlines()) == 1, what="the monitor is gone")
