"""The folder of an append-only file: its manifest, what the manifest names, and what lies beside it.

A lost manifest is made again only where the files leave no choice. A rewrite gives the new base and the increment that
goes with it the next numbers, then deletes what they replace: with one base and increments from its number on, without
a gap, every file belongs. Where an older base is still there the deletion was interrupted, and increments may lie there
that the newer base already contains; replaying them would count twice, so nothing is guessed. The same goes for an
increment that was last written before the base was made.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from zeekdb.hot.rdbwalk import RdbWalk
from zeekdb.persistence import manifest as manifests
from zeekdb.persistence.manifest import SUFFIX, AofFile, BadManifest, Manifest
from zeekdb.tools.aof_check import check_aof, repair_aof
from zeekdb.tools.console import Progress, ToolError, plural
from zeekdb.tools.rdb_check import check_rdb
from zeekdb.tools.reports import Report, free_name, mapped

MEMBER: Final = re.compile(r"(?P<stem>.+)\.(?P<seq>\d+)\.(?:base\.(?:rdb|aof)|(?P<increment>incr)\.aof)")
GAP_SHOWN: Final = 8  # numbers; a damaged manifest may leave out any number of them
CLOCK_S: Final = 2  # by which a file's time may differ from the clock


@dataclass
class Members:
    """What lies in a folder under one stem, by name."""

    stem: str
    bases: list[AofFile] = field(default_factory=list)
    increments: list[AofFile] = field(default_factory=list)


def members_of(folder: Path) -> dict[str, Members]:
    """Bases and increments by their stem, in order of their numbers. OSError."""
    found: dict[str, Members] = {}
    for path in sorted(folder.iterdir()):
        match = MEMBER.fullmatch(path.name)
        if match and path.is_file():
            members = found.setdefault(match["stem"], Members(match["stem"]))
            kind = "i" if match["increment"] else "b"
            (members.increments if kind == "i" else members.bases).append(
                AofFile(path.name, int(match["seq"]), kind)
            )
    for members in found.values():
        if (folder / members.stem).is_file():  # the one file of an older server, which has become the base
            members.bases.append(AofFile(members.stem, 1, "b"))
        members.bases.sort(key=lambda file: file.seq)
        members.increments.sort(key=lambda file: file.seq)
    return found


def base_time_s(path: Path) -> int:
    """The moment that an RDB base shows, Unix; 0: it does not say. ToolError."""
    with mapped(path) as data:
        walk = RdbWalk(data)
        next(walk, None)  # what is said of the whole file stands before the first key
        walk.close()
        ctime = dict(walk.aux).get(b"ctime", b"")
        return int(ctime) if ctime.isdigit() else 0


def rebuilt(folder: Path, members: Members) -> Manifest | str:
    """The one manifest that these files allow, or why there is none. OSError, ToolError."""
    bases, increments = members.bases, members.increments
    if len(bases) > 1:
        names = ", ".join(file.name for file in bases)
        return f"there are {len(bases)} bases ({names}): which increments the newest contains cannot be told"
    first = bases[0].seq if bases else 1
    seqs = [file.seq for file in increments]
    if seqs and seqs[0] < first:
        return f"{increments[0].name} is older than {bases[0].name} and may be contained in it"
    if not bases and seqs and seqs[0] != 1:
        return f"there is no base, and the increments begin with number {seqs[0]}"
    if seqs and seqs != list(range(seqs[0], seqs[0] + len(seqs))):
        return f"the increments' numbers have a gap: {', '.join(map(str, seqs))}"
    if not bases and not increments:
        return "there are no files that it could name"
    made_s = base_time_s(folder / bases[0].name) if bases and bases[0].name.endswith(".rdb") else 0
    for file in increments:  # what was appended for the last time before the base was made is in the base
        found = (folder / file.name).stat()
        if made_s and found.st_size and found.st_mtime < made_s - CLOCK_S:
            return f"{file.name} was last written before {bases[0].name} was made and may be contained in it"
    return Manifest(bases[0] if bases else None, increments, [], first, seqs[-1] if seqs else 0)


def manifest_paths(folder: Path) -> list[Path]:
    """The manifests in a folder, without one that was being written. OSError."""
    return [path for path in sorted(folder.glob(f"*{SUFFIX}")) if not path.name.startswith("temp-")]


def check_folder(folder: Path, fix: bool = False, force: bool = False, progress: Progress | None = None) -> Report:
    """An appendonlydir. ToolError."""
    report = Report(folder, "folder of an append-only file")
    try:
        paths = manifest_paths(folder)
        members = members_of(folder)
    except OSError as error:
        raise ToolError(f"{folder}: {error.strerror or error}") from None
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        report.problems.append(f"several manifests: {names}; name the one that you mean")
        return report
    if paths:
        return check_manifest(paths[0], fix, force, progress, report)
    if not members:
        report.problems.append("neither a manifest nor files that one could name")
        return report
    report.problems.append("the manifest is missing")
    _check_remaining(folder, members, None, report, fix, progress)
    return report


def check_manifest(
    path: Path, fix: bool = False, force: bool = False, progress: Progress | None = None, report: Report | None = None
) -> Report:
    """A manifest and everything that it names. ToolError."""
    report = report or Report(path, "manifest of an append-only file")
    folder = path.parent
    try:
        manifest = manifests.read(path)
        members = members_of(folder)
    except BadManifest as error:
        report.problems.append(f"{path.name}: {error}")
        _check_remaining(folder, members_of(folder), path, report, fix, progress)
        return report
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror or error}") from None
    _describe_manifest(path, manifest, report)
    missing = [file.name for file in manifest.files if not (folder / file.name).is_file()]
    if missing:
        report.problems.append(f"named by the manifest, but not there: {', '.join(missing)}")
        report.facts["missing"] = missing
    _look_for_orphans(manifest, members.get(path.name.removesuffix(SUFFIX)), report)
    _check_files(folder, manifest, report, fix, force, progress)
    return report


def _describe_manifest(path: Path, manifest: Manifest, report: Report) -> None:
    report.facts["manifest"] = path.name
    report.facts["files"] = [{"name": file.name, "seq": file.seq, "type": file.kind} for file in manifest.files]
    base = f"base {manifest.base.name}" if manifest.base else "no base"
    report.lines.append(f"{path.name}: {base}, {plural(len(manifest.increments), 'increment')}")
    if manifest.history:
        names = ", ".join(file.name for file in manifest.history)
        report.notes.append(f"replaced files that a server deletes at its next start: {names}")


def _look_for_orphans(manifest: Manifest, members: Members | None, report: Report) -> None:
    """Files that the manifest should name, or that are only left over; gaps between increments."""
    if members is None:
        return
    named = {file.name for file in (*manifest.files, *manifest.history)}
    orphans = [file for file in (*members.bases, *members.increments) if file.name not in named]
    report.facts["orphans"] = [file.name for file in orphans]
    seqs = [file.seq for file in manifest.increments]
    gaps = [range(low + 1, high) for low, high in itertools.pairwise(seqs)]
    for file in orphans:
        if file.kind == "i" and any(file.seq in gap for gap in gaps):
            report.problems.append(f"{file.name} is not in the manifest, though the files before and after it are")
        elif file.kind == "i" and seqs and file.seq > seqs[-1]:
            report.notes.append(f"{file.name} is newer than all that the manifest names; a rewrite had begun")
        else:
            report.notes.append(f"{file.name} is not in the manifest: left over by a rewrite")
    there = {file.seq for file in orphans}
    unexplained = [seq for gap in gaps for seq in gap[:GAP_SHOWN] if seq not in there]
    if unexplained:
        more = ", …" if any(len(gap) > GAP_SHOWN for gap in gaps) else ""
        report.notes.append(f"no increment has the number {', '.join(map(str, unexplained))}{more}")


def _check_files(
    folder: Path, manifest: Manifest, report: Report, fix: bool, force: bool, progress: Progress | None
) -> None:
    """What a server would load, in order. Only the end of the last file with anything in it may be torn."""
    files = [file for file in manifest.files if (folder / file.name).is_file()]
    filled = [file for file in files if (folder / file.name).stat().st_size]
    for file in files:
        path = folder / file.name
        with mapped(path) as data:
            is_rdb = path.suffix == ".rdb"
            part = check_rdb(path, data, progress) if is_rdb else check_aof(path, data, progress)
            report.parts.append(part)
            if not part.problems:
                continue
            if is_rdb:
                part.remedy = (
                    "the increments build upon what is lost here; to go on without it, at your own risk: "
                    f"zeekdb check --fix {path}"
                )
            elif file.is_made_whole:
                part.remedy = (
                    "no crash tears a base, and the increments build upon what is lost here; to go on without it, at "
                    f"your own risk: zeekdb check --fix {path}"
                )
            elif file != filled[-1]:
                part.remedy = "it is not the last file, so what follows needs what was torn off: nothing is repaired"
            elif fix:
                repair_aof(path, data, part, force)


def _check_remaining(
    folder: Path,
    members: dict[str, Members],
    path: Path | None,
    report: Report,
    fix: bool,
    progress: Progress | None,
) -> None:
    """A manifest that is missing or broken: the files that are there, and with `fix` a new manifest."""
    stem = path.name.removesuffix(SUFFIX) if path else ""
    if not stem and len(members) != 1:
        names = ", ".join(sorted(members))
        report.remedy = f"it cannot be made again: there are files of several ({names})"
        return
    found = members.get(stem) or (next(iter(members.values())) if not stem else Members(stem))
    manifest = rebuilt(folder, found)
    if isinstance(manifest, str):
        report.remedy = f"it cannot be made again: {manifest}"
        return
    names = ", ".join(file.name for file in manifest.files)
    if manifest.base is None:
        report.notes.append("there is no base: as it should be if the server was ZeekDB and has never rewritten")
    _check_files(folder, manifest, report, False, False, progress)
    if not fix:
        report.remedy = f"--fix makes it again, of {names}"
        return
    target = path or folder / f"{found.stem}{SUFFIX}"
    if target.exists():
        kept = free_name(target.with_name(f"{target.name}.broken"))
        target.replace(kept)
        report.fixed.append(f"the broken manifest is {kept.name}")
    manifests.write(target, manifest)
    report.fixed.append(f"{target.name} was made again, of {names}")
