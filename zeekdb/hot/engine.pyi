from collections.abc import Callable
from typing import Any

from zeekdb.errors import CommandError
from zeekdb.hot.aoflog import AofLog
from zeekdb.hot.keyspace import Keyspace
from zeekdb.hot.sockets import Sockets

class Engine(Sockets):
    """All client sockets, parsing and execution. One per process, driven by the event loop through `fileno`."""

    gate: int
    on_gate: Callable[[Any, int, list[bytes]], Any]
    on_unknown: Callable[[Any, list[bytes]], Any]
    on_error: Callable[[Any, int, CommandError], None]
    on_bug: Callable[[Any, int, BaseException], None]
    on_exec: Callable[[Any, bool], None]
    on_due: Callable[[Any], None]
    on_journal: Callable[[bytes], None] | None
    log: AofLog | None
    on_slow: Callable[[Any, int, list[bytes], float], None]
    keyspace: Keyspace
    total_commands: int
    total_in: int
    reads: int
    query_limit: int
    bulk_limit: int
    error_replies: int
    slow_us: float
    @property
    def in_turn(self) -> bool: ...
    def __init__(self, keyspace: Keyspace) -> None: ...
    def reset_stats(self) -> None: ...
    def turn(self) -> None:
        """Serves the ready connections for at most TURN_US."""
    def drain(self) -> None:
        """Hands on what the journal says; not while a call is under way."""
    def busy_turn(self, running: Any) -> None:
        """From within a command that takes too long: serves the other connections behind `gate`."""
    def tick(self) -> None:
        """Sets the keyspace's clock outside a turn."""
    def settle(self) -> None:
        """Outside a turn: sends what timers and other tasks have written to connections."""
