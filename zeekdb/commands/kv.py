"""The tensor region's commands: KV-cache blocks by key, by tokens and by position.

Blocks are no keys of the keyspace: SELECT, SCAN, EXPIRE, WATCH, the AOF and replicas know nothing of them. Values are
received where they stay and sent from where they lie, so the handlers below handle references (`BlobView`) only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from zeekdb.commands.args import parse_int, parse_range, show
from zeekdb.commands.context import Context
from zeekdb.commands.reply import help_lines
from zeekdb.commands.spec import FAST, NOSCRIPT, Flag, command, container
from zeekdb.errors import CommandError, OutOfRange, SyntaxError_, WrongArity
from zeekdb.hot import region
from zeekdb.hot.blobview import BlobView, Spans
from zeekdb.tensors.layout import Layout, Model
from zeekdb.tensors.region import KEY_BYTES_MAX, TOKEN_BYTES, Tenant, chain, deadline_of, newest_cover

if TYPE_CHECKING:
    from zeekdb.commands.ports import TensorsPort

Word = bytes | BlobView
Reply = list[Any]

KEYS_MAX: Final = 65_536  # of one command
WAIT_MS_MAX: Final = 60_000
TTL_S_MAX: Final = 1 << 31
POSITION_MAX: Final = 1 << 31  # tokens of a sequence
RESERVED_BYTES_MAX: Final = 1 << 30  # of one piece
STORES: Final[dict[str, Any]] = {"acl": ("write",), "group": "tensor", "since": "0.1.0"}
READS: Final[dict[str, Any]] = {"acl": ("read",), "group": "tensor", "since": "0.1.0"}
FLAG_WORDS: Final = (b"LOCATE", b"GPU", b"WITHKEYS")  # options without a value
FLAGS: Final = NOSCRIPT | Flag.BLOBS


def tensors_of(ctx: Context) -> TensorsPort:
    """The tensor region."""
    tensors: TensorsPort = ctx.server.tensors
    return tensors


def text_of(word: Word, what: str = "key") -> bytes:
    """A word that must not be long."""
    if len(word) > KEY_BYTES_MAX or not isinstance(word, bytes):
        raise CommandError(f"ERR a {what} has at most {KEY_BYTES_MAX} bytes")
    return word


def options_of(
    words: Sequence[Word], known: Sequence[bytes], rest_min: int
) -> tuple[dict[bytes, bytes], Sequence[Word]]:
    """The options before the first word that is none, and what follows; `rest_min` words at least are no options."""
    given: dict[bytes, bytes] = {}
    at = 0
    while at < len(words) - rest_min and isinstance(words[at], bytes):
        name = words[at].upper()  # type: ignore[union-attr]  # bytes
        if name not in known:
            break
        if name in given:
            raise SyntaxError_
        if name in FLAG_WORDS:
            given[name] = b""
            at += 1
            continue
        if at + 1 >= len(words) - rest_min:
            raise SyntaxError_
        given[name] = text_of(words[at + 1], name.decode())
        at += 2
    return given, words[at:]


def tenant_of(ctx: Context, model: Word, options: dict[bytes, bytes], stores: bool = False) -> Tenant:
    """The model's tenant of the SALT that was given. CommandError."""
    region_ = tensors_of(ctx).region
    find = region_.tenant if stores else region_.reader
    tenant: Tenant = find(text_of(model, "model"), options.get(b"SALT", b""))
    return tenant


def _count(words: Sequence[Word], step: int = 1) -> Sequence[Word]:
    """The words behind their count, which must agree. `step` words belong to each that is counted."""
    wrong = f"ERR the number of keys must be from 1 to {KEYS_MAX}"
    count = parse_range(text_of(words[0], "number"), 1, KEYS_MAX, wrong)
    if len(words) - 1 != count * step:
        raise CommandError("ERR the number of keys does not match the arguments")
    return words[1:]


def _keys(words: Sequence[Word]) -> list[bytes]:
    return [text_of(word) for word in words]


def _counted_keys(ctx: Context, model: Word, words: Sequence[Word]) -> tuple[Tenant, list[bytes]]:
    """For `m [SALT s] n key …`."""
    options, rest = options_of(words, (b"SALT",), 2)
    return tenant_of(ctx, model, options), _keys(_count(rest))


def one_key(ctx: Context, model: Word, words: Sequence[Word], command: str) -> tuple[Tenant, bytes]:
    """For `m [SALT s] key`."""
    options, rest = options_of(words, (b"SALT",), 1)
    if len(rest) != 1:
        raise WrongArity(command)
    return tenant_of(ctx, model, options), text_of(rest[0])


def deadline_for(model: Model, options: dict[bytes, bytes]) -> int:
    """Unix seconds at which a block stored now expires; 0: never."""
    ttl_s = model.ttl_s
    if b"TTL" in options:
        ttl_s = parse_range(options[b"TTL"], 1, TTL_S_MAX, "ERR invalid expire time")
    return deadline_of(ttl_s)


def _lease_ms(ctx: Context, options: dict[bytes, bytes]) -> int:
    if b"LEASE" not in options:
        return 0
    most = ctx.server.config.kv_lease_max
    return parse_range(options[b"LEASE"], 1, most, f"ERR a lease is from 1 to {most} ms")


def _wait_ms(options: dict[bytes, bytes]) -> int:
    """How long a lookup may wait for what other nodes have."""
    return parse_range(options[b"WAIT"], 0, WAIT_MS_MAX) if b"WAIT" in options else 0


def layout_of(tenant: Tenant) -> Layout:
    """CommandError: the model has none."""
    if tenant.model.layout is None:
        raise CommandError(f"ERR model '{show(tenant.model.name)}' has no layout, KV.MODEL SET declares one")
    return tenant.model.layout


def map_of(fields: dict[str, Any]) -> dict[bytes, Any]:
    """A map as Redis replies them: its strings are bulk strings."""
    return {key.encode(): value.encode() if isinstance(value, str) else value for key, value in fields.items()}


# --- models -------------------------------------------------------------------------------------------------------

container("KV.MODEL", group="tensor", since="0.1.0", summary="A container for commands about models")


@command("KV.MODEL|SET", arity=-3, flags=NOSCRIPT, complexity="O(1)", **STORES)
def kv_model_set(ctx: Context, name: bytes, *words: bytes) -> str:
    """Declares a model: what its blocks look like, how long they stay and how much they may take."""
    tensors_of(ctx).declare(Model.parse(text_of(name, "model"), words))
    return "OK"


@command("KV.MODEL|GET", arity=3, flags=NOSCRIPT, complexity="O(1)", **READS)
def kv_model_get(ctx: Context, name: bytes) -> dict[bytes, Any]:
    """Tells what was declared of a model."""
    return map_of(tensors_of(ctx).region.model(name).fields())


@command("KV.MODEL|DEL", arity=3, flags=NOSCRIPT, complexity="O(N) with N the model's blocks", **STORES)
def kv_model_del(ctx: Context, name: bytes) -> Any:
    """Removes a model and all of its blocks, and tells how many there were."""
    return tensors_of(ctx).forget(ctx, name)


@command("KV.MODEL|LIST", arity=2, flags=NOSCRIPT, complexity="O(N) with N the number of models", **READS)
def kv_model_list(ctx: Context) -> list[bytes]:
    """Lists the models' names."""
    return sorted(tensors_of(ctx).region.models)


@command("KV.MODEL|HELP", arity=2, flags=NOSCRIPT, complexity="O(1)", **READS)
def kv_model_help(ctx: Context) -> list[str]:
    """Returns helpful text about the subcommands."""
    return help_lines(
        "KV.MODEL",
        "DEL <model>",
        "    Remove a model and all of its blocks.",
        "GET <model>",
        "    Return what was declared of a model.",
        "LIST",
        "    Return the models' names.",
        "SET <model> [<option> <value> ...]",
        "    Declare a model. Options are:",
        "    * LAYERS, HEADS, DIM, DTYPE (f32|f16|bf16|f8e4m3), BLOCK, PARTS",
        "      What a block looks like. Without them it has any size.",
        "    * CODEC (raw|fp16|bf16|fp8|int8|int8-channel|int8-token)",
        "      What blocks are kept as.",
        "    * TTL seconds",
        "      Lifetime of a block that comes without one.",
        "    * QUOTA bytes",
        "      Host memory that each tenant may take.",
    )


# --- by key -------------------------------------------------------------------------------------------------------


def _check_sizes(tenant: Tenant, values: Sequence[Word]) -> None:
    layout = tenant.model.layout
    if layout is not None:
        for value in values:
            layout.check_block(len(value))


@command("KV.MSET", arity=-5, flags=FLAGS, complexity="O(N) with N the number of blocks", **STORES)
def kv_mset(ctx: Context, model: Word, *words: Word) -> Any:
    """Stores blocks, the keys in the order of their context: 1 stored, 0 there already, -1 dropped for lack of room."""
    options, rest = options_of(words, (b"SALT", b"TTL", b"GROUP", b"PARENT"), 3)
    tenant = tenant_of(ctx, model, options, stores=True)
    pairs = _count(rest, 2)
    values = list(pairs[1::2])
    _check_sizes(tenant, values)
    parent = options.get(b"PARENT")
    return tensors_of(ctx).store(
        ctx, tenant, _keys(pairs[::2]), values, deadline_for(tenant.model, options), options.get(b"GROUP"), parent
    )


@command("KV.MGET", arity=-4, flags=FLAGS, complexity="O(N) with N the number of keys", **READS)
def kv_mget(ctx: Context, model: Word, *words: Word) -> Any:
    """Gets blocks; null for one that is not there, or not whole."""
    tenant, keys = _counted_keys(ctx, model, words)
    return tensors_of(ctx).fetch(ctx, tenant, keys, list)


@command("KV.LOOKUP", arity=-4, flags=FLAGS | FAST, complexity="O(N) with N the number of keys", **READS)
def kv_lookup(ctx: Context, model: Word, *words: Word) -> Any:
    """Tells how many blocks from the first on are there, which of all, and in which tier; may lease them."""
    options, rest = options_of(words, (b"SALT", b"LEASE", b"LOCATE", b"WAIT"), 2)
    locate = b"LOCATE" in options
    lease_ms = _lease_ms(ctx, options)
    tenant = tenant_of(ctx, model, options)
    keys = _keys(_count(rest))
    if not locate:
        return tensors_of(ctx).look_up(
            ctx, tenant, keys, _wait_ms(options), lambda found: list(region.lookup(found.space, keys, lease_ms)[:3])
        )
    gpu = tensors_of(ctx).gpu
    on_host, on_gpu = tensors_of(ctx).shared.is_attached(ctx.client), gpu.is_attached(ctx.client, tenant.model.name)
    if not lease_ms or not (on_host or on_gpu):
        raise CommandError("ERR LOCATE needs LEASE, and a connection that has called KV.ATTACH")
    if tenant.model.codec != "raw":  # what lies in host memory is not what came; a GPU's reader decodes
        on_host = False
    prefix, bitmap, tiers, places = region.lookup(tenant.space, keys, lease_ms, on_host)
    reply = [prefix, bitmap, tiers, places or b""]
    return [*reply, gpu.locate(ctx.client, tenant, keys)] if on_gpu else reply


@command("KV.UNLOCK", arity=-4, flags=FLAGS | FAST, complexity="O(N) with N the number of keys", **READS)
def kv_unlock(ctx: Context, model: Word, *words: Word) -> int:
    """Gives leases back before they end, and tells how many."""
    tenant, keys = _counted_keys(ctx, model, words)
    return region.unlock(tenant.space, keys)


@command("KV.EXISTS", arity=-4, flags=FLAGS | FAST, complexity="O(N) with N the number of keys", **READS)
def kv_exists(ctx: Context, model: Word, *words: Word) -> int:
    """Counts the blocks that are there, in whatever tier."""
    tenant, keys = _counted_keys(ctx, model, words)
    return region.count_present(tenant.space, keys)


@command("KV.DEL", arity=-4, flags=FLAGS, complexity="O(N) with N the number of keys", **STORES)
def kv_del(ctx: Context, model: Word, *words: Word) -> Any:
    """Removes blocks from every tier, and tells how many there were."""
    tenant, keys = _counted_keys(ctx, model, words)
    return tensors_of(ctx).delete(ctx, tenant, keys)


@command("KV.PIN", arity=-4, flags=FLAGS | FAST, complexity="O(N) with N the number of keys", **STORES)
def kv_pin(ctx: Context, model: Word, *words: Word) -> int:
    """Keeps blocks in host memory until they are unpinned, and tells how many are there."""
    tenant, keys = _counted_keys(ctx, model, words)
    return region.pin(tenant.space, keys, True)


@command("KV.UNPIN", arity=-4, flags=FLAGS | FAST, complexity="O(N) with N the number of keys", **STORES)
def kv_unpin(ctx: Context, model: Word, *words: Word) -> int:
    """Takes back one pin of each block, and tells how many had one."""
    tenant, keys = _counted_keys(ctx, model, words)
    return region.pin(tenant.space, keys, False)


@command("KV.PREFETCH", arity=-4, flags=FLAGS, complexity="O(N) with N the number of keys", **READS)
def kv_prefetch(ctx: Context, model: Word, *words: Word) -> Any:
    """Begins to bring blocks from lower tiers into host memory, with GPU to the GPU's, and tells how many."""
    options, rest = options_of(words, (b"SALT", b"GPU"), 2)
    tenant = tenant_of(ctx, model, options)
    if text_of(rest[0], "number").upper() == b"LIKE":
        from zeekdb.commands.kv_search import prefetch_like  # which imports this module

        return prefetch_like(ctx, tenant, rest[1:], b"GPU" in options)
    keys = _keys(_count(rest))
    if b"GPU" in options:
        return tensors_of(ctx).gpu.prefetch(tenant, keys)
    return tensors_of(ctx).prefetch(tenant, keys)


@command("KV.DEMOTE", arity=-4, flags=FLAGS, complexity="O(N) with N the number of keys", **STORES)
def kv_demote(ctx: Context, model: Word, *words: Word) -> int:
    """Lets blocks leave the highest tier that has them for the one below, and tells how many will."""
    tenant, keys = _counted_keys(ctx, model, words)
    return tensors_of(ctx).demote(tenant, keys)


@command("KV.TTL", arity=-3, flags=FLAGS | FAST, complexity="O(1)", **READS)
def kv_ttl(ctx: Context, model: Word, *words: Word) -> int:
    """Seconds until a block expires; -1: never, -2: it is not there."""
    tenant, key = one_key(ctx, model, words, "kv.ttl")
    found = region.describe(tenant.space, key)
    if found is None:
        return -2
    return max(0, int(found["deadline_s"] - time.time())) if found["deadline_s"] else -1


# --- by tokens ----------------------------------------------------------------------------------------------------


def _names(tenant: Tenant, tokens: Word) -> list[bytes]:
    """The names of the context's whole blocks."""
    if len(tokens) % TOKEN_BYTES:
        raise CommandError("ERR tokens are little-endian 32-bit integers")
    if len(tokens) > POSITION_MAX:
        raise CommandError("ERR too many tokens")
    names = chain(bytes(tokens), layout_of(tenant).block)
    if len(names) > KEYS_MAX:
        raise CommandError(f"ERR a context has at most {KEYS_MAX} blocks")
    return names


def _cut(tensors: Sequence[Word], count: int, block_bytes: int) -> list[Word | memoryview]:
    """The blocks' bytes: an argument for each, or all of them one after the other."""
    if len(tensors) == count and all(len(tensor) == block_bytes for tensor in tensors):
        return list(tensors)
    pieces: list[Word | memoryview] = []
    for tensor in tensors:
        if len(tensor) % block_bytes:
            raise OutOfRange(f"ERR a block of this model has {block_bytes} bytes, and {len(tensor)} are no multiple")
        whole = memoryview(tensor)
        pieces += [whole[at : at + block_bytes] for at in range(0, len(whole), block_bytes)]
    if len(pieces) < count:
        raise OutOfRange(f"ERR the tokens make {count} blocks, the tensor holds {len(pieces)}")
    return pieces[:count]


@command("KV.STORE", arity=-4, flags=FLAGS, complexity="O(N) with N the bytes", **STORES)
def kv_store(ctx: Context, model: Word, *words: Word) -> Any:
    """Stores the blocks of a context named by its tokens; replies as KV.MSET."""
    options, rest = options_of(words, (b"SALT", b"TTL", b"GROUP"), 2)
    tenant = tenant_of(ctx, model, options, stores=True)
    names = _names(tenant, rest[0])
    values = _cut(rest[1:], len(names), layout_of(tenant).block_bytes)
    deadline_s = deadline_for(tenant.model, options)
    return tensors_of(ctx).store(ctx, tenant, names, values, deadline_s, options.get(b"GROUP"), None, 0)


@command("KV.MATCH", arity=-3, flags=FLAGS | FAST, complexity="O(N) with N the number of tokens", **READS)
def kv_match(ctx: Context, model: Word, *words: Word) -> Any:
    """Tells how many tokens, and blocks, of a context are there from its begin on; may lease them."""
    options, rest = options_of(words, (b"SALT",), 1)
    more, tail = options_of(rest[1:], (b"LEASE", b"WAIT"), 0)
    if tail:
        raise SyntaxError_
    tenant = tenant_of(ctx, model, options)
    names = _names(tenant, rest[0])
    lease_ms = _lease_ms(ctx, more)

    def answer(found: Tenant) -> Reply:
        blocks = region.lookup(found.space, names, lease_ms)[0]
        return [blocks * layout_of(found).block, blocks]

    return tensors_of(ctx).look_up(ctx, tenant, names, _wait_ms(more), answer)


@command("KV.FETCH", arity=-3, flags=FLAGS, complexity="O(N) with N the number of tokens", **READS)
def kv_fetch(ctx: Context, model: Word, *words: Word) -> Any:
    """Gets the blocks of the longest prefix of a context that is there, or some of their layers."""
    options, rest = options_of(words, (b"SALT",), 1)
    tenant = tenant_of(ctx, model, options)
    layout = layout_of(tenant)
    slices: tuple[tuple[int, int], ...] = ()
    if len(rest) > 1:
        if len(rest) != 4 or text_of(rest[1]).upper() != b"LAYERS":
            raise SyntaxError_
        first, last = (parse_int(text_of(word, "number")) for word in rest[2:])
        slices = layout.slices(first, last)
    names = _names(tenant, rest[0])
    tensors = tensors_of(ctx)
    present = tensors.look_up(ctx, tenant, names, 0, lambda known: region.lookup(known.space, names, touch=False)[0])

    def answer(found: list[BlobView | None]) -> list[Any]:
        whole = found[: found.index(None)] if None in found else found
        if not slices:
            return whole
        return [Spans([(block, at, at + size) for at, size in slices]) for block in whole if block is not None]

    return tensors.fetch(ctx, tenant, names[:present], answer)


# --- by position --------------------------------------------------------------------------------------------------


def place_of(words: Sequence[Word], layout: Layout) -> tuple[bytes, int, int, int]:
    """(sequence, layer, first token, end) of `seq layer from to`."""
    sequence = text_of(words[0], "sequence")
    layer = parse_range(text_of(words[1], "number"), 0, layout.layers - 1, "ERR the model has no such layer")
    begin, end = (parse_range(text_of(word, "number"), 0, POSITION_MAX) for word in words[2:4])
    if begin >= end:
        raise CommandError("ERR the token range is empty")
    return sequence, layer, begin, end


@command("KV.PUT", arity=-8, flags=FLAGS, complexity="O(N) with N the bytes", **STORES)
def kv_put(ctx: Context, model: Word, *words: Word) -> Any:
    """Stores keys and values of some tokens of a sequence's layer, and tells their version."""
    options, rest = options_of(words, (b"SALT", b"TTL"), 6)
    if len(rest) != 6:
        raise WrongArity("kv.put")
    tenant = tenant_of(ctx, model, options, stores=True)
    layout = layout_of(tenant)
    sequence, layer, begin, end = place_of(rest, layout)
    for tensor in rest[4:]:
        if len(tensor) != (end - begin) * layout.row_bytes:
            raise OutOfRange(f"ERR {end - begin} tokens of a layer have {(end - begin) * layout.row_bytes} bytes")
    versions = tensors_of(ctx).versions
    place = (sequence, layer, begin, end)
    return versions.put_range(ctx, tenant, place, list(rest[4:]), deadline_for(tenant.model, options), "KV.PUT")


@command("KV.GET", arity=-6, flags=FLAGS, complexity="O(N) with N the ranges of the sequence's layer", **READS)
def kv_get(ctx: Context, model: Word, *words: Word) -> Any:
    """Gets keys and values of some tokens of a sequence's layer: [from, to, version, keys, values] for each piece."""
    options, rest = options_of(words, (b"SALT",), 4)
    if len(rest) != 4:
        raise WrongArity("kv.get")
    tenant = tenant_of(ctx, model, options)
    layout = layout_of(tenant)
    sequence, layer, begin, end = place_of(rest, layout)
    place = (sequence, layer)
    for each in tenant.positions.get(place, [])[:]:  # what was evicted answers nothing
        if each.begin < end and each.end > begin and not tensors_of(ctx).region.is_known(tenant, *place, each):
            tensors_of(ctx).region.drop_range(tenant, sequence, layer, each)
    pieces = newest_cover(tenant.positions.get(place, []), begin, end)
    row = layout.row_bytes

    def answer(found: list[BlobView | None]) -> list[Any]:
        reply = []
        for piece, keys, values in zip(pieces, found[::2], found[1::2], strict=True):
            if keys is None or values is None:
                continue
            low, high = (piece.begin - piece.source.begin) * row, (piece.end - piece.source.begin) * row
            spans = [Spans([(view, low, high)]) for view in (keys, values)]
            reply.append([piece.begin, piece.end, piece.source.version, *spans])
        return reply

    names = [name for piece in pieces for name in piece.source.names(*place)]
    return tensors_of(ctx).fetch(ctx, tenant, names, answer, is_block=False)


# --- what there is ------------------------------------------------------------------------------------------------


@command("KV.STATS", arity=-1, flags=NOSCRIPT, complexity="O(N) with N the number of tenants", **READS)
def kv_stats(ctx: Context, *names: bytes) -> dict[bytes, Any]:
    """Counters of the region or of one model: blocks, bytes, hits, misses, what moved, and how long it took."""
    if len(names) > 1:
        raise WrongArity("kv.stats")
    return map_of(tensors_of(ctx).stats(names[0] if names else None))


@command("KV.TIERS", arity=1, flags=NOSCRIPT, complexity="O(1)", **READS)
def kv_tiers(ctx: Context) -> list[dict[bytes, Any]]:
    """State of each tier, from the fastest to the largest."""
    return [map_of(tier) for tier in tensors_of(ctx).tiers()]


# --- shared memory ------------------------------------------------------------------------------------------------


@command("KV.ATTACH", arity=-1, flags=NOSCRIPT | Flag.NO_MULTI, complexity="O(1)", **READS)
def kv_attach(ctx: Context, *words: bytes) -> Any:
    """Hands the host arena over (as SCM_RIGHTS, on a Unix socket), or the handles of a model's memory on the GPU."""
    if not words:
        return tensors_of(ctx).shared.attach(ctx.client, ctx.server.config.kv_lease_max)
    if len(words) != 2:
        raise WrongArity("kv.attach")
    if words[0].upper() != b"GPU":
        raise SyntaxError_
    return tensors_of(ctx).gpu.attach(ctx.client, words[1])


@command("KV.RESERVE", arity=-3, flags=NOSCRIPT, complexity="O(N) with N the number of sizes", **STORES)
def kv_reserve(ctx: Context, *words: bytes) -> list[int]:
    """Reserves room for blocks that an attached client writes itself: offsets, -1 where there is none."""
    sizes = [parse_range(word, 1, RESERVED_BYTES_MAX) for word in _count(words)]  # type: ignore[arg-type]
    return tensors_of(ctx).shared.reserve(ctx.client, sizes)


@command("KV.COMMIT", arity=-5, flags=NOSCRIPT, complexity="O(N) with N the bytes", **STORES)
def kv_commit(ctx: Context, model: bytes, *words: bytes) -> Any:
    """Makes blocks of what was written to reserved room; replies as KV.MSET."""
    options, rest = options_of(words, (b"SALT", b"TTL", b"GROUP", b"PARENT"), 3)
    tenant = tenant_of(ctx, model, options, stores=True)
    pairs = _count(rest, 2)
    offsets = [parse_range(text_of(word, "number"), 0, 1 << 62) for word in pairs[1::2]]
    tensors = tensors_of(ctx)
    values = tensors.shared.reserved(ctx.client, offsets)
    try:
        _check_sizes(tenant, values)
        deadline_s, parent = deadline_for(tenant.model, options), options.get(b"PARENT")
        return tensors.store(ctx, tenant, _keys(pairs[::2]), values, deadline_s, options.get(b"GROUP"), parent)
    finally:
        tensors.shared.release(ctx.client, offsets)
