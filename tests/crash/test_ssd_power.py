"""The power fails while an SSD tier works: whatever the disk may hold then, what was confirmed is there.

The disk is that of disk.py: only what a sync has confirmed is certain, of files and of names. A crash is tried at many
moments of the journal; the next round goes on with what one of them has left.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.contract.region import Region, content
from tests.crash import disk, ssd_writer
from tests.support import ROOT

LIMIT_BYTES = 4 << 20
IMAGES = 15
LINES = 120  # of the writer's, in a round
ROUNDS = 3


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return disk.build(tmp_path_factory.mktemp("disk"))
    except disk.NoCompiler as why:
        pytest.skip(str(why))


Line = tuple[int, str, int, int]  # time in ns, word, seed, size


def write(folder: Path, environment: dict[str, str], seed: int) -> list[Line]:
    """What a writer said until it was killed."""
    command = [sys.executable, "-m", "tests.crash.ssd_writer", str(folder), str(LIMIT_BYTES)]
    lines: list[Line] = []
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as writer:
        assert writer.stdin
        assert writer.stdout
        writer.stdin.write(f"{seed}\n")
        writer.stdin.close()
        pid = 0
        for line in writer.stdout:
            word, *numbers, time_ns = line.split()
            if word == "pid":
                pid = int(numbers[0])
            elif word in ("put", "will-delete", "deleted", "dropped"):
                lines.append((int(time_ns), word, int(numbers[0]), int(numbers[1]) if word == "put" else 0))
            if pid and len(lines) >= LINES:
                os.kill(pid, 9)
                pid = 0
    assert len(lines) >= LINES
    return lines


async def check(image: Path, before: dict[int, int], lines: list[Line], crash_ns: int) -> tuple[dict[int, int], int]:
    """(what is there, how many had to be)."""
    sure, gone = dict(before), set()
    for time_ns, word, seed, size in lines:
        if time_ns > crash_ns:
            continue
        if word == "put":
            sure[seed] = size
        else:
            sure.pop(seed, None)
            gone |= {seed} if word == "deleted" else set()
    region = Region()
    tier = ssd_writer.open_tier(image, region, 1 << 30)
    await region.load(tier)
    held = {int(name[2][4:]): held.meta.size for name, held in region.index.items()}
    assert not sure.keys() - held.keys(), "confirmed and not there"
    assert not gone & held.keys(), "deleted and there again"
    found = await region.get(tier, [b"key:%d" % seed for seed in held])
    for (seed, size), data in zip(held.items(), found, strict=True):
        assert data == content(seed, size), f"{seed} is corrupt"
    await tier.close()
    return held, len(sure)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_confirmed_is_on_the_disk(tmp_path: Path, library: Path, seed: int) -> None:
    dice = Random(seed)
    data, before, journal = tmp_path / "data", tmp_path / "before", tmp_path / "journal"
    data.mkdir()
    there: dict[int, int] = {}
    most_sure = 0
    for number in range(1, ROUNDS + 1):
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(data, before)
        journal.unlink(missing_ok=True)
        environment = disk.environment(library, data, journal, dice.choice((0, 300, 3000)))
        lines = write(data, environment, seed * 100 + number)
        records = disk.records(journal)
        assert {"O", "W", "S", "E"} <= {record.kind for record in records}
        state, done = disk.Disk(str(data), before), 0
        for moment in sorted(dice.randint(0, len(records) - 1) for _ in range(IMAGES)):
            for record in records[done:moment]:
                state.do(record)
            done = moment
            image = tmp_path / "image"
            shutil.rmtree(image, ignore_errors=True)
            state.write(image, dice)
            held, sure = asyncio.run(check(image, there, lines, int(records[moment].time_s * 1e9)))
            most_sure = max(most_sure, sure)
        shutil.rmtree(data)
        image.rename(data)
        there = held
    assert most_sure > 30
