from typing_extensions import Buffer

def checksum(data: Buffer) -> int:
    """The 64-bit checksum of blocks, the same in every process and release (checksum.pyx defines it); no GIL is held.

    ValueError or BufferError when the bytes do not lie in one piece.
    """

class Sum:
    """The same over pieces, cut anywhere."""

    def update(self, data: Buffer) -> None:
        """The next piece. ValueError or BufferError when its bytes do not lie in one piece."""
    def value(self) -> int:
        """The checksum of what came so far; more may come."""
