"""Twins of plain keys that the tensor region serves."""

def set_exists_lease(ms: int) -> None:
    """How long a block stays at least once EXISTS has promised it; 0: it promises nothing."""
