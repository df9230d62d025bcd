"""What replicas (and the AOF) are told: every change as a command whose effect is the same anywhere, any time.

While somebody listens `keyspace.effects` is a list. A command that changes something is told in its own words, unless
its handler has said what it comes to (`Context.effect`): an expiry as a moment, a random choice as what was chosen, a
script as what it ran. Keys that expire are told as DEL, in their place. What belongs together — a transaction, a
script, a command of several effects — is told inside MULTI and EXEC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeekdb.commands.spec import Command
    from zeekdb.hot.keyspace import Database
    from zeekdb.server.server import Server

Sink = Callable[[bytes], None]

# What others run inside them is told, not they.
NESTING = frozenset({"EXEC", "EVAL", "EVALSHA", "FCALL", "EVAL_RO", "EVALSHA_RO", "FCALL_RO"})
# Commands that happen upon keys of any kind: the expiries that they find have nothing to do with each other.
WANDERING = frozenset({"SCAN", "RANDOMKEY", "KEYS", "DBSIZE"})


def encode(words: Iterable[bytes]) -> bytes:
    """A command as a client would send it."""
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


class Propagation:
    """Gathers the effects of a command and hands them on at its end."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.keyspace = server.keyspace
        self.sinks: list[Sink] = []
        self.selected = -1  # the database that the sinks see
        self.apart = False  # the effects at hand do not belong together

    # ------------------------------------------------------------ who listens

    def attach(self, sink: Sink) -> None:
        """From now on `sink` gets every change, in encoded commands, beginning with a SELECT."""
        self.flush()
        self.sinks.append(sink)
        self.selected = -1
        if self.keyspace.effects is None:
            self.keyspace.effects = []
            self.keyspace.subscribers.append(self._hear)
            self.server.update_gates()

    def restart(self) -> None:
        """A new listener takes part, whose own database is unknown: the next change begins with a SELECT."""
        self.flush()
        self.selected = -1

    def detach(self, sink: Sink) -> None:
        """Without listeners commands run as if there had never been one."""
        if sink in self.sinks:
            self.sinks.remove(sink)
        if not self.sinks and self.keyspace.effects is not None:
            self.keyspace.effects = None
            self.keyspace.subscribers.remove(self._hear)
            self.server.update_gates()

    def _hear(self, db: Database, key: bytes, event: str) -> None:
        if event == "expired" and self.keyspace.effects is not None:
            self.keyspace.effects.append((db.index, (b"DEL", key)))
            self.keyspace.due = True

    # ------------------------------------------------------------ commands

    def run(self, spec: Command, db_index: int, args: list[bytes], handler: Callable[..., Any], ctx: Any) -> Any:
        """The handler's reply; what it has changed is noted for `flush`."""
        keyspace = self.keyspace
        effects = keyspace.effects
        assert effects is not None
        mark, dirty = len(effects), keyspace.dirty
        keyspace.effects_given = False
        try:
            return handler(ctx, *args[1:])
        finally:
            if keyspace.dirty != dirty and not keyspace.effects_given and spec.name not in NESTING:
                effects.append((db_index, tuple(args)))
            keyspace.effects_given = False
            if len(effects) > mark:
                keyspace.due = True
                self.apart = spec.name in WANDERING

    def flush(self) -> bool:
        """The end of a command, transaction or script: what it came to goes out as one. Whether there was anything."""
        effects = self.keyspace.effects
        if not effects:
            return False
        self.keyspace.effects = []
        together = len(effects) > 1 and not self.apart
        self.apart = False
        out: list[bytes] = []
        for at, (index, words) in enumerate(effects):
            if index != self.selected:
                out.append(encode((b"SELECT", b"%d" % index)))
                self.selected = index
            if together and at == 0:
                out.append(encode((b"MULTI",)))
            out.append(encode(words))
        if together:
            out.append(encode((b"EXEC",)))
        data = b"".join(out)
        for sink in list(self.sinks):
            sink(data)
        return True
