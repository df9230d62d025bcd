def used() -> int:
    """Bytes in use: the sum of all footprints, blobs and slot arrays included."""

def charge(delta: int) -> None:
    """More bytes, or fewer, that others have taken from the system and that count all the same."""

def resident() -> int:
    """Bytes that the process takes for them: gaps in pages, and what is kept for later, are counted too."""

def moved() -> int:
    """Blocks that compaction has moved so far."""

def idle() -> int:
    """Bytes of slabs kept for the next large value."""

def trim() -> None:
    """What the cron does once a second: slabs idle for long go back to the system, a few at a time."""
