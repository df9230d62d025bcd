"""The process that qdrant-edge lives in: one directory, a collection per model, requests by its standard input.

qdrant-edge keeps Python's lock through every call: a search takes it for a millisecond, building the graph of 100,000
vectors for half a minute. In the server's own process nothing else would run meanwhile, whatever the thread. So it has
a process of its own, and building has another: a shard is never built where it is searched.

A collection is a row of shards, `COLLECTION/NNNNNN`. All but the last are *sealed*: they only lose points. The last
takes them, and searches it whole: up to SEALED_ITEMS numbers that is exact and takes about 2 ms. A sealed shard
is copied, the copy is indexed by another process (`--index`), loses what was deleted meanwhile, and takes the place of
the original, which was searched whole up to then. A point is in one shard at most: who writes one takes it out of the
others first.

Upserts are in the shard's write-ahead log when they are answered, so the end of this process loses none; FLUSH_S later
they are in its files.

Messages are msgpack behind four bytes of length, little-endian: [number, operation, arguments …] one way,
[number, whether it could be done, result or error] the other. The end of standard input is the end of the process.

`python bench/vectors_tier.py` measures it at 100,000 × 512.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import logging
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgpack
import numpy as np
import qdrant_edge as edge

from zeekdb.tiers.vectors.engine import TENANT

log = logging.getLogger("zeekdb.vectors")

SEALED_ITEMS: Final = 32_768 * 512  # numbers in a shard: so many points of 512 dimensions
SEALED_POINTS: Final = (1024, 131_072)  # whatever the dimensions
GONE_MAX: Final = 0.3  # share of a shard's points: beyond, it is built anew without them
GONE_SET_MAX: Final = 65_536  # deleted while a copy is indexed; beyond, the copy is given up
FLUSH_S: Final = 1.0
HOUSEKEEPING_S: Final = 0.25
BUILD_AGAIN_S: Final = 30.0  # after one that failed
OPEN_WAIT_S: Final = 5.0  # for a process before this one that has not ended yet
COPIED: Final = 64 << 10  # bytes at a time
MESSAGE_MAX: Final = 256 << 20
LENGTH: Final = struct.Struct("<I")
FULL_SCAN_KB: Final = 32_768  # a tenant that has less in a shard is searched whole: exact, and 0.4 ms for a quarter of
# a shard. Through the graph it took 0.2 ms and found 71% of the nearest, with links for each tenant 70%.
PR_SET_PDEATHSIG: Final = 1
Hits = list[tuple[str, float, dict[str, Any]]]


def _configured(dim: int, m: int, ef: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(size=dim, distance=edge.Distance.Cosine),
        hnsw_config=edge.HnswIndexConfig(
            m=m, ef_construct=ef, full_scan_threshold=FULL_SCAN_KB, max_indexing_threads=1
        ),
        max_search_threads=1,  # of each shard; shards are searched in turn
        optimizers=edge.EdgeOptimizersConfig(
            indexing_threshold=1, default_segment_number=1, deleted_threshold=0.1, vacuum_min_vector_number=1
        ),
    )


def _id(point: Any) -> str:
    return point.hex if hasattr(point, "hex") else str(point).replace("-", "")


def _array(vector: bytes) -> Any:
    """A vector as qdrant-edge takes it: an array in half the time of the list that its stub asks for."""
    return np.frombuffer(vector, "<f4")


def _row(record: Any) -> tuple[str, bytes, dict[str, Any]]:
    return _id(record.id), np.asarray(record.vector, "<f4").tobytes(), record.payload or {}


class Shard:
    """One qdrant-edge shard."""

    def __init__(self, path: Path, opened: edge.EdgeShard) -> None:
        self.path = path
        self.edge = opened
        self.number = int(path.name)
        self.is_dirty = False
        self.gone_since: set[str] | None = None  # since the copy that is being indexed was made
        info = opened.info()
        self.points = info.points_count
        self.indexed = info.indexed_vectors_count
        self.points_built = max(self.points, self.indexed)  # whatever it has lost since, or by then

    def update(self, operation: edge.UpdateOperation) -> None:
        self.edge.update(operation)
        self.is_dirty = True

    def delete(self, ids: Sequence[str]) -> None:
        if not self.points:
            return
        self.update(edge.UpdateOperation.delete_points(list(ids)))
        self.points = self.edge.info().points_count
        if self.gone_since is not None:
            self.gone_since.update(ids)

    def flush(self) -> None:
        if self.is_dirty:
            self.edge.flush()
            self.is_dirty = False

    def wants_index(self) -> bool:
        """Whether its graph is missing, or in good part about points that are gone."""
        return self.points > 0 and (not self.indexed or self.points < self.points_built * (1 - GONE_MAX))


class Collection:
    """The shards of one model."""

    def __init__(self, folder: Path, dim: int, m: int, ef: int) -> None:
        self.folder = folder
        self.dim, self.ef = dim, ef
        self.config = _configured(dim, m, ef)
        least, most = SEALED_POINTS
        self.sealed_points = min(max(SEALED_ITEMS // dim, least), most)
        self.broken = 0
        self.shards: list[Shard] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._recover()
        if not self.shards:
            self._append()

    def _recover(self) -> None:
        for path in sorted(self.folder.iterdir()):
            stem, _, suffix = path.name.partition(".")
            if suffix == "old" and not (self.folder / stem).exists():  # the end came between two renames
                path.rename(self.folder / stem)
            elif suffix in ("old", "new"):
                shutil.rmtree(path)
        for path in sorted(self.folder.iterdir()):
            if not path.name.isdigit():
                continue
            try:
                self.shards.append(Shard(path, _load(path, self.config)))
            except Exception as error:  # qdrant-edge raises nothing more particular
                if "WouldBlock" in str(error):
                    raise
                log.warning("%s can't be read, and is left aside: %s", path, error)
                path.rename(path.with_name(f"{path.name}.broken-{time.time_ns()}"))
                self.broken += 1

    def _append(self) -> Shard:
        number = self.shards[-1].number + 1 if self.shards else 1
        path = self.folder / f"{number:06d}"
        shutil.rmtree(path, ignore_errors=True)
        opened = edge.EdgeShard.create(str(path), self.config)
        opened.update(edge.UpdateOperation.create_field_index(TENANT, edge.KeywordIndexParams(is_tenant=True)))
        self.shards.append(Shard(path, opened))
        return self.shards[-1]

    @property
    def sealed(self) -> list[Shard]:
        return self.shards[:-1]

    def upsert(self, rows: Sequence[tuple[str, bytes, dict[str, Any]]]) -> None:
        ids = [row[0] for row in rows]
        for shard in self.sealed:
            shard.delete(ids)
        last = self.shards[-1]
        points = [edge.Point(number, _array(vector), payload) for number, vector, payload in rows]
        last.update(edge.UpdateOperation.upsert_points(points))
        last.points = last.edge.info().points_count
        if last.points >= self.sealed_points:
            self._append()

    def delete(self, ids: Sequence[str]) -> None:
        for shard in self.shards:
            shard.delete(ids)

    def get(self, ids: Sequence[str]) -> list[tuple[str, bytes, dict[str, Any]] | None]:
        found = {}
        for shard in self.shards:
            for record in shard.edge.retrieve(list(ids), with_payload=True, with_vector=True):
                found[_id(record.id)] = _row(record)
        return [found.get(each) for each in ids]

    def search(self, vectors: Sequence[bytes], count: int, tenant: str, least: float | None) -> list[Hits]:
        only = edge.Filter(must=[edge.FieldCondition(TENANT, match=edge.MatchValue(tenant))])
        params = edge.SearchParams(hnsw_ef=max(self.ef, count))
        answers = []
        for vector in vectors:
            nearest = edge.Query.Nearest(_array(vector))
            found: list[Any] = []
            for shard in self.shards:
                if shard.points:
                    found += shard.edge.query(
                        edge.QueryRequest(
                            limit=count, query=nearest, filter=only, params=params, with_payload=True,
                            score_threshold=least,
                        )
                    )  # fmt: skip
            best = heapq.nlargest(count, found, key=lambda each: each.score)
            answers.append([(_id(each.id), each.score, each.payload or {}) for each in best])
        return answers

    def page(self, tenant: str, after: str | None, count: int) -> tuple[list[Any], str | None]:
        at, _, offset = (after or "0:").partition(":")
        only = edge.Filter(must=[edge.FieldCondition(TENANT, match=edge.MatchValue(tenant))])
        for shard in self.shards:
            if shard.number < int(at):
                continue
            begin = offset if shard.number == int(at) and offset else None
            rows, following = shard.edge.scroll(
                edge.ScrollRequest(offset=begin, limit=count, filter=only, with_payload=True, with_vector=True)
            )
            if not rows:
                continue
            upto = f"{shard.number}:{_id(following)}" if following is not None else f"{shard.number + 1}:"
            is_last = following is None and shard is self.shards[-1]
            return [_row(each) for each in rows], None if is_last else upto
        return [], None

    @property
    def points(self) -> int:
        return sum(shard.points for shard in self.shards)

    def close(self) -> None:
        for shard in self.shards:
            shard.flush()
            shard.edge.close()


def _load(path: Path, config: edge.EdgeConfig) -> edge.EdgeShard:
    """The shard, once whoever had it open has let go."""
    end_s = time.monotonic() + OPEN_WAIT_S
    while True:
        try:
            return edge.EdgeShard.load(str(path), config)
        except Exception as error:
            if "WouldBlock" not in str(error) or time.monotonic() > end_s:
                raise
        time.sleep(0.05)


def copy_sparse(source: str, target: str) -> str:
    """Copies a file, and leaves holes where it has nothing: its logs are much longer than what is in them."""
    nothing = bytes(COPIED)
    with open(source, "rb") as given, open(target, "wb") as made:
        while piece := given.read(COPIED):
            if piece == nothing[: len(piece)]:
                made.seek(len(piece), os.SEEK_CUR)
            else:
                made.write(piece)
        made.truncate()
    return target


class Builder:
    """Indexes one sealed shard at a time, in another process."""

    def __init__(self) -> None:
        self.collection: Collection | None = None
        self.shard: Shard | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.begun_s = 0.0
        self.not_before_s = 0.0
        self.built = 0
        self.failed = 0

    @property
    def _copy(self) -> Path:
        assert self.shard is not None
        return self.shard.path.with_name(f"{self.shard.path.name}.new")

    def step(self, collections: Sequence[Collection]) -> None:
        """Goes on: begins with a shard that wants it, or takes over one that is ready."""
        if self.process is None:
            if time.monotonic() >= self.not_before_s:
                self._begin(collections)
            return
        assert self.shard is not None
        if self.shard.gone_since is not None and len(self.shard.gone_since) > GONE_SET_MAX:
            self.stop()
            return
        code = self.process.poll()
        if code is None:
            return
        self.process = None
        try:
            if code:
                raise RuntimeError(f"indexing {self.shard.path} ended with {code}")
            self._take_over()
            self.built += 1
        except Exception as error:
            log.warning("Indexing vectors: %s", error)
            self.failed += 1
            self.not_before_s = time.monotonic() + BUILD_AGAIN_S
            self._give_up()

    def _begin(self, collections: Sequence[Collection]) -> None:
        for collection in collections:
            for shard in collection.sealed:
                if not shard.points:
                    collection.shards.remove(shard)
                    shard.edge.close()
                    shutil.rmtree(shard.path)
                    return
                if shard.wants_index():
                    self.collection, self.shard = collection, shard
                    shard.flush()
                    shutil.rmtree(self._copy, ignore_errors=True)
                    shutil.copytree(shard.path, self._copy, copy_function=copy_sparse)
                    shard.gone_since = set()
                    words = [sys.executable, "-m", "zeekdb.tiers.vectors.keeper", "--index", str(self._copy)]
                    self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sys.stderr)
                    self.begun_s = time.monotonic()
                    return

    def _take_over(self) -> None:
        shard, collection = self.shard, self.collection
        assert shard is not None and collection is not None and shard.gone_since is not None
        ready = edge.EdgeShard.load(str(self._copy), collection.config)
        try:
            if shard.gone_since:
                ready.update(edge.UpdateOperation.delete_points(sorted(shard.gone_since)))
            ready.flush()
        finally:
            ready.close()
        aside = shard.path.with_name(f"{shard.path.name}.old")
        shard.edge.close()
        shard.path.rename(aside)
        self._copy.rename(shard.path)
        at = collection.shards.index(shard)
        fresh = Shard(shard.path, edge.EdgeShard.load(str(shard.path), collection.config))
        fresh.points_built = fresh.points  # else one that keeps what it has lost would be built for ever
        collection.shards[at] = fresh
        shutil.rmtree(aside)
        self.shard = self.collection = None

    def _give_up(self) -> None:
        if self.shard is not None:
            shutil.rmtree(self._copy, ignore_errors=True)
            self.shard.gone_since = None
        self.shard = self.collection = None

    def stop(self) -> None:
        """Ends what is under way; the next start begins again."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self._give_up()


class Keeper:
    """Answers requests."""

    def __init__(self, folder: Path, dim: int, m: int, ef: int) -> None:
        self.folder = folder
        self.shape = dim, m, ef
        self.builder = Builder()
        self.flushed_s = time.monotonic()
        self.collections: dict[str, Collection] = {}
        folder.mkdir(parents=True, exist_ok=True)
        suffix = f"-{dim}"
        for path in sorted(folder.iterdir()):
            if path.name.startswith("dropped-"):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir() and path.name.endswith(suffix):
                self.collections[path.name] = Collection(path, *self.shape)

    def answer(self, operation: str, words: list[Any]) -> Any:
        """The result of one request."""
        known: dict[str, Callable[..., Any]] = {
            "probe": lambda: None, "upsert": self.upsert, "delete": self.delete, "drop": self.drop, "get": self.get,
            "search": self.search, "page": self.page, "count": self.count, "figures": self.figures,
        }  # fmt: skip
        return known[operation](*words)

    def upsert(self, name: str, rows: list[Any]) -> None:
        if name not in self.collections:
            self.collections[name] = Collection(self.folder / name, *self.shape)
        self.collections[name].upsert(rows)

    def delete(self, name: str, ids: list[str]) -> None:
        if name in self.collections:
            self.collections[name].delete(ids)

    def drop(self, name: str) -> None:
        found = self.collections.pop(name, None)
        if found is None:
            return
        if self.builder.collection is found:
            self.builder.stop()
        for shard in found.shards:
            shard.edge.close()
        aside = self.folder / f"dropped-{time.time_ns()}"
        found.folder.rename(aside)
        shutil.rmtree(aside)

    def get(self, name: str, ids: list[str]) -> list[Any]:
        found = self.collections.get(name)
        return found.get(ids) if found is not None else [None] * len(ids)

    def search(self, name: str, vectors: list[bytes], count: int, tenant: str, least: float | None) -> list[Hits]:
        found = self.collections.get(name)
        return found.search(vectors, count, tenant, least) if found is not None else [[] for _ in vectors]

    def page(self, name: str, tenant: str, after: str | None, count: int) -> tuple[list[Any], str | None]:
        found = self.collections.get(name)
        return found.page(tenant, after, count) if found is not None else ([], None)

    def count(self, prefix: str) -> dict[str, int]:
        return {name: each.points for name, each in self.collections.items() if name.startswith(prefix)}

    def figures(self) -> dict[str, int]:
        shards = [shard for each in self.collections.values() for shard in each.shards]
        return {
            "shards": len(shards), "indexed": sum(min(shard.indexed, shard.points) for shard in shards),
            "waiting": sum(shard.wants_index() for each in self.collections.values() for shard in each.sealed),
            "built": self.builder.built, "build_failures": self.builder.failed,
            "broken_shards": sum(each.broken for each in self.collections.values()),
        }  # fmt: skip

    def housekeeping(self) -> None:
        """What nobody waits for."""
        self.builder.step(list(self.collections.values()))
        if time.monotonic() - self.flushed_s >= FLUSH_S:
            for collection in self.collections.values():
                for shard in collection.shards:
                    shard.flush()
            self.flushed_s = time.monotonic()

    def close(self) -> None:
        self.builder.stop()
        for collection in self.collections.values():
            collection.close()


def serve(keeper: Keeper, source: int, sink: BinaryIO) -> None:
    """Answers until standard input ends."""
    data = bytearray()
    kept_s = time.monotonic()
    while True:
        if select.select([source], [], [], HOUSEKEEPING_S)[0]:
            piece = os.read(source, 1 << 20)
            if not piece:
                return
            data += piece
        at = 0
        while len(data) - at >= LENGTH.size:
            size = LENGTH.unpack_from(data, at)[0]
            if size > MESSAGE_MAX:
                raise ValueError(f"a message of {size} bytes")
            if len(data) - at - LENGTH.size < size:
                break
            begin = at + LENGTH.size
            number, operation, *words = msgpack.unpackb(memoryview(data)[begin : begin + size])
            at = begin + size
            try:
                said = [number, True, keeper.answer(operation, words)]
            except Exception as error:  # qdrant-edge raises nothing more particular
                said = [number, False, f"{type(error).__name__}: {error}"]
            reply = msgpack.packb(said)
            sink.write(LENGTH.pack(len(reply)) + reply)
            sink.flush()
        del data[:at]
        if time.monotonic() - kept_s >= HOUSEKEEPING_S:
            keeper.housekeeping()
            kept_s = time.monotonic()


def index(path: str) -> None:
    """Builds the graph of the shard there."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # with who began it: the copy is nobody's then
    shard = edge.EdgeShard.load(path)
    shard.optimize()
    shard.flush()
    shard.close()


def main(words: list[str]) -> int:
    """`--index SHARD`, or `FOLDER DIM M EF`."""
    for each in (signal.SIGINT, signal.SIGTERM):  # who began us ends us, by closing our standard input
        signal.signal(each, signal.SIG_IGN)
    if words[0] == "--index":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        index(words[1])
        return 0
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")  # to the server's standard error
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints must not stand among the replies
    keeper = Keeper(Path(words[0]), *map(int, words[1:4]))
    try:
        ready = msgpack.packb([0, True, "ready"])
        sink.write(LENGTH.pack(len(ready)) + ready)
        sink.flush()
        serve(keeper, 0, sink)
    except BrokenPipeError:
        pass
    finally:
        keeper.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
