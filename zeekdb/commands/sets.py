"""Set commands."""

from __future__ import annotations

from typing import Any

from zeekdb.commands.args import INT64_MAX, parse_cursor, parse_range, parse_uint
from zeekdb.commands.context import Context
from zeekdb.commands.members import check_samples, for_change, parse_scan_options
from zeekdb.commands.spec import (
    DENYOOM,
    FAST,
    MOVABLEKEYS,
    READONLY,
    WRITE,
    KeySpec,
    all_keys,
    command,
    counted_keys,
    one_key,
)
from zeekdb.errors import CommandError, SyntaxError_
from zeekdb.hot.keyspace import glob_match
from zeekdb.hot.setalgebra import common_count, common_members, difference, intersection, union
from zeekdb.types import Set

LOOK = one_key("RO")
READ = one_key("RO", "access")
STORE = (KeySpec(("OW", "update"), index=1), KeySpec(("RO", "access"), index=2, last=-1))

Members = list[bytes] | set[bytes]


def _reply_set(ctx: Context, members: list[bytes]) -> Members:
    """Distinct members as a set; RESP2 knows arrays only, and there their order is kept."""
    return set(members) if ctx.client.protocol == 3 else members


def _read_all(ctx: Context, keys: tuple[bytes, ...]) -> list[Set | None]:
    """The sets at the keys. Every key is looked at, so that one of another type is always an error."""
    return [ctx.read(key, Set) for key in keys]


# --- members --------------------------------------------------------------------------------------------------------


@command(
    "SADD",
    arity=-3,
    flags=WRITE | DENYOOM | FAST,
    keys=one_key("RW", "insert"),
    group="set",
    since="1.0.0",
    complexity="O(1) for each element added, so O(N) to add N elements when the command is called with multiple"
    " arguments.",
    history=(("2.4.0", "Accepts multiple `member` arguments."),),
    twin="sadd",
)
def sadd(ctx: Context, key: bytes, *members: bytes) -> int:
    """Adds members to a set, creating the key when it does not exist."""
    added = ctx.write(key, Set).add_many(members)
    if added:
        ctx.changed(key, "sadd", added)
    return added


@command(
    "SREM",
    arity=-3,
    flags=WRITE | FAST,
    keys=one_key("RW", "delete"),
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the number of members to be removed.",
    history=(("2.4.0", "Accepts multiple `member` arguments."),),
)
def srem(ctx: Context, key: bytes, *members: bytes) -> int:
    """Removes members from a set, and the set with its last member."""
    present = for_change(ctx, key, Set)
    if present is None:
        return 0
    removed = sum(present.remove(member) for member in members)
    if removed:
        ctx.changed(key, "srem")
        ctx.remove_if_empty(key, present)
    return removed


@command(
    "SMOVE",
    arity=4,
    flags=WRITE | FAST,
    keys=(KeySpec(("RW", "access", "delete"), index=1), KeySpec(("RW", "insert"), index=2)),
    group="set",
    since="1.0.0",
    complexity="O(1)",
)
def smove(ctx: Context, source: bytes, destination: bytes, member: bytes) -> int:
    """Moves a member from one set to another."""
    present = for_change(ctx, source, Set)
    if present is None:
        return 0
    ctx.peek(destination, Set)  # another type is an error before anything moves
    if source == destination:
        return int(member in present)
    if not present.remove(member):
        return 0
    ctx.changed(source, "srem")
    ctx.remove_if_empty(source, present)
    if ctx.write(destination, Set).add(member):
        ctx.changed(destination, "sadd")
    return 1


@command(
    "SPOP",
    arity=-2,
    flags=WRITE | FAST,
    keys=one_key("RW", "access", "delete"),
    group="set",
    since="1.0.0",
    complexity="Without the count argument O(1), otherwise O(N) where N is the value of the passed count.",
    history=(("3.2.0", "Added the `count` argument."),),
    tips=("nondeterministic_output",),
    twin="spop",
)
def spop(ctx: Context, key: bytes, *options: bytes) -> bytes | Members | None:
    """Removes and returns random members of a set, and removes the set with its last member."""
    if len(options) > 1:
        raise SyntaxError_
    count = parse_uint(options[0]) if options else 1
    present = for_change(ctx, key, Set)
    if present is None or not count:
        return _reply_set(ctx, []) if options else None
    popped = present.pop_many(count)
    ctx.changed(key, "spop", len(popped))
    ctx.effect(*((b"SREM", key, *popped) if present or not options else (b"DEL", key)))
    ctx.remove_if_empty(key, present)
    return _reply_set(ctx, popped) if options else popped[0]


@command(
    "SISMEMBER",
    arity=3,
    flags=READONLY | FAST,
    keys=LOOK,
    group="set",
    since="1.0.0",
    complexity="O(1)",
    twin="sismember",
)
def sismember(ctx: Context, key: bytes, member: bytes) -> int:
    """Tells whether a set has a member."""
    present = ctx.read(key, Set)
    return int(present is not None and member in present)


@command(
    "SMISMEMBER",
    arity=-3,
    flags=READONLY | FAST,
    keys=READ,
    group="set",
    since="6.2.0",
    complexity="O(N) where N is the number of elements being checked for membership",
)
def smismember(ctx: Context, key: bytes, *members: bytes) -> list[int]:
    """Tells which of several members a set has."""
    present = ctx.read(key, Set)
    return [int(present is not None and member in present) for member in members]


@command(
    "SCARD", arity=2, flags=READONLY | FAST, keys=LOOK, group="set", since="1.0.0", complexity="O(1)", twin="scard"
)
def scard(ctx: Context, key: bytes) -> int:
    """Returns the number of members of a set."""
    present = ctx.read(key, Set)
    return 0 if present is None else len(present)


@command(
    "SMEMBERS",
    arity=2,
    flags=READONLY,
    keys=READ,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the set cardinality.",
    tips=("nondeterministic_output_order",),
)
def smembers(ctx: Context, key: bytes) -> Members:
    """Returns all members of a set."""
    present = ctx.read(key, Set)
    return _reply_set(ctx, [] if present is None else present.members())


@command(
    "SRANDMEMBER",
    arity=-2,
    flags=READONLY,
    keys=READ,
    group="set",
    since="1.0.0",
    complexity="Without the count argument O(1), otherwise O(N) where N is the absolute value of the passed count.",
    history=(("2.6.0", "Added the optional `count` argument."),),
    tips=("nondeterministic_output",),
)
def srandmember(ctx: Context, key: bytes, *options: bytes) -> bytes | list[bytes] | None:
    """Returns random members of a set: different ones, or with a negative count any."""
    if len(options) > 1:
        raise SyntaxError_
    count = parse_range(options[0], -INT64_MAX, INT64_MAX) if options else 1
    present = ctx.read(key, Set)
    if present is None:
        return [] if options else None
    if not options:
        return present.random()
    if count >= 0:
        return present.sample(count)
    return [member for _ in range(check_samples(count)) if (member := present.random()) is not None]


@command(
    "SSCAN",
    arity=-3,
    flags=READONLY,
    keys=READ,
    group="set",
    since="2.8.0",
    complexity="O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to"
    " return back to 0. N is the number of elements inside the collection.",
    tips=("nondeterministic_output",),
)
def sscan(ctx: Context, key: bytes, cursor: bytes, *options: bytes) -> list[Any]:
    """Iterates over the members of a set."""
    start = parse_cursor(cursor)
    present = ctx.read(key, Set)
    if present is None:  # Redis looks at the options only now
        return [b"0", []]
    pattern, count = parse_scan_options(options)
    following, members = present.scan(start, count)
    if pattern is not None:
        members = [member for member in members if glob_match(pattern, member)]
    return [b"%d" % following, members]


# --- algebra --------------------------------------------------------------------------------------------------------


def _present(sets: list[Set | None]) -> list[Set]:
    return [each for each in sets if each is not None]


def _union(sets: list[Set | None]) -> Set:
    return union(_present(sets))


def _intersection(sets: list[Set | None]) -> Set:
    return Set() if None in sets else intersection(_present(sets))  # an absent key is an empty set


def _difference(sets: list[Set | None]) -> Set:
    first, *others = sets
    return Set() if first is None else difference(first, _present(others))


def _store(ctx: Context, destination: bytes, result: Set, event: str) -> int:
    """Replace what is at the destination, of any type; an empty result leaves no key."""
    if not len(result):
        ctx.remove(destination)
        return 0
    ctx.db.remove(destination)  # replaced, not deleted: no event of its own
    target = ctx.write(destination, Set)
    target.swap(result)
    ctx.changed(destination, event)
    return len(target)


@command(
    "SINTER",
    arity=-2,
    flags=READONLY,
    keys=all_keys("RO", "access"),
    group="set",
    since="1.0.0",
    complexity="O(N*M) worst case where N is the cardinality of the smallest set and M is the number of sets.",
    tips=("nondeterministic_output_order",),
)
def sinter(ctx: Context, *keys: bytes) -> Members:
    """Returns the members that all of the sets have."""
    sets = _read_all(ctx, keys)
    return _reply_set(ctx, [] if None in sets else common_members(_present(sets)))


@command(
    "SINTERCARD",
    arity=-3,
    flags=READONLY | MOVABLEKEYS,
    keys=counted_keys(1, "RO", "access"),
    group="set",
    since="7.0.0",
    complexity="O(N*M) worst case where N is the cardinality of the smallest set and M is the number of sets.",
)
def sintercard(ctx: Context, numkeys: bytes, *arguments: bytes) -> int:
    """Returns how many members all of the sets have, up to a limit."""
    count = parse_range(numkeys, 1, INT64_MAX, "ERR numkeys should be greater than 0")
    if count > len(arguments):
        raise CommandError("ERR Number of keys can't be greater than number of args")
    limit = 0
    options = arguments[count:]
    for place in range(0, len(options), 2):
        if options[place].upper() != b"LIMIT" or place + 1 == len(options):
            raise SyntaxError_
        limit = parse_uint(options[place + 1], "ERR LIMIT can't be negative")
    sets = _read_all(ctx, arguments[:count])
    return 0 if None in sets else common_count(_present(sets), limit)


@command(
    "SINTERSTORE",
    arity=-3,
    flags=WRITE | DENYOOM,
    keys=STORE,
    group="set",
    since="1.0.0",
    complexity="O(N*M) worst case where N is the cardinality of the smallest set and M is the number of sets.",
)
def sinterstore(ctx: Context, destination: bytes, *keys: bytes) -> int:
    """Stores the members that all of the sets have."""
    return _store(ctx, destination, _intersection(_read_all(ctx, keys)), "sinterstore")


@command(
    "SUNION",
    arity=-2,
    flags=READONLY,
    keys=all_keys("RO", "access"),
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the total number of elements in all given sets.",
    tips=("nondeterministic_output_order",),
)
def sunion(ctx: Context, *keys: bytes) -> Members:
    """Returns the members that any of the sets has."""
    return _reply_set(ctx, _union(_read_all(ctx, keys)).members())


@command(
    "SUNIONSTORE",
    arity=-3,
    flags=WRITE | DENYOOM,
    keys=STORE,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the total number of elements in all given sets.",
)
def sunionstore(ctx: Context, destination: bytes, *keys: bytes) -> int:
    """Stores the members that any of the sets has."""
    return _store(ctx, destination, _union(_read_all(ctx, keys)), "sunionstore")


@command(
    "SDIFF",
    arity=-2,
    flags=READONLY,
    keys=all_keys("RO", "access"),
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the total number of elements in all given sets.",
    tips=("nondeterministic_output_order",),
)
def sdiff(ctx: Context, *keys: bytes) -> Members:
    """Returns the members of the first set that none of the others has."""
    return _reply_set(ctx, _difference(_read_all(ctx, keys)).members())


@command(
    "SDIFFSTORE",
    arity=-3,
    flags=WRITE | DENYOOM,
    keys=STORE,
    group="set",
    since="1.0.0",
    complexity="O(N) where N is the total number of elements in all given sets.",
)
def sdiffstore(ctx: Context, destination: bytes, *keys: bytes) -> int:
    """Stores the members of the first set that none of the others has."""
    return _store(ctx, destination, _difference(_read_all(ctx, keys)), "sdiffstore")
