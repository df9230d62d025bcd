from __future__ import annotations

from collections.abc import Sequence

class Set:
    """A set of the keyspace. The door owns nothing: it is good until its key is removed.

    `Set()` is a set of its own, empty, for results on their way to a key: fill it, create the key, `swap`.
    """

    def __init__(self) -> None: ...
    @property
    def encoding(self) -> str:
        """OBJECT ENCODING's word: "intset", "listpack" or "hashtable"."""
    def __len__(self) -> int: ...
    def __contains__(self, member: bytes) -> bool: ...
    def add(self, member: bytes) -> bool:
        """False when it was there."""
    def add_many(self, members: Sequence[bytes]) -> int:
        """How many were added."""
    def remove(self, member: bytes) -> bool: ...
    def members(self) -> list[bytes]:
        """Integers ascending, small sets in the order of insertion, large ones in any."""
    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """The next cursor (0: through) and members; a small set comes whole."""
    def random(self) -> bytes | None:
        """Any member, each as likely as the other; None when empty."""
    def sample(self, count: int) -> list[bytes]:
        """`count` different members, or all of them."""
    def pop(self) -> bytes | None:
        """Remove any member, each as likely as the other; None when empty."""
    def pop_many(self, count: int) -> list[bytes]:
        """Remove `count` members, or all of them."""
    def swap(self, other: Set) -> None:
        """Exchange the contents of two sets, in O(1)."""

def set_limits(*, intset: int | None = None, entries: int | None = None, value: int | None = None) -> None:
    """set-max-intset-entries, set-max-listpack-entries (members) and set-max-listpack-value (bytes).

    Present sets stay as they are.
    """
