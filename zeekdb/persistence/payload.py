"""Payloads: values that travel on their own. DUMP makes them, RESTORE and MIGRATE take them; FUNCTION DUMP's are alike.

A payload is the value's type and Redis's serialisation of it, two bytes of version and eight of CRC-64 over all that
stands before, both little endian. The checksum guards against accidents only, so the value itself is read with
distrust: see `zeekdb/hot/rdbread.pyx`.

Types that are Python objects have codecs in `types.py`.
"""

from __future__ import annotations

from zeekdb.errors import CommandError
from zeekdb.hot import rdb
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.hot.rdb import DamagedValue, check, dump, footer, verify

__all__ = ["DamagedValue", "dump", "footer", "reload", "restore", "verify"]

FOOTER_BYTES = 10


def restore(db: Database, key: bytes, data: bytes, deadline_ms: int = 0, string_max: int = 1 << 32) -> None:
    """Stores the value of a payload, over whatever the key holds. CommandError, and nothing is changed, when it is
    none, or a string of it is longer than `string_max` bytes."""
    check(data)
    try:
        rdb.decode(db, key, data, 0, len(data) - FOOTER_BYTES, True, deadline_ms, string_max)
    except DamagedValue:
        raise CommandError("ERR Bad data format") from None


def reload(keyspace: Keyspace, compress: bool = True) -> None:
    """Sends every value of every database through its serialisation; deadlines and the LRU or LFU fields stay."""
    for db in keyspace.databases:
        for key in db.keys(None):
            rdb.round_trip(db, key, compress)
