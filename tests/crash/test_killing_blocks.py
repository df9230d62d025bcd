"""A few rounds of `tests.crash.killing_blocks`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.killing_blocks import Killing


@pytest.mark.parametrize("seed", [1, 2])
def test_blocks_survive_kills(tmp_path: Path, seed: int) -> None:
    killing = Killing(seed, tmp_path)
    for _ in range(3):
        killing.round(killing.dice.uniform(0.3, 0.8))
    assert killing.seen["confirmed"] > 10
    assert killing.seen["deleted"] > 10
    assert killing.seen["found"] > 10
