"""SAVE and BGSAVE: what a server had, the next one has; and redis-server reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import REDIS, ZEEKDB, Server, encode, wait_for

Start = Callable[..., Server]


@pytest.mark.parametrize("program", [ZEEKDB, REDIS], ids=["zeekdb", "redis-server"])
@pytest.mark.parametrize("command", ["SAVE", "BGSAVE"])
def test_the_next_server_has_it(start_server: Start, tmp_path: Path, command: str, program: tuple[str, ...]) -> None:
    first = start_server("--dir", str(tmp_path))
    with first.wire() as wire:
        wire.pipeline([
            ("SET", "s", "v"), ("SET", "gone", "v", "PX", "1"), ("HSET", "h", "f", "v"), ("EXPIRE", "h", "1000"),
            ("SELECT", "5"), ("RPUSH", "l", "a", "b"), ("SELECT", "0"),
            ("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() return 1 end)"),
        ])  # fmt: skip
        assert wire(command) in ("OK", "Background saving started")
        wait_for(lambda: b"rdb_saves:1" in wire("INFO", "persistence"))
        assert b"rdb_changes_since_last_save:0" in wire("INFO", "persistence")
    first.stop()
    with start_server("--dir", str(tmp_path), program=program).wire() as wire:
        assert wire("GET", "s") == b"v"
        assert wire("EXISTS", "gone") == 0
        assert 900 < wire("TTL", "h") <= 1000
        assert wire("FCALL", "f", "0") == 1
        wire("SELECT", "5")
        assert wire("LRANGE", "l", "0", "-1") == [b"a", b"b"]


@pytest.mark.parametrize("program", [ZEEKDB, REDIS], ids=["zeekdb", "redis-server"])
def test_names_are_compressed_like_values(start_server: Start, tmp_path: Path, program: tuple[str, ...]) -> None:
    name = "name" * 20
    with start_server("--dir", str(tmp_path), program=program).wire() as wire:
        wire("HSET", name, *(word for n in range(200) for word in (f"field{n}" * 5, f"value{n}" * 20)))
        wire("RPUSH", name + "list", *("x" * 5000 for _ in range(9)))
        assert wire("SAVE") == "OK"
    with start_server("--dir", str(tmp_path)).wire() as wire:
        assert sorted(wire("KEYS", "*")) == [name.encode(), name.encode() + b"list"]
        assert wire("HGET", name, "field7" * 5) == b"value7" * 20


def test_what_a_crash_has_left_unfinished_is_removed(start_server: Start, tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    gone = start_server("--dir", str(tmp_path))
    gone.stop()
    left = [tmp_path / f"temp-{gone.pid}-3.rdb", folder / f"temp-{gone.pid}-1.rdb"]
    left.append(folder / f"temp-rewriteaof-bg-{gone.pid}.aof")
    kept = [tmp_path / "temp-1-1.txt", tmp_path / f"temp-{os.getpid()}-3.rdb"]  # no such file; of one that lives
    for path in (*left, *kept):
        path.write_bytes(b"REDIS")
    with start_server("--dir", str(tmp_path)).wire() as wire:
        assert wire("PING") == "PONG"
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_a_full_disk_is_an_error_and_the_old_file_stays(start_server: Start, tmp_path: Path) -> None:
    with start_server("--dir", str(tmp_path)).wire() as wire:
        wire("SET", "k", "v")
        assert wire("SAVE") == "OK"
        before = (tmp_path / "dump.rdb").read_bytes()
        wire("CONFIG", "SET", "dir", str(tmp_path))
        (tmp_path / "dump.rdb").rename(tmp_path / "kept")
        (tmp_path / "dump.rdb").mkdir()  # nothing can take the name of a folder
        assert wire("SAVE").startswith("ERR")
        assert b"rdb_last_bgsave_status:err" in wire("INFO", "persistence")
        assert (tmp_path / "kept").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("temp-")] == []


def test_a_damaged_file_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"REDIS0010\xfe\x00\x00\x01k")
    with pytest.raises(RuntimeError):
        Server("--dir", str(tmp_path)).stop()


def test_snapshots_by_the_calendar(start_server: Start, tmp_path: Path) -> None:
    """As far as one need not wait for it: see tests/unit/server/test_snapshot_schedule.py for the rest."""
    path = tmp_path / "zeekdb.conf"
    path.write_text(f"dir {tmp_path}\nsnapshot-schedule 0 3 * * *\nsnapshot-schedule @weekly\n")
    server = start_server(str(path))
    with server.wire() as wire:

        def next_s() -> int:
            return int(wire("INFO", "persistence").split(b"rdb_next_scheduled_save:", 1)[1].split(b"\r\n", 1)[0])

        assert wire("CONFIG", "GET", "snapshot-schedule") == [b"snapshot-schedule", b"0 3 * * *; @weekly"]
        assert 0 < next_s() - time.time() <= 25 * 3600
        assert wire("CONFIG", "SET", "snapshot-schedule", "*/5 * * * mon-fri; * * * * sat,sun") == "OK"
        assert next_s() % 60 == 0 and 0 <= next_s() - int(time.time()) + 1 <= 301
        error = wire("CONFIG", "SET", "snapshot-schedule", "99 * * * *")
        assert "'99' is no minute (0-59)" in error and next_s()
        assert wire("CONFIG", "REWRITE") == "OK"
        assert '\nsnapshot-schedule "*/5 * * * mon-fri; * * * * sat,sun"\n' in path.read_text()
        assert wire("CONFIG", "SET", "snapshot-schedule", "") == "OK"
        assert next_s() == 0
        assert wire("CONFIG", "REWRITE") == "OK"
        assert '\nsnapshot-schedule ""\n' in path.read_text()
    refused = start_server("--snapshot-schedule", "never", wait=False)
    assert refused.process.wait(30) == 1
    assert "has 1 fields, not five" in refused.log()


@pytest.mark.slow
def test_the_calendar_makes_one(start_server: Start, tmp_path: Path) -> None:
    server = start_server("--dir", str(tmp_path), "--save", "", "--snapshot-schedule", "* * * * *")
    with server.wire() as wire:
        wire("SET", "a", 1)
        wait_for(lambda: b"rdb_saves:1" in wire("INFO", "persistence"), 70)
        assert time.time() % 60 < 10
    assert (tmp_path / "dump.rdb").exists()


@pytest.mark.parametrize("command", ["BGSAVE", "BGREWRITEAOF"])
def test_a_shutdown_leaves_nothing_half_done(start_server: Start, command: str) -> None:
    server = start_server("--enable-debug-command", "local", "--appendonly", "yes")
    with server.wire() as wire:
        wire("DEBUG", "POPULATE", 1_000_000, "key", 100)
        wire(command)
        wait_for(lambda: list(server.directory.glob("**/temp-*.rdb")))
        wire.send(encode("SHUTDOWN", "NOSAVE"))
        assert server.process.wait(30) == 0
    assert list(server.directory.glob("**/temp-*")) == []
    assert "ready to exit" in server.log() and "Traceback" not in server.log()
    assert "Task was destroyed" not in server.log()
