"""A process that writes to an SSD tier until it is killed, and says on its standard output what was confirmed.

    python -m tests.crash.ssd_writer FOLDER LIMIT_BYTES

For each line on its standard input, a seed, it forks a child that opens the tier in the folder, scans it, and puts and
deletes without end; `pid N` says who that is. Deletions are announced (`will-delete`), and drops said before they
happen. Every line ends with the time (CLOCK_MONOTONIC, ns).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from random import Random

from tests.contract.region import Region, block, checksum
from zeekdb.tiers.ssd import SsdTier
from zeekdb.tiers.tier import Held, Meta

SEGMENTS = 6  # that the limit has room for
SIZES = (0, 100, 4096, 5000, 40_000, 250_000)


def say(*words: object) -> None:
    """One write, so that a kill leaves a whole line or none."""
    os.write(1, (" ".join(map(str, (*words, time.monotonic_ns()))) + "\n").encode())


class Speaking(Region):
    """Says what the tier drops."""

    def dropped(self, meta: Meta, place: int) -> None:
        say("dropped", int(meta.key[4:]))
        super().dropped(meta, place)


def open_tier(folder: Path, region: Region, limit_bytes: int) -> SsdTier:
    """With segments so small that they are finished and cleaned all the time."""
    return SsdTier(folder, limit_bytes, region, checksum, segment_bytes=limit_bytes // SEGMENTS)


async def write(folder: Path, limit_bytes: int, seed: int) -> None:
    """Until the end."""
    random, region = Random(seed), Speaking()
    region.worth = None if random.random() < 0.3 else set()
    tier = open_tier(folder, region, limit_bytes)
    await region.load(tier)
    say("open", len(region.index))

    async def put(number: int) -> None:
        items = [block(number * 100 + at, random.choice(SIZES)) for at in range(random.randrange(1, 8))]
        for item, place in zip(items, await tier.put(items), strict=True):
            if place is not None:
                region.index[region.name(item.meta)] = Held(item.meta, place)
                say("put", int(item.meta.key[4:]), item.meta.size)

    async def delete() -> None:
        names = random.sample(sorted(region.index), min(len(region.index), 3))
        keys = [name[2] for name in names]
        for key in keys:
            say("will-delete", int(key[4:]))
        if all(await region.delete(tier, keys)):
            for key in keys:
                say("deleted", int(key[4:]))

    number = seed * 1_000_000
    while True:
        await asyncio.gather(*(put(number + at) for at in range(3)), delete())
        number += 3


def main() -> None:
    folder, limit_bytes = Path(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(write(folder, limit_bytes, int(line)))
        say("pid", pid)
        os.waitpid(pid, 0)
        say("ended")


if __name__ == "__main__":
    main()
