"""Whether there is a GPU, and why not; and a stand-in for CuPy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from tests.contract import fake_cupy
from zeekdb.tensors import codecs_gpu


@cache
def gpu_missing() -> str:
    """Why the tests marked `gpu` cannot run; empty if they can."""
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError:
        return "CuPy is not installed: pip install zeekdb[gpu]"
    except Exception as error:
        return f"no GPU: {error}"
    return "" if count else "no GPU"


@contextmanager
def fake_gpu() -> Iterator[None]:
    """CuPy is tests.contract.fake_cupy meanwhile."""
    ours = ("cupy", "cupy.cuda", "zeekdb.tensors.device_cupy")
    before = {name: sys.modules.pop(name) for name in ours if name in sys.modules}
    sys.modules.update(fake_cupy.modules())
    codecs_gpu._kernel.cache_clear()
    try:
        yield
    finally:
        for name in ours:
            sys.modules.pop(name, None)
        sys.modules.update(before)
        codecs_gpu._kernel.cache_clear()


gpu = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu_missing()), reason=gpu_missing() or "-")]
