"""The AOF's manifest: which files make it up, and in which order; Redis's own format.

A line a file: `file NAME seq N type T`, T being b (the base, one at most), i (an increment) or h (history: replaced, to
be deleted). The manifest is replaced as a whole, so whatever happens it names either the old set of files or the new.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from zeekdb.config.file import split_arguments
from zeekdb.config.units import quoted

LINE_MAX: Final = 1024  # bytes, as redis-server reads them
SUFFIX: Final = ".manifest"


class BadManifest(Exception):
    """It is no manifest; the message names the line."""


@dataclass(frozen=True, slots=True)
class AofFile:
    """One line."""

    name: str
    seq: int
    kind: str  # b, i or h

    @property
    def is_made_whole(self) -> bool:
        """Whether it was complete before it had its name: no crash tears it. (A base may also be the one file of a
        server before 7.0.)"""
        return self.kind == "b" and ".base." in self.name

    def line(self) -> str:
        """As it stands in the manifest."""
        plain = all(" " < c < "\x7f" and c not in "\"'\\" for c in self.name)
        return f"file {self.name if plain else quoted(self.name)} seq {self.seq} type {self.kind}\n"


@dataclass(slots=True)
class Manifest:
    """The files of one AOF."""

    base: AofFile | None = None
    increments: list[AofFile] = field(default_factory=list)
    history: list[AofFile] = field(default_factory=list)
    base_seq: int = 0
    increment_seq: int = 0

    @property
    def files(self) -> list[AofFile]:
        """What is to be loaded, in order."""
        return [*([self.base] if self.base else []), *self.increments]

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """BadManifest."""
        manifest = cls()
        for number, line in enumerate(text.splitlines(), 1):
            if not line.startswith("#"):  # a comment
                manifest._add(number, line)
        if not manifest.files and not manifest.history:
            raise BadManifest("Found an empty AOF manifest")
        return manifest

    def _add(self, number: int, line: str) -> None:
        words = split_arguments(line) if len(line) < LINE_MAX else None
        if not words or len(words) % 2:
            raise BadManifest(f"Invalid AOF manifest file format at line {number}: {line[:80]!r}")
        given = {words[i].lower(): words[i + 1] for i in range(0, len(words), 2)}
        name, seq, kind = given.get("file", ""), given.get("seq", ""), given.get("type", "")
        if not name or not seq.isdigit() or int(seq) < 1 or kind not in ("b", "i", "h"):
            raise BadManifest(f"Invalid AOF manifest file format at line {number}: {line[:80]!r}")
        if "/" in name or name in (".", ".."):
            raise BadManifest(f"File can't be a path, just a filename, at line {number}: {line[:80]!r}")
        file = AofFile(name, int(seq), kind)
        if kind == "b":
            if self.base is not None:
                raise BadManifest(f"Found duplicate base file information at line {number}: {line[:80]!r}")
            self.base, self.base_seq = file, file.seq
        elif kind == "h":
            self.history.append(file)
        else:
            if file.seq <= self.increment_seq:
                raise BadManifest(f"Found a non-monotonic sequence number at line {number}: {line[:80]!r}")
            self.increments.append(file)
            self.increment_seq = file.seq

    def text(self) -> str:
        """As it is written."""
        base = [self.base] if self.base else []
        return "".join(file.line() for file in (*base, *self.history, *self.increments))

    # ------------------------------------------------------------ the next set of files

    def next_base(self, stem: str, is_rdb: bool) -> AofFile:
        """The file that a rewrite makes."""
        self.base_seq += 1
        return AofFile(f"{stem}.{self.base_seq}.base.{'rdb' if is_rdb else 'aof'}", self.base_seq, "b")

    def next_increment(self, stem: str) -> AofFile:
        """The file that is appended to from now on."""
        self.increment_seq += 1
        return AofFile(f"{stem}.{self.increment_seq}.incr.aof", self.increment_seq, "i")

    def with_increment(self, file: AofFile) -> Manifest:
        """One file more."""
        return Manifest(self.base, [*self.increments, file], self.history, self.base_seq, self.increment_seq)

    def rewritten(self, base: AofFile, kept: list[AofFile]) -> Manifest:
        """A new base stands for everything but the increments in `kept`; the rest is history."""
        replaced = [file for file in self.files if file not in kept]
        history = [AofFile(file.name, file.seq, "h") for file in replaced]
        return Manifest(base, kept, [*self.history, *history], self.base_seq, self.increment_seq)

    def without_history(self) -> Manifest:
        """What was replaced is deleted."""
        return Manifest(self.base, self.increments, [], self.base_seq, self.increment_seq)


def read(path: Path) -> Manifest:
    """BadManifest, OSError."""
    return Manifest.parse(path.read_text("utf-8", "surrogateescape"))


def temporary_of(path: Path) -> Path:
    """Where a manifest is written before it takes its name."""
    return path.with_name(f"temp-{path.name}")


def announce(path: Path) -> None:
    """Files are about to come for which there is no manifest yet: until it comes they stand for nothing. OSError."""
    temporary_of(path).touch()
    sync_folder(path.parent)


def is_announced(path: Path) -> bool:
    """Whether files without this manifest are those of a beginning that was cut short."""
    return temporary_of(path).exists()


def settle(path: Path) -> None:
    """The manifest is there: what a crash may have left beside it says nothing any more. OSError."""
    if is_announced(path):
        temporary_of(path).unlink()
        sync_folder(path.parent)


def write(path: Path, manifest: Manifest) -> None:
    """The file is this manifest, on the disk, or stays what it was. OSError."""
    temporary = temporary_of(path)
    try:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(manifest.text())
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)  # the files that it names, before it
        temporary.replace(path)
    except OSError:
        if path.exists():  # otherwise what is left announces it: see `announce`
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """It is there, on the disk. OSError."""
    if not folder.is_dir():
        folder.mkdir(mode=0o755)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Names in the folder are on the disk. OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
