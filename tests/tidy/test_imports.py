"""Imports point down, and the other rules of the house that a program can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "zeekdb"

# The rooms from top to bottom: a room imports only from rooms on lines below its own.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("tools",),
    ("server",),
    ("commands",),
    ("eviction", "tiers", "tensors", "persistence", "replication", "scripting"),
    ("types",),  # the doors of the data types, beside hot in the design: their structures live there
    ("hot",),
    ("config",),
    ("observe", "errors"),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
# Rooms that stand beside the house: what they may import of ours.
BESIDE = {"client": {"errors"}, "integrations": {"client", "errors"}}
# A line below may be left out for a reason.
ALLOWED = {
    ("tiers", "tensors"): "blocks on their way to a far tier go through the region's codecs (tiers/packing.py)",
    ("observe", "errors"): "DESIGN: observe imports nothing of ours but errors",
}


def room_of(path: Path) -> str:
    """The room that a file belongs to: its folder in zeekdb, or its own name at the top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of everything of ours that a file imports."""
    text = path.read_text()
    if path.suffix in (".pyx", ".pxd"):
        for number, line in enumerate(text.splitlines(), 1):
            if match := re.match(r"\s*(?:from|import|cimport)\s+(zeekdb[\w.]*)(?:\s+c?import\s+(.*))?", line):
                module, names = match.groups()
                yield from ((number, f"{module}.{name.strip(' ()')}") for name in (names or "").split(",") if name)
                yield number, module
        return
    package = ["zeekdb", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = [*start, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def rooms_imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of everything of ours that a file imports."""
    for line, module in imported(path):
        parts = module.split(".")
        room = parts[1] if parts[0] == "zeekdb" and len(parts) > 1 else ""
        if room and ((PACKAGE / room).exists() or (PACKAGE / f"{room}.py").exists()):
            yield line, room


def sources(*suffixes: str) -> list[Path]:
    """The package's files."""
    return sorted(p for p in PACKAGE.rglob("*") if p.suffix in suffixes)


def test_imports_point_down() -> None:
    wrong = []
    for path in sources(".py", ".pyx", ".pxd"):  # a .pyi is a door: it may name what passes through it
        room = room_of(path)
        if room == "__init__":
            continue
        for line, other in rooms_imported(path):
            if other == room or (room, other) in ALLOWED:
                continue
            below = other in BESIDE[room] if room in BESIDE else other in RANK and RANK[other] > RANK[room]
            if not below:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {room} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_known() -> None:
    rooms = {room_of(path) for path in sources(".py", ".pyx")} - {"__init__"}
    assert rooms <= RANK.keys() | BESIDE.keys()


def test_the_package_itself_imports_nothing_of_ours() -> None:
    assert not list(rooms_imported(PACKAGE / "__init__.py"))


@pytest.mark.parametrize(
    ("text", "suffix", "rooms"),
    [
        ("from zeekdb.server import dispatch", ".py", ["server"]),
        ("import zeekdb.errors", ".py", ["errors"]),
        ("from ..config import options", ".py", ["config"]),
        ("from . import keys", ".py", ["commands"]),
        ("def f():\n    from zeekdb import errors", ".py", ["errors"]),
        ("from zeekdb.hot.table cimport Entry", ".pyx", ["hot", "hot"]),
        ("import uvloop", ".py", []),
    ],
)
def test_the_parser_sees_every_form(
    text: str, suffix: str, rooms: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "commands" / f"x{suffix}"
    path.parent.mkdir()
    path.write_text(text)
    for room in ("server", "config", "hot", "commands"):
        (tmp_path / room).mkdir(exist_ok=True)
    (tmp_path / "errors.py").touch()
    monkeypatch.setattr("tests.tidy.test_imports.PACKAGE", tmp_path)
    assert [room for _, room in rooms_imported(path)] == rooms
