"""bench/ttft.py says what to install; it runs here whether torch is installed or not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.parametrize("missing", ["torch", "redis"])
def test_what_is_missing_is_said(missing: str) -> None:
    program = f"import sys, runpy; sys.modules[{missing!r}] = None; runpy.run_path('bench/ttft.py')"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "is missing: pip install" in ran.stderr
    assert "Traceback" not in ran.stderr
