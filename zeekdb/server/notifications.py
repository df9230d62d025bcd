"""Keyspace notifications: events of the journal as messages on `__keyspace@0__:key` and `__keyevent@0__:event`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zeekdb.hot.keyspace import Database
    from zeekdb.server.server import Server

# The events of each class, by the class's letter in `notify-keyspace-events`; whatever is not named is a module's.
CLASSES: Final = {
    "$": "set setrange append incrby incrbyfloat setbit pfadd pfmerge",
    "g": "del rename_from rename_to move_from move_to copy_to restore expire persist",
    "l": "lpush rpush lpop rpop linsert lset lrem ltrim sortstore",
    "s": "sadd srem spop sinterstore sunionstore sdiffstore",
    "h": "hset hincrby hincrbyfloat hdel hexpire hexpired hpersist",
    "z": "zadd zincr zrem zremrangebyscore zremrangebyrank zremrangebylex zpopmin zpopmax zunionstore zinterstore "
         "zdiffstore zrangestore geosearchstore georadiusstore",
    "t": "xadd xtrim xdel xsetid xgroup-create xgroup-setid xgroup-destroy xgroup-createconsumer xgroup-delconsumer "
         "xclaim xautoclaim xreadgroup xack",
    "x": "expired",
    "e": "evicted",
    "n": "new",
    "m": "keymiss",
}  # fmt: skip
CLASS_OF: Final = {event: letter for letter, events in CLASSES.items() for event in events.split()}
SILENT: Final = frozenset({"pfcount", "pfdebug"})  # they touch the string, and Redis says nothing
ALL: Final = "g$lshzxetd"  # what `A` stands for


class Notifications:
    """Told of every change while the directive asks for any."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.classes: frozenset[str] = frozenset()
        self.to_keyspace = self.to_keyevent = False

    def configure(self) -> None:
        """The directive `notify-keyspace-events` has another value."""
        flags = self.server.config.notify_keyspace_events
        keyspace = self.server.keyspace
        self.classes = frozenset(flags.replace("A", ALL)) - {"K", "E"}
        self.to_keyspace, self.to_keyevent = "K" in flags, "E" in flags
        active = bool(self.classes) and (self.to_keyspace or self.to_keyevent)
        if active != (self.tell in keyspace.subscribers):
            if active:
                keyspace.subscribers.append(self.tell)
            else:
                keyspace.subscribers.remove(self.tell)
        keyspace.on_miss = self._missed if active and "m" in self.classes else None
        keyspace.on_new = self._created if active and "n" in self.classes else None
        self.server.update_gates()

    def tell(self, db: Database, key: bytes, event: str) -> None:
        """One event."""
        if CLASS_OF.get(event, "d") not in self.classes or event in SILENT:
            return
        word = event.encode()
        publish = self.server.pubsub.publish
        if self.to_keyspace:
            publish(b"__keyspace@%d__:%b" % (db.index, key), word)
        if self.to_keyevent:
            publish(b"__keyevent@%d__:%b" % (db.index, word), key)

    def _missed(self, db: Database, key: bytes) -> None:
        self.tell(db, key, "keymiss")

    def _created(self, db: Database, key: bytes) -> None:
        self.tell(db, key, "new")
