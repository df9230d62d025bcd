"""How the SSD tier keeps its size limit: the oldest segment is emptied and removed.

What the region has used since it came to the segment is appended again, the rest is dropped: a CLOCK over the log, in
which a stay can be earned again and again. Copies are bounded by COPY_SHARE of the segment, so that every segment that
is cleaned frees the rest of it, however much of it is worth keeping; wear grows by at most 1 / (1 - COPY_SHARE).
Where there is a tier below, what would be dropped is handed to it first; what it cannot take may stay here, as far as
COPY_SHARE allows.
Tombstones in the oldest segment can go: what they are about was older still.

Cleaning begins when less than a segment is free and goes in steps of STEP_BYTES, between which puts have their turn; a
put that finds no room at all waits for it. Space: the limit, plus the copies of one segment, which are less than one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from zeekdb.tiers.log import Append, Log
from zeekdb.tiers.record import GRID, Kind, Record, place_of
from zeekdb.tiers.segment import Segment
from zeekdb.tiers.tier import Get, Held, Owner, Put
from zeekdb.tiers.transfer import pages

logger = logging.getLogger(__name__)

COPY_SHARE: Final = 0.5  # of a segment's bytes
STEP_BYTES: Final = 8 << 20
TURN_BLOCKS: Final = 128  # asked about before the loop has its turn
READ_FAILURES_MAX: Final = 3  # of a segment's headers, before it is given up

Read = Callable[[Sequence[Get]], Awaitable[list[bool]]]


class Cleaner:
    """One cleaning at a time, as a task on the loop."""

    def __init__(
        self, log: Log, owner: Owner, read: Read, now: Callable[[], int], limit_bytes: int
    ) -> None:
        self.log = log
        self.owner = owner
        self.limit_bytes = limit_bytes
        self.moved = self.dropped = self.cleaned = 0
        self._read = read
        self._now = now
        self._freed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.is_ready = False  # the region knows what there is

    # ---- when ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Clean, if that is needed and not under way."""
        if self._is_needed() and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._clean())

    def _is_needed(self) -> bool:
        if self._is_stopping or not self.is_ready or self.log.state != "ok":
            return False
        oldest = self._oldest()
        if oldest is None and len(self.log.segments) > 1:
            return False  # its blocks would seem dead
        is_empty = oldest is not None and not oldest.live_blocks and not oldest.is_doubtful
        return is_empty or self.log.used_bytes > self.limit_bytes - self.log.segment_bytes

    def _oldest(self) -> Segment | None:
        """The oldest segment, if it can be cleaned."""
        first = next(iter(self.log.segments.values()), None)
        return first if first is not None and first.is_finished and not first.unreported else None

    async def wait_for_room(self, size: int) -> bool:
        """Until so many bytes can be appended within the limit; False: there is no room, and nobody can make any."""
        while self.log.used_bytes + size > self.limit_bytes and self.log.state == "ok" and not self._is_stopping:
            self.begin()
            if self._task is None or self._task.done():
                break
            self._freed.clear()
            await self._freed.wait()
        return self.log.used_bytes + size <= self.limit_bytes

    def stop(self) -> None:
        """Come to an end soon."""
        self._is_stopping = True
        self._freed.set()

    async def wait(self) -> None:
        """The end of what is under way."""
        if self._task is not None:
            await self._task

    # ---- how -------------------------------------------------------------------------------------------------------

    async def _clean(self) -> None:
        try:
            while self._is_needed():
                segment = self._oldest()
                if segment is None:
                    if self.log.active is None or self.log.active.end <= GRID or self.log.active.unreported:
                        return
                    async with self.log.lock:
                        await self.log.finish()
                    continue
                await self._clean_segment(segment)
                self._freed.set()
        except OSError as error:
            self.log.fail(error)  # what heals it begins again
        except Exception:
            logger.exception("Cleaning the SSD tier")
            self.is_ready = False  # a bug of ours would only meet itself again; puts that find no room are not stored
        finally:
            self._freed.set()

    async def _clean_segment(self, segment: Segment) -> None:
        if not segment.is_retired:
            await self._empty(segment, await self._records(segment))
            if self._is_stopping:
                return
            segment.is_retired = True
        await segment.wait_unused()
        await self.log.run(self.log.files.remove, segment)
        del self.log.segments[segment.number]
        self.log.used_bytes -= segment.end
        self.cleaned += 1

    async def _records(self, segment: Segment) -> list[Record]:
        try:
            return await self.log.run(self.log.files.records, segment)
        except OSError:
            segment.failures += 1
            if segment.failures < READ_FAILURES_MAX:
                raise
            logger.warning("The SSD tier gives up %s, which cannot be read", segment.path)
            return []

    async def _empty(self, segment: Segment, records: list[Record]) -> None:
        """Copy what is worth it, drop the rest."""
        room = int(segment.end * COPY_SHARE)
        step: list[Held] = []
        down: list[Held] = []
        step_bytes = down_bytes = 0
        now = self._now()
        for count, record in enumerate(records):
            if count % TURN_BLOCKS == TURN_BLOCKS - 1:
                await asyncio.sleep(0)
            if self._is_stopping:
                return
            if record.kind != Kind.BLOCK:
                continue
            held = Held(record.meta, place_of(segment.number, record.page, record.pages))
            if not self.owner.is_live(*held):
                continue
            size = (record.end - record.page) * GRID
            is_expired = 0 < held.meta.deadline <= now
            if not is_expired and size <= room and self.owner.is_worth(*held):
                room -= size
                step.append(held)
                step_bytes += size
                if step_bytes >= STEP_BYTES:
                    await self._move(step)
                    step, step_bytes = [], 0
            elif not is_expired and self.owner.goes_down(*held):
                down.append(held)
                down_bytes += size
                if down_bytes >= STEP_BYTES:
                    room = await self._hand_down(down, room)
                    down, down_bytes = [], 0
            else:
                self._drop(held)
        await self._hand_down(down, room)
        await self._move(step)

    async def _hand_down(self, step: list[Held], room: int) -> int:
        """Give these to the tier below; what it does not take stays, as far as there is room. What is left of it."""
        if not step:
            return room
        gets = [Get(meta, place, pages(-(-meta.size // GRID))[: meta.size]) for meta, place in step]
        whole = await self._read(gets)
        there = [(held, get) for held, get, is_whole in zip(step, gets, whole, strict=True) if is_whole]
        taken = await self.owner.hand_down([Put(held.meta, get.into) for held, get in there]) if there else []
        stay: list[Held] = []
        for (held, _), is_taken in zip(there, taken, strict=True):
            if not is_taken and held.meta.size <= room:
                room -= held.meta.size
                stay.append(held)
        staying = {held.place for held in stay}
        for held in step:
            if held.place not in staying and self.owner.is_live(*held):
                self._drop(held)
        await self._move(stay)
        return room

    def _drop(self, held: Held) -> None:
        self.dropped += 1
        self.log.count(held.place, held.meta.size, -1)
        self.owner.dropped(*held)

    async def _move(self, step: list[Held]) -> None:
        """Append these blocks again and tell the region. OSError."""
        if not step:
            return
        gets = [Get(meta, place, pages(-(-meta.size // GRID))[: meta.size]) for meta, place in step]
        found = await self._read(gets)
        copies: list[tuple[Held, Append]] = []
        async with self.log.lock:
            for held, got, is_there in zip(step, gets, found, strict=True):
                if not self.owner.is_live(*held):
                    continue  # deleted meanwhile: its tombstone may be written already, and must stay the last word
                if is_there:
                    copies.append((held, Append(held.meta, got.into)))
                else:
                    self._drop(held)
            if copies:
                await self.log.append([append for _, append in copies])
        for held, append in copies:
            if append.place is None:
                continue
            self.log.count(held.place, held.meta.size, -1)
            if self.owner.moved(held.meta, held.place, append.place):
                self.moved += 1
            else:
                self.log.count(append.place, held.meta.size, -1)
