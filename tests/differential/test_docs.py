"""COMMAND DOCS: the arguments of every command that redis-server knows, against its own."""

from __future__ import annotations

from typing import Any

from tests.differential.oracle import servers
from tests.support import SetReply

# Arguments that came after redis-server 7.0; they stand at the end.
ADDED = {b"zrank": 1, b"zrevrank": 1, b"command|getkeys": 2, b"command|getkeysandflags": 2}


def tidy(value: Any) -> Any:
    """The same with sets in one order."""
    if isinstance(value, SetReply):
        return sorted(value)
    if isinstance(value, dict):
        return {key: tidy(item) for key, item in value.items()}
    return [tidy(item) for item in value] if isinstance(value, list) else value


def arguments(docs: dict[bytes, Any]) -> dict[bytes, Any]:
    """By command and subcommand."""
    found = {}
    for name, each in docs.items():
        found[name] = tidy(each.get(b"arguments", []))
        found |= arguments(each.get(b"subcommands", {}))
    return found


def test_arguments_are_those_of_redis() -> None:
    with servers() as pair:
        for wire in (pair.reference, pair.subject):
            wire("HELLO", 3)
        wanted, ours = (arguments(wire("COMMAND", "DOCS")) for wire in (pair.reference, pair.subject))
    common = wanted.keys() & ours.keys()
    assert len(common) > 250
    for name in common:
        added = ADDED.get(name, 0)
        assert ours[name][: len(ours[name]) - added] == wanted[name], name
        # every command has its arguments in one order, so the keys' order is compared as well
        assert repr(ours[name][: len(ours[name]) - added]) == repr(wanted[name]), name
