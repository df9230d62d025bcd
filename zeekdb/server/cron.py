"""What happens by the clock: expiry, freeing, resizing, idle clients, output limits, samples.

Every job has a budget in time, so that a turn of the cron never holds the loop for long. While there is a backlog
(keys that are due, values to free) the cron comes back after BUSY_S instead of a tenth of a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from zeekdb.hot import compaction, eviction, learned

if TYPE_CHECKING:
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

BUSY_S = 0.004
EXPIRY_BUDGET_US = 1000
FREE_BUDGET_US = 1000
RESIZE_BUDGET_US = 500
COMPACT_BUDGET_US = 200
CLIENTS_PER_TURN = 256  # connections looked at for timeouts and soft limits


class Cron:
    """The server's timer."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop
        self.handle: asyncio.Handle | None = None
        self.client_queue: list[Client] = []
        self.next_sample_s = 0.0

    def start(self) -> None:
        """The first turn comes as soon as the loop runs: what it does may begin tasks."""
        self.handle = self.loop.call_soon(self._turn)

    def stop(self) -> None:
        """No further turn."""
        if self.handle is not None:
            self.handle.cancel()

    def _turn(self) -> None:
        busy = False
        try:
            busy = self._work()
        except Exception:
            log.exception("the cron failed; it goes on")
        self.handle = self.loop.call_later(BUSY_S if busy else 1 / self.server.config.hz, self._turn)

    def _work(self) -> bool:
        server = self.server
        keyspace = server.keyspace
        server.engine.tick()
        server.stats.eventloop_cycles += 1
        busy = False
        if not server.cron_paused and not server.loading:
            begin = time.perf_counter()
            keyspace.run_expiry(EXPIRY_BUDGET_US)
            if (time.perf_counter() - begin) * 1e6 >= EXPIRY_BUDGET_US:
                server.stats.keys_expired_per_cycle_max_reached += 1
                busy = True
        if keyspace.run_lazyfree(FREE_BUDGET_US):
            busy = True
        if keyspace.run_resize(RESIZE_BUDGET_US):
            busy = True
        if compaction.work(COMPACT_BUDGET_US):
            busy = True
        now_s = time.time()
        if now_s >= self.next_sample_s:
            self.next_sample_s = now_s + 0.1
            server.sample()
            server.client_memory.tick()
        if server.config.maxmemory and not server.loading:
            eviction.make_room()
            server.update_gates()
            if server.config.maxmemory_policy.endswith("learned") and learned.begin():
                server.loop.run_in_executor(None, learned.fit)
        server.tensors.tick()
        self._look_at_clients(now_s)
        server.primary.tick()
        if not server.loading:
            server.appendonly.tick()
            server.saving.tick()
        server.settle()
        return busy

    def _look_at_clients(self, now_s: float) -> None:
        """Idle timeouts and soft output limits, a slice of the connections each turn."""
        if not self.client_queue:
            self.client_queue = list(self.server.client_table.values())
        timeout_s = self.server.config.timeout
        for _ in range(min(CLIENTS_PER_TURN, len(self.client_queue))):
            client = self.client_queue.pop()
            if client.closed:
                continue
            may_idle = client.kind != "normal" or client.blocked or client.is_monitor
            if timeout_s and not may_idle and now_s - client.last_interaction_s > timeout_s:
                log.debug("Closing idle client")
                client.close()
                continue
            self.server.check_output(client, now_s)
