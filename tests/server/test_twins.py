"""Every hot command has a twin in the hot room: it and the Python handler are given the same commands and must agree.

Under CLIENT NO-TOUCH a connection's gate word is set, and all its commands go to their Python handlers; nothing else
about the commands changes. So the same stream is sent over two connections, each to an empty keyspace, and compared:
the replies, all that is stored afterwards, and the counters that the commands leave behind.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import re
from typing import Any

import pytest

import zeekdb.commands
from tests.fuzz.streams import TEMPLATES, arguments
from tests.support import NullArray, Server, Wire, encode, wait_for
from zeekdb.commands.spec import REGISTRY

for module in pkgutil.iter_modules(zeekdb.commands.__path__):
    importlib.import_module(f"zeekdb.commands.{module.name}")

TWINS = sorted(name for name, spec in REGISTRY.items() if spec.twin)
RANDOM = {"SPOP"}  # what it answers is not for comparing; its own test follows
COMMANDS = 400
ROUNDS = 12
# How scripts give a command's words: as they are, and numbers as numbers.
SCRIPTS = (
    b"return redis.pcall(unpack(ARGV))",
    b"for i, v in ipairs(ARGV) do ARGV[i] = i > 1 and tonumber(v) or v end return redis.pcall(unpack(ARGV))",
    b"redis.setresp(3) return redis.pcall(unpack(ARGV))",
)
TTL_SLACK = {"TTL": 1, "PTTL": 3000, "EXPIRETIME": 1}  # the two runs are not at the same moment
# What the commands leave in INFO.
COUNTERS = ("keyspace_hits", "keyspace_misses", "rdb_changes_since_last_save", "total_error_replies")


def stream(dice: random.Random) -> list[list[bytes]]:
    """Commands that have twins, with arguments that often meet and often are wrong."""
    templates = [t for t in TEMPLATES if t[0] in TWINS and t[0] not in RANDOM]
    made: list[list[bytes]] = []
    while len(made) < COMMANDS:
        words = arguments(dice, dice.choice(templates))
        # Milliseconds would end between the two runs, and ids from the clock are not the same in both.
        if words and b"PX" not in words and b"*" not in words and words[0] != b"PEXPIRE":
            made.append(words)
    return made


def counters(wire: Wire) -> dict[str, int]:
    """The counters now."""
    info = wire("INFO", "everything").decode()
    found = {name: int(value) for name, value in re.findall(r"(?m)^(\w+):(\d+)\r?$", info) if name in COUNTERS}
    for name, calls, rejected, failed in re.findall(
        r"(?m)^cmdstat_(\w+):calls=(\d+),.*rejected_calls=(\d+),failed_calls=(\d+)", info
    ):
        if name.upper() in TWINS and name.upper() not in ("PING", "EXISTS", "TYPE"):
            found |= {f"{name} calls": int(calls), f"{name} rejected": int(rejected), f"{name} failed": int(failed)}
    return found


def stored(wire: Wire) -> dict[bytes, Any]:
    """Everything that is there: type, encoding, contents, and whether it expires."""
    readers = {
        "string": ("GET",), "list": ("LRANGE", 0, -1), "hash": ("HGETALL",), "set": ("SMEMBERS",),
        "zset": ("ZRANGE", 0, -1, "WITHSCORES"), "stream": ("XRANGE", "-", "+"),
    }  # fmt: skip
    found = {}
    for key in wire("KEYS", "*"):
        kind = wire("TYPE", key)
        name, *rest = readers[kind]
        value = wire(name, key, *rest)
        if kind == "hash":
            value = sorted(zip(value[::2], value[1::2], strict=True))
        elif kind == "set":  # each table has an order of its own
            value = sorted(value)
        found[key] = (kind, wire("OBJECT", "ENCODING", key), value, wire("TTL", key) > 0)
    return found


def run(
    server: Server, commands: list[list[bytes]], python: bool, protocol: int = 2
) -> tuple[list[Any], dict[bytes, Any], dict[str, int]]:
    """Replies, what is stored, and what the counters grew by."""
    with server.wire(30) as wire, server.wire(30) as other:
        assert wire("FLUSHALL") == "OK"
        if protocol == 3:
            wire("HELLO", 3)
        if python:
            assert wire("CLIENT", "NO-TOUCH", "ON") == "OK"
        before = counters(other)
        replies = wire.pipeline([tuple(words) for words in commands])
        after = counters(other)
        return replies, stored(other), {name: value - before.get(name, 0) for name, value in after.items()}


def compare(server: Server, commands: list[list[bytes]], sent: list[list[bytes]], protocol: int) -> None:
    """Sends commands both ways; what is sent may be a script that calls the command."""
    fast, slow = (run(server, sent, python, protocol) for python in (False, True))
    for place, (words, one, two) in enumerate(zip(commands, fast[0], slow[0], strict=True)):
        slack = TTL_SLACK.get(words[0].decode("latin1"), 0)
        close = slack and isinstance(one, int) and isinstance(two, int) and abs(one - two) <= slack
        assert one == two or close, f"{place}: {words!r:.300}: twin {one!r:.300}, handler {two!r:.300}"
        assert type(one) is type(two)
    assert fast[1] == slow[1]
    assert fast[2] == slow[2]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_twins_and_handlers_agree(server: Server, number: int) -> None:
    commands = stream(random.Random(number))
    compare(server, commands, commands, 2 + number % 2)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_twins_and_handlers_agree_in_scripts(server: Server, number: int) -> None:
    commands = stream(random.Random(100 + number))
    script = SCRIPTS[number % len(SCRIPTS)]
    compare(server, commands, [[b"EVAL", script, b"0", *words] for words in commands], 2 + number // 2 % 2)


def test_a_script_reads_large_values_whole(wire: Wire) -> None:
    sizes = [10, 16383, 16384, 100_000]
    for size in sizes:
        wire("SET", f"s{size}", "x" * size)
    script = "local t = redis.call('mget', unpack(ARGV)) for i, v in ipairs(t) do t[i] = v and #v or -1 end return t"
    names = [f"s{size}" for size in sizes]
    assert wire("EVAL", script, 0, *names, "none", *reversed(names)) == [*sizes, -1, *reversed(sizes)]


def test_a_read_only_script_reads_and_writes_nothing(wire: Wire) -> None:
    wire("SET", "k", "v")
    assert wire("EVAL_RO", "return redis.call('get', KEYS[1])", 1, "k") == b"v"
    refused = wire("EVAL_RO", "return redis.call('set', KEYS[1], 'x')", 1, "k")
    assert refused.startswith("ERR Write commands are not allowed from read-only scripts")
    assert wire("GET", "k") == b"v"


def test_select_in_a_script_is_the_scripts_own(wire: Wire) -> None:
    wire("SET", "k", "zero")
    script = """redis.call('get', 'k') redis.call('select', 1) redis.call('set', 'k', 'one')
                return redis.call('get', 'k')"""
    for _ in range(2):
        assert wire("EVAL", script, 0) == b"one"
        assert wire("EVAL", "return redis.call('get', 'k')", 0) == b"zero"


def test_what_a_script_changes_is_seen(server: Server, wire: Wire) -> None:
    with server.wire() as other:
        wire("WATCH", "k")
        other("EVAL", "return redis.call('set', 'k', '1')", 0)
        wire("MULTI")
        wire("GET", "k")
        assert isinstance(wire("EXEC"), NullArray)
        wire.send(encode("BLPOP", "list", "0"))
        wait_for(lambda: b"blocked_clients:1" in other("INFO", "clients"))
        other("EVAL", "return redis.call('rpush', 'list', 'v')", 0)
        assert wire.read() == [b"list", b"v"]


def test_every_twin_is_driven() -> None:
    driven = {template[0] for template in TEMPLATES}
    assert set(TWINS) <= driven


@pytest.mark.parametrize("python", [False, True])
def test_pexpire(server: Server, wire: Wire, python: bool) -> None:
    if python:
        wire("CLIENT", "NO-TOUCH", "ON")
    wire("FLUSHALL")
    wire("SET", "k", "v")
    assert wire("PEXPIRE", "none", 100_000) == 0
    assert wire("PEXPIRE", "k", 100_000) == 1
    assert 50_000 < wire("PTTL", "k") <= 100_000
    assert wire("PEXPIRE", "k", 200_000, "LT") == 0
    assert wire("PEXPIRE", "k", "1.5") == "ERR value is not an integer or out of range"
    assert wire("PEXPIRE", "k", (1 << 63) - 1) == "ERR invalid expire time in 'pexpire' command"
    assert wire("PEXPIRE", "k", -1) == 1
    assert wire("EXISTS", "k") == 0


@pytest.mark.parametrize("python", [False, True])
def test_spop(server: Server, wire: Wire, python: bool) -> None:
    if python:
        wire("CLIENT", "NO-TOUCH", "ON")
    for members in ([b"1", b"2", b"3"], [b"m%d" % n for n in range(20)], [b"m%d" % n for n in range(1000)]):
        wire("SADD", "s", *members)
        popped = [wire("SPOP", "s") for _ in members]
        assert sorted(popped) == sorted(members)
        assert wire("SPOP", "s") is None
        assert wire("EXISTS", "s") == 0
    wire("SET", "s", "x")
    assert wire("SPOP", "s").startswith("WRONGTYPE")
