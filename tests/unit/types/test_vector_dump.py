"""Vector sets as bytes: what goes out comes back, and nothing else comes in."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeekdb.types import vector_dump
from zeekdb.types.vector_codec import BY_CODE, NOQUANT, Q8, Codec, Row
from zeekdb.types.vectorset import VectorSet

CODECS = pytest.mark.parametrize("codec", BY_CODE.values(), ids=lambda codec: codec.name)


def made_of(codec: Codec, count: int = 120, dim: int = 5, removed: int = 30) -> VectorSet:
    made = VectorSet(codec, dim, 4)
    for place, row in enumerate(np.random.default_rng(5).standard_normal((count, dim)).astype(np.float32)):
        made.add(b"%d" % place, made.prepare(row))
    for place in range(removed):
        made.remove(b"%d" % place)
    made.set_attributes(b"%d" % (count - 1), b'{"a":1}')
    return made


def same(left: VectorSet, right: VectorSet) -> None:
    assert (left.codec, left.dim, left.m, left.input_dim) == (right.codec, right.dim, right.m, right.input_dim)
    names = left.sample(1 << 20)
    assert sorted(names) == sorted(right.sample(1 << 20)) == list(right.between(None, None, (True, True), -1))
    assert [left.attributes(name) for name in names] == [right.attributes(name) for name in names]
    for name in names:
        ours, theirs = left.stored(name), right.stored(name)
        assert ours is not None
        assert theirs is not None
        assert (ours.row.tolist(), *ours[1:]) == (theirs.row.tolist(), *theirs[1:])
        assert distances(left, ours.row, True) == distances(right, ours.row, True)


def distances(made: VectorSet, row: Row, exact: bool) -> list[float]:
    return [match.distance for match in made.nearest(row, 5, 50, exact)]


@CODECS
def test_there_and_back(codec: Codec) -> None:
    for made in (made_of(codec), made_of(codec, 1, 1, 0), made_of(codec, 4000, 13, 10)):
        data = made.to_bytes()
        assert data[5] == vector_dump.GRAPH
        back = VectorSet.from_bytes(data)
        same(made, back)
        row = made.prepare(np.arange(made.dim, dtype=np.float32)).row
        assert distances(made, row, False) == distances(back, row, False)  # the same graph
        back.add(b"new", back.prepare(np.ones(back.dim, np.float32)))
        assert back.remove(b"new")
        same(made, back)
        assert back.to_bytes() != b""


@CODECS
def test_rows_where_the_format_is_unknown(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise ValueError

    made = made_of(codec)
    assert vector_dump.graphs_are_known(codec)
    with monkeypatch.context() as patch:
        patch.setattr(vector_dump, "check_graph", refuse)
        vector_dump.graphs_are_known.cache_clear()
        data = made.to_bytes()
        vector_dump.graphs_are_known.cache_clear()
        assert data[5] == vector_dump.ROWS
        same(made, VectorSet.from_bytes(data))
        with pytest.raises(ValueError, match="cut"):
            VectorSet.from_bytes(data[:-1])


def test_a_reduced_set() -> None:
    made = VectorSet(Q8, 2, 16, 4)
    made.add(b"x", made.prepare(np.array([1, 2, 3, 4], np.float32)))
    same(made, VectorSet.from_bytes(made.to_bytes()))


SOUND = [made_of(codec).to_bytes() for codec in BY_CODE.values()]


@given(st.sampled_from(SOUND), st.integers(0, 1 << 62))
def test_broken_bytes_are_refused_or_harmless(sound: bytes, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(sound)
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(data))
        what = chance.random()
        if what < 0.6:
            data[place] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        elif what < 0.9:
            data[place : place + 4] = chance.randbytes(4)
        else:
            del data[place:]
            break
    try:
        made = VectorSet.from_bytes(bytes(data))
    except ValueError:
        return
    row = made.prepare(np.ones(made.input_dim or made.dim, np.float32))
    made.nearest(row.row, len(made), 10)
    made.nearest(row.row, 3, 1)
    made.add(b"new", row)
    made.remove(b"new")
    made.copy().to_bytes()


@pytest.mark.parametrize("values", [[2, 0, 0], [float("nan"), 0, 0], [float("inf"), 0, 0]])
def test_rows_of_another_length_are_refused(values: list[float]) -> None:
    made = VectorSet(NOQUANT, 3, 4)
    made.add(b"x", made.prepare(np.array([1, 0, 0], np.float32)))
    data = made.to_bytes()
    sound, broken = (np.array(row, "<f4").tobytes() for row in ([1, 0, 0], values))
    assert data.count(sound) == 1
    with pytest.raises(ValueError, match="unit vector"):
        VectorSet.from_bytes(data.replace(sound, broken))
