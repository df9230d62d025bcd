"""What the catalogue is told of: blocks stored, read, replaced and removed, and which shared tiers have them.

Everything here is a tuple on one of the catalogue's queues, and nothing at all without `kv-postgres-url`. What is asked
of it, a block's versions and where other nodes have put one, is asked by commands that wait.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from zeekdb.hot import region
from zeekdb.tensors.region import Tenant, position_of
from zeekdb.tiers.stack import BITS
from zeekdb.tiers.tier import Meta, Name

if TYPE_CHECKING:
    from zeekdb.config.config import Config
    from zeekdb.hot.blobview import BlobView
    from zeekdb.tiers.postgres.catalogue import Catalogue, Version
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


class Records:
    """See the module."""

    def __init__(self) -> None:
        self.catalogue: Catalogue | None = None
        self.requests = 0

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

    def replaced(self, old: Meta, new: Meta, who: str, why: str, view: BlobView | None) -> None:
        """Other bytes are under this name now; `view`: those before."""
        if self.catalogue is not None:
            with memoryview(view if view is not None else b"") as data:
                self.catalogue.overwritten(old, new, who, why, data if view is not None else None)

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

    def removed(self, names: Sequence[Name]) -> None:
        """Blocks are gone for all nodes."""
        catalogue = self.catalogue
        if catalogue is not None:
            request = self.next_request()
            for name in names:
                catalogue.accessed(name, "delete", "", True, 0, request)
                catalogue.removed(name)

    def placed(self, tenant: Tenant, key: bytes) -> None:
        """Shared tiers have a block, or have it no longer."""
        meta = meta_of(tenant, key) if self.catalogue is not None else None
        if meta is not None and self.catalogue is not None:
            place = region.describe(tenant.space, key)["place"] or 0  # type: ignore[index]
            self.catalogue.placed(meta, tuple(name for name, bit in SHARED_LEVELS if place & bit), meta.size)

    # ------------------------------------------------------------ what is asked

    async def find(self, names: Sequence[Name]) -> list[tuple[Meta, int] | None]:
        """What other nodes have put where: the fleet's question."""
        if self.catalogue is None:
            return [None] * len(names)
        found = await self.catalogue.find(names)
        return [
            (each.meta, sum(bit for name, bit in SHARED_LEVELS if name in each.levels)) if each is not None else None
            for each in found
        ]

    async def history(self, name: Name) -> list[Version] | None:
        """A block's versions, the newest first; None: there is no catalogue."""
        return await self.catalogue.history(name) if self.catalogue is not None else None

    async def snapshot(self, name: Name, version: int) -> tuple[Meta, bytes] | None:
        """The bytes of an earlier version."""
        return await self.catalogue.snapshot(name, version) if self.catalogue is not None else None


Tell = Callable[[Tenant, bytes], None]
