"""A connection to the catalogue for a tool: from a URL, or from a configuration file that names one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from zeekdb.config.config import Config
from zeekdb.config.file import FileError, load
from zeekdb.config.urls import EMBEDDED, redacted, scrubber
from zeekdb.errors import Unavailable
from zeekdb.tiers.postgres.embedded import Embedded
from zeekdb.tiers.postgres.migrate import MigrationError
from zeekdb.tools.console import ToolError, UsageError, warn

if TYPE_CHECKING:
    from asyncpg import Connection

T = TypeVar("T")
CONNECT_S: Final = 10.0
CLOSE_S: Final = 2.0
SCHEMES: Final = ("postgresql://", "postgres://", EMBEDDED)


def url_of(place: str, reader: bool = False) -> str:
    """A URL as it is; of a file its kv-postgres-url or, to read, its kv-postgres-reader-url. UsageError, ToolError."""
    if place.startswith(SCHEMES):
        return place
    if "://" in place:
        raise UsageError(f"{redacted(place)} is no URL of a PostgreSQL: postgresql://…, or embedded:DIR")
    if not Path(place).is_file():
        raise UsageError(f"{place}: neither a URL (postgresql://…, embedded:DIR) nor a configuration file")
    config = Config()
    try:
        load(config, place, "", "")
    except FileError as error:
        raise ToolError(f"{place}: {error}") from None
    url = (config.kv_postgres_reader_url if reader else "") or config.kv_postgres_url
    if not url:
        raise ToolError(f"{place}: there is no kv-postgres-url in it")
    if url.startswith(EMBEDDED) and not Path(url.removeprefix(EMBEDDED)).is_absolute():
        url = EMBEDDED + str(Path(config.dir, url.removeprefix(EMBEDDED)))  # as the server reads it, from its `dir`
    return str(url)


def ask(url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    """What the work answers; NOTICEs are said beside it. ToolError, without secrets."""
    return asyncio.run(_ask(url, work))


async def _ask(url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    try:
        import asyncpg
    except ImportError:
        raise ToolError("a package is not installed: pip install 'zeekdb[tiers]'") from None
    scrub = scrubber([url])
    embedded = None
    try:
        if url.startswith(EMBEDDED):
            embedded = Embedded(url.removeprefix(EMBEDDED))
            await embedded.start(may_join=True)
            connection = await asyncpg.connect(**embedded.arguments, timeout=CONNECT_S)
        else:
            settings = {"application_name": "zeekdb tool"}
            connection = await asyncpg.connect(url, timeout=CONNECT_S, server_settings=settings)
        said: set[str] = set()  # steps repeat themselves

        def listen(_: object, message: Any) -> None:
            text = f"{message.severity}: {scrub(str(message.message))}"
            if text not in said:
                said.add(text)
                warn(text)

        connection.add_log_listener(listen)
        try:
            return await work(connection)
        finally:
            await connection.close(timeout=CLOSE_S)
    except (MigrationError, Unavailable) as error:
        raise ToolError(scrub(str(error))) from None
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ToolError(f"{redacted(url)}: {scrub(str(error) or type(error).__name__)}") from None
    finally:
        if embedded is not None:
            await embedded.stop()
