"""Sets against Python's, across all their forms and limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeekdb.hot import members, sets
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.hot.setalgebra import common_count, common_members, difference, intersection, union
from zeekdb.types import Set

# Integers at which the width or the spelling changes, and what only looks like one.
EDGES = [sign * (1 << bits) + step for bits in (7, 15, 16, 31, 32, 62, 63) for sign in (1, -1) for step in (-1, 0, 1)]
IN_RANGE = [n for n in EDGES if -(1 << 63) <= n < 1 << 63]
NOT_INTEGERS = (b"", b"-", b"+1", b"01", b"-0", b"-01", b" 1", b"1 ", b"1.0", b"0x1", b"9" * 19, b"9" * 20, b"9" * 21)
INTEGERS = st.one_of(st.integers(-40, 40), st.sampled_from(IN_RANGE)).map(lambda n: b"%d" % n)
STRINGS = st.one_of(
    INTEGERS,
    st.sampled_from(NOT_INTEGERS),
    st.sampled_from([b"%d" % n for n in EDGES]),
    st.sampled_from((15, 16, 17, 253, 254, 255, 5000)).map(lambda n: b"m" * n),
    st.binary(max_size=6),
)


def steps_of(texts: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[tuple]]:  # type: ignore[type-arg]
    step = st.one_of(
        st.tuples(st.just("add"), texts),
        st.tuples(st.just("add_many"), st.lists(texts, min_size=1, max_size=12)),
        st.tuples(st.just("remove"), texts),
        st.tuples(st.just("pop"), st.integers(0, 5)),
    )
    return st.lists(step, max_size=60)


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    yield
    sets.set_limits(intset=512, entries=128, value=64)


KEYSPACE = Keyspace(1, 4)  # doors own nothing: what they open must stay
NAMES = (b"set:%d" % n for n in itertools.count())


def new_set(*found: bytes, database: Database = KEYSPACE.databases[0], name: bytes | None = None) -> Set:
    present = database.create(name or next(NAMES), Set)
    for member in found:
        present.add(member)
    return present


def numbers(*found: int) -> list[bytes]:
    return [b"%d" % n for n in found]


def check(present: Set, model: set[bytes]) -> None:
    listed = present.members()
    assert len(present) == len(model) == len(listed)
    assert set(listed) == model
    assert all(member in present for member in model)
    if present.encoding == "intset":
        assert listed == sorted(listed, key=int)


def play(present: Set, model: set[bytes], step: tuple) -> None:  # type: ignore[type-arg]
    match step:
        case ("add", member):
            assert present.add(member) == (member not in model)
            model.add(member)
        case ("add_many", found):
            before = len(model)
            model.update(found)
            assert present.add_many(found) == len(model) - before
        case ("remove", member):
            assert present.remove(member) == (member in model)
            model.discard(member)
        case ("pop", count):
            popped = present.pop_many(count)
            assert len(set(popped)) == len(popped) == min(count, len(model))
            assert set(popped) <= model
            model.difference_update(popped)
    for member in NOT_INTEGERS:
        assert (member in present) == (member in model)


@pytest.mark.parametrize("texts", [INTEGERS, STRINGS])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_like_a_set(texts: st.SearchStrategy[bytes], data: st.DataObject) -> None:
    intset, entries = data.draw(st.sampled_from((0, 1, 8, 512))), data.draw(st.sampled_from((0, 1, 8, 128)))
    value = data.draw(st.sampled_from((0, 1, 3, 16, 64)))
    sets.set_limits(intset=intset, entries=entries, value=value)
    keyspace = Keyspace(1, 4)
    database = keyspace.databases[0]
    empty = keyspace.memory_used()
    present = new_set(database=database, name=b"key")
    model: set[bytes] = set()
    for step in data.draw(steps_of(texts)):
        play(present, model, step)
        if present.encoding == "intset":
            assert len(model) <= intset
        elif present.encoding == "listpack":
            assert len(model) <= entries
            assert all(len(member) <= value for member in model)
    check(present, model)
    assert database.copy(b"key", database, b"copy")
    database.remove(b"key")
    copy = database.peek(b"copy")
    check(copy, model)
    for member in sorted(model):
        assert copy.remove(member)
    assert (len(copy), copy.pop(), copy.random()) == (0, None, None)
    database.remove(b"copy")
    while keyspace.run_lazyfree(1000):
        pass
    assert keyspace.memory_used() <= empty + 4096  # tables of keys keep their slots


def test_forms_follow_the_members() -> None:
    present = new_set(*numbers(3, 1, 2))
    assert (present.encoding, present.members()) == ("intset", numbers(1, 2, 3))
    present.add(b"a")
    assert (present.encoding, present.members()) == ("listpack", [*numbers(1, 2, 3), b"a"])
    present.remove(b"a")
    assert present.encoding == "listpack"
    present.add(b"x" * 65)
    assert present.encoding == "hashtable"
    present.remove(b"x" * 65)
    assert present.encoding == "hashtable"
    assert sorted(present.members()) == numbers(1, 2, 3)


def test_integers_grow_past_the_limit() -> None:
    present = new_set(*numbers(*range(512)))
    assert present.encoding == "intset"
    assert not present.add(b"511")
    assert present.encoding == "intset"
    assert present.add(b"512")
    assert present.encoding == "hashtable"
    assert sorted(present.members(), key=int) == numbers(*range(513))


def test_many_integers_and_a_string_take_a_table() -> None:
    present = new_set(*numbers(*range(128)))
    present.add(b"a")
    assert present.encoding == "hashtable"
    present = new_set(*numbers(*range(127)))
    present.add(b"a")
    assert present.encoding == "listpack"
    present.add(b"b")
    assert present.encoding == "hashtable"


def test_integers_too_long_to_spell_out() -> None:
    sets.set_limits(value=10)
    present = new_set(*numbers(1, -10_000_000_000))
    present.add(b"a")
    assert present.encoding == "hashtable"


def test_many_arguments_convert_at_once() -> None:
    present = new_set()
    present.add_many([b"a"] * 129)
    assert (present.encoding, len(present)) == ("hashtable", 1)
    present = new_set()
    present.add_many([b"1"] * 512)
    assert (present.encoding, len(present)) == ("intset", 1)
    present = new_set()
    present.add_many([b"1"] * 513)
    assert (present.encoding, len(present)) == ("hashtable", 1)


@pytest.mark.parametrize("width", [15, 31, 63])
def test_widening(width: int) -> None:
    low, high = -(1 << width), (1 << width) - 1
    for order in ([0, high, low], [0, low, high], [low, 0, high], [high, low, 0]):
        present = new_set(*numbers(*order))
        assert (present.encoding, present.members()) == ("intset", numbers(low, 0, high))
        assert present.remove(b"%d" % high)
        assert present.members() == numbers(low, 0)


@pytest.mark.parametrize("texts", [INTEGERS, STRINGS])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_algebra(texts: st.SearchStrategy[bytes], data: st.DataObject) -> None:
    sets.set_limits(entries=8)
    models = data.draw(st.lists(st.sets(texts, max_size=20), min_size=1, max_size=4))
    found = [new_set(*model) for model in models]
    common = set.intersection(*models)
    limit = data.draw(st.integers(1, 5))
    assert sorted(common_members(found)) == sorted(common)
    assert common_count(found) == len(common)
    assert common_count(found, limit) == min(limit, len(common))
    check(union(found), set.union(*models))
    check(intersection(found), common)
    check(difference(found[0], found[1:]), models[0].difference(*models[1:]))
    for present, model in zip(found, models, strict=True):
        check(present, model)


def test_difference_both_ways() -> None:
    """Many small sets make removal from a copy cheaper than looking every member up everywhere."""
    first = new_set(*(b"%d!" % n for n in range(1000)))
    others = [new_set(b"%d!" % n) for n in range(100)]
    check(difference(first, others), {b"%d!" % n for n in range(100, 1000)})
    check(difference(first, [first]), set())


def test_swap() -> None:
    present, other = new_set(*numbers(1, 2)), Set()
    other.add_many([b"%d?" % n for n in range(1000)])
    present.swap(other)
    check(other, set(numbers(1, 2)))
    check(present, {b"%d?" % n for n in range(1000)})


FORMS = {
    "intset": numbers(*range(100)),
    "listpack": [b"m%d" % n for n in range(100)],
    "hashtable": [b"m%d" % n for n in range(1000)],
}


@pytest.mark.parametrize("form", FORMS)
def test_draws_are_fair(form: str) -> None:
    members.seed(2)
    found = FORMS[form]
    present = new_set(*found)
    assert present.encoding == form
    times = dict.fromkeys(found, 0)
    for _ in range(len(found) * 100):
        drawn = present.random()
        assert drawn is not None
        times[drawn] += 1
    spread = sum((n - 100) ** 2 / 100 for n in times.values())  # chi squared, as many degrees as members
    assert spread < len(found) + 5 * (2 * len(found)) ** 0.5


@pytest.mark.parametrize("form", FORMS)
def test_samples_and_pops(form: str) -> None:
    found = FORMS[form]
    size = len(found)
    for count in (0, 1, size // 10, size // 2, size - 1, size, size + 1):
        present = new_set(*found)
        sample = present.sample(count)
        assert len(set(sample)) == len(sample) == min(count, size)
        assert set(sample) <= set(found)
        popped = present.pop_many(count)
        assert len(set(popped)) == len(popped) == min(count, size)
        check(present, set(found) - set(popped))
    present = new_set(*found)
    assert {present.pop() for _ in found} == set(found)
    assert present.pop() is None


def test_popping_nearly_all_makes_it_small_again() -> None:
    present = new_set(*FORMS["hashtable"])
    present.pop_many(900)
    assert (present.encoding, len(present)) == ("listpack", 100)


@pytest.mark.parametrize("size", [0, 1, 100, 1000])
def test_scan_finds_everything_that_stays(size: int) -> None:
    present = new_set(*(b"stay:%d" % n for n in range(size)))
    seen: set[bytes] = set()
    cursor, turn = 0, 0
    while True:
        cursor, found = present.scan(cursor, 20)
        seen.update(found)
        for n in range(20):  # grows and shrinks under the scan
            member = b"come and go:%d" % (turn * 20 + n)
            present.add(member)
            if turn % 2:
                present.remove(member)
        turn += 1
        if not cursor:
            break
        assert turn < 10_000
    assert {member for member in seen if member.startswith(b"stay")} == {b"stay:%d" % n for n in range(size)}


def test_memory_is_known() -> None:
    database = KEYSPACE.databases[0]
    present = new_set(*numbers(*range(10)), database=database, name=b"key")
    small = database.memory_of(b"key")
    for n in range(10_000):
        present.add(b"member:%06d" % n)
    large = database.memory_of(b"key")
    assert 0 < (small or 0) < 120
    assert 300_000 < (large or 0) < 1_000_000


def test_large_ones_are_freed_in_slices() -> None:
    keyspace = Keyspace(1, 4)
    database = keyspace.databases[0]
    empty = keyspace.memory_used()
    present = new_set(database=database, name=b"key")
    present.add_many([b"m%d" % n for n in range(20_000)])
    database.remove(b"key")
    assert keyspace.lazyfree_pending == 1
    assert keyspace.memory_used() > empty + 100_000
    while keyspace.run_lazyfree(1):
        pass
    assert keyspace.lazyfree_pending == 0
    assert keyspace.memory_used() <= empty + 4096
