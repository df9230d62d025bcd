"""What the catalogue is told of: blocks stored, read, replaced and removed, and which shared tiers have them.

Everything here is a tuple on one of the catalogue's queues, and nothing at all without `kv-postgres-url`. What is asked
of it, a block's versions and where other nodes have put one, is asked by commands that wait.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from zeekdb.hot import region
from zeekdb.tensors.region import Range, Tenant, position_of
from zeekdb.tiers.stack import BITS
from zeekdb.tiers.tier import Meta, Name, TierStats

if TYPE_CHECKING:
    from zeekdb.config.config import Config
    from zeekdb.tiers.postgres.catalogue import Catalogue
    from zeekdb.tiers.postgres.pool import Database

log = logging.getLogger("zeekdb")

SHARED_LEVELS: Final = tuple((name, bit) for name, bit in BITS.items() if name != "ssd")
REQUEST_MAX: Final = (1 << 63) - 1


def node_name(config: Config) -> str:
    """What this node calls itself among others."""
    return config.kv_node or f"{socket.gethostname()}:{config.port}"


def meta_of(tenant: Tenant, key: bytes) -> Meta | None:
    """The block as it is in the index; None: it is not there."""
    known = region.describe(tenant.space, key)
    if known is None:
        return None
    return Meta(
        tenant.model.name, tenant.salt, key, known["size"], known["checksum"], known["deadline_s"],
        known["group"] or b"", tenant.model.codec,
    )  # fmt: skip


def bits_of(levels: Sequence[str]) -> int:
    """Shared tiers by name, as bits of a place."""
    return sum(bit for name, bit in SHARED_LEVELS if name in levels)


def catalogued(meta: Meta) -> Meta:
    """The block as whose versions the catalogue keeps it: one by position without its own version in the name."""
    place = position_of(meta.key)
    if place is None:
        return meta
    layer, begin, end, _, sequence = place
    keys, values = Range(begin, end, 0).names(sequence, layer)
    return meta._replace(key=keys if meta.key.startswith(b"\0k") else values)


class Records:
    """See the module."""

    def __init__(self) -> None:
        self.catalogue: Catalogue | None = None
        self.requests = 0
        self.coded: Callable[[Meta, Sequence[str]], tuple[int, str]] = lambda meta, _: (meta.size, "raw")

    async def open(self, config: Config, database: Database) -> None:
        """Unavailable: it can never be used as it is configured."""
        from zeekdb.tiers.postgres.catalogue import Catalogue

        catalogue = Catalogue(
            database, node=node_name(config), batch_rows=config.kv_postgres_batch, log_sample=config.kv_log_sample,
            log_days=config.kv_log_days, versions=config.kv_versions,
        )  # fmt: skip
        await catalogue.open()
        self.catalogue = catalogue

    def tick(self) -> None:
        """Ten times a second."""
        if self.catalogue is not None:
            self.catalogue.tick(time.time())

    async def close(self) -> None:
        """Writes what is queued, as far as the database lets it."""
        catalogue, self.catalogue = self.catalogue, None
        if catalogue is not None:
            await catalogue.close()

    # ------------------------------------------------------------ what happens

    def next_request(self) -> int:
        """The number of a command, which its rows in the access log have in common."""
        self.requests = (self.requests + 1) & REQUEST_MAX
        return self.requests

    def stored(
        self, tenant: Tenant, keys: Sequence[bytes], said: Sequence[int], parent: bytes | None, first_token: int,
        took_ns: int,
    ) -> None:  # fmt: skip
        """Blocks were stored (1) or were there already (0), the keys in the order of their context.

        `first_token`: where in its context the first of them begins, -1: that was not said.
        """
        catalogue = self.catalogue
        if catalogue is None:
            return
        from zeekdb.tiers.postgres.events import Context

        request, took_us = self.next_request(), took_ns // 1000
        layout = tenant.model.layout
        names: list[Name] = []
        for at, (key, each) in enumerate(zip(keys, said, strict=True)):
            name = Name(tenant.model.name, tenant.salt, key)
            catalogue.accessed(name, "write", "host" if each >= 0 else "", each >= 0, took_us, request)
            if each < 0:
                continue
            names.append(name)
            meta = meta_of(tenant, key) if each == 1 else None
            if meta is None:
                continue
            before = keys[at - 1] if at else parent or b""
            context = Context(parent=before)
            place = position_of(key)
            if place is not None:
                layer, begin, end, _, sequence = place
                context = Context(layer, layer + 1, begin, end, sequence=sequence)
            elif layout is not None:
                token = first_token + at * layout.block if first_token >= 0 else 0
                end = token + layout.block if first_token >= 0 else 0
                context = Context(0, layout.layers, token, end, before, plain_size=layout.block_bytes)
            catalogue.stored(meta, context)
        if names:
            catalogue.shared(names)

    def positioned(self, tenant: Tenant, key: bytes) -> None:
        """Tokens were stored by position for the first time: from here on what they are has versions."""
        meta, place = meta_of(tenant, key), position_of(key)
        if self.catalogue is not None and meta is not None and place is not None:
            from zeekdb.tiers.postgres.events import Context

            layer, begin, end, _, sequence = place
            context = Context(layer, layer + 1, begin, end, sequence=sequence, metadata={"history": True})
            self.catalogue.stored(catalogued(meta), context)

    def written(self, tenant: Tenant, key: bytes) -> None:
        """A block was written over another."""
        if self.catalogue is not None:
            name = Name(tenant.model.name, tenant.salt, key)
            self.catalogue.accessed(name, "write", "host", True, 0, self.next_request())

    def read(
        self, tenant: Tenant, keys: Sequence[bytes], tiers: Sequence[str], found: Sequence[Any], took_ns: int
    ) -> None:
        """A command has read; `tiers`: who had each block when it was asked for."""
        catalogue = self.catalogue
        if catalogue is None:
            return
        request, took_us = self.next_request(), took_ns // 1000
        for key, tier, each in zip(keys, tiers, found, strict=True):
            name = Name(tenant.model.name, tenant.salt, key)
            catalogue.accessed(name, "read", tier, each is not None, took_us, request)

    def removed(self, tenant: Tenant, keys: Sequence[bytes]) -> None:
        """Blocks are gone for all nodes."""
        catalogue = self.catalogue
        if catalogue is not None and keys:
            request = self.next_request()
            for key in keys:
                name = Name(tenant.model.name, tenant.salt, key)
                catalogue.accessed(name, "delete", "", True, 0, request)
                catalogue.removed(name)

    def placed(self, tenant: Tenant, key: bytes) -> None:
        """Shared tiers have a block, or have it no longer."""
        meta = meta_of(tenant, key) if self.catalogue is not None else None
        if meta is not None and self.catalogue is not None:
            place = region.describe(tenant.space, key)["place"] or 0  # type: ignore[index]
            levels = tuple(name for name, bit in SHARED_LEVELS if place & bit)
            size, coding = self.coded(meta, levels) if levels else (meta.size, "raw")
            self.catalogue.placed(meta, levels, size, coding)

    # ------------------------------------------------------------ what is asked

    async def find(self, names: Sequence[Name]) -> list[tuple[Meta, int] | None]:
        """What other nodes have put where: the fleet's question."""
        if self.catalogue is None:
            return [None] * len(names)
        found = await self.catalogue.find(names)
        return [(each.meta, bits_of(each.levels)) if each is not None else None for each in found]

    async def list(self, limit: int) -> AsyncIterator[list[tuple[Meta, int]]]:
        """What lies in shared tiers, the youngest first: blocks and the tiers' bits, in lists."""
        if self.catalogue is not None:
            async for page in self.catalogue.adoptable(limit):
                yield [(found.meta, bits_of(found.levels)) for found in page]

    async def popular(self, limit: int) -> Sequence[tuple[Meta, int]]:
        """What is asked for most and lies in shared tiers."""
        if self.catalogue is None:
            return []
        found = await self.catalogue.popular(limit)
        return [(each.meta, bits_of(each.levels)) for each in found]

    def tier(self) -> TierStats | None:
        """The catalogue's figures; None: there is none."""
        return self.catalogue.stats() if self.catalogue is not None else None

    def retune(self, config: Config) -> None:
        """Pass on what CONFIG SET has changed."""
        if self.catalogue is not None:
            self.catalogue.retune(
                log_sample=config.kv_log_sample, log_days=config.kv_log_days, versions=config.kv_versions
            )
