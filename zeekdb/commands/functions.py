"""FUNCTION, as far as a server without any functions answers it truthfully: there are none, and flushing leaves none.

Clients and test suites flush functions beside the data and expect that to work.
"""

from __future__ import annotations

from zeekdb.commands.context import Context
from zeekdb.commands.spec import NOSCRIPT, WRITE, command, container
from zeekdb.errors import CommandError, SyntaxError_

container("FUNCTION", group="scripting", since="7.0.0", summary="A container for function commands")


@command(
    "FUNCTION|FLUSH", arity=-2, flags=NOSCRIPT | WRITE, group="scripting", since="7.0.0", acl=("scripting",),
    complexity="O(1)", tips=("request_policy:all_shards", "response_policy:all_succeeded"),
)  # fmt: skip
def function_flush(ctx: Context, *mode: bytes) -> str:
    """Deletes all libraries and functions."""
    if len(mode) > 1 or (mode and mode[0].upper() not in (b"SYNC", b"ASYNC")):
        raise CommandError("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
    return "OK"


@command(
    "FUNCTION|LIST", arity=-2, flags=NOSCRIPT, group="scripting", since="7.0.0", acl=("scripting",),
    complexity="O(1)", tips=("nondeterministic_output_order",),
)  # fmt: skip
def function_list(ctx: Context, *options: bytes) -> list[object]:
    """Returns information about all libraries."""
    words = [word.upper() for word in options]
    while words:
        word = words.pop(0)
        if word == b"LIBRARYNAME" and words:
            words.pop(0)
        elif word != b"WITHCODE":
            raise SyntaxError_
    return []
