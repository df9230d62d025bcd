"""Some of the cuts of cutting.py, and some of them with real servers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.crash.cutting import Cutting, ends, last, make
from tests.support import Server

StartServer = Callable[..., Server]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("aof"), 5)


def test_every_cut_gives_the_whole_commands_before_it(place: Path) -> None:
    cutting = Cutting(place)
    size = last(place).stat().st_size
    cutting.cut_last(sorted({*range(size - 300, size + 1), *range(0, size, 211)}, reverse=True))
    base = next(cutting.folder.glob("*.base.rdb")).stat().st_size
    cutting.cut_base(range(base - 1, -1, -1))
    assert cutting.seen["whole"] > 3


def test_damaged_files_are_refused_by_name_and_stay_as_they_are(place: Path) -> None:
    cutting, dice = Cutting(place), Random(5)
    for _ in range(300):
        cutting.damage(dice)
    assert cutting.seen["flipped .aof: refused"]


def test_a_server_goes_on_behind_the_cut(start_server: StartServer, place: Path, tmp_path: Path) -> None:
    whole = last(place).read_bytes()
    stops, dice = ends(whole), Random(6)
    for number in range(10):
        cut = dice.randrange(len(whole))
        copy = tmp_path / str(number)
        shutil.copytree(place, copy)
        last(copy).write_bytes(whole[:cut])
        options = ("--dir", str(copy), "--appendonly", "yes", "--save", "", "--appendfsync", "always")
        server = start_server(*options)
        with server.wire() as wire:
            assert wire("SET", "after", "the cut") == "OK"
        assert last(copy).read_bytes().startswith(whole[: max(stop for stop in stops if stop <= cut)])
        server.stop()
        with start_server(*options).wire() as wire:
            assert wire("GET", "after") == b"the cut"
