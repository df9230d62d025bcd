"""An append-only file as it was at a moment: what came later is cut off and stays beside it.

Times are those of the `#TS:` annotations (aof-timestamp-enabled), whole seconds. The cut is behind the last whole
command or transaction of that second. The steps are ordered so that a crash leaves files that a server can load, with
at most too much in them; the same command then goes on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zeekdb.hot.aofwalk import AofWalk
from zeekdb.hot.rdbwalk import RdbWalk
from zeekdb.persistence import manifest as manifests
from zeekdb.persistence.manifest import SUFFIX, AofFile, Manifest, sync_folder
from zeekdb.tools.console import ToolError, plural, time_text
from zeekdb.tools.folder_check import manifest_paths
from zeekdb.tools.rdb_check import MAGIC
from zeekdb.tools.reports import chunks, free_name, mapped, write_whole

BACKUP_HINT: Final = "restore a backup: zeekdb backup restore --at"


@dataclass
class Times:
    """What one file says of the times in it; offsets are bytes from its begin, times Unix seconds."""

    path: Path
    size: int
    made_s: int  # the moment that it shows where it begins, by its RDB part or an annotation of a base; 0: unknown
    first_s: int  # of the annotations; -1: none
    untimed: bool  # commands stand before the first annotation, or there is none
    whole: int  # where the last whole command up to the moment ends
    later: bool  # something is later

    @property
    def dropped(self) -> int:
        """Bytes behind the cut."""
        return self.size - self.whole


def times_of(path: Path, until_s: int, is_base: bool) -> Times:
    """ToolError when it cannot be read."""
    with mapped(path) as data:
        at, made_s = 0, 0
        if data[: len(MAGIC)] == MAGIC:
            image = RdbWalk(data)
            for _ in image:
                pass
            ctime = dict(image.aux).get(b"ctime", b"")
            at, made_s = image.end, int(ctime) if ctime.isdigit() else 0
            image.close()
        walk = AofWalk(data, at)
        walk.run()
        first_s, untimed = walk.first_s, bool(walk.commands) and (walk.first_s < 0 or walk.untimed > at)
        walk.close()
        if is_base and at == 0 and first_s >= 0 and not untimed:
            made_s = first_s  # a base of commands begins with the moment of its rewrite
        walk = AofWalk(data, at)
        walk.run(until_s=until_s)
        whole, later = walk.whole, walk.verdict == "later"
        walk.close()
        return Times(path, len(data), made_s, first_s, untimed, whole, later)


def cut_at(path: Path, until_s: int) -> list[dict[str, Any]]:
    """Cuts a file, or what a manifest or folder names; what was cut from which file, at which offset, and where it is.

    Nothing is later: nothing is cut. ToolError when the state of that moment cannot be told, OSError.
    """
    named = manifest_of(path)
    manifest = manifests.read(named) if named is not None else None
    files = manifest.files if manifest is not None else [AofFile(path.name, 1, "i")]
    folder = named.parent if named is not None else path.parent
    found = [times_of(folder / file.name, until_s, manifest is not None and file.kind == "b") for file in files]
    cut = next((at for at, times in enumerate(found) if times.later), None)
    if all(times.first_s < 0 for times in found) and any(times.untimed for times in found):
        raise ToolError(f"{path}: its commands have no timestamps (aof-timestamp-enabled)")
    if found[0].made_s > until_s:
        raise ToolError(f"{path}: its base is of {time_text(found[0].made_s)}, a later moment; {BACKUP_HINT}")
    if cut is None:
        return []
    timed = next(times for times in found if times.first_s >= 0)
    before = found[: found.index(timed)]
    unknown = timed.untimed or any(times.untimed for times in before)
    if timed.first_s > until_s and (unknown or manifest is None):
        raise ToolError(f"{path}: its timestamps begin at {time_text(timed.first_s)}; {BACKUP_HINT}")
    return _cut(named, manifest, files, found, cut)


def manifest_of(path: Path) -> Path | None:
    """The manifest that a path means: itself, or the one in a folder or in a data directory's only such folder.

    None: it is an append-only file by itself. ToolError.
    """
    if not path.is_dir():
        if path.name.endswith(SUFFIX):
            return path
        if manifest_paths(path.parent):
            raise ToolError(f"{path}: other files may go on where it ends; name the manifest or the folder")
        return None
    places = manifest_paths(path) or [
        each for inner in sorted(path.iterdir()) if inner.is_dir() for each in manifest_paths(inner)
    ]
    if len(places) != 1:
        raise ToolError(f"{path}: {plural(len(places), 'manifest')} of append-only files; name the one to cut")
    return places[0]


def _cut(
    named: Path | None, manifest: Manifest | None, files: list[AofFile], found: list[Times], at: int
) -> list[dict[str, Any]]:
    """The copy first, then the manifest, then the files."""
    done = []
    times, later = found[at], found[at + 1 :]
    kept = free_name(times.path.with_name(f"{times.path.name}.cut-{times.whole}"))
    with mapped(times.path) as data:
        write_whole(kept, chunks(data, times.whole, len(data)))
    done.append(_told(times.path, times.whole, times.dropped, kept))
    if named is not None and manifest is not None and later:
        increments = [file for file in manifest.increments if file not in files[at + 1 :]]
        manifests.write(named, Manifest(manifest.base, increments, manifest.history))
    for each in later:
        aside = free_name(each.path.with_name(f"{each.path.name}.cut-0"))
        each.path.rename(aside)
        done.append(_told(each.path, 0, each.size, aside))
    with times.path.open("r+b") as file:
        file.truncate(times.whole)
        os.fsync(file.fileno())
    sync_folder(times.path.parent)
    return done


def _told(path: Path, offset: int, size: int, kept: Path) -> dict[str, Any]:
    return {"file": path.name, "offset": offset, "bytes": size, "kept": kept.name}
