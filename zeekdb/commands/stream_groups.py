"""Consumer groups: XGROUP, and the commands on what was delivered and not yet acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from zeekdb.commands.args import INT64_MAX, parse_int, parse_range, show
from zeekdb.commands.context import Context
from zeekdb.commands.reply import NULL_ARRAY, help_lines
from zeekdb.commands.spec import DENYOOM, FAST, LOADING, READONLY, STALE, WRITE, KeySpec, command, container, one_key
from zeekdb.commands.stream_reads import clock_ms, make_consumer, tell_claimed
from zeekdb.commands.stream_words import (
    entry_reply,
    parse_bound,
    parse_id,
    parse_interval_end,
    parse_interval_start,
)
from zeekdb.errors import CommandError, SyntaxError_
from zeekdb.hot.streams import format_id
from zeekdb.types import Stream
from zeekdb.types.stream_groups import MAX_ID, NOT_COUNTED, Consumer, Group

ATTEMPTS_FACTOR: Final = 10  # pending entries that XAUTOCLAIM looks at for each that it may claim
BATCH: Final = 256  # pending entries taken from a list at once

CHANGE = one_key("RW", "update")


def find_group(stream: Stream | None, key: bytes, name: bytes) -> Group:
    """The group, or NOGROUP as the commands on pending entries say it."""
    group: Group | None = None if stream is None else stream.groups.get(name)
    if group is None:
        raise CommandError(f"NOGROUP No such key '{show(key)}' or consumer group '{show(name)}'")
    return group


def no_such_group(key: bytes, name: bytes) -> CommandError:
    """NOGROUP as XGROUP and XINFO say it."""
    return CommandError(f"NOGROUP No such consumer group '{show(name)}' for key name '{show(key)}'")


# --- XGROUP ---------------------------------------------------------------------------------------------------------

container("XGROUP", group="stream", since="5.0.0", summary="A container for consumer groups commands.")


def _key(*flags: str) -> tuple[KeySpec, ...]:
    return (KeySpec(flags, index=2),)


def _parse_group_options(words: tuple[bytes, ...], subcommand: str) -> tuple[int, bool]:
    """`[MKSTREAM] [ENTRIESREAD n]`: the entries read, and whether to create the stream."""
    read, create = NOT_COUNTED, False
    place = 0
    while place < len(words):
        word = words[place].upper()
        if word == b"MKSTREAM" and subcommand == "CREATE":
            create = True
        elif word == b"ENTRIESREAD" and place + 1 < len(words):
            place += 1
            read = parse_int(words[place])
            if read < 0 and read != NOT_COUNTED:
                raise CommandError("ERR value for ENTRIESREAD must be positive or -1")
        else:
            raise CommandError(
                f"ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try XGROUP HELP."
            )
        place += 1
    return read, create


def _stream(ctx: Context, key: bytes) -> Stream:
    stream = ctx.peek(key, Stream)
    if stream is None:
        raise CommandError(
            "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM"
            " option to create an empty stream automatically."
        )
    return stream


def _group(ctx: Context, key: bytes, name: bytes) -> Group:
    group: Group | None = _stream(ctx, key).groups.get(name)
    if group is None:
        raise no_such_group(key, name)
    return group


@command("XGROUP|CREATE", arity=-5, flags=WRITE | DENYOOM, keys=_key("RW", "insert"), group="stream", since="5.0.0",
         complexity="O(1)",
         history=(("7.0.0", "Added the `entries_read` named argument."),))  # fmt: skip
def xgroup_create(ctx: Context, key: bytes, name: bytes, last_id: bytes, *options: bytes) -> str:
    """Creates a consumer group, and the stream where asked to."""
    read, create = _parse_group_options(options, "CREATE")
    stream = ctx.peek(key, Stream) if create else _stream(ctx, key)
    if last_id == b"$":
        id = 0 if stream is None else stream.last_id
    else:
        id = parse_id(last_id)
    stream = ctx.write(key, Stream)
    if name in stream.groups:
        raise CommandError("BUSYGROUP Consumer Group name already exists")
    stream.groups[name] = Group(id, read)
    ctx.changed(key, "xgroup-create")
    return "OK"


@command("XGROUP|SETID", arity=-5, flags=WRITE, keys=_key("RW", "update"), group="stream", since="5.0.0",
         complexity="O(1)",
         history=(("7.0.0", "Added the optional `entries_read` argument."),))  # fmt: skip
def xgroup_setid(ctx: Context, key: bytes, name: bytes, last_id: bytes, *options: bytes) -> str:
    """Sets the last entry that a consumer group has read."""
    read, _ = _parse_group_options(options, "SETID")
    group = _group(ctx, key, name)
    group.last_id = _stream(ctx, key).last_id if last_id == b"$" else parse_bound(last_id)
    group.entries_read = read
    ctx.changed(key, "xgroup-setid")
    return "OK"


@command("XGROUP|DESTROY", arity=4, flags=WRITE, keys=_key("RW", "delete"), group="stream", since="5.0.0",
         complexity="O(N) where N is the number of entries in the group's pending entries list (PEL).")  # fmt: skip
def xgroup_destroy(ctx: Context, key: bytes, name: bytes) -> int:
    """Destroys a consumer group."""
    if _stream(ctx, key).groups.pop(name, None) is None:
        return 0
    ctx.changed(key, "xgroup-destroy")
    return 1


@command("XGROUP|CREATECONSUMER", arity=5, flags=WRITE | DENYOOM, keys=_key("RW", "insert"), group="stream",
         since="6.2.0", complexity="O(1)")  # fmt: skip
def xgroup_createconsumer(ctx: Context, key: bytes, name: bytes, consumer: bytes) -> int:
    """Creates a consumer in a consumer group."""
    group = _group(ctx, key, name)
    if consumer in group.consumers:
        return 0
    group.add_consumer(consumer, clock_ms(ctx))
    ctx.changed(key, "xgroup-createconsumer")
    return 1


@command("XGROUP|DELCONSUMER", arity=5, flags=WRITE, keys=_key("RW", "delete"), group="stream", since="5.0.0",
         complexity="O(1)")  # fmt: skip
def xgroup_delconsumer(ctx: Context, key: bytes, name: bytes, consumer: bytes) -> int:
    """Deletes a consumer from a consumer group, with what was pending for it."""
    group = _group(ctx, key, name)
    if consumer not in group.consumers:
        return 0
    pending = group.remove_consumer(consumer)
    ctx.changed(key, "xgroup-delconsumer")
    return pending


@command("XGROUP|HELP", arity=2, flags=LOADING | STALE, group="stream", since="5.0.0", complexity="O(1)",
         acl=("stream",))  # fmt: skip
def xgroup_help(ctx: Context) -> list[str]:
    """Returns helpful text about the subcommands."""
    return help_lines(
        "XGROUP",
        "CREATE <key> <groupname> <id|$> [option]",
        "    Create a new consumer group. Options are:",
        "    * MKSTREAM",
        "      Create the empty stream if it does not exist.",
        "    * ENTRIESREAD entries_read",
        "      Set the group's entries_read counter (internal use).",
        "CREATECONSUMER <key> <groupname> <consumer>",
        "    Create a new consumer in the specified group.",
        "DELCONSUMER <key> <groupname> <consumer>",
        "    Remove the specified consumer.",
        "DESTROY <key> <groupname>",
        "    Remove the specified group.",
        "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
        "    Set the current group ID and entries_read counter.",
    )


# --- XACK and XPENDING ----------------------------------------------------------------------------------------------


@command(
    "XACK",
    arity=-4,
    flags=WRITE | FAST,
    keys=CHANGE,
    group="stream",
    since="5.0.0",
    complexity="O(1) for each message ID processed.",
)
def xack(ctx: Context, key: bytes, name: bytes, *words: bytes) -> int:
    """Acknowledges entries: they are pending for nobody any more."""
    stream = ctx.read(key, Stream)
    group: Group | None = None if stream is None else stream.groups.get(name)
    if group is None:
        return 0
    acknowledged = sum([group.acknowledge(id) for id in [parse_id(word) for word in words]])
    ctx.keyspace.dirty += acknowledged
    return acknowledged


def _walk(
    group: Group, consumer: Consumer | None, start: int, end: int, portion: int
) -> Iterator[tuple[int, int, int, int]]:
    """Pending entries of a range, one consumer's or all: (id, owner, time, deliveries). `portion` are taken at once."""
    pending = group.pending if consumer is None else consumer.pending
    while start <= end:
        batch = pending.range(start, end, portion)
        for record in batch:
            if consumer is None:
                yield record
            else:
                found = group.pending.get(record[0])
                assert found is not None
                yield (record[0], *found)
        if len(batch) < portion:
            return
        start = batch[-1][0] + 1


def _summary(group: Group) -> list[Any]:
    """How many entries are pending, from which to which id, and for whom."""
    first, last = group.pending.first(), group.pending.last()
    if first is None or last is None:
        return [0, None, None, NULL_ARRAY]
    owners = [
        [consumer.name, b"%d" % len(consumer.pending)]
        for consumer in group.sorted_consumers()
        if len(consumer.pending)
    ]
    return [len(group.pending), format_id(first), format_id(last), owners]


@command(
    "XPENDING",
    arity=-3,
    flags=READONLY,
    keys=one_key("RO", "access"),
    group="stream",
    since="5.0.0",
    complexity="O(N) with N being the number of elements returned, so asking for a small fixed number of entries per"
    " call is O(1). O(M), where M is the total number of entries scanned when used with the IDLE filter. When the"
    " command returns just the summary and the list of consumers is small, it runs in O(1) time; otherwise, an"
    " additional O(N) time for iterating every consumer.",
    tips=("nondeterministic_output",),
    history=(("6.2.0", "Added the `IDLE` option and exclusive range intervals."),),
)
def xpending(ctx: Context, key: bytes, name: bytes, *words: bytes) -> list[Any]:
    """Returns what is pending in a consumer group: a summary, or the entries of a range."""
    if words and not 3 <= len(words) <= 6:
        raise SyntaxError_
    idle_ms = 0
    if words and words[0].upper() == b"IDLE":
        idle_ms = parse_int(words[1])
        words = words[2:]
        if len(words) < 3:
            raise SyntaxError_
    count = start = end = 0
    if words:
        count = max(parse_int(words[2]), 0)
        start = parse_interval_start(words[0])
        end = parse_interval_end(words[1])
    group = find_group(ctx.read(key, Stream), key, name)
    if not words:
        return _summary(group)
    consumer: Consumer | None = None
    if len(words) > 3:
        consumer = group.consumers.get(words[3])
        if consumer is None:
            return []
    now_ms = ctx.keyspace.now_ms()
    reply: list[Any] = []
    if count:
        for id, owner, time_ms, deliveries in _walk(group, consumer, start, end, min(count, BATCH)):
            if idle_ms and now_ms - time_ms < idle_ms:
                continue
            reply.append([format_id(id), group.owner(owner).name, max(now_ms - time_ms, 0), deliveries])
            if len(reply) == count:
                break
    return reply


# --- XCLAIM and XAUTOCLAIM ------------------------------------------------------------------------------------------


@dataclass
class Claim:
    """The words of XCLAIM after the idle time."""

    ids: list[int] = field(default_factory=list)
    time_ms: int | None = None  # of delivery
    retries: int = -1  # -1: as they come
    force: bool = False
    just_ids: bool = False
    last_id: int = 0


def _parse_claim(words: tuple[bytes, ...], now_ms: int) -> Claim:
    claim = Claim()
    place = 0
    for word in words:
        try:
            claim.ids.append(parse_id(word))
        except CommandError:
            break  # from here on these are options
        place += 1
    while place < len(words):
        word = words[place].upper()
        more = place + 1 < len(words)
        if word == b"FORCE":
            claim.force = True
        elif word == b"JUSTID":
            claim.just_ids = True
        elif word in (b"IDLE", b"TIME", b"RETRYCOUNT") and more:
            place += 1
            value = parse_int(words[place], f"ERR Invalid {word.decode()} option argument for XCLAIM")
            if word == b"RETRYCOUNT":
                claim.retries = value
            else:
                claim.time_ms = value if word == b"TIME" else now_ms - value
        elif word == b"LASTID" and more:
            place += 1
            claim.last_id = parse_id(words[place])
        else:
            raise CommandError(f"ERR Unrecognized XCLAIM option '{show(words[place])}'")
        place += 1
    if claim.time_ms is None or not 0 <= claim.time_ms <= now_ms:
        claim.time_ms = now_ms
    return claim


@command(
    "XCLAIM",
    arity=-6,
    flags=WRITE | FAST,
    keys=CHANGE,
    group="stream",
    since="5.0.0",
    complexity="O(log N) with N being the number of messages in the PEL of the consumer group.",
    tips=("nondeterministic_output",),
)
def xclaim(ctx: Context, key: bytes, name: bytes, consumer_name: bytes, idle: bytes, *words: bytes) -> list[Any]:
    """Makes pending entries a consumer's, if they were idle for long enough."""
    stream = ctx.read(key, Stream)
    group = find_group(stream, key, name)
    assert stream is not None
    idle_ms = max(parse_int(idle, "ERR Invalid min-idle-time argument for XCLAIM"), 0)
    now_ms = clock_ms(ctx)
    claim = _parse_claim(words, now_ms)
    ctx.effect()
    if claim.last_id > group.last_id:
        if ctx.server.loading or ctx.client.kind == "master":
            # XREADGROUP told it so, which counts what was read; XCLAIM has no word for that.
            group.advance(stream, [id for id, _ in stream.entries(group.last_id + 1, claim.last_id)])
        group.last_id = claim.last_id
        ctx.effect(b"XGROUP", b"SETID", key, name, format_id(group.last_id), b"ENTRIESREAD",
                   b"%d" % group.entries_read)  # fmt: skip
        ctx.keyspace.dirty += 1
    consumer = make_consumer(ctx, key, name, group, consumer_name)
    assert claim.time_ms is not None
    reply: list[Any] = []
    for id in claim.ids:
        record = group.pending.get(id)
        fields = stream.get(id)
        if fields is None:  # deleted meanwhile
            if group.acknowledge(id):
                ctx.effect(b"XACK", key, name, format_id(id))
                ctx.keyspace.dirty += 1
            continue
        if record is None and not claim.force:
            continue
        if record is not None and idle_ms and now_ms - record[1] < idle_ms:
            continue
        before = 1 if record is None else record[2]
        deliveries = claim.retries if claim.retries >= 0 else before + (not claim.just_ids)
        _take_over(ctx, key, name, group, consumer, id, claim.time_ms, deliveries)
        reply.append(format_id(id) if claim.just_ids else entry_reply(id, fields))
    return reply


def _take_over(
    ctx: Context, key: bytes, name: bytes, group: Group, consumer: Consumer, id: int, time_ms: int, deliveries: int
) -> None:
    group.deliver(id, consumer, time_ms, deliveries)
    consumer.active_ms = clock_ms(ctx)
    tell_claimed(ctx, key, name, group, consumer, id, time_ms, deliveries)
    ctx.keyspace.dirty += 1


def _parse_autoclaim(words: tuple[bytes, ...]) -> tuple[int, bool]:
    """`[COUNT n] [JUSTID]`."""
    count, just_ids = 100, False
    place = 0
    while place < len(words):
        word = words[place].upper()
        if word == b"COUNT" and place + 1 < len(words):
            place += 1
            count = parse_range(words[place], 1, INT64_MAX // 16, "ERR COUNT must be > 0")
        elif word == b"JUSTID":
            just_ids = True
        else:
            raise SyntaxError_
        place += 1
    return count, just_ids


@command(
    "XAUTOCLAIM",
    arity=-6,
    flags=WRITE | FAST,
    keys=one_key("RW", "delete"),
    group="stream",
    since="6.2.0",
    complexity="O(1) if COUNT is small.",
    tips=("nondeterministic_output",),
    history=(
        ("7.0.0", "Added an element to the reply array, containing deleted entries the command cleared from the PEL"),
    ),
)
def xautoclaim(
    ctx: Context, key: bytes, name: bytes, consumer_name: bytes, idle: bytes, start: bytes, *words: bytes
) -> list[Any]:
    """Makes the pending entries from an id on a consumer's that were idle for long enough, with the next id."""
    idle_ms = max(parse_int(idle, "ERR Invalid min-idle-time argument for XAUTOCLAIM"), 0)
    place = parse_interval_start(start)
    count, just_ids = _parse_autoclaim(words)
    stream = ctx.read(key, Stream)
    group = find_group(stream, key, name)
    assert stream is not None
    ctx.effect()
    consumer = make_consumer(ctx, key, name, group, consumer_name)
    now_ms = ctx.keyspace.now_ms()
    attempts = count * ATTEMPTS_FACTOR
    claimed: list[Any] = []
    deleted: list[bytes] = []
    while count and attempts and place <= MAX_ID:
        batch = group.pending.range(place, MAX_ID, min(count, attempts, BATCH))
        place = batch[-1][0] + 1 if batch else MAX_ID + 1
        attempts -= len(batch)
        for id, _, time_ms, deliveries in batch:
            fields = stream.get(id)
            if fields is None:
                group.acknowledge(id)
                ctx.effect(b"XACK", key, name, format_id(id))
                ctx.keyspace.dirty += 1
                deleted.append(format_id(id))
            elif idle_ms and now_ms - time_ms < idle_ms:
                continue
            else:
                _take_over(ctx, key, name, group, consumer, id, now_ms, deliveries + (not just_ids))
                claimed.append(format_id(id) if just_ids else entry_reply(id, fields))
            count -= 1
    following = group.pending.range(place, MAX_ID, 1) if place <= MAX_ID else []
    return [format_id(following[0][0] if following else 0), claimed, deleted]
