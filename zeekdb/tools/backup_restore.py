"""A data directory out of a backup: the latest state, a chosen one, or the state of a moment.

A moment is found by the `#TS:` annotations of the append-only file (aof-timestamp-enabled): each says, to the second,
when the commands behind it were written. The state of a moment is what stands before the first annotation that is
later. It can be told exactly if the base is older, and the commands up to there have annotations. Where no backup can,
the newest one made before that moment is taken as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from zeekdb.hot.aofwalk import AofWalk
from zeekdb.hot.rdbwalk import RdbWalk
from zeekdb.persistence import manifest as manifests
from zeekdb.persistence.manifest import SUFFIX, AofFile, Manifest, sync_folder
from zeekdb.tools.backup_store import RDB, AofEnd, Backup, Store
from zeekdb.tools.check import check
from zeekdb.tools.console import Progress, ToolError, plural, time_text
from zeekdb.tools.rdb_check import MAGIC
from zeekdb.tools.reports import chunks, mapped, write_whole

TEMPORARY: Final = ".restoring"
ASIDE: Final = "before-restore-"
FOLDER_DEFAULT: Final = "appendonlydir"
IGNORED: Final = ("lost+found",)  # in a directory that counts as empty


@dataclass
class Outcome:
    """What was restored."""

    backup: Backup
    directory: Path
    shows_s: float  # Unix; the moment that the data show
    cut: int = 0  # bytes of commands that were later
    notes: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)  # for `zeekdb serve`


# --- which backup ---------------------------------------------------------------------------------------------------


def choose(store: Store, name: str, at_s: float | None) -> tuple[Backup, bool]:
    """The backup, and whether it is to be cut at the moment. ToolError."""
    if at_s is None:
        return store.find(name), False
    behind_s = int(at_s) + 1  # annotations tell whole seconds: a backup has all of one only when it is over
    if name != "latest":
        backup = store.find(name)
        if backup.created_s < behind_s:
            return backup, False
        why = why_not(store, backup, at_s)
        if why:
            raise ToolError(f"{backup.id} cannot show {time_text(at_s)}: {why}")
        return backup, True
    store.find(name)
    backups = store.backups()[0]
    for backup in backups:  # the oldest that can: the least to copy
        if backup.created_s >= behind_s and not why_not(store, backup, at_s):
            return backup, True
    earlier = [backup for backup in backups if backup.created_s < behind_s]
    if not earlier:
        oldest = f"; the oldest is of {time_text(backups[0].created_s)}" if backups else ""
        raise ToolError(f"no backup can show {time_text(at_s)}{oldest}")
    return earlier[-1], False


def why_not(store: Store, backup: Backup, at_s: float) -> str:
    """Why a backup that is younger than a moment cannot show it; "": it can."""
    if backup.aof is None:
        return "it is a snapshot of a later moment"
    if backup.aof.base_s > at_s:
        return f"its base is of {time_text(backup.aof.base_s)}"
    try:
        chain = store.chain(backup)
    except ToolError as error:
        return str(error)
    if backup.aof.timed is None:  # there are no commands: it shows what the base shows
        return ""
    firsts = [each.aof.first_s for each in chain if each.aof and each.aof.first_s >= 0]
    if not firsts:
        return "its commands have no timestamps (aof-timestamp-enabled)"
    if min(firsts) > at_s and not backup.aof.timed:
        return f"its timestamps begin at {time_text(min(firsts))}"
    return ""


# --- what it becomes ------------------------------------------------------------------------------------------------


def restore(store: Store, name: str, target: Path, at_s: float | None, force: bool, progress: Progress) -> Outcome:
    """Writes a data directory; what is in it already is moved aside (`force`), never deleted. ToolError, OSError."""
    backup, cut = choose(store, name, at_s)
    target = target.absolute()
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = target / TEMPORARY
    old = [each for each in sorted(target.iterdir()) if each.name not in (TEMPORARY, *IGNORED)]
    if old and not force:
        raise ToolError(f"{target} is not empty ({old[0].name}, …); --force moves what is there aside")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    outcome = Outcome(backup, target, backup.created_s)
    try:
        if backup.content == "rdb":
            _copy(backup, RDB, temporary / RDB, progress)
        else:
            until_s = int(at_s) if cut and at_s is not None else None
            _write_aof(store, backup, temporary / FOLDER_DEFAULT, until_s, outcome, progress)
        made = temporary / (RDB if backup.content == "rdb" else FOLDER_DEFAULT)
        report = check(made)
        if not report.well:
            problems = [*report.problems, *(problem for part in report.parts for problem in part.problems)]
            raise ToolError(f"{backup.id} makes no data that a server could load: {'; '.join(problems)}")
        if old:
            _move_aside(target, old, outcome)
        made.rename(target / made.name)
        sync_folder(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    outcome.options = ["--dir", str(target), *_options(backup)]
    if at_s is not None and not cut:
        outcome.notes.append(
            f"{backup.id} is the nearest: it was made {plural(max(int(at_s - backup.created_s), 0), 'second')} before "
            f"{time_text(at_s)}"
        )
    return outcome


def _options(backup: Backup) -> list[str]:
    """What `zeekdb serve` has to be told to start on it."""
    if backup.aof is None:
        return []
    named = [] if backup.aof.stem == "appendonly.aof" else ["--appendfilename", backup.aof.stem]
    return ["--appendonly", "yes", *named]


def _move_aside(target: Path, old: list[Path], outcome: Outcome) -> None:
    """Into a folder within: another place might be on another disk, or not ours to write. OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = target / f"{ASIDE}{stamp}"
    number = 1
    while aside.exists():
        number += 1
        aside = target / f"{ASIDE}{stamp}-{number}"
    aside.mkdir()
    for each in old:
        if not each.name.startswith(ASIDE):
            each.rename(aside / each.name)
    sync_folder(aside)
    outcome.notes.append(f"what was there is in {aside}")


def _copy(backup: Backup, name: str, to: Path, progress: Progress) -> None:
    """A file of a backup, hashed on its way. ToolError."""
    piece = next(piece for piece in backup.files if piece.name == name)
    with mapped(backup.path / name) as data:
        digest = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for chunk in chunks(data, 0, len(data)):
                digest.update(chunk)
                progress.show(0, 0, 0, piece.size)
                yield chunk

        write_whole(to, hashed())
    if digest.hexdigest() != piece.sha256:
        raise ToolError(f"{backup.id}: {name} is not what it was: its SHA-256 differs")


def _write_aof(
    store: Store, backup: Backup, folder: Path, until_s: int | None, outcome: Outcome, progress: Progress
) -> None:
    """The files of a chain, put together, cut where a later annotation begins; their manifest. ToolError."""
    assert backup.aof is not None
    folder.mkdir()
    chain = store.chain(backup)
    kept: list[AofEnd] = []
    later = False
    for file in backup.aof.files:
        if later:
            outcome.cut += file.end
            continue
        path = folder / file.name
        _put_together(chain, file, path, progress)
        kept.append(file)
        if until_s is not None:
            later = _cut(path, until_s, outcome)
    if until_s is not None:
        outcome.shows_s = float(until_s)
    bases = [AofFile(file.name, file.seq, "b") for file in kept if file.type == "b"]
    increments = [AofFile(file.name, file.seq, "i") for file in kept if file.type == "i"]
    manifests.write(folder / f"{backup.aof.stem}{SUFFIX}", Manifest(bases[0] if bases else None, increments))


def _put_together(chain: list[Backup], file: AofEnd, path: Path, progress: Progress) -> None:
    """One file, range by range. ToolError."""
    path.touch()
    for each in chain:
        for piece in each.files:
            if piece.name != file.name:
                continue
            if path.stat().st_size != piece.offset:
                raise ToolError(f"{each.id}: {piece.name} does not go on where the backup before it ends")
            part = path.with_name(".part")
            _copy(each, piece.name, part, progress)
            if piece.offset == 0:
                part.replace(path)
                continue
            with mapped(part) as data, path.open("ab") as out:
                for chunk in chunks(data, 0, len(data)):
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            part.unlink()
    if path.stat().st_size != file.end:
        raise ToolError(f"{chain[-1].id}: its chain does not reach the end of {file.name}")


def _cut(path: Path, until_s: int, outcome: Outcome) -> bool:
    """Whether something was later than the moment: it and what follows is gone."""
    with mapped(path) as data:
        at = 0
        if data[: len(MAGIC)] == MAGIC:
            walk = RdbWalk(data)
            for _ in walk:
                pass
            at = walk.end
        commands = AofWalk(data, at)
        commands.run(until_s=until_s)
        verdict, whole, size = commands.verdict, commands.whole, len(data)
        commands.close()
    if verdict != "later":
        return False
    outcome.cut += size - whole
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    return True
