"""Search by meaning over the wire: vectors made of what is stored, searched, given, reported, and used to prefetch."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.contract.fake_qdrant import FakeQdrant
from tests.support import Failure, Server, Wire, wait_for
from zeekdb.tensors.embedding import Embedder, finished
from zeekdb.tensors.layout import Layout
from zeekdb.tensors.region import KEY_BYTES_MAX, chain

LAYERS, HEADS, HEAD, BLOCK, DIM = 3, 2, 16, 8, 64
WORDS = ("LAYERS", LAYERS, "HEADS", HEADS, "DIM", HEAD, "DTYPE", "f16", "BLOCK", BLOCK)
LAYOUT = Layout(LAYERS, HEADS, HEAD, "f16", BLOCK)
COMMON = ("--kv-memory", "32mb", "--save", "", "--kv-qdrant-dim", str(DIM))
GPU, HOST, SSD = 1, 2, 3


def block(seed: int) -> bytes:
    """A block whose keys have a mean that the seed chooses."""
    random = np.random.default_rng(seed)
    mean = random.standard_normal((2, LAYERS, 1, HEADS, HEAD))
    return (mean + random.standard_normal(LAYOUT.shape)).astype(np.float16).tobytes()


def expected(*seeds: int) -> bytes:
    """The vector of a context of these blocks."""
    maker = Embedder(LAYOUT, "raw", DIM)
    made = finished(sum((maker.block(block(seed)) for seed in seeds), maker.nothing()))
    assert made is not None
    return made.vector


def unit(seed: int) -> bytes:
    found = np.random.default_rng(seed).standard_normal(DIM).astype("<f4")
    return (found / np.linalg.norm(found)).tobytes()


def tier(wire: Wire, name: bytes = b"vectors") -> dict[bytes, Any]:
    for row in wire("KV.TIERS"):
        fields: dict[bytes, Any] = row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))
        if fields[b"name"] == name:
            return fields
    raise AssertionError("no such tier")


def settle(wire: Wire) -> None:
    """Until all vectors of what was stored have been written."""
    quiet = {b"jobs": 0, b"queue": 0, b"queue_bytes": 0}
    wait_for(lambda: {key: tier(wire)[key] for key in quiet} == quiet, 20, "vectors are written")
    wait_for(lambda: not isinstance(wire("KV.SEARCH", "m", "VECTOR", unit(1)), Failure), 20, "and can be searched")


def store(wire: Wire, keys: dict[str, int], *options: str) -> list[int]:
    words = [word for key, seed in keys.items() for word in (key, block(seed))]
    reply: list[int] = wire("KV.MSET", "m", *options, len(keys), *words)
    return reply


def keys_of(reply: Any) -> list[bytes]:
    assert not isinstance(reply, Failure), reply
    return [match[0] for match in reply]


@pytest.fixture(scope="module", params=["embedded", "memory"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("vectors")
    url = f"embedded:{folder / 'v'}" if request.param == "embedded" else "memory:"
    with Server(*COMMON, "--kv-qdrant-url", url, unix=True) as running:
        yield running
        assert running.terminate() == 0
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with server.wire() as connection:
        for name in connection("KV.MODEL", "LIST"):
            connection("KV.MODEL", "DEL", name)
        assert connection("KV.MODEL", "SET", "m", *WORDS) == "OK"
        settle(connection)
        yield connection


# ---- what is stored is found -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_stored_context_is_found_by_its_vector(wire: Wire, protocol: int) -> None:
    store(wire, {"a1": 1, "a2": 2})
    store(wire, {"b1": 3, "b2": 4, "b3": 5})
    settle(wire)
    wire("HELLO", protocol)
    found = wire("KV.SEARCH", "m", "WITHKEYS", "VECTOR", expected(3, 4, 5))
    assert keys_of(found) == [b"b3", b"a2"]
    _, score, tokens, blocks, present, keys = found[0]
    assert isinstance(score, float if protocol == 3 else bytes) and float(score) == pytest.approx(1, abs=1e-5)
    assert (tokens, blocks, present, keys) == (3 * BLOCK, 3, 3, [b"b1", b"b2", b"b3"])
    assert len(wire("KV.SEARCH", "m", "VECTOR", expected(1, 2))[0]) == 5
    assert keys_of(wire("KV.SEARCH", "m", "K", 1, "VECTOR", expected(1, 2))) == [b"a2"]
    assert keys_of(wire("KV.SEARCH", "m", "MIN", "0.99", "VECTOR", expected(1, 2))) == [b"a2"]
    assert keys_of(wire("KV.SEARCH", "m", "LIKE", "b3")) == [b"b3", b"a2"]


def test_by_tokens_the_longest_known_prefix_counts(wire: Wire) -> None:
    ids = np.arange(4 * BLOCK, dtype="<u4")
    names = chain(ids.tobytes(), BLOCK)
    wire("KV.STORE", "m", ids[: 3 * BLOCK].tobytes(), block(1), block(2), block(3))
    settle(wire)
    for count in (4, 3, 2, 1):  # a prefix inside the context is known from memory
        found = wire("KV.SEARCH", "m", "TOKENS", ids[: count * BLOCK].tobytes())
        assert keys_of(found) == [names[2]]
        cosine = np.frombuffer(expected(*range(1, min(count, 3) + 1)), "<f4") @ np.frombuffer(expected(1, 2, 3), "<f4")
        assert float(found[0][1]) == pytest.approx(float(cosine), abs=1e-4)
    assert "no vector of this context" in wire("KV.SEARCH", "m", "TOKENS", ids[BLOCK:].tobytes())
    assert "no vector of this context" in wire("KV.SEARCH", "m", "TOKENS", b"")


def test_a_context_that_goes_on_takes_the_place_of_its_beginning(wire: Wire) -> None:
    store(wire, {"a1": 1, "a2": 2})
    settle(wire)
    store(wire, {"a3": 3}, "PARENT", "a2")
    settle(wire)
    found = wire("KV.SEARCH", "m", "WITHKEYS", "VECTOR", expected(1, 2, 3))
    assert [(each[0], each[2], each[5]) for each in found] == [(b"a3", 3 * BLOCK, [b"a1", b"a2", b"a3"])]
    assert float(found[0][1]) == pytest.approx(1, abs=1e-5)
    store(wire, {"b3": 4}, "PARENT", "a2")  # a branch
    settle(wire)
    found = wire("KV.SEARCH", "m", "WITHKEYS", "VECTOR", expected(1, 2, 4))
    assert [(each[0], each[5]) for each in found] == [(b"b3", [b"a1", b"a2", b"b3"]), (b"a3", [b"a1", b"a2", b"a3"])]
    assert float(found[0][1]) == pytest.approx(1, abs=1e-5)


def test_the_same_again_writes_nothing(wire: Wire) -> None:
    store(wire, {"a1": 1, "a2": 2})
    settle(wire)
    before = tier(wire)
    assert store(wire, {"a1": 1, "a2": 2}) == [0, 0]
    ids = np.arange(BLOCK, dtype="<u4").tobytes()
    wire("KV.PUT", "m", "seq", 0, 0, BLOCK, block(1)[: LAYOUT.row_bytes * BLOCK], block(1)[: LAYOUT.row_bytes * BLOCK])
    assert wire("KV.MATCH", "m", ids) == [0, 0]
    settle(wire)
    after = tier(wire)
    assert (before[b"embedded"], before[b"write_count"]) == (after[b"embedded"], after[b"write_count"])


def test_tenants_and_models_stand_apart(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "n", *WORDS)
    store(wire, {"a": 1})
    store(wire, {"b": 1}, "SALT", "s")
    wire("KV.MSET", "n", 1, "c", block(1))
    settle(wire)
    wait_for(lambda: wire("KV.SEARCH", "n", "VECTOR", expected(1)) != [], what="the other model's is there too")
    assert keys_of(wire("KV.SEARCH", "m", "VECTOR", expected(1))) == [b"a"]
    assert keys_of(wire("KV.SEARCH", "m", "SALT", "s", "VECTOR", expected(1))) == [b"b"]
    assert keys_of(wire("KV.SEARCH", "n", "VECTOR", expected(1))) == [b"c"]
    assert wire("KV.SEARCH", "m", "SALT", "nobody", "VECTOR", expected(1)) == []
    assert "no vector of this context" in wire("KV.SEARCH", "m", "SALT", "s", "LIKE", "a")


def test_what_is_deleted_is_not_found(wire: Wire) -> None:
    store(wire, {"a1": 1, "a2": 2})
    store(wire, {"b": 3})
    settle(wire)
    assert wire("KV.DEL", "m", 1, "a1") == 1
    settle(wire)
    found = wire("KV.SEARCH", "m", "VECTOR", expected(1, 2))[0]
    assert (found[0], found[3], found[4]) == (b"a2", 2, 0)
    assert wire("KV.DEL", "m", 1, "a2") == 1
    settle(wire)
    assert keys_of(wire("KV.SEARCH", "m", "VECTOR", expected(1, 2))) == [b"b"]
    wire("KV.MODEL", "DEL", "m")
    wire("KV.MODEL", "SET", "m", *WORDS)
    settle(wire)
    assert wire("KV.SEARCH", "m", "VECTOR", expected(3)) == []


@pytest.mark.parametrize("codec", ["fp8", "int8"])
def test_models_with_a_codec_have_vectors_too(wire: Wire, codec: str) -> None:
    wire("KV.MODEL", "DEL", "m")
    wire("KV.MODEL", "SET", "m", *WORDS, "CODEC", codec)
    store(wire, {"a1": 1, "a2": 2})
    settle(wire)
    found = wire("KV.SEARCH", "m", "WITHKEYS", "VECTOR", expected(1, 2))
    assert found[0][5] == [b"a1", b"a2"] and float(found[0][1]) > 0.98


# ---- the client's own vectors ----------------------------------------------------------------------------------------


def test_a_client_gives_its_own_vector(wire: Wire) -> None:
    store(wire, {"a1": 1, "a2": 2})
    settle(wire)
    assert wire("KV.EMBED", "m", "a2", unit(5)) == "OK"
    assert wire("KV.EMBED", "m", "not stored", unit(6)) == "OK"
    settle(wire)
    found = wire("KV.SEARCH", "m", "WITHKEYS", "VECTOR", unit(5))
    assert float(found[0][1]) == pytest.approx(1, abs=1e-5) and found[0][5] == [b"a1", b"a2"]
    assert keys_of(wire("KV.SEARCH", "m", "K", 1, "VECTOR", unit(6))) == [b"not stored"]
    assert wire("KV.SEARCH", "m", "K", 1, "VECTOR", unit(6))[0][4] == 0
    store(wire, {"a3": 3}, "PARENT", "a2")  # its own vector stays where the context goes on
    settle(wire)
    assert sorted(keys_of(wire("KV.SEARCH", "m", "VECTOR", unit(5)))) == [b"a2", b"a3", b"not stored"]
    wire("KV.MODEL", "SET", "opaque")
    assert wire("KV.EMBED", "opaque", "SALT", "x", "k", unit(7)) == "OK"
    settle(wire)
    assert keys_of(wire("KV.SEARCH", "opaque", "SALT", "x", "VECTOR", unit(7))) == [b"k"]


NAN = np.array([np.nan] + [1.0] * (DIM - 1), "<f4").tobytes()
INFINITE = np.array([1.0] * (DIM - 1) + [np.inf], "<f4").tobytes()
ERRORS = [
    (("KV.SEARCH", "m", "VECTOR"), "ERR wrong number of arguments"),
    (("KV.SEARCH", "m", "VECTOR", "short"), f"ERR a vector has {DIM} little-endian 32-bit floats, {DIM * 4} bytes"),
    (("KV.SEARCH", "m", "VECTOR", b"x" * (4 * DIM + 4)), "ERR a vector has"),
    (("KV.SEARCH", "m", "VECTOR", b"x" * 200_000), "ERR a vector has"),
    (("KV.SEARCH", "m", "VECTOR", bytes(4 * DIM)), "ERR a vector has finite numbers"),
    (("KV.SEARCH", "m", "VECTOR", NAN), "ERR a vector has finite numbers"),
    (("KV.SEARCH", "m", "VECTOR", INFINITE), "ERR a vector has finite numbers"),
    (("KV.SEARCH", "none", "VECTOR", unit(1)), "ERR no such model 'none'"),
    (("KV.SEARCH", "m", "NEARBY", unit(1)), "ERR syntax error"),
    (("KV.SEARCH", "m", "VECTOR", unit(1), "more"), "ERR syntax error"),
    (("KV.SEARCH", "m", "K", 0, "VECTOR", unit(1)), "ERR K must be from 1 to 100"),
    (("KV.SEARCH", "m", "K", 101, "VECTOR", unit(1)), "ERR K must be from 1 to 100"),
    (("KV.SEARCH", "m", "MIN", "2", "VECTOR", unit(1)), "ERR MIN is a cosine"),
    (("KV.SEARCH", "m", "MIN", "nan", "VECTOR", unit(1)), "ERR MIN is a cosine"),
    (("KV.SEARCH", "m", "MIN", "x", "VECTOR", unit(1)), "ERR MIN is a cosine"),
    (("KV.SEARCH", "m", "LIKE", "nothing"), "ERR no vector of this context is known"),
    (("KV.SEARCH", "m", "LIKE", "k" * (KEY_BYTES_MAX + 1)), "ERR a key has at most"),
    (("KV.SEARCH", "m", "TOKENS", "abc"), "ERR tokens are little-endian 32-bit integers"),
    (("KV.SEARCH", "m", "SALT", "s" * 300, "VECTOR", unit(1)), None),
    (("KV.EMBED", "m", "k"), "ERR wrong number of arguments"),
    (("KV.EMBED", "m", "k", "short"), "ERR a vector has"),
    (("KV.EMBED", "m", "k", NAN), "ERR a vector has finite numbers"),
    (("KV.EMBED", "m", "k" * (KEY_BYTES_MAX + 1), unit(1)), "ERR a key has at most"),
    (("KV.EMBED", "none", "k", unit(1)), "ERR no such model"),
    (("KV.NEAR", "m", "MIN"), "ERR wrong number of arguments"),
    (("KV.NEAR", "m", "LIMIT", 5), "ERR syntax error"),
    (("KV.NEAR", "m", "MIN", "1.5"), "ERR MIN is a cosine"),
    (("KV.NEAR", "m", "MIN", "0.5", "LIMIT", 0), "ERR LIMIT must be from 1 to 1000"),
    (("KV.NEAR", "m", "MIN", "0.5", "LIMIT", 1001), "ERR LIMIT must be from 1 to 1000"),
    (("KV.PREFETCH", "m", "LIKE", "nothing"), "ERR no vector of this context is known"),
    (("KV.PREFETCH", "m", "LIKE", "k", "K"), "ERR syntax error"),
    (("KV.PREFETCH", "m", "LIKE", "k", "N", 1), "ERR syntax error"),
    (("KV.PREFETCH", "m", "LIKE", "k", "K", 0), "ERR K must be"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "error"), ERRORS, ids=[" ".join(str(word)[:20] for word in words) for words, _ in ERRORS]
)
def test_errors(wire: Wire, words: tuple[Any, ...], error: str | None) -> None:
    reply = wire(*words)
    if error is None:
        assert reply == []
    else:
        assert isinstance(reply, Failure) and reply.startswith(error), reply
    assert wire("PING") == "PONG"


def test_names_mean_nothing(wire: Wire) -> None:
    """Models, salts and keys with whatever bytes; keys of the most bytes there may be."""
    hostile = [
        b"'; DROP TABLE x; --",
        b'"\\"',
        b"nul\0nul",
        b"../../../tmp/x",
        b"a:b/c d\r\n",
        bytes(range(256)),
        b"k" * 10_240,
    ]
    for at, (model, salt, key) in enumerate(zip(hostile[:6], [*hostile[1:6], b""], reversed(hostile), strict=False)):
        assert wire("KV.MODEL", "SET", model, *WORDS) == "OK"
        assert wire("KV.MSET", model, "SALT", salt, 1, key, block(at)) == [1]
    settle(wire)
    for at, (model, salt, key) in enumerate(zip(hostile[:6], [*hostile[1:6], b""], reversed(hostile), strict=False)):
        assert keys_of(wire("KV.SEARCH", model, "SALT", salt, "VECTOR", expected(at))) == [key]
        assert wire("KV.SEARCH", model, "SALT", salt, "WITHKEYS", "LIKE", key)[0][4:] == [1, [key]]
        assert wire("KV.MODEL", "DEL", model) == 1


# ---- reports and prefetch --------------------------------------------------------------------------------------------


def test_near_duplicates(wire: Wire) -> None:
    for at in range(6):
        store(wire, {f"k{at}": at})
    base = np.frombuffer(expected(2), "<f4")
    assert wire("KV.EMBED", "m", "twin", (base + 0.02 * np.frombuffer(unit(3), "<f4")).astype("<f4").tobytes()) == "OK"
    settle(wire)
    pairs = wire("KV.NEAR", "m", "MIN", "0.99")
    assert [pair[:2] for pair in pairs] == [[b"k2", b"twin"]] and 0.99 < float(pairs[0][2]) < 1
    assert len(wire("KV.NEAR", "m", "MIN", "-1", "LIMIT", 3)) == 3
    assert wire("KV.NEAR", "m", "SALT", "s", "MIN", "-1") == []


def test_inside_a_transaction_nothing_waits(wire: Wire) -> None:
    assert wire("MULTI") == "OK"
    for words in (
        ("KV.SEARCH", "m", "VECTOR", unit(1)),
        ("KV.PREFETCH", "m", "LIKE", "k"),
        ("KV.EMBED", "m", "k", unit(1)),
    ):
        assert wire(*words) == "QUEUED"
    replies = wire("EXEC")
    assert "inside a transaction" in replies[0] and "inside a transaction" in replies[1] and replies[2] == "OK"


def test_other_clients_do_not_wait(server: Server, wire: Wire) -> None:
    store(wire, {"a": 1})
    settle(wire)
    with server.wire() as other:
        replies = wire.pipeline([("KV.SEARCH", "m", "VECTOR", unit(at)) for at in range(50)])
        assert other("PING") == "PONG"
    assert [keys_of(reply) for reply in replies] == [[b"a"]] * 50


@pytest.fixture
def tiered(tmp_path: Path) -> Iterator[Server]:
    more = (
        "--kv-ssd-path",
        str(tmp_path / "ssd"),
        "--kv-ssd-uses",
        "1",
        "--kv-qdrant-url",
        f"embedded:{tmp_path / 'v'}",
    )
    gpu = ("--kv-gpu", "m", str(64 * LAYOUT.block_bytes), "--kv-gpu-twin", "yes")
    with Server(*COMMON, *more, *gpu, unix=True) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


def where(wire: Wire, *keys: str) -> set[int]:
    return set(wire("KV.LOOKUP", "m", len(keys), *keys)[2])


def test_blocks_of_near_contexts_are_brought_up(tiered: Server) -> None:
    with tiered.wire() as wire:
        wire("KV.MODEL", "SET", "m", *WORDS)
        wait_for(lambda: tier(wire, b"gpu")[b"state"] == b"ok", what="the slots are open")
        store(wire, {"a1": 1, "a2": 2})
        store(wire, {"b1": 1, "b2": 3})
        store(wire, {"c1": 8, "c2": 9})
        settle(wire)
        every = ("a1", "a2", "b1", "b2", "c1", "c2")

        def sunk() -> bool:
            wire("KV.DEMOTE", "m", len(every), *every)
            return {each for key in every for each in where(wire, key)} == {SSD}

        wait_for(sunk, 20, "all is on the SSD")
        assert wire("KV.PREFETCH", "m", "LIKE", "a2", "K", 2) == 4
        wait_for(lambda: {each for key in every[:4] for each in where(wire, key)} == {HOST}, what="they are in memory")
        assert where(wire, "c1") == where(wire, "c2") == {SSD}
        assert wire("KV.PREFETCH", "m", "LIKE", "a2", "K", 2) == 0
        assert wire("KV.PREFETCH", "m", "GPU", "LIKE", "a2", "K", 1) == 2
        wait_for(lambda: where(wire, "a1", "a2") == {GPU}, what="they are on the GPU")
        assert wire("KV.MGET", "m", 2, "a1", "a2") == [block(1), block(2)]


# ---- restarts and failures -------------------------------------------------------------------------------------------


def test_after_a_restart_contexts_are_found_and_go_on(tmp_path: Path) -> None:
    more = ("--kv-ssd-path", str(tmp_path / "ssd"), "--kv-qdrant-url", f"embedded:{tmp_path / 'v'}")
    with Server(*COMMON, *more) as server, server.wire() as wire:
        wire("KV.MODEL", "SET", "m", *WORDS)
        store(wire, {"a1": 1, "a2": 2})
        settle(wire)
        server.terminate(signal.SIGKILL)
    with Server(*COMMON, *more) as server, server.wire() as wire:
        assert keys_of(wire("KV.SEARCH", "m", "VECTOR", expected(1, 2))) == [b"a2"]
        store(wire, {"a3": 3}, "PARENT", "a2")
        settle(wire)
        found = wire("KV.SEARCH", "m", "WITHKEYS", "VECTOR", expected(1, 2, 3))
        assert keys_of(found) == [b"a3"] and found[0][5] == [b"a1", b"a2", b"a3"]
        assert float(found[0][1]) == pytest.approx(1, abs=1e-5)
        assert server.terminate() == 0
        assert "Traceback" not in server.log(), server.log()


def test_without_a_store_the_commands_say_so() -> None:
    with Server(*COMMON) as server, server.wire() as wire:
        wire("KV.MODEL", "SET", "m", *WORDS)
        store(wire, {"a": 1})
        for words in (
            ("KV.SEARCH", "m", "VECTOR", unit(1)), ("KV.EMBED", "m", "k", unit(1)), ("KV.NEAR", "m", "MIN", "0.5"),
            ("KV.PREFETCH", "m", "LIKE", "a"),
        ):  # fmt: skip
            assert wire(*words) == "ERR no vectors of contexts are kept: kv-qdrant-url is not set"
        assert not [row for row in wire("KV.TIERS") if row[1] == b"vectors"]


def test_a_directory_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Server(*COMMON, "--kv-qdrant-url", f"embedded:{tmp_path / 'file' / 'v'}", wait=False) as server:
        assert server.process.wait(20) != 0
        assert "kv-qdrant-url: can't make" in server.log() and "Traceback" not in server.log()


@pytest.mark.parametrize("mode", ["slow", "cut", "refuse"])
def test_while_the_store_fails_only_searches_do(mode: str) -> None:
    fake = FakeQdrant()
    fake.api_key = "topsecret"
    try:
        url = fake.url.replace("//", "//:topsecret@")
        with Server(*COMMON, "--kv-qdrant-url", url, "--kv-qdrant-timeout", "200") as server, server.wire() as wire:
            wire("KV.MODEL", "SET", "m", *WORDS)
            store(wire, {"a": 1})
            settle(wire)
            fake.become(mode)
            for at in range(8):
                assert store(wire, {f"k{at}": at}) == [1]
                assert wire("KV.MGET", "m", 1, f"k{at}") == [block(at)]
                assert wire("KV.LOOKUP", "m", 1, f"k{at}")[0] == 1
                assert wire("KV.SEARCH", "m", "VECTOR", unit(1)).startswith(
                    "ERR vectors can't be searched now: qdrant:"
                )
            shown = tier(wire)
            assert shown[b"state"] == b"failing" and shown[b"error"] and shown[b"breaker"] in (b"open", b"half-open")
            fake.become("ok")
            settle(wire)
            found = wire("KV.SEARCH", "m", "K", 100, "VECTOR", unit(1))
            assert set(keys_of(found)) == {b"a", *(b"k%d" % at for at in range(8))}
            assert tier(wire)[b"state"] == b"ok"
            said = f"{wire('CONFIG', 'GET', 'kv-qdrant-url')} {wire('INFO')} {wire('KV.TIERS')} {server.log()}"
            assert "topsecret" not in said and "Traceback" not in server.log()
            assert server.terminate() == 0
    finally:
        fake.close()


def test_the_engine_killed_under_a_server(tmp_path: Path) -> None:
    with Server(*COMMON, "--kv-qdrant-url", f"embedded:{tmp_path / 'v'}") as server, server.wire() as wire:
        wire("KV.MODEL", "SET", "m", *WORDS)
        store(wire, {"a": 1})
        settle(wire)
        said = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(server.pid)], capture_output=True, text=True, check=True
        )
        children = [int(each) for each in said.stdout.split()]
        assert len(children) == 1
        os.kill(children[0], signal.SIGKILL)
        store(wire, {"b": 2})
        settle(wire)
        assert sorted(keys_of(wire("KV.SEARCH", "m", "VECTOR", unit(1)))) == [b"a", b"b"]
        assert server.terminate() == 0
