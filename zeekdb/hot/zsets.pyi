from collections.abc import Iterator

def set_limits(*, entries: int, value: int) -> None:
    """zset-max-listpack-entries and zset-max-listpack-value: beyond them the large form begins."""

class ZSet:
    """The door over a sorted set of the keyspace; valid until the key is removed. Order: score, then member bytes."""

    encoding: str
    def __len__(self) -> int: ...
    def __contains__(self, member: bytes) -> bool: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def add(self, member: bytes, score: float, flags: int = 0) -> tuple[int, float]:
        """Flags: NX 1, XX 2, GT 4, LT 8, INCR 16. What happened (added 1, updated 2, refused 4, nan 8, unchanged 0) and
        the score in force."""
    def score(self, member: bytes) -> float | None: ...
    def remove(self, member: bytes) -> bool: ...
    def pop(self, max: bool = False) -> tuple[bytes, float] | None: ...
    def rank(self, member: bytes, reverse: bool = False) -> tuple[int, float] | None: ...
    def range(self, start: int, stop: int, reverse: bool = False) -> list[bytes]:
        """Members of ranks start..stop, both included and inside the set (the caller normalises)."""
    def pairs(self, start: int = 0, stop: int | None = None, reverse: bool = False) -> list[tuple[bytes, float]]: ...
    def count_below_score(self, score: float, with_equal: bool) -> int:
        """How many items have a lower (or equal) score: the rank where a range by score begins or ends. O(log n)."""
    def count_below_member(self, member: bytes, with_equal: bool) -> int:
        """The same by member, where all scores are equal."""
    def remove_ranks(self, start: int, count: int) -> None:
        """Remove count items from rank start on; all of them exist."""
    def scan(self, cursor: int, count: int) -> tuple[int, list[tuple[bytes, float]]]: ...
    def random(self) -> tuple[bytes, float]:
        """One at random; the set is not empty. O(log n)."""
    def check(self) -> None:
        """Tests only: AssertionError when the tree is not in order."""
