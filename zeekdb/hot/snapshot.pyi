from zeekdb.hot.filewriter import FileWriter
from zeekdb.hot.keyspace import Database

class Snapshot:
    """All databases as they are when this is made. One at a time: RuntimeError."""

    done: bool
    given_up: bool  # what was written of it shows nothing
    total: int  # keys when it began
    def __init__(self, databases: list[Database], compress: bool, recency: bool, commands: bool = False) -> None:
        """`recency`: idle times, or frequencies, are written too. `commands`: what makes the keys again is written,
        as in an append-only file, not records of an RDB file."""
    def step(self, budget_us: int) -> bool:
        """Goes on for so long (0: to the end); True when it is through."""
    def give_up(self) -> None:
        """Nothing is written any more, unless it is done; `step` still has to be called until it is."""
    @property
    def seen(self) -> int:
        """Keys dealt with so far."""
    @property
    def size(self) -> int:
        """Bytes that wait to be taken."""
    def give(self, file: FileWriter) -> bool:
        """Hands what waits over to be written; False while the file still writes. OSError."""
    def take(self) -> bytes:
        """The records, or commands, written since the last time."""
