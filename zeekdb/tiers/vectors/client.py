"""Vectors in Qdrant proper, through qdrant-client: a server by HTTP or gRPC, or the client's own local modes.

    http://host:6333, https://host:6333     REST; a password in the URL (https://:KEY@host) is the API key
    http://host:6333?grpc=6334              the same, rows and searches by gRPC on that port
    memory:                                 in this process, until it ends
    path:DIR                                in this process, kept in DIR (SQLite)

The local modes compare with every row, in Python and numpy: they are for tests and for a few thousand contexts. Their
calls run in one thread, in turn, those to a server in THREADS: the client makes and checks its messages in Python, some
ten milliseconds for a batch, which its asynchronous form would do on the event loop. ROWS_MAX bounds how long it keeps
Python's lock at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from zeekdb.config.urls import redacted
from zeekdb.errors import Unavailable
from zeekdb.tiers.tier import settle
from zeekdb.tiers.vectors.engine import TENANT, Engine, EngineFailed, Hit, Options, Row

log = logging.getLogger("zeekdb")

THREADS: Final = 4
ROWS_MAX: Final = 64  # in one message


class ClientEngine(Engine):
    """See the module."""

    name = "qdrant"

    def __init__(self, url: str, options: Options, timeout_s: float) -> None:
        self.url = url
        self.options = options
        self.timeout_s = timeout_s
        self._client: Any = None
        self._threads = ThreadPoolExecutor(1 if self.is_local else THREADS, "zeekdb-vectors")
        self._known: set[str] = set()  # collections that are there

    @property
    def is_local(self) -> bool:
        """Whether rows are in this process."""
        return self.url.startswith(("memory:", "path:"))

    async def open(self) -> None:
        make = self._local if self.is_local else self._remote
        try:
            self._client = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        except (OSError, RuntimeError, ValueError) as error:
            raise Unavailable(f"kv-qdrant-url: {redacted(str(error))}") from None

    def _local(self) -> QdrantClient:
        """One thread makes it, uses it and closes it: SQLite asks for that."""
        if self.url.startswith("path:"):
            return QdrantClient(path=self.url.removeprefix("path:"))
        return QdrantClient(":memory:")

    def _remote(self) -> QdrantClient:
        parts = urlsplit(self.url)
        query = parse_qs(parts.query)
        grpc = int(query["grpc"][0]) if query.get("grpc", [""])[0].isdigit() else 0
        host = parts.netloc.rpartition("@")[2]
        if parts.password and parts.scheme == "http":
            log.warning("kv-qdrant-url: the API key goes over http, where anybody on the way can read it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # which says the same, to standard error
            return QdrantClient(
                url=urlunsplit((parts.scheme, host, parts.path, "", "")), port=parts.port or 6333,
                api_key=unquote(parts.password) if parts.password else None, prefer_grpc=bool(grpc),
                grpc_port=grpc or 6334, timeout=max(1, round(self.timeout_s)), check_compatibility=False,
            )  # fmt: skip

    async def _call(self, method: str, **words: Any) -> Any:
        """What the client's method answers. EngineFailed."""
        client = self._client
        if client is None:
            raise EngineFailed("closed")
        with _failures():
            work = asyncio.get_running_loop().run_in_executor(self._threads, lambda: getattr(client, method)(**words))
            if self.is_local:  # what is cancelled must not go on beside what follows
                return await settle(work)
            return await work  # a call that nobody waits for any more ends by the client's own timeout

    async def _is_there(self, collection: str) -> bool:
        if collection not in self._known and await self._call("collection_exists", collection_name=collection):
            self._known.add(collection)
        return collection in self._known

    async def _make(self, collection: str) -> None:
        if await self._is_there(collection):
            return
        dim, m, ef = self.options
        try:
            await self._call(
                "create_collection", collection_name=collection,
                vectors_config=models.VectorParams(size=dim, distance=models.Distance.COSINE),
                hnsw_config=models.HnswConfigDiff(m=m, ef_construct=ef),
            )  # fmt: skip
        except EngineFailed:  # another node was quicker, or it failed indeed
            if not await self._call("collection_exists", collection_name=collection):
                raise
        if not self.is_local:  # which have no such thing, and warn
            await self._call(
                "create_payload_index", collection_name=collection, field_name=TENANT,
                field_schema=models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
            )  # fmt: skip
        self._known.add(collection)

    async def probe(self) -> None:
        await self._call("get_collections")

    async def upsert(self, collection: str, rows: Sequence[Row]) -> None:
        await self._make(collection)
        for begin in range(0, len(rows), ROWS_MAX):
            some = rows[begin : begin + ROWS_MAX]
            batch = models.Batch(
                ids=[_uuid(row.id) for row in some],
                vectors=[_floats(row.vector) for row in some],
                payloads=[row.payload for row in some],
            )
            await self._forgiving(collection, "upsert", points=batch, wait=True)

    async def _forgiving(self, collection: str, method: str, **words: Any) -> Any:
        """The call; where it fails the collection may have gone (another node's KV.MODEL DEL): look again next time."""
        try:
            return await self._call(method, collection_name=collection, **words)
        except EngineFailed:
            self._known.discard(collection)
            raise

    async def delete(self, collection: str, ids: Sequence[str]) -> None:
        if await self._is_there(collection):
            chosen = models.PointIdsList(points=[_uuid(each) for each in ids])
            await self._forgiving(collection, "delete", points_selector=chosen, wait=True)

    async def drop(self, collection: str) -> None:
        self._known.discard(collection)
        if await self._call("collection_exists", collection_name=collection):
            await self._call("delete_collection", collection_name=collection)

    async def get(self, collection: str, ids: Sequence[str]) -> list[Row | None]:
        if not await self._is_there(collection):
            return [None] * len(ids)
        records = await self._forgiving(
            collection, "retrieve", ids=[_uuid(each) for each in ids], with_payload=True, with_vectors=True
        )
        found = {row.id: row for row in map(_row, records)}
        return [found.get(each) for each in ids]

    async def search(
        self, collection: str, vectors: Sequence[bytes], count: int, tenant: str, least: float | None
    ) -> list[list[Hit]]:
        if not vectors or not await self._is_there(collection):
            return [[] for _ in vectors]
        requests = [
            models.QueryRequest(
                query=_floats(vector), limit=count, filter=_only(tenant), score_threshold=least, with_payload=True,
                params=None if self.is_local else models.SearchParams(hnsw_ef=max(self.options.ef, count)),
            )
            for vector in vectors
        ]  # fmt: skip
        answers = await self._forgiving(collection, "query_batch_points", requests=requests)
        return [[Hit(_hex(each.id), each.score, each.payload or {}) for each in answer.points] for answer in answers]

    async def page(
        self, collection: str, tenant: str, after: str | None, count: int
    ) -> tuple[list[Row], str | None]:  # fmt: skip
        if not await self._is_there(collection):
            return [], None
        records, following = await self._forgiving(
            collection, "scroll", scroll_filter=_only(tenant), limit=count, with_payload=True, with_vectors=True,
            offset=_uuid(after) if after is not None else None,
        )  # fmt: skip
        return [_row(each) for each in records], _hex(following) if following is not None else None

    async def count(self, prefix: str) -> dict[str, int]:
        listed = await self._call("get_collections")
        names = [each.name for each in listed.collections if each.name.startswith(prefix)]
        return {name: (await self._call("count", collection_name=name, exact=False)).count for name in names}

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with contextlib.suppress(EngineFailed), _failures():
            await asyncio.get_running_loop().run_in_executor(self._threads, client.close)
        self._threads.shutdown(wait=False)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """What the client, its transports and a server do becomes EngineFailed."""
    import grpc  # type: ignore[import-untyped]

    try:
        yield
    except ResponseHandlingException as error:  # of the transport: its source says what it was
        raise EngineFailed(f"{type(error.source).__name__} {error.source}".strip()) from None
    except (ApiException, grpc.RpcError, OSError, ValueError, RuntimeError) as error:
        raise EngineFailed(str(error) or type(error).__name__) from None


def _only(tenant: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=TENANT, match=models.MatchValue(value=tenant))])


def _uuid(number: str) -> str:
    return str(uuid.UUID(number))


def _hex(number: Any) -> str:
    return str(number).replace("-", "")


def _floats(vector: bytes) -> list[float]:
    floats: list[float] = np.frombuffer(vector, "<f4").tolist()
    return floats


def _row(record: Any) -> Row:
    return Row(_hex(record.id), np.asarray(record.vector, "<f4").tobytes(), record.payload or {})
