"""Which plain keys the tensor region serves (`kv-namespace`)."""

def set_namespaces(patterns: list[tuple[bytes, int]]) -> None:
    """Keys that match a glob belong to that space, the first match decides. ValueError beyond PATTERNS_MAX."""

def space_of(key: bytes) -> int | None:
    """The space that a plain key's block is in; None: the keyspace has the key."""
