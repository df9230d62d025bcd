"""Values to payloads and back: all types over all their forms, Redis's own bytes, old encodings, and lies."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import packs
from tests.fuzz.payloads import content
from zeekdb.errors import CommandError
from zeekdb.hot import hashes, lzf, rdb, sets, zsets
from zeekdb.hot.crc64 import crc64
from zeekdb.hot.keyspace import Keyspace
from zeekdb.persistence import payload
from zeekdb.types import Hash, List, Set, Stream, ZSet
from zeekdb.types.stream_groups import Group

NOW_MS = 1_700_000_000_000
KEYSPACE = Keyspace(1, 2)
KEYSPACE.set_clock(NOW_MS)
DB = KEYSPACE.databases[0]
NAMES = (b"key:%d" % n for n in itertools.count())

# Where an encoding changes: the integers of listpacks, lengths of strings (6 and 12 bits), lengths behind elements.
EDGES = [0, 127, 128, -1, 4095, 4096, -4096, -4097, 32767, 32768, -32768, 8388607, -8388609, 2**31 - 1, -(2**31) - 1]
LENGTHS = [0, 11, 12, 20, 21, 63, 64, 65, 253, 254, 1023, 1024, 1025, 4095, 4096, 16377, 16378, 16379, 70000]
TEXTS = st.one_of(
    st.binary(max_size=12),
    st.one_of(st.sampled_from(EDGES), st.integers(-(2**63), 2**63 - 1)).map(lambda n: b"%d" % n),
    st.tuples(st.sampled_from(LENGTHS), st.sampled_from([b"x", b"ab", bytes(range(256))])).map(
        lambda drawn: (drawn[1] * (drawn[0] // len(drawn[1]) + 1))[: drawn[0]]
    ),
)
SCORES = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53).map(float)


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    yield
    set_limits()


def set_limits(entries: int = 128, longest: int = 64) -> None:
    hashes.set_limits(entries=entries, value=longest)
    sets.set_limits(intset=512, entries=entries, value=longest)
    zsets.set_limits(entries=entries, value=longest)


def there_and_back(key: bytes, compress: bool) -> None:
    """A payload of the key gives the same value; so does a second one of that."""
    value = content(DB.peek(key))
    data = payload.dump(DB, key, compress)
    assert data is not None
    copy = next(NAMES)
    payload.restore(DB, copy, data, NOW_MS + 1000)
    assert content(DB.peek(copy)) == value
    assert DB.deadline(copy) == NOW_MS + 1000
    assert rdb.round_trip(DB, copy, compress)
    assert content(DB.peek(copy)) == value
    assert DB.deadline(copy) == NOW_MS + 1000
    DB.remove(key)
    DB.remove(copy)
    assert DB.faults() == 0


# --- all types ----------------------------------------------------------------------------------------------------


@given(TEXTS, st.booleans())
def test_strings(text: bytes, compress: bool) -> None:
    DB.set(key := next(NAMES), text)
    there_and_back(key, compress)
    assert payload.decode_string(payload.encode_string(text, compress) + b"more") == (
        text,
        len(payload.encode_string(text, compress)),
    )


@given(st.lists(TEXTS, min_size=1, max_size=60), st.booleans())
def test_lists(items: list[bytes], compress: bool) -> None:
    door = DB.create(key := next(NAMES), List)
    for item in items:
        door.push(item, False)
    there_and_back(key, compress)


@given(st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=40), st.sampled_from([2, 128]), st.booleans())
def test_hashes(fields: dict[bytes, bytes], entries: int, compress: bool) -> None:
    set_limits(entries)
    door = DB.create(key := next(NAMES), Hash)
    for field, value in fields.items():
        door.put(field, value)
    there_and_back(key, compress)


@given(st.sets(TEXTS, min_size=1, max_size=40), st.sampled_from([2, 128]), st.booleans())
def test_sets(members: set[bytes], entries: int, compress: bool) -> None:
    set_limits(entries)
    door = DB.create(key := next(NAMES), Set)
    door.add_many(list(members))
    there_and_back(key, compress)


@given(st.sets(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40))
def test_sets_of_integers(members: set[int]) -> None:
    door = DB.create(key := next(NAMES), Set)
    door.add_many([b"%d" % member for member in members])
    data = rdb.encode(DB, key)
    assert data is not None
    assert data[0] == 11
    there_and_back(key, True)


@given(st.dictionaries(TEXTS, SCORES, min_size=1, max_size=40), st.sampled_from([2, 128]), st.booleans())
def test_sorted_sets(members: dict[bytes, float], entries: int, compress: bool) -> None:
    set_limits(entries)
    door = DB.create(key := next(NAMES), ZSet)
    for member, score in members.items():
        door.add(member, score)
    there_and_back(key, compress)


IDS = st.one_of(st.integers(1, 50), st.integers(1, 2**128 - 1), st.integers(1, 50).map(lambda n: n << 64))
ENTRIES = st.dictionaries(IDS, st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3), max_size=20)


@given(ENTRIES, st.data())
@settings(deadline=None)
def test_streams(entries: dict[int, list[tuple[bytes, bytes]]], data: st.DataObject) -> None:
    stream = DB.create(key := next(NAMES), Stream)
    for number, pairs in sorted(entries.items()):
        stream.append(number, [text for pair in pairs for text in pair])
    for number in data.draw(st.sets(st.sampled_from(sorted(entries))) if entries else st.just(set[int]())):
        stream.remove(number)
        stream.max_deleted_id = max(stream.max_deleted_id, number)
    for name in data.draw(st.sets(TEXTS, max_size=2)):
        group = stream.groups[name] = Group(data.draw(IDS), data.draw(st.sampled_from([-1, 0, 3])))
        for each in data.draw(st.sets(TEXTS, max_size=3)):
            consumer = group.add_consumer(each, NOW_MS, data.draw(st.sampled_from([-1, NOW_MS])))
            for number in data.draw(st.sets(IDS, max_size=5)):
                group.deliver(number, consumer, NOW_MS - 5, data.draw(st.integers(1, 1000)))
    facts = stream.first_id, stream.max_deleted_id, stream.entries_added, stream.last_id
    assert rdb.round_trip(DB, key)
    again: Stream = DB.peek(key)
    assert (again.first_id, again.max_deleted_id, again.entries_added, again.last_id) == facts
    there_and_back(key, True)


def test_what_a_round_trip_of_a_stream_keeps_of_its_readers() -> None:
    stream = DB.create(key := next(NAMES), Stream)
    group = stream.groups[b"g"] = Group(7, 3)
    idle = group.add_consumer(b"idle", NOW_MS)
    group.add_consumer(b"busy", NOW_MS, NOW_MS - 1)
    group.deliver(5, idle, NOW_MS - 9, 4)
    rdb.round_trip(DB, key)
    found: Stream = DB.peek(key)
    group = found.groups[b"g"]
    assert [(c.name, c.seen_ms, c.active_ms) for c in group.sorted_consumers()] == [
        (b"busy", NOW_MS, NOW_MS - 1),
        (b"idle", NOW_MS, -1),
    ]
    assert group.pending.range(0, 9) == [(5, group.consumers[b"idle"].number, NOW_MS - 9, 4)]


class Box:
    """A Python object as a value."""

    type_name = "box"

    def __init__(self, text: bytes) -> None:
        self.text = text

    def copy(self) -> Box:
        return Box(self.text)


def open_box(data: bytes, version: int) -> Box:
    if version != 3 or not data.startswith(b"box:"):
        raise ValueError("no box")
    return Box(data[4:])


def test_objects_by_their_codec() -> None:
    payload.register_object("box", "test-boxs", 3, lambda box: b"box:" + box.text, open_box)
    DB.set_object(key := next(NAMES), Box(b"x" * 500))
    data = payload.dump(DB, key)
    assert data is not None
    assert data[0] == 7
    payload.restore(DB, b"copy", data)
    assert DB.peek(b"copy").text == b"x" * 500
    DB.set_object(key, Box(b""))
    data = (rdb.encode(DB, key) or b"").replace(b"box:", b"bax:")
    with pytest.raises(CommandError, match="ERR Bad data format"):
        payload.restore(DB, b"copy", data + payload.footer(data))


def test_an_object_without_a_codec_says_so() -> None:
    class Stranger:
        type_name = "stranger"

    DB.set_object(key := next(NAMES), Stranger())
    with pytest.raises(ValueError, match="no form in a file"):
        rdb.encode(DB, key)
    DB.remove(key)


# --- Redis's own bytes --------------------------------------------------------------------------------------------

# DUMP of redis-server 7.0.15.
SAMPLES: list[tuple[bytes, Any]] = [
    (b"\x00\xc0\x0a\n\x00n\x9fWE\x0e\xaec\xbb", b"10"),
]


def test_the_checksum_is_redis_s() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64(b"6789", crc64(b"12345")) == crc64(b"123456789")
    for data, value in SAMPLES:
        payload.restore(DB, b"sample", data)
        assert DB.peek(b"sample") == value
        assert payload.dump(DB, b"sample") == data


def test_footers() -> None:
    data = b"anything" + payload.footer(b"anything")
    assert payload.verify(data) == b"anything"
    older = b"anything" + b"\x06\x00"
    assert payload.verify(older + crc64(older).to_bytes(8, "little")) == b"anything"
    newer = b"anything" + b"\x0d\x00"
    for bad in (b"", b"short", data[:-1], data[1:], newer + crc64(newer).to_bytes(8, "little")):
        with pytest.raises(CommandError, match="ERR DUMP payload version or checksum are wrong"):
            payload.verify(bad)
    payload.checks.skip_checksum = True
    try:
        assert payload.verify(data[:-1] + b"!") == b"anything"
    finally:
        payload.checks.skip_checksum = False


@pytest.mark.parametrize("n", [0, 63, 64, 16383, 16384, 2**32 - 1, 2**32, 2**64 - 1])
def test_lengths(n: int) -> None:
    data = payload.encode_length(n)
    assert len(data) == (1 if n < 64 else 2 if n < 16384 else 5 if n < 2**32 else 9)
    assert payload.decode_length(b"xx" + data, 2) == (n, 2 + len(data))


@given(st.binary(max_size=300) | st.lists(st.sampled_from([b"abc", b"xyzw", b"\0"]), max_size=300).map(b"".join))
def test_lzf(data: bytes) -> None:
    packed = lzf.compress(data)
    if packed is not None:
        assert len(packed) < len(data)
        assert lzf.decompress(packed, len(data)) == data


@pytest.mark.parametrize(
    ("stream", "size"),
    [(b"\x05ab", 6), (b"\x20\x00", 3), (b"\x00a\x20\x05", 4), (b"\xe0", 9), (b"\x00a\xe0\x05", 15), (b"\x00a", 5),
     (b"\x00a\xe0\xff\x00", 264), (b"", 1)],
)  # fmt: skip
def test_damaged_lzf(stream: bytes, size: int) -> None:
    with pytest.raises(ValueError, match="LZF"):
        lzf.decompress(stream, size)


@given(st.lists(st.one_of(st.binary(max_size=70), st.sampled_from(LENGTHS).map(bytes)), max_size=20))
def test_packs_are_read(items: list[bytes]) -> None:
    assert rdb.unpack("listpack", packs.listpack(list(items))) == items
    assert rdb.unpack("ziplist", packs.ziplist(items)) == items
    pairs = list(zip(items[::2], items[1::2], strict=False))
    assert rdb.unpack("zipmap", packs.zipmap(pairs, 2)) == [text for pair in pairs for text in pair]
    for kind, data in (("listpack", packs.listpack(list(items))), ("ziplist", packs.ziplist(items))):
        assert rdb.unpack(kind, data[:-1]) is None
        assert rdb.unpack(kind, data + b"\xff") is None


@given(st.lists(st.one_of(st.sampled_from(EDGES), st.integers(-(2**63), 2**63 - 1)), max_size=20))
def test_integers_in_packs(numbers: list[int]) -> None:
    assert rdb.unpack("listpack", packs.listpack(list(numbers))) == [b"%d" % number for number in numbers]
    texts = [b"%d" % abs(number) for number in numbers]
    assert rdb.unpack("ziplist", packs.ziplist(texts)) == texts


# --- encodings that only old versions wrote -----------------------------------------------------------------------


def decoded(data: bytes) -> Any:
    DB.remove(b"d")
    rdb.decode(DB, b"d", data, whole=True)
    return content(DB.peek(b"d"))


def string(text: bytes) -> bytes:
    return payload.encode_string(text)


A, B, ONE = string(b"a"), string(b"b"), b"\x011"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x01\x02" + A + B, [b"a", b"b"]),
        (b"\x0a" + string(packs.ziplist([b"a", b"5000"])), [b"a", b"5000"]),
        (b"\x0e\x02" + string(packs.ziplist([b"a"])) + string(packs.ziplist([b"b"])), [b"a", b"b"]),
        (b"\x12\x03\x02" + string(packs.listpack([b"a"])) + b"\x01" + B + b"\x02" + string(packs.listpack([])),
         [b"a", b"b"]),
        (b"\x14" + string(packs.listpack([b"b", 7])), [b"7", b"b"]),
        (b"\x0b" + string(struct.pack("<IIhh", 2, 2, -5, 3)), [b"-5", b"3"]),
        (b"\x09" + string(packs.zipmap([(b"a", b"1"), (b"b", b"2")], 3)), [(b"a", b"1", 0), (b"b", b"2", 0)]),
        (b"\x0d" + string(packs.ziplist([b"a", b"1"])), [(b"a", b"1", 0)]),
        (b"\x03\x02" + A + ONE + B + b"\xfe", [(b"a", 1.0), (b"b", float("inf"))]),
        (b"\x0c" + string(packs.ziplist([b"a", b"-1.5", b"b", b"2"])), [(b"a", -1.5), (b"b", 2.0)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("entries", [0, 128])
def test_old_encodings(data: bytes, value: Any, entries: int) -> None:
    set_limits(entries)
    assert decoded(data) == value


# --- lies ---------------------------------------------------------------------------------------------------------


def node(*items: bytes | int, key: bytes = bytes(7) + b"\x01" + bytes(8)) -> bytes:
    """A stream of one node, with the counts that a sound one would have."""
    return b"\x0f\x01" + string(key) + string(packs.listpack(list(items)))


TAIL = b"\x01\x05\x00\x00"  # one entry, last id 5-0, no groups
SOUND_NODE = (1, 0, 1, b"f", 0, 2, 0, 0, b"v", 4)


def test_the_stream_that_the_lies_are_made_of_is_sound() -> None:
    assert decoded(node(*SOUND_NODE) + TAIL)[0] == [(1 << 64, [b"f", b"v"])]


LIES: dict[str, bytes] = {
    "nothing": b"",
    "a type that is not known": b"\x63\x00",
    "a module's first kind of record": b"\x06\x00",
    "a record of another module": b"\x07\x81" + bytes(8) + b"\x00",
    "a string cut short": b"\x00\x05abc",
    "a length of 63 bits": b"\x00\x81\x7f\xff\xff\xff\xff\xff\xff\xff",
    "a coded string where a length should be": b"\x02\xc0\x01",
    "a code that is none": b"\x00\xc4",
    "LZF that claims a terabyte": b"\x00\xc3\x05\x81\x00\x00\x01\x00\x00\x00\x00\x00aaaaa",
    "LZF that is damaged": b"\x00\xc3\x03\x06\x20\x00\x00",
    "a billion elements": b"\x01\x80\x3b\x9a\xca\x00" + A,
    "a list of nothing": b"\x01\x00",
    "a list of empty nodes": b"\x12\x01\x02" + string(packs.listpack([])),
    "a node of another kind": b"\x12\x01\x03" + string(packs.listpack([b"a"])),
    "a set of nothing": b"\x02\x00",
    "a member twice": b"\x02\x02" + A + A,
    "a packed member twice": b"\x14" + string(packs.listpack([b"a", b"b", b"a"])),
    "one of many packed members twice": b"\x14" + string(packs.listpack([*(b"%d" % n for n in range(50)), b"x", b"x"])),
    "integers of three bytes": b"\x0b" + string(struct.pack("<II", 3, 1) + b"abc"),
    "fewer integers than said": b"\x0b" + string(struct.pack("<IIh", 2, 2, 1)),
    "more integers than said": b"\x0b" + string(struct.pack("<IIhh", 2, 1, 1, 2)),
    "integers out of order": b"\x0b" + string(struct.pack("<IIhh", 2, 2, 2, 1)),
    "an integer twice": b"\x0b" + string(struct.pack("<IIhh", 2, 2, 2, 2)),
    "no integers": b"\x0b" + string(struct.pack("<II", 2, 0)),
    "integers without a head": b"\x0b" + string(b"\x02"),
    "a hash of nothing": b"\x04\x00",
    "a field twice": b"\x04\x02" + A + B + A + B,
    "a packed field twice": b"\x10" + string(packs.listpack([b"a", b"1", b"a", b"2"])),
    "a field without a value": b"\x10" + string(packs.listpack([b"a"])),
    "a zipmap that ends between field and value": b"\x09" + string(b"\x01\x01a\xff"),
    "a zipmap that counts wrongly": b"\x09" + string(b"\x02\x01a\x01\x001\xff"),
    "a sorted set of nothing": b"\x05\x00",
    "a score that is no number": b"\x05\x01" + A + struct.pack("<d", float("nan")),
    "a score in words": b"\x03\x01" + A + b"\x03abc",
    "a score of the old kind that is no number": b"\x03\x01" + A + b"\xfd",
    "a packed score that is no number": b"\x11" + string(packs.listpack([b"a", b"nan"])),
    "a member twice in a sorted set": b"\x05\x02" + (A + struct.pack("<d", 1.0)) + (A + struct.pack("<d", 2.0)),
    "a packed member twice in a sorted set": b"\x11" + string(packs.listpack([b"a", 1, b"a", 2])),
    "a sorted set out of order": b"\x11" + string(packs.listpack([b"a", 2, b"b", 1])),
    "equal scores out of order": b"\x11" + string(packs.listpack([b"b", 1, b"a", 1])),
    "a member without a score": b"\x11" + string(packs.listpack([b"a", 1, b"b"])),
    "a stream's key of another size": node(*SOUND_NODE, key=b"short") + TAIL,
    "a node without a head": node(1, 0) + TAIL,
    "a node without fields": node(1, 0, 0, 0, 2, 0, 0, 4) + TAIL,
    "more names than there are": node(1, 0, 1000, b"f", 0) + TAIL,
    "an entry with unknown flags": node(1, 0, 1, b"f", 0, 7, 0, 0, b"v", 4) + TAIL,
    "an entry that counts its elements wrongly": node(1, 0, 1, b"f", 0, 2, 0, 0, b"v", 5) + TAIL,
    "an entry with a negative number of fields": node(1, 0, 1, b"f", 0, 0, 0, 0, -1, 2) + TAIL,
    "an entry before its node": node(1, 0, 1, b"f", 0, 2, -1, 0, b"v", 4) + TAIL,
    "entries out of order": node(2, 0, 1, b"f", 0, 2, 0, 5, b"v", 4, 2, 0, 4, b"v", 4) + b"\x02\x05\x00\x00",
    "a node that counts its entries wrongly": node(2, 0, 1, b"f", 0, 2, 0, 0, b"v", 4) + TAIL,
    "a node that counts its dead wrongly": node(1, 1, 1, b"f", 0, 2, 0, 0, b"v", 4) + TAIL,
    "the entry 0-0": node(*SOUND_NODE, key=bytes(16)) + TAIL,
    "a stream that counts wrongly": node(*SOUND_NODE) + b"\x02\x05\x00\x00",
    "a last id before the last entry": node(*SOUND_NODE) + b"\x01\x00\x01\x00",
    "a group twice": b"\x0f\x00\x00\x05\x00\x02" + 2 * (A + b"\x00\x00\x00\x00"),
    "a pending entry without a consumer": b"\x0f\x00\x00\x05\x00\x01" + A + b"\x00\x00\x01" + bytes(24) + b"\x01\x00",
    "a consumer's entry that the group has not":
        b"\x0f\x00\x00\x05\x00\x01" + A + b"\x00\x00\x00\x01" + B + bytes(8) + b"\x01" + bytes(16),
    "a consumer twice": b"\x0f\x00\x00\x05\x00\x01" + A + b"\x00\x00\x00\x02" + 2 * (B + bytes(8) + b"\x00"),
    "more behind the value": b"\x00\x01ab",
}  # fmt: skip


@pytest.mark.parametrize("data", LIES.values(), ids=LIES.keys())
@pytest.mark.parametrize("entries", [0, 128])
def test_lies_are_refused_and_change_nothing(data: bytes, entries: int) -> None:
    set_limits(entries)
    DB.set(b"d", b"before")
    with pytest.raises(CommandError, match="ERR Bad data format"):
        payload.restore(DB, b"d", data + payload.footer(data))
    assert DB.peek(b"d") == b"before"


def test_a_loader_can_tell_collections_of_nothing() -> None:
    for data, empty in ((b"\x02\x00", True), (b"\x02\x02" + A + A, False)):
        with pytest.raises(rdb.DamagedValue) as refused:
            rdb.decode(DB, b"d", data)
        assert refused.value.empty is empty


def test_strings_are_no_longer_than_told() -> None:
    data = string(b"x" * 1000)
    DB.remove(b"d")
    with pytest.raises(rdb.DamagedValue):
        rdb.decode(DB, b"d", b"\x00" + data, string_max=999)
    rdb.decode(DB, b"d", b"\x00" + data, string_max=1000)
    assert DB.peek(b"d") == b"x" * 1000
