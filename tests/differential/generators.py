"""Random commands, valid, borderline and wrong, per family, over a key space small enough that types collide.

What would make two servers differ by mere timing is left out, and so are sizes that fill the memory: there are no
expiries of under a minute.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from tests.differential import gen_acl, gen_geo, gen_hyperloglog, gen_scripting, gen_streams, gen_transactions
from tests.differential.grammar import Make, Pools, compile_template

Command = tuple[bytes, ...]

KINDS = {"string": b"s", "list": b"l", "hash": b"h", "set": b"t", "zset": b"z"}
KEYS_PER_KIND = 3
WRONG_KEY = 0.06  # how often a command gets a key of any kind
MUTATED = 0.04  # how often a finished command is damaged
BULKY = 0.04  # how often a collection receives more than its packed form holds


def _key(letter: bytes) -> Callable[[random.Random], bytes]:
    def draw(r: random.Random) -> bytes:
        if r.random() < WRONG_KEY:
            letter_drawn = r.choice([*KINDS.values(), b"none"])
        else:
            letter_drawn = letter
        return letter_drawn + b"%d" % r.randint(1, KEYS_PER_KIND)

    return draw


def _lex_key(r: random.Random) -> bytes:
    """A sorted set whose scores are all 0 (or a key of another type): by-lex commands promise nothing otherwise."""
    return r.choice(b"slht").to_bytes() + b"1" if r.random() < WRONG_KEY else b"y%d" % r.randint(1, KEYS_PER_KIND)


def _any_key(r: random.Random) -> bytes:
    return r.choice(list(KINDS.values())) + b"%d" % r.randint(1, KEYS_PER_KIND)


def _one_of(*choices: object) -> Callable[[random.Random], bytes]:
    drawn = [choice if isinstance(choice, bytes) else str(choice).encode() for choice in choices]
    return lambda r: r.choice(drawn)


def _mostly(usual: Callable[[random.Random], bytes], seldom: Callable[[random.Random], bytes], share: float = 0.06) -> (
    Callable[[random.Random], bytes]
):  # fmt: skip
    return lambda r: seldom(r) if r.random() < share else usual(r)


def _value(r: random.Random) -> bytes:
    draw = r.random()
    if draw < 0.35:
        return b"%d" % r.randint(-20, 20)
    if draw < 0.45:
        return r.choice([b"0.1", b"-2.5e3", b"3.0", b"9223372036854775807", b"-9223372036854775808", b"1e17", b"007"])
    if draw < 0.85:
        return bytes(r.choices(b"abc", k=r.randint(0, 6)))
    if draw < 0.95:
        return bytes(r.choices(range(256), k=r.choice([1, 8, 43, 44, 45, 63, 64, 65, 70])))
    return bytes(r.choices(b"xyz\0\r\n", k=r.choice([100, 300, 5000])))


def _member(r: random.Random) -> bytes:
    draw = r.random()
    if draw < 0.4:
        return b"%d" % r.randint(0, 12)
    if draw < 0.9:
        return r.choice([b"a", b"b", b"c", b"d", b"e", b"f", b"aa", b"ab", b"B", b"", b"\xff\0"])
    return r.choice([b"x" * 64, b"y" * 65, b"-5", b"9223372036854775807", b"99999999999999999999", b"1.5", b"w" * 200])


_ODD = _one_of(
    b"", "abc", "1.5", "9223372036854775808", "-9223372036854775808", "9223372036854775807", "+1", "01", " 1"
)
_integer = _mostly(lambda r: b"%d" % r.randint(-12, 12), _ODD)
_small = _mostly(lambda r: b"%d" % r.randint(-3, 6), _one_of("abc", "", "1.5", "-100", "100", "9223372036854775808"))
_score = _mostly(
    lambda r: r.choice([b"%d" % r.randint(-5, 10), b"%.2f" % r.uniform(-5, 10), b"1e3", b"0.1", b"-0"]),
    _one_of("inf", "-inf", "+inf", "nan", "abc", "", "1e400", "0x10", "1e-5", "123456789.123456789"),
)
_score_bound = _mostly(
    lambda r: r.choice([b"", b"("]) + r.choice([b"-inf", b"+inf", b"inf", b"%d" % r.randint(-6, 11), b"2.5"]),
    _one_of("(", "abc", "((1", "nan", "[1"),
)
_lex_bound = _mostly(
    lambda r: r.choice([b"-", b"+", b"[" + _member(r), b"(" + _member(r), b"[a", b"(c"]), _one_of("a", "", "--", "[")
)
_ttl = _one_of(100, 200, 1000, 86400, 10**9, 0, -1, "abc", "9223372036854775807", "-9223372036854775808", "1.5")
_ttl_ms = _one_of(100_000, 200_000, 10**12, 0, -1, "abc", "9223372036854775807", "-9223372036854775808")
_when = _one_of(1, 0, -1, 4_000_000_000, 4_000_000_500, 9_000_000_000, "9223372036854775807", "x")
_when_ms = _one_of(1, 0, -1, 4_000_000_000_000, 4_000_000_500_000, "9223372036854775807", "x")


def _distinct_ttl(r: random.Random) -> bytes:
    """For GT and LT: two equal ones would leave the outcome to the milliseconds in between."""
    return b"%d" % r.randint(1000, 10**9)


POOLS: Pools = {
    "key": _any_key,
    **{kind + "_key": _key(letter) for kind, letter in KINDS.items()},
    "lex_key": _lex_key,
    "value": _value,
    "member": _member,
    "field": _member,
    "int": _integer,
    "small": _small,
    "index": _integer,
    "count": _mostly(lambda r: b"%d" % r.randint(0, 6), _one_of("-1", "abc", "", "9223372036854775808", "1.5")),
    "rand_count": _mostly(lambda r: b"%d" % r.randint(-6, 6), _one_of("abc", "", "1.5", "9223372036854775808")),
    "number": _mostly(lambda r: b"%d" % r.randint(-100, 100), _ODD, 0.2),
    "float": _mostly(
        lambda r: r.choice([b"0.1", b"0.2", b"1", b"-1.5", b"3.0e2", b"1e-3", b"%d" % r.randint(-50, 50)]),
        _one_of("inf", "-inf", "nan", "abc", "", "1e400", "0x10", " 1", "99999999999999999999.5", "1e-20"),
    ),
    "score": _score,
    "weight": _score,
    "score_bound": _score_bound,
    "lex_bound": _lex_bound,
    "ttl": _ttl,
    "ttl_ms": _ttl_ms,
    "when": _when,
    "when_ms": _when_ms,
    "distinct_ttl": _distinct_ttl,
    "offset": _mostly(lambda r: b"%d" % r.choice([0, 1, 2, 5, 10, 50, 300]), _one_of(-1, "abc", 536870912, "")),
    "bit_offset": _mostly(
        lambda r: b"%d" % r.randint(0, 90), _one_of(-1, "abc", 4294967296, "", "9223372036854775808")
    ),
    "field_offset": _mostly(
        lambda r: r.choice([b"", b"#"]) + b"%d" % r.randint(0, 40), _one_of(-1, "#", "#-1", "abc", 4294967296)
    ),
    "bit": _mostly(_one_of(0, 1), _one_of(2, -1, "x")),
    "bit_field": _mostly(
        lambda r: r.choice([b"i", b"u"]) + b"%d" % r.randint(1, 63), _one_of("i64", "u64", "i0", "x8", "u", "I8")
    ),
    "pattern": _one_of("*", "s*", "?1", "[a-l]1", "[^s]*", "h\\1", "nothing", "*1*", "", "[", "a*", "*[0-9]", "\\"),
    "member_pattern": _one_of("*", "a*", "?", "[a-c]*", "1*", "nothing", "*\xff*"),
    "cursor": _mostly(_one_of(0), _one_of("abc", "", "-1", "5", "18446744073709551616", "1.5"), 0.1),
    "all": _one_of(1000, 10_000, 100_000),
    "db": _mostly(_one_of(0, 1, 2), _one_of(-1, 16, "abc", "99999999999")),
    "type": _one_of("string", "list", "set", "zset", "hash", "SET", "stream", "nothing"),
    "by": _one_of("s*", "h*->a", "h*->1", "nosort", "s*->a", "*", "h*->", "l*"),
    "get": _one_of("#", "s*", "h*->a", "nothing", "h*->", "*"),
    "word": _one_of("hello", "", "a b", "x" * 100),
    "name": _one_of("me", "you", "a b", "", "new\nline", "x" * 50),
}

FAMILIES: dict[str, str] = {
    "string": """
        SET <string_key> <value>
        SET <string_key> <value> [NX|XX] {GET} [EX <ttl>|PX <ttl_ms>|EXAT <when>|PXAT <when_ms>|KEEPTTL]
        GET <string_key>
        SETNX <string_key> <value>
        SETEX <string_key> <ttl> <value>
        PSETEX <string_key> <ttl_ms> <value>
        GETSET <string_key> <value>
        GETDEL <string_key>
        GETEX <string_key> [EX <ttl>|PX <ttl_ms>|EXAT <when>|PXAT <when_ms>|PERSIST]
        MGET (<string_key>)+
        MSET (<string_key> <value>)+
        MSETNX (<string_key> <value>)+
        APPEND <string_key> <value>
        STRLEN <string_key>
        GETRANGE <string_key> <index> <index>
        SUBSTR <string_key> <index> <index>
        SETRANGE <string_key> <offset> <value>
        INCR <string_key>
        DECR <string_key>
        INCRBY <string_key> <number>
        DECRBY <string_key> <number>
        INCRBYFLOAT <string_key> <float>
        LCS <string_key> <string_key> [LEN|IDX] {MINMATCHLEN <small>} {WITHMATCHLEN}
    """,
    "bitmap": """
        SETBIT <string_key> <bit_offset> <bit>
        GETBIT <string_key> <bit_offset>
        BITCOUNT <string_key> [<index> <index> [BIT|BYTE]]
        BITPOS <string_key> <bit> [<index>|<index> <index>|<index> <index> (BIT|BYTE)]
        BITOP (AND|OR|XOR) <string_key> (<string_key>)+
        BITOP NOT <string_key> <string_key> {<string_key>}
        BITFIELD <string_key> (GET <bit_field> <field_offset>|SET <bit_field> <field_offset> <number>\
|INCRBY <bit_field> <field_offset> <number>|OVERFLOW (WRAP|SAT|FAIL|NONE))+
        BITFIELD_RO <string_key> (GET <bit_field> <field_offset>)+
        BITFIELD_RO <string_key> (GET <bit_field> <field_offset>) {SET u8 0 1}
    """,
    "generic": """
        DEL (<key>)+
        UNLINK <key>
        EXISTS (<key>)+
        TOUCH (<key>)+
        TYPE <key>
        KEYS <pattern>
        RANDOMKEY
        RENAME <key> <key>
        RENAMENX <key> <key>
        COPY <key> <key> {DB <db>} {REPLACE}
        MOVE <key> <db>
        EXPIRE <key> <ttl> [NX|XX]
        PEXPIRE <key> <ttl_ms> [NX|XX]
        EXPIRE <key> <distinct_ttl> (GT|LT|XX GT|XX LT|NX GT|GT LT|FOO)
        EXPIREAT <key> <when> [NX|XX|GT|LT]
        PEXPIREAT <key> <when_ms> [NX|XX|GT|LT]
        TTL <key>
        PTTL <key>
        EXPIRETIME <key>
        PEXPIRETIME <key>
        PERSIST <key>
        SCAN <cursor> {MATCH <pattern>} {COUNT <all>} {TYPE <type>}
        SCAN <cursor> COUNT <small>
        SORT (<list_key>|<set_key>|<zset_key>) {BY <by>} {LIMIT <small> <small>} {GET <get>} {GET <get>}\
 [ASC|DESC] {ALPHA}
        SORT (<list_key>|<set_key>|<zset_key>) [ASC|DESC] {ALPHA} {LIMIT <small> <small>} {GET <get>} STORE <list_key>
        SORT_RO <list_key> {BY <by>} {GET <get>} {ALPHA} {STORE <list_key>}
        OBJECT (ENCODING|REFCOUNT|IDLETIME|FREQ|FOO) <key>
        OBJECT HELP
        DBSIZE
    """,
    "list": """
        (LPUSH|RPUSH|LPUSHX|RPUSHX) <list_key> (<value>)+
        (LPUSH|RPUSH) <list_key> (<member>)+
        (LPOP|RPOP) <list_key> [<count>]
        LRANGE <list_key> <index> <index>
        LLEN <list_key>
        LINDEX <list_key> <index>
        LSET <list_key> <index> <value>
        LINSERT <list_key> (BEFORE|AFTER|FOO) <member> <value>
        LREM <list_key> <small> <member>
        LTRIM <list_key> <index> <index>
        LPOS <list_key> <member> {RANK <small>} {COUNT <count>} {MAXLEN <count>}
        LMOVE <list_key> <list_key> (LEFT|RIGHT) (LEFT|RIGHT|UP)
        RPOPLPUSH <list_key> <list_key>
        LMPOP #(<list_key>)+ (LEFT|RIGHT) [COUNT <count>]
    """,
    "hash": """
        HSET <hash_key> (<field> <value>)+
        HMSET <hash_key> (<field> <value>)+
        HSETNX <hash_key> <field> <value>
        HGET <hash_key> <field>
        HMGET <hash_key> (<field>)+
        HGETALL <hash_key>
        HKEYS <hash_key>
        HVALS <hash_key>
        HLEN <hash_key>
        HSTRLEN <hash_key> <field>
        HEXISTS <hash_key> <field>
        HDEL <hash_key> (<field>)+
        HINCRBY <hash_key> <field> <number>
        HINCRBYFLOAT <hash_key> <field> <float>
        HRANDFIELD <hash_key> [<rand_count> [WITHVALUES]]
        HSCAN <hash_key> <cursor> {MATCH <member_pattern>} {COUNT <all>}
    """,
    "set": """
        SADD <set_key> (<member>)+
        SREM <set_key> (<member>)+
        SISMEMBER <set_key> <member>
        SMISMEMBER <set_key> (<member>)+
        SCARD <set_key>
        SMEMBERS <set_key>
        SMOVE <set_key> <set_key> <member>
        SPOP <set_key> [<count>]
        SRANDMEMBER <set_key> [<rand_count>]
        (SINTER|SUNION|SDIFF) (<set_key>)+
        (SINTERSTORE|SUNIONSTORE|SDIFFSTORE) <set_key> (<set_key>)+
        SINTERCARD #(<set_key>)+ {LIMIT <small>}
        SSCAN <set_key> <cursor> {MATCH <member_pattern>} {COUNT <all>}
    """,
    "zset": """
        ZADD <zset_key> (<score> <member>)+
        ZADD <zset_key> [NX|XX] [GT|LT] {CH} {INCR} (<score> <member>)+
        ZADD <lex_key> (0 <member>)+
        ZADD <lex_key> (0 <member>)+
        ZINCRBY <zset_key> <score> <member>
        ZREM <zset_key> (<member>)+
        ZCARD <zset_key>
        ZCOUNT <zset_key> <score_bound> <score_bound>
        ZLEXCOUNT <lex_key> <lex_bound> <lex_bound>
        ZSCORE <zset_key> <member>
        ZMSCORE <zset_key> (<member>)+
        (ZRANK|ZREVRANK) <zset_key> <member>
        ZRANGE <zset_key> <index> <index> {REV} {WITHSCORES}
        ZRANGE <zset_key> <score_bound> <score_bound> BYSCORE {REV} {LIMIT <small> <small>} {WITHSCORES}
        ZRANGE <lex_key> <lex_bound> <lex_bound> BYLEX {REV} {LIMIT <small> <small>} {WITHSCORES}
        ZRANGESTORE <zset_key> <zset_key> <index> <index> [BYSCORE] {REV} {LIMIT <small> <small>}
        ZRANGESTORE <lex_key> <lex_key> <lex_bound> <lex_bound> BYLEX {REV} {LIMIT <small> <small>}
        ZRANGESTORE <zset_key> <zset_key> <score_bound> <score_bound> BYSCORE {REV} {LIMIT <small> <small>}
        ZREVRANGE <zset_key> <index> <index> {WITHSCORES}
        (ZRANGEBYSCORE|ZREVRANGEBYSCORE) <zset_key> <score_bound> <score_bound> {WITHSCORES} {LIMIT <small> <small>}
        (ZRANGEBYLEX|ZREVRANGEBYLEX) <lex_key> <lex_bound> <lex_bound> {LIMIT <small> <small>}
        ZREMRANGEBYRANK <zset_key> <index> <index>
        ZREMRANGEBYSCORE <zset_key> <score_bound> <score_bound>
        ZREMRANGEBYLEX <lex_key> <lex_bound> <lex_bound>
        (ZPOPMIN|ZPOPMAX) <zset_key> [<count>]
        ZMPOP #(<zset_key>)+ (MIN|MAX) [COUNT <count>]
        ZRANDMEMBER <zset_key> [<rand_count> [WITHSCORES]]
        (ZUNION|ZINTER) 2 <zset_key> (<zset_key>|<set_key>) {WEIGHTS <weight> <weight>} {AGGREGATE\
 (SUM|MIN|MAX|AVG)} {WITHSCORES}
        (ZUNIONSTORE|ZINTERSTORE) <zset_key> 2 <zset_key> (<zset_key>|<set_key>) {WEIGHTS <weight> <weight>}\
 {AGGREGATE (SUM|MIN|MAX)}
        ZDIFF #(<zset_key>)+ {WITHSCORES}
        ZDIFFSTORE <zset_key> #(<zset_key>)+
        ZINTERCARD #(<zset_key>)+ {LIMIT <small>}
        ZSCAN <zset_key> <cursor> {MATCH <member_pattern>} {COUNT <all>}
    """,
    "connection": """
        PING [<word>]
        ECHO <word>
        SELECT <db>
        CLIENT SETNAME <name>
        CLIENT GETNAME
        CLIENT FOO
        HELLO (1|4|abc)
        HELLO 2 FOO
        FOO <word>
        COMMAND GETKEYS SET <key> <value>
        COMMAND GETKEYS SORT <key> {BY <by>} {STORE <key>}
        SWAPDB <db> <db>
        FLUSHDB [ASYNC|SYNC|FOO]
        DBSIZE
        CONFIG GET proto-max-bulk-len
        CONFIG FOO
        AUTH <word>
    """,
}

_WEIGHTS = {"string": 4, "bitmap": 2, "generic": 4, "list": 4, "hash": 3, "set": 3, "zset": 5, "connection": 1}
_FILL = {"list": b"RPUSH", "hash": b"HSET", "set": b"SADD", "zset": b"ZADD"}
_EXPIRING = {b"SET", b"GETEX", b"SETEX", b"PSETEX", b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT"}
_JUNK: list[bytes] = [
    b"",
    b"abc",
    b"0",
    b"-1",
    b"NX",
    b"LIMIT",
    b"COUNT",
    b"WITHSCORES",
    b"9223372036854775808",
    b"s1",
    b"z1",
    b"l1",
]
_UNDAMAGED = {b"SETBIT", b"BITFIELD", b"HRANDFIELD", b"SRANDMEMBER", b"ZRANDMEMBER", b"SETRANGE", b"CLIENT", b"HELLO",
    b"EVAL", b"EVAL_RO", b"SCRIPT", b"FUNCTION",  # another script could run for ever
}  # fmt: skip

for _family, _module in {
    "geo": gen_geo, "hyperloglog": gen_hyperloglog, "stream": gen_streams, "acl": gen_acl,
    "scripting": gen_scripting,
}.items():
    POOLS |= _module.POOLS
    FAMILIES[_family] = _module.TEMPLATES
    _WEIGHTS[_family] = _module.WEIGHT

FAMILIES["transaction"] = "EXEC"  # made by gen_transactions, of what these families have
_WEIGHTS["transaction"] = 2
PLAIN = ("string", "bitmap", "generic", "list", "hash", "set", "zset", "hyperloglog")

MAKERS: dict[str, list[Make]] = {
    family: [compile_template(line.strip(), POOLS) for line in text.strip().splitlines()]
    for family, text in FAMILIES.items()
}


def _beginning(r: random.Random) -> list[Command]:
    """Something under most keys, so that commands find what they look for."""
    begun: list[Command] = []
    for number in range(1, KEYS_PER_KIND + 1):
        for family, name in {
            "string": b"SET",
            "list": b"RPUSH",
            "hash": b"HSET",
            "set": b"SADD",
            "zset": b"ZADD",
        }.items():
            words = [name, KINDS[family] + b"%d" % number]
            for _ in range(1 if family == "string" else r.randint(1, 12)):
                words += [_score(r)] if family == "zset" else [_member(r)] if family == "hash" else []
                words.append(_value(r) if family in ("string", "hash") else _member(r))
            if r.random() < 0.9:
                begun.append(tuple(words))
    return begun


def _fill(r: random.Random, family: str) -> Command:
    """More elements than a packed collection holds."""
    words = [_FILL[family], KINDS[family] + b"%d" % r.randint(1, KEYS_PER_KIND)]
    for number in range(r.choice([130, 200, 600])):
        if family == "zset":
            words.append(b"%d" % r.randint(-50, 50))
        words.append(r.choice([b"m%d", b"%d"]) % number)
        if family == "hash":
            words.append(b"v%d" % number)
    return tuple(words)


def _damage(r: random.Random, words: list[bytes]) -> None:
    """One mistake: a word too few, too many, in the wrong place, or another one."""
    at = r.randrange(1, len(words)) if len(words) > 1 else 0
    name = words[0].upper()
    kind = r.randrange(4)
    if kind == 0:
        del words[at : at + 1 if at else 0]
    elif kind == 1:
        words.append(r.choice(_JUNK))
    elif at and name not in _EXPIRING:
        if kind == 2:
            other = r.randrange(1, len(words))
            words[at], words[other] = words[other], words[at]
        else:
            words[at] = r.choice(_JUNK)


def commands(r: random.Random, families: tuple[str, ...] = tuple(FAMILIES)) -> Iterator[Command]:
    """Endless random commands of the families."""
    weights = [_WEIGHTS[family] for family in families]
    while True:
        family = r.choices(families, weights)[0]
        if family in _FILL and r.random() < BULKY:
            yield _fill(r, family)
            continue
        if family == "transaction":
            yield from gen_transactions.transaction(r, lambda dice: dice.choice(MAKERS[dice.choice(PLAIN)])(dice))
            continue
        words = r.choice(MAKERS[family])(r)
        if r.random() < MUTATED and words[0].upper() not in _UNDAMAGED:
            _damage(r, words)
        yield tuple(words)


def story(seed: int, length: int, families: tuple[str, ...] = tuple(FAMILIES)) -> list[Command]:
    """The commands that a seed stands for."""
    r = random.Random(seed)
    begun = _beginning(r)
    source = commands(r, families)
    return (begun + [next(source) for _ in range(length)])[:length]


def seed_of_today() -> int:
    """A seed nobody has chosen."""
    return time.time_ns() & 0xFFFFFFFF
