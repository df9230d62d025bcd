"""MULTI, EXEC and WATCH: what a connection has queued and watches, and who watches which key.

The queue itself is the hot room's (`hot/queue.pyx`): while nothing else stands in the way the engine does MULTI, the
queueing and EXEC without a word from Python. WATCH rests on the keyspace's notes: a change of a watched key reaches
`Watches.touched` before the next command runs, so EXEC only has to look at a flag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeekdb.errors import CommandError
from zeekdb.hot.gates import GATE_MULTI
from zeekdb.hot.replies import NO_REPLY, NULL_ARRAY, NoReply, NullArray

if TYPE_CHECKING:
    from zeekdb.hot.keyspace import Database, Keyspace
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

WatchedKey = tuple[int, bytes]  # index of the database, key


class Watches:
    """Which clients watch which keys."""

    def __init__(self, keyspace: Keyspace) -> None:
        self.keyspace = keyspace
        self.watchers: dict[WatchedKey, set[Client]] = {}

    def add(self, client: Client, key: bytes) -> None:
        """WATCH. A key that is due is removed first: that it went is no change from then on."""
        watched = (client.db_index, key)
        if watched in client.watched:
            return
        self.keyspace.databases[client.db_index].exists(key)
        client.watched.add(watched)
        client.hold_name(key)
        client.watching = True
        self.watchers.setdefault(watched, set()).add(client)
        self.keyspace.watch_key(key)

    def drop(self, client: Client) -> None:
        """UNWATCH, and what ends every transaction."""
        for watched in client.watched:
            watchers = self.watchers[watched]
            watchers.discard(client)
            if not watchers:
                del self.watchers[watched]
            self.keyspace.unwatch_key(watched[1])
            client.let_name_go(watched[1])
        client.watched.clear()
        client.watching = client.watch_failed = False

    def touched(self, db: Database, key: bytes) -> None:
        """A key was changed."""
        for client in self.watchers.get((db.index, key), ()):
            client.watch_failed = True

    def database_changes(self, databases: list[Database], swapped: bool) -> None:
        """Before a flush or a swap: keys that are there go, or get another value."""
        indexes = {db.index for db in databases}
        for (index, key), clients in self.watchers.items():
            if index in indexes and any(db.exists(key) for db in databases if swapped or db.index == index):
                for client in clients:
                    client.watch_failed = True


class Transaction:
    """One connection's MULTI."""

    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.client = client

    def begin(self) -> None:
        """MULTI."""
        if self.client.in_multi:
            raise CommandError("ERR MULTI calls can not be nested")
        self.client.queue_failed = False
        self.client.gate |= GATE_MULTI

    def end(self) -> None:
        """Back to ordinary commands, with nothing queued and nothing watched."""
        self.client.gate &= ~GATE_MULTI
        self.client.drop_queue()
        self.server.watches.drop(self.client)

    def discard(self) -> None:
        """DISCARD."""
        if not self.client.in_multi:
            raise CommandError("ERR DISCARD without MULTI")
        self.end()

    def execute(self) -> NullArray | NoReply:
        """EXEC: runs everything and writes the replies, or nothing at all."""
        client = self.client
        if not client.in_multi:
            raise CommandError("ERR EXEC without MULTI")
        for index, key in client.watched:  # one that is due by now goes, which touches it
            self.server.keyspace.databases[index].exists(key)
        self.server.read_notes()
        failed = client.queue_failed
        if failed or client.watch_failed:
            self.end()
            if failed:
                raise CommandError("EXECABORT Transaction discarded because of previous errors.")
            return NULL_ARRAY
        client.gate &= ~GATE_MULTI
        self.server.watches.drop(client)
        client.run_queue()
        return NO_REPLY


def note_exec(client: Client, begins: bool) -> None:
    """The engine is about to run a handler inside EXEC, or has run the last one: nothing may wait."""
    client.in_exec = client.ctx.deny_blocking = begins
