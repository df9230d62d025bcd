"""The example files of conf/ are configurations, and what they say is what they set."""

from __future__ import annotations

import pytest

from tests.support import ROOT
from zeekdb.config.config import Config
from zeekdb.config.file import load
from zeekdb.config.options import DIRECTIVES
from zeekdb.config.urls import secrets_of

FILES = sorted((ROOT / "conf").glob("*.conf"))
URLS = ("kv-warm-url", "kv-postgres-url", "kv-qdrant-url", "kv-objects-url")


def read(name: str) -> Config:
    config = Config()
    load(config, str(ROOT / "conf" / name), "", "")
    return config


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_it_loads(name: str) -> None:
    lines = (ROOT / "conf" / name).read_text().splitlines()
    named = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert read(name).given >= named, "each line was taken"


@pytest.mark.parametrize(
    ("name", "tiers"),
    [
        ("tiers-embedded.conf", {"kv-postgres-url", "kv-qdrant-url", "kv-objects-url"}),
        ("tiers-server.conf", set(URLS)),
        ("tiers-fleet.conf", set(URLS)),
    ],
)
def test_its_tiers_are_on(name: str, tiers: set[str]) -> None:
    config = read(name)
    assert {url for url in URLS if config.value(DIRECTIVES[url])} == tiers
    assert config.kv_ssd_path


@pytest.mark.parametrize("name", ["tiers-server.conf", "tiers-fleet.conf"])
def test_its_passwords_are_not_shown(name: str) -> None:
    config = read(name)
    urls = [directive for directive in DIRECTIVES.values() if directive.name.endswith("-url")]
    shown = " ".join(directive.kind.show(config.value(directive)) for directive in urls)
    secrets = set().union(*(secrets_of(config.value(directive)) for directive in urls))
    assert {"warm-password", "writer-password", "reader-password", "qdrant-key"} <= secrets
    assert not [secret for secret in {*secrets, "sentinel-password"} if secret in shown]
