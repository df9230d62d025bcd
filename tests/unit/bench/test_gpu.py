"""bench/gpu.py runs to its end where there is no GPU, on the stand-in; its rates mean nothing there."""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT


def test_it_runs() -> None:
    program = [sys.executable, "-m", "bench.gpu", "--stand-in", "--megabytes", "1", "--seconds", "0.01"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for row in (
        "upload, 16 × 1 MiB, registered",
        "download, 16 × 1 MiB, staged",
        "decode int8 of bf16",
        "attached, 16 × 1 MiB",
    ):
        assert f"| {row} |" in done.stdout
    assert "met" not in done.stdout.replace("measured", "") and "missed" not in done.stdout
