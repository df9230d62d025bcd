"""Twins answer what their handlers answer: the same commands to a server with twins and to one without.

A slowlog threshold below a millisecond closes the gate in front of every twin, so that server runs handlers only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.differential.oracle import NO_PERSISTENCE, Pair
from tests.differential.run import check
from tests.support import ZEEKDB, Server, Wire

SEED = int(os.environ.get("ZEEKDB_SEED", "20250101"))
FAMILIES = ("string", "generic", "list", "hash", "set", "zset")
COUNTED = ("rdb_changes_since_last_save", "keyspace_hits", "keyspace_misses")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with (
        Server(*NO_PERSISTENCE, "--slowlog-log-slower-than", "0", program=ZEEKDB, unix=True) as handlers,
        Server(*NO_PERSISTENCE, program=ZEEKDB, unix=True) as twins,
        handlers.wire(60) as one,
        twins.wire(60) as two,
    ):
        yield Pair(one, two)


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_and_contents(pair: Pair, family: str) -> None:
    found = check(pair, SEED, 12, (family,))
    assert found is None, f"ZEEKDB_SEED={SEED}, redis-server stands for the handlers\n{found}"


COMMANDS = """
SET a 1|SET a 2 EX 100|SETEX b 10 x|SETNX a 3|SETNX c 3|GET a|GET none|INCR a|DECR a|INCRBY a 5|DECRBY a 3
MSET d 1 e 2|MGET a d none|STRLEN a|STRLEN none|EXISTS a b none|TTL a|PTTL none|EXPIRE c 50|EXPIRE none 5
LPUSH l 1 2 3|RPUSH l 4|LPOP l|RPOP l|LLEN l|LINDEX l 0|LINDEX l 9|LRANGE l 0 -1|LRANGE none 0 1|LPOP none
HSET h f 1 g 2|HSET h f 3|HGET h f|HGET h none|HMGET h f none|SADD s a b c|SADD s a|SISMEMBER s a|SISMEMBER s z
ZADD z 1 a 2 b|ZADD z 1 a|ZADD z 5 a|ZSCORE z a|ZSCORE z none|ZPOPMIN z|ZPOPMIN none|DEL a b none|GET l|LLEN a|SPOP none
"""


def counted(wire: Wire) -> dict[str, str]:
    info = wire.pipeline([(b"INFO", b"everything")])[0].decode()
    return {name: found.group(1) for name in COUNTED if (found := re.search(rf"^{name}:(\S+)", info, re.M))}


def test_the_counters_agree(pair: Pair) -> None:
    for line in COMMANDS.strip().replace("\n", "|").split("|"):
        (one, two), *_ = pair.ask([tuple(word.encode() for word in line.split())])
        assert one == two, line
        assert counted(pair.reference) == counted(pair.subject), line
