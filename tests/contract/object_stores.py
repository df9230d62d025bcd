"""Object storage for tests: a directory, or a bucket of moto's behind a network that fails on request."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import pytest

from tests.rigs.proxy import Proxy
from tests.rigs.s3 import ACCESS_KEY, REGION, S3, SECRET_KEY
from tests.rigs.shared import Rigs
from zeekdb.hot.checksum import checksum
from zeekdb.tiers import guard
from zeekdb.tiers.buckets import MARKER
from zeekdb.tiers.objects import ObjectTier
from zeekdb.tiers.tier import Get, Meta, Put, place_of

MIB = 1 << 20


def item(seed: int, size: int, **fields: Any) -> Put:
    """A block of noise."""
    return put_of(Random(seed).randbytes(size), **{"key": b"key:%d" % seed} | fields)


def put_of(data: bytes, **fields: Any) -> Put:
    meta = Meta(b"m", b"", b"k", len(data), checksum(data))
    return Put(meta._replace(**fields), memoryview(bytearray(data)))


async def got(tier: ObjectTier, meta: Meta) -> bytes | bool | None:
    """The block, or what get said instead."""
    into = memoryview(bytearray(meta.size))
    (said,) = await tier.get([Get(meta, place_of(meta), into)])
    return bytes(into) if said else said


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[ObjectTier]:
    tier = ObjectTier(url, **options)
    await tier.open()
    try:
        yield tier
    finally:
        await tier.close()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that does not take its time."""
    monkeypatch.setattr(guard, "BACKOFF_S", 0.001)
    monkeypatch.setattr(guard, "PROBE_S", 0.01)
    monkeypatch.setattr(guard, "PROBE_MAX_S", 0.05)


@dataclasses.dataclass
class Bed:
    """A bucket of moto's, with a network before it that fails on request."""

    server: S3
    bucket: str
    proxy: Proxy

    def url(self, endpoint: str = "", prefix: str = "/p") -> str:
        keys = f"access_key_id={ACCESS_KEY}&secret_access_key={quote(SECRET_KEY, safe='')}"
        at = endpoint or f"http://127.0.0.1:{self.proxy.port}"
        return f"s3://{self.bucket}{prefix}?endpoint={at}&region={REGION}&{keys}"

    def paths(self) -> list[str]:
        """Of all objects in the bucket."""
        return re.findall("<Key>([^<]*)</Key>", self.server.ask("GET", f"/{self.bucket}?list-type=2")[1].decode())

    def object(self, key: str) -> bytes:
        status, body = self.server.ask("GET", f"/{self.bucket}/{key}")
        assert status == 200
        return body

    def replace(self, key: str, body: bytes) -> None:
        assert self.server.ask("PUT", f"/{self.bucket}/{key}", body)[0] == 200


@pytest.fixture
def bed(rigs: Rigs) -> Bed:
    server = rigs.s3()
    return Bed(server, server.bucket(), rigs.proxy(server.address))


# ---- both kinds of storage -----------------------------------------------------------------------------------------


class Store:
    """A directory or a bucket, as a test wants to look into it."""

    def __init__(self, url: str, folder: Path | None, bed: Bed | None) -> None:
        self.url, self.folder, self.bed = url, folder, bed

    def paths(self) -> list[str]:
        if self.folder is None:
            assert self.bed is not None
            assert all(key.startswith("p/") for key in self.bed.paths())
            return [key.removeprefix("p/") for key in self.bed.paths()]
        found = [str(each.relative_to(self.folder)) for each in self.folder.rglob("*") if each.is_file()]
        return [path for path in found if path != MARKER]

    def read(self, key: str) -> bytes:
        if self.folder is None:
            assert self.bed is not None
            return self.bed.object(f"p/{key}")
        return (self.folder / key).read_bytes()

    def write(self, key: str, body: bytes) -> None:
        if self.folder is None:
            assert self.bed is not None
            self.bed.replace(f"p/{key}", body)
        else:
            (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / key).write_bytes(body)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(f"file://{tmp_path}/objects", tmp_path / "objects", None)
    bed: Bed = request.getfixturevalue("bed")
    return Store(bed.url(), None, bed)
