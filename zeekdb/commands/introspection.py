"""COMMAND: what the declarations say, in the forms that clients read.

Flags, ACL categories, the old (first, last, step) triple and the keys of a call all derive from a declaration here;
nobody else spells them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from zeekdb.commands.args import show
from zeekdb.commands.context import Context
from zeekdb.commands.grammar import Argument, arguments_of
from zeekdb.commands.reply import help_lines
from zeekdb.commands.spec import FLAG_NAMES, LOADING, REGISTRY, STALE, Command, Flag, KeySpec, command
from zeekdb.errors import CommandError, SyntaxError_
from zeekdb.hot.keyspace import glob_match

UNORDERED = ("nondeterministic_output_order",)
QUIET = LOADING | STALE
CONTAINER = "Depends on subcommand."
KEYS_MAX = 1 << 20  # keys of one call that GETKEYS lists; the arguments themselves bound it before

# What a command's group says of its ACL categories. The others (generic, server, connection …) mix kinds of command,
# so there a declaration names its category.
GROUP_CATEGORIES = {
    "string": "string", "list": "list", "set": "set", "sorted-set": "sortedset", "sorted_set": "sortedset",
    "hash": "hash", "bitmap": "bitmap", "hyperloglog": "hyperloglog", "geo": "geo", "stream": "stream",
    "scripting": "scripting", "transactions": "transaction", "vector_set": "vectorset",
}  # fmt: skip
CATEGORIES = (
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo",
    "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting",
    "vectorset",
)  # fmt: skip


# --- what follows from a declaration ------------------------------------------------------------------------------


def is_container(spec: Command) -> bool:
    """Whether the command itself does nothing, but its subcommands."""
    return spec.complexity == CONTAINER


def categories(spec: Command) -> frozenset[str]:
    """ACL categories, without '@': those named, those of the group, and those that Redis derives from flags."""
    if is_container(spec):
        return frozenset({"slow", *spec.acl})
    found = set(spec.acl)
    if spec.group in GROUP_CATEGORIES:
        found.add(GROUP_CATEGORIES[spec.group])
    for flag, implied in (
        (Flag.WRITE, ("write",)),
        (Flag.ADMIN, ("admin", "dangerous")),
        (Flag.PUBSUB, ("pubsub",)),
        (Flag.BLOCKING, ("blocking",)),
    ):
        if spec.flags & flag:
            found.update(implied)
    if spec.flags & Flag.READONLY and "scripting" not in found:
        found.add("read")
    found.add("fast" if spec.flags & Flag.FAST else "slow")
    return frozenset(found)


def is_range(spec: KeySpec) -> bool:
    """Whether the keys stand at places that the declaration alone tells."""
    return not spec.unknown and not spec.keyword and spec.count_at < 0


def legacy_keys(spec: Command) -> tuple[tuple[int, int, int], bool]:
    """(first, last, step) as COMMAND has printed them since 2.8, and whether they do not tell the whole truth."""
    ranges = spec.keys
    if not ranges:
        return (0, 0, 0), False
    if len(ranges) == 1 and is_range(ranges[0]):
        only = ranges[0]
        last = only.last + only.index if only.last >= 0 else only.last
        return (only.index, last, only.step), "incomplete" in only.flags
    movable, first, last = False, 0, 0
    for each in ranges:
        if not is_range(each) or each.step != 1 or (last and last != each.index - 1):
            movable = True
            continue
        movable |= "incomplete" in each.flags
        end = each.last + each.index if each.last >= 0 else each.last
        first = min(first or each.index, each.index)
        last = end if end < 0 or (last >= 0 and end > last) else last
    return ((first, last, 1) if first else (0, 0, 0)), movable


def flags(spec: Command) -> list[str]:
    """COMMAND's words for the flags."""
    value = spec.flags
    if legacy_keys(spec)[1]:
        value |= Flag.MOVABLEKEYS
    return [name for flag, name in FLAG_NAMES.items() if value & flag]


def lookup(words: tuple[bytes, ...]) -> Command | None:
    """The command or subcommand that a whole call names."""
    spec = REGISTRY.get(show(words[0]).upper())
    if spec is None or not spec.subcommands or len(words) < 2:
        return spec
    return spec.subcommands.get(show(words[1]).upper(), None if is_container(spec) else spec)


def lookup_name(name: bytes) -> Command | None:
    """By its name, `get` or `config|get`."""
    parent, bar, sub = show(name).upper().partition("|")
    spec = REGISTRY.get(parent)
    return spec.subcommands.get(sub) if spec and bar else spec


def everything() -> Iterator[Command]:
    """All commands and subcommands."""
    for spec in REGISTRY.values():
        yield spec
        yield from spec.subcommands.values()


# --- the keys of a call -------------------------------------------------------------------------------------------


def key_places(spec: Command, words: tuple[bytes, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """Places of the keys in a whole call, name included, with their access flags. CommandError."""
    if spec.get_keys is not None:  # the first key, then those that the last specification cannot place
        return [(place, spec.keys[-1 if at else 0].flags) for at, place in enumerate(spec.get_keys(words))]
    found: list[tuple[int, tuple[str, ...]]] = []
    for each in spec.keys:
        if each.unknown or "not_key" in each.flags:
            continue
        begin = _begin(each, words)
        if begin:
            places = _places(each, begin, words)
            if not places:  # keys should stand there
                raise CommandError("ERR Invalid arguments specified for command")
            access = exact_access(spec, each, words)
            found += [(at, access) for at in places]
    if not found or any(not 0 < at < len(words) for at, _ in found):
        raise CommandError("ERR Invalid arguments specified for command")
    return found[:KEYS_MAX]


def exact_access(spec: Command, keys: KeySpec, words: tuple[bytes, ...]) -> tuple[str, ...]:
    """Access flags, where they depend on the options of a call."""
    if "variable_flags" not in keys.flags:
        return keys.flags
    if spec.name == "SET":
        return ("RW", "access", "update") if b"GET" in map(bytes.upper, words[3:]) else ("OW", "update")
    if spec.name == "BITFIELD":
        return ("RO", "access") if _only_reads(words) else ("RW", "access", "update")
    return keys.flags


def _only_reads(words: tuple[bytes, ...]) -> bool:
    """Whether a BITFIELD call has nothing but GET (and OVERFLOW); one with a mistake in it does not count."""
    at = 2
    while at < len(words):
        option, left = words[at].upper(), len(words) - at - 1
        if not (option == b"GET" and left >= 2) and not (option == b"OVERFLOW" and left):
            return False
        at += 3 if option == b"GET" else 2
    return True


def _begin(spec: KeySpec, words: tuple[bytes, ...]) -> int:
    """Where a specification's keys begin, 0 when the call has none of them."""
    if not spec.keyword:
        return spec.index
    keyword = spec.keyword.upper().encode()
    if spec.start_from >= 0:
        search = range(spec.start_from, len(words) - 1)
    else:
        search = range(len(words) + spec.start_from, 0, -1)
    return next((at + 1 for at in search if words[at].upper() == keyword), 0)


def _places(spec: KeySpec, begin: int, words: tuple[bytes, ...]) -> range:
    if spec.count_at >= 0:
        counter = words[begin + spec.count_at] if begin + spec.count_at < len(words) else b""
        if not counter.isdigit() or int(counter) > len(words):
            raise CommandError("ERR Invalid arguments specified for command")
        first = begin + spec.first
        return range(first, first + int(counter) * spec.step, spec.step)
    if spec.last >= 0:
        last = begin + spec.last
    else:
        last = len(words) + spec.last
        if spec.limit > 1:
            last = begin + (len(words) - begin) // spec.limit + spec.last
    return range(begin, last + 1, spec.step)


class SetOf(frozenset[Any]):
    """A reply set whose members need not be hashable: a set in RESP3, an array in RESP2."""

    items: list[Any]

    def __new__(cls, items: list[Any]) -> SetOf:
        made = super().__new__(cls)
        made.items = items
        return made

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


# --- the commands -------------------------------------------------------------------------------------------------


def describe_key_spec(spec: KeySpec) -> dict[bytes, Any]:
    """A key specification, as COMMAND INFO prints it."""
    described: dict[bytes, Any] = {}
    if spec.notes:
        described[b"notes"] = spec.notes.encode()
    described[b"flags"] = SetOf(list(spec.flags))
    if spec.keyword:
        begin = {b"type": b"keyword", b"spec": {b"keyword": spec.keyword.encode(), b"startfrom": spec.start_from}}
    elif spec.index:
        begin = {b"type": b"index", b"spec": {b"index": spec.index}}
    else:
        begin = {b"type": b"unknown", b"spec": {}}
    if spec.unknown:
        find: dict[bytes, Any] = {b"type": b"unknown", b"spec": {}}
    elif spec.count_at >= 0:
        numbers = {b"keynumidx": spec.count_at, b"firstkey": spec.first, b"keystep": spec.step}
        find = {b"type": b"keynum", b"spec": numbers}
    else:
        numbers = {b"lastkey": spec.last, b"keystep": spec.step, b"limit": spec.limit}
        find = {b"type": b"range", b"spec": numbers}
    described[b"begin_search"], described[b"find_keys"] = begin, find
    return described


def describe(spec: Command) -> list[Any]:
    """The ten items of COMMAND INFO."""
    (first, last, step), _ = legacy_keys(spec)
    held = categories(spec)
    return [
        spec.lower.encode(),
        spec.arity,
        SetOf(flags(spec)),
        first,
        last,
        step,
        SetOf([f"@{name}" for name in CATEGORIES if name in held]),
        SetOf([tip.encode() for tip in spec.tips]),
        SetOf([describe_key_spec(each) for each in spec.keys]),
        [describe(sub) for sub in spec.subcommands.values()] or SetOf([]),
    ]


def describe_argument(argument: Argument) -> dict[bytes, Any]:
    """An argument, as COMMAND DOCS prints it."""
    described: dict[bytes, Any] = {b"name": argument.name.encode(), b"type": argument.type.encode()}
    if argument.key_spec_index is not None:
        described[b"key_spec_index"] = argument.key_spec_index
    if argument.token is not None:
        described[b"token"] = argument.token.encode()
    if argument.since:
        described[b"since"] = argument.since.encode()
    if argument.deprecated_since:
        described[b"deprecated_since"] = argument.deprecated_since.encode()
    if argument.flags:
        described[b"flags"] = SetOf(list(argument.flags))
    if argument.arguments:
        described[b"arguments"] = [describe_argument(each) for each in argument.arguments]
    return described


def document(spec: Command) -> dict[bytes, Any]:
    """What COMMAND DOCS says of a command."""
    described: dict[bytes, Any] = {
        b"summary": spec.summary.encode(),
        b"since": spec.since.encode(),
        b"group": spec.group.encode(),
        b"complexity": spec.complexity.encode(),
    }
    if spec.doc_flags:
        described[b"doc_flags"] = SetOf(list(spec.doc_flags))
    if spec.deprecated_since:
        described[b"deprecated_since"] = spec.deprecated_since.encode()
    if spec.replaced_by:
        described[b"replaced_by"] = spec.replaced_by.encode()
    if spec.history:
        described[b"history"] = [[since.encode(), change.encode()] for since, change in spec.history]
    if arguments := arguments_of(spec.name):
        described[b"arguments"] = [describe_argument(each) for each in arguments]
    if spec.subcommands:
        described[b"subcommands"] = {sub.lower.encode(): document(sub) for sub in spec.subcommands.values()}
    return described


@command(
    "COMMAND", arity=-1, flags=QUIET, group="server", since="2.8.13", acl=("connection",), tips=UNORDERED,
    complexity="O(N) where N is the total number of Redis commands",
)  # fmt: skip
def command_(ctx: Context) -> list[Any]:
    """Describes every command."""
    return [describe(spec) for spec in REGISTRY.values()]


@command(
    "COMMAND|INFO", arity=-2, flags=QUIET, group="server", since="2.8.13", acl=("connection",), tips=UNORDERED,
    complexity="O(N) where N is the number of commands to look up",
    history=(("7.0.0", "Allowed to be called with no argument to get info on all commands."),),
)  # fmt: skip
def command_info(ctx: Context, *names: bytes) -> list[Any]:
    """Describes commands; null stands for one that is not there."""
    if not names:
        return [describe(spec) for spec in REGISTRY.values()]
    return [describe(spec) if spec else None for spec in map(lookup_name, names)]


@command(
    "COMMAND|COUNT", arity=2, flags=QUIET, group="server", since="2.8.13", acl=("connection",), complexity="O(1)"
)
def command_count(ctx: Context) -> int:
    """Returns how many commands there are."""
    return len(REGISTRY)


@command(
    "COMMAND|DOCS", arity=-2, flags=QUIET, group="server", since="7.0.0", acl=("connection",), tips=UNORDERED,
    complexity="O(N) where N is the number of commands to look up",
)  # fmt: skip
def command_docs(ctx: Context, *names: bytes) -> dict[bytes, Any]:
    """Tells what commands are for."""
    specs = [spec for spec in map(lookup_name, names) if spec] if names else list(REGISTRY.values())
    return {spec.lower.encode(): document(spec) for spec in specs}


@command(
    "COMMAND|LIST", arity=-2, flags=QUIET, group="server", since="7.0.0", acl=("connection",), tips=UNORDERED,
    complexity="O(N) where N is the total number of Redis commands",
)  # fmt: skip
def command_list(ctx: Context, *options: bytes) -> list[bytes]:
    """Lists names of commands, or of those in an ACL category or that match a pattern."""
    if not options:
        return [spec.lower.encode() for spec in everything()]
    if len(options) != 3 or options[0].upper() != b"FILTERBY":
        raise SyntaxError_
    kind, word = options[1].upper(), options[2]
    wanted: Callable[[Command], bool]
    if kind == b"MODULE":
        return []
    if kind == b"ACLCAT":
        category = show(word).lower()
        wanted = lambda spec: category in categories(spec)  # noqa: E731
    elif kind == b"PATTERN":
        wanted = lambda spec: glob_match(word, spec.lower.encode(), True)  # noqa: E731
    else:
        raise SyntaxError_
    return [spec.lower.encode() for spec in everything() if wanted(spec)]


def keys_of_call(call: tuple[bytes, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """What GETKEYS and GETKEYSANDFLAGS share."""
    spec = lookup(call)
    if spec is None:
        raise CommandError("ERR Invalid command specified")
    if not any("not_key" not in each.flags for each in spec.keys) and spec.get_keys is None:
        raise CommandError("ERR The command has no key arguments")
    if (spec.arity > 0 and spec.arity != len(call)) or len(call) < -spec.arity:
        raise CommandError("ERR Invalid number of arguments specified for command")
    try:
        return key_places(spec, call)
    except CommandError:
        if spec.group == "scripting":  # a script may have no keys
            return []
        raise


@command(
    "COMMAND|GETKEYS", arity=-3, flags=QUIET, group="server", since="2.8.13", acl=("connection",),
    complexity="O(N) where N is the number of arguments to the command",
)  # fmt: skip
def command_getkeys(ctx: Context, *call: bytes) -> list[bytes]:
    """Picks the keys out of a call."""
    return [call[at] for at, _ in keys_of_call(call)]


@command(
    "COMMAND|GETKEYSANDFLAGS", arity=-3, flags=QUIET, group="server", since="7.0.0", acl=("connection",),
    complexity="O(N) where N is the number of arguments to the command",
)  # fmt: skip
def command_getkeysandflags(ctx: Context, *call: bytes) -> list[Any]:
    """Picks the keys out of a call and says what the command does to each."""
    return [[call[at], SetOf(list(access))] for at, access in keys_of_call(call)]


@command(
    "COMMAND|HELP", arity=2, flags=QUIET, group="server", since="5.0.0", acl=("connection",), complexity="O(1)"
)
def command_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "COMMAND",
        "(no subcommand)",
        "    Return details about all Redis commands.",
        "COUNT",
        "    Return the total number of commands in this Redis server.",
        "LIST",
        "    Return a list of all commands in this Redis server.",
        "INFO [<command-name> ...]",
        "    Return details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "DOCS [<command-name> ...]",
        "    Return documentation details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "GETKEYS <full-command>",
        "    Return the keys from a full Redis command.",
        "GETKEYSANDFLAGS <full-command>",
        "    Return the keys and the access flags from a full Redis command.",
    )
