"""Data of all types, and what a server holds, to compare."""

from __future__ import annotations

from typing import Any

from tests.support import Wire

COMMANDS: tuple[tuple[object, ...], ...] = (
    ("SET", "s", "v" * 300), ("SET", "t", "12345", "PX", 10_000_000), ("RPUSH", "l", *range(200)),
    ("SADD", "ints", 1, 2, 3), ("SADD", "set", *(f"m{n}" for n in range(600))), ("HSET", "h", "f", "v"),
    ("HSET", "hash", *(f"f{n}" for n in range(1200))), ("ZADD", "z", 1, "a", 2.5, "b"), ("XADD", "x", "1-1", "f", "v"),
    ("XGROUP", "CREATE", "x", "g", "0"), ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "x", ">"),
    ("SELECT", 3), ("SET", "other", "db"), ("MULTI",), ("INCR", "n"), ("INCR", "n"), ("EXEC",),
    ("FUNCTION", "LOAD", "#!lua name=mylib\nredis.register_function('f', function() return 1 end)"), ("SELECT", 0),
)  # fmt: skip
KEYS = 11  # that they leave
READERS = {
    "string": ("GET",), "list": ("LRANGE", 0, -1), "hash": ("HGETALL",), "set": ("SMEMBERS",),
    "zset": ("ZRANGE", 0, -1, "WITHSCORES"), "stream": ("XINFO", "FULL"), "none": ("EXISTS",),
}  # fmt: skip


def fill(wire: Wire) -> None:
    for command in COMMANDS:
        wire(*command)


def state(wire: Wire, databases: tuple[int, ...] = (0, 3)) -> dict[tuple[int, bytes], Any]:
    """Every key with its value, and the moment of its expiry to ten seconds."""
    found: dict[tuple[int, bytes], Any] = {}
    for index in databases:
        wire("SELECT", index)
        for key in wire("KEYS", "*"):
            kind = str(wire("TYPE", key))
            name, *rest = READERS[kind]
            value = wire("XINFO", "STREAM", key) if kind == "stream" else wire(name, key, *rest)
            if kind == "stream":
                value = dict(zip(value[::2], value[1::2], strict=True))
                value = (value[b"length"], value[b"last-generated-id"], value[b"groups"], wire("XRANGE", key, "-", "+"))
            expires = wire("PEXPIRETIME", key)
            found[(index, key)] = (kind, sorted(value) if kind in ("set", "hash") else value, expires // 10_000)
    wire("SELECT", 0)
    return found
