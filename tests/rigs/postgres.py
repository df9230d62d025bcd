"""Debian's PostgreSQL: a cluster of databases of the tests' own, made by initdb and gone at the end.

One server answers both ways: over its Unix socket it trusts everybody on this machine, over TCP (127.0.0.1) it wants
SCRAM-SHA-256, and with `tls` nothing but TLS there. PostgreSQL refuses to run as root: root becomes `postgres`.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.rigs.process import STARTS_MAX, Process, leash, program
from tests.rigs.tls import Certificates
from tests.support import free_port

PASSWORD = "s3cret:/@'\""  # every sign that a URL or a statement could stumble over
PACKAGE = "postgresql"
FOLDERS = tuple(sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]), reverse=True))
# What a test's data may lose: nobody pulls the plug here.
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60", "shared_buffers=32MB",
            "max_wal_size=256MB", "autovacuum=on", "log_min_messages=warning", "lc_messages=C")  # fmt: skip


class Postgres:
    """A server, whose superuser is `postgres` with PASSWORD."""

    def __init__(
        self, *settings: str, tls: Certificates | None = None, folders: tuple[str, ...] = FOLDERS
    ) -> None:
        """`settings`: name=value each, as in postgresql.conf. `folders`: where the programs of another one are."""
        initdb = program("initdb", PACKAGE, *folders)
        self._program = program("postgres", PACKAGE, *folders)
        self._psql = program("psql", "postgresql-client", *folders)
        self._settings = [*SETTINGS, *settings]
        self._numbers = itertools.count(1)
        owner = -1
        if os.getuid() == 0:
            try:
                owner = pwd.getpwnam("postgres").pw_uid
            except KeyError:
                pytest.skip(f"PostgreSQL does not run as root and there is no user postgres (package: {PACKAGE})")
        self.process = Process("postgres", owner=owner)
        try:
            self.socket_folder = str(self.process.folder)
            self.data = self.process.folder / "data"
            self._make(initdb, owner)
            self.tls = tls
            if tls:
                self._install(tls, owner)
            for attempt in range(STARTS_MAX):
                self.port = free_port()
                try:
                    self.start()
                    break
                except RuntimeError:
                    if attempt == STARTS_MAX - 1:
                        raise
        except BaseException:
            self.stop()
            raise

    def _make(self, initdb: str, owner: int) -> None:
        password = self.process.folder / "password"
        password.write_text(PASSWORD + "\n")
        if owner >= 0:
            os.chown(password, owner, -1)
        words = [initdb, "-D", str(self.data), "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync",
                 "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}"]  # fmt: skip
        user = owner if owner >= 0 else None
        done = subprocess.run(
            [*leash(), *words], cwd=self.process.folder, capture_output=True, text=True, user=user, extra_groups=[]
            if user is not None else None,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stdout}{done.stderr}")

    def _install(self, tls: Certificates, owner: int) -> None:
        for source, name in ((tls.certificate, "server.crt"), (tls.key, "server.key"), (tls.authority, "root.crt")):
            target = self.data / name
            shutil.copy(source, target)
            target.chmod(0o600)
            if owner >= 0:
                os.chown(target, owner, -1)
        self._settings += ["ssl=on"]
        rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(rules)

    def start(self) -> None:
        """Begin (again), where it was."""
        places = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.socket_folder}"]
        words = [word for setting in (*self._settings, *places) for word in ("-c", setting)]
        self.process.start([self._program, "-D", str(self.data), *words], self.answers)

    def kill(self, at_once: bool = True) -> None:
        """End it as a crash would (its processes without a shutdown checkpoint) or as an administrator."""
        self.process.kill(signal.SIGQUIT if at_once else signal.SIGINT)

    def stop(self) -> None:
        """The end."""
        self.process.kill(signal.SIGQUIT)  # SIGKILL alone would leave shared memory behind
        self.process.stop()

    def answers(self) -> bool:
        """Whether it takes statements."""
        words = [self._psql, "-h", self.socket_folder, "-p", str(self.port), "-U", "postgres", "-Xqtc", "SELECT 1"]
        return subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0

    def sql(self, statements: str, database: str = "postgres") -> list[list[str]]:
        """The rows of the last one, as text. RuntimeError."""
        words = [self._psql, "-h", self.socket_folder, "-p", str(self.port), "-U", "postgres", "-d", database]
        words += ["-XqAt", "-F", "\x1f", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(words, input=statements, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return [line.split("\x1f") for line in done.stdout.splitlines()]

    def database(self, template: str = "template1") -> str:
        """The name of a new database, empty or a copy of another one."""
        name = f"t{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, database: str) -> None:
        """Away with it and with whoever is connected."""
        self.sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Over the Unix socket: no password."""
        return f"postgresql://{user}@/{database}?host={self.socket_folder}&port={self.port}"

    def tcp_url(
        self, database: str = "postgres", user: str = "postgres", password: str = PASSWORD, port: int = 0
    ) -> str:
        """Over TCP, at another port where a proxy stands between; with the password in the URL."""
        secret = f":{quote(password, safe='')}" if password else ""
        tail = "?sslmode=require" if self.tls else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{port or self.port}/{database}{tail}"

    @property
    def address(self) -> tuple[str, int]:
        """For a proxy."""
        return "127.0.0.1", self.port

    @property
    def unix(self) -> str:
        """The socket's path, for a proxy."""
        return f"{self.socket_folder}/.s.PGSQL.{self.port}"


@contextlib.contextmanager
def postgres(*settings: str, **shape: Any) -> Iterator[Postgres]:
    """A PostgreSQL of a test's own: see `Postgres`. About 2 s; most tests share one (tests/rigs/shared.py)."""
    server = Postgres(*settings, **shape)
    try:
        yield server
    finally:
        server.stop()
