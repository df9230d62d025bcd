"""An RDB file, or one of commands, on its way to the disk: written in pieces, in its place once it is whole."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from pathlib import Path
from typing import Final

from zeekdb.hot.filewriter import FileWriter
from zeekdb.persistence.manifest import sync_folder

LEFT: Final = re.compile(r"temp-(?:rewriteaof-bg-(\d+)\.aof|(\d+)-\d+\.rdb)")  # what a crash leaves; the process's id
NUMBERS: Final = itertools.count(1)
SYNC_EVERY: Final = 32 << 20  # bytes, so that the last sync is not the first


def unfinished(folder: Path) -> Path:
    """A name for a file that shall not outlive this process."""
    return folder / f"temp-{os.getpid()}-{next(NUMBERS)}.rdb"


def sweep(folder: Path) -> int:
    """Removes the unfinished files of processes that are gone: crash after crash would fill the disk. How many.

    At start only, before this process has any.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            found = LEFT.fullmatch(path.name)
            if found is None or _is_alive(int(found[1] or found[2])):
                continue
            with contextlib.suppress(OSError):
                path.unlink()
                removed += 1
    return removed


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():  # in a container all have the same one
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


class RdbFile:
    """All methods raise OSError."""

    def __init__(self, path: Path, checksum: bool, sync_as_it_grows: bool, paces: bool) -> None:
        self.path = path
        self.temporary = unfinished(path.parent)
        self.file = self.temporary.open("wb", buffering=0)
        self.writer = FileWriter(self.file.fileno(), checksum, SYNC_EVERY if sync_as_it_grows else 1 << 62, paces)

    def finish(self, end: bytes | None) -> None:
        """The last piece and the checksum (None: a file of commands has neither); then the file has its name, and both
        are on the disk. It may block."""
        self.writer.put(end or b"")
        if end is not None:
            crc = self.writer.crc
            self.writer.put(crc.to_bytes(8, "little"))
        self.writer.close()
        os.fsync(self.file.fileno())
        self.file.close()
        self.temporary.replace(self.path)
        sync_folder(self.path.parent)

    def drop(self) -> None:
        """It is not wanted any more."""
        self.writer.close()
        self.file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink()
