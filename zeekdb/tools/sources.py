"""Where data come from: RDB files, append-only files, other servers. Each sends itself through a `Sender`.

Files are checked whole before anything is sent: half of a broken file in a server that is in use helps nobody.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import zeekdb
from zeekdb.hot.rdbwalk import NOTHING, RdbWalk
from zeekdb.persistence import manifest as manifests
from zeekdb.persistence.manifest import BadManifest
from zeekdb.tools.aof_check import walk_commands
from zeekdb.tools.check import HEAD, recognise
from zeekdb.tools.console import Progress, ToolError, plural, warn
from zeekdb.tools.folder_check import manifest_paths
from zeekdb.tools.rdb_check import MAGIC, fault_text, inspect
from zeekdb.tools.reports import chunks, mapped, write_whole
from zeekdb.tools.sending import Sender, functions_payload, payload_of
from zeekdb.tools.wire import Address, Failure, Link

SCAN_KEYS: Final = 1000
DUMP_BYTES: Final = 4 << 20  # wanted in one answer
DUMP_KEYS_FIRST: Final = 16
EMPTY_FUNCTIONS: Final = 10  # bytes of FUNCTION DUMP without libraries
DATABASES: Final = 16  # of a server of our own, at least
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
POLL_S: Final = 0.02  # whether it is ready


class Source(Protocol):
    """Something that can be imported."""

    @property
    def name(self) -> str:
        """For people."""

    def send(self, sender: Sender, dbs: frozenset[int], progress: Progress) -> None:
        """All of it, or these databases. ToolError."""


# --- RDB files ------------------------------------------------------------------------------------------------------


def send_rdb(
    data: mmap.mmap | bytes, keys: int, sender: Sender, dbs: frozenset[int], progress: Progress
) -> int:
    """All keys of a file that was checked and has so many; where it ends."""
    tally, walk = sender.tally, RdbWalk(data)
    for seen, record in enumerate(walk, 1):
        if dbs and record.db not in dbs:
            continue
        if record.state == NOTHING:
            tally.empty += 1
        elif record.deadline_ms and record.deadline_ms <= time.time() * 1000:
            tally.expired += 1
        else:
            sender.select(record.db)
            payload = payload_of(record.type, data[record.value : record.end])
            tally.size += len(payload)
            sender.restore(record.key, payload, record.deadline_ms, record.idle_s, record.frequency)
        progress.show(seen, keys, tally.keys, tally.size)
    sender.drain()
    if walk.libraries:
        sender.functions(functions_payload(walk.libraries), len(walk.libraries))
    return walk.end


@dataclass
class RdbSource:
    """One RDB file."""

    path: Path

    @property
    def name(self) -> str:
        """For people."""
        return str(self.path)

    def send(self, sender: Sender, dbs: frozenset[int], progress: Progress) -> None:
        """ToolError, before anything was sent, when it is broken."""
        with mapped(self.path) as data:
            found = inspect(data, Progress("checking", "key", quiet=progress.quiet))
            refuse_broken(self.path, found.walk)
            end = found.walk.end
            if data[end : end + 1] in (b"*", b"#"):  # an append-only file that begins with an RDB part
                AofSource(self.name, [self.path]).send(sender, dbs, progress)
                return
            send_rdb(data, found.keys, sender, dbs, progress)


def refuse_broken(path: Path, walk: RdbWalk) -> None:
    """ToolError."""
    if walk.fault:
        raise ToolError(f"{path}: {fault_text(walk)}; nothing was sent. To go on with what is whole: "
                        f"zeekdb check --fix {path}")  # fmt: skip


# --- append-only files ----------------------------------------------------------------------------------------------


@dataclass
class AofSource:
    """Files that are to be loaded in this order.

    Their commands cannot be sent to a server in use: for it, expiries of the past have come, so a key that was given a
    new one again and again is gone at the first; and a FLUSHALL would flush what is there. A server of our own loads
    the files as at a start, then what they come to is read from it. That takes the memory that the data take.
    """

    name: str
    paths: list[Path]

    def send(self, sender: Sender, dbs: frozenset[int], progress: Progress) -> None:
        """ToolError, before anything was sent, when a file is broken; the end of the last one may be torn."""
        with tempfile.TemporaryDirectory(prefix="zeekdb-import-") as name:
            folder = Path(name)
            databases = self._lay_out(folder / "appendonlydir", progress)
            with private_server(folder, databases) as link:
                ServerSource(link).send(sender, dbs, progress)

    def _lay_out(self, folder: Path, progress: Progress) -> int:
        """Links to the files, and a manifest; how many databases they have. ToolError."""
        folder.mkdir()
        looking = Progress("checking", "record", quiet=progress.quiet)
        filled = [path for path in self.paths if path.stat().st_size]
        lines, db_max = [], 0
        for number, path in enumerate(filled, 1):
            size = path.stat().st_size
            with mapped(path) as data:
                whole, highest = self._check(path, data, path == filled[-1], looking)
                is_base = number == 1 and (path.suffix == ".rdb" or data[: len(MAGIC)] == MAGIC)
                name = f"base.{'rdb' if path.suffix == '.rdb' else 'aof'}" if is_base else f"{number}.incr.aof"
                if whole == size:
                    (folder / name).symlink_to(path.resolve())
                else:
                    write_whole(folder / name, chunks(data, 0, whole))
            lines.append(f"file {name} seq {number} type {'b' if is_base else 'i'}\n")
            db_max = max(db_max, highest)
        name = f"{len(filled) + 1}.incr.aof"  # what the server appends to is not ours
        (folder / name).touch()
        lines.append(f"file {name} seq {len(filled) + 1} type i\n")
        (folder / f"appendonly.aof{manifests.SUFFIX}").write_text("".join(lines))
        return max(db_max + 1, DATABASES)

    def _check(self, path: Path, data: mmap.mmap | bytes, last: bool, progress: Progress) -> tuple[int, int]:
        """How many bytes are whole, and the highest database. ToolError."""
        begin = db_max = 0
        if data[: len(MAGIC)] == MAGIC:
            found = inspect(data, progress)
            refuse_broken(path, found.walk)
            begin, db_max = found.walk.end, max(found.databases, default=0)
        walked = walk_commands(data, begin, progress)
        walked.walk.close()
        if walked.verdict == "torn" and last:
            lost = plural(len(data) - walked.whole, "byte")
            warn(f"note: the end of {path.name} is torn off; the last {lost} are left out")
        elif walked.verdict != "whole":
            raise ToolError(f"{path}: {walked.verdict} at offset {walked.walk.at:,}; nothing was sent")
        return walked.whole, max(db_max, walked.walk.db_max)


def die_with_parent() -> None:
    """For a child: its server must not stay behind when the tool is killed (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def private_server(folder: Path, databases: int) -> Iterator[Link]:
    """A ZeekDB of our own that has loaded what is in `folder`/appendonlydir. ToolError."""
    log, path = folder / "log", folder / "socket"
    words = ["--dir", str(folder), "--appendonly", "yes", "--save", "", "--port", "0", "--unixsocket", str(path)]
    words += ["--unixsocketperm", "700", "--databases", str(databases), "--auto-aof-rewrite-percentage", "0"]
    paths = [str(Path(zeekdb.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "zeekdb", "serve", *words],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=die_with_parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )  # fmt: skip
    try:
        link = None
        while link is None:
            if process.poll() is not None:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise ToolError(f"the server that was to load the files has stopped:\n{tail}")
            try:
                link = Link(Address(path=str(path)))
                if link("PING") != "PONG":
                    raise ToolError("it does not answer")
            except (ToolError, Failure):  # not yet
                link = None
                time.sleep(POLL_S)
        with link:
            yield link
    finally:
        process.kill()
        process.wait()


# --- servers --------------------------------------------------------------------------------------------------------


@dataclass
class ServerSource:
    """A running server: every key as it is at the moment at which it is read."""

    link: Link

    @property
    def name(self) -> str:
        """For people."""
        return str(self.link.address)

    def send(self, sender: Sender, dbs: frozenset[int], progress: Progress) -> None:
        """SCAN, DUMP and PTTL, database by database. ToolError."""
        info = self.link.info("server")
        if info.get("run_id") and info.get("run_id") == sender.link.info("server").get("run_id"):
            raise ToolError(f"{self.link.address} and {sender.link.address} are the same server")
        if self.link.address.db is not None:
            dbs = frozenset([self.link.address.db])
        with quietly():
            self.link("CLIENT", "NO-TOUCH", "ON")  # since 7.2: reading leaves idle times alone
        recency = "FREQ" if "lfu" in self.link.config("maxmemory-policy") else "IDLETIME"
        counts = {db: keys for db, keys in self.link.key_counts().items() if not dbs or db in dbs}
        there = sender.link.key_counts()
        total = sum(counts.values())
        done = 0
        for db in sorted(counts):
            try:
                self.link("SELECT", db)
            except Failure as error:
                raise ToolError(f"{self.link.address} refuses database {db}: {error}") from None
            sender.select(db)
            sender.duplicates_are_ours = not there.get(db)
            # SCAN may show a key twice; over a database in use only this tells that from a key that was there.
            seen: set[int] | None = None if sender.replace or sender.duplicates_are_ours else set()
            for keys in self._portions(seen):
                self._copy(keys, recency, sender)
                done += len(keys)
                progress.show(done, total, sender.tally.keys, sender.tally.size)
            sender.drain()
        self._send_functions(sender)

    def _portions(self, seen: set[int] | None) -> Iterator[list[bytes]]:
        """All keys of the database, in portions whose values make answers of about DUMP_BYTES."""
        self.portion = DUMP_KEYS_FIRST
        cursor = b"0"
        while True:
            try:
                cursor, keys = self.link("SCAN", cursor, "COUNT", SCAN_KEYS)
            except Failure as error:
                raise ToolError(f"{self.link.address} refuses SCAN: {error}") from None
            if seen is not None:
                keys = [key for key in keys if hash(key) not in seen]
                seen.update(map(hash, keys))
            while keys:
                portion, keys = keys[: self.portion], keys[self.portion :]
                yield portion
            if cursor == b"0":
                return

    def _copy(self, keys: list[bytes], recency: str, sender: Sender) -> None:
        now_ms = int(time.time() * 1000)
        # DUMP last: it counts as a use of the key
        replies = self.link.pipeline(
            [words for key in keys for words in (("OBJECT", recency, key), ("PTTL", key), ("DUMP", key))]
        )
        size = 0
        for at, key in enumerate(keys):
            used, ttl_ms, payload = replies[3 * at : 3 * at + 3]
            if isinstance(payload, Failure) or isinstance(ttl_ms, Failure):
                sender.tally.fail(str(payload if isinstance(payload, Failure) else ttl_ms), key)
                continue
            if payload is None or ttl_ms == -2:
                sender.tally.gone += 1
                continue
            size += len(payload)
            sender.tally.size += len(payload)
            number = used if isinstance(used, int) else -1
            idle_s, frequency = (number, -1) if recency == "IDLETIME" else (-1, number)
            sender.restore(key, payload, now_ms + max(ttl_ms, 1) if ttl_ms >= 0 else 0, idle_s, frequency)
        mean = max(size // len(keys), 1)
        self.portion = max(1, min(SCAN_KEYS, DUMP_BYTES // mean, self.portion * 4))

    def _send_functions(self, sender: Sender) -> None:
        try:
            payload = self.link("FUNCTION", "DUMP")
            count = len(self.link("FUNCTION", "LIST"))
        except Failure as error:
            if "unknown command" not in str(error).lower():  # a server before 7.0
                sender.tally.fail(str(error), b"functions")
            return
        if len(payload) > EMPTY_FUNCTIONS:
            sender.functions(payload, count)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """An error reply does not matter."""
    try:
        yield
    except Failure:
        pass


# --- which one ------------------------------------------------------------------------------------------------------


def file_source(path: Path) -> RdbSource | AofSource:
    """What a path holds. ToolError."""
    if path.is_dir():
        found = manifest_paths(path)
        if not found and (path / "appendonlydir").is_dir():
            raise ToolError(f"{path} is a data directory: name {path / 'appendonlydir'}, or the RDB file")
        if len(found) != 1:
            raise ToolError(f"{path}: there is {'no manifest' if not found else 'more than one manifest'} in it")
        return manifest_source(found[0])
    if not path.exists():
        raise ToolError(f"{path}: there is no such file")
    with mapped(path) as data:
        kind = recognise(path, bytes(data[:HEAD]))
    if kind == "manifest":
        return manifest_source(path)
    return RdbSource(path) if kind == "rdb" else AofSource(str(path), [path])


def manifest_source(path: Path) -> AofSource:
    """The files that a manifest names. ToolError."""
    try:
        manifest = manifests.read(path)
    except (OSError, BadManifest) as error:
        raise ToolError(f"{path}: {error}; zeekdb check --fix {path} may make it again") from None
    paths = [path.parent / file.name for file in manifest.files]
    missing = [each.name for each in paths if not each.is_file()]
    if missing:
        raise ToolError(f"{path}: it names files that are not there: {', '.join(missing)}")
    return AofSource(str(path.parent), paths)
