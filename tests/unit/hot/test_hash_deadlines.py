"""Hashes whose fields expire against a dict with deadlines, while the clock moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.journal import listening
from zeekdb.hot import hashes
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.types import Hash

START_MS = 1_700_000_000_000
LENGTHS = (0, 1, 16, 63, 64, 65, 253, 254, 255, 1023, 1024, 1025)
FIELDS = st.one_of(st.integers(0, 12).map(lambda n: b"field:%d" % n), st.sampled_from(LENGTHS).map(lambda n: b"f" * n))
VALUES = st.one_of(st.binary(max_size=8), st.sampled_from(LENGTHS).map(lambda n: b"v" * n))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), FIELDS, VALUES),
        st.tuples(st.just("change"), FIELDS, VALUES),
        st.tuples(st.just("put_many"), st.lists(st.tuples(FIELDS, VALUES), max_size=12)),
        st.tuples(st.just("remove"), FIELDS),
        st.tuples(st.just("expire"), FIELDS, st.integers(1, 200)),
        st.tuples(st.just("expire"), FIELDS, st.integers(1, 200)),
        st.tuples(st.just("persist"), FIELDS),
        st.tuples(st.just("wait"), st.integers(0, 100)),
        st.tuples(st.sampled_from(("active", "rename", "copy", "move", "swap", "deadline", "purge"))),
    ),
    max_size=60,
)


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    yield
    hashes.set_limits(entries=128, value=64)
    while Keyspace(1, 1).run_lazyfree(1000):  # what waits to be freed is the process's
        pass


class Model:
    """A hash under `key` of either of two databases, and what should be in it."""

    def __init__(self) -> None:
        self.keyspace = Keyspace(2, 4)
        self.now_ms = START_MS
        self.keyspace.set_clock(self.now_ms)
        self.db, self.key = self.keyspace.databases[0], b"key"
        self.rows: dict[bytes, tuple[bytes, int]] = {}

    def forget(self) -> None:
        """What is due is gone."""
        self.rows = {f: row for f, row in self.rows.items() if not 0 < row[1] <= self.now_ms}

    def door(self) -> Hash:
        """The hash, created when it is not there."""
        found = self.db.peek(self.key)
        return self.db.create(self.key, Hash) if found is None else found

    def play(self, step: tuple) -> None:  # type: ignore[type-arg]
        match step:
            case ("put", field, value):
                assert self.door().put(field, value) == (field not in self.rows)
                self.rows[field] = (value, 0)
            case ("change", field, value):
                assert self.door().change(field, value) == (field not in self.rows)
                self.rows[field] = (value, self.rows.get(field, (b"", 0))[1])
            case ("put_many", pairs):
                if pairs:
                    created = len({field for field, _ in pairs} - set(self.rows))
                    assert self.door().put_many([text for pair in pairs for text in pair]) == created
                    self.rows |= {field: (value, 0) for field, value in pairs}
            case ("remove", field):
                if self.rows:
                    assert self.door().remove(field) == (self.rows.pop(field, None) is not None)
            case ("expire", field, ms):
                if self.rows:
                    assert self.db.time_fields(self.key)
                    assert self.door().set_deadline(field, self.now_ms + ms) == (field in self.rows)
                    if field in self.rows:
                        self.rows[field] = (self.rows[field][0], self.now_ms + ms)
            case ("persist", field):
                if self.rows:
                    assert self.door().set_deadline(field, 0) == (field in self.rows)
                    if field in self.rows:
                        self.rows[field] = (self.rows[field][0], 0)
            case ("wait", ms):
                self.now_ms += ms
                self.keyspace.set_clock(self.now_ms)
                self.forget()
            case (other,):
                self.treat_the_key(other)

    def treat_the_key(self, step: str) -> None:
        """What happens to keys does not concern their fields."""
        other = self.keyspace.databases[1 - self.db.index]
        match step:
            case "active":
                self.keyspace.run_expiry(1000)
            case "purge":
                self.db.expire_fields(self.key)
            case "rename":
                assert self.db.rename(self.key, b"renamed") == bool(self.rows)
                self.key = b"renamed"
            case "copy":
                name = b"even" if self.key == b"odd" else b"odd"
                assert self.db.copy(self.key, self.db, name) == bool(self.rows)
                self.db.remove(self.key)
                self.key = name
            case "move":
                assert self.db.move(self.key, other) == bool(self.rows)
                self.db = other
            case "swap":
                self.keyspace.swap(0, 1)
                self.db = other
            case "deadline":
                self.db.set_deadline(self.key, self.now_ms + 1_000_000 if self.db.deadline(self.key) == -1 else 0)

    def check(self) -> None:
        """Everything, by every way to ask."""
        found: Hash | None = self.db.peek(self.key)
        self.faults()
        if not self.rows:
            assert found is None or len(found) == 0
            return
        assert found is not None
        plain = {field: value for field, (value, _) in self.rows.items()}
        assert len(found) == len(plain)
        assert found.to_dict() == plain
        assert sorted(found.fields()) == sorted(plain)
        assert sorted(found.values()) == sorted(plain.values())
        assert {field: (value, when) for field, value, when in found.items_with_deadlines()} == self.rows
        assert found.first_deadline() == min((when for _, when in self.rows.values() if when), default=0)
        assert found.first_deadline() == self.keyspace.next_deadline_ms() or self.db.deadline(self.key) > 0
        assert self.db.timed_count() == (found.first_deadline() > 0)
        for field, (value, when) in self.rows.items():
            assert found.get(field) == value
            assert found.strlen(field) == len(value)
            assert field in found
            assert found.deadline(field) == (when or -1)
        assert dict(found.sample(3)).items() <= plain.items()
        pair = found.random()
        assert pair is not None
        assert plain[pair[0]] == pair[1]

    def faults(self) -> None:
        """No invariant is broken."""
        found = self.db.peek(self.key)
        assert found is None or found.faults() == 0
        assert sum(db.faults() for db in self.keyspace.databases) == 0


@given(steps=STEPS, entries=st.sampled_from((0, 2, 8, 128)), value=st.sampled_from((0, 64, 100_000)))
@settings(max_examples=200, deadline=None)
def test_like_a_dict_with_deadlines(steps: list[tuple], entries: int, value: int) -> None:  # type: ignore[type-arg]
    hashes.set_limits(entries=entries, value=value)
    model = Model()
    empty = model.keyspace.memory_used()
    for step in steps:
        model.play(step)
        if not model.rows and model.db.peek(model.key) is not None:  # as `remove_if_empty`
            assert len(model.db.peek(model.key)) == 0
            model.db.remove(model.key)
        model.check()
    for db in model.keyspace.databases:
        db.clear()
    while model.keyspace.run_lazyfree(1000):
        pass
    assert model.keyspace.memory_used() <= empty


@given(steps=STEPS)
@settings(max_examples=50, deadline=None)
def test_what_is_due_is_absent_before_anything_removes_it(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """A door that was opened before the clock moved answers as one that is opened after."""
    model = Model()
    for step in steps:
        model.play(step)
    if not model.rows:
        return
    door = model.door()
    model.now_ms += 100
    model.keyspace.set_clock(model.now_ms)
    all_rows = dict(model.rows)
    model.forget()
    assert len(door) == len(all_rows)
    assert door.to_dict() == {field: value for field, (value, _) in model.rows.items()}
    rows = door.scan(0, 1000)[1]
    assert dict(zip(rows[::2], rows[1::2], strict=True)) == door.to_dict()
    for field in all_rows:
        there = field in model.rows
        assert (door.get(field) is not None, field in door, door.deadline(field) != -2) == (there, there, there)
        assert door.set_deadline(field, model.now_ms + 5 if model.rows.get(field, (b"", 0))[1] else 0) == there
    for field in all_rows:
        assert door.remove(field) == (field in model.rows)
    assert len(door) == 0
    assert door.faults() == 0


def large(database: Database, fields: int, when_ms: int) -> Hash:
    """A hash with so many fields that all expire at once."""
    door = database.create(b"large", Hash)
    door.put_many([text for n in range(fields) for text in (b"%d" % n, b"v")])
    database.time_fields(b"large")
    for n in range(fields):
        door.set_deadline(b"%d" % n, when_ms)
    return door


def test_whoever_meets_many_that_are_due_removes_only_some() -> None:
    keyspace = Keyspace(1, 4)
    keyspace.set_clock(START_MS)
    database = keyspace.databases[0]
    before = keyspace.expired_fields
    large(database, 5000, START_MS + 1)
    keyspace.set_clock(START_MS + 1)
    found = database.peek(b"large")
    assert 4000 < len(found) < 5000
    assert found.to_dict() == {}
    assert found.get(b"7") is None
    assert found.put(b"7", b"new")
    database.expire_fields(b"large")
    assert len(found) == 1
    assert found.items() == [(b"7", b"new")]
    assert keyspace.expired_fields - before in (4999, 5000)  # field 7 was overwritten or removed
    assert database.faults() == 0


def test_the_clock_removes_fields_in_slices_and_at_last_the_key() -> None:
    keyspace = Keyspace(1, 4)
    keyspace.set_clock(START_MS)
    database = keyspace.databases[0]
    told: list[tuple[bytes, str]] = []
    large(database, 5000, START_MS + 1)
    keyspace.subscribers.append(lambda db, key, event: told.append((key, event)))
    keyspace.set_clock(START_MS + 1)
    keyspace.active_expire = True  # the process's: other tests switch it off
    slices = sum(keyspace.run_expiry(1) > 0 for _ in range(10_000))
    assert slices >= 5000 // 64
    assert told[-1] == (b"large", "del")
    assert {event for _, event in told[:-1]} == {"hexpired"}
    assert database.timed_count() == 0


def test_replicas_are_told_which_fields_went() -> None:
    keyspace = Keyspace(1, 4)
    keyspace.set_clock(START_MS)
    database = keyspace.databases[0]
    door = database.create(b"h", Hash)
    door.put_many([b"a", b"1", b"b", b"2", b"c", b"3"])
    database.time_fields(b"h")
    door.set_deadline(b"a", START_MS + 1)
    door.set_deadline(b"c", START_MS + 1)
    keyspace.set_clock(START_MS + 1)
    with listening() as told:
        assert database.exists(b"h")
        assert told() == ["HDEL h a c"]


def test_hashes_without_deadlines_weigh_what_they_did() -> None:
    keyspace = Keyspace(1, 1)
    keyspace.set_clock(START_MS)
    database = keyspace.databases[0]
    plain = database.create(b"plain", Hash)
    timed = database.create(b"timed", Hash)
    for door in (plain, timed):
        door.put_many([b"field", b"value", b"other", b"thing"])
    weight = database.memory_of(b"plain") or 0
    assert weight == database.memory_of(b"timed")
    database.time_fields(b"timed")
    assert (plain.encoding, plain.timed, timed.encoding, timed.timed) == ("listpack", False, "listpackex", True)
    assert weight < (database.memory_of(b"timed") or 0) < weight + 200
    assert database.memory_of(b"plain") == weight


def test_deadlines_need_a_hash_and_fit_48_bits() -> None:
    keyspace = Keyspace(1, 1)
    keyspace.set_clock(START_MS)
    database = keyspace.databases[0]
    assert not database.time_fields(b"h")
    database.set(b"s", b"x")
    assert not database.time_fields(b"s")
    door = database.create(b"h", Hash)
    door.put(b"f", b"v")
    with pytest.raises(ValueError, match="time_fields"):
        door.set_deadline(b"f", START_MS + 1)
    assert door.set_deadline(b"f", 0)
    assert not door.set_deadline(b"g", 0)
    assert door.deadline(b"f") == -1
    assert door.items_with_deadlines() == [(b"f", b"v", 0)]
    assert database.time_fields(b"h")
    with pytest.raises(ValueError, match="48 bits"):
        door.set_deadline(b"f", 1 << 48)
    assert door.set_deadline(b"f", (1 << 48) - 1)
    assert door.deadline(b"f") == (1 << 48) - 1


def test_a_hash_put_over_a_hash_takes_its_place_in_the_index() -> None:
    keyspace = Keyspace(1, 1)
    keyspace.set_clock(START_MS)
    database = keyspace.databases[0]
    for name, when in ((b"a", START_MS + 5), (b"b", START_MS + 50)):
        door = database.create(name, Hash)
        door.put(b"f", name)
        database.time_fields(name)
        door.set_deadline(b"f", when)
    assert database.rename(b"a", b"b")
    assert (database.timed_count(), database.peek(b"b").get(b"f"), database.faults()) == (1, b"a", 0)
    database.set(b"b", b"text")
    assert (database.timed_count(), database.faults()) == (0, 0)
    door = database.create(b"c", Hash)
    door.put(b"f", b"v")
    database.time_fields(b"c")
    door.set_deadline(b"f", START_MS + 5)
    assert database.rename(b"c", b"b")
    keyspace.set_clock(START_MS + 5)
    assert database.peek(b"b") is None
    assert database.timed_count() == 0
