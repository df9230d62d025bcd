"""Versions, counts of accesses, and names of every kind."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.postgres import traffic
from tests.postgres.conftest import Connect
from tests.postgres.traffic import NASTY, NOW, Block
from zeekdb.tiers.postgres import reports
from zeekdb.tiers.tier import Name

UPSERT = """
    INSERT INTO zeekdb.kv_cache_metadata AS m (digest, size, checksum, model, key, changed_by, change_reason)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (digest) DO UPDATE SET size = EXCLUDED.size, checksum = EXCLUDED.checksum,
        changed_by = EXCLUDED.changed_by, change_reason = EXCLUDED.change_reason
    RETURNING version, parent_version
"""
DIGEST = bytes(range(16))


async def put(
    connection: Any, checksum: int, who: str = "ada", why: str = "", digest: bytes = DIGEST
) -> tuple[int, Any]:
    """(version, parent version)."""
    row = await connection.fetchrow(UPSERT, digest, 100 + checksum % 50, checksum, b"m", b"k", who, why)
    return row["version"], row["parent_version"]


async def history(connection: Any, digest: bytes = DIGEST) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in await connection.fetch(
            "SELECT version, checksum, who, why, parent_version FROM zeekdb.kv_cache_versions WHERE digest = $1 "
            "ORDER BY version", digest,
        )
    ]  # fmt: skip


async def test_a_version_for_each_overwrite(owner: Any) -> None:
    assert await put(owner, 10) == (1, None)
    assert await history(owner) == []
    assert await put(owner, 11, "bob", "better") == (2, 1)
    assert await put(owner, 11, "bob", "the same bytes again") == (2, 1)
    assert await put(owner, -12, "it's", 'a "why"; --') == (3, 2)
    assert await history(owner) == [(1, 10, "bob", "better", None), (2, 11, "it's", 'a "why"; --', 1)]
    row = await owner.fetchrow("SELECT * FROM zeekdb.kv_cache_versions WHERE version = 2")
    assert (row["size"], row["model"], row["key"], row["snapshot"]) == (111, b"m", b"k", None)
    assert row["stored_at"] <= row["at"]


async def test_numbers_go_on_after_a_block_was_gone(owner: Any) -> None:
    for checksum in range(3):
        await put(owner, checksum)
    await owner.execute("DELETE FROM zeekdb.kv_cache_metadata")
    assert len(await history(owner)) == 2
    assert await put(owner, 9) == (3, 2)
    assert await put(owner, 10) == (4, 3)
    assert [row[0] for row in await history(owner)] == [1, 2, 3]


@pytest.mark.parametrize(("kept", "left"), [("3", [6, 7, 8]), ("0", []), ("", [1, 2, 3, 4, 5, 6, 7, 8])])
async def test_as_many_as_wanted_are_kept(owner: Any, kept: str, left: list[int]) -> None:
    await owner.execute("SELECT set_config('zeekdb.versions', $1, false)", kept)
    for checksum in range(9):
        await put(owner, checksum)
    assert [row[0] for row in await history(owner)] == left


async def test_overwrites_at_once_are_all_there(connect: Connect, database: str) -> None:
    connections = [await connect(database) for _ in range(5)]
    await put(connections[0], 0)

    async def overwrite(number: int) -> None:
        for step in range(1, 6):
            await put(connections[number], number * 100 + step, f"n{number}")

    for connection in connections:
        await connection.execute("SET zeekdb.versions = 100")
    await asyncio.gather(*(overwrite(number) for number in range(5)))
    rows = await history(connections[0])
    assert [row[0] for row in rows] == list(range(1, 26))
    assert [row[4] for row in rows] == [None, *range(1, 25)]
    assert len({row[1] for row in rows}) == 25  # each of the 26 contents but the last


async def updates(connection: Any) -> tuple[int, int]:
    """(all, HOT) of the metadata so far."""
    if connection.get_server_version().major >= 15:
        await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    row = await connection.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'kv_cache_metadata'"
    )
    return row[0], row[1]


async def test_an_access_writes_no_index_and_no_version(owner: Any) -> None:
    """HOT updates: what is looked at all the time must not make the indexes grow."""
    dice = random.Random(1)
    blocks = traffic.make_blocks(dice, 2000, (b"m",))
    for block in blocks:
        block.access_count = 1000  # heat changes at 1024 next
    await traffic.store_blocks(owner, blocks)
    digests = [block.digest for block in blocks]
    before = await updates(owner)
    for _ in range(20):
        some = dice.sample(digests, 100)
        assert await owner.fetchval(
            "SELECT zeekdb.update_cache_access($1, $2, $3)", some, [1] * 100, [datetime.now(UTC)] * 100
        ) == 100  # fmt: skip
    after = await updates(owner)
    assert after[0] - before[0] == 2000 and after[1] - before[1] >= 1900
    assert await owner.fetchval("SELECT count(*) FROM zeekdb.kv_cache_versions") == 0


async def test_accesses_are_counted(connect: Connect, database: str) -> None:
    first, second = await connect(database), await connect(database)
    blocks = traffic.make_blocks(random.Random(2), 40, (b"m",))
    for block in blocks:
        block.access_count = 0
    await traffic.store_blocks(first, blocks)
    digests = [block.digest for block in blocks]
    later = NOW + timedelta(hours=1)
    backwards = digests[::-1]

    async def count(connection: Any, order: list[bytes]) -> None:  # in opposite orders: they would deadlock
        for _ in range(20):
            await connection.fetchval(
                "SELECT zeekdb.update_cache_access($1, $2, $3)", [*order, order[0], b"\0" * 16], [2] * 42,
                [later] * 41 + [NOW],
            )  # fmt: skip

    await asyncio.gather(count(first, digests), count(second, backwards))
    rows = await first.fetch("SELECT digest, access_count, accessed_at, heat FROM zeekdb.kv_cache_metadata")
    twice = {digests[0], backwards[0]}
    for row in rows:
        assert row["access_count"] == (120 if row["digest"] in twice else 80)
        assert row["heat"] == row["access_count"].bit_length()
        assert row["accessed_at"] == max(later, next(b.created for b in blocks if b.digest == row["digest"]))
    assert await first.fetchval("SELECT zeekdb.update_cache_access($1::bytea)", digests[1]) is True
    assert await first.fetchval("SELECT zeekdb.update_cache_access($1::bytea)", b"\1" * 16) is False


async def test_heat_is_the_number_of_bits(owner: Any) -> None:
    counts = [0, 1, 2, 3, 4, 7, 8, 10, 11, 15, 16, *(2**n + d for n in (20, 31, 52, 62) for d in (-1, 0, 1))]
    await owner.executemany(
        "INSERT INTO zeekdb.kv_cache_metadata (digest, size, checksum, model, key, access_count) "
        "VALUES ($1, 1, 1, '', '', $2)",
        [(number.to_bytes(16, "big"), count) for number, count in enumerate(counts)],
    )
    rows = await owner.fetch("SELECT access_count, heat FROM zeekdb.kv_cache_metadata")
    assert sorted((row[0], row[1]) for row in rows) == sorted((count, count.bit_length()) for count in counts)
    assert await owner.fetchval("SELECT count(*) FROM zeekdb.hot_cache_entries") == sum(c > 10 for c in counts)


async def test_names_of_every_kind(owner: Any) -> None:
    """Stored, found, and nothing that they say is done; a key of 16 KiB has room."""
    dice = random.Random(4)
    made = []
    for model in NASTY:
        for salt in (b"", *dice.sample(NASTY, 2)):
            name = Name(model, salt, dice.choice((b"k" * 16_384, *NASTY)))
            first = dice.randrange(100)
            made.append(Block(name, dice.getrandbits(63), 5, 0, 0, NOW, tokens=(first, first + 5), layer=(0, 1),
                              sequence=dice.choice(NASTY) or b"s"))  # fmt: skip
    made = list({block.digest: block for block in made}.values())
    await traffic.store_blocks(owner, made)
    await owner.execute("UPDATE zeekdb.kv_cache_metadata SET checksum = checksum - 1, changed_by = 'it''s'")
    for block in made:
        entries = await reports.entries(owner, block.name.model)
        assert block.digest in {entry.digest for entry in entries}
        assert {entry.model for entry in entries} == {block.name.model}
        found = await reports.token_range(owner, block.name.model, block.sequence, 0, *block.tokens)
        assert [block.name] == [(e.model, e.salt, e.key) for e in found if e.digest == block.digest]
        version = await owner.fetchrow("SELECT * FROM zeekdb.kv_cache_versions WHERE digest = $1", block.digest)
        assert (version["model"], version["salt"], version["key"]) == block.name
    assert await owner.fetchval("SELECT count(*) FROM zeekdb.kv_cache_metadata") == len(made)


async def test_digests_have_their_size(owner: Any) -> None:
    with pytest.raises(Exception, match="kv_cache_metadata_digest_check"):
        await put(owner, 1, digest=b"short")
