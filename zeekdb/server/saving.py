"""SAVE, BGSAVE and what is there at start: the data as an RDB file in `dir`.

The image is made in one piece, during which nothing else happens; BGSAVE writes it from another thread. The file takes
its name only once it is whole and on the disk, so the one before stays good until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zeekdb.errors import CommandError
from zeekdb.hot.rdb import DamagedValue
from zeekdb.persistence import rdb

if TYPE_CHECKING:
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")


def write_whole(path: Path, data: bytes) -> None:
    """The file has this content, or stays what it was. OSError."""
    temporary = path.with_name(f"temp-{os.getpid()}.rdb")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Saving:
    """The server's snapshots."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.task: asyncio.Task[None] | None = None
        self.last_ok = True
        self.last_seconds = -1
        self.begin_s = 0.0
        self.saves = 0
        self.loaded_keys = 0

    @property
    def in_progress(self) -> bool:
        return self.task is not None

    @property
    def path(self) -> Path:
        return Path(str(self.server.config.dir), str(self.server.config.dbfilename))

    def save(self) -> None:
        """SAVE. CommandError."""
        if self.in_progress:
            raise CommandError("ERR Background save already in progress")
        dirty = self.server.keyspace.dirty
        try:
            write_whole(self.path, self.server.image())
        except OSError as error:
            log.warning("Write error saving DB on disk: %s", error.strerror or error)
            self.last_ok = False
            raise CommandError("ERR") from None
        self._done(dirty)

    def save_in_background(self) -> None:
        """BGSAVE. CommandError."""
        if self.in_progress:
            raise CommandError("ERR Background save already in progress")
        self.begin_s = time.monotonic()
        image, dirty = self.server.image(), self.server.keyspace.dirty
        self.task = self.server.loop.create_task(self._write(image, dirty))

    async def _write(self, image: bytes, dirty: int) -> None:
        try:
            await asyncio.to_thread(write_whole, self.path, image)
            self._done(dirty)
            log.warning("Background saving terminated with success")
        except OSError as error:
            self.last_ok = False
            log.warning("Background saving error: %s", error.strerror or error)
        finally:
            self.last_seconds = int(time.monotonic() - self.begin_s)
            self.task = None

    def _done(self, dirty: int) -> None:
        self.last_ok = True
        self.saves += 1
        self.server.last_save_s = time.time()
        self.server.keyspace.dirty -= dirty

    async def write_base(self, path: Path, at_epoch: Callable[[], None]) -> None:
        """A snapshot for the append-only file; `at_epoch` is called at the moment that it shows. OSError."""
        at_epoch()
        image = self.server.image(aof_base=True)
        await asyncio.to_thread(write_whole, path, image)

    # ------------------------------------------------------------ loading

    def load_image(self, data: memoryview) -> int:
        """Adds what an image holds; where it ends. DamagedValue, CommandError."""
        for code in rdb.load(self.server.keyspace, bytes(data)):
            self.server.runner.load(code, False)
        return len(data)

    def load(self, merge: bool = False) -> None:
        """Adds what the file holds. `merge`: keys and libraries that are there give way. DamagedValue, OSError."""
        server = self.server
        data = self.path.read_bytes()
        libraries = rdb.load(server.keyspace, data, replace=merge)
        for code in libraries:
            server.runner.load(code, merge)
        self.loaded_keys = sum(len(db) for db in server.keyspace.databases)

    def load_at_start(self) -> bool:
        """What the last run has saved, if anything; False when it is there and cannot be read."""
        begin_s = time.monotonic()
        self.server.engine.tick()
        try:
            self.load()
        except FileNotFoundError:
            return True
        except (OSError, DamagedValue, CommandError) as error:
            log.critical("Fatal error loading the DB %s: %s. Exiting.", self.path, error)
            return False
        self.server.keyspace.dirty = 0
        log.warning("DB loaded from disk: %.3f seconds", time.monotonic() - begin_s)
        return True

    def reload(self, save: bool, flush: bool, merge: bool) -> None:
        """DEBUG RELOAD. CommandError."""
        server = self.server
        if save:
            self.save()
        if flush:
            server.keyspace.clear(server.keyspace.databases)
            server.runner.libraries.flush()
        try:
            self.load(merge)
        except (OSError, DamagedValue, CommandError) as error:
            log.warning("Error trying to load the RDB dump: %s", error)
            raise CommandError("ERR Error trying to load the RDB dump, check server logs.") from None
