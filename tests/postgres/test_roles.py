"""Who sees and changes what, tried by logging in as them."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.postgres import traffic
from tests.postgres.conftest import Connect, asyncpg
from tests.rigs.postgres import Postgres
from zeekdb.tiers.postgres import reports

MODEL, SALT = b"it's \x00 a:model", b"acme's"
TENANTS = ((MODEL, SALT), (MODEL, b""), (b"other", SALT), (b"other", b""))
ROWS = ("kv_cache_metadata", "kv_cache_versions", "kv_cache_access_log", "kv_cache_shared", "kv_cache_blobs")


@pytest.fixture
async def filled(server: Postgres, database: str, owner: Any) -> str:
    """The database with five rows for each tenant in each table, and logins of all kinds in the server."""
    dice = random.Random(1)
    blocks = traffic.make_blocks(dice, 20, (b"any",))
    for number, block in enumerate(blocks):
        model, salt = TENANTS[number % 4]
        block.name = block.name._replace(model=model, salt=salt)
        block.access_count, block.levels, block.created = 20, ("warm",), datetime.now(UTC)
    await traffic.store_blocks(owner, blocks)
    await traffic.store_accesses(
        owner, [traffic.Access(datetime.now(UTC), block, "read", "host", True, 5, 1) for block in blocks]
    )
    await owner.execute(
        """
        UPDATE zeekdb.kv_cache_metadata SET checksum = checksum - 1;
        INSERT INTO zeekdb.kv_cache_shared (digest, node, model, salt)
            SELECT digest, 'n', model, salt FROM zeekdb.kv_cache_metadata;
        INSERT INTO zeekdb.kv_cache_blobs (digest, checksum, size, model, salt, header, payload)
            SELECT digest, 1, 1, model, salt, 'h', 'p' FROM zeekdb.kv_cache_metadata;
        SELECT zeekdb.aggregate_cache_stats('minute', now() - interval '10 min', now());
        SELECT zeekdb.refresh_popular_entries();
        """
    )
    server.sql(
        """
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'a_reader') THEN
                CREATE ROLE a_reader LOGIN IN ROLE zeekdb_reader; CREATE ROLE a_writer LOGIN IN ROLE zeekdb_writer;
                CREATE ROLE a_tenant LOGIN IN ROLE zeekdb_tenant; CREATE ROLE a_stranger LOGIN;
            END IF;
        END $$
        """
    )
    await owner.execute("INSERT INTO zeekdb.kv_cache_tenants VALUES ('a_tenant', $1, $2)", MODEL, SALT)
    return database


async def counts(connection: Any, *relations: str) -> list[int]:
    return [await connection.fetchval(f"SELECT count(*) FROM zeekdb.{name}") for name in relations]


async def refused(connection: Any, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_a_reader(connect: Connect, filled: str) -> None:
    reader = await connect(filled, "a_reader")
    assert await counts(reader, *ROWS) == [20] * 5
    assert await counts(reader, "kv_cache_stats", "hot_cache_entries", "recent_cache_entries") == [2, 20, 20]
    assert {each.model for each in await reports.savings(reader)} <= {MODEL, b"other"}
    await refused(
        reader,
        "DELETE FROM zeekdb.kv_cache_blobs",
        "UPDATE zeekdb.kv_cache_metadata SET access_count = 1",
        "INSERT INTO zeekdb.kv_cache_shared (digest, node, model) VALUES ('0123456789abcdef', '', '')",
        "SELECT zeekdb.update_cache_access(digest) FROM zeekdb.kv_cache_metadata",
        "SELECT zeekdb.ensure_log_partitions('2030-01-01', '2030-01-01')",
        "SELECT zeekdb.cleanup_old_access_logs(1)",
        "SELECT zeekdb.refresh_popular_entries()",
        "SELECT zeekdb.grant_roles()",
        "SELECT * FROM zeekdb.popular_entries",
        "SELECT * FROM zeekdb.kv_cache_tenants",
        "SELECT * FROM zeekdb.kv_cache_access_log_rest",
        f"SELECT * FROM zeekdb.kv_cache_access_log_{datetime.now(UTC):%Y%m%d}",
        "CREATE TABLE zeekdb.mine ()",
        "DROP TABLE zeekdb.kv_cache_blobs",
    )


@pytest.mark.parametrize("tenant", TENANTS)
async def test_a_reader_for_one_tenant(connect: Connect, filled: str, tenant: tuple[bytes, bytes]) -> None:
    reader = await connect(filled, "a_reader")
    await reader.execute("SELECT set_config('zeekdb.tenant', zeekdb.tenant($1, $2), false)", *tenant)
    assert await counts(reader, *ROWS) == [5] * 5
    for relation in (*ROWS, "hot_cache_entries", "recent_cache_entries"):
        rows = await reader.fetch(f"SELECT DISTINCT model, salt FROM zeekdb.{relation}")
        assert [tuple(row) for row in rows] == [tenant]
    assert await counts(reader, "kv_cache_stats", "cache_stats_summary") == [0, 0]  # they are sums over tenants
    await reader.execute("SELECT set_config('zeekdb.tenant', zeekdb.tenant('nobody', ''), false)")
    assert await counts(reader, *ROWS, "hot_cache_entries") == [0] * 6
    await reader.execute("SET zeekdb.tenant = 'neither hex nor anything'")
    assert await counts(reader, *ROWS, "hot_cache_entries") == [0] * 6
    await reader.execute("RESET zeekdb.tenant")
    assert await counts(reader, *ROWS) == [20] * 5


async def test_a_tenant_cannot_get_out(connect: Connect, filled: str, owner: Any) -> None:
    tenant = await connect(filled, "a_tenant")
    assert await counts(tenant, *ROWS) == [5] * 5
    for setting in ("", "x", MODEL.hex() + ":", b"other".hex() + ":" + SALT.hex()):
        await tenant.execute("SELECT set_config('zeekdb.tenant', $1, false)", setting)
        assert await counts(tenant, *ROWS) == [5] * 5
        rows = await tenant.fetch("SELECT DISTINCT model, salt FROM zeekdb.kv_cache_metadata")
        assert [tuple(row) for row in rows] == [(MODEL, SALT)]
    await refused(
        tenant,
        "SELECT * FROM zeekdb.kv_cache_stats",
        "SELECT * FROM zeekdb.cache_stats_summary",
        "SELECT * FROM zeekdb.hot_cache_entries",
        "SELECT * FROM zeekdb.popular_entries",
        "INSERT INTO zeekdb.kv_cache_tenants VALUES ('a_tenant', 'other', '')",
        "DELETE FROM zeekdb.kv_cache_metadata",
        "SET ROLE a_reader",
        "SET ROLE zeekdb_writer",
        "SET row_security = off; SELECT * FROM zeekdb.kv_cache_blobs",
    )
    await owner.execute("INSERT INTO zeekdb.kv_cache_tenants VALUES ('someone', 'other', '')")
    assert await counts(tenant, "kv_cache_tenants") == [1]
    await tenant.execute("SET ROLE zeekdb_tenant")  # the group has no tenant of its own
    assert await counts(tenant, *ROWS) == [0] * 5


async def test_a_stranger(connect: Connect, filled: str) -> None:
    stranger = await connect(filled, "a_stranger")
    await refused(
        stranger,
        *(f"SELECT * FROM zeekdb.{name}" for name in (*ROWS, "kv_cache_stats", "popular_entries", "schema_migrations")),
        "SELECT zeekdb.refresh_popular_entries()",
        "SELECT zeekdb.may_see('', '')",
    )


async def test_a_writer_does_what_a_server_needs(connect: Connect, filled: str) -> None:
    writer = await connect(filled, "a_writer")
    assert await counts(writer, *ROWS) == [20] * 5
    for checksum in (1, 2):
        await writer.execute(
            "INSERT INTO zeekdb.kv_cache_metadata (digest, size, checksum, model, key) "
            "VALUES ('0123456789abcdef', 1, $1, 'new', '') "
            "ON CONFLICT (digest) DO UPDATE SET checksum = EXCLUDED.checksum", checksum,
        )  # fmt: skip
    assert await counts(writer, "kv_cache_versions") == [21]
    assert await writer.fetchval("SELECT zeekdb.update_cache_access('0123456789abcdef'::bytea)")
    await writer.execute(
        "INSERT INTO zeekdb.kv_cache_access_log (latency_us, hit, digest, access_type, tier, model) "
        "VALUES (1, true, '', 'read', 'host', 'new')"
    )
    assert await writer.fetchval("SELECT zeekdb.aggregate_cache_stats('hour', now(), now() + interval '1 s')") >= 1
    assert await writer.fetchval("SELECT zeekdb.ensure_log_partitions('2031-01-01', '2031-01-03')") == 3
    assert await writer.fetchval("SELECT zeekdb.cleanup_old_access_logs(1, '2026-11-01')") == 0
    await writer.execute("SELECT zeekdb.refresh_popular_entries()")
    assert await counts(writer, "popular_entries") == [20]
    await writer.execute("DELETE FROM zeekdb.kv_cache_blobs; DELETE FROM zeekdb.kv_cache_upkeep")
    assert await counts(writer, "kv_cache_blobs") == [0]
    await refused(
        writer,
        "DROP TABLE zeekdb.kv_cache_blobs",
        "TRUNCATE zeekdb.kv_cache_metadata",
        "UPDATE zeekdb.schema_migrations SET number = 0",
        "INSERT INTO zeekdb.kv_cache_tenants VALUES ('a_writer', '', '')",
        "SELECT zeekdb.grant_roles()",
    )


async def test_grants_are_the_same_when_repeated(owner: Any) -> None:
    query = "SELECT * FROM pg_policies WHERE schemaname = 'zeekdb' ORDER BY tablename, policyname"
    before = await owner.fetch(query)
    await owner.execute("SELECT zeekdb.grant_roles()")
    assert await owner.fetch(query) == before
    assert len(before) >= 5 * 3


async def test_functions_have_a_fixed_path(owner: Any) -> None:
    """A function that looks names up where its caller says could be made to run the caller's own."""
    rows = await owner.fetch(
        "SELECT proname, prosecdef, proconfig, prosqlbody IS NOT NULL AS bound FROM pg_proc "
        "WHERE pronamespace = 'zeekdb'::regnamespace"
    )
    assert len(rows) > 15
    for row in rows:
        paths = [each for each in row["proconfig"] or () if each.startswith("search_path=")]
        assert row["bound"] or paths == ["search_path=pg_catalog, pg_temp"], row["proname"]
        assert not row["prosecdef"] or paths, row["proname"]
