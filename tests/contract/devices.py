"""Whether there is a GPU, and why not."""

from __future__ import annotations

from functools import cache

import pytest


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


gpu = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu_missing()), reason=gpu_missing() or "-")]
