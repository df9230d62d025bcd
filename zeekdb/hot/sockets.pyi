"""The connections' half of the engine; see engine.pyi."""

from collections.abc import Callable
from typing import Any

from zeekdb.hot.kinds import CommandTable

class Sockets(CommandTable):
    """All connections in one epoll, and the buffer that their replies are written to."""

    on_close: Callable[[Any], None]
    on_output_limit: Callable[[Any], None]
    client_limit: int  # bytes of all clients that may be evicted; 0: none
    on_evict: Callable[[Any], None]  # before those are closed that hold most
    on_drained: Callable[[Any], None]
    log_fails: bool
    total_out: int
    writes: int
    @property
    def client_bytes(self) -> tuple[int, int, int]:
        """What connections hold: those that may be evicted, those that may not, replicas."""
    def release(self, synced: int) -> None:
        """The journal is on the disk up to there: output that waited for it leaves."""
    def fileno(self) -> int:
        """The descriptor to watch: readable when a turn has something to do."""
