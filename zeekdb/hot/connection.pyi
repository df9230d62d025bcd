from typing import Any

from zeekdb.hot.engine import Engine
from zeekdb.hot.keyspace import Database

class Connection:
    """One client socket; the server's Client derives from it."""

    ctx: Any
    gate: int
    protocol: int
    output_limit: int
    tell_drained: bool  # once: the engine's `on_drained` is called when the output has left
    last_command_index: int
    def attach(self, engine: Engine, fd: int) -> None: ...
    def use_database(self, database: Database) -> None: ...
    def write(self, reply: object) -> None:
        """Sends a reply or push beside the ordinary ones; errors are CommandError objects."""
    def write_raw(self, data: bytes) -> None: ...
    def block(self) -> None:
        """No further command runs until `resume`."""
    def resume(self, reply: object) -> None: ...
    queue_failed: bool  # some command could not be queued
    watching: bool  # EXEC has to ask about watched keys
    def queue_command(self, index: int, args: list[bytes]) -> None:
        """Keeps a command for EXEC; a queue over the query limit ends the connection."""
    def run_queue(self) -> None:
        """Runs what is queued, and answers it as one array."""
    def queued_calls(self) -> list[tuple[int, list[bytes]]]:
        """Index and words of what is queued, which stays."""
    def drop_queue(self) -> None: ...
    @property
    def queue_length(self) -> int: ...
    @property
    def queue_bytes(self) -> int: ...
    @property
    def queue_flags(self) -> int:
        """The flags of all commands queued, or-ed."""
    def close(self) -> None: ...
    def close_after_reply(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def closing(self) -> bool: ...
    @property
    def wrote_end(self) -> int:
        """Of the journal, behind its last change; 0: it has changed nothing yet."""
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
    extra_bytes: int  # what Python holds for it, a part of `memory_bytes`
    def take_side(self, kept: bool, replica: bool) -> None:
        """Where its memory counts: with what `maxmemory-clients` limits, or with what is kept, or with replicas."""
    @property
    def net_in(self) -> int: ...
    @property
    def net_out(self) -> int: ...
    @property
    def commands(self) -> int: ...
    @property
    def seen_ms(self) -> int: ...
