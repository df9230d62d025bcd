"""MODULE: there are no modules and none can be loaded; what asks for the list is told so."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from zeekdb.commands.context import Context
from zeekdb.commands.reply import help_lines
from zeekdb.commands.server import is_local
from zeekdb.commands.spec import ADMIN, LOADING, NO_ASYNC_LOADING, NOSCRIPT, STALE, command, container
from zeekdb.errors import CommandError

LOAD: Final = ADMIN | NOSCRIPT | NO_ASYNC_LOADING
REFUSED: Final = (
    'ERR MODULE command not allowed. If the enable-module-command option is set to "local", you can run it from a '
    "local connection, otherwise you need to set this option in the configuration file, and then restart the server."
)
NOT_LOADED: Final = "ERR Error loading the extension. Please check the server logs."

container("MODULE", group="server", since="4.0.0", summary="A container for module commands")


def refuse(ctx: Context, message: str) -> NoReturn:
    """The message, to those whom `enable-module-command` lets ask at all."""
    allowed = ctx.server.config.enable_module_command
    if allowed == "yes" or (allowed == "local" and is_local(ctx.client)):
        raise CommandError(message)
    raise CommandError(REFUSED)


@command(
    "MODULE|LIST", arity=2, flags=ADMIN | NOSCRIPT, group="server", since="4.0.0",
    complexity="O(N) where N is the number of loaded modules.", tips=("nondeterministic_output_order",),
)  # fmt: skip
def module_list(ctx: Context) -> list[Any]:
    """Lists the modules that are loaded: none."""
    return []


@command("MODULE|LOAD", arity=-3, flags=LOAD, group="server", since="4.0.0", complexity="O(1)")
def module_load(ctx: Context, path: bytes, *args: bytes) -> str:
    """Loads a module; no module fits this server."""
    refuse(ctx, NOT_LOADED)


@command("MODULE|LOADEX", arity=-3, flags=LOAD, group="server", since="7.0.0", complexity="O(1)")
def module_loadex(ctx: Context, path: bytes, *args: bytes) -> str:
    """Loads a module with its configuration; no module fits this server."""
    refuse(ctx, NOT_LOADED)


@command("MODULE|UNLOAD", arity=3, flags=LOAD, group="server", since="4.0.0", complexity="O(1)")
def module_unload(ctx: Context, name: bytes) -> str:
    """Unloads a module."""
    refuse(ctx, "ERR Error unloading module: no such module with that name")


@command("MODULE|HELP", arity=2, flags=LOADING | STALE, group="server", since="5.0.0", complexity="O(1)")
def module_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "MODULE",
        "LIST",
        "    Return a list of loaded modules.",
        "LOAD <path> [<arg> ...]",
        "    Load a module library from <path>, passing to it any optional arguments.",
        "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
        "    Load a module library from <path>, while passing it module configurations and optional arguments.",
        "UNLOAD <name>",
        "    Unload a module.",
    )
