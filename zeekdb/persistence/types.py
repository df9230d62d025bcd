"""How values, or parts of them, that are Python objects are written and read.

A vector set is a record of a module named `zeek-vset`, with one string that `types/vector_dump.py` describes. Redis's
tools step over such records; Redis 8's own records of vector sets (`vectorset`) are another format and are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeekdb.hot.rdbobjects import register_object
from zeekdb.hot.rdbstreams import use_groups
from zeekdb.types.stream_groups import Group

if TYPE_CHECKING:
    from zeekdb.types.vectorset import VectorSet

VECTOR_SETS = "zeek-vset"
VECTOR_SETS_VERSION = 1  # of the record; the string has a version of its own


def vector_set_class() -> type[VectorSet]:
    """The structure, with which numpy and usearch are imported. ImportError: its text says what is missing."""
    try:
        from zeekdb.types.vectorset import VectorSet
    except ImportError as error:
        missing = (error.name or "one of them").partition(".")[0]
        raise ImportError(
            f"vector sets need the Python packages numpy and usearch, and {missing} is not installed", name=error.name
        ) from None
    return VectorSet


def write_vector_set(vectors: VectorSet) -> bytes:
    """The record's string."""
    return vectors.to_bytes()


def read_vector_set(data: bytes, version: int) -> VectorSet:
    """What `write_vector_set` wrote. ValueError when it is none."""
    if version != VECTOR_SETS_VERSION:
        raise ValueError(f"a vector set of version {version}")
    return vector_set_class().from_bytes(data)


use_groups(Group)
register_object("vectorset", VECTOR_SETS, VECTOR_SETS_VERSION, write_vector_set, read_vector_set)
