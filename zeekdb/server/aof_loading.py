"""Loading the append-only file at start: the base, then every increment in order, as Redis does and says it."""

from __future__ import annotations

import contextlib
import glob
import logging
import mmap
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from zeekdb.errors import CommandError
from zeekdb.hot.rdb import DamagedValue
from zeekdb.hot.replay import Replay
from zeekdb.persistence import aof_file
from zeekdb.persistence import manifest as manifests
from zeekdb.persistence.manifest import AofFile, BadManifest, Manifest

if TYPE_CHECKING:
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

RDB_MAGIC = b"REDIS"
SENSELESS = ("it does not follow the protocol", "a command was expected")  # of `replay`: what zeros look like


class CannotLoad(Exception):
    """The files are not what they should be; the message says what and where."""


class AofLoader:
    """Loads one directory."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.truncate = bool(server.config.aof_load_truncated)

    @property
    def folder(self) -> Path:
        return self.server.appendonly.directory

    async def load(self) -> Manifest | None:
        """The manifest of what was loaded; None when there is nothing. CannotLoad."""
        config = self.server.config
        path = self.server.appendonly.manifest_path
        single = Path(str(config.dir), str(config.appendfilename))
        try:
            if not path.exists() and not manifests.is_announced(path):
                stem = glob.escape(path.name.removesuffix(manifests.SUFFIX))
                for orphan in sorted(self.folder.glob(f"{stem}.*.*.*")):
                    if orphan.stat().st_size:  # an empty one is left by a crash at the first start
                        raise CannotLoad(f"{orphan} is there, but not the AOF manifest {path} that should name it")
            if not path.exists():
                if single.is_file():
                    return await self._upgrade(single, path)
                return None
            manifest = manifests.read(path)
        except (OSError, BadManifest) as error:
            raise CannotLoad(f"the AOF manifest {path}: {error}") from None
        await self._load_files(manifest)
        return manifest

    async def _upgrade(self, single: Path, path: Path) -> Manifest:
        """The one file of servers before 7.0 becomes the base. OSError."""
        manifests.make_folder(self.folder)
        base = AofFile(single.name, 1, "b")
        self.server.loader.expect(single.stat().st_size)
        manifest = Manifest(base, [], [], 1, 0)
        await self._load_file(single, last=True)
        manifests.write(path, manifest)
        single.replace(self.folder / base.name)
        manifests.sync_folder(self.folder)
        log.warning("Successfully migrated an old-style AOF configuration (%s) into the AOF directory", single)
        return manifest

    async def _load_files(self, manifest: Manifest) -> None:
        config, files = self.server.config, manifest.files
        single = Path(str(config.dir), str(config.appendfilename))
        moved = self.folder / single.name
        if len(files) == 1 and files[0].name == single.name and single.is_file() and not moved.exists():
            single.replace(moved)  # a crash has interrupted the move
            manifests.sync_folder(self.folder)
        missing = [file.name for file in manifest.files if not (self.folder / file.name).is_file()]
        if missing:
            raise CannotLoad(f"the AOF file {self.folder / missing[0]} doesn't exist")
        # A crash between two increments may leave the first one torn, and then there is nothing in the second.
        filled = [file for file in files if (self.folder / file.name).stat().st_size]
        self.server.loader.expect(sum((self.folder / file.name).stat().st_size for file in filled))
        for file in files:
            may_be_torn = (not filled or file == filled[-1]) and not file.is_made_whole
            await self._load_file(self.folder / file.name, last=may_be_torn)

    async def _load_file(self, path: Path, last: bool) -> None:
        """CannotLoad."""
        begin_s = time.monotonic()
        try:
            size = path.stat().st_size
            if size == 0 and path.suffix == ".rdb":
                raise CannotLoad(f"the AOF base {path} is empty")
            if size == 0:
                return
            with path.open("r+b" if self.truncate else "rb") as file:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as data:
                    end = await self._load_data(path, data, last)
                if end < size:
                    file.truncate(end)
                    file.flush()
                    os.fsync(file.fileno())
                    log.warning("AOF %s loaded anyway because aof-load-truncated is enabled", path)
        except OSError as error:
            raise CannotLoad(f"{path}: {error.strerror or error}") from None
        log.warning("DB loaded from append only file %s: %.3f seconds", path.name, time.monotonic() - begin_s)

    async def _load_data(self, path: Path, data: mmap.mmap, last: bool) -> int:
        """How many bytes are whole."""
        at = 0
        if data[:5] == RDB_MAGIC:
            try:
                at = await self.server.saving.load_image(data)
            except (DamagedValue, CommandError) as error:
                raise CannotLoad(f"{path}: the RDB part is damaged: {error}") from None
        size = len(data)
        errors = self.server.engine.error_replies
        with contextlib.closing(Replay(self.server.engine, self.server.replayer(), data, at)) as slices:
            await self.server.loader.run(slices)
            end, verdict = slices.whole, slices.verdict
        if failed := self.server.engine.error_replies - errors:
            log.warning("%d commands of the AOF file %s failed: it may be damaged, or of a newer server", failed, path)
        if verdict == "whole":
            return size
        hole = verdict in SENSELESS and last and self.truncate and aof_file.is_unwritten(data, end)
        behind = aof_file.follows_whole(data, end) if verdict == "torn" else -1
        if hole or (verdict == "torn" and behind < 0 and last and self.truncate):
            log.warning("!!! Warning: short read while loading the AOF file %s!!!", path)
            if hole:
                self._keep_cut(path, data, end)
            log.warning("AOF loaded anyway: truncating at offset %d, which loses %d bytes", end, size - end)
            return end
        if verdict == "torn" and behind < 0:
            why = "" if last else ", and it is not the last increment"
            raise CannotLoad(
                f"unexpected end of file reading the append only file {path}: the last whole command ends at offset "
                f"{end}{why}. You can repair it with: zeekdb check --fix {path}, or set aof-load-truncated to yes"
            )
        if verdict == "torn":
            verdict = f"a command seems to be cut off, but whole ones follow at offset {behind}: its length is wrong"
        raise CannotLoad(
            f"bad file format reading the append only file {path} at offset {end}: {verdict}. Make a backup of it, "
            f"then: zeekdb check --fix {path}"
        )

    def _keep_cut(self, path: Path, data: mmap.mmap, at: int) -> None:
        """What is behind a hole goes to a file of its own: perhaps it was no crash that made the hole. OSError."""
        rest = data[at:]
        if not any(rest):
            return
        kept = path.with_name(f"cut-{at}-{path.name}")
        with kept.open("wb") as file:
            file.write(rest)
            file.flush()
            os.fsync(file.fileno())
        manifests.sync_folder(path.parent)
        log.warning("There is a hole at offset %d; what is behind it was moved to %s", at, kept)
