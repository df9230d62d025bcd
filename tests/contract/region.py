"""A region as a tier sees it, in plain dictionaries, and blocks to put there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from mmap import mmap
from random import Random

from tests.support import DEADLINE_S
from zeekdb.hot.crc64 import crc64
from zeekdb.tiers.tier import Get, Held, Meta, Put, Tier

Name = tuple[bytes, bytes, bytes]


def checksum(data: memoryview) -> int:
    """64 bits of the bytes."""
    return crc64(data)


def content(seed: int, size: int) -> bytes:
    """The bytes of a block, always the same for a seed."""
    return Random(seed).randbytes(size)


def aligned(data: bytes, offset: int = 0) -> memoryview:
    """The bytes in memory that direct I/O can use, or, with an offset, cannot."""
    view = memoryview(mmap(-1, len(data) + offset + 1))[offset : offset + len(data)]
    view[:] = data
    return view


def block(seed: int, size: int, *, key: bytes = b"", offset: int = 0, deadline: int = 0, salt: bytes = b"") -> Put:
    """A block whose content and key come from the seed."""
    data = content(seed, size)
    name = key or b"key:%d" % seed
    meta = Meta(b"m", salt, name, size, checksum(memoryview(data)), deadline, b"g", "raw")
    return Put(meta, aligned(data, offset))


class Region:
    """The index, the answers to a tier's questions, and a record of what it told."""

    def __init__(self) -> None:
        self.index: dict[Name, Held] = {}
        self.worth: set[bytes] | None = set()  # keys; None: all
        self.told: list[tuple[str, bytes]] = []
        self.below: dict[bytes, bytes] | None = None  # what was handed down; None: there is no tier below
        self.refused: set[bytes] = set()  # keys that it does not take

    @staticmethod
    def name(meta: Meta) -> Name:
        return meta.model, meta.salt, meta.key

    def is_live(self, meta: Meta, place: int) -> bool:
        held = self.index.get(self.name(meta))
        return held is not None and held.place == place

    def is_worth(self, meta: Meta, place: int) -> bool:
        assert self.is_live(meta, place)
        return self.worth is None or meta.key in self.worth

    def moved(self, meta: Meta, old_place: int, new_place: int) -> bool:
        self.told.append(("moved", meta.key))
        if not self.is_live(meta, old_place):
            return False
        self.index[self.name(meta)] = Held(meta, new_place)
        return True

    def dropped(self, meta: Meta, place: int) -> None:
        assert self.is_live(meta, place)
        self.told.append(("dropped", meta.key))
        del self.index[self.name(meta)]

    def goes_down(self, meta: Meta, place: int) -> bool:
        return self.below is not None

    async def hand_down(self, items: Sequence[Put]) -> list[bool]:
        assert self.below is not None
        taken = [item.meta.key not in self.refused for item in items]
        self.below |= {item.meta.key: bytes(item.data) for item, is_taken in zip(items, taken, strict=True) if is_taken}
        return taken

    # ---- what a region does with a tier ----------------------------------------------------------------------------

    async def load(self, tier: Tier) -> None:
        """Open, and take in what is there."""
        await tier.open()
        async for some in tier.scan():
            for held in some:
                assert self.name(held.meta) not in self.index, "a block came twice"
                self.index[self.name(held.meta)] = held

    async def put(self, tier: Tier, items: Sequence[Put]) -> list[bool]:
        """Which of them were stored."""
        places = await tier.put(items)
        for item, place in zip(items, places, strict=True):
            if place is not None:
                self.index[self.name(item.meta)] = Held(item.meta, place)
        return [place is not None for place in places]

    async def get(self, tier: Tier, keys: Sequence[bytes], salt: bytes = b"") -> list[bytes | None]:
        """The blocks' bytes."""
        wanted = [self.index.get((b"m", salt, key)) for key in keys]
        gets = [Get(held.meta, held.place, aligned(bytes(held.meta.size))) for held in wanted if held is not None]
        found = iter(zip(gets, await tier.get(gets), strict=True))
        out: list[bytes | None] = []
        for held in wanted:
            item, is_there = next(found) if held is not None else (None, False)
            out.append(bytes(item.into) if item is not None and is_there else None)
        return out

    async def delete(self, tier: Tier, keys: Sequence[bytes]) -> list[bool]:
        """Out of the index, then out of the tier."""
        return await tier.delete([self.index.pop((b"m", b"", key)) for key in keys])


async def wait_until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S, what: str = "") -> None:
    """Give the loop its turns until the condition holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"still not so after {deadline_s} s: {what or condition}"
        await asyncio.sleep(0)
