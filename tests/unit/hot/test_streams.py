"""Streams against a list of entries, and pending lists against a dict, across blocks, chunks and tombstones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeekdb.hot import memory, streams
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.hot.pending import PendingList
from zeekdb.hot.streams import StoredBlock, StoredEntry, format_id
from zeekdb.types import Stream
from zeekdb.types.stream_groups import MAX_ID, Group

Entry = tuple[int, list[bytes]]

# Lengths at which something changes: the prefix (128, 16384), a number's (4096 and 16383 are the listpack's).
LENGTHS = (0, 1, 63, 64, 126, 127, 128, 4095, 4096, 16383, 16384)
TEXTS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(LENGTHS).map(lambda n: b"v" * n),
    st.integers(-(1 << 64), 1 << 64).map(lambda n: b"%d" % n),
)
NAMES = st.sampled_from([[b"f"], [b"f"], [b"a", b"b"], [b"a", b"c"], [b"", b"n" * 200], [b"f"] * 5])
GAPS = st.one_of(
    st.integers(1, 3),
    st.integers(1, 3).map(lambda ms: ms << 64),
    st.sampled_from([(1 << 64) - 1, 1 << 63, (1 << 70) + 5, 1 << 100]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), GAPS, NAMES, st.lists(TEXTS, min_size=5, max_size=5)),
        st.tuples(st.just("many"), GAPS, st.integers(1, 300)),
        st.tuples(st.just("remove"), st.floats(0, 1)),
        st.tuples(st.just("remove range"), st.floats(0, 1), st.integers(1, 150)),
        st.tuples(st.just("trim"), st.floats(0, 1)),
        st.tuples(st.just("trim below"), st.floats(0, 1)),
        st.tuples(st.just("trim blocks"), st.floats(0, 1), st.integers(0, 200)),
    ),
    max_size=25,
)

KEYSPACE = Keyspace(1, 4)  # doors own nothing: what they open must stay
KEYS = (b"stream:%d" % n for n in itertools.count())


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    yield
    streams.set_limits(size=4096, entries=100)


def new_stream(database: Database = KEYSPACE.databases[0]) -> Stream:
    return database.create(next(KEYS), Stream)


def check(stream: Stream, model: list[Entry]) -> None:
    assert len(stream) == len(model)
    assert stream.entries(0, MAX_ID) == model
    assert stream.entries(0, MAX_ID, 0, True) == model[::-1]
    assert stream.first_id == (model[0][0] if model else 0)
    assert stream.last_entry_id() == (model[-1][0] if model else 0)
    for id, fields in model[:: max(len(model) // 7, 1)]:
        assert id in stream
        assert stream.get(id) == fields
        at = model.index((id, fields))
        assert stream.entries(id, MAX_ID, 3) == model[at : at + 3]
        assert stream.entries(0, id, 3, True) == model[max(at - 2, 0) : at + 1][::-1]
        assert stream.range(id, id) == [[format_id(id), fields]]
        if id + 1 not in stream:
            assert stream.get(id + 1) is None


def blocks(stream: Stream) -> list[StoredBlock]:
    found: list[StoredBlock] = []
    after = -1
    while (block := stream.next_block(after)) is not None:
        found.append(block)
        after = block.id
    return found


def play(stream: Stream, model: list[Entry], steps: list[tuple[object, ...]]) -> None:
    for name, *rest in steps:
        if name == "append":
            gap, names, values = rest
            id = stream.last_id + gap
            if id > MAX_ID:
                continue
            fields = [text for pair in zip(names, values, strict=False) for text in pair]
            stream.append(id, fields)
            model.append((id, fields))
        elif name == "many":
            gap, count = rest
            for number in range(count):
                if stream.last_id + gap > MAX_ID:
                    break
                model.append((stream.last_id + gap, [b"f", b"%d" % number]))
                stream.append(*model[-1])
        elif name in ("remove", "remove range"):
            at = int(rest[0] * len(model))
            for id, _ in model[at : at + (rest[1] if len(rest) > 1 else 1)]:
                assert stream.remove(id)
                assert not stream.remove(id)
            del model[at : at + (rest[1] if len(rest) > 1 else 1)]
        elif name == "trim":
            length = int(rest[0] * len(model))
            assert stream.trim_to_length(length) == len(model) - length
            del model[: len(model) - length]
        elif name == "trim below":
            id = model[int(rest[0] * (len(model) - 1))][0] if model else 5
            gone = sum(each < id for each, _ in model)
            assert stream.trim_below(id) == gone
            del model[:gone]
        else:
            length, most = int(rest[0] * len(model)), rest[1]
            live = [sum(not entry.dead for entry in block.entries) for block in blocks(stream)]
            gone = 0
            for count in live:
                if len(model) - gone <= length or (most and gone + count > most) or len(model) - gone - count < length:
                    break
                gone += count
            assert stream.trim_to_length(length, True, most) == gone
            del model[:gone]
        assert len(stream) == len(model)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([(4096, 100), (0, 0), (64, 0), (0, 1), (0, 3), (300, 7), (1 << 20, 1000)]))
def test_a_stream_is_a_list_of_entries(steps: list[tuple[object, ...]], limit: tuple[int, int]) -> None:
    streams.set_limits(size=limit[0], entries=limit[1])
    stream = new_stream()
    model: list[Entry] = []
    play(stream, model, steps)
    check(stream, model)


@settings(max_examples=60, deadline=None)
@given(STEPS, STEPS)
def test_blocks_can_be_restored(
    steps: list[tuple[object, ...]], more: list[tuple[object, ...]]
) -> None:
    streams.set_limits(size=4096, entries=5)
    stream = new_stream()
    model: list[Entry] = []
    play(stream, model, steps)
    restored = new_stream()
    for block in blocks(stream):
        restored.add_block(block)
    restored.last_id, restored.first_id = stream.last_id, stream.first_id
    assert blocks(restored) == blocks(stream)
    assert restored.block_count == stream.block_count
    check(restored, model)
    kept = list(model)
    play(stream, model, more)
    check(restored, kept)
    check(stream, model)


def test_copies_share_nothing() -> None:
    database = KEYSPACE.databases[0]
    stream = database.create(b"source", Stream)
    for number in range(1, 500):
        stream.append(number << 64, [b"f", b"%d" % number])
    stream.max_deleted_id, stream.entries_added = 7, 900
    group = stream.groups[b"g"] = Group(3 << 64, 3)
    consumer = group.add_consumer(b"c", 10)
    group.deliver(5 << 64, consumer, 77, 2)
    assert database.copy(b"source", database, b"target")
    copy = database.peek(b"target")
    assert (copy.last_id, copy.first_id) == (stream.last_id, stream.first_id)
    assert (copy.max_deleted_id, copy.entries_added) == (7, 900)
    assert copy.entries(0, MAX_ID) == stream.entries(0, MAX_ID)
    other = copy.groups[b"g"]
    assert other.pending.range(0, MAX_ID) == [(5 << 64, 0, 77, 2)]
    assert other.owner(0).name == b"c"
    group.acknowledge(5 << 64)
    stream.trim_to_length(0)
    assert len(copy) == 499
    assert len(other.pending) == len(other.consumers[b"c"].pending) == 1
    assert other.acknowledge(5 << 64)


def test_what_a_stream_takes_is_given_back() -> None:
    keyspace = Keyspace(1, 1)
    database = keyspace.databases[0]
    before = memory.used()
    for number in range(20):
        key = b"stream:%d" % number
        stream = database.create(key, Stream)
        for id in range(1, 3000):
            stream.append(id << 64, [b"field", b"v" * (id % 70)])
        assert 3000 * 36 < (database.memory_of(key) or 0) < 3000 * 50
        stream.trim_to_length(100 * number)
        group = stream.groups[b"g"] = Group(0)
        alone = database.memory_of(key) or 0
        for id in range(1000):
            group.deliver(id, group.consumers.get(b"c") or group.add_consumer(b"c", 0), 0)
        assert (database.memory_of(key) or 0) > alone + 2 * 40 * 1000
    del group
    database.clear()
    while keyspace.run_lazyfree(1000):
        pass
    assert memory.used() == before


def test_long_streams_are_cut_at_their_head_and_found_anywhere() -> None:
    streams.set_limits(size=0, entries=1)  # a block each: many chunks
    stream = new_stream()
    for id in range(1, 2000):
        stream.append(id << 64, [b"f", b"v"])
    assert stream.block_count == 1999
    assert stream.trim_to_length(1000) == 999
    for id in range(1100, 1900, 3):
        assert stream.remove(id << 64)
    model = [(id << 64, [b"f", b"v"]) for id in range(1000, 2000) if not (1100 <= id < 1900 and (id - 1100) % 3 == 0)]
    check(stream, model)
    for id in range(2000, 4000):
        stream.append(id << 64, [b"f", b"v"])
        assert stream.trim_to_length(10) >= 0
    assert [id >> 64 for id, _ in stream.entries(0, MAX_ID)] == list(range(3990, 4000))


def test_what_is_refused() -> None:
    stream = new_stream()
    stream.append(5, [b"f", b"v"])
    for id, fields in ((5, [b"f", b"v"]), (4, [b"f", b"v"]), (6, []), (6, [b"f"])):
        with pytest.raises(ValueError, match=r"."):
            stream.append(id, fields)
    with pytest.raises(TypeError):
        stream.append(6, ["f", "v"])  # type: ignore[list-item]
    with pytest.raises(OverflowError):
        stream.append(1 << 128, [b"f", b"v"])
    good = StoredEntry(9, False, None, [b"v"])
    for block in (
        StoredBlock(5, [b"f"], [good]),
        StoredBlock(9, [], [good]),
        StoredBlock(10, [b"f"], [good]),
        StoredBlock(9, [b"f"], [good, good]),
        StoredBlock(9, [b"f"], [good._replace(values=[b"v", b"w"])]),
        StoredBlock(9, [b"f"], [good._replace(fields=[b"f", b"g"])]),
        StoredBlock(9, [b"f"], [good._replace(fields=[], values=[])]),
    ):
        with pytest.raises(ValueError, match=r"."):
            stream.add_block(block)
    stream.add_block(StoredBlock(9, [b"f"], [good._replace(dead=True)]))
    assert stream.block_count == 1
    stream.add_block(StoredBlock(9, [b"f"], [good._replace(dead=True), good._replace(id=10)]))
    assert stream.entries(6, MAX_ID) == [(10, [b"f", b"v"])]


def test_ids_as_text() -> None:
    assert format_id(0) == b"0-0"
    assert format_id(MAX_ID) == b"18446744073709551615-18446744073709551615"
    assert format_id((1 << 63) << 64 | 9223372036854775807) == b"9223372036854775808-9223372036854775807"


# --- pending lists ----------------------------------------------------------------------------------------------------

IDS = st.one_of(st.integers(0, 60), st.integers(0, 60).map(lambda n: n << 64), st.integers(0, MAX_ID))
PENDING_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), IDS),
        st.tuples(st.just("remove"), IDS),
        st.tuples(st.just("run"), st.integers(0, 4000), st.sampled_from([1, 3, -1]), st.integers(1, 600)),
        st.tuples(st.just("remove run"), st.integers(0, 4000), st.integers(1, 600)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(PENDING_STEPS, st.lists(st.tuples(IDS, IDS, st.integers(0, 20)), max_size=5))
def test_a_pending_list_is_an_ordered_dict(
    steps: list[tuple[object, ...]], ranges: list[tuple[int, int, int]]
) -> None:
    pending = PendingList()
    model: dict[int, tuple[int, int, int]] = {}
    number = 0
    for name, start, *rest in steps:
        assert isinstance(start, int)
        if name == "put":
            ids = [start]
        elif name == "run":
            step, count = rest
            ids = [max(start + step * n, 0) for n in range(count)]  # type: ignore[operator, call-overload]
        elif name == "remove":
            ids = [start]
        else:
            ids = list(range(start, start + rest[0]))  # type: ignore[operator]
        for id in ids:
            if name in ("put", "run"):
                number += 1
                model[id] = (number % 7, number, number * 3)
                pending.put(id, *model[id])
            else:
                assert pending.remove(id) == (model.pop(id, None) is not None)
        assert len(pending) == len(model)
    rows = [(id, *model[id]) for id in sorted(model)]
    for checked in (pending, pending.copy()):
        assert checked.range(0, MAX_ID) == rows
        assert (checked.first(), checked.last()) == ((rows[0][0], rows[-1][0]) if rows else (None, None))
    for start, end, count in ranges:
        wanted = [row for row in rows if start <= row[0] <= end]
        assert pending.range(start, end, count) == (wanted[:count] if count else wanted)
        assert pending.get(start) == model.get(start)
        assert (start in pending) == (start in model)
    size = pending.__sizeof__()
    assert size >= 40 * len(rows)
    pending.clear()
    assert len(pending) == 0
    assert pending.range(0, MAX_ID) == []
