"""Payloads: values that travel on their own. DUMP makes them, RESTORE and MIGRATE take them; FUNCTION DUMP's are alike.

A payload is the value's type and Redis's serialisation of it, two bytes of version and eight of CRC-64 over all that
stands before, both little endian. The checksum guards against accidents only, so the value itself is read with
distrust: see `zeekdb/hot/rdbread.pyx`.

Types that are Python objects have codecs in `types.py`.
"""

from __future__ import annotations

from zeekdb.errors import CommandError
from zeekdb.hot import rdb
from zeekdb.hot.crc64 import crc64
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.hot.rdb import DamagedValue, decode_length, decode_string, dump, encode_length, encode_string
from zeekdb.hot.rdbobjects import register_object

__all__ = [
    "DamagedValue", "checks", "decode_length", "decode_string", "dump", "encode_length", "encode_string", "footer",
    "register_object", "reload", "restore", "verify",
]  # fmt: skip

FOOTER_BYTES = 10


class Checks:
    """What DEBUG SET-SKIP-CHECKSUM-VALIDATION turns, for tests that throw damaged payloads at a server."""

    skip_checksum = False


checks = Checks()


def footer(payload: bytes) -> bytes:
    """The ten bytes that follow a payload."""
    version = rdb.VERSION.to_bytes(2, "little")
    return version + crc64(version, crc64(payload)).to_bytes(8, "little")


def verify(data: bytes) -> bytes:
    """The payload before the footer. CommandError when the version is newer than what is read, or the CRC differs."""
    check(data)
    return data[:-FOOTER_BYTES]


def check(data: bytes) -> None:
    """The same, without a copy."""
    sound = len(data) >= FOOTER_BYTES and int.from_bytes(data[-10:-8], "little") <= rdb.VERSION_MAX
    if sound and not checks.skip_checksum:
        sound = crc64(memoryview(data)[:-8]) == int.from_bytes(data[-8:], "little")
    if not sound:
        raise CommandError("ERR DUMP payload version or checksum are wrong")


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
