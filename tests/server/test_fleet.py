"""Nodes that share a warm tier: what one stores the others serve; what one removes is gone for all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.kv import HOST, MIB, SSD, Kv, payload
from tests.rigs.redis import redis
from tests.rigs.shared import Rigs
from tests.support import Server, wait_for

Node = Callable[..., Kv]


def blocks(count: int, size: int = 100_000, begin: int = 0) -> dict[str, bytes]:
    return {f"k{n}": payload(n, size) for n in range(begin, begin + count)}


class Nodes:
    """Servers of one fleet."""

    def __init__(self, url: str, *options: str) -> None:
        self.options = ("--kv-warm-url", url, *options)
        self.ends = ExitStack()
        self.servers: list[Server] = []

    def __call__(self, *options: str, memory: str = "64mb", model: tuple[str | int, ...] = ()) -> Kv:
        server = Server("--kv-memory", memory, *self.options, *options)
        self.servers.append(self.ends.enter_context(server))
        return self.ends.enter_context(Kv(server)).declare(*model)


@pytest.fixture
def node(rigs: Rigs) -> Iterator[Nodes]:
    nodes = Nodes(rigs.redis().url)
    with nodes.ends:
        yield nodes


def where(kv: Kv, key: str | bytes) -> list[bytes]:
    found: list[bytes] = kv("KV.WHERE", "m", key)
    return found


def test_what_one_stores_another_serves(node: Nodes) -> None:
    a, b = node(), node()
    stored = blocks(20)
    assert a.store(stored) == [1] * 20
    wait_for(lambda: b.where(list(stored)) == [SSD] * 20, what="B has heard of it")
    assert b.get(list(stored)) == list(stored.values())
    assert b.where(list(stored)) == [HOST] * 20
    assert where(b, "k3") == [b"host", b"warm"]
    late = node()  # has heard nothing
    assert late.get(["k5", "nobody's"]) == [stored["k5"], None]
    assert late.of_keys("KV.LOOKUP", list(stored), "WAIT", 2000)[0] == 20
    assert late.get(list(stored)) == list(stored.values())


def test_a_lookup_has_the_next_one_find(node: Nodes) -> None:
    a = node()
    a.store(blocks(5))
    wait_for(lambda: where(a, "k4") == [b"host", b"warm"])
    b = node()
    wait_for(lambda: b.of_keys("KV.LOOKUP", list(blocks(5)))[0] == 5)
    assert b.tier("warm")["state"] == b"ok"


def test_what_one_removes_is_gone_for_all(node: Nodes) -> None:
    a, b = node(), node()
    stored = blocks(10)
    a.store(stored)
    wait_for(lambda: b.where(list(stored)) == [SSD] * 10)
    assert b.get(list(stored)) == list(stored.values())
    assert b.of_keys("KV.DEL", ["k1", "k2"]) == 2
    wait_for(lambda: a.where(["k1", "k2"]) == [0, 0], what="A has heard of it")
    assert a.get(["k1", "k2"]) == [None, None]
    late = node()
    assert late.of_keys("KV.DEL", ["k3"]) == 0  # it does not know that there is one
    wait_for(lambda: b.get(["k3"]) == [None] and a.get(["k3"]) == [None])
    assert a.get(["k4"]) == [stored["k4"]]


def test_what_one_replaces_is_replaced_for_all(node: Nodes) -> None:
    a, b = node("--kv-namespace", "p* m"), node("--kv-namespace", "p* m")
    assert a("SET", "p1", payload(1)) == "OK"
    wait_for(lambda: b("GET", "p1") == payload(1))
    for round_ in range(2, 12):
        assert (a, b)[round_ % 2]("SET", "p1", payload(round_)) == "OK"
        for kv in (a, b):
            wait_for(lambda kv=kv, round_=round_: kv("GET", "p1") == payload(round_), what=f"round {round_}")


def test_blocks_of_a_model_that_is_declared_otherwise_are_left(node: Nodes) -> None:
    layout = ("LAYERS", 2, "HEADS", 2, "DIM", 8, "DTYPE", "f32", "BLOCK", 4)
    a, b = node(), node(model=layout)
    a.store({"k": payload(1, 1000)})
    a.store({"fits": payload(2, 2 * 2 * 2 * 8 * 4 * 4)})
    wait_for(lambda: b.get(["fits"]) == [payload(2, 1024)])
    assert b.get(["k"]) == [None]


def test_memory_is_small_and_the_warm_tier_large(node: Nodes) -> None:
    a = node(memory="32mb")
    stored = blocks(100, MIB)
    for key, value in stored.items():
        wait_for(lambda key=key, value=value: a.store({key: value})[0] >= 0)
    wait_for(lambda: all(b"warm" in where(a, key) for key in stored))
    for key, value in stored.items():
        assert a.get([key]) == [value]


def test_what_is_used_is_on_the_own_disk_as_well(node: Nodes, tmp_path: Path) -> None:
    a = node("--kv-ssd-path", str(tmp_path / "ssd"), memory="32mb")
    stored = blocks(100, MIB)
    for key, value in stored.items():
        wait_for(lambda key=key, value=value: a.store({key: value})[0] >= 0)
        if int(key[1:]) < 50:
            wait_for(lambda key=key: b"warm" in where(a, key))
            assert a.get([key]) == [value]
    wait_for(lambda: all(b"warm" in where(a, key) for key in stored))
    used = [key for key in list(stored)[:50] if b"host" not in where(a, key)]
    assert len(used) > 20
    assert all(where(a, key) == [b"ssd", b"warm"] for key in used), [where(a, key) for key in used]
    assert any(where(a, key) == [b"warm"] for key in list(stored)[50:])
    for key in used:
        assert a.get([key]) == [stored[key]]


def test_a_block_that_no_tier_takes_by_itself_is_archived(tmp_path: Path) -> None:
    with Server("--kv-memory", "64mb", "--kv-objects-url", f"file://{tmp_path}/objects") as server, Kv(server) as kv:
        kv.declare().store({"small": payload(1, 1000)})
        assert kv.of_keys("KV.DEMOTE", ["small"]) == 1
        wait_for(lambda: where(kv, "small") == [b"objects"])
        assert kv.get(["small"]) == [payload(1, 1000)]


@pytest.mark.parametrize("name", [b"'; DROP TABLE x; --", b"a/../../b", b"\0:\0", b"k" * 10_240, "ключ".encode()])
def test_names_of_any_kind(node: Nodes, name: bytes) -> None:
    a, b = node(), node()
    assert a.of_keys("KV.EXISTS", [name], "SALT", name[:200]) == 0
    assert a("KV.MSET", "m", "SALT", name[:200], 1, name, payload(1)) == [1]
    wait_for(lambda: b.get([name], "SALT", name[:200]) == [payload(1)])
    assert b.get([name]) == [None]


def test_a_warm_tier_that_dies_and_comes_back(tmp_path: Any) -> None:
    with redis() as server:
        nodes = Nodes(server.url)
        with nodes.ends:
            a = nodes("--kv-ssd-path", str(tmp_path), "--kv-ssd-uses", "1")
            a.store(blocks(10))
            wait_for(lambda: where(a, "k9") == [b"host", b"warm"])
            server.process.signal(signal.SIGSTOP)
            stored = blocks(20, begin=10)
            assert a.store(stored) == [1] * 20
            wait_for(lambda: a.tier("warm")["state"] == b"failing")
            assert a.tier("warm")["breaker"] in (b"open", b"half-open")
            a.sink(list(stored))
            assert a.get(list(stored)) == list(stored.values())
            assert a.of_keys("KV.DEL", ["k0"]) == 1
            server.process.signal(signal.SIGCONT)
            wait_for(lambda: a.tier("warm")["state"] == b"ok", 20)
            wait_for(lambda: b"warm" in where(a, "k29"))
            b = nodes()
            assert b.get(["k29", "k0"]) == [stored["k29"], None]


LAYOUT = ("LAYERS", 2, "HEADS", 2, "DIM", 16, "DTYPE", "f32", "BLOCK", 4)
BLOCK = 2 * 2 * 4 * 2 * 16 * 4


def fleet(rigs: Rigs, folder: Path) -> Nodes:
    """Nodes with a warm tier, a catalogue and object storage in common."""
    url, objects = rigs.database_url(), f"file://{folder}/objects"
    return Nodes(rigs.redis().url, "--kv-postgres-url", url, "--kv-objects-url", objects, "--kv-objects-min", "1")


def test_many_who_want_a_cold_block_cause_one_load(rigs: Rigs, tmp_path: Path) -> None:
    node = fleet(rigs, tmp_path)
    with node.ends:
        a = node("--kv-warm-write", "demote", "--kv-objects-write", "store")
        stored = blocks(4, 3 * MIB)
        a.store(stored)
        wait_for(lambda: all(where(a, key) == [b"host", b"objects"] for key in stored), what="it is cold")
        nodes = [node("--kv-warm-write", "demote", "--kv-find-deadline", "5000") for _ in range(2)]
        for kv in nodes:
            wait_for(lambda kv=kv: kv.of_keys("KV.EXISTS", list(stored)) == 4, what="it is known")
        barrier = threading.Barrier(20)

        def want(number: int) -> list[bytes | None]:
            with Kv(node.servers[1 + number % 2]) as kv:
                barrier.wait()
                return kv.get(list(stored))

        with ThreadPoolExecutor(20) as threads:
            found = list(threads.map(want, range(20)))
        assert found == [list(stored.values())] * 20
        loads = [kv.tier("objects")["read_count"] for kv in nodes]
        assert sum(loads) == 4, loads
        assert all(b"warm" in where(kv, key) for kv in nodes for key in stored)


def test_a_common_prefix_is_stored_once(rigs: Rigs, tmp_path: Path) -> None:
    node = fleet(rigs, tmp_path)
    with node.ends:
        a, b = node(model=LAYOUT), node(model=LAYOUT)
        prefix = list(range(40))  # 10 blocks
        tensor = payload(1, 10 * BLOCK)
        for number in range(64):
            tokens = b"".join(token.to_bytes(4, "little") for token in [*prefix, *[1000 + number] * 4])
            kv = (a, b)[number % 2]
            reply = kv("KV.STORE", "m", tokens, tensor + payload(100 + number, BLOCK))
            assert isinstance(reply, list) and set(reply) <= {0, 1}
        wait_for(lambda: a.tier("warm")["write_count"] + b.tier("warm")["write_count"] >= 74)
        wait_for(lambda: not int(_stat(a, "shared_waiting")) and not int(_stat(b, "shared_waiting")))
        assert len(rigs.redis()("KEYS", "*")) == 10 + 64


def _stat(kv: Kv, name: str) -> Any:
    words = kv("KV.STATS")
    return dict(zip(words[::2], words[1::2], strict=True))[name.encode()]
