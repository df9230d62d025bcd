"""Runs commands by name on a keyspace without a server, and keeps what they report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from zeekdb.commands.context import Context
from zeekdb.commands.spec import REGISTRY
from zeekdb.errors import CommandError, WrongArity
from zeekdb.hot.keyspace import Database, Keyspace

NOW_MS = 1_700_000_000_000


def as_bytes(argument: bytes | str | int | float) -> bytes:
    """An argument as a client would send it."""
    return argument if isinstance(argument, bytes) else str(argument).encode()


class Bench:
    """A fresh keyspace with a clock that stands still, and one client on database 0.

    `bench("SET", "k", "v")` answers the reply; an error answers as its text. `bench.events` collects (event, key).
    """

    def __init__(self, protocol: int = 2, **config: Any) -> None:
        self.keyspace = Keyspace()
        self.keyspace.set_clock(NOW_MS)
        self.config = SimpleNamespace(proto_max_bulk_len=512 << 20, **config)
        self.client = SimpleNamespace(protocol=protocol, id=1, name=b"", kind="normal", in_exec=False)
        acl = SimpleNamespace(reads_every_key=lambda *call: True)
        server = SimpleNamespace(config=self.config, acl=acl, loading=False)
        self.ctx = Context(self.keyspace, self.keyspace.databases[0], self.client, server)
        self.events: list[tuple[str, bytes]] = []
        self.keyspace.subscribers.append(self._note)

    def _note(self, db: Database, key: bytes, event: str) -> None:
        self.events.append((event if db.index == 0 else f"{event}@{db.index}", key))

    def __call__(self, name: str, *arguments: bytes | str | int | float) -> Any:
        words = [as_bytes(argument) for argument in arguments]
        spec = REGISTRY[name.upper()]
        given = len(words) + 1
        if spec.subcommands:
            spec = spec.subcommands[words.pop(0).decode().upper()]
        try:
            if given != spec.arity and (spec.arity > 0 or given < -spec.arity):
                raise WrongArity(spec.lower)
            return spec.handler(self.ctx, *words)
        except CommandError as error:
            return error.message

    def events_of(self, name: str, *arguments: bytes | str | int | float) -> list[str]:
        """What a command reports, the keys left out."""
        self.events.clear()
        self(name, *arguments)
        return [event for event, _ in self.events]

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.keyspace.set_clock(self.keyspace.now_ms() + ms)
