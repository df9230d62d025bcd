"""FUNCTION and FCALL: libraries of Lua functions that are part of the data."""

from __future__ import annotations

from typing import Any

from zeekdb.commands.args import show
from zeekdb.commands.context import Context
from zeekdb.commands.reply import help_lines
from zeekdb.commands.scripting import COST, READS, RUNS, WRITES
from zeekdb.commands.spec import (
    ALLOW_BUSY,
    DENYOOM,
    LOADING,
    NOSCRIPT,
    READONLY,
    STALE,
    WRITE,
    command,
    container,
)
from zeekdb.errors import CommandError
from zeekdb.hot.keyspace import glob_match
from zeekdb.hot.lua_values import Members
from zeekdb.hot.script_runner import key_count
from zeekdb.persistence import payload
from zeekdb.scripting.shebang import flag_words

GROUP = "scripting"
EVERYWHERE = ("request_policy:all_shards", "response_policy:all_succeeded")


def _call(ctx: Context, name: bytes, function: bytes, words: tuple[bytes, ...], read_only: bool) -> Any:
    runner = ctx.server.runner
    found = runner.libraries.functions.get(function.lower())
    if found is None:
        raise CommandError("ERR Function not found")
    nkeys = key_count(words, "ERR Bad number of keys provided")
    return runner.run(
        ctx.client, True, found.reference, found.name, found.flags, read_only, nkeys, (name, function, *words)
    )


@command("FCALL", arity=-3, flags=RUNS, keys=WRITES, group=GROUP, since="7.0.0", complexity=COST)
def fcall(ctx: Context, function: bytes, *words: bytes) -> Any:
    """Calls a function."""
    return _call(ctx, b"fcall", function, words, False)


@command("FCALL_RO", arity=-3, flags=RUNS | READONLY, keys=READS, group=GROUP, since="7.0.0", complexity=COST)
def fcall_ro(ctx: Context, function: bytes, *words: bytes) -> Any:
    """Calls a function that may not write."""
    return _call(ctx, b"fcall_ro", function, words, True)


container("FUNCTION", group=GROUP, since="7.0.0", summary="A container for function commands")


@command(
    "FUNCTION|LOAD", arity=-3, flags=NOSCRIPT | WRITE | DENYOOM, group=GROUP, since="7.0.0", acl=(GROUP,),
    complexity="O(1) (considering compilation time is redundant)", tips=EVERYWHERE,
)  # fmt: skip
def function_load(ctx: Context, *words: bytes) -> bytes:
    """Creates a library."""
    *options, code = words
    for option in options:
        if option.upper() != b"REPLACE":
            raise CommandError(f"ERR Unknown option given: {show(option)}")
    name: str = ctx.server.runner.load(code, bool(options))
    ctx.keyspace.dirty += 1
    return name.encode("utf-8", "surrogateescape")


@command(
    "FUNCTION|DELETE", arity=3, flags=NOSCRIPT | WRITE, group=GROUP, since="7.0.0", acl=(GROUP,), complexity="O(1)",
    tips=EVERYWHERE,
)  # fmt: skip
def function_delete(ctx: Context, name: bytes) -> str:
    """Deletes a library and its functions."""
    if not ctx.server.runner.libraries.drop(show(name)):
        raise CommandError("ERR Library not found")
    ctx.keyspace.dirty += 1
    return "OK"


@command(
    "FUNCTION|FLUSH", arity=-2, flags=NOSCRIPT | WRITE, group=GROUP, since="7.0.0", acl=(GROUP,),
    complexity="O(N) where N is the number of functions deleted", tips=EVERYWHERE,
)  # fmt: skip
def function_flush(ctx: Context, *mode: bytes) -> str:
    """Deletes all libraries and functions."""
    if len(mode) > 1:
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'flush'. Try FUNCTION HELP.")
    if mode and mode[0].upper() not in (b"SYNC", b"ASYNC"):
        raise CommandError("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
    ctx.server.runner.libraries.flush()
    ctx.keyspace.dirty += 1
    return "OK"


@command(
    "FUNCTION|LIST", arity=-2, flags=NOSCRIPT, group=GROUP, since="7.0.0", acl=(GROUP,),
    complexity="O(N) where N is the number of functions", tips=("nondeterministic_output_order",),
)  # fmt: skip
def function_list(ctx: Context, *options: bytes) -> list[Any]:
    """Returns information about all libraries."""
    with_code, pattern = False, None
    words = list(options)
    while words:
        word = words.pop(0)
        if word.upper() == b"WITHCODE" and not with_code:
            with_code = True
        elif word.upper() == b"LIBRARYNAME" and pattern is None:
            if not words:
                raise CommandError("ERR library name argument was not given")
            pattern = words.pop(0)
        else:
            raise CommandError(f"ERR Unknown argument {show(word)}")
    found = []
    for library in ctx.server.runner.libraries.libraries.values():
        name = library.name.encode("utf-8", "surrogateescape")
        if pattern is not None and not glob_match(pattern, name, True):
            continue
        described: dict[bytes, Any] = {
            b"library_name": name,
            b"engine": library.engine.encode(),
            b"functions": [
                {
                    b"name": function.name,
                    b"description": function.description,
                    b"flags": Members(flag_words(function.flags)),
                }
                for function in library.functions.values()
            ],
        }
        if with_code:
            described[b"library_code"] = library.code
        found.append(described)
    return found


@command(
    "FUNCTION|DUMP", arity=2, flags=NOSCRIPT, group=GROUP, since="7.0.0", acl=(GROUP,),
    complexity="O(N) where N is the number of functions",
)  # fmt: skip
def function_dump(ctx: Context) -> bytes:
    """Returns all libraries as one payload."""
    records: bytes = ctx.server.runner.libraries.records()
    return records + payload.footer(records)


@command(
    "FUNCTION|RESTORE", arity=-3, flags=NOSCRIPT | WRITE | DENYOOM, group=GROUP, since="7.0.0", acl=(GROUP,),
    complexity="O(N) where N is the number of functions on the payload", tips=EVERYWHERE,
)  # fmt: skip
def function_restore(ctx: Context, data: bytes, *policy: bytes) -> str:
    """Restores libraries from a payload."""
    if len(policy) > 1:
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'restore'. Try FUNCTION HELP.")
    chosen = policy[0].upper() if policy else b"APPEND"
    if chosen not in (b"APPEND", b"REPLACE", b"FLUSH"):
        raise CommandError("ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.")
    ctx.server.runner.libraries.restore(payload.verify(data), chosen)
    ctx.keyspace.dirty += 1
    return "OK"


@command(
    "FUNCTION|STATS", arity=2, flags=NOSCRIPT | ALLOW_BUSY, group=GROUP, since="7.0.0", acl=(GROUP,),
    complexity="O(1)",
    tips=("nondeterministic_output", "request_policy:all_shards", "response_policy:special"),
)  # fmt: skip
def function_stats(ctx: Context) -> dict[bytes, Any]:
    """Returns information about the function that is running, and counts."""
    runner = ctx.server.runner
    run = runner.running
    running = None
    if run is not None:
        running = {b"name": run.name, b"command": run.call, b"duration_ms": run.duration_ms}
    libraries = runner.libraries
    counts = {b"libraries_count": len(libraries.libraries), b"functions_count": len(libraries.functions)}
    return {b"running_script": running, b"engines": {b"LUA": counts}}


@command(
    "FUNCTION|KILL", arity=2, flags=NOSCRIPT | ALLOW_BUSY, group=GROUP, since="7.0.0", acl=(GROUP,),
    complexity="O(1)", tips=("request_policy:all_shards", "response_policy:one_succeeded"),
)  # fmt: skip
def function_kill(ctx: Context) -> str:
    """Ends the function that is running, if it has not written."""
    ctx.server.runner.kill(is_function=True)
    return "OK"


@command("FUNCTION|HELP", arity=2, flags=LOADING | STALE, group=GROUP, since="7.0.0", acl=(GROUP,), complexity="O(1)")
def function_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "FUNCTION",
        "LOAD [REPLACE] <FUNCTION CODE>",
        "    Create a new library with the given library name and code.",
        "DELETE <LIBRARY NAME>",
        "    Delete the given library.",
        "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
        "    Return general information on all the libraries:",
        "    * Library name",
        "    * The engine used to run the Library",
        "    * Functions list",
        "    * Library code (if WITHCODE is given)",
        "    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
        "STATS",
        "    Return information about the current function running:",
        "    * Function name",
        "    * Command used to run the function",
        "    * Duration in MS that the function is running",
        "    If no function is running, return nil",
        "    In addition, returns a list of available engines.",
        "KILL",
        "    Kill the current running function.",
        "FLUSH [ASYNC|SYNC]",
        "    Delete all the libraries.",
        "    When called without the optional mode argument, the behavior is determined by the",
        "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
        "    * ASYNC: Asynchronously flush the libraries.",
        "    * SYNC: Synchronously flush the libraries.",
        "DUMP",
        "    Return a serialized payload representing the current libraries, can be restored using FUNCTION RESTORE "
        "command",
        "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
        "    Restore the libraries represented by the given payload, it is possible to give a restore policy to",
        "    control how to handle existing libraries (default APPEND):",
        "    * FLUSH: delete all existing libraries.",
        "    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
        "    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
        "      libraries with the new libraries (notice that even on this option there is a chance of failure",
        "      in case of functions name conflict with another library).",
    )
