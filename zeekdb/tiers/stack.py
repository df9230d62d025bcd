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

What a tier could not be told to delete, because it was down, is kept (`owed`) and told when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Protocol

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

log = logging.getLogger("zeekdb")

LEVELS: Final = ("ssd", "warm", "postgres", "objects")
PLACE_BITS: Final = PLACE_LOCAL.bit_length()
BITS: Final = {name: 1 << (PLACE_BITS + at) for at, name in enumerate(LEVELS)}
OWED_MAX: Final = 65_536  # deletions kept for a tier that is down; beyond, its own time to live has to do
OWED_BATCH: Final = 512
CHECK_S: Final = 2.0
WAIT_S: Final = 2.0  # how long one waits for another that brings a block to the warm tier


class StackOwner(Owner, Protocol):
    """The region, as the stack sees it: places have the tiers' bits."""

    def added(self, meta: Meta, place: int) -> bool:
        """The block is there as well; False: nobody wants it any more."""

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
        """Whether a tier below takes the block before it is dropped; False also where one has it already."""
        if self.stack is None or not self.stack.below_ssd:
            return False
        others = sum(BITS.values()) - BITS["ssd"]
        if any(self.owner.is_live(meta, bit) for bit in BITS.values() if bit & others):
            return False
        return any(level.takes(meta) for level in self.stack.below_ssd)

    async def hand_down(self, items: Sequence[Put]) -> list[bool]:
        """Which of them a tier below has now."""
        assert self.stack is not None
        places = await self.stack.put_into(self.stack.below_ssd, items)
        await self.stack.note([item.meta for item in items], places)
        return [place is not None for place in places]


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
        if len(self.owed) >= OWED_MAX:
            self.owed_dropped += 1
            return
        self.owed[name_of(held.meta)] = held


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
        await asyncio.gather(*tasks, return_exceptions=True)
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

    # ---- down ------------------------------------------------------------------------------------------------------

    async def put(self, items: Sequence[Put]) -> list[int | None]:
        """Each where it was to be shared anyway, or else into the first tier that takes it.

        The SSD tier comes last, as its places are to be written down at once.
        """
        places = await self.share(items)
        ssd = self.by_name.get("ssd")
        is_ssd_up = ssd is not None and ssd.is_up
        left = [at for at, place in enumerate(places) if place is None]
        others = left if not is_ssd_up else [at for at in left if ssd is not None and not ssd.takes(items[at].meta)]
        if others:
            for at, place in zip(others, await self.put_into(self.shared, [items[at] for at in others]), strict=True):
                places[at] = place
        mine = [at for at in left if at not in set(others)]
        if mine and ssd is not None:
            for at, place in zip(mine, await ssd.tier.put([items[at] for at in mine]), strict=True):
                places[at] = ssd.bit | place if place is not None else None
        return places

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
        async with level.order:
            places = await level.tier.put(items)
        for item, place in zip(items, places, strict=True):
            if place is not None:
                level.owed.pop(name_of(item.meta), None)
        return [level.bit | place if place is not None else None for place in places]

    async def note(self, metas: Sequence[Meta], places: Sequence[int | None]) -> None:
        """Blocks have come to further tiers; what nobody wants any more goes out again."""
        unwanted = [
            Held(meta, place)
            for meta, place in zip(metas, places, strict=True)
            if place is not None and not self.owner.added(meta, place)
        ]
        if unwanted:
            await self.delete(unwanted)

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
        for level in self.shared:
            mine = [at for at, item in enumerate(items) if level.takes(item.meta)]
            if level.on_store and mine and level.is_up:
                for at, place in zip(mine, await self._put(level, [items[at] for at in mine]), strict=True):
                    if place is not None:
                        places[at] = (places[at] or 0) | place
        return places

    async def demote(self, item: Get) -> bool:
        """A block that is below host memory goes one tier further down, whatever its size."""
        tops = [level for level in self.levels if item.place & level.bit]
        if not tops:
            return False
        lower = self.levels[self.levels.index(tops[0]) + 1 :]
        if len(tops) == 1 or tops[1] not in lower:
            if not lower or await self.get([item]) != [True]:
                return False
            for level in lower:
                (place,) = await self.put_into([level], [Put(item.meta, item.into)], is_forced=True)
                if place is not None:
                    break
            await self.note([item.meta], [place])
            if place is None:
                return False
        top = tops[0]
        local = item.place & PLACE_LOCAL if top.shared is None else place_of(item.meta)
        self.owner.dropped(item.meta, top.bit | local)
        await (top.shared.drop if top.shared is not None else top.tier.delete)([Held(item.meta, local)])
        return True

    # ---- up --------------------------------------------------------------------------------------------------------

    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        """From the first tier that has it and can be asked."""
        answers: list[bool | None] = [False] * len(items)
        for level in self.levels:
            mine = [at for at, item in enumerate(items) if answers[at] is not True and item.place & level.bit]
            if not mine:
                continue
            if not level.is_readable:
                for at in mine:
                    answers[at] = None
                continue
            gets = [self._local(level, items[at]) for at in mine]
            is_cold = level.name in ("postgres", "objects") and self._is_warm_up()
            found = await (self._bring_to_warm(level, gets) if is_cold else level.tier.get(gets))
            for at, get, answer in zip(mine, gets, found, strict=True):
                if answer is False:
                    self.owner.dropped(get.meta, level.bit | get.place)
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
        async with self.warm.loading([name_of(gets[at].meta) for at in wanted]) as is_mine:
            mine = [at for at, is_first in zip(wanted, is_mine, strict=True) if is_first]
            read = [*plain, *mine]
            if read:
                for at, answer in zip(read, await level.tier.get([gets[at] for at in read]), strict=True):
                    answers[at] = answer
            await self._put_warm(warm, [gets[at] for at in mine if answers[at]])
        late = [at for at, is_first in zip(wanted, is_mine, strict=True) if not is_first]
        if late:
            self.waited += len(late)
            await asyncio.gather(*(self.warm.wait_for(name_of(gets[at].meta), WAIT_S) for at in late))
            for at, answer in zip(late, await warm.tier.get([gets[at] for at in late]), strict=True):
                answers[at] = answer
            found = [gets[at].meta for at in late if answers[at]]
            await self.note(found, [warm.bit | place_of(meta) for meta in found])
            left = [at for at in late if not answers[at]]
            if left:
                for at, answer in zip(left, await level.tier.get([gets[at] for at in left]), strict=True):
                    answers[at] = answer
        return answers

    async def _put_warm(self, warm: Level, gets: Sequence[Get]) -> None:
        if gets:
            places = await self._put(warm, [Put(get.meta, get.into) for get in gets])
            self.brought += len(places) - places.count(None)
            await self.note([get.meta for get in gets], places)

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
        """From the tiers that the places name. False: one could not be told, and will be."""
        gone = [True] * len(items)
        for level in self.levels:
            mine = [at for at, item in enumerate(items) if item.place & level.bit]
            if not mine:
                continue
            helds = [Held(items[at].meta, items[at].place & PLACE_LOCAL) for at in mine]
            for at, held, is_gone in zip(mine, helds, await self._delete(level, helds), strict=True):
                if not is_gone:
                    gone[at] = False
                    if level.shared is not None:
                        level.owe(held)
        return gone

    async def _delete(self, level: Level, helds: Sequence[Held]) -> list[bool]:
        if level.shared is None:
            return await level.tier.delete(helds)
        if not level.is_readable:
            return [False] * len(helds)
        async with level.order:
            return await level.tier.delete(helds)

    async def _pay(self) -> None:
        """Tells those that are back what was deleted meanwhile."""
        try:
            for level in self.shared:
                while level.owed and level.is_readable:
                    batch = [level.owed.pop(name) for name in list(level.owed)[:OWED_BATCH]]
                    async with level.order:
                        told = await level.tier.delete(batch)
                    for held, is_gone in zip(batch, told, strict=True):
                        if not is_gone:
                            level.owe(held)
                    if not any(told):
                        break
        except Exception:
            log.exception("Deleting in a tier that is back")
        finally:
            self._paying = None

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
