"""Commands about what lies behind a block: which tiers have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zeekdb.commands.context import Context
from zeekdb.commands.kv import FLAGS, READS, Word, one_key, tensors_of
from zeekdb.commands.spec import FAST, command


@command("KV.WHERE", arity=-3, flags=FLAGS | FAST, complexity="O(1)", **READS)
def kv_where(ctx: Context, model: Word, *words: Word) -> Sequence[Any]:
    """Names the tiers that have a block, the fastest first."""
    tenant, key = one_key(ctx, model, words, "kv.where")
    return [name.encode() for name in tensors_of(ctx).where(tenant, key)]
