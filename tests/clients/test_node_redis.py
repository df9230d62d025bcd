"""node-redis against every family of commands, over both protocols: `families.cjs`, a process for each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import ROOT, Server

HERE = Path(__file__).parent
PROGRAM = HERE / "families.cjs"
MODULES = ROOT / ".cache" / "clients" / "node_modules"
NODE = shutil.which("node") or shutil.which("nodejs")
NEEDS = {
    "hash_field_expiry": ("HEXPIRE", "HGETEX", "HSETEX", "HGETDEL"), "hyperloglog": ("PFADD",), "geo": ("GEOADD",),
    "streams": ("XADD", "XREADGROUP", "XAUTOCLAIM"), "vector_sets": ("VADD",), "serialisation": ("DUMP",),
    "pubsub": ("SUBSCRIBE", "SSUBSCRIBE"), "notifications": ("SUBSCRIBE",), "scripts": ("EVAL", "SCRIPT"),
    "functions": ("FCALL",), "client_side_caching": ("CLIENT|TRACKING",), "acl": ("ACL",),
}  # fmt: skip
FAMILIES = re.findall(r"^  async (\w+)\(", PROGRAM.read_text(), re.MULTILINE)

pytestmark = pytest.mark.skipif(
    NODE is None or not (MODULES / "@redis" / "client").is_dir(),
    reason="node-redis is not there: `make clients` installs it where node (18.19 or newer) and npm are",
)


@pytest.mark.parametrize("protocol", [2, 3], ids=["resp2", "resp3"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(server: Server, need: Callable[..., None], family: str, protocol: int) -> None:
    need(*NEEDS.get(family, ("GET",)))
    assert NODE
    done = subprocess.run(
        [NODE, str(PROGRAM), str(server.port), str(protocol), family],
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
