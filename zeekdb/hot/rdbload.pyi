from mmap import mmap

from zeekdb.hot.keyspace import Database

class Loader:
    """Adds everything in an image to the databases.

    A key that is there already is replaced, or an error; one that has expired before `now_ms` is left out. DamagedValue
    says what is wrong and where; what came before is there.
    """

    at: int  # bytes read; when all is loaded, where the image ends
    libraries: list[bytes]  # the code of function libraries
    keys: int  # added
    expired: int  # left out
    stream_db: int  # the database that the replication stream is in; 0 if it was not said

    def __init__(
        self, databases: list[Database], data: bytes | memoryview | mmap, replace: bool, now_ms: int
    ) -> None: ...
    def step(self, budget_us: int) -> bool:
        """Loads for about so long, 0 without an end; True when that was all. DamagedValue."""

    def close(self) -> None:
        """Lets go of the data."""
