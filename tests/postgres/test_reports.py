"""The documents' questions on generated traffic, each answer computed again in Python."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from datetime import timedelta
from typing import Any

import pytest

from tests.postgres import traffic
from tests.postgres.traffic import NASTY, NOW, Access, Block, percentile
from tests.rigs.postgres import Postgres
from zeekdb.cli import main
from zeekdb.tiers.postgres import reports

MODELS = (b"llama-3-70b", b"qwen", *NASTY)
HOUR = timedelta(hours=1)


class World:
    """What is in the database."""

    def __init__(self, seed: int) -> None:
        dice = random.Random(seed)
        self.blocks: list[Block] = traffic.make_blocks(dice, 1500, MODELS)
        self.accesses: list[Access] = traffic.make_accesses(dice, 6000, self.blocks)
        self.now = NOW.timestamp()

    def of_last_hour(self) -> list[Access]:
        return [each for each in self.accesses if NOW - HOUR < each.at <= NOW]


@pytest.fixture
async def world(owner: Any) -> World:
    """Generated traffic, in the database; another seed for each server."""
    made = World(seed=owner.get_server_version().major)
    await traffic.store_blocks(owner, made.blocks)
    await traffic.store_accesses(owner, made.accesses)
    return made


async def test_entries_of_a_model(owner: Any, world: World) -> None:
    for model in MODELS:
        mine = [block for block in world.blocks if block.name.model == model]
        mine.sort(key=lambda block: (-block.created.timestamp(), block.digest))
        found = await reports.entries(owner, model, limit=10_000)
        assert [each.digest for each in found] == [b.digest for b in mine]
        pages, before = [], None
        while page := await reports.entries(owner, model, limit=37, before=before):
            pages += page
            before = (page[-1].created_at, page[-1].digest)
        assert pages == found
        for entry, block in zip(found, mine, strict=True):
            assert (entry.model, entry.salt, entry.key) == block.name
            assert (entry.size, entry.stored_size, entry.levels) == (block.size, block.stored_size, block.levels)
            assert (entry.layer_from, entry.layer_to, entry.token_from, entry.token_to) == (*block.layer, *block.tokens)
            assert entry.metadata == block.metadata and entry.created_at == block.created.timestamp()
            if block.stored_size:
                assert entry.ratio == pytest.approx((block.plain_size or block.size) / block.stored_size, rel=1e-6)
            else:
                assert entry.ratio is None


async def test_hot_entries(owner: Any, world: World) -> None:
    hot = [b for b in world.blocks if b.access_count > 10]
    found = await reports.hot_entries(owner, limit=10_000)
    assert {each.digest for each in found} == {b.digest for b in hot}
    assert [each.access_count for each in found] == sorted((b.access_count for b in hot), reverse=True)
    top = await reports.hot_entries(owner, limit=5)
    assert [each.access_count for each in top] == [each.access_count for each in found[:5]]
    assert min(each.access_count for each in found) == 11, "the seed has a block at the border"


async def test_token_ranges(owner: Any, world: World) -> None:
    dice = random.Random(7)
    seen = 0
    for _ in range(150):
        some = dice.choice(world.blocks)
        first = max(some.tokens[0] + dice.randrange(-600, 600), 0)
        last = first + dice.choice((1, 256, 257, 5000))
        model, sequence, layer = some.name.model, some.sequence or b"seq-0", some.layer[0] + dice.randrange(0, 5)
        expected = {
            b.digest
            for b in world.blocks
            if (b.name.model, b.sequence) == (model, sequence)
            and b.layer[0] <= layer < b.layer[1]
            and b.tokens[0] < last
            and b.tokens[1] > first
        }
        found = await reports.token_range(owner, model, sequence, layer, first, last)
        assert {each.digest for each in found} == expected
        assert [each.token_from for each in found] == sorted(each.token_from for each in found)
        seen += len(expected)
    assert seen > 50


async def test_recent_entries(owner: Any, world: World) -> None:
    await owner.execute("UPDATE zeekdb.kv_cache_metadata SET created_at = created_at + (now() - $1)", NOW)
    found = await reports.recent_entries(owner, limit=10_000)
    recent = sorted((b for b in world.blocks if b.created > NOW - timedelta(days=1)), key=lambda b: b.created)
    border = timedelta(seconds=30)  # the clock goes on while the test runs
    sure = [b.digest for b in recent if b.created > NOW - timedelta(days=1) + border]
    assert [each.digest for each in found][: len(sure)] == sure[::-1]
    assert len(sure) <= len(found) <= len(recent)


async def test_metadata(owner: Any, world: World) -> None:
    wanted = {"topic": "law", "user": {"id": 3}}
    found = await reports.with_metadata(owner, wanted, limit=10_000)
    assert {each.digest for each in found} == {b.digest for b in world.blocks if b.metadata == wanted}


async def test_hit_rate_of_models_in_the_last_hour(owner: Any, world: World) -> None:
    counted: dict[bytes, list[int]] = defaultdict(lambda: [0, 0])
    for access in world.of_last_hour():
        if access.kind in ("read", "lookup"):
            counted[access.block.name.model][0 if access.hit else 1] += 1
    found = await reports.hit_rates(owner, now=world.now)
    assert {each.model: [each.hits, each.misses] for each in found} == counted
    for each in found:
        assert each.rate == pytest.approx(each.hits / (each.hits + each.misses))
    assert await reports.hit_rates(owner, now=world.now + 10 * 86_400) == []


@pytest.mark.parametrize("over_ms", [10.0, 2.5, 100.0])
async def test_slow_tiers(owner: Any, world: World, over_ms: float) -> None:
    took: dict[str, list[int]] = defaultdict(list)
    for access in world.of_last_hour():
        took[access.tier].append(access.latency_us)
    slow = {tier: values for tier, values in took.items() if percentile(values, 0.95) > over_ms * 1000}
    found = await reports.slow_tiers(owner, now=world.now, over_ms=over_ms)
    assert {each.tier for each in found} == set(slow)
    assert [each.p95_us for each in found] == sorted((each.p95_us for each in found), reverse=True)
    for each in found:
        values = slow[each.tier]
        assert (each.accesses, each.max_us) == (len(values), max(values))
        assert each.slow == sum(value > over_ms * 1000 for value in values)
        assert each.mean_us == pytest.approx(sum(values) / len(values))
        assert [each.p50_us, each.p95_us, each.p99_us] == [percentile(values, share) for share in (0.5, 0.95, 0.99)]
    assert bool(slow) == (over_ms < 50)


@pytest.mark.parametrize("over_ms", [10.0, 3.0])
async def test_slow_accesses(owner: Any, world: World, over_ms: float) -> None:
    slow = [a for a in world.of_last_hour() if a.latency_us > over_ms * 1000]
    found = await reports.slow_accesses(owner, now=world.now, over_ms=over_ms, limit=10_000)
    assert [each.request_id for each in found] == [a.request for a in reversed(slow)]
    assert [each.model for each in found] == [a.block.name.model for a in reversed(slow)]
    assert slow


async def test_savings(owner: Any, world: World) -> None:
    plain: dict[bytes, int] = defaultdict(int)
    stored: dict[bytes, int] = defaultdict(int)
    blocks: dict[bytes, int] = defaultdict(int)
    for block in world.blocks:
        if block.stored_size:
            blocks[block.name.model] += 1
            plain[block.name.model] += block.plain_size or block.size
            stored[block.name.model] += block.stored_size
    found = await reports.savings(owner)
    assert {each.model: (each.blocks, each.plain_bytes, each.stored_bytes) for each in found} == {
        model: (blocks[model], plain[model], stored[model]) for model in blocks
    }
    for each in found:
        assert each.ratio == pytest.approx(plain[each.model] / stored[each.model])
        assert each.saved_mb == pytest.approx((plain[each.model] - stored[each.model]) / 1e6)
    assert [each.saved_mb for each in found] == sorted((each.saved_mb for each in found), reverse=True)


async def command(words: list[str]) -> int:
    """The exit status; in a thread, for the tool runs a loop of its own."""
    return await asyncio.to_thread(main, words)


async def test_the_command(
    owner: Any, world: World, server: Postgres, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.tcp_url(database)
    assert await command(["report", "hot", url, "--limit", "3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["digest"] for row in shown] == [each.digest.hex() for each in await reports.hot_entries(owner, limit=3)]
    assert await command(["report", "savings", url]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[:2] == ["MODEL", "BLOCKS"] and len(said) == 1 + len(await reports.savings(owner))
    assert "\x1b" not in "".join(said)
    words = ["--model", "qwen", "--sequence", "seq-1", "--layer", "4", "--range", "0-20000", "--json"]
    assert await command(["report", "tokens", url, *words]) == 0
    expected = await reports.token_range(owner, b"qwen", b"seq-1", 4, 0, 20_000)
    assert [row["digest"] for row in json.loads(capsys.readouterr().out)] == [each.digest.hex() for each in expected]
    for name in ("hits", "slow", "slowest", "recent", "minute", "hour", "day"):
        assert await command(["report", name, url]) == 0
    assert await command(["report", "tokens", url, "--model", "qwen"]) == 2
    assert await command(["report", "entries", url]) == 2
