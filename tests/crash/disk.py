"""What a disk may hold after the power has failed, from a journal of everything that a process did to it (disk.c).

Only what a sync has confirmed is certain. Since then every sector of 512 bytes may be as it was at any moment, and so
may the file's length: writes are there, missing, torn, or have left only a length and zeros. A name that was made,
moved or removed since the folder's last sync may have been so or not, each for itself. That is more than any one file
system does, and what POSIX allows.
"""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

SECTOR = 512
HEAD = struct.Struct("<IIiIqq")
NS = 1e-9


class NoCompiler(Exception):
    """The library cannot be made here."""


def build(place: Path) -> Path:
    """disk.c as a library in the folder. NoCompiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("there is no C compiler")
    library = place / "disk.so"
    source = Path(__file__).with_name("disk.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-pthread", "-o", library, source], check=True)
    return library


def environment(library: Path, folder: Path, journal: Path, sync_us: int) -> dict[str, str]:
    """For a process whose files under the folder are of this kind; a sync takes up to `sync_us` microseconds."""
    return {
        "LD_PRELOAD": str(library), "DISK_FOLDER": str(folder), "DISK_JOURNAL": str(journal),
        "DISK_SYNC_US": str(sync_us),
    }  # fmt: skip


class Record(NamedTuple):
    """One thing that was done; see disk.c."""

    kind: str
    fd: int
    number: int
    first: bytes
    second: bytes
    time_s: float


def records(journal: Path) -> list[Record]:
    """All that are whole."""
    data, at, found = journal.read_bytes(), 0, []
    while at + HEAD.size <= len(data):
        n, m, fd, kind, number, time_ns = HEAD.unpack_from(data, at)
        body = at + HEAD.size
        at = body + n + m
        if at <= len(data):
            found.append(Record(chr(kind), fd, number, data[body : body + n], data[body + n : at], time_ns * NS))
    return found


@dataclass(eq=False)
class File:
    """What is certain of a file, and what was done to it since: (when, offset, data), or (when, length, None)."""

    sure: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, int, bytes | None]] = field(default_factory=list)

    def confirm(self, before: int) -> None:
        """A sync that began then is over."""
        for _, at, data in [each for each in self.since if each[0] < before]:
            put(self.sure, at, data)
        self.since = [each for each in self.since if each[0] >= before]

    def content(self, dice: Random | None, how: str) -> bytearray:
        """As it may be; without dice: as the process has seen it."""
        found, count = bytearray(self.sure), len(self.since)
        if dice is None or how == "kept":
            through = count
        elif how == "lost":
            through = 0
        elif how == "first" or any(data is None for *_, data in self.since):
            through = dice.randint(0, count)
        else:
            self._scatter(found, dice)
            return found
        for _, at, data in self.since[:through]:
            put(found, at, data)
        if how == "first" and through < count and dice is not None:  # the next write is torn, or only a length
            _, at, data = self.since[through]
            if data is not None:
                reached = max((at + dice.randint(0, len(data))) // SECTOR * SECTOR - at, 0)
                put(found, at, data[:reached] + bytes(dice.choice((0, len(data) - reached))))
        return found

    def _scatter(self, found: bytearray, dice: Random) -> None:
        """The length as it was at some moment, and every sector as it was at some moment: most alike, some not."""
        count = len(self.since)
        length = max((at + len(data or b"") for _, at, data in self.since), default=0)
        length = max(length, len(self.sure))
        lowest = min((at for _, at, _ in self.since), default=0)
        runs = []
        for _ in range(dice.randint(1, 4)):
            first = dice.randint(lowest, length) // SECTOR
            runs.append((first, first + int(2 ** dice.uniform(0, 9)), dice.choice((0, dice.randint(0, count)))))
        usual = dice.choice((0, count, count, dice.randint(0, count)))
        for index, (_, at, data) in enumerate(self.since):
            assert data is not None
            end = at + len(data)
            edges = [at, *range((at // SECTOR + 1) * SECTOR, end, SECTOR), end]
            for a, b in itertools.pairwise(edges):
                seen = next((seen for first, end, seen in runs if first <= a // SECTOR < end), usual)
                if index < seen:
                    put(found, a, data[a - at : b - at])
        grown = dice.choice((len(found), length, dice.randint(len(self.sure), length)))
        del found[grown:]
        found.extend(bytes(grown - len(found)))


def put(content: bytearray, at: int, data: bytes | None) -> None:
    """A write, or a truncation."""
    if data is None:
        del content[at:]
        content.extend(bytes(at - len(content)))
        return
    content.extend(bytes(max(at - len(content), 0)))
    content[at : at + len(data)] = data


@dataclass(eq=False)
class Folder:
    """The names of which one can be sure, and what was done to them since: (when, what they stand for then)."""

    sure: dict[str, File | Folder] = field(default_factory=dict)
    since: list[tuple[int, dict[str, File | Folder | None]]] = field(default_factory=list)

    def confirm(self, before: int) -> None:
        """A sync that began then is over."""
        for _, names in [each for each in self.since if each[0] < before]:
            rename(self.sure, names)
        self.since = [each for each in self.since if each[0] >= before]

    def names(self, dice: Random | None = None, how: str = "kept") -> dict[str, File | Folder]:
        """As they may be; without dice: as the process has seen them."""
        found = dict(self.sure)
        last = dice.randint(0, len(self.since)) if dice is not None else 0
        for index, (_, names) in enumerate(self.since):
            chosen = how == "any" and dice is not None and dice.random() < 0.5
            if chosen or dice is None or how == "kept" or (how == "first" and index < last):
                rename(found, names)
        return found


def rename(names: dict[str, File | Folder], changed: dict[str, File | Folder | None]) -> None:
    """Names come, go, or stand for something else."""
    for name, what in changed.items():
        if what is None:
            names.pop(name, None)
        else:
            names[name] = what


class Disk:
    """The files under a folder, as a journal of what was done to them goes on."""

    def __init__(self, root: str, before: Path | None = None) -> None:
        self.prefix = root
        self.root = read(before) if before is not None else Folder()
        self.open: dict[int, File | Folder] = {}
        self.syncs: dict[int, tuple[int, File | Folder]] = {}
        self.now = 0

    def place(self, path: bytes) -> tuple[Folder, str]:
        """The folder that a path lies in, and the name there; the root's name is empty."""
        *above, name = os.fsdecode(path)[len(self.prefix) :].strip("/").split("/")
        folder = self.root
        for each in above:
            inner = folder.names()[each]
            assert isinstance(inner, Folder), path
            folder = inner
        return folder, name

    def do(self, record: Record) -> None:
        """The next record."""
        self.now += 1
        kind, fd, number = record.kind, record.fd, record.number
        if kind == "O":
            self.open[fd] = self._opened(record.first, number)
        elif kind == "C":
            self.open.pop(fd, None)
        elif kind in "WT":
            file = self.open[fd]
            assert isinstance(file, File)
            file.since.append((self.now, number, record.first if kind == "W" else None))
        elif kind == "S":
            self.syncs[number] = self.now, self.open[fd]
        elif kind == "E":
            begun, what = self.syncs.pop(number)
            what.confirm(begun)
        elif kind in "UM":
            folder, name = self.place(record.first)
            folder.since.append((self.now, {name: None if kind == "U" else Folder()}))
        elif kind == "R":
            (old, name), (new, becomes) = self.place(record.first), self.place(record.second)
            what = old.names()[name]
            if old is new:
                old.since.append((self.now, {name: None, becomes: what}))
            else:
                new.since.append((self.now, {becomes: what}))
                old.since.append((self.now, {name: None}))

    def _opened(self, path: bytes, flags: int) -> File | Folder:
        folder, name = self.place(path)
        what = folder.names().get(name) if name else folder
        if what is None:
            assert flags & os.O_CREAT, path
            what = File()
            folder.since.append((self.now, {name: what}))
        elif flags & os.O_TRUNC and isinstance(what, File):
            what.since.append((self.now, 0, None))
        return what

    def write(self, place: Path, dice: Random | None = None) -> None:
        """What may be found when the power comes back, in a new folder; without dice: what the process has seen."""
        write(self.root, place, dice)


def write(folder: Folder, place: Path, dice: Random | None) -> None:
    """The folder and what is in it."""
    place.mkdir()
    how = dice.choice(("kept", "lost", "first", "any", "any")) if dice is not None else "kept"
    for name, what in folder.names(dice, how).items():
        if isinstance(what, Folder):
            write(what, place / name, dice)
        else:
            how = dice.choice(("kept", "lost", "first", "any", "any")) if dice is not None else "kept"
            (place / name).write_bytes(what.content(dice, how))


def read(place: Path) -> Folder:
    """A folder of which everything is certain."""
    found = Folder()
    for path in place.iterdir():
        found.sure[path.name] = read(path) if path.is_dir() else File(bytearray(path.read_bytes()))
    return found
