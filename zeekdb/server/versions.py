"""Blocks that are overwritten: what they were is kept, told and brought back.

A version is written when SET replaces a block's bytes, when KV.PUT stores the same tokens of a sequence's layer again,
and when KV.RESTORE does either. Its bytes lie in the catalogue, or, where they are too many for a row, in the archive
of object storage under the block's name and checksum; `kv-versions` of a block are kept. Bytes that are below only are
read before SET replaces them; of KV.PUT only what memory has is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zeekdb.errors import CommandError
from zeekdb.hot import region
from zeekdb.hot.blobview import BlobView
from zeekdb.hot.checksum import checksum
from zeekdb.server.records import catalogued, meta_of
from zeekdb.tensors.region import Range, Tenant
from zeekdb.tiers.guard import TierFailed
from zeekdb.tiers.tier import Meta, Name, name_of

if TYPE_CHECKING:
    from zeekdb.commands.context import Context
    from zeekdb.server.tensors import Tensors, Value
    from zeekdb.tiers.objects import ObjectTier

log = logging.getLogger("zeekdb")

ARCHIVINGS_MAX = 64  # under way; the bytes of what is overwritten beyond are not kept


class Versions:
    """See the module."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Waits for what is being archived."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    # ------------------------------------------------------------ overwriting

    def is_kept_from(self, tenant: Tenant, key: bytes) -> bool:
        """Whether a block that is about to be replaced is to be read first: it becomes a version, and is below only."""
        if self.tensors.records.catalogue is None:
            return False
        known = region.describe(tenant.space, key)
        return known is not None and not known["in_host"]

    def replace(
        self, ctx: Context, tenant: Tenant, key: bytes, value: Value, deadline_s: int, group: bytes | None, why: str
    ) -> int:  # fmt: skip
        """The block is this one from now on; as `region.replace`. What it was in memory becomes a version."""
        if self.tensors.records.catalogue is None:
            return self.tensors.replace_now(tenant, key, value, deadline_s, group)
        old = meta_of(tenant, key)
        view = region.get(tenant.space, [key], False)[0] if old is not None else None
        said = self.tensors.replace_now(tenant, key, value, deadline_s, group)
        self._note(ctx, tenant, old, key, view if isinstance(view, BlobView) else None, why)
        return said

    async def replace_below(
        self, ctx: Context, tenant: Tenant, key: bytes, value: Value, deadline_s: int, group: bytes | None, why: str
    ) -> str:  # fmt: skip
        """The same, where the block is below: it is read first."""
        tensors = self.tensors
        async with tensors.below.bringing(tenant, [key]) as coming:
            old = meta_of(tenant, key)
            view = await coming[0].view() if coming[0] is not None else None
            if tensors.below.is_open(tenant):
                if tensors.replace_now(tenant, key, value, deadline_s, group) < 0:
                    await tensors.replace_later(tenant, key, value, deadline_s, group)
                self._note(ctx, tenant, old, key, view, why)
        return "OK"

    def put_range(
        self, ctx: Context, tenant: Tenant, place: tuple[bytes, int, int, int], values: Sequence[Value],
        deadline_s: int, why: str,
    ) -> int:  # fmt: skip
        """KV.PUT: keys and values of (sequence, layer, begin, end); the new version's number, -1: no room."""
        tensors = self.tensors
        sequence, layer, begin, end = place
        added = tensors.region.add_range(tenant, sequence, layer, begin, end)
        names = list(added.names(sequence, layer))
        said = tensors.store_now(tenant, names, values, deadline_s)
        if -1 in said:  # nothing was stored, and nothing of what was there is lost
            tensors.remove(tenant, names)
            tensors.region.drop_range(tenant, sequence, layer, added)
            return -1
        is_first = True
        for old in tensors.region.covered(tenant, sequence, layer, added):
            old_names = list(old.names(sequence, layer))
            if (old.begin, old.end) == (begin, end):
                is_first = False
                for old_name, name in zip(old_names, names, strict=True):
                    view = region.get(tenant.space, [old_name], False)[0]
                    before = meta_of(tenant, old_name)
                    self._note(ctx, tenant, before, name, view if isinstance(view, BlobView) else None, why)
            tensors.remove(tenant, old_names)
        for name in names if is_first else ():
            tensors.records.positioned(tenant, name)
        return added.version

    def _note(
        self, ctx: Context, tenant: Tenant, old: Meta | None, key: bytes, view: BlobView | None, why: str
    ) -> None:  # fmt: skip
        """What the catalogue hears of it."""
        new = meta_of(tenant, key)
        catalogue = self.tensors.records.catalogue
        if catalogue is None or new is None:
            return
        if old is None:
            self.tensors.records.stored(tenant, [key], [1], None, -1, 0)
            return
        if old.key == key:  # else the new block has been stored under a name of its own
            self.tensors.records.written(tenant, key)
        if new.checksum == old.checksum:
            return
        who = f"{ctx.client.user}@{ctx.client.addr}"
        with memoryview(view if view is not None else b"") as data:
            catalogue.overwritten(catalogued(old), catalogued(new), who, why, data if view is not None else None)
        archive = self._archive()
        is_large = view is not None and len(view) > catalogue.snapshot_bytes_max
        if not is_large or archive is None or not self.tensors.server.config.kv_versions:
            return
        if view is not None and len(self._tasks) < ARCHIVINGS_MAX:
            task = asyncio.get_running_loop().create_task(self._keep(archive, catalogued(old), view))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _archive(self) -> ObjectTier | None:
        stack = self.tensors.below.tier
        level = stack.by_name.get("objects") if stack is not None else None
        return level.tier if level is not None else None  # type: ignore[return-value]  # it has that name

    async def _keep(self, archive: ObjectTier, meta: Meta, view: BlobView) -> None:
        """Archives the bytes, and lets those of versions go that are not kept any more."""
        try:
            with memoryview(view) as data:
                await archive.archive(meta, data, meta.checksum)
            kept = {version.meta.checksum for version in await self._versions(name_of(meta))}
            gone = [version for version in await archive.archived(meta) if version not in kept]
            if kept and gone:
                await archive.discard(meta, gone)
        except TierFailed as error:
            log.warning("The bytes of an overwritten block could not be archived: %s", error)
        except Exception:
            log.exception("Archiving a version")

    # ------------------------------------------------------------ what there was

    async def _versions(self, name: Name) -> list[Any]:
        catalogue = self.tensors.records.catalogue
        if catalogue is None:
            raise CommandError("ERR versions are kept in PostgreSQL, kv-postgres-url names one")
        return await catalogue.history(name)

    def _name(self, tenant: Tenant, key: bytes) -> Name:
        return name_of(catalogued(Meta(tenant.model.name, tenant.salt, key, 0, 0)))

    async def history(self, tenant: Tenant, key: bytes) -> list[dict[str, Any]]:
        """KV.HISTORY: the block's versions, the newest first. Times are Unix ms, 0: not known, or not yet."""
        name = self._name(tenant, key)
        versions = await self._versions(name)
        archive = self._archive()
        archived: set[int] = set()
        if archive is not None and any(not version.has_snapshot for version in versions[1:]):
            try:
                archived = set(await archive.archived(name))
            except TierFailed:
                archived = set()
        return [
            {
                "version": version.version, "size": version.meta.size, "checksum": f"{version.meta.checksum:016x}",
                "stored_at": int(version.stored_at_s * 1000), "replaced_at": int(version.replaced_at_s * 1000),
                "who": version.who, "why": version.why,
                "restorable": int(version.has_snapshot or version.meta.checksum in archived),
            }
            for version in versions
        ]  # fmt: skip

    async def _bytes_of(self, tenant: Tenant, key: bytes, version: int) -> bytes | memoryview:
        name = self._name(tenant, key)
        versions = {each.version: each for each in await self._versions(name)}
        if version not in versions:
            raise CommandError(f"ERR there is no version {version} of this block")
        meta = versions[version].meta
        catalogue = self.tensors.records.catalogue
        assert catalogue is not None
        found: tuple[Meta, bytes | memoryview] | None = await catalogue.snapshot(name, version)
        archive = self._archive()
        if found is None and archive is not None:
            try:
                found = await archive.restore(name, meta.checksum)
            except TierFailed as error:
                raise CommandError(f"ERR the archive can't be asked: {error}") from None
        if found is None:
            raise CommandError(f"ERR the bytes of version {version} were not kept")
        if checksum(memoryview(found[1])) != meta.checksum and not (archive is not None and archive.is_lossy):
            raise CommandError(f"ERR the bytes of version {version} are damaged")
        return found[1]

    async def restore(self, ctx: Context, tenant: Tenant, key: bytes, version: int) -> str:
        """KV.RESTORE: the block is again what it was; what it is now becomes a version."""
        data = await self._bytes_of(tenant, key, version)
        if not self.tensors.below.is_open(tenant):
            raise CommandError("ERR the model was removed meanwhile")
        known = region.describe(tenant.space, key)
        deadline_s = known["deadline_s"] if known is not None else 0
        why = f"RESTORE {version}"
        if self.is_kept_from(tenant, key):
            return await self.replace_below(ctx, tenant, key, data, deadline_s, None, why)
        if self.replace(ctx, tenant, key, data, deadline_s, None, why) < 0:
            raise CommandError("ERR there is no room for the block")
        return "OK"

    async def restore_range(
        self, ctx: Context, tenant: Tenant, place: tuple[bytes, int, int, int], version: int, deadline_s: int
    ) -> int:  # fmt: skip
        """The same of tokens of a sequence's layer; the new version's number."""
        sequence, layer, begin, end = place
        values = [
            await self._bytes_of(tenant, name, version) for name in Range(begin, end, 0).names(sequence, layer)
        ]
        added = self.put_range(ctx, tenant, place, values, deadline_s, f"RESTORE {version}")
        if added < 0:
            raise CommandError("ERR there is no room for the blocks")
        return added
