"""Commands that read for long, a slice at a time: other clients are served between the slices."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from zeekdb.commands.context import Context
from zeekdb.errors import CommandError
from zeekdb.hot.replies import DEFERRED

Steps = Generator[None, None, Any]


def in_slices(ctx: Context, steps: Steps) -> Any:
    """What a handler returns whose work is `steps`: a generator that yields where it may pause, and returns the reply.

    Between two slices the keyspace may change, so a step must not keep what a change makes untrue. Inside EXEC and
    scripts there are no pauses.
    """
    try:
        next(steps)
        while ctx.deny_blocking:
            next(steps)
    except StopIteration as end:
        return end.value
    ctx.server.spawn_later(_go_on, ctx, steps)
    return DEFERRED


def _go_on(ctx: Context, steps: Steps) -> None:
    client, server = ctx.client, ctx.server
    if client.closed:
        steps.close()
        return
    try:
        next(steps)
    except StopIteration as end:
        reply = end.value
    except CommandError as error:
        server.dispatcher.count_late_error(client, error)
        reply = error
    except Exception as error:
        server.dispatcher.report_bug(client, client.last_command_index, error)
        reply = CommandError("ERR internal error, see the server's log")
    else:
        server.spawn_later(_go_on, ctx, steps)
        return
    client.finish(reply)
    server.settle()
