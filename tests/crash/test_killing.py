"""A few rounds of killing.py; the long form is a program of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.killing import Killing


@pytest.mark.parametrize("mode", ["always", "everysec"])
def test_what_was_acknowledged_survives(tmp_path: Path, mode: str) -> None:
    killing = Killing(mode, 7, tmp_path)
    for run_s in (0.3, 0.6) if mode == "always" else (0.3, 2.5):
        killing.round(run_s)
    assert killing.seen["calls"] > 1000
    assert mode == "everysec" or killing.seen["lost"] == 0
