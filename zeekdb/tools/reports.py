"""What a check has found, for people and for programs, and the careful ways to change a file."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from zeekdb.persistence.manifest import sync_folder
from zeekdb.tools.console import ToolError, say, size_text

CHUNK: Final = 1 << 20  # bytes copied at once


@dataclass
class Report:
    """One file or folder. It is well when it and its parts have no problem."""

    path: Path
    kind: str
    size: int = 0  # bytes
    facts: dict[str, Any] = field(default_factory=dict)  # for JSON
    lines: list[str] = field(default_factory=list)  # the same for people
    notes: list[str] = field(default_factory=list)  # what is odd but harmless
    problems: list[str] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)  # what --fix has done about them
    remains: list[str] = field(default_factory=list)  # what it could not do anything about
    remedy: str = ""  # what --fix would do
    parts: list[Report] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether a server can start from this, as it is now."""
        mended = not self.problems or (bool(self.fixed) and not self.remains)
        return mended and all(part.well for part in self.parts)

    def show(self, indent: str = "") -> None:
        """For people."""
        size = f", {size_text(self.size)}" if self.size or not self.parts else ""
        say(f"{indent}{self.path.name or self.path}: {self.kind}{size}")
        for line in self.lines:
            say(f"{indent}  {line}")
        for part in self.parts:
            part.show(indent + "  ")
        for note in self.notes:
            say(f"{indent}  note: {note}")
        for problem in self.problems:
            say(f"{indent}  PROBLEM: {problem}")
        for line in self.fixed:
            say(f"{indent}  fixed: {line}")
        for line in self.remains:
            say(f"{indent}  PROBLEM: {line}")
        if self.problems and self.remedy and not self.fixed:
            say(f"{indent}  {self.remedy}")

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "size": self.size,
            "ok": self.well,
            **self.facts,
            "notes": self.notes,
            "problems": self.problems,
            "fixed": self.fixed,
            "remains": self.remains,
            "remedy": self.remedy,
            "parts": [part.to_json() for part in self.parts],
        }


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    """A file's bytes, read from the disk as they are looked at. ToolError when it cannot be opened."""
    data: mmap.mmap | bytes = b""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror or error}") from None
    if isinstance(data, bytes):
        yield data
        return
    with data:
        data.madvise(mmap.MADV_SEQUENTIAL)
        yield data


def free_name(path: Path) -> Path:
    """The path, or with the first number behind it that no file has."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def write_whole(path: Path, pieces: Iterator[bytes]) -> int:
    """A new file, on the disk; its size. OSError, and there is none."""
    size = 0
    try:
        with path.open("xb") as file:
            for piece in pieces:
                file.write(piece)
                size += len(piece)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        if isinstance(error, OSError) and not error.filename:  # a full disk, say
            error.filename = str(path)
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    sync_folder(path.parent)
    return size


def chunks(data: mmap.mmap | bytes, begin: int, end: int) -> Iterator[bytes]:
    """A part of a file, piece by piece."""
    for at in range(begin, end, CHUNK):
        yield data[at : min(at + CHUNK, end)]


def replace_keeping(new: Path, path: Path, kept: Path) -> None:
    """`new` takes the place of `path`, which stays as `kept`; at every moment `path` is one of both. OSError."""
    with contextlib.suppress(OSError):
        os.chmod(new, path.stat().st_mode & 0o7777)
    try:
        os.link(path, kept)
    except OSError:  # a file system without links: for a moment there is only `kept`
        path.replace(kept)
    new.replace(path)
    sync_folder(path.parent)
