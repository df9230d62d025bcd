"""The replica's side of replication: following a primary.

One task keeps the link: it connects, asks for what is missing (everything, the first time), loads the image, and then
runs the primary's stream of commands as they come, passing the same bytes on to replicas of its own. The offset counts
the stream's bytes; it is told to the primary once a second. When the link breaks, the task begins anew where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import mmap
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeekdb.commands.context import Context
from zeekdb.errors import CommandError
from zeekdb.hot.journal import Call
from zeekdb.hot.rdb import DamagedValue
from zeekdb.persistence import rdb, rdb_file
from zeekdb.server.propagation import encode

if TYPE_CHECKING:
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

ALIVE_S = 1.0
RETRY_S = 1.0
READ_BYTES = 1 << 18
LINE_BYTES_MAX = 1 << 16
MARK_BYTES = 40  # of what ends an image whose size was not known


class BrokenLink(Exception):
    """The primary said something that is no answer, or left."""


def parse_command(data: bytearray, at: int) -> tuple[list[bytes], int] | None:
    """The command that begins at `at`, and where it ends; None while it is not whole. BrokenLink."""

    def line(begin: int) -> tuple[bytes, int] | None:
        end = data.find(b"\r\n", begin)
        if end < 0:
            if len(data) - begin > LINE_BYTES_MAX:
                raise BrokenLink("a line without an end")
            return None
        return bytes(data[begin:end]), end + 2

    head = line(at)
    if head is None:
        return None
    text, place = head
    if not text.startswith(b"*"):
        return text.split(), place
    words: list[bytes] = []
    for _ in range(int(text[1:])):
        length = line(place)
        if length is None:
            return None
        size, begin = int(length[0][1:]), length[1]
        if len(data) < begin + size + 2:
            return None
        words.append(bytes(data[begin : begin + size]))
        place = begin + size + 2
    return words, place


def _write_all(file: io.RawIOBase, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


class StreamClient:
    """The primary as the commands of its stream see their client."""

    id = 0
    protocol = 2
    gate = 0
    name = b""
    no_touch = False
    in_exec = in_multi = False
    reply_mode = "on"
    kind = "master"

    def __init__(self, server: Server) -> None:
        self.server = server
        self.db_index = 0
        self.account = server.acl.default
        self.ctx = Context(server.keyspace, server.keyspace.databases[0], self, server)
        self.ctx.deny_blocking = True

    def select(self, index: int) -> None:
        """SELECT in the stream."""
        self.db_index = index
        self.ctx.db = self.server.keyspace.databases[index]


class Replica:
    """Whether this server follows another, and how far it is."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.host = ""
        self.port = 0
        self.state = "none"  # none, connect, connecting, handshake, sync, connected
        self.offset = 0
        self.heard_s = 0.0
        self.down_since_s = time.monotonic()
        self.known_id = b"?"
        self.client = StreamClient(server)
        self.queue: list[list[bytes]] | None = None  # between MULTI and EXEC of the stream
        self.task: asyncio.Task[None] | None = None
        self.writer: asyncio.StreamWriter | None = None

    @property
    def active(self) -> bool:
        return self.state != "none"

    @property
    def link_up(self) -> bool:
        return self.state == "connected"

    # ------------------------------------------------------------ REPLICAOF

    def follow(self, host: str, port: int) -> None:
        """Become a replica. Replicas of our own have to begin anew, and what a transaction under way did stays here."""
        self._cancel()
        self.host, self.port, self.state = host, port, "connect"
        self.down_since_s = time.monotonic()
        self.server.primary.drop_all()
        self.task = self.server.loop.create_task(self._keep_link())
        self.server.choose_policy()

    def promote(self) -> None:
        """Become a primary, with the data that is there."""
        if not self.active:
            return
        self._cancel()
        self.state, self.host, self.port, self.known_id = "none", "", 0, b"?"
        self.server.primary.become(secrets.token_hex(20), self.server.primary.offset)
        self.server.choose_policy()
        log.warning("MASTER MODE enabled (user request)")

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
            self.task = None
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    # ------------------------------------------------------------ the link

    async def _keep_link(self) -> None:
        while True:
            try:
                await self._session()
            except (OSError, TimeoutError, EOFError, BrokenLink, ValueError, DamagedValue, CommandError) as error:
                log.warning("Connection with master lost: %s", error or type(error).__name__)
            except Exception:
                log.exception("the link to the primary failed")
            if self.state != "connect":
                self.down_since_s = time.monotonic()
            self.state = "connect"
            self.queue = None
            self.server.update_gates()
            await asyncio.sleep(RETRY_S)

    async def _session(self) -> None:
        config = self.server.config
        timeout_s = config.repl_timeout
        self.state = "connecting"
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(self.host, self.port, limit=LINE_BYTES_MAX), timeout_s
        )
        self.writer = writer
        self.state = "handshake"
        try:
            await self._greet(reader, writer, timeout_s)
            await self._synchronise(reader, writer, timeout_s)
            self.state = "connected"
            self.heard_s = time.monotonic()
            self.server.update_gates()
            log.warning("MASTER <-> REPLICA sync: Finished with success")
            self._acknowledge()  # a primary that has ended an image with a mark sends nothing before
            await self._stream(reader, writer, timeout_s)
        finally:
            writer.close()
            self.writer = None

    @staticmethod
    async def _ask(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float, *words: bytes
    ) -> bytes:
        """A command's answer in one line."""
        writer.write(encode(words))
        while True:
            line = await asyncio.wait_for(reader.readline(), timeout_s)
            if not line:
                raise BrokenLink("the primary closed the connection")
            if line.strip():  # an empty line says that it is at work
                return line.strip()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        config = self.server.config
        reply = await self._ask(reader, writer, timeout_s, b"PING")
        if config.masterauth:
            words = [b"AUTH", config.masteruser.encode(), config.masterauth.encode()]
            reply = await self._ask(reader, writer, timeout_s, *[word for word in words if word])
        if reply.startswith(b"-") and not reply.startswith((b"-NOAUTH", b"-NOPERM")):
            raise BrokenLink(reply.decode("utf-8", "replace"))
        port = config.replica_announce_port or config.port
        await self._ask(reader, writer, timeout_s, b"REPLCONF", b"listening-port", b"%d" % port)
        if config.replica_announce_ip:
            await self._ask(reader, writer, timeout_s, b"REPLCONF", b"ip-address", config.replica_announce_ip.encode())
        await self._ask(reader, writer, timeout_s, b"REPLCONF", b"capa", b"eof", b"capa", b"psync2")

    async def _synchronise(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        offset = -1 if self.known_id == b"?" else self.offset + 1
        reply = await self._ask(reader, writer, timeout_s, b"PSYNC", self.known_id, b"%d" % offset)
        words = reply.split()
        if words[0] == b"+CONTINUE":
            if len(words) > 1 and words[1] != self.known_id:
                self.known_id = words[1]
                self.server.primary.become(words[1].decode(), self.offset)
            return
        if words[0] != b"+FULLRESYNC" or len(words) != 3:
            raise BrokenLink(reply.decode("utf-8", "replace"))
        self.state = "sync"
        folder = Path(str(self.server.config.dir))
        path = rdb_file.unfinished(folder)
        try:
            await self._read_image(reader, path, timeout_s)
            log.warning("MASTER <-> REPLICA sync: Loading DB in memory")
            await self._load(path, words[1], int(words[2]))
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    async def _read_image(self, reader: asyncio.StreamReader, path: Path, timeout_s: float) -> None:
        """The image into a file: it may be larger than the memory that is free. BrokenLink, OSError."""
        head = b""
        while not head:
            head = (await asyncio.wait_for(reader.readline(), timeout_s)).strip()
            if reader.at_eof() and not head:
                raise BrokenLink("the primary closed the connection before the image")
        if not head.startswith(b"$"):
            raise BrokenLink(head.decode("utf-8", "replace"))
        mark = head.removeprefix(b"$EOF:") if head.startswith(b"$EOF:") else b""
        left = (1 << 62) if mark else int(head[1:])
        if left < 0:
            raise BrokenLink(head.decode("utf-8", "replace"))
        tail = b""  # the last bytes read, where the mark may be
        with path.open("wb", buffering=0) as file:
            while left:
                part = await asyncio.wait_for(reader.read(min(READ_BYTES, left)), timeout_s)
                if not part:
                    raise BrokenLink("the image ended before its end")
                left -= len(part)
                await asyncio.to_thread(_write_all, file, part)
                tail = (tail + part)[-MARK_BYTES:]
                if mark and tail == mark:
                    file.truncate(file.tell() - MARK_BYTES)
                    break

    async def _load(self, path: Path, replication_id: bytes, offset: int) -> None:
        """All data are the image's from now on; whoever watches or waits hears of it. DamagedValue, OSError."""
        server = self.server
        server.engine.tick()
        server.primary.drop_all()  # replicas of our own would go on with data that are none any more
        self.known_id = b"?"  # until all is there, nothing of the stream can go on
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            contextlib.closing(rdb.loader(server.keyspace, data)) as loader,
        ):
            server.keyspace.clear(server.keyspace.databases)
            server.runner.libraries.flush()
            server.settle()
            server.loader.begin()
            server.loader.expect(len(data))
            alive = server.loop.create_task(self._say_alive())
            try:
                await server.loader.run(loader)
                loaded = rdb.loaded(loader)
                for code in loaded.libraries:
                    server.runner.load(code, True)
            except BaseException:  # a part of the data is worse than none
                server.keyspace.clear(server.keyspace.databases)
                raise
            finally:
                alive.cancel()
                server.loader.end()
        self.known_id, self.offset = replication_id, offset
        self.client.select(loaded.stream_db if loaded.stream_db < len(server.keyspace.databases) else 0)
        server.primary.become(self.known_id.decode(), self.offset)
        server.appendonly.begin_anew()
        server.settle()

    async def _say_alive(self) -> None:
        """While an image is loaded, which may take longer than the primary's `repl-timeout`; an empty line is no
        command, but something heard."""
        while self.writer is not None:
            self.writer.write(b"\n")
            await asyncio.sleep(ALIVE_S)

    # ------------------------------------------------------------ the stream

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        data = bytearray()
        acknowledged_s = 0.0
        while True:
            try:
                part = await asyncio.wait_for(reader.read(READ_BYTES), 1.0)
                if not part:
                    raise BrokenLink("the primary closed the connection")
                self.heard_s = time.monotonic()
                data += part
                self._run_stream(data)
            except TimeoutError:
                if time.monotonic() - self.heard_s > timeout_s:
                    raise
            if time.monotonic() - acknowledged_s >= RETRY_S:
                acknowledged_s = time.monotonic()
                self._acknowledge()

    def _acknowledge(self) -> None:
        if self.writer is not None:
            self.writer.write(encode((b"REPLCONF", b"ACK", b"%d" % self.offset)))

    def _run_stream(self, data: bytearray) -> None:
        """Runs whatever commands are whole and takes them away."""
        server = self.server
        server.engine.tick()
        at = 0
        while at < len(data) and (parsed := parse_command(data, at)) is not None:
            words, end = parsed
            server.primary.pass_on(bytes(data[at:end]))
            if words:
                self._take(words)
            self.offset += end - at
            at = end
            if words and words[0].upper() == b"REPLCONF" and len(words) > 1 and words[1].upper() == b"GETACK":
                self._acknowledge()
        del data[:at]
        server.settle()

    def _take(self, words: list[bytes]) -> None:
        name = words[0].upper()
        if name in (b"PING", b"REPLCONF"):
            return
        if name == b"MULTI":
            self.queue = []
        elif name == b"EXEC":
            queue, self.queue = self.queue or [], None
            with Call():
                for call in queue:
                    self._run(call)
        elif self.queue is not None:
            self.queue.append(words)
        else:
            self._run(words)

    def _run(self, words: list[bytes]) -> Any:
        """One command of the primary. An error means that the two differ: it is logged, and the stream goes on."""
        server = self.server
        index = server.dispatcher.index_of(words[0])
        try:
            if index is None:
                raise CommandError(f"ERR unknown command '{words[0].decode('utf-8', 'replace')}'")
            dispatcher = server.dispatcher
            return dispatcher.run_told(
                dispatcher.specs[index], self.client.db_index, words,
                lambda: dispatcher.handlers[index](self.client.ctx, *words[1:]),
            )  # fmt: skip
        except CommandError as error:
            log.critical("This replica cannot follow: '%s' after processing '%s'", error.message, words[0])
        except Exception:
            log.exception("a command of the primary failed")
        return None

    # ------------------------------------------------------------ for INFO and ROLE

    def fields(self) -> list[tuple[str, object]]:
        """INFO replication, as a replica tells it."""
        now_s = time.monotonic()
        fields: list[tuple[str, object]] = [
            ("role", "slave"),
            ("master_host", self.host),
            ("master_port", self.port),
            ("master_link_status", "up" if self.link_up else "down"),
            ("master_last_io_seconds_ago", int(now_s - self.heard_s) if self.link_up else -1),
            ("master_sync_in_progress", int(self.state == "sync")),
            ("slave_read_repl_offset", self.offset),
            ("slave_repl_offset", self.offset),
        ]
        if not self.link_up:
            fields.append(("master_link_down_since_seconds", int(now_s - self.down_since_s)))
        config = self.server.config
        return [
            *fields,
            ("slave_priority", config.replica_priority),
            ("slave_read_only", int(config.replica_read_only)),
            ("replica_announced", int(config.replica_announced)),
        ]
