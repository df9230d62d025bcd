from collections.abc import Callable
from typing import TypeVar

V = TypeVar("V")

def register_object(
    type_name: str, module: str, version: int, encode: Callable[[V], bytes], decode: Callable[[bytes, int], V]
) -> None:
    """How objects of a `type_name` are kept in files: as a record of a module, whose name has nine characters of
    A-Z a-z 0-9 - _, with a version from 0 to 1023. `decode(data, version)` raises ValueError for damaged data."""
