"""pyproject.toml keeps its own promises."""

from __future__ import annotations

import tomllib

from tests.support import ROOT


def test_what_tests_need_includes_what_the_tiers_need() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not set(extras["tiers"]) - set(extras["dev"]), "the same lines in both"
