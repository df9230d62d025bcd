"""Random commands about HyperLogLogs: few elements and many, sparse strings and dense ones, and other strings."""

from __future__ import annotations

import random

from tests.differential.grammar import Pools

KEYS = 4
WRONG_KEY = 0.05


def _key(r: random.Random) -> bytes:
    return b"p%d" % r.randint(1, KEYS) if r.random() > WRONG_KEY else r.choice([b"s1", b"h1", b"z1", b"none"])


def _element(r: random.Random) -> bytes:
    draw = r.random()
    if draw < 0.6:
        return b"%d" % r.randint(0, 100_000)
    if draw < 0.8:
        return r.choice([b"", b"a", b"b", b"abcdefg", b"abcdefgh", b"abcdefghi"])
    return r.randbytes(r.choice([1, 7, 8, 9, 15, 16, 17, 100]))


def _header(r: random.Random) -> bytes:
    """Beginnings that no sketch has; a damaged sketch might bring the other server down."""
    return r.choice([b"HYLL", b"", b"HYLL\x02" + bytes(20), b"HYLL\x00" + bytes(20), b"hyll\x01" + bytes(20), b"12345"])


POOLS: Pools = {"sketch_key": _key, "element": _element, "sketch_header": _header}

WEIGHT = 2
TEMPLATES = """
    PFADD <sketch_key> (<element>)+
    PFADD <sketch_key> (<element>)+ (<element>)+ (<element>)+ (<element>)+ (<element>)+ (<element>)+ (<element>)+
    PFADD <sketch_key>
    PFCOUNT <sketch_key>
    PFCOUNT (<sketch_key>)+
    PFMERGE <sketch_key> (<sketch_key>)+
    PFMERGE <sketch_key>
    PFDEBUG (ENCODING|DECODE|GETREG|TODENSE|FOO) <sketch_key>
    SET <sketch_key> <sketch_header>
    GET <sketch_key>
    DEL <sketch_key>
"""
