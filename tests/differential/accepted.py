"""Where ZeekDB may answer other than redis-server 7.0.15, and why. Nothing else may differ.

A rule names the commands it speaks for and looks at both replies; the first that holds excuses the difference. The
run counts how often each was used, so that a rule nobody needs any more is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.differential.gen_acl import same_and_more, same_dry_run, same_length, same_users
from tests.differential.gen_scripting import same_libraries
from tests.differential.gen_streams import same_facts, same_pending

Tree = tuple[str, Any]
Command = tuple[bytes, ...]

CLOCK_SLACK_MS = 5000


@dataclass(frozen=True)
class Rule:
    """A difference that is allowed, with its reason."""

    reason: str
    commands: frozenset[str]  # empty: all
    holds: Callable[[Command, Tree, Tree], bool]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- ways to look at replies --------------------------------------------------------------------------------------


def _sorted(reply: Tree) -> Tree:
    kind, items = reply
    return (kind, sorted(items, key=repr)) if isinstance(items, list) else reply


def _same_members(command: Command, expected: Tree, actual: Tree) -> bool:
    return _sorted(expected) == _sorted(actual)


def _in_pairs(reply: Tree) -> Tree:
    kind, items = reply
    if kind != "array" or len(items) % 2:
        return _sorted(reply)
    return kind, sorted(zip(items[::2], items[1::2], strict=True), key=repr)


def _same_pairs(command: Command, expected: Tree, actual: Tree) -> bool:
    return _in_pairs(expected) == _in_pairs(actual)


def _shape(reply: Tree) -> Tree:
    """Types and counts only; errors keep their text."""
    kind, value = reply
    if kind == "error":
        return reply
    if isinstance(value, list):
        return kind, [_shape(item) if isinstance(item[0], str) else tuple(map(_shape, item)) for item in value]
    return kind, None


def _same_shape(command: Command, expected: Tree, actual: Tree) -> bool:
    return _shape(expected) == _shape(actual)


def _same_scan(command: Command, expected: Tree, actual: Tree) -> bool:
    if expected[0] != "array" or actual[0] != "array":
        return False
    (one, found), (two, given) = expected[1], actual[1]
    if one == two == ("bulk", b"0") and b"0" in command[1:3]:
        pairs = command[0].upper() in (b"HSCAN", b"ZSCAN")
        return _same_numbers(_in_pairs(found), _in_pairs(given)) if pairs else _sorted(found) == _sorted(given)
    return (one[0], found[0]) == (two[0], given[0]) == ("bulk", "array")


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(reply: Any) -> bytes:
    """An error's words."""
    return reply[1].encode() if isinstance(reply[1], str) else bytes(reply[1])


def _same_numbers(expected: Any, actual: Any) -> bool:
    """Equal but for the spelling of numbers."""
    if expected == actual:
        return True
    if isinstance(expected, (list, tuple)) and isinstance(actual, (list, tuple)):
        if len(expected) == 2 and isinstance(expected[0], str) and not isinstance(expected[1], list):
            one, two = _number(expected[1]), _number(actual[1])
            return expected[0] == actual[0] and one is not None and one == two
        return len(expected) == len(actual) and all(map(_same_numbers, expected, actual))
    return False


def _within(slack: int) -> Callable[[Command, Tree, Tree], bool]:
    def holds(command: Command, expected: Tree, actual: Tree) -> bool:
        return (
            expected[0] == actual[0] == "int"
            and min(expected[1], actual[1]) >= 0
            and abs(expected[1] - actual[1]) <= slack
        )

    return holds


# --- rules that need more than that -------------------------------------------------------------------------------

_ENCODINGS = {
    (b"hashtable", b"listpack"),  # sets: 7.2 packs small ones
    (b"quicklist", b"listpack"),  # lists: 7.2 packs small ones
    (b"raw", b"embstr"),
    (b"raw", b"int"),
    (b"embstr", b"int"),
    (b"skiplist", b"listpack"),  # SORT turns the sorted set it reads into a skiplist there
}


def _other_encoding(command: Command, expected: Tree, actual: Tree) -> bool:
    return command[1].upper() == b"ENCODING" and (expected[1], actual[1]) in _ENCODINGS


def _shared_integer(command: Command, expected: Tree, actual: Tree) -> bool:
    return command[1].upper() == b"REFCOUNT" and expected == ("int", 2147483647) and actual == ("int", 1)


def _idle_or_freq(command: Command, expected: Tree, actual: Tree) -> bool:
    return command[1].upper() in (b"IDLETIME", b"FREQ") and _within(60)(command, expected, actual)


def _checked_first(command: Command, expected: Tree, actual: Tree) -> bool:
    looked_first = expected in (("int", 0), ("int", -1)) or "WRONGTYPE" in str(expected[1])
    return looked_first and actual[0] == "error" and "WRONGTYPE" not in actual[1]


def _getkeys_arity(command: Command, expected: Tree, actual: Tree) -> bool:
    return len(command) == 3 and command[1].upper() == b"GETKEYS" and expected[0] == actual[0] == "error"


def _sort_ties(command: Command, expected: Tree, actual: Tree) -> bool:
    options = [word.upper() for word in command[2:]]
    if b"BY" not in options or b"STORE" in options:
        return False
    if b"LIMIT" in options:  # which of the equals are cut off is chance, too
        return expected[0] == actual[0] == "array" and len(expected[1]) == len(actual[1])
    return _same_members(command, expected, actual)


def _nearest_ties(command: Command, expected: Tree, actual: Tree) -> bool:
    options = [word.upper() for word in command[2:]]
    return b"COUNT" in options and b"ANY" not in options and len(expected[1] or ()) == len(actual[1] or ())


RULES = [
    Rule(
        "7.2 shows rules as they were given, 7.0 others that come to the same; new users are sanitize-payload",
        _names("ACL"),
        same_users,
    ),
    Rule(
        "there are commands, and a category, that 7.0 does not have",
        _names("ACL"),
        same_and_more,
    ),
    Rule(
        "a * matches the empty string too, which Redis's matcher overlooks",
        _names("ACL"),
        lambda command, expected, actual: (
            command[1].upper() == b"DRYRUN" and actual == ("simple", "OK") and b" '' " in _text(expected)
        ),
    ),
    Rule("passwords are random: their length is compared", _names("ACL"), same_length),
    Rule("ACL DRYRUN names the user since 7.2", _names("ACL"), same_dry_run),
    Rule(
        "sets, hashes and the keyspace have no order",
        _names("KEYS SMEMBERS SINTER SUNION SDIFF HKEYS HVALS"),
        _same_members,
    ),
    Rule("hashes have no order", _names("HGETALL"), _same_pairs),
    Rule("libraries and functions have no order", _names("FUNCTION"), same_libraries),
    Rule(
        "random by definition: types and counts are compared",
        _names("RANDOMKEY SRANDMEMBER HRANDFIELD ZRANDMEMBER SPOP"),
        _same_shape,
    ),
    Rule(
        "the order and the portions of a scan are the table's own; a scan that came through in one call is compared",
        _names("SCAN HSCAN SSCAN ZSCAN"),
        _same_scan,
    ),
    Rule(
        "the two servers' clocks are read one after the other (ms)", _names("PTTL PEXPIRETIME"), _within(CLOCK_SLACK_MS)
    ),
    Rule(
        "the two servers' clocks are read one after the other (s)",
        _names("TTL EXPIRETIME"),
        _within(CLOCK_SLACK_MS // 1000),
    ),
    Rule(
        "7.2 replies doubles with the shortest digits (0.1), 7.0 with seventeen (0.10000000000000001)",
        _names(
            "ZSCORE ZMSCORE ZINCRBY ZADD ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZPOPMIN ZPOPMAX ZMPOP ZDIFF "
            "ZUNION ZINTER ZRANK ZREVRANK SORT SORT_RO LRANGE GET"
        ),
        lambda command, expected, actual: _same_numbers(expected, actual),
    ),
    Rule(
        "encodings are named as in 7.2, and nothing says how a short string came about",
        _names("OBJECT"),
        _other_encoding,
    ),
    Rule("small integers are not shared objects here", _names("OBJECT"), _shared_integer),
    Rule("idle times and counters move with the clock and with chance", _names("OBJECT"), _idle_or_freq),
    Rule(
        "7.2 checks the arguments before it looks whether the key exists (redis/redis#11734)",
        _names("BITCOUNT BITPOS"),
        _checked_first,
    ),
    Rule(
        "keys past their deadline count until they are removed, which is a matter of time",
        _names("DBSIZE"),
        _within(4),
    ),
    Rule(
        "SORT ALPHA of redis-server compares with strcoll, which sees nothing behind a NUL",
        _names("SORT SORT_RO"),
        lambda command, expected, actual: (
            expected[0] == actual[0] == "array"
            and sorted(map(repr, expected[1])) == sorted(map(repr, actual[1]))
            and "\\x00" in repr(expected[1])
        ),
    ),
    Rule(
        "SORT of redis-server looks at an errno that an earlier command has left",
        _names("SORT SORT_RO"),
        lambda command, expected, actual: expected[0] == "error" and b"converted into double" in _text(expected),
    ),
    Rule(
        "ZRANK and ZREVRANK take WITHSCORE since 7.2",
        _names("ZRANK ZREVRANK"),
        lambda command, expected, _: len(command) == 4 and expected[0] == "error" and b"arguments" in _text(expected),
    ),
    Rule(
        "an error that quotes the command's name has it in letters of one case",
        _names("ACL GEOSEARCH GEOSEARCHSTORE"),
        lambda command, expected, actual: expected[0] == "error" and _text(expected).lower() == _text(actual).lower(),
    ),
    Rule(
        "which of places equally far away COUNT leaves out is up to the sorting algorithm",
        _names("GEORADIUS GEORADIUS_RO GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEOSEARCH"),
        _nearest_ties,
    ),
    Rule(
        "times differ; 7.2 tells more of them, and creates a consumer when it asks, 7.0 when it gets something",
        _names("XINFO"),
        same_facts,
    ),
    Rule(
        "7.2 creates a consumer when it asks, 7.0 when it gets something",
        _names("XGROUP"),
        lambda command, expected, actual: (
            command[1].upper() == b"CREATECONSUMER" and (expected, actual) == (("int", 1), ("int", 0))
        ),
    ),
    Rule("idle times are measured by two clocks", _names("XPENDING"), same_pending),
    Rule(
        "7.2 words it with the command's own name",
        _names("XREAD XREADGROUP"),
        lambda command, expected, actual: (
            expected[0] == actual[0] == "error" and b"Unbalanced" in _text(expected) and b"Unbalanced" in _text(actual)
        ),
    ),
    Rule(
        "an error quotes the subcommand in capitals",
        _names("XINFO XGROUP"),
        lambda command, expected, actual: (
            expected[0] == actual[0] == "error" and _text(expected).upper() == _text(actual).upper()
        ),
    ),
    Rule("COMMAND GETKEYS takes a command without arguments since 7.2", _names("COMMAND"), _getkeys_arity),
    Rule(
        "what SORT makes of equal weights, and of sets that it is told not to sort, follows from the table's order",
        _names("SORT SORT_RO"),
        _sort_ties,
    ),
]


def accepted_as(command: Command, expected: Tree, actual: Tree) -> str | None:
    """The reason why this difference is allowed, None when it is not."""
    name = command[0].decode("latin-1").upper()
    for rule in RULES:
        if (not rule.commands or name in rule.commands) and rule.holds(command, expected, actual):
            return rule.reason
    return None


def reset_after(command: Command) -> list[Command]:
    """What has to follow a command whose outcome is chance, so that both servers hold the same again."""
    name = command[0].upper()
    options = [word.upper() for word in command]
    if name == b"SPOP" and len(command) > 1:
        return [(b"DEL", command[1])]
    if name in (b"GEORADIUS", b"GEORADIUSBYMEMBER", b"GEOSEARCHSTORE") and b"COUNT" in options:  # ties
        stores = [(b"DEL", key) for word, key in zip(options, command[1:], strict=False) if word.startswith(b"STORE")]
        return stores or ([(b"DEL", command[1])] if name == b"GEOSEARCHSTORE" else [])
    if name == b"SORT" and b"STORE" in options[:-1] and b"BY" in options:
        return [(b"DEL", command[len(options) - options[::-1].index(b"STORE")])]
    return []
