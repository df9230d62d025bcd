"""Commands about the connection."""

from __future__ import annotations

import pytest

from tests.unit.commands.desk import Desk, FakeClient
from zeekdb.commands import connection

LIST_FIELDS = [
    "id", "addr", "laddr", "fd", "name", "age", "idle", "flags", "db", "sub", "psub", "ssub", "multi", "qbuf",
    "qbuf-free", "argv-mem", "multi-mem", "rbs", "rbp", "obl", "oll", "omem", "tot-mem", "events", "cmd", "user",
    "redir", "resp", "lib-name", "lib-ver",
]  # fmt: skip


@pytest.fixture
def desk() -> Desk:
    return Desk(clients=3)


def test_ping(desk: Desk) -> None:
    assert desk("PING") == "PONG"
    assert desk("PING", "x") == b"x"
    assert desk("PING", "x", "y") == "ERR wrong number of arguments for 'ping' command"
    desk.me.subscriptions = 1
    assert desk("PING") == [b"pong", b""]
    assert desk("PING", "x") == [b"pong", b"x"]


def test_auth(desk: Desk) -> None:
    assert desk("AUTH", "x").startswith("ERR AUTH <password> called without any password configured")
    desk.require("secret")
    wrong = "WRONGPASS invalid username-password pair or user is disabled."
    assert desk("AUTH", "x") == desk("AUTH", "root", "secret") == wrong
    assert desk("AUTH", "a", "b", "c") == "ERR syntax error"
    assert not desk.me.authenticated
    assert desk("AUTH", "default", "secret") == "OK"
    assert desk.me.authenticated


def test_hello(desk: Desk) -> None:
    assert desk("HELLO", "4") == "NOPROTO unsupported protocol version"
    assert desk("HELLO", "x") == "ERR Protocol version is not an integer or out of range"
    assert desk("HELLO", "3", "FOO") == "ERR Syntax error in HELLO option 'FOO'"
    assert desk("HELLO", "3", "SETNAME", "a b").startswith("ERR Client names cannot contain")
    desk.require("secret")
    assert desk("HELLO", "3").startswith("NOAUTH HELLO must be called")
    reply = desk("HELLO", "3", "AUTH", "default", "secret", "SETNAME", "me")
    assert (reply[b"proto"], reply[b"id"], reply[b"modules"]) == (3, 1, [])
    assert (desk.me.protocol, desk.me.name) == (3, b"me")
    assert desk("HELLO")[b"proto"] == 3


def test_select(desk: Desk) -> None:
    assert desk("SELECT", "3") == "OK"
    assert desk.me.db_index == 3
    assert desk("SELECT", "16") == desk("SELECT", "-1") == "ERR DB index is out of range"
    assert desk("SELECT", "x") == "ERR value is not an integer or out of range"


def test_quit_and_reset(desk: Desk) -> None:
    assert desk("QUIT", "whatever") == "OK"
    assert desk("RESET") == "RESET"
    assert desk.me.deeds == [("kill", True), "reset"]


def test_names(desk: Desk) -> None:
    assert desk("CLIENT", "GETNAME") is None
    assert desk("CLIENT", "SETNAME", "a b").startswith("ERR Client names cannot contain")
    assert desk("CLIENT", "SETNAME", "ab") == "OK"
    assert desk("CLIENT", "GETNAME") == b"ab"
    assert desk("CLIENT", "SETNAME", "") == "OK"
    assert desk("CLIENT", "GETNAME") is None
    assert desk("CLIENT", "SETINFO", "lib-name", "x y") == (
        "ERR lib-name cannot contain spaces, newlines or special characters."
    )
    assert desk("CLIENT", "SETINFO", "lib-ver", "1") == "OK"
    assert desk.me.lib_ver == b"1"
    assert desk("CLIENT", "SETINFO", "color", "red") == "ERR Unrecognized option 'color'"


def test_list(desk: Desk) -> None:
    lines = desk("CLIENT", "LIST").data.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["id=1", "id=2", "id=3"]
    fields = dict(field.split("=", 1) for field in lines[0].split(" "))
    assert list(fields) == LIST_FIELDS
    assert fields["flags"] == "N"
    assert desk("CLIENT", "LIST", "ID", "3", "9", "1").data.decode().count("\n") == 2
    assert desk("CLIENT", "LIST", "ID", "x") == "ERR Invalid client ID"
    assert desk("CLIENT", "LIST", "TYPE", "pubsub").data == b""
    assert desk("CLIENT", "LIST", "TYPE", "x") == "ERR Unknown client type 'x'"
    assert desk("CLIENT", "LIST", "X") == "ERR syntax error"
    assert desk("CLIENT", "INFO").data.startswith(b"id=1 ")
    assert desk("CLIENT", "ID") == 1
    assert desk("CLIENT", "CAPA", "redirect", "x") == "OK"


def test_flags() -> None:
    client = FakeClient(1, is_blocked=True, is_unix=True, no_evict=True, no_touch=True, in_multi=True)
    assert connection.client_flags(client) == "xbUeT"


@pytest.mark.parametrize(
    ("words", "killed"),
    [
        (("ID", "2"), [2]),
        (("ID", "1"), []),
        (("ID", "1", "SKIPME", "no"), [1]),
        (("ADDR", "127.0.0.1:5003"), [3]),
        (("LADDR", "127.0.0.1:6379"), [2, 3]),
        (("LADDR", "127.0.0.1:6379", "SKIPME", "no"), [1, 2, 3]),
        (("TYPE", "normal", "USER", "default"), [2, 3]),
        (("TYPE", "replica"), []),
        (("SKIPME", "yes"), [2, 3]),
    ],
)
def test_kill(desk: Desk, words: tuple[str, ...], killed: list[int]) -> None:
    assert desk("CLIENT", "KILL", *words) == len(killed)
    assert [client.id for client in desk.server.clients() if client.deeds] == killed
    assert all(client.deeds == [("kill", client.id == 1)] for client in desk.server.clients() if client.deeds)


def test_kill_by_address(desk: Desk) -> None:
    assert desk("CLIENT", "KILL", "127.0.0.1:1") == "ERR No such client"
    assert desk("CLIENT", "KILL", "127.0.0.1:5001") == "OK"
    assert desk.me.deeds == [("kill", True)]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("ID", "0"), "ERR client-id should be greater than 0"),
        (("ID", "x"), "ERR client-id should be greater than 0"),
        (("TYPE", "x"), "ERR Unknown client type 'x'"),
        (("USER", "x"), "ERR No such user 'x'"),
        (("SKIPME", "maybe"), "ERR syntax error"),
        (("ID", "1", "ADDR"), "ERR syntax error"),
        (("FOO", "x"), "ERR syntax error"),
    ],
)
def test_kill_errors(desk: Desk, words: tuple[str, ...], error: str) -> None:
    assert desk("CLIENT", "KILL", *words) == error


def test_pause(desk: Desk) -> None:
    assert desk("CLIENT", "PAUSE", "10") == desk("CLIENT", "PAUSE", "10", "write") == "OK"
    assert desk("CLIENT", "UNPAUSE") == "OK"
    assert desk.server.deeds == [("pause", False), ("pause", True), "unpause"]
    assert desk("CLIENT", "PAUSE", "x") == "ERR timeout is not an integer or out of range"
    assert desk("CLIENT", "PAUSE", "-1") == "ERR timeout is negative"
    assert desk("CLIENT", "PAUSE", str(2**63 - 1)) == "ERR timeout is out of range"
    assert desk("CLIENT", "PAUSE", "1", "x") == "ERR CLIENT PAUSE mode must be WRITE or ALL"


def test_switches(desk: Desk) -> None:
    assert desk("CLIENT", "NO-EVICT", "on") == desk("CLIENT", "NO-TOUCH", "ON") == "OK"
    assert (desk.me.no_evict, desk.me.no_touch) == (True, True)
    assert desk("CLIENT", "NO-TOUCH", "maybe") == "ERR syntax error"


def test_reply_modes(desk: Desk) -> None:
    desk("CLIENT", "REPLY", "off")
    desk("CLIENT", "REPLY", "skip")
    assert desk.me.reply_mode == "off"  # skip means nothing while replies are off
    assert desk("CLIENT", "REPLY", "on") == "OK"
    desk("CLIENT", "REPLY", "skip")
    assert desk.me.reply_mode == "skip"
    assert desk("CLIENT", "REPLY", "x") == "ERR syntax error"


def test_unblock(desk: Desk) -> None:
    assert desk("CLIENT", "UNBLOCK", "2") == desk("CLIENT", "UNBLOCK", "99") == 0
    desk.server.table[2].is_blocked = True
    assert desk("CLIENT", "UNBLOCK", "2", "error") == 1
    assert desk.server.table[2].deeds == [("unblock", True)]
    assert desk("CLIENT", "UNBLOCK", "2", "x") == "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (b"auth a b", b"auth (redacted) (redacted)"),
        (b"HELLO 3 AUTH a b SETNAME c", b"HELLO 3 AUTH (redacted) (redacted) SETNAME c"),
        (b"config set requirepass x hz 5", b"config set requirepass (redacted) hz 5"),
        (b"CONFIG GET requirepass", b"CONFIG GET requirepass"),
        (b"migrate h 1 k 0 9 COPY AUTH p", b"migrate h 1 k 0 9 COPY AUTH (redacted)"),
        (b"migrate h 1 k 0 9 auth2 auth p keys auth b", b"migrate h 1 k 0 9 auth2 (redacted) (redacted) keys auth b"),
        (b"migrate h 1 k 0 9 auth x", b"migrate h 1 k 0 9 auth (redacted)"),
        (b"MIGRATE h 1 auth 0 9 AUTH2 a b KEYS k", b"MIGRATE h 1 auth 0 9 AUTH2 (redacted) (redacted) KEYS k"),
        (b"acl setuser a on >b", b"acl setuser (redacted) (redacted) (redacted)"),
        (b"set a b", b"set a b"),
    ],
)
def test_passwords_stay_out_of_logs(call: bytes, shown: bytes) -> None:
    assert connection.redacted(call.split()) == shown.split()
