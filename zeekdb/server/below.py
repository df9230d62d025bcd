"""Blocks on their way between host memory and the tiers below it, which are one to it (`tiers/stack.py`).

*Down.* What the index wants to let go of waits in a queue of bounded size; one task writes it in batches, and a block
leaves memory once it is written. The same task passes deletions on. So the tier hears of puts and deletions in the
order in which the index has changed, and never has two calls about one block at a time: a deletion that overtook the
put before it would leave the block behind on the device, one that came late would take the next block of that name with
it. Two such tasks were no faster than one (the tier syncs one batch at a time).

*Up.* A block is read once however many ask for it, and is known by its checksum: who asks for what was stored under
the key since gets that. Room for what is read is taken within a budget before any is
reserved, so commands that read a lot do not fill the arena with rooms that wait. Where there is no room in the arena
(all is leased, or waits to be written itself) a block is read beside it, for those who have asked; so are as many bytes
at a time as the budget has, and what is asked for beyond waits ROOM_WAIT_S at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final

from zeekdb.errors import CommandError
from zeekdb.hot import region
from zeekdb.hot.blobview import BlobView, new_blob
from zeekdb.hot.checksum import checksum
from zeekdb.server.fleet import FORGET_S, Fleet
from zeekdb.tensors.region import Region, Tenant
from zeekdb.tiers.stack import BITS, Stack
from zeekdb.tiers.tier import PLACE_LOCAL, Budget, Get, Held, Meta, Put, name_of

log = logging.getLogger("zeekdb")

SSD: Final = BITS["ssd"]
OWN: Final = SSD | PLACE_LOCAL  # of a place: what is about this node's disk
BELOW_ONLY: Final = 3  # among KV.LOOKUP's tiers
SPILL_SHARE: Final = 8  # of the arena's bytes, one in so many may wait to be written, or one group of blocks
SPILL_BATCH_BYTES: Final = 64 << 20
DELETE_BATCH: Final = 4096  # names that the loop hands over at a time
READ_SHARE: Final = 4  # of the arena's bytes, one in so many may be on the way up
SHARED_READ_SHARE: Final = 8  # the same from each tier that nodes share: one that is slow takes nothing from others
READ_BYTES_LEAST: Final = 16 << 20  # whatever the arena's size
READ_BYTES_MAX: Final = 256 << 20
READ_BATCH_BYTES: Final = 8 << 20
BLOCK_BYTES_MAX: Final = (1 << 31) - 1  # as the index has it
ROOM_WAIT_S: Final = 1.0  # how long a read waits for room, in the arena or beside it; then it is a miss
ROOM_POLL_S: Final = 0.02  # nobody tells when a reply has been sent whose blocks have left the index
MOVED_MAX: Final = 3  # times that a block is sought again which the tier has moved meanwhile
SINKS_MAX: Final = 1024  # blocks on their way from one tier below to the next
SPILL_TRIES: Final = 4  # that a shared tier gets at a block before memory lets go of it all the same
REFUSED_MAX: Final = 4096  # blocks whose tries are counted
PREFETCH_MAX: Final = 65_536  # blocks under way; what is asked for beyond is left


class Promotion:
    """A block on its way up."""

    __slots__ = ("askers", "beside_bytes", "checksum", "future", "is_beside", "key", "name", "place", "size")

    def __init__(self, space: int, key: bytes, place: int, size: int, check: int) -> None:
        self.name = (space, key, check)
        self.key = key
        self.place = place
        self.size = size
        self.checksum = check
        self.future: asyncio.Future[BlobView | None] = asyncio.get_running_loop().create_future()
        self.askers = 0
        self.is_beside = False  # the arena
        self.beside_bytes = 0  # counted there

    async def view(self) -> BlobView | None:
        """The block, once it is there; None: it is not, or not whole."""
        return await asyncio.shield(self.future)


class Below:
    """The tiers below, as the region uses them; the stack's owner. Without any all of this does nothing."""

    def __init__(self, models: Region) -> None:
        self.models = models
        self.fleet = Fleet(self)
        self.on_placed: Callable[[Tenant, bytes], None] | None = None  # told where a block is that shared tiers have
        self.tier: Stack | None = None
        self.spilling = False
        self.beside_bytes = 0
        self._arena_bytes = 0
        self._uses = 0
        self._configured = (0, 0, 0)
        self._gone: list[Held] = []
        self._buried: asyncio.Future[None] | None = None  # done once all deletions up to now are
        self._writing: set[tuple[int, bytes]] = set()  # spaces and keys
        self._refused: OrderedDict[tuple[int, bytes, int], int] = OrderedDict()  # spaces, keys, checksums: tries
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False
        self._promotions: dict[tuple[int, bytes, int], Promotion] = {}  # by space, key and checksum
        self._prefetches = 0
        self._reading = Budget(READ_BYTES_MAX)
        self._reading_shared: dict[int, Budget] = {}  # by the tier's bit
        self._sinking = Budget(READ_BYTES_LEAST)
        self._tasks: set[asyncio.Task[Any]] = set()

    # ------------------------------------------------------------ coming and going

    async def open(self, stack: Stack, arena_bytes: int) -> None:
        """Takes what is on this node into the index. Unavailable: nothing can be kept there."""
        self._arena_bytes = arena_bytes
        self._reading = Budget(min(max(arena_bytes // READ_SHARE, READ_BYTES_LEAST), READ_BYTES_MAX))
        shared = min(max(arena_bytes // SHARED_READ_SHARE, READ_BYTES_LEAST), READ_BYTES_MAX)
        self._reading_shared = {level.bit: Budget(shared) for level in stack.shared}
        await stack.open()
        left: list[Held] = []
        async for found in stack.scan():
            left += [held for held in found if not self._adopt(held)]
            await asyncio.sleep(0)
        if left:
            log.warning("%d blocks on this node's disk fit no model, and are removed", len(left))
        self._gone += left
        self.tier = stack
        self.fleet.open(stack)
        self._writer = asyncio.get_running_loop().create_task(self._write_forever())

    @property
    def size_max(self) -> int:
        """Bytes of a block that is read at all, into the arena or beside it."""
        return min(max(self._arena_bytes, READ_BYTES_MAX), BLOCK_BYTES_MAX)

    def _adopt(self, held: Held) -> bool:
        """A block that was there before the server was; False: it is none that this server could serve."""
        meta = held.meta
        try:
            tenant = self.models.adopt_tenant(meta.model, meta.salt, meta.codec)
        except CommandError:
            return False
        if tenant is None:
            return False
        return self.adopt(tenant, held)

    def adopt(self, tenant: Tenant, held: Held) -> bool:
        """A block that a tier below has, and the index not yet; False: another one is under this name."""
        meta = held.meta
        group = meta.group or None
        if region.adopt(tenant.space, meta.key, meta.size, meta.checksum, held.place, meta.deadline, group):
            self.models.adopt_range(tenant, meta.key)
            return True
        return bool(region.place_added(tenant.space, meta.key, meta.checksum, held.place))

    async def close(self) -> None:
        """Writes what waits, and lets go."""
        self._stopping = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._writer is not None:
            self._wake.set()
            await self._writer
        await self.fleet.close()
        if self.tier is not None:
            await self.tier.close()
            self.tier = None
        self._set_spilling(0, 1)
        region.set_away(0)

    def tick(self, uses: int) -> None:
        """Looks whether the tier takes blocks, and goes on with writing. `uses`: that make a block worth it."""
        self._uses = uses
        if self.tier is not None:
            self.tier.tick()
            self.fleet.tick()
        self._look()
        if region.totals()["waiting_blocks"]:
            self._wake.set()

    def _look(self) -> None:
        is_ok = self.tier is not None and self.tier.is_up
        uses = 1 if self.tier is not None and self.tier.is_sharing else self._uses or 1  # none goes before it is shared
        ssd = self.tier.by_name.get("ssd") if self.tier is not None else None
        own_uses = self._uses if ssd is not None and ssd.is_up else 0
        self._set_spilling(self._arena_bytes // SPILL_SHARE if is_ok else 0, uses, own_uses)

    def _set_spilling(self, limit_bytes: int, uses: int, own_uses: int = 0) -> None:
        if (limit_bytes, uses, own_uses) != self._configured:
            self._configured = (limit_bytes, uses, own_uses)
            self.spilling = limit_bytes > 0
            region.configure_spilling(limit_bytes, uses, own_uses)

    # ------------------------------------------------------------ down

    def write_soon(self) -> None:
        """Something may wait to be written."""
        if self.spilling:
            self._wake.set()

    def is_making_room(self) -> bool:
        """Whether blocks will leave memory as soon as they are written."""
        return self.spilling and region.totals()["spilling_bytes"] > 0

    async def wait_for_room(self, end_s: float) -> bool:
        """Until some blocks have left memory; False: none will, or not before that time of the loop's clock."""
        left_s = end_s - asyncio.get_running_loop().time()
        if left_s <= 0 or not self.is_making_room():
            return False
        self._room.clear()
        self._wake.set()
        try:
            async with asyncio.timeout(left_s):
                await self._room.wait()
        except TimeoutError:
            return False
        return True

    def forget(
        self, tenant: Tenant, gone: Sequence[tuple[bytes, int | None]], is_fleet: bool = False
    ) -> asyncio.Future[Any] | None:  # fmt: skip
        """Blocks, with their places, that have left the index; done once none can come back. None: none could.

        Where there are shared tiers it is done after FORGET_S at the latest: what these are then owed, they are told.

        `is_fleet`: they are to be gone for all nodes, whether or not this one knows where they are.
        """
        if self.tier is None:
            return None
        helds = [Held(self._meta(tenant, key), place or 0) for key, place in gone]
        is_writing = any((tenant.space, key) in self._writing for key, _ in gone)
        buried = [
            self._bury([Held(held.meta, held.place & OWN) for held in helds if held.place & SSD], is_writing),
            self.fleet.forget(tenant, helds, is_fleet),
        ]
        waits = [each for each in buried if each is not None]
        return asyncio.gather(*waits) if len(waits) > 1 else waits[0] if waits else None

    def forget_here(self, tenant: Tenant, gone: Sequence[tuple[bytes, int | None]]) -> None:
        """The same for this node's disk alone: what has expired, or another node has removed, goes by itself elsewhere.

        A tier that nodes share may have the next block of that name already, which another node has put there.
        """
        if self.tier is not None:
            places = [(key, place or 0) for key, place in gone]
            self._bury([Held(self._meta(tenant, key), place & OWN) for key, place in places if place & SSD], False)

    def _bury(self, helds: list[Held], is_writing: bool) -> asyncio.Future[None] | None:
        if not helds and not is_writing:
            return None
        self._gone += helds
        if self._buried is None:
            loop = asyncio.get_running_loop()
            self._buried = loop.create_future()
            if self.tier is not None and self.tier.shared:  # for which the writer may have to wait
                loop.call_later(FORGET_S, self._wait_no_longer, self._buried)
        self._wake.set()
        return self._buried

    def _wait_no_longer(self, buried: asyncio.Future[None]) -> None:
        if not buried.done():
            buried.set_result(None)
        if self._buried is buried:
            self._buried = None

    @staticmethod
    def _meta(tenant: Tenant, key: bytes, size: int = 0, check: int = 0) -> Meta:
        return Meta(tenant.model.name, tenant.salt, key, size, check)

    def _meta_of(self, tenant: Tenant, key: bytes, size: int, check: int) -> Meta:
        """With all that the index knows of it: what is read may be put into another tier on its way."""
        meta = self._meta(tenant, key, size, check)
        known = region.describe(tenant.space, key) if self.is_open(tenant) else None
        if known is None or known["checksum"] != check:
            return meta
        return meta._replace(deadline=known["deadline_s"], group=known["group"] or b"", codec=tenant.model.codec)

    async def _write_forever(self) -> None:
        while True:
            try:
                if self._gone or self._buried is not None:
                    await self._delete()
                    continue  # more may be gone meanwhile, and some of it be stored again
                if await self._write():
                    continue
            except Exception:
                log.exception("Writing to the tier below")  # a bug of ours; the next tick tries again
            if self._stopping:
                return
            self._wake.clear()
            await self._wake.wait()

    async def _delete(self) -> None:
        """Passes on what is gone."""
        assert self.tier is not None
        gone, self._gone = self._gone, []
        buried, self._buried = self._buried, None
        try:
            for at in range(0, len(gone), DELETE_BATCH):
                await self.tier.delete(gone[at : at + DELETE_BATCH])
        finally:
            if buried is not None and not buried.done():
                buried.set_result(None)

    async def _write(self) -> int:
        """Writes a batch of what waits; how many blocks."""
        assert self.tier is not None
        batch = region.take_spilling(SPILL_BATCH_BYTES)
        if not batch:
            return 0
        items = []
        for each in batch:
            tenant = self.models.by_space[each.space]
            meta = Meta(
                tenant.model.name, tenant.salt, each.key, len(each.view), each.checksum, each.deadline_s,
                each.group or b"", tenant.model.codec,
            )  # fmt: skip
            items.append(Put(meta, memoryview(each.view)))
        tenants = [self.models.by_space[each.space] for each in batch]
        self._writing = {(each.space, each.key) for each in batch}
        places: list[int | None] = [None] * len(items)
        try:
            places = await self.tier.spill(items, [each.place for each in batch])
        finally:
            self._writing = set()
            self._look()
            for tenant, each, item, place in zip(tenants, batch, items, places, strict=True):
                self._written(tenant, each, item, place)
            self._room.set()
        return len(batch)

    def _written(self, tenant: Tenant, pending: region.Pending, item: Put, place: int | None) -> None:
        is_there = region.spilled(pending, place)
        known = region.describe(tenant.space, pending.key) if self.is_open(tenant) else None
        name = (tenant.space, pending.key, pending.checksum)
        if place is not None:
            self._refused.pop(name, None)
            if not is_there and place & SSD and (known is None or not (known["place"] or 0) & SSD):
                self._gone.append(Held(item.meta, place & OWN))  # else written twice: a deletion would be about both
            return
        if pending.place is not None and is_there:  # it may go: others have it
            region.demote(tenant.space, [pending.key])
            return
        is_left = is_there and known is not None and known["queue"] == "order" and known["place"] is None
        if is_left and self.spilling and self._is_refused(name, item.meta):
            region.remove(tenant.space, [pending.key])  # no tier has room for it, ever: it goes as without one

    def _is_refused(self, name: tuple[int, bytes, int], meta: Meta) -> bool:
        """Whether no tier below will take a block that none has taken now. Shared ones may just have failed."""
        if self.tier is None or not any(level.takes(meta) for level in self.tier.shared):
            return True
        tries = self._refused.pop(name, 0) + 1
        if tries >= SPILL_TRIES:
            return True
        self._refused[name] = tries
        if len(self._refused) > REFUSED_MAX:
            self._refused.popitem(last=False)
        return False

    def demote(self, tenant: Tenant, keys: Sequence[bytes]) -> int:
        """KV.DEMOTE of what is in host memory or below; how many will be tried."""
        tier, archived, others = self.tier, 0, []
        for key in keys:
            known = region.describe(tenant.space, key)
            if tier is not None and known is not None and known["in_host"] and known["place"] is None:
                meta = self._meta(tenant, key, known["size"], known["checksum"])
                if not any(level.takes(meta) for level in tier.levels) and len(self._tasks) < SINKS_MAX:
                    self._spawn(self._archive(tier, tenant, key))
                    archived += 1
                    continue
            others.append(key)
        return archived + self.sink(tenant, others) + int(region.demote(tenant.space, others))

    async def _archive(self, tier: Stack, tenant: Tenant, key: bytes) -> None:
        """A block whose size no tier takes by itself, into the last of them that will have it."""
        try:
            known, view = region.describe(tenant.space, key), region.get(tenant.space, [key], False)[0]
            if known is None or not isinstance(view, BlobView):
                return
            meta = self._meta(tenant, key, known["size"], known["checksum"])._replace(
                deadline=known["deadline_s"], group=known["group"] or b"", codec=tenant.model.codec
            )
            places = await tier.put_into(tier.shared[::-1], [Put(meta, memoryview(view))], is_forced=True)
            if places[0] is not None and self.is_open(tenant):
                region.demote(tenant.space, [key])
        except Exception:
            log.exception("Moving a block down")

    def sink(self, tenant: Tenant, keys: Sequence[bytes]) -> int:
        """Blocks that host memory has not got go from one tier below to the next; how many will be tried."""
        if self.tier is None or not self.tier.shared or self._stopping:
            return 0
        count = 0
        for key in keys:
            if len(self._tasks) >= SINKS_MAX:
                break
            known = region.describe(tenant.space, key)
            if known is not None and not known["in_host"] and known["slot"] is None and known["place"] is not None:
                self._spawn(self._sink(tenant, key, known["size"], known["checksum"]))
                count += 1
        return count

    async def _sink(self, tenant: Tenant, key: bytes, size: int, check: int) -> None:
        await self._sinking.take(size)
        try:
            if self.tier is not None and self.is_open(tenant) and not self._stopping:
                known = region.describe(tenant.space, key)
                if known is not None and known["checksum"] == check:
                    meta = self._meta_of(tenant, key, size, check)
                    await self.tier.demote(Get(meta, known["place"] or 0, memoryview(bytearray(size))))
        except Exception:
            log.exception("Moving a block down")
        finally:
            self._sinking.give(size)

    # ------------------------------------------------------------ up

    @contextlib.asynccontextmanager
    async def bringing(self, tenant: Tenant, keys: Sequence[bytes]) -> AsyncIterator[list[Promotion | None]]:
        """Blocks that are below only; None for one that is not there any more. What is brought is used within."""
        asked = self._ask(tenant, keys)
        try:
            yield asked
        finally:
            for each in asked:
                if each is not None:
                    self._let_go(each)

    def prefetch(self, tenant: Tenant, keys: Sequence[bytes]) -> int:
        """Begins to bring up what is below only; how many blocks."""
        tiers = region.lookup(tenant.space, list(keys), touch=False)[2]
        below = [key for key, tier in zip(keys, tiers, strict=True) if tier == BELOW_ONLY]
        if self.tier is None or not below:
            return 0
        asked = [each for each in self._ask(tenant, below[: PREFETCH_MAX - self._prefetches]) if each is not None]
        self._prefetches += len(asked)
        for each in asked:
            each.future.add_done_callback(lambda _, each=each: self._prefetched(each))  # type: ignore[misc]
        return len(asked)

    def _prefetched(self, promotion: Promotion) -> None:
        self._prefetches -= 1
        self._let_go(promotion)

    def _ask(self, tenant: Tenant, keys: Sequence[bytes]) -> list[Promotion | None]:
        asked: list[Promotion | None] = []
        fresh: list[Promotion] = []
        for key in keys:
            known = region.describe(tenant.space, key) if self.is_open(tenant) else None
            if known is None or self.tier is None or self._stopping:
                asked.append(None)
                continue
            name = (tenant.space, key, known["checksum"])
            found = None if known["in_host"] else self._promotions.get(name)
            if found is None:
                found = Promotion(tenant.space, key, known["place"] or 0, known["size"], known["checksum"])
                if known["in_host"]:  # somebody was quicker
                    view: Any = region.get(tenant.space, [key], False)[0]
                    found.future.set_result(view)
                else:
                    self._promotions[name] = found
                    fresh.append(found)
            found.askers += 1
            asked.append(found)
        by_tier: dict[int, list[Promotion]] = {}  # each by itself: who asks for some need not wait for a slow tier's
        for each in fresh:
            levels = each.place & ~PLACE_LOCAL
            by_tier.setdefault(levels & -levels, []).append(each)
        for bit, some in by_tier.items():
            self._spawn(self._read(tenant, some, self._reading_shared.get(bit, self._reading)))
        return asked

    def _arrive(self, promotion: Promotion, view: BlobView | None) -> None:
        """Whoever asks from now on begins anew."""
        if not promotion.future.done():
            del self._promotions[promotion.name]
            promotion.future.set_result(view)

    def _let_go(self, promotion: Promotion) -> None:
        promotion.askers -= 1
        if promotion.beside_bytes and not promotion.askers:
            self.beside_bytes -= promotion.beside_bytes
            promotion.beside_bytes = 0
            self._room.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def is_open(self, tenant: Tenant) -> bool:
        """Whether the tenant's space is still its own: its number may have gone to another."""
        return self.models.by_space.get(tenant.space) is tenant

    async def _read(self, tenant: Tenant, wanted: Sequence[Promotion], budget: Budget) -> None:
        """Reads in batches, as many at a time as the budget allows."""
        batch: list[Promotion] = []
        size = 0
        for at, each in enumerate(wanted):
            batch.append(each)
            size += each.size
            if size >= READ_BATCH_BYTES or at == len(wanted) - 1:
                await budget.take(size)
                self._spawn(self._read_batch(tenant, batch, size, budget))
                batch, size = [], 0

    async def _read_batch(self, tenant: Tenant, batch: Sequence[Promotion], size: int, budget: Budget) -> None:
        try:
            left = list(batch)
            for _ in range(MOVED_MAX):
                if left:
                    left = await self._try(tenant, left)
        except Exception:
            log.exception("Reading from the tier below")
        finally:
            budget.give(size)
            for each in batch:
                self._arrive(each, None)

    async def _try(self, tenant: Tenant, wanted: Sequence[Promotion]) -> list[Promotion]:
        """Those that the tier has moved meanwhile."""
        assert self.tier is not None
        rooms: list[tuple[Promotion, BlobView, Get]] = []
        for each in wanted:
            view = await self._room_for(tenant, each)
            if view is None:
                self._arrive(each, None)
                continue
            meta = self._meta_of(tenant, each.key, each.size, each.checksum)
            rooms.append((each, view, Get(meta, each.place, memoryview(view))))
        whole = await self.tier.get([get for _, _, get in rooms])
        is_open = self.is_open(tenant)
        moved: list[Promotion] = []
        for (each, view, get), is_whole in zip(rooms, whole, strict=True):
            if is_whole and self.tier.is_lossy:
                self._recode(tenant, each, get.into)
            get.into.release()
            known = region.describe(tenant.space, each.key) if is_open else None
            if not is_whole:
                is_same = known is not None and known["checksum"] == each.checksum
                place = known["place"] if known is not None and is_same and is_whole is False else None
                if place in (None, each.place):  # can't be asked, or not there any more, as the stack has noted
                    self._arrive(each, None)
                    continue
                each.place = place
                moved.append(each)
                continue
            if known is not None and known["checksum"] == each.checksum and not each.is_beside:
                region.promote(tenant.space, each.key, view)
            self._arrive(each, view)
        return moved

    def _recode(self, tenant: Tenant, promotion: Promotion, view: memoryview) -> None:
        """Bytes that a lossy tier has given back are the block from now on."""
        check = checksum(view)
        if check != promotion.checksum and self.is_open(tenant):
            region.recoded(tenant.space, promotion.key, promotion.checksum, check)
            promotion.checksum = check

    async def _room_for(self, tenant: Tenant, promotion: Promotion) -> BlobView | None:
        end_s = asyncio.get_running_loop().time() + ROOM_WAIT_S
        while self.is_open(tenant) and promotion.askers and not self._stopping:
            view: BlobView | None = region.reserve(promotion.size, tenant.space)
            if view is not None:
                return view
            if promotion.is_beside:
                return new_blob(promotion.size)
            if not self.beside_bytes or self.beside_bytes + promotion.size <= self._reading.most:
                promotion.is_beside = True
                promotion.beside_bytes = promotion.size
                self.beside_bytes += promotion.size
                return new_blob(promotion.size)
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROOM_POLL_S):
                    await self._room.wait()
            if asyncio.get_running_loop().time() >= end_s:
                return None
        return None

    # ------------------------------------------------------------ the stack's owner

    def is_live(self, meta: Meta, place: int) -> bool:
        return self._at_place(meta, place)[0]

    def is_worth(self, meta: Meta, place: int) -> bool:
        return self._at_place(meta, place)[1]

    def _at_place(self, meta: Meta, place: int) -> tuple[bool, bool]:
        tenant = self.models.tenants.get((meta.model, meta.salt))
        return region.has_place(tenant.space, meta.key, place) if tenant is not None else (False, False)

    def moved(self, meta: Meta, old_place: int, new_place: int) -> bool:
        tenant = self.models.tenants.get((meta.model, meta.salt))
        return tenant is not None and region.place_moved(tenant.space, meta.key, old_place, new_place)

    def dropped(self, meta: Meta, place: int) -> None:
        tenant = self.models.tenants.get((meta.model, meta.salt))
        if tenant is not None and region.place_lost(tenant.space, meta.key, place):
            self._lost_from(tenant, meta, place)

    def lost(self, meta: Meta, place: int) -> None:
        tenant = self.models.tenants.get((meta.model, meta.salt))
        if tenant is not None and region.place_lost(tenant.space, meta.key, place):
            self._bury([Held(meta, place & OWN)] if place & SSD else [], False)
            self._lost_from(tenant, meta, place)

    def _lost_from(self, tenant: Tenant, meta: Meta, place: int) -> None:
        self._note(tenant, meta.key, place)
        if place & ~OWN and region.describe(tenant.space, meta.key) is None:
            self.fleet.lost(name_of(meta))

    def is_wanted(self, meta: Meta) -> bool:
        tenant = self.models.tenants.get((meta.model, meta.salt))
        known = region.describe(tenant.space, meta.key) if tenant is not None else None
        return known is not None and known["checksum"] == meta.checksum

    def added(self, meta: Meta, place: int) -> bool:
        tenant = self.models.tenants.get((meta.model, meta.salt))
        if tenant is None or not region.place_added(tenant.space, meta.key, meta.checksum, place):
            return False
        self._note(tenant, meta.key, place)
        return True

    def _note(self, tenant: Tenant, key: bytes, place: int) -> None:
        if self.on_placed is not None and place & ~OWN:
            self.on_placed(tenant, key)

    def goes_down(self, meta: Meta, place: int) -> bool:
        return False  # the stack knows

    async def hand_down(self, items: Sequence[Put]) -> list[bool]:
        return [False] * len(items)

    def away(self, bits: int) -> None:
        region.set_away(bits)
