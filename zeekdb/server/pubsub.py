"""Channels: who listens to which, and how a message reaches all of them.

A message is written once for each protocol and copied to every receiver by the hot room. Receivers of a channel are
kept as a list beside the set of them, made anew after a change, so that publishing walks over nothing but pointers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeekdb.hot.broadcast import broadcast
from zeekdb.hot.gates import GATE_SUBSCRIBED
from zeekdb.hot.keyspace import glob_match
from zeekdb.hot.replies import Push

if TYPE_CHECKING:
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server


def bulk(words: tuple[bytes, ...]) -> bytes:
    """The words as bulk strings."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


class Audience:
    """The subscribers of a channel or pattern, in the order in which they came."""

    __slots__ = ("clients", "listed")

    def __init__(self) -> None:
        self.clients: dict[Client, None] = {}
        self.listed: list[Client] | None = None

    def receivers(self) -> list[Client]:
        """For one broadcast: not to be changed."""
        if self.listed is None:
            self.listed = list(self.clients)
        return self.listed


class Directory:
    """One kind of subscription: channels, patterns or shard channels."""

    def __init__(self, word: str, held: str) -> None:
        self.word = word  # what stands before "subscribe" in replies
        self.held = held  # the client's attribute: what it is subscribed to, in order
        self.audiences: dict[bytes, Audience] = {}

    def of(self, client: Client) -> dict[bytes, None]:
        """What the client is subscribed to."""
        names: dict[bytes, None] = getattr(client, self.held)
        return names

    def add(self, client: Client, name: bytes) -> bool:
        """False when it was subscribed already."""
        if name in self.of(client):
            return False
        self.of(client)[name] = None
        audience = self.audiences.get(name)
        if audience is None:
            audience = self.audiences[name] = Audience()
        audience.clients[client] = None
        client.hold_name(name)
        audience.listed = None
        return True

    def remove(self, client: Client, name: bytes) -> bool:
        """False when it was not subscribed."""
        if name not in self.of(client):
            return False
        del self.of(client)[name]
        client.let_name_go(name)
        audience = self.audiences[name]
        del audience.clients[client]
        audience.listed = None
        if not audience.clients:
            del self.audiences[name]
        return True


class PubSub:
    """All subscriptions of the server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.channels = Directory("", "channels")
        self.patterns = Directory("p", "patterns")
        self.shard_channels = Directory("s", "shard_channels")

    # ------------------------------------------------------------ subscribing

    def subscribe(self, client: Client, directory: Directory, names: tuple[bytes, ...]) -> None:
        """Subscribes and answers, once for every name."""
        for name in names:
            directory.add(client, name)
            self._follow(client)
            client.write(Push([f"{directory.word}subscribe".encode(), name, self._count(client, directory)]))

    def unsubscribe(self, client: Client, directory: Directory, names: tuple[bytes, ...]) -> None:
        """The same the other way; without names, from everything of the kind."""
        word = f"{directory.word}unsubscribe".encode()
        leaving = names or tuple(directory.of(client))
        if not leaving:
            client.write(Push([word, None, self._count(client, directory)]))
        for name in leaving:
            directory.remove(client, name)
            self._follow(client)
            client.write(Push([word, name, self._count(client, directory)]))

    def forget(self, client: Client) -> None:
        """The connection ended, or begins anew."""
        for directory in (self.channels, self.patterns, self.shard_channels):
            for name in list(directory.of(client)):
                directory.remove(client, name)
        self._follow(client)

    def _count(self, client: Client, directory: Directory) -> int:
        if directory is self.shard_channels:
            return len(client.shard_channels)
        return len(client.channels) + len(client.patterns)

    def _follow(self, client: Client) -> None:
        """The gate and the class of output limits go by whether it is subscribed to anything."""
        subscribed = bool(client.channels or client.patterns or client.shard_channels)
        if client.closed or subscribed == bool(client.gate & GATE_SUBSCRIBED):
            return
        client.gate ^= GATE_SUBSCRIBED
        client.kind = "pubsub" if subscribed else "normal"
        self.server.limit_output(client)

    # ------------------------------------------------------------ publishing

    def publish(self, channel: bytes, message: bytes) -> int:
        """How many got it, by channel and by pattern."""
        count = 0
        audience = self.channels.audiences.get(channel)
        if audience is not None:
            count = self._send(audience, (b"message", channel, message))
        if self.patterns.audiences:
            for pattern, listeners in list(self.patterns.audiences.items()):
                if glob_match(pattern, channel):
                    count += self._send(listeners, (b"pmessage", pattern, channel, message))
        return count

    def publish_to_shard(self, channel: bytes, message: bytes) -> int:
        """SPUBLISH."""
        audience = self.shard_channels.audiences.get(channel)
        return self._send(audience, (b"smessage", channel, message)) if audience is not None else 0

    @staticmethod
    def _send(audience: Audience, words: tuple[bytes, ...]) -> int:
        body = bulk(words)
        receivers = audience.receivers()
        broadcast(receivers, b"*%d\r\n%b" % (len(words), body), b">%d\r\n%b" % (len(words), body))
        return len(receivers)
