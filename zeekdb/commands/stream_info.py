"""XINFO: what a stream, its groups and their consumers look like inside."""

from __future__ import annotations

from typing import Any

from zeekdb.commands.args import parse_int
from zeekdb.commands.context import Context
from zeekdb.commands.reply import help_lines
from zeekdb.commands.spec import LOADING, READONLY, STALE, KeySpec, command, container
from zeekdb.commands.stream_groups import no_such_group
from zeekdb.errors import CommandError, NoSuchKey
from zeekdb.hot.streams import format_id
from zeekdb.types import Stream
from zeekdb.types.stream_groups import MAX_ID, NOT_COUNTED, Consumer, Group

FULL_COUNT_DEFAULT = 10  # entries, and pending ones of each list, that FULL shows unless asked for more

KEY = (KeySpec(("RO", "access"), index=2),)
FIELDS_OF_7 = "`max-deleted-entry-id`, `entries-added`, `recorded-first-entry-id`, `entries-read` and `lag`"
STREAM_HISTORY = (
    ("6.0.0", "Added the `FULL` modifier."),
    ("7.0.0", f"Added the {FIELDS_OF_7} fields"),
    ("7.2.0", "Added the `active-time` field, and changed the meaning of `seen-time`."),
)

container("XINFO", group="stream", since="5.0.0", summary="A container for stream introspection commands.")


def _stream(ctx: Context, key: bytes) -> Stream:
    stream = ctx.read(key, Stream)
    if stream is None:
        raise NoSuchKey
    return stream


def _parse_full(options: tuple[bytes, ...]) -> int:
    """`FULL [COUNT n]`: how much to show, 0 for everything."""
    words = [option.upper() for option in options]
    if words != [b"FULL"] and not (len(words) == 3 and words[:2] == [b"FULL", b"COUNT"]):
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO HELP.")
    count = parse_int(options[2]) if len(options) == 3 else FULL_COUNT_DEFAULT
    return FULL_COUNT_DEFAULT if count < 0 else count


def _consumer(group: Group, consumer: Consumer, count: int) -> dict[bytes, Any]:
    pending = []
    for id, *_ in consumer.pending.range(0, MAX_ID, count):
        record = group.pending.get(id)
        assert record is not None
        pending.append([format_id(id), record[1], record[2]])
    return {
        b"name": consumer.name,
        b"seen-time": consumer.seen_ms,
        b"active-time": consumer.active_ms,
        b"pel-count": len(consumer.pending),
        b"pending": pending,
    }


def _group(stream: Stream, name: bytes, group: Group, count: int) -> dict[bytes, Any]:
    return {
        b"name": name,
        b"last-delivered-id": format_id(group.last_id),
        b"entries-read": None if group.entries_read == NOT_COUNTED else group.entries_read,
        b"lag": group.lag(stream),
        b"pel-count": len(group.pending),
        b"pending": [
            [format_id(id), group.owner(owner).name, time_ms, deliveries]
            for id, owner, time_ms, deliveries in group.pending.range(0, MAX_ID, count)
        ],
        b"consumers": [_consumer(group, consumer, count) for consumer in group.sorted_consumers()],
    }


@command("XINFO|STREAM", arity=-3, flags=READONLY, keys=KEY, group="stream", since="5.0.0", complexity="O(1)",
         history=STREAM_HISTORY)  # fmt: skip
def xinfo_stream(ctx: Context, key: bytes, *options: bytes) -> dict[bytes, Any]:
    """Returns what is known of a stream, with FULL its entries and groups as well."""
    stream = _stream(ctx, key)
    count = _parse_full(options) if options else 0
    reply: dict[bytes, Any] = {
        b"length": len(stream),
        b"radix-tree-keys": stream.block_count,
        b"radix-tree-nodes": stream.node_count(),
        b"last-generated-id": format_id(stream.last_id),
        b"max-deleted-entry-id": format_id(stream.max_deleted_id),
        b"entries-added": stream.entries_added,
        b"recorded-first-entry-id": format_id(stream.first_id),
    }
    if options:
        reply[b"entries"] = stream.range(0, MAX_ID, count)
        reply[b"groups"] = [_group(stream, name, stream.groups[name], count) for name in sorted(stream.groups)]
        return reply
    reply[b"groups"] = len(stream.groups)
    first, last = stream.range(0, MAX_ID, 1), stream.range(0, MAX_ID, 1, True)
    reply[b"first-entry"] = first[0] if first else None
    reply[b"last-entry"] = last[0] if last else None
    return reply


@command("XINFO|GROUPS", arity=3, flags=READONLY, keys=KEY, group="stream", since="5.0.0", complexity="O(1)",
         history=(("7.0.0", "Added the `entries-read` and `lag` fields"),))  # fmt: skip
def xinfo_groups(ctx: Context, key: bytes) -> list[dict[bytes, Any]]:
    """Returns what is known of a stream's consumer groups."""
    stream = _stream(ctx, key)
    groups: list[tuple[bytes, Group]] = [(name, stream.groups[name]) for name in sorted(stream.groups)]
    return [
        {
            b"name": name,
            b"consumers": len(group.consumers),
            b"pending": len(group.pending),
            b"last-delivered-id": format_id(group.last_id),
            b"entries-read": None if group.entries_read == NOT_COUNTED else group.entries_read,
            b"lag": group.lag(stream),
        }
        for name, group in groups
    ]


@command("XINFO|CONSUMERS", arity=4, flags=READONLY, keys=KEY, group="stream", since="5.0.0", complexity="O(1)",
         tips=("nondeterministic_output",),
         history=(("7.2.0", "Added the `inactive` field, and changed the meaning of `idle`."),))  # fmt: skip
def xinfo_consumers(ctx: Context, key: bytes, name: bytes) -> list[dict[bytes, Any]]:
    """Returns what is known of a consumer group's consumers. Times are ms."""
    group: Group | None = _stream(ctx, key).groups.get(name)
    if group is None:
        raise no_such_group(key, name)
    now_ms = ctx.keyspace.now_ms()
    return [
        {
            b"name": consumer.name,
            b"pending": len(consumer.pending),
            b"idle": max(now_ms - consumer.seen_ms, 0),
            b"inactive": -1 if consumer.active_ms == -1 else now_ms - consumer.active_ms,
        }
        for consumer in group.sorted_consumers()
    ]


@command("XINFO|HELP", arity=2, flags=LOADING | STALE, group="stream", since="5.0.0", complexity="O(1)",
         acl=("stream",))  # fmt: skip
def xinfo_help(ctx: Context) -> list[str]:
    """Returns helpful text about the subcommands."""
    return help_lines(
        "XINFO",
        "CONSUMERS <key> <groupname>",
        "    Show consumers of <groupname>.",
        "GROUPS <key>",
        "    Show the stream consumer groups.",
        "STREAM <key> [FULL [COUNT <count>]",
        "    Show information about the stream.",
    )
