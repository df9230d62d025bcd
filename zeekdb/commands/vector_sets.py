"""Vector set commands, with the syntax, replies and errors of Redis 8.

The structure needs numpy and usearch, which are imported with the first of these commands: a server without them serves
everything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zeekdb.commands.args import show, to_float, to_int
from zeekdb.commands.context import Context
from zeekdb.commands.members import check_samples
from zeekdb.commands.reply import NULL_ARRAY, NullArray, Pairs
from zeekdb.commands.slices import Steps, in_slices
from zeekdb.commands.spec import DENYOOM, FAST, READONLY, WRITE, command, one_key
from zeekdb.errors import CommandError, WrongArity
from zeekdb.persistence.types import vector_set_class

if TYPE_CHECKING:
    from zeekdb.types.vector_codec import Codec, Encoded, Floats
    from zeekdb.types.vector_filter import Filter
    from zeekdb.types.vectorset import Match, VectorSet

READ = one_key("RO", "access")
COUNT_DEFAULT: Final = 10
EFFORT_PER_RESULT: Final = 100  # FILTER-EF: candidates looked at for each result, where the client names no number
EPSILON_DEFAULT: Final = 2.0

NEAR_CHARS_MAX: Final = 256  # of a filter, in the error that it has none

_INVALID_VECTOR: Final = "ERR invalid vector specification"
_PLAIN_NUMBERS: Final = re.compile(rb"[0-9eE+\-.,]*")


def _kind() -> type[VectorSet]:
    """The structure's class. CommandError where its packages are not installed."""
    try:
        return vector_set_class()
    except ImportError as error:
        raise CommandError(f"ERR {error}") from None


def _codec(word: bytes) -> Codec | None:
    from zeekdb.types.vector_codec import BIN, NOQUANT, Q8

    return {b"NOQUANT": NOQUANT, b"BIN": BIN, b"Q8": Q8}.get(word)


# --- vectors ------------------------------------------------------------------------------------------------------


class _Given(NamedTuple):
    """A vector as a client sent it."""

    values: Floats
    reduce: int  # REDUCE's dimension; 0 without
    words: int  # that said so


def _floats(words: tuple[bytes, ...]) -> list[float]:
    """Numbers from their spellings, quickly where they are plain decimals."""
    if _PLAIN_NUMBERS.fullmatch(b",".join(words)):
        try:
            return list(map(float, words))
        except ValueError:
            raise CommandError(_INVALID_VECTOR) from None
    numbers = [to_float(word) for word in words]
    if None in numbers:
        raise CommandError(_INVALID_VECTOR)
    return numbers  # type: ignore[return-value]  # no None is left


def _parse_vector(words: tuple[bytes, ...], may_reduce: bool) -> _Given:
    """`[REDUCE dim] FP32 blob | VALUES n number …` at the beginning of `words`."""
    import numpy as np

    from zeekdb.types.vector_codec import DIM_MAX

    reduce, at = 0, 0
    if may_reduce and len(words) > 2 and words[0].upper() == b"REDUCE":
        reduce, at = to_int(words[1]) or 0, 2
        if reduce <= 0:
            raise CommandError(_INVALID_VECTOR)
    form = words[at].upper()
    if at + 1 >= len(words):
        raise CommandError(_INVALID_VECTOR)
    given = words[at + 1]
    if form == b"FP32":
        count, used = len(given) // 4, at + 2
        if not count or len(given) % 4 or count > DIM_MAX:
            raise CommandError(_INVALID_VECTOR)
        values = np.frombuffer(given, "<f4").astype(np.float32)
    elif form == b"VALUES":
        count = to_int(given) or 0
        used = at + 2 + count
        if not 0 < count <= DIM_MAX or used > len(words):
            raise CommandError(_INVALID_VECTOR)
        with np.errstate(over="ignore"):
            values = np.array(_floats(words[at + 2 : used]), np.float32)
    else:
        raise CommandError(_INVALID_VECTOR)
    if reduce > count or not np.isfinite(values).all():
        raise CommandError(_INVALID_VECTOR)
    return _Given(values, reduce, used)


def _stored(vectors: VectorSet, values: Floats) -> Encoded:
    try:
        return vectors.prepare(values)
    except ValueError:
        raise CommandError(_INVALID_VECTOR) from None


def _mismatch(got: int, has: int) -> CommandError:
    return CommandError(f"ERR Vector dimension mismatch - got {got} but set has {has}")


def _projection_mismatch(got: int, expects: int) -> CommandError:
    return CommandError(f"ERR Input dimension mismatch for projection - got {got} but projection expects {expects}")


def _number(word: bytes, low: int, high: int | None, name: str) -> int:
    value = to_int(word)
    if value is None or value < low or (high is not None and value > high):
        raise CommandError(f"ERR invalid {name}")
    return value


# --- writing ------------------------------------------------------------------------------------------------------


class _AddOptions(NamedTuple):
    codec: Codec
    ef: int
    m: int
    attributes: bytes | None


def _parse_add_options(words: tuple[bytes, ...]) -> _AddOptions:
    from zeekdb.types.vector_codec import Q8
    from zeekdb.types.vector_index import EF_BUILD, EF_MAX, M_DEFAULT, M_MAX, M_MIN

    codec, ef, m = Q8, EF_BUILD, M_DEFAULT
    attributes: bytes | None = None
    at = 0
    while at < len(words):
        word = words[at].upper()
        value = words[at + 1] if at + 1 < len(words) else None
        at += 1
        named = _codec(word)
        if named is not None:
            codec = named
        elif word == b"EF" and value is not None:
            ef, at = _number(value, 1, EF_MAX, "EF"), at + 1
        elif word == b"M" and value is not None:
            m, at = _number(value, M_MIN, M_MAX, "M"), at + 1
        elif word == b"SETATTR" and value is not None:
            attributes, at = value, at + 1
        elif word != b"CAS":  # a check-and-set insertion is an insertion here: nothing runs beside it
            raise CommandError("ERR invalid option after element")
    return _AddOptions(codec, ef, m, attributes)


def _check_fits(vectors: VectorSet, given: _Given, options: _AddOptions) -> None:
    """Whether an insertion is meant for a set of this kind."""
    count = len(given.values)
    if vectors.codec is not options.codec:
        raise CommandError("ERR asked quantization mismatch with existing vector set")
    if vectors.m != options.m:
        raise CommandError("ERR asked M value mismatch with existing vector set")
    if vectors.dim != (given.reduce if vectors.input_dim else count):
        raise _mismatch(count, vectors.dim)
    if given.reduce and not vectors.input_dim:
        raise CommandError("ERR cannot add projection to existing set without projection")
    if vectors.input_dim and count != vectors.input_dim:
        raise _projection_mismatch(count, vectors.input_dim)


@command(
    "VADD",
    arity=-5,
    flags=WRITE | DENYOOM,
    keys=one_key("RW", "update"),
    group="vector_set",
    since="8.0.0",
    complexity="O(log(N)) for each element added, where N is the number of elements in the vector set.",
)
def vadd(ctx: Context, key: bytes, *words: bytes) -> bool:
    """Adds an element to a vector set, creating the key if needed, or gives an element a new vector."""
    kind = _kind()
    given = _parse_vector(words, may_reduce=True)
    if given.words >= len(words):
        raise WrongArity("vadd")
    name = words[given.words]
    options = _parse_add_options(words[given.words + 1 :])
    vectors = ctx.peek(key, kind)
    if vectors is not None:
        _check_fits(vectors, given, options)
        stored = _stored(vectors, given.values)
    else:
        dim = given.reduce or len(given.values)
        vectors = kind(options.codec, dim, options.m, len(given.values) if given.reduce else 0)
        stored = _stored(vectors, given.values)
        ctx.db.set_object(key, vectors)
    fresh = vectors.add(name, stored, options.ef)
    if options.attributes is not None:
        vectors.set_attributes(name, options.attributes)
    ctx.changed(key, "vadd")
    return fresh


@command(
    "VREM",
    arity=3,
    flags=WRITE,
    keys=one_key("RW", "delete"),
    group="vector_set",
    since="8.0.0",
    complexity="O(log(N)) for each element removed, where N is the number of elements in the vector set.",
)
def vrem(ctx: Context, key: bytes, name: bytes) -> bool:
    """Removes an element from a vector set, and the set with its last element."""
    vectors = ctx.peek(key, _kind())
    if vectors is None or not vectors.remove(name):
        return False
    ctx.changed(key, "vrem")
    ctx.remove_if_empty(key, vectors)
    return True


@command(
    "VSETATTR",
    arity=4,
    flags=WRITE | FAST,
    keys=one_key("RW", "update"),
    group="vector_set",
    since="8.0.0",
    complexity="O(1)",
)
def vsetattr(ctx: Context, key: bytes, name: bytes, text: bytes) -> bool:
    """Sets the JSON attributes of an element; an empty string takes them away."""
    vectors = ctx.peek(key, _kind())
    if vectors is None or not vectors.set_attributes(name, text):
        return False
    ctx.changed(key, "vsetattr")
    return True


# --- searching ----------------------------------------------------------------------------------------------------


class _Search:
    """VSIM's options."""

    def __init__(self, words: tuple[bytes, ...]) -> None:
        from zeekdb.types.vector_index import EF_SEARCH

        self.scores = self.attributes = self.exact = False
        self.count = COUNT_DEFAULT
        self.epsilon = EPSILON_DEFAULT
        self.ef = EF_SEARCH
        self.filter: Filter | None = None
        self.effort: int | None = None
        at = 0
        while at < len(words):
            value = words[at + 1] if at + 1 < len(words) else None
            at += self.take(words[at].upper(), value)

    def take(self, word: bytes, value: bytes | None) -> int:
        """One option; how many words it took."""
        from zeekdb.types.vector_index import EF_MAX

        if word == b"WITHSCORES":
            self.scores = True
        elif word == b"WITHATTRIBS":
            self.attributes = True
        elif word == b"TRUTH":
            self.exact = True
        elif word != b"NOTHREAD":  # searches are short, and run where the command runs
            if value is None:
                raise CommandError("ERR syntax error in VSIM command")
            if word == b"COUNT":
                self.count = _number(value, 1, None, "COUNT")
            elif word == b"EPSILON":
                self.epsilon = _epsilon(value)
            elif word == b"EF":
                self.ef = _number(value, 1, EF_MAX, "EF")
            elif word == b"FILTER":
                self.filter = _filter(value)
            elif word == b"FILTER-EF":
                self.effort = _number(value, 0, None, "FILTER-EF")
            else:
                raise CommandError("ERR syntax error in VSIM command")
            return 2
        return 1

    def run(self, ctx: Context, vectors: VectorSet, query: Encoded) -> Steps:
        """The search, nearest first; a filter's in slices."""
        if self.filter is None:
            found = vectors.nearest(query.row, self.count, self.ef, self.exact)
        else:
            effort = self.count * EFFORT_PER_RESULT if self.effort is None else self.effort
            found = yield from vectors.nearest_matching(
                query.row, self.count, self.ef, self.filter, effort, self.exact
            )
        return self.reply(ctx, vectors, [match for match in found if match.distance / 2 <= self.epsilon])

    def reply(self, ctx: Context, vectors: VectorSet, matches: list[Match]) -> list[Any] | Pairs:
        """Names, or what each is to come with."""
        extras: list[Callable[[Match], Any]] = []
        if self.scores:
            extras.append(lambda match: match.score)
        if self.attributes:
            extras.append(lambda match: vectors.attributes(match.name))
        if not extras:
            return [match.name for match in matches]
        rows = [(match.name, [extra(match) for extra in extras]) for match in matches]
        if ctx.client.protocol == 3:
            return Pairs([(name, values if len(values) > 1 else values[0]) for name, values in rows])
        return [part for name, values in rows for part in (name, *values)]


def _epsilon(word: bytes) -> float:
    value = to_float(word)
    if value is None or value <= 0:
        raise CommandError("ERR invalid EPSILON")
    return value


def _filter(text: bytes) -> Filter:
    from zeekdb.types.vector_filter import Filter, FilterError

    expression = text.decode("utf-8", "surrogateescape")
    try:
        return Filter(expression)
    except FilterError as error:
        place = error.place if error.place < len(expression) else 0
        near = expression[place : place + NEAR_CHARS_MAX].encode("utf-8", "surrogateescape")
        raise CommandError(f"ERR syntax error in FILTER expression near: {show(near)}") from None


def _parse_query(vectors: VectorSet, words: tuple[bytes, ...]) -> tuple[Encoded, int]:
    """What to look for, and how many words said so."""
    if words[0].upper() == b"ELE":
        stored = vectors.stored(words[1])
        if stored is None:
            raise CommandError("ERR element not found in set")
        return stored, 2
    given = _parse_vector(words, may_reduce=False)
    count = len(given.values)
    if count != vectors.dim and count != vectors.input_dim:
        if vectors.input_dim:
            raise _projection_mismatch(count, vectors.input_dim)
        raise _mismatch(count, vectors.dim)
    return _stored(vectors, given.values), given.words


@command(
    "VSIM",
    arity=-4,
    flags=READONLY,
    keys=READ,
    group="vector_set",
    since="8.0.0",
    complexity="O(log(N)) where N is the number of elements in the vector set.",
    history=(("8.2.0", "Added the WITHATTRIBS option."),),
)
def vsim(ctx: Context, key: bytes, *words: bytes) -> Any:
    """Returns the elements most like a vector or another element, most alike first."""
    vectors = ctx.read(key, _kind())
    if vectors is None:
        return []
    query, used = _parse_query(vectors, words)
    return in_slices(ctx, _Search(words[used:]).run(ctx, vectors, query))


# --- reading ------------------------------------------------------------------------------------------------------


@command("VCARD", arity=2, flags=READONLY | FAST, keys=READ, group="vector_set", since="8.0.0", complexity="O(1)")
def vcard(ctx: Context, key: bytes) -> int:
    """Returns the number of elements in a vector set."""
    vectors = ctx.read(key, _kind())
    return 0 if vectors is None else len(vectors)


@command("VDIM", arity=2, flags=READONLY | FAST, keys=READ, group="vector_set", since="8.0.0", complexity="O(1)")
def vdim(ctx: Context, key: bytes) -> int:
    """Returns the dimension of the vectors in a vector set, after REDUCE."""
    vectors = ctx.read(key, _kind())
    if vectors is None:
        raise CommandError("ERR key does not exist")
    return vectors.dim


@command("VISMEMBER", arity=3, flags=READONLY, keys=READ, group="vector_set", since="8.2.0", complexity="O(1)")
def vismember(ctx: Context, key: bytes, name: bytes) -> bool:
    """Returns whether a vector set has an element."""
    vectors = ctx.read(key, _kind())
    return vectors is not None and name in vectors


@command("VEMB", arity=-3, flags=READONLY | FAST, keys=READ, group="vector_set", since="8.0.0", complexity="O(1)")
def vemb(ctx: Context, key: bytes, name: bytes, *options: bytes) -> list[Any] | None:
    """Returns an element's vector, as near to what was added as its quantisation allows, or as it is stored."""
    if any(option.upper() != b"RAW" for option in options):
        raise CommandError("ERR invalid option")
    vectors = ctx.read(key, _kind())
    stored = None if vectors is None else vectors.stored(name)
    if vectors is None or stored is None:
        return None
    codec = vectors.codec
    if not options:
        values: list[float] = codec.decode(stored, vectors.dim).tolist()
        return values
    parts: list[Any] = [codec.name, codec.raw(stored.row), stored.norm]
    return [*parts, stored.range] if codec.name == "int8" else parts


@command("VGETATTR", arity=3, flags=READONLY | FAST, keys=READ, group="vector_set", since="8.0.0", complexity="O(1)")
def vgetattr(ctx: Context, key: bytes, name: bytes) -> bytes | None:
    """Returns an element's JSON attributes."""
    vectors = ctx.read(key, _kind())
    return None if vectors is None else vectors.attributes(name)


@command("VINFO", arity=2, flags=READONLY | FAST, keys=READ, group="vector_set", since="8.0.0", complexity="O(1)")
def vinfo(ctx: Context, key: bytes) -> Pairs | NullArray:
    """Returns what a vector set is made of: dimension, quantisation, sizes."""
    vectors = ctx.read(key, _kind())
    if vectors is None:
        return NULL_ARRAY
    return Pairs([
        ("quant-type", vectors.codec.name),
        ("hnsw-m", vectors.m),
        ("vector-dim", vectors.dim),
        ("projection-input-dim", vectors.input_dim),
        ("size", len(vectors)),
        ("max-level", vectors.max_level),
        ("attributes-count", vectors.attribute_count),
        ("vset-uid", vectors.uid),
        ("hnsw-max-node-uid", vectors.added),
    ])  # fmt: skip


@command("VLINKS", arity=-3, flags=READONLY | FAST, keys=READ, group="vector_set", since="8.0.0", complexity="O(1)")
def vlinks(ctx: Context, key: bytes, name: bytes, *options: bytes) -> list[Any] | None:
    """Returns an element's neighbours: one layer, found by a search."""
    if len(options) > 1 or (options and options[0].upper() != b"WITHSCORES"):
        raise WrongArity("vlinks")
    vectors = ctx.read(key, _kind())
    if vectors is None or name not in vectors:
        return None
    matches = vectors.neighbours(name)
    if options:
        return [{match.name: match.score for match in matches}]
    return [[match.name for match in matches]]


@command(
    "VRANDMEMBER",
    arity=-2,
    flags=READONLY,
    keys=READ,
    group="vector_set",
    since="8.0.0",
    complexity="O(N) where N is the absolute value of the count argument.",
)
def vrandmember(ctx: Context, key: bytes, *options: bytes) -> bytes | list[bytes] | None:
    """Returns elements of a vector set drawn at random: distinct ones, or with a negative count any."""
    if len(options) > 1:
        raise WrongArity("vrandmember")
    count = to_int(options[0]) if options else 1
    if count is None:
        raise CommandError("ERR COUNT value is not an integer")
    vectors = ctx.read(key, _kind())
    if not options:
        return None if vectors is None else vectors.draw(1)[0]
    if vectors is None or not count:
        return []
    return vectors.sample(count) if count > 0 else vectors.draw(check_samples(count))


@command(
    "VRANGE",
    arity=-4,
    flags=READONLY,
    keys=READ,
    group="vector_set",
    since="8.4.0",
    complexity="O(log(K)+M) where K is the number of elements in the start prefix, and M is the number of elements"
    " returned.",
)
def vrange(ctx: Context, key: bytes, start: bytes, end: bytes, *options: bytes) -> list[bytes]:
    """Returns the elements between two names, in the order of their bytes."""
    if len(options) > 1:
        raise WrongArity("vrange")
    count = to_int(options[0]) if options else -1
    if count is None:
        raise CommandError("ERR invalid COUNT value")
    low, from_low = _bound(start, "start")
    high, to_high = _bound(end, "end")
    if start == b"+" or end == b"-":
        raise CommandError("ERR '-' can only be used as first argument, '+' only as second")
    vectors = ctx.read(key, _kind())
    return [] if vectors is None else list(vectors.between(low, high, (from_low, to_high), count))


def _bound(word: bytes, which: str) -> tuple[bytes | None, bool]:
    """A name and whether it belongs to the range; None for `-` and `+`."""
    if word in (b"-", b"+"):
        return None, True
    if len(word) < 2 or word[:1] not in (b"[", b"("):
        raise CommandError(f"ERR invalid {which} range format")
    return word[1:], word[:1] == b"["
