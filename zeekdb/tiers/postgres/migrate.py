"""Brings a database to the schema of this ZeekDB: plain SQL files, numbered, each in a transaction of its own.

    migrations/NNNN_name.up.sql     from NNNN - 1 to NNNN
    migrations/NNNN_name.down.sql   back

`zeekdb.schema_migrations` has what was applied, with SHA-256 of both files as they were then: a file that was edited
afterwards is an error that names it, for nobody could say what the database has. A change is a file of a new number.

Every step begins with a lock of the database's own (an advisory lock, held by the transaction), and looks what is
applied only then: of servers that start at once one applies and the others find it done. Because lock and step are one
transaction, a step is there with its entry or not at all, also through a pooler that hands out transactions. So no
step may hold what PostgreSQL refuses in a transaction (CREATE INDEX CONCURRENTLY), and none may be long: what changes
many rows is upkeep's, in bounded pieces.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from asyncpg import Connection

FOLDER: Final = Path(__file__).parent / "migrations"
FILE: Final = re.compile(r"(\d{4})_(\w+)\.(up|down)\.sql")
LOCK: Final = int.from_bytes(b"zeekdb", "big")  # the advisory lock's number, of this database
SERVER_MIN: Final = 140000  # PostgreSQL 14
WORLD: Final = ("08", "40", "53", "55", "57", "58")  # errors of these classes may be gone the next time
WAIT: Final = "10s"  # for a lock that a step needs: longer, and everybody else would queue behind it

TABLE: Final = """
CREATE SCHEMA IF NOT EXISTS zeekdb;
CREATE TABLE IF NOT EXISTS zeekdb.schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    up_sha256 text NOT NULL,
    down_sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text NOT NULL DEFAULT current_user,
    took_ms bigint NOT NULL DEFAULT 0
);
"""


class MigrationError(Exception):
    """The schema is not what it should be, or a step failed: the text names the file."""


class Migration(NamedTuple):
    """A step, as its files have it."""

    number: int
    name: str
    up: str
    down: str

    @property
    def sums(self) -> tuple[str, str]:
        """SHA-256 of both files."""
        return _sum(self.up), _sum(self.down)

    def file(self, direction: str = "up") -> str:
        """The name of one of its files."""
        return f"{self.number:04}_{self.name}.{direction}.sql"


class Applied(NamedTuple):
    """A row of the table; `applied_at` in Unix seconds."""

    number: int
    name: str
    up_sha256: str
    down_sha256: str
    applied_at: float
    applied_by: str
    took_ms: int


class Status(NamedTuple):
    """A step: `state` is applied, pending, edited (its file is another one now) or unknown (of a newer ZeekDB)."""

    number: int
    name: str
    state: str
    applied: Applied | None
    said: str = ""  # what is wrong with it


def read(folder: Path = FOLDER) -> list[Migration]:
    """The steps in order. MigrationError: a number is missing, there twice, or has no way back."""
    texts: dict[tuple[int, str], dict[str, str]] = {}
    for path in sorted(folder.glob("*.sql")):
        match = FILE.fullmatch(path.name)
        if not match:
            raise MigrationError(f"{path.name}: not named NNNN_name.up.sql or NNNN_name.down.sql")
        texts.setdefault((int(match[1]), match[2]), {})[match[3]] = path.read_text(encoding="utf-8")
    found = []
    for expected, ((number, name), pair) in enumerate(sorted(texts.items()), 1):
        if number != expected:
            raise MigrationError(f"{number:04}_{name}: {expected:04} is missing or there twice")
        if set(pair) != {"up", "down"}:
            missing = ({"up", "down"} - set(pair)).pop()
            raise MigrationError(f"{number:04}_{name}.{missing}.sql is missing")
        found.append(Migration(number, name, pair["up"], pair["down"]))
    return found


async def status(connection: Connection, steps: Sequence[Migration] | None = None) -> list[Status]:
    """Every step, applied or not; changes nothing."""
    steps = read() if steps is None else steps
    applied = {each.number: each for each in await _applied(connection)}
    found = []
    for step in steps:
        row = applied.pop(step.number, None)
        said = _difference(step, row) if row else ""
        found.append(Status(step.number, step.name, "edited" if said else "applied" if row else "pending", row, said))
    for row in applied.values():
        said = f"{row.number:04}_{row.name} is of a newer ZeekDB than this one"
        found.append(Status(row.number, row.name, "unknown", row, said))
    return found


async def up(
    connection: Connection, to: int | None = None, steps: Sequence[Migration] | None = None
) -> list[Migration]:
    """Applies what is pending, up to the step `to` (all, without one); what it applied. MigrationError.

    Harmless when another does the same at this moment. Who has no right to change the schema may call it, too, as
    long as there is nothing to apply.
    """
    steps = read() if steps is None else steps
    last = len(steps) if to is None else _within(to, steps)
    if not _pending(steps, await _applied(connection), last):
        return []
    done: list[Migration] = []
    while step := await _step(connection, lambda applied: next(iter(_pending(steps, applied, last)), None), "up"):
        done.append(step)
    return done


async def down(
    connection: Connection, to: int | None = None, steps: Sequence[Migration] | None = None
) -> list[Migration]:
    """Takes steps back, the newest first, until `to` is the newest (without one: one step); what it took back.

    The tables of these steps go with all their rows. MigrationError.
    """
    steps = read() if steps is None else steps
    applied = await _applied(connection)
    _pending(steps, applied, 0)
    first = max(len(applied) - 1, 0) if to is None else _within(to, steps)

    def newest(applied: list[Applied]) -> Migration | None:
        _pending(steps, applied, 0)
        return steps[len(applied) - 1] if len(applied) > first else None

    done: list[Migration] = []
    while len(applied) > first and (step := await _step(connection, newest, "down")):
        done.append(step)
    return done


async def _step(
    connection: Connection, choose: Callable[[list[Applied]], Migration | None], direction: str
) -> Migration | None:
    """One step of what is applied under the lock, in one transaction; None: there is none."""
    import asyncpg

    async with connection.transaction(isolation="read_committed"):  # what is read under the lock is of then
        # the server's own timeouts are for lookups: a step takes what it takes, and another's steps are waited for
        await connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK, timeout=None)
        await connection.execute(f"SET LOCAL lock_timeout = '{WAIT}'")
        applied = await _applied(connection)
        step = choose(applied)
        if step is None:
            return None
        if connection.get_server_version().major < SERVER_MIN // 10000:
            raise MigrationError(f"PostgreSQL 14 or later is needed, this is {connection.get_server_version().major}")
        begun = time.perf_counter()
        try:
            if not applied and direction == "up":
                await connection.execute(TABLE)
            await connection.execute(step.up if direction == "up" else step.down)
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "")[:2] in WORLD:
                raise
            text = step.up if direction == "up" else step.down
            raise MigrationError(f"{step.file(direction)}{_line(text, error)}: {error}") from error
        if direction == "up":
            took_ms = int((time.perf_counter() - begun) * 1000)
            await connection.execute(
                "INSERT INTO zeekdb.schema_migrations (number, name, up_sha256, down_sha256, took_ms) "
                "VALUES ($1, $2, $3, $4, $5)", step.number, step.name, *step.sums, took_ms,
            )  # fmt: skip
        else:
            await connection.execute("DELETE FROM zeekdb.schema_migrations WHERE number = $1", step.number)
    return step


async def _applied(connection: Connection) -> list[Applied]:
    """In order; empty where nothing ever was."""
    # to_regclass may answer from a cache of before the wait for the lock: that takes no lock which would renew it
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n "
        "ON n.oid = c.relnamespace WHERE n.nspname = 'zeekdb' AND c.relname = 'schema_migrations')"
    ):
        return []
    rows = await connection.fetch(
        "SELECT number, name, up_sha256, down_sha256, extract(epoch FROM applied_at)::double precision, applied_by, "
        "took_ms FROM zeekdb.schema_migrations ORDER BY number"
    )
    return [Applied(*row) for row in rows]


def _pending(steps: Sequence[Migration], applied: Sequence[Applied], last: int) -> list[Migration]:
    """The steps up to `last` that are not applied. MigrationError: those that are, are not these."""
    for expected, row in enumerate(applied, 1):
        if row.number != expected:
            raise MigrationError(f"{expected:04} is not applied, but {row.number:04}_{row.name} is")
        if expected > len(steps):
            known = f"this one, which knows {len(steps):04}"
            raise MigrationError(f"the database has {row.number:04}_{row.name}, of a newer ZeekDB than {known}")
        if said := _difference(steps[expected - 1], row):
            raise MigrationError(said)
    return list(steps[len(applied) : last])


def _difference(step: Migration, row: Applied) -> str:
    if step.name != row.name:
        return f"{step.file()}: the database has {row.number:04}_{row.name} under this number"
    for direction, now, then in zip(("up", "down"), step.sums, (row.up_sha256, row.down_sha256), strict=True):
        if now != then:
            return f"{step.file(direction)} was edited after it had been applied"
    return ""


def _within(to: int, steps: Sequence[Migration]) -> int:
    if not 0 <= to <= len(steps):
        raise MigrationError(f"there is no step {to}: they are 1 to {len(steps)}, 0 is before all")
    return to


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _line(text: str, error: Exception) -> str:
    """`:12`, where PostgreSQL says at which character it stumbled."""
    position = getattr(error, "position", None)
    return f":{text.count(chr(10), 0, int(position) - 1) + 1}" if position else ""
