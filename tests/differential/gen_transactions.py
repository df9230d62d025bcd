"""Random transactions: whole ones, given up ones, some with commands that cannot be queued.

What is queued is deterministic, so that EXEC's array can be compared element by element.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

Command = tuple[bytes, ...]

QUEUED = frozenset(
    b"SET GET INCR DECR INCRBY APPEND STRLEN GETRANGE SETRANGE MGET SETNX GETSET GETDEL LPUSH RPUSH LPOP RPOP LLEN "
    b"LRANGE LINDEX LSET LREM LTRIM "
    b"LINSERT LMOVE ZADD ZCARD ZRANK ZCOUNT ZREM ZREMRANGEBYRANK SCARD SADD SREM SISMEMBER SMOVE "
    b"HSET HGET HDEL HLEN HEXISTS HSTRLEN DEL EXISTS TYPE RENAME PERSIST SETBIT GETBIT PFADD".split()
)
WAITING: tuple[Command, ...] = (
    (b"BLPOP", b"l1", b"l2", b"0.01"), (b"BRPOPLPUSH", b"l1", b"l2", b"0.01"), (b"BZPOPMIN", b"none", b"0.01"),
    (b"BLMPOP", b"0.01", b"1", b"none", b"LEFT"), (b"WAIT", b"0", b"0"),
)  # fmt: skip
WRONG: tuple[Command, ...] = ((b"GET",), (b"NONSENSE",), (b"MULTI",), (b"WATCH", b"s1"), (b"CLIENT", b"NONSENSE"))


def transaction(r: random.Random, draw: Callable[[random.Random], list[bytes]]) -> Iterator[Command]:
    """From WATCH or MULTI to EXEC or DISCARD; `draw` gives any command."""
    if r.random() < 0.3:
        yield (b"WATCH", r.choice([b"s1", b"h1", b"none"]))
        if r.random() < 0.4:
            yield r.choice([(b"UNWATCH",), (b"SET", b"s1", b"changed"), (b"FLUSHDB",), (b"GET", b"s1")])
    yield (b"MULTI",)
    left = r.randint(0, 8)
    while left:
        words = draw(r)
        if words[0].upper() in QUEUED and b"INCR" not in words:  # doubles differ by their digits, see accepted.py
            yield tuple(words)
            left -= 1
    if r.random() < 0.2:
        yield r.choice(WAITING)
    if r.random() < 0.1:
        yield r.choice(WRONG)
    yield r.choice([(b"EXEC",), (b"EXEC",), (b"EXEC",), (b"DISCARD",)])
    if r.random() < 0.1:
        yield r.choice([(b"EXEC",), (b"DISCARD",)])
