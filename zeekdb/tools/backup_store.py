"""Backups as they lie on a disk: a directory each, with a `backup.json` that says what it is and what it needs.

A backup is full or an increment upon another one, its parent. It holds an RDB file, or ranges of the files of an
append-only file: a full one each from its begin, an increment what was appended since the parent, cut behind whole
commands. So a chain, put together file by file, is an append-only file again.

A backup is made under a name that nobody takes for one, synced, and then renamed: it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from zeekdb.persistence.manifest import sync_folder
from zeekdb.tools.console import ToolError

DESCRIPTION: Final = "backup.json"
FORMAT: Final = 1
TEMPORARY: Final = ".temporary-"
LOCK: Final = ".lock"
RDB: Final = "dump.rdb"
TAIL_BYTES: Final = 4096  # before the end of a range, to know the file again
POLL_S: Final = 0.05


@dataclass
class Piece:
    """A file of a backup: a range of the file of the same name over there."""

    name: str
    offset: int
    size: int  # bytes
    sha256: str


@dataclass
class AofEnd:
    """How far a file of an append-only file is contained in a chain."""

    name: str
    seq: int
    type: str  # b or i, as in the manifest
    end: int  # bytes
    tail: str  # SHA-256 of the last TAIL_BYTES before the end


@dataclass
class Aof:
    """An append-only file as a backup found it."""

    directory: str
    stem: str  # appendfilename
    files: list[AofEnd]
    base_s: int = 0  # Unix: the moment that the base shows; 0: there is none
    first_s: int = -1  # of the `#TS:` annotations in this backup's pieces, Unix; -1: none
    last_s: int = -1
    timed: bool | None = None  # an annotation stands before the first command behind the base; None: no commands yet


@dataclass
class Backup:
    """What `backup.json` says."""

    id: str
    kind: Literal["full", "incr"]
    content: Literal["aof", "rdb"]
    parent: str  # "": none
    created_ms: int  # Unix; the moment that it shows
    server: dict[str, str]
    databases: dict[str, int]  # keys, by number
    files: list[Piece]
    aof: Aof | None = None
    path: Path = field(default_factory=Path, compare=False)

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return sum(piece.size for piece in self.files)

    @property
    def source(self) -> str:
        """Where the server was."""
        return self.server.get("address", "")

    @property
    def keys(self) -> int:
        """Of all databases."""
        return sum(self.databases.values())

    @property
    def created_s(self) -> float:
        """Unix."""
        return self.created_ms / 1000

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        fields = asdict(self)
        del fields["path"]
        return {"format": FORMAT, **fields}

    @classmethod
    def read(cls, path: Path) -> Backup:
        """A backup's directory. ToolError."""
        try:
            fields = json.loads((path / DESCRIPTION).read_text("utf-8"))
            if fields.pop("format") != FORMAT:
                raise ValueError("another release has made it")
            aof = fields.pop("aof")
            if aof is not None:
                aof = Aof(**{**aof, "files": [AofEnd(**file) for file in aof["files"]]})
            made = cls(**{**fields, "files": [Piece(**piece) for piece in fields["files"]]}, aof=aof, path=path)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ToolError(f"{path}: its {DESCRIPTION} cannot be read: {error}") from None
        names = [piece.name for piece in made.files] + [file.name for file in (aof.files if aof else [])]
        if made.id != path.name or any("/" in name or name in (".", "..", "") for name in names):
            raise ToolError(f"{path}: its {DESCRIPTION} describes something else")
        return made


@dataclass
class Store:
    """A directory of backups."""

    root: Path

    def backups(self) -> tuple[list[Backup], list[str]]:
        """All that can be read, oldest first, and complaints about the others. ToolError."""
        found, complaints = [], []
        try:
            paths = sorted(path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        except OSError as error:
            raise ToolError(f"{self.root}: {error.strerror}") from None
        for path in paths:
            if not (path / DESCRIPTION).exists() and not path.name.endswith(("-full", "-incr")):
                continue  # something of somebody else
            try:
                found.append(Backup.read(path))
            except ToolError as error:
                complaints.append(str(error))
        return sorted(found, key=lambda each: (each.created_ms, each.id)), complaints

    def find(self, name: str) -> Backup:
        """By id, or `latest`. ToolError."""
        found, _ = self.backups()
        if name == "latest" and found:
            sources = sorted({each.source for each in found})
            if len(sources) > 1:
                servers = ", ".join(sources)
                raise ToolError(f"{self.root} has backups of several servers ({servers}): name one by its id")
            return found[-1]
        for each in found:
            if each.id == name:
                return each
        raise ToolError(f"there is no backup {name!r} in {self.root}" if found else f"no backups in {self.root}")

    def chain(self, backup: Backup) -> list[Backup]:
        """The full backup that this one builds upon, and everything up to it. ToolError when a parent is missing."""
        by_id = {each.id: each for each in self.backups()[0]}
        chain = [backup]
        while chain[0].kind == "incr":
            parent = by_id.get(chain[0].parent)
            if parent is None or parent in chain:
                raise ToolError(f"{chain[0].id}: its parent {chain[0].parent} is not there")
            chain.insert(0, parent)
        return chain

    # ------------------------------------------------------------ changes

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else makes or removes backups here. ToolError."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ToolError(f"{self.root}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ToolError(f"another zeekdb backup is at work in {self.root}") from None
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def making(self) -> Iterator[Path]:
        """A directory for a new backup, gone when `publish` was not called."""
        path = self.root / f"{TEMPORARY}{os.getpid()}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def new_stamp(self) -> tuple[str, int]:
        """What the name of a new backup begins with, and the moment (Unix ms); a second has one backup only."""
        while True:
            now_ms = time.time_ns() // 1_000_000
            stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
            if not any((self.root / f"{stamp}-{each}").exists() for each in ("full", "incr")):
                return stamp, now_ms
            time.sleep(POLL_S)

    def publish(self, temporary: Path, backup: Backup) -> None:
        """From now on it is a backup. OSError."""
        with (temporary / DESCRIPTION).open("w", encoding="utf-8") as file:
            json.dump(backup.to_json(), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(temporary)
        backup.path = self.root / backup.id
        temporary.rename(backup.path)
        sync_folder(self.root)

    def remove(self, backup: Backup) -> None:
        """First the name, then the data: what is left of an interrupted removal is no backup. OSError."""
        doomed = self.root / f"{TEMPORARY}removed-{backup.id}"
        backup.path.rename(doomed)
        sync_folder(self.root)
        shutil.rmtree(doomed)

    def clear(self) -> None:
        """What interrupted tools have left. Under the lock only."""
        for path in self.root.glob(f"{TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)


def write_piece(path: Path, name: str, offset: int, pieces: Iterator[bytes]) -> Piece:
    """A new file of a backup, on the disk. OSError."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            try:
                file.write(piece)
            except OSError as error:  # which names no file when a disk is full
                raise OSError(error.errno, error.strerror, str(path / name)) from None
        file.flush()
        os.fsync(file.fileno())
    return Piece(name, offset, size, digest.hexdigest())
