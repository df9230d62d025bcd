"""A process that writes to an object tier in a directory until it is killed, and says what it does.

    python -m tests.crash.objects_writer FOLDER SEED

Four tasks put and delete, each keys of its own: `will-put KEY VERSION`, `put KEY VERSION` once that is confirmed, the
same with `delete` (VERSION 0). Every line ends with the time (CLOCK_MONOTONIC, ns).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.support import ROOT
from zeekdb.hot.checksum import checksum
from zeekdb.tiers.objects import ObjectTier
from zeekdb.tiers.tier import Get, Held, Meta, Put, place_of

TASKS = 4
KEYS = 12  # of a task
SIZES = (100, 5000, 70_000, 300_000)  # no two versions are alike


class Line(NamedTuple):
    """What a writer said."""

    time_ns: int
    word: str
    key: int
    version: int


def block(key: int, version: int) -> Put:
    """Its bytes and its name come from the numbers."""
    random = Random(key << 32 | version)
    data = random.randbytes(random.choice(SIZES))
    return Put(Meta(b"m", b"", b"%d" % key, len(data), checksum(data), group=b"%d" % version), memoryview(data))


def say(word: str, key: int, version: int) -> None:
    """One write, so that a kill leaves a whole line or none."""
    os.write(1, f"{word} {key} {version} {time.monotonic_ns()}\n".encode())


async def write(folder: str, seed: int) -> None:
    """Until the end."""
    tier = ObjectTier(f"file://{folder}")
    await tier.open()

    async def work(task: int) -> None:
        random, version = Random(seed * TASKS + task), seed << 20
        while True:
            version += 1
            key = random.randrange(KEYS) * TASKS + task
            if random.random() < 0.25:
                say("will-delete", key, 0)
                assert await tier.delete([Held(block(key, 0).meta, 0)]) == [True]
                say("delete", key, 0)
            else:
                say("will-put", key, version)
                assert await tier.put([block(key, version)]) != [None]
                say("put", key, version)

    await asyncio.gather(*(work(task) for task in range(TASKS)))


def lines_of(folder: Path, seed: int, count: int, environment: dict[str, str] | None = None) -> list[Line]:
    """What a writer said until it was killed, after so many lines."""
    command = [sys.executable, "-m", "tests.crash.objects_writer", str(folder), str(seed)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    ) as writer:
        assert writer.stdout
        said = [writer.stdout.readline() for _ in range(count)]
        writer.kill()
        said += writer.stdout.read().splitlines()
    found = []
    for word, *numbers in map(str.split, said):
        key, version, time_ns = map(int, numbers)
        found.append(Line(time_ns, word, key, version))
    return found


Known = dict[int, set[int]]  # versions that may lie under a key; 0: none


def known_after(lines: list[Line], until_ns: int, before: Known) -> Known:
    """What may be there at that moment, by what was said."""
    known = {key: set(versions) for key, versions in before.items()}
    for time_ns, word, key, version in lines:
        if time_ns > until_ns:
            continue
        if word.startswith("will-"):
            known.setdefault(key, {0}).add(version)
        else:
            known[key] = {version}
    return known


async def check(folder: Path, known: Known) -> Known:
    """What is there, which is exactly as it should be."""
    tier = ObjectTier(f"file://{folder}")
    await tier.open()
    metas = [held.meta async for page in tier.scan() for held in page]
    found = {int(meta.key): {int(meta.group)} for meta in metas}
    assert len(found) == len(metas)
    gets = [Get(meta, place_of(meta), memoryview(bytearray(meta.size))) for meta in metas]
    assert await tier.get(gets) == [True] * len(gets), "a torn block can be seen"
    for get in gets:
        assert bytes(get.into) == block(int(get.meta.key), int(get.meta.group)).data
    for key, versions in known.items():
        assert found.get(key, {0}) <= versions, f"of key {key} there is {found.get(key)}, not one of {versions}"
    assert found.keys() <= known.keys()
    assert tier.stats().corrupt == 0
    await tier.close()
    return found


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], int(sys.argv[2])))
