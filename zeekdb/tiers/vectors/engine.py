"""What an engine for vectors must be able to do, and what passes between it and the door (`store`).

A *collection* has the vectors of one model. A *row* is one vector with its payload, found by its id, 32 hex digits that
are read as a UUID. Vectors are little-endian float32, all of one length, and come back normalised to length one; scores
are cosines. Calls are made on one event loop. What the outside world does raises EngineFailed; a collection that was
never written to is an empty one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

TENANT: Final = "tenant"  # the payload's field that searches filter on
Payload = dict[str, Any]  # as JSON: strings, numbers, booleans, lists


class EngineFailed(Exception):
    """The engine could not do it; the text says why. It may quote the engine, and so must be scrubbed."""


class Row(NamedTuple):
    """One vector."""

    id: str
    vector: bytes
    payload: Payload


class Hit(NamedTuple):
    """What a search found."""

    id: str
    score: float
    payload: Payload


class Options(NamedTuple):
    """How collections are made."""

    dim: int = 512
    m: int = 16  # edges of a point in the HNSW graph
    ef: int = 100  # candidates looked at while the graph is built, and in a search


class Engine(ABC):
    """See the module. All lists are answered item by item."""

    name: str
    slow_open_s: float = 0.0  # how long a first connection may take beyond the usual timeout

    @abstractmethod
    async def open(self) -> None:
        """Begin. Unavailable: the directory or the package cannot be used. An engine that is down is not an error."""

    @abstractmethod
    async def probe(self) -> None:
        """One cheap round trip."""

    @abstractmethod
    async def upsert(self, collection: str, rows: Sequence[Row]) -> None:
        """Writes rows, each once, over those of the same id."""

    @abstractmethod
    async def delete(self, collection: str, ids: Sequence[str]) -> None:
        """Forgets rows."""

    @abstractmethod
    async def drop(self, collection: str) -> None:
        """Forgets a collection."""

    @abstractmethod
    async def get(self, collection: str, ids: Sequence[str]) -> list[Row | None]:
        """Rows by id."""

    @abstractmethod
    async def search(
        self, collection: str, vectors: Sequence[bytes], count: int, tenant: str, least: float | None
    ) -> list[list[Hit]]:
        """For each vector the nearest rows of the tenant, the nearest first; none whose score is under `least`."""

    @abstractmethod
    async def page(
        self, collection: str, tenant: str, after: str | None, count: int
    ) -> tuple[list[Row], str | None]:  # fmt: skip
        """Some of the tenant's rows in an order of the engine's, and what to go on after; None: these were the last."""

    @abstractmethod
    async def count(self, prefix: str) -> dict[str, int]:
        """Rows of each collection whose name begins so."""

    @abstractmethod
    async def close(self) -> None:
        """Let go. Harmless when repeated."""
