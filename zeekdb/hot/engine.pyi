from collections.abc import Callable
from typing import Any, Final

from zeekdb.errors import CommandError
from zeekdb.hot.keyspace import Database, Keyspace

# Bits of the gate words; connections and the engine share the numbering.
GATE_AUTH: Final[int]
GATE_REPLY: Final[int]
GATE_SUBSCRIBED: Final[int]
GATE_MULTI: Final[int]
GATE_NO_TOUCH: Final[int]
GATE_TRACKING: Final[int]
GATE_ACL: Final[int]
GATE_PAUSED: Final[int]
GATE_LOADING: Final[int]
GATE_READONLY: Final[int]
GATE_OOM: Final[int]
GATE_MONITOR: Final[int]
GATE_SLOWLOG: Final[int]
GATE_JOURNAL: Final[int]
GATE_LATENCY: Final[int]

class Deferred:
    """Returned by a handler whose reply comes later through `Connection.resume`."""

class NoReply:
    """Returned by a handler that has written its replies itself, or owes none."""

DEFERRED: Final[Deferred]
NO_REPLY: Final[NoReply]

class Engine:
    """All client sockets, parsing and execution. One per process, driven by the event loop through `fileno`."""

    gate: int
    on_gate: Callable[[Any, int, list[bytes]], Any]
    on_unknown: Callable[[Any, list[bytes]], Any]
    on_error: Callable[[Any, int, CommandError], None]
    on_bug: Callable[[Any, int, BaseException], None]
    on_close: Callable[[Any], None]
    on_output_limit: Callable[[Any], None]
    on_slow: Callable[[Any, int, list[bytes], float], None]
    keyspace: Keyspace
    total_commands: int
    total_in: int
    total_out: int
    reads: int
    writes: int
    query_limit: int
    bulk_limit: int
    error_replies: int
    ticks_per_us: float
    slow_us: float
    @property
    def in_turn(self) -> bool: ...
    def __init__(self, keyspace: Keyspace) -> None: ...
    def fileno(self) -> int:
        """The descriptor to watch: readable when a turn has something to do."""
    def register(
        self,
        name: str,
        arity: int,
        flags: int,
        keys: tuple[int, int, int],
        handler: Callable[..., Any],
        twin: str,
        callable: bool = True,
    ) -> int:
        """Makes a command known; `keys` is (first, last, step) or (0, 0, 0). Its index."""
    def use_twins(self, wanted: bool, twin_of: dict[str, str]) -> None:
        """Tests: run hot commands by their twins, or by their Python handlers."""
    def command_stats(self, index: int) -> tuple[int, float, int, int, list[int]]:
        """Calls, microseconds, rejected, failed, and calls by log2 of their ticks."""
    def count_call(self, index: int, us: float, failed: bool = False, rejected: bool = False) -> None: ...
    def count_outcome(self, index: int, failed: bool, rejected: bool) -> None: ...
    def reset_stats(self) -> None: ...
    def turn(self) -> None:
        """Serves the ready connections for at most TURN_US."""
    def tick(self) -> None:
        """Sets the keyspace's clock outside a turn."""
    def settle(self) -> None:
        """Outside a turn: sends what timers and other tasks have written to connections."""

class Connection:
    """One client socket; the server's Client derives from it."""

    ctx: Any
    gate: int
    protocol: int
    output_limit: int
    last_command_index: int
    def attach(self, engine: Engine, fd: int) -> None: ...
    def use_database(self, database: Database) -> None: ...
    def write(self, reply: object) -> None:
        """Sends a reply or push beside the ordinary ones; errors are CommandError objects."""
    def write_raw(self, data: bytes) -> None: ...
    def block(self) -> None:
        """No further command runs until `resume`."""
    def resume(self, reply: object) -> None: ...
    def close(self) -> None: ...
    def close_after_reply(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def closing(self) -> bool: ...
    @property
    def blocked(self) -> bool: ...
    @property
    def fd(self) -> int: ...
    @property
    def query_bytes(self) -> int: ...
    @property
    def query_capacity(self) -> int: ...
    @property
    def output_bytes(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def net_in(self) -> int: ...
    @property
    def net_out(self) -> int: ...
    @property
    def commands(self) -> int: ...
    @property
    def seen_ms(self) -> int: ...
