"""The primary's side of replication: full copies, the stream of changes, and what replicas acknowledge.

A replica gets all data as an RDB image (`full_copies`) and then every change, as `propagation` tells it. The last bytes
of the stream are kept (`repl-backlog-size`), so that a replica whose connection broke goes on where it was. Offsets
count the stream's bytes, as in Redis; a replica acknowledges them once a second, or when WAIT asks it to.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zeekdb.errors import CommandError
from zeekdb.hot import memory
from zeekdb.server.full_copies import FullCopies
from zeekdb.server.propagation import encode

if TYPE_CHECKING:
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

GETACK = encode((b"REPLCONF", b"GETACK", b"*"))
PING = encode((b"PING",))
KEEP_ALIVE_S = 1.0


@dataclass(eq=False)
class Replica:
    """What is known of one."""

    client: Client
    port: int = 0
    address: str = ""
    acknowledged: int = 0
    only_functions: bool = False  # no data are wanted
    only_image: bool = False  # nothing behind the image is wanted
    takes_mark: bool = False  # an image without a size, which a mark ends
    old: bool = False  # said SYNC
    state: str = "online"  # wait_bgsave, send_bulk, online; as INFO says it
    epoch: bool = True  # the stream is for it: its image's moment is past, or it needed none
    sending: bool = False  # an image is on its way
    progress_s: float = 0.0  # when its connection last took some of it
    queue: deque[bytes] = field(default_factory=deque)  # of the stream, behind the image
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Event = field(default_factory=asyncio.Event)  # it has acknowledged something, or need not
    seen_s: float = field(default_factory=time.monotonic)

    def lag_s(self) -> int:
        """Seconds since it was heard."""
        return int(time.monotonic() - self.seen_s)

    async def room(self) -> None:
        """Waits until its connection has sent nearly all it was given, or has ended."""
        client = self.client
        while client.output_bytes and not client.closed:
            self.drained.clear()
            client.tell_drained = True
            await self.drained.wait()
        self.progress_s = time.monotonic()


class Backlog:
    """The last bytes of the stream, and where in it they stand."""

    def __init__(self, offset: int) -> None:
        self.data = bytearray()
        self.end = offset

    @property
    def begin(self) -> int:
        return self.end - len(self.data)

    def add(self, data: bytes, size_max: int) -> None:
        """Append; what is over the size goes, in large steps."""
        before = len(self.data)
        self.data += data
        self.end += len(data)
        if len(self.data) > 2 * size_max:
            del self.data[: len(self.data) - size_max]
        memory.charge(len(self.data) - before)

    def drop(self) -> None:
        """Nothing of it is known any more."""
        memory.charge(-len(self.data))
        self.data.clear()

    def since(self, offset: int) -> bytes | None:
        """Everything from `offset` on; None when that is no longer (or not yet) known."""
        if not self.begin <= offset <= self.end:
            return None
        return bytes(self.data[offset - self.begin :])


class Primary:
    """All replicas of this server."""

    def __init__(self, server: Server, image: Callable[[bool], bytes]) -> None:
        self.server = server
        self.image = image  # all data, or the functions only, as an RDB file
        self.copies = FullCopies(server)
        self.replicas: dict[Client, Replica] = {}
        self.announced: dict[Client, Replica] = {}  # said REPLCONF, not yet PSYNC
        self.backlog: Backlog | None = None
        self.offset = 0
        self.alone_since_s = 0.0
        self.pinged_s = 0.0
        self.kept_alive_s = 0.0
        server.engine.on_drained = self._drained

    # ------------------------------------------------------------ coming and going

    def announce(self, client: Client) -> Replica:
        """What REPLCONF fills in before the replica asks for data."""
        known = self.replicas.get(client) or self.announced.get(client)
        if known is None:
            known = self.announced[client] = Replica(client)
        return known

    def attach(self, client: Client, offset: int, replication_id: bytes, old: bool = False) -> None:
        """PSYNC, or SYNC when `old`: the client becomes a replica, from `offset` on if possible. CommandError."""
        server = self.server
        if server.replica.active and not server.replica.link_up:
            raise CommandError("NOMASTERLINK Can't SYNC while not connected with my master")
        if client in self.replicas:
            return
        self._listen()
        assert self.backlog is not None
        replica = self.announce(client)
        missed = self.backlog.since(offset) if replication_id == server.replication_id.encode() else None
        client.kind = "replica"
        client.take_side(client.no_evict, True)
        server.limit_output(client)
        self.announced.pop(client, None)
        self.replicas[client] = replica
        if missed is not None:
            client.write_raw(b"+CONTINUE %b\r\n%b" % (replication_id, missed))
            server.stats.sync_partial_ok += 1
            replica.acknowledged = self.offset
            return
        if not old:
            server.stats.sync_partial_err += replication_id != b"?"
        replica.old = old
        if replica.only_functions:
            self._send_functions(replica)
            return
        replica.epoch = False
        self.copies.ask(replica)

    def _send_functions(self, replica: Replica) -> None:
        """An image without data: small enough to be made at once."""
        self.server.propagation.restart()
        image = self.image(True)
        if not replica.old:
            identity = self.server.replication_id.encode()
            replica.client.write_raw(b"+FULLRESYNC %b %d\r\n" % (identity, self.offset))
        replica.client.write_raw(b"$%d\r\n%b" % (len(image), image))
        self.server.stats.sync_full += 1

    def _listen(self) -> None:
        if not self.replicas:
            self.pinged_s = time.monotonic()
        if self.backlog is None:
            self.backlog = Backlog(self.offset)
            self.server.propagation.attach(self.hear)

    def forget(self, client: Client) -> None:
        """The connection ended."""
        self.announced.pop(client, None)
        replica = self.replicas.pop(client, None)
        if replica is not None:
            self.copies.forget(replica)
        if replica is not None and not self.replicas:
            self.alone_since_s = time.monotonic()

    def hear(self, data: bytes) -> None:
        """What has changed here. While this server follows another one, it is that one's stream that goes on."""
        if not self.server.replica.active:
            self.feed(data)

    def feed(self, data: bytes) -> None:
        """More of the stream."""
        assert self.backlog is not None
        self.offset += len(data)
        self.backlog.add(data, self.server.config.repl_backlog_size)
        self._tell(data)

    def _tell(self, data: bytes) -> None:
        """To every replica, or behind the image that it is getting."""
        for client, replica in list(self.replicas.items()):
            if not client.copying:
                client.write_raw(data)
            elif replica.epoch:
                replica.queue.append(data)
                client.stream_bytes += len(data)
                limit = self.server.output_limits(client)[0]
                if limit and client.stream_bytes > max(limit, self.server.config.repl_backlog_size):
                    self.server.output_exceeded(client)
                    client.kill()

    def _drained(self, client: Client) -> None:
        """Its connection has sent what it was given."""
        replica = self.replicas.get(client)
        if replica is not None:
            replica.drained.set()

    def drop_all(self) -> None:
        """The stream is another one from now on: replicas ask again, and are not told of the command under way."""
        self.server.engine.drain()
        for client in list(self.replicas):
            client.kill()

    def become(self, replication_id: str, offset: int) -> None:
        """The stream has this name and place."""
        self.server.replication_id = replication_id
        self.offset = offset
        if self.backlog is not None:
            self.backlog.drop()
            self.backlog = Backlog(offset)

    def pass_on(self, data: bytes) -> None:
        """Bytes of the stream that we follow ourselves."""
        self.offset += len(data)
        if self.backlog is not None:
            self.backlog.add(data, self.server.config.repl_backlog_size)
        self._tell(data)

    # ------------------------------------------------------------ acknowledgements

    def acknowledge(self, client: Client, offset: int) -> None:
        """REPLCONF ACK."""
        replica = self.replicas.get(client)
        if replica is not None:
            replica.acknowledged = max(replica.acknowledged, offset)
            replica.seen_s = time.monotonic()
            replica.heard.set()
            self.server.blocking.replicas_heard()

    def ask(self) -> None:
        """Have every replica acknowledge now."""
        if self.replicas:
            self.feed(GETACK)

    def acknowledged_by(self, offset: int) -> int:
        """How many replicas have everything up to `offset`."""
        return sum(each.acknowledged >= offset for each in self.replicas.values() if each.state == "online")

    def good_replicas(self) -> int:
        """Those that were heard within min-replicas-max-lag."""
        lag_max = self.server.config.min_replicas_max_lag
        return sum(each.lag_s() <= lag_max for each in self.replicas.values() if each.state == "online")

    # ------------------------------------------------------------ by the clock

    def tick(self) -> None:
        """Pings replicas, and stops keeping the stream when none has been there for long."""
        now_s = time.monotonic()
        config = self.server.config
        is_top = not self.server.replica.active  # below it the pings of the primary's own stream go through
        if self.replicas and is_top and now_s - self.pinged_s >= config.repl_ping_replica_period:
            self.pinged_s = now_s
            self.feed(PING)
        if now_s - self.kept_alive_s >= KEEP_ALIVE_S:
            self.kept_alive_s = now_s
            self.copies.keep_alive()
            self.copies.drop_stalled()
        if (
            self.backlog is not None and not self.replicas and config.repl_backlog_ttl
            and now_s - self.alone_since_s > config.repl_backlog_ttl
        ):  # fmt: skip
            self.backlog.drop()
            self.backlog = None
            self.server.propagation.detach(self.hear)
