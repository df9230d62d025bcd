"""Hashes with deadlines in Redis's serialisation: what is written comes back, and what Redis 7.4 writes is read."""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator

import pytest

from zeekdb.hot import hashes
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.hot.rdb import DamagedValue, decode, encode, encode_length, encode_string, round_trip
from zeekdb.types import Hash

NOW_MS = 1_700_000_000_000
EARLY, EARLY_PACK, TIMED, TIMED_PACK = b"\x16", b"\x17", b"\x18", b"\x19"
ROWS = [(b"a", b"1", NOW_MS + 500), (b"b", b"2", 0), (b"c", b"x" * 300, NOW_MS + 7), (b"d", b"", NOW_MS + 9)]


@pytest.fixture(params=[128, 0], ids=["packed", "large"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    hashes.set_limits(entries=request.param)
    keyspace = Keyspace(1, 4)
    keyspace.set_clock(NOW_MS)
    yield keyspace.databases[0]
    hashes.set_limits(entries=128)
    while keyspace.run_lazyfree(1000):  # what waits to be freed is the process's
        pass


def make(db: Database, rows: list[tuple[bytes, bytes, int]]) -> Hash:
    door = db.create(b"h", Hash)
    db.time_fields(b"h")
    for field, value, when in rows:
        door.put(field, value)
        door.set_deadline(field, when)
    return door


def rows(db: Database, key: bytes = b"h") -> list[tuple[bytes, bytes, int]]:
    found: Hash = db.peek(key)
    assert found.faults() == 0
    return sorted(found.items_with_deadlines())


def test_there_and_back(db: Database) -> None:
    make(db, ROWS)
    data = encode(db, b"h")
    assert data is not None
    assert data[:1] == TIMED
    assert data[1:9] == struct.pack("<q", NOW_MS + 7)
    assert data[9:10] == encode_length(4)
    assert encode_length(500 - 7 + 1) + encode_string(b"a") + encode_string(b"1") in data
    assert b"\0" + encode_string(b"b") + encode_string(b"2") in data
    assert decode(db, b"copy", data, whole=True) == len(data)
    assert rows(db, b"copy") == ROWS
    assert db.timed_count() == 2
    assert round_trip(db, b"h")
    assert rows(db) == ROWS
    assert (db.timed_count(), db.faults()) == (2, 0)


def test_without_deadlines_it_is_an_ordinary_hash(db: Database) -> None:
    make(db, [(b"a", b"1", 0)])
    data = encode(db, b"h")
    assert data is not None
    assert data[:1] in (b"\x04", b"\x10")


def test_what_is_due_is_not_written(db: Database) -> None:
    make(db, ROWS)
    db.keyspace.set_clock(NOW_MS + 8)
    decode(db, b"copy", encode(db, b"h") or b"")
    assert rows(db, b"copy") == [row for row in ROWS if row[0] != b"c"]
    make_many = [(b"%d" % n, b"v", NOW_MS + 20) for n in range(500)]
    db.remove(b"h")
    make(db, make_many)
    db.keyspace.set_clock(NOW_MS + 20)
    assert encode(db, b"h") is None


def test_what_is_due_on_arrival_goes_at_once(db: Database) -> None:
    make(db, ROWS)
    data = encode(db, b"h") or b""
    db.remove(b"h")
    db.keyspace.set_clock(NOW_MS + 500)
    decode(db, b"h", data)
    assert rows(db) == [(b"b", b"2", 0)]


def listpack(*items: bytes | int) -> bytes:
    """A listpack of short strings and integers."""
    out = b""
    for item in items:
        if isinstance(item, int):
            entry = b"\xf4" + struct.pack("<q", item)
        else:
            entry = bytes([0x80 | len(item)]) + item
        out += entry + bytes([len(entry)])
    return struct.pack("<IH", len(out) + 7, len(items)) + out + b"\xff"


@pytest.mark.parametrize("kind", [EARLY_PACK, TIMED_PACK])
def test_packed_by_redis(db: Database, kind: bytes) -> None:
    pack = listpack(b"c", b"3", NOW_MS + 7, b"a", b"1", NOW_MS + 500, b"b", b"2", 0)
    head = b"" if kind == EARLY_PACK else struct.pack("<q", NOW_MS + 7)
    decode(db, b"h", kind + head + encode_string(pack), whole=True)
    assert rows(db) == [(b"a", b"1", NOW_MS + 500), (b"b", b"2", 0), (b"c", b"3", NOW_MS + 7)]


def test_of_a_release_candidate(db: Database) -> None:
    pairs = [(NOW_MS + 5, b"a", b"1"), (0, b"b", b"2")]
    body = b"".join(encode_length(when) + encode_string(f) + encode_string(v) for when, f, v in pairs)
    decode(db, b"h", EARLY + encode_length(2) + body, whole=True)
    assert rows(db) == [(b"a", b"1", NOW_MS + 5), (b"b", b"2", 0)]


def entry(when: int, field: bytes, value: bytes) -> bytes:
    return encode_length(when) + encode_string(field) + encode_string(value)


HEAD = struct.pack("<q", NOW_MS)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (TIMED + HEAD + encode_length(0), "nothing"),
        (TIMED + HEAD[:7], "ends"),
        (TIMED + HEAD + encode_length(100) + entry(1, b"a", b"1"), "more elements"),
        (TIMED + HEAD + encode_length(2) + entry(1, b"a", b"1") * 2, "twice"),
        (TIMED + HEAD + encode_length(1) + entry(1 << 48, b"a", b"1"), "too late"),
        (TIMED + HEAD + encode_length(1) + entry((1 << 48) - 1, b"a", b"1"), "too late"),
        (TIMED + struct.pack("<q", -1) + encode_length(1) + entry(2, b"a", b"1"), "too late"),
        (EARLY + encode_length(1) + entry(1 << 63, b"a", b"1"), "too late"),
        (TIMED_PACK + HEAD + encode_string(listpack()), "nothing"),
        (TIMED_PACK + HEAD + encode_string(listpack(b"a", b"1")), "deadline"),
        (TIMED_PACK + HEAD + encode_string(listpack(b"a", b"1", b"soon")), "none"),
        (TIMED_PACK + HEAD + encode_string(listpack(b"a", b"1", -1)), "none"),
        (TIMED_PACK + HEAD + encode_string(listpack(b"a", b"1", 1 << 48)), "too late"),
        (TIMED_PACK + HEAD + encode_string(listpack(b"a", b"1", 0, b"a", b"2", 0)), "twice"),
        (EARLY_PACK + encode_string(listpack(b"a", b"1", 0)) + b"more", "more follows"),
    ],
)
def test_damage_is_found(db: Database, data: bytes, why: str) -> None:
    gc.collect()
    before = db.keyspace.memory_used()
    with pytest.raises(DamagedValue, match=why):
        decode(db, b"h", data, whole=True)
    assert db.peek(b"h") is None
    assert db.keyspace.memory_used() <= before  # others' garbage may go meanwhile
    assert db.faults() == 0
