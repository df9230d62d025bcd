"""One suite for every engine of vectors, and what the door (`store`) promises over each."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.contract.fake_qdrant import FakeQdrant
from tests.contract.fake_qdrant_grpc import GrpcFace
from tests.contract.region import wait_until
from zeekdb.config.urls import scrubber
from zeekdb.errors import Unavailable
from zeekdb.tiers import guard as guard_module
from zeekdb.tiers.guard import FAILURES_TO_OPEN, TierDown, TierFailed
from zeekdb.tiers.tier import Name
from zeekdb.tiers.vectors import store as store_module
from zeekdb.tiers.vectors.edge import EdgeEngine
from zeekdb.tiers.vectors.engine import TENANT, Engine, EngineFailed, Options, Row
from zeekdb.tiers.vectors.store import Context, VectorStore, collection_prefix, engine_of, kept_keys

DIM = 32
OPTIONS = Options(DIM, 8, 32)
LASTING = ("embedded", "path", "http", "grpc")
HOSTILE = [
    b"'; DROP TABLE x; --", b'"quoted" \\ back', b"nul\0nul", b"../../etc/passwd", b"a:b/c d\r\n", b"\xff\xfe\x00",
    b"x" * 10_240, "schlüssel ☃".encode(), b"",
]  # fmt: skip


@pytest.fixture
def fake() -> Iterator[FakeQdrant]:
    server = FakeQdrant()
    yield server
    server.close()


@pytest.fixture
def face(fake: FakeQdrant) -> Iterator[GrpcFace]:
    made = GrpcFace(fake)
    yield made
    made.close()


@pytest.fixture(params=["embedded", "memory", "path", "http", "grpc"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Engine]:
    """Makes engines of one kind, all over the same data where it lasts."""
    kind = request.param
    if kind == "http":
        url = request.getfixturevalue("fake").url
    elif kind == "grpc":
        url = f"{request.getfixturevalue('fake').url}?grpc={request.getfixturevalue('face').port}"
    else:
        url = "memory:" if kind == "memory" else f"{kind}:{tmp_path / 'vectors'}"
    make_one: Callable[[], Engine] = lambda: engine_of(url, OPTIONS, 5.0)  # noqa: E731
    make_one.lasts = kind in LASTING  # type: ignore[attr-defined]
    return make_one


@pytest.fixture
async def engine(make: Callable[[], Engine]) -> AsyncIterator[Engine]:
    made = make()
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def store(make: Callable[[], Engine]) -> AsyncIterator[VectorStore]:
    made = VectorStore(make(), dim=DIM, batch=16, timeout_s=10)
    await made.open()
    yield made
    await made.close()


def vector(seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal(DIM).astype("<f4")
    return found / np.linalg.norm(found)


def row(seed: int, tenant: str = "one") -> Row:
    return Row(f"{seed + 1:032x}", vector(seed).tobytes(), {TENANT: tenant, "seed": seed, "list": ["ü\0", 1.5]})


def near(seed: int, share: float) -> np.ndarray:
    """A vector whose cosine to vector(seed) is the share."""
    one, other = vector(seed), vector(seed + 10_000)
    other = other - (other @ one) * one
    other /= np.linalg.norm(other)
    return (share * one + np.sqrt(1 - share**2) * other).astype("<f4")


# ---- every engine ----------------------------------------------------------------------------------------------------


async def test_finds_the_nearest_of_the_tenant(engine: Engine) -> None:
    rows = [row(seed, "one" if seed % 2 else "two") for seed in range(200)]
    await engine.upsert("c-1", rows[:120])
    await engine.upsert("c-1", rows[120:])
    queries = [near(7, 0.9), vector(8)]
    found = await engine.search("c-1", [each.tobytes() for each in queries], 5, "one", None)
    for query, hits in zip(queries, found, strict=True):
        scores = sorted(((float(vector(seed) @ query), seed) for seed in range(1, 200, 2)), reverse=True)[:5]
        assert [hit.payload["seed"] for hit in hits] == [seed for _, seed in scores]
        assert [hit.score for hit in hits] == pytest.approx([score for score, _ in scores], abs=1e-5)
        assert [hit.id for hit in hits] == [row(seed).id for _, seed in scores]
    assert found[0][0].payload == rows[7].payload


async def test_leaves_out_what_is_under_the_least_score(engine: Engine) -> None:
    await engine.upsert("c-1", [row(seed) for seed in range(50)])
    query = near(3, 0.9).tobytes()
    assert [hit.payload["seed"] for hit in (await engine.search("c-1", [query], 10, "one", 0.89))[0]] == [3]
    assert await engine.search("c-1", [query], 10, "one", 0.91) == [[]]
    assert len((await engine.search("c-1", [query], 10, "one", -1.0))[0]) == 10


async def test_the_last_row_of_an_id_counts(engine: Engine) -> None:
    await engine.upsert("c-1", [row(1), row(2)])
    await engine.upsert("c-1", [Row(row(1).id, vector(99).tobytes(), {TENANT: "two", "seed": 99})])
    assert [hit.payload["seed"] for hit in (await engine.search("c-1", [vector(1).tobytes()], 9, "one", None))[0]] == [
        2
    ]
    assert [hit.payload["seed"] for hit in (await engine.search("c-1", [vector(1).tobytes()], 9, "two", None))[0]] == [
        99
    ]
    assert await engine.count("c-") == {"c-1": 2}


async def test_gets_by_id_in_order(engine: Engine) -> None:
    await engine.upsert("c-1", [row(seed) for seed in range(5)])
    found = await engine.get("c-1", [row(4).id, row(77).id, row(0).id])
    assert found[1] is None
    for at, seed in ((0, 4), (2, 0)):
        one = found[at]
        assert one is not None and one.payload == row(seed).payload and one.id == row(seed).id
        assert np.allclose(np.frombuffer(one.vector, "<f4"), vector(seed), atol=1e-6)


async def test_deletes(engine: Engine) -> None:
    await engine.upsert("c-1", [row(seed) for seed in range(5)])
    await engine.delete("c-1", [row(2).id, row(77).id])
    await engine.delete("c-1", [row(2).id])
    assert await engine.get("c-1", [row(2).id]) == [None]
    assert await engine.count("c-") == {"c-1": 4}
    hits = (await engine.search("c-1", [vector(2).tobytes()], 9, "one", None))[0]
    assert {hit.payload["seed"] for hit in hits} == {0, 1, 3, 4}


async def test_collections_stand_apart(engine: Engine) -> None:
    for name in (f"c-{DIM}", f"d-{DIM}"):
        await engine.upsert(name, [row(1)])
    await engine.upsert(f"d-{DIM}", [row(2)])
    assert await engine.count("") == {f"c-{DIM}": 1, f"d-{DIM}": 2}
    await engine.drop(f"d-{DIM}")
    await engine.drop(f"d-{DIM}")
    assert await engine.count("") == {f"c-{DIM}": 1}
    assert await engine.search(f"d-{DIM}", [vector(1).tobytes()], 9, "one", None) == [[]]
    await engine.upsert(f"d-{DIM}", [row(3)])
    assert await engine.count("d") == {f"d-{DIM}": 1}


async def test_a_collection_that_is_not_there_is_empty(engine: Engine) -> None:
    assert await engine.search("none", [vector(1).tobytes()] * 2, 9, "one", None) == [[], []]
    assert await engine.get("none", [row(1).id]) == [None]
    assert await engine.page("none", "one", None, 9) == ([], None)
    await engine.delete("none", [row(1).id])
    await engine.drop("none")
    await engine.probe()


@pytest.mark.parametrize("size", [1, 7, 40, 100])
async def test_pages_have_each_row_once(engine: Engine, size: int) -> None:
    await engine.upsert("c-1", [row(seed, "one" if seed % 2 else "two") for seed in range(80)])
    seen: list[int] = []
    after = None
    for _ in range(90):
        rows, after = await engine.page("c-1", "one", after, size)
        seen += [each.payload["seed"] for each in rows]
        if after is None:
            break
    assert sorted(seen) == list(range(1, 80, 2))
    assert after is None


async def test_what_was_answered_is_there_after_a_restart(make: Callable[[], Engine]) -> None:
    one = make()
    await one.open()
    await one.upsert(f"c-{DIM}", [row(seed) for seed in range(50)])
    await one.delete(f"c-{DIM}", [row(3).id])
    await one.close()
    await one.close()
    other = make()
    await other.open()
    expected = {f"c-{DIM}": 49} if make.lasts else {}  # type: ignore[attr-defined]
    assert await other.count("c-") == expected
    await other.close()


async def test_closed_it_says_so(engine: Engine) -> None:
    await engine.close()
    with pytest.raises(EngineFailed):
        await engine.probe()


# ---- the door --------------------------------------------------------------------------------------------------------


def context(name: Name, seed: int, keys: tuple[bytes, ...] = (), norm: float = 2.0) -> Context:
    return Context(name, vector(seed).tobytes(), keys or (name.key,), max(1, len(keys)), (0, 256), (2, 5), norm)


async def test_a_context_comes_back_as_it_was(store: VectorStore) -> None:
    keys = (b"first", b"second\0\xff", b"k")
    assert store.put(context(Name(b"m", b"s", b"k"), 1, keys))
    await store.settled()
    match = (await store.search(b"m", b"s", vector(1).tobytes(), 5, None))[0]
    assert (match.key, match.keys, match.blocks, match.tokens, match.is_own) == (b"k", keys, 3, (0, 256), False)
    assert match.score == pytest.approx(1, abs=1e-5)
    known, missing = await store.known([Name(b"m", b"s", b"k"), Name(b"m", b"t", b"k")])
    assert known is not None and known.norm == 2.0 and known.match.keys == keys and missing is None
    assert await store.search(b"m", b"t", vector(1).tobytes(), 5, None) == []
    assert await store.search(b"n", b"s", vector(1).tobytes(), 5, None) == []


async def test_names_mean_nothing_to_an_engine(store: VectorStore) -> None:
    names = [
        Name(model or b"m", salt, key or b"k")
        for model, salt, key in zip(HOSTILE, HOSTILE[1:], HOSTILE[2:], strict=False)
    ]
    for seed, name in enumerate(names):
        assert store.put(context(name, seed))
    await store.settled()
    for seed, name in enumerate(names):
        found = await store.search(name.model, name.salt, vector(seed).tobytes(), 5, None)
        assert [match.key for match in found] == [name.key]
        store.remove([name])
    await store.settled()
    for seed, name in enumerate(names):
        assert await store.search(name.model, name.salt, vector(seed).tobytes(), 5, None) == []


async def test_a_model_is_dropped_with_what_waits(store: VectorStore) -> None:
    for model in (b"m", b"n"):
        store.put(context(Name(model, b"", b"k"), 1))
    await store.settled()
    store.put(context(Name(b"m", b"", b"later"), 2))
    store.drop(b"m")
    store.put(context(Name(b"m", b"", b"anew"), 3))
    await store.settled()
    assert [match.key for match in await store.search(b"m", b"", vector(1).tobytes(), 5, None)] == [b"anew"]
    assert [match.key for match in await store.search(b"n", b"", vector(1).tobytes(), 5, None)] == [b"k"]


async def test_near_duplicates_are_reported_once(store: VectorStore) -> None:
    for seed in range(30):
        store.put(context(Name(b"m", b"", b"k%d" % seed), seed))
    for seed, share in ((3, 0.99), (5, 0.95)):
        twin = context(Name(b"m", b"", b"twin%d" % seed), seed)
        store.put(twin._replace(vector=near(seed, share).tobytes()))
    store.put(context(Name(b"m", b"other", b"k3"), 3))
    await store.settled()
    pairs, is_all = await store.near(b"m", b"", 0.9, 10)
    assert is_all and [(pair.first, pair.second) for pair in pairs] == [(b"k3", b"twin3"), (b"k5", b"twin5")]
    assert [pair.score for pair in pairs] == pytest.approx([0.99, 0.95], abs=1e-4)
    assert [pair.first for pair in (await store.near(b"m", b"", 0.9, 1))[0]] == [b"k3"]


async def test_the_newest_of_a_name_waits_alone(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "QUEUE_MAX", 3)
    gate = asyncio.Event()
    upsert = store.engine.upsert

    async def held(*words: object) -> None:
        await gate.wait()
        await upsert(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(store.engine, "upsert", held)
    name = Name(b"m", b"", b"k")
    assert store.put(context(name, 1))
    await wait_until(lambda: not store.stats().queue_bytes)  # it is under way
    assert all(store.put(context(name, seed)) for seed in range(2, 9))
    assert store.stats().more["queue"] == 1
    assert store.put(context(Name(b"m", b"", b"l"), 1)) and store.put(context(Name(b"m", b"", b"n"), 1))
    assert not store.put(context(Name(b"m", b"", b"o"), 1))
    assert store.stats().dropped == 1
    gate.set()
    await store.settled()
    found = await store.search(b"m", b"", vector(8).tobytes(), 9, 0.999)
    assert [match.key for match in found] == [b"k"]


def test_what_is_kept_of_a_context_is_bounded() -> None:
    assert kept_keys([b"a", b"b"]) == (b"a", b"b")
    assert len(kept_keys([b"k%d" % at for at in range(5000)])) == store_module.KEYS_KEPT
    assert len(kept_keys([b"x" * 10_000] * 9)) == store_module.KEYS_BYTES // 10_000
    assert kept_keys([b"x" * (store_module.KEYS_BYTES + 1)]) == ()
    assert len(collection_prefix(b"x" * 10_240, 1)) == len(collection_prefix(b"'", 1))


# ---- a server that misbehaves ----------------------------------------------------------------------------------------


@pytest.fixture
async def remote(fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VectorStore]:
    monkeypatch.setattr(guard_module, "PROBE_S", 0.05)
    monkeypatch.setattr(guard_module, "PROBE_MAX_S", 0.1)
    monkeypatch.setattr(guard_module, "BACKOFF_S", 0.001)
    monkeypatch.setattr(store_module, "PAUSE_S", 0.02)
    fake.api_key = "se%cret"
    url = fake.url.replace("//", "//:se%25cret@")
    made = VectorStore(engine_of(url, OPTIONS, 0.3), dim=DIM, timeout_s=0.3, scrub=scrubber([url]))
    await made.open()
    yield made
    fake.become("ok")
    await made.close()


@pytest.mark.parametrize("mode", ["slow", "cut", "refuse"])
async def test_while_a_server_fails_nothing_that_waits_is_lost(
    remote: VectorStore, fake: FakeQdrant, mode: str
) -> None:
    remote.put(context(Name(b"m", b"", b"before"), 1))
    await remote.settled()
    fake.become(mode)
    remote.put(context(Name(b"m", b"", b"meanwhile"), 2))
    await wait_until(lambda: remote.guard.state != "closed")
    assert remote.guard.opens == 1 and remote.guard.failures_total >= FAILURES_TO_OPEN
    with pytest.raises(TierFailed) as told:
        await remote.search(b"m", b"", vector(1).tobytes(), 5, None)
    stats = remote.stats()
    assert stats.state == "failing" and stats.error
    assert "cret" not in f"{told.value} {stats}"
    assert remote.put(context(Name(b"m", b"", b"later"), 3))
    fake.become("ok")
    await wait_until(lambda: remote.guard.state == "closed")
    await remote.settled()
    found = await remote.search(b"m", b"", vector(1).tobytes(), 5, None)
    assert {match.key for match in found} == {b"before", b"meanwhile", b"later"}
    assert remote.stats().state == "ok"


async def test_what_an_engine_refuses_for_good_does_not_stop_the_rest(
    remote: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "REFUSED_MAX", 2)
    monkeypatch.setattr(remote, "batch", 1)
    upsert = remote.engine.upsert

    async def picky(collection: str, rows: Sequence[Row]) -> None:
        if any(row.payload["key"] == "bad" for row in rows):
            raise EngineFailed("400 Bad Request")
        await upsert(collection, rows)

    monkeypatch.setattr(remote.engine, "upsert", picky)
    for at, key in enumerate((b"bad", b"good")):
        remote.put(context(Name(b"m", b"", key), at))
    await remote.settled()
    assert remote.stats().dropped == 1
    await wait_until(lambda: remote.guard.state == "closed")
    assert [match.key for match in await remote.search(b"m", b"", vector(1).tobytes(), 5, None)] == [b"good"]


async def test_a_server_that_is_not_there_is_no_error_at_the_start(fake: FakeQdrant) -> None:
    url = fake.url
    fake.close()
    store = VectorStore(engine_of(url, OPTIONS, 0.3), dim=DIM, timeout_s=0.3)
    await store.open()
    with pytest.raises(TierFailed):
        await store.search(b"m", b"", vector(1).tobytes(), 5, None)
    await store.close()


async def test_searches_under_way_are_bounded(
    remote: VectorStore, fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SEARCHES_MAX", 2)
    fake.become("slow")
    tasks = [asyncio.ensure_future(remote.search(b"m", b"", vector(1).tobytes(), 5, None)) for _ in range(3)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert "under way already" in str(done.pop().exception())
    await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), TierFailed) for task in tasks)


async def test_a_collection_is_made_as_the_directives_say(remote: VectorStore, fake: FakeQdrant) -> None:
    remote.put(context(Name(b"m", b"", b"k"), 1))
    await remote.settled()
    made = fake.made[remote.collection(b"m")]
    assert made["vectors"] == {"size": DIM, "distance": "Cosine"}
    assert made["hnsw_config"] == {"m": 8, "ef_construct": 32}


async def test_a_collection_that_another_node_dropped_is_made_again(remote: VectorStore, fake: FakeQdrant) -> None:
    remote.put(context(Name(b"m", b"", b"k"), 1))
    await remote.settled()
    fake.rows.clear()
    remote.put(context(Name(b"m", b"", b"l"), 2))
    await remote.settled()
    assert [match.key for match in await remote.search(b"m", b"", vector(1).tobytes(), 5, None)] == [b"l"]


# ---- qdrant-edge's process -------------------------------------------------------------------------------------------


@pytest.fixture
async def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VectorStore]:
    monkeypatch.setattr(guard_module, "PROBE_S", 0.05)
    monkeypatch.setattr(guard_module, "PROBE_MAX_S", 0.1)
    monkeypatch.setattr(store_module, "PAUSE_S", 0.02)
    made = VectorStore(engine_of(f"embedded:{tmp_path / 'v'}", OPTIONS, 1.0), dim=DIM, timeout_s=1.0)
    await made.open()
    yield made
    await made.close()


def process_of(store: VectorStore) -> int:
    assert isinstance(store.engine, EdgeEngine) and store.engine._process is not None
    return store.engine._process.pid


async def test_a_killed_process_has_lost_nothing_that_it_answered(edge: VectorStore) -> None:
    for seed in range(100):
        edge.put(context(Name(b"m", b"", b"k%d" % seed), seed))
    await edge.settled()
    first = process_of(edge)
    os.kill(first, signal.SIGKILL)
    edge.put(context(Name(b"m", b"", b"after"), 500))
    await edge.settled()
    await wait_until(lambda: edge.guard.state == "closed")
    assert process_of(edge) != first
    found = await edge.engine.count("")
    assert found == {edge.collection(b"m"): 101}


async def test_a_process_that_hangs_opens_the_breaker_and_comes_back(edge: VectorStore) -> None:
    edge.put(context(Name(b"m", b"", b"k"), 1))
    await edge.settled()
    edge.guard.timeout_s = 0.05
    os.kill(process_of(edge), signal.SIGSTOP)
    try:
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(TierFailed):
                await edge.search(b"m", b"", vector(1).tobytes(), 5, None)
        with pytest.raises(TierDown):
            await edge.search(b"m", b"", vector(1).tobytes(), 5, None)
    finally:
        os.kill(process_of(edge), signal.SIGCONT)
    edge.guard.timeout_s = 5.0
    await wait_until(lambda: edge.guard.state == "closed")
    assert len(await edge.search(b"m", b"", vector(1).tobytes(), 5, None)) == 1


async def test_one_process_has_the_directory(
    edge: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.put(context(Name(b"m", b"", b"k"), 1))
    await edge.settled()
    other = VectorStore(engine_of(f"embedded:{tmp_path / 'v'}", OPTIONS, 1.0), dim=DIM)
    with pytest.raises(Unavailable):
        await other.open()
    await other.close()


async def test_the_process_ends_with_the_store(tmp_path: Path) -> None:
    store = VectorStore(engine_of(f"embedded:{tmp_path / 'v'}", OPTIONS, 1.0), dim=DIM)
    await store.open()
    pid = process_of(store)
    await store.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
