"""Several nodes on one warm tier: who loads, who waits, and what they tell each other."""

from __future__ import annotations

import asyncio

import msgpack
import pytest

from tests.contract.region import wait_until
from tests.rigs.redis import cluster_url, redis, redis_cluster, sentinel_set, sentinel_url
from tests.rigs.shared import Rigs
from tests.support import DEADLINE_S
from tests.tiers.warm import KIB, Open, get_of, item_of, open_tier, read, until
from zeekdb.tiers import warm_channel as channel_module
from zeekdb.tiers import warm_locks as locks_module
from zeekdb.tiers.envelope import digest
from zeekdb.tiers.tier import Held, Meta, Name, Put, name_of, place_of
from zeekdb.tiers.warm import WarmTier
from zeekdb.tiers.warm_channel import Event

__all__ = ["open_tier"]


def url_of(rigs: Rigs, shape: str) -> str:
    if shape == "zeekdb":
        return f"redis://127.0.0.1:{rigs.zeekdb().port}"
    if shape == "sentinel":
        return sentinel_url(rigs.sentinels())
    return cluster_url(rigs.cluster()) if shape == "cluster" else rigs.redis().url


# ---- locks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["redis", "sentinel", "cluster", "zeekdb"])
async def test_twenty_who_want_one_block_cause_one_load(rigs: Rigs, open_tier: Open, shape: str) -> None:
    url = url_of(rigs, shape)
    tiers = [await open_tier(url), await open_tier(url)]
    item = item_of(1, 200 * KIB)
    loads: list[Put] = []
    loading, go_on = asyncio.Event(), asyncio.Event()

    async def want(tier: WarmTier) -> bool:
        if await read(tier, item):
            return True
        async with tier.loading([name_of(item.meta)]) as (is_mine,):
            if is_mine:
                loads.append(item)
                loading.set()
                await go_on.wait()
                assert all(await tier.put([item]))
                return True
            assert await tier.wait_for(name_of(item.meta), DEADLINE_S) == item.meta
        return bool(await read(tier, item))

    tasks = [asyncio.ensure_future(want(tiers[number % 2])) for number in range(20)]
    await loading.wait()
    await wait_until(lambda: sum(tier.locks.waited for tier in tiers) == 19)
    go_on.set()
    assert await asyncio.gather(*tasks) == [True] * 20
    assert len(loads) == 1
    assert sum(int(tier.stats().more["locks"]) for tier in tiers) == 1
    assert await tiers[0].delete([Held(item.meta, place_of(item.meta))]) == [True]


async def test_a_loader_that_gives_up_makes_room_for_the_next(
    rigs: Rigs, open_tier: Open, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(locks_module, "POLL_S", 1000.0)  # only the channel wakes
    monkeypatch.setattr(locks_module, "POLL_MAX_S", 1000.0)
    server = rigs.redis()
    here, there = await open_tier(server.url), await open_tier(server.url)
    name = name_of(item_of(1, 10).meta)
    there.listen(lambda event: None)
    await wait_until(lambda: there.channel.is_connected)

    async def give_up() -> asyncio.Future[Meta | None]:
        async with here.loading([name]) as mine:
            assert mine == [True]
            async with there.loading([name]) as theirs:
                assert theirs == [False]
            waiting = asyncio.ensure_future(there.wait_for(name, 1000))
            await wait_until(lambda: bool(there.locks._waiting))
            raise LookupError(waiting)

    with pytest.raises(LookupError) as caught:
        await give_up()
    assert await asyncio.wait_for(caught.value.args[0], DEADLINE_S) is None
    async with there.loading([name]) as theirs:
        assert theirs == [True]
    assert server("DBSIZE") == 0


async def test_waiting_without_a_channel(rigs: Rigs, open_tier: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """By asking now and then."""
    monkeypatch.setattr(channel_module.Channel, "listen", lambda self, listener=None: None)
    server = rigs.redis()
    here, there = await open_tier(server.url), await open_tier(server.url)
    item = item_of(1, 10)
    async with here.loading([name_of(item.meta)]) as mine:
        assert mine == [True]
        assert await there.wait_for(name_of(item.meta), 0.01) is None, "until then, not longer"
        waiting = asyncio.ensure_future(there.wait_for(name_of(item.meta), 1000))
        await wait_until(lambda: bool(there.locks._waiting))
        assert all(await here.put([item]))
        assert await asyncio.wait_for(waiting, DEADLINE_S) == item.meta


async def test_many_names_some_of_them_twice(rigs: Rigs, open_tier: Open) -> None:
    url = cluster_url(rigs.cluster())
    here, there = await open_tier(url), await open_tier(url)
    names = [Name(b"m", b"", b"%d" % number) for number in range(20)]
    async with here.loading(names[:10]) as mine, there.loading([*names, names[15]]) as theirs:
        assert mine == [True] * 10
        assert theirs == [False] * 10 + [True] * 10 + [False]
    async with there.loading(names) as theirs:
        assert theirs == [True] * 20, "given back"
    async with here.loading([]) as mine:
        assert mine == []


async def test_a_late_owner_does_not_give_away_anothers_lock(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    here, there = await open_tier(server.url), await open_tier(server.url)
    name = Name(b"m", b"", b"k")
    key = here.keys.lock(digest(name))
    async with here.loading([name], lease_s=0.001) as mine:
        assert mine == [True]
        await until(lambda: _is_gone(here, key), what="the lease is over")
        async with there.loading([name]) as theirs:
            assert theirs == [True]
            await here.locks._release([digest(name)], b"another token")
            assert 9000 < server("PTTL", key) <= 10_000
    assert server("EXISTS", key) == 0


async def _is_gone(tier: WarmTier, key: bytes) -> bool:
    return await tier.client.ask([(b"EXISTS", key)]) == [0]


async def test_without_a_server_everybody_loads(open_tier: Open) -> None:
    with redis() as server:
        tier = await open_tier(server.url)
        names = [Name(b"m", b"", b"k")]
        async with tier.loading(names) as mine:
            assert mine == [True]
            server.stop()
        async with tier.loading(names) as mine:
            assert mine == [True]
        assert await tier.wait_for(names[0], 1000) is None


# ---- the channel ---------------------------------------------------------------------------------------------------


async def ears(tier: WarmTier) -> list[Event]:
    """What the tier is told from now on."""
    heard: list[Event] = []
    tier.listen(heard.append)
    await wait_until(lambda: tier.channel.is_connected)
    return heard


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("shape", ["redis", "sentinel", "cluster", "zeekdb"])
async def test_others_hear_of_what_changed(rigs: Rigs, open_tier: Open, shape: str, protocol: int) -> None:
    url = f"{url_of(rigs, shape)}?protocol={protocol}"
    here, there = await open_tier(url), await open_tier(url)
    said, heard = await ears(here), await ears(there)
    old, new, long = item_of(1, 100, key=b"k"), item_of(2, 100 * KIB, key=b"k"), item_of(3, 10, key=b"l" * 5000)
    assert all(await here.put([old, long]))
    assert all(await here.put([old, new]))
    here.announce("stored", [long.meta])
    assert all(await here.delete([Held(new.meta, 0), Held(long.meta, 0)]))
    await wait_until(lambda: len(heard) == 4)
    sender = here.channel.sender.hex()
    assert heard == [
        Event("replaced", sender, digest(new.meta), new.meta.checksum, name_of(new.meta)),
        Event("stored", sender, digest(long.meta), long.meta.checksum, None),
        Event("removed", sender, digest(new.meta), new.meta.checksum, name_of(new.meta)),
        Event("removed", sender, digest(long.meta), long.meta.checksum, None),
    ]
    assert said == [], "not one's own words"
    assert there.stats().more["messages_received"] == here.stats().more["messages_sent"] == 3


async def test_a_lost_connection_is_a_gap(open_tier: Open) -> None:
    with redis() as server:
        here, there = await open_tier(server.url), await open_tier(server.url)
        heard = await ears(there)
        server("CLIENT", "KILL", "TYPE", "pubsub")
        await wait_until(lambda: len(heard) == 2)
        assert heard == [Event("gap", "")] * 2, "when it was lost, and for what was said until it was there again"
        assert there.channel.is_connected
        here.announce("removed", [item_of(1, 1).meta])
        await wait_until(lambda: len(heard) == 3)
        assert heard[2].kind == "removed"


async def test_a_server_that_says_nothing_is_a_gap(
    rigs: Rigs, open_tier: Open, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(channel_module, "PING_S", 0.05)
    proxy = rigs.proxy(rigs.redis().address)
    tier = await open_tier(f"redis://127.0.0.1:{proxy.port}", timeout_s=0.2)
    heard = await ears(tier)
    proxy.hang()
    await wait_until(lambda: bool(heard))
    assert heard == [Event("gap", "")]
    assert tier.stats().more["subscribed"] == 0
    proxy.passing()
    await wait_until(lambda: len(heard) == 2)
    assert heard == [Event("gap", "")] * 2
    assert tier.channel.is_connected


async def test_what_could_not_be_said_is_a_gap_for_all(open_tier: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "OUTBOX_MAX", 10)
    with redis() as server:
        here, there = await open_tier(server.url), await open_tier(server.url)
        heard = await ears(there)
        metas = [item_of(seed, 1).meta for seed in range(12)]
        here.announce("removed", metas)
        await wait_until(lambda: len(heard) == 11)
        assert [event.kind for event in heard] == ["gap"] + ["removed"] * 10
        assert heard[0].sender == here.channel.sender.hex()
        assert here.stats().more["messages_lost"] == 2


async def test_a_user_who_may_not_speak(open_tier: Open) -> None:
    with redis() as server:
        server("ACL", "SETUSER", "kv", "on", "nopass", "~*", "+@all", "resetchannels")
        tier = await open_tier(f"redis://kv@127.0.0.1:{server.port}")
        tier.listen(lambda event: None)
        tier.announce("removed", [item_of(seed, 1).meta for seed in range(3)])
        await wait_until(lambda: tier.stats().more["messages_lost"] == 3)
        assert (tier.stats().more["messages_sent"], tier.stats().more["subscribed"]) == (0, 0)
        assert all(await tier.put([item_of(1, 10)]))
        assert tier.guard.state == "closed"


async def test_a_receiver_that_cannot_keep_up(rigs: Rigs, open_tier: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    server = rigs.redis()
    here, there = await open_tier(server.url), await open_tier(server.url)
    heard = await ears(there)
    monkeypatch.setattr(channel_module, "INBOX_MAX", 10)
    here.announce("removed", [item_of(seed, 1).meta for seed in range(11)])
    await wait_until(lambda: bool(heard))
    assert heard == [Event("gap", "")]


async def test_strangers_on_the_channel(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    tier = await open_tier(server.url)
    heard = await ears(tier)
    stranger, entry = b"12345678", [bytes(16), 5, b"m", b"", b"k"]
    junk = [
        b"", b"\xc1", b"hello", msgpack.packb(5), msgpack.packb([]), msgpack.packb([2, stranger, 0, []]),
        msgpack.packb([1, b"short", 0, []]), msgpack.packb([1, stranger, 77, []]), msgpack.packb([1, stranger, -1, []]),
        msgpack.packb([1, stranger, 1, [entry[:1]]]), msgpack.packb([1, stranger, 1, [[b"short", 5]]]),
        msgpack.packb([1, stranger, 1, [[bytes(16), -5]]]), msgpack.packb([1, stranger, 1, [[*entry, b"more"]]]),
        msgpack.packb([1, stranger, 1, [[bytes(16), 5, "text", b"", b""]]]), msgpack.packb([1, stranger, 1, 7]),
        msgpack.packb([1, stranger, 1, [entry] * 129]), msgpack.packb([1, stranger, "removed", [entry]]),
        msgpack.packb([1, stranger, 1, [{"digest": 1}]]), bytes(1 << 20), b"\xdd\xff\xff\xff\xff",
    ]  # fmt: skip
    for message in junk:
        assert server("PUBLISH", tier.channel.topic, message) == 1
    assert server("PUBLISH", tier.channel.topic, msgpack.packb([1, stranger, 1, [entry]])) == 1
    await wait_until(lambda: bool(heard))
    assert heard == [Event("removed", stranger.hex(), "00" * 16, 5, Name(b"m", b"", b"k"))]
    assert tier.stats().more["messages_ignored"] == len(junk)


async def test_a_listener_that_fails_does_not_end_the_channel(rigs: Rigs, open_tier: Open) -> None:
    server = rigs.redis()
    here, there = await open_tier(server.url), await open_tier(server.url)
    there.listen(lambda event: 1 // 0)
    heard = await ears(there)
    for seed in range(2):
        here.announce("removed", [item_of(seed, 1).meta])
    await wait_until(lambda: len(heard) == 2)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["sentinel", "cluster"])
async def test_subscribers_survive_the_death_of_their_server(open_tier: Open, shape: str) -> None:
    with sentinel_set() if shape == "sentinel" else redis_cluster() as servers:
        url = sentinel_url(servers) if shape == "sentinel" else cluster_url(servers)
        here, there = await open_tier(url, timeout_s=0.5), await open_tier(url, timeout_s=0.5)
        heard = await ears(there)
        if shape == "sentinel":
            await asyncio.to_thread(servers.fail_over)
        else:
            for node in servers.nodes:
                if node("PUBSUB", "NUMSUB", there.channel.topic)[1]:
                    node.process.kill()
                    node.start()
        await wait_until(lambda: there.channel.gaps > 0 and there.channel.is_connected, 30)

        async def is_heard() -> bool:
            here.announce("removed", [item_of(1, 1).meta])
            return any(event.kind == "removed" for event in heard)

        await until(is_heard, 30)
        assert heard[0] == Event("gap", "")


async def test_a_block_that_was_replaced_elsewhere(rigs: Rigs, open_tier: Open) -> None:
    """What a node does with the news: what it knew is a miss, what there is is found."""
    server = rigs.redis()
    here, there = await open_tier(server.url), await open_tier(server.url)
    old, new = item_of(1, 100 * KIB, key=b"k"), item_of(2, 100, key=b"k")
    assert all([*await here.put([old]), *await there.put([new])])
    assert await here.get([get_of(old.meta)]) == [False]
    assert await here.find([name_of(old.meta)]) == [new.meta]
    assert await read(here, new) is True
