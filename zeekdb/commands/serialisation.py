"""DUMP and RESTORE: a value out of one server and into another."""

from __future__ import annotations

from zeekdb.commands.args import INT64_MAX, parse_int
from zeekdb.commands.context import Context
from zeekdb.commands.spec import ASKING, DENYOOM, READONLY, WRITE, command, one_key
from zeekdb.errors import CommandError, SyntaxError_
from zeekdb.persistence import payload

RESTORE_COMPLEXITY = "O(N) where N is the number of elements of the value; O(N*log(N)) for large sorted sets."
RESTORE_HISTORY = (
    ("3.0.0", "Added the `REPLACE` modifier."),
    ("5.0.0", "Added the `ABSTTL` modifier."),
    ("5.0.0", "Added the `IDLETIME` and `FREQ` options."),
)


@command(
    "DUMP", arity=2, flags=READONLY, keys=one_key("RO", "access"), group="generic", since="2.6.0", acl=("keyspace",),
    complexity="O(N) where N is the size of the value.", tips=("nondeterministic_output",),
)  # fmt: skip
def dump(ctx: Context, key: bytes) -> bytes | None:
    """Returns a key's value in a serialised form, which RESTORE takes."""
    if not ctx.seen(key):
        return None
    ctx.db.touch(key)
    try:
        return payload.dump(ctx.db, key, ctx.server.config.rdbcompression)
    except ValueError as error:
        raise CommandError(f"ERR {error}") from None


@command(
    "RESTORE", arity=-4, flags=WRITE | DENYOOM, keys=one_key("OW", "update"), group="generic", since="2.6.0",
    acl=("keyspace", "dangerous"), complexity=RESTORE_COMPLEXITY, history=RESTORE_HISTORY,
)  # fmt: skip
def restore(ctx: Context, key: bytes, ttl: bytes, data: bytes, *words: bytes) -> str:
    """Creates a key from the serialised form of a value."""
    create(ctx, key, ttl, data, words)
    return "OK"


@command(
    "RESTORE-ASKING", arity=-4, flags=WRITE | DENYOOM | ASKING, keys=one_key("OW", "update"), group="server",
    since="3.0.0", acl=("keyspace", "dangerous"), complexity=RESTORE_COMPLEXITY, history=RESTORE_HISTORY,
    doc_flags=("syscmd",),
)  # fmt: skip
def restore_asking(ctx: Context, key: bytes, ttl: bytes, data: bytes, *words: bytes) -> str:
    """Does what RESTORE does, for a slot on its way between the nodes of a cluster."""
    create(ctx, key, ttl, data, words)
    return "OK"


def create(ctx: Context, key: bytes, ttl: bytes, data: bytes, words: tuple[bytes, ...]) -> None:
    """RESTORE."""
    options = parse_options(words)
    existed = ctx.db.exists(key)
    if existed and not options.replace:
        raise CommandError("BUSYKEY Target key name already exists.")
    deadline = deadline_of(ctx, ttl, options.absolute)
    is_over = 0 < deadline <= ctx.keyspace.now_ms()
    payload.restore(ctx.db, key, data, 0 if is_over else deadline, ctx.server.config.proto_max_bulk_len)
    if is_over:
        ctx.db.remove(key)
        if existed:
            ctx.changed(key, "del")
            ctx.effect(b"DEL", key)
        return
    if ctx.keyspace.touch_lfu and options.frequency >= 0:
        ctx.db.set_frequency(key, options.frequency)
    elif ctx.keyspace.touch_time and options.idle_s >= 0:
        ctx.db.set_idle_s(key, options.idle_s)
    ctx.changed(key, "restore")
    if deadline and not options.absolute:
        ctx.effect(b"RESTORE", key, b"%d" % deadline, data, *words, b"ABSTTL")


class Options:
    """RESTORE's: `idle_s` and `frequency` are -1 when not given."""

    replace = False
    absolute = False
    idle_s = -1
    frequency = -1


def parse_options(words: tuple[bytes, ...]) -> Options:
    """The words behind the payload."""
    options = Options()
    at = 0
    while at < len(words):
        word = words[at].upper()
        follows = at + 1 < len(words)
        if word == b"REPLACE":
            options.replace = True
        elif word == b"ABSTTL":
            options.absolute = True
        elif word == b"IDLETIME" and follows and options.frequency < 0:
            at += 1
            options.idle_s = parse_int(words[at])
            if options.idle_s < 0:
                raise CommandError("ERR Invalid IDLETIME value, must be >= 0")
        elif word == b"FREQ" and follows and options.idle_s < 0:
            at += 1
            options.frequency = parse_int(words[at])
            if not 0 <= options.frequency <= 255:
                raise CommandError("ERR Invalid FREQ value, must be >= 0 and <= 255")
        else:
            raise SyntaxError_
        at += 1
    return options


def deadline_of(ctx: Context, ttl: bytes, absolute: bool) -> int:
    """The deadline that a TTL in milliseconds means, 0 for none."""
    number = parse_int(ttl)
    if number > 0 and not absolute:
        number += ctx.keyspace.now_ms()
    if not 0 <= number <= INT64_MAX:
        raise CommandError("ERR Invalid TTL value, must be >= 0")
    return number
