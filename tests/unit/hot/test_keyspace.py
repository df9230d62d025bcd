"""Databases and the keyspace against a model of dictionaries with a clock of their own."""

from __future__ import annotations

import copy
import gc
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zeekdb.hot import memory
from zeekdb.hot.keyspace import Database, Keyspace, glob_match
from zeekdb.types import Hash, List, Set, ZSet

NOW_MS = 1_700_000_000_000
KEYS = [b"", b"a", b"b", b"key:3", b"k" * 254, b"k" * 255, b"k" * 256, b"long" * 300]
LENGTHS = [0, 1, 3, 8, 40, 100, 1000, 1023, 1024, 1025, 1100, 5000, 65535, 65536, 70_000]
keys = st.sampled_from(KEYS)
places = st.integers(0, 1)
values = st.builds(lambda n, b: bytes([b]) * n, st.sampled_from(LENGTHS), st.integers(0, 255))


def new_keyspace(databases: int = 2, shards: int = 4) -> Keyspace:
    keyspace = Keyspace(databases, shards)
    keyspace.set_clock(NOW_MS)
    keyspace.active_expire = True
    keyspace.touch_lfu = False
    return keyspace


def free_all(keyspace: Keyspace) -> None:
    while keyspace.run_lazyfree(1000):
        pass


class KeyspaceMachine(RuleBasedStateMachine):
    """A model value is bytes or a dict; beside it stands its deadline, 0 for none."""

    def __init__(self) -> None:
        super().__init__()
        self.keyspace = new_keyspace()
        self.now_ms = NOW_MS
        self.model: list[dict[bytes, tuple[Any, int]]] = [{}, {}]
        self.expired: list[tuple[int, bytes]] = []
        self.told: list[tuple[int, bytes]] = []
        self.keyspace.subscribers.append(lambda db, key, event: self.told.append((db.index, key)))

    def db(self, i: int) -> Database:
        return self.keyspace.databases[i]

    def live(self, i: int, key: bytes) -> tuple[Any, int] | None:
        return self.model[i].get(key)

    @rule(i=places, key=keys, value=values, ttl=st.sampled_from([None, -1, 1, 50, 10_000]))
    def set(self, i: int, key: bytes, value: bytes, ttl: int | None) -> None:
        old = self.live(i, key)
        if ttl == -1:
            deadline = old[1] if old else 0
        else:
            deadline = self.now_ms + ttl if ttl else 0
        self.db(i).set(key, value, -1 if ttl == -1 else deadline)
        self.model[i][key] = (value, deadline)

    @rule(i=places, key=keys, n=st.sampled_from([1, 5, 200]))
    def create(self, i: int, key: bytes, n: int) -> None:
        if self.live(i, key) is None:
            fields = {b"%d" % k: b"v%d" % k for k in range(n)}
            door = self.db(i).create(key, Hash)
            for field, value in fields.items():
                door.put(field, value)
            self.model[i][key] = (fields, 0)

    @rule(i=places, key=keys)
    def remove(self, i: int, key: bytes) -> None:
        assert self.db(i).remove(key) == (self.model[i].pop(key, None) is not None)

    @rule(i=places, key=keys, tail=values)
    def append(self, i: int, key: bytes, tail: bytes) -> None:
        old = self.live(i, key)
        if old is not None and isinstance(old[0], dict):
            with pytest.raises(TypeError):
                self.db(i).append(key, tail)
            return
        value, deadline = old or (b"", 0)
        assert self.db(i).append(key, tail) == len(value + tail)
        self.model[i][key] = (value + tail, deadline)

    @rule(i=places, key=keys, offset=st.sampled_from([0, 1, 20, 1020, 1030, 66_000]), data=values)
    def write_at(self, i: int, key: bytes, offset: int, data: bytes) -> None:
        old = self.live(i, key)
        if not data or (old is not None and isinstance(old[0], dict)):
            return
        value, deadline = old or (b"", 0)
        value = value.ljust(offset, b"\0")
        value = value[:offset] + data + value[offset + len(data) :]
        assert self.db(i).write_at(key, offset, data) == len(value)
        self.model[i][key] = (value, deadline)

    @rule(i=places, key=keys, ttl=st.sampled_from([0, 1, 50, 10_000, 10**12]))
    def set_deadline(self, i: int, key: bytes, ttl: int) -> None:
        old = self.live(i, key)
        deadline = self.now_ms + ttl if ttl else 0
        assert self.db(i).set_deadline(key, deadline) == (old is not None)
        if old is not None:
            self.model[i][key] = (old[0], deadline)

    @rule(i=places, key=keys, new=keys)
    def rename(self, i: int, key: bytes, new: bytes) -> None:
        old = self.live(i, key)
        assert self.db(i).rename(key, new) == (old is not None)
        if old is not None:
            del self.model[i][key]
            self.model[i][new] = old

    @rule(i=places, j=places, key=keys, new=keys)
    def copy(self, i: int, j: int, key: bytes, new: bytes) -> None:
        old = self.live(i, key)
        assert self.db(i).copy(key, self.db(j), new) == (old is not None)
        if old is not None:
            self.model[j][new] = copy.deepcopy(old)

    @rule(i=places, key=keys)
    def move(self, i: int, key: bytes) -> None:
        fits = key in self.model[i] and key not in self.model[1 - i]
        assert self.db(i).move(key, self.db(1 - i)) == fits
        if fits:
            self.model[1 - i][key] = self.model[i].pop(key)

    @rule()
    def swap(self) -> None:
        self.keyspace.swap(0, 1)
        self.model.reverse()

    @rule(i=places)
    def clear(self, i: int) -> None:
        assert self.db(i).clear() == len(self.model[i])
        self.model[i] = {}

    @rule(ms=st.sampled_from([1, 49, 60, 9999]), active=st.booleans())
    def advance(self, ms: int, active: bool) -> None:
        """Due keys are removed by the cron or by whoever meets them, each reported once."""
        self.now_ms += ms
        self.keyspace.set_clock(self.now_ms)
        self.told.clear()
        due = []
        for i, model in enumerate(self.model):
            for key in [key for key, (_, deadline) in model.items() if 0 < deadline <= self.now_ms]:
                del model[key]
                due.append((i, key))
        before = self.keyspace.expired
        if active:
            assert self.keyspace.run_expiry(1_000_000) == len(due)
        else:
            for i, key in due:
                assert self.db(i).peek(key) is None
        assert sorted(self.told) == sorted(due)
        assert self.keyspace.expired - before == len(due)

    @rule(budget_us=st.integers(0, 100))
    def free(self, budget_us: int) -> None:
        self.keyspace.run_lazyfree(budget_us)

    @rule(i=places, key=keys)
    def look(self, i: int, key: bytes) -> None:
        old = self.live(i, key)
        hits, misses = self.keyspace.hits, self.keyspace.misses
        got = self.db(i).read(key)
        assert (self.keyspace.hits - hits, self.keyspace.misses - misses) == ((1, 0) if old else (0, 1))
        assert self.db(i).exists(key) == (old is not None)
        assert self.db(i).touch(key) == (old is not None)
        if old is None:
            assert got is None
            assert self.db(i).type_of(key) is None
            assert self.db(i).deadline(key) == -2
            assert self.db(i).memory_of(key) is None
            return
        assert self.db(i).type_of(key) == ("hash" if isinstance(old[0], dict) else "string")
        assert (self.db(i).memory_of(key) or 0) > len(key) + (len(old[0]) if isinstance(old[0], bytes) else 0)
        if isinstance(old[0], bytes):
            assert self.db(i).strlen(key) == len(old[0])

    @invariant()
    def holds(self) -> None:
        for i, model in enumerate(self.model):
            db = self.db(i)
            assert db.faults() == 0
            assert len(db) == len(model)
            assert db.volatile_count() == sum(1 for _, deadline in model.values() if deadline)
            for key, (value, deadline) in model.items():
                got = db.peek(key)
                assert (got if isinstance(value, bytes) else dict(got.items())) == value
                assert db.deadline(key) == (deadline or -1)
        deadlines = [deadline for model in self.model for _, deadline in model.values() if deadline]
        assert self.keyspace.next_deadline_ms() == min(deadlines, default=0)

    def teardown(self) -> None:
        free_all(self.keyspace)


TestKeyspace = KeyspaceMachine.TestCase
TestKeyspace.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# --- expiry ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=400), st.integers(0, 60))
def test_exactly_what_is_due_expires(ops: list[tuple[int, int]], later: int) -> None:
    keyspace = new_keyspace(1, 2)
    db = keyspace.databases[0]
    model: dict[bytes, int] = {}
    for n, ttl in ops:
        key = b"%d" % n
        if ttl == 0:
            db.remove(key)
            model.pop(key, None)
        elif key in model and ttl % 3 == 0:
            db.set_deadline(key, 0)
            model[key] = 0
        else:
            db.set(key, b"v", NOW_MS + ttl)
            model[key] = NOW_MS + ttl
    assert db.faults() == 0
    keyspace.set_clock(NOW_MS + later)
    stay = {key for key, deadline in model.items() if deadline == 0 or deadline > NOW_MS + later}
    assert keyspace.run_expiry(10_000_000) == len(model) - len(stay)
    assert len(db) == len(stay)
    assert set(db.keys()) == stay
    assert db.faults() == 0


def test_the_most_overdue_goes_first() -> None:
    keyspace = new_keyspace(1, 1)
    db = keyspace.databases[0]
    gone: list[bytes] = []
    keyspace.subscribers.append(lambda _, key, event: gone.append(key))
    order = list(range(1, 500))
    random.Random(1).shuffle(order)
    for n in order:
        db.set(b"%d" % n, b"", NOW_MS + n)
    keyspace.set_clock(NOW_MS + 1000)
    assert keyspace.run_expiry(10_000_000) == 499
    assert gone == [b"%d" % n for n in range(1, 500)]


def test_expiry_keeps_to_its_budget_and_comes_to_an_end() -> None:
    keyspace = new_keyspace(1, 16)
    db = keyspace.databases[0]
    for n in range(20_000):
        db.set(b"%d" % n, b"", NOW_MS + 1)
    keyspace.set_clock(NOW_MS + 2)
    first = keyspace.run_expiry(0)
    assert 0 < first < 20_000
    while keyspace.run_expiry(1000):
        pass
    assert len(db) == 0


def test_nothing_expires_by_itself_when_it_is_switched_off() -> None:
    keyspace = new_keyspace()
    db = keyspace.databases[0]
    db.set(b"k", b"v", NOW_MS + 1)
    keyspace.active_expire = False
    keyspace.set_clock(NOW_MS + 1)
    assert keyspace.run_expiry(1000) == 0
    assert len(db) == 1
    assert db.peek(b"k") is None  # but nobody sees it
    assert len(db) == 0
    keyspace.active_expire = True


def test_what_is_due_is_not_listed() -> None:
    keyspace = new_keyspace()
    db = keyspace.databases[0]
    db.set(b"due", b"v", NOW_MS + 1)
    db.set(b"stays", b"v")
    keyspace.set_clock(NOW_MS + 1)
    assert db.keys() == [b"stays"]
    assert db.scan(0, 100) == (0, [b"stays"])
    assert {db.random_key() for _ in range(50)} == {b"stays"}


def test_average_ttl() -> None:
    db = new_keyspace().databases[0]
    assert db.average_ttl_ms() == 0
    for n in range(100):
        db.set(b"%d" % n, b"", NOW_MS + 5000)
    assert db.average_ttl_ms() == 5000


# --- freeing --------------------------------------------------------------------------------------------------------


def test_a_cleared_database_is_freed_in_slices() -> None:
    keyspace = new_keyspace(1, 16)
    db = keyspace.databases[0]
    free_all(keyspace)
    before = keyspace.memory_used()
    for n in range(20_000):
        db.set(b"%d" % n, b"x" * 50, NOW_MS + 1000 if n % 2 else 0)
    freed = keyspace.lazyfreed
    assert db.clear() == 20_000
    assert (len(db), db.keys(), db.volatile_count(), keyspace.lazyfree_pending) == (0, [], 0, 20_000)
    left = keyspace.run_lazyfree(0)
    assert 0 < left < 20_000
    db.set(b"new", b"v", NOW_MS + 1)  # nothing of the old
    assert keyspace.next_deadline_ms() == NOW_MS + 1
    free_all(keyspace)
    assert keyspace.lazyfreed - freed == 20_000
    assert db.keys() == [b"new"]
    db.remove(b"new")
    db.clear()
    free_all(keyspace)
    assert keyspace.memory_used() == before


@pytest.mark.parametrize(("kind", "fill"), [
    (Hash, lambda door, n: door.put(b"f%d" % n, b"v")),
    (Set, lambda door, n: door.add(b"m%d" % n)),
])  # fmt: skip
def test_large_collections_are_freed_later(kind: Any, fill: Any) -> None:
    keyspace = new_keyspace(1, 1)
    db = keyspace.databases[0]
    free_all(keyspace)
    door = db.create(b"big", kind)
    for n in range(5000):
        fill(door, n)
    assert db.remove(b"big")
    assert db.peek(b"big") is None
    assert keyspace.lazyfree_pending == 1
    free_all(keyspace)
    assert keyspace.lazyfree_pending == 0


def test_a_keyspace_that_nobody_holds_frees_what_it_had() -> None:
    keyspace = new_keyspace()
    gc.collect()
    free_all(keyspace)
    before = memory.used()
    for n in range(1000):
        keyspace.databases[0].set(b"%d" % n, b"x" * 2000, NOW_MS + 1)
    keyspace = new_keyspace()
    gc.collect()
    assert memory.used() == before
    assert keyspace.lazyfree_pending == 0


# --- strings --------------------------------------------------------------------------------------------------------


def test_a_copy_is_not_changed_with_its_source() -> None:
    db = new_keyspace().databases[0]
    db.set(b"a", b"x" * 5000)
    assert db.copy(b"a", db, b"b")
    db.write_at(b"a", 0, b"yy")
    db.append(b"b", b"z")
    assert db.peek(b"a") == b"yy" + b"x" * 4998
    assert db.peek(b"b") == b"x" * 5000 + b"z"


@settings(max_examples=100)
@given(st.binary(max_size=3000), st.integers(0, 3000), st.integers(0, 4000))
def test_getrange(value: bytes, start: int, stop: int) -> None:
    db = new_keyspace().databases[0]
    db.set(b"k", value)
    assert db.getrange(b"k", start, stop) == value[start : stop + 1]
    assert db.getrange(b"absent", start, stop) == b""


def test_a_set_forgets_the_deadline_unless_told_to_keep_it() -> None:
    db = new_keyspace().databases[0]
    db.set(b"k", b"1", NOW_MS + 100)
    db.set(b"k", b"2", -1)
    assert db.deadline(b"k") == NOW_MS + 100
    db.set(b"k", b"a longer value", -1)
    assert db.deadline(b"k") == NOW_MS + 100
    db.set(b"k", b"3")
    assert db.deadline(b"k") == -1
    assert db.volatile_count() == 0


# --- objects --------------------------------------------------------------------------------------------------------


class Counted:
    """A Python value that knows how many of it there are."""

    alive = 0
    type_name = "stream"

    def __init__(self) -> None:
        Counted.alive += 1

    def __del__(self) -> None:
        Counted.alive -= 1

    def copy(self) -> Counted:
        return Counted()


def test_python_objects_are_values() -> None:
    keyspace = new_keyspace()
    db = keyspace.databases[0]
    db.set_object(b"k", Counted(), NOW_MS + 50)
    assert isinstance(db.peek(b"k"), Counted)
    assert db.type_of(b"k") == "stream"
    assert db.deadline(b"k") == NOW_MS + 50
    assert db.copy(b"k", keyspace.databases[1], b"twin")
    assert Counted.alive == 2
    assert db.rename(b"k", b"m")
    db.set(b"m", b"string")
    assert Counted.alive == 1
    keyspace.databases[1].clear()
    free_all(keyspace)
    assert Counted.alive == 0
    with pytest.raises(TypeError):
        db.set_object(b"k", None)  # type: ignore[arg-type]


# --- the journal ----------------------------------------------------------------------------------------------------


def test_changes_are_counted_and_told() -> None:
    keyspace = new_keyspace()
    told: list[tuple[int, bytes, str]] = []
    dirty = keyspace.dirty
    keyspace.changed(keyspace.databases[1], b"k", "set")
    keyspace.subscribers.append(lambda db, key, event: told.append((db.index, key, event)))
    keyspace.changed(keyspace.databases[1], b"k", "del")
    assert told == [(1, b"k", "del")]
    assert keyspace.dirty - dirty == 2
    keyspace.databases[1].set(b"due", b"", NOW_MS + 1)
    keyspace.set_clock(NOW_MS + 1)
    assert not keyspace.databases[1].exists(b"due")
    assert told[-1] == (1, b"due", "expired")
    keyspace.subscribers = []
    assert keyspace.subscribers == []


# --- recency and frequency ------------------------------------------------------------------------------------------


def test_idle_time() -> None:
    keyspace = new_keyspace()
    db = keyspace.databases[0]
    db.set(b"k", b"v")
    keyspace.set_clock(NOW_MS + 90_000)
    assert db.idle_s(b"k") == 90
    db.peek(b"k")
    assert db.idle_s(b"k") == 90
    db.read(b"k")
    assert db.idle_s(b"k") == 0
    keyspace.set_clock(NOW_MS + 95_000)
    keyspace.touching = False
    db.read(b"k")
    keyspace.touching = True
    assert db.idle_s(b"k") == 5
    db.set_idle_s(b"k", 1000)
    assert db.idle_s(b"k") == 1000
    db.set_deadline(b"k", NOW_MS + 10**9)
    db.rename(b"k", b"m")
    assert db.idle_s(b"m") == 1000
    assert db.idle_s(b"k") is None


def test_frequency_grows_like_a_logarithm_and_decays() -> None:
    keyspace = new_keyspace()
    keyspace.touch_lfu = True
    db = keyspace.databases[0]
    db.set(b"k", b"v")
    assert db.frequency(b"k") == 5
    for _ in range(1000):
        db.read(b"k")
    often = db.frequency(b"k")
    assert often is not None
    assert 10 <= often <= 40
    db.set(b"k", b"another length of value altogether")
    assert db.frequency(b"k") in (often, often + 1)  # a new value is no new key
    keyspace.set_clock(NOW_MS + 5 * 60_000)
    assert (db.frequency(b"k") or 0) in (often - 5, often - 4)
    db.set_frequency(b"k", 200)
    assert db.frequency(b"k") == 200
    assert db.frequency(b"absent") is None
    keyspace.touch_lfu = False


# --- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [(Hash, "hash"), (List, "list"), (Set, "set"), (ZSet, "zset")])
def test_collections_have_doors(kind: Any, name: str) -> None:
    db = new_keyspace().databases[0]
    assert isinstance(db.create(b"k", kind), kind)
    assert isinstance(db.peek(b"k"), kind)
    assert db.type_of(b"k") == name
    assert db.set_deadline(b"k", NOW_MS + 5)
    assert isinstance(db.read(b"k"), kind)
    db.set(b"k", b"12345678")  # as long as a box
    assert db.peek(b"k") == b"12345678"
    assert db.deadline(b"k") == -1


@pytest.mark.parametrize("shards", [0, 3, 131_072])
def test_shards_are_a_power_of_two(shards: int) -> None:
    with pytest.raises(ValueError):
        Keyspace(1, shards)


# --- globs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pattern", "text", "matches"), [
    (b"*", b"", True),
    (b"*", b"anything", True),
    (b"**", b"", False),  # as Redis has it
    (b"", b"", True),
    (b"", b"a", False),
    (b"a", b"", False),
    (b"h?llo", b"hello", True),
    (b"h?llo", b"hllo", False),
    (b"h*llo", b"heeeello", True),
    (b"h[ae]llo", b"hallo", True),
    (b"h[ae]llo", b"hillo", False),
    (b"h[^e]llo", b"hallo", True),
    (b"h[^e]llo", b"hello", False),
    (b"h[a-c]llo", b"hbllo", True),
    (b"h[c-a]llo", b"hbllo", True),
    (b"h[a-c]llo", b"hdllo", False),
    (rb"h\*llo", b"h*llo", True),
    (rb"h\*llo", b"hello", False),
    (rb"h[\]]llo", b"h]llo", True),
    (rb"[\^a]", b"^", True),
    (b"a\\", b"a\\", True),
    (b"[abc", b"b", True),
    (b"[abc", b"d", False),
    (b"[", b"[", False),
    (b"[^", b"x", True),
    (b"a**b", b"ab", True),
    (b"a*b*c*d", b"axxbyyczzd", True),
    (b"a*b*c*d", b"axxbyyczz", False),
    (b"*[0-9]", b"key:1", True),
    (b"\0*", b"\0\xff", True),
])  # fmt: skip
def test_globs(pattern: bytes, text: bytes, matches: bool) -> None:
    assert glob_match(pattern, text) is matches


def test_globs_fold_case_when_told() -> None:
    assert glob_match(b"MaxMem*", b"maxmemory-policy", nocase=True)
    assert glob_match(b"[A-C]x", b"bX", nocase=True)
    assert not glob_match(b"MaxMem*", b"maxmemory-policy")


def test_a_glob_of_many_stars_takes_no_time() -> None:
    assert not glob_match(b"a*" * 5000 + b"b", b"a" * 10_000)


def simple_match(pattern: bytes, text: bytes) -> bool:
    """Stars, question marks and plain bytes, the slow and obvious way."""
    if not text:
        return pattern in (b"", b"*")
    row = [True] + [False] * len(text)
    for part in pattern:
        if part == ord("*"):
            for j in range(len(text)):
                row[j + 1] = row[j + 1] or row[j]
        else:
            row = [False] + [row[j] and part in (ord("?"), text[j]) for j in range(len(text))]
    return row[-1]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(b"ab*?"), max_size=12), st.lists(st.sampled_from(b"ab"), max_size=14))
def test_globs_against_a_table(pattern: list[int], text: list[int]) -> None:
    assert glob_match(bytes(pattern), bytes(text)) == simple_match(bytes(pattern), bytes(text))


# --- the whole ------------------------------------------------------------------------------------------------------


def test_databases_are_apart_and_cost_nothing_until_written_to() -> None:
    before = Keyspace(1, 16).memory_used()
    keyspace = Keyspace(1000, 16)
    assert keyspace.memory_used() == before
    first, last = keyspace.databases[0], keyspace.databases[999]
    assert (len(last), last.keys(), last.scan(0, 10), last.random_key()) == (0, [], (0, []), None)
    assert (last.clear(), last.average_ttl_ms(), last.volatile_count(), last.faults()) == (0, 0, 0, 0)
    assert not last.remove(b"k")
    last.set(b"k", b"v")
    assert first.peek(b"k") is None
    keyspace.swap(0, 999)
    assert first.peek(b"k") == b"v"
    assert [db.index for db in (first, last)] == [0, 999]


def test_keys_by_pattern() -> None:
    db = new_keyspace().databases[0]
    for n in range(300):
        db.set(b"user:%d" % n, b"")
        db.set(b"item:%d" % n, b"")
    assert len(db.keys(b"user:*")) == 300
    assert sorted(db.keys(b"*:29?")) == sorted(b"%s:29%d" % (kind, n) for kind in (b"user", b"item") for n in range(10))


def test_rename_onto_itself() -> None:
    db = new_keyspace().databases[0]
    assert not db.rename(b"k", b"k")
    db.set(b"k", b"v", NOW_MS + 5)
    assert db.rename(b"k", b"k")
    assert (db.peek(b"k"), db.deadline(b"k")) == (b"v", NOW_MS + 5)
