def used() -> int:
    """Bytes in use: the sum of all footprints, blobs included."""

def idle() -> int:
    """Bytes of slabs kept for the next large value."""

def trim() -> None:
    """Give one idle slab back to the system."""
