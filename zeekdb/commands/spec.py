"""The declaration of a command: everything that COMMAND, ACL, key extraction, docs and tests derive from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

Handler = Callable[..., Any]


class Flag:
    """A command's flags, with Redis's names (`Flag.NO_AUTH` is `no_auth`). Plain ints: they are asked at every call."""

    WRITE: Final = 1 << 0
    READONLY: Final = 1 << 1
    DENYOOM: Final = 1 << 2
    ADMIN: Final = 1 << 3
    PUBSUB: Final = 1 << 4
    NOSCRIPT: Final = 1 << 5
    BLOCKING: Final = 1 << 6
    LOADING: Final = 1 << 7
    STALE: Final = 1 << 8
    SKIP_MONITOR: Final = 1 << 9
    SKIP_SLOWLOG: Final = 1 << 10
    ASKING: Final = 1 << 11
    FAST: Final = 1 << 12
    NO_AUTH: Final = 1 << 13
    MAY_REPLICATE: Final = 1 << 14
    NO_ASYNC_LOADING: Final = 1 << 15
    NO_MULTI: Final = 1 << 16
    ALLOW_BUSY: Final = 1 << 17
    MOVABLEKEYS: Final = 1 << 18
    NO_MANDATORY_KEYS: Final = 1 << 19
    BLOBS: Final = 1 << 20  # ours: large arguments come as BlobView; COMMAND does not show it


FLAG_NAMES: Final = {value: name.lower() for name, value in vars(Flag).items() if name.isupper() and name != "BLOBS"}

WRITE, READONLY, DENYOOM, ADMIN, PUBSUB = Flag.WRITE, Flag.READONLY, Flag.DENYOOM, Flag.ADMIN, Flag.PUBSUB
NOSCRIPT, BLOCKING, LOADING, STALE = Flag.NOSCRIPT, Flag.BLOCKING, Flag.LOADING, Flag.STALE
SKIP_MONITOR, SKIP_SLOWLOG, ASKING, FAST = Flag.SKIP_MONITOR, Flag.SKIP_SLOWLOG, Flag.ASKING, Flag.FAST
NO_AUTH, MAY_REPLICATE, NO_ASYNC_LOADING = Flag.NO_AUTH, Flag.MAY_REPLICATE, Flag.NO_ASYNC_LOADING
NO_MULTI, ALLOW_BUSY, MOVABLEKEYS = Flag.NO_MULTI, Flag.ALLOW_BUSY, Flag.MOVABLEKEYS
NO_MANDATORY_KEYS = Flag.NO_MANDATORY_KEYS


@dataclass(frozen=True)
class KeySpec:
    """Where keys stand among the arguments, in the terms of Redis 7's key specifications.

    `index` or (`keyword`, `start_from`) begins the search; `last`/`step`/`limit` (a range) or
    `count_at`/`first`/`step` (a count of keys) finds them. Flags are COMMAND's words: RO RW OW RM, access, update …
    """

    flags: tuple[str, ...]
    index: int = 0
    keyword: str = ""
    start_from: int = 0
    last: int = 0
    step: int = 1
    limit: int = 0
    count_at: int = -1  # >= 0: keynum search; the count's place, relative to the beginning
    first: int = 0  # the first key's place, relative to the beginning (keynum)
    unknown: bool = False
    notes: str = ""


def one_key(*flags: str) -> tuple[KeySpec, ...]:
    """One key, the first argument."""
    return (KeySpec(flags, index=1),)


def all_keys(*flags: str) -> tuple[KeySpec, ...]:
    """Every argument is a key."""
    return (KeySpec(flags, index=1, last=-1),)


def counted_keys(at: int, *flags: str) -> tuple[KeySpec, ...]:
    """The argument at place `at` counts the keys that follow it."""
    return (KeySpec(flags, index=at, count_at=0, first=1),)


@dataclass
class Command:
    """One command or subcommand as declared."""

    name: str  # "GET", "CLIENT|LIST"
    handler: Handler
    arity: int  # as Redis counts: the name included, negative for a minimum
    flags: int
    group: str
    since: str
    complexity: str
    summary: str
    keys: tuple[KeySpec, ...] = ()
    acl: tuple[str, ...] = ()  # categories beyond those that flags and group imply, without '@'
    tips: tuple[str, ...] = ()
    twin: str = ""  # name of the hot room's function for the common form
    history: tuple[tuple[str, str], ...] = ()
    get_keys: Callable[[tuple[bytes, ...]], list[int]] | None = None  # places of keys where key specs cannot say
    doc_flags: tuple[str, ...] = ()
    replaced_by: str = ""
    deprecated_since: str = ""
    subcommands: dict[str, Command] = field(default_factory=dict)

    @property
    def lower(self) -> str:
        """The name as COMMAND prints it."""
        return self.name.lower()


REGISTRY: dict[str, Command] = {}  # upper-case names of top-level commands


def command(
    name: str,
    *,
    arity: int,
    flags: int = 0,
    keys: tuple[KeySpec, ...] = (),
    group: str,
    since: str,
    complexity: str,
    acl: tuple[str, ...] = (),
    tips: tuple[str, ...] = (),
    twin: str = "",
    history: tuple[tuple[str, str], ...] = (),
    get_keys: Callable[[tuple[bytes, ...]], list[int]] | None = None,
    doc_flags: tuple[str, ...] = (),
    replaced_by: str = "",
    deprecated_since: str = "",
) -> Callable[[Handler], Handler]:
    """Declare a command. `"CLIENT|LIST"` declares a subcommand; its container is declared by `container`.

    The handler is called as `handler(ctx, *arguments)` without the name (and without the subcommand's name); the
    arity was checked before. It returns the reply: see `zeekdb.hot.engine` for what each Python type becomes.
    """

    def declare(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().splitlines()[0].rstrip(".") if handler.__doc__ else ""
        spec = Command(
            name, handler, arity, flags, group, since, complexity, summary, keys, acl, tips, twin, history, get_keys,
            doc_flags, replaced_by, deprecated_since,
        )  # fmt: skip
        parent, _, sub = name.partition("|")
        table = REGISTRY[parent].subcommands if sub else REGISTRY
        if (sub or name) in table:
            raise ValueError(f"{name} is declared twice")
        table[sub or name] = spec
        return handler

    return declare


def container(name: str, *, arity: int = -2, group: str, since: str, summary: str, flags: int = 0) -> None:
    """Declare a command that only holds subcommands (`CLIENT`, `CONFIG`, `OBJECT` …); before its subcommands."""

    def unreachable(ctx: Any, *args: bytes) -> Any:
        raise AssertionError("the dispatcher resolves subcommands")

    REGISTRY[name] = Command(name, unreachable, arity, flags, group, since, "Depends on subcommand.", summary)
