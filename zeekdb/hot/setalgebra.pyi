from collections.abc import Sequence

from zeekdb.hot.sets import Set

def common_members(sets: Sequence[Set]) -> list[bytes]:
    """The members that all of the sets (one at least) have."""

def common_count(sets: Sequence[Set], limit: int = 0) -> int:
    """How many they are; counting ends at the limit, if it is not 0."""

def intersection(sets: Sequence[Set]) -> Set:
    """A set of its own with the members that all of the sets (one at least) have."""

def union(sets: Sequence[Set]) -> Set:
    """A set of its own with the members that any of the sets has."""

def difference(first: Set, others: Sequence[Set]) -> Set:
    """A set of its own with the members of `first` that none of the others has."""
