"""RDB files explained: what is in them, whether they are whole, and a whole file out of a broken one."""

from __future__ import annotations

import mmap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from zeekdb.hot.crc64 import crc64
from zeekdb.hot.rdb import DamagedValue, decode_length
from zeekdb.hot.rdbwalk import FOREIGN, NOTHING, RdbWalk, Record
from zeekdb.persistence.types import VECTOR_SETS
from zeekdb.tools.console import Progress, plural, text_of, time_text
from zeekdb.tools.reports import Report, chunks, free_name, replace_keeping, write_whole

MAGIC: Final = b"REDIS"
END: Final = b"\xff"
CHECKED_SINCE: Final = 5  # the version that brought the checksum
LOOK_EVERY: Final = 1 << 10  # keys between two looks at the clock
TYPES: Final[dict[int, str]] = {
    **dict.fromkeys((0,), "string"),
    **dict.fromkeys((1, 10, 14, 18), "list"),
    **dict.fromkeys((2, 11, 20), "set"),
    **dict.fromkeys((3, 5, 12, 17), "zset"),
    **dict.fromkeys((4, 9, 13, 16, 22, 23, 24, 25), "hash"),
    **dict.fromkeys((15, 19, 21), "stream"),
}
MODULE: Final = 7
MODULE_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MODULE_LETTER_BITS: Final = 6
MODULE_VERSION_BITS: Final = 10
LENGTH_BYTES: Final = 9  # at most
OUR_MODULES: Final = {VECTOR_SETS: "vectorset"}


@dataclass
class Contents:
    """What one database holds."""

    types: Counter[str] = field(default_factory=Counter)
    expires: int = 0
    expired: int = 0  # of those

    @property
    def keys(self) -> int:
        """Of all types."""
        return self.types.total()

    def text(self) -> str:
        """For people."""
        kinds = ", ".join(f"{name} {count:,}" for name, count in self.types.most_common())
        expiry = f"; {self.expires:,} with an expiry" if self.expires else ""
        past = f", {self.expired:,} of them past it" if self.expired else ""
        return f"{plural(self.keys, 'key')} ({kinds}){expiry}{past}"


@dataclass
class Inspection:
    """A walk that is over."""

    walk: RdbWalk
    databases: dict[int, Contents]
    empty: list[bytes]  # keys of collections without elements; the first ones
    foreign: list[bytes]  # keys of values of modules; the first ones

    @property
    def keys(self) -> int:
        """In all databases."""
        return sum(each.keys for each in self.databases.values())


def type_name(data: mmap.mmap | bytes, record: Record) -> str:
    """`string`, `list` … For a module's value the module's name of nine characters, which begins the value."""
    if record.type != MODULE:
        return TYPES.get(record.type, f"type {record.type}")
    try:
        number = decode_length(data[record.value : record.value + LENGTH_BYTES])[0] >> MODULE_VERSION_BITS
    except DamagedValue:
        return "module"
    letters = [MODULE_LETTERS[number >> MODULE_LETTER_BITS * at & 63] for at in reversed(range(9))]
    name = "".join(letters)
    return OUR_MODULES.get(name, f"module {name}")


def inspect(data: mmap.mmap | bytes, progress: Progress | None = None) -> Inspection:
    """Walks a whole file."""
    walk, databases, now_ms = RdbWalk(data), dict[int, Contents](), time.time() * 1000
    empty: list[bytes] = []
    foreign: list[bytes] = []
    for seen, record in enumerate(walk, 1):
        contents = databases.setdefault(record.db, Contents())
        contents.types[type_name(data, record)] += 1
        if record.deadline_ms:
            contents.expires += 1
            contents.expired += record.deadline_ms <= now_ms
        if record.state == NOTHING and len(empty) < 5:
            empty.append(record.key)
        elif record.state == FOREIGN and len(foreign) < 5:
            foreign.append(record.key)
        if progress is not None and not seen % LOOK_EVERY:
            progress.show(record.end, len(data), seen, record.end)
    return Inspection(walk, databases, empty, foreign)


def facts_of(found: Inspection) -> dict[str, Any]:
    """For JSON."""
    walk = found.walk
    return {
        "rdb_version": walk.version,
        "aux": {text_of(name, 256): text_of(value, 256) for name, value in walk.aux},
        "databases": {
            str(db): {
                "keys": each.keys,
                "types": dict(each.types),
                "expires": each.expires,
                "expired": each.expired,
            }
            for db, each in sorted(found.databases.items())
        },
        "functions": len(walk.libraries),
        "checksum": walk.checksum,
        "fault": walk.fault,
        "fault_offset": walk.fault_at if walk.fault else None,
        "fault_key": text_of(walk.fault_key, 256) if walk.fault_key is not None else None,
        "whole_bytes": walk.whole,
        "rdb_bytes": walk.end,
    }


def describe(found: Inspection, report: Report) -> None:
    """Adds what was found to a report."""
    walk = found.walk
    report.facts |= facts_of(found)
    if walk.version:
        aux = dict(walk.aux)
        made = [f"RDB version {walk.version}"]
        if b"redis-ver" in aux:
            made.append(f"made by version {text_of(aux[b'redis-ver'])}")
        if aux.get(b"ctime", b"").isdigit():
            made.append(f"at {time_text(int(aux[b'ctime']))}")
        report.lines.append(", ".join(made))
        others = [pair for pair in walk.aux if pair[0] not in (b"redis-ver", b"ctime")]
        if others:
            report.lines.append(" ".join(f"{text_of(name)}={text_of(value)}" for name, value in others))
    report.lines += [f"db{db}: {contents.text()}" for db, contents in sorted(found.databases.items())]
    if walk.version and not found.databases and not walk.fault:
        report.lines.append("no keys")
    if walk.libraries:
        report.lines.append(plural(len(walk.libraries), "function library"))
    if walk.checksum in ("right", "none"):
        report.lines.append("checksum: " + ("right" if walk.checksum == "right" else "none was made"))
    if found.empty:
        names = ", ".join(map(text_of, found.empty))
        report.problems.append(
            f"{plural(len(walk.cuts), 'collection')} without elements, which a server may refuse: {names}"
        )
    if walk.foreign:
        names = f": {', '.join(map(text_of, found.foreign))}" if found.foreign else ""
        report.problems.append(f"{plural(walk.foreign, 'value')} of modules that no server here has{names}")
    if walk.fault:
        report.problems.append(fault_text(walk))


def fault_text(walk: RdbWalk) -> str:
    """What is wrong and where."""
    if walk.checksum == "wrong":
        return "every record can be read, but the checksum differs: some byte is not what was written"
    where = f"at offset {walk.fault_at:,}"
    if walk.fault_key is not None:
        where += f", in the value of {text_of(walk.fault_key)}"
    return f"{walk.fault}, {where}; whole up to {walk.whole:,}"


def check_rdb(path: Path, data: mmap.mmap | bytes, progress: Progress | None = None) -> Report:
    """A file that is an RDB file from begin to end."""
    report = Report(path, "RDB file", len(data))
    if not data:
        report.problems.append("it is empty")
        return report
    found = inspect(data, progress)
    describe(found, report)
    walk = found.walk
    if walk.end and walk.end < len(data):
        report.notes.append(f"{plural(len(data) - walk.end, 'byte')} behind its end, which nobody reads")
    if walk.whole and (walk.fault or found.empty):
        lost = len(data) - walk.whole - len(END) if not walk.checksum else 0
        report.remedy = "--fix writes what is whole to a new file in its place and keeps this one beside it"
        if lost > 0:
            report.remedy += f"; {plural(found.keys, 'key')} stay, {plural(lost, 'byte')} from the break on go"
    return report


def mended(data: mmap.mmap | bytes, walk: RdbWalk) -> Iterator[bytes]:
    """A whole file: the records that are whole and hold something, an end, a checksum."""
    crc = at = 0
    for begin, end in (*walk.cuts, (walk.whole, walk.whole)):
        for piece in chunks(data, at, begin):
            crc = crc64(piece, crc)
            yield piece
        at = end
    yield END
    if walk.version >= CHECKED_SINCE:
        yield crc64(END, crc).to_bytes(8, "little")


def repair_rdb(path: Path, data: mmap.mmap | bytes, report: Report) -> None:
    """Puts a whole file in the place of a broken one, which becomes FILE.broken. OSError."""
    walk = inspect(data).walk
    if not walk.whole or not (walk.fault or walk.cuts):
        return
    new, kept = free_name(path.with_name(f"{path.name}.repaired")), free_name(path.with_name(f"{path.name}.broken"))
    size = write_whole(new, mended(data, walk))
    replace_keeping(new, path, kept)
    report.fixed.append(f"{path.name} now has the {size:,} bytes that are whole; as it was it is {kept.name}")
    if walk.foreign:
        report.remains.append("the values of modules are still there")
