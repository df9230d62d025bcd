"""SAVE, BGSAVE, save points, and what is there at start: the data as an RDB file in `dir`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zeekdb.config.schedule import next_after
from zeekdb.errors import CommandError
from zeekdb.hot.rdb import DamagedValue
from zeekdb.hot.rdbload import Loader
from zeekdb.persistence import rdb
from zeekdb.server.snapshots import Job, SnapshotGivenUp

if TYPE_CHECKING:
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

TRIES = 5  # to take a snapshot that a flush has ended
RETRY_S = 5.0  # between two snapshots by the clock, when the last has failed
REFUSAL = (
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that "
    "may modify the data set are disabled, because this instance is configured to report errors during writes if RDB "
    "snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB "
    "error."
)


class Saving:
    """The server's snapshots of itself, in `dir`/`dbfilename`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.task: asyncio.Task[None] | None = None
        self.scheduled = False  # BGSAVE SCHEDULE came while the append-only file was rewritten
        self.last_ok = True
        self.last_seconds = -1
        self.begin_s = 0.0
        self.tried_s = -RETRY_S
        self.saves = 0
        self.next_s = 0.0  # Unix: when snapshot-schedule wants the next one; 0: never
        self.owed_s: float | None = None  # since when it waits for one, by the monotonic clock
        self.loaded_keys = self.expired_keys = 0  # by the last load

    @property
    def in_progress(self) -> bool:
        """Also when it is made for replicas."""
        return self.task is not None or self.server.primary.copies.snapshotting

    @property
    def current_seconds(self) -> int:
        """How long the snapshot under way has taken; -1: there is none."""
        begin_s = self.begin_s if self.task is not None else self.server.primary.copies.begin_s
        return int(time.monotonic() - begin_s) if self.in_progress else -1

    @property
    def path(self) -> Path:
        return Path(str(self.server.config.dir), str(self.server.config.dbfilename))

    def save(self) -> None:
        """SAVE. CommandError."""
        server = self.server
        if server.loading:
            raise CommandError("LOADING Redis is loading the dataset in memory")
        if self.in_progress or server.snapshots.current is not None:
            raise CommandError("ERR Background save already in progress")
        dirty = server.keyspace.dirty
        try:
            server.snapshots.write_now(self.path)
        except OSError as error:
            self._failed(error)
            raise CommandError("ERR") from None
        self._done(dirty)

    def save_in_background(self, may_wait: bool) -> str:
        """BGSAVE: the reply. CommandError."""
        if self.in_progress:
            raise CommandError("ERR Background save already in progress")
        if self.server.appendonly.rewriting:
            if not may_wait:
                raise CommandError(
                    "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order "
                    "to schedule a BGSAVE whenever possible."
                )
            self.scheduled = True
            return "Background saving scheduled"
        self._start()
        return "Background saving started"

    def _start(self) -> None:
        self.scheduled = False
        self.begin_s = self.tried_s = time.monotonic()
        try:
            job = self.server.snapshots.begin(self.path)
        except OSError as error:
            self.last_seconds = 0
            self._failed(error)
            return
        self.task = self.server.loop.create_task(self._write(job, self.server.keyspace.dirty))

    async def _write(self, job: Job, dirty: int) -> None:
        server = self.server
        try:
            for left in reversed(range(TRIES)):
                try:
                    await server.snapshots.finish(job)
                    break
                except SnapshotGivenUp:
                    if server.loading:  # a full copy, of which there is only a part so far
                        self.scheduled = True
                        return
                    if left == 0:
                        raise
                    job, dirty = server.snapshots.begin(self.path), server.keyspace.dirty
            self._done(dirty)
            log.warning("Background saving terminated with success")
        except OSError as error:
            self._failed(error)
        finally:
            if self.task is asyncio.current_task():
                self.last_seconds = int(time.monotonic() - self.begin_s)
                self.task = None

    def _done(self, dirty: int) -> None:
        self.saves += 1
        self.server.last_save_s = time.time()
        self.server.keyspace.dirty -= dirty
        self.last_ok = True
        if self.owed_s is not None and self.begin_s >= self.owed_s:
            self.owed_s = None
        self.server.update_gates()

    def _failed(self, error: OSError) -> None:
        log.warning("Error saving DB on disk: %s", error.strerror or error)
        self.last_ok = False
        self.server.update_gates()

    def refusal(self) -> str | None:
        """Why nobody may write now, if so."""
        config = self.server.config
        return REFUSAL if not self.last_ok and config.save and config.stop_writes_on_bgsave_error else None

    def plan(self) -> None:
        """Reads in the calendar when the next snapshot is due: snapshot-schedule has changed, or one is due now."""
        now = datetime.fromtimestamp(time.time())  # noqa: DTZ006  local times are meant
        due = next_after(self.server.config.snapshot_schedule, now)
        self.next_s = due.timestamp() if due else 0.0

    def _look_at_calendar(self) -> None:
        if self.next_s and time.time() >= self.next_s:
            log.warning("A snapshot is due by snapshot-schedule")
            self.owed_s = time.monotonic()
            self.plan()

    def tick(self) -> None:
        """By the clock: snapshots that are due. What the calendar wants is tried until it succeeds."""
        server = self.server
        self._look_at_calendar()
        if self.in_progress or server.appendonly.rewriting:
            return
        if self.scheduled:
            self._start()
            return
        if not self.last_ok and time.monotonic() - self.tried_s < RETRY_S:
            return
        if self.owed_s is not None or self.refusal() is not None:  # nobody may write until one succeeds
            self._start()
            return
        changes, age_s = server.keyspace.dirty, time.time() - server.last_save_s
        for seconds, wanted in server.config.save:
            if changes >= wanted and age_s > seconds:
                log.warning("%d changes in %d seconds. Saving...", wanted, seconds)
                self._start()
                return

    def give_up(self) -> None:
        """The snapshot under way is not wanted any more."""
        if self.task is not None:
            self.task.cancel()
            self.task = None
            self.server.snapshots.end()

    # ------------------------------------------------------------ loading

    async def load_image(self, data: mmap.mmap) -> int:
        """Adds what the image at the begin of an append-only file holds; where it ends. DamagedValue, CommandError."""
        with contextlib.closing(rdb.loader(self.server.keyspace, data, keep_expired=True)) as loader:
            await self.server.loader.run(loader)
            loaded = rdb.loaded(loader)
        for code in loaded.libraries:
            self.server.runner.load(code, False)
        return loaded.end

    @contextlib.contextmanager
    def _opened(self, merge: bool) -> Iterator[Loader]:
        """A loader of the file. `merge`: keys and libraries that are there give way. DamagedValue, OSError."""
        server = self.server
        with self.path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise DamagedValue("an empty file")
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
                contextlib.closing(rdb.loader(server.keyspace, data, replace=merge)) as loader,
            ):
                server.loader.expect(len(data))
                yield loader
                loaded = rdb.loaded(loader)
        for code in loaded.libraries:
            server.runner.load(code, merge)
        self.loaded_keys, self.expired_keys = loaded.keys, loaded.expired

    async def load_at_start(self) -> bool:
        """What the last run has saved, if anything; False when it is there and cannot be read."""
        begin_s = time.monotonic()
        self.server.engine.tick()
        try:
            with self._opened(False) as loader:
                await self.server.loader.run(loader)
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
            with self._opened(merge) as loader:
                loader.step(0)
        except (OSError, DamagedValue, CommandError) as error:
            log.warning("Error trying to load the RDB dump: %s", error)
            raise CommandError("ERR Error trying to load the RDB dump, check server logs.") from None
