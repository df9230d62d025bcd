"""The power fails, or the process dies, while an object tier writes to a directory: what was confirmed is there.

The disk is that of disk.py: only what a sync has confirmed is certain, of files and of names. A crash is tried at many
moments of the journal; the next round goes on with what one of them has left.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from random import Random

import pytest

from tests.crash import disk
from tests.crash.objects_writer import Known, check, known_after, lines_of
from zeekdb.tiers.buckets import TEMPORARY, TEMPORARY_S

IMAGES = 12
LINES = 120
ROUNDS = 3


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return disk.build(tmp_path_factory.mktemp("disk"))
    except disk.NoCompiler as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_confirmed_is_on_the_disk(tmp_path: Path, library: Path, seed: int) -> None:
    dice = Random(seed)
    data, before, journal, image = (tmp_path / name for name in ("data", "before", "journal", "image"))
    data.mkdir()
    there: Known = {}
    most_sure = 0
    for number in range(1, ROUNDS + 1):
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(data, before)
        journal.unlink(missing_ok=True)
        environment = disk.environment(library, data, journal, dice.choice((0, 300, 3000)))
        lines = lines_of(data, seed * 100 + number, LINES, environment)
        records = disk.records(journal)
        assert {"O", "W", "S", "E", "R", "M"} <= {record.kind for record in records}
        state, done = disk.Disk(str(data), before), 0
        for moment in sorted(dice.randint(0, len(records) - 1) for _ in range(IMAGES)):
            for record in records[done:moment]:
                state.do(record)
            done = moment
            shutil.rmtree(image, ignore_errors=True)
            state.write(image, dice)
            known = known_after(lines, int(records[moment].time_s * 1e9), there)
            most_sure = max(most_sure, sum(len(versions) == 1 and versions != {0} for versions in known.values()))
            found = asyncio.run(check(image, known))
        shutil.rmtree(data)
        image.rename(data)
        there = found
    assert most_sure > 15


def test_a_killed_process_leaves_whole_blocks_or_none(tmp_path: Path) -> None:
    folder, random, known = tmp_path / "objects", Random(4), Known()
    for seed in range(8):
        lines = lines_of(folder, seed, random.randrange(40, 200))
        known = known_after(lines, time.monotonic_ns(), known)
        asyncio.run(check(folder, known))
    assert len(known) > 30
    for each in (folder / TEMPORARY).iterdir():
        os.utime(each, (time.time() - TEMPORARY_S - 1,) * 2)
    asyncio.run(check(folder, known))
    assert not list((folder / TEMPORARY).iterdir())
