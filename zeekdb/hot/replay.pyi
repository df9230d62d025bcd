from mmap import mmap

from zeekdb.hot.connection import Connection
from zeekdb.hot.engine import Engine

class Replay:
    """Runs what an append-only file holds from `at` on, for a connection without a socket and past all gates."""

    at: int  # bytes read
    whole: int  # where the last whole command (or transaction) ends
    verdict: str  # "whole", "torn" or what is wrong there; counts when all is done

    def __init__(self, engine: Engine, owner: Connection, data: bytes | mmap, at: int) -> None: ...
    def step(self, budget_us: int) -> bool:
        """Goes on for about so long, 0 without an end; True when that was all. Between steps time goes on."""

    def close(self) -> None:
        """Closes the connection and lets go of the data."""
