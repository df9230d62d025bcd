"""Unions, intersections and differences of sorted sets; plain sets take part with the score 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from zeekdb.commands.args import parse_float, parse_int
from zeekdb.commands.context import Context
from zeekdb.commands.sorted_sets import GROUP, Pair, reply_pairs, store
from zeekdb.commands.spec import DENYOOM, MOVABLEKEYS, READONLY, WRITE, KeySpec, command, counted_keys
from zeekdb.errors import CommandError, SyntaxError_, WrongType
from zeekdb.types import Set, ZSet

READ: Final = counted_keys(1, "RO", "access")
STORE: Final = (KeySpec(("OW", "update"), index=1), KeySpec(("RO", "access"), index=2, count_at=0, first=1))

Scores = dict[bytes, float]


def _add(left: float, right: float) -> float:
    """The sum; infinities that cancel make 0, as in Redis."""
    total = left + right
    return 0.0 if math.isnan(total) else total


AGGREGATES: Final[dict[bytes, Callable[[float, float], float]]] = {
    b"SUM": _add,
    b"MIN": lambda left, right: right if right < left else left,
    b"MAX": lambda left, right: right if right > left else left,
}


class Request:
    """`numkeys key … [WEIGHTS …] [AGGREGATE …] [WITHSCORES]` as far as the command takes them."""

    def __init__(self, ctx: Context, name: str, args: tuple[bytes, ...], *, weights: bool, scores: bool) -> None:
        self.weights: list[float] = []
        self.aggregate = AGGREGATES[b"SUM"]
        self.with_scores = False
        count = _key_count(name, args)
        self.sources = [_source(ctx, key) for key in args[1 : count + 1]]
        words = args[count + 1 :]
        place = 0
        while place < len(words):
            word = words[place].upper()
            left = len(words) - place - 1
            if word == b"WEIGHTS" and weights and left >= count:
                self.weights = [_weight(text) for text in words[place + 1 : place + 1 + count]]
                place += count
            elif word == b"AGGREGATE" and weights and left >= 1:
                place += 1
                if words[place].upper() not in AGGREGATES:
                    raise SyntaxError_
                self.aggregate = AGGREGATES[words[place].upper()]
            elif word == b"WITHSCORES" and scores:
                self.with_scores = True
            else:
                raise SyntaxError_
            place += 1
        self.weights = self.weights or [1.0] * count

    def weighted(self, i: int) -> Scores:
        """The scores of source i, times its weight."""
        weight = self.weights[i]
        return {member: _times(score, weight) for member, score in pairs_of(self.sources[i])}


def _key_count(name: str, args: tuple[bytes, ...]) -> int:
    count = parse_int(args[0])
    if count < 1:
        raise CommandError(f"ERR at least 1 input key is needed for '{name}' command")
    if count > len(args) - 1:
        raise SyntaxError_
    return count


def _weight(text: bytes) -> float:
    try:
        return parse_float(text)
    except CommandError:
        raise CommandError("ERR weight value is not a float") from None


def _times(score: float, weight: float) -> float:
    product = score * weight
    return 0.0 if math.isnan(product) else product


def _source(ctx: Context, key: bytes) -> Set | ZSet | None:
    value = ctx.db.read(key)
    if value is not None and not isinstance(value, Set | ZSet):
        raise WrongType
    return value


def pairs_of(source: Set | ZSet | None) -> list[Pair]:
    """Members with scores; a plain set's count 1 each."""
    if source is None:
        return []
    if isinstance(source, ZSet):
        return source.pairs()
    return [(member, 1.0) for member in source.members()]


def _union(request: Request) -> Scores:
    result: Scores = {}
    combine = request.aggregate
    for i in range(len(request.sources)):
        for member, score in request.weighted(i).items():
            result[member] = combine(result[member], score) if member in result else score
    return result


def _intersection(request: Request) -> Scores:
    """Walks the smallest source and asks the others, in order of size: NaN then counts as Redis counts it."""
    if any(source is None for source in request.sources):
        return {}
    weighted = sorted(zip(request.sources, request.weights, strict=True), key=lambda pair: len(pair[0] or ()))
    (smallest, first_weight), *others = weighted
    result: Scores = {}
    for member, first_score in pairs_of(smallest):
        total = _times(first_score, first_weight)
        for source, weight in others:
            score = _score_of(source, member)
            if score is None:
                break
            total = request.aggregate(total, score * weight)
        else:
            result[member] = total
    return result


def _score_of(source: Set | ZSet | None, member: bytes) -> float | None:
    if isinstance(source, ZSet):
        return source.score(member)
    return 1.0 if source is not None and member in source else None


def _difference(request: Request) -> Scores:
    first, *others = request.sources
    return {
        member: score
        for member, score in pairs_of(first)
        if not any(other is not None and member in other for other in others)
    }


def _ordered(scores: Scores) -> list[Pair]:
    return sorted(scores.items(), key=lambda pair: (pair[1], pair[0]))


def _reply(ctx: Context, request: Request, scores: Scores) -> list[Any]:
    pairs = _ordered(scores)
    return reply_pairs(ctx, pairs) if request.with_scores else [member for member, _ in pairs]


UNION_COST: Final = (
    "O(N)+O(M*log(M)) with N being the sum of the sizes of the input sorted sets, and M being the number of "
    "elements in the resulting sorted set."
)
INTER_COST: Final = (
    "O(N*K)+O(M*log(M)) worst case with N being the smallest input sorted set, K being the number of input sorted "
    "sets and M being the number of elements in the resulting sorted set."
)
DIFF_COST: Final = (
    "O(L + (N-K)log(N)) worst case where L is the total number of elements in all the sets, N is the size of the "
    "first set, and K is the size of the result set."
)


@command("ZUNION", arity=-3, flags=READONLY | MOVABLEKEYS, keys=READ, group=GROUP, since="6.2.0", complexity=UNION_COST)
def zunion(ctx: Context, *args: bytes) -> list[Any]:
    """Returns the union of sorted sets."""
    request = Request(ctx, "zunion", args, weights=True, scores=True)
    return _reply(ctx, request, _union(request))


@command("ZINTER", arity=-3, flags=READONLY | MOVABLEKEYS, keys=READ, group=GROUP, since="6.2.0", complexity=INTER_COST)
def zinter(ctx: Context, *args: bytes) -> list[Any]:
    """Returns the intersection of sorted sets."""
    request = Request(ctx, "zinter", args, weights=True, scores=True)
    return _reply(ctx, request, _intersection(request))


@command("ZDIFF", arity=-3, flags=READONLY | MOVABLEKEYS, keys=READ, group=GROUP, since="6.2.0", complexity=DIFF_COST)
def zdiff(ctx: Context, *args: bytes) -> list[Any]:
    """Returns the difference of sorted sets."""
    request = Request(ctx, "zdiff", args, weights=False, scores=True)
    return _reply(ctx, request, _difference(request))


@command("ZUNIONSTORE", arity=-4, flags=WRITE | DENYOOM | MOVABLEKEYS, keys=STORE, group=GROUP, since="2.0.0",
         complexity=UNION_COST)  # fmt: skip
def zunionstore(ctx: Context, target: bytes, *args: bytes) -> int:
    """Stores the union of sorted sets in a key."""
    request = Request(ctx, "zunionstore", args, weights=True, scores=False)
    return store(ctx, target, _ordered(_union(request)), "zunionstore")


@command("ZINTERSTORE", arity=-4, flags=WRITE | DENYOOM | MOVABLEKEYS, keys=STORE, group=GROUP, since="2.0.0",
         complexity=INTER_COST)  # fmt: skip
def zinterstore(ctx: Context, target: bytes, *args: bytes) -> int:
    """Stores the intersection of sorted sets in a key."""
    request = Request(ctx, "zinterstore", args, weights=True, scores=False)
    return store(ctx, target, _ordered(_intersection(request)), "zinterstore")


@command("ZDIFFSTORE", arity=-4, flags=WRITE | DENYOOM | MOVABLEKEYS, keys=STORE, group=GROUP, since="6.2.0",
         complexity=DIFF_COST)  # fmt: skip
def zdiffstore(ctx: Context, target: bytes, *args: bytes) -> int:
    """Stores the difference of sorted sets in a key."""
    request = Request(ctx, "zdiffstore", args, weights=False, scores=False)
    return store(ctx, target, _ordered(_difference(request)), "zdiffstore")


@command("ZINTERCARD", arity=-3, flags=READONLY | MOVABLEKEYS, keys=READ, group=GROUP, since="7.0.0",
         complexity="O(N*K) worst case with N being the smallest input sorted set, K being the number of input "
                    "sorted sets.")  # fmt: skip
def zintercard(ctx: Context, *args: bytes) -> int:
    """Returns the number of members of the intersection of sorted sets."""
    count = _key_count("zintercard", args)
    sources = [_source(ctx, key) for key in args[1 : count + 1]]
    limit = _limit(args[count + 1 :])
    if any(source is None for source in sources):
        return 0
    smallest = min(sources, key=lambda source: len(source or ()))
    found = 0
    for member, _ in pairs_of(smallest):
        if all(source is not None and member in source for source in sources):
            found += 1
            if found == limit:
                break
    return found


def _limit(words: tuple[bytes, ...]) -> int:
    limit = 0
    place = 0
    while place < len(words):
        if words[place].upper() != b"LIMIT" or place + 1 == len(words):
            raise SyntaxError_
        try:
            limit = parse_int(words[place + 1])
        except CommandError:
            limit = -1
        if limit < 0:
            raise CommandError("ERR LIMIT can't be negative")
        place += 2
    return limit
