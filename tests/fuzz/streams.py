"""What the fuzzer sends: commands that know Redis's grammar, and the damage done to their bytes.

A stream is made from a seeded generator, so a finding's seed and round replay it. Keys, fields and members come from
small sets, so that commands meet each other's data; numbers and lengths lean to the edges where code breaks.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz.tensors import tensor_command
from tests.support import encode

CORPUS = Path(__file__).resolve().parent / "corpus"
KEYS = 24
STREAM_MAX = 400_000  # bytes of one connection's stream
TENSORS = 0.15  # of the commands: those of the tensor region

INTEGERS = (
    "0", "1", "-1", "2", "3", "7", "8", "10", "63", "64", "100", "127", "128", "129", "255", "-5", "512", "1000",
    "2147483647", "-2147483648", "4294967296", "9223372036854775807", "-9223372036854775808", "9223372036854775808",
    "00", "+1", "1.0", " 1", "1 ", "", "-0", "1e3", "x",
)  # fmt: skip
FLOATS = (
    "0", "1", "-1", "1.5", "-0.0", "3.14159265358979", "1e300", "-1e300", "1e-300", "inf", "-inf", "+inf", "nan",
    "1e400", "0x10", "1.", ".5", "", "x", "9007199254740993", "17.000000000000001",
)  # fmt: skip
EDGES = ("-", "+", "(a", "[a", "[k5", "(", "[", "(1", "(inf", "-inf", "+inf", "0", "5", "x", "")
IDS = (
    "0", "1", "1-1", "1-2", "2-0", "3", "5-5", "7-18446744073709551615", "0-0", "-", "+", "$", ">", "*", "(1-1", "x",
    "", "18446744073709551615-18446744073709551615", "18446744073709551616-0", "9223372036854775808-1", "01-1", "1-",
)  # fmt: skip
PATTERNS = ("*", "k*", "?", "[a-z]*", "[^k]", "k[0-5]", "\\*", "[", "[a-", "***?*", "k\\", "", "*" * 60 + "a")
SIZES = (0, 1, 2, 10, 60, 64, 65, 100, 253, 254, 255, 256, 1023, 1024, 1025, 4095, 16_384,
         65_535, 65_536, 65_537, 90_000)  # fmt: skip

# k key, v value, f field or member, i integer, n small positive integer, x float, e range edge, p pattern, s a token
# of some command; r a count that may repeat (two thousand million random members are a right answer, but a long one),
# l and w key and short value for LCS, whose cost is a product; d a stream entry's id, g a group or consumer. `*`
# repeats a part, `?` may leave it out; other words stand for themselves.
GRAMMAR = """
GET k|SET k v|SET k v s? s? EX i?|SET k v PX i|SET k v KEEPTTL GET|SETNX k v|SETEX k i v|PSETEX k i v|GETSET k v
GETDEL k|GETEX k EX i|GETEX k PERSIST|APPEND k v|STRLEN k|SETRANGE k i v|GETRANGE k i i|SUBSTR k i i|INCR k|DECR k
INCRBY k i|DECRBY k i|INCRBYFLOAT k x|MGET k k*|MSET k v k v|MSET k v k|MSETNX k v k v|SETBIT k i i|GETBIT k i
BITCOUNT k|BITCOUNT k i i BIT|BITPOS k i i i|BITOP AND k k k|BITOP NOT k k|BITOP XOR k k k k
BITFIELD k SET u8 i i GET i16 i OVERFLOW SAT INCRBY u63 #1 i|BITFIELD_RO k GET u64 i|BITFIELD k SET i64 i i
LPUSH k v v*|RPUSH k v v*|LPUSHX k v|RPUSHX k v|LPOP k|RPOP k i|LPOP k n|LLEN k|LRANGE k i i|LINDEX k i|LSET k i v
LINSERT k BEFORE v v|LINSERT k AFTER v v|LREM k i v|LTRIM k i i|RPOPLPUSH k k|LMOVE k k LEFT RIGHT
LPOS k v RANK i COUNT i|LMPOP n k k LEFT COUNT n|HSET k f v f v|HSET k f v*|HSETNX k f v|HMSET k f v|HGET k f
HMGET k f f*|HDEL k f f*|HLEN k|HSTRLEN k f|HEXISTS k f|HKEYS k|HVALS k|HGETALL k|HINCRBY k f i|HINCRBYFLOAT k f x
HEXPIRE k i s? FIELDS 1 f|HPEXPIRE k n FIELDS 2 f f|HPEXPIREAT k i FIELDS 1 f|HPERSIST k FIELDS n f f
HTTL k FIELDS 2 f f|HPEXPIRETIME k FIELDS 1 f|HGETEX k PX n FIELDS 2 f f|HGETEX k PERSIST FIELDS n f
HSETEX k FXX EX i FIELDS 1 f v|HSETEX k PX n FIELDS 2 f v f v|HSETEX k s? KEEPTTL FIELDS n f v
HGETDEL k FIELDS 2 f f|HRANDFIELD k r WITHVALUES
HSCAN k i|HSCAN k i MATCH p COUNT i|SADD k f f f*|SREM k f f*|SISMEMBER k f|SMISMEMBER k f f
SMEMBERS k|SCARD k|SPOP k|SPOP k i|SRANDMEMBER k r|SMOVE k k f|SINTER k k k|SUNION k k k|SDIFF k k k|SINTERSTORE k k k
SUNIONSTORE k k k|SDIFFSTORE k k k|SINTERCARD n k k LIMIT i|SSCAN k i MATCH p|SADD k i i i|ZADD k x f x f
ZADD k s? x f|ZADD k XX GT CH x f|ZADD k INCR x f|ZADD k NX GT x f|ZINCRBY k x f|ZREM k f f|ZCARD k|ZSCORE k f
ZMSCORE k f f|ZRANK k f WITHSCORE|ZREVRANK k f|ZCOUNT k e e|ZLEXCOUNT k e e|ZRANGE k i i
ZRANGE k e e BYSCORE LIMIT i i WITHSCORES|ZRANGE k e e BYLEX REV|ZREVRANGE k i i WITHSCORES
ZRANGE k i i WITHSCORES|ZREVRANGE k i i|ZRANK k f
ZRANGEBYSCORE k e e LIMIT i i|ZRANGEBYLEX k e e|ZREVRANGEBYSCORE k e e|ZREMRANGEBYRANK k i i|ZREMRANGEBYSCORE k e e
ZREMRANGEBYLEX k e e|ZPOPMIN k|ZPOPMAX k i|ZPOPMIN k n|ZRANDMEMBER k r WITHSCORES|ZSCAN k i|ZMPOP n k k MIN COUNT n
ZRANGESTORE k k i i|ZRANGESTORE k k e e BYSCORE|ZUNION n k k WEIGHTS x x AGGREGATE MAX WITHSCORES|ZINTER n k k
ZDIFF n k k|ZUNIONSTORE k n k k|ZINTERSTORE k n k k AGGREGATE SUM|ZDIFFSTORE k n k k|ZINTERCARD n k k|DEL k k*
UNLINK k k|EXISTS k k|TYPE k|EXPIRE k i|PEXPIRE k n|EXPIREAT k i GT|PEXPIREAT k i NX|TTL k|PTTL k|EXPIRETIME k
PERSIST k|RENAME k k|RENAMENX k k|COPY k k REPLACE|COPY k k DB i|MOVE k i|KEYS p|SCAN i
SCAN i MATCH p COUNT i TYPE hash|RANDOMKEY|TOUCH k k|SORT k|SORT k BY p LIMIT i i GET p ALPHA DESC STORE k|SORT_RO k
OBJECT ENCODING k|OBJECT IDLETIME k|OBJECT REFCOUNT k|OBJECT FREQ k|OBJECT HELP|MEMORY USAGE k SAMPLES i|MEMORY STATS
MEMORY DOCTOR|DBSIZE|FLUSHDB ASYNC|FLUSHALL|SWAPDB i i|SELECT n|PING v|ECHO v|HELLO 3|HELLO 2|HELLO i
HELLO 3 SETNAME f|RESET|CLIENT ID|CLIENT INFO|CLIENT LIST|CLIENT SETNAME f|CLIENT GETNAME|CLIENT NO-EVICT ON
CLIENT NO-TOUCH ON|CLIENT REPLY SKIP|CLIENT REPLY OFF|CLIENT REPLY ON|CLIENT LIST TYPE normal|CLIENT KILL ADDR v
CLIENT UNBLOCK i|CLIENT SETINFO LIB-NAME f|CLIENT NOSUCH|INFO|INFO all|INFO v|CONFIG GET p|CONFIG GET p p
CONFIG RESETSTAT|CONFIG SET hash-max-listpack-entries n|CONFIG SET zset-max-listpack-value n|CONFIG SET v v|COMMAND
COMMAND COUNT|COMMAND DOCS f|COMMAND INFO get f|COMMAND GETKEYS MSET k v k v|COMMAND LIST FILTERBY PATTERN p|TIME
LOLWUT n|SLOWLOG GET i|SLOWLOG RESET|LATENCY LATEST|LATENCY HISTOGRAM f|LATENCY DOCTOR|DEBUG OBJECT k|DEBUG HTSTATS i
DEBUG SET-ACTIVE-EXPIRE n|DEBUG QUICKLIST-PACKED-THRESHOLD i|DEBUG STRINGMATCH-LEN n p|MONITOR|AUTH v|AUTH v v|v v v|f
QUIT|MULTI|EXEC|SUBSCRIBE f|EVAL v i k|WAIT i i|DUMP k|RESTORE k i v|SET l w|LCS l l|LCS l l LEN
LCS l l IDX MINMATCHLEN n WITHMATCHLEN|XADD k * f v|XADD k d f v|XADD k d f v f v f*|XADD k MAXLEN n d f v
XADD k maxlen = i d f v|XADD k MAXLEN ~ n d f v|XLEN k
XADD k NOMKSTREAM MINID = d LIMIT i d f v|XDEL k d d|XTRIM k MAXLEN n|XTRIM k MINID ~ d LIMIT n|XRANGE k e d COUNT n
XREVRANGE k + - COUNT n|XREAD COUNT n STREAMS k k d d|XSETID k d ENTRIESADDED i MAXDELETEDID d
XGROUP CREATE k g d MKSTREAM|XGROUP CREATE k g $ ENTRIESREAD i|XGROUP SETID k g d|XGROUP DESTROY k g|XINFO GROUPS k
XGROUP CREATECONSUMER k g g|XGROUP DELCONSUMER k g g|XREADGROUP GROUP g g COUNT n STREAMS k >|XINFO CONSUMERS k g
XREADGROUP GROUP g g NOACK STREAMS k d|XACK k g d d d|XPENDING k g|XPENDING k g IDLE i e d n g|XINFO STREAM k FULL
XCLAIM k g g i d d IDLE i RETRYCOUNT i FORCE JUSTID LASTID d|XAUTOCLAIM k g g i d COUNT n|XINFO STREAM k
"""
TEMPLATES = tuple(tuple(row.split()) for line in GRAMMAR.strip().splitlines() for row in line.split("|"))
TOKENS = ("NX", "XX", "GT", "LT", "CH", "INCR", "GET", "KEEPTTL", "WITHSCORES", "LIMIT", "nx", "REV", "BOGUS")
# Of these the reply depends on nothing but the commands before, so cutting the bytes must not change it.
REPEATABLE_TEXT = """
GET SET SETNX GETSET GETDEL APPEND STRLEN SETRANGE GETRANGE INCR DECR INCRBY DECRBY INCRBYFLOAT MGET MSET MSETNX LCS
SETBIT GETBIT BITCOUNT BITPOS BITOP BITFIELD LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LLEN LRANGE LINDEX LSET LINSERT LREM
LTRIM RPOPLPUSH LMOVE LPOS LMPOP HSETNX HGET HMGET HDEL HLEN HSTRLEN HEXISTS HINCRBY HINCRBYFLOAT SADD SREM SISMEMBER
SMISMEMBER SCARD SINTERSTORE SUNIONSTORE SDIFFSTORE SINTERCARD ZADD ZINCRBY ZREM ZCARD ZSCORE ZMSCORE ZRANK ZREVRANK
ZCOUNT ZRANGE ZREVRANGE ZRANGEBYSCORE ZREMRANGEBYRANK ZREMRANGEBYSCORE ZPOPMIN ZPOPMAX ZUNIONSTORE ZINTERSTORE
ZDIFFSTORE DEL EXISTS TYPE RENAME RENAMENX PERSIST ECHO PING
"""
REPEATABLE = frozenset(REPEATABLE_TEXT.split())


def value(dice: Random) -> bytes:
    """Mostly short, sometimes a number, sometimes as long as an edge of the server's own."""
    kind = dice.random()
    if kind < 0.35:
        return dice.choice(INTEGERS).encode()
    if kind < 0.75:
        return dice.randbytes(dice.randrange(12))
    if kind < 0.97:
        return bytes([dice.randrange(256)]) * dice.choice(SIZES[:16])
    return b"z" * dice.choice(SIZES)


def arguments(dice: Random, template: tuple[str, ...]) -> list[bytes]:
    """One command from a template."""
    made: list[bytes] = []
    for part in template:
        sort = part.rstrip("*?")
        repeats = dice.choice((0, 1, 1, 2, 5, 40)) if part.endswith("*") and sort else 1
        if part.endswith("?") and dice.random() < 0.5:
            continue
        for _ in range(repeats):
            if sort == "k":
                made.append(b"k%d" % dice.randrange(KEYS))
            elif sort == "f":
                made.append(b"f%d" % dice.randrange(300))
            elif sort == "v":
                made.append(value(dice))
            elif sort == "i":
                made.append(dice.choice(INTEGERS).encode())
            elif sort == "n":
                made.append(b"%d" % dice.choice((0, 1, 1, 2, 2, 3, 5, 100)))
            elif sort == "x":
                made.append(dice.choice(FLOATS).encode())
            elif sort == "e":
                made.append(dice.choice(EDGES).encode())
            elif sort == "p":
                made.append(dice.choice(PATTERNS).encode())
            elif sort == "r":
                made.append(b"%d" % dice.choice((-1000, -7, -1, 0, 1, 5, 200, 1 << 40)))
            elif sort == "l":
                made.append(b"l%d" % dice.randrange(4))
            elif sort == "w":
                made.append(dice.choice((b"", b"ab" * dice.randrange(60), dice.randbytes(dice.randrange(100)))))
            elif sort == "d":
                made.append(dice.choice(IDS).encode() if dice.random() < 0.5 else b"%d-*" % dice.randrange(1, 9))
            elif sort == "g":
                made.append(b"g%d" % dice.randrange(3))
            elif sort == "s":
                made.append(dice.choice(TOKENS).encode())
            else:
                made.append(part.encode())
    if dice.random() < 0.03:
        del made[dice.randrange(len(made)) :]
    if dice.random() < 0.03:
        made.insert(dice.randrange(len(made) + 1), value(dice))
    return made


def command(dice: Random) -> bytes:
    """One command on the wire, now and then inline."""
    if dice.random() < TENSORS:
        return tensor_command(dice)
    made = arguments(dice, dice.choice(TEMPLATES))
    if dice.random() < 0.05:
        return b" ".join(made) + dice.choice((b"\r\n", b"\n"))
    return encode(*made)


def repeatable(dice: Random, count: int) -> list[bytes]:
    """Commands whose replies are the same whichever way they arrive."""
    made: list[bytes] = []
    while len(made) < count:
        parts = arguments(dice, dice.choice(TEMPLATES))
        if parts and parts[0].decode("latin1") in REPEATABLE and not {b"EX", b"PX"} & set(parts):
            made.append(encode(*parts))
    return made


def load_corpus() -> list[bytes]:
    """Streams worth starting from: each found something once, or stands for a family."""
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.resp"))]


def stream(dice: Random, corpus: list[bytes]) -> bytes:
    """A connection's bytes: sound, damaged, from the corpus, or noise."""
    kind = dice.random()
    if kind < 0.03:
        return dice.randbytes(dice.randrange(1, 5000))
    data = bytearray(dice.choice(corpus) if corpus and kind < 0.15 else b"")
    for _ in range(dice.choice((1, 5, 20, 60, 130, 300))):
        data += command(dice)
        if len(data) > STREAM_MAX:
            break
    if kind > 0.55:
        for _ in range(dice.choice((1, 1, 2, 5))):
            damage(dice, data)
    return bytes(data[: 2 * STREAM_MAX])


LIES = (b"0", b"-1", b"-2", b"1", b"5", b"1000", b"65536", b"1048576", b"1048577", b"2147483647", b"2147483648",
        b"9223372036854775807", b"99999999999999999999", b"", b"+3", b"03", b"x", b"3 ")  # fmt: skip


def damage(dice: Random, data: bytearray) -> None:
    """Change a place or a few; lengths and counts more often than the rest."""
    if not data:
        return
    at = dice.randrange(len(data))
    kind = dice.randrange(8)
    if kind < 3:  # a length that lies
        for mark in dice.sample((b"\r\n$", b"\r\n*"), 2):
            start = data.find(mark, at)
            end = data.find(b"\r\n", start + 3)
            if start >= 0 and end >= 0:
                data[start + 3 : end] = dice.choice(LIES)
                return
    elif kind == 3:
        data[at] ^= 1 << dice.randrange(8)
    elif kind == 4:
        del data[at : at + dice.choice((1, 2, 10, 1000))]
    elif kind == 5:
        data[at:at] = dice.randbytes(dice.choice((1, 2, 10)))
    elif kind == 6:
        data[at:at] = data[at : at + dice.choice((3, 20, 200))]
    else:
        del data[at:]


def cuts(dice: Random, data: bytes) -> list[bytes]:
    """The stream in pieces, as a network might deliver it."""
    kind = dice.random()
    if kind < 0.3 or not data:
        return [data]
    if kind < 0.5 and len(data) < 3000:
        return [data[i : i + 1] for i in range(len(data))]
    places = sorted(dice.randrange(len(data)) for _ in range(dice.choice((1, 2, 5, 20, 60))))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
