"""Vector sets against a dictionary of vectors and numpy's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeekdb.types import vector_index
from zeekdb.types.vector_codec import BIN, BY_CODE, NOQUANT, Q8, Codec, Floats, project
from zeekdb.types.vector_filter import Filter
from zeekdb.types.vectorset import Match, VectorSet

CODECS = pytest.mark.parametrize("codec", BY_CODE.values(), ids=lambda codec: codec.name)


def vectors(count: int, dim: int, seed: int = 1) -> Floats:
    """Random directions of random lengths."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, dim)) * random.uniform(0.1, 50, (count, 1))).astype(np.float32)


def filled(codec: Codec, rows: Floats) -> VectorSet:
    made = VectorSet(codec, rows.shape[1], vector_index.M_DEFAULT)
    for place, row in enumerate(rows):
        assert made.add(b"%d" % place, made.prepare(row))
    return made


def matching(made: VectorSet, *arguments: Any) -> list[Match]:
    """A filtered search without pauses."""
    return finished(made.nearest_matching(*arguments))


def finished(steps: Generator[None, None, list[Match]]) -> list[Match]:
    """What a search returns at last."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def cosines(rows: Floats, query: Floats) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
    return (rows.astype(np.float64) @ query) / np.where(norms == 0, 1, norms)


# --- codecs -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
def test_what_comes_back(values: list[float]) -> None:
    given_ = np.array(values, np.float32)
    largest = float(np.abs(given_).max())
    exact = NOQUANT.decode(NOQUANT.encode(given_), len(values))
    np.testing.assert_allclose(exact, given_, rtol=1e-6, atol=largest * 1e-6)
    near = Q8.decode(Q8.encode(given_), len(values))
    np.testing.assert_allclose(near, given_, atol=largest / 254 * 1.001)
    assert BIN.decode(BIN.encode(given_), len(values)).tolist() == [1 if value > 0 else -1 for value in values]


def test_the_examples_of_the_documentation() -> None:
    given_ = np.array([1.262185, 1.958231], np.float32)
    assert Q8.decode(Q8.encode(given_), 2).tolist() == pytest.approx([1.2643694877624512, 1.958230972290039], rel=1e-6)
    assert NOQUANT.decode(NOQUANT.encode(given_), 2).tolist() == pytest.approx([1.262185, 1.958231], rel=1e-6)
    assert BIN.decode(BIN.encode(given_), 2).tolist() == [1, 1]


@CODECS
@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-45, 0.0], [2e38, -2e38], [1e-30, 1e30]])
def test_extreme_vectors(codec: Codec, values: list[float]) -> None:
    stored = codec.encode(np.array(values, np.float32))
    assert np.isfinite(codec.decode(stored, 2)).all()
    assert math.isfinite(stored.norm)


@CODECS
@pytest.mark.parametrize("values", [[math.nan, 0], [math.inf, 0], [3.4e38] * 100])
def test_vectors_without_a_norm(codec: Codec, values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        codec.encode(np.array(values, np.float32))


def test_raw_rows() -> None:
    given_ = np.array([3, -4, 0], np.float32)
    assert NOQUANT.raw(NOQUANT.encode(given_).row) == np.array([0.6, -0.8, 0], "<f4").tobytes()
    assert Q8.raw(Q8.encode(given_).row) == bytes([95, 129, 0])
    assert BIN.raw(BIN.encode(given_).row) == bytes([1]) + bytes(7)


@pytest.mark.parametrize(("count", "dim"), [(768, 256), (100, 100), (300, 77), (5, 1), (1, 1), (64, 63)])
def test_projections_keep_angles(count: int, dim: int) -> None:
    rows = vectors(30, count)
    reduced = np.array([project(row, dim) for row in rows])
    assert reduced.shape == (30, dim)
    assert np.array_equal(project(rows[0], dim), reduced[0])
    errors = np.abs(np.array([cosines(rows, row) for row in rows]) - [cosines(reduced, row) for row in reduced])
    assert errors.mean() < 1.5 / math.sqrt(dim)


def test_a_projection_never_changes() -> None:
    """Stored vectors were made by it."""
    given_ = np.arange(1, 7, dtype=np.float32)
    assert project(given_, 3).tolist() == pytest.approx([-4.4907312, -1.2247448, -5.3072276])


# --- sets ---------------------------------------------------------------------------------------------------------


@CODECS
def test_scores(codec: Codec) -> None:
    dim = 64
    made = filled(codec, np.array([[1] * dim, [-1] * dim, [1, -1] * (dim // 2)], np.float32))
    query = made.prepare(np.full(dim, 0.5, np.float32))
    found = made.nearest(query.row, 10, 100)
    assert [match.name for match in found] == [b"0", b"2", b"1"]
    assert [match.score for match in found] == pytest.approx([1, 0.5, 0], abs=1e-6)


@pytest.mark.parametrize("codec", [Q8, NOQUANT], ids=lambda codec: codec.name)
def test_a_zero_vector_is_like_nothing(codec: Codec) -> None:
    made = filled(codec, np.array([[1, 0], [0, 0]], np.float32))
    query = made.prepare(np.array([-1, 0], np.float32))
    assert [(match.name, match.score) for match in made.nearest(query.row, 2, 10)] == [(b"1", 0.5), (b"0", 0)]


@CODECS
def test_recall_of_the_graph(codec: Codec) -> None:
    rows = vectors(4000, 24)
    made = filled(codec, rows)
    hits = 0
    for query in vectors(50, 24, seed=2):
        row = made.prepare(query).row
        truth = made.nearest(row, 10, 100, exact=True)
        found = made.nearest(row, 10, 100)
        worst = truth[-1].distance + 1e-6  # of several as far as the last, any may be among the ten
        hits += sum(match.distance <= worst for match in found)
    assert hits >= 475
    best = set(np.argsort(-cosines(rows, query))[:10].tolist())
    assert codec is BIN or len(best & {int(match.name) for match in truth}) >= 8


NAMES = st.integers(0, 12).map(lambda number: b"n%d" % number)
POINTS = st.lists(st.integers(-3, 3), min_size=3, max_size=3)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NAMES, POINTS),
        st.tuples(st.just("remove"), NAMES, st.none()),
        st.tuples(st.just("attributes"), NAMES, st.integers(0, 3)),
        st.tuples(st.just("copy"), st.none(), st.none()),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(OPERATIONS, POINTS, st.sampled_from([Q8, NOQUANT]))
def test_against_a_dictionary(operations: list[tuple], query: list[int], codec: Codec) -> None:
    made = VectorSet(codec, 3, 4)
    model: dict[bytes, list[int]] = {}
    attributes: dict[bytes, bytes] = {}
    for what, name, value in operations:
        if what == "add":
            assert made.add(name, made.prepare(np.array(value, np.float32))) == (name not in model)
            model[name] = value
        elif what == "remove":
            assert made.remove(name) == (model.pop(name, None) is not None)
            attributes.pop(name, None)
        elif what == "attributes":
            text = b'{"n":%d}' % value if value else b""
            assert made.set_attributes(name, text) == (name in model)
            if name in model and text:
                attributes[name] = text
            elif name in model:
                attributes.pop(name, None)
        else:
            made = made.copy()
    assert len(made) == len(model)
    assert made.attribute_count == len(attributes)
    assert {name: made.attributes(name) for name in model} == {name: attributes.get(name) for name in model}
    assert list(made.between(None, None, (True, True), -1)) == sorted(model)
    assert sorted(made.sample(100)) == sorted(model)
    for name, value in model.items():
        stored = made.stored(name)
        assert stored is not None
        np.testing.assert_allclose(codec.decode(stored, 3), value, atol=0.02)
    row = made.prepare(np.array(query, np.float32)).row
    points = np.array([*model.values()], np.float32).reshape(-1, 3)
    wanted = dict(zip(model, cosines(points, np.array(query)), strict=True))
    if any(query) and all(any(value) for value in model.values()):
        found = made.nearest(row, 100, 100)
        assert {match.name for match in found} == set(model)
        assert [match.distance for match in found] == sorted(match.distance for match in found)
        for match in found:
            assert 1 - match.distance == pytest.approx(wanted[match.name], abs=0.02)
        passed = matching(made, row, 100, 1, Filter(".n > 1"), 0)
        assert [match.name for match in passed] == [
            match.name for match in found if attributes.get(match.name, b"") in (b'{"n":2}', b'{"n":3}')
        ]


def test_ranges_of_names() -> None:
    made = VectorSet(Q8, 1, 4)
    for name in (b"b", b"a", b"\xff", b"ab", b"c"):
        made.add(name, made.prepare(np.ones(1, np.float32)))
    assert list(made.between(b"a", b"b", (True, True), -1)) == [b"a", b"ab", b"b"]
    assert list(made.between(b"a", b"b", (False, False), -1)) == [b"ab"]
    assert list(made.between(b"aa", None, (False, True), 2)) == [b"ab", b"b"]
    assert list(made.between(None, b"aa", (True, True), 0)) == []
    assert list(made.between(b"z", b"b", (True, True), -1)) == []


def test_filters_look_further_until_they_have_found_enough() -> None:
    rows = vectors(2000, 8)
    made = filled(Q8, rows)
    query = made.prepare(vectors(1, 8, seed=3)[0])
    everyone = [match.name for match in made.nearest(query.row, 2000, 1, exact=True)]
    rare = everyone[400::400]
    for name in everyone:
        made.set_attributes(name, b'{"rare":%d}' % (name in rare))
    wanted = Filter(".rare")

    def names(count: int, effort: int, exact: bool = False) -> list[bytes]:
        return [match.name for match in matching(made, query.row, count, 10, wanted, effort, exact)]

    assert names(3, 0) == rare[:3]
    assert names(10, 0) == rare
    assert names(10, 1000) == rare[:2]
    assert names(10, 399) == []
    assert names(10, 399, exact=True) == rare
    assert matching(VectorSet(Q8, 8, 4), query.row, 1, 1, wanted, 0) == []


def test_a_filtered_search_bears_changes_between_its_slices() -> None:
    made = filled(Q8, vectors(2000, 8))
    for place in range(2000):
        made.set_attributes(b"%d" % place, b'{"n":%d}' % place)
    steps = made.nearest_matching(made.prepare(vectors(1, 8, seed=3)[0]).row, 2000, 10, Filter(".n >= 1000"), 0)
    next(steps)
    for place in range(1900):
        made.remove(b"%d" % place)
    next(steps)
    made.add(b"new", made.prepare(vectors(1, 8)[0]))
    names = {match.name for match in finished(steps)}
    assert {b"%d" % place for place in range(1900, 2000)} <= names
    assert all(int(name) >= 1000 for name in names)


def test_memory_is_counted() -> None:
    small, large = filled(Q8, vectors(10, 64)), filled(NOQUANT, vectors(1000, 64))
    assert 1000 < small.__sizeof__() < 10_000
    assert 400_000 < large.__sizeof__() < 800_000
    before = small.__sizeof__()
    small.set_attributes(b"1", b"x" * 1000)
    assert small.__sizeof__() - before > 1000
    small.remove(b"1")
    assert small.__sizeof__() < before + 200


def test_emptied_and_filled_again() -> None:
    made = filled(Q8, vectors(50, 8))
    for place in range(50):
        assert made.remove(b"%d" % place)
    assert not made.remove(b"0")
    assert (len(made), made.max_level, list(made.nearest(made.prepare(vectors(1, 8)[0]).row, 5, 10))) == (0, 0, [])
    row = vectors(1, 8)[0]
    made.add(b"new", made.prepare(row))
    assert [match.name for match in made.nearest(made.prepare(row).row, 5, 10)] == [b"new"]


def test_neighbours() -> None:
    made = filled(Q8, vectors(100, 8))
    links = made.neighbours(b"7")
    assert len(links) == 2 * made.m
    assert b"7" not in {match.name for match in links}
    stored = made.stored(b"7")
    assert stored is not None
    assert [match.name for match in made.nearest(stored.row, 2, 10)] == [b"7", links[0].name]
