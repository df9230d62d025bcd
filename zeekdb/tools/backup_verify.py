"""Whether backups hold what they say: every byte hashed again, every record read, every chain complete."""

from __future__ import annotations

import hashlib
from pathlib import Path

from zeekdb.hot.aofwalk import AofWalk
from zeekdb.tools.backup_store import RDB, Backup, Piece, Store
from zeekdb.tools.console import Progress, ToolError
from zeekdb.tools.rdb_check import MAGIC, fault_text, inspect
from zeekdb.tools.reports import CHUNK, mapped


def verify(store: Store, backup: Backup, progress: Progress) -> list[str]:
    """What is wrong with a backup; nothing, if it is well. Its parents are looked at for being there only."""
    problems: list[str] = []
    for piece in backup.files:
        try:
            problems += _verify_piece(backup, piece, progress)
        except ToolError as error:
            problems.append(str(error))
    try:
        chain = store.chain(backup)
    except ToolError as error:
        return [*problems, str(error)]
    return problems + _verify_ends(chain)


def digest_of(path: Path, progress: Progress | None = None) -> str:
    """SHA-256. ToolError."""
    digest = hashlib.sha256()
    with mapped(path) as data:
        for at in range(0, len(data), CHUNK):
            digest.update(data[at : at + CHUNK])
            if progress is not None:
                progress.show(at, len(data), 0, at)
    return digest.hexdigest()


def _verify_piece(backup: Backup, piece: Piece, progress: Progress) -> list[str]:
    """ToolError when it cannot be read."""
    path = backup.path / piece.name
    if not path.is_file():
        return [f"{piece.name} is missing"]
    size = path.stat().st_size
    if size != piece.size:
        return [f"{piece.name} has {size:,} bytes instead of {piece.size:,}"]
    if digest_of(path, progress) != piece.sha256:
        return [f"{piece.name} is not what it was: its SHA-256 differs"]
    with mapped(path) as data:
        at = 0
        if piece.name == RDB or (piece.offset == 0 and data[: len(MAGIC)] == MAGIC):
            walk = inspect(data, progress).walk
            if walk.fault:
                return [f"{piece.name}: {fault_text(walk)}"]
            at = walk.end
        if piece.name == RDB:
            return []
        commands = AofWalk(data, at)
        commands.run()
        verdict, stopped = commands.verdict, commands.at
        commands.close()
        return [] if verdict == "whole" else [f"{piece.name}: {verdict} at offset {stopped:,}"]


def _verify_ends(chain: list[Backup]) -> list[str]:
    """The ranges of a chain follow each other without a gap, and reach where the last one says."""
    if chain[0].kind != "full":
        return [f"{chain[0].id}: a chain begins with a full backup"]
    ends: dict[str, int] = {}
    for backup in chain:
        if backup.aof is None:
            return [f"{backup.id} has no append-only file in its chain"] if len(chain) > 1 else []
        for piece in backup.files:
            if piece.offset != ends.get(piece.name, 0):
                return [f"{backup.id}: {piece.name} goes on at {piece.offset:,} instead of {ends.get(piece.name, 0):,}"]
            ends[piece.name] = piece.offset + piece.size
        short = [file.name for file in backup.aof.files if ends.get(file.name, 0) != file.end]
        if short:
            return [f"{backup.id}: the chain does not reach the end of {', '.join(short)}"]
    return []
