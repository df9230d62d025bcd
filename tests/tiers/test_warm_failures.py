"""The warm tier when its server, the way to it, or a node that writes there fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

import pytest
import uvloop

from tests.contract.region import wait_until
from tests.rigs.redis import Cluster, Redis, cluster_url, redis, redis_cluster, sentinel_set, sentinel_url
from tests.rigs.shared import Rigs
from tests.support import ROOT, Wire, free_port, wait_for
from tests.tiers.warm import KIB, Open, get_of, item_of, open_tier, read, until
from zeekdb.errors import Unavailable
from zeekdb.hot.checksum import checksum
from zeekdb.tiers import warm as warm_module
from zeekdb.tiers.envelope import digest
from zeekdb.tiers.guard import FAILURES_TO_OPEN
from zeekdb.tiers.tier import Held, Put, name_of
from zeekdb.tiers.warm import WarmTier
from zeekdb.tiers.warm_client import Command, LinkDown

__all__ = ["open_tier"]

RECOVERY_S = 10.0  # the bar: the breaker closes by itself within so long


async def is_well(tier: WarmTier, item: Put) -> bool:
    """Whether it takes and gives blocks again."""
    return (await tier.put([item])) != [None] and (await read(tier, item)) is True


# ---- blocks that are there in part ---------------------------------------------------------------------------------


def killed_writer(url: str, lines: int) -> list[int]:
    """The seeds that a writer has put by the time it is killed, after so many."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.tiers.warm_writer", url], cwd=ROOT, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert writer.stdout is not None
    done = [int(writer.stdout.readline()) for _ in range(lines)]
    writer.kill()
    return done + [int(line) for line in writer.communicate()[0].split(b"\n")[:-1]]


async def test_a_writer_that_is_killed_leaves_whole_blocks_or_none(open_tier: Open) -> None:
    random = Random(5)
    torn = 0
    with redis() as server:
        for _ in range(6):
            server("FLUSHALL")
            done = killed_writer(server.url, random.randrange(3, 12))
            tier = await open_tier(server.url)
            found = [held.meta async for some in tier.scan() for held in some]
            gets = [get_of(meta) for meta in found]
            assert await tier.get(gets) == [True] * len(found)
            assert {b"key:%d" % seed for seed in done} <= {meta.key for meta in found}, "a confirmed block is missing"
            stored = {digest(meta).encode() for meta in found}
            left = [key for key in server("KEYS", "*:[0-9]*") if key.split(b"{")[1].split(b"}")[0] not in stored]
            torn += bool(left)
            assert all(server("PTTL", key) > 0 for key in left), "what is left of torn puts goes by itself"
    assert torn, "no put was torn: the test shows nothing"


async def test_a_put_that_ends_between_chunks_and_head(
    rigs: Rigs, open_tier: Open, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    server = rigs.redis()
    tier = await open_tier(server.url, ttl_s=0)
    item = item_of(1, 300 * KIB)
    ask = tier.client.ask

    async def failing(commands):  # type: ignore[no-untyped-def]
        if any(words[:2] == (b"SET", tier.keys.block(digest(item.meta))) for words in commands):
            raise LinkDown("the line is cut here")
        return await ask(commands)

    monkeypatch.setattr(tier.client, "ask", failing)
    assert await tier.put([item]) == [None]
    assert all(server("PTTL", key) > 0 for key in server("KEYS", "*")), "what is torn goes by itself"
    assert len(server("KEYS", "*")) == 5
    assert tier.stats().write.errors == 1
    monkeypatch.undo()
    assert await read(tier, item) is False
    assert await tier.find([name_of(item.meta)]) == [None]
    assert [held async for some in tier.scan() for held in some] == []
    assert all(await tier.put([item]))
    assert await read(tier, item) is True
    assert {server("PTTL", key) for key in server("KEYS", "*")} == {-1}


async def test_a_chunk_that_the_server_evicted_is_a_miss(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    tier = await open_tier(server.url)
    for read_first in (True, False):
        item = item_of(1, 300 * KIB)
        assert all(await tier.put([item]))
        server("DEL", sorted(key for key in server("KEYS", "*") if not key.endswith(b"}"))[2])
        if read_first:
            assert await read(tier, item) is False
        assert await tier.contains([Held(item.meta, 0)]) == [False]
        assert await tier.find([name_of(item.meta)]) == [None]
        assert all(await tier.put([item])), "not taken for there"
        assert await read(tier, item) is True
        assert await tier.delete([Held(item.meta, 0)]) == [True]
        assert server("DBSIZE") == 0
    assert (tier.torn, tier.stats().misses, tier.stats().corrupt) == (1, 1, 0)


async def test_a_server_that_evicts_at_random(open_tier: Open) -> None:
    with redis("--maxmemory", "24mb", "--maxmemory-policy", "allkeys-random") as server:
        tier = await open_tier(server.url)
        items = [item_of(seed, 300 * KIB) for seed in range(200)]
        places = await tier.put(items)
        assert all(place is not None for place in places)
        answers = [await read(tier, item) for item in items]
        assert set(answers) == {True, False}
        assert tier.stats().corrupt == 0
        assert tier.guard.state == "closed"


async def test_damage_is_a_miss_and_is_mended(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    tier = await open_tier(server.url)
    small, large = item_of(1, 5000), item_of(2, 300 * KIB)
    for item in (small, large):
        for where in ("head", "bytes"):
            assert all(await tier.put([item]))
            key = tier.keys.block(digest(item.meta))
            if where == "bytes":
                if item is large:
                    key = max(server("KEYS", b"*%b*:4" % digest(item.meta).encode()))
                server("SETRANGE", key, server("STRLEN", key) - 10, "damaged...")
            else:
                server("SETRANGE", key, 20, "damaged")
            assert await read(tier, item) is False
            assert all(await tier.put([item]))
            assert await read(tier, item) is True
    assert tier.stats().corrupt >= 4


# ---- servers that refuse -------------------------------------------------------------------------------------------


async def test_a_full_server_still_reads(open_tier: Open) -> None:
    with redis(maxmemory="8mb") as server:
        tier = await open_tier(server.url)
        first, large, next_one = item_of(1, 1 << 20), item_of(2, 16 << 20), item_of(3, 100)
        assert all(await tier.put([first]))
        assert await tier.put([large]) == [None]
        stats = tier.stats()
        assert stats.state == "failing"
        assert stats.error.startswith("OOM ")
        assert stats.more["refused"] == 1
        for _ in range(FAILURES_TO_OPEN + 1):
            assert await read(tier, first) is True
            assert await tier.put([next_one]) == [None]
        assert tier.stats().more["breaker"] == "closed"
        assert len(server("KEYS", "*")) == 1 + 16, "chunks of what was refused are taken back"
        server("CONFIG", "SET", "maxmemory", 0)
        assert await until(lambda: is_well(tier, next_one)) < RECOVERY_S
        assert tier.stats().state == "ok"
        assert tier.stats().error == ""


async def test_a_replica_reads(open_tier: Open) -> None:
    with redis() as primary, redis("--replicaof", f"127.0.0.1 {primary.port}") as replica:
        there = await open_tier(primary.url)
        item = item_of(1, 100 * KIB)
        assert all(await there.put([item]))
        here = await open_tier(replica.url)
        await until(lambda: _is_true(here, item), what="the replica follows")
        assert await here.put([item_of(2, 100)]) == [None]
        assert here.stats().error.startswith("READONLY ")
        assert await here.delete([Held(item.meta, 0)]) == [False]
        assert await read(here, item) is True
        assert here.guard.state == "closed"
        async with here.loading([name_of(item.meta)]) as mine:
            assert mine == [True], "no locks there: everybody loads"


async def _is_true(tier: WarmTier, item: Put) -> bool:
    return await read(tier, item) is True


@pytest.mark.parametrize(
    "reply", [b"-LOADING Redis is loading the dataset in memory\r\n", b"-NOPERM no permissions\r\n", b"?nonsense\r\n"]
)
async def test_a_server_that_cannot_serve(rigs: Rigs, open_tier: Open, reply: bytes) -> None:
    server = rigs.redis()
    proxy = rigs.proxy(server.address)
    tier = await open_tier(f"redis://127.0.0.1:{proxy.port}")
    item = item_of(1, 100 * KIB)
    assert all(await tier.put([item]))
    proxy.answer(reply)
    calls = 0
    while tier.guard.state == "closed":
        assert await read(tier, item) is None
        assert await tier.put([item_of(2, 100)]) == [None]
        calls += 1
        assert calls <= FAILURES_TO_OPEN
    assert tier.stats().state == "failing"
    assert tier.stats().error
    assert (await tier.find([name_of(item.meta)]), await tier.delete([Held(item.meta, 0)])) == ([None], [False])
    proxy.passing()
    assert await until(lambda: is_well(tier, item)) < RECOVERY_S
    assert tier.stats().state == "ok"


async def test_the_wrong_password(open_tier: Open) -> None:
    with redis(password="the-right-one") as server:
        for url in (f"redis://:the-wrong-one@127.0.0.1:{server.port}", f"redis://127.0.0.1:{server.port}"):
            tier = await open_tier(url)
            item = item_of(1, 100)
            while tier.guard.state == "closed":
                assert await read(tier, item) is None
                assert tier.guard.failures_total <= FAILURES_TO_OPEN
            assert await tier.put([item]) == [None]
            stats = tier.stats()
            assert stats.state == "failing"
            assert "password" in stats.error or "Authentication" in stats.error
            assert "the-wrong-one" not in repr(stats)
            with pytest.raises(LinkDown) as caught:
                await tier.probe()
            assert "the-wrong-one" not in f"{caught.value!r} {caught.value.__context__!r} {tier.client.address!r}"
        wrong = await open_tier(f"redis://:the-wrong-one@127.0.0.1:{server.port}")
        assert await read(wrong, item) is None
        server("CONFIG", "SET", "requirepass", "the-wrong-one")
        assert await until(lambda: is_well(wrong, item)) < RECOVERY_S


async def test_a_password_that_changes_under_way(open_tier: Open) -> None:
    with redis(password="one") as server:
        tier = await open_tier(server.url)
        item = item_of(1, 100)
        assert all(await tier.put([item]))
        server("CONFIG", "SET", "requirepass", "two")
        server.password = "two"
        server("CLIENT", "KILL", "TYPE", "normal")
        assert await read(tier, item) is None
        server("CONFIG", "SET", "requirepass", "one")
        assert await until(lambda: is_well(tier, item)) < RECOVERY_S


# ---- servers that are gone, slow, or cut ---------------------------------------------------------------------------


@contextmanager
def stopped(server: Redis) -> Iterator[None]:
    """SIGSTOP, and on again."""
    server.process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.signal(signal.SIGCONT)


async def test_a_server_that_hangs(open_tier: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is the caller's again once a call has returned: what it writes there reaches nobody."""
    with redis() as server:
        tier = await open_tier(server.url, timeout_s=0.2, chunk_bytes=1 << 20)
        item, other = item_of(1, 100 * KIB), item_of(2, 6 << 20)
        assert all(await tier.put([item]))
        with stopped(server):
            memory = bytearray(other.data)
            began = time.monotonic()
            assert await tier.put([Put(other.meta, memoryview(memory))]) == [None]
            memory[:] = bytes(len(memory))
            get = get_of(item.meta)
            assert await tier.get([get]) == [None]
            while tier.guard.state == "closed":
                assert await read(tier, item) is None
            assert time.monotonic() - began < RECOVERY_S, "each waits no longer than its deadline"
            assert tier.stats().state == "failing"
            assert tier.stats().error == "no answer in time"
            asked = tier.client.ask
            monkeypatch.setattr(tier.client, "ask", None)
            assert [await read(tier, item) for _ in range(100)] == [None] * 100, "an open breaker asks nobody"
            monkeypatch.setattr(tier.client, "ask", asked)
        assert await until(lambda: is_well(tier, item)) < RECOVERY_S
        assert not any(get.into), "nobody wrote there later"
        assert await read(tier, other) in (True, False)
        assert tier.stats().corrupt == 0
        assert all(await tier.put([other]))
        assert await read(tier, other) is True


async def test_a_server_that_restarts(open_tier: Open) -> None:
    """Idle connections that it has closed are not held against it."""
    with redis() as server:
        tier = await open_tier(server.url)
        items = [item_of(seed, 100) for seed in range(8)]
        assert None not in await asyncio.gather(*(tier.put([item]) for item in items))
        server.process.kill()
        server.start()
        answers = await asyncio.gather(*(read(tier, item) for item in items))
        assert answers == [False] * 8, "it came back empty"
        assert tier.guard.failures_total == 0
        server("CLIENT", "KILL", "TYPE", "normal")
        assert [await is_well(tier, item) for item in items] == [True] * 8
        assert tier.guard.failures_total == 0


async def test_replies_that_are_cut(rigs: Rigs, open_tier: Open) -> None:
    proxy = rigs.proxy(rigs.redis().address)
    tier = await open_tier(f"redis://127.0.0.1:{proxy.port}")
    item = item_of(1, 300 * KIB)
    assert all(await tier.put([item]))
    proxy.cut(150 * KIB)
    assert await read(tier, item) is None
    assert proxy.cuts >= 2, "tried again"
    proxy.passing()
    assert await until(lambda: is_well(tier, item)) < RECOVERY_S


@pytest.mark.parametrize("how", ["dead", "slow", "hang"])
async def test_ways_that_fail(rigs: Rigs, open_tier: Open, how: str) -> None:
    proxy = rigs.proxy(rigs.redis().address)
    tier = await open_tier(f"redis://127.0.0.1:{proxy.port}", timeout_s=0.2)
    item = item_of(1, 300 * KIB)
    assert all(await tier.put([item]))
    getattr(proxy, how)()
    calls = 0
    while tier.guard.state == "closed":
        assert await read(tier, item) is None
        calls += 1
        assert calls <= FAILURES_TO_OPEN
    assert tier.guard.failures_total <= FAILURES_TO_OPEN
    proxy.passing()
    assert await until(lambda: is_well(tier, item)) < RECOVERY_S
    assert (tier.stats().more["breaker_opens"], tier.stats().corrupt) == (1, 0)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("ends", ["cancelled", "timeout"])
def test_a_call_that_ends_early_gives_the_memory_back(run: Callable[[Any], None], ends: str) -> None:
    """Nothing holds the caller's memory any more: not even a transport that could not send all of it."""

    async def main() -> None:
        with redis() as server:
            tier = WarmTier(server.url, timeout_s=30 if ends == "cancelled" else 0.2)
            await tier.open()
            item, first = item_of(1, 32 << 20), item_of(2, 10)
            assert all(await tier.put([first]))
            memory = bytearray(item.data)
            view = memoryview(memory)
            ask, is_sending = tier.client.ask, asyncio.Event()

            async def watched(commands: Sequence[Command]) -> list[Any]:
                if commands[0][0] == b"SET" and not is_sending.is_set():
                    is_sending.set()
                    server.process.signal(signal.SIGSTOP)
                return await ask(commands)

            tier.client.ask = watched  # type: ignore[method-assign]
            call = asyncio.ensure_future(tier.put([Put(item.meta, view)]))
            await is_sending.wait()
            if ends == "cancelled":
                for _ in range(100):
                    await asyncio.sleep(0)
                call.cancel()
            await asyncio.wait([call])
            assert call.cancelled() if ends == "cancelled" else call.result() == [None]
            assert tier.stats().queue_bytes == 0
            del call
            view.release()  # BufferError: somebody still has a piece of it
            memory.append(0)
            server.process.signal(signal.SIGCONT)
            assert await until(lambda: is_well(tier, item)) < RECOVERY_S
            await tier.close()

    run(main())


async def test_nobody_is_there_at_the_start(open_tier: Open) -> None:
    port = free_port()
    tier = await open_tier(f"redis://127.0.0.1:{port}")
    assert [held async for some in tier.scan() for held in some] == []
    assert await read(tier, item_of(1, 10)) is None


async def test_without_redis_py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(Unavailable, match=r"kv-warm-url needs a package .* pip install 'zeekdb\[tiers\]'"):
        await WarmTier("redis://127.0.0.1:1").open()


# ---- Sentinel and Cluster ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_failover_under_load(open_tier: Open, how: str) -> None:
    """The primary goes; what was put after is served by the next one, and nothing that is read is wrong."""
    with sentinel_set(replicas=1, sentinels=3) as set_:
        tier = await open_tier(sentinel_url(set_), timeout_s=0.5)
        ending = asyncio.Event()
        put: list[int] = []

        async def load(first: int) -> None:
            seed = first
            while not ending.is_set():
                item = item_of(seed, 100 * KIB)
                if await is_well(tier, item):
                    put.append(seed)
                seed += 4
                await asyncio.sleep(0)

        tasks = [asyncio.ensure_future(load(first)) for first in range(4)]
        await wait_until(lambda: len(put) > 20)
        old = set_.primary()
        if how == "killed":
            await asyncio.to_thread(set_.fail_over)
        else:
            old.process.signal(signal.SIGSTOP)
            await asyncio.to_thread(wait_for, lambda: set_.primary() is not old, 30)
        began, before = time.monotonic(), len(put)
        await wait_until(lambda: len(put) > before + 20, 30)
        assert time.monotonic() - began < RECOVERY_S
        if how == "stopped":  # it comes back, and is told that it is a replica now
            old.process.signal(signal.SIGCONT)
            await asyncio.to_thread(wait_for, lambda: b"role:slave" in old("INFO", "replication"), 30)
            before = len(put)
            await wait_until(lambda: len(put) > before + 20, RECOVERY_S)
        ending.set()
        await asyncio.gather(*tasks)
        assert all([await _is_true(tier, item_of(seed, 100 * KIB)) for seed in put[-10:]])
        assert set_.primary()("DBSIZE") > 0
        assert tier.stats().corrupt == 0


@pytest.mark.slow
async def test_a_primary_that_becomes_a_replica_under_our_hands(open_tier: Open) -> None:
    """It answers, and writes nothing: the sentinels know where to go."""
    with sentinel_set() as set_:
        tier = await open_tier(sentinel_url(set_))
        item = item_of(1, 100)
        assert await is_well(tier, item)
        with Wire(set_.addresses[0]) as wire:
            assert wire("SENTINEL", "FAILOVER", "mymaster") == "OK"
        old = set_.servers[0]
        await asyncio.to_thread(wait_for, lambda: b"role:slave" in old("INFO", "replication"), 30)
        assert await until(lambda: is_well(tier, item_of(2, 100))) < RECOVERY_S
        assert set_.servers[1]("DBSIZE") == 2


async def test_sentinels_with_a_password_of_their_own(open_tier: Open) -> None:
    with sentinel_set(password="p@1") as set_:
        host, port = set_.addresses[0]
        with Wire((host, port)) as wire:
            assert wire("ACL", "SETUSER", "guard", "on", ">p+2", "+@all") == "OK"
            assert wire("ACL", "SETUSER", "default", "off") == "OK"
        where = f"redis+sentinel://:p%401@{host}:{port}/mymaster"
        tier = await open_tier(f"{where}?sentinel_username=guard&sentinel_password=p+2")
        assert await is_well(tier, item_of(1, 100))
        for url in (where, f"{where}?sentinel_username=guard&sentinel_password=wrong-one"):
            stranger = await open_tier(url)
            assert await read(stranger, item_of(1, 100)) is None
            assert "wrong-one" not in repr(stranger.stats())
            assert "p@1" not in repr(stranger.stats())


async def test_sentinels_that_are_gone_or_know_nothing(open_tier: Open) -> None:
    with sentinel_set(sentinels=1) as set_:
        port = set_.ports[0]
        dead = free_port()
        tier = await open_tier(f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{port}/mymaster")
        assert all(await tier.put([item_of(1, 100)])), "one of two is enough"
        stranger = await open_tier(f"redis+sentinel://127.0.0.1:{port}/other")
        assert await stranger.put([item_of(1, 100)]) == [None]
        assert "knows no primary" in stranger.guard.last_error
        set_.sentinels[0].kill()
        assert await read(tier, item_of(1, 100)) is True, "nobody needs them as long as all is well"


async def test_a_node_of_a_cluster_that_is_gone(open_tier: Open) -> None:
    with redis_cluster() as cluster:
        tier = await open_tier(cluster_url(cluster), timeout_s=0.5)
        items = [item_of(seed, 1000) for seed in range(30)]
        assert all(await tier.put(items))
        cluster.nodes[0].process.kill()
        while tier.guard.state == "closed":
            answers = await tier.get([get_of(item.meta) for item in items])
            assert set(answers) == {None}
        cluster.nodes[0].start()

        async def is_whole() -> bool:
            return None not in await tier.put(items)

        assert await until(is_whole, 20) < RECOVERY_S
        assert [await read(tier, item) for item in items] == [True] * 30


async def test_refused_writes_are_asked_again_only_after_a_while(
    rigs: Rigs, open_tier: Open, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(warm_module, "REFUSED_S", 1000.0)
    with redis(maxmemory="1mb") as server:
        tier = await open_tier(server.url)
        assert await tier.put([item_of(1, 4 << 20)]) == [None]
        before = server("INFO", "commandstats").decode()
        assert await tier.put([item_of(2, 100)]) == [None]
        writes = [[line for line in text.splitlines() if "_set:" in line] for text in
                  (before, server("INFO", "commandstats").decode())]  # fmt: skip
        assert writes[0] == writes[1] != []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_the_way_does_nothing_that_is_read_is_wrong(rigs: Rigs, open_tier: Open, seed: int) -> None:
    """Several users of few names, their blocks replaced all the time, over a way that fails in all its ways."""
    random = Random(seed)
    server = rigs.redis()
    proxy = rigs.proxy(server.address)
    tier = await open_tier(f"redis://127.0.0.1:{proxy.port}", timeout_s=0.1, chunk_bytes=16 * KIB)
    ending = asyncio.Event()
    answers: Counter[tuple[str, bool | None]] = Counter()

    async def use(user: int) -> None:
        mine = Random(seed * 100 + user)
        while not ending.is_set():
            name = b"k%d" % mine.randrange(6)
            item = item_of(mine.randrange(1000), mine.choice((10, 5000, 200 * KIB)), key=name)
            if mine.random() < 0.5:
                (place,) = await tier.put([item])
                answers["put", place is not None] += 1
            (meta,) = await tier.find([name_of(item.meta)])
            if meta is not None:
                get = get_of(meta)
                (answer,) = await tier.get([get])
                assert answer is not True or checksum(get.into) == meta.checksum
                answers["get", answer] += 1
            if mine.random() < 0.1:
                (is_gone,) = await tier.delete([Held(item.meta, 0)])
                answers["delete", is_gone] += 1
            await asyncio.sleep(0)

    users = [asyncio.ensure_future(use(user)) for user in range(6)]
    for _ in range(12):
        random.choice((
            proxy.dead, proxy.hang, proxy.reset_connections, lambda: proxy.slow(0.05),
            lambda: proxy.cut(random.randrange(1, 300 * KIB)), lambda: proxy.answer(b"-LOADING wait\r\n"),
        ))()  # fmt: skip
        failures, total = tier.guard.failures_total + 3, answers.total() + 200
        await wait_until(partial(_reached, tier, failures, answers, total), 20)
        proxy.passing()
        reads = answers["get", True] + 10
        await wait_until(partial(_is_read, answers, reads), RECOVERY_S, "it reads again")
    ending.set()
    await asyncio.gather(*users)
    assert {("put", True), ("put", False), ("get", True)} <= set(answers), answers
    assert tier.stats().corrupt == 0
    left = [held.meta async for some in tier.scan() for held in some]
    assert await tier.get([get_of(meta) for meta in left]) == [True] * len(left)


def _reached(tier: WarmTier, failures: int, answers: Counter[tuple[str, bool | None]], total: int) -> bool:
    return tier.guard.failures_total >= failures or answers.total() >= total


def _is_read(answers: Counter[tuple[str, bool | None]], reads: int) -> bool:
    return answers["get", True] >= reads


@pytest.mark.slow
async def test_a_primary_of_a_cluster_dies_and_its_replica_follows(open_tier: Open) -> None:
    with redis_cluster() as cluster, _replica(cluster, 0) as replica:
        tier = await open_tier(cluster_url(cluster), timeout_s=0.5)
        items = [item_of(seed, 100 * KIB) for seed in range(20)]
        assert all(await tier.put(items))
        cluster.nodes[0].process.kill()

        async def all_there() -> bool:
            return await tier.get([get_of(item.meta) for item in items]) == [True] * len(items)

        await until(all_there, 40)
        assert "role:master" in replica("INFO", "replication").decode()
        assert all(await tier.put([item_of(seed, 100) for seed in range(100, 130)]))


@contextmanager
def _replica(cluster: Cluster, of: int) -> Iterator[Redis]:
    """One more node, that follows one of the others."""
    bus = free_port()
    with redis("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(bus)) as node:
        assert cluster.nodes[0]("CLUSTER", "MEET", "127.0.0.1", node.port, bus) == "OK"
        primary = cluster.nodes[of]("CLUSTER", "MYID").decode()
        wait_for(lambda: primary in node("CLUSTER", "NODES").decode(), 30)
        wait_for(lambda: node("CLUSTER", "REPLICATE", primary) == "OK", 30)
        wait_for(lambda: "master_link_status:up" in node("INFO", "replication").decode(), 30)
        known = f"127.0.0.1:{node.port}@"
        wait_for(lambda: all(known in each("CLUSTER", "NODES").decode() for each in cluster.nodes), 30)
        yield node
