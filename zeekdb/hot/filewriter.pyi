class FileWriter:
    """A file that a thread writes, without the GIL, and behind threads that serve clients where processors are few."""

    crc: int  # CRC-64 of what was written
    def __init__(self, fd: int, checksums: bool, sync_every: int, paces: bool = False) -> None:
        """`sync_every`: bytes after which what was written is synced, so that the last sync is a short one. `paces`: in
        short bursts, so that nobody waits long for a processor.
        """
    @property
    def busy(self) -> bool:
        """Whether it still writes. OSError when that failed."""
    def put(self, data: bytes) -> None:
        """Writes; returns when it is written. OSError."""
    def close(self) -> None:
        """The thread ends when the piece is written, and nothing more can be. The descriptor stays open."""
