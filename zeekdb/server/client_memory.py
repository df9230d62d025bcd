"""What clients cost: `maxmemory-clients`, and what counts in used_memory although Python or Lua has taken it.

The engine sums up what connections hold, as it changes. Above the limit it closes those that hold most, at the end of a
turn. Replicas are limited by `client-output-buffer-limit` alone, and CLIENT NO-EVICT exempts a connection.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from zeekdb.commands.connection import client_line
from zeekdb.hot import memory
from zeekdb.observe.log import notice

if TYPE_CHECKING:
    from zeekdb.server.server import Server


class ClientMemory:
    """The server's clients, as bytes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.scripts = 0  # bytes of Lua's that are counted
        server.engine.on_evict = self._evict

    def configure(self) -> None:
        """`maxmemory-clients`, and `maxmemory`, which it may be a share of."""
        server = self.server
        limit = server.config.maxmemory_clients
        server.engine.client_limit = server.config.maxmemory * -limit // 100 if limit < 0 else limit
        if server.engine.client_limit:
            server.engine.settle()

    def _evict(self, client: Any) -> None:
        """The engine is about to close it."""
        notice("Evicting client: %s", client_line(client, time.time()))
        self.server.stats.evicted_clients += 1

    def tick(self) -> None:
        """What Lua has taken since the last time, or given back."""
        now = self.server.runner.eval_lua.memory_used + self.server.runner.function_lua.memory_used
        memory.charge(now - self.scripts)
        self.scripts = now

    @property
    def normal(self) -> int:
        """Bytes of all clients that are no replicas."""
        evictable, kept, _ = self.server.engine.client_bytes
        return evictable + kept

    @property
    def replicas(self) -> int:
        """Bytes of replicas' connections, and of what waits behind the images that they get."""
        waiting = sum(client.stream_bytes for client in self.server.primary.replicas)
        return self.server.engine.client_bytes[2] + waiting
