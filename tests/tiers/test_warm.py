"""The warm tier on servers that are well: what lies there, for how long, over which kind of connection."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.contract.region import wait_until
from tests.rigs.redis import cluster_url, redis, sentinel_url
from tests.rigs.shared import Rigs
from tests.rigs.tls import Certificates
from tests.support import ROOT
from tests.tiers.warm import KIB, Open, get_of, item_of, open_tier, read
from zeekdb.config.urls import redacted
from zeekdb.tiers import warm as warm_module
from zeekdb.tiers.envelope import digest
from zeekdb.tiers.packing import Packer
from zeekdb.tiers.tier import Held, Name, Put, name_of, place_of
from zeekdb.tiers.warm_layout import CHUNK_GRACE_MS

__all__ = ["open_tier"]

PLAIN = b"abcdefgh" * (40 * KIB)


async def test_every_key_of_a_block_has_its_time(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    tier = await open_tier(server.url, ttl_s=1000)
    now = int(time.time())
    small, large, soon = item_of(1, 100), item_of(2, 200 * KIB), item_of(3, 100 * KIB, deadline=now + 50)
    gone = item_of(4, 100, deadline=now - 1)
    items = [small, large, soon, gone]
    assert await tier.put(items) == [place_of(item.meta) for item in items]
    keys = server("KEYS", "*")
    assert len(keys) == 1 + (1 + 4) + (1 + 2), "what has expired is not written"
    assert all(key.startswith(b"zeekdb:{") for key in keys)
    for item, life_ms in ((small, 1_000_000), (large, 1_000_000), (soon, 50_000)):
        name = b"zeekdb:{%b}" % digest(item.meta).encode()
        assert life_ms - 10_000 < server("PTTL", name) <= life_ms
        chunks = [key for key in keys if key.startswith(name + b":")]
        assert all(life_ms < server("PTTL", key) <= life_ms + CHUNK_GRACE_MS for key in chunks), "a head goes first"
    assert server("EXISTS", b"zeekdb:{%b}" % digest(gone.meta).encode()) == 0


async def test_without_a_time_to_live_blocks_stay(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    tier = await open_tier(server.url, ttl_s=0)
    assert all(await tier.put([item_of(1, 100), item_of(2, 200 * KIB)]))
    assert {server("PTTL", key) for key in server("KEYS", "*")} == {-1}
    assert len(server("KEYS", "*")) == 1 + (1 + 4)


async def test_what_is_there_is_not_written_again(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    here, there = await open_tier(server.url), await open_tier(server.url)
    items = [item_of(1, 100), item_of(2, 200 * KIB)]
    assert all(await here.put(items))
    for key in server("KEYS", "*"):
        server("EXPIRE", key, 77)
    assert all([*await here.put(items), *await there.put(items)])
    assert {server("TTL", key) for key in server("KEYS", "*")} <= {76, 77}, "nothing was written"
    assert (here.present, there.present, there.stats().write.count) == (2, 2, 0)


async def test_a_block_that_replaces_another_leaves_nothing_of_it(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    tier = await open_tier(server.url)
    for seed, size in ((1, 300 * KIB), (2, 200 * KIB), (3, 100), (4, 64 * KIB + 1), (5, 0)):
        item = item_of(seed, size, key=b"k")
        assert all(await tier.put([item]))
        assert await read(tier, item) is True
        assert len(server("KEYS", "*")) == 1 + (-(-size // (64 * KIB)) if size > 64 * KIB else 0)
        assert tier.stats().blocks == 1
        assert tier.stats().bytes == size
    assert await tier.delete([Held(item.meta, place_of(item.meta))]) == [True]
    assert server("DBSIZE") == 0


@pytest.mark.parametrize(("ours", "theirs"), [(4 * KIB, 256 * KIB), (256 * KIB, 4 * KIB)])
async def test_nodes_with_other_chunks_read_each_other(rigs: Rigs, open_tier: Open, ours: int, theirs: int) -> None:
    server = rigs.redis()
    here, there = await open_tier(server.url, chunk_bytes=ours), await open_tier(server.url, chunk_bytes=theirs)
    item = item_of(1, 100 * KIB)
    assert all(await here.put([item]))
    assert await read(there, item) is True
    assert all(await there.put([item_of(2, 100 * KIB, key=item.meta.key)]))
    assert await read(here, item_of(2, 100 * KIB, key=item.meta.key)) is True


@pytest.mark.parametrize("size", [1000, 320 * KIB])
async def test_compressed(rigs: Rigs, open_tier: Open, size: int) -> None:
    server = rigs.redis()
    here, there = await open_tier(server.url, Packer("zstd")), await open_tier(server.url)
    meta = item_of(1, 1).meta._replace(size=size)
    meta = meta._replace(checksum=here.packer.checksum(memoryview(PLAIN[:size])))
    item = Put(meta, memoryview(PLAIN[:size]))
    noise = item_of(2, size)
    assert all(await here.put([item, noise]))
    assert [await read(there, each) for each in (item, noise)] == [True, True]
    stored = {server("STRLEN", key) for key in server("KEYS", b"*%b*" % digest(meta).encode())}
    assert sum(stored) < size


async def test_names_of_all_kinds(rigs: Rigs, open_tier: Open) -> None:
    tier = await open_tier(rigs.redis().url)
    odd = [b"\x00", b"'\";DROP TABLE", b"{a}{b}", b"*?[a]", b"\r\n$5\r\n", b"x" * 10_240, b"\xff\xfe", b""]
    items = [item_of(seed, 100 * KIB, key=key, salt=key[:50]) for seed, key in enumerate(odd)]
    assert all(await tier.put(items))
    assert [await read(tier, item) for item in items] == [True] * len(odd)
    found = [held.meta async for some in tier.scan() for held in some]
    assert sorted(found) == sorted(item.meta for item in items)
    huge = item_of(99, 10, key=b"k" * 70_000)
    assert await tier.put([huge]) == [None]
    assert await tier.find([name_of(huge.meta)]) == [None]


async def test_foreign_keys_are_left_alone(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    tier = await open_tier(server.url)
    item = item_of(1, 100)
    key = f"zeekdb:{{{digest(item.meta)}}}"
    for words in (("SET", "other", "1"), ("LPUSH", key, "1"), ("SET", f"zeekdb:{{{'0' * 32}}}", "junk")):
        server(*words)
    assert [held async for some in tier.scan() for held in some] == []
    assert await read(tier, item) is False
    assert await tier.find([name_of(item.meta), Name(b"", b"", b"")]) == [None, None]
    assert tier.guard.state == "closed"
    assert all(await tier.put([item]))
    assert await read(tier, item) is True
    assert server("GET", "other") == b"1"


async def test_limits_of_size(rigs: Rigs, open_tier: Open) -> None:
    tier = await open_tier(rigs.redis().url, least=10, most=1000)
    items = [item_of(size, size) for size in (9, 10, 1000, 1001)]
    assert [place is not None for place in await tier.put(items)] == [False, True, True, False]


async def test_bytes_on_their_way_are_bounded(
    rigs: Rigs, open_tier: Open, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(warm_module, "FLYING_BYTES", 1 << 20)
    monkeypatch.setattr(warm_module, "BATCH_BYTES", 256 * KIB)
    tier = await open_tier(rigs.redis().url)
    most = 0
    ask = tier.client.ask

    async def watched(commands):  # type: ignore[no-untyped-def]
        nonlocal most
        most = max(most, tier.stats().queue_bytes)
        return await ask(commands)

    monkeypatch.setattr(tier.client, "ask", watched)
    items = [item_of(seed, 100 * KIB) for seed in range(60)]
    assert all(await tier.put(items))
    gets = [get_of(item.meta) for item in items]
    assert await tier.get(gets) == [True] * 60
    assert [bytes(get.into) for get in gets] == [bytes(item.data) for item in items]
    assert 512 * KIB < most <= 1 << 20


# ---- kinds of connection -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("shape", ["redis", "sentinel", "cluster", "zeekdb"])
async def test_both_protocols(rigs: Rigs, open_tier: Open, shape: str, protocol: int) -> None:
    urls = {
        "redis": lambda: rigs.redis().url,
        "sentinel": lambda: sentinel_url(rigs.sentinels()),
        "cluster": lambda: cluster_url(rigs.cluster()),
        "zeekdb": lambda: f"redis://127.0.0.1:{rigs.zeekdb().port}",
    }
    tier = await open_tier(f"{urls[shape]()}?protocol={protocol}")
    items = [item_of(seed, size) for seed, size in enumerate((0, 100, 70 * KIB, 1 << 20))]
    assert all(await tier.put(items))
    assert [await read(tier, item) for item in items] == [True] * 4
    assert len([held async for some in tier.scan() for held in some]) == 4
    async with tier.loading([name_of(items[0].meta)]) as mine:
        assert mine == [True]


async def test_a_unix_socket_and_a_database(open_tier: Open) -> None:
    with redis(unix=True, password="a:b@c/d#e") as server:
        url = f"unix://:a%3Ab%40c%2Fd%23e@{server.unix}?db=3"
        tier = await open_tier(url)
        assert all(await tier.put([item_of(1, 100)]))
        assert "a:b@c" not in f"{tier.client.address!r} {tier.client.address} {redacted(url)}"
        assert "db3:keys=1" in server("INFO", "keyspace").decode()


async def test_a_user_of_its_own(open_tier: Open) -> None:
    """With the permissions that docs/KV.md names."""
    page = (ROOT / "docs" / "KV.md").read_text()
    rules = page.partition("A user needs `")[2].partition(", and for Sentinel")[0].replace("`", " ").replace(",", " ")
    with redis() as server:
        assert server("ACL", "SETUSER", "kv", "on", ">p%w", *(word for word in rules.split() if word != "and")) == "OK"
        tier = await open_tier(f"redis://kv:p%25w@127.0.0.1:{server.port}")
        item = item_of(1, 100 * KIB)
        assert all(await tier.put([item]))
        tier.listen(lambda event: None)
        await wait_until(lambda: tier.channel.is_connected)
        assert await read(tier, item) is True
        assert [held.meta async for some in tier.scan() for held in some] == [item.meta]
        async with tier.loading([name_of(item.meta)]) as mine:
            assert mine == [True]
        assert server("KEYS", "*lock*") == []
        assert await tier.delete([Held(item.meta, 0)]) == [True]
        await wait_until(lambda: tier.channel.sent == 2)
        denied = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in server("ACL", "LOG")]
        assert [entry for entry in denied if not entry[b"object"].startswith(b"client")] == []  # who the client is


async def test_tls(rigs: Rigs, open_tier: Open) -> None:
    files: Certificates = rigs.certificates()
    with redis(tls=files) as server:
        tier = await open_tier(f"{server.url}?ssl_ca_certs={files.authority}")
        item = item_of(1, 1 << 20)
        assert all(await tier.put([item]))
        assert await read(tier, item) is True
        stranger = await open_tier(server.url)
        assert await stranger.put([item]) == [None]
        assert "certificate" in stranger.stats().error.lower()


async def test_more_callers_than_connections(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    tier = await open_tier(server.url, pool=2)
    items = [item_of(seed, 1000) for seed in range(50)]
    assert all(place is not None for (place,) in await asyncio.gather(*(tier.put([item]) for item in items)))
    assert await asyncio.gather(*(read(tier, item) for item in items)) == [True] * 50
    clients = server("CLIENT", "LIST", "TYPE", "normal").decode().splitlines()
    assert len(clients) <= 2 + 1  # and this one


async def test_a_slot_that_moves(rigs: Rigs, open_tier: Open) -> None:
    """ASK while keys move, MOVED when they have."""
    cluster = rigs.cluster()
    tier = await open_tier(cluster_url(cluster))
    item, fresh = item_of(1, 200 * KIB), item_of(2, 100)
    assert all(await tier.put([item]))
    slot = tier.client.driver.slot(tier.keys.block(digest(item.meta)))
    ids = [node("CLUSTER", "MYID").decode() for node in cluster.nodes]
    source = next(at for at, node in enumerate(cluster.nodes) if node("CLUSTER", "COUNTKEYSINSLOT", slot))
    target = (source + 1) % 3
    old, new = cluster.nodes[source], cluster.nodes[target]
    try:
        assert new("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source]) == "OK"
        assert old("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target]) == "OK"
        assert await read(tier, item) is True
        for key in old("CLUSTER", "GETKEYSINSLOT", slot, 100):
            assert old("MIGRATE", "127.0.0.1", new.port, key, 0, 5000) == "OK"
        assert await read(tier, item) is True, "ASK"
        assert await tier.contains([Held(item.meta, 0)]) == [True]
        for node in (new, old, cluster.nodes[(source + 2) % 3]):
            assert node("CLUSTER", "SETSLOT", slot, "NODE", ids[target]) == "OK"
        assert await read(tier, item) is True, "MOVED"
        assert all(await tier.put([fresh]))
        assert tier.stats().more["failures"] == 0
        assert await tier.delete([Held(item.meta, 0)]) == [True]
    finally:
        for node in cluster.nodes:
            node("CLUSTER", "SETSLOT", slot, "STABLE")
            node("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        assert await tier.delete([Held(item.meta, 0), Held(fresh.meta, 0)]) == [True, True]
        for node in (old, new, cluster.nodes[(source + 2) % 3]):  # and back, for the tests to come
            node("CLUSTER", "SETSLOT", slot, "NODE", ids[source])
