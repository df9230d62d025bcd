"""What the tests of the warm tier share: tiers that are closed with the test, and conditions that ask the tier."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio

from tests.contract.region import block
from tests.support import DEADLINE_S
from zeekdb.hot.checksum import checksum
from zeekdb.tiers.tier import Get, Meta, Put, place_of
from zeekdb.tiers.warm import WarmTier

KIB = 1 << 10
Open = Callable[..., Awaitable[WarmTier]]


@pytest_asyncio.fixture
async def open_tier() -> AsyncIterator[Open]:
    """Opens tiers: a URL, and what else WarmTier has. Chunks are of 64 KiB unless told otherwise."""
    opened: list[WarmTier] = []

    async def make(url: str, *arguments: Any, **options: Any) -> WarmTier:
        tier = WarmTier(url, *arguments, **{"chunk_bytes": 64 * KIB, **options})
        opened.append(tier)
        await tier.open()
        return tier

    yield make
    for tier in opened:
        await tier.close()


def item_of(seed: int, size: int, **names: Any) -> Put:
    """A block with the region's own checksum."""
    made = block(seed, size, **names)
    return Put(made.meta._replace(checksum=checksum(made.data)), made.data)


def get_of(meta: Meta) -> Get:
    """A request for a block, into memory of its own."""
    return Get(meta, place_of(meta), memoryview(bytearray(meta.size)))


async def read(tier: WarmTier, item: Put) -> bool | None:
    """What the tier says of a block; when that is True, its bytes are right."""
    get = get_of(item.meta)
    (answer,) = await tier.get([get])
    assert answer is not True or get.into == item.data
    return answer


async def until(condition: Callable[[], Awaitable[bool]], deadline_s: float = DEADLINE_S, what: str = "") -> float:
    """Asks again and again; how long it took, in seconds."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < deadline_s, f"still not so after {deadline_s} s: {what or condition}"
        await asyncio.sleep(0)
    return time.monotonic() - began
