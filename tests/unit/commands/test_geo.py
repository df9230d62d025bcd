"""Places: replies, errors, events. The figures are redis-server's."""

from __future__ import annotations

from typing import Any

import pytest

import zeekdb.commands.geo
import zeekdb.commands.sorted_sets
import zeekdb.commands.strings  # noqa: F401
from tests.unit.commands.harness import Bench
from zeekdb.commands.reply import NULL_ARRAY, SpelledDouble

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
UNIT = "ERR unsupported unit provided. please use M, KM, FT, MI"


def plain(reply: Any) -> Any:
    """The reply with doubles as their text."""
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    return reply.text if isinstance(reply, SpelledDouble) else reply


@pytest.fixture
def bench() -> Bench:
    made = Bench(zset_max_listpack_entries=128)
    made("SET", "string", "v")
    made("GEOADD", "sicily", "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania")
    made.events.clear()
    return made


def test_geoadd(bench: Bench) -> None:
    assert bench("ZSCORE", "sicily", "Palermo") == 3479099956230698.0
    assert bench("GEOADD", "sicily", "13.583333", "37.316667", "Agrigento") == 1
    assert bench.events == [("zadd", b"sicily")]
    assert bench.events_of("GEOADD", "sicily", "NX", 0, 0, "Agrigento") == []
    assert bench("GEOADD", "sicily", "XX", "CH", 1, 1, "Agrigento", 2, 2, "nobody") == 1
    assert bench("GEOADD", "none", "XX", 1, 1, "a") == 0
    assert bench("GEOADD", "sicily", "XX", "NX", 0, 0, "a") == SYNTAX
    assert bench("GEOADD", "sicily", "CH", "CH", "CH", "CH") == SYNTAX
    assert bench("GEOADD", "sicily", 0, 0, "a", 1) == SYNTAX
    assert bench("GEOADD", "sicily", "x", 0, "a") == "ERR value is not a valid float"
    bad = bench("GEOADD", "sicily", 0, 0, "a", 200, "-86", "b")
    assert bad == "ERR invalid longitude,latitude pair 200.000000,-86.000000"
    assert bench("ZSCORE", "sicily", "a") is None
    assert bench("GEOADD", "string", 0, 0, "a") == WRONG_TYPE


def test_the_edges_of_the_map(bench: Bench) -> None:
    assert bench("GEOADD", "edges", 180, "85.05112878", "ne", "-180", "-85.05112878", "sw") == 2
    assert bench("ZSCORE", "edges", "sw") == 0
    assert plain(bench("GEOPOS", "edges", "sw")) == [[b"-179.99999731779098511", b"-85.05112751263942528"]]
    assert plain(bench("GEOPOS", "edges", "ne")) == [[b"180", b"85.0511287799999991"]]


def test_geodist(bench: Bench) -> None:
    assert bench("GEODIST", "sicily", "Palermo", "Catania") == b"166274.1516"
    assert bench("GEODIST", "sicily", "Palermo", "Catania", "KM") == b"166.2742"
    assert bench("GEODIST", "sicily", "Palermo", "Catania", "mi") == b"103.3182"
    assert bench("GEODIST", "sicily", "Palermo", "Palermo") == b"0.0000"
    assert bench("GEODIST", "sicily", "Palermo", "nobody") is None
    assert bench("GEODIST", "none", "a", "b") is None
    assert bench("GEODIST", "none", "a", "b", "x") == UNIT
    assert bench("GEODIST", "none", "a", "b", "m", "m") == SYNTAX
    assert bench("GEODIST", "string", "a", "b") == WRONG_TYPE


def test_geohash_and_geopos(bench: Bench) -> None:
    assert bench("GEOHASH", "sicily", "Palermo", "nobody", "Catania") == [b"sqc8b49rny0", None, b"sqdtr74hyu0"]
    assert bench("GEOHASH", "none", "a") == [None]
    assert bench("GEOHASH", "sicily") == []
    palermo = [b"13.36138933897018433", b"38.11555639549629859"]
    assert plain(bench("GEOPOS", "sicily", "Palermo", "nobody")) == [palermo, NULL_ARRAY]
    assert bench("GEOPOS", "none", "a", "b") == [NULL_ARRAY, NULL_ARRAY]
    assert bench("GEOPOS", "string", "a") == bench("GEOHASH", "string", "a") == WRONG_TYPE


def test_georadius(bench: Bench) -> None:
    around = ("GEORADIUS", "sicily", 15, 37, 200, "km")
    assert bench(*around) == [b"Palermo", b"Catania"]
    assert bench(*around, "ASC") == bench(*around, "count", 9) == [b"Catania", b"Palermo"]
    assert bench(*around, "DESC", "COUNT", 1) == [b"Palermo"]
    assert bench(*around, "COUNT", 1, "ANY") == [b"Palermo"]
    assert plain(bench(*around, "WITHDIST", "WITHHASH", "WITHCOORD", "COUNT", 1)) == [
        [b"Catania", b"56.4413", 3479447370796909, [b"15.08726745843887329", b"37.50266842333162032"]]
    ]
    assert bench("GEORADIUSBYMEMBER_RO", "sicily", "Catania", 1, "m") == [b"Catania"]
    assert bench("GEORADIUS_RO", "sicily", 0, 0, 1, "m") == bench("GEORADIUS", "none", 0, 0, 1, "m") == []


def test_georadius_stores(bench: Bench) -> None:
    around = ("GEORADIUS", "sicily", 15, 37, 200, "km")
    assert bench(*around, "STORE", "out") == 2
    assert bench.events == [("georadiusstore", b"out")]
    assert bench("ZRANGE", "out", 0, -1) == [b"Palermo", b"Catania"]
    assert bench(*around, "STORE", "x", "STOREDIST", "out", "COUNT", 1) == 1
    assert bench("ZRANGE", "out", 0, -1, "WITHSCORES") == [b"Catania", 56.441257870158204]
    assert bench.events_of("GEORADIUS", "sicily", 0, 0, 1, "m", "STORE", "out") == ["del"]
    bench("SET", "out", "v")
    assert bench("GEORADIUSBYMEMBER", "none", "a", "1", "m", "STORE", "out") == 0
    assert bench("ZCARD", "out") == 0
    assert bench(*around, "STORE", "out", "WITHDIST") == (
        "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
    )
    assert bench("GEORADIUS_RO", *around[1:], "STORE", "out") == bench(*around, "STORE") == SYNTAX


def test_searches_refuse(bench: Bench) -> None:
    assert bench("GEORADIUS", "sicily", 0, 0, "x", "m") == "ERR need numeric radius"
    assert bench("GEORADIUS", "sicily", 0, 0, -1, "m") == "ERR radius cannot be negative"
    assert bench("GEORADIUS", "sicily", 0, 0, 1, "yd") == UNIT
    assert bench("GEORADIUS", "sicily", 0, 0, 1, "m", "COUNT", 0) == "ERR COUNT must be > 0"
    assert bench("GEORADIUS", "sicily", 0, 0, 1, "m", "ANY") == "ERR the ANY argument requires COUNT argument"
    assert bench("GEORADIUS", "string", "x", 0, 1, "m") == WRONG_TYPE
    missing = "ERR could not decode requested zset member"
    assert bench("GEORADIUSBYMEMBER", "sicily", "nobody", 1, "m") == missing
    assert bench("GEOSEARCH", "sicily", "FROMMEMBER", "nobody", "BYRADIUS", 1, "m") == missing
    search = ("GEOSEARCH", "sicily", "FROMLONLAT", 0, 0)
    assert bench(*search, "BYBOX", "x", 1, "m") == "ERR need numeric width"
    assert bench(*search, "BYBOX", 1, "x", "m") == "ERR need numeric height"
    assert bench(*search, "BYBOX", 1, -1, "m") == "ERR height or width cannot be negative"
    assert bench(*search, "BYBOX", 1, 1, "m", "BYRADIUS", 1, "m") == SYNTAX
    assert bench(*search, "FROMMEMBER", "Palermo", "BYRADIUS", 1, "m") == SYNTAX
    assert bench(*search, "BYRADIUS", 1, "m", "STOREDIST") == SYNTAX
    assert bench(*search, "ASC", "ASC", "ASC") == (
        "ERR exactly one of BYRADIUS and BYBOX can be specified for geosearch"
    )
    assert bench("GEOSEARCHSTORE", "out", "sicily", "BYRADIUS", 1, "m", "ASC", "ASC", "ASC") == (
        "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for geosearchstore"
    )
    assert bench("GEOSEARCHSTORE", "out", "sicily", *search[2:], "BYRADIUS", 1, "m", "WITHDIST") == (
        "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
    )


def test_geosearch(bench: Bench) -> None:
    bench("GEOADD", "sicily", "12.758489", "38.788135", "edge1", "17.241510", "38.788135", "edge2")
    search = ("GEOSEARCH", "sicily", "FROMLONLAT", 15, 37)
    assert bench(*search, "BYRADIUS", 200, "km", "ASC") == [b"Catania", b"Palermo"]
    assert bench(*search, "BYBOX", 400, 400, "km", "ASC") == [b"Catania", b"Palermo", b"edge2", b"edge1"]
    assert bench(*search, "BYBOX", 400, 100, "km") == []
    assert bench("GEOSEARCH", "sicily", "FROMMEMBER", "Palermo", "BYRADIUS", 100, "km", "ASC") == [b"Palermo", b"edge1"]
    assert bench("GEOSEARCH", "none", "FROMMEMBER", "a", "BYRADIUS", 100, "km") == []
    store = ("GEOSEARCHSTORE", "out", "sicily", "FROMLONLAT", 15, 37, "BYBOX", 400, 400, "km")
    assert bench.events_of(*store, "STOREDIST") == ["geosearchstore"]
    assert bench("ZSCORE", "out", "Catania") == 56.441257870158204
    assert bench("GEOSEARCHSTORE", "sicily", *store[2:], "COUNT", 1) == 1
    assert bench("ZRANGE", "sicily", 0, -1) == [b"Catania"]


def test_any_reads_no_more_than_it_needs(bench: Bench) -> None:
    for at in range(3000):
        bench("GEOADD", "many", 10 + at / 1e6, 10, at)
    found = bench("GEORADIUS", "many", 10, 10, 100, "km", "COUNT", 5, "ANY")
    assert len(found) == 5
    assert len(bench("GEORADIUS", "many", 10, 10, 100, "km")) == 3000
