"""What a command sees of the server: one door for reads, one for writes, one for changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from zeekdb.errors import WrongType
from zeekdb.hot.journal import tell

if TYPE_CHECKING:
    from zeekdb.commands.spec import Command
    from zeekdb.hot.keyspace import Database, Keyspace

V = TypeVar("V")


class Context:
    """A connection's view of the keyspace. `client` and `server` are typed in server/; commands of the data types
    touch neither."""

    __slots__ = ("client", "db", "deny_blocking", "in_script", "keyspace", "server")

    def __init__(self, keyspace: Keyspace, db: Database, client: Any, server: Any) -> None:
        self.keyspace = keyspace
        self.db = db
        self.client = client
        self.server = server
        self.deny_blocking = False  # inside EXEC or a script nothing waits
        self.in_script = False

    def read(self, key: bytes, kind: type[V]) -> V | None:
        """The value of `key` for reading (`bytes` for strings, `Hash`, `List` …), None when absent. WrongType."""
        value = self.db.read(key)
        if value is None or isinstance(value, kind):
            return value
        raise WrongType

    def peek(self, key: bytes, kind: type[V]) -> V | None:
        """As `read`, on behalf of a command that writes: counts no hit or miss."""
        value = self.db.peek(key)
        if value is None or isinstance(value, kind):
            return value
        raise WrongType

    def write(self, key: bytes, kind: type[V]) -> V:
        """The collection at `key` for writing, created empty when absent. WrongType.

        The door stays valid until the key is removed. Whoever empties a collection calls `remove_if_empty`; whoever
        may leave a new one empty creates it only once there is something to put in.
        """
        value = self.db.peek(key)
        if value is None:
            return self.db.create(key, kind)
        if isinstance(value, kind):
            return value
        raise WrongType

    def changed(self, key: bytes, event: str, count: int = 1) -> None:
        """Report a change of `key`. AOF, replicas, WATCH, tracking and notifications hang on this (the journal).

        `count` is what INFO's rdb_changes_since_last_save grows by: elements, for some commands; 0 for a further event
        of a change that was counted.
        """
        self.keyspace.changed(self.db, key, event)
        if count != 1:
            self.keyspace.dirty += count - 1

    def effect(self, *words: bytes) -> None:
        """Tell replicas and the AOF this command instead of the one that runs; without words, nothing.

        For what would not come to the same elsewhere or later: relative times, random choices, waiting.
        """
        tell(self.db.index, words)

    def reads_every_key(self, spec: Command, words: tuple[bytes, ...]) -> bool:
        """Whether the caller may read keys that the words of this call do not name, name included."""
        reads: bool = self.server.acl.reads_every_key(self.client, spec, words)
        return reads

    def seen(self, key: bytes) -> bool:
        """Whether the key is there: a hit or a miss, but no use that would make the key look younger."""
        if self.db.exists(key):
            self.keyspace.hits += 1
            return True
        self.keyspace.misses += 1
        if self.keyspace.on_miss is not None:
            self.keyspace.on_miss(self.db, key)
        return False

    def remove(self, key: bytes, event: str = "del") -> bool:
        """Delete the key and report it; False when it was absent."""
        if self.db.remove(key):
            self.keyspace.changed(self.db, key, event)
            return True
        return False

    def remove_if_empty(self, key: bytes, collection: Any) -> None:
        """Delete the key of a collection that holds nothing any more, as Redis does."""
        if not len(collection) and self.db.remove(key):
            self.changed(key, "del", 0)  # counted by whatever emptied it

    def block(self, keys: Iterable[bytes], attempt: Callable[[bytes], Any], timeout_ms: int, otherwise: Any) -> Any:
        """Wait for one of `keys`: what a handler returns that has found nothing.

        `attempt(key)` is called whenever a key was changed, at the end of the command, transaction or script that
        changed it; what it returns is the reply, None keeps waiting, a CommandError is answered. After `timeout_ms`
        (0: never), and at once inside EXEC or a script, the reply is `otherwise`.
        """
        if self.deny_blocking:
            return otherwise
        return self.server.blocking.block(self.client, keys, attempt, timeout_ms, otherwise)
