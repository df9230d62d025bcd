"""Random stream commands: ids that mostly ascend, groups and consumers that often are there, trimming of every kind.

No entry gets its id from the clock, and idle times are either none or longer than any test, so that replies do not
depend on the time. What does nevertheless (`seen-time`, idle times in XPENDING) is left out by `same_facts`.
"""

from __future__ import annotations

import random
from typing import Any

from tests.differential.grammar import Pools

KEYS = 2
WRONG_KEY = 0.04
LONG_MS = (b"100000000", b"0", b"0", b"0")
ODD_IDS = (
    b"-", b"+", b"(1", b"(", b"", b"abc", b"1-", b"-1", b"1-2-3", b"1-*", b"*-1", b"01-02", b"+5", b" 7", b"5- 1",
    b"18446744073709551615-18446744073709551615", b"18446744073709551616-0", b"18446744073709551615", b"0-0", b"0",
    b"9223372036854775808-9223372036854775808", b"$", b">", b"1.5", b"0-18446744073709551615",
)  # fmt: skip


def _key(r: random.Random) -> bytes:
    return b"x%d" % r.randint(1, KEYS) if r.random() > WRONG_KEY else r.choice([b"s1", b"h1", b"z1", b"none"])


def _pace(r: random.Random) -> int:
    """A clock of the story's own: it ticks now and then."""
    tick = getattr(r, "stream_clock", 1)
    if r.random() < 0.12:
        tick += r.choice([1, 1, 1, 2, 300, 70_000])
    r.stream_clock = tick  # type: ignore[attr-defined]
    return int(tick)


def _new_id(r: random.Random) -> bytes:
    draw = r.random()
    if draw < 0.03:
        return r.choice([word for word in ODD_IDS if word not in (b"18446744073709551615-18446744073709551615",)])
    ms = _pace(r)
    if draw < 0.8:
        return b"%d-*" % ms
    return b"%d-%d" % (ms, r.randint(0, 20)) if draw < 0.9 else b"%d" % (ms + 1)


def _id(r: random.Random) -> bytes:
    if r.random() < 0.05:
        return r.choice(ODD_IDS)
    tick = getattr(r, "stream_clock", 1)
    ms = r.choice([tick, tick, max(tick - 1, 0), r.randint(0, tick), 1])
    return b"%d-%d" % (ms, r.randint(0, 6)) if r.random() < 0.8 else b"%d" % ms


def _bound(r: random.Random) -> bytes:
    draw = r.random()
    return r.choice([b"-", b"+"]) if draw < 0.4 else b"(" + _id(r) if draw < 0.6 else _id(r)


def _count(r: random.Random) -> bytes:
    if r.random() < 0.05:
        return r.choice([b"0", b"-1", b"abc", b"9223372036854775807", b"1.5"])
    return b"%d" % r.randint(1, 8)


def _length(r: random.Random) -> bytes:
    if r.random() < 0.05:
        return r.choice([b"-1", b"abc", b"0", b"9223372036854775807"])
    return b"%d" % r.choice([1, 3, 5, 10, 20, 90, 150])


def _field(r: random.Random) -> bytes:
    return r.choice([b"a", b"b", b"item", b"", b"f" * 70] if r.random() < 0.2 else [b"a"])


def _value(r: random.Random) -> bytes:
    draw = r.random()
    if draw < 0.4:
        return b"%d" % r.choice([0, 1, -1, 127, 128, 4095, 4096, -4096, 40000, 1 << 23, -(1 << 31), 1 << 40, 10**18])
    if draw < 0.95:
        return bytes(r.choices(b"xyz", k=r.choice([0, 3, 10, 63, 64])))
    return b"v" * r.choice([120, 127, 128, 600, 4000, 4096, 17000])


POOLS: Pools = {
    "stream_key": _key,
    "new_id": _new_id,
    "entry_id": _id,
    "entry_bound": _bound,
    "stream_count": _count,
    "stream_length": _length,
    "stream_field": _field,
    "stream_value": _value,
    "group": lambda r: r.choice([b"g1", b"g1", b"g1", b"g2", b"none"]),
    "consumer": lambda r: r.choice([b"Alice", b"Alice", b"Bob", b"Carol", b""]),
    "idle_ms": lambda r: r.choice(LONG_MS) if r.random() > 0.03 else r.choice([b"-1", b"abc", b""]),
    "start_id": lambda r: r.choice([b"0", b"$", b"0-0", b"-", b"+"]) if r.random() < 0.7 else _id(r),
    "read_id": lambda r: r.choice([b"0", b"$", b">"]) if r.random() < 0.4 else _id(r),
    "news": lambda r: b">",
    "group_read_id": lambda r: b">" if r.random() < 0.7 else _id(r) if r.random() < 0.9 else b"$",
    "entries_read": lambda r: r.choice([b"0", b"1", b"5", b"-1", b"-2", b"abc", b"100"]),
    "retries": lambda r: r.choice([b"0", b"3", b"7", b"-1", b"abc"]),
    "delivery_ms": lambda r: r.choice([b"0", b"1000", b"1600000000000", b"-5", b"abc"]),
}

WEIGHT = 6
TEMPLATES = """
    XADD <stream_key> <new_id> (<stream_field> <stream_value>)+
    XADD <stream_key> <new_id> a <stream_value>
    XADD <stream_key> <new_id> a <stream_value>
    XADD <stream_key> <new_id> a <stream_value> b <stream_value>
    XADD <stream_key> <new_id> a <stream_value> b <stream_value>
    XADD <stream_key> {NOMKSTREAM} [MAXLEN (~|=) <stream_length>|MINID (~|=) <entry_id>|MAXLEN <stream_length>]\
 {LIMIT <stream_count>} <new_id> (<stream_field> <stream_value>)+
    XTRIM <stream_key> (MAXLEN|MINID|MAXLEN ~|MAXLEN =) <stream_length>
    XTRIM <stream_key> [MAXLEN (~|=) <stream_length>|MINID (~|=) <entry_id>|MINID <entry_id>] {LIMIT <stream_length>}
    XDEL <stream_key> (<entry_id>)+
    XLEN <stream_key>
    XRANGE <stream_key> <entry_bound> <entry_bound> {COUNT <stream_count>}
    XREVRANGE <stream_key> <entry_bound> <entry_bound> {COUNT <stream_count>}
    XREAD {COUNT <stream_count>} STREAMS <stream_key> <read_id>
    XREAD {COUNT <stream_count>} {NOACK} STREAMS <stream_key> <stream_key> <entry_id> <read_id>
    XGROUP CREATE <stream_key> <group> <start_id> {MKSTREAM} {ENTRIESREAD <entries_read>}
    XGROUP CREATE <stream_key> <group> 0
    XGROUP CREATE <stream_key> g1 0 MKSTREAM
    XGROUP CREATE <stream_key> g1 0 MKSTREAM
    XGROUP SETID <stream_key> <group> <start_id> {ENTRIESREAD <entries_read>}
    XGROUP DESTROY <stream_key> <group>
    XGROUP CREATECONSUMER <stream_key> <group> <consumer>
    XGROUP DELCONSUMER <stream_key> <group> <consumer>
    XREADGROUP GROUP <group> <consumer> {COUNT <stream_count>} {NOACK} STREAMS <stream_key> <group_read_id>
    XREADGROUP GROUP <group> <consumer> COUNT 2 STREAMS <stream_key> <news>
    XREADGROUP GROUP g1 <consumer> COUNT <stream_count> STREAMS <stream_key> <news>
    XREADGROUP GROUP g1 <consumer> {COUNT <stream_count>} STREAMS <stream_key> <news>
    XREADGROUP GROUP <group> <consumer> {COUNT <stream_count>} STREAMS <stream_key> <stream_key> <group_read_id> <news>
    XACK <stream_key> <group> (<entry_id>)+
    XPENDING <stream_key> <group>
    XPENDING <stream_key> <group> {IDLE <idle_ms>} <entry_bound> <entry_bound> <stream_count> {<consumer>}
    XCLAIM <stream_key> <group> <consumer> <idle_ms> (<entry_id>)+ {IDLE <idle_ms>} {TIME <delivery_ms>}\
 {RETRYCOUNT <retries>} {FORCE} {JUSTID} {LASTID <entry_id>}
    XAUTOCLAIM <stream_key> <group> <consumer> <idle_ms> <entry_bound> {COUNT <stream_count>} {JUSTID}
    XINFO STREAM <stream_key>
    XINFO STREAM <stream_key> FULL {COUNT <stream_count>}
    XINFO GROUPS <stream_key>
    XINFO CONSUMERS <stream_key> <group>
    COPY <stream_key> <stream_key> {REPLACE}
    RENAME <stream_key> <stream_key>
"""

TIMES = (b"seen-time", b"active-time", b"idle", b"inactive")


def _plain(reply: Any) -> Any:
    """A tree as lists; maps flat, as RESP2 has them."""
    kind, value = reply
    if kind == "map":
        return [_plain(item) for pair in value for item in pair]
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _facts(value: Any) -> Any:
    """What remains of a reply without times, and without consumers that nothing is pending for.

    redis-server 7.0 creates a consumer when it gets something, 7.2 when it asks.
    """
    if not isinstance(value, list):
        return value
    kept: list[Any] = []
    at = 0
    while at < len(value):
        item, following = value[at], value[at + 1] if at + 1 < len(value) else None
        if item in TIMES and isinstance(following, int):
            at += 2
        elif item == b"consumers":
            kept.append([_facts(each) for each in following if _pending(each)] if isinstance(following, list) else None)
            at += 2
        elif item == b"pending" and isinstance(following, list):
            kept.append([[*each[:-2], each[-1]] for each in following])  # the time of delivery stands before the count
            at += 2
        else:
            kept.append(_facts(item))
            at += 1
    return kept


def _pending(consumer: list[Any]) -> bool:
    """Whether something is, of a consumer as XINFO shows it."""
    facts = dict(zip(consumer[::2], consumer[1::2], strict=True))
    return bool(facts.get(b"pel-count", facts.get(b"pending")))


def same_facts(command: tuple[bytes, ...], expected: Any, actual: Any) -> bool:
    """XINFO's replies without times and idle consumers."""
    if expected[0] != actual[0] or expected[0] == "error":
        return False
    one, two = _plain(expected), _plain(actual)
    if len(command) > 1 and command[1].upper() == b"CONSUMERS":
        one, two = [each for each in one if _pending(each)], [each for each in two if _pending(each)]
    return bool(_facts(one) == _facts(two))


def same_pending(command: tuple[bytes, ...], expected: Any, actual: Any) -> bool:
    """XPENDING's entries without their idle times."""
    if not (expected[0] == actual[0] == "array" and len(command) > 3):
        return False
    return [[*each[:2], *each[3:]] for each in _plain(expected)] == [[*each[:2], *each[3:]] for each in _plain(actual)]
