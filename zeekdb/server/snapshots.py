"""Snapshots of all databases: taken in slices on the loop, written by a thread, one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeekdb.hot.crc64 import crc64
from zeekdb.hot.snapshot import Snapshot
from zeekdb.persistence import aof_base, rdb
from zeekdb.persistence.rdb_file import RdbFile

if TYPE_CHECKING:
    from zeekdb.server.server import Server

SLICE_US = 20  # of the loop at a time
SHARE = 2  # while clients have work for the loop, one part in so many is the snapshot's
SAVE_SLICE_US = 25_000  # of SAVE, for which everyone waits
PIECE = 1 << 18  # bytes that are handed to the thread at once
WAITING_MAX = 1 << 22  # bytes that wait for the disk until the walk does, too
DISK_S = 0.001
FLUSHED = "the databases were flushed meanwhile"
WITH_RECENCY = ("lru", "lfu")  # policies whose figures are worth keeping


class Form(Enum):
    """What kind of file a snapshot becomes."""

    RDB = "rdb"
    RDB_BASE = "rdb-base"  # of an append-only file
    COMMANDS = "commands"  # the same under aof-use-rdb-preamble no

    @property
    def end(self) -> bytes | None:
        """What closes the file, before its checksum; None: it has neither."""
        return None if self is Form.COMMANDS else rdb.END


class SnapshotGivenUp(OSError):
    """The databases were flushed or swapped meanwhile, or are being loaded: it would show nothing that ever was."""


@dataclass(slots=True)
class Job:
    """A snapshot that has begun, and where it goes."""

    file: RdbFile
    snapshot: Snapshot
    head: bytes
    form: Form


class Snapshots:
    """The server's snapshots, whatever they are for."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.idle = asyncio.Event()
        self.current: Snapshot | None = None
        server.keyspace.database_listeners.append(self._database_changes)

    def _database_changes(self, databases: list[Any], swapped: bool) -> None:
        if self.current is not None:
            self.current.give_up()

    def _open(self, path: Path, form: Form, paces: bool = False) -> RdbFile:
        config = self.server.config
        checksum = bool(config.rdbchecksum) and form is not Form.COMMANDS
        as_it_grows = config.rdb_save_incremental_fsync if form is Form.RDB else config.aof_rewrite_incremental_fsync
        return RdbFile(path, checksum, bool(as_it_grows), paces)

    def _begin(self, form: Form) -> tuple[Snapshot, bytes]:
        """The epoch; the file's first bytes."""
        server = self.server
        server.engine.tick()
        recency = any(word in server.config.maxmemory_policy for word in WITH_RECENCY)
        databases = server.keyspace.databases
        if form is Form.COMMANDS:
            codes = [library.code for library in server.runner.libraries.libraries.values()]
            head = aof_base.head(codes, int(time.time()) if server.config.aof_timestamp_enabled else None)
        else:
            stream_db = server.replica.client.db_index if server.replica.active else None
            head = rdb.head(databases, server.runner.libraries.records(), form is Form.RDB_BASE, stream_db)
        self.current = Snapshot(databases, bool(server.config.rdbcompression), recency, form is Form.COMMANDS)
        return self.current, head

    def end(self) -> None:
        """However it went, all keys are of one epoch again, at once."""
        snapshot, self.current = self.current, None
        self.idle.set()
        if snapshot is not None:
            snapshot.give_up()
            snapshot.step(0)

    async def _unwind(self, snapshot: Snapshot) -> None:
        """The same in slices, after a failure that nobody has to hurry for."""
        snapshot.give_up()
        while not snapshot.step(SLICE_US):
            await self._serve()

    def write_now(self, path: Path, form: Form = Form.RDB) -> None:
        """SAVE: everyone waits. OSError."""
        file = self._open(path, form)
        try:
            snapshot, head = self._begin(form)
            file.writer.put(head)
            while not snapshot.step(SAVE_SLICE_US):
                snapshot.give(file.writer)
            file.writer.put(snapshot.take())
            file.finish(form.end)
        except BaseException:
            file.drop()
            raise
        finally:
            self.end()

    def begin(self, path: Path, form: Form = Form.RDB, at_epoch: Callable[[], None] | None = None) -> Job:
        """The moment that the file will show, at which `at_epoch` is called; `finish` does the rest. OSError."""
        if self.server.loading:
            raise SnapshotGivenUp("data are being loaded")
        file = self._open(path, form, paces=True)
        try:
            if at_epoch is not None:
                at_epoch()
            snapshot, head = self._begin(form)
        except BaseException:
            file.drop()
            raise
        self.idle.clear()
        return Job(file, snapshot, head, form)

    async def finish(self, job: Job) -> None:
        """The file is written and has its name. OSError, and there is none."""
        try:
            await self._write(job)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(job.file.drop))  # the disk may hold it up
            await self._unwind(job.snapshot)
            raise
        finally:
            if self.current is job.snapshot:  # not the one that has begun since it was ended
                self.end()

    async def write(self, path: Path, form: Form = Form.RDB, at_epoch: Callable[[], None] | None = None) -> None:
        """Both, as soon as no other snapshot is under way. OSError."""
        while self.current is not None:
            await self.idle.wait()
        await self.finish(self.begin(path, form, at_epoch))

    async def _serve(self) -> None:
        """Leaves the loop to the clients until they have had their share, or have nothing to do."""
        engine, left_s = self.server.engine, SLICE_US * (SHARE - 1) / 1e6
        while left_s > 0:
            commands, begin_s = engine.total_commands, time.perf_counter()
            await asyncio.sleep(0)
            if engine.total_commands == commands:
                return
            left_s -= time.perf_counter() - begin_s

    async def stream(self, size: int, at_epoch: Callable[[], None]) -> AsyncGenerator[bytes, None]:
        """The same as pieces of about `size` bytes, for no file; no other snapshot may be under way. SnapshotGivenUp.

        The snapshot goes on as its taker asks for more, so a slow one makes it long.
        """
        at_epoch()
        snapshot, piece = self._begin(Form.RDB)
        self.idle.clear()
        checksum, crc, done = bool(self.server.config.rdbchecksum), 0, False
        try:
            while not done:
                crc = crc64(piece, crc) if checksum else 0
                yield piece
                while not done and snapshot.size < size:
                    await self._serve()
                    done = snapshot.step(SLICE_US)
                    if snapshot.given_up:
                        raise SnapshotGivenUp(FLUSHED)
                piece = snapshot.take()
            piece += rdb.END
            yield piece + (crc64(piece, crc) if checksum else 0).to_bytes(8, "little")
        finally:
            await self._unwind(snapshot)
            if self.current is snapshot:
                self.end()

    async def _write(self, job: Job) -> None:
        file, snapshot = job.file, job.snapshot
        await asyncio.to_thread(file.writer.put, job.head)
        done = False
        while not done or snapshot.size:
            if not done and snapshot.size < WAITING_MAX:
                done = snapshot.step(SLICE_US)
            if snapshot.given_up:
                raise SnapshotGivenUp(FLUSHED)
            if (done or snapshot.size >= PIECE) and not snapshot.give(file.writer):
                await asyncio.sleep(DISK_S)  # the disk is slower than the walk
            await self._serve()
        await asyncio.to_thread(file.finish, job.form.end)
