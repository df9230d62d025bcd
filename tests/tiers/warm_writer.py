"""A program that puts blocks until it is killed, for `test_warm_failures.py`: its argument is a URL."""

from __future__ import annotations

import asyncio
import itertools
import sys

import uvloop

from tests.tiers.warm import KIB, item_of
from zeekdb.tiers.warm import WarmTier


async def main(url: str) -> None:
    tier = WarmTier(url, chunk_bytes=4 * KIB)
    await tier.open()

    async def put(first: int) -> None:
        for seed in itertools.count(first, 4):
            (place,) = await tier.put([item_of(seed, 1024 * KIB + seed % 7)])
            print(seed if place is not None else -1, flush=True)

    await asyncio.gather(*(put(first) for first in range(4)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
