"""XREAD and XREADGROUP: new entries of several streams, waiting for them where asked to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from zeekdb.commands.args import INT64_MAX, parse_int, show
from zeekdb.commands.context import Context
from zeekdb.commands.reply import NULL_ARRAY, Pairs
from zeekdb.commands.spec import BLOCKING, MOVABLEKEYS, READONLY, WRITE, KeySpec, command
from zeekdb.commands.stream_words import entry_reply, parse_id
from zeekdb.errors import CommandError, SyntaxError_, WrongType
from zeekdb.hot import journal
from zeekdb.hot.streams import format_id
from zeekdb.types import Stream
from zeekdb.types.stream_groups import MAX_ID, Consumer, Group

NEW = MAX_ID  # what `>` stands for


@dataclass
class Reading:
    """What a call asks for."""

    name: str
    keys: list[bytes] = field(default_factory=list)
    words: list[bytes] = field(default_factory=list)  # the ids as they were given, one for each key
    ids: list[int] = field(default_factory=list)
    count: int = 0  # 0: all
    timeout_ms: int | None = None  # None: does not wait
    group: bytes | None = None
    consumer: bytes = b""
    noack: bool = False


def _parse_block(ctx: Context, name: str, word: bytes) -> int:
    if ctx.in_script:
        raise CommandError(f"ERR {name} command is not allowed with BLOCK option from scripts")
    timeout_ms = parse_int(word, "ERR timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("ERR timeout is negative")
    if timeout_ms > INT64_MAX - ctx.keyspace.now_ms():
        raise CommandError("ERR timeout is out of range")
    return timeout_ms


def parse_reading(ctx: Context, name: str, words: tuple[bytes, ...]) -> Reading:
    """`[GROUP group consumer] [COUNT n] [BLOCK ms] [NOACK] STREAMS key … id …`; GROUP and NOACK for xreadgroup."""
    reading = Reading(name)
    grouped = name == "xreadgroup"
    place = 0
    while place < len(words):
        word = words[place].upper()
        more = len(words) - place - 1
        if word == b"BLOCK" and more:
            place += 1
            reading.timeout_ms = _parse_block(ctx, name, words[place])
        elif word == b"COUNT" and more:
            place += 1
            reading.count = max(parse_int(words[place]), 0)
        elif word == b"STREAMS" and more:
            if more % 2:
                raise CommandError(
                    f"ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{'>' if grouped else '$'}'"
                    " must be specified."
                )
            reading.keys = list(words[place + 1 : place + 1 + more // 2])
            reading.words = list(words[place + 1 + more // 2 :])
            break
        elif word == b"GROUP" and more >= 2:
            if not grouped:
                raise CommandError(
                    "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead."
                )
            reading.group, reading.consumer = words[place + 1 : place + 3]
            place += 2
        elif word == b"NOACK":
            if not grouped:
                raise CommandError(
                    "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead."
                )
            reading.noack = True
        else:
            raise SyntaxError_
        place += 1
    if not reading.keys:
        raise SyntaxError_
    if grouped and reading.group is None:
        raise CommandError("ERR Missing GROUP option for XREADGROUP")
    return reading


def _reply(ctx: Context, found: list[tuple[bytes, list[Any]]]) -> Any:
    """A map of keys to entries; in RESP2 an array of pairs, which is not what other maps are there."""
    return Pairs(list(found)) if ctx.client.protocol == 3 else [[key, entries] for key, entries in found]


# --- XREAD ----------------------------------------------------------------------------------------------------------


def _resolve(ctx: Context, reading: Reading) -> None:
    """The ids, `$` replaced by where each stream ends now."""
    for key, word in zip(reading.keys, reading.words, strict=True):
        stream = ctx.read(key, Stream)
        if word == b"$":
            reading.ids.append(0 if stream is None else stream.last_id)
        elif word == b">":
            raise CommandError(
                "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option."
            )
        else:
            reading.ids.append(parse_id(word))


def _read(ctx: Context, reading: Reading) -> Any:
    found = []
    for key, id in zip(reading.keys, reading.ids, strict=True):
        stream = ctx.db.peek(key)
        if id < MAX_ID and isinstance(stream, Stream):
            entries = stream.range(id + 1, MAX_ID, reading.count)
            if entries:
                found.append((key, entries))
    return _reply(ctx, found) if found else None


@command(
    "XREAD",
    arity=-4,
    flags=READONLY | BLOCKING | MOVABLEKEYS,
    keys=(KeySpec(("RO", "access"), keyword="STREAMS", start_from=1, last=-1, limit=2),),
    group="stream",
    since="5.0.0",
    complexity="For each stream mentioned: O(N) with N being the number of elements being returned, it means that"
    " XREAD-ing with a fixed COUNT is O(1). Note that when the BLOCK option is used, XADD will pay O(M) time in order"
    " to serve the M clients blocked on the stream getting new data.",
)
def xread(ctx: Context, *words: bytes) -> Any:
    """Returns the entries of several streams above given ids, waiting for some where there are none."""
    reading = parse_reading(ctx, "xread", words)
    _resolve(ctx, reading)
    reply = _read(ctx, reading)
    if reply is not None:
        return reply
    if reading.timeout_ms is None:
        return NULL_ARRAY
    return ctx.block(reading.keys, lambda key: _read(ctx, reading), reading.timeout_ms, NULL_ARRAY)


# --- XREADGROUP -----------------------------------------------------------------------------------------------------


def _resolve_group(ctx: Context, reading: Reading, group: bytes) -> None:
    for key, word in zip(reading.keys, reading.words, strict=True):
        stream = ctx.read(key, Stream)
        if stream is None or group not in stream.groups:
            raise CommandError(
                f"NOGROUP No such key '{show(key)}' or consumer group '{show(group)}' in XREADGROUP with GROUP option"
            )
        if word == b"$":
            raise CommandError(
                "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this"
                " consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return"
                " an empty result set."
            )
        reading.ids.append(NEW if word == b">" else parse_id(word))


def clock_ms(ctx: Context) -> int:
    """Now, for what was delivered when; while the append-only file is read, too."""
    return int(time.time() * 1000) if ctx.server.loading else ctx.keyspace.now_ms()


def make_consumer(
    ctx: Context, key: bytes, group_name: bytes, group: Group, name: bytes, told: bool = True
) -> Consumer:
    """The consumer, created when there is none; it counts as seen. `told`: nothing that follows would create it."""
    now_ms = clock_ms(ctx)
    consumer = group.consumers.get(name)
    if consumer is None:
        consumer = group.add_consumer(name, now_ms)
        ctx.changed(key, "xgroup-createconsumer")
        if told:
            ctx.effect(b"XGROUP", b"CREATECONSUMER", key, group_name, name)
    consumer.seen_ms = now_ms
    return consumer


def tell_claimed(
    ctx: Context, key: bytes, group_name: bytes, group: Group, consumer: Consumer, id: int, time_ms: int, count: int
) -> None:
    """An entry became pending: the effect that says it whenever and wherever it is repeated."""
    if journal.is_open():
        ctx.effect(b"XCLAIM", key, group_name, consumer.name, b"0", format_id(id), b"TIME", b"%d" % time_ms,
                   b"RETRYCOUNT", b"%d" % count, b"FORCE", b"JUSTID", b"LASTID", format_id(group.last_id))  # fmt: skip


def _deliver(ctx: Context, reading: Reading, key: bytes, stream: Stream, group: Group) -> list[Any]:
    """The stream's entries that the group has not seen, now pending for the consumer."""
    entries = stream.entries(group.last_id + 1, MAX_ID, reading.count) if group.last_id < MAX_ID else []
    if not entries:
        return []
    assert reading.group is not None
    consumer = make_consumer(ctx, key, reading.group, group, reading.consumer, reading.noack)
    group.advance(stream, [id for id, _ in entries])
    if not reading.noack:
        now_ms = ctx.keyspace.now_ms()
        consumer.active_ms = now_ms
        for id, _ in entries:
            group.deliver(id, consumer, now_ms)
            tell_claimed(ctx, key, reading.group, group, consumer, id, now_ms, 1)
    if reading.noack or not ctx.client.in_exec:
        # XCLAIM has no word for how much was read, and redis-server forgets the lag without this. Inside a transaction
        # it expects nothing but XCLAIM; our own replicas count then.
        ctx.effect(b"XGROUP", b"SETID", key, reading.group, format_id(group.last_id), b"ENTRIESREAD",
                   b"%d" % group.entries_read)  # fmt: skip
    ctx.keyspace.dirty += 1
    return [entry_reply(id, fields) for id, fields in entries]


def _history(
    ctx: Context, reading: Reading, key: bytes, stream: Stream, group: Group, consumer: Consumer, id: int
) -> list[Any]:
    """What is pending for the consumer above an id, delivered once more; of entries deleted meanwhile only the id."""
    assert reading.group is not None
    now_ms = ctx.keyspace.now_ms()
    reply: list[Any] = []
    for pending, *_ in consumer.pending.range(id + 1, MAX_ID, reading.count):
        fields = stream.get(pending)
        if fields is None:
            reply.append([format_id(pending), NULL_ARRAY])
            continue
        record = group.pending.get(pending)
        assert record is not None
        group.pending.put(pending, consumer.number, now_ms, record[2] + 1)
        tell_claimed(ctx, key, reading.group, group, consumer, pending, now_ms, record[2] + 1)
        reply.append(entry_reply(pending, fields))
    ctx.keyspace.dirty += 1
    return reply


def _read_group(ctx: Context, reading: Reading, may_wait: bool) -> Any:
    """The reply, None when there is nothing. A consumer that is going to wait is created when it is served."""
    assert reading.group is not None
    found = []
    idle: list[tuple[bytes, Group]] = []
    for key, id in zip(reading.keys, reading.ids, strict=True):
        stream = ctx.db.peek(key)
        group: Group | None = stream.groups.get(reading.group) if isinstance(stream, Stream) else None
        if group is None:
            continue
        if id != NEW:
            consumer = make_consumer(ctx, key, reading.group, group, reading.consumer)
            found.append((key, _history(ctx, reading, key, stream, group, consumer, id)))
        elif entries := _deliver(ctx, reading, key, stream, group):
            found.append((key, entries))
        else:
            idle.append((key, group))
    for key, group in idle:
        if found or not may_wait or reading.consumer in group.consumers:
            make_consumer(ctx, key, reading.group, group, reading.consumer)
    return _reply(ctx, found) if found else None


@command(
    "XREADGROUP",
    arity=-7,
    flags=WRITE | BLOCKING | MOVABLEKEYS,
    keys=(KeySpec(("RO", "access"), keyword="STREAMS", start_from=4, last=-1, limit=2),),
    group="stream",
    since="5.0.0",
    complexity="For each stream mentioned: O(M) with M being the number of elements returned. If M is constant (e.g."
    " always asking for the first 10 elements with COUNT), you can consider it O(1). On the other side when XREADGROUP"
    " blocks, XADD will pay the O(N) time in order to serve the N clients blocked on the stream getting new data.",
)
def xreadgroup(ctx: Context, *words: bytes) -> Any:
    """Returns entries of several streams to a consumer of a group: new ones, waiting for some, or its pending ones."""
    reading = parse_reading(ctx, "xreadgroup", words)
    group = reading.group
    assert group is not None
    _resolve_group(ctx, reading, group)
    ctx.effect()  # what it comes to is told apart
    reply = _read_group(ctx, reading, reading.timeout_ms is not None and not ctx.deny_blocking)
    if reply is not None:
        return reply
    if reading.timeout_ms is None:
        return NULL_ARRAY

    def attempt(key: bytes) -> Any:
        try:
            stream = ctx.peek(key, Stream)
        except WrongType:
            stream = None
        if stream is None:
            raise CommandError("UNBLOCKED the stream key no longer exists")
        if group not in stream.groups:
            raise CommandError("NOGROUP the consumer group this client was blocked on no longer exists")
        return _read_group(ctx, reading, True)

    return ctx.block(reading.keys, attempt, reading.timeout_ms, NULL_ARRAY)
