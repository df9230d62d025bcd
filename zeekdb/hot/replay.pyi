from mmap import mmap

from zeekdb.hot.connection import Connection
from zeekdb.hot.engine import Engine

def replay(engine: Engine, owner: Connection, data: bytes | mmap, at: int) -> tuple[int, str]:
    """Runs what an append-only file holds from `at` on, on behalf of a connection without a socket, and closes it.

    Where the last whole command (or transaction) ends, and "whole", "torn" or what is wrong there.
    """
