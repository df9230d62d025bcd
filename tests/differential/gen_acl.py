"""Random rules for a few users, and what DRYRUN says of calls whose keys the rules are about.

No connection logs in as one of them: what DRYRUN allows is what the check before each command allows.
"""

from __future__ import annotations

import contextlib
import random
from functools import cache
from typing import Any

from tests.differential.grammar import Pools
from zeekdb.commands.compatibility import load_declarations
from zeekdb.commands.introspection import everything
from zeekdb.server.acl.rules import Selector, UnknownCommand, place_of

Tree = tuple[str, Any]
Command = tuple[bytes, ...]

USERS = (b"alice", b"bob", b"eve")
PASSWORDS = (b"one", b"two")
HASH = b"7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # of "one"
COMMANDS = (
    b"get", b"GET", b"set", b"mget", b"del", b"incr", b"ping", b"config", b"config|get", b"Config|Set",
    b"config|nosuch", b"client", b"client|id", b"client|kill", b"memory|usage", b"object|encoding", b"debug",
    b"select", b"lpush", b"sort", b"zunionstore", b"acl|whoami", b"acl", b"nosuch", b"get|x", b"config|get|x", b"",
    b"eval", b"auth",
)  # fmt: skip
CATEGORIES = (
    b"keyspace", b"read", b"Write", b"set", b"sortedset", b"list", b"hash", b"string", b"bitmap", b"geo", b"admin",
    b"fast", b"dangerous", b"connection", b"transaction", b"scripting", b"nosuch", b"all",
)  # fmt: skip
SINGLE = (
    b"on", b"off", b"nopass", b"resetpass", b"reset", b"allkeys", b"resetkeys", b"allchannels", b"resetchannels",
    b"allcommands", b"nocommands", b"clearselectors", b"ON", b"ResetKeys", b"sanitize-payload",
    b"skip-sanitize-payload",
)  # fmt: skip
ODD = (
    b"", b"nonsense", b"%~x", b"%X~x", b"%RR~a", b"~a b", b"&a b", b")", b"#12", b"!12", b"#" + HASH.upper(), b"+",
    b"-",
)  # fmt: skip
PREFIXES = (b"read", b"write", b"rw", b"any")


def _one(r: random.Random, *choices: bytes) -> bytes:
    return r.choice(choices)


def _user(r: random.Random) -> bytes:
    return r.choice(USERS) if r.random() > 0.02 else r.choice([b"nobody", b"a b", b"a\0b", b""])


def _command_rule(r: random.Random) -> bytes:
    draw = r.random()
    if draw < 0.2:
        return _one(r, b"+@all", b"-@all")
    if draw < 0.55:
        return _one(r, b"+@", b"-@") + r.choice(CATEGORIES)
    if draw < 0.6:
        return _one(r, b"+select|0", b"+select|1", b"+debug|object")
    return _one(r, b"+", b"+", b"-") + r.choice(COMMANDS)


def _key_rule(r: random.Random) -> bytes:
    pattern = r.choice([*(prefix + b"*" for prefix in PREFIXES), b"read1", b"rw[12]", b"?nk", b"w*", b"*", b""])
    return _one(r, b"~", b"~", b"%R~", b"%W~", b"%RW~", b"%wr~") + pattern


def _channel_rule(r: random.Random) -> bytes:
    return b"&" + r.choice([b"*", b"c*", b"c1", b"d?", b""])


def _rule(r: random.Random) -> bytes:
    draw = r.random()
    if draw < 0.35:
        return _command_rule(r)
    if draw < 0.6:
        return _key_rule(r)
    if draw < 0.7:
        return _channel_rule(r)
    if draw < 0.8:
        return r.choice(SINGLE)
    if draw < 0.9:
        return r.choice([b">one", b">two", b"<one", b"#" + HASH, b"!" + HASH])
    if draw < 0.92:
        return r.choice(ODD)
    return _open_selector(r) + b")"


def _open_selector(r: random.Random) -> bytes:
    """A selector that is not closed. One to a command at most: with a second 7.0 forgets the first."""
    inside = [r.choice([_command_rule, _key_rule, _channel_rule])(r) for _ in range(r.randint(0, 4))]
    return b"(" + b" ".join(inside)


def _key(r: random.Random) -> bytes:
    return r.choice(PREFIXES) + b"%d" % r.randint(1, 3)


def _channel(r: random.Random) -> bytes:
    return r.choice([b"c1", b"c2", b"d1", b"c*", b"e"])


POOLS: Pools = {
    "acl_user": _user, "rule": _rule, "open_selector": _open_selector, "acl_key": _key, "acl_channel": _channel,
}  # fmt: skip

WEIGHT = 2
TEMPLATES = """
    ACL SETUSER <acl_user> (<rule>)+
    ACL SETUSER <acl_user> (<rule>)+
    ACL SETUSER <acl_user> (<rule>)+
    ACL SETUSER <acl_user> {<rule>} <open_selector> (<rule>|x) [)]
    ACL GETUSER <acl_user>
    ACL LIST
    ACL USERS
    ACL WHOAMI
    ACL DELUSER <acl_user>
    ACL DELUSER default
    ACL GENPASS (0|-1|4097|abc|9223372036854775808)
    ACL CAT nosuch
    ACL CAT nosuch x
    ACL NOSUCH
    ACL LOAD
    ACL SAVE
    ACL LOG RESET
    ACL LOG
    ACL DRYRUN <acl_user> (GET|INCR|EXISTS|TYPE|STRLEN|TTL|GETDEL|PERSIST|TOUCH|UNLINK|SPOP) <acl_key>
    ACL DRYRUN <acl_user> SET <acl_key> v {GET} {NX} {EX 10}
    ACL DRYRUN <acl_user> (COPY|RENAME|RPOPLPUSH|SMOVE) <acl_key> <acl_key> x
    ACL DRYRUN <acl_user> LMOVE <acl_key> <acl_key> LEFT RIGHT
    ACL DRYRUN <acl_user> (MGET|DEL|PFCOUNT|SINTER|WATCH) (<acl_key>)+
    ACL DRYRUN <acl_user> MSET (<acl_key> v)+
    ACL DRYRUN <acl_user> (SINTERCARD|ZINTERCARD|ZUNION|LMPOP) #(<acl_key>)+ LEFT
    ACL DRYRUN <acl_user> (ZUNIONSTORE|ZDIFFSTORE) <acl_key> #(<acl_key>)+
    ACL DRYRUN <acl_user> (SORT|SORT_RO) <acl_key> {BY <acl_key>} {GET <acl_key>} {STORE <acl_key>} {LIMIT 0 1}
    ACL DRYRUN <acl_user> BITFIELD <acl_key> {GET u4 0} {SET u4 0 1} {OVERFLOW SAT} {INCRBY u4 0 1} {OVERFLOW}
    ACL DRYRUN <acl_user> BITOP AND <acl_key> (<acl_key>)+
    ACL DRYRUN <acl_user> (GEORADIUS|GEORADIUSBYMEMBER) <acl_key> 1 2 3 m {STORE <acl_key>} {STOREDIST <acl_key>}
    ACL DRYRUN <acl_user> (EVAL|EVAL_RO|EVALSHA|FCALL) x #(<acl_key>)+ y
    ACL DRYRUN <acl_user> (XREAD|XREADGROUP) {COUNT 1} {BLOCK 0} STREAMS <acl_key> <acl_key> 0 0
    ACL DRYRUN <acl_user> (BLPOP|BZPOPMIN) (<acl_key>)+ 0
    ACL DRYRUN <acl_user> OBJECT (ENCODING|FREQ|NOSUCH) <acl_key>
    ACL DRYRUN <acl_user> MEMORY USAGE <acl_key>
    ACL DRYRUN <acl_user> (CONFIG GET|CONFIG SET x|CLIENT KILL|CLIENT ID|CONFIG|SELECT|DEBUG) [0|object|x]
    ACL DRYRUN <acl_user> (PING|AUTH x|HELLO|FLUSHALL|KEYS x|RANDOMKEY|NOSUCH x|ACL WHOAMI|ACL LIST|MULTI|EXEC)
    ACL DRYRUN <acl_user> (PUBLISH|SPUBLISH) <acl_channel> m
    ACL DRYRUN <acl_user> (SUBSCRIBE|SSUBSCRIBE|PSUBSCRIBE|UNSUBSCRIBE|PUNSUBSCRIBE) (<acl_channel>)+
"""

# --- 7.0's words and 7.2's -----------------------------------------------------------------------------------------

load_declarations()
_COMMAND_RULE = (b"+", b"-")


@cache
def _old_commands() -> int:
    """The bits of the commands that 7.0 has, but WAIT, which is @blocking since 7.2."""
    old = [spec for spec in everything() if tuple(map(int, spec.since.split("."))) < (7, 0, 16) and spec.name != "WAIT"]
    return sum(1 << place_of(spec) for spec in old)


def _may_run(rules: list[bytes]) -> tuple[bool, int, frozenset[tuple[int, bytes]]]:
    """What rules of commands come to: future ones, those of 7.0, and first arguments of others."""
    selector = Selector()
    for rule in rules:
        with contextlib.suppress(UnknownCommand):  # one that 7.0 has and the subject has not
            selector.apply(rule)
    others = {at: words for at, words in selector.first_args.items() if not selector.allowed >> at & 1}
    first = {(at, word) for at, words in others.items() for word in words}
    return selector.allowed < 0, selector.allowed & _old_commands(), frozenset(first)


def _user_line(line: bytes) -> list[Any]:
    """A line of ACL LIST with the rules of commands as what they mean."""
    parts: list[Any] = []
    for part in line.split(b" ("):
        words = [b"~*" if word == b"%RW~*" else word for word in part.rstrip(b")").split(b" ")]
        parts.append([word for word in words if not word.startswith(_COMMAND_RULE) and word != b"sanitize-payload"])
        parts.append(_may_run([word for word in words if word.startswith(_COMMAND_RULE)]))
    return parts


def _user_fields(reply: Tree) -> Any:
    """ACL GETUSER's reply likewise."""
    kind, items = reply
    if kind not in ("array", "map") or not items:
        return reply
    pairs = items if kind == "map" else list(zip(items[::2], items[1::2], strict=True))
    found: list[Any] = [kind]
    for (_, name), (kind, value) in pairs:
        if name == b"commands":
            value = _may_run(value.split(b" "))
        elif name == b"keys":
            value = value.replace(b"%RW~*", b"~*")
        elif name == b"flags":
            value = [flag for flag in value if flag[1] != b"sanitize-payload"]
        elif name == b"selectors":
            value = [_user_fields(selector) for selector in value]
        found.append((name, kind, value))
    return found


def same_users(command: Command, expected: Tree, actual: Tree) -> bool:
    """Whether two replies of GETUSER or LIST show users that may do the same."""
    match command[1].upper():
        case b"GETUSER":
            return bool(_user_fields(expected) == _user_fields(actual))
        case b"LIST":
            return expected[0] == actual[0] == "array" and [_user_line(line) for _, line in expected[1]] == [
                _user_line(line) for _, line in actual[1]
            ]
    return False


def same_dry_run(command: Command, expected: Tree, actual: Tree) -> bool:
    """Whether DRYRUN refuses in 7.0's and in 7.2's words."""
    if command[1].upper() != b"DRYRUN" or expected[0] != "bulk":
        return False
    return actual == ("bulk", expected[1].replace(b"This user", b"User " + command[2], 1))


def same_and_more(command: Command, expected: Tree, actual: Tree) -> bool:
    """Whether CAT lists what 7.0 does, in whatever order, and perhaps more."""
    if command[1].upper() != b"CAT" or not expected[0] == actual[0] == "array":
        return False
    return {name for _, name in expected[1]} <= {name for _, name in actual[1]}


def same_length(command: Command, expected: Tree, actual: Tree) -> bool:
    """Whether GENPASS made as many letters."""
    if command[1].upper() != b"GENPASS" or not expected[0] == actual[0] == "bulk":
        return False
    return len(expected[1]) == len(actual[1])
