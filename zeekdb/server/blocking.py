"""Commands that wait for a key: BLPOP and its kin.

A waiter stands in the line of each of its keys. When a key is changed the keyspace leaves a note, and at the end of
the command (or transaction, or script) that changed it the waiters of the key try again, in the order in which they
came; one whose attempt brings a reply is set free. An attempt may itself change keys, whose waiters come next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from zeekdb.errors import CommandError
from zeekdb.hot.journal import Call
from zeekdb.hot.replies import DEFERRED

if TYPE_CHECKING:
    from zeekdb.hot.keyspace import Database
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

Attempt = Callable[[bytes], Any]


class Waiter:
    """A blocked client: what it waits for, and until when."""

    __slots__ = ("attempt", "client", "keys", "otherwise", "timer")

    def __init__(self, client: Client, keys: list[tuple[int, bytes]], attempt: Attempt, otherwise: Any) -> None:
        self.client = client
        self.keys = keys
        self.attempt = attempt
        self.otherwise = otherwise
        self.timer: asyncio.TimerHandle | None = None

    def time_is_up(self) -> Any:
        """The reply of a waiter that got nothing."""
        return self.otherwise() if callable(self.otherwise) else self.otherwise


class Blocking:
    """All blocked clients."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lines: dict[tuple[int, bytes], dict[Waiter, None]] = {}  # of each key, first come first served
        self.waiters: dict[Client, Waiter] = {}
        self.ready: dict[tuple[int, bytes], None] = {}
        self.awaiting: list[Waiter] = []  # replicas' acknowledgements

    def block(
        self, client: Client, keys: Iterable[bytes], attempt: Attempt, timeout_ms: int, otherwise: Any
    ) -> Any:  # fmt: skip
        """See `Context.block`."""
        waiter = Waiter(client, [(client.db_index, key) for key in dict.fromkeys(keys)], attempt, otherwise)
        for place in waiter.keys:
            self.lines.setdefault(place, {})[waiter] = None
            self.server.keyspace.watch_key(place[1])
        self.waiters[client] = waiter
        if timeout_ms:
            self._set_timer(waiter, time.monotonic() + timeout_ms / 1000)
        return DEFERRED

    def await_replicas(
        self, client: Client, attempt: Attempt, timeout_ms: int, otherwise: Callable[[], Any]
    ) -> Any:  # fmt: skip
        """As `block`, until replicas have acknowledged enough; `otherwise` says what counts when time is up."""
        reply = self.block(client, (), attempt, timeout_ms, otherwise)
        self.awaiting.append(self.waiters[client])
        return reply

    def replicas_heard(self) -> None:
        """A replica has acknowledged more."""
        for waiter in self.awaiting[:]:
            if (reply := waiter.attempt(b"")) is not None:
                self._answer(waiter, reply)

    def _set_timer(self, waiter: Waiter, end_s: float) -> None:
        left_s = max(end_s - time.monotonic(), 0.0)
        waiter.timer = self.server.loop.call_later(left_s, self._time_out, waiter, end_s)

    def _time_out(self, waiter: Waiter, end_s: float) -> None:
        if time.monotonic() < end_s or self.server.pause_holds_blocked(waiter.client):
            waiter.timer = self.server.loop.call_later(0.001, self._time_out, waiter, end_s)  # the loop was early
            return
        self._answer(waiter, waiter.time_is_up())
        self.server.settle()

    def _answer(self, waiter: Waiter, reply: Any) -> None:
        self.forget(waiter.client)
        if isinstance(reply, CommandError):
            self.server.dispatcher.count_late_error(waiter.client, reply)
        waiter.client.finish(reply)

    def forget(self, client: Client) -> None:
        """The client does not wait any more."""
        waiter = self.waiters.pop(client, None)
        if waiter is None:
            return
        if waiter.timer is not None:
            waiter.timer.cancel()
        if waiter in self.awaiting:
            self.awaiting.remove(waiter)
        for place in waiter.keys:
            line = self.lines[place]
            del line[waiter]
            if not line:
                del self.lines[place]
            self.server.keyspace.unwatch_key(place[1])

    def unblock(self, client: Client, error: bool) -> bool:
        """CLIENT UNBLOCK; False when the client does not wait."""
        waiter = self.waiters.get(client)
        if waiter is None:
            return False
        self._answer(
            waiter,
            CommandError("UNBLOCKED client unblocked via CLIENT UNBLOCK") if error else waiter.time_is_up(),
        )
        return True

    # ------------------------------------------------------------ what happens to keys

    def touched(self, db: Database, key: bytes) -> None:
        """A key was changed."""
        if (db.index, key) in self.lines:
            self.ready[(db.index, key)] = None

    def database_changes(self, databases: list[Database], swapped: bool) -> None:
        """Before a flush or a swap: afterwards every waiter may find something else."""
        indexes = {db.index for db in databases}
        for place in self.lines:
            if place[0] in indexes:
                self.ready[place] = None
        if self.ready:
            self.server.keyspace.due = True

    def serve(self) -> None:
        """Lets the waiters of changed keys try again. Not while writes are paused."""
        if self.ready:
            self.server.engine.tick()  # a transaction may have taken its time: what is due by now is gone
        while self.ready and not self.server.pause_end_ms:
            place = next(iter(self.ready))
            del self.ready[place]
            for waiter in list(self.lines.get(place, ())):
                if waiter.client in self.waiters:
                    self._try(waiter, place[1])
            self.server.read_notes()

    def _try(self, waiter: Waiter, key: bytes) -> None:
        ctx = waiter.client.ctx
        begin = time.perf_counter()
        ctx.keyspace.touching = not waiter.client.no_touch
        try:
            with Call():
                reply = self.server.dispatcher.late_refusal(waiter.client) or waiter.attempt(key)
        except CommandError as error:
            reply = error
        finally:
            ctx.keyspace.touching = True
        if reply is not None:
            self._answer(waiter, reply)
            self._note_slow(waiter.client, (time.perf_counter() - begin) * 1e6)

    def _note_slow(self, client: Client, us: float) -> None:
        """The part of a command that came after the wait, for the slow log and the latency monitor."""
        if client.last_command_index >= 0 and client.blocked_call:
            spec = self.server.dispatcher.specs[client.last_command_index]
            self.server.note_slow(client, spec, [spec.lower.encode(), *client.blocked_call[1:]], us)
