"""The append-only file: started, rewritten, and what happens when the disk refuses.

It is a manifest, a base (a snapshot) and increments (commands), as redis-server has them. A rewrite makes a new base of
what is there at one moment; from that moment on changes go to a new increment. The increment is in the manifest before
the first byte is in it, and the files that the new base replaces leave the manifest before they are deleted, so a crash
at any moment finds files that hold everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from zeekdb.errors import CommandError
from zeekdb.hot import journal
from zeekdb.hot.aoflog import AofLog
from zeekdb.persistence import manifest as manifests
from zeekdb.persistence.manifest import AofFile, Manifest
from zeekdb.server.snapshots import Form, SnapshotGivenUp

if TYPE_CHECKING:
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

EVERYTHING = (1 << 64) - 1  # a position behind all others: no reply waits
LATE_S = 1.5  # age of what is not on the disk at which replies begin to wait for it, under everysec
RETRY_S = 5.0  # between two tries to rewrite, when the last has failed
SWITCH_S = 60.0  # for an increment to be completed, once another one has begun
CLOSE_S = 5.0  # for what is left at shutdown


def create(path: Path) -> int:
    """A new, empty file to append to; its descriptor. OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)


class AppendOnly:
    """The server's append-only file."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.manifest = Manifest()
        self.log: AofLog | None = None
        self.task: asyncio.Task[None] | None = None
        self.unnamed: list[AofFile] = []  # increments that were begun before there is a manifest to name them
        self.scheduled = False  # BGREWRITEAOF came while a snapshot was being made
        self.owed_s: float | None = None  # since when the files tell of other data, by the monotonic clock
        self.active = False  # the manifest is on the disk: what was synced is safe
        self.error = 0
        self.rewrites = 0
        self.failures = 0  # one after the other
        self.last_ok = True
        self.last_seconds = -1
        self.begin_s = 0.0
        self.failed_s = -RETRY_S
        self.older_bytes = 0  # of the files before the current increment
        self.base_bytes = 0  # of everything, after the last rewrite or at start
        self.delayed = 0

    # ------------------------------------------------------------ places

    @property
    def directory(self) -> Path:
        return Path(str(self.server.config.dir), str(self.server.config.appenddirname))

    @property
    def manifest_path(self) -> Path:
        return self.directory / f"{self.server.config.appendfilename}{manifests.SUFFIX}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.older_bytes + (self.log.size if self.log is not None else 0)

    @property
    def rewriting(self) -> bool:
        return self.task is not None

    # ------------------------------------------------------------ on and off

    def open_at_start(self, manifest: Manifest) -> None:
        """Goes on where the files that were loaded end. OSError."""
        manifests.make_folder(self.directory)
        self.manifest = manifest
        if self.manifest_path.exists():
            manifests.settle(self.manifest_path)
        elif self._holds_anything():
            self._write_first_base()
        if manifest.history:
            self._delete(manifest.history)
            self.manifest = manifest.without_history()
        file = self.manifest.increments[-1] if self.manifest.increments else None
        if file is None:
            file = self._new_increment()
            self.manifest = self.manifest.with_increment(file)
            os.close(create(self.directory / file.name))
        if manifest != self.manifest or not self.manifest_path.exists():
            manifests.write(self.manifest_path, self.manifest)
        path = self.directory / file.name
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        others = [each for each in self.manifest.files if each != file]
        self.older_bytes = sum((self.directory / each.name).stat().st_size for each in others)
        self._start(descriptor, path.stat().st_size)
        self.base_bytes = self.size
        self._activate()
        if self.manifest.base is None and self._holds_anything():
            self._rewrite_soon()

    def _holds_anything(self) -> bool:
        return any(map(len, self.server.keyspace.databases)) or bool(self.server.runner.libraries.records())

    def _write_first_base(self) -> None:
        """What the server has from elsewhere, at start: the manifest must not stand for an empty dataset. OSError."""
        manifests.announce(self.manifest_path)
        form = self._base_form()
        base = self._new_base(form)
        self.server.snapshots.write_now(self.directory / base.name, form)
        self.manifest = self.manifest.rewritten(base, [])

    def _start(self, descriptor: int, size: int) -> None:
        server = self.server
        server.propagation.restart()
        self.log = AofLog(descriptor, str(server.config.appendfsync), size, journal.end())
        self.log.timestamps = bool(server.config.aof_timestamp_enabled)
        server.engine.log = self.log
        server.propagation.update()
        server.loop.add_reader(self.log.fileno(), self._heard)

    def _activate(self) -> None:
        self.active = True
        self._hold()

    def turn_on(self) -> None:
        """CONFIG SET appendonly yes: everything is written once, then every change. OSError."""
        if self.log is not None:
            return
        self._take_up()
        self._rewrite_soon()

    def _take_up(self) -> None:
        """The files that may be there, from an earlier time, are those that will be replaced. OSError."""
        manifests.make_folder(self.directory)
        with contextlib.suppress(OSError, manifests.BadManifest):
            self.manifest = manifests.read(self.manifest_path)
        if not self.manifest_path.exists():
            manifests.announce(self.manifest_path)

    def turn_off(self) -> None:
        """CONFIG SET appendonly no: the files stay as they are."""
        server = self.server
        if self.task is not None:
            self.task.cancel()
        if self.log is None:
            return
        server.engine.drain()
        server.loop.remove_reader(self.log.fileno())
        server.engine.log = None
        self.active = False
        self.owed_s = None
        self._hold()
        self.log.close()
        self.log = None
        self.error = 0
        server.engine.log_fails = False
        server.propagation.update()
        server.update_gates()

    def configure(self) -> None:
        """appendfsync, no-appendfsync-on-rewrite and aof-timestamp-enabled."""
        if self.log is not None:
            self.log.timestamps = bool(self.server.config.aof_timestamp_enabled)
            self.log.mode = str(self.server.config.appendfsync)
            self.log.pause_sync = bool(self.server.config.no_appendfsync_on_rewrite) and self.rewriting
            self._hold()

    def close(self) -> None:
        """At shutdown: everything is written and synced."""
        if self.log is None:
            return
        self.server.engine.drain()
        if not self.log.wait_synced(CLOSE_S):
            log.warning("The last changes could not be synced to the append-only file")
        self.server.engine.release(EVERYTHING)
        self.turn_off()

    # ------------------------------------------------------------ what the disk says

    def _hold(self) -> None:
        """Replies wait for the disk under `always`, and when it falls too far behind under `everysec`."""
        tail = self.log
        waits = tail is not None and self.active and (
            tail.mode == "always" or (tail.mode == "everysec" and tail.unsynced_s > LATE_S and not tail.pause_sync)
        )  # fmt: skip
        self.server.engine.release(tail.synced if waits and tail is not None else EVERYTHING)

    def _heard(self) -> None:
        tail = self.log
        assert tail is not None
        tail.answer()
        if tail.error != self.error:
            self.error = tail.error
            self.server.engine.log_fails = self.error != 0
            if self.error:
                what = "Can't sync" if tail.sync_failed else "Error writing to"
                log.warning("%s the append-only file: %s", what, os.strerror(self.error))
            else:
                log.warning("The append-only file can be written again")
            self.server.update_gates()
        self._hold()
        self.server.blocking.replicas_heard()
        self.server.settle()

    def refusal(self) -> str | None:
        """Why nobody may write now, if so."""
        if self.error:
            return f"MISCONF Errors writing to the AOF file: {os.strerror(self.error)}"
        return None

    def tick(self) -> None:
        """By the clock: rewrites that are due."""
        tail, config = self.log, self.server.config
        if tail is not None and tail.mode == "everysec":
            self._hold()
        if not config.appendonly or self.rewriting or self.server.saving.in_progress:
            return
        if time.monotonic() - self.failed_s < RETRY_S:
            return
        growth = config.auto_aof_rewrite_percentage
        grown = self.size * 100 // max(self.base_bytes, 1) - 100
        due = growth and self.size > config.auto_aof_rewrite_min_size and grown >= growth
        in_doubt = tail is not None and tail.sync_failed
        wanted = self.scheduled or in_doubt or self.owed_s is not None
        if wanted or due or not self.active:  # the last: turning it on has failed
            if due and not self.scheduled:
                log.warning("Starting automatic rewriting of AOF on %d%% growth", grown)
            self._rewrite_soon()

    # ------------------------------------------------------------ rewriting

    def rewrite(self) -> str:
        """BGREWRITEAOF: the reply. CommandError."""
        if self.rewriting:
            raise CommandError("ERR Background append only file rewriting already in progress")
        if self.server.saving.in_progress:
            self.scheduled = True
            return "Background append only file rewriting scheduled"
        self._rewrite_soon()
        return "Background append only file rewriting started"

    def _rewrite_soon(self) -> None:
        if self.task is None:
            self.scheduled = False
            self.begin_s = time.monotonic()
            self.task = self.server.loop.create_task(self._rewrite_in_background())

    def give_up(self) -> None:
        """A rewrite under way is not wanted any more: the files hold everything without it."""
        if self.task is not None:
            self.task.cancel()
            self.server.snapshots.end()

    def begin_anew(self) -> None:
        """The data are others than the files and the changes to come tell of: a full copy has replaced them."""
        if self.log is not None:
            self.owed_s = time.monotonic()
            self._rewrite_soon()

    async def _rewrite_in_background(self) -> None:
        try:
            self.configure()
            await (self._rewrite() if self.server.config.appendonly else self._write_base_alone())
            self.rewrites += 1
            self.failures, self.last_ok = 0, True
            if self.owed_s is not None and self.begin_s >= self.owed_s:
                self.owed_s = None
            log.warning("Background AOF rewrite finished successfully")
        except OSError as error:
            self.failures += 1
            self.scheduled = isinstance(error, SnapshotGivenUp)
            self.last_ok, self.failed_s = False, time.monotonic()
            log.warning("Background AOF rewrite failed: %s", error.strerror or error)
        finally:
            self.last_seconds = int(time.monotonic() - self.begin_s)
            self.task = None
            self.configure()

    async def _rewrite(self) -> None:
        """Cancelled or failed at any point, the manifest names files that hold everything. OSError."""
        server, folder = self.server, self.directory
        file = self._new_increment()
        descriptor = await asyncio.to_thread(create, folder / file.name)
        handed_over = False

        def at_epoch() -> None:
            """The moment that the base shows."""
            nonlocal handed_over
            server.propagation.restart()
            handed_over = True
            if self.log is None:
                self._start(descriptor, 0)
            else:
                self.older_bytes += self.log.size
                self.log.switch(descriptor)

        try:
            if not self.active:
                self.unnamed.append(file)
            else:
                self.manifest = self.manifest.with_increment(file)
                await asyncio.to_thread(manifests.write, self.manifest_path, self.manifest)
            if self.log is not None and not await asyncio.to_thread(self.log.wait_switched, SWITCH_S):
                raise OSError("the increment before the last cannot be completed")
            was_in_doubt = self.log is not None and self.log.sync_failed
            before = self.size
            temporary = folder / f"temp-rewriteaof-bg-{os.getpid()}.aof"
            form = self._base_form()
            await server.snapshots.write(temporary, form, at_epoch)
        except BaseException:
            if not handed_over:
                os.close(descriptor)
            raise
        base = self._new_base(form)
        await asyncio.to_thread(os.replace, temporary, folder / base.name)
        replaced = self.manifest.rewritten(base, [file])
        tail = self.log
        if tail is not None and not await asyncio.to_thread(tail.wait_switched, SWITCH_S):
            raise OSError("the increment before cannot be completed")  # and until it is, it is the current one
        await asyncio.to_thread(manifests.write, self.manifest_path, replaced)
        self.manifest = replaced
        self.older_bytes = (folder / base.name).stat().st_size
        self.base_bytes = self.size
        log.warning("AOF rewrite: %d bytes became %d", before, self.older_bytes)
        if was_in_doubt and self.log is not None:
            self.log.forgive()
        if not self.active:
            self._activate()
        await asyncio.to_thread(self._delete, [each for each in self.unnamed if each != file])
        self.unnamed.clear()
        await self._forget_history()

    async def _write_base_alone(self) -> None:
        """BGREWRITEAOF while nothing is appended, as in Redis: the files become a base of what is there. OSError."""
        self._take_up()
        temporary = self.directory / f"temp-rewriteaof-bg-{os.getpid()}.aof"
        form = self._base_form()
        await self.server.snapshots.write(temporary, form)
        base = self._new_base(form)
        await asyncio.to_thread(os.replace, temporary, self.directory / base.name)
        replaced = self.manifest.rewritten(base, [])
        await asyncio.to_thread(manifests.write, self.manifest_path, replaced)
        self.manifest = replaced
        await self._forget_history()

    async def _forget_history(self) -> None:
        """What a rewrite has replaced is deleted. OSError."""
        await asyncio.to_thread(self._delete, self.manifest.history)
        self.manifest = self.manifest.without_history()
        await asyncio.to_thread(manifests.write, self.manifest_path, self.manifest)

    def _base_form(self) -> Form:
        """What a base that is begun now consists of."""
        return Form.RDB_BASE if self.server.config.aof_use_rdb_preamble else Form.COMMANDS

    def _new_increment(self) -> AofFile:
        """A name that no file has: what a crash may have left is not written over."""
        while True:
            file = self.manifest.next_increment(str(self.server.config.appendfilename))
            if not (self.directory / file.name).exists():
                return file

    def _new_base(self, form: Form) -> AofFile:
        """The same for a base."""
        while True:
            file = self.manifest.next_base(str(self.server.config.appendfilename), form is Form.RDB_BASE)
            if not (self.directory / file.name).exists():
                return file

    def _delete(self, files: list[AofFile]) -> None:
        if self.server.config.aof_disable_auto_gc:
            return
        for file in files:
            with contextlib.suppress(OSError):
                (self.directory / file.name).unlink()

    # ------------------------------------------------------------ for INFO

    def fields(self) -> list[tuple[str, object]]:
        """INFO persistence."""
        fields: list[tuple[str, object]] = [
            ("aof_enabled", int(self.log is not None)),
            ("aof_rewrite_in_progress", int(self.rewriting)),
            ("aof_rewrite_scheduled", int(self.scheduled)),
            ("aof_last_rewrite_time_sec", self.last_seconds),
            ("aof_current_rewrite_time_sec", int(time.monotonic() - self.begin_s) if self.rewriting else -1),
            ("aof_last_bgrewrite_status", "ok" if self.last_ok else "err"),
            ("aof_rewrites", self.rewrites),
            ("aof_rewrites_consecutive_failures", self.failures),
            ("aof_last_write_status", "err" if self.error else "ok"),
            ("aof_last_cow_size", 0),
            ("module_fork_in_progress", 0),
            ("module_fork_last_cow_size", 0),
        ]
        if self.log is not None:
            fields += [
                ("aof_current_size", self.size),
                ("aof_base_size", self.base_bytes),
                ("aof_pending_rewrite", 0),
                ("aof_buffer_length", self.log.pending),
                ("aof_pending_bio_fsync", int(self.log.synced < self.log.written)),
                ("aof_delayed_fsync", self.delayed),
            ]
        return fields
