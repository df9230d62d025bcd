"""A few rounds of power.py, the simulated disk it stands on, and what the rounds have found."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.crash import disk
from tests.crash.loading import Loader, Refused
from tests.crash.power import SCENARIOS, Power
from tests.support import Server, encode, wait_for

StartServer = Callable[..., Server]
NAME = "appendonly.aof"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return disk.build(tmp_path_factory.mktemp("disk"))
    except disk.NoCompiler as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("mode", ["always", "everysec"])
def test_what_was_acknowledged_is_on_the_disk(tmp_path: Path, library: Path, mode: str, scenario: str) -> None:
    power = Power(mode, 3, tmp_path, library)
    for run_s in (0.3, 0.5) if mode == "always" else (2.5,):
        power.round(run_s, 15, scenario)
    assert power.seen["images"] >= 15


def records(*wanted: tuple[str, int, int, bytes, bytes]) -> list[disk.Record]:
    return [disk.Record(*each, 0.0) for each in wanted]


def test_the_simulated_disk_forgets_what_was_not_synced(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "a").write_bytes(b"old")
    one = disk.Disk("/d", before)
    done = records(
        ("O", 3, 1, b"/d/a", b""), ("W", 3, 3, b"synced", b""), ("S", 3, 1, b"", b""), ("W", 3, 9, b"x" * 2000, b""),
        ("E", 3, 1, b"", b""), ("O", 4, 64 | 1, b"/d/new", b""), ("R", -1, 0, b"/d/a", b"/d/b"),
    )  # fmt: skip
    for record in done:
        one.do(record)
    seen = set()
    for seed in range(200):
        one.write(tmp_path / str(seed), Random(seed))
        files = {path.name: path.read_bytes() for path in (tmp_path / str(seed)).iterdir()}
        assert len(files.keys() & {"a", "b"}) == 1
        content = files.get("a") or files["b"]
        assert content.startswith(b"oldsynced")
        assert set(content[9:]) <= {0, ord("x")}
        seen.add((frozenset(files), len(content), content.count(0)))
    assert len({names for names, *_ in seen}) == 4
    assert {zeros > 0 for *_, zeros in seen} == {True, False}
    one.do(disk.Record("O", 5, 0, b"/d", b"", 0.0))
    for record in records(("S", 5, 2, b"", b""), ("S", 3, 3, b"", b""), ("E", 5, 2, b"", b""), ("E", 3, 3, b"", b"")):
        one.do(record)
    one.write(tmp_path / "sure", Random(1))
    assert {path.name for path in (tmp_path / "sure").iterdir()} == {"b", "new"}
    assert (tmp_path / "sure" / "b").read_bytes() == b"oldsynced" + b"x" * 2000


def incomplete(tmp_path: Path, rest: bytes) -> Path:
    """An append-only file that ends in this."""
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / f"{NAME}.manifest").write_text(f"file {NAME}.1.incr.aof seq 1 type i\n")
    file = folder / f"{NAME}.1.incr.aof"
    file.write_bytes(encode("SELECT", "0") + encode("SET", "a", "1") + rest)
    return file


HOLE = bytes(512 - len(encode("SELECT", "0") + encode("SET", "a", "1")))
BEHIND = encode("SET", "b", "x" * 100)


@pytest.mark.parametrize("rest", [b"\0", bytes(5000), HOLE + BEHIND, HOLE + bytes(512) + BEHIND, HOLE + BEHIND[:50]])
def test_what_the_disk_never_got_is_cut(tmp_path: Path, rest: bytes) -> None:
    file = incomplete(tmp_path, rest)
    loader = Loader()
    loader.load(tmp_path)
    assert loader.databases[0].keys() == [b"a"]
    assert file.read_bytes() == encode("SELECT", "0") + encode("SET", "a", "1")
    assert [path.read_bytes() for path in file.parent.glob("cut-*")] == ([rest] if any(rest) else [])


def test_zeros_elsewhere_are_damage(tmp_path: Path) -> None:
    for number, rest in enumerate((b"\0" + BEHIND, HOLE[:-1] + BEHIND)):
        place = tmp_path / str(number)
        place.mkdir()
        file = incomplete(place, rest)
        before = file.read_bytes()
        with pytest.raises(Refused, match=f"at offset {512 - len(HOLE)}: a command was expected"):
            Loader().load(place)
        assert file.read_bytes() == before


def test_a_wrong_length_is_no_torn_end(tmp_path: Path) -> None:
    flipped = encode("SET", "k", "v").replace(b"$1\r\nv", b"$900000\r\nv")
    file = incomplete(tmp_path, flipped + encode("SET", "x", "1") + encode("SET", "y", "1"))
    before = file.read_bytes()
    with pytest.raises(Refused, match="its length is wrong"):
        Loader().load(tmp_path)
    assert file.read_bytes() == before


@pytest.mark.parametrize("appendonly", ["yes", "no"])
def test_a_snapshot_survives_a_crash_when_the_file_begins(
    start_server: StartServer, tmp_path: Path, appendonly: str
) -> None:
    first = start_server("--dir", str(tmp_path))
    with first.wire() as wire:
        wire.pipeline([("SET", f"k{n}", "v") for n in range(1000)])
        assert wire("SAVE") == "OK"
    first.terminate(signal.SIGKILL)
    second = start_server("--dir", str(tmp_path), "--appendonly", appendonly)
    with second.wire() as wire:
        if appendonly == "no":
            wire.pipeline([("CONFIG", "SET", "appendonly", "yes"), ("SET", "after", "1")])
        wait_for(lambda: (tmp_path / "appendonlydir").exists())
    second.terminate(signal.SIGKILL)
    with start_server("--dir", str(tmp_path), "--appendonly", "yes").wire() as wire:
        assert wire("EXISTS", *(f"k{n}" for n in range(1000))) == 1000


@pytest.mark.parametrize("kept", [0, 1, 4, 9, 15, 16])
@pytest.mark.parametrize("before", [b"", encode("SET", "b", "1")])
def test_a_hole_that_begins_in_an_annotation(
    start_server: StartServer, tmp_path: Path, before: bytes, kept: int
) -> None:
    """The file has its length, but from a sector's begin on, or from the end of a write on, there are only zeros."""
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / f"{NAME}.manifest").write_text(f"file {NAME}.1.incr.aof seq 1 type i\n")
    head = encode("SELECT", 0) + encode("SET", "a", "1") + before
    line = b"#TS:1795000000\r\n"
    behind = encode("SET", "a", "2") + b"".join(encode("SET", f"k{n}", "v") for n in range(40))
    if 0 < kept < len(line):  # a sector ends inside the line
        head += encode("SET", "x", "y" * (512 - kept - len(head) - len(encode("SET", "x", "y" * 300)) + 300))
        assert len(head) + kept == 512
    whole = head + line + behind
    at = len(head) + kept
    (folder / f"{NAME}.1.incr.aof").write_bytes(whole[:at] + bytes(1024 - at) + whole[1024:])
    with start_server("--dir", str(tmp_path), "--appendonly", "yes").wire() as wire:
        assert wire("GET", "a") == b"1" and wire("EXISTS", "k39") == 0
        assert wire("EXISTS", "b") == bool(before)
