"""Stream commands that concern the log of entries."""

from __future__ import annotations

from typing import Any

from zeekdb.commands.args import UINT64_MASK, parse_int
from zeekdb.commands.context import Context
from zeekdb.commands.members import for_change
from zeekdb.commands.reply import NULL_ARRAY
from zeekdb.commands.spec import DENYOOM, FAST, READONLY, WRITE, command, one_key
from zeekdb.commands.stream_words import (
    ENTRY_BYTES_MAX,
    Adding,
    parse_adding,
    parse_id,
    parse_interval_end,
    parse_interval_start,
)
from zeekdb.errors import CommandError, NoSuchKey, SyntaxError_, WrongArity
from zeekdb.hot.streams import format_id
from zeekdb.types import Stream
from zeekdb.types.stream_groups import MAX_ID

TRIM_HISTORY = ("6.2.0", "Added the `MINID` trimming strategy and the `LIMIT` option.")


def _find_id(adding: Adding, stream: Stream | None, now_ms: int) -> int:
    """The new entry's id, larger than any before."""
    last = 0 if stream is None else stream.last_id
    if last == MAX_ID:
        raise CommandError("ERR The stream has exhausted the last possible ID, unable to add more items")
    if adding.id is None:
        return now_ms << 64 if now_ms > last >> 64 else last + 1
    id = adding.id
    if not adding.whole and id >> 64 == last >> 64:
        id = last + (last & UINT64_MASK != UINT64_MASK)  # the sequence does not run over into the next millisecond
    if id <= last:
        raise CommandError("ERR The ID specified in XADD is equal or smaller than the target stream top item")
    return id


@command(
    "XADD",
    arity=-5,
    flags=WRITE | DENYOOM | FAST,
    keys=one_key("RW", "update"),
    group="stream",
    since="5.0.0",
    complexity="O(1) when adding a new entry, O(N) when trimming where N being the number of entries evicted.",
    tips=("nondeterministic_output",),
    history=(
        ("6.2.0", "Added the `NOMKSTREAM` option, `MINID` trimming strategy and the `LIMIT` option."),
        ("7.0.0", "Added support for the `<ms>-*` explicit ID form."),
    ),
    twin="xadd",
)
def xadd(ctx: Context, key: bytes, *words: bytes) -> bytes | None:
    """Appends an entry to a stream, creating the key if needed, and trims the stream where asked to."""
    adding = parse_adding(ctx, words, True)
    fields = adding.fields
    if not fields or len(fields) % 2:
        raise WrongArity("xadd")
    if adding.id == 0 and adding.whole:
        raise CommandError("ERR The ID specified in XADD must be greater than 0-0")
    stream = ctx.peek(key, Stream)
    if stream is None and not adding.create:
        return None
    id = _find_id(adding, stream, ctx.keyspace.now_ms())
    if sum(map(len, fields)) > ENTRY_BYTES_MAX:
        raise CommandError("ERR Elements are too large to be stored")
    stream = ctx.write(key, Stream)
    stream.append(id, fields)
    ctx.changed(key, "xadd")
    if adding.trim is not None and adding.trim.apply(stream):
        ctx.changed(key, "xtrim", 0)
    text = format_id(id)
    if adding.trim is None:
        ctx.effect(b"XADD", key, text, *fields)
    else:
        ctx.effect(b"XADD", key, b"MAXLEN", b"=", b"%d" % len(stream), text, *fields)
    return text


@command(
    "XTRIM",
    arity=-4,
    flags=WRITE,
    keys=one_key("RW", "delete"),
    group="stream",
    since="5.0.0",
    complexity="O(N), with N being the number of evicted entries. Constant times are very small however, since entries"
    " are organized in macro nodes containing multiple entries that can be released with a single deallocation.",
    tips=("nondeterministic_output",),
    history=(TRIM_HISTORY,),
)
def xtrim(ctx: Context, key: bytes, *words: bytes) -> int:
    """Removes a stream's oldest entries, down to a length or up to an id."""
    trim = parse_adding(ctx, words, False).trim
    stream = for_change(ctx, key, Stream)
    if stream is None or trim is None:
        return 0
    removed = trim.apply(stream)
    if removed:
        ctx.changed(key, "xtrim", removed)
        ctx.effect(b"XTRIM", key, b"MAXLEN", b"=", b"%d" % len(stream))
    return removed


@command(
    "XDEL",
    arity=-3,
    flags=WRITE | FAST,
    keys=one_key("RW", "delete"),
    group="stream",
    since="5.0.0",
    complexity="O(1) for each single item to delete in the stream, regardless of the stream size.",
)
def xdel(ctx: Context, key: bytes, *words: bytes) -> int:
    """Removes entries from a stream by their ids; an empty stream stays."""
    stream = for_change(ctx, key, Stream)
    if stream is None:
        return 0
    ids = [parse_id(word) for word in words]
    removed = [id for id in ids if stream.remove(id)]
    if removed:
        stream.max_deleted_id = max(stream.max_deleted_id, *removed)
        ctx.changed(key, "xdel", len(removed))
    return len(removed)


@command(
    "XSETID",
    arity=-3,
    flags=WRITE | DENYOOM | FAST,
    keys=one_key("RW", "update"),
    group="stream",
    since="5.0.0",
    complexity="O(1)",
    history=(("7.0.0", "Added the `entries_added` and `max_deleted_entry_id` arguments."),),
)
def xsetid(ctx: Context, key: bytes, last_id: bytes, *options: bytes) -> str:
    """Sets the last id of a stream, for replication and restoring."""
    id = parse_id(last_id)
    added = -1
    deleted = 0
    for place in range(0, len(options), 2):
        word = options[place].upper()
        if place + 1 == len(options) or word not in (b"ENTRIESADDED", b"MAXDELETEDID"):
            raise SyntaxError_
        if word == b"ENTRIESADDED":
            added = parse_int(options[place + 1])
            if added < 0:
                raise CommandError("ERR entries_added must be positive")
        else:
            deleted = parse_id(options[place + 1])
            if id < deleted:
                raise CommandError(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id"
                )
    stream = for_change(ctx, key, Stream)
    if stream is None:
        raise NoSuchKey
    if id < stream.max_deleted_id:
        raise CommandError("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id")
    if id < stream.last_entry_id():
        raise CommandError("ERR The ID specified in XSETID is smaller than the target stream top item")
    if added != -1 and added < len(stream):
        raise CommandError("ERR The entries_added specified in XSETID is smaller than the target stream length")
    stream.last_id = id
    if added != -1:
        stream.entries_added = added
    if deleted:
        stream.max_deleted_id = deleted
    ctx.changed(key, "xsetid")
    return "OK"


@command(
    "XLEN",
    arity=2,
    flags=READONLY | FAST,
    keys=one_key("RO"),
    group="stream",
    since="5.0.0",
    complexity="O(1)",
    twin="xlen",
)
def xlen(ctx: Context, key: bytes) -> int:
    """Returns the number of entries of a stream."""
    stream = ctx.read(key, Stream)
    return 0 if stream is None else len(stream)


def _range(ctx: Context, key: bytes, start: bytes, end: bytes, options: tuple[bytes, ...], reverse: bool) -> Any:
    low = parse_interval_start(start)
    high = parse_interval_end(end)
    count: int | None = None
    for place in range(0, len(options), 2):
        if options[place].upper() != b"COUNT" or place + 1 == len(options):
            raise SyntaxError_
        count = max(parse_int(options[place + 1]), 0)
    stream = ctx.read(key, Stream)
    if stream is None:
        return []
    if count == 0:
        return NULL_ARRAY
    return stream.range(low, high, count or 0, reverse)


RANGE_COST = (
    "O(N) with N being the number of elements being returned. If N is constant (e.g. always asking for the first 10"
    " elements with COUNT), you can consider it O(1)."
)
RANGE_HISTORY = (("6.2.0", "Added exclusive ranges."),)


@command("XRANGE", arity=-4, flags=READONLY, keys=one_key("RO", "access"), group="stream", since="5.0.0",
         complexity=RANGE_COST, history=RANGE_HISTORY)  # fmt: skip
def xrange(ctx: Context, key: bytes, start: bytes, end: bytes, *options: bytes) -> Any:
    """Returns a stream's entries between two ids."""
    return _range(ctx, key, start, end, options, False)


@command("XREVRANGE", arity=-4, flags=READONLY, keys=one_key("RO", "access"), group="stream", since="5.0.0",
         complexity=RANGE_COST, history=RANGE_HISTORY)  # fmt: skip
def xrevrange(ctx: Context, key: bytes, end: bytes, start: bytes, *options: bytes) -> Any:
    """Returns a stream's entries between two ids, the last first."""
    return _range(ctx, key, start, end, options, True)
