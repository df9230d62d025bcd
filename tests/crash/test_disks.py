"""Disks that are full, or gone: writes are refused, reads go on, and all is well again when the disk is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import Server, Wire, encode, wait_for

StartServer = Callable[..., Server]
MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, of which 3 are taken by `ballast`."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]).returncode:
        pytest.skip("mounting a small file system takes root's rights")
    (place / "ballast").write_bytes(bytes(3 * MIB))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


SETTLED = (b"aof_buffer_length:0", b"aof_last_write_status:err")


def refused(wire: Wire) -> bool:
    return str(wire("SET", "refused", "x")).startswith("MISCONF")


@pytest.mark.parametrize("mode", ["always", "everysec"])
def test_a_full_disk(start_server: StartServer, small_disk: Path, mode: str) -> None:
    options = ("--dir", str(small_disk), "--appendonly", "yes", "--appendfsync", mode, "--save", "")
    server = start_server(*options)
    with server.wire() as writer, server.wire() as other:
        acknowledged = 0
        while acknowledged < 60:
            writer.send(encode("SET", f"k{acknowledged}", "x" * 50_000))
            if mode == "always" and writer.quiet(1):
                break  # its reply waits for the disk
            if str(writer.read()).startswith("MISCONF"):
                break
            acknowledged += 1
            wait_for(lambda: any(word in other("INFO", "persistence") for word in SETTLED))
        assert 5 < acknowledged < 60
        wait_for(lambda: b"aof_last_write_status:err" in other("INFO", "persistence"))
        assert other("SET", "a", "b").startswith("MISCONF Errors writing to the AOF file: No space left on device")
        assert other("GET", "k0") == b"x" * 50_000
        assert b"aof_last_write_status:err" in other("INFO", "persistence")
        (small_disk / "ballast").unlink()
        wait_for(lambda: other("SET", "a", "b") == "OK")
        assert b"aof_last_write_status:ok" in other("INFO", "persistence")
        assert other("WAITAOF", 1, 0, 5000) == [1, 0]
    server.terminate(signal.SIGKILL)
    with start_server(*options).wire() as wire:
        assert wire("EXISTS", *[f"k{n}" for n in range(acknowledged)]) == acknowledged
        assert wire("GET", "a") == b"b"


def test_a_full_disk_and_snapshots(start_server: StartServer, small_disk: Path) -> None:
    server = start_server("--dir", str(small_disk), "--save", "3600 1000000", "--enable-debug-command", "yes")
    with server.wire() as wire:
        wire("SET", "first", "v")
        assert wire("SAVE") == "OK"
        whole = (small_disk / "dump.rdb").read_bytes()
        wire.pipeline([("SET", f"k{n}", os.urandom(50_000)) for n in range(40)])
        wire("BGSAVE")
        wait_for(lambda: refused(wire))
        assert wire("GET", "first") == b"v"
        assert wire("SET", "a", "b").startswith("MISCONF Redis is configured to save RDB snapshots")
        assert (small_disk / "dump.rdb").read_bytes() == whole
        assert not list(small_disk.glob("temp-*"))
        (small_disk / "ballast").unlink()
        wire("BGSAVE")
        wait_for(lambda: wire("SET", "a", "b") == "OK")
        assert wire("CONFIG", "SET", "save", "") == "OK"


def test_a_read_only_directory(start_server: StartServer, small_disk: Path) -> None:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    (small_disk / "ballast").unlink()
    options = ("--dir", str(small_disk), "--save", "3600 1000000")
    server = start_server(*options)
    with server.wire() as wire:
        wire("SET", "first", "v")
        assert wire("SAVE") == "OK"
        whole = (small_disk / "dump.rdb").read_bytes()
        remount("ro")
        wire("SET", "second", "v")
        wire("BGSAVE")
        wait_for(lambda: refused(wire))
        assert wire("GET", "second") == b"v"
        assert wire("SAVE").startswith("ERR")
        assert (small_disk / "dump.rdb").read_bytes() == whole
        remount("rw")
        wait_for(lambda: wire("SET", "third", "v") == "OK")
        wait_for(lambda: b"rdb_last_bgsave_status:ok" in wire("INFO", "persistence"))
        assert wire("CONFIG", "SET", "appendonly", "yes") == "OK"
        wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"))
        assert wire("SET", "fourth", "v") == "OK"
        assert wire("WAITAOF", 1, 0, 5000) == [1, 0]
    server.terminate(signal.SIGKILL)
    with start_server(*options, "--appendonly", "yes").wire() as wire:
        assert wire("EXISTS", "first", "second", "third", "fourth") == 4


def test_a_vanished_directory(start_server: StartServer, tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.mkdir()
    server = start_server("--dir", str(place), "--appendonly", "yes", "--save", "3600 1000000")
    with server.wire() as wire:
        wire("SET", "a", "1")
        shutil.rmtree(place)
        assert wire("SAVE") == "ERR"
        wait_for(lambda: refused(wire))
        assert wire("GET", "a") == b"1"
        place.mkdir()
        assert wire("BGSAVE") == "Background saving started"
        wait_for(lambda: wire("SET", "a", "2") == "OK")
        (place / "appendonlydir").mkdir()
        assert wire("BGREWRITEAOF") == "Background append only file rewriting started"
        wait_for(lambda: (place / "appendonlydir" / "appendonly.aof.manifest").exists())
        wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"))
    server.terminate(signal.SIGKILL)
    with start_server("--dir", str(place), "--appendonly", "yes").wire() as wire:
        assert wire("GET", "a") == b"2"


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    if (access(getenv("SYNC_FAILS"), F_OK) == 0) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


def count_rewrites(wire: Wire) -> int:
    return int(wire("INFO", "persistence").split(b"aof_rewrites:")[1].split(b"\r")[0])


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose fdatasync fails while the file that SYNC_FAILS names is there."""
    place = tmp_path_factory.mktemp("shim")
    (place / "shim.c").write_text(SHIM)
    command = ["gcc", "-shared", "-fPIC", "-o", str(place / "shim.so"), str(place / "shim.c"), "-ldl"]
    subprocess.run(command, check=True)
    return place / "shim.so"


@pytest.mark.parametrize("mode", ["always", "everysec"])
def test_a_sync_that_fails(start_server: StartServer, shim: Path, tmp_path: Path, mode: str) -> None:
    switch = tmp_path / "fails"
    options = ("--dir", str(tmp_path), "--appendonly", "yes", "--appendfsync", mode, "--save", "")
    server = start_server(*options, environment={"LD_PRELOAD": str(shim), "SYNC_FAILS": str(switch)})
    with server.wire(30) as writer, server.wire(30) as other:
        assert writer("SET", "before", "1") == "OK"
        switch.touch()
        writer.send(encode("SET", "during", "1"))
        wait_for(lambda: b"aof_last_write_status:err" in other("INFO", "persistence"))
        assert other("SET", "a", "b") == "MISCONF Errors writing to the AOF file: Input/output error"
        assert other("GET", "before") == b"1"
        assert "Can't sync the append-only file" in server.log()
        rewrites = count_rewrites(other)
        switch.unlink()
        wait_for(lambda: other("SET", "a", "b") == "OK", 30)
        assert writer.read() == "OK"  # under `always` it has waited for that
        wait_for(lambda: count_rewrites(other) > rewrites)
        assert other("WAITAOF", 1, 0, 5000) == [1, 0]
    server.terminate(signal.SIGKILL)
    with start_server(*options).wire() as wire:
        assert wire("MGET", "before", "during", "a") == [b"1", b"1", b"b"]
