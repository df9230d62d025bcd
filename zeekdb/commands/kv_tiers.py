"""Commands about what lies behind a block: which tiers have it, and what it was before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from zeekdb.commands.args import parse_range
from zeekdb.commands.context import Context
from zeekdb.commands.kv import (
    FLAGS,
    READS,
    STORES,
    Word,
    deadline_for,
    layout_of,
    map_of,
    one_key,
    options_of,
    place_of,
    tenant_of,
    tensors_of,
    text_of,
)
from zeekdb.commands.spec import FAST, command
from zeekdb.errors import CommandError, WrongArity
from zeekdb.tensors.region import Range

if TYPE_CHECKING:
    from zeekdb.commands.ports import TensorsPort
    from zeekdb.tensors.region import Tenant

VERSION_MAX: Final = (1 << 31) - 1
POSITION: Final = b"POSITION"


@command("KV.WHERE", arity=-3, flags=FLAGS | FAST, complexity="O(1)", **READS)
def kv_where(ctx: Context, model: Word, *words: Word) -> Sequence[Any]:
    """Names the tiers that have a block, the fastest first."""
    tenant, key = one_key(ctx, model, words, "kv.where")
    return [name.encode() for name in tensors_of(ctx).where(tenant, key)]


def _must_wait(ctx: Context) -> None:
    if ctx.deny_blocking:
        raise CommandError("ERR the catalogue can't be asked inside a transaction")


async def _versions(tensors: TensorsPort, tenant: Tenant, key: bytes) -> list[dict[str, Any]]:
    """What is known of the block. CommandError: nothing, as nobody can be asked."""
    found: list[dict[str, Any]] = await tensors.versions.history(tenant, key)
    if not found and not tensors.is_catalogue_up():
        raise CommandError("ERR the catalogue can't be asked now, KV.TIERS says why")
    return found


@command("KV.HISTORY", arity=-3, flags=FLAGS, complexity="O(N) with N the versions that are kept", **READS)
def kv_history(ctx: Context, model: Word, *words: Word) -> Any:
    """Lists what a block was, and what it is, the newest version first."""
    options, rest = options_of(words, (b"SALT",), 1)
    tenant = tenant_of(ctx, model, options)
    if len(rest) == 5 and text_of(rest[0]).upper() == POSITION:
        sequence, layer, begin, end = place_of(rest[1:], layout_of(tenant))
        key = Range(begin, end, 0).names(sequence, layer)[0]
    elif len(rest) == 1:
        key = text_of(rest[0])
    else:
        raise WrongArity("kv.history")
    _must_wait(ctx)
    tensors = tensors_of(ctx)

    async def ask() -> list[dict[bytes, Any]]:
        return [map_of(version) for version in await _versions(tensors, tenant, key)]

    return tensors.defer_read(ctx.client, ask())


@command("KV.RESTORE", arity=-4, flags=FLAGS, complexity="O(N) with N the bytes", **STORES)
def kv_restore(ctx: Context, model: Word, *words: Word) -> Any:
    """Makes a block what it was at an earlier version; what it is now becomes a version."""
    options, rest = options_of(words, (b"SALT",), 2)
    tenant = tenant_of(ctx, model, options)
    is_position = len(rest) == 6 and text_of(rest[0]).upper() == POSITION
    if not is_position and len(rest) != 2:
        raise WrongArity("kv.restore")
    version = parse_range(text_of(rest[-1], "number"), 1, VERSION_MAX, "ERR invalid version")
    _must_wait(ctx)
    tensors = tensors_of(ctx)
    if is_position:
        place = place_of(rest[1:5], layout_of(tenant))
        key = Range(place[2], place[3], 0).names(*place[:2])[0]
        deadline_s = deadline_for(tenant.model, options)
        work = tensors.versions.restore_range(ctx, tenant, place, version, deadline_s)
    else:
        key = text_of(rest[0])
        work = tensors.versions.restore(ctx, tenant, key, version)

    async def restore() -> Any:
        try:
            known = await _versions(tensors, tenant, key)
            if known and known[0]["version"] == version and not known[0]["restorable"]:
                raise CommandError(f"ERR version {version} is the newest, whose bytes are the block's own")
        except CommandError:
            work.close()
            raise
        return await work

    return tensors.defer(ctx.client, restore())
