"""What this node gives to others and finds with them: the tiers that nodes share.

*Out.* A block that shared tiers take as it is stored waits here by its name alone: when its turn comes it is read from
memory, or left out if it has gone. Deletions wait in the same order, so that the one of an old block never takes the
new one of that name with it. While no shared tier can be asked blocks wait; deletions are the stack's to remember.

*In.* What a read misses is asked for in the catalogue and in the shared tiers at once, within `kv-find-deadline`; what
is found comes into the index, and is as any block below from then on. A name that nobody knew is not asked for again
for a moment. A lookup never waits: it has the same done for the next one. Other nodes also announce what they store and
remove; they are believed only as far as names and checksums go, as everything that is read is verified.

*What was deleted here stays deleted.* A tier that failed may still have a block whose deletion could not be told, and
a put that nobody waits for any more may arrive after the deletion that followed it. So where a shared tier has had any
trouble names deleted here are not taken back for DEAD_S in which all were well, unless they are stored again, here or,
as announced, elsewhere; what is found under them is deleted once more. A name whose deletion is not told yet is not
taken back in any case.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from zeekdb.errors import CommandError
from zeekdb.hot import region
from zeekdb.hot.checksum import checksum
from zeekdb.tensors.region import DEADLINE_S_MAX, KEY_BYTES_MAX
from zeekdb.tiers.stack import BITS, Stack
from zeekdb.tiers.tier import PLACE_LOCAL, Get, Held, Meta, Name, Put, name_of, place_of

if TYPE_CHECKING:
    from zeekdb.server.below import Below
    from zeekdb.tensors.region import Tenant

log = logging.getLogger("zeekdb")

SHARES_MAX: Final = 262_144  # names that wait to be shared; the oldest give way
SHARE_TRIES: Final = 4  # of a block, while others are taken
SHARE_BATCH: Final = 64
SHARE_BATCH_BYTES: Final = 32 << 20
DELETE_BATCH: Final = 1024
DELETES_MAX: Final = 524_288  # that wait; beyond, a block's time to live has to do
FORGET_S: Final = 1.0  # that a command waits until deletions are told; then they are owed
CLOSE_S: Final = 30.0  # that the end of the server waits for what is to be shared
TURN: Final = 128  # blocks that are looked at before the loop has its turn
DEAD_TURN: Final = 4096  # the same of names that were deleted
UNKNOWN_MAX: Final = 65_536  # names that nobody knew
UNKNOWN_S: Final = 1.0  # how long they are not asked for again
LOST_S: Final = 60.0  # how long the catalogue, which is written behind, is not believed about such a block
DEAD_MAX: Final = 65_536  # names that were deleted here; the oldest give way
DEAD_S: Final = 10.0
FIND_BATCH: Final = 1024  # names of one question
FINDS_MAX: Final = 64  # questions under way; what is asked beyond is a miss
HEARD_MAX: Final = 65_536  # announced blocks that wait to be looked at; what is not is found when it is asked for

Found = Sequence[tuple[Meta, int] | None]  # what is under each name, and the bits of the tiers that have it
Ask = Callable[[Sequence[Name]], Coroutine[Any, Any, Found]]
SHARED: Final = sum(bit for name, bit in BITS.items() if name != "ssd")


class Fleet:
    """See the module. Without shared tiers all of this does nothing."""

    def __init__(self, below: Below) -> None:
        self.below = below
        self.stack: Stack | None = None
        self.catalogue: Ask | None = None
        self.shared = self.share_dropped = self.share_failed = 0
        self.found = self.asked = self.late = 0
        self._number = 0
        self._shares: deque[tuple[int, int, bytes, int]] = deque()  # number, space, key, tries
        self._deletes: deque[tuple[int, Held]] = deque()
        self.deletes_dropped = 0
        self._deleting: dict[Name, int] = {}  # how many of `_deletes`, and of those that are being told, are about it
        self._buried: asyncio.Future[None] | None = None
        self._sharing: set[tuple[int, bytes]] = set()
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._stopping = self._is_given_up = False
        self._unknown: OrderedDict[Name, float] = OrderedDict()  # until when
        self._lost: OrderedDict[Name, float] = OrderedDict()  # until when
        # until which `_well_s`; whether it was deleted once more; after which number
        self._dead: OrderedDict[Name, tuple[float, bool, int]] = OrderedDict()
        self._well_s = 0.0  # how long all shared tiers have been well
        self._ticked_at = time.monotonic()
        self._troubled_at = -math.inf  # when one of them last was not
        self._failures = 0  # that they had up to then
        self._finding: dict[Name, asyncio.Task[None]] = {}
        self._finds: set[asyncio.Task[None]] = set()
        self._news: asyncio.Future[None] | None = None  # somebody has answered
        self._heard: dict[Name, None] = {}
        self._listening: asyncio.Task[None] | None = None
        self.forgotten = self.adopted = 0
        self.adopt_max = 0  # blocks
        self.list_catalogue: Callable[[int], AsyncIterator[Sequence[tuple[Meta, int]]]] | None = None
        self._adopting: asyncio.Task[None] | None = None
        self._adopt_again = False

    # ------------------------------------------------------------ coming and going

    @property
    def is_active(self) -> bool:
        """Whether there is anybody to ask."""
        return self.stack is not None and bool(self.stack.shared) and not self._stopping

    def open(self, stack: Stack) -> None:
        """The stack is open."""
        self.stack = stack
        if stack.warm is not None:
            stack.warm.listen(self._hear)
        if stack.shared:
            self._writer = asyncio.get_running_loop().create_task(self._write_forever())

    def tick(self) -> None:
        """Ten times a second."""
        if self._shares or self._deletes:
            self._wake.set()
        now, before = time.monotonic(), self._ticked_at
        self._ticked_at = now
        if self.stack is None:
            return
        guards = [guard for level in self.stack.shared if level.shared is not None for guard in level.shared.guards]
        failures = sum(guard.failures_total for guard in guards)
        if failures != self._failures or not all(level.is_up and not level.owed for level in self.stack.shared):
            self._troubled_at, self._failures = now, failures
        else:
            self._well_s += now - before
            for _ in range(min(len(self._dead), DEAD_TURN)):
                if next(iter(self._dead.values()))[0] > self._well_s:
                    break
                self._dead.popitem(last=False)

    async def close(self) -> None:
        """Hands out what waits, as far as somebody can be asked."""
        self._stopping = True
        asking = {task for task in (*self._finds, self._listening, self._adopting) if task is not None}
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)
        if self._writer is not None:
            end = asyncio.get_running_loop().call_later(CLOSE_S, self._give_up)
            self._wake.set()
            await self._writer
            end.cancel()
            self._writer = None

    def _give_up(self) -> None:
        if self._shares or self._deletes:
            log.warning(
                "%d blocks were not shared, and %d not deleted in shared tiers: these are too slow",
                len(self._shares), len(self._deletes),
            )  # fmt: skip
        self._shares.clear()
        self._deletes.clear()
        self._is_given_up = True

    def figures(self) -> dict[str, int]:
        """For KV.STATS."""
        return {
            "shared_waiting": len(self._shares), "shared_out": self.shared, "share_dropped": self.share_dropped,
            "share_failed": self.share_failed, "deletes_waiting": len(self._deletes),
            "deletes_dropped": self.deletes_dropped, "fleet_asked": self.asked, "fleet_found": self.found,
            "fleet_late": self.late, "fleet_forgotten": self.forgotten, "fleet_adopted": self.adopted,
        }  # fmt: skip

    # ------------------------------------------------------------ out

    def stored(self, tenant: Tenant, keys: Sequence[bytes], said: Sequence[int]) -> None:
        """Blocks were stored (1) or were there (0): what is to be shared will be."""
        if self.stack is None or not self.stack.shared:
            return
        is_shared = any(level.on_store for level in self.stack.shared)
        for key, each in zip(keys, said, strict=True):
            if each == 1:
                self._revive(Name(tenant.model.name, tenant.salt, key))
            if each != 1 or not is_shared:
                continue
            if len(self._shares) >= SHARES_MAX:
                self._shares.popleft()
                self.share_dropped += 1
            self._number += 1
            self._shares.append((self._number, tenant.space, key, 0))
        self._wake.set()

    def forget(self, tenant: Tenant, helds: Sequence[Held], is_fleet: bool) -> asyncio.Future[None] | None:
        """See Below.forget; done after FORGET_S at the latest, whatever the tiers do."""
        if self.stack is None or not self.stack.shared:
            return None
        begin = self._number
        for held in helds:
            if is_fleet:
                self._bury(name_of(held.meta), False)
                if self.catalogue is not None:
                    self.lost(name_of(held.meta))
            place = held.place & SHARED
            if is_fleet or (tenant.space, held.meta.key) in self._sharing:
                place = self.stack.everywhere(0)
            if place:
                self._delete_soon(Held(held.meta, place))
        if self._number == begin:
            return None
        if self._buried is None:
            loop = asyncio.get_running_loop()
            self._buried = loop.create_future()
            loop.call_later(FORGET_S, self._wait_no_longer, self._buried)
        self._wake.set()
        return self._buried

    def _delete_soon(self, held: Held) -> None:
        self._number += 1
        if len(self._deletes) >= DELETES_MAX:
            self.deletes_dropped += 1
            return
        self._deletes.append((self._number, held))
        name = name_of(held.meta)
        self._deleting[name] = self._deleting.get(name, 0) + 1

    def _wait_no_longer(self, buried: asyncio.Future[None]) -> None:
        if not buried.done():
            buried.set_result(None)
        if self._buried is buried:
            self._buried = None  # who deletes from now on waits for so long as well

    def _bury(self, name: Name, is_again: bool) -> None:
        self._dead[name] = (self._well_s + DEAD_S, is_again, self._number)
        self._dead.move_to_end(name)
        if len(self._dead) > DEAD_MAX:
            self._dead.popitem(last=False)

    def _revive(self, name: Name) -> None:
        """It was stored, here or elsewhere."""
        self._unknown.pop(name, None)
        self._lost.pop(name, None)
        self._dead.pop(name, None)

    async def _write_forever(self) -> None:
        while True:
            try:
                is_share_next = self._shares and self._can_share()
                if self._deletes and not (is_share_next and self._shares[0][0] < self._deletes[0][0]):
                    await self._delete()
                    continue
                if is_share_next:
                    await self._share()
                    continue
            except Exception:
                log.exception("Sharing blocks")  # a bug of ours; the next tick tries again
            if self._stopping:
                return
            self._wake.clear()
            await self._wake.wait()

    def _can_share(self) -> bool:
        assert self.stack is not None
        return not self._is_given_up and any(level.on_store and level.is_up for level in self.stack.shared)

    async def _delete(self) -> None:
        assert self.stack is not None
        buried = None
        batch: list[Held] = []
        last = self._shares[0][0] if self._shares and self._can_share() else self._number + 1
        while self._deletes and self._deletes[0][0] < last and len(batch) < DELETE_BATCH:
            batch.append(self._deletes.popleft()[1])
        if not self._deletes:
            buried, self._buried = self._buried, None
        try:
            await self.stack.delete(batch)
        finally:
            for name in map(name_of, (held.meta for held in batch)):
                self._deleting[name] -= 1
                if not self._deleting[name]:
                    del self._deleting[name]
            if buried is not None and not buried.done():
                buried.set_result(None)

    async def _share(self) -> None:
        assert self.stack is not None
        puts: list[Put] = []
        spaces: list[int] = []
        size = 0
        last = self._deletes[0][0] if self._deletes else self._number + 1
        entries = []
        while self._shares and self._shares[0][0] < last and len(puts) < SHARE_BATCH and size < SHARE_BATCH_BYTES:
            entry = self._shares.popleft()
            put = await self._put_of(*entry[1:3])
            if put is not None:
                entries.append(entry)
                puts.append(put)
                spaces.append(entry[1])
                size += put.meta.size
        if not puts:
            return
        self._sharing = {(space, put.meta.key) for space, put in zip(spaces, puts, strict=True)}
        try:
            places = await self.stack.share(puts)
        finally:
            self._sharing = set()
        failed = [entry for entry, place in zip(entries, places, strict=True) if place is None]
        tried = int(self._can_share())  # else it went down, and the blocks wait until it is back
        again = [(*entry[:3], entry[3] + tried) for entry in failed if entry[3] + tried < SHARE_TRIES]
        self._shares.extendleft(reversed(again))
        self.share_failed += len(failed) - len(again)
        self.shared += len(places) - places.count(None)
        metas = [put.meta for put in puts]
        if self.stack.warm is not None:
            self.stack.warm.announce("stored", [meta for meta, place in zip(metas, places, strict=True) if place])

    async def _put_of(self, space: int, key: bytes) -> Put | None:
        """None: it has gone, or is where it shall be."""
        assert self.stack is not None
        tenant = self.below.models.by_space.get(space)
        known = region.describe(space, key) if tenant is not None else None
        if tenant is None or known is None:
            return None
        meta = Meta(
            tenant.model.name, tenant.salt, key, known["size"], known["checksum"], known["deadline_s"],
            known["group"] or b"", tenant.model.codec,
        )  # fmt: skip
        wanted = sum(level.bit for level in self.stack.shared if level.on_store and level.takes(meta))
        if not wanted & ~(known["place"] or 0):
            return None
        view = region.get(space, [key], False)[0]
        if view is not None and not isinstance(view, int):
            return Put(meta, memoryview(view))
        if known["place"] is None:
            return None  # on the GPU alone
        data = memoryview(bytearray(meta.size))  # memory has let go of it while nobody took it
        is_there = await self.stack.get([Get(meta, known["place"], data)]) == [True]
        is_exact = is_there and (not self.stack.is_lossy or checksum(data) == meta.checksum)
        return Put(meta, data) if is_exact else None

    # ------------------------------------------------------------ in

    def look_soon(self, tenant: Tenant, keys: Sequence[bytes]) -> None:
        """A lookup has missed these: the next one shall not, if anybody has them."""
        if self.is_active:
            self._ask(tenant, keys)

    async def find(self, tenant: Tenant, keys: Sequence[bytes], deadline_ms: int) -> None:
        """Waits until it is known whether others have these, or for so long."""
        if not self.is_active or not deadline_ms:
            return
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Future[None]] = set(self._ask(tenant, keys))
        end = loop.time() + deadline_ms / 1000
        is_few = len(keys) <= FIND_BATCH  # of which it is quickly seen that all are known: nobody waits for the rest
        while tasks and not (is_few and self._are_known(tenant, keys)):
            left_s = end - loop.time()
            if left_s <= 0:
                self.late += len(tasks)
                return
            if self._news is None or self._news.done():
                self._news = loop.create_future()
            done, _ = await asyncio.wait(
                {*tasks, self._news}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )  # fmt: skip
            tasks -= done

    def _are_known(self, tenant: Tenant, keys: Sequence[bytes]) -> bool:
        now = self.below.models.tenants.get((tenant.model.name, tenant.salt))
        return now is not None and region.count_present(now.space, list(keys)) == len(keys)

    def _ask(self, tenant: Tenant, keys: Sequence[bytes]) -> set[asyncio.Task[None]]:
        """Questions under way about these keys."""
        now = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        fresh: list[Name] = []
        for key in keys:
            name = Name(tenant.model.name, tenant.salt, key)
            if self._unknown.get(name, 0) > now:
                continue
            if name in self._finding:
                tasks.add(self._finding[name])
            else:
                fresh.append(name)
        for at in range(0, len(fresh), FIND_BATCH):
            if len(self._finds) >= FINDS_MAX:
                break
            batch = fresh[at : at + FIND_BATCH]
            task = asyncio.get_running_loop().create_task(self._find(batch))
            self._finds.add(task)
            self._finding |= dict.fromkeys(batch, task)
            task.add_done_callback(lambda done, batch=batch: self._asked(done, batch))  # type: ignore[misc]
            tasks.add(task)
        return tasks

    def _asked(self, task: asyncio.Task[None], batch: Sequence[Name]) -> None:
        self._finds.discard(task)
        for name in batch:
            self._finding.pop(name, None)

    async def _find(self, names: Sequence[Name], is_announced: bool = False) -> None:
        """Asks all who may know, and takes what they know into the index. `is_announced`: in the warm tier, maybe."""
        assert self.stack is not None
        self.asked += len(names)
        asked = self._number
        readable = [level for level in self.stack.shared if level.is_readable]
        announced = [level for level in readable if level.name == "warm"] if is_announced else []
        questions: list[Ask] = [self._question(level.name) for level in announced or readable]
        if self.catalogue is not None and not announced:
            questions.append(self._ask_catalogue)
        known: dict[Name, tuple[Meta, int]] = {}
        asking = [asyncio.ensure_future(ask(names)) for ask in questions]
        try:
            for answer in asyncio.as_completed(asking):
                await self._take_in(names, answer, known, asked)
        finally:
            for each in asking:
                each.cancel()  # the server ends
        if announced:
            return
        end = time.monotonic() + UNKNOWN_S
        for name in names:
            if name not in known:
                self._unknown[name] = end
                self._unknown.move_to_end(name)
        while len(self._unknown) > UNKNOWN_MAX:
            self._unknown.popitem(last=False)

    async def _take_in(
        self, names: Sequence[Name], answer: Awaitable[Found], known: dict[Name, tuple[Meta, int]], asked: int
    ) -> None:  # fmt: skip
        """`asked`: `_number` as the question was."""
        try:
            found = await answer
        except Exception:
            log.exception("Asking for blocks of other nodes")
            return
        for name, each in zip(names, found, strict=True):
            if each is None or not each[1]:
                continue
            dead = self._dead.get(name)
            if dead is not None and dead[2] >= asked:
                continue  # deleted since: the answer is older
            self.found += self.adopt(*each) and name not in known
            known[name] = each
            if len(known) % TURN == 0:
                await asyncio.sleep(0)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _ask_catalogue(self, names: Sequence[Name]) -> Found:
        assert self.catalogue is not None
        now = time.monotonic()
        found = await self.catalogue(names)
        return [each if self._lost.get(name, 0) <= now else None for name, each in zip(names, found, strict=True)]

    def lost(self, name: Name) -> None:
        """It was deleted, or is not where it was said to be: what the catalogue says of it is out of date."""
        self._lost[name] = time.monotonic() + LOST_S
        self._lost.move_to_end(name)
        if len(self._lost) > UNKNOWN_MAX:
            self._lost.popitem(last=False)

    def _question(self, level_name: str) -> Ask:
        assert self.stack is not None
        level = self.stack.by_name[level_name]
        tier = level.shared
        assert tier is not None

        async def ask(names: Sequence[Name]) -> Found:
            metas = await tier.find(names)
            return [(meta, level.bit) if meta is not None else None for meta in metas]

        return ask

    def adopt(self, meta: Meta, bits: int) -> bool:
        """What another node has put there comes into the index; False: it is none that this server could serve."""
        if self.stack is None:
            return False
        bits &= self.stack.bits & SHARED  # others may have tiers that this node has not got
        name = name_of(meta)
        if name in self._deleting or self.stack.is_owed(name, bits):
            return False
        if not bits or (meta.deadline and meta.deadline <= time.time()):
            return False
        found = self.below.models.models.get(meta.model)
        if found is None or found.codec != meta.codec or self._is_misfit(meta):
            return False
        if time.monotonic() - self._troubled_at > DEAD_S:
            self._dead.pop(name, None)  # its deletion was told, and no put was late: another node has stored it since
        if (dead := self._dead.get(name)) is not None:
            if not dead[1]:
                self._bury(name, True)
                self._delete_soon(Held(meta, bits | place_of(meta)))
                self._wake.set()
            return False
        try:
            tenant = self.below.models.tenant(meta.model, meta.salt)
        except CommandError:
            return False
        return self.below.adopt(tenant, Held(meta, bits | place_of(meta)))

    def _is_misfit(self, meta: Meta) -> bool:
        """Whether it can be no block of the model here; a header may come from anybody who can write there."""
        if meta.size > self.below.size_max or meta.deadline > DEADLINE_S_MAX:
            return True
        if len(meta.key) > KEY_BYTES_MAX or len(meta.group) > KEY_BYTES_MAX:
            return True
        layout = self.below.models.models[meta.model].layout
        by_position = meta.key.startswith((b"\0k", b"\0v"))  # parts of blocks, of any number of tokens
        return layout is not None and meta.codec == "raw" and not by_position and meta.size != layout.block_bytes

    def adopt_soon(self) -> None:
        """Begins to take in what shared tiers have, so that lookups know of it: at the start, and for a new model."""
        if not self.is_active or not self.adopt_max:
            return
        if self._adopting is None:
            self._adopting = asyncio.get_running_loop().create_task(self._adopt_all())
        else:
            self._adopt_again = True

    async def _adopt_all(self) -> None:
        try:
            while not self._stopping:
                self._adopt_again = False
                before = self.adopted
                await self._adopt_some()
                if self.adopted > before:
                    log.info("%d blocks of shared tiers are known now", self.adopted - before)
                if not self._adopt_again:
                    return
        except Exception:
            log.exception("Looking at what shared tiers have")
        finally:
            self._adopting = None

    async def _adopt_some(self) -> None:
        assert self.stack is not None
        seen = 0
        if self.list_catalogue is not None:
            async for known in self.list_catalogue(self.adopt_max):
                for meta, bits in known:
                    if self._lost.get(name_of(meta), 0) <= time.monotonic():
                        self.adopted += self.adopt(meta, bits)
                    seen += 1
                    if seen % TURN == 0:
                        await asyncio.sleep(0)
                await asyncio.sleep(0)
        if seen:
            return  # the catalogue knows of all of them
        async for found in self.stack.scan_shared():
            for held in found:
                self.adopted += self.adopt(held.meta, held.place & ~PLACE_LOCAL)
                seen += 1
                if seen % TURN == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            if seen >= self.adopt_max:
                return

    def _hear(self, event: Any) -> None:
        """What another node, or a loader here, announces: zeekdb.tiers.warm_channel.Event."""
        if event.kind == "gap":
            self._unknown.clear()  # what was nobody's may be somebody's by now
        elif event.name is None or event.name.model not in self.below.models.models:
            return
        elif event.kind == "stored":
            self._revive(event.name)
            if len(self._heard) < HEARD_MAX:
                self._heard[event.name] = None
            self._hear_soon()
        elif event.kind in ("removed", "replaced"):
            self._forget_heard(event)

    def _forget_heard(self, event: Any) -> None:
        """Another node has removed the block of this checksum (0: of any), or put this one in the place of others."""
        name = event.name
        self._heard.pop(name, None)
        tenant = self.below.models.tenants.get((name.model, name.salt))
        known = region.describe(tenant.space, name.key) if tenant is not None else None
        if tenant is None or known is None:
            return
        is_same = known["checksum"] == event.checksum
        if is_same if event.kind == "replaced" else event.checksum and not is_same:
            return
        removed = region.remove(tenant.space, [name.key])
        self.below.forget_here(tenant, removed)
        self.forgotten += 1
        if event.kind == "replaced":
            self._heard[name] = None
            self._hear_soon()

    def _hear_soon(self) -> None:
        """Looks at what was announced, once the loop has its turn: announcements come in bunches."""
        if self._listening is None and not self._stopping:
            self._listening = asyncio.get_running_loop().create_task(self._look_at_heard())

    async def _look_at_heard(self) -> None:
        try:
            while self._heard and not self._stopping:
                names = list(self._heard)[:FIND_BATCH]
                for name in names:
                    del self._heard[name]
                fresh = [name for name in names if not self._is_known(name)]
                if fresh:
                    await self._find(fresh, is_announced=True)
                rest = [name for name in fresh if not self._is_known(name)]
                if rest:
                    await self._find(rest)
        except Exception:
            log.exception("Looking at what other nodes announced")
        finally:
            self._listening = None

    def _is_known(self, name: Name) -> bool:
        tenant = self.below.models.tenants.get((name.model, name.salt))
        return tenant is not None and region.describe(tenant.space, name.key) is not None
