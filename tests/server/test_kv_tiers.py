"""Blocks through every tier and back, their versions, and what the catalogue is told of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kv import Kv, payload
from tests.rigs.shared import Rigs
from tests.support import Failure, Server, wait_for

SECRET = "s3cr3t-of-the-tests"
LAYOUT = ("LAYERS", 2, "HEADS", 2, "DIM", 8, "DTYPE", "f32", "BLOCK", 4)
BLOCK = 2 * 2 * 4 * 2 * 8 * 4
SMALL, LARGE = 100_000, 3 << 20


def options(folder: Path, postgres: str) -> list[str]:
    return [
        "--kv-memory", "64mb", "--kv-ssd-path", str(folder / "ssd"), "--kv-ssd-uses", "1",
        "--kv-postgres-url", postgres, "--kv-objects-url", f"file://{folder}/objects",
    ]  # fmt: skip


@pytest.fixture
def kv(rigs: Rigs, tmp_path: Path) -> Iterator[Kv]:
    with Server(*options(tmp_path, rigs.database_url()), "--kv-namespace", "p* m") as server, Kv(server) as kv:
        yield kv.declare()


def fields(words: list[Any]) -> dict[str, Any]:
    return {key.decode(): value for key, value in zip(words[::2], words[1::2], strict=True)}


def history(kv: Kv, *words: bytes | str | int) -> list[dict[str, Any]]:
    reply = kv("KV.HISTORY", "m", *words)
    assert isinstance(reply, list), reply
    return [fields(each) for each in reply]


def where(kv: Kv, key: str) -> list[str]:
    return [name.decode() for name in kv("KV.WHERE", "m", key)]


def sink(kv: Kv, key: str, to: str) -> None:
    """Down one tier after the other, until it is in this one alone."""
    while (before := where(kv, key)) != [to]:
        assert before, f"{key} is nowhere"
        assert kv.of_keys("KV.DEMOTE", [key]) == 1, before
        wait_for(lambda before=before: where(kv, key) != before, 20, f"{key} leaves {before}")


@pytest.mark.parametrize("kind", ["embedded", "debian"])
def test_through_every_tier_and_back(rigs: Rigs, tmp_path: Path, kind: str) -> None:
    postgres = f"embedded:{rigs.embedded_folder()}" if kind == "embedded" else rigs.database_url()
    blocks = {"small": payload(1, SMALL), "large": payload(2, LARGE), "archived": payload(3, SMALL)}
    with Server(*options(tmp_path, postgres)) as server, Kv(server) as kv:
        kv.declare()
        wait_for(lambda: kv.tier("postgres")["state"] == b"ok", 30, "PostgreSQL has started")
        assert kv.store(blocks) == [1, 1, 1]
        for key, value in blocks.items():
            assert where(kv, key) == ["host"]
            sink(kv, key, "ssd")
            assert kv.get([key]) == [value]
            assert where(kv, key) == ["host", "ssd"]
        sink(kv, "small", "postgres")
        assert kv.get(["small"]) == [blocks["small"]]
        assert where(kv, "small") == ["host", "postgres"]
        for key in blocks:
            sink(kv, key, "objects")
        assert kv.get(list(blocks)) == list(blocks.values())
        sink(kv, "small", "objects")
        sink(kv, "large", "objects")
        assert kv.store({"another": payload(4, SMALL)}) == [1]
        sink(kv, "another", "postgres")
        server.terminate(deadline_s=30)  # else it is killed, and what the catalogue has not been told is found later
    blocks["another"] = payload(4, SMALL)
    with Server(*options(tmp_path, postgres)) as server, Kv(server) as kv:
        wait_for(lambda: kv.of_keys("KV.LOOKUP", list(blocks))[0] == 4, what="what other tiers have is known")
        assert kv.get(list(blocks)) == list(blocks.values())
        assert where(kv, "another") == ["host", "postgres"]
        assert kv.of_keys("KV.DEL", list(blocks)) == 4
        assert kv.get(list(blocks)) == [None] * 4
    assert not [path for path in (tmp_path / "objects").rglob("*") if path.is_file() and "blocks" in path.parts]


def test_every_overwrite_is_a_version(kv: Kv) -> None:
    for number in range(1, 5):
        assert kv("SET", "p1", payload(number, SMALL)) == "OK"
    assert kv("SET", "p1", payload(4, SMALL)) == "OK"  # the same again is none
    wait_for(lambda: len(history(kv, "p1")) == 4)
    versions = history(kv, "p1")
    assert [each["version"] for each in versions] == [4, 3, 2, 1]
    assert [each["restorable"] for each in versions] == [0, 1, 1, 1]
    assert versions[1]["why"] == b"SET" and versions[1]["who"].startswith(b"default@")
    assert all(abs(each["stored_at"] / 1000 - time.time()) < 60 for each in versions)
    assert kv("KV.RESTORE", "m", "p1", 2) == "OK"
    assert kv("GET", "p1") == payload(2, SMALL)
    wait_for(lambda: len(history(kv, "p1")) == 5)
    assert history(kv, "p1")[1]["why"] == b"RESTORE 2"
    assert history(kv, "p1")[0]["checksum"] == versions[2]["checksum"]
    assert isinstance(kv("KV.RESTORE", "m", "p1", 77), Failure)
    assert "is the newest" in kv("KV.RESTORE", "m", "p1", 5)
    assert history(kv, "nothing") == []


def test_versions_of_what_is_below_and_of_what_is_large(kv: Kv) -> None:
    assert kv("SET", "plarge", payload(1, LARGE)) == "OK"
    assert kv("SET", "plarge", payload(2, LARGE)) == "OK"
    wait_for(lambda: [each["restorable"] for each in history(kv, "plarge")] == [0, 1], what="archived")
    sink(kv, "plarge", "objects")
    assert kv("SET", "plarge", payload(3, LARGE)) == "OK"
    wait_for(lambda: [each["restorable"] for each in history(kv, "plarge")] == [0, 1, 1])
    for version in (1, 2, 3):
        assert kv("KV.RESTORE", "m", "plarge", version) == "OK"
        assert kv("GET", "plarge") == payload(version, LARGE)


def test_versions_by_position(kv: Kv) -> None:
    assert kv("KV.MODEL", "SET", "l", *LAYOUT) == "OK"
    row = 2 * 8 * 4
    stored = [(payload(number, 6 * row), payload(-number, 6 * row)) for number in (1, 2, 3)]
    for keys, values in stored:
        assert kv("KV.PUT", "l", "seq", 1, 10, 16, keys, values) > 0

    def versions() -> list[Any]:
        reply = kv("KV.HISTORY", "l", "POSITION", "seq", 1, 10, 16)
        return [fields(each)["version"] for each in reply]

    wait_for(lambda: versions() == [3, 2, 1])
    assert kv("KV.RESTORE", "l", "POSITION", "seq", 1, 10, 16, 1) > 3
    assert kv("KV.GET", "l", "seq", 1, 10, 16)[0][3:] == list(stored[0])
    wait_for(lambda: versions() == [4, 3, 2, 1])


@pytest.mark.parametrize("name", [b"p'; DROP TABLE zeekdb.kv_cache_metadata; --", b"p/../..\0:%s" * 3, b"p" * 10_240])
def test_names_of_any_kind_have_versions(kv: Kv, name: bytes) -> None:
    for number in (1, 2):
        assert kv("SET", name, payload(number, 1000)) == "OK"
    wait_for(lambda: len(history(kv, name)) == 2)
    assert kv("KV.RESTORE", "m", name, 1) == "OK"
    assert kv("GET", name) == payload(1, 1000)
    assert where(kv, name) == ["host"]  # type: ignore[arg-type]


def ask(url: str, statement: str) -> list[Any]:
    """What PostgreSQL says."""
    import asyncpg

    async def fetch() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    return asyncio.run(fetch())


def test_popular_blocks_are_warm_after_a_start(rigs: Rigs, tmp_path: Path) -> None:
    url = rigs.database_url()
    blocks = {f"k{number}": payload(number, SMALL) for number in range(8)}
    with Server(*options(tmp_path, url), "--kv-postgres-write", "store") as server, Kv(server) as kv:
        kv.declare().store(blocks)
        wait_for(lambda: all("postgres" in where(kv, key) for key in blocks))
        for _ in range(20):
            assert kv.get(["k1", "k2", "k3"]) == [blocks[key] for key in ("k1", "k2", "k3")]
        wait_for(lambda: ask(url, "SELECT count(*) FROM zeekdb.kv_cache_access_log")[0][0] >= 68)
        placed = "SELECT count(*) FROM zeekdb.kv_cache_metadata WHERE cardinality(levels) > 0"
        wait_for(lambda: ask(url, placed)[0][0] == 8)
    ask(url, "REFRESH MATERIALIZED VIEW zeekdb.popular_entries")
    warming = ("--kv-warming", "20000", "--kv-warming-bytes", "250000")
    with Server(*options(tmp_path, url), *warming) as server, Kv(server) as kv:
        wait_for(lambda: "state=done" in kv("INFO", "tiers").decode())
        line = next(line for line in kv("INFO", "tiers").decode().split() if line.startswith("warming:"))
        assert "reason=bytes" in line and "blocks=2,bytes=200000" in line
        assert sum("host" in where(kv, key) for key in ("k1", "k2", "k3")) == 2


def test_what_the_catalogue_knows(rigs: Rigs, tmp_path: Path) -> None:
    url = rigs.database_url()

    def rows(statement: str) -> list[Any]:
        return ask(url, statement)

    with Server(*options(tmp_path, url), "--kv-node", "n1") as server, Kv(server) as kv:
        assert kv("KV.MODEL", "SET", "m", *LAYOUT) == "OK"
        tokens = b"".join(n.to_bytes(4, "little") for n in range(12))
        tensor = payload(1, 3 * BLOCK)
        assert kv("KV.STORE", "m", tokens, tensor) == [1, 1, 1]
        assert kv("KV.STORE", "m", tokens, tensor) == [0, 0, 0]
        assert kv("KV.FETCH", "m", tokens) == [tensor[at : at + BLOCK] for at in range(0, 3 * BLOCK, BLOCK)]
        kv.get(["nothing"])
        found = wait_for(
            lambda: len(all_ := rows("SELECT * FROM zeekdb.kv_cache_metadata ORDER BY token_from")) == 3 and all_
        )
        assert [(row["token_from"], row["token_to"], row["layer_to"], row["node"]) for row in found] == [
            (0, 4, 2, "n1"), (4, 8, 2, "n1"), (8, 12, 2, "n1"),
        ]  # fmt: skip
        wait_for(lambda: rows("SELECT count(*) FROM zeekdb.kv_cache_access_log")[0][0] == 10)
        log = rows(
            "SELECT access_type, hit, tier, count(*) FROM zeekdb.kv_cache_access_log GROUP BY 1, 2, 3 ORDER BY 1, 2"
        )
        assert [tuple(row) for row in log] == [
            ("read", False, "none", 1), ("read", True, "host", 3), ("write", True, "host", 6)
        ]  # fmt: skip
        shared = rows("SELECT sum(refs), count(*) FROM zeekdb.kv_cache_shared")
        assert tuple(shared[0]) == (6, 3)


def test_without_a_catalogue_commands_say_so(tmp_path: Path) -> None:
    with Server() as server, Kv(server) as kv:
        kv.declare()
        assert "kv-postgres-url" in kv("KV.HISTORY", "m", "k")
        assert "kv-postgres-url" in kv("KV.RESTORE", "m", "k", 1)
        assert kv("KV.WHERE", "m", "k") == []


def test_a_catalogue_that_is_down_is_no_empty_history() -> None:
    with Server("--kv-postgres-url", "postgresql://nobody@127.0.0.1:1/nothing") as server, Kv(server) as kv:
        kv.declare()
        assert kv("KV.MSET", "m", 1, "k", b"value") == [1]
        assert "can't be asked" in kv("KV.HISTORY", "m", "k")
        assert "can't be asked" in kv("KV.RESTORE", "m", "k", 1)
        assert kv("KV.MGET", "m", 1, "k") == [b"value"]


def test_secrets_are_nowhere(tmp_path: Path) -> None:
    urls = {
        "kv-warm-url": f"redis://user:{SECRET}@127.0.0.1:1/0",
        "kv-postgres-url": f"postgresql://user:{SECRET}@127.0.0.1:1/db",
        "kv-objects-url": "s3://bucket/prefix?endpoint=http://127.0.0.1:1&access_key_id=x&region=r"
        f"&secret_access_key={SECRET}",
        "kv-qdrant-url": f"http://127.0.0.1:1?api_key={SECRET}",
    }
    arguments = [word for name, url in urls.items() for word in (f"--{name}", url)]
    arguments += ["--loglevel", "debug", "--slowlog-log-slower-than", "0"]
    arguments += ["--kv-warm-timeout", "200", "--kv-objects-timeout", "300"]
    with Server(*arguments) as server, Kv(server) as kv:
        kv.declare()
        kv.store({"k": payload(1, 1000)})
        assert kv.get(["k", "other"]) == [payload(1, 1000), None]
        wait_for(lambda: kv.tier("warm")["state"] == b"failing", 20)
        asked: list[tuple[str, ...]] = [
            ("CONFIG", "GET", *urls), ("CONFIG", "GET", "*"), ("KV.TIERS",), ("INFO", "everything"), ("CLIENT", "LIST"),
            ("KV.HISTORY", "m", "k"), ("KV.URL", "m", "k"), ("CONFIG", "SET", "kv-warm-url", f"redis://:{SECRET}@h"),
            ("SLOWLOG", "GET", "100"),
        ]  # fmt: skip
        shown = [kv(*words) for words in asked]
        assert SECRET not in repr(shown)
        for name in urls:
            assert "***" in kv("CONFIG", "GET", name)[1].decode()
        assert isinstance(shown[-2], Failure)
        log = server.log()
    assert SECRET not in log


@pytest.mark.parametrize("coding", ["zstd", "fp16", "int8"])
def test_blocks_that_a_tier_keeps_smaller(rigs: Rigs, tmp_path: Path, coding: str) -> None:
    layout = ("LAYERS", 2, "HEADS", 2, "DIM", 64, "DTYPE", "f32", "BLOCK", 16)
    size = 2 * 2 * 16 * 2 * 64 * 4
    block = np.random.default_rng(1).standard_normal(size // 4).astype(np.float32)
    arguments = [*options(tmp_path, rigs.database_url()), "--kv-postgres-compression", coding]
    with Server(*arguments) as server, Kv(server) as kv:
        assert kv("KV.MODEL", "SET", "m", *layout) == "OK"
        assert kv.store({"k": block.tobytes()}) == [1]
        sink(kv, "k", "postgres")
        (found,) = kv.get(["k"])
        assert found is not None
        error = np.abs(np.frombuffer(found, np.float32) - block).max()
        assert error == 0 if coding == "zstd" else 0 < error < 0.05
        sink(kv, "k", "postgres")
        assert kv.get(["k"]) == [found]
        assert kv.of_keys("KV.DEMOTE", ["k"]) == 1
        assert kv.get(["k"]) == [found]  # what came back is the block from then on
        assert kv.tier("postgres")["sent_bytes"] < size
