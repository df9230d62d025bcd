"""Client-side caching: who has read which keys, and telling them when a key changes.

By default the server remembers, for every key, the clients that have read it, and tells each once; the keyspace's
notes say which of these keys were changed. In broadcast mode nothing is remembered: whoever asked for a prefix hears of
every change under it, which needs the journal. Messages go out at the end of the command that made the change, behind
its reply: a client never learns of its own change before the answer to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zeekdb.commands.introspection import key_places
from zeekdb.errors import CommandError
from zeekdb.hot.gates import GATE_TRACKING
from zeekdb.hot.replies import Push
from zeekdb.server.pubsub import bulk

if TYPE_CHECKING:
    from zeekdb.commands.spec import Command
    from zeekdb.hot.keyspace import Database
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

CHANNEL = b"__redis__:invalidate"
SWITCH = "before disabling tracking for this client, and then re-enabling it with a different mode."


@dataclass(slots=True)
class Tracked:
    """How one client is told."""

    broadcast: bool = False
    opt_in: bool = False
    opt_out: bool = False
    no_loop: bool = False
    redirect: int = 0  # id of the connection that is told instead
    redirect_broken: bool = False
    caching: bool | None = None  # CLIENT CACHING's word on the next command
    prefixes: dict[bytes, None] = field(default_factory=dict)


@dataclass(slots=True)
class Prefix:
    """Who asked for a prefix, and what has changed under it since they were told."""

    clients: dict[Client, None] = field(default_factory=dict)
    changed: dict[bytes, None] = field(default_factory=dict)


class Tracking:
    """All clients that cache."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.keyspace = server.keyspace
        self.clients: dict[Client, Tracked] = {}
        self.readers: dict[bytes, dict[int, None]] = {}  # key: ids of the clients that have read it
        self.prefixes: dict[bytes, Prefix] = {}
        self.flushed = False

    # ------------------------------------------------------------ CLIENT TRACKING

    @staticmethod
    def wish() -> Tracked:
        """For CLIENT TRACKING to fill in."""
        return Tracked()

    def enable(self, client: Client, wanted: Tracked) -> None:
        """CLIENT TRACKING ON, also of a client that is tracked already. CommandError."""
        present = self.clients.get(client)
        if wanted.prefixes and not wanted.broadcast:
            raise CommandError("ERR PREFIX option requires BCAST mode to be enabled")
        if present is not None and present.broadcast != wanted.broadcast:
            raise CommandError(f"ERR You can't switch BCAST mode on/off {SWITCH}")
        if wanted.broadcast and (wanted.opt_in or wanted.opt_out):
            raise CommandError("ERR OPTIN and OPTOUT are not compatible with BCAST")
        if wanted.opt_in and wanted.opt_out:
            raise CommandError("ERR You can't specify both OPTIN mode and OPTOUT mode")
        if present is not None and ((wanted.opt_in and present.opt_out) or (wanted.opt_out and present.opt_in)):
            raise CommandError(f"ERR You can't switch OPTIN/OPTOUT mode {SWITCH}")
        if wanted.broadcast:
            self._check_overlaps(present.prefixes if present else {}, list(wanted.prefixes))
            if present is not None:
                wanted.prefixes = present.prefixes | wanted.prefixes
            elif not wanted.prefixes:
                wanted.prefixes = {b"": None}
        self.clients[client] = wanted
        client.gate |= GATE_TRACKING
        for prefix in wanted.prefixes:
            if client not in self.prefixes.get(prefix, Prefix()).clients:
                client.hold_name(prefix)
            self.prefixes.setdefault(prefix, Prefix()).clients[client] = None
        self._listen()

    @staticmethod
    def _check_overlaps(present: Iterable[bytes], wanted: list[bytes]) -> None:
        def overlap(one: bytes, other: bytes) -> bool:
            return one.startswith(other) or other.startswith(one)

        def shown(prefix: bytes) -> str:
            return prefix.decode("utf-8", "surrogateescape")

        for at, prefix in enumerate(wanted):
            for other in present:
                if overlap(prefix, other):
                    raise CommandError(
                        f"ERR Prefix '{shown(prefix)}' overlaps with an existing prefix '{shown(other)}'. Prefixes for "
                        "a single client must not overlap."
                    )
            for other in wanted[at + 1 :]:
                if overlap(prefix, other):
                    raise CommandError(
                        f"ERR Prefix '{shown(prefix)}' overlaps with another provided prefix '{shown(other)}'. "
                        "Prefixes for a single client must not overlap."
                    )

    def disable(self, client: Client) -> None:
        """CLIENT TRACKING OFF, and the end of the connection. What it has read is forgotten as the keys change."""
        tracked = self.clients.pop(client, None)
        if tracked is None:
            return
        if not client.closed:
            client.gate &= ~GATE_TRACKING
        for prefix in tracked.prefixes:
            entry = self.prefixes[prefix]
            del entry.clients[client]
            client.let_name_go(prefix)
            if not entry.clients:
                del self.prefixes[prefix]
        self._listen()
        if not self.clients:
            self._forget_readers()

    def _listen(self) -> None:
        """The journal is needed while anybody broadcasts."""
        subscribers = self.keyspace.subscribers
        if bool(self.prefixes) != (self._changed in subscribers):
            if self.prefixes:
                subscribers.append(self._changed)
            else:
                subscribers.remove(self._changed)
            self.server.update_gates()

    # ------------------------------------------------------------ what is read

    def remember(self, client: Client, spec: Command, args: list[bytes]) -> None:
        """A command that reads was run: its keys are the client's to be told of, if its mode says so."""
        tracked = self.clients.get(client)
        if tracked is None or tracked.broadcast:
            return
        if (tracked.opt_in and not tracked.caching) or (tracked.opt_out and tracked.caching is False):
            return
        try:
            places = key_places(spec, tuple(args))
        except CommandError:
            return
        for at, _ in places:
            readers = self.readers.get(args[at])
            if readers is None:
                readers = self.readers[args[at]] = {}
                self.keyspace.watch_key(args[at])
            readers[client.id] = None
        if len(self.readers) > self.server.config.tracking_table_max_keys:
            self.keyspace.due = True  # and `command_done` makes room, behind the reply

    def trim(self) -> None:
        """No more keys than `tracking-table-max-keys`: whoever has read one that goes must forget it."""
        most = self.server.config.tracking_table_max_keys
        while most and len(self.readers) > most:
            self._invalidate(next(iter(self.readers)), None)

    def command_ended(self, client: Client, spec: Command) -> None:
        """CLIENT CACHING holds for one command, or one transaction."""
        tracked = self.clients.get(client)
        if tracked is not None and not client.in_multi and not client.in_exec and not spec.name.startswith("CLIENT"):
            tracked.caching = None

    def _forget_readers(self) -> None:
        for key in self.readers:
            self.keyspace.unwatch_key(key)
        self.readers.clear()

    # ------------------------------------------------------------ what changes

    def touched(self, db: Database, key: bytes) -> None:
        """A key was changed that perhaps somebody has read."""
        if key in self.readers:
            self._invalidate(key, self.server.current_client)

    def _invalidate(self, key: bytes, by: Client | None) -> None:
        readers = self.readers.pop(key)
        self.keyspace.unwatch_key(key)
        for number in readers:
            client = self.server.client(number)
            tracked = self.clients.get(client) if client is not None else None
            if client is None or tracked is None or tracked.broadcast or (tracked.no_loop and client is by):
                continue
            self._tell(client, tracked, [key])

    def _changed(self, db: Database, key: bytes, event: str) -> None:
        """Any change, while somebody broadcasts."""
        for prefix, entry in self.prefixes.items():
            if key.startswith(prefix):
                entry.changed[key] = None
                self.keyspace.due = True

    def database_changes(self, databases: list[Database], swapped: bool) -> None:
        """Before a flush: everything that anybody has is void."""
        if self.clients and not swapped:
            self.flushed = True
            self.keyspace.due = True

    def command_done(self, client: Client | None) -> None:
        """The end of a command: the broadcasts of what it changed go out, and the word of a flush."""
        if self.flushed:
            self.flushed = False
            self._forget_readers()
            for each, tracked in list(self.clients.items()):
                self._tell(each, tracked, None)
        self.trim()
        for entry in list(self.prefixes.values()):
            if not entry.changed:
                continue
            keys, entry.changed = list(entry.changed), {}
            for each in list(entry.clients):
                tracked = self.clients[each]
                if not (tracked.no_loop and each is client):
                    self._tell(each, tracked, keys)

    def _tell(self, client: Client, tracked: Tracked, keys: list[bytes] | None) -> None:
        receiver: Any = client
        if tracked.redirect:
            receiver = self.server.client(tracked.redirect)
            if receiver is None:
                tracked.redirect_broken = True
                if client.protocol == 3:
                    client.write(Push([b"tracking-redir-broken", tracked.redirect]))
                return
        if receiver.protocol == 3:
            receiver.write(Push([b"invalidate", keys]))
        elif tracked.redirect and receiver.subscriptions + receiver.pattern_subscriptions:
            body = b"*-1\r\n" if keys is None else b"*%d\r\n%b" % (len(keys), bulk(tuple(keys)))
            receiver.write_raw(b"*3\r\n%b%b" % (bulk((b"message", CHANNEL)), body))

    # ------------------------------------------------------------ for INFO

    def items(self) -> int:
        """Pairs of key and client remembered."""
        return sum(len(readers) for readers in self.readers.values())
