"""A server's way of loading what is in a folder, without a process for each: for thousands of damaged copies."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from tests.fuzz.payloads import MAX_ID
from zeekdb.config.config import Config
from zeekdb.hot.keyspace import Database
from zeekdb.persistence.manifest import Manifest
from zeekdb.server.aof_loading import AofLoader, CannotLoad
from zeekdb.server.server import Server


class Refused(Exception):
    """It does not load; the message is the server's."""


class Loader:
    """One server without sockets, emptied before every load. `directives`: as in a file."""

    def __init__(self, **directives: str) -> None:
        self.config = Config()
        self.config.parse("save", [""])
        for name, value in {"appendonly": "yes", **directives}.items():
            self.config.parse(name.replace("_", "-"), [value])
        self.server = Server(self.config)
        self.server.loop = asyncio.new_event_loop()  # whoever loads a script schedules something
        self.said: list[str] = []  # in the log, by the last load
        self.handler = logging.Handler()
        self.handler.emit = lambda record: self.said.append(record.getMessage())  # type: ignore[method-assign]

    @property
    def databases(self) -> list[Database]:
        """What was loaded."""
        return self.server.keyspace.databases

    def empty(self) -> None:
        """As before the first load."""
        keyspace = self.server.keyspace
        keyspace.clear(keyspace.databases)
        self.server.runner.libraries.flush()
        while keyspace.run_lazyfree(1_000_000):
            pass
        self.said.clear()

    def load(self, folder: Path) -> Manifest | None:
        """What the folder holds is in the databases; the manifest. Refused."""
        keyspace, log = self.server.keyspace, logging.getLogger("zeekdb")
        clock_ms = keyspace.now_ms()  # all keyspaces of a process have one clock; other tests have set it
        before = log.handlers, log.propagate
        log.handlers, log.propagate = [self.handler], False
        try:
            return self._load(folder)
        finally:
            log.handlers, log.propagate = before
            keyspace.set_clock(clock_ms)

    def _load(self, folder: Path) -> Manifest | None:
        self.empty()
        self.config.dir = str(folder)
        server = self.server
        if not self.config.appendonly:
            if not asyncio.run(server.saving.load_at_start()):
                raise Refused(self.said[-1])
            return None
        server.loader.begin()
        try:
            manifest = asyncio.run(AofLoader(server).load())
        except (CannotLoad, OSError) as error:
            raise Refused(str(error)) from None
        finally:
            server.loader.end()
        if manifest is None and not asyncio.run(server.saving.load_at_start()):
            raise Refused(self.said[-1])
        return manifest

    def faults(self) -> int:
        """Broken invariants of the tables."""
        return sum(db.faults() for db in self.databases if len(db))

    def libraries(self) -> bytes:
        """The function libraries, as in a file."""
        return self.server.runner.libraries.records()


def held(db: Database, name: str) -> dict[str, Any]:
    """What the keys of a connection of killing.py hold, as its `stored` says it."""

    def value(key: str) -> Any:
        return db.peek(f"{name}:{key}".encode())

    stream, text = value("stream"), value("text") or b""
    return {
        "list": value("list").range(0, -1) if value("list") else [],
        "hash": dict(value("hash").items()) if value("hash") else {},
        "zset": [member for member, _ in value("zset").pairs()] if value("zset") else [],
        "stream": [b"%d-%d" % (id >> 64, id & MAX_ID >> 64) for id, _ in stream.entries(0, MAX_ID)] if stream else [],
        "set": set(value("set").members()) if value("set") else set(),
        "counters": [value(key) or b"0" for key in "abxyz"],
        "string": value("string"),
        "text": len(text),
        "holes": text.count(0),
    }
