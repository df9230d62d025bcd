def used() -> int:
    """Bytes in use: the sum of all footprints, blobs and slot arrays included."""

def idle() -> int:
    """Bytes of slabs kept for the next large value."""

def trim() -> None:
    """What the cron does once a second: slabs idle for long go back to the system, a few at a time."""
