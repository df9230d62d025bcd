"""Users over sockets: who may log in, what is refused and logged, what changes while connections are there, files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ZEEKDB, Failure, Server, SetReply, Wire, wait_for

NOAUTH = "NOAUTH Authentication required."
WRONGPASS = "WRONGPASS invalid username-password pair or user is disabled."
NO_KEY = "NOPERM No permissions to access a key"
IN_EXEC = (
    "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is "
    "no longer allowed for the following reason: "
)


def no_command(user: str, command: str) -> str:
    return f"NOPERM User {user} has no permissions to run the '{command}' command"


def fields(reply: Any) -> dict[str, Any]:
    """A flat array of names and values."""
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


@pytest.fixture
def root(server: Server) -> Iterator[Wire]:
    """A connection of the default user; all other users and the log go afterwards."""
    with server.wire() as wire:
        assert wire("FLUSHALL") == "OK"
        yield wire
        users = [name for name in wire("ACL", "USERS") if name != b"default"]
        if users:
            wire("ACL", "DELUSER", *users)
        wire("ACL", "SETUSER", "default", "reset", "on", "nopass", "~*", "&*", "+@all")
        wire("ACL", "LOG", "RESET")


@pytest.fixture
def login(server: Server, root: Wire) -> Iterator[Callable[..., Wire]]:
    """Makes a user of the given rules (`on nopass` before them) and answers a connection that is logged in."""
    with contextlib.ExitStack() as stack:

        def made(name: str, *rules: str) -> Wire:
            assert root("ACL", "SETUSER", name, "reset", "on", "nopass", *rules) == "OK"
            wire = stack.enter_context(server.wire())
            assert wire("AUTH", name, "any") == "OK"
            return wire

        yield made


# --- users --------------------------------------------------------------------------------------------------------


def test_the_user_that_everybody_is(root: Wire) -> None:
    assert root("ACL", "WHOAMI") == b"default"
    assert root("ACL", "USERS") == [b"default"]
    assert root("ACL", "LIST") == [b"user default on nopass sanitize-payload ~* &* +@all"]
    assert root("ACL", "DELUSER", "none", "default") == "ERR The 'default' user cannot be removed"
    assert root("ACL", "GETUSER", "none") is None
    assert root("AUTH", "x").startswith("ERR AUTH <password> called without any password configured")
    assert root("AUTH", "a", "b", "c") == "ERR syntax error"


def test_a_user_as_getuser_shows_it(root: Wire) -> None:
    rules = ["on", ">secret", "-@all", "+get", "&c1", "%R~f", "%W~b", "~z"]
    root("ACL", "SETUSER", "eve", *rules, "(+set ~k)", "(", "+del", ")")
    shown = fields(root("ACL", "GETUSER", "eve"))
    assert shown["flags"] == [b"on", b"sanitize-payload"]
    assert [len(digest) for digest in shown["passwords"]] == [64]
    assert (shown["commands"], shown["keys"], shown["channels"]) == (b"-@all +get", b"%R~f %W~b ~z", b"&c1")
    assert [fields(each) for each in shown["selectors"]] == [
        {"commands": b"-@all +set", "keys": b"~k", "channels": b""},
        {"commands": b"-@all +del", "keys": b"", "channels": b""},
    ]
    root("HELLO", "3")
    shown = root("ACL", "GETUSER", "eve")
    assert shown[b"flags"] == SetReply([b"on", b"sanitize-payload"])
    assert shown[b"selectors"][0] == {b"commands": b"-@all +set", b"keys": b"~k", b"channels": b""}


def test_all_of_the_rules_or_none(root: Wire) -> None:
    root("ACL", "SETUSER", "eve", "+get")
    wrong = root("ACL", "SETUSER", "eve", "+set", "nonsense", "+del")
    assert wrong == "ERR Error in ACL SETUSER modifier 'nonsense': Syntax error"
    assert fields(root("ACL", "GETUSER", "eve"))["commands"] == b"-@all +get"
    assert root("ACL", "SETUSER", "new", "+nosuch").endswith("Unknown command or category name in ACL")
    assert root("ACL", "GETUSER", "new") is None
    assert root("ACL", "SETUSER", "new", "(+get", "~x") == (
        "ERR Unmatched parenthesis in acl selector starting at '(+get'."
    )
    for name in (b"a b", b"a\0b", b"a\nb"):
        assert root("ACL", "SETUSER", name) == "ERR Usernames can't contain spaces or null characters"


def test_passwords(server: Server, root: Wire) -> None:
    root("ACL", "SETUSER", "eve", ">one", ">two", b">\0\xff", "+@all")
    with server.wire() as wire:
        assert wire("AUTH", "eve", "one") == WRONGPASS  # still off
        root("ACL", "SETUSER", "eve", "on")
        assert [wire("AUTH", "eve", word) for word in ("one", "two", b"\0\xff", b"", "three")] == [
            "OK", "OK", "OK", WRONGPASS, WRONGPASS,
        ]  # fmt: skip
        root("ACL", "SETUSER", "eve", "<one")
        assert wire("AUTH", "eve", "one") == WRONGPASS
        assert wire("ACL", "WHOAMI") == b"eve"  # a failure leaves everything as it was
        assert wire("HELLO", "3", "AUTH", "eve", "bad", "SETNAME", "x") == WRONGPASS
        assert wire("HELLO", "3", "AUTH", "eve", "two", "SETNAME", "x")[b"proto"] == 3
        assert wire("CLIENT", "GETNAME") == b"x"
        assert wire("AUTH", "none", "x") == WRONGPASS
        root("ACL", "SETUSER", "eve", "off")
        assert wire("PING") == "PONG"  # who is in stays in
        assert wire("RESET") == "RESET"
        assert wire("ACL", "WHOAMI") == b"default"


def test_requirepass_is_a_password_of_the_default_user(start_server: Callable[..., Server]) -> None:
    server = start_server("--requirepass", "secret")
    with server.wire() as wire, server.wire() as other:
        assert wire("PING") == NOAUTH
        assert wire("HELLO", "3").startswith("NOAUTH HELLO must be called")
        assert wire("AUTH", "wrong") == WRONGPASS
        assert wire("AUTH", "secret") == "OK"
        assert wire("RESET") == "RESET"
        assert wire("PING") == NOAUTH
        assert wire("AUTH", "default", "secret") == "OK"
        assert len(fields(wire("ACL", "GETUSER", "default"))["passwords"]) == 1
        assert other("PING") == NOAUTH
        assert wire("CONFIG", "SET", "requirepass", "") == "OK"
        assert other("PING") == "PONG"
        assert wire("ACL", "SETUSER", "default", ">new") == "OK"
        assert wire("PING") == "PONG"
        assert other("PING") == NOAUTH  # it has never logged in
        assert wire("CONFIG", "SET", "requirepass", b"a\0b") == "OK"
        assert other("AUTH", "a") == WRONGPASS
        assert other("AUTH", b"a\0b") == "OK"


def test_a_default_user_that_is_off(server: Server, root: Wire) -> None:
    assert root("ACL", "SETUSER", "default", "off") == "OK"
    with server.wire() as wire:
        assert wire("PING") == NOAUTH
        assert root("ACL", "SETUSER", "default", "on") == "OK"
        assert wire("PING") == "PONG"


# --- what is refused ----------------------------------------------------------------------------------------------


def test_commands_and_keys(root: Wire, login: Callable[..., Wire]) -> None:
    eve = login("eve", "+@read", "+set", "+config|get", "+acl|whoami", "~k*", "%R~r*")
    assert eve("SET", "k1", "v") == "OK"
    assert eve("GET", "k1") == b"v"
    assert eve("DEL", "k1") == no_command("eve", "del")
    assert eve("SET", "r1", "v") == NO_KEY
    assert eve("GET", "r1") is None
    assert eve("MGET", "k1", "x") == NO_KEY
    assert eve("CONFIG", "GET", "port") != []
    assert eve("CONFIG", "SET", "port", "1") == no_command("eve", "config|set")
    assert eve("ACL", "SETUSER", "eve", "+@all") == no_command("eve", "acl|setuser")
    assert eve("NOSUCH").startswith("ERR unknown command")
    assert eve("GET") == "ERR wrong number of arguments for 'get' command"
    assert eve("ACL", "WHOAMI") == b"eve"
    assert root("GET", "k1") == b"v"


def test_changes_reach_connections_at_once(root: Wire, login: Callable[..., Wire]) -> None:
    eve = login("eve", "~*", "&*", "+@all")
    assert eve("SET", "k", "v") == "OK"
    for rules, expected in ((["-set"], no_command("eve", "set")), (["+set", "resetkeys"], NO_KEY), (["~k"], "OK")):
        assert root("ACL", "SETUSER", "eve", *rules) == "OK"
        assert eve.pipeline([("SET", "k", "v")] * 3) == [expected] * 3
    assert root("ACL", "SETUSER", "eve", "allkeys", "+@all") == "OK"
    assert eve("SET", "x", "v") == "OK"


def test_a_pipeline_may_change_its_own_rights(root: Wire, login: Callable[..., Wire]) -> None:
    eve = login("eve", "~*", "&*", "+@all")
    replies = eve.pipeline([("GET", "a"), ("ACL", "SETUSER", "eve", "-get"), ("GET", "a"), ("SET", "a", "1")])
    assert replies == [None, "OK", no_command("eve", "get"), "OK"]


def test_transactions(root: Wire, login: Callable[..., Wire]) -> None:
    eve = login("eve", "~k*", "+@all", "-del")
    assert eve.pipeline([("MULTI",), ("SET", "k", "1"), ("DEL", "k"), ("EXEC",)]) == [
        "OK", "QUEUED", no_command("eve", "del"), "EXECABORT Transaction discarded because of previous errors.",
    ]  # fmt: skip
    eve.pipeline([("MULTI",), ("SET", "k", "1"), ("SET", "k2", "2"), ("INCR", "k")])
    root("ACL", "SETUSER", "eve", "-incr", "resetkeys", "~k")
    assert eve("EXEC") == [
        "OK", IN_EXEC + "no permission to touch the specified keys",
        IN_EXEC + "no permission to execute the command or subcommand",
    ]  # fmt: skip
    objects = [(e["object"], e["context"]) for e in map(fields, root("ACL", "LOG"))]
    assert objects == [(b"incr", b"multi"), (b"k2", b"multi"), (b"del", b"multi")]


def test_a_fast_transaction_sees_a_change_too(root: Wire, login: Callable[..., Wire]) -> None:
    eve = login("eve", "~*", "&*", "+@all")
    assert eve.pipeline([("MULTI",), ("SET", "a", "1"), ("GET", "a")]) == ["OK", "QUEUED", "QUEUED"]
    root("ACL", "SETUSER", "eve", "-get")
    assert eve("EXEC") == ["OK", IN_EXEC + "no permission to execute the command or subcommand"]


def test_scripts(root: Wire, login: Callable[..., Wire]) -> None:
    eve = login("eve", "~k*", "+eval", "+set")
    assert eve("EVAL", "return redis.call('set', KEYS[1], 'v')", "1", "k") == "OK"
    assert eve("EVAL", "return 1", "1", "x") == NO_KEY
    wrong = eve("EVAL", "return redis.call('set', 'x', 'v')", "0")
    assert wrong.startswith("ERR ACL failure in script: No permissions to access a key")
    wrong = eve("EVAL", "return redis.pcall('get', 'k')", "0")
    assert wrong.startswith("ERR ACL failure in script: User eve has no permissions to run the 'get' command")
    assert eve("EVAL", "return redis.acl_check_cmd('set', 'k', 1)", "0") == 1
    assert eve("EVAL", "return redis.acl_check_cmd('set', 'x', 1)", "0") is None
    objects = [(e["object"], e["context"]) for e in map(fields, root("ACL", "LOG"))]
    assert objects == [(b"get", b"lua"), (b"x", b"lua"), (b"x", b"toplevel")]


def test_what_waits_is_asked_again(root: Wire, login: Callable[..., Wire]) -> None:
    eve = login("eve", "~*", "&*", "+@all")
    eve.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nl\r\n$1\r\n0\r\n")
    wait_for(lambda: b"blocked_clients:1" in root("INFO", "clients"))
    root("ACL", "SETUSER", "eve", "resetkeys")
    assert root("LPUSH", "l", "x") == 1
    assert eve.read() == NO_KEY
    assert root("LRANGE", "l", "0", "-1") == [b"x"]


def test_sort_leads_only_where_all_may_be_read(root: Wire, login: Callable[..., Wire]) -> None:
    root("RPUSH", "l", "1")
    eve = login("eve", "+sort", "+sort_ro", "~l")
    assert eve("SORT", "l") == [b"1"]
    assert eve("SORT", "l", "BY", "w*") == "ERR BY option of SORT denied due to insufficient ACL permissions."
    assert eve("SORT", "l", "BY", "nosort") == [b"1"]
    assert eve("SORT_RO", "l", "GET", "#") == "ERR GET option of SORT denied due to insufficient ACL permissions."
    root("ACL", "SETUSER", "eve", "%R~*")
    assert eve("SORT", "l", "BY", "w*", "GET", "#") == [b"1"]


def test_who_is_deleted_is_out(root: Wire, login: Callable[..., Wire]) -> None:
    eve, bob = login("eve", "+@all"), login("bob", "+@all")
    assert root("ACL", "DELUSER", "eve", "none") == 1
    assert eve.closed()
    assert bob("ACL", "DELUSER", "bob") == 1  # answered before
    assert bob.closed()
    assert root("CLIENT", "KILL", "USER", "eve") == "ERR No such user 'eve'"


def test_killing_by_user(root: Wire, login: Callable[..., Wire]) -> None:
    eve = login("eve", "+@all")
    assert root("CLIENT", "KILL", "USER", "eve") == 1
    assert eve.closed()


# --- the log ------------------------------------------------------------------------------------------------------


def test_the_log(root: Wire, login: Callable[..., Wire]) -> None:
    eve = login("eve", "+get", "~k")
    before_ms = int(time.time() * 1000)
    for _ in range(3):
        eve("SET", "k", "v")
    eve("GET", "secret")
    eve("AUTH", "bob", "x")
    eve("HELLO", "3", "AUTH", "bob", "x")
    first, *rest = map(fields, root("ACL", "LOG"))
    assert list(first) == [
        "count", "reason", "context", "object", "username", "age-seconds", "client-info", "entry-id",
        "timestamp-created", "timestamp-last-updated",
    ]  # fmt: skip
    assert first["timestamp-created"] >= before_ms - 1
    assert b" user=eve " in first["client-info"]
    assert not first["client-info"].endswith(b"\n")
    assert float(first["age-seconds"]) >= 0
    told = [(e["count"], e["reason"], e["object"], e["username"]) for e in (first, *rest)]
    assert told == [
        (1, b"auth", b"HELLO", b"bob"), (1, b"auth", b"AUTH", b"bob"), (1, b"key", b"secret", b"eve"),
        (3, b"command", b"set", b"eve"),
    ]  # fmt: skip
    assert len(root("ACL", "LOG", "2")) == 2
    assert root("ACL", "LOG", "-1") == []
    assert root("ACL", "LOG", "x") == "ERR value is not an integer or out of range"
    root("CONFIG", "SET", "acllog-max-len", "2")
    eve("SET", "other", "v")
    eve("GET", "other")
    assert len(root("ACL", "LOG")) == 2
    root("CONFIG", "SET", "acllog-max-len", "128")
    root("HELLO", "3")
    assert isinstance(root("ACL", "LOG")[0][b"age-seconds"], float)
    assert root("ACL", "LOG", "RESET") == "OK"
    assert root("ACL", "LOG") == []
    info = dict(line.split(b":") for line in root("INFO", "stats").split(b"\r\n") if b":" in line)
    assert int(info[b"acl_access_denied_cmd"]) >= 3
    assert int(info[b"acl_access_denied_auth"]) >= 2
    assert int(info[b"acl_access_denied_key"]) >= 1


# --- the rest -----------------------------------------------------------------------------------------------------


def test_dry_runs(root: Wire) -> None:
    root("ACL", "SETUSER", "eve", "+@all", "-config", "%R~r*", "%W~w*", "&c*")
    assert root("ACL", "DRYRUN", "eve", "GET", "r1") == "OK"
    assert root("ACL", "DRYRUN", "eve", "GET", "w1") == b"User eve has no permissions to access the 'w1' key"
    assert root("ACL", "DRYRUN", "eve", "CONFIG", "GET", "x") == (
        b"User eve has no permissions to run the 'config|get' command"
    )
    assert root("ACL", "DRYRUN", "none", "GET", "x") == "ERR User 'none' not found"
    assert root("ACL", "DRYRUN", "eve", "nosuch", "x") == "ERR Command 'nosuch' not found"
    assert root("ACL", "DRYRUN", "eve", "SET", "x") == "ERR wrong number of arguments for 'set' command"
    assert root("ACL", "LOG") == []


def test_categories(root: Wire) -> None:
    assert {b"keyspace", b"read", b"scripting", b"dangerous"} <= set(root("ACL", "CAT"))
    assert b"config|set" in root("ACL", "CAT", "Dangerous")
    assert b"get" not in root("ACL", "CAT", "write")
    assert root("ACL", "CAT", "nosuch") == "ERR Unknown category 'nosuch'"
    assert root("ACL", "CAT", "read", "write") == (
        "ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP."
    )


def test_random_passwords(root: Wire) -> None:
    assert len(root("ACL", "GENPASS")) == 64
    assert [len(root("ACL", "GENPASS", bits)) for bits in (1, 4, 5, 32, 4096)] == [1, 1, 2, 8, 1024]
    assert root("ACL", "GENPASS", "4097").startswith("ERR ACL GENPASS argument must be the number of bits")
    assert root("ACL", "GENPASS", "0").startswith("ERR ACL GENPASS argument must be the number of bits")
    assert root("ACL", "GENPASS") != root("ACL", "GENPASS")


def test_what_a_user_is_given_stays_out_of_the_slow_log(root: Wire) -> None:
    root("CONFIG", "SET", "slowlog-log-slower-than", "0")
    root("ACL", "SETUSER", "eve", ">secret")
    root("CONFIG", "SET", "slowlog-log-slower-than", "10000")
    assert [b"ACL", b"SETUSER", b"(redacted)", b"(redacted)"] in [entry[3] for entry in root("SLOWLOG", "GET", "10")]


# --- files --------------------------------------------------------------------------------------------------------

FILE = """\
user alice on allcommands allkeys &* >alice

user bob on -@all +@set +acl ~set* &* >bob (+get ~"x")
user default on nopass ~* &* +@all
"""


def test_users_of_a_file(start_server: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "users.acl"
    path.write_text(FILE)
    server = start_server("--aclfile", str(path))
    with server.wire() as wire, server.wire() as alice:
        assert alice("AUTH", "alice", "alice") == "OK"
        assert wire("AUTH", "bob", "bob") == "OK"
        assert wire("SET", "x", "v") == no_command("bob", "set")
        assert wire("SADD", "x", "a") == NO_KEY
        assert wire("SADD", "set1", "a") == 1
        assert wire("ACL", "SETUSER", "carol", "on", ">pw", "+get", "~c", "(+set ~'d')") == "OK"
        assert wire("ACL", "SAVE") == "OK"
        lines = path.read_text().splitlines()
        assert [line.split()[1] for line in lines] == ["alice", "bob", "carol", "default"]
        assert lines == [line.decode() for line in wire("ACL", "LIST")]
        assert wire("ACL", "LOAD") == "OK"
        assert wire.closed()
        assert alice.closed()
    with server.wire() as wire:
        assert lines == [line.decode() for line in wire("ACL", "LIST")]
        path.write_text("user carol off\n")
        assert wire("ACL", "LOAD") == "OK"  # the default user's connections stay
        assert wire("ACL", "USERS") == [b"carol", b"default"]
        assert not [name for name in path.parent.iterdir() if name != path]


def test_a_file_with_mistakes_changes_nothing(start_server: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "users.acl"
    path.write_text(FILE)
    server = start_server("--aclfile", str(path))
    with server.wire() as wire:
        before = wire("ACL", "LIST")
        mistakes = ["user alice on", "foo bar", "user", "user a\tb on", "user new +nosuch nonsense +@none ~a\vb"]
        path.write_text(FILE + "\n".join([*mistakes, "user open (+get", ""]))
        wrong = wire("ACL", "LOAD")
        assert wrong == (
            "ERR WARNING: Duplicate user 'alice' found on line 5. "
            f"{path}:6 should start with user keyword followed by the username. "
            f"{path}:7 should start with user keyword followed by the username. "
            f"'{path}:8: username 'a\tb' contains invalid characters. "
            f"{path}:9: Error in applying operation '+nosuch': Unknown command or category name in ACL. "
            f"{path}:9: Syntax error. "
            f"{path}:9: Error in applying operation '+@none': Unknown command or category name in ACL. "
            f"{path}:10: Unmatched parenthesis in selector definition."
            "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
        )
        assert wire("ACL", "LIST") == before
        path.unlink()
        assert wire("ACL", "LOAD") == (
            f"ERR Error loading ACLs, opening file '{path}': No such file or directory"
        )
        path.parent.chmod(0o700)
        path.mkdir()
        assert wire("ACL", "SAVE").startswith("ERR There was an error trying to save the ACLs.")


def test_without_a_file(root: Wire) -> None:
    for word in ("LOAD", "SAVE"):
        assert root("ACL", word).startswith("ERR This Redis instance is not configured to use an ACL file.")


def test_users_of_the_configuration(start_server: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "zeekdb.conf"
    eve = """user eve on >pw ( +get "'~a\\"b'" )"""
    path.write_text(f"user default on nopass ~* +@all -flushdb\n# a comment\n{eve}\nmaxclients 100\n")
    with start_server(str(path)).wire() as wire:
        assert wire("FLUSHDB") == no_command("default", "flushdb")
        assert wire("AUTH", "eve", "pw") == "OK"
        assert wire("AUTH", "default", "") == "OK"
        assert wire("ACL", "SETUSER", "late", "on", "~it's") == "OK"
        assert wire("CONFIG", "REWRITE") == "OK"
        listed = wire("ACL", "LIST")
    assert "# a comment\n" in path.read_text()
    with start_server(str(path)).wire() as wire:
        assert wire("ACL", "LIST") == listed
        assert len(listed) == 3
        assert b"""("~a\\"b" resetchannels -@all +get)""" in listed[1]
        assert wire("CONFIG", "REWRITE") == "OK"
        wire("ACL", "DELUSER", "eve", "late")
        assert wire("CONFIG", "REWRITE") == "OK"
    assert path.read_text().count("user ") == 1


def start_fails(*arguments: str) -> str:
    """What a server says that does not start."""
    with Server(*arguments, wait=False) as server:
        assert server.process.wait(30) == 1
        return server.log()


@pytest.mark.skipif(ZEEKDB[0] == "redis-server", reason="its own words")
def test_users_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "users.acl"
    path.write_text("user eve +nosuch\n")
    assert "Aborting Redis startup because of ACL errors" in start_fails("--aclfile", str(path))
    assert "please define either an ACL file or" in start_fails("--aclfile", str(path), "--user", "eve", "on")
    assert "Duplicate user" in start_fails("--user", "eve", "--user", "eve")
    assert "Duplicate user" in start_fails("--user", "default", "--user", "default")
    said = start_fails("--user", "eve", "+nosuch")
    assert "Error loading ACL rule '+nosuch' for the user named 'eve': Unknown command or category name in ACL" in said
    assert "Unmatched parenthesis" in start_fails("--user", "eve", "(+get")


def test_channels_of_new_users(root: Wire) -> None:
    root("CONFIG", "SET", "acl-pubsub-default", "allchannels")
    root("ACL", "SETUSER", "eve", "(+get)")
    shown = fields(root("ACL", "GETUSER", "eve"))
    assert shown["channels"] == fields(shown["selectors"][0])["channels"] == b"&*"
    assert root("ACL", "SETUSER", "eve", "&x").endswith("Try 'resetchannels' to start with an empty list of channels")
    root("CONFIG", "SET", "acl-pubsub-default", "resetchannels")
    assert fields(root("ACL", "GETUSER", "eve"))["channels"] == b"&*"
    root("ACL", "SETUSER", "eve", "reset")
    assert fields(root("ACL", "GETUSER", "eve"))["channels"] == b""


def test_help(root: Wire) -> None:
    assert "WHOAMI" in root("ACL", "HELP")
    assert root("ACL", "HELP", "xxx") == "ERR wrong number of arguments for 'acl|help' command"
    assert isinstance(root("ACL", "NOSUCH"), Failure)
