"""The notation of arguments, and the table that is written in it."""

from __future__ import annotations

import pytest

import zeekdb.commands.introspection  # noqa: F401
from tests.unit.commands.harness import Bench
from zeekdb.commands.grammar import BLOCK, ONE_OF, TOKEN, Argument, lines, parse


def tokens(*names: str) -> tuple[Argument, ...]:
    return tuple(Argument(name.lower(), TOKEN, token=name) for name in names)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ()),
        ("member", (Argument("member"),)),
        ("key#0 start:integer", (Argument("key", "key", 0), Argument("start", "integer"))),
        ("pattern:pattern#1", (Argument("pattern", "pattern", 1),)),
        ("'ip:port'@-2.8.12", (Argument("ip:port", deprecated_since="2.8.12"),)),
        ("CH", tokens("CH")),
        ('change=CH any="*"', (Argument("change", TOKEN, token="CH"), Argument("any", TOKEN, token="*"))),
        ("FULL, id", (*tokens("FULL"), Argument("id"))),
        ("FULL [id]", (*tokens("FULL"), Argument("id", flags=("optional",)))),
        ("EX seconds:integer@6.2.0", (Argument("seconds", "integer", token="EX", since="6.2.0"),)),
        ("[EX seconds]", (Argument("seconds", token="EX", flags=("optional",)),)),
        ("[key#0]...", (Argument("key", "key", 0, flags=("optional", "multiple")),)),
        ("[GET p]...GET", (Argument("p", token="GET", flags=("optional", "multiple", "multiple_token")),)),
        ("(unit: M | KM)", (Argument("unit", ONE_OF, arguments=tokens("M", "KM")),)),
        ("[TYPE (kind: A | B)]@5.0.0",
         (Argument("kind", ONE_OF, token="TYPE", since="5.0.0", flags=("optional",), arguments=tokens("A", "B")),)),
        ("(a b)...", (Argument("a_b", BLOCK, flags=("multiple",), arguments=(Argument("a"), Argument("b"))),)),
        ("[data: a]", (Argument("data", BLOCK, flags=("optional",), arguments=(Argument("a"),)),)),
        ("(x: a b | C)", (Argument("x", ONE_OF, arguments=(
            Argument("a_b", BLOCK, arguments=(Argument("a"), Argument("b"))), *tokens("C"))),)),
    ],
)  # fmt: skip
def test_notation(text: str, wanted: tuple[Argument, ...]) -> None:
    assert parse(text) == wanted


@pytest.mark.parametrize(
    "text", ["(a", "a)", "a | b", "(A | B)", "()", "[GET p]...SET", "a=", "a=b", "a !", ": a", "[x: ]|", "@1.0", "..."]
)
def test_what_is_not_understood(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_the_table_is_in_order_and_parses() -> None:
    names = list(lines())
    assert names == sorted(names)
    for name, text in lines().items():
        assert parse(text), name


def test_command_docs() -> None:
    [(name, docs)] = Bench()("COMMAND", "DOCS", "command|docs").items()
    assert name == b"command|docs"
    [argument] = docs[b"arguments"]
    assert {**argument, b"flags": list(argument[b"flags"])} == {
        b"name": b"command-name", b"type": b"string", b"flags": ["optional", "multiple"],
    }  # fmt: skip
    assert b"arguments" not in Bench()("COMMAND", "DOCS", "command|count")[b"command|count"]
