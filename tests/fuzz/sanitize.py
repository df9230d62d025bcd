"""The hot room built with AddressSanitizer and UndefinedBehaviorSanitizer, beside the ordinary build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

BUILD = ROOT / "build" / "sanitize"
SOURCES = {".py", ".pyx", ".pxd", ".pyi", ".toml", ".md", ".txt"}


def build() -> dict[str, str]:
    """Compile what changed; the environment in which Python runs that build."""
    for path in [ROOT / "setup.py", ROOT / "pyproject.toml", ROOT / "README.md", *(ROOT / "zeekdb").rglob("*")]:
        copy = BUILD / path.relative_to(ROOT)
        if path.suffix in SOURCES and (not copy.exists() or copy.stat().st_mtime < path.stat().st_mtime):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    for copy in (BUILD / "zeekdb").rglob("*.py*"):  # what is gone here is gone there
        if copy.suffix in SOURCES and not (ROOT / copy.relative_to(BUILD)).exists():
            copy.unlink()
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--parallel", str(os.cpu_count() or 1)],
        cwd=BUILD, check=True, env={**os.environ, "ZEEKDB_SANITIZE": "address,undefined"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return {
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "PYTHONPATH": str(BUILD),
        "PYTHONMALLOC": "malloc",  # bytes objects in blocks of their own, so that reads past them are seen
        "PYTHONFAULTHANDLER": "1",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:quarantine_size_mb=64:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
    }


def library(name: str) -> Path:
    """Where the compiler keeps a sanitizer's runtime."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    path = Path(found.stdout.strip())
    if not path.is_absolute():
        raise SystemExit(f"the compiler has no {name}")
    return path.resolve()
