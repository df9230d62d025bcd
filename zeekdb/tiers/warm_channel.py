"""What nodes tell each other about blocks: a pub/sub channel of the server that they share.

    message   msgpack: version, sender (8 bytes), kind, [[digest, checksum, model, salt, key] …]

A receiver acts on `removed` and `replaced` by forgetting what it holds under that name with another checksum; `stored`
and `released` (its loader is done, or gave up) wake those who wait for a block. Names of more than NAME_MAX bytes are
left out, the digest is always there. Messages of other versions, of strangers and damaged ones are counted and ignored.

Pub/sub promises nothing: what is said while a connection is down is lost. So whoever may have missed something is told
`gap`, and has to distrust what it knows of others: a receiver after its connection was lost or its queue ran over, all
receivers when a sender had to drop what it wanted to say. A connection over which nothing comes, not even the answer
to a PING, counts as lost after two times PING_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgpack

from zeekdb.tiers.envelope import DIGEST_BYTES
from zeekdb.tiers.guard import Guard, TierFailed
from zeekdb.tiers.tier import Name
from zeekdb.tiers.warm_client import LinkDown, Refusal, WarmClient, discard

log = logging.getLogger("zeekdb")

VERSION: Final = 1
KINDS: Final = ("stored", "removed", "replaced", "released", "gap")  # their numbers in a message
SENDER_BYTES: Final = 8
NAME_MAX: Final = 1024  # bytes of a name that is said in full
ENTRIES_MAX: Final = 128  # of a message
MESSAGE_MAX: Final = 512 << 10  # bytes that are looked at
OUTBOX_MAX: Final = 8192  # entries that wait to be sent
INBOX_MAX: Final = 8192  # and to be handed over
HANDED_AT_ONCE: Final = 64  # before others have their turn
PING_S: Final = 1.0
BACKOFF_S: Final = 0.05  # the longest wait before connecting again; doubled each time, up to the next
BACKOFF_MAX_S: Final = 2.0


class Event(NamedTuple):
    """What another node did."""

    kind: str  # one of KINDS; gap: unknown things happened
    sender: str  # 16 hex digits; of a gap that was noticed here, none
    digest: str = ""
    checksum: int = 0  # 64 bits: of what is there now (stored, replaced) or was (removed)
    name: Name | None = None  # where it was short enough to be said


Listener = Callable[[Event], None]


def encode(sender: bytes, kind: str, events: Iterable[Event]) -> bytes:
    """A message."""
    entries = []
    for event in events:
        parts = event.name if event.name is not None and sum(map(len, event.name)) <= NAME_MAX else ()
        entries.append([bytes.fromhex(event.digest), event.checksum, *parts])
    packed: bytes = msgpack.packb([VERSION, sender, KINDS.index(kind), entries])
    return packed


def decode(data: bytes) -> tuple[bytes, list[Event]]:
    """(sender, what it says). ValueError: it is not one of ours."""
    if len(data) > MESSAGE_MAX:
        raise ValueError("a message of that size is none of ours")
    try:
        version, sender, number, entries = msgpack.unpackb(data)
        if version != VERSION or not isinstance(sender, bytes) or len(sender) != SENDER_BYTES:
            raise ValueError("a message of another version")
        if type(number) is not int or not 0 <= number < len(KINDS) or len(entries) > ENTRIES_MAX:
            raise ValueError("a message of an unknown kind")
        kind, who = KINDS[number], sender.hex()
        if kind == "gap":
            return sender, [Event(kind, who)]
        return sender, [_event(kind, who, *entry) for entry in entries]
    except ValueError:
        raise
    except Exception as error:  # whatever msgpack and foreign shapes come to
        raise ValueError(f"a damaged message: {type(error).__name__}") from None


def _event(kind: str, sender: str, digest: bytes, checksum: int, *parts: bytes) -> Event:
    sound = isinstance(digest, bytes) and len(digest) == DIGEST_BYTES and type(checksum) is int
    if not sound or not 0 <= checksum < 1 << 64 or not all(isinstance(part, bytes) for part in parts):
        raise ValueError("a damaged entry")
    return Event(kind, sender, digest.hex(), checksum, Name(*parts) if parts else None)


class Channel:
    """One node's end. Nothing here raises or waits for the server but `close`."""

    def __init__(self, client: WarmClient, guard: Guard, topic: bytes) -> None:
        self.client = client
        self.guard = guard
        self.topic = topic
        self.sender = os.urandom(SENDER_BYTES)
        self.sent = self.received = self.ignored = self.lost = self.gaps = 0
        self.is_connected = False
        self.listeners: list[Listener] = []
        self._outbox: deque[Event] = deque()
        self._inbox: deque[Event] = deque()
        self._is_owing_gap = False  # others have to hear that something was not said
        self._wake_out, self._wake_in = asyncio.Event(), asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    def announce(self, kind: str, entries: Iterable[tuple[str, int, Name | None]]) -> None:
        """Tell the other nodes: (digest, checksum, name) of each block."""
        sender = self.sender.hex()
        for digest, checksum, name in entries:
            event = Event(kind, sender, digest, checksum, name)
            if len(self._outbox) >= OUTBOX_MAX:
                self.lost += 1
                self._is_owing_gap = True
            else:
                self._outbox.append(event)
        self._wake_out.set()
        self._run("out", self._send)

    def listen(self, listener: Listener | None = None) -> None:
        """Subscribe, now and until `close`; the listener is called on the loop and must be quick."""
        if listener is not None:
            self.listeners.append(listener)
        self._run("reader", self._subscribe)
        self._run("in", self._dispatch)

    async def close(self) -> None:
        """Ends both directions; what was announced is sent if the server takes it now."""
        self._is_closed = True
        if self._outbox and self.guard.state == "closed":
            await self._send_some()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def figures(self) -> dict[str, int | str]:
        """For TierStats.more."""
        return {
            "messages_sent": self.sent, "messages_received": self.received, "messages_ignored": self.ignored,
            "messages_lost": self.lost, "gaps": self.gaps, "subscribed": int(self.is_connected),
        }  # fmt: skip

    def _run(self, name: str, work: Callable[[], Any]) -> None:
        if name not in self._tasks and not self._is_closed:
            self._tasks[name] = asyncio.get_running_loop().create_task(work(), name=f"zeekdb-warm-{name}")

    # ---- out ---------------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            await self._wake_out.wait()
            self._wake_out.clear()
            while self._outbox or self._is_owing_gap:
                if not await self._send_some():
                    await asyncio.sleep(PING_S * random.uniform(0.5, 1))  # others ask the guard often enough

    async def _send_some(self) -> bool:
        """One message; False: it was dropped."""
        events: list[Event] = []
        kind = "gap"
        if not self._is_owing_gap:
            kind = self._outbox[0].kind
            while self._outbox and self._outbox[0].kind == kind and len(events) < ENTRIES_MAX:
                events.append(self._outbox.popleft())
        message = encode(self.sender, kind, events)
        try:
            (reply,) = await self.guard.call(lambda: self.client.ask([(b"PUBLISH", self.topic, message)]))
        except TierFailed:
            self.lost += len(events) + len(self._outbox)
            self._outbox.clear()
            self._is_owing_gap = True
            return False
        if isinstance(reply, Refusal):  # no permission, say: it would be refused again
            self.lost += max(len(events), 1)
        else:
            self.sent += 1
        if kind == "gap":
            self._is_owing_gap = False
        return True

    # ---- in ----------------------------------------------------------------------------------------------------------

    def _receive(self, message: Any) -> None:
        """What the connection brought."""
        if not isinstance(message, list) or len(message) != 3 or message[0] != b"message":
            return
        try:
            sender, events = decode(message[2])
        except ValueError:
            self.ignored += 1
            return
        if sender == self.sender:
            return
        self.received += 1
        if len(self._inbox) + len(events) > INBOX_MAX:
            self._inbox.clear()
            self._gap()
        else:
            self._inbox.extend(events)
            self._wake_in.set()

    def _gap(self) -> None:
        self.gaps += 1
        self._inbox.append(Event("gap", ""))
        self._wake_in.set()

    async def _dispatch(self) -> None:
        while True:
            await self._wake_in.wait()
            self._wake_in.clear()
            while self._inbox:
                for _ in range(min(len(self._inbox), HANDED_AT_ONCE)):
                    self._hand_over(self._inbox.popleft())
                await asyncio.sleep(0)

    def _hand_over(self, event: Event) -> None:
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                log.exception("A listener to the warm tier's channel")

    async def _subscribe(self) -> None:
        """For ever: connect, subscribe, read; a lost connection is a gap."""
        wait_s = BACKOFF_S
        was_connected = False
        while True:
            try:
                async with asyncio.timeout(2 * self.client.timeout_s):
                    connection = await self.client.subscriber()
                try:
                    async with asyncio.timeout(self.client.timeout_s):
                        await connection.send_command("SUBSCRIBE", self.topic)
                        await connection.read_response(disable_decoding=True, push_request=True)
                    if was_connected:
                        self._gap()
                    was_connected = self.is_connected = True
                    wait_s = BACKOFF_S
                    await self._read(connection)
                finally:
                    await discard(connection)
            except (LinkDown, TimeoutError, *self.client.driver.failures, self.client.driver.errors.ResponseError):
                pass
            if self.is_connected:
                self.is_connected = False
                self._gap()
            await asyncio.sleep(random.uniform(wait_s / 2, wait_s))
            wait_s = min(wait_s * 2, BACKOFF_MAX_S)

    async def _read(self, connection: Any) -> None:
        """Until nothing comes any more."""
        is_asked = False
        reading: asyncio.Future[Any] | None = None
        try:
            while True:
                if reading is None:
                    reading = asyncio.ensure_future(connection.read_response(disable_decoding=True, push_request=True))
                done, _ = await asyncio.wait([reading], timeout=PING_S)
                if done:
                    message, reading, is_asked = reading.result(), None, False
                    self._receive(message)
                elif is_asked:
                    return
                else:
                    is_asked = True
                    await connection.send_command("PING", check_health=False)
        finally:
            if reading is not None:
                reading.cancel()
                with contextlib.suppress(BaseException):
                    await reading
