"""zeekdb backup: made of running servers, verified, restored into directories that servers start on, pruned."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import REDIS, ROOT, Server, encode, free_port, wait_for
from tests.tools.data import KEYS, fill, state
from zeekdb.cli import main
from zeekdb.hot.crc64 import crc64
from zeekdb.hot.rdb import encode_string
from zeekdb.tools.backup_prune import Policy, plan
from zeekdb.tools.backup_store import Aof, Backup, Store
from zeekdb.tools.console import ToolError

StartServer = Callable[..., Server]
NAME = "appendonly.aof"
QUIET = ("--save", "")
AOF = (*QUIET, "--appendonly", "yes", "--appendfsync", "always")
EITHER = pytest.mark.parametrize("program", [{}, {"program": REDIS}], ids=["zeekdb", "redis"])
DAY_S = 86_400


class Backups:
    """The command, on a directory of the test's own."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capsys = capsys

    def ask(self, action: str, *words: object) -> tuple[int, Any]:
        """Exit status and JSON."""
        place = "--to" if action == "create" else "--in"
        status = main(["backup", action, place, str(self.root), *map(str, words), "--json"])
        return status, json.loads(self.capsys.readouterr().out or "null")

    def create(self, server: Server, *words: str) -> dict[str, Any]:
        """A new one."""
        status, found = self.ask("create", "--from", server.unix or f"127.0.0.1:{server.port}", *words)
        assert status == 0, found
        return dict(found)

    def restore(self, name: str, to: Path, *words: object) -> dict[str, Any]:
        """A data directory."""
        status, found = self.ask("restore", name, "--to", to, *words)
        assert status == 0, found
        return dict(found)


@pytest.fixture
def backups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Backups:
    return Backups(tmp_path / "backups", capsys)


def started_on(start_server: StartServer, restored: dict[str, Any], **program: Any) -> Server:
    """A server on a restored directory, by the command that was told."""
    words = restored["command"].split()
    assert words[:2] == ["zeekdb", "serve"]
    server = start_server(*words[2:], *QUIET, **program)
    with server.wire() as wire:
        wait_for(lambda: wire("PING") == "PONG")  # redis-server listens while it is loading
    return server


@EITHER
@pytest.mark.parametrize("unix", [False, True])
def test_a_snapshot(
    start_server: StartServer, backups: Backups, tmp_path: Path, program: dict[str, Any], unix: bool
) -> None:
    delay = ("--repl-diskless-sync-delay", "0")
    server = start_server(*QUIET, *delay, unix=unix, **program)
    with server.wire() as wire:
        fill(wire)
        before = state(wire)
        made = backups.create(server)
        wire("FLUSHALL")
    assert made["kind"] == "full" and made["content"] == "rdb" and made["databases"] == {"0": KEYS - 2, "3": 2}
    assert made["server"]["run_id"] and [file["name"] for file in made["files"]] == ["dump.rdb"]
    assert not (server.directory / "dump.rdb").exists()
    assert backups.ask("verify")[0] == 0
    for other in ({}, {"program": REDIS}):
        restored = backups.restore("latest", tmp_path / f"data{len(other)}")
        with started_on(start_server, restored, **other).wire() as wire:
            assert state(wire) == before and wire("FCALL", "f", 0) == 1


@EITHER
def test_full_and_incremental(
    start_server: StartServer, backups: Backups, tmp_path: Path, program: dict[str, Any]
) -> None:
    port, data = free_port(), tmp_path / "live"
    data.mkdir()
    server = start_server(*AOF, "--dir", str(data), port=port, **program)
    states = []
    with server.wire() as wire:
        fill(wire)
        wire("BGREWRITEAOF")  # ZeekDB makes its first base at the next start, if not before
        wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"))
        states.append(state(wire))
        full = backups.create(server)
        assert full["content"] == "aof" and full["kind"] == "full" and full["aof"]["stem"] == NAME
        wire.pipeline([("INCR", "counter")] * 100)
        states.append(state(wire))
        first = backups.create(server, "--incremental")
        assert first["kind"] == "incr" and first["parent"] == full["id"] and not first["reason"]
        assert sum(file["size"] for file in first["files"]) < 5000
        states.append(state(wire))
        second = backups.create(server, "--incremental")  # nothing has happened
        assert second["parent"] == first["id"] and not second["files"]
    server.terminate(signal.SIGKILL)
    server = start_server(*AOF, "--dir", str(data), port=port, **program)
    with server.wire() as wire:
        wait_for(lambda: wire("PING") == "PONG")
        wire.pipeline([("MULTI",), ("INCR", "counter"), ("SELECT", 3), ("SET", "late", "1"), ("EXEC",), ("SELECT", 0)])
        states.append(state(wire))
        third = backups.create(server, "--incremental")
        assert third["parent"] == second["id"] and not third["reason"]
        wire("BGREWRITEAOF")
        wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"))
        wire("INCR", "counter")
        states.append(state(wire))
        after = backups.create(server, "--incremental")
        assert after["kind"] == "full" and "rewritten" in after["reason"]
    status, found = backups.ask("verify")
    assert status == 0 and len(found["backups"]) == 5, found
    made = [full, first, second, third, after]
    for number, (each, expected) in enumerate(zip(made, states, strict=True)):
        restored = backups.restore(each["id"], tmp_path / f"data{number}")
        with started_on(start_server, restored, **program).wire() as wire:
            assert state(wire) == expected, each["id"]
    status, found = backups.ask("list")
    assert [each["id"] for each in found["backups"]] == [each["id"] for each in made]


@pytest.mark.slow
@EITHER
def test_while_the_server_is_written_to(
    start_server: StartServer, backups: Backups, tmp_path: Path, program: dict[str, Any]
) -> None:
    """Every backup shows a moment: a transaction is whole, and the counter is never ahead of the list."""
    server = start_server(*AOF[:-2], "--appendfsync", "everysec", **program)
    over = threading.Event()

    def write() -> None:
        with server.wire() as wire:
            while not over.is_set():
                wire.pipeline([("MULTI",), ("RPUSH", "list", "x" * 100), ("INCR", "counter"), ("EXEC",)] * 10)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        made = [backups.create(server)]
        for at in range(4):
            if at == 2:
                with server.wire() as wire:
                    wire("BGREWRITEAOF")
            made.append(backups.create(server, "--incremental"))
    finally:
        over.set()
        thread.join()
    assert backups.ask("verify")[0] == 0
    counts = []
    for number, each in enumerate(made):
        restored = backups.restore(each["id"], tmp_path / f"data{number}")
        with started_on(start_server, restored).wire() as wire:
            counts.append(int(wire("GET", "counter") or 0))
            assert wire("LLEN", "list") == counts[-1]
    assert counts == sorted(counts) and counts[-1] > 0


def test_an_increment_that_cannot_be(start_server: StartServer, backups: Backups, tmp_path: Path) -> None:
    server = start_server(*QUIET)
    status, found = backups.ask("create", "--from", f"127.0.0.1:{server.port}", "--incremental")
    assert status == 1 and "appendonly no" in found["error"]
    one, other = start_server(*AOF), start_server(*AOF)
    with one.wire() as wire:
        wire("SET", "a", "1")
    backups.create(one)
    assert "no earlier backup" in backups.create(other, "--incremental")["reason"]
    # the same names, another file: the directory was emptied, and the server has begun anew
    place = one.directory / "appendonlydir"
    one.terminate(signal.SIGKILL)
    shutil.rmtree(place)
    shutil.copytree(other.directory / "appendonlydir", place)
    again = start_server(*AOF, "--dir", str(one.directory))
    with again.wire() as wire:
        wire("SET", "another", "x" * 1000)
    found = backups.create(again, "--incremental")
    assert found["kind"] == "full" and "another file" in found["reason"]
    assert backups.create(again, "--snapshot")["content"] == "rdb"


def timed(data: Path, *increments: bytes, ctime: int = 900) -> None:
    """An append-only file by hand: a base of `ctime` with base=1, then increments."""
    folder = data / "appendonlydir"
    folder.mkdir(parents=True)
    base = b"REDIS0010\xfa" + encode_string(b"ctime") + encode_string(b"%d" % ctime)
    base += b"\xfe\x00\x00" + encode_string(b"base") + encode_string(b"1") + b"\xff"
    (folder / f"{NAME}.1.base.rdb").write_bytes(base + crc64(base).to_bytes(8, "little"))
    lines = [f"file {NAME}.1.base.rdb seq 1 type b\n"]
    for number, content in enumerate(increments, 1):
        (folder / f"{NAME}.{number}.incr.aof").write_bytes(content)
        lines.append(f"file {NAME}.{number}.incr.aof seq {number} type i\n")
    (folder / f"{NAME}.manifest").write_text("".join(lines))


def stamp(seconds: int) -> bytes:
    return b"#TS:%d\r\n" % seconds


FIRST = b"".join(
    [stamp(1000), encode("SELECT", 0), encode("SET", "a", "1"), stamp(1010), encode("SET", "a", "2"),
     encode("MULTI"), encode("SET", "b", "1"), stamp(1011), encode("SET", "c", "1"), encode("EXEC")]
)  # fmt: skip
SECOND = b"".join([stamp(1020), encode("SELECT", 0), encode("SET", "a", "3"), stamp(1030), encode("DEL", "a")])


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("950", [b"1", None, None]),
        ("1000", [b"1", b"1", None]),
        ("1009.5", [b"1", b"1", None]),
        ("1010", [b"1", b"2", None]),  # the transaction goes on a second later
        ("1011", [b"1", b"2", b"1"]),
        ("1970-01-01T00:17:00Z", [b"1", b"3", b"1"]),
        ("1970-01-01T01:17:09+01:00", [b"1", b"3", b"1"]),
        ("1030", [b"1", None, b"1"]),
        ("99999", [b"1", None, b"1"]),
    ],
)
def test_the_state_of_a_moment(
    start_server: StartServer, backups: Backups, tmp_path: Path, at: str, expected: list[bytes | None]
) -> None:
    timed(tmp_path / "live", FIRST, SECOND)
    server = start_server(*AOF, "--dir", str(tmp_path / "live"))
    made = backups.create(server)
    assert (made["aof"]["base_s"], made["aof"]["first_s"], made["aof"]["last_s"]) == (900, 1000, 1030)
    restored = backups.restore("latest", tmp_path / "data", "--at", at)
    assert restored["shows"] == int(float(at)) if at.isdigit() else restored["cut"] >= 0
    with started_on(start_server, restored).wire() as wire:
        assert [wire("GET", "base"), wire("GET", "a"), wire("GET", "b")] == expected
        assert wire("GET", "c") == wire("GET", "b")


def test_the_state_of_a_moment_from_a_chain(start_server: StartServer, backups: Backups, tmp_path: Path) -> None:
    data = tmp_path / "live"
    timed(data, FIRST)
    server = start_server(*AOF, "--dir", str(data))
    backups.create(server)
    server.terminate(signal.SIGKILL)
    with (data / "appendonlydir" / f"{NAME}.1.incr.aof").open("ab") as file:
        file.write(SECOND)
    again = start_server(*AOF, "--dir", str(data))
    made = backups.create(again, "--incremental")
    assert made["kind"] == "incr" and made["aof"]["first_s"] == 1020
    for at, expected in (("1000", b"1"), ("1015", b"2"), ("1025", b"3"), ("1035", None)):
        restored = backups.restore(made["id"], tmp_path / at, "--at", at)
        with started_on(start_server, restored).wire() as wire:
            assert wire("GET", "a") == expected


@EITHER
def test_moments_that_have_passed(
    start_server: StartServer, backups: Backups, tmp_path: Path, program: dict[str, str]
) -> None:
    """With the clock as it is, and the annotations that either server writes."""
    server = start_server(*AOF, "--aof-timestamp-enabled", "yes", **program)
    moments, made = [], []
    with server.wire() as wire:
        for n in range(3):
            wire("SET", "a", n)
            moments.append(int(time.time()))
            wait_for(lambda: time.time() >= moments[-1] + 1)
            if n < 2:
                made.append(backups.create(server, "--incremental")["id"])
    for n, at_s in enumerate(moments[:2]):
        restored = backups.restore("latest", tmp_path / str(n), "--at", at_s)
        assert restored["id"] == made[n] and not restored["notes"]  # the oldest that reaches so far
        with started_on(start_server, restored).wire() as wire:
            assert wire("GET", "a") == b"%d" % n
    assert backups.restore("latest", tmp_path / "2", "--at", moments[2])["notes"]


def test_a_moment_that_cannot_be_shown(start_server: StartServer, backups: Backups, tmp_path: Path) -> None:
    timed(tmp_path / "live", encode("SELECT", 0) + encode("SET", "a", "0") + FIRST)
    server = start_server(*AOF, "--dir", str(tmp_path / "live"))
    made = backups.create(server)
    for at, why in (("950", "timestamps begin at 1970-01-01T00:16:40Z"), ("800", "its base is of")):
        status, found = backups.ask("restore", made["id"], "--to", tmp_path / "data", "--at", at)
        assert status == 1 and why in found["error"]
        status, found = backups.ask("restore", "latest", "--to", tmp_path / "data", "--at", at)
        assert status == 1 and "the oldest is of" in found["error"]
    assert backups.ask("restore", "latest", "--to", tmp_path / "data", "--at", "yesterday")[0] == 2
    snapshot = backups.create(server, "--snapshot")
    assert backups.ask("restore", snapshot["id"], "--to", tmp_path / "data", "--at", "1000")[0] == 1
    later = time.time() + 100
    restored = backups.restore("latest", tmp_path / "data", "--at", later)
    assert restored["id"] == snapshot["id"] and "it was made 100 seconds before" in restored["notes"][0]


def test_what_is_there_is_moved_aside(start_server: StartServer, backups: Backups, tmp_path: Path) -> None:
    server = start_server(*QUIET)
    with server.wire() as wire:
        wire("SET", "a", "1")
    backups.create(server)
    data = tmp_path / "data"
    data.mkdir()
    (data / "lost+found").mkdir()
    backups.restore("latest", data)
    before = (data / "dump.rdb").read_bytes()
    status, found = backups.ask("restore", "latest", "--to", data)
    assert status == 1 and "not empty" in found["error"]
    for _ in range(2):
        backups.restore("latest", data, "--force")
    asides = sorted(data.glob("before-restore-*"))
    assert len(asides) == 2 and all((each / "dump.rdb").read_bytes() == before for each in asides)
    assert (data / "dump.rdb").read_bytes() == before and not (data / ".restoring").exists()


def test_broken_backups_are_found_and_not_restored(
    start_server: StartServer, backups: Backups, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server(*AOF)
    with server.wire() as wire:
        fill(wire)
        full = backups.create(server)
        wire("SET", "more", "1")
    incr = backups.create(server, "--incremental")
    piece = backups.root / full["id"] / f"{NAME}.1.incr.aof"
    whole = piece.read_bytes()
    for damaged, why in ((whole[:-1], "bytes instead of"), (whole[:50] + b"?" + whole[51:], "SHA-256 differs")):
        piece.write_bytes(damaged)
        status, found = backups.ask("verify", full["id"])
        assert status == 1 and why in found["backups"][full["id"]][0]
        status, found = backups.ask("restore", incr["id"], "--to", tmp_path / "data")
        assert status == 1 and not list((tmp_path / "data").iterdir())
    piece.write_bytes(whole)
    shutil.move(backups.root / full["id"], tmp_path / "elsewhere")
    status, found = backups.ask("verify")
    assert status == 1 and "its parent" in found["backups"][incr["id"]][0]
    assert main(["backup", "verify", "--in", str(backups.root)]) == 1
    assert main(["backup", "restore", incr["id"], "--in", str(backups.root), "--to", str(tmp_path / "data")]) == 1
    (backups.root / incr["id"] / "backup.json").write_text('{"format": 9}')
    assert main(["backup", "list", "--in", str(backups.root)]) == 1
    shown = capsys.readouterr()
    assert "another release has made it" in shown.err and "1 backup of 1 broken" in shown.out


def test_an_interrupted_backup_is_none(start_server: StartServer, backups: Backups) -> None:
    server = start_server(*QUIET)
    (backups.root / ".temporary-1").mkdir(parents=True)
    (backups.root / ".temporary-1" / "dump.rdb").write_bytes(b"REDIS")
    assert backups.ask("list") == (0, {"backups": [], "problems": []})
    backups.create(server)
    assert len(backups.ask("list")[1]["backups"]) == 1 and not list(backups.root.glob(".temporary*"))
    with Store(backups.root).locked():
        status, found = backups.ask("create", "--from", f"127.0.0.1:{server.port}")
        assert status == 1 and "is at work" in found["error"]
    status, found = backups.ask("create", "--from", f"127.0.0.1:{free_port()}")
    assert status == 1 and not list(backups.root.glob(".temporary*"))


def test_a_full_disk_leaves_nothing_half_done(start_server: StartServer, backups: Backups, tmp_path: Path) -> None:
    server = start_server(*QUIET)
    with server.wire() as wire:
        wire("SET", "a", random.Random(1).randbytes(300_000))
    whole = backups.create(server)
    piece = backups.root / whole["id"] / "dump.rdb"
    broken = tmp_path / "broken.rdb"
    broken.write_bytes(piece.read_bytes()[:-1])
    before = broken.read_bytes()

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "zeekdb", *words]
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    store = str(backups.root)
    assert "File too large" in run("backup", "create", "--from", f"127.0.0.1:{server.port}", "--to", store)
    assert "File too large" in run("backup", "restore", whole["id"], "--in", store, "--to", str(tmp_path / "data"))
    assert "File too large" in run("check", "--fix", str(broken))
    assert [path.name for path in backups.root.iterdir() if not path.name.startswith(".lock")] == [whole["id"]]
    assert not list((tmp_path / "data").iterdir())
    assert broken.read_bytes() == before and not list(tmp_path.glob("broken.rdb.*"))


def made(age_s: float, kind: str = "full", parent: str = "", now_s: float = 400 * DAY_S) -> Backup:
    """A description without data."""
    created_ms = int((now_s - age_s) * 1000)
    aof = Aof("", NAME, [])
    return Backup(f"{age_s:.0f}-{kind}", kind, "aof", parent, created_ms, {}, {}, [], aof)  # type: ignore[arg-type]


def test_backups_of_several_servers(start_server: StartServer, backups: Backups, tmp_path: Path) -> None:
    one, other = start_server(*QUIET), start_server(*QUIET)
    names = [backups.create(server)["id"] for server in (one, other, one)]
    status, found = backups.ask("restore", "latest", "--to", tmp_path / "data")
    assert status == 1 and "several servers" in found["error"]
    backups.restore(names[1], tmp_path / "data")
    spans = ("--keep-all", "0s", "--daily", "0s", "--weekly", "0s", "--monthly", "0s")
    assert backups.ask("prune", *spans)[1]["removed"] == names[:1]  # of each server the last full one stays


def test_what_is_kept() -> None:
    now_s = 400.0 * DAY_S
    every = [made(hours * 3600) for hours in range(0, 500 * 24, 6)]
    kept = plan(every, Policy(), now_s)
    ages = sorted(int(name.split("-")[0]) / DAY_S for name in kept)
    assert sum(age < 1 for age in ages) == 4
    assert sum(1 <= age < 7 for age in ages) in (6, 7)
    assert sum(7 <= age < 30 for age in ages) in (4, 5)
    assert sum(30 <= age < 365 for age in ages) in (11, 12, 13)
    assert max(ages) < 365
    assert plan([each for each in every if each.id in kept], Policy(), now_s).keys() == kept.keys()  # it is stable


def test_what_is_kept_for_others() -> None:
    now_s = 400.0 * DAY_S
    old = made(390 * DAY_S)
    assert plan([old], Policy(), now_s) == {old.id: "the last full one"}
    middle = made(389 * DAY_S, "incr", old.id)
    young = made(3600, "incr", middle.id)
    other = made(380 * DAY_S)
    kept = plan([old, middle, other, young], Policy(), now_s)
    assert kept == {
        young.id: "recent", other.id: "the last full one", middle.id: f"{young.id} needs it",
        old.id: f"{middle.id} needs it",
    }  # fmt: skip


def test_pruning(start_server: StartServer, backups: Backups, capsys: pytest.CaptureFixture[str]) -> None:
    server = start_server(*AOF)
    names = [backups.create(server, *(["--incremental"] if n else []))["id"] for n in range(2)]
    names.append(backups.create(server, "--snapshot")["id"])
    spans = ("--keep-all", "0s", "--daily", "0s", "--weekly", "0s", "--monthly", "0s")
    status, found = backups.ask("prune", *spans, "--dry-run")
    assert status == 0 and found["removed"] == names[:2] and len(list(backups.root.glob("*-*"))) == 3
    assert main(["backup", "prune", "--in", str(backups.root)]) == 0
    assert "0 backups removed" in capsys.readouterr().out
    assert main(["backup", "prune", "--in", str(backups.root), *spans]) == 0
    assert "2 backups removed" in capsys.readouterr().out
    assert [each["id"] for each in backups.ask("list")[1]["backups"]] == names[2:]
    assert backups.ask("prune", "--keep-all", "2w")[0] == 2
    assert backups.ask("prune", "--keep-all", "soon")[0] == 2


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["backup"]) == 2
    assert main(["backup", "list"]) == 2
    assert main(["backup", "list", "--in", str(tmp_path / "none")]) == 1
    monkeypatch.setenv("ZEEKDB_BACKUPS", str(tmp_path))
    assert main(["backup", "list"]) == 0
    assert "no backups in" in capsys.readouterr().out
    with pytest.raises(ToolError, match="no backups"):
        Store(tmp_path).find("latest")


def test_a_base_of_commands_shows_no_earlier_moment(
    start_server: StartServer, backups: Backups, tmp_path: Path
) -> None:
    """As `aof-use-rdb-preamble no` leaves it: the base begins with the second of its rewrite."""
    folder = tmp_path / "live" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / f"{NAME}.1.base.aof").write_bytes(stamp(900) + encode("SELECT", 0) + encode("SET", "a", "0"))
    (folder / f"{NAME}.1.incr.aof").write_bytes(FIRST)
    (folder / f"{NAME}.manifest").write_text(
        f"file {NAME}.1.base.aof seq 1 type b\nfile {NAME}.1.incr.aof seq 1 type i\n"
    )
    server = start_server(*AOF, "--dir", str(tmp_path / "live"))
    made = backups.create(server)
    assert made["aof"]["base_s"] == 900
    status, found = backups.ask("restore", made["id"], "--to", tmp_path / "early", "--at", "899")
    assert status == 1 and "its base is of" in found["error"]
    for at, expected in (("950", b"0"), ("1000", b"1"), ("1010", b"2")):
        restored = backups.restore(made["id"], tmp_path / at, "--at", at)
        with started_on(start_server, restored).wire() as wire:
            assert wire("GET", "a") == expected
