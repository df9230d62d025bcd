"""zeekdb check on files of real servers, whole and broken; what it repairs is loaded by real servers."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import REDIS, Server, encode, wait_for
from tests.tools.data import COMMANDS, fill
from zeekdb.cli import main
from zeekdb.hot.aofwalk import AofWalk
from zeekdb.hot.crc64 import crc64
from zeekdb.hot.keyspace import Keyspace
from zeekdb.hot.rdb import DamagedValue, encode_string
from zeekdb.hot.rdbwalk import RdbWalk
from zeekdb.persistence import rdb
from zeekdb.tools.check import check

StartServer = Callable[..., Server]
NAME = "appendonly.aof"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of redis-server: dump.rdb and appendonlydir."""
    folder = tmp_path_factory.mktemp("originals")
    arguments = ("--appendonly", "yes", "--aof-timestamp-enabled", "yes", "--appendfsync", "always", "--save", "")
    with Server(*arguments, program=REDIS) as server, server.wire() as wire:
        fill(wire)
        assert wire("SAVE") == "OK"
        shutil.copy(server.directory / "dump.rdb", folder)
        shutil.copytree(server.directory / "appendonlydir", folder / "appendonlydir")
    return folder


@pytest.fixture
def data(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "data"))


def increment(data: Path) -> Path:
    return data / "appendonlydir" / f"{NAME}.1.incr.aof"


def ask(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, Any]:
    """Exit status and JSON."""
    status = main(["check", *map(str, words), "--json"])
    return status, json.loads(capsys.readouterr().out or "null")


def test_what_is_whole(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = ask(capsys, data / "dump.rdb")
    assert status == 0 and found["ok"] and found["checksum"] == "right" and found["functions"] == 1
    assert found["databases"]["0"] == {
        "keys": 9, "types": {"string": 2, "list": 1, "set": 2, "hash": 2, "zset": 1, "stream": 1},
        "expires": 1, "expired": 0,
    }  # fmt: skip
    assert found["databases"]["3"]["keys"] == 2
    status, found = ask(capsys, data / "appendonlydir")
    base, incr = found["parts"]
    assert status == 0 and base["checksum"] == "right"
    assert incr["commands"] == len(COMMANDS) and incr["transactions"] == 1 and incr["timestamps"] >= 1
    assert main(["check", str(data)]) == 0
    shown = capsys.readouterr().out
    assert "all is well" in shown and "1 transaction" in shown and "db3: 2 keys" in shown
    status, found = ask(capsys, data / "appendonlydir" / f"{NAME}.manifest")
    assert status == 0 and [part["path"] for part in found["parts"]]


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 2
    assert main(["check", "--frobnicate", "x"]) == 2
    assert main(["check", str(tmp_path / "none")]) == 1
    (tmp_path / "text").write_text("hello")
    assert main(["check", str(tmp_path / "text")]) == 1
    assert main(["check", str(tmp_path)]) == 1
    assert main(["check", "--help"]) == 0
    assert "neither an RDB file nor" in capsys.readouterr().err


def test_an_rdb_file_torn_anywhere_is_mended(data: Path, start_server: StartServer) -> None:
    path = data / "dump.rdb"
    whole = path.read_bytes()
    walk = RdbWalk(whole)
    ends = [record.end for record in walk]
    assert walk.end == len(whole) and walk.checksum == "right"
    chance = random.Random(7)
    for size in sorted({9, *ends, len(whole) - 9, len(whole) - 1, *chance.sample(range(10, len(whole)), 200)}):
        path.write_bytes(whole[:size])
        report = check(path, fix=True)
        assert report.problems and report.fixed and report.well, size
        again = check(path)
        assert again.well and not again.problems and again.facts["checksum"] == "right", size
        kept = sum(contents["keys"] for contents in again.facts["databases"].values())
        assert kept == sum(end <= size for end in ends)
        (data / "dump.rdb.broken").unlink()
    path.write_bytes(whole[: ends[5] + 1])
    assert main(["check", "--fix", str(path)]) == 0
    assert (data / "dump.rdb.broken").read_bytes() == whole[: ends[5] + 1]
    subprocess.run(["redis-check-rdb", path], check=True, capture_output=True)
    for program in ({}, {"program": REDIS}):
        with start_server("--dir", str(data), "--save", "", **program).wire() as wire:
            wait_for(lambda: wire("PING") == "PONG")
            assert wire("DBSIZE") == 6


def test_flipped_bytes_are_found(data: Path) -> None:
    path = data / "dump.rdb"
    whole = path.read_bytes()
    chance = random.Random(8)
    for at in chance.sample(range(9, len(whole) - 8), 300):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        report = check(path)
        assert not report.well and report.facts["fault"]
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "checksum differs" in check(path).problems[0]
    assert check(path, fix=True).well
    assert path.read_bytes() == whole


def test_what_passes_can_be_loaded_and_nothing_else(data: Path) -> None:
    """Damage that no checksum guards against: the walk and the loader come to the same."""
    whole = (data / "dump.rdb").read_bytes()[:-8]
    chance = random.Random(9)
    passed = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(9, len(damaged))
            match chance.randrange(3):
                case 0:
                    damaged[at] = chance.choice((0, 1, 2, 7, 0x3F, 0x80, 0x81, 0xC0, 0xC3, 0xF5, 0xFA, 0xFE, 0xFF))
                case 1:
                    del damaged[at : at + chance.randrange(1, 40)]
                case _:
                    damaged[at:at] = chance.randbytes(chance.randrange(1, 20))
        image = bytes(damaged) + bytes(8)
        walk = RdbWalk(image)
        records = list(walk)
        keyspace = Keyspace(16, 1)
        try:
            loaded = rdb.load(keyspace, image, keep_expired=True)
        except DamagedValue:
            assert walk.fault or walk.cuts or walk.foreign or max(record.db for record in records) > 15
            continue
        passed += 1
        # A deadline damaged into the negative is one that has passed, whatever is kept.
        assert not walk.fault and walk.end == loaded.end and len(records) == loaded.keys + loaded.expired
        assert walk.libraries == loaded.libraries
    assert passed > 50


def test_the_key_and_the_place_are_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "dump.rdb"
    whole = bytearray(path.read_bytes())
    record = next(each for each in RdbWalk(bytes(whole)) if each.key == b"hash")
    del whole[record.value + 20 :]
    path.write_bytes(whole)
    assert main(["check", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "in the value of hash" in shown and f"whole up to {record.begin:,}" in shown and "--fix writes" in shown
    assert path.read_bytes() == whole


def test_collections_without_elements_are_left_out(tmp_path: Path) -> None:
    keys = b"\x00" + encode_string(b"a") + encode_string(b"1"), b"\x02" + encode_string(b"none") + b"\0"
    body = b"REDIS0010" + keys[0] + keys[1] + b"\x00" + encode_string(b"b") + encode_string(b"2") + b"\xff"
    path = tmp_path / "dump.rdb"
    path.write_bytes(body + crc64(body).to_bytes(8, "little"))
    report = check(path)
    assert "without elements" in report.problems[0] and "none" in report.problems[0]
    assert check(path, fix=True).well
    assert [record.key for record in RdbWalk(path.read_bytes())] == [b"a", b"b"]
    assert not check(path).problems


def test_values_of_modules_are_stepped_over(tmp_path: Path) -> None:
    module = b"\x81" + (0x1234567890 << 10).to_bytes(8, "big") + b"\x05" + encode_string(b"payload") + b"\x00"
    body = b"REDIS0010" + b"\x07" + encode_string(b"m") + module
    body += b"\x00" + encode_string(b"b") + encode_string(b"2") + b"\xff"
    path = tmp_path / "dump.rdb"
    path.write_bytes(body + bytes(8))
    report = check(path)
    assert "of modules" in report.problems[0] and "module " in str(report.lines)
    assert report.facts["databases"]["0"]["keys"] == 2
    assert report.facts["checksum"] == "none"


def test_a_torn_end_of_an_aof(data: Path, start_server: StartServer) -> None:
    path = increment(data)
    whole = path.read_bytes()
    group = whole.rindex(b"*1\r\n$5\r\nMULTI")
    behind = whole.index(b"EXEC\r\n", group) + 6
    for size in range(group + 1, behind):
        path.write_bytes(whole[:size])
        report = check(path)
        assert not report.well and report.facts["verdict"] == "torn" and report.facts["whole_bytes"] == group, size
    report = check(path, fix=True)
    assert report.well and path.read_bytes() == whole[:group]
    assert Path(f"{path}.cut-{group}").read_bytes() == whole[group : behind - 1]
    assert check(data / "appendonlydir").well
    with start_server("--dir", str(data), "--appendonly", "yes", "--aof-load-truncated", "no").wire() as wire:
        assert wire("DBSIZE") == 9


def test_what_is_called_whole_is_whole(data: Path) -> None:
    whole = increment(data).read_bytes()
    chance = random.Random(10)
    for _ in range(3000):
        damaged = bytearray(whole)
        at = chance.randrange(len(damaged))
        if chance.random() < 0.5:
            damaged[at] = chance.choice(b"*$#\r\n0129\0x")
        else:
            del damaged[at : at + chance.randrange(1, 50)]
        walk = AofWalk(bytes(damaged))
        walk.run()
        assert walk.whole <= len(damaged)
        again = AofWalk(bytes(damaged[: walk.whole]))
        again.run()
        assert again.verdict == "whole" and again.whole == walk.whole


def test_zeros_at_the_end_are_a_torn_end(data: Path) -> None:
    path = increment(data)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(4096))
    assert check(path, fix=True).well
    assert path.read_bytes() == whole


@pytest.mark.parametrize("change", [(b"RPUSH", b"RPU\0SH"), (b"$300\r\n", b"$3000000\r\n"), (b"*3\r\n", b"%3\r\n")])
def test_damage_in_the_middle_of_an_aof_is_no_torn_end(data: Path, change: tuple[bytes, bytes]) -> None:
    path = increment(data)
    damaged = path.read_bytes().replace(*change, 1)
    path.write_bytes(damaged)
    report = check(path, fix=True)
    assert not report.well and report.facts["verdict"] == "damaged" and "whole commands follow" in report.problems[0]
    assert path.read_bytes() == damaged
    report = check(path, fix=True, force=True)
    at = report.facts["whole_bytes"]
    assert report.well and path.read_bytes() == damaged[:at]
    assert Path(f"{path}.cut-{at}").read_bytes() == damaged[at:]


def test_the_one_file_of_older_servers(data: Path, tmp_path: Path) -> None:
    path = tmp_path / NAME
    commands = encode("SELECT", "0") + encode("SET", "a", "1")
    path.write_bytes((data / "dump.rdb").read_bytes() + commands)
    report = check(path)
    assert report.well and report.facts["commands"] == 2 and report.facts["checksum"] == "right"
    path.write_bytes((data / "dump.rdb").read_bytes() + commands + b"*2\r\n$3\r\nDE")
    assert check(path, fix=True).well
    assert path.read_bytes() == (data / "dump.rdb").read_bytes() + commands
    path.write_bytes(b"")
    assert check(path).well


def test_transactions_out_of_balance(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(encode("SET", "a", "1") + encode("EXEC") + encode("SET", "b", "1"))
    assert "EXEC without MULTI" in check(path).problems[0]
    path.write_bytes(encode("MULTI") + encode("SET", "a", "1") + encode("MULTI") + encode("EXEC"))
    report = check(path)
    assert "MULTI inside MULTI" in report.problems[0] and report.facts["whole_bytes"] == 0


def test_a_manifest_that_is_missing_or_broken_is_made_again(data: Path, start_server: StartServer) -> None:
    folder = data / "appendonlydir"
    manifest = folder / f"{NAME}.manifest"
    text = manifest.read_text()
    manifest.unlink()
    report = check(folder)
    assert not report.well and "--fix makes it again" in report.remedy
    assert check(folder, fix=True).well and manifest.read_text() == text
    manifest.write_text(text.replace("seq 1 type i", "seq x type i"))
    report = check(manifest)
    assert not report.well and "at line 2" in report.problems[0]
    assert check(manifest, fix=True).well and manifest.read_text() == text
    assert "seq x" in (folder / f"{NAME}.manifest.broken").read_text()
    with start_server("--dir", str(data), "--appendonly", "yes").wire() as wire:
        assert wire("DBSIZE") == 9


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (["1.base.rdb", "2.base.rdb", "2.incr.aof"], "2 bases"),
        (["3.base.rdb", "2.incr.aof", "3.incr.aof"], "older than"),
        (["2.incr.aof"], "no base"),
        (["1.base.rdb", "1.incr.aof", "3.incr.aof"], "gap"),
        (["", "1.base.rdb", "1.incr.aof"], "2 bases"),
    ],
)
def test_a_manifest_is_not_guessed(tmp_path: Path, files: list[str], why: str) -> None:
    for name in files:
        (tmp_path / (f"{NAME}.{name}" if name else NAME)).touch()
    report = check(tmp_path, fix=True)
    assert not report.well and why in report.remedy and not list(tmp_path.glob("*.manifest"))


def test_an_increment_older_than_its_base_is_not_taken(data: Path) -> None:
    folder = data / "appendonlydir"
    (folder / f"{NAME}.manifest").unlink()
    os.utime(increment(data), (1_000_000_000, 1_000_000_000))
    report = check(folder, fix=True)
    assert not report.well and "may be contained in it" in report.remedy


def test_serving_does_not_import_the_tools() -> None:
    code = "import sys, zeekdb.cli; print(sum(name.startswith('zeekdb.tools') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "0\n"


def test_the_base_of_an_older_server_is_a_base(tmp_path: Path) -> None:
    for name in (NAME, f"{NAME}.1.incr.aof"):
        (tmp_path / name).write_bytes(encode("SET", "a", "1"))
    assert check(tmp_path, fix=True).well
    text = (tmp_path / f"{NAME}.manifest").read_text()
    assert text == f"file {NAME} seq 1 type b\nfile {NAME}.1.incr.aof seq 1 type i\n"


def test_what_a_manifest_names_and_does_not(data: Path) -> None:
    folder = data / "appendonlydir"
    manifest = folder / f"{NAME}.manifest"
    (folder / f"{NAME}.2.incr.aof").write_bytes(encode("SET", "a", "1"))
    for path in (folder, manifest):
        assert any("a rewrite had begun" in note for note in check(path).notes)
    (folder / f"{NAME}.3.incr.aof").touch()
    manifest.write_text(manifest.read_text() + f"file {NAME}.3.incr.aof seq 3 type i\n")
    assert "not in the manifest, though" in check(folder).problems[0]
    (folder / f"{NAME}.2.incr.aof").unlink()
    report = check(folder)
    assert report.well and "no increment has the number 2" in report.notes[0]
    manifest.write_text(manifest.read_text().replace("seq 3 ", "seq 3000000 "))
    report = check(folder)
    assert report.well and len(report.notes[0]) < 100
    increment(data).unlink()
    assert "not there" in check(folder, fix=True).problems[0]


def test_only_the_last_file_may_be_torn(data: Path) -> None:
    folder, path = data / "appendonlydir", increment(data)
    manifest = folder / f"{NAME}.manifest"
    manifest.write_text(manifest.read_text() + f"file {NAME}.2.incr.aof seq 2 type i\n")
    (folder / f"{NAME}.2.incr.aof").touch()
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    (folder / f"{NAME}.2.incr.aof").write_bytes(encode("SET", "a", "1"))
    report = check(folder, fix=True)
    assert not report.well and path.read_bytes() == whole[:-3]
    (folder / f"{NAME}.2.incr.aof").write_bytes(b"")
    assert check(folder, fix=True).well and path.read_bytes() != whole[:-3]


def test_a_base_is_repaired_only_by_name(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = data / "appendonlydir" / f"{NAME}.1.base.rdb"
    shutil.copy(data / "dump.rdb", base)
    whole = base.read_bytes()
    base.write_bytes(whole[:-20])
    assert main(["check", "--fix", str(data / "appendonlydir")]) == 1
    assert base.read_bytes() == whole[:-20] and "at your own risk" in capsys.readouterr().out
    assert main(["check", "--fix", str(base)]) == 0
    assert main(["check", "--fix", str(data / "appendonlydir")]) == 0


def test_files_of_zeekdb(start_server: StartServer) -> None:
    server = start_server("--appendonly", "yes", "--appendfsync", "always")
    with server.wire() as wire:
        fill(wire)
        wire("SELECT", 3)
        wire("VADD", "v", "VALUES", 3, 1, 2, 3, "e")
        wire("SAVE")
        report = check(server.directory / "dump.rdb")
        assert report.well and report.facts["databases"]["3"]["types"]["vectorset"] == 1, report
        wire("BGREWRITEAOF")
        wait_for(lambda: check(server.directory / "appendonlydir").well, what="the rewrite's end")
