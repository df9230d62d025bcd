"""zeekdb check --cut-at: append-only files as they were at a moment, on which both servers start."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import REDIS, Server, encode, wait_for
from zeekdb.cli import main
from zeekdb.hot.crc64 import crc64
from zeekdb.hot.rdb import encode_string

StartServer = Callable[..., Server]
NAME = "appendonly.aof"
AOF = ("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--aof-timestamp-enabled", "yes")


def stamp(seconds: int) -> bytes:
    return b"#TS:%d\r\n" % seconds


BASE_RDB = b"REDIS0010\xfa" + encode_string(b"ctime") + encode_string(b"900") + b"\xfe\x00\x00"
BASE_RDB += encode_string(b"a") + encode_string(b"0") + b"\xff"
BASE_RDB += crc64(BASE_RDB).to_bytes(8, "little")
BASE_AOF = stamp(900) + encode("SELECT", 0) + encode("SET", "a", "0")
PIECES = {  # what each increment holds, cut where later seconds begin
    1: [(1000, encode("SELECT", 0) + encode("SET", "a", "1")),
        (1010, encode("MULTI") + encode("SET", "a", "2") + encode("SET", "b", "2") + encode("EXEC"))],
    2: [(1020, encode("SELECT", 0) + encode("SET", "a", "3")), (1030, encode("DEL", "a"))],
    3: [(1040, encode("SELECT", 0) + encode("SET", "a", "5"))],
}  # fmt: skip


def made(data: Path, base: bytes = BASE_RDB, stamped: bool = True) -> Path:
    """A data directory; its appendonlydir."""
    folder = data / "appendonlydir"
    folder.mkdir(parents=True)
    name = f"{NAME}.1.base.{'rdb' if base[:5] == b'REDIS' else 'aof'}"
    (folder / name).write_bytes(base)
    lines = [f"file {name} seq 1 type b\n"]
    for number, pieces in PIECES.items():
        content = b"".join((stamp(at_s) if stamped else b"") + piece for at_s, piece in pieces)
        (folder / f"{NAME}.{number}.incr.aof").write_bytes(content)
        lines.append(f"file {NAME}.{number}.incr.aof seq {number} type i\n")
    (folder / f"{NAME}.manifest").write_text("".join(lines))
    return folder


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    """Exit status and JSON."""
    status = main(["check", *map(str, words), "--json"])
    return status, json.loads(capsys.readouterr().out or "null")


@pytest.mark.parametrize("base", [BASE_RDB, BASE_AOF], ids=["rdb", "aof"])
@pytest.mark.parametrize(
    ("at", "expected", "files"),
    [
        (900, [b"0", None], 1), (999, [b"0", None], 1), (1000, [b"1", None], 1), (1010, [b"2", b"2"], 2),
        (1029, [b"3", b"2"], 2), (1030, [None, b"2"], 3), (1040, [b"5", b"2"], 3), (99999, [b"5", b"2"], 3),
    ],
)  # fmt: skip
def test_it_is_as_it_was(
    start_server: StartServer, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    base: bytes, at: int, expected: list[bytes | None], files: int,
) -> None:  # fmt: skip
    folder = made(tmp_path / "data", base)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    status, found = ask(capsys, tmp_path / "data" if at % 2 else folder, "--cut-at", at)
    assert status == 0 and bool(found["cut"]) == (at < 1040)
    assert len((folder / f"{NAME}.manifest").read_text().splitlines()) == 1 + files
    for each in found["cut"]:  # nothing is lost
        rest = (folder / each["kept"]).read_bytes()
        begin = (folder / each["file"]).read_bytes() if (folder / each["file"]).exists() else b""
        assert len(rest) == each["bytes"] and begin + rest == before[each["file"]] and len(begin) == each["offset"]
    status, found = ask(capsys, folder, "--cut-at", at)
    assert status == 0 and not found["cut"]
    for program in ({"program": REDIS}, {}):
        server = start_server(*AOF, "--dir", str(tmp_path / "data"), **program)
        with server.wire() as wire:
            assert wire("MGET", "a", "b") == expected
        server.terminate(signal.SIGKILL)


def test_what_cannot_be_told_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = (
        (made(tmp_path / "rdb"), 899, "its base is of"),
        (made(tmp_path / "aof", BASE_AOF), 899, "its base is of"),
        (made(tmp_path / "none", stamped=False), 1010, "no timestamps"),
        (made(tmp_path / "late", BASE_AOF.replace(stamp(900), b"")), 999, "timestamps begin at"),
        (made(tmp_path / "one") / f"{NAME}.2.incr.aof", 1020, "name the manifest"),
    )
    for path, at, why in cases:
        folder = path if path.is_dir() else path.parent
        before = {each.name: each.read_bytes() for each in folder.iterdir()}
        assert main(["check", str(path), "--cut-at", str(at)]) == 1
        assert why in capsys.readouterr().err
        assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
    assert main(["check", str(cases[0][0]), "--cut-at", "yesterday"]) == 2
    assert main(["check", str(cases[0][0]), "--cut-at", "1000", "--fix"]) == 2
    torn = cases[0][0] / f"{NAME}.3.incr.aof"
    torn.write_bytes(torn.read_bytes()[:-3])
    assert main(["check", str(cases[0][0]), "--cut-at", "1000"]) == 1
    assert "--fix" in capsys.readouterr().out and not list(cases[0][0].glob("*.cut-*"))


def test_one_file_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"".join(stamp(at_s) + piece for at_s, piece in PIECES[1]))
    assert ask(capsys, path, "--cut-at", 999)[0] == 1
    status, found = ask(capsys, path, "--cut-at", "1970-01-01T00:16:49Z")
    assert status == 0 and path.read_bytes() == stamp(1000) + PIECES[1][0][1]
    assert (tmp_path / found["cut"][0]["kept"]).read_bytes() == stamp(1010) + PIECES[1][1][1]


def test_the_files_of_a_live_server(
    start_server: StartServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the clock as it is."""
    (tmp_path / "live").mkdir()
    server = start_server(*AOF, "--dir", str(tmp_path / "live"))
    moments = []
    with server.wire() as wire:
        for turn in range(4):
            wire.pipeline([("MULTI",), ("SET", "a", turn), ("INCR", "b"), ("EXEC",)])
            moments.append(int(time.time()))
            wait_for(lambda: time.time() >= moments[-1] + 1)
    server.terminate()
    for turn, at_s in enumerate(moments):
        data = shutil.copytree(tmp_path / "live", tmp_path / str(turn))
        assert ask(capsys, data, "--cut-at", at_s)[0] == 0
        with start_server(*AOF, "--dir", str(data)).wire() as wire:
            assert wire("MGET", "a", "b") == [b"%d" % turn, b"%d" % (turn + 1)]
