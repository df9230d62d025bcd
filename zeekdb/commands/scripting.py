"""EVAL and its kin, and SCRIPT: Lua scripts that run as one command."""

from __future__ import annotations

from typing import Any

from zeekdb.commands.context import Context
from zeekdb.commands.reply import help_lines
from zeekdb.commands.spec import (
    ALLOW_BUSY,
    LOADING,
    NO_MANDATORY_KEYS,
    NOSCRIPT,
    READONLY,
    SKIP_MONITOR,
    STALE,
    KeySpec,
    command,
    container,
    counted_keys,
)
from zeekdb.errors import CommandError
from zeekdb.hot.script_runner import key_count

GROUP = "scripting"
NO_SCRIPT = "NOSCRIPT No matching script. Please use EVAL."
SHA_LENGTH = 40  # hex digits
RUNS = NOSCRIPT | SKIP_MONITOR | STALE | NO_MANDATORY_KEYS
COST = "Depends on the script that is executed."
WRITES: tuple[KeySpec, ...] = counted_keys(2, "RW", "access", "update")
READS: tuple[KeySpec, ...] = counted_keys(2, "RO", "access")


def _evaluate(ctx: Context, name: bytes, body: bytes, words: tuple[bytes, ...], read_only: bool) -> Any:
    nkeys = key_count(words)
    runner = ctx.server.runner
    script = runner.scripts.by_body.get(body) or runner.scripts.get(body)
    return runner.run(
        ctx.client, False, script.reference, script.sha, script.flags, read_only, nkeys, (name, body, *words)
    )


def _evaluate_known(ctx: Context, name: bytes, sha: bytes, words: tuple[bytes, ...], read_only: bool) -> Any:
    if len(sha) != SHA_LENGTH:
        raise CommandError(NO_SCRIPT)
    nkeys = key_count(words)
    runner = ctx.server.runner
    script = runner.scripts.find(sha)
    if script is None:
        raise CommandError(NO_SCRIPT)
    return runner.run(
        ctx.client, False, script.reference, script.sha, script.flags, read_only, nkeys, (name, sha, *words)
    )


@command("EVAL", arity=-3, flags=RUNS, keys=WRITES, group=GROUP, since="2.6.0", complexity=COST)
def eval_(ctx: Context, body: bytes, *words: bytes) -> Any:
    """Runs a Lua script."""
    return _evaluate(ctx, b"eval", body, words, False)


@command("EVAL_RO", arity=-3, flags=RUNS | READONLY, keys=READS, group=GROUP, since="7.0.0", complexity=COST)
def eval_ro(ctx: Context, body: bytes, *words: bytes) -> Any:
    """Runs a Lua script that may not write."""
    return _evaluate(ctx, b"eval_ro", body, words, True)


@command("EVALSHA", arity=-3, flags=RUNS, keys=WRITES, group=GROUP, since="2.6.0", complexity=COST)
def evalsha(ctx: Context, sha: bytes, *words: bytes) -> Any:
    """Runs a Lua script that is in the cache, by its SHA-1."""
    return _evaluate_known(ctx, b"evalsha", sha, words, False)


@command("EVALSHA_RO", arity=-3, flags=RUNS | READONLY, keys=READS, group=GROUP, since="7.0.0", complexity=COST)
def evalsha_ro(ctx: Context, sha: bytes, *words: bytes) -> Any:
    """Runs a Lua script that is in the cache and may not write, by its SHA-1."""
    return _evaluate_known(ctx, b"evalsha_ro", sha, words, True)


container("SCRIPT", group=GROUP, since="2.6.0", summary="A container for commands about the script cache.")


@command(
    "SCRIPT|LOAD", arity=3, flags=NOSCRIPT | STALE, group=GROUP, since="2.6.0", acl=(GROUP,),
    complexity="O(N) with N being the length in bytes of the script body.",
    tips=("request_policy:all_nodes", "response_policy:all_succeeded"),
)  # fmt: skip
def script_load(ctx: Context, body: bytes) -> bytes:
    """Puts a script into the cache; returns its SHA-1."""
    sha: bytes = ctx.server.runner.scripts.get(body, load=True).sha
    return sha


@command(
    "SCRIPT|EXISTS", arity=-3, flags=NOSCRIPT, group=GROUP, since="2.6.0", acl=(GROUP,),
    complexity="O(N) with N being the number of scripts to check.",
    tips=("request_policy:all_shards", "response_policy:agg_logical_and"),
)  # fmt: skip
def script_exists(ctx: Context, *shas: bytes) -> list[int]:
    """Tells which scripts are in the cache."""
    return [int(ctx.server.runner.scripts.find(sha) is not None) for sha in shas]


@command(
    "SCRIPT|SHOW", arity=3, flags=NOSCRIPT, group=GROUP, since="8.0.0", acl=(GROUP,), complexity="O(1)"
)
def script_show(ctx: Context, sha: bytes) -> bytes:
    """Returns a script of the cache."""
    script = ctx.server.runner.scripts.find(sha)
    if script is None:
        raise CommandError("NOSCRIPT No matching script.")
    body: bytes = script.body
    return body


@command(
    "SCRIPT|FLUSH", arity=-2, flags=NOSCRIPT, group=GROUP, since="2.6.0", acl=(GROUP,),
    complexity="O(N) with N being the number of scripts in cache",
    tips=("request_policy:all_nodes", "response_policy:all_succeeded"),
    history=(("6.2.0", "Added the `ASYNC` and `SYNC` flushing mode modifiers."),),
)  # fmt: skip
def script_flush(ctx: Context, *mode: bytes) -> str:
    """Empties the script cache."""
    if len(mode) > 1 or (mode and mode[0].upper() not in (b"SYNC", b"ASYNC")):
        raise CommandError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
    ctx.server.runner.scripts.flush()
    return "OK"


@command(
    "SCRIPT|KILL", arity=2, flags=NOSCRIPT | ALLOW_BUSY, group=GROUP, since="2.6.0", acl=(GROUP,), complexity="O(1)",
    tips=("request_policy:all_shards", "response_policy:one_succeeded"),
)  # fmt: skip
def script_kill(ctx: Context) -> str:
    """Ends the script that is running, if it has not written."""
    ctx.server.runner.kill(is_function=False)
    return "OK"


@command("SCRIPT|DEBUG", arity=3, flags=NOSCRIPT, group=GROUP, since="3.2.0", acl=(GROUP,), complexity="O(1)")
def script_debug(ctx: Context, mode: bytes) -> str:
    """Chooses whether scripts run under the debugger; there is none here."""
    if mode.upper() == b"NO":
        return "OK"
    if mode.upper() in (b"YES", b"SYNC"):
        raise CommandError("ERR this server has no script debugger")
    raise CommandError("ERR Use SCRIPT DEBUG YES/SYNC/NO")


@command("SCRIPT|HELP", arity=2, flags=LOADING | STALE, group=GROUP, since="5.0.0", acl=(GROUP,), complexity="O(1)")
def script_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "SCRIPT",
        "DEBUG (YES|SYNC|NO)",
        "    Set the debug mode for subsequent scripts executed.",
        "EXISTS <sha1> [<sha1> ...]",
        "    Return information about the existence of the scripts in the script cache.",
        "FLUSH [ASYNC|SYNC]",
        "    Flush the Lua scripts cache. Very dangerous on replicas.",
        "    When called without the optional mode argument, the behavior is determined by the",
        "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
        "    * ASYNC: Asynchronously flush the scripts cache.",
        "    * SYNC: Synchronously flush the scripts cache.",
        "KILL",
        "    Kill the currently executing Lua script.",
        "LOAD <script>",
        "    Load a script into the scripts cache without executing it.",
        "SHOW <sha1>",
        "    Return a script of the scripts cache.",
    )
