"""Popular blocks come into memory at the start, before anybody asks for them.

The catalogue says which are asked for most (`popular_entries`). They are read from shared tiers the same way a prefetch
is, in the order of their popularity, until `kv-warming` ms are over, `kv-warming-bytes` have come, or memory is full:
nothing is evicted for a guess. Clients are served meanwhile. INFO tells how far it is, and the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from zeekdb.hot import arena, region
from zeekdb.tiers.tier import Meta

if TYPE_CHECKING:
    from zeekdb.server.tensors import Tensors

log = logging.getLogger("zeekdb")

LIST_MAX: Final = 10_000  # blocks
BATCH: Final = 64
FULL_PERCENT: Final = 90  # of the arena: beyond, what comes would push others out
LIST_TRIES_S: Final = 0.25  # between questions to a catalogue that does not answer yet

Popular = Callable[[int], Awaitable[Sequence[tuple[Meta, int]]]]


class Warming:
    """One start's."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.state = "off"  # off, running, done, stopped
        self.reason = ""  # why it ended
        self.wanted = self.blocks = self.bytes = 0
        self._task: asyncio.Task[None] | None = None

    def start(self, popular: Popular, most_ms: int, most_bytes: int) -> None:
        """Begins; nobody waits for it."""
        self.state = "running"
        self._task = asyncio.get_running_loop().create_task(self._run(popular, most_ms / 1000, most_bytes))

    async def stop(self) -> None:
        """The server ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def figures(self) -> dict[str, int | str]:
        """For INFO."""
        return {
            "state": self.state, "reason": self.reason, "wanted": self.wanted, "blocks": self.blocks,
            "bytes": self.bytes,
        }  # fmt: skip

    async def _run(self, popular: Popular, most_s: float, most_bytes: int) -> None:
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(most_s):
                self.reason = await self._warm(popular, most_bytes)
        except TimeoutError:
            self.reason = "time"
        except asyncio.CancelledError:
            self.state = "stopped"
            raise
        except Exception:
            log.exception("Warming")
            self.reason = "error"
        self.state = "done"
        log.info(
            "Warmed: %d of %d popular blocks, %d MiB in %.1f s (%s)", self.blocks, self.wanted, self.bytes >> 20,
            asyncio.get_running_loop().time() - began, self.reason,
        )  # fmt: skip

    async def _warm(self, popular: Popular, most_bytes: int) -> str:
        while True:
            is_up = self.tensors.is_catalogue_up()  # asked first: what it says when it is up counts
            listed = await popular(LIST_MAX)
            if listed or is_up:
                break
            await asyncio.sleep(LIST_TRIES_S)
        self.wanted = len(listed)
        for at in range(0, len(listed), BATCH):
            batch = listed[at : at + BATCH]
            if self._is_full(sum(meta.size for meta, _ in batch)):
                return "memory"
            for meta, bits in batch:
                if self.bytes + meta.size > most_bytes:
                    return "bytes"
                if await self._bring(meta, bits):
                    self.blocks += 1
                    self.bytes += meta.size
            log.debug("Warming: %d of %d blocks", at + len(batch), self.wanted)
        return "all"

    def _is_full(self, more_bytes: int) -> bool:
        used: int = arena.arena_stats()["used"]
        return (used + more_bytes) * 100 > self.tensors.arena_bytes * FULL_PERCENT

    async def _bring(self, meta: Meta, bits: int) -> bool:
        """Whether the block has come into memory."""
        below = self.tensors.below
        below.fleet.adopt(meta, bits)
        tenant = self.tensors.region.tenants.get((meta.model, meta.salt))
        known = region.describe(tenant.space, meta.key) if tenant is not None else None
        if tenant is None or known is None or known["in_host"]:
            return False
        async with below.bringing(tenant, [meta.key]) as coming:
            return coming[0] is not None and await coming[0].view() is not None
