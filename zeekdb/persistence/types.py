"""How values, or parts of them, that are Python objects are written and read.

A vector set is a record of a module named `zeek-vset`, with one string that `types/vector_dump.py` describes. Redis's
tools step over such records; Redis 8's own records of vector sets (`vectorset`) are another format and are not read.
"""

from __future__ import annotations

from zeekdb.hot.rdbobjects import register_object
from zeekdb.hot.rdbstreams import use_groups
from zeekdb.types.stream_groups import Group
from zeekdb.types.vectorset import VectorSet

VECTOR_SETS = "zeek-vset"
VECTOR_SETS_VERSION = 0  # of the record; the string has a version of its own


def read_vector_set(data: bytes, version: int) -> VectorSet:
    """ValueError when it is none."""
    if version != VECTOR_SETS_VERSION:
        raise ValueError(f"a vector set of version {version}")
    return VectorSet.from_bytes(data)


use_groups(Group)
register_object(VectorSet.type_name, VECTOR_SETS, VECTOR_SETS_VERSION, VectorSet.to_bytes, read_vector_set)
