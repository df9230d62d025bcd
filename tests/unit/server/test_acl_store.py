"""Users and the connections that are theirs, without sockets."""

from __future__ import annotations

import pytest

from tests.unit.commands.desk import Desk
from zeekdb.commands.introspection import lookup
from zeekdb.hot.gates import GATE_ACL, GATE_AUTH


@pytest.fixture
def desk() -> Desk:
    """Two clients: an operator, and one that logs in as eve."""
    made = Desk(2)
    made("ACL", "SETUSER", "eve", "on", "nopass")
    assert made.server.acl.authenticate(made.server.table[2], b"eve", b"")
    return made


@pytest.mark.parametrize(
    ("before", "after", "ends"),
    [
        ("&a", "resetchannels", True),
        ("&a", "resetchannels &a*", False),
        ("&a", "resetchannels &b", True),
        ("&a", "allchannels", False),
        ("&a", "resetchannels (&a)", False),
        ("allchannels", "resetchannels", True),
        ("allchannels", "+get", False),
    ],
)
@pytest.mark.parametrize("kind", ["channels", "shard_channels"])
def test_listeners_go_with_their_right(desk: Desk, kind: str, before: str, after: str, ends: bool) -> None:
    eve = desk.server.table[2]
    assert desk("ACL", "SETUSER", "eve", *before.split()) == "OK"
    setattr(eve, kind, {b"a"})
    assert desk("ACL", "SETUSER", "eve", *after.split()) == "OK"
    assert eve.deeds == ([("kill", False)] if ends else [])
    assert desk.me.deeds == []


@pytest.mark.parametrize(
    ("after", "ends"),
    [("resetchannels &a*", False), ("resetchannels &*", False), ("&x", False), ("resetchannels &a?", True)],
)
def test_patterns_must_be_among_the_rules(desk: Desk, after: str, ends: bool) -> None:
    eve = desk.server.table[2]
    desk("ACL", "SETUSER", "eve", "&a*")
    eve.patterns = {b"a*"}
    assert desk("ACL", "SETUSER", "eve", *after.split()) == "OK"
    assert eve.deeds == ([("kill", False)] if ends else [])


@pytest.mark.parametrize(
    ("call", "refused"),
    [
        ("publish a1 m", None), ("publish x m", "No permissions to access a channel"), ("spublish a1 m", None),
        ("subscribe a1 a2", None), ("subscribe a1 b", "No permissions to access a channel"),
        ("ssubscribe b", "No permissions to access a channel"), ("psubscribe a*", None),
        ("psubscribe a1", "No permissions to access a channel"), ("unsubscribe x", None),
    ],
)  # fmt: skip
def test_channels(desk: Desk, call: str, refused: str | None) -> None:
    desk("ACL", "SETUSER", "eve", "+@pubsub", "resetchannels", "&a*")
    words = tuple(word.encode() for word in call.split())
    spec = lookup(words)
    if spec is None:
        pytest.skip("no such command yet")
    denied = desk.server.acl.check(desk.server.table[2], spec, words)
    assert (denied and denied.message) == (refused and f"NOPERM {refused}")


def test_gates_follow(desk: Desk) -> None:
    eve = desk.server.table[2]
    assert eve.gate == GATE_ACL
    desk("ACL", "SETUSER", "eve", "~*", "&*", "+@all")
    assert eve.gate == 0
    desk("ACL", "SETUSER", "eve", "-get")
    assert eve.gate == GATE_ACL
    desk("ACL", "SETUSER", "default", "-@all", ">secret")
    assert (eve.gate, desk.me.gate) == (GATE_ACL, GATE_ACL)
    desk.server.acl.admit(desk.me)
    assert desk.me.gate == GATE_ACL | GATE_AUTH
    assert desk("ACL", "DELUSER", "eve") == 1
    assert eve.account is desk.server.acl.default
    assert eve.gate == GATE_ACL | GATE_AUTH
    assert eve.deeds == [("kill", False)]
    assert desk.server.acl.authenticate(desk.me, b"default", b"secret")
    assert desk.me.gate == GATE_ACL
