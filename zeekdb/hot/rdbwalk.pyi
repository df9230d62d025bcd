from collections.abc import Iterator
from mmap import mmap
from typing import Final, NamedTuple

FINE: Final[int]
NOTHING: Final[int]  # a collection without elements, which Redis once wrote and no loader keeps
FOREIGN: Final[int]  # a value of a module that is not here

class Record(NamedTuple):
    """A key as it lies in the file; offsets are bytes from the file's begin."""

    db: int
    key: bytes
    type: int  # the byte that says how the value is serialised
    begin: int  # of the record, what holds for the key alone included
    value: int  # where the value begins, which ends with the record
    end: int
    deadline_ms: int  # Unix; 0: none
    idle_s: int  # -1: not said
    frequency: int  # -1: not said
    state: int  # FINE, NOTHING or FOREIGN

class RdbWalk(Iterator[Record]):
    """The keys of an RDB file, in order. It raises nothing: when the iteration is over, `fault` says what is wrong."""

    version: int
    aux: list[tuple[bytes, bytes]]
    libraries: list[bytes]  # the code of function libraries
    cuts: list[tuple[int, int]]  # where records of nothing begin and end
    sizes: dict[int, tuple[int, int]]  # what is said to come: keys, and keys with a deadline, by database
    foreign: int  # values and other records of modules that are not here
    whole: int  # where the last whole record ends
    end: int  # where the file ends, checksum included; 0 when that was not seen
    checksum: str  # "right", "wrong", "none", "missing"; "" when the end was not seen
    fault: str  # "": none
    torn: bool  # the bytes end too early
    fault_at: int  # where reading stopped
    fault_key: bytes | None  # in whose value
    def __init__(self, data: bytes | mmap) -> None: ...
    def __next__(self) -> Record: ...
    def close(self) -> None:
        """Lets go of the data before the iteration is over."""
