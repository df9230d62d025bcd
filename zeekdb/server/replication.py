"""The primary's side of replication: full copies, the stream of changes, and what replicas acknowledge.

A replica gets all data as an RDB image and then every change, as `propagation` tells it. The last bytes of the stream
are kept (`repl-backlog-size`), so that a replica whose connection broke goes on where it was. Offsets count the
stream's bytes, as in Redis; a replica acknowledges them once a second, or when WAIT asks it to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zeekdb.server.propagation import encode

if TYPE_CHECKING:
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

GETACK = encode((b"REPLCONF", b"GETACK", b"*"))
PING = encode((b"PING",))


@dataclass
class Replica:
    """What is known of one."""

    client: Client
    port: int = 0
    address: str = ""
    acknowledged: int = 0
    only_functions: bool = False  # no data are wanted
    seen_s: float = field(default_factory=time.monotonic)

    def lag_s(self) -> int:
        """Seconds since it was heard."""
        return int(time.monotonic() - self.seen_s)


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
        self.data += data
        self.end += len(data)
        if len(self.data) > 2 * size_max:
            del self.data[: len(self.data) - size_max]

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
        self.replicas: dict[Client, Replica] = {}
        self.announced: dict[Client, Replica] = {}  # said REPLCONF, not yet PSYNC
        self.backlog: Backlog | None = None
        self.offset = 0
        self.alone_since_s = 0.0
        self.pinged_s = 0.0

    # ------------------------------------------------------------ coming and going

    def announce(self, client: Client) -> Replica:
        """What REPLCONF fills in before the replica asks for data."""
        known = self.replicas.get(client) or self.announced.get(client)
        if known is None:
            known = self.announced[client] = Replica(client)
        return known

    def attach(self, client: Client, offset: int, replication_id: bytes, old: bool = False) -> None:
        """PSYNC, or SYNC when `old`: the client becomes a replica, from `offset` on if that can be had."""
        self._listen()
        assert self.backlog is not None
        missed = self.backlog.since(offset) if replication_id == self.server.replication_id.encode() else None
        client.kind = "replica"
        client.output_limit = self.server.output_limits(client)[0]
        if missed is not None:
            client.write_raw(b"+CONTINUE %b\r\n%b" % (replication_id, missed))
            self.server.stats.sync_partial_ok += 1
        else:
            self.server.propagation.restart()
            image = self.image(self.announce(client).only_functions)
            if not old:
                client.write_raw(b"+FULLRESYNC %b %d\r\n" % (self.server.replication_id.encode(), self.offset))
                self.server.stats.sync_partial_err += replication_id != b"?"
            client.write_raw(b"$%d\r\n%b" % (len(image), image))
            self.server.stats.sync_full += 1
        replica = self.announce(client)
        self.announced.pop(client, None)
        replica.acknowledged = self.offset
        self.replicas[client] = replica

    def _listen(self) -> None:
        if not self.replicas:
            self.pinged_s = time.monotonic()
        if self.backlog is None:
            self.backlog = Backlog(self.offset)
            self.server.propagation.attach(self.hear)

    def forget(self, client: Client) -> None:
        """The connection ended."""
        self.announced.pop(client, None)
        if self.replicas.pop(client, None) is not None and not self.replicas:
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
        for client in list(self.replicas):
            client.write_raw(data)

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
            self.backlog = Backlog(offset)

    def pass_on(self, data: bytes) -> None:
        """Bytes of the stream that we follow ourselves."""
        self.offset += len(data)
        if self.backlog is not None:
            self.backlog.add(data, self.server.config.repl_backlog_size)
        for client in list(self.replicas):
            client.write_raw(data)

    # ------------------------------------------------------------ acknowledgements

    def acknowledge(self, client: Client, offset: int) -> None:
        """REPLCONF ACK."""
        replica = self.replicas.get(client)
        if replica is not None:
            replica.acknowledged = max(replica.acknowledged, offset)
            replica.seen_s = time.monotonic()
            self.server.blocking.replicas_heard()

    def ask(self) -> None:
        """Have every replica acknowledge now."""
        if self.replicas:
            self.feed(GETACK)

    def acknowledged_by(self, offset: int) -> int:
        """How many replicas have everything up to `offset`."""
        return sum(replica.acknowledged >= offset for replica in self.replicas.values())

    def good_replicas(self) -> int:
        """Those that were heard within min-replicas-max-lag."""
        lag_max = self.server.config.min_replicas_max_lag
        return sum(replica.lag_s() <= lag_max for replica in self.replicas.values())

    # ------------------------------------------------------------ by the clock

    def tick(self) -> None:
        """Pings replicas, and stops keeping the stream when none has been there for long."""
        now_s = time.monotonic()
        config = self.server.config
        is_top = not self.server.replica.active  # below it the pings of the primary's own stream go through
        if self.replicas and is_top and now_s - self.pinged_s >= config.repl_ping_replica_period:
            self.pinged_s = now_s
            self.feed(PING)
        if (
            self.backlog is not None and not self.replicas and config.repl_backlog_ttl
            and now_s - self.alone_since_s > config.repl_backlog_ttl
        ):  # fmt: skip
            self.backlog = None
            self.server.propagation.detach(self.hear)
