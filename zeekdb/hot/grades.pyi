"""Graded LRU: the region's policy of eviction."""

def state() -> dict[str, list[float] | int]:
    """lives and shares of the evictions by grade, blocks stored so far (`clock`), evictions."""

def forget() -> None:
    """As at the start: for tests."""
