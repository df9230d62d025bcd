"""How snapshots end that do not come to their end: what stays behind is no file, no open epoch and no descriptor."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zeekdb.config.config import Config
from zeekdb.hot.filewriter import FileWriter
from zeekdb.hot.keyspace import Keyspace
from zeekdb.persistence import manifest as manifests
from zeekdb.persistence import rdb
from zeekdb.persistence.manifest import AofFile, Manifest
from zeekdb.server.aof import AppendOnly
from zeekdb.server.snapshots import SnapshotGivenUp, Snapshots

KEYS = 20_000
WAIT_S = 30.0


def server_of(folder: Path) -> Any:
    """As much of one as snapshots ask for."""
    keyspace = Keyspace(1, 1)
    for number in range(KEYS):
        keyspace.databases[0].set(b"key:%d" % number, b"value")
    config = Config()
    config.dir = str(folder)
    made: Any = SimpleNamespace(
        keyspace=keyspace, config=config, loading=False,
        engine=SimpleNamespace(tick=lambda: None, total_commands=0),
        runner=SimpleNamespace(libraries=SimpleNamespace(records=lambda: b"")),
        replica=SimpleNamespace(active=False),
    )  # fmt: skip
    made.snapshots = Snapshots(made)
    return made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    made = server_of(tmp_path)
    yield made
    made.snapshots.end()
    made.keyspace.clear(made.keyspace.databases)


def keys_in(path: Path) -> int:
    return rdb.load(Keyspace(1, 1), path.read_bytes()).keys


def test_one_that_was_ended_becomes_no_file_and_ends_no_other(server: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        first = server.snapshots.begin(tmp_path / "first.rdb")
        server.snapshots.end()
        second = server.snapshots.begin(tmp_path / "second.rdb")
        with pytest.raises(SnapshotGivenUp):
            await server.snapshots.finish(first)
        await server.snapshots.finish(second)

    asyncio.run(scenario())
    assert keys_in(tmp_path / "second.rdb") == KEYS
    assert [path.name for path in tmp_path.iterdir()] == ["second.rdb"]


def test_a_flush_after_the_walk_takes_nothing_back(server: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        job = server.snapshots.begin(tmp_path / "dump.rdb")
        assert job.snapshot.step(0)
        server.keyspace.clear(server.keyspace.databases)
        await server.snapshots.finish(job)

    asyncio.run(scenario())
    assert keys_in(tmp_path / "dump.rdb") == KEYS


def test_after_a_failure_the_loop_goes_on_while_keys_are_brought_to_one_epoch(server: Any, tmp_path: Path) -> None:
    turns = 0

    async def scenario() -> None:
        nonlocal turns
        job = server.snapshots.begin(tmp_path / "dump.rdb")
        job.file.writer.close()  # whatever is written now fails
        writing = asyncio.ensure_future(server.snapshots.finish(job))
        while not writing.done():
            await asyncio.sleep(0)
            turns += job.snapshot.given_up and not job.snapshot.done
        with pytest.raises(OSError):
            await writing
        assert job.snapshot.done and server.snapshots.current is None

    asyncio.run(scenario())
    assert turns > 3
    assert list(tmp_path.iterdir()) == []


def test_none_begins_while_data_are_loaded(server: Any, tmp_path: Path) -> None:
    server.loading = True
    with pytest.raises(SnapshotGivenUp):
        asyncio.run(server.snapshots.write(tmp_path / "dump.rdb"))
    assert list(tmp_path.iterdir()) == []


def test_what_a_closed_writer_is_given_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        writer = FileWriter(file.fileno(), False, 1 << 30)
        writer.put(b"before")
        writer.close()
        errors: list[OSError] = []

        def put() -> None:
            try:
                writer.put(b"behind")
            except OSError as error:
                errors.append(error)

        thread = threading.Thread(target=put, daemon=True)
        thread.start()
        thread.join(WAIT_S)
        assert errors and not thread.is_alive()
    assert (tmp_path / "file").read_bytes() == b"before"


def test_a_rewrite_that_cannot_begin_leaves_no_descriptor(server: Any, tmp_path: Path) -> None:
    def begin(*_: object) -> None:
        raise OSError("no room")

    server.snapshots.begin = begin
    appendonly = AppendOnly(server)
    manifests.make_folder(appendonly.directory)
    with pytest.raises(OSError):
        asyncio.run(appendonly._rewrite())
    files = [each.resolve() for each in Path("/proc/self/fd").iterdir()]
    assert not [path for path in files if path.parent == appendonly.directory]


def test_files_stay_announced_when_their_manifest_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next start would refuse them: files that look as if their manifest was lost."""

    def fail(descriptor: int) -> None:
        raise OSError("no room")

    path = tmp_path / "appendonly.aof.manifest"
    manifest = Manifest(None, [AofFile("appendonly.aof.1.incr.aof", 1, "i")])
    manifests.announce(path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError):
            manifests.write(path, manifest)
    assert manifests.is_announced(path)
    manifests.write(path, manifest)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError):
            manifests.write(path, manifest)
    assert not manifests.is_announced(path)
    assert manifests.read(path).increments == manifest.increments
