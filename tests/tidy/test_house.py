"""What a program can check of how ZeekDB reads: sizes, places, sleeps, paths, generated files."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

LINES_MAX = 700  # a file fits a mind; STYLE says about 600
TEXT = {".py", ".pyx", ".pxd", ".pyi", ".md", ".toml", ".conf", ".txt", ".yml", ".sql", ""}


def files(*suffixes: str) -> list[Path]:
    """Every file that git keeps or would keep."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listed.stdout.splitlines())
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


def test_files_fit_a_mind() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {count} lines"
        for path in files(".py", ".pyx", ".pxd", ".pyi")
        if (count := len(path.read_text().splitlines())) > LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_cython_stays_in_the_hot_room() -> None:
    assert {path.parent for path in files(".pyx", ".pxd")} <= {ROOT / "zeekdb" / "hot"}


def test_every_hot_module_has_a_typed_door() -> None:
    doors = [path for path in files(".pyx") if not path.with_suffix(".pyi").exists()]
    imported = "\n".join(path.read_text() for path in files(".py") if path.is_relative_to(ROOT / "zeekdb"))
    used = [path.name for path in doors if re.search(rf"zeekdb\.hot(\.| import .*\b){path.stem}\b", imported)]
    assert not used, f"Python imports these, and they have no .pyi: {used}"


def test_no_paths_of_one_machine() -> None:
    here = re.compile(r"(?<![\w.])/(work|root|home|Users)/\w")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        if path.suffix in TEXT and path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if here.search(line)
    ]
    assert not found, "\n".join(found)


def test_tests_do_not_sleep() -> None:
    found = []
    for path in files(".py"):
        if not path.is_relative_to(ROOT / "tests"):
            continue
        tree = ast.parse(path.read_text())
        shared = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name == "wait_for" and path == ROOT / "tests" / "support.py"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and id(node) not in shared:
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                zero = node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
                if name == "sleep" and not zero:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found, "use tests.support.wait_for: " + ", ".join(found)


def test_markers_and_links_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.count("<!-- bench:begin -->") == readme.count("<!-- bench:end -->") == 1
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert "://" in target or (ROOT / target).exists(), f"README links to {target}, which is not there"
