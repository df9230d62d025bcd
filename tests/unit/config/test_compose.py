"""conf/compose.yaml without an engine: its shape, its references, and what its ZeekDB is told."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from zeekdb.config.config import Config
from zeekdb.config.file import load

yaml = pytest.importorskip("yaml")

# What the compose specification knows of a service, as far as we use it.
SERVICE = {
    "build", "command", "configs", "depends_on", "entrypoint", "environment", "healthcheck", "image", "mem_limit",
    "ports", "restart", "secrets", "shm_size", "stop_grace_period", "ulimits", "volumes",
}  # fmt: skip
HEALTH = {"test", "interval", "timeout", "start_period", "retries"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "compose.yaml").read_text())
    return read


def test_its_shape(compose: dict[str, Any]) -> None:
    assert set(compose) == {"name", "services", "configs", "secrets", "volumes"}
    services = compose["services"]
    assert set(services) == {"zeekdb", "postgres", "dragonfly", "qdrant"}
    for name, service in services.items():
        assert not set(service) - SERVICE, name
        assert "image" in service and service["restart"] == "unless-stopped"
        assert re.search(r":[\w.-]+$", service["image"]), f"{name} names a version"
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert {mount.split(":")[0] for mount in service["volumes"]} <= set(compose["volumes"])
        if name != "zeekdb":  # its image brings its own
            assert set(service["healthcheck"]) == HEALTH and service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
            assert "ports" not in service, "reached inside the network alone"
            assert services["zeekdb"]["depends_on"][name] == {"condition": "service_healthy"}
    assert all(port.startswith("127.0.0.1:") for port in services["zeekdb"]["ports"])
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    for argument in services["zeekdb"]["build"]["args"]:
        assert f"ARG {argument}" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("word", ["serve", "check"])
def test_what_zeekdb_is_told(compose: dict[str, Any], tmp_path: Path, word: str) -> None:
    for name in compose["secrets"]:
        (tmp_path / name).write_text(f"secret-of-{name}\n")
    text = compose["configs"]["entry"]["content"].replace("$$", "$")
    left = tmp_path / "directives"
    text = text.replace("/run/secrets", str(tmp_path)).replace("/tmp/directives", str(left))
    (tmp_path / "entry.sh").write_text(text)
    (tmp_path / "zeekdb").write_text('#!/bin/sh\necho "$@" >&2\nexec cat\n')
    (tmp_path / "zeekdb").chmod(0o755)
    done = subprocess.run(
        ["sh", str(tmp_path / "entry.sh"), word],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ZEEKDB_MEMORY": "2gb"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == {"serve": "serve /etc/zeekdb/zeekdb.conf -", "check": "tiers check -"}[word]
    assert "secret" not in done.stderr and not left.exists()
    config = Config()
    load(config, "", done.stdout, "")
    assert config.kv_memory == 2 << 30
    assert config.kv_warm_url == "redis://:secret-of-dragonfly@dragonfly:6379/0"
    assert "secret-of-postgres@postgres:5432/zeekdb" in config.kv_postgres_url
    assert config.kv_qdrant_url == "http://:secret-of-qdrant@qdrant:6333"
    hosts = {config.kv_warm_url.split("@")[1].split(":")[0], config.kv_postgres_url.split("@")[1].split(":")[0]}
    assert hosts <= set(compose["services"])
