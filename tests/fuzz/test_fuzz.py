"""A short run of each fuzzer; `make fuzz` is the long one, under the sanitizers."""

from __future__ import annotations

import os
import random

from tests.fuzz.run import fuzz_apart, fuzz_wire

SECONDS = float(os.environ.get("ZEEKDB_FUZZ_SECONDS", "8"))
PAYLOADS = int(os.environ.get("ZEEKDB_FUZZ_PAYLOADS", "50000"))
SEED = int(os.environ.get("ZEEKDB_FUZZ_SEED", random.SystemRandom().randrange(1 << 31)))


def test_structures() -> None:
    print(f"ZEEKDB_FUZZ_SEED={SEED}")
    assert fuzz_apart("structures", SEED, SECONDS, {}) == 0


def test_payloads() -> None:
    print(f"ZEEKDB_FUZZ_SEED={SEED}")
    assert fuzz_apart("payloads", SEED, SECONDS / 4, {}, "--count", str(PAYLOADS)) == 0


def test_wire() -> None:
    print(f"ZEEKDB_FUZZ_SEED={SEED}")
    assert fuzz_wire(SEED, SECONDS, {}) > 0
