"""Search by meaning: contexts whose vectors are near another's. See docs/KV.md.

What is found is a hint: it may warm tiers and show duplicates, but whether a block is there only a lookup tells.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from zeekdb.commands.args import parse_range, to_float
from zeekdb.commands.context import Context
from zeekdb.commands.kv import FLAGS, READS, STORES, Word, _names, options_of, tenant_of, tensors_of, text_of
from zeekdb.commands.spec import command
from zeekdb.errors import CommandError, OutOfRange, SyntaxError_, WrongArity

if TYPE_CHECKING:
    from zeekdb.tensors.region import Tenant

COUNT_DEFAULT: Final = 10
COUNT_MAX: Final = 100
PAIRS_DEFAULT: Final = 100
PAIRS_MAX: Final = 1000
FLOAT_BYTES: Final = 4
LEAST, LARGEST = 1e-15, 1e15  # of the largest number of a vector: its square fits 32 bits


def _vector(word: Word, dim: int) -> bytes:
    """A vector as clients send it: little-endian float32, finite and not zero."""
    size = dim * FLOAT_BYTES
    if len(word) != size:
        raise OutOfRange(f"ERR a vector has {dim} little-endian 32-bit floats, {size} bytes, not {len(word)}")
    data = bytes(word)
    largest = max(map(abs, struct.unpack(f"<{dim}f", data)), key=_order)
    if not LEAST <= largest <= LARGEST:
        raise CommandError("ERR a vector has finite numbers, which must have a length")
    return data


def _order(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _score(word: bytes) -> float:
    value = to_float(word)
    if value is None or not -1 <= value <= 1:
        raise OutOfRange("ERR MIN is a cosine, from -1 to 1")
    return value


def _count(options: dict[bytes, bytes]) -> int:
    if b"K" not in options:
        return COUNT_DEFAULT
    return parse_range(options[b"K"], 1, COUNT_MAX, f"ERR K must be from 1 to {COUNT_MAX}")


def _later(ctx: Context, work: Any) -> Any:
    """The reply, once the store has answered; nobody else waits."""
    if ctx.deny_blocking:
        work.close()
        raise CommandError("ERR vectors can't be searched inside a transaction")
    return tensors_of(ctx).defer_read(ctx.client, work)


@command("KV.SEARCH", arity=-4, flags=FLAGS, complexity="O(log(N)) with N the number of contexts", **READS)
def kv_search(ctx: Context, model: Word, *words: Word) -> Any:
    """Finds the contexts nearest to a vector, or to that of another context."""
    options, rest = options_of(words, (b"SALT", b"K", b"MIN", b"WITHKEYS"), 2)
    if len(rest) != 2:
        raise SyntaxError_
    tenant, count = tenant_of(ctx, model, options), _count(options)
    least = _score(options[b"MIN"]) if b"MIN" in options else None
    contexts = tensors_of(ctx).contexts
    kind, (name, salt), dim = text_of(rest[0]).upper(), (tenant.model.name, tenant.salt), contexts.dim
    vector, keys = b"", []
    if kind == b"VECTOR":
        vector = _vector(rest[1], dim)
    elif kind == b"LIKE":
        keys = [text_of(rest[1])]
    elif kind == b"TOKENS":
        keys = _names(tenant, rest[1])
    else:
        raise SyntaxError_

    async def search() -> list[Any]:
        wanted = vector or await contexts.like(name, salt, keys)
        reply = []
        for match, present in await contexts.search(name, salt, wanted, count, least):
            said = [match.key, match.score, match.tokens[1], match.blocks, present]
            reply.append([*said, list(match.keys)] if b"WITHKEYS" in options else said)
        return reply

    return _later(ctx, search())


@command("KV.EMBED", arity=-4, flags=FLAGS, complexity="O(1)", **STORES)
def kv_embed(ctx: Context, model: Word, *words: Word) -> str:
    """Gives a context, named by its last block, a vector of the client's own."""
    options, rest = options_of(words, (b"SALT",), 2)
    if len(rest) != 2:
        raise WrongArity("kv.embed")
    contexts = tensors_of(ctx).contexts
    vector = _vector(rest[1], contexts.dim)
    contexts.embed(tenant_of(ctx, model, options, stores=True), text_of(rest[0]), vector)
    return "OK"


@command("KV.NEAR", arity=-4, flags=FLAGS, complexity="O(N*log(N)) with N the number of contexts", **READS)
def kv_near(ctx: Context, model: Word, *words: Word) -> Any:
    """Reports pairs of contexts that are nearly the same: two keys and the cosine, the nearest first."""
    options, rest = options_of(words, (b"SALT", b"MIN", b"LIMIT"), 0)
    if rest or b"MIN" not in options:
        raise SyntaxError_
    tenant, least = tenant_of(ctx, model, options), _score(options[b"MIN"])
    limit = PAIRS_DEFAULT
    if b"LIMIT" in options:
        limit = parse_range(options[b"LIMIT"], 1, PAIRS_MAX, f"ERR LIMIT must be from 1 to {PAIRS_MAX}")
    contexts = tensors_of(ctx).contexts
    contexts.dim  # noqa: B018  # raises where there are none

    async def report() -> list[Any]:
        pairs = await contexts.near(tenant.model.name, tenant.salt, least, limit)
        return [[pair.first, pair.second, pair.score] for pair in pairs]

    return _later(ctx, report())


def prefetch_like(ctx: Context, tenant: Tenant, words: Sequence[Word], to_gpu: bool) -> Any:
    """KV.PREFETCH … LIKE key [K n]: begins to bring up the blocks of the nearest contexts, and tells how many."""
    if len(words) not in (1, 3) or (len(words) == 3 and text_of(words[1]).upper() != b"K"):
        raise SyntaxError_
    count = _count({b"K": text_of(words[2])} if len(words) == 3 else {})
    contexts = tensors_of(ctx).contexts
    contexts.dim  # noqa: B018
    work = contexts.prefetch(tenant.model.name, tenant.salt, text_of(words[0]), count, to_gpu)
    return _later(ctx, work)
