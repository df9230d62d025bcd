"""The sorted set commands; unions, intersections and differences are in sorted_set_algebra."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, Final

from zeekdb.commands.args import format_float, parse_cursor, parse_float, parse_int, parse_timeout
from zeekdb.commands.context import Context
from zeekdb.commands.members import check_samples, for_change, parse_scan_options
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
from zeekdb.errors import CommandError, SyntaxError_, WrongType
from zeekdb.hot.keyspace import glob_match
from zeekdb.types import ZSet

NX, XX, GT, LT, INCR = 1, 2, 4, 8, 16  # as ZSet.add takes them
ADDED, UPDATED, NOP, NAN = 1, 2, 4, 8  # and answers

LOOK: Final = one_key("RO")
READ: Final = one_key("RO", "access")
GROUP: Final = "sorted-set"
LOG_RANGE: Final = (
    "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements returned."
)
NO_SCORES: Final = "ERR syntax error, WITHSCORES not supported in combination with BYLEX"
Pair = tuple[bytes, float]


def reply_pairs(ctx: Context, pairs: Sequence[Pair]) -> list[Any]:
    """Members with scores: pairs in RESP3, one flat array in RESP2."""
    if ctx.client.protocol == 3:
        return [list(pair) for pair in pairs]
    return [part for pair in pairs for part in pair]


# --- adding and removing -----------------------------------------------------------------------------------------

_ADD_OPTIONS = {b"NX": NX, b"XX": XX, b"GT": GT, b"LT": LT, b"INCR": INCR, b"CH": 32}


@command("ZADD", arity=-4, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "update"), group=GROUP, since="1.2.0",
         complexity="O(log(N)) for each item added, where N is the number of elements in the sorted set.",
         history=(("2.4.0", "Accepts multiple elements."),
                  ("3.0.2", "Added the `XX`, `NX`, `CH` and `INCR` options."),
                  ("6.2.0", "Added the `GT` and `LT` options.")), twin="zadd")  # fmt: skip
def zadd(ctx: Context, key: bytes, *args: bytes) -> int | float | None:
    """Adds members to a sorted set, or updates their scores, creating the key when it does not exist."""
    flags, first = 0, 0
    while first < len(args) and (option := _ADD_OPTIONS.get(args[first].upper())):
        flags |= option
        first += 1
    rest = args[first:]
    if not rest or len(rest) % 2:
        raise SyntaxError_
    if flags & NX and flags & XX:
        raise CommandError("ERR XX and NX options at the same time are not compatible")
    if bin(flags & (NX | GT | LT)).count("1") > 1:
        raise CommandError("ERR GT, LT, and/or NX options at the same time are not compatible")
    if flags & INCR and len(rest) > 2:
        raise CommandError("ERR INCR option supports a single increment-element pair")
    scores = [parse_float(text) for text in rest[::2]]
    return add_members(ctx, key, scores, rest[1::2], flags)


def add_members(
    ctx: Context, key: bytes, scores: list[float], members: Sequence[bytes], flags: int
) -> int | float | None:
    """ZADD's deed, for whoever comes to scores by other ways; 32 among the flags is CH."""
    target = for_change(ctx, key, ZSet)
    if target is None:
        if flags & XX:
            return None if flags & INCR else 0
        target = ctx.write(key, ZSet)
    added = updated = 0
    score: float | None = None
    for wanted, member in zip(scores, members, strict=True):
        what, now = target.add(member, wanted, flags & 31)
        if what & NAN:
            ctx.remove_if_empty(key, target)
            raise CommandError("ERR resulting score is not a number (NaN)")
        added += what == ADDED
        updated += what == UPDATED
        score = None if what & NOP else now
    if added or updated:
        ctx.changed(key, "zincr" if flags & INCR else "zadd", added + updated)
    if flags & INCR:
        return score
    return added + updated if flags & 32 else added


@command("ZINCRBY", arity=4, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "access", "update"), group=GROUP,
         since="1.2.0", complexity="O(log(N)) where N is the number of elements in the sorted set.",
         twin="zincrby")  # fmt: skip
def zincrby(ctx: Context, key: bytes, by: bytes, member: bytes) -> float | None:
    """Adds to the score of a member of a sorted set."""
    if by.upper() in _ADD_OPTIONS:  # Redis reads it with ZADD's eyes
        raise SyntaxError_
    score = add_members(ctx, key, [parse_float(by)], (member,), INCR)
    assert score is not None
    return float(score)


@command("ZREM", arity=-3, flags=WRITE | FAST, keys=one_key("RW", "delete"), group=GROUP, since="1.2.0",
         complexity="O(M*log(N)) with N being the number of elements in the sorted set and M the number of "
                    "elements to be removed.",
         history=(("2.4.0", "Accepts multiple elements."),))  # fmt: skip
def zrem(ctx: Context, key: bytes, *members: bytes) -> int:
    """Removes members from a sorted set, and the set with its last member."""
    target = for_change(ctx, key, ZSet)
    if target is None:
        return 0
    removed = sum(target.remove(member) for member in members)
    if removed:
        _removed(ctx, key, target, "zrem", removed)
    return removed


def _removed(ctx: Context, key: bytes, target: ZSet, event: str, count: int) -> None:
    ctx.changed(key, event, count)
    ctx.remove_if_empty(key, target)


# --- looking up --------------------------------------------------------------------------------------------------


@command("ZCARD", arity=2, flags=READONLY | FAST, keys=LOOK, group=GROUP, since="1.2.0", complexity="O(1)",
         twin="zcard")  # fmt: skip
def zcard(ctx: Context, key: bytes) -> int:
    """Returns the number of members of a sorted set."""
    return len(ctx.read(key, ZSet) or ())


@command("ZSCORE", arity=3, flags=READONLY | FAST, keys=READ, group=GROUP, since="1.2.0", complexity="O(1)",
         twin="zscore")  # fmt: skip
def zscore(ctx: Context, key: bytes, member: bytes) -> float | None:
    """Returns the score of a member of a sorted set."""
    source = ctx.read(key, ZSet)
    return None if source is None else source.score(member)


@command("ZMSCORE", arity=-3, flags=READONLY | FAST, keys=READ, group=GROUP, since="6.2.0",
         complexity="O(N) where N is the number of members being requested.")  # fmt: skip
def zmscore(ctx: Context, key: bytes, *members: bytes) -> list[float | None]:
    """Returns the scores of members of a sorted set."""
    source = ctx.read(key, ZSet)
    return [None if source is None else source.score(member) for member in members]


def _rank(ctx: Context, key: bytes, member: bytes, options: tuple[bytes, ...], reverse: bool) -> Any:
    if len(options) > 1:
        raise CommandError(f"ERR wrong number of arguments for '{'zrevrank' if reverse else 'zrank'}' command")
    if options and options[0].upper() != b"WITHSCORE":
        raise SyntaxError_
    source = ctx.read(key, ZSet)
    found = None if source is None else source.rank(member, reverse)
    if options:
        return NULL_ARRAY if found is None else list(found)
    return None if found is None else found[0]


@command("ZRANK", arity=-3, flags=READONLY | FAST, keys=READ, group=GROUP, since="2.0.0", complexity="O(log(N))",
         history=(("7.2.0", "Added the optional `WITHSCORE` argument."),), twin="zrank")  # fmt: skip
def zrank(ctx: Context, key: bytes, member: bytes, *options: bytes) -> Any:
    """Returns the rank of a member of a sorted set, scores ascending."""
    return _rank(ctx, key, member, options, False)


@command("ZREVRANK", arity=-3, flags=READONLY | FAST, keys=READ, group=GROUP, since="2.0.0", complexity="O(log(N))",
         history=(("7.2.0", "Added the optional `WITHSCORE` argument."),), twin="zrevrank")  # fmt: skip
def zrevrank(ctx: Context, key: bytes, member: bytes, *options: bytes) -> Any:
    """Returns the rank of a member of a sorted set, scores descending."""
    return _rank(ctx, key, member, options, True)


@command("ZSCAN", arity=-3, flags=READONLY, keys=READ, group=GROUP, since="2.8.0",
         complexity="O(1) for every call. O(N) for a complete iteration, including enough command calls for the "
                    "cursor to return back to 0. N is the number of elements inside the collection.",
         tips=("nondeterministic_output",))  # fmt: skip
def zscan(ctx: Context, key: bytes, cursor: bytes, *options: bytes) -> list[Any]:
    """Iterates over the members and scores of a sorted set."""
    place = parse_cursor(cursor)
    source = ctx.read(key, ZSet)
    if source is None:
        return [b"0", []]
    pattern, count = parse_scan_options(options)
    place, pairs = source.scan(place, count)
    reply: list[Any] = []
    for member, score in pairs:
        if pattern is None or glob_match(pattern, member):
            reply += (member, format_float(score))
    return [b"%d" % place, reply]


@command("ZRANDMEMBER", arity=-2, flags=READONLY, keys=READ, group=GROUP, since="6.2.0",
         complexity="O(N) where N is the number of members returned", tips=("nondeterministic_output",))  # fmt: skip
def zrandmember(ctx: Context, key: bytes, *args: bytes) -> Any:
    """Returns members of a sorted set at random."""
    if len(args) > 2 or (len(args) == 2 and args[1].upper() != b"WITHSCORES"):
        raise SyntaxError_
    count = parse_int(args[0]) if args else None
    if count is not None and not count > -(2**63):
        raise CommandError("ERR value is out of range")
    if len(args) == 2 and count is not None and not -(2**62) <= count <= 2**62:
        raise CommandError("ERR value is out of range")
    source = ctx.read(key, ZSet)
    if source is None:
        return None if count is None else []
    if count is None:
        return source.random()[0]
    if count < 0:
        pairs = [source.random() for _ in range(check_samples(count))]
    elif count >= len(source):
        pairs = source.pairs()
    else:
        pairs = [source.pairs(rank, rank)[0] for rank in random.sample(range(len(source)), count)]
    return reply_pairs(ctx, pairs) if len(args) == 2 else [member for member, _ in pairs]


# --- ranges ------------------------------------------------------------------------------------------------------


def _score_bound(text: bytes) -> tuple[float, bool]:
    """(score, exclusive)."""
    exclusive = text.startswith(b"(")
    try:
        return parse_float(text[exclusive:].lstrip() or b"0"), exclusive  # as strtod: spaces first, nothing is 0
    except CommandError:
        raise CommandError("ERR min or max is not a float") from None


def _lex_bound(text: bytes) -> tuple[bytes | None, bool]:
    """(member, exclusive); for `-` (None, False), for `+` (None, True)."""
    if text in (b"-", b"+"):
        return None, text == b"+"
    if text[:1] in (b"[", b"("):
        return text[1:], text[:1] == b"("
    raise CommandError("ERR min or max not valid string range item")


class Range:
    """A range as its arguments say it; `ranks` is where it lies in a sorted set."""

    def ranks(self, source: ZSet) -> tuple[int, int]:
        """(first, how many)."""
        raise NotImplementedError


class ScoreRange(Range):
    """Between two scores, each included or not."""

    def __init__(self, low: bytes, high: bytes) -> None:
        self.low, self.low_exclusive = _score_bound(low)
        self.high, self.high_exclusive = _score_bound(high)

    def ranks(self, source: ZSet) -> tuple[int, int]:
        first = source.count_below_score(self.low, self.low_exclusive)
        return first, max(source.count_below_score(self.high, not self.high_exclusive) - first, 0)


class LexRange(Range):
    """Between two members; meaningful where all scores are equal."""

    def __init__(self, low: bytes, high: bytes) -> None:
        self.low, self.low_exclusive = _lex_bound(low)
        self.high, self.high_exclusive = _lex_bound(high)

    def ranks(self, source: ZSet) -> tuple[int, int]:
        if self.low is None:
            first = len(source) if self.low_exclusive else 0
        else:
            first = source.count_below_member(self.low, self.low_exclusive)
        if self.high is None:
            end = len(source) if self.high_exclusive else 0
        else:
            end = source.count_below_member(self.high, not self.high_exclusive)
        return first, max(end - first, 0)


class RankRange(Range):
    """Between two ranks, both included, negative ones from the end."""

    def __init__(self, start: bytes, stop: bytes, reverse: bool = False) -> None:
        self.start, self.stop = parse_int(start), parse_int(stop)
        self.reverse = reverse

    def ranks(self, source: ZSet) -> tuple[int, int]:
        length = len(source)
        start = max(self.start + length, 0) if self.start < 0 else self.start
        stop = min(self.stop + length if self.stop < 0 else self.stop, length - 1)
        count = max(stop - start + 1, 0)
        return (length - 1 - stop if self.reverse else start), count


def select(source: ZSet | None, span: Range, reverse: bool, offset: int = 0, limit: int = -1) -> list[Pair]:
    """The pairs of a range in the order asked for, without the first `offset`, at most `limit` (negative: all)."""
    if source is None:
        return []
    first, count = span.ranks(source)
    if offset < 0 or offset >= count:
        return []
    left = count - offset if limit < 0 else min(limit, count - offset)
    if left <= 0:
        return []
    if reverse:
        begin = len(source) - first - count + offset
        return source.pairs(begin, begin + left - 1, True)
    return source.pairs(first + offset, first + offset + left - 1)


class _Options:
    """What may follow the two bounds of a range."""

    def __init__(self, words: tuple[bytes, ...], allowed: tuple[bytes, ...]) -> None:
        self.given: set[bytes] = set()
        self.offset, self.limit = 0, -1
        place = 0
        while place < len(words):
            word = words[place].upper()
            if word == b"LIMIT" and b"LIMIT" in allowed and place + 2 < len(words):
                self.offset, self.limit = parse_int(words[place + 1]), parse_int(words[place + 2])
                place += 2
            elif word not in allowed or word == b"LIMIT":
                raise SyntaxError_
            self.given.add(word)
            place += 1


def _zrange(key_source: ZSet | None, span: Range, reverse: bool, options: _Options) -> list[Pair]:
    if isinstance(span, RankRange):
        return select(key_source, span, reverse)  # LIMIT 4 -1 is let through, and means nothing
    return select(key_source, span, reverse, options.offset, options.limit)


def _parse_range(low: bytes, high: bytes, options: _Options) -> tuple[Range, bool]:
    """ZRANGE's forms."""
    given = options.given
    reverse = b"REV" in given
    if b"BYSCORE" in given and b"BYLEX" in given:
        raise SyntaxError_
    if b"LIMIT" in given and options.limit != -1 and not given & {b"BYSCORE", b"BYLEX"}:
        raise CommandError("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")
    if b"WITHSCORES" in given and b"BYLEX" in given:
        raise CommandError(NO_SCORES)
    if not given & {b"BYSCORE", b"BYLEX"}:
        return RankRange(low, high, reverse), reverse
    if reverse:
        low, high = high, low
    return (ScoreRange(low, high) if b"BYSCORE" in given else LexRange(low, high)), reverse


def _answer(ctx: Context, pairs: list[Pair], with_scores: bool) -> list[Any]:
    return reply_pairs(ctx, pairs) if with_scores else [member for member, _ in pairs]


@command("ZRANGE", arity=-4, flags=READONLY, keys=READ, group=GROUP, since="1.2.0", complexity=LOG_RANGE,
         history=(("6.2.0", "Added the `REV`, `BYSCORE`, `BYLEX` and `LIMIT` options."),), twin="zrange")  # fmt: skip
def zrange(ctx: Context, key: bytes, low: bytes, high: bytes, *words: bytes) -> list[Any]:
    """Returns members of a sorted set within a range of ranks, scores or members."""
    options = _Options(words, (b"BYSCORE", b"BYLEX", b"REV", b"LIMIT", b"WITHSCORES"))
    span, reverse = _parse_range(low, high, options)
    pairs = _zrange(ctx.read(key, ZSet), span, reverse, options)
    return _answer(ctx, pairs, b"WITHSCORES" in options.given)


@command("ZRANGESTORE", arity=-5, flags=WRITE | DENYOOM,
         keys=(KeySpec(("OW", "update"), index=1), KeySpec(("RO", "access"), index=2)), group=GROUP, since="6.2.0",
         complexity="O(log(N)+M) with N being the number of elements in the sorted set and M the number of "
                    "elements stored into the destination key.")  # fmt: skip
def zrangestore(ctx: Context, target: bytes, key: bytes, low: bytes, high: bytes, *words: bytes) -> int:
    """Stores a range of members of a sorted set in a key."""
    options = _Options(words, (b"BYSCORE", b"BYLEX", b"REV", b"LIMIT"))
    span, reverse = _parse_range(low, high, options)
    pairs = _zrange(ctx.read(key, ZSet), span, reverse, options)
    return store(ctx, target, pairs, "zrangestore")


def store(ctx: Context, target: bytes, pairs: Sequence[Pair], event: str) -> int:
    """Replaces what is at `target` by the pairs; nothing leaves nothing."""
    if not pairs:
        ctx.remove(target)
        return 0
    ctx.db.remove(target)
    result = ctx.db.create(target, ZSet)
    for member, score in pairs:
        result.add(member, score)
    ctx.changed(target, event)
    return len(pairs)


@command("ZREVRANGE", arity=-4, flags=READONLY, keys=READ, group=GROUP, since="1.2.0", complexity=LOG_RANGE,
         doc_flags=("deprecated",), deprecated_since="6.2.0", replaced_by="`ZRANGE` with the `REV` argument",
         twin="zrevrange")  # fmt: skip
def zrevrange(ctx: Context, key: bytes, start: bytes, stop: bytes, *words: bytes) -> list[Any]:
    """Returns members of a sorted set within a range of ranks, in reverse order."""
    options = _Options(words, (b"WITHSCORES",))
    span = RankRange(start, stop, True)
    pairs = select(ctx.read(key, ZSet), span, True)
    return _answer(ctx, pairs, bool(options.given))


@command("ZRANGEBYSCORE", arity=-4, flags=READONLY, keys=READ, group=GROUP, since="1.0.5", complexity=LOG_RANGE,
         history=(("2.0.0", "Added the `WITHSCORES` modifier."),), doc_flags=("deprecated",), deprecated_since="6.2.0",
         replaced_by="`ZRANGE` with the `BYSCORE` argument")  # fmt: skip
def zrangebyscore(ctx: Context, key: bytes, low: bytes, high: bytes, *words: bytes) -> list[Any]:
    """Returns members of a sorted set within a range of scores."""
    return _by_score(ctx, key, low, high, words, False)


@command("ZREVRANGEBYSCORE", arity=-4, flags=READONLY, keys=READ, group=GROUP, since="2.2.0", complexity=LOG_RANGE,
         history=(("2.1.6", "`min` and `max` can be exclusive."),), doc_flags=("deprecated",),
         deprecated_since="6.2.0", replaced_by="`ZRANGE` with the `REV` and `BYSCORE` arguments")  # fmt: skip
def zrevrangebyscore(ctx: Context, key: bytes, high: bytes, low: bytes, *words: bytes) -> list[Any]:
    """Returns members of a sorted set within a range of scores, in reverse order."""
    return _by_score(ctx, key, low, high, words, True)


def _by_score(
    ctx: Context, key: bytes, low: bytes, high: bytes, words: tuple[bytes, ...], reverse: bool
) -> list[Any]:
    options = _Options(words, (b"LIMIT", b"WITHSCORES"))
    span = ScoreRange(low, high)
    pairs = _zrange(ctx.read(key, ZSet), span, reverse, options)
    return _answer(ctx, pairs, b"WITHSCORES" in options.given)


def _by_lex(ctx: Context, key: bytes, low: bytes, high: bytes, words: tuple[bytes, ...], reverse: bool) -> list[Any]:
    options = _Options(words, (b"LIMIT", b"WITHSCORES"))
    if b"WITHSCORES" in options.given:
        raise CommandError(NO_SCORES)
    span = LexRange(low, high)
    return _answer(ctx, _zrange(ctx.read(key, ZSet), span, reverse, options), False)


@command("ZRANGEBYLEX", arity=-4, flags=READONLY, keys=READ, group=GROUP, since="2.8.9", complexity=LOG_RANGE,
         doc_flags=("deprecated",), deprecated_since="6.2.0",
         replaced_by="`ZRANGE` with the `BYLEX` argument")  # fmt: skip
def zrangebylex(ctx: Context, key: bytes, low: bytes, high: bytes, *words: bytes) -> list[Any]:
    """Returns members of a sorted set within a range of members."""
    return _by_lex(ctx, key, low, high, words, False)


@command("ZREVRANGEBYLEX", arity=-4, flags=READONLY, keys=READ, group=GROUP, since="2.8.9", complexity=LOG_RANGE,
         doc_flags=("deprecated",), deprecated_since="6.2.0",
         replaced_by="`ZRANGE` with the `REV` and `BYLEX` arguments")  # fmt: skip
def zrevrangebylex(ctx: Context, key: bytes, high: bytes, low: bytes, *words: bytes) -> list[Any]:
    """Returns members of a sorted set within a range of members, in reverse order."""
    return _by_lex(ctx, key, low, high, words, True)


@command("ZCOUNT", arity=4, flags=READONLY | FAST, keys=READ, group=GROUP, since="2.0.0",
         complexity="O(log(N)) with N being the number of elements in the sorted set.")  # fmt: skip
def zcount(ctx: Context, key: bytes, low: bytes, high: bytes) -> int:
    """Returns how many members of a sorted set have scores within a range."""
    span = ScoreRange(low, high)
    source = ctx.read(key, ZSet)
    return 0 if source is None else span.ranks(source)[1]


@command("ZLEXCOUNT", arity=4, flags=READONLY | FAST, keys=READ, group=GROUP, since="2.8.9",
         complexity="O(log(N)) with N being the number of elements in the sorted set.")  # fmt: skip
def zlexcount(ctx: Context, key: bytes, low: bytes, high: bytes) -> int:
    """Returns how many members of a sorted set lie within a range of members."""
    span = LexRange(low, high)
    source = ctx.read(key, ZSet)
    return 0 if source is None else span.ranks(source)[1]


def _remove_range(ctx: Context, key: bytes, span: Range, event: str) -> int:
    target = for_change(ctx, key, ZSet)
    if target is None:
        return 0
    first, count = span.ranks(target)
    if count:
        target.remove_ranks(first, count)
        _removed(ctx, key, target, event, count)
    return count


REMOVE_COST: Final = (
    "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements removed by the "
    "operation."
)


@command("ZREMRANGEBYRANK", arity=4, flags=WRITE, keys=one_key("RW", "delete"), group=GROUP, since="2.0.0",
         complexity=REMOVE_COST)  # fmt: skip
def zremrangebyrank(ctx: Context, key: bytes, start: bytes, stop: bytes) -> int:
    """Removes the members of a sorted set within a range of ranks."""
    return _remove_range(ctx, key, RankRange(start, stop), "zremrangebyrank")


@command("ZREMRANGEBYSCORE", arity=4, flags=WRITE, keys=one_key("RW", "delete"), group=GROUP, since="1.2.0",
         complexity=REMOVE_COST)  # fmt: skip
def zremrangebyscore(ctx: Context, key: bytes, low: bytes, high: bytes) -> int:
    """Removes the members of a sorted set within a range of scores."""
    return _remove_range(ctx, key, ScoreRange(low, high), "zremrangebyscore")


@command("ZREMRANGEBYLEX", arity=4, flags=WRITE, keys=one_key("RW", "delete"), group=GROUP, since="2.8.9",
         complexity=REMOVE_COST)  # fmt: skip
def zremrangebylex(ctx: Context, key: bytes, low: bytes, high: bytes) -> int:
    """Removes the members of a sorted set within a range of members."""
    return _remove_range(ctx, key, LexRange(low, high), "zremrangebylex")


# --- popping -----------------------------------------------------------------------------------------------------


def _take(ctx: Context, key: bytes, source: ZSet, count: int, greatest: bool) -> list[Pair]:
    """Pops at least one of a set that is not empty."""
    pairs: list[Pair] = []
    for _ in range(min(count, len(source))):
        pair = source.pop(greatest)
        assert pair is not None
        pairs.append(pair)
    _removed(ctx, key, source, "zpopmax" if greatest else "zpopmin", len(pairs))
    return pairs


def _pop(ctx: Context, key: bytes, args: tuple[bytes, ...], greatest: bool) -> list[Any]:
    if len(args) > 1:
        raise SyntaxError_
    count = 1
    if args:
        try:
            count = parse_int(args[0])
        except CommandError:
            count = -1
        if count < 0:
            raise CommandError("ERR value is out of range, must be positive")
    source = for_change(ctx, key, ZSet)
    if source is None or count == 0:
        return []
    pairs = _take(ctx, key, source, count, greatest)
    return reply_pairs(ctx, pairs) if args else list(pairs[0])


POP_COST: Final = (
    "O(log(N)*M) with N being the number of elements in the sorted set, and M being the number of elements popped."
)


@command("ZPOPMIN", arity=-2, flags=WRITE | FAST, keys=one_key("RW", "access", "delete"), group=GROUP, since="5.0.0",
         complexity=POP_COST, twin="zpopmin")  # fmt: skip
def zpopmin(ctx: Context, key: bytes, *args: bytes) -> list[Any]:
    """Removes and returns the members with the lowest scores of a sorted set."""
    return _pop(ctx, key, args, False)


@command("ZPOPMAX", arity=-2, flags=WRITE | FAST, keys=one_key("RW", "access", "delete"), group=GROUP, since="5.0.0",
         complexity=POP_COST)  # fmt: skip
def zpopmax(ctx: Context, key: bytes, *args: bytes) -> list[Any]:
    """Removes and returns the members with the highest scores of a sorted set."""
    return _pop(ctx, key, args, True)


ZMPOP_COST: Final = (
    "O(K) + O(M*log(N)) where K is the number of provided keys, N being the number of elements in the sorted set, and "
    "M being the number of elements popped."
)


@command("ZMPOP", arity=-4, flags=WRITE | MOVABLEKEYS, keys=counted_keys(1, "RW", "access", "delete"), group=GROUP,
         since="7.0.0", complexity=ZMPOP_COST)  # fmt: skip
def zmpop(ctx: Context, numkeys: bytes, *args: bytes) -> list[Any] | NullArray:
    """Pops members with the lowest or highest scores from the first sorted set that is not empty."""
    keys, greatest, count = _zmpop_words(numkeys, args)
    return _pop_first(ctx, keys, count, greatest) or NULL_ARRAY


def _zmpop_words(numkeys: bytes, args: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], bool, int]:
    """Keys, whether the greatest, and how many."""
    try:
        n = parse_int(numkeys)
    except CommandError:
        n = 0
    if n <= 0:
        raise CommandError("ERR numkeys should be greater than 0")
    if n + 1 > len(args) or args[n].upper() not in (b"MIN", b"MAX"):
        raise SyntaxError_
    return args[:n], args[n].upper() == b"MAX", _pop_count(args[n + 1 :])


def _pop_first(ctx: Context, keys: Iterable[bytes], count: int, greatest: bool) -> list[Any] | None:
    """From the first of the keys that holds a sorted set."""
    for key in keys:
        source = ctx.db.peek(key)
        if source is None:
            continue
        if not isinstance(source, ZSet):
            raise WrongType
        taken = _take(ctx, key, source, count, greatest)
        ctx.effect(b"ZPOPMAX" if greatest else b"ZPOPMIN", key, b"%d" % len(taken))
        return [key, [list(pair) for pair in taken]]
    return None


def _pop_count(words: tuple[bytes, ...]) -> int:
    """`[COUNT n]`, read from left to right as Redis does."""
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


def _blocking_pop(ctx: Context, args: tuple[bytes, ...], greatest: bool) -> Any:
    *keys, timeout = args
    timeout_ms = parse_timeout(timeout)

    def pop(key: bytes) -> list[Any] | None:
        return _pop_one(ctx, key, greatest) if isinstance(ctx.db.peek(key), ZSet) else None

    for key in keys:
        if (reply := _pop_one(ctx, key, greatest)) is not None:
            return reply
    return ctx.block(keys, pop, timeout_ms, NULL_ARRAY)


def _pop_one(ctx: Context, key: bytes, greatest: bool) -> list[Any] | None:
    source = ctx.peek(key, ZSet)
    if source is None:
        return None
    [(member, score)] = _take(ctx, key, source, 1, greatest)
    ctx.effect(b"ZPOPMAX" if greatest else b"ZPOPMIN", key)
    return [key, member, score]


BLOCKING_KEYS: Final = (KeySpec(("RW", "access", "delete"), index=1, last=-2),)
BLOCKING_COST: Final = "O(log(N)) with N being the number of elements in the sorted set."
TIMEOUT_HISTORY: Final = (("6.0.0", "`timeout` is interpreted as a double instead of an integer."),)


@command("BZPOPMIN", arity=-3, flags=WRITE | FAST | BLOCKING, keys=BLOCKING_KEYS, group=GROUP, since="5.0.0",
         complexity=BLOCKING_COST, history=TIMEOUT_HISTORY)  # fmt: skip
def bzpopmin(ctx: Context, *args: bytes) -> Any:
    """Pops the member with the lowest score of the first sorted set that has one, waiting where none has."""
    return _blocking_pop(ctx, args, False)


@command("BZPOPMAX", arity=-3, flags=WRITE | FAST | BLOCKING, keys=BLOCKING_KEYS, group=GROUP, since="5.0.0",
         complexity=BLOCKING_COST, history=TIMEOUT_HISTORY)  # fmt: skip
def bzpopmax(ctx: Context, *args: bytes) -> Any:
    """Pops the member with the highest score of the first sorted set that has one, waiting where none has."""
    return _blocking_pop(ctx, args, True)


@command("BZMPOP", arity=-5, flags=WRITE | MOVABLEKEYS | BLOCKING, keys=counted_keys(2, "RW", "access", "delete"),
         group=GROUP, since="7.0.0", complexity=ZMPOP_COST)  # fmt: skip
def bzmpop(ctx: Context, timeout: bytes, numkeys: bytes, *args: bytes) -> Any:
    """Pops members of the first sorted set that has some, waiting for them where none has."""
    timeout_ms = parse_timeout(timeout)
    keys, greatest, count = _zmpop_words(numkeys, args)

    def pop(key: bytes) -> list[Any] | None:
        return _pop_first(ctx, [key], count, greatest) if isinstance(ctx.db.peek(key), ZSet) else None

    return _pop_first(ctx, keys, count, greatest) or ctx.block(keys, pop, timeout_ms, NULL_ARRAY)
