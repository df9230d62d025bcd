"""Large values as Python sees them: bytes that stay where they are."""

class BlobView:
    """A reference to a large value's bytes; `memoryview(view)` reads them in place.

    The bytes stay as long as the view, whatever happens to the block that they belong to. As a handler's reply it is a
    bulk string, sent from where it lies.
    """

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Spans:
    """A reply: one bulk string of several parts of blobs, none of them copied. `parts`: (view, begin, end), bytes."""

    parts: list[tuple[BlobView, int, int]]
    def __init__(self, parts: list[tuple[BlobView, int, int]]) -> None: ...

def new_blob(size: int) -> BlobView:
    """A writable blob outside the arena, its bytes undefined: for a reply that is computed."""
