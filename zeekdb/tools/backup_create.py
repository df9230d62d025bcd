"""Making backups of a running server.

Of what the server keeps an append-only file of, on this machine, the files themselves are copied: they are the server's
own record of its data, copying costs it nothing, and where a copy ends is known to the byte, which an increment needs
to begin there. The base shows a moment and the increments are commands in order, so a copy that is cut behind a whole
command is consistent, whatever is written meanwhile.

Everything else comes as a snapshot through replication (`PSYNC ? -1`): that works from anywhere, with redis-server as
with ZeekDB, needs no permission on the server's disk, and leaves its own snapshot alone, where BGSAVE would replace it.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeekdb.hot.aofwalk import AofWalk
from zeekdb.persistence import manifest as manifests
from zeekdb.persistence.manifest import SUFFIX, AofFile, BadManifest
from zeekdb.tools.backup_store import RDB, TAIL_BYTES, Aof, AofEnd, Backup, Piece, Store, write_piece
from zeekdb.tools.console import Progress, ToolError
from zeekdb.tools.rdb_check import MAGIC, fault_text, inspect
from zeekdb.tools.reports import CHUNK, chunks, mapped
from zeekdb.tools.wire import Address, Link, encode

SNAPSHOT_S: Final = 3600.0  # without a byte, while the other side makes its snapshot
MARK_BYTES: Final = 40  # of what ends a snapshot whose size was not known
TRIES: Final = 10  # to find the files as the manifest names them, while they are rewritten
SETTLE_S: Final = 2.0  # for changes that were answered to reach the file
POLL_S: Final = 0.01


class NoIncrement(Exception):
    """Why there can be none; a full backup is made in its place."""


@dataclass
class Place:
    """Where a server keeps its append-only file."""

    directory: Path
    stem: str

    @property
    def manifest(self) -> Path:
        """The manifest's path."""
        return self.directory / f"{self.stem}{SUFFIX}"


def create(address: Address, store: Store, incremental: bool, snapshot: bool, progress: Progress) -> tuple[Backup, str]:
    """A new backup, and why it is no increment though one was wanted. ToolError, OSError."""
    with store.locked(), Link(address, SNAPSHOT_S) as link:
        store.clear()
        place = None if snapshot else place_of(link)
        if incremental and place is None:
            raise ToolError(f"an increment needs the append-only file of {address}, and {why_no_place(link)}")
        reason = ""
        with store.making() as temporary:
            if place is not None:
                parent = None
                if incremental:
                    try:
                        parent = parent_for(store, place)
                    except NoIncrement as missing:
                        reason = str(missing)
                stamp = store.new_stamp()  # before the copy: it holds at least what was there at that moment
                settle(link)
                while True:
                    try:
                        backup = copy_aof(link, stamp, place, temporary, parent, progress)
                        break
                    except NoIncrement as changed:
                        reason, parent = str(changed), None
            else:
                backup = copy_snapshot(link, store, temporary, progress)
            store.publish(temporary, backup)
        return backup, reason


def described(link: Link) -> dict[str, str]:
    """The server, for `backup.json`."""
    info = link.info("server")
    wanted = ("redis_version", "zeekdb_version", "run_id")
    return {"address": str(link.address), **{name: info[name] for name in wanted if name in info}}


# --- the append-only file -------------------------------------------------------------------------------------------


def place_of(link: Link) -> Place | None:
    """Where the files are, if they are on this machine and can be read."""
    if link.info("persistence").get("aof_enabled") != "1" or not link.is_local:
        return None
    folder, name, stem = (link.config(word) for word in ("dir", "appenddirname", "appendfilename"))
    if not folder or not name or not stem:
        return None
    place = Place(Path(folder, name), stem)
    return place if os.access(place.manifest, os.R_OK) and not lives_elsewhere(link, folder) else None


def lives_elsewhere(link: Link, folder: str) -> bool:
    """Whether the folder belongs to somebody else: a server in a container, reached by a port of this machine, names
    a path that may exist here, too. Servers work in their `dir`; where that cannot be seen, they are believed."""
    try:
        return not os.path.samefile(f"/proc/{link.info('server').get('process_id', 'self')}/cwd", folder)
    except OSError:
        return False


def why_no_place(link: Link) -> str:
    """Why `place_of` found none."""
    if link.info("persistence").get("aof_enabled") != "1":
        return "it keeps none (appendonly no)"
    if not link.is_local:
        return "it is on another machine"
    return "its files cannot be read from here (CONFIG GET dir, appenddirname, appendfilename)"


def settle(link: Link) -> None:
    """What was answered before this is in the file; under load that never ends only for a while."""
    end_s = time.monotonic() + SETTLE_S
    while time.monotonic() < end_s:
        if link.info("persistence").get("aof_buffer_length", "0") == "0":
            return
        time.sleep(POLL_S)


def parent_for(store: Store, place: Place) -> Backup:
    """The newest backup of these files. NoIncrement."""
    found = [each for each in store.backups()[0] if each.aof and each.aof.directory == str(place.directory)]
    if not found:
        raise NoIncrement("there is no earlier backup of this append-only file")
    store.chain(found[-1])
    return found[-1]


@contextlib.contextmanager
def opened(place: Place) -> Iterator[list[tuple[AofFile, int, int]]]:
    """The files that the manifest names, open: (file, descriptor, bytes). ToolError.

    Once they are open, a rewrite may delete them. The last file's size is taken first: when there is anything in it,
    the files before it are complete.
    """
    for _ in range(TRIES):
        with contextlib.ExitStack() as stack:
            try:
                before = manifests.read(place.manifest)
                found = []
                for file in reversed(before.files):
                    descriptor = os.open(place.directory / file.name, os.O_RDONLY | os.O_CLOEXEC)
                    stack.callback(os.close, descriptor)
                    found.append((file, descriptor, os.fstat(descriptor).st_size))
                if manifests.read(place.manifest).files != before.files:
                    continue
            except (FileNotFoundError, BadManifest):
                time.sleep(POLL_S)
                continue
            except OSError as error:
                raise ToolError(f"{place.directory}: {error.strerror}") from None
            yield found[::-1]
            return
    raise ToolError(f"{place.directory}: the files are not what the manifest names; see zeekdb check")


def copy_aof(
    link: Link, stamp: tuple[str, int], place: Place, temporary: Path, parent: Backup | None, progress: Progress
) -> Backup:
    """Everything, or what has come since the parent. NoIncrement, when the files are others by now; ToolError."""
    with opened(place) as files:
        known = known_ends(parent, files)
        pieces: list[Piece] = []
        aof = Aof(str(place.directory), place.stem, [])
        if parent and parent.aof:
            aof.base_s, aof.timed = parent.aof.base_s, parent.aof.timed
        filled = [file for file, _, size in files if size]
        total = sum(size - known.get(file.name, 0) for file, _, size in files)
        for file, descriptor, size in files:
            begin = known.get(file.name, 0)
            with mapped_range(descriptor, size) as data:
                end = whole_end(place, file, data, begin, bool(filled) and file == filled[-1], aof)
                if end > begin or not parent:
                    counted = counting(chunks(data, begin, end), progress, total, pieces)
                    pieces.append(write_piece(temporary, file.name, begin, counted))
                aof.files.append(AofEnd(file.name, file.seq, file.kind, end, tail_of(data, end)))
        databases = {str(db): keys for db, keys in link.key_counts().items()}
        server, (moment, created_ms) = described(link), stamp
        if parent:
            return Backup(f"{moment}-incr", "incr", "aof", parent.id, created_ms, server, databases, pieces, aof)
        return Backup(f"{moment}-full", "full", "aof", "", created_ms, server, databases, pieces, aof)


def known_ends(parent: Backup | None, files: list[tuple[AofFile, int, int]]) -> dict[str, int]:
    """How far each file is in the parent's chain. NoIncrement."""
    if parent is None or parent.aof is None:
        return {}
    there = {file.name: (file, descriptor, size) for file, descriptor, size in files}
    for old in parent.aof.files:
        found = there.get(old.name)
        if found is None or (found[0].seq, found[0].kind) != (old.seq, old.type):
            raise NoIncrement("the append-only file was rewritten since the last backup")
        _, descriptor, size = found
        begin = max(old.end - TAIL_BYTES, 0)
        tail = os.pread(descriptor, old.end - begin, begin)
        if size < old.end or hashlib.sha256(tail).hexdigest() != old.tail:
            raise NoIncrement(f"{old.name} is another file than at the last backup")
    if any(file.kind == "b" and file.name not in {old.name for old in parent.aof.files} for file, _, _ in files):
        raise NoIncrement("the append-only file was rewritten since the last backup")
    return {old.name: old.end for old in parent.aof.files}


@contextlib.contextmanager
def mapped_range(descriptor: int, size: int) -> Iterator[mmap.mmap | bytes]:
    """The first bytes of an open file, which may grow meanwhile."""
    if not size:
        yield b""
        return
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as data:
        yield data


def whole_end(place: Place, file: AofFile, data: mmap.mmap | bytes, begin: int, last: bool, aof: Aof) -> int:
    """Where a file is to be cut; notes the times that it tells. ToolError when it is damaged."""
    path, at = place.directory / file.name, begin
    if begin == 0 and data[: len(MAGIC)] == MAGIC:
        walk = inspect(data).walk
        if walk.fault:
            raise ToolError(f"{path}: {fault_text(walk)}")
        ctime = dict(walk.aux).get(b"ctime", b"")
        aof.base_s = int(ctime) if ctime.isdigit() else 0
        at = walk.end
    commands = AofWalk(data, at)
    commands.run()
    verdict, end = commands.verdict, commands.whole
    if file.kind == "b" and begin == at == 0 and commands.first_s >= 0 and commands.untimed == 0:
        aof.base_s = commands.first_s  # a base of commands begins with the moment of its rewrite
    if commands.commands and aof.timed is None:
        aof.timed = commands.first_s >= 0 and commands.untimed == at
    if commands.first_s >= 0:
        aof.first_s = commands.first_s if aof.first_s < 0 else aof.first_s
        aof.last_s = max(aof.last_s, commands.last_s)
    stopped = commands.at
    commands.close()
    if verdict != "whole" and not (verdict == "torn" and last):
        raise ToolError(f"{path}: {verdict} at offset {stopped:,}; see zeekdb check {place.directory}")
    return end


def tail_of(data: mmap.mmap | bytes, end: int) -> str:
    """The mark by which the file is known again."""
    return hashlib.sha256(data[max(end - TAIL_BYTES, 0) : end]).hexdigest()


def counting(pieces: Iterator[bytes], progress: Progress, total: int, done: list[Piece]) -> Iterator[bytes]:
    """The same, with progress."""
    size = sum(piece.size for piece in done)
    for piece in pieces:
        yield piece
        size += len(piece)
        progress.show(size, total, len(done), size)


# --- a snapshot through replication ---------------------------------------------------------------------------------


def copy_snapshot(link: Link, store: Store, temporary: Path, progress: Progress) -> Backup:
    """The data of one moment. ToolError."""
    server = described(link)
    for words in (("REPLCONF", "capa", "eof", "capa", "psync2"), ("PSYNC", "?", "-1")):
        link.send(encode(*words))
        while not (line := link.read_line()):  # an empty line says that it is at work
            pass
        if line.startswith(b"-") and words[0] == "PSYNC":
            raise ToolError(f"{link.address} gives no snapshot: {line[1:].decode('utf-8', 'replace')}")
    if not line.startswith(b"+FULLRESYNC"):
        raise ToolError(f"{link.address} gives no snapshot: {line[:80]!r}")
    moment, created_ms = store.new_stamp()
    piece = write_piece(temporary, RDB, 0, received(link, progress))
    with mapped(temporary / RDB) as data:
        found = inspect(data, progress)
        if found.walk.fault:
            raise ToolError(f"what {link.address} has sent is broken: {fault_text(found.walk)}")
    databases = {str(db): contents.keys for db, contents in sorted(found.databases.items())}
    return Backup(f"{moment}-full", "full", "rdb", "", created_ms, server, databases, [piece])


def received(link: Link, progress: Progress) -> Iterator[bytes]:
    """The snapshot, as it comes. Its size is said first, or a mark that ends it. ToolError."""
    while not (head := link.read_line()):
        pass
    if not head.startswith(b"$"):
        raise ToolError(f"{link.address} sends no snapshot: {head[:80]!r}")
    if not head.startswith(b"$EOF:"):
        total = left = int(head[1:])
        while left:
            data = link.read_some(min(left, CHUNK))
            left -= len(data)
            progress.show(total - left, total, 0, total - left)
            yield data
        return
    mark = head[5:]
    if len(mark) != MARK_BYTES:
        raise ToolError(f"{link.address} sends no snapshot: {head[:80]!r}")
    pending, size = b"", 0
    while not pending.endswith(mark):
        if len(pending) > MARK_BYTES:
            yield pending[:-MARK_BYTES]
            pending = pending[-MARK_BYTES:]
        data = link.read_some(CHUNK)
        size += len(data)
        pending += data
        progress.show(0, 0, 0, size)
    yield pending[:-MARK_BYTES]
