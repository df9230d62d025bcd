def compress(data: bytes) -> bytes | None:
    """The LZF stream of `data`; None when it would not be shorter."""

def decompress(data: bytes, size: int) -> bytes:
    """The `size` bytes that an LZF stream stands for. ValueError when it is damaged or makes another number."""
