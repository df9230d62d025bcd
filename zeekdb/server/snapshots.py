"""Snapshots of all databases: taken in slices on the loop, written by a thread, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeekdb.hot.crc64 import crc64
from zeekdb.hot.snapshot import Snapshot
from zeekdb.persistence import rdb
from zeekdb.persistence.rdb_file import RdbFile

if TYPE_CHECKING:
    from zeekdb.server.server import Server

SLICE_US = 250  # of the loop at a time
PIECE = 1 << 20  # bytes that are handed to the thread at once
WITH_RECENCY = ("lru", "lfu")  # policies whose figures are worth keeping


class SnapshotGivenUp(OSError):
    """The databases were flushed or swapped meanwhile: what was written shows nothing that ever was."""


@dataclass(slots=True)
class Job:
    """A snapshot that has begun, and where it goes."""

    file: RdbFile
    snapshot: Snapshot
    head: bytes


class Snapshots:
    """The server's snapshots, whatever they are for."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.idle = asyncio.Event()
        self.current: Snapshot | None = None
        self.given_up = False
        server.keyspace.database_listeners.append(self._database_changes)

    def _database_changes(self, databases: list[Any], swapped: bool) -> None:
        if self.current is not None:
            self.given_up = True
            self.current.give_up()

    def _open(self, path: Path) -> RdbFile:
        config = self.server.config
        return RdbFile(path, bool(config.rdbchecksum), bool(config.rdb_save_incremental_fsync))

    def _begin(self, aof_base: bool) -> tuple[Snapshot, bytes]:
        """The epoch; the file's first bytes."""
        server = self.server
        server.engine.tick()
        recency = any(word in server.config.maxmemory_policy for word in WITH_RECENCY)
        databases = server.keyspace.databases
        stream_db = server.replica.client.db_index if server.replica.active else None
        head = rdb.head(databases, server.runner.libraries.records(), aof_base, stream_db)
        self.given_up = False
        self.current = Snapshot(databases, bool(server.config.rdbcompression), recency)
        return self.current, head

    def end(self) -> None:
        """However it went, all keys are of one epoch again."""
        snapshot, self.current = self.current, None
        self.idle.set()
        if snapshot is not None and not snapshot.done:
            snapshot.give_up()
            snapshot.step(0)

    def write_now(self, path: Path, aof_base: bool = False) -> None:
        """SAVE: everyone waits. OSError."""
        file = self._open(path)
        try:
            snapshot, head = self._begin(aof_base)
            file.write(head)
            while not snapshot.step(SLICE_US * 100):
                file.write(snapshot.take())
            file.write(snapshot.take())
            file.finish(rdb.END)
        except BaseException:
            file.drop()
            raise
        finally:
            self.end()

    def begin(self, path: Path, aof_base: bool = False, at_epoch: Callable[[], None] | None = None) -> Job:
        """The moment that the file will show, at which `at_epoch` is called; `finish` does the rest. OSError."""
        file = self._open(path)
        if at_epoch is not None:
            at_epoch()
        snapshot, head = self._begin(aof_base)
        self.idle.clear()
        return Job(file, snapshot, head)

    async def finish(self, job: Job) -> None:
        """The file is written and has its name. OSError, and there is none."""
        try:
            await self._write(job)
        except BaseException:
            job.file.drop()
            raise
        finally:
            self.end()

    async def write(self, path: Path, aof_base: bool = False, at_epoch: Callable[[], None] | None = None) -> None:
        """Both, as soon as no other snapshot is under way. OSError."""
        while self.current is not None:
            await self.idle.wait()
        await self.finish(self.begin(path, aof_base, at_epoch))

    async def stream(self, size: int, at_epoch: Callable[[], None]) -> AsyncGenerator[bytes, None]:
        """The same as pieces of about `size` bytes, for no file; no other snapshot may be under way. SnapshotGivenUp.

        The snapshot goes on as its taker asks for more, so a slow one makes it long.
        """
        at_epoch()
        snapshot, piece = self._begin(False)
        self.idle.clear()
        checksum, crc, done = bool(self.server.config.rdbchecksum), 0, False
        try:
            while not done:
                crc = crc64(piece, crc) if checksum else 0
                yield piece
                while not done and snapshot.size < size:
                    await asyncio.sleep(0)
                    done = snapshot.step(SLICE_US)
                    if self.given_up:
                        raise SnapshotGivenUp("the databases were flushed meanwhile")
                piece = snapshot.take()
            piece += rdb.END
            yield piece + (crc64(piece, crc) if checksum else 0).to_bytes(8, "little")
        finally:
            if self.current is snapshot:
                self.end()

    async def _write(self, job: Job) -> None:
        file, snapshot = job.file, job.snapshot
        writing = asyncio.create_task(asyncio.to_thread(file.write, job.head))
        try:
            done = False
            while not done:
                done = snapshot.step(SLICE_US)
                if self.given_up:
                    raise SnapshotGivenUp("the databases were flushed meanwhile")
                if done or snapshot.size >= PIECE:
                    await writing
                    writing = asyncio.create_task(asyncio.to_thread(file.write, snapshot.take()))
                else:
                    await asyncio.sleep(0)
        finally:
            await asyncio.shield(writing)
        await asyncio.to_thread(file.finish, rdb.END)
