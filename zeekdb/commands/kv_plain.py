"""SET, GET, MGET, EXISTS and DEL of keys that `kv-namespace` gives to the tensor region.

The engine sends a call here when one of its keys matches a pattern (`hot/namespaces.pyx`). What clients of a cache of
KV blocks rely on is kept: SET never fails for lack of room, a key that EXISTS has promised stays for a while, and an
unmodified LMCache finds both halves of what it stores as two keys, or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from zeekdb.commands.args import parse_int
from zeekdb.commands.context import Context
from zeekdb.errors import CommandError, SyntaxError_
from zeekdb.hot import region
from zeekdb.hot.blobview import BlobView
from zeekdb.hot.namespaces import space_of
from zeekdb.tensors.region import DEADLINE_S_MAX, KEY_BYTES_MAX

if TYPE_CHECKING:
    from zeekdb.commands.ports import TensorsPort
    from zeekdb.tensors.region import Tenant

Word = bytes | BlobView

HALVES: Final = (b"kv_bytes", b"metadata")  # LMCache over redis:// ends the two keys of a chunk so
UNITS_MS: Final = {b"EX": (1000, True), b"PX": (1, True), b"EXAT": (1000, False), b"PXAT": (1, False)}


def _tensors(ctx: Context) -> TensorsPort:
    tensors: TensorsPort = ctx.server.tensors
    return tensors


def _tenant(ctx: Context, key: bytes) -> Tenant | None:
    """Whose block the key names; None: it is the keyspace's."""
    space = space_of(key)
    if space is None:
        return None
    if len(key) > KEY_BYTES_MAX:
        raise CommandError(f"ERR a key has at most {KEY_BYTES_MAX} bytes")
    tenant: Tenant = _tensors(ctx).region.by_space[space]
    return tenant


def group_of(key: bytes) -> bytes | None:
    """What the two keys of one chunk have in common: they stay or go together."""
    for half in HALVES:
        if key.endswith(half):
            return key[: -len(half)]
    return None


def _deadline_s(ctx: Context, words: Sequence[bytes]) -> int | None:
    """Unix seconds of SET's options; None without. NX and XX ask for what a block cannot promise."""
    if not words:
        return None
    option = words[0].upper()
    if len(words) != 2 or option not in UNITS_MS:
        raise SyntaxError_
    unit_ms, is_relative = UNITS_MS[option]
    amount = parse_int(words[1])
    if amount <= 0:
        raise CommandError("ERR invalid expire time in 'set' command")
    deadline_ms = amount * unit_ms + (ctx.keyspace.now_ms() if is_relative else 0)
    return min(-(-deadline_ms // 1000), DEADLINE_S_MAX)


def plain_set(ctx: Context, word: Word, value: Word, *words: Word) -> Any:
    """OK, whether there was room or not."""
    key = bytes(word)
    tenant = _tenant(ctx, key)
    assert tenant is not None  # the engine has asked
    deadline_s = _deadline_s(ctx, [bytes(each) for each in words])
    return _tensors(ctx).replace(ctx, tenant, key, value, deadline_s, group_of(key))


def plain_get(ctx: Context, key: bytes) -> Any:
    """The block's bytes or null."""
    tenant = _tenant(ctx, key)
    assert tenant is not None
    return _tensors(ctx).fetch(ctx, tenant, [key], lambda found: found[0])


def plain_mget(ctx: Context, *keys: bytes) -> Any:
    """Values of both kinds, in order; the blocks among them of one model."""
    tenants = [_tenant(ctx, key) for key in keys]
    owner = next(tenant for tenant in tenants if tenant is not None)  # the engine has asked
    if any(tenant is not None and tenant is not owner for tenant in tenants):
        raise CommandError("ERR the keys belong to several models")
    values = [ctx.db.read(key) if tenant is None else None for key, tenant in zip(keys, tenants, strict=True)]
    ours = [at for at, tenant in enumerate(tenants) if tenant is not None]

    def answer(found: list[Any]) -> list[Any]:
        reply = [value if isinstance(value, bytes) else None for value in values]
        for at, value in zip(ours, found, strict=True):
            reply[at] = value
        return reply

    return _tensors(ctx).fetch(ctx, owner, [keys[at] for at in ours], answer)


def _by_space(ctx: Context, keys: Sequence[bytes]) -> tuple[dict[int, tuple[Tenant, list[bytes]]], list[bytes]]:
    """The region's keys by tenant, and the keyspace's."""
    ours: dict[int, tuple[Tenant, list[bytes]]] = {}
    others = []
    for key in keys:
        tenant = _tenant(ctx, key)
        if tenant is None:
            others.append(key)
        else:
            ours.setdefault(tenant.space, (tenant, []))[1].append(key)
    return ours, others


def plain_exists(ctx: Context, *keys: bytes) -> int:
    """How many are there; the blocks among them stay for `kv-exists-lease` ms at least."""
    ours, others = _by_space(ctx, keys)
    count = sum(ctx.seen(key) for key in others)
    for tenant, names in ours.values():
        tiers = region.lookup(tenant.space, names, ctx.server.config.kv_exists_lease)[2]
        count += len(tiers) - tiers.count(0)
    return count


def plain_del(ctx: Context, *keys: bytes) -> int:
    """How many there were."""
    ours, others = _by_space(ctx, keys)
    count = sum(ctx.remove(key) for key in others)
    return count + sum(_tensors(ctx).remove(tenant, names) for tenant, names in ours.values())


PLAIN: Final[dict[str, Callable[..., Any]]] = {
    "SET": plain_set, "GET": plain_get, "MGET": plain_mget, "EXISTS": plain_exists, "DEL": plain_del,
    "UNLINK": plain_del,
}  # fmt: skip
"""The handlers by the commands that they stand in for."""
PLAIN_TWINS: Final = {"EXISTS": "kv_exists"}
