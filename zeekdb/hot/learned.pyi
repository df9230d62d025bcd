def begin() -> bool:
    """Whether enough was seen to learn from again. If so, it is set aside, and somebody must call `fit`."""

def fit() -> None:
    """Learns from what `begin` has set aside; some ten milliseconds without the GIL, for a thread."""

def stats() -> dict[str, float]:
    """fits; using_model: 1 when the model chooses, 0 when LRU does; hit ratios that both had in the last replays."""
