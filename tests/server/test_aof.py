"""The append-only file over real servers and real files; what redis-server makes of it, and we of its."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import REDIS, Server, Wire, encode, wait_for

StartServer = Callable[..., Server]
NAME = "appendonly.aof"


def info(wire: Wire, section: str = "persistence") -> dict[str, str]:
    lines = wire("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def folder(server: Server) -> Path:
    return server.directory / "appendonlydir"


def manifest(server: Server) -> str:
    return (folder(server) / f"{NAME}.manifest").read_text()


def started(start_server: StartServer, data: Path | None = None, *arguments: str, **options: object) -> Server:
    """A server with an append-only file, on a copy of `data` if given."""
    directory = []
    if data is not None:
        directory = ["--dir", str(data)]
    return start_server("--appendonly", "yes", *directory, *arguments, **options)


def crashed(server: Server, to: Path) -> Path:
    """The server is killed; a copy of what it leaves."""
    server.terminate(signal.SIGKILL)
    shutil.copytree(server.directory / "appendonlydir", to / "appendonlydir")
    return to


COMMANDS: tuple[tuple[object, ...], ...] = (
    ("SET", "s", "v"), ("SET", "t", "v", "EX", 1000), ("SETEX", "u", 1000, "v"), ("EXPIRE", "s", 500), ("INCR", "n"),
    ("MSET", "a", "1", "b", "2"), ("APPEND", "a", "2"), ("RPUSH", "l", "a", "b", "c"), ("LPOP", "l"),
    ("SADD", "set", *range(100)), ("SPOP", "set"), ("SPOP", "set", 3), ("HSET", "h", "f", "v", "g", "w"),
    ("HINCRBYFLOAT", "h", "x", "1.5"), ("ZADD", "z", 1, "a", 2.5, "b"), ("ZPOPMIN", "z"), ("XADD", "x", "*", "f", "v"),
    ("XADD", "x", "MAXLEN", "~", "100", "*", "f", "v"), ("XGROUP", "CREATE", "x", "g", "0"),
    ("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "x", ">"), ("SELECT", 3), ("SET", "other", "db"),
    ("EVAL", "redis.call('set', 'e', '1') return redis.call('incrby', 'e', 5)", 0), ("PFADD", "hll", "a", "b"),
    ("GETDEL", "other"), ("SELECT", 0), ("DEL", "b"), ("SETBIT", "bits", 77, 1), ("GEOADD", "geo", "13", "38", "P"),
)  # fmt: skip


def state(wire: Wire) -> dict[tuple[int, bytes], object]:
    """Everything that is there, as values, with whether it expires."""
    readers = {
        "string": ("GET",), "list": ("LRANGE", 0, -1), "hash": ("HGETALL",), "set": ("SMEMBERS",),
        "zset": ("ZRANGE", 0, -1, "WITHSCORES"), "stream": ("XRANGE", "-", "+"),
    }  # fmt: skip
    found: dict[tuple[int, bytes], object] = {}
    for index in (0, 3):
        wire("SELECT", index)
        for key in wire("KEYS", "*"):
            kind = str(wire("TYPE", key))
            name, *rest = readers[kind]
            value = wire(name, key, *rest)
            found[(index, key)] = (kind, sorted(value) if kind in ("set", "hash") else value, wire("TTL", key) > 0)
    wire("SELECT", 0)
    return found


def test_what_was_said_is_there_after_a_crash(start_server: StartServer, tmp_path: Path) -> None:
    server = started(start_server, None, "--appendfsync", "always")
    with server.wire() as wire:
        for command in COMMANDS:
            wire(*command)
        before = state(wire)
    data = crashed(server, tmp_path)
    with started(start_server, data).wire() as wire:
        assert state(wire) == before


def test_redis_server_reads_it(start_server: StartServer, tmp_path: Path) -> None:
    server = started(start_server, None, "--appendfsync", "always")
    with server.wire() as wire:
        for command in COMMANDS[:15]:
            wire(*command)
        wait_for(lambda: info(wire)["aof_rewrite_in_progress"] == "0")
        assert wire("BGREWRITEAOF") == "Background append only file rewriting started"
        for command in COMMANDS[15:]:
            wire(*command)
        before = state(wire)
        wait_for(lambda: info(wire)["aof_rewrite_in_progress"] == "0")
    data = crashed(server, tmp_path)
    with started(start_server, data, program=REDIS).wire() as wire:
        assert state(wire) == before


def test_what_redis_server_wrote_is_read(start_server: StartServer, tmp_path: Path) -> None:
    server = started(start_server, None, "--appendfsync", "always", "--aof-timestamp-enabled", "yes", program=REDIS)
    with server.wire() as wire:
        for command in COMMANDS:
            wire(*command)
        before = state(wire)
    data = crashed(server, tmp_path)
    with started(start_server, data).wire() as wire:
        assert state(wire) == before


def test_a_torn_tail_is_cut(start_server: StartServer, tmp_path: Path) -> None:
    server = started(start_server, None, "--appendfsync", "always")
    with server.wire() as wire:
        wire("SET", "a", "1")
        wire.pipeline([("MULTI",), ("SET", "b", "1"), ("SET", "c", "1"), ("EXEC",)])
    data = crashed(server, tmp_path)
    last = max((data / "appendonlydir").glob("*.incr.aof"))
    whole = last.read_bytes()
    last.write_bytes(whole[:-5])  # inside EXEC: the transaction never was
    (data / "appendonlydir" / f"{NAME}.9.incr.aof").touch()  # a rewrite had just begun
    with (data / "appendonlydir" / f"{NAME}.manifest").open("a") as manifest_file:
        manifest_file.write(f"file {NAME}.9.incr.aof seq 9 type i\n")
    refused = started(start_server, data, "--aof-load-truncated", "no", wait=False)
    assert refused.process.wait(30) == 1
    assert "unexpected end of file" in refused.log()
    server = started(start_server, data)
    with server.wire() as wire:
        assert [wire("GET", key) for key in ("a", "b", "c")] == [b"1", None, None]
        wire("SET", "d", "1")
    assert all(b"MULTI" not in path.read_bytes() for path in (data / "appendonlydir").iterdir())


def test_damage_is_refused_with_its_place(start_server: StartServer, tmp_path: Path) -> None:
    server = started(start_server, None, "--appendfsync", "always")
    with server.wire() as wire:
        wire("SET", "a", "1")
        wire("SET", "b", "1")
    data = crashed(server, tmp_path)
    last = max((data / "appendonlydir").glob("*.incr.aof"))
    whole = last.read_bytes()
    for bad, why in (
        (whole.replace(b"$1\r\nb", b"$x\r\nb"), "does not follow the protocol"),
        (whole + b"garbage\r\n", "a command was expected"),
        (whole + encode("NOSUCH", "a"), "Unknown command"),
        (whole + b"*0\r\n", "does not follow the protocol"),
        (whole.replace(b"SET\r\n", b"SETxx", 1), "does not follow the protocol"),
        (whole + b"#TS:17\0\0\0" + encode("SET", "c", "1"), "does not follow the protocol"),
    ):
        last.write_bytes(bad)
        refused = started(start_server, data, wait=False)
        assert refused.process.wait(30) == 1
        assert why in refused.log()
        assert "offset" in refused.log()
    last.unlink()
    refused = started(start_server, data, wait=False)
    assert refused.process.wait(30) == 1
    assert f"{last.name} doesn't exist" in refused.log()


def test_turned_on_and_off(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    with server.wire() as wire:
        wire("SET", "a", "1")
        assert info(wire)["aof_enabled"] == "0"
        assert wire("CONFIG", "SET", "appendonly", "yes") == "OK"
        wait_for(lambda: info(wire)["aof_enabled"] == "1" and info(wire)["aof_rewrite_in_progress"] == "0")
        wire("SET", "b", "2")
        assert wire("WAITAOF", 1, 0, 5000) == [1, 0]
        assert wire("CONFIG", "SET", "appendonly", "no") == "OK"
        assert info(wire)["aof_enabled"] == "0"
        wire("SET", "c", "3")
    data = crashed(server, tmp_path)
    with started(start_server, data).wire() as wire:
        assert [wire("GET", key) for key in ("a", "b", "c")] == [b"1", b"2", None]


def test_a_rewrite_while_it_is_off_leaves_a_base(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--dir", str(tmp_path))
    with server.wire() as wire:
        wire("SET", "a", "1")
        for rewrites in ("1", "2"):
            wire("BGREWRITEAOF")
            wait_for(lambda: info(wire)["aof_rewrites"] == rewrites)  # noqa: B023
            assert info(wire)["aof_enabled"] == "0"
        wire("SET", "b", "2")
    assert (tmp_path / "appendonlydir" / f"{NAME}.manifest").read_text() == f"file {NAME}.2.base.rdb seq 2 type b\n"
    server.terminate(signal.SIGKILL)
    with started(start_server, tmp_path).wire() as wire:
        assert wire("MGET", "a", "b") == [b"1", None]


def test_what_was_delivered_and_when_is_still_known(start_server: StartServer, tmp_path: Path) -> None:
    server = started(start_server, tmp_path, "--appendfsync", "always")
    with server.wire() as wire:
        wire.pipeline([("XADD", "s", f"{n}-1", "f", "v") for n in range(1, 6)])
        wire("XGROUP", "CREATE", "s", "g", "0")
        wire("XREADGROUP", "GROUP", "g", "c", "COUNT", 3, "STREAMS", "s", ">")
        before = wire("XPENDING", "s", "g", "-", "+", 10)
        groups = wire("XINFO", "GROUPS", "s")
    server.terminate(signal.SIGKILL)
    with started(start_server, tmp_path).wire() as wire:
        after = wire("XPENDING", "s", "g", "-", "+", 10)
        assert [row[:2] for row in after] == [row[:2] for row in before]
        assert all(0 <= row[2] < 100_000 for row in after)  # ms since it was delivered
        assert wire("XINFO", "GROUPS", "s") == groups


def test_turning_it_on_is_tried_again(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--dir", str(tmp_path))
    folder = tmp_path / "appendonlydir"
    stone = folder / f"temp-rewriteaof-bg-{server.pid}.aof"
    stone.mkdir(parents=True)
    with server.wire() as wire:
        wire("SET", "a", "1")
        assert wire("CONFIG", "SET", "appendonly", "yes") == "OK"
        wait_for(lambda: info(wire)["aof_last_bgrewrite_status"] == "err")
        wire("SET", "b", "1")
        stone.rmdir()
        wait_for(lambda: info(wire)["aof_rewrites"] == "1", 20)
        wait_for(lambda: info(wire)["aof_rewrite_in_progress"] == "0")
        wire("SET", "c", "1")
        assert wire("WAITAOF", 1, 0, 5000) == [1, 0]
    assert len(list(folder.iterdir())) == 3  # the manifest, a base, an increment
    server.terminate(signal.SIGKILL)
    with started(start_server, tmp_path).wire() as wire:
        assert wire("MGET", "a", "b", "c") == [b"1", b"1", b"1"]


def test_after_a_full_copy_the_files_are_made_anew_until_it_succeeds(start_server: StartServer, tmp_path: Path) -> None:
    primary, replica = start_server(), started(start_server, tmp_path)
    stone = tmp_path / "appendonlydir" / f"temp-rewriteaof-bg-{replica.pid}.aof"
    stone.mkdir()
    with primary.wire() as wire, replica.wire() as other:
        wire("SET", "theirs", "1")
        other("SET", "ours", "1")
        other("REPLICAOF", "127.0.0.1", str(primary.port))
        wait_for(lambda: info(other)["aof_last_bgrewrite_status"] == "err")
        stone.rmdir()
        wait_for(lambda: info(other)["aof_rewrites"] == "1", 20)
        wait_for(lambda: info(other)["aof_rewrite_in_progress"] == "0")
    replica.terminate(signal.SIGKILL)
    with started(start_server, tmp_path).wire() as wire:
        assert wire("MGET", "theirs", "ours") == [b"1", None]


def test_a_snapshot_is_not_forgotten_when_the_file_is_turned_on(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--dir", str(tmp_path))
    with server.wire() as wire:
        wire("SET", "a", "1")
        wire("SAVE")
    server.terminate(signal.SIGKILL)
    server = started(start_server, tmp_path)
    with server.wire() as wire:
        assert wire("GET", "a") == b"1"
        wait_for(lambda: ".base.rdb" in (tmp_path / "appendonlydir" / f"{NAME}.manifest").read_text())


def test_an_old_single_file_moves_in(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(encode("SELECT", "0") + encode("SET", "a", "1"))
    server = started(start_server, tmp_path)
    with server.wire() as wire:
        assert wire("GET", "a") == b"1"
        wire("SET", "b", "2")
    server.terminate(signal.SIGTERM)
    assert not (tmp_path / NAME).exists()
    with started(start_server, tmp_path).wire() as wire:
        assert wire("MGET", "a", "b") == [b"1", b"2"]


def test_it_is_rewritten_when_it_has_grown(start_server: StartServer) -> None:
    server = started(start_server, None, "--auto-aof-rewrite-min-size", "100kb")
    with server.wire() as wire:
        wait_for(lambda: info(wire)["aof_rewrite_in_progress"] == "0")
        before = int(info(wire)["aof_rewrites"])
        for _ in range(30):
            wire("SET", "k", "x" * 10_000)
        wait_for(lambda: int(info(wire)["aof_rewrites"]) > before)
        wait_for(lambda: int(info(wire)["aof_current_size"]) < 50_000)
    names = {line.split()[1] for line in manifest(server).splitlines()}
    wait_for(lambda: {path.name for path in folder(server).iterdir()} == {*names, f"{NAME}.manifest"})


@pytest.mark.parametrize("mode", ["everysec", "no"])
def test_a_clean_end_syncs_everything(start_server: StartServer, tmp_path: Path, mode: str) -> None:
    server = started(start_server, tmp_path, "--appendfsync", mode)
    with server.wire() as wire:
        wire.pipeline([("SET", f"k{n}", n) for n in range(1000)])
        wire.send(encode("SHUTDOWN", "NOSAVE"))
        server.process.wait(10)
    with started(start_server, tmp_path).wire() as wire:
        assert wire("DBSIZE") == 1000


def test_keys_that_expire_do_so_in_their_place(start_server: StartServer, tmp_path: Path) -> None:
    server = started(start_server, tmp_path, "--appendfsync", "always")
    with server.wire() as wire:
        wire("SET", "k", "5", "PX", 50)
        wire("INCR", "k")  # what it is before it ends
        wait_for(lambda: wire("EXISTS", "k") == 0)
        wire("INCR", "k")
    server.terminate(signal.SIGKILL)
    with started(start_server, tmp_path).wire() as wire:
        assert wire("GET", "k") == b"1"
        assert wire("TTL", "k") == -1


def test_a_missing_manifest_or_an_empty_base_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    server = started(start_server, tmp_path, "--appendfsync", "always")
    with server.wire() as wire:
        wire("SET", "a", "1")
        wire("BGREWRITEAOF")
        wait_for(lambda: info(wire)["aof_rewrites"] == "1")
        wire("SET", "b", "2")
    server.terminate(signal.SIGKILL)
    folder = tmp_path / "appendonlydir"
    (folder / f"{NAME}.manifest").rename(tmp_path / "kept")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused = started(start_server, tmp_path, wait=False)
    assert refused.process.wait(30) == 1
    assert "but not the AOF manifest" in refused.log()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "kept").rename(folder / f"{NAME}.manifest")
    base = next(folder.glob("*.base.rdb"))
    whole = base.read_bytes()
    base.write_bytes(b"")
    refused = started(start_server, tmp_path, wait=False)
    assert refused.process.wait(30) == 1
    assert "is empty" in refused.log()
    base.write_bytes(whole)
    with started(start_server, tmp_path).wire() as wire:
        assert wire("MGET", "a", "b") == [b"1", b"2"]


def test_an_interrupted_move_goes_on(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(encode("SELECT", "0") + encode("SET", "a", "1"))
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / f"{NAME}.manifest").write_text(f"file {NAME} seq 1 type b\n")
    with started(start_server, tmp_path).wire() as wire:
        assert wire("GET", "a") == b"1"
