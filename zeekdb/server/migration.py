"""MIGRATE's way to the other server.

Redis stops until the keys have arrived. Here the client waits and everybody else is served, so a key may change while
its value travels. It is watched from before its value is serialised; once the other server has it, it is removed only
if nothing has happened to it. A changed key is sent again, replacing what was sent first; one that is gone by then is
deleted there as well. After ROUNDS_MAX rounds the rest stays where it is, and the client is told to try again. So every
key is whole here or there at any time, and no change of it is lost; what is given up is that a reader may see the old
copy there while the new one is on its way.

Inside EXEC or a script nothing can be waited for: there the exchange blocks the server, as in Redis. What is said on
the wire is the generator `Exchange.talk`, which knows neither sockets nor loops; two drivers carry it.

Connections are kept for the next MIGRATE to the same address: CACHED_MAX at most, for IDLE_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from zeekdb.commands.migration import Order
from zeekdb.errors import CommandError
from zeekdb.hot.journal import tell
from zeekdb.hot.replies import DEFERRED
from zeekdb.persistence import payload

if TYPE_CHECKING:
    from zeekdb.commands.context import Context
    from zeekdb.hot.keyspace import Database
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

CACHED_MAX = 64
IDLE_S = 10.0
ROUNDS_MAX = 5
LINE_MAX = 1 << 16  # bytes of a reply: a status or an error
CHUNK_BYTES = 1 << 18  # serialised at most before they are sent and others have a turn

Step = tuple[Literal["write"], bytes] | tuple[Literal["read"], bytes]
Talk = Generator[Step, bytes, None]


def encode(*words: bytes) -> bytes:
    """A command as a client sends it."""
    return b"*%d\r\n%b" % (len(words), b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))


@dataclass(eq=False)
class Line:
    """A connection to another server; `db_index` is what it has selected, -1 when that is not certain."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    db_index: int = -1
    used_s: float = 0.0


@dataclass(eq=False)
class Exchange:
    """One MIGRATE: what is said, and what has become of its keys."""

    ctx: Context
    db: Database
    order: Order
    changed: set[bytes] = field(default_factory=set)  # since they were serialised
    complaint: bytes = b""  # the other server's first error
    answered: bool = False  # the other server has said something
    step: str = "writing"

    def talk(self, selected: int) -> Talk:
        """Yields what to write and when to read a line; is sent the lines. `selected`: the database over there."""
        yield from self._open(selected)
        if self.complaint:
            return
        keys: list[bytes] = self.order.keys
        replace, again = self.order.replace, False
        for _ in range(ROUNDS_MAX):
            sent = yield from self._send(keys, replace, again)
            self.step = "reading"
            arrived = []
            for key in sent:
                line = yield "read", b""
                if self._is_good(line):
                    arrived.append(key)
            keys = [] if self.order.copy else self._take_leave(arrived)
            if not keys:
                return
            replace = again = True
        raise CommandError("TRYAGAIN Some keys changed faster than they could be migrated and are still here")

    def _open(self, selected: int) -> Talk:
        """AUTH and SELECT. Their replies are waited for: the keys shall not go to a database that was not meant."""
        opening = []
        if self.order.password:
            opening.append(encode(b"AUTH", *self.order.password))
        if selected != self.order.db_index:
            opening.append(encode(b"SELECT", b"%d" % self.order.db_index))
        if not opening:
            return
        yield "write", b"".join(opening)
        self.step = "reading"
        for _ in opening:
            self._is_good((yield "read", b""))
        self.step = "writing"

    def _send(self, keys: list[bytes], replace: bool, again: bool) -> Generator[Step, bytes, list[bytes]]:
        """RESTORE for every key; returns those that a reply is owed for. `again`: they are over there already, and one
        that is not here any more is deleted."""
        sent: list[bytes] = []
        out: list[bytes] = []
        size = 0
        for key in keys:
            self.changed.discard(key)
            request = self._restore(key, replace) or (encode(b"DEL", key) if again else b"")
            if not request:
                continue
            sent.append(key)
            out.append(request)
            size += len(request)
            if size > CHUNK_BYTES:
                yield "write", b"".join(out)
                out, size = [], 0
        if out:
            yield "write", b"".join(out)
        return sent

    def _restore(self, key: bytes, replace: bool) -> bytes:
        """The RESTORE that makes the key over there, b"" when it is not here any more."""
        config = self.ctx.server.config
        deadline = self.db.deadline(key)
        data = payload.dump(self.db, key, config.rdbcompression)
        if data is None:
            return b""
        left_ms = max(deadline - self.ctx.keyspace.now_ms(), 1) if deadline >= 0 else 0
        command = b"RESTORE-ASKING" if config.cluster_enabled else b"RESTORE"
        return encode(command, key, b"%d" % left_ms, data, *((b"REPLACE",) if replace else ()))

    def _is_good(self, line: bytes) -> bool:
        """Whether a reply is no error; the first one is kept."""
        self.answered = True
        if line.startswith(b"-") and not self.complaint:
            self.complaint = line[1:].rstrip(b"\r\n")
        return not line.startswith(b"-")

    def _take_leave(self, arrived: list[bytes]) -> list[bytes]:
        """Removes the keys that have arrived as they are; returns the others."""
        keyspace = self.ctx.keyspace
        removed = []
        others = []
        for key in arrived:
            if key in self.changed:
                others.append(key)
            elif self.db.remove(key):
                removed.append(key)
                keyspace.changed(self.db, key, "del")
        if removed:
            tell(self.db.index, (b"DEL", *removed))
        return others

    def verdict(self) -> Any:
        """The reply, once all is said."""
        if not self.complaint:
            return "OK"
        text = self.complaint.decode("utf-8", "surrogateescape")
        return CommandError(f"ERR Target instance replied with error: {text}")

    def lost(self) -> CommandError:
        """The reply when the connection failed."""
        return CommandError(f"IOERR error or timeout {self.step} to target instance")


UNREACHABLE = "IOERR error or timeout connecting to the client"
REFUSED = "IOERR error or timeout writing to target instance"  # Redis notices when it writes


class Migration:
    """All migrations under way, and the connections kept for the next ones."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lines: dict[tuple[str, int], Line] = {}  # idle, the one used last at the end
        self.exchanges: set[Exchange] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.timer: asyncio.TimerHandle | None = None
        server.key_listeners.append(self._touched)
        server.keyspace.database_listeners.append(self._database_changes)

    @property
    def cached(self) -> int:
        """Connections kept."""
        return len(self.lines)

    def start(self, ctx: Context, order: Order) -> Any:
        """The reply of MIGRATE, or DEFERRED."""
        exchange = Exchange(ctx, ctx.db, order)
        if ctx.deny_blocking:
            return self._exchange_now(exchange)
        for key in order.keys:
            self.server.keyspace.watch_key(key)
        self.exchanges.add(exchange)
        task = self.server.loop.create_task(self._exchange(exchange, ctx.client))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return DEFERRED

    # ------------------------------------------------------------ what happens to keys meanwhile

    def _touched(self, db: Database, key: bytes) -> None:
        for exchange in self.exchanges:
            if exchange.db is db:
                exchange.changed.add(key)

    def _database_changes(self, databases: list[Database], swapped: bool) -> None:
        for exchange in self.exchanges:
            if exchange.db in databases:
                exchange.changed.update(exchange.order.keys)

    # ------------------------------------------------------------ beside everything else

    async def _exchange(self, exchange: Exchange, client: Client) -> None:
        try:
            reply = await self._carry(exchange)
        except CommandError as error:
            reply = error
        except Exception:
            log.exception("MIGRATE failed")
            reply = CommandError("ERR internal error, see the server's log")
        finally:
            self.exchanges.discard(exchange)
            for key in exchange.order.keys:
                self.server.keyspace.unwatch_key(key)
        if isinstance(reply, CommandError):
            self.server.dispatcher.count_late_error(client, reply)
        client.finish(reply)
        self.server.settle()

    async def _carry(self, exchange: Exchange) -> Any:
        """The exchange over a connection that was kept or is new; over a new one when the kept one is dead."""
        order = exchange.order
        line = self.lines.pop((order.host, order.port), None)
        while True:
            fresh = line is None
            line = line or await self._connect(order)
            try:
                await self._drive(exchange, line)
                line.db_index = -1 if exchange.complaint else order.db_index
                self._keep(order, line)
                return exchange.verdict()
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                line.writer.close()
                if fresh or exchange.answered or isinstance(error, TimeoutError):
                    return exchange.lost() if not exchange.complaint else exchange.verdict()
                line = None
            except CommandError:
                self._keep(order, line)
                raise

    async def _connect(self, order: Order) -> Line:
        try:
            async with asyncio.timeout(order.timeout_s):
                reader, writer = await asyncio.open_connection(order.host, order.port, limit=LINE_MAX)
        except (OSError, ValueError) as error:
            raise CommandError(REFUSED if isinstance(error, ConnectionError) else UNREACHABLE) from None
        return Line(reader, writer)

    async def _drive(self, exchange: Exchange, line: Line) -> None:
        """Carries `talk` over a connection, and lets the others have their turns."""
        talk = exchange.talk(line.db_index)
        heard = b""
        with contextlib.suppress(StopIteration):
            while True:
                step, data = talk.send(heard) if heard else next(talk)
                if self.server.keyspace.due:  # keys have gone
                    self.server.settle()
                async with asyncio.timeout(exchange.order.timeout_s):
                    if step == "write":
                        line.writer.write(data)
                        await line.writer.drain()
                        heard = b""
                    else:
                        heard = await line.reader.readuntil(b"\n")
                self.server.engine.tick()

    # ------------------------------------------------------------ inside EXEC or a script

    def _exchange_now(self, exchange: Exchange) -> Any:
        """The same over a blocking socket; nothing can change meanwhile."""
        order = exchange.order
        try:
            plug = socket.create_connection((order.host, order.port), order.timeout_s)
        except (OSError, OverflowError) as error:
            raise CommandError(REFUSED if isinstance(error, ConnectionError) else UNREACHABLE) from None
        with plug, plug.makefile("rb") as replies:
            talk = exchange.talk(-1)
            heard = b""
            try:
                with contextlib.suppress(StopIteration):
                    while True:
                        step, data = talk.send(heard) if heard else next(talk)
                        heard = b""
                        if step == "write":
                            plug.sendall(data)
                            continue
                        heard = replies.readline(LINE_MAX)
                        if not heard.endswith(b"\n"):
                            raise ConnectionError("closed inside a reply")
            except OSError:
                raise exchange.lost() from None
        reply = exchange.verdict()
        if isinstance(reply, CommandError):
            raise reply
        return reply

    # ------------------------------------------------------------ connections kept

    def _keep(self, order: Order, line: Line) -> None:
        """For the next MIGRATE. The one that has been idle longest makes room."""
        place = (order.host, order.port)
        line.used_s = time.monotonic()
        if (old := self.lines.pop(place, None)) is not None:
            old.writer.close()
        if len(self.lines) >= CACHED_MAX:
            self.lines.pop(next(iter(self.lines))).writer.close()
        self.lines[place] = line
        if self.timer is None:
            self.timer = self.server.loop.call_later(IDLE_S, self._close_idle)

    def _close_idle(self) -> None:
        """Closes what has been idle for IDLE_S, and looks again when the next one will have been."""
        self.timer = None
        now_s = time.monotonic()
        for place, line in list(self.lines.items()):
            left_s = line.used_s + IDLE_S - now_s
            if left_s > 0:
                self.timer = self.server.loop.call_later(left_s, self._close_idle)
                return
            del self.lines[place]
            line.writer.close()

    def close(self) -> None:
        """The server ends: what is under way is given up, its keys stay."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            self.server.loop.run_until_complete(asyncio.wait(self.tasks))
        for line in self.lines.values():
            line.writer.close()
        self.lines.clear()
        if self.timer is not None:
            self.timer.cancel()
