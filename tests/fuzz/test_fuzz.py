"""A short run of each fuzzer; `make fuzz` is the long one, under the sanitizers."""

from __future__ import annotations

import os
import random

from tests.fuzz.run import fuzz_structures, fuzz_wire

SECONDS = float(os.environ.get("ZEEKDB_FUZZ_SECONDS", "8"))
SEED = int(os.environ.get("ZEEKDB_FUZZ_SEED", random.SystemRandom().randrange(1 << 31)))


def test_structures() -> None:
    print(f"ZEEKDB_FUZZ_SEED={SEED}")
    assert fuzz_structures(SEED, SECONDS, {}) == 0


def test_wire() -> None:
    print(f"ZEEKDB_FUZZ_SEED={SEED}")
    assert fuzz_wire(SEED, SECONDS, {}) > 0
