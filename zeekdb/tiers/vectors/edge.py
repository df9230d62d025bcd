"""Vectors in a directory of this machine: qdrant-edge in a process of its own (`keeper`), spoken to over pipes.

The process is begun with the first need and again when it has died; what it had answered it has kept. It ends when its
standard input does, however this process ends.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgpack

from zeekdb.errors import Unavailable
from zeekdb.tiers.vectors.engine import Engine, EngineFailed, Hit, Options, Row

LENGTH: Final = struct.Struct("<I")
MESSAGE_MAX: Final = 256 << 20
START_S: Final = 30.0
END_S: Final = 10.0
ROOT: Final = Path(__file__).resolve().parents[3]  # what `import zeekdb` needs in sys.path


class EdgeEngine(Engine):
    """See the module."""

    name = "qdrant-edge"
    slow_open_s = START_S

    def __init__(self, folder: str, options: Options) -> None:
        if importlib.util.find_spec("qdrant_edge") is None:
            raise ImportError("qdrant_edge")
        self.folder = Path(folder)
        self.options = options
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._is_closed = False

    async def open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"kv-qdrant-url: can't make {self.folder}: {error.strerror}") from None
        try:
            async with asyncio.timeout(START_S):
                await self._ready()
        except (EngineFailed, TimeoutError) as error:
            await self.close()
            raise Unavailable(f"kv-qdrant-url: {self.folder}: {error or 'it took too long to open'}") from None

    async def _ready(self) -> None:
        """Until there is a process that answers. EngineFailed."""
        if self._is_closed:
            raise EngineFailed("closed")
        if self._process is not None and self._process.returncode is None and self._starting is None:
            return
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        try:
            await self._begin()
        finally:
            self._starting = None

    async def _begin(self) -> None:
        await self._end()
        path = os.pathsep.join(each for each in (str(ROOT), os.environ.get("PYTHONPATH", "")) if each)
        shape = map(str, self.options)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "zeekdb.tiers.vectors.keeper", str(self.folder), *shape,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path}, start_new_session=True, limit=1 << 20,
            )  # fmt: skip
        except OSError as error:
            raise EngineFailed(f"can't begin qdrant-edge's process: {error}") from None
        said: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[0] = said
        self._reader = asyncio.get_running_loop().create_task(self._read(self._process))
        await said

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        why = "qdrant-edge's process has ended, see the server's log"
        try:
            while True:
                size = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))[0]
                if size > MESSAGE_MAX:
                    raise OSError(f"an answer of {size} bytes")
                number, is_done, result = msgpack.unpackb(await process.stdout.readexactly(size))
                asked = self._asked.pop(number, None)
                if asked is None or asked.done():
                    continue  # nobody waits for it any more
                if is_done:
                    asked.set_result(result)
                else:
                    asked.set_exception(EngineFailed(result))
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            if not isinstance(error, asyncio.IncompleteReadError):
                why = f"qdrant-edge's process: {error}"
        finally:
            if process.returncode is None and not self._is_closed:
                _kill(process)
            await process.wait()
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_exception(EngineFailed(why))
                    asked.exception()  # seen: whoever asked may have gone
            self._asked.clear()

    async def _end(self) -> None:
        """Of the process, after what it was told."""
        process, reader = self._process, self._reader
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            _kill(process)
            await process.wait()
        if reader is not None:
            await reader
        self._process = self._reader = None

    async def _ask(self, operation: str, *words: Any) -> Any:
        await self._ready()
        process = self._process
        if process is None or process.stdin is None or process.returncode is not None:
            raise EngineFailed("qdrant-edge's process has ended")
        self._number += 1
        number = self._number
        data = msgpack.packb([number, operation, *words])
        asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked
        try:
            process.stdin.write(LENGTH.pack(len(data)) + data)
            await process.stdin.drain()
            return await asked
        except (OSError, RuntimeError) as error:  # the pipe is closed
            raise EngineFailed(f"qdrant-edge's process: {error}") from None
        finally:
            self._asked.pop(number, None)

    async def probe(self) -> None:
        await self._ask("probe")

    async def upsert(self, collection: str, rows: Sequence[Row]) -> None:
        await self._ask("upsert", collection, [tuple(row) for row in rows])

    async def delete(self, collection: str, ids: Sequence[str]) -> None:
        await self._ask("delete", collection, list(ids))

    async def drop(self, collection: str) -> None:
        await self._ask("drop", collection)

    async def get(self, collection: str, ids: Sequence[str]) -> list[Row | None]:
        return [Row(*each) if each is not None else None for each in await self._ask("get", collection, list(ids))]

    async def search(
        self, collection: str, vectors: Sequence[bytes], count: int, tenant: str, least: float | None
    ) -> list[list[Hit]]:
        found = await self._ask("search", collection, list(vectors), count, tenant, least)
        return [[Hit(*each) for each in hits] for hits in found]

    async def page(
        self, collection: str, tenant: str, after: str | None, count: int
    ) -> tuple[list[Row], str | None]:  # fmt: skip
        rows, following = await self._ask("page", collection, tenant, after, count)
        return [Row(*each) for each in rows], following

    async def count(self, prefix: str) -> dict[str, int]:
        found: dict[str, int] = await self._ask("count", prefix)
        return found

    async def figures(self) -> dict[str, int]:
        """shards, and of rows: indexed; of shards: waiting to be indexed; built, build_failures, broken_shards."""
        found: dict[str, int] = await self._ask("figures")
        return found

    async def close(self) -> None:
        self._is_closed = True
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await self._end()


def _kill(process: asyncio.subprocess.Process) -> None:
    try:
        process.kill()
    except ProcessLookupError:
        pass
