"""SAVE and its kin."""

from __future__ import annotations

from typing import Final

from zeekdb.commands.context import Context
from zeekdb.commands.spec import ADMIN, NO_ASYNC_LOADING, NO_MULTI, NOSCRIPT, command
from zeekdb.errors import SyntaxError_

SAVING: Final = ADMIN | NOSCRIPT | NO_ASYNC_LOADING


@command(
    "SAVE", arity=1, flags=SAVING | NO_MULTI, group="server", since="1.0.0",
    complexity="O(N) where N is the total number of keys in all databases",
)  # fmt: skip
def save(ctx: Context) -> str:
    """Saves the data to disk, and everyone waits for it."""
    ctx.server.saving.save()
    ctx.effect()  # the count of changes begins anew, which is no change
    return "OK"


@command(
    "BGSAVE", arity=-1, flags=SAVING, group="server", since="1.0.0", complexity="O(1)",
    history=(("3.2.2", "Added the `SCHEDULE` option."),),
)  # fmt: skip
def bgsave(ctx: Context, *options: bytes) -> str:
    """Saves the data to disk in the background."""
    if options and (len(options) > 1 or options[0].upper() != b"SCHEDULE"):
        raise SyntaxError_
    reply: str = ctx.server.saving.save_in_background(may_wait=bool(options))
    return reply


@command("BGREWRITEAOF", arity=1, flags=SAVING, group="server", since="1.0.0", complexity="O(1)")
def bgrewriteaof(ctx: Context) -> str:
    """Rewrites the append-only file in the background."""
    reply: str = ctx.server.appendonly.rewrite()
    return reply
