"""The list commands that do not block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zeekdb.commands.args import parse_int, parse_timeout
from zeekdb.commands.context import Context
from zeekdb.commands.reply import NULL_ARRAY, NullArray
from zeekdb.commands.spec import (
    BLOCKING,
    DENYOOM,
    FAST,
    MOVABLEKEYS,
    READONLY,
    WRITE,
    KeySpec,
    command,
    counted_keys,
    one_key,
)  # fmt: skip
from zeekdb.errors import CommandError, NoSuchKey, OutOfRange, SyntaxError_, WrongType
from zeekdb.types import List

PUSH = WRITE | DENYOOM | FAST
PER_ELEMENT = (
    "O(1) for each element added, so O(N) to add N elements when the command is called with multiple arguments."
)


def _push(ctx: Context, key: bytes, values: tuple[bytes, ...], head: bool, create: bool = True) -> int:
    if not create and ctx.peek(key, List) is None:
        return 0
    target = ctx.write(key, List)
    for value in values:
        target.push(value, head)
    ctx.changed(key, "lpush" if head else "rpush", len(values))
    return len(target)


@command("LPUSH", arity=-3, flags=PUSH, keys=one_key("RW", "insert"), group="list", since="1.0.0",
         complexity=PER_ELEMENT,
         history=(("2.4.0", "Accepts multiple `element` arguments."),), twin="lpush")  # fmt: skip
def lpush(ctx: Context, key: bytes, *values: bytes) -> int:
    """Prepends one or more elements to a list. Creates the key if it doesn't exist."""
    return _push(ctx, key, values, True)


@command("RPUSH", arity=-3, flags=PUSH, keys=one_key("RW", "insert"), group="list", since="1.0.0",
         complexity=PER_ELEMENT,
         history=(("2.4.0", "Accepts multiple `element` arguments."),), twin="rpush")  # fmt: skip
def rpush(ctx: Context, key: bytes, *values: bytes) -> int:
    """Appends one or more elements to a list. Creates the key if it doesn't exist."""
    return _push(ctx, key, values, False)


@command("LPUSHX", arity=-3, flags=PUSH, keys=one_key("RW", "insert"), group="list", since="2.2.0",
         complexity=PER_ELEMENT,
         history=(("4.0.0", "Accepts multiple `element` arguments."),))  # fmt: skip
def lpushx(ctx: Context, key: bytes, *values: bytes) -> int:
    """Prepends one or more elements to a list only when the list exists."""
    return _push(ctx, key, values, True, create=False)


@command("RPUSHX", arity=-3, flags=PUSH, keys=one_key("RW", "insert"), group="list", since="2.2.0",
         complexity=PER_ELEMENT,
         history=(("4.0.0", "Accepts multiple `element` arguments."),))  # fmt: skip
def rpushx(ctx: Context, key: bytes, *values: bytes) -> int:
    """Appends one or more elements to a list only when the list exists."""
    return _push(ctx, key, values, False, create=False)


def _take(ctx: Context, key: bytes, source: List, count: int, head: bool) -> list[bytes]:
    """Pops up to count elements (at least one) of a list that is not empty, and reports it."""
    taken: list[bytes] = []
    for _ in range(min(count, len(source))):
        value = source.pop(head)
        assert value is not None
        taken.append(value)
    ctx.changed(key, "lpop" if head else "rpop", len(taken))
    ctx.remove_if_empty(key, source)
    return taken


def _pop(ctx: Context, key: bytes, args: tuple[bytes, ...], head: bool) -> bytes | list[bytes] | NullArray | None:
    if len(args) > 1:
        raise CommandError(f"ERR wrong number of arguments for '{'lpop' if head else 'rpop'}' command")
    count = _positive(args[0]) if args else None
    source = ctx.peek(key, List)
    if source is None:
        return None if count is None else NULL_ARRAY
    if count is None:
        return _take(ctx, key, source, 1, head)[0]
    return _take(ctx, key, source, count, head) if count else []


def _positive(text: bytes) -> int:
    """A count that may be zero."""
    try:
        value = parse_int(text)
    except CommandError:
        value = -1
    if value < 0:
        raise OutOfRange("ERR value is out of range, must be positive")
    return value


@command("LPOP", arity=-2, flags=WRITE | FAST, keys=one_key("RW", "access", "delete"), group="list", since="1.0.0",
         complexity="O(N) where N is the number of elements returned",
         history=(("6.2.0", "Added the `count` argument."),), twin="lpop")  # fmt: skip
def lpop(ctx: Context, key: bytes, *args: bytes) -> bytes | list[bytes] | NullArray | None:
    """Returns the first elements in a list after removing it. Deletes the list if the last element was popped."""
    return _pop(ctx, key, args, True)


@command("RPOP", arity=-2, flags=WRITE | FAST, keys=one_key("RW", "access", "delete"), group="list", since="1.0.0",
         complexity="O(N) where N is the number of elements returned",
         history=(("6.2.0", "Added the `count` argument."),), twin="rpop")  # fmt: skip
def rpop(ctx: Context, key: bytes, *args: bytes) -> bytes | list[bytes] | NullArray | None:
    """Returns and removes the last elements of a list. Deletes the list if the last element was popped."""
    return _pop(ctx, key, args, False)


@command("LLEN", arity=2, flags=READONLY | FAST, keys=one_key("RO"), group="list", since="1.0.0", complexity="O(1)",
         twin="llen")  # fmt: skip
def llen(ctx: Context, key: bytes) -> int:
    """Returns the length of a list."""
    return len(ctx.read(key, List) or ())


@command("LINDEX", arity=3, flags=READONLY, keys=one_key("RO", "access"), group="list", since="1.0.0",
         complexity="O(N) where N is the number of elements to traverse to get to the element at index.",
         twin="lindex")  # fmt: skip
def lindex(ctx: Context, key: bytes, index: bytes) -> bytes | None:
    """Returns an element from a list by its index."""
    source = ctx.read(key, List)
    if source is None:
        return None
    return source.index(parse_int(index))


@command("LRANGE", arity=4, flags=READONLY, keys=one_key("RO", "access"), group="list", since="1.0.0",
         complexity="O(S+N) where S is the distance of start offset from HEAD for small lists, from nearest end "
                    "(HEAD or TAIL) for large lists; and N is the number of elements in the specified range.",
         twin="lrange")  # fmt: skip
def lrange(ctx: Context, key: bytes, start: bytes, stop: bytes) -> list[bytes]:
    """Returns a range of elements from a list."""
    first, last = parse_int(start), parse_int(stop)
    source = ctx.read(key, List)
    return source.range(first, last) if source is not None else []


@command("LSET", arity=4, flags=WRITE | DENYOOM, keys=one_key("RW", "update"), group="list", since="1.0.0",
         complexity="O(N) where N is the length of the list. "
                    "Setting either the first or the last element of the list is O(1).")  # fmt: skip
def lset(ctx: Context, key: bytes, index: bytes, value: bytes) -> str:
    """Sets the value of an element in a list by its index."""
    target = ctx.peek(key, List)
    if target is None:
        raise NoSuchKey
    if not target.set(parse_int(index), value):
        raise OutOfRange
    ctx.changed(key, "lset")
    return "OK"


@command("LINSERT", arity=5, flags=WRITE | DENYOOM, keys=one_key("RW", "insert"), group="list", since="2.2.0",
         complexity="O(N) where N is the number of elements to traverse before seeing the value pivot.")  # fmt: skip
def linsert(ctx: Context, key: bytes, where: bytes, pivot: bytes, value: bytes) -> int:
    """Inserts an element before or after another element in a list."""
    side = where.upper()
    if side not in (b"BEFORE", b"AFTER"):
        raise SyntaxError_
    target = ctx.peek(key, List)
    if target is None:
        return 0
    if not target.insert(pivot, value, side == b"BEFORE"):
        return -1
    ctx.changed(key, "linsert")
    return len(target)


@command("LREM", arity=4, flags=WRITE, keys=one_key("RW", "delete"), group="list", since="1.0.0",
         complexity="O(N+M) where N is the length of the list and M is the number of elements removed.")  # fmt: skip
def lrem(ctx: Context, key: bytes, count: bytes, value: bytes) -> int:
    """Removes elements from a list. Deletes the list if the last element was removed."""
    most = parse_int(count)
    target = ctx.peek(key, List)
    if target is None:
        return 0
    removed = target.remove(value, most)
    if removed:
        ctx.changed(key, "lrem")
        ctx.remove_if_empty(key, target)
    return removed


@command("LTRIM", arity=4, flags=WRITE, keys=one_key("RW", "delete"), group="list", since="1.0.0",
         complexity="O(N) where N is the number of elements to be removed by the operation.")  # fmt: skip
def ltrim(ctx: Context, key: bytes, start: bytes, stop: bytes) -> str:
    """Removes elements from both ends a list. Deletes the list if all elements were trimmed."""
    first, last = parse_int(start), parse_int(stop)
    target = ctx.peek(key, List)
    if target is not None:
        target.trim(first, last)
        ctx.changed(key, "ltrim")
        ctx.remove_if_empty(key, target)
    return "OK"


@command("LPOS", arity=-3, flags=READONLY, keys=one_key("RO", "access"), group="list", since="6.0.6",
         complexity="O(N) where N is the number of elements in the list, for the average case. When searching for "
                    "elements near the head or the tail of the list, or when the MAXLEN option is provided, the "
                    "command may run in constant time.")  # fmt: skip
def lpos(ctx: Context, key: bytes, value: bytes, *options: bytes) -> int | list[int] | None:
    """Returns the index of matching elements in a list."""
    rank, count, most = 1, None, 0
    for place in range(0, len(options), 2):  # read from left to right: the first mistake is the one reported
        option = options[place].upper()
        if place + 1 == len(options):
            raise SyntaxError_
        text = options[place + 1]
        if option == b"RANK":
            rank = parse_int(text)
            if rank == -(2**63):
                raise OutOfRange(
                    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
                )
            if rank == 0:
                raise CommandError(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... "
                    "or use negative to start from the end of the list"
                )
        elif option == b"COUNT":
            count = _not_negative(text, "COUNT")
        elif option == b"MAXLEN":
            most = _not_negative(text, "MAXLEN")
        else:
            raise SyntaxError_
    source = ctx.read(key, List)
    if source is None:
        return None if count is None else []
    found = source.positions(value, rank, 1 if count is None else count, most)
    if count is None:
        return found[0] if found else None
    return found


def _not_negative(text: bytes, name: str) -> int:
    try:
        value = parse_int(text)
    except CommandError:
        value = -1
    if value < 0:
        raise CommandError(f"ERR {name} can't be negative")
    return value


SIDES = {True: b"LEFT", False: b"RIGHT"}


def _side(word: bytes) -> bool:
    """True for LEFT, False for RIGHT."""
    side = word.upper()
    if side == b"LEFT":
        return True
    if side == b"RIGHT":
        return False
    raise SyntaxError_


def _move(ctx: Context, source: bytes, target: bytes, from_head: bool, to_head: bool) -> bytes | None:
    origin = ctx.peek(source, List)
    if origin is None:
        return None
    ctx.peek(target, List)  # a wrong type must show before anything moves
    value = origin.pop(from_head)
    assert value is not None
    ctx.write(target, List).push(value, to_head)
    ctx.changed(target, "lpush" if to_head else "rpush")
    ctx.changed(source, "lpop" if from_head else "rpop", 0)
    ctx.remove_if_empty(source, origin)
    return value


MOVE_KEYS = (KeySpec(("RW", "access", "delete"), index=1), KeySpec(("RW", "insert"), index=2))


@command("LMOVE", arity=5, flags=WRITE | DENYOOM, keys=MOVE_KEYS, group="list", since="6.2.0", complexity="O(1)")
def lmove(ctx: Context, source: bytes, target: bytes, where_from: bytes, where_to: bytes) -> bytes | None:
    """Returns an element after popping it from one list and pushing it to another."""
    return _move(ctx, source, target, _side(where_from), _side(where_to))


@command("RPOPLPUSH", arity=3, flags=WRITE | DENYOOM, keys=MOVE_KEYS, group="list", since="1.2.0", complexity="O(1)",
         doc_flags=("deprecated",), deprecated_since="6.2.0",
         replaced_by="`LMOVE` with the `RIGHT` and `LEFT` arguments")  # fmt: skip
def rpoplpush(ctx: Context, source: bytes, target: bytes) -> bytes | None:
    """Returns the last element of a list after removing and pushing it to another list."""
    return _move(ctx, source, target, False, True)


NUMBERED_POP = counted_keys(1, "RW", "access", "delete")
LMPOP_COST = "O(N+M) where N is the number of provided keys and M is the number of elements returned."


@command("LMPOP", arity=-4, flags=WRITE | MOVABLEKEYS, keys=NUMBERED_POP, group="list", since="7.0.0",
         complexity=LMPOP_COST)  # fmt: skip
def lmpop(ctx: Context, numkeys: bytes, *args: bytes) -> list[Any] | NullArray:
    """Returns multiple elements from a list after removing them. Deletes the list if the last element was popped."""
    keys, head, count = _lmpop_words(numkeys, args)
    return _pop_first(ctx, keys, count, head) or NULL_ARRAY


def _lmpop_words(numkeys: bytes, args: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], bool, int]:
    """Keys, whether from the head, and how many."""
    try:
        n = parse_int(numkeys)
    except CommandError:
        n = 0
    if n <= 0:
        raise CommandError("ERR numkeys should be greater than 0")
    if n + 1 > len(args):
        raise SyntaxError_
    return args[:n], _side(args[n]), _lmpop_count(args[n + 1 :])


def _pop_first(ctx: Context, keys: Iterable[bytes], count: int, head: bool) -> list[Any] | None:
    """From the first of the keys that holds a list."""
    for key in keys:
        value = ctx.db.peek(key)
        if value is None:
            continue
        if not isinstance(value, List):
            raise WrongType
        taken = _take(ctx, key, value, count, head)
        ctx.effect(b"LPOP" if head else b"RPOP", key, b"%d" % len(taken))
        return [key, taken]
    return None


def _lmpop_count(words: tuple[bytes, ...]) -> int:
    count = None
    for place in range(0, len(words), 2):
        if words[place].upper() != b"COUNT" or count is not None or place + 1 == len(words):
            raise SyntaxError_
        try:
            count = parse_int(words[place + 1])
        except CommandError:
            count = 0
        if count <= 0:
            raise CommandError("ERR count should be greater than 0")
    return 1 if count is None else count


# --- those that wait ----------------------------------------------------------------------------------------------


def _pop_one(ctx: Context, key: bytes, source: List, head: bool) -> list[bytes]:
    [value] = _take(ctx, key, source, 1, head)
    ctx.effect(b"LPOP" if head else b"RPOP", key)
    return [key, value]


def _blocking_pop(ctx: Context, args: tuple[bytes, ...], head: bool) -> Any:
    *keys, timeout = args
    timeout_ms = parse_timeout(timeout)

    def pop(key: bytes) -> list[bytes] | None:
        value = ctx.db.peek(key)
        return _pop_one(ctx, key, value, head) if isinstance(value, List) else None

    for key in keys:
        value = ctx.peek(key, List)
        if value is not None:
            return _pop_one(ctx, key, value, head)
    return ctx.block(keys, pop, timeout_ms, NULL_ARRAY)


BLOCKING_POP = (KeySpec(("RW", "access", "delete"), index=1, last=-2),)
BLOCKING_COST = "O(N) where N is the number of provided keys."
TIMEOUT_HISTORY = (("6.0.0", "`timeout` is interpreted as a double instead of an integer."),)


@command("BLPOP", arity=-3, flags=WRITE | BLOCKING, keys=BLOCKING_POP, group="list", since="2.0.0",
         complexity=BLOCKING_COST, history=TIMEOUT_HISTORY)  # fmt: skip
def blpop(ctx: Context, *args: bytes) -> Any:
    """Removes and returns the first element of the first list that has one, waiting for it where none has."""
    return _blocking_pop(ctx, args, True)


@command("BRPOP", arity=-3, flags=WRITE | BLOCKING, keys=BLOCKING_POP, group="list", since="2.0.0",
         complexity=BLOCKING_COST, history=TIMEOUT_HISTORY)  # fmt: skip
def brpop(ctx: Context, *args: bytes) -> Any:
    """Removes and returns the last element of the first list that has one, waiting for it where none has."""
    return _blocking_pop(ctx, args, False)


def _blocking_move(ctx: Context, source: bytes, target: bytes, from_head: bool, to_head: bool, timeout: bytes) -> Any:
    timeout_ms = parse_timeout(timeout)

    def move(key: bytes) -> bytes | None:
        moved = _move(ctx, source, target, from_head, to_head)
        if moved is not None:
            ctx.effect(b"LMOVE", source, target, SIDES[from_head], SIDES[to_head])
        return moved

    reply = move(source)
    if reply is not None:
        return reply
    return ctx.block([source], lambda key: move(key) if isinstance(ctx.db.peek(key), List) else None, timeout_ms, None)


@command("BLMOVE", arity=6, flags=WRITE | DENYOOM | BLOCKING, keys=MOVE_KEYS, group="list", since="6.2.0",
         complexity="O(1)")  # fmt: skip
def blmove(ctx: Context, source: bytes, target: bytes, where_from: bytes, where_to: bytes, timeout: bytes) -> Any:
    """Moves an element from one list to another and returns it, waiting for one where there is none."""
    return _blocking_move(ctx, source, target, _side(where_from), _side(where_to), timeout)


@command("BRPOPLPUSH", arity=4, flags=WRITE | DENYOOM | BLOCKING, keys=MOVE_KEYS, group="list", since="2.2.0",
         complexity="O(1)", history=TIMEOUT_HISTORY, doc_flags=("deprecated",), deprecated_since="6.2.0",
         replaced_by="`BLMOVE` with the `RIGHT` and `LEFT` arguments")  # fmt: skip
def brpoplpush(ctx: Context, source: bytes, target: bytes, timeout: bytes) -> Any:
    """Moves the last element of a list to the head of another, waiting for one where there is none."""
    return _blocking_move(ctx, source, target, False, True, timeout)


@command("BLMPOP", arity=-5, flags=WRITE | MOVABLEKEYS | BLOCKING, keys=counted_keys(2, "RW", "access", "delete"),
         group="list", since="7.0.0", complexity=LMPOP_COST)  # fmt: skip
def blmpop(ctx: Context, timeout: bytes, numkeys: bytes, *args: bytes) -> Any:
    """Removes and returns elements of the first list that has some, waiting for them where none has."""
    timeout_ms = parse_timeout(timeout)
    keys, head, count = _lmpop_words(numkeys, args)

    def pop(key: bytes) -> list[Any] | None:
        return _pop_first(ctx, [key], count, head) if isinstance(ctx.db.peek(key), List) else None

    return _pop_first(ctx, keys, count, head) or ctx.block(keys, pop, timeout_ms, NULL_ARRAY)
