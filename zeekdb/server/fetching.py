"""How commands read blocks: from memory at once, from lower tiers and other nodes while the command waits.

A command that finds all of its blocks in memory is answered before it returns. One that does not is deferred, its
client's next commands behind it. What nobody here knows is asked for elsewhere first (`fleet.py`). Blocks of a codec
are decoded last. A reply of plain blocks leaves one by one, so that the device and the socket work side by side.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from zeekdb.errors import CommandError
from zeekdb.hot import region
from zeekdb.hot.blobview import BlobView
from zeekdb.hot.replies import NO_REPLY
from zeekdb.server.coding import codec_of
from zeekdb.tensors.region import Tenant
from zeekdb.tiers.stack import BITS

if TYPE_CHECKING:
    from zeekdb.commands.context import Context
    from zeekdb.server.client import Client
    from zeekdb.server.tensors import Tensors
    from zeekdb.tensors.codecs import Codec

Answer = Callable[[list[Any]], Any]

LOOK_MAX: Final = 4096  # names that a lookup has missed and others are asked for: the first count, as prefixes do


@dataclass(slots=True)
class Reading:
    """A command that reads blocks."""

    tenant: Tenant
    keys: list[bytes]
    begin_ns: int
    tiers: list[str] = field(default_factory=list)  # who had each when it was asked for; empty: nobody asks
    find_ms: int = 0  # that it may still wait for others to say what they have


def tier_of(found: BlobView | int | None) -> str:
    """Who has what `region.get` found."""
    if found is None:
        return ""
    if not isinstance(found, int):
        return "host"
    return next((name for name, bit in BITS.items() if found & bit), "") if found >= 0 else "gpu"


class Fetching:
    """See the module."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors

    def fetch(
        self, ctx: Context, tenant: Tenant, keys: list[bytes], answer: Answer, is_block: bool = True
    ) -> Any:  # fmt: skip
        """A command's reply, `answer(blocks)`, None standing for one that is not there; it may wait for the tier below.

        `is_block`: what is named are blocks of the model's layout, which its codec has encoded.
        """
        reading = Reading(tenant, keys, time.perf_counter_ns(), find_ms=self.tensors.server.config.kv_find_deadline)
        work: Coroutine[Any, Any, Any]
        if not ctx.deny_blocking and self._may_be_elsewhere(tenant, keys):
            work = self._find_and_fetch(reading, answer, is_block)
            return self.tensors.defer(ctx.client, work, is_read=True)
        found = self._get(reading)
        below = [at for at, each in enumerate(found) if type(each) is int]
        codec = codec_of(tenant) if is_block else None
        if ctx.deny_blocking:
            if codec is not None:
                raise CommandError("ERR blocks of a model with a codec can't be read inside a transaction")
            for at in below:
                found[at] = None
            self._note_fetched(tenant, [None] * len(below))
            below = []
        if not below and codec is None:
            self._note_read(reading, found)
            return answer(found)
        if answer is list and codec is None and self._may_stream(ctx.client):
            work = self._stream(ctx.client, reading, found, below)
        else:
            work = self._fetch_later(reading, found, below, codec, answer)
        return self.tensors.defer(ctx.client, work, is_read=True)

    def _may_be_elsewhere(self, tenant: Tenant, keys: list[bytes]) -> bool:
        """Whether other nodes are to be asked for some of these."""
        is_asked = self.tensors.below.fleet.is_active and self.tensors.server.config.kv_find_deadline > 0
        return is_asked and region.count_present(tenant.space, keys) < len(keys)

    def _get(self, reading: Reading) -> list[Any]:
        """See region.get; notes who has each of them, where anybody wants to know."""
        found: list[Any] = region.get(reading.tenant.space, reading.keys)
        if self.tensors.records.catalogue is not None:
            reading.tiers = [tier_of(each) for each in found]
        return found

    async def _find_and_fetch(self, reading: Reading, answer: Answer, is_block: bool) -> Any:
        reading.tenant = await self._found(reading.tenant, reading.keys, self.tensors.server.config.kv_find_deadline)
        found = self._get(reading)
        below = [at for at, each in enumerate(found) if type(each) is int]
        return await self._fetch_later(reading, found, below, codec_of(reading.tenant) if is_block else None, answer)

    async def _found(self, tenant: Tenant, keys: list[bytes], deadline_ms: int) -> Tenant:
        """Asks others for what is missing; the tenant, which may be a new one. NoSuchModel."""
        missing = [key for key in keys if not region.count_present(tenant.space, [key])]
        await self.tensors.below.fleet.find(tenant, missing, deadline_ms)
        return self.tensors.region.reader(tenant.model.name, tenant.salt)

    def look_up(
        self, ctx: Context, tenant: Tenant, keys: list[bytes], wait_ms: int, answer: Callable[[Tenant], Any]
    ) -> Any:  # fmt: skip
        """A lookup's reply, `answer(tenant)`. Others are asked for what is missing: in `wait_ms`, or for the next."""
        fleet = self.tensors.below.fleet
        if not fleet.is_active or region.count_present(tenant.space, keys) == len(keys):
            return answer(tenant)
        if not wait_ms or ctx.deny_blocking:
            missing = (key for key in keys if not region.count_present(tenant.space, [key]))
            fleet.look_soon(tenant, list(islice(missing, LOOK_MAX)))
            return answer(tenant)

        async def find() -> Any:
            return answer(await self._found(tenant, keys, wait_ms))

        return self.tensors.defer(ctx.client, find(), is_read=True)

    async def _fetch_later(
        self, reading: Reading, found: list[Any], below: list[int], codec: Codec | None, answer: Answer
    ) -> Any:  # fmt: skip
        tenant, keys = reading.tenant, reading.keys
        away, below = below, await self._from_gpu(tenant, keys, found, below)
        async with self.tensors.below.bringing(tenant, [keys[at] for at in below]) as coming:
            for at, each in zip(below, coming, strict=True):
                found[at] = await each.view() if each is not None else None
            lost = [at for at in below if found[at] is None and self._is_lost(tenant, keys[at])]
            async with self._elsewhere(reading, [keys[at] for at in lost]) as views:
                for at, view in zip(lost, views, strict=True):
                    found[at] = view
            self._note_fetched(tenant, [found[at] for at in away])
            if codec is not None:
                found = await self.tensors.coding.decode(codec, found)
            self._note_read(reading, found)
            return answer(found)

    def _is_lost(self, tenant: Tenant, key: bytes) -> bool:
        """Whether the tiers that were to have a block have turned out not to, and others may."""
        is_asked = self.tensors.below.fleet.is_active and self.tensors.below.is_open(tenant)
        return is_asked and region.describe(tenant.space, key) is None

    @contextlib.asynccontextmanager
    async def _elsewhere(self, reading: Reading, keys: list[bytes]) -> AsyncIterator[list[BlobView | None]]:
        """These blocks from wherever shared tiers really have them, used within; the command waits once for that."""
        tenant, below = reading.tenant, self.tensors.below
        if not keys or reading.find_ms <= 0:
            yield [None] * len(keys)
            return
        began = time.monotonic()
        await below.fleet.find(tenant, keys, reading.find_ms)
        reading.find_ms -= int((time.monotonic() - began) * 1000)
        async with below.bringing(tenant, keys) as coming:
            yield [await each.view() if each is not None else None for each in coming]

    async def _from_gpu(self, tenant: Tenant, keys: list[bytes], found: list[Any], below: list[int]) -> list[int]:
        """Fills in what only the GPU has; where there is still nothing."""
        views = await self.tensors.gpu.bring(tenant, [keys[at] for at in below])
        for at, view in zip(below, views, strict=True):
            found[at] = view
        return [at for at in below if found[at] is None]

    @staticmethod
    def _may_stream(client: Client) -> bool:
        """Whether nothing can come between the parts of a reply: pushes, a monitor's lines, or silence."""
        return client.protocol == 2 and client.reply_mode == "on" and not client.is_monitor

    async def _stream(self, client: Client, reading: Reading, found: list[Any], below: list[int]) -> Any:
        """The blocks one after the other, each as soon as it is there: the device and the socket work side by side."""
        tenant, keys = reading.tenant, reading.keys
        away = set(below)
        sent: list[int | None] = [None] * len(found)  # bytes
        try:
            below = await self._from_gpu(tenant, keys, found, below)
            places = set(below)
            async with self.tensors.below.bringing(tenant, [keys[at] for at in below]) as coming:
                client.write_raw(b"*%d\r\n" % len(found))
                later = iter(coming)
                for at, view in enumerate(found):
                    if at in places:
                        each = next(later)
                        view = await each.view() if each is not None else None
                        if view is None and self._is_lost(tenant, keys[at]):
                            async with self._elsewhere(reading, [keys[at]]) as views:
                                view = views[0]
                        self.tensors.server.settle()
                    client.write(view)
                    sent[at] = len(view) if view is not None else None
                    if at in away:
                        self._note_fetched(tenant, [view])
        except Exception as error:  # the reply has begun
            self.tensors.server.dispatcher.report_bug(client, client.last_command_index, error)
            client.close()
        self._note_sizes(reading, sent)
        return NO_REPLY

    def _note_fetched(self, tenant: Tenant, views: Sequence[BlobView | None]) -> None:
        """Counts what came of blocks that were not in host memory, as they are kept."""
        if self.tensors.below.is_open(tenant):
            there = [len(view) for view in views if view is not None]
            region.note_fetched(tenant.space, len(there), len(views) - len(there), sum(there))

    def _note_read(self, reading: Reading, found: Sequence[BlobView | None]) -> None:
        self._note_sizes(reading, [len(each) if each is not None else None for each in found])

    def _note_sizes(self, reading: Reading, sizes: Sequence[int | None]) -> None:
        took_ns = time.perf_counter_ns() - reading.begin_ns
        self.tensors.flow(reading.tenant).reads.record(sum(size or 0 for size in sizes), took_ns)
        if reading.tiers:
            self.tensors.records.read(reading.tenant, reading.keys, reading.tiers, sizes, took_ns)
