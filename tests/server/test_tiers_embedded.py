"""conf/tiers-embedded.conf as it stands: every tier on one machine, a block's way down and up, a stop and a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kv import HOST, Kv, payload
from tests.rigs.shared import Rigs
from tests.support import ROOT, Server, wait_for

TIERS = [b"ssd", b"postgres", b"objects"]
SMALL, LARGE = payload(1, 100_000), payload(2, 3 << 20)

pytestmark = pytest.mark.slow


def start(folder: Path) -> Server:
    return Server(str(ROOT / "conf" / "tiers-embedded.conf"), "--dir", str(folder), "--kv-memory", "64mb")


def where(kv: Kv, key: str) -> list[bytes]:
    found: list[bytes] = kv("KV.WHERE", "m", key)
    return found


def sink(kv: Kv, key: str, tier: bytes) -> None:
    """Down, one tier at a time, until the block is in that tier alone."""

    def is_there() -> bool:
        if where(kv, key) != [tier]:
            kv.of_keys("KV.DEMOTE", [key])
        return where(kv, key) == [tier]

    try:
        wait_for(is_there, 20)
    except AssertionError:
        raise AssertionError(f"{key} is not in {tier!r} alone, but in {where(kv, key)}") from None


def test_a_block_travels_down_and_back(rigs: Rigs, tmp_path: Path) -> None:
    rigs.embedded_folder()  # skips where the package is missing
    with start(tmp_path) as server, Kv(server).declare() as kv:
        for name in ("ssd", "postgres", "objects", "vectors"):
            wait_for(lambda name=name: kv.tier(name)["state"] == b"ok", 20, f"{name} is open")  # type: ignore[misc]
        kv.store({"small": SMALL, "large": LARGE})
        for tier in TIERS:
            for key, data in (("small", SMALL), ("large", LARGE)):
                if key == "large" and tier == b"postgres":
                    continue  # kv-postgres-max
                sink(kv, key, tier)
                assert kv.get([key]) == [data], f"from {tier!r}"
                assert kv.where([key]) == [HOST]
        for number, tier in enumerate(TIERS):
            kv.store({f"stays{number}": payload(10 + number, 50_000)})
            sink(kv, f"stays{number}", tier)
        assert server.terminate(deadline_s=30) == 0
        assert "Traceback" not in server.log(), server.log()
    with start(tmp_path) as server, Kv(server) as kv:
        for number in range(len(TIERS)):
            assert kv.get([f"stays{number}"]) == [payload(10 + number, 50_000)]
        assert kv.get(["small", "large"]) == [SMALL, LARGE]
        assert server.terminate(deadline_s=30) == 0
        assert "Traceback" not in server.log(), server.log()
