from collections.abc import Iterator

def set_limits(*, size: int) -> None:
    """list-max-listpack-size: a count, or -1 to -5 for 4 to 64 KiB."""

class List:
    """The door over a list of the keyspace; valid until the key is removed."""

    encoding: str
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def push(self, value: bytes, head: bool) -> None: ...
    def pop(self, head: bool) -> bytes | None: ...
    def index(self, i: int) -> bytes | None: ...
    def range(self, start: int, stop: int) -> list[bytes]:
        """As LRANGE counts: both ends included, negative from the tail."""
    def set(self, i: int, value: bytes) -> bool:
        """False when there is no element i."""
    def insert(self, pivot: bytes, value: bytes, before: bool) -> bool:
        """False when the pivot is absent."""
    def remove(self, value: bytes, count: int) -> int:
        """LREM: how many were removed."""
    def trim(self, start: int, stop: int) -> int:
        """LTRIM: how many were removed."""
    def positions(self, value: bytes, rank: int = 1, count: int = 1, most: int = 0) -> list[int]:
        """LPOS: places from the rank-th match on (negative rank: from the tail), `count` at most (0: all)."""
