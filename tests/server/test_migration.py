"""DUMP and RESTORE between ZeekDB and redis-server, and MIGRATE between servers, over real sockets."""

from __future__ import annotations

import random
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import Failure, Server, Wire, encode, free_port, redis_server, wait_for

Start = Callable[..., Server]
NEEDS_REDIS = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
READ: dict[str, tuple[bytes | int, ...]] = {
    "string": (b"GET",), "list": (b"LRANGE", 0, -1), "hash": (b"HGETALL",), "set": (b"SMEMBERS",),
    "zset": (b"ZRANGE", 0, -1, b"WITHSCORES"), "stream": (b"XRANGE", b"-", b"+"),
}  # fmt: skip
LEFT_MS = 5_000_000
VALUES = 150  # random ones, each sent both ways


def look(wire: Wire, key: str) -> Any:
    """What a key holds, comparable between servers, and about when it expires."""
    kind = str(wire("TYPE", key))
    name, *rest = READ.get(kind, (b"EXISTS",))
    held = wire(name, key, *rest)
    if kind == "hash":
        held = dict(zip(held[::2], held[1::2], strict=True))
    elif kind == "set":
        held = sorted(held)
    elif kind == "zset":
        held = [(member, float(score)) for member, score in zip(held[::2], held[1::2], strict=True)]
    elif kind == "stream":
        groups = [dict(zip(each[::2], each[1::2], strict=True)) for each in wire("XINFO", "GROUPS", key)]
        held = (held, groups, [sorted(wire("XPENDING", key, each[b"name"], "-", "+", 99)) for each in groups])
        for *_, pending in held[2:]:
            for entry in pending:
                entry[2] = 0  # idle ms
    return kind, held, round(wire("PTTL", key) / LEFT_MS)


# --- values between the two servers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> Iterator[Wire]:
    with redis_server("--sanitize-dump-payload", "yes") as server, server.wire() as wire:
        yield wire


def word(dice: random.Random) -> bytes:
    """Lengths and numbers at which encodings change."""
    draw = dice.random()
    if draw < 0.4:
        return b"%d" % dice.choice((0, 12, 13, 127, 128, -4097, 8388608, -(1 << 31), 1 << 40, dice.getrandbits(62)))
    if draw < 0.8:
        return bytes(dice.choices(b"ab", k=dice.choice((0, 1, 20, 21, 63, 64, 65, 300))))
    return dice.randbytes(dice.choice((1, 20, 4095, 4096, 16378, 16379, 16380)))


def build(wire: Wire, dice: random.Random) -> None:
    """A random value under `k`."""
    many = dice.choice((1, 3, 20, 200, 600))
    words = [word(dice) for _ in range(many)]
    kind = dice.choice(("string", "list", "hash", "set", "integers", "zset", "stream", "hyperloglog"))
    if kind == "string":
        wire("SET", "k", words[0])
    elif kind == "list":
        wire("RPUSH", "k", *words)
    elif kind == "hash":
        wire("HSET", "k", *(text for pair in zip(words, reversed(words), strict=True) for text in pair))
    elif kind == "set":
        wire("SADD", "k", *words)
    elif kind == "integers":
        wire("SADD", "k", *(dice.getrandbits(dice.choice((7, 15, 31, 62))) for _ in range(many)))
    elif kind == "zset":
        scores = (dice.choice((b"-inf", b"0.1", b"1e300", b"7", b"%r" % dice.uniform(-1, 1))) for _ in words)
        wire("ZADD", "k", *(text for pair in zip(scores, words, strict=True) for text in pair))
    elif kind == "hyperloglog":
        wire("PFADD", "k", *words)
    else:
        ids = [wire("XADD", "k", f"{7 + n}-{n % 3}", b"field", text) for n, text in enumerate(words)]
        wire("XGROUP", "CREATE", "k", "readers", 0)
        wire("XREADGROUP", "GROUP", "readers", "one", "COUNT", many // 2 + 1, "STREAMS", "k", ">")
        wire("XDEL", "k", *ids[:: dice.choice((2, 50))])
    if dice.random() < 0.3:
        wire("PEXPIRE", "k", LEFT_MS)


@NEEDS_REDIS
@pytest.mark.slow
def test_values_both_ways(wire: Wire, reference: Wire) -> None:
    seed = random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(VALUES):
        maker, taker = (wire, reference) if dice.random() < 0.5 else (reference, wire)
        maker("DEL", "k")
        build(maker, dice)
        value = look(maker, "k")
        left_ms = max(maker("PTTL", "k"), 0)
        assert taker("RESTORE", "k", left_ms, maker("DUMP", "k"), "REPLACE") == "OK"
        assert look(taker, "k") == value
        assert maker("RESTORE", "back", left_ms, taker("DUMP", "k"), "REPLACE") == "OK"
        assert look(maker, "back") == value


@NEEDS_REDIS
def test_refusals_are_redis_s(wire: Wire, reference: Wire) -> None:
    for each in (wire, reference):
        each("FLUSHALL")
        each("SET", "k", "v")
    data = reference("DUMP", "k")
    assert wire("DUMP", "k") == data
    for command in (
        ("RESTORE", "k", 0, data),
        ("RESTORE", "k", 0, data, "REPLACE", "FREQ"),
        ("RESTORE", "n", 0, data, "IDLETIME", "-1"),
        ("RESTORE", "n", 0, data, "IDLETIME", "5", "FREQ", "1"),
        ("RESTORE", "n", 0, data, "FREQ", "256"),
        ("RESTORE", "n", 0, data, "NX"),
        ("RESTORE", "n", -1, data),
        ("RESTORE", "n", "1.5", data),
        ("RESTORE", "n", 0, data[:-1]),
        ("RESTORE", "n", 0, b""),
        ("RESTORE", "n", 0, data[:1] + b"\x05" + data[2:]),
        ("RESTORE", "n", 0),
        ("DUMP",),
        ("DUMP", "none"),
        ("MIGRATE", "127.0.0.1", 1, "none", 0, 100),
        ("MIGRATE", "127.0.0.1", 1, "k", 0, 100),
        ("MIGRATE", "127.0.0.1", 1, "k", "x", 100),
        ("MIGRATE", "127.0.0.1", 1, "k", 0, "x"),
        ("MIGRATE", "127.0.0.1", 1, "k", 0, 100, "FOO"),
        ("MIGRATE", "127.0.0.1", 1, "k", 0, 100, "AUTH"),
        ("MIGRATE", "127.0.0.1", 1, "k", 0, 100, "AUTH2", "user"),
        ("MIGRATE", "127.0.0.1", 1, "k", 0, 100, "KEYS", "a"),
        ("MIGRATE", "127.0.0.1", 1, "", 0, 100, "KEYS"),
        ("MIGRATE", "127.0.0.1", 1, "", 0, 100, "KEYS", "none"),
        ("COMMAND", "GETKEYS", "MIGRATE", "h", 1, "", 0, 100, "AUTH2", "u", "KEYS", "COPY", "KEYS", "a", "b"),
        ("COMMAND", "GETKEYS", "MIGRATE", "h", 1, "key", 0, 100),
    ):
        assert wire(*command) == reference(*command), command


# --- MIGRATE ------------------------------------------------------------------------------------------------------


@pytest.fixture
def other(start_server: Start) -> Iterator[Wire]:
    """A second, empty server."""
    with start_server("--enable-debug-command", "yes").wire() as connection:
        yield connection


def port_of(wire: Wire) -> int:
    port: int = wire.socket.getpeername()[1]
    return port


def move(wire: Wire, other: Wire, key: str, *words: str, timeout_ms: int = 5000) -> Any:
    return wire("MIGRATE", "127.0.0.1", port_of(other), key, 9, timeout_ms, *words)


def test_a_key_moves_with_its_deadline(wire: Wire, other: Wire) -> None:
    other("SELECT", 9)
    wire("RPUSH", "list", *range(5000))
    wire("PEXPIRE", "list", 100_000)
    assert move(wire, other, "list") == "OK"
    assert wire("EXISTS", "list") == 0
    assert other("LRANGE", "list", 0, -1) == [b"%d" % n for n in range(5000)]
    assert 90_000 < other("PTTL", "list") <= 100_000
    wire("SET", "k", "v")
    assert move(wire, other, "k", "COPY") == "OK"
    assert (wire("GET", "k"), other("GET", "k"), other("PTTL", "k")) == (b"v", b"v", -1)


def test_many_keys(wire: Wire, other: Wire) -> None:
    other("SELECT", 9)
    keys = [f"key:{n}" for n in range(500)]
    for key in keys:
        wire("SET", key, f"{key} " * 100)
    assert move(wire, other, "", "KEYS", *keys, "none") == "OK"
    assert (wire("DBSIZE"), other("DBSIZE")) == (0, 500)
    assert other("GET", "key:7") == b"key:7 " * 100
    assert move(wire, other, "", "KEYS", *keys) == "NOKEY"


def test_a_busy_key_stays(wire: Wire, other: Wire) -> None:
    other("SELECT", 9)
    other("SET", "b", "theirs")
    for key in "abc":
        wire("SET", key, "ours")
    busy = "ERR Target instance replied with error: BUSYKEY Target key name already exists."
    assert move(wire, other, "", "KEYS", "a", "b", "c") == busy
    assert (wire("EXISTS", "a", "c"), wire("GET", "b"), other("GET", "b")) == (0, b"ours", b"theirs")
    assert move(wire, other, "b", "REPLACE") == "OK"
    assert (wire("EXISTS", "b"), other("GET", "b")) == (0, b"ours")


def test_a_wrong_database_moves_nothing(wire: Wire, other: Wire) -> None:
    wire("SET", "k", "v")
    reply = wire("MIGRATE", "127.0.0.1", port_of(other), "k", 99, 5000)
    assert reply == "ERR Target instance replied with error: ERR DB index is out of range"
    assert (other("DBSIZE"), wire("GET", "k")) == (0, b"v")


def test_a_wrong_password_moves_nothing(wire: Wire, other: Wire) -> None:
    wire("SET", "k", "v")
    other("CONFIG", "SET", "requirepass", "secret")
    other("AUTH", "secret")
    assert "NOAUTH" in move(wire, other, "k")
    assert "WRONGPASS" in move(wire, other, "k", "AUTH", "wrong")
    assert other("DBSIZE") == 0
    assert wire("GET", "k") == b"v"
    assert move(wire, other, "k", "AUTH2", "default", "secret") == "OK"
    other("SELECT", 9)
    assert other("GET", "k") == b"v"


def test_connections_are_kept_and_replaced(start_server: Start) -> None:
    port = free_port()
    wire = start_server().wire()
    first = start_server(port=port)
    for key in "ab":
        wire("SET", key, "v")
        assert wire("MIGRATE", "127.0.0.1", port, key, 9, 5000) == "OK"
    with first.wire() as theirs:
        assert b"migrate_cached_sockets:1" in wire("INFO", "stats")
        assert len(theirs("CLIENT", "LIST").splitlines()) == 2
    first.stop()
    start_server(port=port)
    wire("SET", "c", "v")
    assert wire("MIGRATE", "127.0.0.1", port, "c", 9, 5000) == "OK"
    assert wire("EXISTS", "c") == 0
    wire.close()


def test_nobody_waits_for_a_migration(server: Server, wire: Wire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, server.wire() as moving:
        wire("SET", "k", "v")
        moving.send(encode("MIGRATE", "127.0.0.1", silent.getsockname()[1], "k", 9, 300))
        connection, _ = silent.accept()
        assert connection.recv(100).startswith(b"*2\r\n$6\r\nSELECT")
        assert wire("GET", "k") == b"v"
        assert wire("APPEND", "k", "w") == 2
        assert moving.read() == "IOERR error or timeout reading to target instance"
        assert wire("GET", "k") == b"vw"
        connection.close()


class Target:
    """A server that answers what it is told, when it is told."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connection = socket.socket()
        self.heard = b""

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.listener.close()

    def accept(self) -> None:
        """The next connection; its SELECT is granted."""
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(10)
        self.expect(b"SELECT")
        self.connection.sendall(b"+OK\r\n")

    def expect(self, word: bytes) -> None:
        """Reads until a word has come, and forgets all up to it."""
        while word not in self.heard:
            data = self.connection.recv(65536)
            assert data, self.heard
            self.heard += data
        self.heard = self.heard.partition(word)[2]

    def grant(self) -> None:
        """+OK"""
        self.connection.sendall(b"+OK\r\n")


def test_a_key_that_changes_on_its_way_is_sent_again(server: Server, wire: Wire) -> None:
    with Target() as target, server.wire() as moving:
        wire("SET", "k", "first")
        moving.send(encode("MIGRATE", "127.0.0.1", target.port, "k", 9, 5000))
        target.accept()
        target.expect(b"RESTORE")
        target.expect(b"first")
        wire("SET", "k", "second")
        target.grant()
        target.expect(b"RESTORE")
        target.expect(b"second")
        target.expect(b"REPLACE")
        target.grant()
        assert moving.read() == "OK"
        assert wire("EXISTS", "k") == 0


def test_a_key_that_goes_meanwhile_goes_there_too(server: Server, wire: Wire) -> None:
    with Target() as target, server.wire() as moving:
        wire("MSET", "k", "first", "other", "v")
        moving.send(encode("MIGRATE", "127.0.0.1", target.port, "", 9, 5000, "KEYS", "k", "other"))
        target.accept()
        target.expect(b"other")
        wire("DEL", "k")
        target.grant()
        target.grant()
        target.expect(b"DEL\r\n$1\r\nk")
        target.connection.sendall(b":1\r\n")
        assert moving.read() == "OK"
        assert wire("EXISTS", "k", "other") == 0


def test_a_key_that_always_changes_stays(server: Server, wire: Wire) -> None:
    with Target() as target, server.wire() as moving:
        wire("SET", "k", "v")
        moving.send(encode("MIGRATE", "127.0.0.1", target.port, "k", 9, 5000))
        target.accept()
        for _ in range(5):
            target.expect(b"RESTORE")
            wire("APPEND", "k", "v")
            target.grant()
        reply = moving.read()
        assert isinstance(reply, Failure)
        assert reply.startswith("TRYAGAIN")
        assert wire("GET", "k") == b"vvvvvv"


def test_inside_exec_it_blocks(wire: Wire, other: Wire) -> None:
    wire("SET", "k", "v")
    wire("MULTI")
    assert move(wire, other, "k") == "QUEUED"
    wire("EXISTS", "k")
    assert wire("EXEC") == ["OK", 0]
    other("SELECT", 9)
    assert other("GET", "k") == b"v"


def test_the_server_can_end_meanwhile(start_server: Start) -> None:
    server = start_server()
    with Target() as target, server.wire() as moving:
        moving("SET", "k", "v")
        moving.send(encode("MIGRATE", "127.0.0.1", target.port, "k", 9, 60_000))
        target.accept()
        target.expect(b"RESTORE")
        assert server.terminate() == 0
        assert "Traceback" not in server.log()
        assert "pending" not in server.log()


def test_large_values_move_while_others_are_served(server: Server, wire: Wire, other: Wire) -> None:
    for n in range(40):
        wire("SET", f"k{n}", random.Random(n).randbytes(1 << 20))
    replies: list[Any] = []

    def migrate() -> None:
        with server.wire() as moving:
            replies.append(move(moving, other, "", "KEYS", *(f"k{n}" for n in range(40)), timeout_ms=30_000))

    mover = threading.Thread(target=migrate)
    mover.start()
    wait_for(lambda: wire("PING") == "PONG" and not mover.is_alive(), 30)
    assert replies == ["OK"]
    assert wire("DBSIZE") == 0
    other("SELECT", 9)
    assert other("STRLEN", "k7") == 1 << 20
