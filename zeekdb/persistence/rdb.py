"""The RDB file: all databases as one image, as redis-server 7.0 loads it; images of servers up to 7.4 are read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from zeekdb.hot.crc64 import crc64
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.hot.memory import used as mem_used
from zeekdb.hot.rdb import (
    VERSION_MAX,
    DamagedValue,
    decode,
    decode_length,
    decode_string,
    encode,
    encode_length,
    encode_string,
)

MAGIC: Final = b"REDIS0010"
REDIS_VERSION: Final = b"7.2.4"
AUX, EXPIRE_MS, SELECT_DB, SIZES, END = b"\xfa", b"\xfc", b"\xfe", b"\xfb", b"\xff"
EXPIRE_S, IDLE, FREQUENCY, FUNCTION = b"\xfd", b"\xf8", b"\xf9", b"\xf5"
CHECKED_SINCE: Final = 5  # the version that brought the checksum


def image(databases: list[Database], libraries: bytes = b"", aof_base: bool = False) -> bytes:
    """Everything, made at once: for as long as that takes nothing else happens. `libraries`: records of functions."""
    parts = [head(databases, libraries, aof_base)]
    for db in databases:
        if len(db):
            parts += [SELECT_DB + encode_length(db.index), *records(db)]
    data = b"".join((*parts, END))
    return data + crc64(data).to_bytes(8, "little")


def head(databases: list[Database], libraries: bytes, aof_base: bool = False) -> bytes:
    """The file's first bytes; how many keys are to come is said here for every database."""
    parts = [MAGIC]
    for name, value in (
        (b"redis-ver", REDIS_VERSION),
        (b"redis-bits", b"64"),
        (b"ctime", b"%d" % time.time()),
        (b"used-mem", b"%d" % mem_used()),
        (b"aof-base", b"%d" % aof_base),
    ):
        parts.append(AUX + encode_string(name) + encode_string(value))
    parts.append(libraries)
    for db in databases:
        if len(db):
            parts.append(SELECT_DB + encode_length(db.index))
            parts.append(SIZES + encode_length(len(db)) + encode_length(db.volatile_count()))
    return b"".join(parts)


def records(db: Database) -> Iterator[bytes]:
    """One for each key: its deadline where it has one, its type, its name, its value."""
    for key in db.keys(None):
        value = encode(db, key)
        if value is None:
            continue
        deadline_ms = db.deadline(key)
        expiry = EXPIRE_MS + deadline_ms.to_bytes(8, "little") if deadline_ms > 0 else b""
        yield b"".join((expiry, value[:1], encode_string(key), value[1:]))


# --- reading ------------------------------------------------------------------------------------------------------


def load(keyspace: Keyspace, data: bytes, replace: bool = True) -> list[bytes]:
    """Adds everything in an image to the databases; the code of the function libraries in it.

    Keys that have expired are left out; one that is there already is replaced, or an error. DamagedValue says what is
    wrong; what came before it is there.
    """
    version = check(data)
    libraries: list[bytes] = []
    db = keyspace.databases[0]
    at, deadline_ms, now_ms = len(MAGIC), 0, keyspace.now_ms()
    while True:
        kind = data[at : at + 1]
        if kind in (END, b""):
            if not kind:
                raise DamagedValue(f"the image of version {version} has no end")
            return libraries
        if kind == AUX:
            _, at = decode_string(data, at + 1)
            _, at = decode_string(data, at)
        elif kind == SELECT_DB:
            index, at = decode_length(data, at + 1)
            if index >= len(keyspace.databases):
                raise DamagedValue(f"it has a database {index}, there are {len(keyspace.databases)} here")
            db = keyspace.databases[index]
        elif kind == SIZES:
            _, at = decode_length(data, at + 1)
            _, at = decode_length(data, at)
        elif kind == EXPIRE_MS:
            deadline_ms, at = int.from_bytes(data[at + 1 : at + 9], "little"), at + 9
        elif kind == EXPIRE_S:
            deadline_ms, at = int.from_bytes(data[at + 1 : at + 5], "little") * 1000, at + 5
        elif kind == IDLE:
            _, at = decode_length(data, at + 1)
        elif kind == FREQUENCY:
            at += 2
        elif kind == FUNCTION:
            code, at = decode_string(data, at + 1)
            libraries.append(code)
        else:
            at = _load_key(db, data, at, deadline_ms, now_ms, replace)
            deadline_ms = 0


def _load_key(db: Database, data: bytes, at: int, deadline_ms: int, now_ms: int, replace: bool) -> int:
    """One key: its type, its name, its value. Where it ends."""
    key, end_of_key = decode_string(data, at + 1)
    if not replace and db.exists(key):
        raise DamagedValue(f"the key {key!r} is there already")
    end = decode(db, key, data, end_of_key, deadline_ms=deadline_ms, type=data[at])
    if deadline_ms and deadline_ms <= now_ms:
        db.remove(key)
    return end


def check(data: bytes) -> int:
    """The image's version. DamagedValue when it is none, too new, or its checksum differs."""
    head = data[: len(MAGIC)]
    if not head.startswith(MAGIC[:5]) or not head[5:].isdigit() or len(data) < len(MAGIC) + 1:
        raise DamagedValue("no RDB image")
    version = int(head[5:])
    if not 1 <= version <= VERSION_MAX:
        raise DamagedValue(f"RDB version {version}; this release reads up to {VERSION_MAX}")
    if version >= CHECKED_SINCE:
        wanted = int.from_bytes(data[-8:], "little")
        if wanted and wanted != crc64(memoryview(data)[:-8]):
            raise DamagedValue("the checksum differs")
    return version
