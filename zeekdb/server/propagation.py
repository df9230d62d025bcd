"""Who listens to the journal (`hot/journal.pyx`): replicas through the primary, and the append-only file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from zeekdb.hot import journal

if TYPE_CHECKING:
    from zeekdb.server.server import Server

Sink = Callable[[bytes], None]


def encode(words: Iterable[bytes]) -> bytes:
    """A command as a client would send it."""
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


class Propagation:
    """Opens the journal while somebody listens and hands it on, a turn's worth at a time."""

    def __init__(self, server: Server) -> None:
        self.engine = server.engine
        self.sinks: list[Sink] = []

    def attach(self, sink: Sink) -> None:
        """From now on `sink` gets every change, in encoded commands, beginning with a SELECT."""
        self.restart()
        self.sinks.append(sink)
        self.update()

    def detach(self, sink: Sink) -> None:
        """It gets nothing more."""
        self.engine.drain()
        if sink in self.sinks:
            self.sinks.remove(sink)
        self.update()

    def restart(self) -> None:
        """A new listener takes part, whose own database is unknown: the next change begins with a SELECT."""
        self.engine.drain()
        journal.forget_database()

    def update(self) -> None:
        """Without listeners commands run as if there had never been one."""
        self.engine.on_journal = self._hand_on if self.sinks else None
        wanted = bool(self.sinks or self.engine.log is not None)
        if wanted != journal.is_open():
            journal.set_open(wanted)

    def _hand_on(self, data: bytes) -> None:
        for sink in list(self.sinks):
            sink(data)
