"""`zeekdb tiers check`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.contract.memory import PLACES, MemoryTier
from tests.rigs.redis import redis
from tests.rigs.shared import Rigs
from tests.support import free_port
from zeekdb.cli import main
from zeekdb.config.config import Config
from zeekdb.tiers import factory
from zeekdb.tiers.factory import Level
from zeekdb.tiers.tier import Get, Put, SharedTier
from zeekdb.tools import tiers_probe
from zeekdb.tools.tiers import split
from zeekdb.tools.tiers_probe import advice_for

SECRET = "s3cr3t-p4ss"
URL = f"redis://:{SECRET}@127.0.0.1:1/0"


class Refusing(MemoryTier):
    """An engine that says no, and quotes the URL."""

    async def probe(self) -> None:
        raise ConnectionError(f"WRONGPASS invalid username-password pair: {URL}")


class Forgetful(MemoryTier):
    """It confirms what it does not keep."""

    async def put(self, items: list[Put]) -> list[int | None]:  # type: ignore[override]
        places = await super().put(items)
        del self.store[next(iter(self.store))]
        return places


class Twisting(MemoryTier):
    """It answers with other bytes."""

    async def get(self, items: list[Get]) -> list[bool | None]:  # type: ignore[override]
        found = await super().get(items)
        items[0].into[0] ^= 1
        return found


@pytest.fixture
def level(monkeypatch: pytest.MonkeyPatch) -> type:
    """Sets which tier kv-warm-url makes."""

    class Set:
        def __init__(self, kind: type[MemoryTier]) -> None:
            def make(config: Config, layout_of: object, database: object) -> SharedTier:
                return kind("check")

            PLACES.pop("check", None)
            levels = (Level("warm", "kv_warm", make, lambda tier, config: None),)
            monkeypatch.setattr(factory, "LEVELS", levels)
            monkeypatch.setattr(tiers_probe, "LEVELS", levels)

    return Set


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["tiers", "check", *words])
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    return status, captured.out + captured.err


def test_all_is_well(level: type, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    level(MemoryTier)
    before = os.getcwd()
    (tmp_path / "file.conf").write_text(f"dir {tmp_path}\nkv-warm-url {URL}\nkv-ssd-path ssd\nkv-ssd-size 1mb\n")
    status, said = check(capsys, str(tmp_path / "file.conf"))
    assert status == 0, said
    lines = said.splitlines()
    assert [line.split()[:2] for line in lines] == [["tier", "state"], ["ssd", "ok"], ["warm", "ok"]]
    assert "redis://:***@127.0.0.1:1/0" in lines[2]
    assert lines[1].count("MB/s") == lines[2].count("MB/s") == 2
    assert not PLACES["check"], "the probe's blocks are gone"
    assert not list((tmp_path / "ssd").iterdir()), "and so is its file"
    assert os.getcwd() == before


def test_for_a_program(level: type, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    level(MemoryTier)
    status, said = check(capsys, "--dir", str(tmp_path), "--kv-warm-url", URL, "--json")
    found = json.loads(said)
    assert (status, found["ok"]) == (0, True)
    (tier,) = found["tiers"]
    assert (tier["tier"], tier["state"], tier["problems"]) == ("warm", "ok", [])
    assert tier["write_mb_s"] > 0 < tier["read_mb_s"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Refusing, "probe: WRONGPASS invalid username-password pair: redis://:***@"),
        (Forgetful, "find: a block that was just written is not found"),
        (Twisting, "read: a block did not come back as it was written"),
    ],
)
def test_what_is_wrong_is_said(
    level: type, capsys: pytest.CaptureFixture[str], kind: type[MemoryTier], text: str
) -> None:  # fmt: skip
    level(kind)
    status, said = check(capsys, "--kv-warm-url", URL)
    assert status == 1
    assert f"warm: {text}" in said
    assert not PLACES["check"]


def test_a_folder_that_cannot_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, said = check(capsys, "--kv-ssd-path", str(tmp_path / "file"))
    assert status == 1
    assert "ssd: folder: " in said


def test_nothing_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = check(capsys)
    assert (status, "No tier is configured" in said) == (0, True)


@pytest.mark.parametrize(
    "words", [["--kv-warm-pool", "x"], ["/nowhere/at/all.conf"], ["--kv-warm-url", f"http://:{SECRET}@h"],
              ["--deadline", "0"], ["--deadline"]],
)  # fmt: skip
def test_what_makes_no_sense(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["tiers", "check", *words]) == 2
    capsys.readouterr()
    assert main(["tiers"]) == 2


def test_whose_words_are_whose() -> None:
    words = ["check", "f.conf", "--json", "--port", "1", "--deadline", "3", "--kv-warm-url", "u", "-"]
    assert split(words) == (
        ["check", "--json", "--deadline", "3"], ["f.conf", "--port", "1", "--kv-warm-url", "u", "-"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Connect call failed ('127.0.0.1', 1)", "listen"),
        ('password authentication failed for user "x"', "right"),
        ("kv-warm-url needs a package that is not installed", "pip"),
        ("NoSuchBucket", "made there first"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "full"),
        ("no answer in time", "in time"),
        ("certificate verify failed: self-signed", "TLS"),
    ],
)
def test_advice_fits(text: str, word: str) -> None:
    assert word in advice_for(text)


# ---- real ones -----------------------------------------------------------------------------------------------------


def test_a_socket_that_nobody_listens_at(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = check(capsys, "--kv-warm-url", f"redis://:{SECRET}@127.0.0.1:{free_port()}/0", "--deadline", "20")
    assert status == 1
    assert "Is the server running" in said


def tiers_of(said: str) -> dict[str, str]:
    """State by name, of the table."""
    lines = said.split("\n\n")[0].splitlines()
    return {line.split()[0]: line.split()[1] for line in lines[1:]}


@pytest.mark.slow
def test_each_kind(capsys: pytest.CaptureFixture[str], rigs: Rigs, tmp_path: Path) -> None:
    bucket = f"s3://{rigs.s3().bucket()}/p?endpoint={rigs.s3().endpoint}&access_key_id=k&secret_access_key={SECRET}"
    servers = ["--kv-warm-url", rigs.redis().url, "--kv-objects-url", bucket, "--kv-qdrant-url", "memory:",
               "--kv-postgres-url", rigs.database_url()]  # fmt: skip
    embedded = ["--kv-objects-url", "file:objects", "--kv-qdrant-url", "embedded:vectors",
                "--kv-postgres-url", "embedded:postgres", "--kv-ssd-path", "ssd", "--kv-ssd-size", "1mb"]  # fmt: skip
    for words, names in (
        (servers, {"warm", "postgres", "objects", "catalogue", "vectors"}),
        (embedded, {"ssd", "postgres", "objects", "catalogue", "vectors"}),
    ):
        status, said = check(capsys, "--dir", str(tmp_path), *words)
        assert status == 0, said
        assert tiers_of(said) == dict.fromkeys(names, "ok")
        assert said.count("PostgreSQL 1") == 2
    assert "Redis 7" in check(capsys, *servers[:2])[1]
    assert rigs.redis()("DBSIZE") == 0, "the probe's blocks are gone"
    assert (tmp_path / "objects").is_dir(), "a folder's URL may begin where the server stands"


@pytest.mark.slow
def test_a_database_that_says_no(capsys: pytest.CaptureFixture[str], rigs: Rigs) -> None:
    server, name = rigs.postgres(), rigs.database()
    url = server.tcp_url(name)
    status, said = check(capsys, "--kv-postgres-url", server.tcp_url(name, password=SECRET))
    assert (status, "User, password or keys are wrong" in said) == (1, True), said
    status, said = check(capsys, "--kv-postgres-url", server.tcp_url("no_such_database"))
    assert (status, "It has to be made there first" in said) == (1, True), said
    status, said = check(capsys, "--kv-postgres-url", url)
    assert (status, tiers_of(said)) == (0, {"postgres": "ok", "catalogue": "ok"}), said
    role = f"reader_{name}"
    server.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
    try:
        reader = server.tcp_url(name, user=role, password=SECRET)
        status, said = check(capsys, "--kv-postgres-url", url, "--kv-postgres-reader-url", reader)
        assert (status, "the role lacks a right" in said) == (1, True), said
    finally:
        server.sql(f"DROP ROLE {role}")


def test_a_wrong_password_and_a_full_server(capsys: pytest.CaptureFixture[str]) -> None:
    with redis(password=SECRET) as server:
        url = f"redis://127.0.0.1:{server.port}"
        status, said = check(capsys, "--kv-warm-url", url)
        assert (status, "User, password or keys are wrong" in said) == (1, True), said
        status, said = check(capsys, "--kv-warm-url", url.replace("//", "//:not-it@"))
        assert (status, "User, password or keys are wrong" in said) == (1, True), said
        server("CONFIG", "SET", "maxmemory", 1)
        status, said = check(capsys, "--kv-warm-url", server.url)
        assert (status, "It is full" in said) == (1, True), said


def test_no_such_bucket(capsys: pytest.CaptureFixture[str], rigs: Rigs) -> None:
    url = f"s3://nowhere/p?endpoint={rigs.s3().endpoint}&access_key_id=k&secret_access_key={SECRET}"
    status, said = check(capsys, "--kv-objects-url", url)
    assert (status, "It has to be made there first" in said) == (1, True), said
