from mmap import mmap

from zeekdb.hot.keyspace import Database

def load(
    databases: list[Database], data: bytes | memoryview | mmap, replace: bool, now_ms: int
) -> tuple[int, list[bytes], int, int]:
    """Adds everything in an image to the databases. Where it ends, function libraries' code, keys added, keys left out
    because they expired before `now_ms`.

    A key that is there already is replaced, or an error. DamagedValue says what is wrong and where; what came before
    is there.
    """
