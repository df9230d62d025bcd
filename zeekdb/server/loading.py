"""Loading, at start and when a full copy has arrived: in slices, between which clients hear that it is under way."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zeekdb.server.server import Server

SLICE_US = 8000  # of the loop at a time; whoever asks meanwhile is refused, and need not be quick about it


class Slices(Protocol):
    """What loads in steps."""

    at: int  # bytes read

    def step(self, budget_us: int) -> bool:
        """Goes on for about so long; True when that was all."""


class Loading:
    """Whether the server loads, and how far it is. While it does, commands without the flag `loading` are refused."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.active = False
        self.begin_s = 0.0
        self.total = 0  # bytes
        self.before = 0  # of files that are loaded
        self.current = 0  # of the one under way

    def begin(self) -> None:
        """Whoever asks from now on is refused."""
        self.active = True
        self.begin_s = time.time()
        self.expect(0)
        self.server.update_gates()

    def expect(self, total: int) -> None:
        """So many bytes will be loaded."""
        self.total, self.before, self.current = total, 0, 0

    def end(self) -> None:
        """However it went."""
        self.active = False
        self.server.update_gates()

    async def run(self, slices: Slices) -> None:
        """All of it, then the next file may come. What `step` raises."""
        begin_at = slices.at
        try:
            while not slices.step(SLICE_US):
                self.current = slices.at - begin_at
                await asyncio.sleep(0)
        finally:
            self.before += slices.at - begin_at
            self.current = 0

    def fields(self) -> list[tuple[str, object]]:
        """For INFO persistence."""
        if not self.active:
            return []
        loaded = min(self.before + self.current, self.total)
        spent_s = time.time() - self.begin_s
        eta_s = int(spent_s * (self.total - loaded) / loaded) if loaded else 1
        return [
            ("loading_start_time", int(self.begin_s)),
            ("loading_total_bytes", self.total),
            ("loading_rdb_used_mem", 0),
            ("loading_loaded_bytes", loaded),
            ("loading_loaded_perc", f"{100 * loaded / max(self.total, 1):.2f}"),
            ("loading_eta_seconds", eta_s),
        ]
