"""Rules and what they allow, users described and read back, the log's grouping."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeekdb.commands.compatibility import load_declarations
from zeekdb.commands.introspection import CATEGORIES, everything, lookup
from zeekdb.config.file import split_arguments
from zeekdb.server.acl.log import GROUPING_MS, AclLog
from zeekdb.server.acl.rules import Reason, RuleError, Unmatched, User, hashed, merged, spelled

load_declarations()

NAMES = sorted(spec.lower for spec in everything())
HASH = hashed(b"secret").decode()
ALL_KEYS = (
    "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. "
    "Try 'resetkeys' to start with an empty list of patterns"
)
ALL_CHANNELS = (
    "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. "
    "Try 'resetchannels' to start with an empty list of channels"
)
BAD_HASH = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
UNKNOWN = "Unknown command or category name in ACL"


def user(rules: str, name: bytes = b"u") -> User:
    made = User(name)
    for rule in merged(rules.encode().split(b" ")):
        made.apply(rule)
    return made


def denial(rules: str, call: str) -> tuple[str, int] | None:
    words = tuple(word.encode() for word in call.split())
    spec = lookup(words)
    assert spec is not None, call
    found = user(rules).denies(spec, words)
    return found and (found[0].name, found[1])


# --- one rule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "described"),
    [
        ("", "off sanitize-payload resetchannels -@all"),
        ("on nopass ~* &* +@all", "on nopass sanitize-payload ~* &* +@all"),
        ("ON NoPass ALLKEYS AllChannels AllCommands", "on nopass sanitize-payload ~* &* +@all"),
        ("~a ~b %R~a %W~c %rw~d %Rw~e", "off sanitize-payload ~a ~b %W~c ~d ~e resetchannels -@all"),
        ("%R~a %W~a", "off sanitize-payload ~a resetchannels -@all"),
        ("%RW ~x", "off sanitize-payload ~ ~x resetchannels -@all"),
        ("%RW~* ~x", "off sanitize-payload %RW~* ~x resetchannels -@all"),
        ("~a resetkeys ~b", "off sanitize-payload ~b resetchannels -@all"),
        ("&a &b &a", "off sanitize-payload resetchannels &a &b -@all"),
        ("allchannels resetchannels &x", "off sanitize-payload resetchannels &x -@all"),
        ("+GET +Config|Get -get", "off sanitize-payload resetchannels -@all +config|get -get"),
        ("+memory|doctor +memory", "off sanitize-payload resetchannels -@all +memory"),
        ("+@all -@String +incr -debug +debug|Digest",
         "off sanitize-payload resetchannels +@all -@string +incr -debug +debug|digest"),
        ("+get +@all +client|id", "off sanitize-payload resetchannels +@all +client|id"),
        ("+select|0 +select|1", "off sanitize-payload resetchannels -@all +select|0 +select|1"),
        (f">secret #{HASH} >other <other", f"off sanitize-payload #{HASH} resetchannels -@all"),
        (">secret nopass", "off nopass sanitize-payload resetchannels -@all"),
        ("nopass >secret", f"off sanitize-payload #{HASH} resetchannels -@all"),
        (f"#{HASH} !{HASH}", "off sanitize-payload resetchannels -@all"),
        ("on off skip-sanitize-payload", "off skip-sanitize-payload resetchannels -@all"),
        ("(+get ~a) ()",
         "off sanitize-payload resetchannels -@all (~a resetchannels -@all +get) (resetchannels -@all)"),
        ("( +set %W~b &c )", "off sanitize-payload resetchannels -@all (%W~b resetchannels &c -@all +set)"),
        ("(+get) clearselectors", "off sanitize-payload resetchannels -@all"),
        ("on >secret ~* &* +@all (+get) skip-sanitize-payload reset", "off sanitize-payload resetchannels -@all"),
    ],
)  # fmt: skip
def test_rules_are_described(rules: str, described: str) -> None:
    assert user(rules).described().decode() == described


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ("+nosuch", UNKNOWN), ("-nosuch", UNKNOWN), ("+@nosuch", UNKNOWN), ("+config|nosuch", UNKNOWN),
        ("-config|nosuch", UNKNOWN), ("-select|0", UNKNOWN), ("+get|a|b", UNKNOWN), ("-get|a|b", UNKNOWN),
        ("+", UNKNOWN), ("-", UNKNOWN), ("+@", UNKNOWN),
        ("+config|get|x", "Allowing first-arg of a subcommand is not supported"),
        ("+debug|", "Syntax error"), ("%~", "Syntax error"), ("%", "Syntax error"), ("%RR~x", "Syntax error"),
        ("%X~x", "Syntax error"), ("~a\tb", "Syntax error"), ("&a\tb", "Syntax error"), ("nonsense", "Syntax error"),
        (")", "Syntax error"), ("(nonsense)", "Syntax error"), ("(&* &fail)", ALL_CHANNELS), ("~* ~a", ALL_KEYS),
        ("&* &a", ALL_CHANNELS), ("#12", BAD_HASH), ("!12", BAD_HASH), ("#" + HASH.upper(), BAD_HASH),
        ("<secret", "The password you are trying to remove from the user does not exist"),
    ],
)  # fmt: skip
def test_mistakes_are_told(rules: str, text: str) -> None:
    with pytest.raises(RuleError) as caught:
        user(rules)
    assert str(caught.value) == text


def test_a_selector_that_stays_open() -> None:
    with pytest.raises(Unmatched, match=r"\(\+get"):
        user("on (+get ~a")


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_alone_is_shown_as_it_is(category: str) -> None:
    assert user(f"+@all -@{category}").root.described_commands().decode() == f"+@all -@{category}"
    assert user(f"-@all +@{category}").root.described_commands().decode() == f"-@all +@{category}"


# --- calls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "call", "expected"),
    [
        ("~* +get", "get k", None),
        ("~* +get", "set k v", ("COMMAND", 0)),
        ("~* +@read", "get k", None),
        ("~* +@all -@write", "set k v", ("COMMAND", 0)),
        ("", "auth x", None),  # logging in is nobody's to forbid
        ("", "hello", None),
        ("+config|get", "config get x", None),
        ("+config|get", "config set x y", ("COMMAND", 0)),
        ("+config -config|set", "config get x", None),
        ("+config -config|set", "config set x y", ("COMMAND", 0)),
        ("+select|0", "select 0", None),
        ("+select|0", "select 1", ("COMMAND", 0)),
        ("+select|0 -select", "select 0", ("COMMAND", 0)),
        ("+select|0 +select", "select 1", None),
        ("~a* ~b? +@all", "mget a1 b2 a", None),
        ("~a* ~b? +@all", "mget a1 b22 c", ("KEY", 2)),
        ("%R~r* %W~w* +@all", "copy r1 w1", None),
        ("%R~r* %W~w* +@all", "copy w1 r1", ("KEY", 1)),
        ("%R~r* %W~w* +@all", "copy r1 r2", ("KEY", 2)),
        ("%R~r* %W~w* +@all", "set w1 v", None),
        ("%R~r* %W~w* +@all", "set w1 get", None),
        ("%R~r* %W~w* +@all", "set w1 v get", ("KEY", 1)),
        ("%R~r* %W~w* +@all", "exists w1 r1", None),  # whether a key is there may be asked with either
        ("%R~r* %W~w* +@all", "exists x1", ("KEY", 1)),
        ("%R~r* +@all", "bitfield r1 get u4 0 overflow wrap get u8 1", None),
        ("%R~r* +@all", "bitfield r1 get u4 0 set u4 0 1", ("KEY", 1)),
        ("%R~r* +@all", "bitfield r1 overflow", ("KEY", 1)),
        ("%R~r* %W~w* +@all", "sort r1 store w1", None),
        ("%R~r* %W~w* +@all", "sort r1 store r1", ("KEY", 3)),
        ("%R~r* %W~w* +@all", "zunionstore w1 2 r1 r2", None),
        ("%R~r* %W~w* +@all", "zunionstore w1 2 r1 w2", ("KEY", 4)),
        ("%R~r* %W~w* +@all", "georadius r1 1 2 3 m storedist w1", None),
        ("%R~r* %W~w* +@all", "georadius r1 1 2 3 m store r1", ("KEY", 7)),
        ("~r* +@all", "zinter 9 x y", None),  # a mistake, which the command will tell
        ("~a +@all", "flushall", None),
        ("(+get ~a) (+set ~b)", "get a", None),
        ("(+get ~a) (+set ~b)", "set b v", None),
        ("(+get ~a) (+set ~b)", "set a v", ("KEY", 1)),
        ("(+get ~a) (+set ~b)", "ping", ("COMMAND", 0)),
        ("+mget ~key (+mget ~key ~otherkey)", "mget key otherkey some", ("KEY", 3)),
        ("+mget ~key (+mget ~key ~otherkey)", "mget otherkey some", ("KEY", 2)),
        ("(%R~x +@all) (%W~x +@all)", "getset x v", ("KEY", 1)),
    ],
)
def test_calls(rules: str, call: str, expected: tuple[str, int] | None) -> None:
    assert denial(rules, call) == expected


@pytest.mark.parametrize(
    ("rules", "every"),
    [
        ("~mylist +sort", False), ("~mylist ~v* +sort", False), ("~mylist %W~* +sort", False),
        ("~mylist %R~* +sort", True), ("~* +sort", True), ("(~mylist +sort) %R~*", False),
        ("(~mylist %R~* +sort)", True),
    ],
)  # fmt: skip
def test_reading_what_patterns_lead_to(rules: str, every: bool) -> None:
    words = (b"sort", b"mylist", b"by", b"v*")
    spec = lookup(words)
    assert spec is not None
    assert user(rules).reads_every_key(spec, words) is every


@pytest.mark.parametrize(
    ("rules", "free"),
    [
        ("~* &* +@all", True), ("~* &* +@all -ping", False), ("~* +@all", False), ("&* +@all", False),
        ("(~* &* +@all)", True), ("%RW~* &* +@all", False), ("~* &* -@all", False), ("~* &* +@all reset", False),
    ],
)  # fmt: skip
def test_who_is_free_of_questions(rules: str, free: bool) -> None:
    assert user(rules).unrestricted is free


def test_every_channel_rule() -> None:
    root = user("&a* &b").root
    assert [root.allows_channel(name, False) for name in (b"a1", b"b", b"c")] == [True, True, False]
    assert [root.allows_channel(name, True) for name in (b"a*", b"a1", b"b", b"*")] == [True, False, True, False]


# --- there and back -----------------------------------------------------------------------------------------------

_plain = st.text(string.ascii_letters + string.digits + ":*?[]-^\\\"'\u00e9#|(&~%+", max_size=8).map(str.encode)
_command = st.sampled_from(NAMES).map(str.encode)
_rule = st.one_of(
    st.sampled_from([
        b"on", b"off", b"nopass", b"resetpass", b"sanitize-payload", b"skip-sanitize-payload", b"allkeys", b"resetkeys",
        b"allchannels", b"resetchannels", b"+@all", b"-@all", b"nocommands", b"reset", b"clearselectors", b"%RW~*",
        b"+select|0", b"+debug|Object", b">one", b">two", b"<one", b"()",
    ]),
    st.tuples(st.sampled_from([b"~", b"%R~", b"%W~", b"%RW~", b"&"]), _plain).map(b"".join),
    st.tuples(st.sampled_from([b"+", b"-"]), _command).map(b"".join),
    st.tuples(st.sampled_from([b"+@", b"-@"]), st.sampled_from(CATEGORIES).map(str.encode)).map(b"".join),
)  # fmt: skip
_rules = st.lists(st.one_of(_rule, st.lists(_rule, max_size=5).map(lambda rules: b"(" + b" ".join(rules) + b")")))


def built(rules: list[bytes]) -> User:
    made = User(b"u")
    for rule in rules:
        try:
            made.apply(rule)
        except RuleError:
            continue
    return made


@given(_rules)
def test_a_described_user_is_the_same_user(rules: list[bytes]) -> None:
    first = built(rules)
    again = User(b"u")
    for rule in merged(first.described().split(b" ")):  # as a file of users is read
        again.apply(rule)
    assert again == first
    assert again.described() == first.described()


@given(_rules)
def test_a_described_user_comes_back_from_the_configuration(rules: list[bytes]) -> None:
    first = built(rules)
    words = split_arguments(spelled(first.described()).decode("utf-8", "surrogateescape"))
    assert words is not None
    again = User(b"u")
    for rule in merged(word.encode("utf-8", "surrogateescape") for word in words):
        again.apply(rule)
    assert again == first


@given(_rules)
def test_rules_are_kept_without_loss(rules: list[bytes]) -> None:
    """The bits, which decide, are those that the rules shown make."""
    for selector in built(rules).selectors:
        again = User(b"u").root
        for rule in selector.described_commands().split(b" "):
            again.apply(rule)
        assert (again.allowed, again.first_args) == (selector.allowed, selector.first_args)


# --- the log ------------------------------------------------------------------------------------------------------


def test_what_repeats_is_counted() -> None:
    now = [1000.0]
    log = AclLog(lambda: now[0])

    def add(what: bytes, context: str = "toplevel", name: bytes = b"bob") -> None:
        log.add(Reason.KEY, context, what, name, f"seen at {now[0]}", 3)

    add(b"a")
    now[0] += 1
    add(b"b")
    now[0] += GROUPING_MS / 1000 - 1
    add(b"a")
    first, second = log.latest(10)
    assert (first.object, first.count, first.number, first.created_ms, first.updated_ms) == (
        b"a", 2, 0, 1_000_000, 1_060_000,
    )  # fmt: skip
    assert first.client == "seen at 1060.0"
    assert (second.object, second.count, second.number) == (b"b", 1, 1)
    now[0] += GROUPING_MS / 1000 + 0.001
    add(b"a")
    assert [(entry.object, entry.count, entry.number) for entry in log.latest(10)] == [
        (b"a", 1, 2), (b"a", 2, 0), (b"b", 1, 1),
    ]  # fmt: skip
    add(b"a", "multi")
    add(b"a", name=b"eve")
    assert [entry.number for entry in log.latest(10)] == [4, 3, 2]  # three at most
    assert [entry.number for entry in log.latest(2)] == [4, 3]
    assert list(log.latest(-1)) == []
    log.reset()
    assert list(log.latest(10)) == []
    assert log.denied["key"] == 6
