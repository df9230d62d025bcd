"""ACL: users and their permissions, as seen and changed by clients. What the rules mean: `zeekdb.server.acl`."""

from __future__ import annotations

import secrets
from typing import Any

from zeekdb.commands.args import parse_int, show
from zeekdb.commands.context import Context
from zeekdb.commands.introspection import CATEGORIES, SetOf, categories, everything, lookup
from zeekdb.commands.reply import help_lines
from zeekdb.commands.spec import ADMIN, LOADING, NOSCRIPT, STALE, command, container
from zeekdb.errors import CommandError, WrongArity

PLAIN = NOSCRIPT | LOADING | STALE
ALL_NODES = ("request_policy:all_nodes", "response_policy:all_succeeded")
LOG_ENTRIES = 10  # shown when no number is given
PASSWORD_BITS, PASSWORD_BITS_MAX = 256, 4096

container("ACL", group="server", since="6.0.0", summary="A container for Access List Control commands")


def spoken(word: bytes) -> str:
    """A client's word inside an error, as C prints it: up to a NUL."""
    return show(word.partition(b"\0")[0])


def wrong_use(subcommand: str) -> CommandError:
    """More words than a subcommand takes, where its arity does not say so."""
    return CommandError(f"ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try ACL HELP.")


# --- users --------------------------------------------------------------------------------------------------------


@command(
    "ACL|SETUSER", arity=-3, flags=ADMIN | PLAIN, group="server", since="6.0.0", tips=ALL_NODES,
    complexity="O(N). Where N is the number of rules provided.",
    history=(
        ("6.2.0", "Added Pub/Sub channel patterns."), ("7.0.0", "Added selectors and key based permissions."),
    ),
)  # fmt: skip
def acl_setuser(ctx: Context, name: bytes, *rules: bytes) -> str:
    """Creates a user, or changes one: all of the rules apply, or none."""
    ctx.server.acl.set_user(name, rules, by=ctx.client)
    return "OK"


@command(
    "ACL|DELUSER", arity=-3, flags=ADMIN | PLAIN, group="server", since="6.0.0", tips=ALL_NODES,
    complexity="O(1) amortized time considering the typical user.",
)  # fmt: skip
def acl_deluser(ctx: Context, *names: bytes) -> int:
    """Deletes users and closes their connections."""
    if b"default" in names:
        raise CommandError("ERR The 'default' user cannot be removed")
    deleted: int = ctx.server.acl.delete(names, by=ctx.client)
    return deleted


def selector_fields(selector: Any) -> dict[bytes, Any]:
    """What ACL GETUSER says of a selector."""
    return {
        b"commands": selector.described_commands(),
        b"keys": selector.described_keys(),
        b"channels": selector.described_channels(),
    }


@command(
    "ACL|GETUSER", arity=3, flags=ADMIN | PLAIN, group="server", since="6.0.0",
    complexity="O(N). Where N is the number of password, command and pattern rules that the user has.",
    history=(
        ("6.2.0", "Added Pub/Sub channel patterns."),
        ("7.0.0", "Added selectors; key and channel patterns are shown as rules, no longer as a list."),
    ),
)  # fmt: skip
def acl_getuser(ctx: Context, name: bytes) -> dict[bytes, Any] | None:
    """Returns the rules of a user, passwords as hashes."""
    user = ctx.server.acl.users.get(name)
    if user is None:
        return None
    return {
        b"flags": SetOf(user.flags),
        b"passwords": list(user.passwords),
        **selector_fields(user.root),
        b"selectors": [selector_fields(selector) for selector in user.selectors[1:]],
    }


@command(
    "ACL|LIST", arity=2, flags=ADMIN | PLAIN, group="server", since="6.0.0",
    complexity="O(N). Where N is the number of configured users.",
)  # fmt: skip
def acl_list(ctx: Context) -> list[bytes]:
    """Lists the users with their rules, as a file of users holds them."""
    lines: list[bytes] = ctx.server.acl.lines()
    return lines


@command(
    "ACL|USERS", arity=2, flags=ADMIN | PLAIN, group="server", since="6.0.0",
    complexity="O(N). Where N is the number of configured users.",
)  # fmt: skip
def acl_users(ctx: Context) -> list[bytes]:
    """Lists the names of the users."""
    return sorted(ctx.server.acl.users)


@command("ACL|WHOAMI", arity=2, flags=PLAIN, group="server", since="6.0.0", complexity="O(1)")
def acl_whoami(ctx: Context) -> bytes:
    """Returns the name of the connection's user."""
    name: bytes = ctx.client.account.name
    return name


@command(
    "ACL|DRYRUN", arity=-4, flags=ADMIN | PLAIN, group="server", since="7.0.0", complexity="O(1).",
)  # fmt: skip
def acl_dryrun(ctx: Context, name: bytes, *call: bytes) -> Any:
    """Says whether a user may run a call, without running it."""
    acl = ctx.server.acl
    user = acl.users.get(name)
    if user is None:
        raise CommandError(f"ERR User '{spoken(name)}' not found")
    spec = lookup(call)
    if spec is None:
        raise CommandError(f"ERR Command '{spoken(call[0])}' not found")
    if (spec.arity > 0 and spec.arity != len(call)) or len(call) < -spec.arity:
        raise WrongArity(spec.lower)
    refusal = acl.dry_run(user, spec, call)
    return "OK" if refusal is None else refusal.encode("utf-8", "surrogateescape")


# --- categories, passwords ----------------------------------------------------------------------------------------


@command(
    "ACL|CAT", arity=-2, flags=PLAIN, group="server", since="6.0.0",
    complexity="O(1) since the categories and commands are a fixed set.",
)  # fmt: skip
def acl_cat(ctx: Context, *words: bytes) -> list[bytes]:
    """Lists the categories, or the commands of one."""
    if not words:
        return [name.encode() for name in CATEGORIES]
    if len(words) > 1:
        raise wrong_use("CAT")
    category = show(words[0]).lower()
    if category not in CATEGORIES:
        raise CommandError(f"ERR Unknown category '{spoken(words[0][:128])}'")
    return [spec.lower.encode() for spec in everything() if category in categories(spec)]


@command("ACL|GENPASS", arity=-2, flags=PLAIN, group="server", since="6.0.0", complexity="O(1)")
def acl_genpass(ctx: Context, *words: bytes) -> bytes:
    """Makes a random password that nobody can guess."""
    if len(words) > 1:
        raise wrong_use("GENPASS")
    bits = parse_int(words[0]) if words else PASSWORD_BITS
    if not 0 < bits <= PASSWORD_BITS_MAX:
        raise CommandError(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to "
            f"{PASSWORD_BITS_MAX}"
        )
    letters = (bits + 3) // 4
    return secrets.token_hex((letters + 1) // 2)[:letters].encode()


# --- the log ------------------------------------------------------------------------------------------------------


@command(
    "ACL|LOG", arity=-2, flags=ADMIN | PLAIN, group="server", since="6.0.0",
    complexity="O(N) with N being the number of entries shown.",
    history=(("7.2.0", "Added entry ID, timestamp created, and timestamp last updated."),),
)  # fmt: skip
def acl_log(ctx: Context, *words: bytes) -> Any:
    """Shows what was refused of late, or forgets it."""
    if len(words) > 1:
        raise wrong_use("LOG")
    log = ctx.server.acl.log
    if words and words[0].lower() == b"reset":
        log.reset()
        return "OK"
    now_ms = int(log.now_s() * 1000)
    return [
        {
            b"count": entry.count,
            b"reason": entry.reason.name.lower().encode(),
            b"context": entry.context.encode(),
            b"object": entry.object,
            b"username": entry.user,
            b"age-seconds": (now_ms - entry.updated_ms) / 1000,
            b"client-info": entry.client.encode("utf-8", "surrogateescape"),
            b"entry-id": entry.number,
            b"timestamp-created": entry.created_ms,
            b"timestamp-last-updated": entry.updated_ms,
        }
        for entry in log.latest(parse_int(words[0]) if words else LOG_ENTRIES)
    ]


# --- files --------------------------------------------------------------------------------------------------------


@command(
    "ACL|LOAD", arity=2, flags=ADMIN | PLAIN, group="server", since="6.0.0",
    complexity="O(N). Where N is the number of configured users.",
)  # fmt: skip
def acl_load(ctx: Context) -> str:
    """Takes the users from the file again: all of them, or none where it has a mistake."""
    ctx.server.acl.load(by=ctx.client)
    return "OK"


@command(
    "ACL|SAVE", arity=2, flags=ADMIN | PLAIN, group="server", since="6.0.0", tips=ALL_NODES,
    complexity="O(N). Where N is the number of configured users.",
)  # fmt: skip
def acl_save(ctx: Context) -> str:
    """Writes the users to the file."""
    ctx.server.acl.save()
    return "OK"


@command("ACL|HELP", arity=2, flags=LOADING | STALE, group="server", since="6.0.0", complexity="O(1)")
def acl_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "ACL",
        "CAT [<category>]",
        "    List all commands that belong to <category>, or all command categories",
        "    when no category is specified.",
        "DELUSER <username> [<username> ...]",
        "    Delete a list of users.",
        "DRYRUN <username> <command> [<arg> ...]",
        "    Returns whether the user can execute the given command without executing the command.",
        "GETUSER <username>",
        "    Get the user's details.",
        "GENPASS [<bits>]",
        "    Generate a secure 256-bit user password. The optional `bits` argument can",
        "    be used to specify a different size.",
        "LIST",
        "    Show users details in config file format.",
        "LOAD",
        "    Reload users from the ACL file.",
        "LOG [<count> | RESET]",
        "    Show the ACL log entries.",
        "SAVE",
        "    Save the current config to the ACL file.",
        "SETUSER <username> <attribute> [<attribute> ...]",
        "    Create or modify a user with the specified attributes.",
        "USERS",
        "    List all the registered usernames.",
        "WHOAMI",
        "    Return the current connection username.",
    )
