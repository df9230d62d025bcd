"""Blocks in object storage, as the world outside sees them: KV.URL. See docs/KV.md, "Object storage"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zeekdb.commands.args import parse_range
from zeekdb.commands.context import Context
from zeekdb.commands.kv import FLAGS, READS, Word, options_of, tenant_of, tensors_of, text_of
from zeekdb.commands.spec import command
from zeekdb.errors import CommandError, SyntaxError_, Unavailable

if TYPE_CHECKING:
    from zeekdb.tensors.region import Tenant

URL_S_DEFAULT: Final = 3600
URL_S_MAX: Final = 604_800  # a week: S3 signs for no longer


@command("KV.URL", arity=-3, flags=FLAGS, complexity="O(1)", **READS)
def kv_url(ctx: Context, model: Word, *words: Word) -> Any:
    """Gives out a URL from which anybody can read a block's object for a while; null if it is in no object storage."""
    options, rest = options_of(words, (b"SALT",), 1)
    seconds = URL_S_DEFAULT
    if len(rest) == 3 and text_of(rest[1]).upper() == b"TTL":
        most = f"ERR TTL must be from 1 to {URL_S_MAX} seconds"
        seconds = parse_range(text_of(rest[2]), 1, URL_S_MAX, most)
    elif len(rest) != 1:
        raise SyntaxError_
    tenant, key = tenant_of(ctx, model, options), text_of(rest[0])
    if ctx.deny_blocking:
        raise CommandError("ERR object storage can't be asked inside a transaction")
    return tensors_of(ctx).defer_read(ctx.client, _url(ctx, tenant, key, seconds))


async def _url(ctx: Context, tenant: Tenant, key: bytes, seconds: int) -> bytes | None:
    try:
        url: str | None = await tensors_of(ctx).object_url(tenant, key, seconds)
    except Unavailable as error:
        raise CommandError(f"ERR {error}") from None
    return None if url is None else url.encode()
