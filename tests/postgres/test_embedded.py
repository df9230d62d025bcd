"""A PostgreSQL in a directory: made, started, killed, left behind, and never twice."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.region import wait_until
from tests.postgres.conftest import asyncpg
from tests.rigs.shared import Rigs
from tests.support import ROOT, wait_for
from zeekdb.errors import Unavailable
from zeekdb.tiers.guard import TierFailed
from zeekdb.tiers.postgres import embedded as module
from zeekdb.tiers.postgres.embedded import Embedded, _first_number, _standing
from zeekdb.tiers.postgres.pool import Database

HOLDER = """
import asyncio, sys
from zeekdb.tiers.postgres.embedded import Embedded
async def main():
    server = Embedded(sys.argv[1])
    await server.start()
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def folder(rigs: Rigs) -> Path:
    return rigs.embedded_folder()


async def ask(server: Embedded, statement: str) -> Any:
    connection = await asyncpg.connect(**server.arguments)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_it_is_made_and_found_again(folder: Path) -> None:
    server = Embedded(folder)
    await server.start()
    assert await ask(server, "SHOW listen_addresses") == ""
    assert await ask(server, "SHOW synchronous_commit") == await ask(server, "SHOW fsync") == "on"
    assert await ask(server, "SHOW data_checksums") == "on"
    assert [os.stat(path).st_mode & 0o777 for path in (folder, folder / "data")] == [0o700, 0o700]
    assert os.stat(folder / "data").st_uid != 0, "PostgreSQL refuses root"
    await ask(server, "CREATE TABLE t AS SELECT 42 AS n")
    await server.stop()
    await server.stop()
    assert list(_standing(folder / "data")) == []
    assert not (folder / "data" / "postmaster.pid").exists(), "a clean shutdown"
    again = Embedded(folder)
    await again.start()
    assert await ask(again, "SELECT n FROM t") == 42
    await again.stop()


async def test_a_long_path_will_do(folder: Path) -> None:
    server = Embedded(folder / ("d" * 120) / "pg")
    await server.start()
    assert await ask(server, "SELECT 1") == 1
    await server.stop()


async def test_never_two_in_one_directory(folder: Path) -> None:
    one, two = Embedded(folder), Embedded(folder)
    await one.start()
    with pytest.raises(Unavailable, match=f"in use by another ZeekDB \\(process {os.getpid()}\\)"):
        await two.start()
    await two.start(may_join=True)
    assert await ask(two, "SELECT 1") == 1
    await two.stop()
    assert await ask(one, "SELECT 1") == 1
    await one.stop()
    await two.start(may_join=True)
    assert two.is_started
    await two.stop()


async def test_a_killed_postgresql_is_started_again(folder: Path) -> None:
    restarts = []
    server = Embedded(folder, restarted=lambda: restarts.append(1))
    await server.start()
    await ask(server, "CREATE TABLE t AS SELECT 42 AS n")
    for count in (1, 2):
        os.kill(postmaster_of(folder), signal.SIGKILL)
        await wait_until(lambda count=count: len(restarts) == count, 20)
        assert await ask(server, "SELECT n FROM t") == 42
    await server.stop()
    assert list(_standing(folder / "data")) == []


def postmaster_of(folder: Path) -> int:
    """Its process. Never 0, which to a signal means all of us."""
    pid = _first_number(folder / "data" / "postmaster.pid")
    assert pid in list(_standing(folder / "data"))
    return pid


def holder(folder: Path) -> subprocess.Popen[bytes]:
    """Another process with a server in the directory, once it runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


async def test_it_ends_with_whoever_started_it(folder: Path) -> None:
    process = await asyncio.to_thread(holder, folder)
    assert list(_standing(folder / "data"))
    process.kill()
    process.communicate()
    await asyncio.to_thread(wait_for, lambda: not list(_standing(folder / "data")), 20)
    server = Embedded(folder)
    await server.start()
    assert await ask(server, "SELECT 1") == 1
    await server.stop()


@pytest.mark.parametrize("is_frozen", [False, True])
async def test_what_a_killed_server_left_running_is_ended(
    folder: Path, is_frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_S", 1.0)
    process = await asyncio.to_thread(holder, folder)
    postmaster = postmaster_of(folder)
    os.kill(postmaster, signal.SIGSTOP)  # so that it does not end with its holder
    process.kill()
    process.communicate()
    if not is_frozen:
        os.kill(postmaster, signal.SIGCONT)
    server = Embedded(folder)
    await server.start()
    assert postmaster_of(folder) != postmaster
    assert await ask(server, "SELECT 1") == 1
    await server.stop()


async def test_a_stale_pid_file_is_no_postmaster(folder: Path) -> None:
    server = Embedded(folder)
    await server.start()
    await server.stop()
    # the number of a process that lives: PostgreSQL by itself would take it for the old postmaster
    (folder / "data" / "postmaster.pid").write_text(f"{os.getppid()}\n{folder}/data\n1\n5432\n.\n\n  1 1\nready\n")
    await server.start()
    assert await ask(server, "SELECT 1") == 1
    await server.stop()


async def test_half_a_cluster_is_made_anew(folder: Path) -> None:
    (folder / "data.new" / "base").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    server = Embedded(folder)
    await server.start()
    assert await ask(server, "SELECT 1") == 1
    assert not (folder / "data.new").exists()
    await server.stop()


async def test_a_cluster_that_the_disk_never_had_is_made_anew(folder: Path) -> None:
    server = Embedded(folder)
    await server.start()
    await server.wait_synced()
    await ask(server, "CREATE TABLE t AS SELECT 42 AS n")
    marker = folder / "unsynced"
    assert not marker.exists()
    await server.stop()
    assert not server.is_synced
    marker.write_text(module._boot())  # the server was stopped before the disk had it all; the machine goes on
    await server.start()
    assert await ask(server, "SELECT n FROM t") == 42
    await server.wait_synced()
    assert not marker.exists()
    await server.stop()
    marker.write_text("another boot")
    await server.start()
    assert await ask(server, "SELECT to_regclass('t') IS NULL")
    await server.wait_synced()
    await server.stop()


async def test_nothing_is_confirmed_before_the_disk_has_the_cluster(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_failing = True

    def sync(fd: int) -> None:
        if is_failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_sync_all", sync)
    monkeypatch.setattr(module, "SYNC_WAIT_S", 0.1)
    monkeypatch.setattr(module, "SYNC_PAUSE_S", 0.01)
    database = Database(f"embedded:{folder}", timeout_s=10)
    await database.open()
    assert database.is_open
    assert await database.read(lambda connection: connection.fetchval("SELECT 1")) == 1
    with pytest.raises(TierFailed, match="not on the disk yet"):
        await database.write(lambda connection: connection.fetchval("SELECT 1"))
    assert (folder / "unsynced").exists()
    is_failing = False
    assert database.embedded is not None
    await wait_until(lambda: database.embedded is not None and database.embedded.is_synced)
    assert await database.write(lambda connection: connection.fetchval("SELECT 1")) == 1
    await database.close()


async def test_what_cannot_start_says_why(folder: Path) -> None:
    server = Embedded(folder)
    await server.start()
    await server.stop()
    (folder / "data" / "global" / "pg_control").unlink()
    with pytest.raises(Unavailable, match=r"ended at once.*pg_control"):
        await server.start()
    (folder / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(Unavailable, match=r"is of PostgreSQL 9\.6, whose programs"):
        await server.start()
    blocked = folder / "file"
    blocked.write_text("")
    with pytest.raises(Unavailable, match="Not a directory"):
        await Embedded(blocked / "pg").start()


async def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(Unavailable, match=r"pip install 'zeekdb\[tiers\]'"):
        await Embedded(folder).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has programs that PostgreSQL's user can't reach")
async def test_programs_that_only_root_can_reach(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """As where the environment lies below /root."""
    found = importlib.util.find_spec(module.PACKAGE)
    assert found is not None and found.origin is not None
    package, hidden = Path(found.origin).parent, tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    for each in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(each, hidden / each.name, symlinks=True)
    there = SimpleNamespace(origin=str(hidden / package.name / "__init__.py"))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: there)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as copies:
        os.chmod(copies, 0o755)
        monkeypatch.setattr(module, "PROGRAMS_COPY", Path(copies))
        for _ in range(2):
            server = Embedded(folder)
            await server.start()
            assert await ask(server, "SELECT 1") == 1
            await server.stop()
        assert len(os.listdir(copies)) == 1
    monkeypatch.setattr(module, "PROGRAMS_COPY", hidden)
    with pytest.raises(Unavailable, match="as another user"):
        await Embedded(folder).start()
