"""zeekdb import: files and servers of both kinds into servers of both kinds."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import REDIS, ROOT, Failure, Server, encode, wait_for
from tests.tools.data import KEYS, fill, state
from zeekdb.cli import main

StartServer = Callable[..., Server]
NAME = "appendonly.aof"
QUIET = ("--save", "")


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, Any]:
    """Exit status and JSON."""
    status = main(["import", *map(str, words), "--json"])
    return status, json.loads(capsys.readouterr().out or "null")


def at(server: Server) -> str:
    return server.unix or f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("program", [{}, {"program": REDIS}], ids=["zeekdb", "redis"])
@pytest.mark.parametrize("unix", [False, True])
def test_an_rdb_file(
    start_server: StartServer, capsys: pytest.CaptureFixture[str], program: dict[str, Any], unix: bool
) -> None:
    source, target = start_server(*QUIET, program=REDIS), start_server(*QUIET, unix=unix, **program)
    with source.wire() as one, target.wire() as two:
        fill(one)
        one("SAVE")
        before = state(one)
        status, found = run(capsys, source.directory / "dump.rdb", "--to", at(target))
        assert status == 0 and found["keys"] == KEYS and found["functions"] == 1, found
        assert state(two) == before and two("FCALL", "f", 0) == 1
        status, found = run(capsys, source.directory / "dump.rdb", "--to", at(target))
        assert status == 1 and found["busy"] == KEYS and len(found["busy_keys"]) == 5 and found["failures"]
        two("SET", "s", "other")
        two("PERSIST", "t")
        status, found = run(capsys, source.directory / "dump.rdb", "--to", at(target), "--replace")
        assert status == 0 and found["keys"] == KEYS and state(two) == before


def test_what_is_said(start_server: StartServer, capsys: pytest.CaptureFixture[str]) -> None:
    server = start_server(*QUIET)
    with server.wire() as wire:
        fill(wire)
        wire("SAVE")
    path = server.directory / "dump.rdb"
    assert main(["import", str(path), "--to", at(server)]) == 1
    shown = capsys.readouterr().out
    assert f"{KEYS} keys NOT sent, as they are there already (--replace overwrites): " in shown and "FAILED" in shown
    assert main(["import", str(path), "--to", "127.0.0.1:1"]) == 1
    assert "cannot connect to 127.0.0.1:1" in capsys.readouterr().err
    assert main(["import", str(path), "--to", at(server), "--db-filter", "x"]) == 2
    assert main(["import", str(path), "--to", "a:b"]) == 2
    assert main(["import", "/no/such/file", "--to", at(server)]) == 1
    assert main(["import", "redis://h:port/"]) == 2
    path.write_bytes(path.read_bytes()[:-30])
    with start_server(*QUIET).wire() as wire:
        assert main(["import", str(path), "--to", f"127.0.0.1:{wire.socket.getpeername()[1]}"]) == 1
        assert wire("DBSIZE") == 0
    assert "nothing was sent" in capsys.readouterr().err


def test_expired_keys_are_left_out_and_idle_times_kept(
    start_server: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    source = start_server(*QUIET, "--maxmemory-policy", "allkeys-lru", "--enable-debug-command", "yes", program=REDIS)
    target = start_server(*QUIET, "--maxmemory-policy", "allkeys-lru")
    with source.wire() as one, target.wire() as two:
        one("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        one("SET", "gone", "1", "PX", 1)
        one("SET", "k", "not a shared integer")
        one("RESTORE", "old", 0, one("DUMP", "k"), "IDLETIME", 1000)
        begin_s = time.time()
        wait_for(lambda: time.time() > begin_s + 0.002)
        one("SAVE")
        status, found = run(capsys, source.directory / "dump.rdb", "--to", at(target))
        assert status == 0 and found["keys"] == 2 and found["expired"] == 1, found
        assert two("OBJECT", "IDLETIME", "old") >= 1000 and two("OBJECT", "IDLETIME", "k") < 1000
        two("FLUSHALL")
        status, found = run(capsys, f"redis://127.0.0.1:{source.port}", "--to", at(target))
        assert status == 0 and found["keys"] == 2 and two("OBJECT", "IDLETIME", "old") >= 1000, found


@pytest.mark.parametrize("program", [{}, {"program": REDIS}], ids=["zeekdb", "redis"])
def test_a_server(
    start_server: StartServer, capsys: pytest.CaptureFixture[str], program: dict[str, Any]
) -> None:
    source = start_server(*QUIET, "--requirepass", "pass word", program=REDIS)
    target = start_server(*QUIET, **program)
    url = f"redis://default:pass%20word@127.0.0.1:{source.port}"
    with source.wire() as one, target.wire() as two:
        one("AUTH", "pass word")
        fill(one)
        one.pipeline([("SET", f"key:{n}", "x" * (n % 5000)) for n in range(5000)])
        one("SET", "large", "x" * 30_000_000)
        before = state(one)
        status, found = run(capsys, url, "--to", at(target))
        assert status == 0 and found["keys"] == len(before) and found["functions"] == 1, found
        assert state(two) == before
        two("DEL", "key:1", "key:2")
        status, found = run(capsys, url, "--to", at(target))
        assert status == 1 and found["keys"] == 2 and found["busy"] == len(before) - 2, found
        two("FLUSHALL")
        two("FUNCTION", "FLUSH")
        status, found = run(capsys, url, "--to", at(target), "--db-filter", "3")
        assert status == 0 and found["keys"] == 2 and two("DBSIZE") == 0, found
        assert run(capsys, f"{url}/3", "--to", at(target), "--replace")[1]["keys"] == 2
    assert run(capsys, f"redis://127.0.0.1:{source.port}", "--to", at(target))[0] == 1


def test_the_same_server_and_replicas_are_refused(
    start_server: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server(*QUIET)
    replica = start_server(*QUIET, "--replicaof", "127.0.0.1", str(server.port))
    url = f"redis://127.0.0.1:{server.port}"
    assert "are the same server" in run(capsys, url, "--to", f"localhost:{server.port}")[1]["error"]
    assert "is a replica" in run(capsys, url, "--to", at(replica))[1]["error"]


def test_passwords_and_users(
    start_server: StartServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, target = start_server(*QUIET), start_server(*QUIET, "--requirepass", "secret")
    with source.wire() as wire:
        fill(wire)
        wire("SAVE")
    path = source.directory / "dump.rdb"
    status, found = run(capsys, path, "--to", at(target))
    assert status == 1 and "NOAUTH" in found["error"]
    assert run(capsys, path, "--to", at(target), "--password", "wrong")[0] == 1
    assert run(capsys, path, "--to", at(target), "--password", "secret")[0] == 0
    monkeypatch.setenv("REDISCLI_AUTH", "secret")
    assert run(capsys, path, "--to", at(target), "--replace")[0] == 0
    assert run(capsys, path, "--to", at(source), "--replace")[0] == 0  # wants none
    monkeypatch.delenv("REDISCLI_AUTH")
    with target.wire() as wire:
        wire("AUTH", "secret")
        wire("ACL", "SETUSER", "loader", "on", ">x", "+@all", "~*")
        wire("FLUSHALL")
        assert run(capsys, path, "--to", at(target), "--user", "loader", "--password", "x", "--replace")[0] == 0
        assert run(capsys, path, "--to", f"redis://loader:x@127.0.0.1:{target.port}", "--replace")[0] == 0
        assert len(state(wire)) == KEYS


@pytest.mark.parametrize("program", [{}, {"program": REDIS}], ids=["zeekdb", "redis"])
def test_an_append_only_file(
    start_server: StartServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, program: dict[str, Any]
) -> None:
    source = start_server(*QUIET, "--appendonly", "yes", "--appendfsync", "always", **program)
    target = start_server(*QUIET)
    with source.wire() as one, target.wire() as two:
        fill(one)
        one("BGREWRITEAOF")
        wait_for(lambda: b"aof_rewrite_in_progress:0" in one("INFO", "persistence"))
        one("FLUSHALL")
        fill(one)
        one("SET", "session", "1", "PX", 20)  # its first end has come and gone when this is imported
        one("PEXPIRE", "session", 10_000_000)
        before = state(one)
        two("SET", "kept", "1")
        folder = Path(shutil.copytree(source.directory / "appendonlydir", tmp_path / "appendonlydir"))
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        status, found = run(capsys, folder, "--to", at(target))
        assert status == 0 and found["keys"] == len(before) and found["functions"] == 1, found
        assert two("GETDEL", "kept") == b"1" and state(two) == before and (0, b"session") in before
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
        last = max(folder.glob("*.incr.aof"))
        last.write_bytes(last.read_bytes() + encode("SET", "torn", "1")[:-3])
        status, found = run(capsys, folder / f"{NAME}.manifest", "--to", at(target), "--replace", "--db-filter", "3")
        assert status == 0 and found["keys"] == 2 and two("EXISTS", "torn") == 0, found
        last.write_bytes(b"*1\r\n$x" + last.read_bytes())
        status, found = run(capsys, folder, "--to", at(target), "--replace")
        assert status == 1 and "nothing was sent" in found["error"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_tool_that_is_killed_leaves_no_server(start_server: StartServer, tmp_path: Path, how: int) -> None:
    path, target = tmp_path / NAME, start_server(*QUIET)
    path.write_bytes(b"".join(encode("SET", f"k{n}", "x" * 100) for n in range(20_000)))
    with target.wire() as wire:
        wire("CLIENT", "PAUSE", 100_000, "WRITE")  # what it sends is not answered
        command = [sys.executable, "-m", "zeekdb", "import", str(path), "--to", at(target)]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        tool = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)

        def server_pids() -> list[int]:
            found = []
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if str(tmp_path / "zeekdb-import-").encode() in each.read_bytes():
                        found.append(int(each.parent.name))
            return found

        wait_for(lambda: len(server_pids()) == 1)
        tool.send_signal(how)
        assert tool.wait(10) != 0
        wait_for(lambda: not server_pids())
        if how == signal.SIGTERM:
            assert not list(tmp_path.glob("zeekdb-import-*"))


def test_one_file_of_an_older_server(
    start_server: StartServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, target = tmp_path / NAME, start_server(*QUIET)
    path.write_bytes(encode("SELECT", "20") + encode("SET", "a", "1") + encode("SELECT", "0") + encode("SET", "b", "2"))
    status, found = run(capsys, path, "--to", at(target))
    assert status == 1 and "has no database 20" in found["error"]
    path.write_bytes(encode("SELECT", "2") + encode("SET", "a", "1") + encode("SELECT", "0") + encode("SET", "b", "2"))
    assert run(capsys, path, "--to", at(target), "--replace")[0] == 0
    with target.wire() as wire:
        assert wire("GET", "b") == b"2" and wire("SELECT", 2) == "OK" and wire("GET", "a") == b"1"
        wire("SELECT", 0)
        wire("SAVE")  # with an RDB part, as servers from 4.0 to 6.2 wrote it
        path.write_bytes((target.directory / "dump.rdb").read_bytes() + encode("SELECT", "0") + encode("INCR", "b"))
        status, found = run(capsys, path, "--to", at(target), "--replace")
        assert status == 0 and found["keys"] == 2 and wire("GET", "b") == b"3"


def test_a_full_server_ends_it(start_server: StartServer, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = start_server(*QUIET), start_server(*QUIET, "--maxmemory", "3mb")
    with source.wire() as wire:
        wire.pipeline([("SET", f"k{n}", "x" * 10_000) for n in range(1000)])
        wire("SAVE")
    status, found = run(capsys, source.directory / "dump.rdb", "--to", at(target))
    assert status == 1 and "takes no more: OOM" in found["error"], found


def test_payloads_that_a_server_cannot_read(start_server: StartServer, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = start_server(*QUIET), start_server(*QUIET, program=REDIS)
    with source.wire() as one, target.wire() as two:
        one("VADD", "v", "VALUES", 2, 1, 2, "e")
        one("SET", "a", "1")
        status, found = run(capsys, f"redis://127.0.0.1:{source.port}", "--to", at(target))
        assert status == 1 and found["keys"] == 1 and sum(found["failures"].values()) == 1, found
        assert two("GET", "a") == b"1" and not isinstance(two("GET", "v"), Failure)


def test_a_server_that_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, start_server: StartServer
) -> None:
    source = start_server(*QUIET)
    with source.wire() as wire:
        wire.pipeline([("SET", f"k{n}", "x" * 1000) for n in range(1000)])
        wire("SAVE")
    kept = shutil.copy(source.directory / "dump.rdb", tmp_path)
    source.terminate()
    status, found = run(capsys, kept, "--to", at(source))
    assert status == 1 and "cannot connect" in found["error"]
