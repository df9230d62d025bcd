"""SORT: the elements of a list, set or sorted set, ordered by themselves or by what other keys hold."""

from __future__ import annotations

from typing import Any

from zeekdb.commands.args import parse_int, to_float
from zeekdb.commands.context import Context
from zeekdb.commands.spec import DENYOOM, MOVABLEKEYS, READONLY, REGISTRY, WRITE, KeySpec, command
from zeekdb.errors import CommandError, SyntaxError_, WrongType
from zeekdb.types import Hash, List, Set, ZSet

_SPACES = b" \t\n\v\f\r"


class _Plan:
    """The options, as they stand after parsing."""

    __slots__ = ("alpha", "by", "count", "descending", "get", "offset", "store")

    def __init__(self) -> None:
        self.alpha = False
        self.descending = False
        self.by: bytes | None = None
        self.get: list[bytes] = []
        self.offset = 0
        self.count = -1
        self.store: bytes | None = None


def _parse(ctx: Context, name: str, key: bytes, words: tuple[bytes, ...]) -> _Plan:
    """The options of SORT or SORT_RO. BY and GET are refused to users who may not read whatever they lead to."""
    plan = _Plan()
    may_store = name == "SORT"
    patterns = any(word.upper() in (b"BY", b"GET") for word in words)
    reads_all = not patterns or ctx.reads_every_key(REGISTRY[name], (name.encode(), key, *words))
    at = 0
    while at < len(words):
        word = words[at].upper()
        left = len(words) - at - 1
        at += 1
        if word in (b"ASC", b"DESC"):
            plan.descending = word == b"DESC"
        elif word == b"ALPHA":
            plan.alpha = True
        elif word == b"LIMIT" and left >= 2:
            plan.offset, plan.count = parse_int(words[at]), parse_int(words[at + 1])
            at += 2
        elif word == b"STORE" and may_store and left:
            plan.store = words[at]
            at += 1
        elif word == b"BY" and left:
            plan.by = words[at]
            if not reads_all and b"*" in plan.by:
                raise CommandError("ERR BY option of SORT denied due to insufficient ACL permissions.")
            at += 1
        elif word == b"GET" and left:
            if not reads_all:
                raise CommandError("ERR GET option of SORT denied due to insufficient ACL permissions.")
            plan.get.append(words[at])
            at += 1
        else:
            raise SyntaxError_
    return plan


def _look_up(ctx: Context, pattern: bytes, element: bytes) -> bytes | None:
    """What a BY or GET pattern means for an element: `weight_*`, `object_*->field`, or `#` for itself."""
    if pattern == b"#":
        return element
    head, star, tail = pattern.partition(b"*")
    if not star:
        return None
    name, arrow, field = tail.partition(b"->")
    if arrow and field:
        fields = ctx.db.read(head + element + name)
        return fields.get(field) if isinstance(fields, Hash) else None
    value = ctx.db.read(head + element + tail)
    return value if isinstance(value, bytes) else None


def _weight(text: bytes | None) -> float:
    """A sorting weight as `strtod` reads it: up to a zero byte, after any space; nothing at all is 0."""
    number = (text or b"").partition(b"\0")[0]
    weight = to_float(number.lstrip(_SPACES)) if number else 0.0
    if weight is None:
        raise CommandError("ERR One or more scores can't be converted into double")
    return weight


def _order(ctx: Context, elements: list[bytes], plan: _Plan) -> None:
    """Sorts in place. Weights that are equal leave it to the elements' bytes; missing texts come first."""
    by = plan.by
    if not plan.alpha:
        weights = [_weight(element if by is None else _look_up(ctx, by, element)) for element in elements]
        pairs = sorted(zip(weights, elements, strict=True), reverse=plan.descending)
        elements[:] = [element for _, element in pairs]
    elif by is None:
        elements.sort(reverse=plan.descending)
    else:
        texts = [_look_up(ctx, by, element) for element in elements]
        places = sorted(
            range(len(elements)),
            key=lambda place: (texts[place] is not None, texts[place] or b""),
            reverse=plan.descending,
        )
        elements[:] = [elements[place] for place in places]


def _window(plan: _Plan, length: int) -> tuple[int, int]:
    start = min(max(plan.offset, 0), length)
    return start, length if plan.count < 0 else min(start + plan.count, length)


def _pick(ctx: Context, value: Any, plan: _Plan) -> list[bytes]:
    """The elements in the order wanted, cut to LIMIT."""
    constant = plan.by is not None and b"*" not in plan.by
    if constant and isinstance(value, Set) and (plan.store is not None or ctx.in_script):
        plan.by, plan.alpha, constant = None, True, False  # what is stored has to come out the same everywhere
    if value is None:
        return []
    start, stop = _window(plan, len(value))
    if not constant:
        elements: list[bytes] = value.members() if isinstance(value, Set) else value.range(0, len(value) - 1)
        _order(ctx, elements, plan)
        return elements[start:stop]
    if isinstance(value, Set):
        return value.members()[start:stop]
    if start >= stop:
        return []
    if not plan.descending:
        return list(value.range(start, stop - 1))
    return list(reversed(value.range(len(value) - stop, len(value) - start - 1)))


def _sort(ctx: Context, key: bytes, plan: _Plan) -> list[bytes | None]:
    value = ctx.db.read(key)
    if value is not None and not isinstance(value, (List, Set, ZSet)):
        raise WrongType
    elements = _pick(ctx, value, plan)
    if not plan.get:
        return list(elements)
    return [_look_up(ctx, pattern, element) for element in elements for pattern in plan.get]


def _store(ctx: Context, key: bytes, items: list[bytes | None]) -> int:
    if not items:
        ctx.remove(key)
        return 0
    ctx.db.remove(key)
    stored = ctx.db.create(key, List)
    for item in items:
        stored.push(item or b"", False)
    ctx.changed(key, "sortstore")
    return len(items)


def _keys_of_sort(args: tuple[bytes, ...]) -> list[int]:
    """Places of the keys in the whole command: the source, and the last STORE's destination."""
    store = None
    at = 2
    while at < len(args):
        word = args[at].upper()
        if word == b"STORE" and at + 1 < len(args):
            store = at + 1
        at += 3 if word == b"LIMIT" else 2 if word in (b"GET", b"BY", b"STORE") else 1
    return [1] if store is None else [1, store]


_SOURCE = KeySpec(("RO", "access"), index=1)
_PATTERNS = KeySpec(
    ("RO", "access"), unknown=True, notes="For the optional BY/GET keyword. It is marked 'unknown' because the key "
    "names derive from the content of the key we sort",
)  # fmt: skip
_DESTINATION = KeySpec(
    ("OW", "update"), unknown=True,
    notes="For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the "
    "argument array",
)  # fmt: skip
_CATEGORIES = ("set", "sortedset", "list", "dangerous")
_COMPLEXITY = (
    "O(N+M*log(M)) where N is the number of elements in the list or set to sort, and M the number of returned "
    "elements. When the elements are not sorted, complexity is O(N)."
)


@command(
    "SORT", arity=-2, flags=WRITE | DENYOOM | MOVABLEKEYS, keys=(_SOURCE, _PATTERNS, _DESTINATION), group="generic",
    since="1.0.0", acl=_CATEGORIES, complexity=_COMPLEXITY, get_keys=_keys_of_sort,
)  # fmt: skip
def sort(ctx: Context, key: bytes, *words: bytes) -> int | list[bytes | None]:
    """Sorts the elements of a list, set or sorted set, and may store the outcome."""
    plan = _parse(ctx, "SORT", key, words)
    items = _sort(ctx, key, plan)
    return items if plan.store is None else _store(ctx, plan.store, items)


@command(
    "SORT_RO", arity=-2, flags=READONLY | MOVABLEKEYS, keys=(_SOURCE, _PATTERNS), group="generic", since="7.0.0",
    acl=_CATEGORIES, complexity=_COMPLEXITY, get_keys=lambda args: [1],
)  # fmt: skip
def sort_ro(ctx: Context, key: bytes, *words: bytes) -> list[bytes | None]:
    """Sorts the elements of a list, set or sorted set."""
    return _sort(ctx, key, _parse(ctx, "SORT_RO", key, words))
