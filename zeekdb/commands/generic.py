"""Commands that concern a key whatever it holds: its existence, name, place, expiry and encoding."""

from __future__ import annotations

from typing import Final

from zeekdb.commands.args import INT64_MAX, INT64_MIN, parse_cursor, parse_int, parse_range, show, to_int
from zeekdb.commands.context import Context
from zeekdb.commands.reply import help_lines
from zeekdb.commands.spec import (
    DENYOOM,
    FAST,
    LOADING,
    READONLY,
    STALE,
    WRITE,
    KeySpec,
    all_keys,
    command,
    container,
    one_key,
)
from zeekdb.errors import CommandError, NoSuchKey, OutOfRange, SyntaxError_
from zeekdb.hot.keyspace import Database, glob_match

INT32_MAX: Final = (1 << 31) - 1
SCAN_COUNT_MAX: Final = 1 << 30  # a larger COUNT means the same: everything
EMBSTR_BYTES_MAX: Final = 44

AGGREGATED = ("request_policy:multi_shard", "response_policy:agg_sum")


# --- existence ----------------------------------------------------------------------------------------------------


def _delete(ctx: Context, keys: tuple[bytes, ...]) -> int:
    return sum(ctx.remove(key) for key in keys)


@command(
    "DEL", arity=-2, flags=WRITE, keys=all_keys("RM", "delete"), group="generic", since="1.0.0", acl=("keyspace",),
    complexity="O(N) where N is the number of keys; large values are freed in the background.", tips=AGGREGATED,
    twin="del",
)  # fmt: skip
def del_(ctx: Context, *keys: bytes) -> int:
    """Deletes keys and returns how many there were."""
    return _delete(ctx, keys)


@command(
    "UNLINK", arity=-2, flags=WRITE | FAST, keys=all_keys("RM", "delete"), group="generic", since="4.0.0",
    acl=("keyspace",), complexity="O(1) for each key; the memory is freed in the background.", tips=AGGREGATED,
    twin="del",
)  # fmt: skip
def unlink(ctx: Context, *keys: bytes) -> int:
    """Deletes keys and frees what they held in the background."""
    return _delete(ctx, keys)


@command(
    "EXISTS", arity=-2, flags=READONLY | FAST, keys=all_keys("RO"), group="generic", since="1.0.0",
    acl=("keyspace",), complexity="O(N) where N is the number of keys to check.", tips=AGGREGATED, twin="exists",
    history=(("3.0.3", "Accepts multiple `key` arguments."),),
)  # fmt: skip
def exists(ctx: Context, *keys: bytes) -> int:
    """Returns how many of the keys exist; one named twice counts twice."""
    return sum(map(ctx.seen, keys))


@command(
    "TOUCH", arity=-2, flags=READONLY | FAST, keys=all_keys("RO"), group="generic", since="3.2.1",
    acl=("keyspace",), complexity="O(N) where N is the number of keys that will be touched.", tips=AGGREGATED,
)  # fmt: skip
def touch(ctx: Context, *keys: bytes) -> int:
    """Marks keys as used just now and returns how many exist."""
    return sum(map(ctx.db.touch, keys))


@command(
    "TYPE", arity=2, flags=READONLY | FAST, keys=one_key("RO"), group="generic", since="1.0.0", acl=("keyspace",),
    complexity="O(1)", twin="type",
)  # fmt: skip
def type_(ctx: Context, key: bytes) -> str:
    """Returns the type of what a key holds."""
    ctx.seen(key)
    return ctx.db.type_of(key) or "none"


@command(
    "RANDOMKEY", arity=1, flags=READONLY, group="generic", since="1.0.0", acl=("keyspace",), complexity="O(1)",
    tips=("request_policy:all_shards", "response_policy:special", "nondeterministic_output"),
)  # fmt: skip
def randomkey(ctx: Context) -> bytes | None:
    """Returns a random key."""
    return ctx.db.random_key()


# --- iteration ----------------------------------------------------------------------------------------------------


@command(
    "KEYS", arity=2, flags=READONLY, group="generic", since="1.0.0", acl=("keyspace", "dangerous"),
    complexity="O(N) with N being the number of keys in the database.",
    tips=("request_policy:all_shards", "nondeterministic_output_order"),
)  # fmt: skip
def keys_(ctx: Context, pattern: bytes) -> list[bytes]:
    """Returns all keys that match a pattern."""
    return ctx.db.keys(None if pattern == b"*" else pattern)


@command(
    "SCAN", arity=-2, flags=READONLY, group="generic", since="2.8.0", acl=("keyspace",),
    complexity="O(1) for every call. O(N) for a complete iteration, N being the number of elements.",
    tips=("nondeterministic_output", "request_policy:special", "response_policy:special"),
    history=(("6.0.0", "Added the `TYPE` subcommand."),),
)  # fmt: skip
def scan(ctx: Context, cursor: bytes, *words: bytes) -> list[object]:
    """Iterates over the keys, a few at a time."""
    position = parse_cursor(cursor)
    pattern: bytes | None = None
    kind: str | None = None
    count = 10
    at = 0
    while at + 1 < len(words):
        option, value = words[at].upper(), words[at + 1]
        at += 2
        if option == b"COUNT":
            count = parse_int(value)
            if count < 1:
                raise SyntaxError_
        elif option == b"MATCH":
            pattern = None if value == b"*" else value
        elif option == b"TYPE":
            kind = show(value).lower()
        else:
            raise SyntaxError_
    if at < len(words):
        raise SyntaxError_
    position, found = ctx.db.scan(position, min(count, SCAN_COUNT_MAX))
    if pattern is not None:
        found = [key for key in found if glob_match(pattern, key)]
    if kind is not None:
        found = [key for key in found if ctx.db.type_of(key) == kind]
    return [b"%d" % position, found]


# --- names and places ---------------------------------------------------------------------------------------------

SAME_OBJECT = "ERR source and destination objects are the same"


@command(
    "RENAME", arity=3, flags=WRITE,
    keys=(KeySpec(("RW", "access", "delete"), index=1), KeySpec(("OW", "update"), index=2)), group="generic",
    since="1.0.0", acl=("keyspace",), complexity="O(1)",
    history=(("3.2.0", "The command no longer returns an error when source and destination names are the same."),),
)  # fmt: skip
def rename(ctx: Context, key: bytes, new: bytes) -> str:
    """Renames a key, replacing what the new name held."""
    if not ctx.db.exists(key):
        raise NoSuchKey
    if key != new:
        _rename(ctx, key, new)
    return "OK"


def _rename(ctx: Context, key: bytes, new: bytes) -> None:
    ctx.db.rename(key, new)
    ctx.changed(key, "rename_from")
    ctx.changed(new, "rename_to", 0)


@command(
    "RENAMENX", arity=3, flags=WRITE | FAST,
    keys=(KeySpec(("RW", "access", "delete"), index=1), KeySpec(("OW", "insert"), index=2)), group="generic",
    since="1.0.0", acl=("keyspace",), complexity="O(1)",
    history=(("3.2.0", "The command no longer returns an error when source and destination names are the same."),),
)  # fmt: skip
def renamenx(ctx: Context, key: bytes, new: bytes) -> int:
    """Renames a key only if the new name is free."""
    if not ctx.db.exists(key):
        raise NoSuchKey
    if ctx.db.exists(new):
        return 0
    _rename(ctx, key, new)
    return 1


def _database(ctx: Context, text: bytes) -> Database:
    index = parse_range(text, -INT32_MAX - 1, INT32_MAX)
    if not 0 <= index < len(ctx.keyspace.databases):
        raise OutOfRange("ERR DB index is out of range")
    return ctx.keyspace.databases[index]


@command(
    "MOVE", arity=3, flags=WRITE | FAST, keys=one_key("RW", "access", "update"), group="generic", since="1.0.0",
    acl=("keyspace",), complexity="O(1)",
)  # fmt: skip
def move(ctx: Context, key: bytes, index: bytes) -> int:
    """Moves a key to another database."""
    target = _database(ctx, index)
    if target is ctx.db:
        raise CommandError(SAME_OBJECT)
    if not ctx.db.move(key, target):
        return 0
    ctx.changed(key, "move_from")
    ctx.keyspace.changed(target, key, "move_to")
    return 1


@command(
    "COPY", arity=-3, flags=WRITE | DENYOOM,
    keys=(KeySpec(("RO", "access"), index=1), KeySpec(("OW", "update"), index=2)), group="generic", since="6.2.0",
    acl=("keyspace",),
    complexity="O(N) worst case for collections, where N is the number of nested items. O(1) for string values.",
)  # fmt: skip
def copy(ctx: Context, source: bytes, destination: bytes, *words: bytes) -> int:
    """Copies what a key holds, and its expiry, to another key."""
    target = ctx.db
    replace = False
    at = 0
    while at < len(words):
        word = words[at].upper()
        at += 1
        if word == b"REPLACE":
            replace = True
        elif word == b"DB" and at < len(words):
            target = _database(ctx, words[at])
            at += 1
        else:
            raise SyntaxError_
    if target is ctx.db and source == destination:
        raise CommandError(SAME_OBJECT)
    if not ctx.db.touch(source) or (not replace and target.exists(destination)):
        return 0
    ctx.db.copy(source, target, destination)
    ctx.keyspace.changed(target, destination, "copy_to")
    return 1


# --- expiry -------------------------------------------------------------------------------------------------------

_EXPIRE_HISTORY = (("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`."),)


def _parse_conditions(words: tuple[bytes, ...]) -> set[bytes]:
    conditions = set()
    for word in words:
        condition = word.upper()
        if condition not in (b"NX", b"XX", b"GT", b"LT"):
            raise CommandError(f"ERR Unsupported option {show(word)}")
        conditions.add(condition)
    if b"NX" in conditions and len(conditions) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in conditions and b"LT" in conditions:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return conditions


def _expire(
    ctx: Context, name: str, key: bytes, text: bytes, words: tuple[bytes, ...], *, unit_ms: int, relative: bool
) -> int:
    """Set a deadline if the conditions hold. Without one a key counts as never expiring: less than no deadline."""
    conditions = _parse_conditions(words)
    now = ctx.keyspace.now_ms()
    deadline = parse_int(text) * unit_ms
    fits = INT64_MIN <= deadline <= INT64_MAX
    deadline += now if relative else 0
    if not fits or deadline > INT64_MAX:
        raise CommandError(f"ERR invalid expire time in '{name}' command")
    present = ctx.db.deadline(key)
    if present == -2:
        return 0
    for condition in conditions:
        if (
            (condition == b"NX" and present != -1)
            or (condition == b"XX" and present == -1)
            or (condition == b"GT" and (present == -1 or deadline <= present))
            or (condition == b"LT" and present != -1 and deadline >= present)
        ):
            return 0
    if deadline <= now:
        ctx.remove(key)
        ctx.effect(b"DEL", key)
    else:
        ctx.db.set_deadline(key, deadline)
        ctx.changed(key, "expire")
        ctx.effect(b"PEXPIREAT", key, b"%d" % deadline)
    return 1


@command(
    "EXPIRE", arity=-3, flags=WRITE | FAST, keys=one_key("RW", "update"), group="generic", since="1.0.0",
    acl=("keyspace",), complexity="O(1)", history=_EXPIRE_HISTORY, twin="expire",
)  # fmt: skip
def expire(ctx: Context, key: bytes, seconds: bytes, *words: bytes) -> int:
    """Lets a key expire after seconds."""
    return _expire(ctx, "expire", key, seconds, words, unit_ms=1000, relative=True)


@command(
    "PEXPIRE", arity=-3, flags=WRITE | FAST, keys=one_key("RW", "update"), group="generic", since="2.6.0",
    acl=("keyspace",), complexity="O(1)", history=_EXPIRE_HISTORY, twin="pexpire",
)  # fmt: skip
def pexpire(ctx: Context, key: bytes, milliseconds: bytes, *words: bytes) -> int:
    """Lets a key expire after milliseconds."""
    return _expire(ctx, "pexpire", key, milliseconds, words, unit_ms=1, relative=True)


@command(
    "EXPIREAT", arity=-3, flags=WRITE | FAST, keys=one_key("RW", "update"), group="generic", since="1.2.0",
    acl=("keyspace",), complexity="O(1)", history=_EXPIRE_HISTORY,
)  # fmt: skip
def expireat(ctx: Context, key: bytes, second: bytes, *words: bytes) -> int:
    """Lets a key expire at a Unix time in seconds."""
    return _expire(ctx, "expireat", key, second, words, unit_ms=1000, relative=False)


@command(
    "PEXPIREAT", arity=-3, flags=WRITE | FAST, keys=one_key("RW", "update"), group="generic", since="2.6.0",
    acl=("keyspace",), complexity="O(1)", history=_EXPIRE_HISTORY,
)  # fmt: skip
def pexpireat(ctx: Context, key: bytes, millisecond: bytes, *words: bytes) -> int:
    """Lets a key expire at a Unix time in milliseconds."""
    return _expire(ctx, "pexpireat", key, millisecond, words, unit_ms=1, relative=False)


def _remaining_ms(ctx: Context, key: bytes) -> int:
    deadline = ctx.db.deadline(key)
    return max(deadline - ctx.keyspace.now_ms(), 0) if deadline >= 0 else deadline


def _to_seconds(milliseconds: int) -> int:
    """Rounded to the nearest second; -1 and -2 stand for themselves."""
    return milliseconds if milliseconds < 0 else (milliseconds + 500) // 1000


@command(
    "TTL", arity=2, flags=READONLY | FAST, keys=one_key("RO", "access"), group="generic", since="1.0.0",
    acl=("keyspace",), complexity="O(1)", tips=("nondeterministic_output",), twin="ttl",
    history=(("2.8.0", "Added the -2 reply."),),
)  # fmt: skip
def ttl(ctx: Context, key: bytes) -> int:
    """Returns the seconds a key has to live: -1 without expiry, -2 without key."""
    ctx.seen(key)
    return _to_seconds(_remaining_ms(ctx, key))


@command(
    "PTTL", arity=2, flags=READONLY | FAST, keys=one_key("RO", "access"), group="generic", since="2.6.0",
    acl=("keyspace",), complexity="O(1)", tips=("nondeterministic_output",), twin="pttl",
    history=(("2.8.0", "Added the -2 reply."),),
)  # fmt: skip
def pttl(ctx: Context, key: bytes) -> int:
    """Returns the milliseconds a key has to live: -1 without expiry, -2 without key."""
    ctx.seen(key)
    return _remaining_ms(ctx, key)


@command(
    "EXPIRETIME", arity=2, flags=READONLY | FAST, keys=one_key("RO", "access"), group="generic", since="7.0.0",
    acl=("keyspace",), complexity="O(1)",
)  # fmt: skip
def expiretime(ctx: Context, key: bytes) -> int:
    """Returns the Unix time in seconds at which a key expires."""
    ctx.seen(key)
    return _to_seconds(ctx.db.deadline(key))


@command(
    "PEXPIRETIME", arity=2, flags=READONLY | FAST, keys=one_key("RO", "access"), group="generic", since="7.0.0",
    acl=("keyspace",), complexity="O(1)",
)  # fmt: skip
def pexpiretime(ctx: Context, key: bytes) -> int:
    """Returns the Unix time in milliseconds at which a key expires."""
    ctx.seen(key)
    return ctx.db.deadline(key)


@command(
    "PERSIST", arity=2, flags=WRITE | FAST, keys=one_key("RW", "update"), group="generic", since="2.2.0",
    acl=("keyspace",), complexity="O(1)",
)  # fmt: skip
def persist(ctx: Context, key: bytes) -> int:
    """Takes a key's expiry away."""
    if ctx.db.deadline(key) < 0:
        return 0
    ctx.db.set_deadline(key, 0)
    ctx.changed(key, "persist")
    return 1


# --- OBJECT -------------------------------------------------------------------------------------------------------

container("OBJECT", group="generic", since="2.2.3", summary="Looks at how keys are held.")

_OBJECT_KEY = (KeySpec(("RO",), index=2),)
_ADJUST = "Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust."


@command(
    "OBJECT|ENCODING", arity=3, flags=READONLY, keys=_OBJECT_KEY, group="generic", since="2.2.3", acl=("keyspace",),
    complexity="O(1)", tips=("nondeterministic_output",),
)  # fmt: skip
def object_encoding(ctx: Context, key: bytes) -> bytes | None:
    """Returns the name of the structure behind a key."""
    kind = ctx.db.type_of(key)
    if kind is None:
        return None
    if kind == "string":
        if ctx.db.strlen(key) > EMBSTR_BYTES_MAX:
            return b"raw"
        return b"embstr" if to_int(ctx.db.peek(key)) is None else b"int"
    encoding: str = ctx.db.peek(key).encoding
    return encoding.encode()


@command(
    "OBJECT|REFCOUNT", arity=3, flags=READONLY, keys=_OBJECT_KEY, group="generic", since="2.2.3", acl=("keyspace",),
    complexity="O(1)", tips=("nondeterministic_output",),
)  # fmt: skip
def object_refcount(ctx: Context, key: bytes) -> int | None:
    """Returns how many keys share a value: nothing is shared here, so 1."""
    return 1 if ctx.db.exists(key) else None


@command(
    "OBJECT|IDLETIME", arity=3, flags=READONLY, keys=_OBJECT_KEY, group="generic", since="2.2.3", acl=("keyspace",),
    complexity="O(1)", tips=("nondeterministic_output",),
)  # fmt: skip
def object_idletime(ctx: Context, key: bytes) -> int | None:
    """Returns the seconds since a key was last used."""
    idle = ctx.db.idle_s(key)
    if idle is not None and not ctx.keyspace.touch_time:
        kind = "An LFU" if ctx.keyspace.touch_lfu else "Another"
        raise CommandError(f"ERR {kind} maxmemory policy is selected, idle time not tracked. {_ADJUST}")
    return idle


@command(
    "OBJECT|FREQ", arity=3, flags=READONLY, keys=_OBJECT_KEY, group="generic", since="4.0.0", acl=("keyspace",),
    complexity="O(1)", tips=("nondeterministic_output",),
)  # fmt: skip
def object_freq(ctx: Context, key: bytes) -> int | None:
    """Returns the logarithmic counter of a key's uses."""
    frequency = ctx.db.frequency(key)
    if frequency is not None and not ctx.keyspace.touch_lfu:
        raise CommandError(f"ERR An LFU maxmemory policy is not selected, access frequency not tracked. {_ADJUST}")
    return frequency


@command(
    "OBJECT|HELP", arity=2, flags=LOADING | STALE, group="generic", since="6.2.0", acl=("keyspace",),
    complexity="O(1)",
)  # fmt: skip
def object_help(ctx: Context) -> list[str]:
    """Returns help about the subcommands."""
    return help_lines(
        "OBJECT",
        "ENCODING <key>",
        "    Return the kind of internal representation used in order to store the value",
        "    associated with a <key>.",
        "FREQ <key>",
        "    Return the access frequency index of the <key>. The returned integer is",
        "    proportional to the logarithm of the recent access frequency of the key.",
        "IDLETIME <key>",
        "    Return the idle time of the <key>, that is the approximated number of",
        "    seconds elapsed since the last access to the key.",
        "REFCOUNT <key>",
        "    Return the number of references of the value associated with the specified",
        "    <key>.",
    )
