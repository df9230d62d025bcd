from mmap import mmap

class AofWalk:
    """Walks the commands of an append-only file (behind its RDB part, if it has one); offsets are bytes."""

    size: int  # of the data
    at: int  # where it stands, between two commands
    whole: int  # where the last whole command (outside a transaction) or transaction ends
    group: int  # where the last transaction begins
    commands: int
    transactions: int
    annotations: int
    first_s: int  # of the `#TS:` annotations, Unix seconds; -1: none
    last_s: int
    untimed: int  # where the first of them stands: nobody knows when what is before it was written
    open: bool  # inside a transaction
    names: dict[bytes, int]  # how often each command, in capitals
    db_max: int  # the highest database that a SELECT names
    verdict: str  # "" while there may be more; "whole", "torn", "later", or what is wrong at `at`
    def __init__(self, data: bytes | mmap, at: int = 0) -> None: ...
    def run(self, commands_max: int = 0, bytes_max: int = 0, until_s: int = -1) -> int:
        """Goes on; how many commands that were. It ends after about so many commands or bytes (0: no limit), and with
        "later" before an annotation of a time after `until_s`."""
    def close(self) -> None:
        """Lets go of the data."""
