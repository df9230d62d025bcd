"""Cells against plain halving, and the search against measuring everything."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from zeekdb.hot import geohash
from zeekdb.hot.geohash import Shape
from zeekdb.hot.keyspace import Keyspace
from zeekdb.hot.zsets import ZSet

LATITUDE_MAX = 85.05112878
longitudes = st.floats(-180, 179.999999)
latitudes = st.floats(-LATITUDE_MAX, 85.05)
places = st.tuples(longitudes, latitudes)
HALVINGS = 26


def halved(longitude: float, latitude: float) -> int:
    """The score, found by halving the map 26 times in either direction."""
    spans, bits = [[-180.0, 180.0], [-LATITUDE_MAX, LATITUDE_MAX]], 0
    for _ in range(HALVINGS):
        for span, value in zip(spans, (longitude, latitude), strict=True):
            middle = (span[0] + span[1]) / 2
            upper = value >= middle
            span[not upper] = middle
            bits = bits << 1 | upper
    return bits


@given(places)
def test_encode_is_halving(place: tuple[float, float]) -> None:
    score = geohash.encode(*place)
    longitude, latitude = geohash.decode(float(score))
    assert abs(longitude - place[0]) <= 360 / 2**HALVINGS
    assert abs(latitude - place[1]) <= 180 / 2**HALVINGS
    assert geohash.encode(longitude, latitude) == score
    # a place on a cell's border may fall to either side by rounding; its middle may not
    assert halved(longitude, latitude) == score


@given(st.floats(allow_nan=False))
def test_any_score_decodes_to_a_place(score: float) -> None:
    longitude, latitude = geohash.decode(score)
    assert geohash.is_valid(longitude, latitude)
    assert len(geohash.text(score)) == 11


@given(places, places)
def test_distance(one: tuple[float, float], other: tuple[float, float]) -> None:
    distance = geohash.distance(*one, *other)
    assert math.isclose(distance, geohash.distance(*other, *one), rel_tol=1e-9, abs_tol=1e-6)
    assert 0 <= distance <= math.pi * 6372797.560856 + 1
    assert geohash.distance(*one, *one) == 0


@given(
    st.lists(places, min_size=1, max_size=60),
    places.filter(lambda place: abs(place[1]) < 80 and abs(place[0]) < 150),
    st.floats(0, 500_000),
)
def test_search_finds_what_is_inside(stored: list[tuple[float, float]], around: tuple[float, float], reach: float) -> (
    None
):  # fmt: skip
    source = Keyspace().databases[0].create(b"k", ZSet)
    for at, place in enumerate(stored):
        source.add(b"%d" % at, float(geohash.encode(*place)))
    shape = Shape.circle(*around, reach, 1.0)
    found = geohash.search(source, shape, 0)
    wanted = {
        member
        for member, score in source.pairs()
        if geohash.distance(*around, *geohash.decode(score)) <= reach
    }
    assert {place[1] for place in found} == wanted
    assert len(found) == len(wanted)
    assert all(place[0] <= reach for place in found)
    assert len(geohash.search(source, shape, 1)) == min(len(wanted), 1)
