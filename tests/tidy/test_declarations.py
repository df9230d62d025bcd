"""Declared commands against Redis 7.2's command table, where that stands beside the checkout."""

from __future__ import annotations

import importlib
import json
import pkgutil
from typing import Any

import pytest

import zeekdb.commands
from tests.support import ROOT
from zeekdb.commands.grammar import lines
from zeekdb.commands.introspection import categories, everything, flags, is_container, legacy_keys
from zeekdb.commands.spec import REGISTRY, Command, KeySpec

NAMES = ROOT / "tests" / "fixtures" / "redis_commands.txt"

for module in pkgutil.iter_modules(zeekdb.commands.__path__):
    importlib.import_module(f"zeekdb.commands.{module.name}")

OURS = sorted({spec.name.lower(): spec for spec in everything()}.items())


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """Redis's table, subcommands as `config|get`."""
    places = (folder / "shared" / "facts" / "commands.json" for folder in ROOT.parents)
    path = next((place for place in places if place.exists()), None)
    if path is None:
        pytest.skip("the table of Redis's commands does not stand beside this checkout")
    table: dict[str, Any] = json.loads(path.read_text())
    for name, fact in list(table.items()):
        table |= {f"{name}|{sub}": inner for sub, inner in fact.get("subcommands", {}).items()}
    return table


def key_spec(spec: KeySpec) -> dict[str, Any]:
    """A key specification in the table's form."""
    if spec.keyword:
        begin: dict[str, Any] = {"type": "keyword", "keyword": spec.keyword, "startfrom": spec.start_from}
    else:
        begin = {"type": "index", "index": spec.index} if spec.index else {"type": "unknown"}
    if spec.unknown:
        find: dict[str, Any] = {"type": "unknown"}
    elif spec.count_at >= 0:
        find = {"type": "keynum", "keynumidx": spec.count_at, "firstkey": spec.first, "keystep": spec.step}
    else:
        find = {"type": "range", "lastkey": spec.last, "keystep": spec.step, "limit": spec.limit}
    return {"flags": sorted(spec.flags), "begin_search": begin, "find_keys": find}


@pytest.mark.parametrize(("name", "spec"), OURS, ids=[name for name, _ in OURS])
def test_a_declaration_says_what_redis_says(name: str, spec: Command, facts: dict[str, Any]) -> None:
    if name not in facts:
        pytest.skip("not a command of Redis 7.2")
    fact = facts[name]
    wanted_specs = [
        {key: sorted(each[key]) if key == "flags" else each[key] for key in ("flags", "begin_search", "find_keys")}
        for each in fact.get("key_specs", [])
    ]
    ours = {
        "arity": spec.arity,
        "flags": sorted(flags(spec)),
        "acl": sorted(f"@{category}" for category in categories(spec)),
        "group": spec.group,
        "since": spec.since,
        "keys": list(legacy_keys(spec)[0]),
        "key_specs": [key_spec(each) for each in spec.keys],
        "tips": sorted(spec.tips),
    }
    assert ours == {
        "arity": fact["arity"],
        "flags": sorted(fact["flags"]),
        "acl": sorted(fact["acl"]),
        "group": fact["group"],
        "since": fact["since"],
        "keys": fact["keys"],
        "key_specs": wanted_specs,
        "tips": sorted(fact.get("tips", [])),
    }


def test_every_subcommand_of_a_container_is_its_own(facts: dict[str, Any]) -> None:
    assert not [spec.name for spec in REGISTRY.values() if is_container(spec) and not spec.subcommands]


@pytest.mark.parametrize(("name", "spec"), OURS, ids=[name for name, _ in OURS])
def test_a_declaration_has_a_summary(name: str, spec: Command) -> None:
    assert spec.summary, name
    assert spec.complexity, name


def test_every_command_with_arguments_has_a_grammar() -> None:
    bare = {"COMMAND", "DEBUG", "QUIT", "REPLCONF"}  # Redis tells no arguments of these either
    missing = [
        name
        for name, spec in OURS
        if not is_container(spec) and spec.arity != 1 + name.count("|") and spec.name not in {*lines(), *bare}
    ]
    assert not missing, f"zeekdb/commands/grammar.txt lacks {missing}"


def test_the_list_of_redis_commands_is_redis_list(facts: dict[str, Any]) -> None:
    assert NAMES.read_text().split() == sorted(name for name in facts)
