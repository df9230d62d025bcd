"""Full copies for replicas: all data as they are at one moment, sent in pieces while clients are served.

Replicas that ask wait until no other snapshot is under way; all that wait when one begins share it. If every one of
them takes an image whose size is not known (`REPLCONF capa eof`), the snapshot goes to their sockets as it is made, at
the pace of the slowest; otherwise to a file, which is sent when it is whole. What changes meanwhile waits behind the
image, replica by replica, within `client-output-buffer-limit replica`. A flush, or a swap of databases, ends a copy:
the replicas' connections are closed, and they ask again.

An image without a size ends with a mark, which the replica looks for at the end of what it has read. So nothing may
follow it until the replica has acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeekdb.persistence import rdb_file

if TYPE_CHECKING:
    from zeekdb.server.replication import Replica
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

PIECE = 1 << 18  # bytes written to a socket at once
STREAM_BUSY_S = 0.001  # between two looks at a transaction of our own primary's that is not whole


class FullCopies:
    """The server's copies for its replicas, one at a time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.waiting: list[Replica] = []
        self.group: list[Replica] = []  # those that share the snapshot under way
        self.to_file = False  # where it goes
        self.snapshotting = False
        self.begin_s = 0.0
        self.task: asyncio.Task[None] | None = None
        self.senders: set[asyncio.Task[None]] = set()
        server.keyspace.database_listeners.append(self._database_changes)

    def _database_changes(self, databases: list[Any], swapped: bool) -> None:
        """What is on its way shows nothing that ever was, and who takes nothing of it would not notice."""
        if self.snapshotting:
            for replica in list(self.group):
                replica.client.kill()

    def ask(self, replica: Replica) -> None:
        """It gets a copy as soon as there is one."""
        replica.state = "wait_bgsave"
        replica.client.copying = True
        self.server.limit_output(replica.client)
        self.waiting.append(replica)
        if self.task is None:
            self.task = self.server.loop.create_task(self._serve())

    def forget(self, replica: Replica) -> None:
        """Its connection ended."""
        for replicas in (self.waiting, self.group):
            if replica in replicas:
                replicas.remove(replica)
        replica.drained.set()
        replica.heard.set()

    def give_up(self) -> None:
        """At shutdown: no copy goes on."""
        for task in (self.task, *self.senders):
            if task is not None:
                task.cancel()
        for replica in (*self.waiting, *self.group):
            replica.client.kill()
        if self.snapshotting:
            self.snapshotting = False
            self.server.snapshots.end()

    def keep_alive(self) -> None:
        """Once a second: whoever waits for the first byte of an image hears that the server is there."""
        for replica in (*self.waiting, *(self.group if self.to_file else ())):
            replica.client.write_raw(b"\n")

    def drop_stalled(self) -> None:
        """Ends connections that have taken nothing of their image for `repl-timeout` seconds."""
        now_s, timeout_s = time.monotonic(), self.server.config.repl_timeout
        for replica in list(self.server.primary.replicas.values()):
            if replica.sending and now_s - replica.progress_s > timeout_s:
                log.warning("Disconnecting timedout replica (full sync): %s", replica.client.addr)
                replica.client.kill()

    # ------------------------------------------------------------ the snapshot

    async def _serve(self) -> None:
        """Copies, one after the other, while replicas wait."""
        try:
            while self.waiting:
                try:
                    await self._copy()
                except Exception as error:
                    if isinstance(error, OSError):
                        log.warning("SYNC failed. BGSAVE child returned an error: %s", error.strerror or error)
                    else:
                        log.exception("a full copy failed")
                    for replica in list(self.group if self.snapshotting else self.waiting):
                        replica.client.kill()
                finally:
                    self.snapshotting = False
                    self.group = []
        finally:
            self.task = None

    async def _copy(self) -> None:
        """One snapshot and whoever waits for it. OSError."""
        server = self.server
        while True:
            if server.snapshots.current is not None:
                await server.snapshots.idle.wait()
            elif server.replica.queue is not None:  # it is in the stream already, but not in the data
                await asyncio.sleep(STREAM_BUSY_S)
            else:
                break
        if not self.waiting:
            return
        self.to_file = not (server.config.repl_diskless_sync and all(each.takes_mark for each in self.waiting))
        target = "disk" if self.to_file else "replicas sockets"
        log.warning("Starting BGSAVE for SYNC with target: %s", target)
        await (self._copy_to_file() if self.to_file else self._copy_to_sockets())

    def _at_epoch(self, head: bytes) -> None:
        """The moment that the image shows: the stream from here on is what follows it."""
        server = self.server
        server.propagation.restart()
        self.group, self.waiting = self.waiting, []
        self.snapshotting = True
        self.begin_s = time.monotonic()
        offset = server.primary.offset
        for replica in self.group:
            replica.queue.clear()
            replica.sending = not self.to_file
            replica.progress_s = self.begin_s
            replica.epoch = True
            if not replica.old:
                replica.client.write_raw(b"+FULLRESYNC %b %d\r\n" % (server.replication_id.encode(), offset))
            replica.client.write_raw(head)
            server.stats.sync_full += 1

    async def _copy_to_sockets(self) -> None:
        mark = secrets.token_hex(20).encode()
        stream = self.server.snapshots.stream(PIECE, lambda: self._at_epoch(b"$EOF:%b\r\n" % mark))
        async with contextlib.aclosing(stream) as pieces:
            async for piece in pieces:
                for replica in self.group:
                    replica.client.write_raw(piece)
                self.server.engine.settle()
                for replica in list(self.group):
                    await replica.room()
                if not self.group:
                    log.warning("Diskless rdb transfer, last replica dropped, killing fork child.")
                    return
        for replica in list(self.group):
            replica.client.write_raw(mark)
            self._spawn(self._follow_up(replica))
        self.server.engine.settle()

    async def _copy_to_file(self) -> None:
        server = self.server
        path = rdb_file.unfinished(Path(str(server.config.dir)))
        job = server.snapshots.begin(path, at_epoch=lambda: self._at_epoch(b""))
        try:
            await server.snapshots.finish(job)
            descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(path.unlink)
        try:
            for replica in list(self.group):
                self._spawn(self._send_file(replica, os.dup(descriptor)))
        finally:
            os.close(descriptor)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.server.loop.create_task(work)
        self.senders.add(task)
        task.add_done_callback(self.senders.discard)

    # ------------------------------------------------------------ one replica

    async def _send_file(self, replica: Replica, descriptor: int) -> None:
        """The file, and what has changed since."""
        replica.state, replica.sending, replica.progress_s = "send_bulk", True, time.monotonic()
        try:
            size, at = os.fstat(descriptor).st_size, 0
            replica.client.write_raw(b"$%d\r\n" % size)
            while at < size and not replica.client.closed:
                piece = await asyncio.to_thread(os.pread, descriptor, PIECE, at)
                if not piece:
                    raise OSError("the image is shorter than it was")
                at += len(piece)
                await self._write(replica, piece)
        except OSError as error:
            log.warning("Read error sending DB to replica: %s", error.strerror or error)
            replica.client.kill()
            return
        finally:
            os.close(descriptor)
        replica.heard.set()
        await self._follow_up(replica)

    async def _follow_up(self, replica: Replica) -> None:
        """Behind the image: the stream from its moment on."""
        client = replica.client
        replica.state, replica.sending, replica.seen_s = "online", False, time.monotonic()
        if replica.only_image:
            client.close_after_reply()
            self.server.engine.settle()
            return
        await replica.heard.wait()
        if not client.closed:
            log.warning("Synchronization with replica %s succeeded", client.addr)
        while replica.queue and not client.closed:
            pieces, size = [], 0
            while replica.queue and size < PIECE:
                pieces.append(replica.queue.popleft())
                size += len(pieces[-1])
            client.stream_bytes -= size
            await self._write(replica, b"".join(pieces))
        # nothing has happened since the queue was seen to be empty, so the stream goes on without a gap
        client.copying = False
        self.server.limit_output(client)

    async def _write(self, replica: Replica, piece: bytes) -> None:
        replica.client.write_raw(piece)
        self.server.engine.settle()
        await replica.room()
