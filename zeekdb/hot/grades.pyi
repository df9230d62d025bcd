"""Graded LRU: the region's policy of eviction."""

def forget() -> None:
    """As at the start: for tests."""
