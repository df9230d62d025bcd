"""One load for many who want it: a lock per block in the shared server, and a way to wait for whoever has it.

    SET key token NX PX lease       mine, or somebody else's
    release                         WATCH, GET, and if it is still my token MULTI DEL EXEC

The lock is advice: who has it loads the block from a colder tier and puts it here, the others wait for it. Losing it (a
lease that ran out, a failover that forgot it) costs a second load, never a wrong block, so one server's word is enough
and nothing like Redlock is needed. Release compares, so that a late owner does not give away somebody else's; by WATCH
rather than a script, because Lua is not in every server that speaks this protocol, and not always allowed.

When the server cannot be asked, or takes no locks (full, read-only), everybody is told to load: availability before
economy. Who waits is woken by the channel (`stored`, `released`, `gap`) and asks by itself now and then, more rarely
each time, since pub/sub promises nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from zeekdb.tiers.envelope import digest
from zeekdb.tiers.guard import TierFailed
from zeekdb.tiers.tier import Meta, Name
from zeekdb.tiers.warm_channel import Channel, Event
from zeekdb.tiers.warm_client import Command, LinkDown, Refusal, WarmClient, together
from zeekdb.tiers.warm_layout import Keys

LEASE_S: Final = 10.0
TOKEN_BYTES: Final = 8
POLL_S: Final = 0.02  # the first wait of those who ask by themselves; doubled each time, up to the next
POLL_MAX_S: Final = 0.5
RELEASES_AT_ONCE: Final = 4  # connections of the pool that they may take

Ask = Callable[[Sequence[Command]], Awaitable[list[object]]]
Find = Callable[[Sequence[Name]], Awaitable[list[Meta | None]]]


class Locks:
    """One node's. `ask` and `find` raise TierFailed, as the tier's guard does."""

    def __init__(self, client: WarmClient, keys: Keys, channel: Channel, ask: Ask, find: Find) -> None:
        self.client = client
        self.keys = keys
        self.channel = channel
        self.taken = self.waited = 0
        self._ask = ask
        self._find = find
        self._waiting: dict[str, set[asyncio.Event]] = {}
        channel.listeners.append(self._heard)

    @contextlib.asynccontextmanager
    async def loading(self, names: Sequence[Name], lease_s: float = LEASE_S) -> AsyncIterator[list[bool]]:
        """For each name, whether it is the caller's to load and to put until the end of the block."""
        token = os.urandom(TOKEN_BYTES).hex().encode()
        digests = [digest(name) for name in names]
        wanted = list(dict.fromkeys(digests))
        commands: list[Command] = []
        for each in wanted:
            key = self.keys.lock(each)
            commands += [(b"SET", key, token, b"NX", b"PX", b"%d" % (lease_s * 1000)), (b"GET", key)]
        held: list[str] = []
        free = set(wanted)  # to be loaded by the caller; each once
        try:
            replies = await self._ask(commands) if commands else []
        except TierFailed:
            pass
        else:
            owners = dict(zip(wanted, replies[1::2], strict=True))
            held = [each for each, owner in owners.items() if owner == token]
            free = {each for each, owner in owners.items() if owner in (token, None) or isinstance(owner, Refusal)}
        self.taken += len(held)
        mine = []
        for each in digests:
            mine.append(each in free)
            free.discard(each)
        try:
            yield mine
        finally:
            await self._release(held, token)

    async def _release(self, digests: list[str], token: bytes) -> None:
        permits = asyncio.Semaphore(RELEASES_AT_ONCE)

        async def one(each: str) -> None:
            key = self.keys.lock(each)
            # what goes wrong here the lease puts right
            with contextlib.suppress(LinkDown, TimeoutError):
                async with permits, asyncio.timeout(self.client.timeout_s), self.client.session(key) as ask:
                    if (await ask([(b"WATCH", key), (b"GET", key)]))[1] == token:
                        await ask([(b"MULTI",), (b"DEL", key), (b"EXEC",)])
                    else:
                        await ask([(b"UNWATCH",)])

        await together(one(each) for each in digests)
        for each in digests:
            self.wake(each)
        if digests:
            self.channel.announce("released", [(each, 0, None) for each in digests])

    async def wait_for(self, name: Name, timeout_s: float) -> Meta | None:
        """The block, once it is here; None: it took too long, or nobody loads it any more."""
        self.channel.listen()
        self.waited += 1
        each = digest(name)
        woken = asyncio.Event()
        self._waiting.setdefault(each, set()).add(woken)
        loop = asyncio.get_running_loop()
        end, pause_s = loop.time() + timeout_s, POLL_S
        try:
            while True:
                woken.clear()
                try:
                    # in this order: who has let go before the second question was done with it
                    locked = await self._ask([(b"EXISTS", self.keys.lock(each))])
                    (meta,) = await self._find([name])
                except TierFailed:
                    return None
                left_s = end - loop.time()
                if meta is not None or locked[0] != 1 or left_s <= 0:
                    return meta
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(pause_s, left_s)):
                        await woken.wait()
                pause_s = min(pause_s * 2, POLL_MAX_S)
        finally:
            waiting = self._waiting[each]
            waiting.discard(woken)
            if not waiting:
                del self._waiting[each]

    def wake(self, each: str) -> None:
        """Have those who wait here for the block with this digest look again."""
        for woken in self._waiting.get(each, ()):
            woken.set()

    def _heard(self, event: Event) -> None:
        if event.kind in ("stored", "released"):
            self.wake(event.digest)
        elif event.kind == "gap":
            for each in self._waiting:
                self.wake(each)
