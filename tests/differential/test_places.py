"""Searches around a place, byte for byte as redis-server answers them in RESP3."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.differential import gen_geo
from tests.differential.grammar import compile_template
from tests.differential.oracle import servers
from tests.support import Wire, encode

STORIES = 12
COMMANDS = 60
SHAPES = (
    "GEOSEARCH places FROMLONLAT <longitude> <latitude> BYRADIUS <length> <unit> WITHCOORD WITHDIST WITHHASH",
    "GEOSEARCH places FROMLONLAT <longitude> <latitude> BYBOX <length> <length> <unit> WITHCOORD WITHDIST WITHHASH",
    "GEOPOS places (<geo_member>)+",
    "GEODIST places <geo_member> <geo_member> <unit>",
)


@pytest.fixture(scope="module")
def wires() -> Iterator[tuple[Wire, Wire]]:
    with servers() as pair:
        for wire in (pair.reference, pair.subject):
            wire("HELLO", 3)
        yield pair.reference, pair.subject


def raw(wire: Wire, command: list[bytes]) -> bytes:
    """The reply's bytes; an ECHO behind it tells where it ends."""
    wire.send(encode(*command) + encode("ECHO", "the end"))
    data = b""
    while not data.endswith(b"$7\r\nthe end\r\n"):
        data += wire.file.read1()
    return data


@pytest.mark.parametrize("seed", range(STORIES))
def test_replies_are_spelled_alike(wires: tuple[Wire, Wire], seed: int) -> None:
    r = random.Random(seed)
    places = [word for at in range(80) for word in (*map(b"%.9f".__mod__, gen_geo.place(r)), b"m%d" % (at % 41))]
    for wire in wires:
        wire("DEL", "places")
        wire("GEOADD", "places", *places)
    found = 0
    makers = [compile_template(text, gen_geo.POOLS) for text in SHAPES]
    for _ in range(COMMANDS):
        command = r.choice(makers)(r)
        expected, actual = (raw(wire, command) for wire in wires)
        assert actual == expected, command
        found += len(expected) > 100
    assert found  # something was compared
