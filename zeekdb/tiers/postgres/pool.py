"""The one door to a PostgreSQL: connections behind a guard, for the catalogue and the blobs alike.

`Database` opens by itself. `open` waits for the first attempt, some seconds at most; where the server is not there
yet, or its password is wrong, a task goes on trying, calls fail at once meanwhile (TierFailed, then TierDown), and
everything works from the moment that it answers.

A connection that was left in the middle of something is thrown away, never waited for. asyncpg would, after a timeout,
ask the server to cancel and wait until it says that it has, both when the connection goes back to the pool and when a
transaction block is left; a server that was stopped (SIGSTOP, a frozen disk) never says so, and whoever asked would
hang beyond every deadline. Hence `transaction` here instead of asyncpg's, and `_on`.

TLS, client certificates, several hosts and `target_session_attrs` are asyncpg's business: the URL goes to it as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from zeekdb.config.urls import EMBEDDED, scrubber
from zeekdb.errors import Unavailable
from zeekdb.tiers.guard import Guard, TierDown, TierFailed
from zeekdb.tiers.postgres import migrate
from zeekdb.tiers.postgres.embedded import Embedded
from zeekdb.tiers.postgres.migrate import MigrationError

if TYPE_CHECKING:
    from asyncpg import Connection
    from asyncpg.pool import Pool

logger = logging.getLogger(__name__)
T = TypeVar("T")

OPEN_WAIT_S: Final = 4.0  # that `open` waits for the first attempt
OPEN_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
CONNECT_S: Final = 10.0  # for the connection that migrates; others have the guard's timeout
IDLE_S: Final = 300.0  # then a connection that nobody uses is closed
CLOSE_S: Final = 2.0

Prepare = Callable[["Connection"], Awaitable[object]]  # brings the schema up to date


class NotOpen(Exception):
    """The database has not answered since the start."""


class Database:
    """Connections to one PostgreSQL, embedded or by URL, counted by their users: each opens it and closes it.

    It can be opened again after the last of them has closed it.
    """

    def __init__(
        self,
        url: str,
        *,
        reader_url: str = "",
        connections: int = 8,
        timeout_s: float = 1.0,
        settings: dict[str, str] | None = None,
        prepare: Prepare | None = migrate.up,
    ) -> None:
        """`connections`: at most, for readers and writers each. Unavailable: a package is missing."""
        self.embedded = Embedded(url.removeprefix(EMBEDDED)) if url.startswith(EMBEDDED) else None
        self.is_open = False
        self.may_join = False  # an embedded server that runs already: for tools
        self.connections = connections
        self._failures = _failures()
        self._url, self._reader_url = url, reader_url
        self._settings = {"application_name": "zeekdb", **(settings or {})}
        self._prepare = prepare
        self._users = 0
        self._writers: Pool | None = None
        self._readers: Pool | None = None
        self._opening: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._scrub = scrubber([url, reader_url])
        self._error = "it has not answered yet"
        self._timeout_s = timeout_s
        self.guard = self._new_guard()

    def _new_guard(self) -> Guard:
        return Guard("postgres", self.probe, failures=self._failures, timeout_s=self._timeout_s, scrub=self._scrub)

    @property
    def error(self) -> str:
        """Why it cannot be asked now, without secrets; nothing when it can."""
        if self.is_open:
            return self.guard.last_error if self.guard.state != "closed" else ""
        return self._error

    # ---- opening and closing --------------------------------------------------------------------------------------

    async def open(self, wait_s: float = OPEN_WAIT_S) -> None:
        """Begin; returns after the first attempt, and after `wait_s` in any case. Unavailable: it will never open."""
        self._users += 1
        if self._opening is None:
            self.guard = self._new_guard()
            self._tried.clear()
            self._opening = asyncio.get_running_loop().create_task(self._open())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._tried.wait()
        if self._opening.done() and not self._opening.cancelled():
            error = self._opening.exception()
            if error is not None:
                self._users -= 1
                self._opening = None
                raise error

    async def _open(self) -> None:
        attempt = 0
        while True:
            try:
                await self._open_once()
                self._tried.set()
                return
            except Unavailable:
                self._tried.set()
                raise
            except self._failures as error:
                said = self._scrub(str(error) or type(error).__name__)
                if said != self._error:
                    logger.warning("PostgreSQL can't be opened yet: %s", said)
                self._error = said
            await self._let_go()
            self._tried.set()
            await asyncio.sleep(OPEN_PAUSES_S[min(attempt, len(OPEN_PAUSES_S) - 1)])
            attempt += 1

    async def _open_once(self) -> None:
        import asyncpg

        if self.embedded is not None and not self.embedded.is_started:
            await self.embedded.start(may_join=self.may_join)
        if self._prepare is not None:
            connection = await asyncpg.connect(**self._arguments(), timeout=CONNECT_S)
            try:
                await self._prepare(connection)
            finally:
                connection.terminate()
        limit_ms = str(int(self.guard.timeout_s * 1000))
        settings = {**self._settings, "statement_timeout": limit_ms, "lock_timeout": limit_ms}
        self._writers = self._pool(self._arguments(), settings)
        self._readers = self._writers
        if self._reader_url:
            self._readers = self._pool(
                {"dsn": self._reader_url}, {**settings, "default_transaction_read_only": "on"}
            )
        for pool in {self._writers, self._readers}:
            await pool
            await self._on(pool, _ask)
        self.is_open = True
        self._error = ""

    def _arguments(self) -> dict[str, Any]:
        return self.embedded.arguments if self.embedded is not None else {"dsn": self._url}

    def _pool(self, arguments: dict[str, Any], settings: dict[str, str]) -> Pool:
        import asyncpg

        return asyncpg.create_pool(
            **arguments, min_size=0, max_size=self.connections, max_inactive_connection_lifetime=IDLE_S,
            timeout=self.guard.timeout_s, server_settings=settings, reset=_leave,
        )  # fmt: skip

    async def close(self) -> None:
        """The last of its users ends it."""
        self._users = max(self._users - 1, 0)
        if self._users:
            return
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
            self._opening = None
        await self.guard.close()
        await self._let_go()
        if self.embedded is not None:
            await self.embedded.stop()

    async def _let_go(self) -> None:
        self.is_open = False
        pools = {pool for pool in (self._writers, self._readers) if pool is not None}
        self._writers = self._readers = None
        for pool in pools:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await pool.close()
            except self._failures:
                pool.terminate()

    # ---- calls ----------------------------------------------------------------------------------------------------

    async def write(
        self, work: Callable[[Connection], Awaitable[T]], *, timeout_s: float | None = None, retry: bool = True
    ) -> T:
        """The work's result, on a connection of its own. What is retried must be idempotent. TierFailed, TierDown."""
        if self.embedded is not None and self.is_open and not self.embedded.is_synced:
            try:
                await self.embedded.wait_synced()
            except TimeoutError:
                raise TierFailed("postgres: the new database is not on the disk yet") from None
        return await self.guard.call(lambda: self._on(self._writers, work), timeout_s=timeout_s, retry=retry)

    async def read(
        self, work: Callable[[Connection], Awaitable[T]], *, timeout_s: float | None = None, retry: bool = True,
        as_writer: bool = False,
    ) -> T:  # fmt: skip
        """As `write`, with the reader's role; or with the writer's, where a reader may not look."""

        def once() -> Awaitable[T]:
            return self._on(self._writers if as_writer else self._readers, work)

        return await self.guard.call(once, timeout_s=timeout_s, retry=retry)

    async def aside(self, work: Callable[[Connection], Awaitable[T]], *, timeout_s: float) -> T:
        """As `write`, once, and its failures count for nothing: what takes long says little of the server's health."""
        if not self.is_open or self.guard.state != "closed":
            raise TierDown(f"postgres: {self.error}")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._on(self._writers, work)
        except self._failures as error:
            raise TierFailed(f"postgres: {self._scrub(str(error) or type(error).__name__)}") from None

    async def probe(self) -> None:
        """One round trip; raises what a call would."""
        for pool in {self._writers, self._readers}:
            await self._on(pool, _ask)

    async def _on(self, pool: Pool | None, work: Callable[[Connection], Awaitable[T]]) -> T:
        import asyncpg

        if pool is None:
            raise NotOpen(self._error)
        connection = await pool.acquire()
        try:
            result = await work(connection)
        except asyncpg.PostgresError:
            if connection.is_in_transaction():
                connection.terminate()  # the server has answered, but nobody has rolled back
            raise
        except BaseException:
            connection.terminate()
            raise
        finally:
            with contextlib.suppress(*self._failures):
                await pool.release(connection)
        return result


@contextlib.asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """BEGIN … COMMIT. After a timeout or a cut nothing is said any more: the connection is thrown away as it is."""
    import asyncpg

    await connection.execute("BEGIN")
    try:
        yield
    except asyncpg.PostgresError:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


async def _ask(connection: Connection) -> None:
    await connection.fetchval("SELECT 1")


async def _leave(connection: Connection) -> None:
    """Nobody here changes a session's settings, so there is no round trip to set them back."""


def _failures() -> tuple[type[BaseException], ...]:
    """What the server, the network or whoever runs them did. What is missing here is a bug of ours. Unavailable."""
    try:
        import asyncpg
    except ImportError:
        raise Unavailable(
            "kv-postgres-url needs a package that is not installed: pip install 'zeekdb[tiers]'"
        ) from None
    return (
        NotOpen, MigrationError, OSError, EOFError, TimeoutError,
        asyncpg.InterfaceError, asyncpg.InternalClientError,
        asyncpg.PostgresConnectionError, asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError,
        asyncpg.UndefinedFunctionError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError,
        asyncpg.ReadOnlySQLTransactionError, asyncpg.TransactionRollbackError, asyncpg.InsufficientResourcesError,
        asyncpg.OperatorInterventionError, asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.PostgresSystemError,
        asyncpg.InternalServerError, asyncpg.FeatureNotSupportedError, asyncpg.ConfigFileError,
    )  # fmt: skip
