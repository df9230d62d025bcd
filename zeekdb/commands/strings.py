"""Strings: bytes under a key, and numbers that are spelled in them.

Commands that change part of a value go to the keyspace's in-place doors (`append`, `write_at`, `getrange`), so that
they cost what they touch and not what the value weighs.
"""

from __future__ import annotations

from typing import Any

from zeekdb.commands.args import (
    INT64_MAX,
    INT64_MIN,
    add_long_doubles,
    format_long_double,
    parse_int,
    parse_long_double,
)
from zeekdb.commands.context import Context
from zeekdb.commands.lcs import common_subsequence, common_subsequence_length
from zeekdb.commands.spec import DENYOOM, FAST, READONLY, WRITE, KeySpec, all_keys, command, one_key
from zeekdb.errors import CommandError, OutOfRange, SyntaxError_, WrongArity, WrongType

PAIRS_INSERT = (KeySpec(("OW", "insert"), index=1, last=-1, step=2),)
PAIRS_UPDATE = (KeySpec(("OW", "update"), index=1, last=-1, step=2),)


# --- what several commands share ----------------------------------------------------------------------------------


def has_string(ctx: Context, key: bytes, *, for_read: bool = False) -> bool:
    """Whether `key` holds a string, without copying it. WrongType when it holds something else."""
    if for_read:
        ctx.seen(key)
    kind = ctx.db.type_of(key)
    if kind is not None and kind != "string":
        raise WrongType
    return kind is not None


def check_length(ctx: Context, length: int, more: int) -> None:
    """Refuse a string that would outgrow `proto-max-bulk-len`."""
    if length + more > ctx.server.config.proto_max_bulk_len:
        raise CommandError("ERR string exceeds maximum allowed size (proto-max-bulk-len)")


def slice_bounds(start: int, stop: int, length: int) -> tuple[int, int] | None:
    """Redis's inclusive range, negatives counted from the end, cut to `length`; None when it holds nothing.

    Where both ends lie before the string, the first byte is what remains; the commands other than BITPOS take a
    range that runs backwards from the end for empty first (`runs_backwards`).
    """
    start = max(start + length, 0) if start < 0 else start
    stop = max(stop + length, 0) if stop < 0 else min(stop, length - 1)
    return (start, min(stop, length - 1)) if start <= stop and length else None


def runs_backwards(start: int, stop: int) -> bool:
    """Both counted from the end, and the wrong way round."""
    return start < 0 and stop < 0 and start > stop


def deadline_of(ctx: Context, name: str, unit: str, text: bytes) -> int:
    """The Unix ms that an expiry option (`EX`, `PX`, `EXAT`, `PXAT`) means; an error naming the command if none."""
    amount = parse_int(text)
    if unit in ("EX", "EXAT"):
        amount *= 1000
    if amount > 0 and unit in ("EX", "PX"):
        amount += ctx.keyspace.now_ms()
    if not 0 < amount <= INT64_MAX:
        raise CommandError(f"ERR invalid expire time in '{name}' command")
    return amount


class _Options:
    """What follows key and value in SET, and the key in GETEX."""

    __slots__ = ("condition", "expire", "get", "keep", "persist", "unit")

    def __init__(self) -> None:
        self.condition = ""  # NX or XX
        self.unit = ""  # EX, PX, EXAT or PXAT
        self.expire = b""
        self.get = False
        self.keep = False
        self.persist = False


def _parse_options(words: tuple[bytes, ...], for_set: bool) -> _Options:
    """An option may come twice, but not with one that it excludes."""
    options = _Options()
    at = 0
    while at < len(words):
        word = words[at].upper()
        at += 1
        if word in (b"EX", b"PX", b"EXAT", b"PXAT") and at < len(words):
            unit = word.decode()
            if options.keep or options.persist or options.unit not in ("", unit):
                raise SyntaxError_
            options.unit, options.expire = unit, words[at]
            at += 1
        elif for_set and word in (b"NX", b"XX") and options.condition in ("", word.decode()):
            options.condition = word.decode()
        elif for_set and word == b"GET":
            options.get = True
        elif for_set and word == b"KEEPTTL" and not options.unit:
            options.keep = True
        elif not for_set and word == b"PERSIST" and not options.unit:
            options.persist = True
        else:
            raise SyntaxError_
    return options


# --- whole values -------------------------------------------------------------------------------------------------


@command(
    "GET", arity=2, flags=READONLY | FAST, keys=one_key("RO", "access"), group="string", since="1.0.0",
    complexity="O(1)", twin="get",
)  # fmt: skip
def get(ctx: Context, key: bytes) -> bytes | None:
    """Returns the string at a key."""
    return ctx.read(key, bytes)


@command(
    "SET", arity=-3, flags=WRITE | DENYOOM, keys=one_key("RW", "access", "update", "variable_flags"), group="string",
    since="1.0.0", complexity="O(1)", twin="set",
    history=(
        ("2.6.12", "Added the `EX`, `PX`, `NX` and `XX` options."),
        ("6.0.0", "Added the `KEEPTTL` option."),
        ("6.2.0", "Added the `GET`, `EXAT` and `PXAT` option."),
        ("7.0.0", "Allowed the `NX` and `GET` options to be used together."),
    ),
)  # fmt: skip
def set_(ctx: Context, key: bytes, value: bytes, *words: bytes) -> Any:
    """Stores a string at a key, whatever was there, if the conditions hold."""
    if not words:
        ctx.db.set(key, value)
        ctx.changed(key, "set")
        return "OK"
    options = _parse_options(words, for_set=True)
    deadline = deadline_of(ctx, "set", options.unit, options.expire) if options.unit else -1 if options.keep else 0
    old = ctx.read(key, bytes) if options.get else None
    if options.condition and ctx.db.exists(key) != (options.condition == "XX"):
        return old
    _store(ctx, key, value, deadline)
    if options.get and deadline <= 0:
        ctx.effect(b"SET", key, value, *(word for word in words if word.upper() != b"GET"))
    return old if options.get else "OK"


def _store(ctx: Context, key: bytes, value: bytes, deadline: int) -> None:
    ctx.db.set(key, value, deadline)
    ctx.changed(key, "set")
    if deadline > 0:
        ctx.changed(key, "expire", 0)
        ctx.effect(b"SET", key, value, b"PXAT", b"%d" % deadline)


@command(
    "SETNX", arity=3, flags=WRITE | DENYOOM | FAST, keys=one_key("OW", "insert"), group="string", since="1.0.0",
    complexity="O(1)", twin="setnx", doc_flags=("deprecated",), deprecated_since="2.6.12",
    replaced_by="`SET` with the `NX` argument",
)  # fmt: skip
def setnx(ctx: Context, key: bytes, value: bytes) -> int:
    """Stores a string only if the key is absent."""
    if ctx.db.exists(key):
        return 0
    _store(ctx, key, value, 0)
    return 1


@command(
    "SETEX", arity=4, flags=WRITE | DENYOOM, keys=one_key("OW", "update"), group="string", since="2.0.0",
    complexity="O(1)", twin="setex", doc_flags=("deprecated",), deprecated_since="2.6.12",
    replaced_by="`SET` with the `EX` argument",
)  # fmt: skip
def setex(ctx: Context, key: bytes, seconds: bytes, value: bytes) -> str:
    """Stores a string that expires after seconds."""
    _store(ctx, key, value, deadline_of(ctx, "setex", "EX", seconds))
    return "OK"


@command(
    "PSETEX", arity=4, flags=WRITE | DENYOOM, keys=one_key("OW", "update"), group="string", since="2.6.0",
    complexity="O(1)", doc_flags=("deprecated",), deprecated_since="2.6.12",
    replaced_by="`SET` with the `PX` argument",
)  # fmt: skip
def psetex(ctx: Context, key: bytes, milliseconds: bytes, value: bytes) -> str:
    """Stores a string that expires after milliseconds."""
    _store(ctx, key, value, deadline_of(ctx, "psetex", "PX", milliseconds))
    return "OK"


@command(
    "GETSET", arity=3, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "access", "update"), group="string",
    since="1.0.0", complexity="O(1)", doc_flags=("deprecated",), deprecated_since="6.2.0",
    replaced_by="`SET` with the `!GET` argument",
)  # fmt: skip
def getset(ctx: Context, key: bytes, value: bytes) -> bytes | None:
    """Stores a string and returns the one that was there."""
    old = ctx.read(key, bytes)
    _store(ctx, key, value, 0)
    return old


@command(
    "GETDEL", arity=2, flags=WRITE | FAST, keys=one_key("RW", "access", "delete"), group="string", since="6.2.0",
    complexity="O(1)",
)  # fmt: skip
def getdel(ctx: Context, key: bytes) -> bytes | None:
    """Returns the string at a key and deletes the key."""
    value = ctx.read(key, bytes)
    if value is not None:
        ctx.remove(key)
        ctx.effect(b"DEL", key)
    return value


@command(
    "GETEX", arity=-2, flags=WRITE | FAST, keys=one_key("RW", "access", "update"), group="string", since="6.2.0",
    complexity="O(1)",
)  # fmt: skip
def getex(ctx: Context, key: bytes, *words: bytes) -> bytes | None:
    """Returns the string at a key and sets or clears its expiry."""
    options = _parse_options(words, for_set=False)
    value = ctx.read(key, bytes)
    if value is None:
        return None
    if options.unit:
        deadline = deadline_of(ctx, "getex", options.unit, options.expire)
        if deadline <= ctx.keyspace.now_ms():
            ctx.remove(key)
            ctx.effect(b"DEL", key)
        else:
            ctx.db.set_deadline(key, deadline)
            ctx.changed(key, "expire")
            ctx.effect(b"PEXPIREAT", key, b"%d" % deadline)
    elif options.persist and ctx.db.deadline(key) >= 0:
        ctx.db.set_deadline(key, 0)
        ctx.changed(key, "persist")
        ctx.effect(b"PERSIST", key)
    return value


@command(
    "MGET", arity=-2, flags=READONLY | FAST, keys=all_keys("RO", "access"), group="string", since="1.0.0",
    complexity="O(N) where N is the number of keys to retrieve.", tips=("request_policy:multi_shard",), twin="mget",
)  # fmt: skip
def mget(ctx: Context, *keys: bytes) -> list[bytes | None]:
    """Returns the strings at several keys; null where there is none."""
    values = [ctx.db.read(key) for key in keys]
    return [value if isinstance(value, bytes) else None for value in values]


@command(
    "MSET", arity=-3, flags=WRITE | DENYOOM, keys=PAIRS_UPDATE, group="string", since="1.0.1",
    complexity="O(N) where N is the number of keys to set.", twin="mset",
    tips=("request_policy:multi_shard", "response_policy:all_succeeded"),
)  # fmt: skip
def mset(ctx: Context, *pairs: bytes) -> str:
    """Stores several strings at once."""
    if len(pairs) % 2:
        raise WrongArity("mset")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        _store(ctx, key, value, 0)
    return "OK"


@command(
    "MSETNX", arity=-3, flags=WRITE | DENYOOM, keys=PAIRS_INSERT, group="string", since="1.0.1",
    complexity="O(N) where N is the number of keys to set.",
)  # fmt: skip
def msetnx(ctx: Context, *pairs: bytes) -> int:
    """Stores several strings, or none of them if any of the keys exists."""
    if len(pairs) % 2:
        raise WrongArity("msetnx")
    if any(ctx.db.exists(key) for key in pairs[::2]):
        return 0
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        _store(ctx, key, value, 0)
    return 1


# --- parts of a value ---------------------------------------------------------------------------------------------


@command(
    "APPEND", arity=3, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "insert"), group="string", since="2.0.0",
    complexity="O(1). The amortized cost for small appends is constant.",
)  # fmt: skip
def append(ctx: Context, key: bytes, tail: bytes) -> int:
    """Adds bytes to the end of a string, creating it if needed."""
    if has_string(ctx, key):
        check_length(ctx, ctx.db.strlen(key), len(tail))
        length = ctx.db.append(key, tail)
    else:
        ctx.db.set(key, tail)
        length = len(tail)
    ctx.changed(key, "append")
    return length


@command(
    "STRLEN", arity=2, flags=READONLY | FAST, keys=one_key("RO"), group="string", since="2.2.0", complexity="O(1)",
    twin="strlen",
)  # fmt: skip
def strlen(ctx: Context, key: bytes) -> int:
    """Returns how many bytes a string has."""
    return ctx.db.strlen(key) if has_string(ctx, key, for_read=True) else 0


@command(
    "GETRANGE", arity=4, flags=READONLY, keys=one_key("RO", "access"), group="string", since="2.4.0", twin="getrange",
    complexity="O(N) where N is the length of the returned string.",
)  # fmt: skip
@command(
    "SUBSTR", arity=4, flags=READONLY, keys=one_key("RO", "access"), group="string", since="1.0.0",
    complexity="O(N) where N is the length of the returned string.", doc_flags=("deprecated",),
    deprecated_since="2.0.0", replaced_by="`GETRANGE`",
)  # fmt: skip
def getrange(ctx: Context, key: bytes, start: bytes, end: bytes) -> bytes:
    """Returns part of a string."""
    first, last = parse_int(start), parse_int(end)
    if not has_string(ctx, key) or runs_backwards(first, last):
        return b""
    bounds = slice_bounds(first, last, ctx.db.strlen(key))
    return ctx.db.getrange(key, *bounds) if bounds else b""


@command(
    "SETRANGE", arity=4, flags=WRITE | DENYOOM, keys=one_key("RW", "update"), group="string", since="2.2.0",
    complexity="O(M) where M is the length of the value.",
)  # fmt: skip
def setrange(ctx: Context, key: bytes, offset: bytes, value: bytes) -> int:
    """Overwrites part of a string from an offset on, filling with zero bytes up to there."""
    start = parse_int(offset)
    if start < 0:
        raise OutOfRange("ERR offset is out of range")
    present = has_string(ctx, key)
    if not value:
        return ctx.db.strlen(key) if present else 0
    check_length(ctx, start, len(value))
    length = ctx.db.write_at(key, start, value)
    ctx.changed(key, "setrange")
    return length


# --- numbers ------------------------------------------------------------------------------------------------------


def _add(ctx: Context, key: bytes, amount: int) -> int:
    old = ctx.peek(key, bytes)
    total = (parse_int(old) if old is not None else 0) + amount
    if not INT64_MIN <= total <= INT64_MAX:
        raise CommandError("ERR increment or decrement would overflow")
    ctx.db.set(key, b"%d" % total, -1)
    ctx.changed(key, "incrby")
    return total


@command(
    "INCR", arity=2, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "access", "update"), group="string",
    since="1.0.0", complexity="O(1)", twin="incr",
)  # fmt: skip
def incr(ctx: Context, key: bytes) -> int:
    """Adds one to the integer at a key; an absent key counts as 0."""
    return _add(ctx, key, 1)


@command(
    "DECR", arity=2, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "access", "update"), group="string",
    since="1.0.0", complexity="O(1)", twin="decr",
)  # fmt: skip
def decr(ctx: Context, key: bytes) -> int:
    """Takes one from the integer at a key; an absent key counts as 0."""
    return _add(ctx, key, -1)


@command(
    "INCRBY", arity=3, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "access", "update"), group="string",
    since="1.0.0", complexity="O(1)", twin="incrby",
)  # fmt: skip
def incrby(ctx: Context, key: bytes, amount: bytes) -> int:
    """Adds to the integer at a key; an absent key counts as 0."""
    return _add(ctx, key, parse_int(amount))


@command(
    "DECRBY", arity=3, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "access", "update"), group="string",
    since="1.0.0", complexity="O(1)", twin="decrby",
)  # fmt: skip
def decrby(ctx: Context, key: bytes, amount: bytes) -> int:
    """Takes from the integer at a key; an absent key counts as 0."""
    number = parse_int(amount)
    if number == INT64_MIN:
        raise CommandError("ERR decrement would overflow")
    return _add(ctx, key, -number)


@command(
    "INCRBYFLOAT", arity=3, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "access", "update"), group="string",
    since="2.6.0", complexity="O(1)",
)  # fmt: skip
def incrbyfloat(ctx: Context, key: bytes, amount: bytes) -> bytes:
    """Adds to the floating-point number at a key; an absent key counts as 0."""
    text = ctx.peek(key, bytes)
    old = parse_long_double(b"0" if text is None else text)
    total = format_long_double(add_long_doubles(old, parse_long_double(amount)))
    ctx.db.set(key, total, -1)
    ctx.changed(key, "incrbyfloat")
    ctx.effect(b"SET", key, total, b"KEEPTTL")
    return total


# --- LCS ----------------------------------------------------------------------------------------------------------


@command(
    "LCS", arity=-3, flags=READONLY, keys=(KeySpec(("RO", "access"), index=1, last=1),), group="string",
    since="7.0.0", complexity="O(N*M) where N and M are the lengths of s1 and s2, respectively",
)  # fmt: skip
def lcs(ctx: Context, first: bytes, second: bytes, *words: bytes) -> Any:
    """Finds the longest common subsequence of two strings."""
    one, two = ctx.db.read(first), ctx.db.read(second)
    if not isinstance(one, bytes | None) or not isinstance(two, bytes | None):
        raise CommandError("ERR The specified keys must contain string values")
    one, two = one or b"", two or b""
    length_only = with_ranges = with_length = False
    shortest = 0
    at = 0
    while at < len(words):
        word = words[at].upper()
        at += 1
        if word == b"IDX":
            with_ranges = True
        elif word == b"LEN":
            length_only = True
        elif word == b"WITHMATCHLEN":
            with_length = True
        elif word == b"MINMATCHLEN" and at < len(words):
            shortest = max(parse_int(words[at]), 0)
            at += 1
        else:
            raise SyntaxError_
    if with_ranges and length_only:
        raise CommandError("ERR If you want both the length and indexes, please just use IDX.")
    # Ours takes an eighth of a byte per cell where Redis takes four; the bound on work is Redis's.
    if (len(one) + 1) * (len(two) + 1) * 4 > ctx.server.config.proto_max_bulk_len:
        raise CommandError("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
    if length_only:
        return common_subsequence_length(one, two)
    text, ranges = common_subsequence(one, two)
    if not with_ranges:
        return text
    matches = [
        [[start_one, start_one + length - 1], [start_two, start_two + length - 1], *([length] if with_length else [])]
        for start_one, start_two, length in ranges
        if length >= shortest
    ]
    return {b"matches": matches, b"len": len(text)}
