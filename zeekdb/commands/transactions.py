"""Transactions: commands queued and run as one, if the keys they rest on have not changed."""

from __future__ import annotations

from zeekdb.commands.context import Context
from zeekdb.commands.reply import NullArray
from zeekdb.commands.spec import (
    ALLOW_BUSY,
    FAST,
    LOADING,
    NO_MULTI,
    NOSCRIPT,
    SKIP_SLOWLOG,
    STALE,
    all_keys,
    command,
)  # fmt: skip
from zeekdb.errors import CommandError
from zeekdb.hot.replies import NoReply

GROUP = "transactions"
ANY_STATE = NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY


@command("MULTI", arity=1, flags=ANY_STATE | NO_MULTI, group=GROUP, since="1.2.0", complexity="O(1)")
def multi(ctx: Context) -> str:
    """Starts a transaction."""
    ctx.client.transaction.begin()
    return "OK"


@command("EXEC", arity=1, flags=NOSCRIPT | LOADING | STALE | SKIP_SLOWLOG, group=GROUP, since="1.2.0",
         complexity="Depends on commands in the transaction")  # fmt: skip
def exec_(ctx: Context) -> NullArray | NoReply:
    """Executes all commands in a transaction."""
    reply: NullArray | NoReply = ctx.client.transaction.execute()
    return reply


@command("DISCARD", arity=1, flags=ANY_STATE, group=GROUP, since="2.0.0",
         complexity="O(N), when N is the number of queued commands")  # fmt: skip
def discard(ctx: Context) -> str:
    """Discards a transaction."""
    ctx.client.transaction.discard()
    return "OK"


@command("WATCH", arity=-2, flags=ANY_STATE | NO_MULTI, keys=all_keys("RO"), group=GROUP, since="2.2.0",
         complexity="O(1) for every key.")  # fmt: skip
def watch(ctx: Context, *keys: bytes) -> str:
    """Monitors changes to keys to determine the execution of a transaction."""
    if ctx.client.in_multi:
        raise CommandError("ERR WATCH inside MULTI is not allowed")
    for key in keys:
        ctx.server.watches.add(ctx.client, key)
    return "OK"


@command("UNWATCH", arity=1, flags=ANY_STATE, group=GROUP, since="2.2.0", complexity="O(1)")
def unwatch(ctx: Context) -> str:
    """Forgets about watched keys of a transaction."""
    ctx.server.watches.drop(ctx.client)
    return "OK"
