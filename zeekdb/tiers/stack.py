"""The tiers below host memory as one tier: which of them a block goes to, comes from, and is deleted in.

    ssd         this node's own disk; what memory lets go of
    warm        a Redis that the fleet shares
    postgres    cold blocks that are small
    objects     large blocks and archives

A block goes down to the first of them that takes it (`put`), or, when it is stored, to those that every node shall find
it in (`share`). It comes from the first that has it and can be asked. Its place says which have it (see
hot/region_below.pyx): a bit for each, and below them the SSD tier's own place, or the checksum where that has not got
the block. So a tier that is down, or has lost a block, costs a bit.

A cold block that several nodes want at once is read once: whoever gets the warm tier's lock brings it there, the others
wait for it (`_bring_to_warm`).

*Puts and deletions of one name in a shared tier* come from several tasks, and both are about the name, whatever lies
under it. So each level has a lock (`order`). Within it a block is put only if the index still has it, its place is in
the index before the lock is given back, and a name is deleted only if the index says that it is not there: a deletion
that was overtaken by the next put of that name does nothing.

What a tier could not be told to delete, because it was down, is kept (`owed`) and told when it is back. What a slow
one is given beside what somebody waits for goes on by itself (`_patiently`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from zeekdb.hot.checksum import checksum
from zeekdb.tiers.tier import (
    PLACE_LOCAL,
    Get,
    Held,
    Meta,
    Name,
    Owner,
    Put,
    SharedTier,
    Tier,
    TierStats,
    name_of,
    place_of,
)

T = TypeVar("T")
log = logging.getLogger("zeekdb")

LEVELS: Final = ("ssd", "warm", "postgres", "objects")
PLACE_BITS: Final = PLACE_LOCAL.bit_length()
BITS: Final = {name: 1 << (PLACE_BITS + at) for at, name in enumerate(LEVELS)}
OWED_MAX: Final = 65_536  # deletions kept for a tier that is down; beyond, its own time to live has to do
OWED_BATCH: Final = 512
CHECK_S: Final = 2.0
WAIT_S: Final = 2.0  # how long one waits for another that brings a block to the warm tier
PATIENCE_S: Final = 0.5  # how long what is done beside a caller's work may keep it waiting
LATE_MAX: Final = 4  # of these that go on by themselves


class StackOwner(Owner, Protocol):
    """The region, as the stack sees it: places have the tiers' bits."""

    def is_wanted(self, meta: Meta) -> bool:
        """Whether the index has this very block, wherever."""

    def added(self, meta: Meta, place: int) -> bool:
        """The block is there as well; False: nobody wants it any more."""

    def lost(self, meta: Meta, place: int) -> None:
        """It is to be there no longer: `dropped`, and deleted there in the order of this node's writes."""

    def away(self, bits: int) -> None:
        """Tiers that cannot be asked now."""


class SsdOwner:
    """The region as the SSD tier sees it, whose places have no bit."""

    def __init__(self, owner: StackOwner) -> None:
        self.owner = owner
        self.stack: Stack | None = None

    def is_live(self, meta: Meta, place: int) -> bool:
        """See Owner."""
        return self.owner.is_live(meta, BITS["ssd"] | place)

    def is_worth(self, meta: Meta, place: int) -> bool:
        """See Owner."""
        return self.owner.is_worth(meta, BITS["ssd"] | place)

    def moved(self, meta: Meta, old_place: int, new_place: int) -> bool:
        """See Owner."""
        return self.owner.moved(meta, BITS["ssd"] | old_place, BITS["ssd"] | new_place)

    def dropped(self, meta: Meta, place: int) -> None:
        """See Owner."""
        self.owner.dropped(meta, BITS["ssd"] | place)

    def goes_down(self, meta: Meta, place: int) -> bool:
        """Whether a tier below takes the block before it is dropped, also one that has had it: it may have expired."""
        return self.stack is not None and any(level.takes(meta) for level in self.stack.below_ssd)

    async def hand_down(self, items: Sequence[Put]) -> list[bool]:
        """Which of them a tier below has now."""
        assert self.stack is not None
        taken = await self.stack.still_have(self.stack.below_ssd, [item.meta for item in items])
        left = [at for at, is_there in enumerate(taken) if not is_there]
        places = await self.stack.put_into(self.stack.below_ssd, [items[at] for at in left])
        for at, place in zip(left, places, strict=True):
            taken[at] = place is not None
        return taken


class Level:
    """A tier of the stack, and what goes there."""

    def __init__(
        self, tier: Tier, sizes: Callable[[], tuple[int, int]] | None = None, on_store: Callable[[], bool] | None = None
    ) -> None:
        """`sizes`: the smallest and the largest block it takes, bytes; `on_store`: every block as it is stored."""
        self.tier = tier
        self.name = tier.name
        self.bit = BITS[tier.name]
        self.shared = tier if isinstance(tier, SharedTier) else None
        self._sizes = sizes
        self._on_store = on_store
        self.owed: dict[Name, Held] = {}
        self.owed_dropped = 0
        self.checking: asyncio.Task[None] | None = None
        self.order = asyncio.Lock()  # of puts and deletions in a shared tier

    @property
    def is_up(self) -> bool:
        """Whether it takes blocks now."""
        return self.tier.is_up

    @property
    def is_readable(self) -> bool:
        """Whether it can be asked for blocks now."""
        return self.tier.is_readable

    @property
    def on_store(self) -> bool:
        """Whether every block goes there as it is stored."""
        return self._on_store is not None and self._on_store()

    def takes(self, meta: Meta) -> bool:
        """Whether blocks like this go there by themselves."""
        if self._sizes is None:
            return True
        least, most = self._sizes()
        return least <= meta.size <= most

    def owe(self, held: Held) -> None:
        """A deletion that could not be told."""
        name = name_of(held.meta)
        if len(self.owed) >= OWED_MAX and name not in self.owed:
            self.owed_dropped += 1
            return
        self.owed[name] = held


class Stack(Tier):
    """See the module. `levels` in their order; `owner` is told of every change that nobody asked for."""

    name = "tiers"

    def __init__(self, levels: Sequence[Level], owner: StackOwner) -> None:
        self.levels = list(levels)
        self.owner = owner
        self.by_name = {level.name: level for level in self.levels}
        self.shared = [level for level in self.levels if level.shared is not None]
        self.below_ssd = self.shared if self.levels and self.levels[0].name == "ssd" else []
        self.warm: Any = self.by_name["warm"].tier if "warm" in self.by_name else None
        self.is_lossy = any(level.shared is not None and level.shared.is_lossy for level in self.levels)
        self.brought = 0  # cold blocks that were put into the warm tier for all
        self.waited = 0  # reads that waited for another's
        self.bits = sum(level.bit for level in self.levels)
        self._late: set[asyncio.Task[Any]] = set()
        self._check_at = time.monotonic() + CHECK_S
        self._paying: asyncio.Task[None] | None = None

    # ---- beginning and end -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Unavailable: one of them can never be used as it is configured. One that is down now is no reason."""
        results = await asyncio.gather(*(level.tier.open() for level in self.levels), return_exceptions=True)
        failed = [each for each in results if isinstance(each, BaseException)]
        if failed:
            for level in self.levels:
                await level.tier.close()
            raise failed[0]
        self.tick()

    async def scan(self) -> AsyncIterator[list[Held]]:
        """What is on this node's own disk. What is elsewhere is found when it is asked for, or `scan_shared`."""
        for level in self.levels:
            if level.shared is None:
                async for found in level.tier.scan():
                    yield [Held(held.meta, level.bit | held.place) for held in found]

    async def scan_shared(self) -> AsyncIterator[list[Held]]:
        """What other tiers have."""
        for level in self.shared:
            async for found in level.tier.scan():
                yield [Held(held.meta, level.bit | held.place) for held in found]

    async def close(self) -> None:
        """Ends all of them."""
        tasks = [task for task in (self._paying, *(level.checking for level in self.levels)) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._late, return_exceptions=True)
        for level in self.levels:
            await level.tier.close()

    def tick(self) -> None:
        """Now and then: who can be asked, and what they are owed."""
        self.owner.away(sum(level.bit for level in self.levels if not level.is_readable))
        self._check()
        if self._paying is None and any(level.owed and level.is_readable for level in self.levels):
            self._paying = asyncio.get_running_loop().create_task(self._pay())

    def _check(self) -> None:
        """Asks each shared tier how it is, so that what is said of one that nobody uses is true."""
        now = time.monotonic()
        if now < self._check_at:
            return
        self._check_at = now + CHECK_S
        for level in self.shared:
            if level.shared is not None and (level.checking is None or level.checking.done()):
                level.checking = asyncio.get_running_loop().create_task(level.shared.check())
                level.checking.add_done_callback(self._ended)

    # ---- down ------------------------------------------------------------------------------------------------------

    async def spill(self, items: Sequence[Put], places: Sequence[int | None]) -> list[int | None]:
        """`put` of blocks of which others have some already (`places`): those are to be on this node's disk as well."""
        ssd = self.by_name.get("ssd")
        fresh = [at for at, place in enumerate(places) if place is None]
        found: list[int | None] = [None] * len(items)
        for at, place in zip(fresh, await self.put([items[at] for at in fresh]) if fresh else [], strict=True):
            found[at] = place
        if len(fresh) == len(items):
            return found
        for at in fresh:  # the SSD tier's places are to be written down at once
            if (place := found[at]) is not None:
                self.owner.added(items[at].meta, place)
        known = [at for at, place in enumerate(places) if place is not None]
        if ssd is not None and ssd.is_up:
            for at, local in zip(known, await ssd.tier.put([items[at] for at in known]), strict=True):
                found[at] = ssd.bit | local if local is not None else None
        return found

    async def put(self, items: Sequence[Put]) -> list[int | None]:
        """Each where it was to be shared anyway, or else into the first tier that takes it.

        The SSD tier's places are to be written down at once: it comes last, or is told to the owner here. Where it is
        up nobody waits long for the others.
        """
        ssd = self.by_name.get("ssd")
        if ssd is None or not ssd.is_up:
            places = await self.share(items)
            left = [at for at, place in enumerate(places) if place is None]
            return await self._put_rest(items, places, left)
        places = await self._patiently(lambda: self.share(items)) or [None] * len(items)
        left = [at for at, place in enumerate(places) if place is None]
        mine = [at for at in left if ssd.takes(items[at].meta)]
        await self._put_rest(items, places, [at for at in left if at not in set(mine)])
        if not mine:
            return places
        for at, place in zip(mine, await ssd.tier.put([items[at] for at in mine]), strict=True):
            places[at] = ssd.bit | place if place is not None else None
        rest = [at for at in mine if places[at] is None and any(level.takes(items[at].meta) for level in self.shared)]
        if rest:  # too large for it, or it is full
            for at in mine:
                if (place := places[at]) is not None:
                    self.owner.added(items[at].meta, place)
            await self._put_rest(items, places, rest)
        return places

    async def _put_rest(
        self, items: Sequence[Put], places: list[int | None], left: Sequence[int]
    ) -> list[int | None]:  # fmt: skip
        if left:
            for at, place in zip(left, await self.put_into(self.shared, [items[at] for at in left]), strict=True):
                places[at] = place
        return places

    async def _patiently(self, work: Callable[[], Coroutine[Any, Any, T]], is_needed: bool = False) -> T | None:
        """The work's result; None: it goes on by itself, or, with LATE_MAX doing so already, was left out.

        What it reads is its own for so long: views of its own, of memory that nobody writes any more.
        """
        if len(self._late) >= LATE_MAX and not is_needed:
            return None
        task = asyncio.get_running_loop().create_task(work())
        self._late.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait([task], timeout=PATIENCE_S)
        return task.result() if done else None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("At work with shared tiers", exc_info=error)

    async def put_into(
        self, levels: Sequence[Level], items: Sequence[Put], is_forced: bool = False
    ) -> list[int | None]:  # fmt: skip
        """Each into the first of these that takes it (`is_forced`: whatever its size) and stores it."""
        places: list[int | None] = [None] * len(items)
        for level in levels:
            mine = [
                at for at, item in enumerate(items) if places[at] is None and (is_forced or level.takes(item.meta))
            ]  # fmt: skip
            if mine and level.is_up:
                found = await self._put(level, [items[at] for at in mine])
                for at, place in zip(mine, found, strict=True):
                    places[at] = place
        return places

    async def _put(self, level: Level, items: Sequence[Put]) -> list[int | None]:
        """Of what the index still has, into a shared tier; the places, which the owner knows by then."""
        places: list[int | None] = [None] * len(items)
        async with level.order:
            mine = [at for at, item in enumerate(items) if self.owner.is_wanted(item.meta)]
            found = await level.tier.put([items[at] for at in mine]) if mine else []
            unwanted: list[Held] = []
            for at, place in zip(mine, found, strict=True):
                if place is None:
                    continue
                meta = items[at].meta
                level.owed.pop(name_of(meta), None)
                if self.owner.added(meta, level.bit | place):
                    places[at] = level.bit | place
                else:  # removed, or replaced, meanwhile
                    unwanted.append(Held(meta, place))
            if unwanted:
                await self._tell(level, unwanted)
        return places

    async def still_have(self, levels: Sequence[Level], metas: Sequence[Meta]) -> list[bool]:
        """Which of these lie in one of the levels, as the index says and the tier, too."""
        found = [False] * len(metas)
        for level in levels:
            mine = [at for at, meta in enumerate(metas) if not found[at] and self._is_at(level, meta)]
            if mine and level.is_readable:
                helds = [Held(metas[at], place_of(metas[at])) for at in mine]
                for at, is_there in zip(mine, await level.tier.contains(helds), strict=True):
                    found[at] = is_there
        return found

    def _is_at(self, level: Level, meta: Meta) -> bool:
        return self.owner.is_live(meta, level.bit | place_of(meta))

    @property
    def is_sharing(self) -> bool:
        """Whether there are tiers that blocks go to as they are stored."""
        return any(level.on_store for level in self.shared)

    @property
    def is_up(self) -> bool:
        """Whether any of them takes blocks now."""
        return any(level.is_up for level in self.levels)

    async def share(self, items: Sequence[Put]) -> list[int | None]:
        """Into every tier that takes what is stored; the places, None where none has it now."""
        places: list[int | None] = [None] * len(items)

        async def put(level: Level) -> None:
            mine = [at for at, item in enumerate(items) if level.takes(item.meta)]
            for at, place in zip(mine, await self._put(level, [items[at] for at in mine]), strict=True):
                if place is not None:
                    places[at] = (places[at] or 0) | place

        await asyncio.gather(*(put(level) for level in self.shared if level.on_store and level.is_up))
        return places

    async def demote(self, item: Get) -> bool:
        """A block that is below host memory goes one tier further down, whatever its size."""
        tops = [level for level in self.levels if item.place & level.bit]
        lower = self.levels[self.levels.index(tops[0]) + 1 :] if tops else []
        if not lower:
            return False
        if not any(await self.still_have(tops[1:], [item.meta])):
            if await self._get([item], False) != [True] or not all(self._is_exact(level, item) for level in tops):
                return False
            place = None
            for level in lower:
                (place,) = await self.put_into([level], [Put(item.meta, item.into)], is_forced=True)
                if place is not None:
                    break
            if place is None:
                return False
        await self._leave(tops[0], item)
        return True

    async def _leave(self, top: Level, item: Get) -> None:
        """The block is elsewhere, and not there any more."""
        if top.shared is None:
            self.owner.lost(item.meta, top.bit | item.place & PLACE_LOCAL)
            return
        held = Held(item.meta, place_of(item.meta))
        async with top.order:
            if self._is_at(top, item.meta):  # else it was removed or replaced meanwhile
                self.owner.dropped(item.meta, top.bit | held.place)
                await top.shared.drop([held])

    # ---- up --------------------------------------------------------------------------------------------------------

    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        """From the first tier that has it and can be asked."""
        return await self._get(items, True)

    async def _get(self, items: Sequence[Get], is_used: bool) -> list[bool | None]:
        """`is_used`: cold blocks come into the warm tier on their way."""
        answers: list[bool | None] = [False] * len(items)
        for item in items:
            if nowhere := item.place & ~PLACE_LOCAL & ~self.bits:  # a tier that this node has not got
                self.owner.dropped(item.meta, nowhere)
        for level in self.levels:
            mine = [at for at, item in enumerate(items) if answers[at] is not True and item.place & level.bit]
            if not mine:
                continue
            if not level.is_readable:
                for at in mine:
                    answers[at] = None
                continue
            gets = [self._local(level, items[at]) for at in mine]
            is_cold = is_used and level.name in ("postgres", "objects") and self._is_warm_up()
            found = await (self._bring_to_warm(level, gets) if is_cold else level.tier.get(gets))
            for at, get, answer in zip(mine, gets, found, strict=True):
                if answer is False:
                    tell = self.owner.lost if level.shared is None else self.owner.dropped
                    tell(get.meta, level.bit | get.place)
                    answer = answers[at]  # None, if it may be in one above
                answers[at] = answer
        return answers

    @staticmethod
    def _local(level: Level, item: Get) -> Get:
        return item._replace(place=item.place & PLACE_LOCAL if level.shared is None else place_of(item.meta))

    def _is_warm_up(self) -> bool:
        return self.warm is not None and self.by_name["warm"].is_up

    async def _bring_to_warm(self, level: Level, gets: Sequence[Get]) -> list[bool | None]:
        """Cold blocks: by whoever is first, for all who want them. What the warm tier does not take is just read."""
        warm = self.by_name["warm"]
        answers: list[bool | None] = [None] * len(gets)
        wanted = [at for at, get in enumerate(gets) if warm.takes(get.meta)]
        plain = [at for at, get in enumerate(gets) if not warm.takes(get.meta)]
        async with self._loading([name_of(gets[at].meta) for at in wanted]) as is_mine:
            mine = [at for at, is_first in zip(wanted, is_mine, strict=True) if is_first]
            read = [*plain, *mine]
            if read:
                for at, answer in zip(read, await level.tier.get([gets[at] for at in read]), strict=True):
                    answers[at] = answer
            await self._put_warm(warm, [gets[at] for at in mine if answers[at] and self._is_exact(level, gets[at])])
        late = [at for at, is_first in zip(wanted, is_mine, strict=True) if not is_first]
        if late:
            self.waited += len(late)
            await asyncio.gather(*(self.warm.wait_for(name_of(gets[at].meta), WAIT_S) for at in late))
            for at, answer in zip(late, await warm.tier.get([gets[at] for at in late]), strict=True):
                answers[at] = answer
            for meta in [gets[at].meta for at in late if answers[at]]:
                self.owner.added(meta, warm.bit | place_of(meta))
            left = [at for at in late if not answers[at]]
            if left:
                for at, answer in zip(left, await level.tier.get([gets[at] for at in left]), strict=True):
                    answers[at] = answer
        return answers

    @contextlib.asynccontextmanager
    async def _loading(self, names: Sequence[Name]) -> AsyncIterator[list[bool]]:
        """The warm tier's locks; where it takes too long to give them everybody reads for himself."""
        is_mine, locks = [True] * len(names), contextlib.AsyncExitStack()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    is_mine = await locks.enter_async_context(self.warm.loading(names))
            yield is_mine
        finally:
            await self._patiently(locks.aclose, is_needed=True)

    @staticmethod
    def _is_exact(level: Level, get: Get) -> bool:
        """Whether what a tier gave are the bytes that the index knows: others can't be put under their checksum."""
        is_lossy = level.shared is not None and level.shared.is_lossy
        return not is_lossy or checksum(get.into) == get.meta.checksum

    async def _put_warm(self, warm: Level, gets: Sequence[Get]) -> None:
        if gets:
            items = [Put(get.meta, memoryview(get.into)) for get in gets]  # views of its own: readers let go of theirs
            places = await self._patiently(lambda: self._put(warm, items))
            self.brought += len(items) - places.count(None) if places is not None else 0

    async def contains(self, items: Sequence[Held]) -> list[bool]:
        """In whichever tier."""
        found = [False] * len(items)
        for level in self.levels:
            mine = [at for at, item in enumerate(items) if not found[at] and item.place & level.bit]
            if mine and level.is_readable:
                helds = [Held(items[at].meta, items[at].place & PLACE_LOCAL) for at in mine]
                for at, is_there in zip(mine, await level.tier.contains(helds), strict=True):
                    found[at] = is_there
        return found

    # ---- deleting --------------------------------------------------------------------------------------------------

    def everywhere(self, place: int | None) -> int:
        """The place of a block that is to be gone from shared tiers too, whether or not this node knows it there."""
        return (place or 0) | sum(level.bit for level in self.shared)

    async def delete(self, items: Sequence[Held]) -> list[bool]:
        """From the tiers that the places name. False: one could not be told, and will be.

        A shared tier has a name deleted only if the index does not say that a block of that name is there: whoever
        calls has taken the block out of the index.
        """
        gone = [True] * len(items)

        async def delete(level: Level) -> None:
            mine = [at for at, item in enumerate(items) if item.place & level.bit]
            helds = [Held(items[at].meta, items[at].place & PLACE_LOCAL) for at in mine]
            if helds:
                for at, is_gone in zip(mine, await self._delete(level, helds), strict=True):
                    gone[at] &= is_gone

        await asyncio.gather(*(delete(level) for level in self.levels))
        return gone

    async def _delete(self, level: Level, helds: Sequence[Held]) -> list[bool]:
        if level.shared is None:
            return await level.tier.delete(helds)
        if not level.is_readable:
            for held in helds:
                level.owe(held)
            return [False] * len(helds)
        async with level.order:
            return await self._tell(level, helds)

    async def _tell(self, level: Level, helds: Sequence[Held]) -> list[bool]:
        """Deletes names in a shared tier, whose `order` the caller has. What it could not be told it is owed."""
        told = [True] * len(helds)
        mine = [at for at, held in enumerate(helds) if not self.owner.is_live(held.meta, level.bit)]
        if mine:
            for at, is_gone in zip(mine, await level.tier.delete([helds[at] for at in mine]), strict=True):
                told[at] = is_gone
                if not is_gone:
                    level.owe(helds[at])
        return told

    def is_owed(self, name: Name, bits: int) -> bool:
        """Whether a block of that name in these tiers is still to be deleted there."""
        return any(name in level.owed for level in self.shared if level.bit & bits)

    async def _pay(self) -> None:
        """Tells those that are back what was deleted meanwhile."""
        try:
            await asyncio.gather(*(self._pay_to(level) for level in self.shared))
        except Exception:
            log.exception("Deleting in a tier that is back")
        finally:
            self._paying = None

    async def _pay_to(self, level: Level) -> None:
        while level.owed and level.is_readable:
            async with level.order:
                batch = list(islice(level.owed.values(), OWED_BATCH))
                told = await self._tell(level, batch)
                for held, is_gone in zip(batch, told, strict=True):
                    if is_gone:
                        level.owed.pop(name_of(held.meta), None)
            if not any(told):
                return

    # ---- figures ---------------------------------------------------------------------------------------------------

    def stats(self) -> TierStats:
        """Whether anything can be written below, and what all of them have."""
        all_ = [level.tier.stats() for level in self.levels]
        is_ok = any(stats.state == "ok" for stats in all_)
        error = "; ".join(f"{stats.name}: {stats.error}" for stats in all_ if stats.error)
        return TierStats(
            name=self.name, state="ok" if is_ok else "failing", error=error,
            blocks=sum(stats.blocks for stats in all_), bytes=sum(stats.bytes for stats in all_),
        )  # fmt: skip

    def tier_stats(self) -> list[TierStats]:
        """A tier each."""
        found = []
        for level in self.levels:
            stats = level.tier.stats()
            if level.shared is not None:
                stats.more |= {"deletes_owed": len(level.owed), "deletes_dropped": level.owed_dropped}
            if level.name == "warm":
                stats.more |= {"brought": self.brought, "waited": self.waited}
            found.append(stats)
        return found
