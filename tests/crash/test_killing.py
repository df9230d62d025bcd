"""A few rounds of killing.py; the long form is a program of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.killing import MOMENTS, Killing


@pytest.mark.parametrize("mode", ["always", "everysec"])
def test_what_was_acknowledged_survives(tmp_path: Path, mode: str) -> None:
    killing = Killing(mode, 7, tmp_path)
    for number, moment in enumerate(MOMENTS):
        killing.round(2.5 if mode == "everysec" and number == 0 else 0.3, moment)
    assert killing.seen["calls"] > 1000
