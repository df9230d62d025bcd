"""aof-timestamp-enabled: where the lines stand, that no position counts them, what Redis's tools make of them."""

from __future__ import annotations

import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import REDIS, Server, Wire, wait_for

StartServer = Callable[..., Server]
NAME = "appendonly.aof"
STAMPED = ("--appendonly", "yes", "--aof-timestamp-enabled", "yes", "--save", "")
LINE = re.compile(rb"#TS:(\d+)\r\n")
COMMAND = re.compile(rb"\*(\d+)\r\n")


def info(wire: Wire, name: str) -> str:
    lines = wire("INFO", "persistence").decode().splitlines()
    return str(dict(line.split(":", 1) for line in lines if ":" in line)[name])


def increments(server: Server) -> list[Path]:
    return sorted((server.directory / "appendonlydir").glob("*.incr.aof"))


def walked(data: bytes) -> list[int | list[bytes]]:
    """Seconds and commands in order. AssertionError when it is not whole."""
    found: list[int | list[bytes]] = []
    at = 0
    while at < len(data):
        if line := LINE.match(data, at):
            found.append(int(line[1]))
            at = line.end()
            continue
        begin = COMMAND.match(data, at)
        assert begin, data[at : at + 40]
        at, words = begin.end(), []
        for _ in range(int(begin[1])):
            end = data.index(b"\r\n", at)
            size = int(data[at + 1 : end])
            words.append(data[end + 2 : end + 2 + size])
            at = end + 2 + size + 2
        found.append(words)
    return found


def next_second() -> None:
    """Waits until the clock shows another second."""
    now_s = int(time.time())
    wait_for(lambda: int(time.time()) > now_s)


def fill(wire: Wire) -> None:
    """Writes in three seconds, in and outside transactions."""
    for turn in range(3):
        wire("SET", f"a{turn}", turn)
        wire.pipeline([("MULTI",), ("SET", "b", turn), ("RPUSH", "l", turn), ("EXEC",), ("INCR", "n")])
        wire("EVAL", "redis.call('set', 'e', '1') return redis.call('incrby', 'e', 5)", 0)
        next_second()


def check_stamps(data: bytes, begin_s: int) -> None:
    """They ascend, each has something behind it, none stands in a transaction, the first stands first."""
    found = walked(data)
    stamps = [each for each in found if isinstance(each, int)]
    assert isinstance(found[0], int) and begin_s <= stamps[0] and stamps[-1] <= time.time()
    assert len(stamps) >= 3 and all(one < other for one, other in itertools.pairwise(stamps))
    inside, before = False, None
    for each in found:
        if isinstance(each, int):
            assert not inside and not isinstance(before, int)
        else:
            inside = (inside or each == [b"MULTI"]) and each != [b"EXEC"]
        before = each
    assert not isinstance(before, int)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["always", "everysec", "no"])
def test_the_lines_stand_where_redis_server_has_them(start_server: StartServer, tmp_path: Path, mode: str) -> None:
    """Command by command the same file, between stamps that may differ."""
    begin_s = int(time.time())
    files = []
    for program in ({}, {"program": REDIS}):
        server = start_server(*STAMPED, "--appendfsync", mode, **program)
        with server.wire() as wire:
            fill(wire)
            if not program:
                assert wire("WAITAOF", 1, 0, 5000) == [1, 0] or mode == "no"
                assert int(info(wire, "aof_current_size")) >= sum(path.stat().st_size for path in increments(server))
        server.terminate()
        [path] = increments(server)
        files.append(path.read_bytes())
        check_stamps(files[-1], begin_s)
    ours, theirs = ([each for each in walked(data) if not isinstance(each, int)] for data in files)
    assert ours == theirs


def test_at_run_time(start_server: StartServer) -> None:
    server = start_server("--appendonly", "yes", "--appendfsync", "always")
    with server.wire() as wire:
        [path] = increments(server)
        wire("SET", "a", 1)
        assert wire("CONFIG", "SET", "aof-timestamp-enabled", "yes") == "OK"
        wire("SET", "a", 2)
        assert wire("CONFIG", "SET", "aof-timestamp-enabled", "no") == "OK"
        next_second()
        wire("SET", "a", 3)
    kinds = ["stamp" if isinstance(each, int) else each[-1] for each in walked(path.read_bytes())]
    assert kinds == [b"0", b"1", "stamp", b"2", b"3"]


def test_every_file_says_its_times_itself(start_server: StartServer, tmp_path: Path) -> None:
    """Also that a rewrite switches at the right byte: positions are the journal's, not the file's."""
    server = start_server(*STAMPED, "--appendfsync", "everysec", "--dir", str(tmp_path))
    with server.wire() as wire:
        for turn in range(1, 4):
            wire.pipeline([("SET", f"k{turn}.{n}", n) for n in range(50)])
            wire("BGREWRITEAOF")
            wire.pipeline([("SET", f"m{turn}.{n}", n) for n in range(50)])
            wait_for(lambda: info(wire, "aof_rewrites") == str(turn))  # noqa: B023
            next_second()
        wire("SET", "last", 1)
        assert wire("WAITAOF", 1, 0, 5000) == [1, 0]
    server.terminate(signal.SIGKILL)
    [path] = (tmp_path / "appendonlydir").glob("*.incr.aof")
    found = walked(path.read_bytes())
    assert isinstance(found[0], int) and found[1] == [b"SELECT", b"0"]
    shutil.copytree(tmp_path, tmp_path / "copy")
    for program, place in (({}, tmp_path), ({"program": REDIS}, tmp_path / "copy")):
        with start_server(*STAMPED, "--dir", str(place), **program).wire() as wire:
            assert wire("DBSIZE") == 301


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root's prlimit")
@pytest.mark.parametrize("written", [0, 1, 7, 16])
def test_a_disk_that_is_full_inside_a_line(start_server: StartServer, tmp_path: Path, written: int) -> None:
    """The line is completed as soon as there is room again, and then comes what was waiting."""
    server = start_server(*STAMPED, "--appendfsync", "always", "--dir", str(tmp_path))
    with server.wire() as wire, server.wire() as other:
        wire("SET", "a", 1)
        [path] = (tmp_path / "appendonlydir").glob("*.incr.aof")
        next_second()
        before = path.stat().st_size
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (before + written, resource.RLIM_INFINITY))
        wire.send(b"SET a 2\r\n")
        wait_for(lambda: info(other, "aof_last_write_status") == "err")
        assert path.stat().st_size == before + written
        next_second()
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert wire.read() == "OK"
        assert wire("SET", "a", 3) == "OK"
        assert wire("WAITAOF", 1, 0, 5000) == [1, 0]
    server.terminate(signal.SIGKILL)
    found = walked(path.read_bytes())
    assert [each[-1] for each in found if not isinstance(each, int)] == [b"0", b"1", b"2", b"3"]
    assert len([each for each in found if isinstance(each, int)]) == 3


def test_redis_check_aof_cuts_at_a_moment(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(*STAMPED, "--appendfsync", "always", "--dir", str(tmp_path))
    moments = []
    with server.wire() as wire:
        for turn in range(3):
            wire.pipeline([("MULTI",), ("SET", "a", turn), ("SET", "b", turn), ("EXEC",)])
            moments.append(int(time.time()))
            next_second()
    server.terminate()
    manifest = tmp_path / "appendonlydir" / f"{NAME}.manifest"
    command = ["redis-check-aof", "--truncate-to-timestamp", str(moments[1]), str(manifest)]
    done = subprocess.run(command, capture_output=True, text=True, input="y\n")
    assert done.returncode == 0 and "Successfully truncated" in done.stdout, done.stdout + done.stderr
    for program in ({"program": REDIS}, {}):
        server = start_server(*STAMPED, "--dir", str(tmp_path), **program)
        with server.wire() as wire:
            assert wire("MGET", "a", "b") == [b"1", b"1"]
        server.terminate(signal.SIGKILL)
