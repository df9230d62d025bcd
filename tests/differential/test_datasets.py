"""A few of the files of datasets.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.datasets import KINDS, Kind, carry


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.source[0][-6:]}-{kind.form}-{kind.target[0][-6:]}")
def test_everything_comes_over(tmp_path: Path, kind: Kind) -> None:
    assert carry(tmp_path, kind, 7, 100) > 200
