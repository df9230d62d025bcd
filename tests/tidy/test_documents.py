"""Generated files say what the tables say."""

from __future__ import annotations

import re

from tests.support import ROOT
from zeekdb.commands.compatibility import load_declarations, page
from zeekdb.config.file import document


def test_the_configuration_file_is_the_table() -> None:
    made = (ROOT / "conf" / "zeekdb.conf").read_text()
    assert made == document(), "run: python -m zeekdb.config.file > conf/zeekdb.conf"


def test_the_compatibility_page_is_the_declarations() -> None:
    load_declarations()
    names = (ROOT / "tests" / "fixtures" / "redis_commands.txt").read_text().split()
    command = "python -m zeekdb.commands.compatibility tests/fixtures/redis_commands.txt > docs/COMPATIBILITY.md"
    assert (ROOT / "docs" / "COMPATIBILITY.md").read_text() == page(names), f"run: {command}"


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    named = {name.rsplit("/", 1)[-1] for name in re.findall(r"[\w/]+\.(?:py|pyx|cu)\b", text)}
    there = {path.name for path in (ROOT / "zeekdb").rglob("*") if path.suffix in (".py", ".pyx", ".cu")}
    assert not there - named - {"__init__.py"}, "say in docs/ARCHITECTURE.md what they are for"
