"""Replication: what replicas ask of their primary, and what clients ask about replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zeekdb.commands.args import INT64_MAX, parse_int, parse_range, parse_uint, show
from zeekdb.commands.context import Context
from zeekdb.commands.spec import (
    ADMIN,
    ALLOW_BUSY,
    BLOCKING,
    LOADING,
    NO_ASYNC_LOADING,
    NO_MULTI,
    NOSCRIPT,
    STALE,
    command,
)
from zeekdb.errors import CommandError, SyntaxError_
from zeekdb.hot.replies import NO_REPLY, NoReply

ATTACH: Final = ADMIN | NOSCRIPT | NO_ASYNC_LOADING
ADDRESS_BYTES_MAX: Final = 255
MIN_OF_SHARDS: Final = ("request_policy:all_shards", "response_policy:agg_min")
WITHOUT_AOF: Final = "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."


# --- becoming a replica, or none ----------------------------------------------------------------------------------


def _replicate(ctx: Context, host: bytes, port: bytes) -> str:
    replica = ctx.server.replica
    if host.upper() == b"NO" and port.upper() == b"ONE":
        replica.promote()
        return "OK"
    number = parse_range(port, 0, 65535, "ERR Invalid master port")
    name = show(host)
    if replica.active and (replica.host, replica.port) == (name, number):
        return "OK Already connected to specified master"
    replica.follow(name, number)
    return "OK"


@command("REPLICAOF", arity=3, flags=ATTACH | STALE, group="server", since="5.0.0", complexity="O(1)")
def replicaof(ctx: Context, host: bytes, port: bytes) -> str:
    """Makes the server a replica of another, or with `NO ONE` of none."""
    return _replicate(ctx, host, port)


@command(
    "SLAVEOF", arity=3, flags=ATTACH | STALE, group="server", since="1.0.0", complexity="O(1)",
    doc_flags=("deprecated",), deprecated_since="5.0.0", replaced_by="`REPLICAOF`",
)  # fmt: skip
def slaveof(ctx: Context, host: bytes, port: bytes) -> str:
    """Makes the server a replica of another, or with `NO ONE` of none."""
    return _replicate(ctx, host, port)


@command("FAILOVER", arity=-1, flags=ADMIN | NOSCRIPT | STALE, group="server", since="6.2.0", complexity="O(1)")
def failover(ctx: Context, *words: bytes) -> str:
    """Makes a replica take this server's place."""
    if len(words) == 1 and words[0].upper() == b"ABORT":
        raise CommandError("ERR No failover in progress.")
    given: set[bytes] = set()
    at = 0
    while at < len(words):
        word = words[at].upper()
        if word in given:
            raise SyntaxError_
        if word == b"TIMEOUT" and at + 1 < len(words):
            if parse_int(words[at + 1]) <= 0:
                raise CommandError("ERR FAILOVER timeout must be greater than 0")
            at += 1
        elif word == b"TO" and at + 2 < len(words):
            parse_int(words[at + 2])
            at += 2
        elif word != b"FORCE":
            raise SyntaxError_
        given.add(word)
        at += 1
    raise CommandError("ERR FAILOVER requires connected replicas.")


# --- what replicas send -------------------------------------------------------------------------------------------


@command("PSYNC", arity=-3, flags=ATTACH | NO_MULTI, group="server", since="2.8.0",
         complexity="O(N) where N is what the replica lacks.")  # fmt: skip
def psync(ctx: Context, replication_id: bytes, offset: bytes, *ignored: bytes) -> NoReply:
    """Makes the connection a replica: sends what it lacks, or all data, and then every change."""
    wanted = parse_int(offset)
    ctx.server.primary.attach(ctx.client, wanted - 1, replication_id)
    return NO_REPLY


@command("SYNC", arity=1, flags=ATTACH | NO_MULTI, group="server", since="1.0.0",
         complexity="O(N) where N is the size of the data.")  # fmt: skip
def sync(ctx: Context) -> NoReply:
    """Makes the connection a replica: sends all data and then every change."""
    ctx.server.primary.attach(ctx.client, -1, b"", old=True)
    return NO_REPLY


@command(
    "REPLCONF", arity=-1, flags=ADMIN | NOSCRIPT | LOADING | STALE | ALLOW_BUSY, group="server", since="3.0.0",
    complexity="O(1)", doc_flags=("syscmd",),
)  # fmt: skip
def replconf(ctx: Context, *pairs: bytes) -> str | NoReply:
    """Takes what a replica says of itself and of what it has."""
    primary = ctx.server.primary
    if len(pairs) % 2:
        raise SyntaxError_
    for option, value in zip(pairs[::2], pairs[1::2], strict=True):
        match option.lower():
            case b"listening-port":
                primary.announce(ctx.client).port = parse_int(value)
            case b"ip-address":
                if len(value) > ADDRESS_BYTES_MAX:
                    raise CommandError(
                        f"ERR REPLCONF ip-address provided by replica instance is too long: {len(value)} bytes"
                    )
                primary.announce(ctx.client).address = show(value)
            case b"rdb-only":
                primary.announce(ctx.client).only_image = bool(parse_range(value, 0, 1))
            case b"rdb-filter-only":
                _check_filter(value)
                primary.announce(ctx.client).only_functions = bool(value.split())
            case b"capa":
                if value.lower() == b"eof":
                    primary.announce(ctx.client).takes_mark = True
            case b"version":
                pass
            case b"ack":
                primary.acknowledge(ctx.client, parse_int(value))
                return NO_REPLY
            case b"getack":
                return NO_REPLY  # a primary asks its replicas, not the other way round
            case _:
                raise CommandError(f"ERR Unrecognized REPLCONF option: {show(option)}")
    return "OK"


def _check_filter(value: bytes) -> None:
    for word in value.split():
        if word.lower() != b"functions":
            raise CommandError(f"ERR Unsupported rdb-filter-only option: {show(word)}")


# --- waiting for replicas -----------------------------------------------------------------------------------------


def _parse_timeout_ms(ctx: Context, text: bytes) -> int:
    timeout_ms = parse_int(text, "ERR timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("ERR timeout is negative")
    if timeout_ms > INT64_MAX - int(ctx.keyspace.now_ms()):
        raise CommandError("ERR timeout is out of range")
    return timeout_ms


@command(
    "WAIT", arity=3, flags=BLOCKING, group="generic", since="3.0.0", complexity="O(1)", acl=("connection",),
    tips=MIN_OF_SHARDS,
)  # fmt: skip
def wait(ctx: Context, numreplicas: bytes, timeout: bytes) -> Any:
    """Waits until replicas have the connection's changes; returns how many have them."""
    wanted = parse_int(numreplicas)
    timeout_ms = _parse_timeout_ms(ctx, timeout)
    return _wait(ctx, wanted, timeout_ms, lambda count: count)


def _wait(ctx: Context, wanted: int, timeout_ms: int, reply: Callable[[int], Any]) -> Any:
    primary, offset = ctx.server.primary, ctx.client.write_offset

    def attempt(key: bytes) -> Any:
        count = primary.acknowledged_by(offset)
        return reply(count) if count >= wanted else None

    there = attempt(b"")
    if there is not None or ctx.deny_blocking:
        return reply(primary.acknowledged_by(offset))
    primary.ask()
    return ctx.server.blocking.await_replicas(
        ctx.client, attempt, timeout_ms, lambda: reply(primary.acknowledged_by(offset))
    )


@command(
    "WAITAOF", arity=4, flags=BLOCKING, group="generic", since="7.2.0", complexity="O(1)", acl=("connection",),
    tips=MIN_OF_SHARDS,
)  # fmt: skip
def waitaof(ctx: Context, numlocal: bytes, numreplicas: bytes, timeout: bytes) -> Any:
    """Waits until the connection's changes are on the disks of this server and of replicas; returns how many."""
    local = parse_range(numlocal, 0, 1)
    wanted = parse_uint(numreplicas)
    timeout_ms = _parse_timeout_ms(ctx, timeout)
    if local and ctx.server.appendonly.log is None:
        raise CommandError(WITHOUT_AOF)
    wrote_end = ctx.client.wrote_end

    def synced() -> int:
        tail = ctx.server.appendonly.log
        return int(tail is not None and tail.synced >= wrote_end)

    def attempt(key: bytes) -> Any:
        return [synced(), 0] if synced() >= local and wanted == 0 else None  # replicas do not tell of their own files

    if (there := attempt(b"")) is not None or ctx.deny_blocking:
        return there or [synced(), 0]
    return ctx.server.blocking.await_replicas(ctx.client, attempt, timeout_ms, lambda: [synced(), 0])
