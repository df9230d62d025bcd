from collections.abc import Sequence

def empty() -> bytes:
    """A sketch that has seen nothing."""

def is_valid(value: bytes) -> bool:
    """Whether a string looks like a sketch; the runs of a sparse one are checked when they are used."""

def is_sparse(value: bytes) -> bool:
    """Of a valid sketch."""

def cached_count(value: bytes) -> int | None:
    """The count that a valid sketch's header holds; None when it is out of date."""

def add(value: bytes, elements: Sequence[bytes], sparse_bytes_max: int) -> tuple[bytes, int]:
    """The sketch after the elements, and how many registers they raised: -1 when it turned out to be corrupt."""

def count(values: Sequence[bytes]) -> int:
    """How many different elements valid sketches have seen together. CommandError when one is corrupt."""

def merge(target: bytes, sources: Sequence[bytes], sparse_bytes_max: int) -> bytes:
    """The target with all that the sources have seen; dense when one of them is. CommandError when one is corrupt."""

def to_dense(value: bytes) -> bytes:
    """The same sketch, dense. CommandError when it is corrupt."""

def registers(value: bytes) -> list[int]:
    """The 16384 registers. CommandError when the sketch is corrupt."""

def decode(value: bytes) -> bytes:
    """The runs of a sparse sketch: `z:3` and `Z:300` for zeros in one byte and two, `v:2,3` for three of 2."""

def selftest(cycles: int, elements: int) -> str | None:
    """Registers against plain bytes, estimates against the truth; the error message, None when all is well."""
