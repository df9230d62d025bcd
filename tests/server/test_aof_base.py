"""aof-use-rdb-preamble no on real servers: rewritten under load, read by both."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support import REDIS, Server, Wire, wait_for
from tests.tools.data import fill, state
from zeekdb.tools.check import check

StartServer = Callable[..., Server]
NAME = "appendonly.aof"
PLAIN = ("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", "no")


def rewritten(wire: Wire) -> None:
    """BGREWRITEAOF, and its end."""

    def info(name: bytes) -> int:
        return int(wire("INFO", "persistence").split(name + b":", 1)[1].split(b"\r\n", 1)[0])

    wait_for(lambda: not info(b"aof_rewrite_in_progress"))
    before = info(b"aof_rewrites")
    assert wire("BGREWRITEAOF") == "Background append only file rewriting started"
    wait_for(lambda: info(b"aof_rewrites") > before)


def base(data: Path) -> Path:
    """The base that the manifest names."""
    words = (data / "appendonlydir" / f"{NAME}.manifest").read_text().splitlines()[0].split()
    assert words[-1] == "b"
    return data / "appendonlydir" / words[1]


def test_both_servers_read_it(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(*PLAIN, "--dir", str(tmp_path))
    with server.wire() as wire:
        fill(wire)
        rewritten(wire)
        wire("SET", "later", 1)
        before = state(wire)
    server.terminate(signal.SIGKILL)
    assert base(tmp_path).name == f"{NAME}.1.base.aof"
    assert base(tmp_path).read_bytes().startswith(b"*3\r\n$8\r\nFUNCTION\r\n$4\r\nLOAD\r\n")
    assert check(tmp_path).well
    shutil.copytree(tmp_path, tmp_path / "copy")
    for program, place in (({}, tmp_path), ({"program": REDIS}, tmp_path / "copy")):
        with start_server(*PLAIN, "--dir", str(place), **program).wire() as wire:
            assert state(wire) == before
            assert wire("FCALL", "f", 0) == 1


def test_what_redis_server_wrote_is_read(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(*PLAIN, "--dir", str(tmp_path), "--aof-timestamp-enabled", "yes", program=REDIS)
    with server.wire() as wire:
        fill(wire)
        rewritten(wire)
        before = state(wire)
    server.terminate(signal.SIGKILL)
    assert base(tmp_path).read_bytes().startswith(b"#TS:")
    number = int(base(tmp_path).name.split(".")[-3])
    server = start_server(*PLAIN, "--dir", str(tmp_path), "--aof-timestamp-enabled", "yes")
    with server.wire() as wire:
        assert state(wire) == before
        rewritten(wire)
    server.terminate(signal.SIGKILL)
    assert base(tmp_path).name == f"{NAME}.{number + 1}.base.aof" and base(tmp_path).read_bytes().startswith(b"#TS:")
    with start_server(*PLAIN, "--dir", str(tmp_path), program=REDIS).wire() as wire:
        assert state(wire) == before


def test_what_only_we_have(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(*PLAIN, "--dir", str(tmp_path))
    with server.wire() as wire:
        wire("VADD", "v", "VALUES", 2, 1, 0, "a")
        wire("VADD", "v", "VALUES", 2, 0, 1, "b", "SETATTR", '{"n":1}')
        wire("HSET", "h", "f", 1, "g", 2)
        wire("HEXPIRE", "h", 1000, "FIELDS", 1, "f")
        deadline = wire("HPEXPIRETIME", "h", "FIELDS", 1, "f")
        rewritten(wire)
    server.terminate(signal.SIGKILL)
    with start_server(*PLAIN, "--dir", str(tmp_path)).wire() as wire:
        assert wire("VCARD", "v") == 2 and wire("VGETATTR", "v", "b") == b'{"n":1}'
        assert wire("HPEXPIRETIME", "h", "FIELDS", 1, "f") == deadline
        assert wire("HMGET", "h", "f", "g") == [b"1", b"2"]


def test_base_and_increment_meet_at_one_moment(start_server: StartServer, tmp_path: Path) -> None:
    """Nothing of what changes during a rewrite counts twice, nothing is missing; at run time, too."""
    server = start_server("--save", "", "--appendonly", "yes", "--dir", str(tmp_path))
    with server.wire() as wire, server.wire() as other:
        wire.pipeline([("RPUSH", f"l{n}", *range(30)) for n in range(3000)])
        assert wire("CONFIG", "SET", "aof-use-rdb-preamble", "no") == "OK"
        for _ in range(3):
            wait_for(lambda: b"aof_rewrite_in_progress:0" in other("INFO", "persistence"))
            other("BGREWRITEAOF")
            while b"aof_rewrite_in_progress:1" in other("INFO", "persistence"):
                wire.pipeline([("RPUSH", f"l{n}", "x") for n in range(0, 3000, 7)])
                wire.pipeline([("INCR", f"n{n}") for n in range(99)])
        assert wire("WAITAOF", 1, 0, 5000) == [1, 0]
        before = state(wire)
    server.terminate(signal.SIGKILL)
    assert base(tmp_path).suffix == ".aof"
    shutil.copytree(tmp_path, tmp_path / "copy")
    for program, place in (({}, tmp_path), ({"program": REDIS}, tmp_path / "copy")):
        with start_server(*PLAIN, "--dir", str(place), **program).wire() as wire:
            assert state(wire) == before


def test_an_empty_server_has_an_empty_base(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(*PLAIN, "--dir", str(tmp_path))
    with server.wire() as wire:
        rewritten(wire)
        assert base(tmp_path).read_bytes() == b""
        wire("SET", "a", 1)
    server.terminate(signal.SIGKILL)
    for program in ({"program": REDIS}, {}):
        server = start_server(*PLAIN, "--dir", str(tmp_path), **program)
        with server.wire() as wire:
            assert wire("GET", "a") == b"1"
        server.terminate(signal.SIGKILL)


def test_a_start_on_a_snapshot_makes_a_base(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--dir", str(tmp_path))
    with server.wire() as wire:
        wire("SET", "a", 1)
        wire("SAVE")
    server.terminate(signal.SIGKILL)
    with start_server(*PLAIN, "--dir", str(tmp_path)).wire() as wire:
        assert wire("GET", "a") == b"1"
    assert base(tmp_path).name == f"{NAME}.1.base.aof"


def test_a_torn_base_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    """A rewrite gives it its name when it is whole: what is missing was not lost in a crash."""
    server = start_server(*PLAIN, "--dir", str(tmp_path))
    with server.wire() as wire:
        fill(wire)
        rewritten(wire)
    server.terminate(signal.SIGKILL)
    path = base(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    refused = start_server(*PLAIN, "--dir", str(tmp_path), wait=False)
    assert refused.process.wait(30) == 1
    assert "unexpected end of file" in refused.log() and path.read_bytes() == whole[:-3]
    report = check(tmp_path, fix=True)
    assert not report.well and path.read_bytes() == whole[:-3]
    assert check(path, fix=True).well and len(path.read_bytes()) < len(whole) - 3
