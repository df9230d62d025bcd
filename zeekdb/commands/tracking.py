"""CLIENT TRACKING and its kin: the server's help for caches at the clients."""

from __future__ import annotations

from typing import Any

from zeekdb.commands.args import parse_int
from zeekdb.commands.connection import PLAIN
from zeekdb.commands.context import Context
from zeekdb.commands.introspection import SetOf
from zeekdb.commands.spec import command
from zeekdb.errors import CommandError, SyntaxError_


def _parse(ctx: Context, words: tuple[bytes, ...]) -> Any:
    """server.tracking.Tracked, filled in."""
    wanted = ctx.server.tracking.wish()
    at = 0
    while at < len(words):
        word = words[at].upper()
        more = at + 1 < len(words)
        if word == b"REDIRECT" and more:
            at += 1
            if wanted.redirect:
                raise CommandError("ERR A client can only redirect to a single other client")
            wanted.redirect = parse_int(words[at])
            if ctx.server.client(wanted.redirect) is None:
                raise CommandError("ERR The client ID you want redirect to does not exist")
        elif word == b"BCAST":
            wanted.broadcast = True
        elif word == b"OPTIN":
            wanted.opt_in = True
        elif word == b"OPTOUT":
            wanted.opt_out = True
        elif word == b"NOLOOP":
            wanted.no_loop = True
        elif word == b"PREFIX" and more:
            at += 1
            wanted.prefixes[words[at]] = None
        else:
            raise SyntaxError_
        at += 1
    return wanted


@command(
    "CLIENT|TRACKING", arity=-3, flags=PLAIN, group="connection", since="6.0.0", acl=("connection",),
    complexity="O(1). Some options may introduce additional complexity.",
)  # fmt: skip
def client_tracking(ctx: Context, switch: bytes, *words: bytes) -> str:
    """Turns the server's help for the connection's cache on or off."""
    tracking = ctx.server.tracking
    wanted = _parse(ctx, words)
    if switch.upper() == b"ON":
        tracking.enable(ctx.client, wanted)
    elif switch.upper() == b"OFF":
        tracking.disable(ctx.client)
    else:
        raise SyntaxError_
    return "OK"


@command(
    "CLIENT|CACHING", arity=3, flags=PLAIN, group="connection", since="6.0.0", acl=("connection",), complexity="O(1)"
)
def client_caching(ctx: Context, word: bytes) -> str:
    """Says whether the keys of the next command are to be tracked."""
    tracked = ctx.server.tracking.clients.get(ctx.client)
    if tracked is None or not (tracked.opt_in or tracked.opt_out):
        raise CommandError(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode "
            "enabled"
        )
    if word.upper() == b"YES":
        if not tracked.opt_in:
            raise CommandError("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
        tracked.caching = True
    elif word.upper() == b"NO":
        if not tracked.opt_out:
            raise CommandError("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
        tracked.caching = False
    else:
        raise SyntaxError_
    return "OK"


@command(
    "CLIENT|GETREDIR", arity=2, flags=PLAIN, group="connection", since="6.0.0", acl=("connection",), complexity="O(1)"
)
def client_getredir(ctx: Context) -> int:
    """Returns the connection that is told instead: 0 none, -1 without tracking."""
    tracked = ctx.server.tracking.clients.get(ctx.client)
    return -1 if tracked is None else tracked.redirect


@command(
    "CLIENT|TRACKINGINFO", arity=2, flags=PLAIN, group="connection", since="6.2.0", acl=("connection",),
    complexity="O(1)",
)  # fmt: skip
def client_trackinginfo(ctx: Context) -> dict[bytes, Any]:
    """Returns how the connection is tracked."""
    tracked = ctx.server.tracking.clients.get(ctx.client)
    if tracked is None:
        return {b"flags": SetOf([b"off"]), b"redirect": -1, b"prefixes": []}
    flags = [b"on"]
    for name, holds in (
        (b"bcast", tracked.broadcast), (b"optin", tracked.opt_in), (b"optout", tracked.opt_out),
        (b"caching-yes", tracked.opt_in and tracked.caching), (b"caching-no", tracked.caching is False),
        (b"noloop", tracked.no_loop), (b"broken_redirect", tracked.redirect_broken),
    ):  # fmt: skip
        if holds:
            flags.append(name)
    return {b"flags": SetOf(flags), b"redirect": tracked.redirect, b"prefixes": list(tracked.prefixes)}
