"""Random commands about places: in a crowd around a few towns, anywhere, on the edges of the map, and wrong."""

from __future__ import annotations

import random

from tests.differential.grammar import Pools

KEYS = 3
WRONG_KEY = 0.05
TOWNS = ((13.361389, 38.115556), (15.087269, 37.502669), (-122.4, 37.8), (-0.1, 85.0), (179.99, -0.01), (-70.0, -84.9))
EDGES = (0.0, -0.0, 180.0, -180.0, 179.9999999, -179.9999999, 90.0)
LATITUDE_EDGES = (0.0, 85.05112878, -85.05112878, 85.05, -85.05, 45.0)


def _key(r: random.Random) -> bytes:
    return b"g%d" % r.randint(1, KEYS) if r.random() > WRONG_KEY else r.choice([b"s1", b"h1", b"z1", b"none"])


def _number(value: float) -> bytes:
    return repr(value).encode()


def place(r: random.Random) -> tuple[float, float]:
    """Longitude and latitude: in a crowd, anywhere, or on an edge."""
    draw = r.random()
    if draw < 0.7:
        longitude, latitude = r.choice(TOWNS)
        spread = r.choice([0.00001, 0.01, 1.0, 10.0])
        longitude += r.uniform(-spread, spread)
        latitude += r.uniform(-spread, spread)
        return (longitude + 180) % 360 - 180, max(-85.05, min(85.05, latitude))
    if draw < 0.9:
        return r.uniform(-180, 180), r.uniform(-85.05, 85.05)
    return r.choice(EDGES), r.choice(LATITUDE_EDGES)


def _longitude(r: random.Random) -> bytes:
    if r.random() < 0.03:
        return r.choice([b"181", b"-180.1", b"abc", b"", b"nan", b"inf", b"1e300", b"0x10"])
    return _number(place(r)[0])


def _latitude(r: random.Random) -> bytes:
    if r.random() < 0.03:
        return r.choice([b"86", b"-85.06", b"abc", b"", b"-inf", b"1e300", b"85.05112879"])
    return _number(place(r)[1])


def _member(r: random.Random) -> bytes:
    return r.choice([b"a", b"b", b"c", b"d", b"e", b"m%d" % r.randint(0, 40)])


def _length(r: random.Random) -> bytes:
    if r.random() < 0.05:
        return r.choice([b"-1", b"abc", b"", b"inf", b"1e300", b"1e-300", b"0x1p4", b"nan"])
    return _number(r.choice([0.0, 1.0, 50.0, 5000.0, r.uniform(0, 200_000), r.uniform(0, 3e7), 1e9]))


def _unit(r: random.Random) -> bytes:
    return r.choice([b"m", b"km", b"KM", b"ft", b"mi", b"Mi", b"M"] if r.random() > 0.03 else [b"x", b"", b"kms"])


def _count(r: random.Random) -> bytes:
    return b"%d" % r.randint(1, 12) if r.random() > 0.05 else r.choice([b"0", b"-1", b"abc", b"9223372036854775807"])


def _score(r: random.Random) -> bytes:
    """Scores that no place has, and some that are places."""
    return r.choice([b"-1", b"1e300", b"-inf", b"inf", b"0.5", b"3479447370796909", b"18446744073709551615", b"-1e19"])


POOLS: Pools = {
    "geo_key": _key,
    "longitude": _longitude,
    "latitude": _latitude,
    "geo_member": _member,
    "length": _length,
    "unit": _unit,
    "geo_count": _count,
    "geo_score": _score,
}

WEIGHT = 3
TEMPLATES = """
    GEOADD <geo_key> (<longitude> <latitude> <geo_member>)+
    GEOADD <geo_key> (<longitude> <latitude> <geo_member>)+
    GEOADD <geo_key> {NX} {XX} {CH} (<longitude> <latitude> <geo_member>)+
    ZADD <geo_key> <geo_score> <geo_member>
    GEODIST <geo_key> <geo_member> <geo_member> {<unit>}
    GEOHASH <geo_key> (<geo_member>)+
    GEOPOS <geo_key> (<geo_member>)+
    (GEORADIUS|GEORADIUS_RO) <geo_key> <longitude> <latitude> <length> <unit> {WITHCOORD} {WITHDIST} {WITHHASH} {ASC}\
 {COUNT <geo_count>}
    GEORADIUS <geo_key> <longitude> <latitude> <length> <unit> [ASC|DESC] {COUNT <geo_count> {ANY}} {STORE <geo_key>}\
 {STOREDIST <geo_key>} {WITHDIST}
    (GEORADIUSBYMEMBER|GEORADIUSBYMEMBER_RO) <geo_key> <geo_member> <length> <unit> {WITHCOORD} {WITHDIST} {WITHHASH}\
 [ASC|DESC] {COUNT <geo_count> {ANY}}
    GEORADIUSBYMEMBER <geo_key> <geo_member> <length> <unit> [STORE <geo_key>|STOREDIST <geo_key>]
    GEOSEARCH <geo_key> FROMMEMBER <geo_member> (BYRADIUS <length> <unit>|BYBOX <length> <length> <unit>) [ASC|DESC]\
 {COUNT <geo_count> {ANY}} {WITHCOORD} {WITHDIST} {WITHHASH}
    GEOSEARCH <geo_key> FROMLONLAT <longitude> <latitude> (BYRADIUS <length> <unit>|BYBOX <length> <length> <unit>)\
 [ASC|DESC] {COUNT <geo_count> {ANY}} {WITHCOORD} {WITHDIST} {WITHHASH}
    GEOSEARCH <geo_key> {FROMLONLAT <longitude> <latitude>} {FROMMEMBER <geo_member>} {BYRADIUS <length> <unit>}\
 {BYBOX <length> <length> <unit>} {ANY}
    GEOSEARCHSTORE <geo_key> <geo_key> (FROMLONLAT <longitude> <latitude>|FROMMEMBER <geo_member>)\
 (BYRADIUS <length> <unit>|BYBOX <length> <length> <unit>) [ASC|DESC] {COUNT <geo_count> {ANY}} {STOREDIST} {WITHDIST}
"""
