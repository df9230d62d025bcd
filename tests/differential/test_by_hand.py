"""Sequences written by hand, each for something that is easily done otherwise. RESP2 and RESP3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.oracle import Command, Pair, servers, words

STORIES: dict[str, str] = {
    "set options": """
        SET k v EX 100 NX
        SET k w NX GET
        SET k w XX KEEPTTL
        TTL k
        SET k x GET
        TTL k
        SET k v EX 0
        SET k v PX -5
        SET k v EX 9223372036854775807
        SET k v EX 100 PX 100
        SET k v NX XX
        SET k v GET GET
        SET k v EXAT 1
        GET k
        SADD s m
        SET s v GET
        SET s v
    """,
    "getex and getdel": """
        GETEX none EX 10
        SET k v
        GETEX k
        GETEX k EX 100
        TTL k
        GETEX k PERSIST
        TTL k
        GETEX k PERSIST EX 10
        GETEX k EXAT 1
        GETEX k
        SET k v
        GETDEL k
        GETDEL k
        LPUSH l a
        GETDEL l
        GETEX l
    """,
    "many keys": """
        MSET a 1 b 2 a 3
        MSET a 1 b
        MSETNX a 1 c 2
        MSETNX c 1 d 2
        LPUSH l x
        MGET a b c d l none
    """,
    "numbers": """
        INCR n
        INCRBY n 9223372036854775806
        INCR n
        DECRBY n -9223372036854775808
        SET n -9223372036854775808
        DECR n
        SET n 1.0
        INCR n
        INCRBYFLOAT n 0.1
        INCRBYFLOAT n 1e4932
        INCRBYFLOAT n -1e4932
        SET n 3.0e3
        INCRBYFLOAT n 200
        INCRBYFLOAT n nan
        INCRBYFLOAT n inf
        SET n ""
        INCRBYFLOAT n 1
        INCR n
        SET n 0.1
        INCRBYFLOAT n 0.2
        INCRBYFLOAT n 1e-18
        INCRBYFLOAT n 100000000000000000000
    """,
    "parts of strings": """
        SETRANGE k 5 abc
        GET k
        SETRANGE none 5 ""
        EXISTS none
        SETRANGE k 536870912 x
        SETRANGE k -1 x
        GETRANGE k -3 -1
        GETRANGE k -1 -3
        GETRANGE k 5 100
        GETRANGE k 9223372036854775807 -9223372036854775808
        APPEND k ""
        APPEND k x
        STRLEN k
        SUBSTR k 0 1
    """,
    "lcs": """
        MSET a ohmytext b mynewtext
        LCS a b
        LCS a b LEN
        LCS a b IDX
        LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN
        LCS a b IDX LEN
        LCS a none IDX
        LCS a b MINMATCHLEN x
        LPUSH l x
        LCS a l
    """,
    "bits": """
        SETBIT b 7 1
        SETBIT b 100 0
        STRLEN b
        GETBIT b 7
        SETBIT b 4294967296 1
        SETBIT b -1 1
        SETBIT b 0 2
        BITCOUNT b
        BITCOUNT b 0 0 BIT
        BITCOUNT b 5 -5 BIT
        BITPOS b 1
        BITPOS b 0
        BITPOS b 1 -3 -5
        BITPOS b 0 0 -1 BIT
        BITPOS none 0
        BITPOS none 1
        SET ones \xff\xff
        BITPOS ones 0
        BITPOS ones 0 0
        BITPOS ones 0 0 -1
        BITOP NOT out ones
        BITOP XOR out ones b none
        BITOP AND out none
        EXISTS out
        BITFIELD f SET u8 0 255 INCRBY u8 0 10 OVERFLOW SAT INCRBY u8 0 255 OVERFLOW FAIL INCRBY u8 0 1 GET i8 0
        BITFIELD f SET i64 #1 -1 GET u63 65
        BITFIELD f GET u64 0
        BITFIELD_RO f GET u8 0 SET u8 0 1
        BITFIELD f OVERFLOW WRAP
        BITFIELD none GET u8 0
        EXISTS none
    """,
    "expiry": """
        SET k v
        EXPIRE k 100 XX
        EXPIRE k 100 NX
        EXPIRE k 200 GT
        EXPIRE k 300 LT
        EXPIRE k 100 NX GT
        EXPIRE k 100 GT LT
        EXPIRE k 100 FOO
        EXPIRE k 9223372036854775807
        EXPIRE k -9223372036854775808
        PEXPIRE k 9223372036854775807
        EXPIREAT k 4000000000
        EXPIRETIME k
        PEXPIRETIME k
        PERSIST k
        PERSIST k
        TTL none
        EXPIRE k -1
        EXISTS k
        SET k v PXAT 1
        TTL k
    """,
    "names and places": """
        RENAME none none
        SET k v EX 100
        RENAME k k
        RENAMENX k k
        LPUSH l a
        RENAME k l
        TTL l
        TYPE l
        COPY l l
        COPY l m
        COPY l m
        COPY l m REPLACE DB 1
        MOVE l 1
        MOVE m 1
        MOVE m 0
        MOVE m 16
        COPY m x DB 16
        SELECT 1
        KEYS *
        SWAPDB 0 1
        KEYS *
        SELECT 16
        SELECT x
    """,
    "scan and object": """
        MSET a 1 b hello c 12345678901234567890
        LPUSH l a
        SCAN 0 COUNT 1000
        SCAN 0 COUNT 1000 TYPE string
        SCAN 0 COUNT 1000 MATCH [ab]
        SCAN 0 COUNT 0
        SCAN 0 COUNT
        SCAN x
        OBJECT ENCODING a
        OBJECT ENCODING b
        OBJECT ENCODING none
        OBJECT FREQ a
        OBJECT HELP
        OBJECT FOO a
        OBJECT ENCODING
        TYPE none
    """,
    "sort": """
        RPUSH l 3 1 2 10
        SORT l
        SORT l DESC LIMIT 1 2
        SORT l ALPHA
        MSET w1 3 w2 2 w3 1
        SORT l BY w*
        SORT l BY w* GET # GET w* GET none*
        HSET h1 f 9
        HSET h2 f 1
        SORT l BY h*->f GET h*->f
        SORT l BY nosort DESC LIMIT 1 2
        SORT l LIMIT -1 -1
        SORT l STORE out
        TYPE out
        SORT none STORE out
        EXISTS out
        RPUSH words b a
        SORT words
        SORT w1
        SORT_RO l STORE x
        SADD s 3 1 2
        SORT s DESC
        SORT s BY nosort STORE out
        LRANGE out 0 -1
    """,
    "lists": """
        LPOP none
        LPOP none 2
        RPUSH l a b c d a
        LPOP l 0
        LPOP l -1
        LPOP l x
        LPOP l 2
        LPOS l a RANK -1
        LPOS l a COUNT 0
        LPOS l zz
        LPOS l zz COUNT 0
        LPOS l a RANK 0
        LINSERT l BEFORE d x
        LINSERT l AFTER zz x
        LINSERT l FOO d x
        LSET l 99 x
        LSET none 0 x
        LREM l -1 a
        LRANGE l 0 -1
        LTRIM l 5 1
        EXISTS l
        RPUSH l 1
        LMOVE l l LEFT RIGHT
        LMOVE l m RIGHT LEFT
        RPOPLPUSH none m
        LMPOP 2 none m LEFT COUNT 10
        LMPOP 1 none LEFT
        LPUSHX none a
    """,
    "hashes": """
        HSET h a 1 b 2
        HSET h a
        HMSET h a 3
        HSETNX h a 4
        HMGET h a none
        HINCRBY h a 9223372036854775807
        HINCRBY h n 5
        HINCRBYFLOAT h n 0.5
        HINCRBY h n 1
        HINCRBYFLOAT h n inf
        HGETALL h
        HGETALL none
        HRANDFIELD none
        HRANDFIELD none 3
        HRANDFIELD h 0
        HSTRLEN h n
        HDEL h a b n none
        EXISTS h
        SET s v
        HGET s f
    """,
    "sets": """
        SADD s 1 2 3 2
        SADD t 2 3 four
        SINTER s t
        SUNION s t none
        SDIFF s t
        SINTERCARD 2 s t LIMIT 1
        SINTERCARD 0 s
        SINTERCARD 3 s t
        SINTERSTORE out s none
        EXISTS out
        SMISMEMBER s 1 9
        SMISMEMBER none 1
        SMOVE s t 1
        SMOVE s s 2
        SMOVE s t none
        SPOP none
        SPOP none 3
        SRANDMEMBER none
        SRANDMEMBER none 3
        SPOP s -1
        SREM s 2 3
        EXISTS s
        SMEMBERS none
    """,
    "sorted sets": """
        ZADD z 1 a 2 b 3 c
        ZADD z NX XX 1 a
        ZADD z GT CH 0 a 5 b
        ZADD z INCR 1.5 a
        ZADD z NX INCR 1 a
        ZADD z INCR 1 a 2 b
        ZADD z nan a
        ZADD z 0.1 x 1e300 y inf i -inf j
        ZINCRBY z -inf i
        ZRANGE z 0 -1 WITHSCORES
        ZRANGE z (1 +inf BYSCORE LIMIT 1 2
        ZRANGE z 3 1 BYSCORE REV WITHSCORES
        ZRANGE z 0 -1 LIMIT 0 1
        ZRANGE z 0 -1 BYLEX WITHSCORES
        ZRANGESTORE out z 0 2
        ZRANK z b
        ZRANK z none
        ZREVRANK z b
        ZMSCORE z a none
        ZSCORE none a
        ZPOPMIN z
        ZPOPMIN z 0
        ZPOPMAX z 2
        ZPOPMIN none
        ZMPOP 1 z MIN
        ZMPOP 1 none MIN
        ZADD y 0 a 0 b 0 c
        ZRANGEBYLEX y - +
        ZRANGEBYLEX y [a (c
        ZRANGEBYLEX y a c
        ZLEXCOUNT y - [b
        ZUNION 2 z y WITHSCORES
        ZUNION 2 z y WEIGHTS 2 nan
        ZINTERSTORE out 2 z y AGGREGATE MAX
        ZDIFF 2 y z WITHSCORES
        ZINTERCARD 2 z y LIMIT -1
        ZREMRANGEBYRANK y 0 -1
        EXISTS y
        ZRANDMEMBER none 2 WITHSCORES
        ZRANDMEMBER z 0
    """,
    "unknown and malformed": """
        FOO bar
        foo|bar
        GET
        GET a b
        get
        OBJECT
        CLIENT FOO
        CONFIG FOO
        SELECT
        PING a b
        ECHO
        DEL
        HELLO 9
        HELLO x
        CLIENT SETNAME a b
    """,
}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with servers() as running:
        yield running


def agree(pair: Pair, commands: list[Command], protocol: int) -> None:
    if found := pair.compare(commands, protocol):
        pytest.fail(str(found), pytrace=False)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("title", STORIES)
def test_story(pair: Pair, title: str, protocol: int) -> None:
    commands = [words(line) for line in STORIES[title].strip().splitlines()]
    agree(pair, commands, protocol)


@pytest.mark.parametrize("protocol", [2, 3])
def test_conversions(pair: Pair, protocol: int) -> None:
    """Collections on either side of every limit, read back whole."""
    stories = []
    for count in (127, 128, 129, 511, 512, 513):
        numbers = [b"%d" % number for number in range(count)]
        texts = [b"m%d" % number for number in range(count)]
        stories += [
            (b"RPUSH", b"l%d" % count, *texts),
            (b"SADD", b"i%d" % count, *numbers),
            (b"SADD", b"t%d" % count, *texts),
            (b"HSET", b"h%d" % count, *(word for text in texts for word in (text, text))),
            (b"ZADD", b"z%d" % count, *(word for number in numbers for word in (number, number))),
            (b"SADD", b"i%d" % count, b"text"),
        ]
    for length in (63, 64, 65):
        word = b"x" * length
        stories += [(b"HSET", b"hv", b"f", word), (b"SADD", b"tv", word), (b"ZADD", b"zv", b"1", word)]
    agree(pair, stories, protocol)


def test_large_values(pair: Pair) -> None:
    value = bytes(range(256)) * 4096
    commands = [
        (b"SET", b"big", value), (b"GET", b"big"), (b"STRLEN", b"big"), (b"APPEND", b"big", value),
        (b"GETRANGE", b"big", b"1048570", b"1048590"), (b"SETRANGE", b"big", b"1048576", b"here"),
        (b"BITCOUNT", b"big"),
        (b"BITPOS", b"big", b"1", b"1048577"), (b"BITOP", b"NOT", b"out", b"big"), (b"COPY", b"big", b"copy"),
        (b"RPUSH", b"l", value, b"a", value), (b"LRANGE", b"l", b"0", b"-1"), (b"HSET", b"h", b"f", value),
    ]  # fmt: skip
    agree(pair, commands, 2)
