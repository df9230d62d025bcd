"""A client as commands see it: the engine's connection and what the server knows beside it."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zeekdb.commands.args import show
from zeekdb.commands.context import Context
from zeekdb.hot import journal, memory
from zeekdb.hot.connection import Connection
from zeekdb.hot.gates import GATE_AUTH, GATE_MULTI, GATE_NO_TOUCH, GATE_REPLY
from zeekdb.hot.replies import NO_REPLY
from zeekdb.server.transactions import Transaction, WatchedKey

if TYPE_CHECKING:
    from zeekdb.server.acl.rules import User
    from zeekdb.server.server import Server
    from zeekdb.server.tracking import Tracked

CONNECTION_BYTES = 1024  # the Python objects of one connection, about
ENTRY_BYTES = 128  # of a subscription or a watched key beside its name, about


class Client(Connection):
    """Fills `commands.ports.ClientPort`. Lives from accept to close; ids are never used twice."""

    kind = "normal"
    account: User  # who is logged in, or the default user
    logged_in = False
    channels: Collection[bytes] = ()  # subscribed to
    patterns: Collection[bytes] = ()
    shard_channels: Collection[bytes] = ()
    reply_buffer_size = 0
    reply_buffer_peak = 0
    reply_buffer_used = 0
    copying = False  # a replica that waits for a full copy, or gets one
    stream_bytes = 0  # of the replication stream, which follow that copy

    def __init__(self, server: Server, client_id: int, addr: str, laddr: str, is_unix: bool) -> None:
        self.server = server
        self.id = client_id
        self.addr = addr
        self.laddr = laddr
        self.is_unix = is_unix
        self.name = b""
        self.lib_name = b""
        self.lib_ver = b""
        self.db_index = 0
        self.created_s = time.time()
        self.is_monitor = False
        self._no_evict = False
        self.reply_mode = "on"
        self.over_limit_since_s = 0.0
        self.waiting: tuple[int, list[bytes]] | None = None  # a command that CLIENT PAUSE holds back
        self.channels: dict[bytes, None] = {}  # subscribed to, in order
        self.patterns: dict[bytes, None] = {}
        self.shard_channels: dict[bytes, None] = {}
        self.transaction = Transaction(server, self)
        self.watched: set[WatchedKey] = set()
        self.watch_failed = False  # a watched key was changed
        self.in_exec = False
        self.blocked_call: list[Any] = []  # the command that waits; the first item stands for its name
        self.ctx = Context(server.keyspace, server.keyspace.databases[0], self, server)

    # ------------------------------------------------------------ state

    @property
    def authenticated(self) -> bool:
        return not self.gate & GATE_AUTH

    @property
    def user(self) -> str:
        return show(self.account.name)

    @property
    def write_offset(self) -> int:
        """Of the replication stream, behind this connection's last change."""
        self.server.engine.drain()
        if not self.wrote_end:
            return 0
        return max(self.server.primary.offset - (journal.end() - self.wrote_end), 0)

    @property
    def no_evict(self) -> bool:
        """Whether it may stay when clients take too much."""
        return self._no_evict

    @no_evict.setter
    def no_evict(self, value: bool) -> None:
        self._no_evict = value
        self.take_side(value, self.kind == "replica")

    def hold(self, size: int) -> None:
        """So many more bytes are kept for it here, or fewer."""
        before = self.extra_bytes
        self.extra_bytes = before + size
        memory.charge(self.extra_bytes - before)

    def hold_name(self, name: bytes) -> None:
        """It has subscribed to something, watches it, or the like."""
        self.hold(len(name) + ENTRY_BYTES)

    def let_name_go(self, name: bytes) -> None:
        """The other way."""
        self.hold(-len(name) - ENTRY_BYTES)

    @property
    def no_touch(self) -> bool:
        return bool(self.gate & GATE_NO_TOUCH)

    @no_touch.setter
    def no_touch(self, value: bool) -> None:
        self.gate = self.gate | GATE_NO_TOUCH if value else self.gate & ~GATE_NO_TOUCH

    @property
    def last_interaction_s(self) -> float:
        return self.seen_ms / 1000

    @property
    def last_command(self) -> str:
        if self.in_exec:
            return "exec"
        return self.server.dispatcher.last_name(self)

    @property
    def is_blocked(self) -> bool:
        return bool(self.blocked)

    @property
    def tracked(self) -> Tracked | None:
        return self.server.tracking.clients.get(self)

    @property
    def subscriptions(self) -> int:
        return len(self.channels)

    @property
    def pattern_subscriptions(self) -> int:
        return len(self.patterns)

    @property
    def shard_subscriptions(self) -> int:
        return len(self.shard_channels)

    @property
    def in_multi(self) -> bool:
        return bool(self.gate & GATE_MULTI)

    @property
    def queued_commands(self) -> int:
        return self.queue_length if self.gate & GATE_MULTI else -1

    @property
    def multi_memory(self) -> int:
        return self.queue_bytes

    @property
    def watched_keys(self) -> int:
        return len(self.watched)

    @property
    def query_buffer_used(self) -> int:
        return self.query_bytes

    @property
    def query_buffer_free(self) -> int:
        return max(self.query_capacity - self.query_bytes, 0)

    @property
    def argv_memory(self) -> int:
        return 0

    @property
    def reply_list_length(self) -> int:
        return 1 if self.unsent_bytes else 0

    @property
    def reply_list_memory(self) -> int:
        return self.unsent_bytes

    @property
    def unsent_bytes(self) -> int:
        """Output that waits; an image under way does not count."""
        return self.stream_bytes if self.copying else self.output_bytes

    @property
    def memory(self) -> int:
        return self.memory_bytes + self.stream_bytes

    # ------------------------------------------------------------ deeds

    def kill(self, after_reply: bool = False) -> None:
        if after_reply:
            self.close_after_reply()
        else:
            self.close()

    def set_reply_mode(self, mode: str) -> None:
        self.reply_mode = mode
        self.gate = self.gate & ~GATE_REPLY if mode == "on" else self.gate | GATE_REPLY

    def select(self, index: int) -> None:
        self.db_index = index
        database = self.server.keyspace.databases[index]
        self.use_database(database)
        self.ctx.db = database

    def reset(self) -> None:
        self.transaction.end()
        self.server.pubsub.forget(self)
        self.server.tracking.disable(self)
        self.server.monitors.discard(self)
        self.server.update_gates()
        self.is_monitor = False
        self.set_reply_mode("on")
        self.no_touch = False
        self.no_evict = False
        self.name = b""
        self.protocol = 2
        self.select(0)
        self.server.acl.admit(self)

    def become_monitor(self) -> None:
        self.is_monitor = True
        self.server.monitors.add(self)
        self.server.update_gates()

    def unblock(self, error: bool) -> bool:
        return self.server.blocking.unblock(self, error)

    def finish(self, reply: Any) -> None:
        """Answers the command that has waited, as CLIENT REPLY wants it, and goes on with the next one."""
        is_silent = self.gate & GATE_REPLY
        if self.reply_mode == "skip":
            self.set_reply_mode("on")
        self.resume(NO_REPLY if is_silent else reply)
