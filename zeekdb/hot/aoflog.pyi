class AofLog:
    """The file that is appended to. Its thread writes and syncs; positions count the journal's bytes."""

    mode: str  # appendfsync: no, everysec or always
    pause_sync: bool  # no-appendfsync-on-rewrite, while one runs
    timestamps: bool  # aof-timestamp-enabled: `#TS:` lines, one before the first command of each second and file
    def __init__(self, fd: int, mode: str, size: int, position: int) -> None:
        """Takes over the descriptor of a file of `size` bytes; the next byte has that position. OSError."""
    def close(self) -> None:
        """Writes and syncs what there is, as far as the disk lets it, and ends the thread."""
    def switch(self, fd: int) -> None:
        """What comes from now on goes to this file; the one before is completed, synced and closed."""
    def forgive(self) -> None:
        """The files that a failed sync has left in doubt were replaced."""
    def wait_switched(self, timeout_s: float) -> bool:
        """Whether the file before was completed within that time."""
    def wait_synced(self, timeout_s: float) -> bool:
        """Whether all that was appended reached the disk within that time."""
    def fileno(self) -> int:
        """Becomes readable when `synced` or `error` has changed; `answer` makes it quiet again."""
    def answer(self) -> None: ...
    @property
    def error(self) -> int:
        """What fails at the moment, as errno; 0: nothing."""
    @property
    def sync_failed(self) -> bool:
        """Whether a sync has failed: nothing counts as synced until what is in doubt was replaced."""
    @property
    def appended(self) -> int: ...
    @property
    def written(self) -> int: ...
    @property
    def synced(self) -> int: ...
    @property
    def size(self) -> int:
        """Bytes of the current file."""
    @property
    def pending(self) -> int:
        """Bytes not written yet."""
    @property
    def unsynced_s(self) -> float:
        """Age of the oldest byte that is not on the disk; 0: none."""
