"""Hash commands."""

from __future__ import annotations

from typing import Any

from zeekdb.commands.args import (
    INT64_MAX,
    INT64_MIN,
    add_long_doubles,
    format_long_double,
    parse_cursor,
    parse_int,
    parse_long_double,
    parse_range,
    to_int,
    to_long_double,
)
from zeekdb.commands.context import Context
from zeekdb.commands.members import check_samples, for_change, parse_scan_options
from zeekdb.commands.spec import DENYOOM, FAST, READONLY, WRITE, command, one_key
from zeekdb.errors import CommandError, SyntaxError_, WrongArity
from zeekdb.hot.keyspace import glob_match
from zeekdb.types import Hash

LOOK = one_key("RO")
READ = one_key("RO", "access")
CHANGE = one_key("RW", "access", "update")

# --- writing --------------------------------------------------------------------------------------------------------


def _put(ctx: Context, key: bytes, pairs: tuple[bytes, ...], name: str) -> int:
    if len(pairs) % 2:
        raise WrongArity(name)
    created = ctx.write(key, Hash).put_many(pairs)
    ctx.changed(key, "hset", len(pairs) // 2)  # equal bytes count as a change too: WATCH and replicas must see it
    return created


@command(
    "HSET",
    arity=-4,
    flags=WRITE | DENYOOM | FAST,
    keys=one_key("RW", "update"),
    group="hash",
    since="2.0.0",
    complexity="O(1) for each field/value pair added, so O(N) to add N field/value pairs when the command is called"
    " with multiple field/value pairs.",
    history=(("4.0.0", "Accepts multiple `field` and `value` arguments."),),
    twin="hset",
)
def hset(ctx: Context, key: bytes, *pairs: bytes) -> int:
    """Sets fields of a hash, creating the key and the fields that do not exist."""
    return _put(ctx, key, pairs, "hset")


@command(
    "HMSET",
    arity=-4,
    flags=WRITE | DENYOOM | FAST,
    keys=one_key("RW", "update"),
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the number of fields being set.",
    doc_flags=("deprecated",),
    deprecated_since="4.0.0",
    replaced_by="`HSET` with multiple field-value pairs",
)
def hmset(ctx: Context, key: bytes, *pairs: bytes) -> str:
    """Sets several fields of a hash."""
    _put(ctx, key, pairs, "hmset")
    return "OK"


@command(
    "HSETNX",
    arity=4,
    flags=WRITE | DENYOOM | FAST,
    keys=one_key("RW", "insert"),
    group="hash",
    since="2.0.0",
    complexity="O(1)",
)
def hsetnx(ctx: Context, key: bytes, field: bytes, value: bytes) -> int:
    """Sets a field of a hash only when the field does not exist."""
    present = ctx.peek(key, Hash)
    if present is not None and field in present:
        return 0
    ctx.write(key, Hash).put(field, value)
    ctx.changed(key, "hset")
    return 1


@command(
    "HDEL",
    arity=-3,
    flags=WRITE | FAST,
    keys=one_key("RW", "delete"),
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the number of fields to be removed.",
    history=(("2.4.0", "Accepts multiple `field` arguments."),),
)
def hdel(ctx: Context, key: bytes, *fields: bytes) -> int:
    """Removes fields from a hash, and the hash with its last field."""
    present = for_change(ctx, key, Hash)
    if present is None:
        return 0
    removed = sum(present.remove(field) for field in fields)
    if removed:
        ctx.changed(key, "hdel")
        ctx.remove_if_empty(key, present)
    return removed


@command(
    "HINCRBY",
    arity=4,
    flags=WRITE | DENYOOM | FAST,
    keys=CHANGE,
    group="hash",
    since="2.0.0",
    complexity="O(1)",
)
def hincrby(ctx: Context, key: bytes, field: bytes, increment: bytes) -> int:
    """Adds an integer to the integer in a field, which counts as 0 when absent."""
    delta = parse_int(increment)
    present = ctx.peek(key, Hash)
    old = present.get(field) if present is not None else None
    value = 0 if old is None else to_int(old)
    if value is None:
        raise CommandError("ERR hash value is not an integer")
    value += delta
    if not INT64_MIN <= value <= INT64_MAX:
        raise CommandError("ERR increment or decrement would overflow")
    ctx.write(key, Hash).change(field, b"%d" % value)
    ctx.changed(key, "hincrby")
    return value


@command(
    "HINCRBYFLOAT",
    arity=4,
    flags=WRITE | DENYOOM | FAST,
    keys=CHANGE,
    group="hash",
    since="2.6.0",
    complexity="O(1)",
)
def hincrbyfloat(ctx: Context, key: bytes, field: bytes, increment: bytes) -> bytes:
    """Adds a floating-point number to the number in a field, which counts as 0 when absent."""
    delta = parse_long_double(increment)
    if isinstance(delta, float):
        raise CommandError("ERR value is NaN or Infinity")
    present = ctx.peek(key, Hash)
    old = present.get(field) if present is not None else None
    value = to_long_double(b"0" if old is None else old)
    if value is None:
        raise CommandError("ERR hash value is not a float")
    text = format_long_double(add_long_doubles(value, delta))
    changing = ctx.write(key, Hash)
    changing.change(field, text)
    ctx.changed(key, "hincrbyfloat")
    if changing.deadline(field) < 0:
        ctx.effect(b"HSET", key, field, text)
    else:
        ctx.effect(b"HSETEX", key, b"KEEPTTL", b"FIELDS", b"1", field, text)
    return text


# --- reading --------------------------------------------------------------------------------------------------------


@command(
    "HGET",
    arity=3,
    flags=READONLY | FAST,
    keys=READ,
    group="hash",
    since="2.0.0",
    complexity="O(1)",
    twin="hget",
)
def hget(ctx: Context, key: bytes, field: bytes) -> bytes | None:
    """Returns the value of a field."""
    present = ctx.read(key, Hash)
    return None if present is None else present.get(field)


@command(
    "HMGET",
    arity=-3,
    flags=READONLY | FAST,
    keys=READ,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the number of fields being requested.",
    twin="hmget",
)
def hmget(ctx: Context, key: bytes, *fields: bytes) -> list[bytes | None]:
    """Returns the values of several fields."""
    present = ctx.read(key, Hash)
    return [None] * len(fields) if present is None else present.get_many(fields)


@command("HLEN", arity=2, flags=READONLY | FAST, keys=LOOK, group="hash", since="2.0.0", complexity="O(1)", twin="hlen")
def hlen(ctx: Context, key: bytes) -> int:
    """Returns the number of fields of a hash."""
    present = ctx.read(key, Hash)
    return 0 if present is None else len(present)


@command(
    "HSTRLEN",
    arity=3,
    flags=READONLY | FAST,
    keys=LOOK,
    group="hash",
    since="3.2.0",
    complexity="O(1)",
    twin="hstrlen",
)
def hstrlen(ctx: Context, key: bytes, field: bytes) -> int:
    """Returns the length of a field's value in bytes."""
    present = ctx.read(key, Hash)
    return 0 if present is None else present.strlen(field)


@command(
    "HEXISTS",
    arity=3,
    flags=READONLY | FAST,
    keys=LOOK,
    group="hash",
    since="2.0.0",
    complexity="O(1)",
    twin="hexists",
)
def hexists(ctx: Context, key: bytes, field: bytes) -> int:
    """Tells whether a hash has a field."""
    present = ctx.read(key, Hash)
    return int(present is not None and field in present)


@command(
    "HKEYS",
    arity=2,
    flags=READONLY,
    keys=READ,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the size of the hash.",
    tips=("nondeterministic_output_order",),
)
def hkeys(ctx: Context, key: bytes) -> list[bytes]:
    """Returns all fields of a hash."""
    present = ctx.read(key, Hash)
    return [] if present is None else present.fields()


@command(
    "HVALS",
    arity=2,
    flags=READONLY,
    keys=READ,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the size of the hash.",
    tips=("nondeterministic_output_order",),
)
def hvals(ctx: Context, key: bytes) -> list[bytes]:
    """Returns all values of a hash."""
    present = ctx.read(key, Hash)
    return [] if present is None else present.values()


@command(
    "HGETALL",
    arity=2,
    flags=READONLY,
    keys=READ,
    group="hash",
    since="2.0.0",
    complexity="O(N) where N is the size of the hash.",
    tips=("nondeterministic_output_order",),
)
def hgetall(ctx: Context, key: bytes) -> dict[bytes, bytes]:
    """Returns all fields of a hash with their values."""
    present = ctx.read(key, Hash)
    return {} if present is None else present.to_dict()


@command(
    "HSCAN",
    arity=-3,
    flags=READONLY,
    keys=READ,
    group="hash",
    since="2.8.0",
    complexity="O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to"
    " return back to 0. N is the number of elements inside the collection.",
    tips=("nondeterministic_output",),
)
def hscan(ctx: Context, key: bytes, cursor: bytes, *options: bytes) -> list[Any]:
    """Iterates over the fields and values of a hash."""
    start = parse_cursor(cursor)
    present = ctx.read(key, Hash)
    if present is None:  # Redis looks at the options only now
        return [b"0", []]
    pattern, count = parse_scan_options(options)
    following, flat = present.scan(start, count)
    if pattern is not None:
        flat = [
            text
            for place in range(0, len(flat), 2)
            if glob_match(pattern, flat[place])
            for text in flat[place : place + 2]
        ]
    return [b"%d" % following, flat]


def _without_overdue(ctx: Context, key: bytes) -> Hash | None:
    """The hash to draw from: what is due, and not removed yet, must not be drawn."""
    present = ctx.read(key, Hash)
    if present is None or not present.timed:
        return present
    ctx.db.expire_fields(key)
    return ctx.peek(key, Hash)


@command(
    "HRANDFIELD",
    arity=-2,
    flags=READONLY,
    keys=READ,
    group="hash",
    since="6.2.0",
    complexity="O(N) where N is the number of fields returned",
    tips=("nondeterministic_output",),
)
def hrandfield(ctx: Context, key: bytes, *options: bytes) -> bytes | list[Any] | None:
    """Returns random fields of a hash, with or without their values."""
    if not options:
        present = _without_overdue(ctx, key)
        pair = None if present is None else present.random()
        return None if pair is None else pair[0]
    count = parse_range(options[0], -INT64_MAX, INT64_MAX)
    with_values = len(options) == 2 and options[1].upper() == b"WITHVALUES"
    if len(options) > 1 and not with_values:
        raise SyntaxError_
    if with_values and abs(count) > INT64_MAX // 2:
        raise CommandError("ERR value is out of range")
    present = _without_overdue(ctx, key)
    if present is None:
        return []
    if count >= 0:
        pairs = present.sample(count)
    else:
        pairs = [pair for _ in range(check_samples(count)) if (pair := present.random())]
    if not with_values:
        return [field for field, _ in pairs]
    if ctx.client.protocol == 3:
        return pairs
    return [text for pair in pairs for text in pair]
