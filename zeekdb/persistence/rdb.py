"""The RDB file: all databases as one image, as redis-server 7.0 loads it; images of servers up to 7.4 are read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from mmap import mmap
from typing import Final, NamedTuple

from zeekdb.hot import rdbload
from zeekdb.hot.crc64 import crc64
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.hot.memory import used as mem_used
from zeekdb.hot.rdb import encode, encode_length, encode_string

MAGIC: Final = b"REDIS0010"
REDIS_VERSION: Final = b"7.2.4"
AUX, EXPIRE_MS, SELECT_DB, SIZES, END = b"\xfa", b"\xfc", b"\xfe", b"\xfb", b"\xff"


def image(databases: list[Database], libraries: bytes = b"", aof_base: bool = False) -> bytes:
    """Everything, made at once: for as long as that takes nothing else happens. `libraries`: records of functions."""
    parts = [head(databases, libraries, aof_base)]
    for db in databases:
        if len(db):
            parts += [SELECT_DB + encode_length(db.index), *records(db)]
    data = b"".join((*parts, END))
    return data + crc64(data).to_bytes(8, "little")


def head(
    databases: list[Database], libraries: bytes, aof_base: bool = False, stream_db: int | None = None
) -> bytes:
    """The file's first bytes; how many keys are to come is said here for every database.

    `stream_db`: the database that the replication stream is in, for a replica whose copy this is.
    """
    of_stream = [] if stream_db is None else [(b"repl-stream-db", b"%d" % stream_db)]
    parts = [MAGIC]
    for name, value in (
        (b"redis-ver", REDIS_VERSION),
        (b"redis-bits", b"64"),
        (b"ctime", b"%d" % time.time()),
        (b"used-mem", b"%d" % mem_used()),
        *of_stream,
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


class Loaded(NamedTuple):
    """What an image held."""

    end: int  # where it ended
    libraries: list[bytes]  # the code of function libraries
    keys: int
    expired: int  # keys that were left out
    stream_db: int  # the database that the replication stream is in; 0 if it was not said


def loader(
    keyspace: Keyspace, data: bytes | memoryview | mmap, replace: bool = True, keep_expired: bool = False
) -> rdbload.Loader:
    """Adds everything in an image to the databases, in slices. DamagedValue if it is none.

    A key that is there already is replaced, or an error. `keep_expired`: what follows the image may still mean keys
    that have expired since.
    """
    return rdbload.Loader(keyspace.databases, data, replace, 0 if keep_expired else keyspace.now_ms())


def loaded(loader: rdbload.Loader) -> Loaded:
    """What a loader that is done has found."""
    return Loaded(loader.at, loader.libraries, loader.keys, loader.expired, loader.stream_db)


def load(
    keyspace: Keyspace, data: bytes | memoryview | mmap, replace: bool = True, keep_expired: bool = False
) -> Loaded:
    """The same at once. DamagedValue says what is wrong; what came before it is there."""
    slices = loader(keyspace, data, replace, keep_expired)
    try:
        slices.step(0)
        return loaded(slices)
    finally:
        slices.close()
