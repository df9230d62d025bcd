"""Codecs at work: blocks of models that keep them smaller than they come are encoded and decoded in threads.

A command waits for its own blocks; nobody else does. What is under way is bounded in bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from zeekdb.hot.blobview import BlobView, new_blob
from zeekdb.tiers.tier import Budget, settle

if TYPE_CHECKING:
    from zeekdb.tensors.codecs import Codec
    from zeekdb.tensors.region import Tenant

Room = Callable[["Tenant", int], Awaitable["BlobView | None"]]
CODING_BYTES: Final = 256 << 20  # of plain blocks at a time, over all commands


def codec_of(tenant: Tenant) -> Codec | None:
    """What the tenant's blocks are kept with; None: as they come."""
    model = tenant.model
    if model.codec == "raw" or model.layout is None:
        return None
    from zeekdb.tensors.codecs import for_model  # numpy: only servers that encode need it

    return for_model(model.codec, model.layout)


class Coding:
    """Encodes and decodes blocks of one server."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.budget = Budget(CODING_BYTES)

    async def encode(self, tenant: Tenant, codec: Codec, values: Sequence[Any]) -> list[BlobView | None]:
        """The values as they are kept, in the arena; None where no room could be made."""
        return [await self._encode(tenant, codec, value) for value in values]

    async def _encode(self, tenant: Tenant, codec: Codec, value: Any) -> BlobView | None:
        out = await self.room(tenant, codec.encoded_size)
        if out is not None:
            await self._run(codec, codec.encode, value, out)
        return out

    async def decode(self, codec: Codec, blocks: Sequence[BlobView | None]) -> list[BlobView | None]:
        """The blocks as they came; None stays None, and so does what is none of the codec's."""
        return [
            await self._decode(codec, block) if block is not None and len(block) == codec.encoded_size else None
            for block in blocks
        ]

    async def _decode(self, codec: Codec, block: BlobView) -> BlobView:
        out = new_blob(codec.layout.block_bytes)
        await self._run(codec, codec.decode, block, out)
        return out

    async def _run(self, codec: Codec, work: Any, source: Any, out: BlobView) -> None:
        size = codec.layout.block_bytes
        await self.budget.take(size)
        try:
            with memoryview(source) as data, memoryview(out) as room:
                await settle(asyncio.get_running_loop().run_in_executor(None, work, data, room))
        finally:
            self.budget.give(size)
