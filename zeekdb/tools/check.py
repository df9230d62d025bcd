"""`zeekdb check`: explains RDB files, append-only files, manifests and folders, and repairs what can be repaired."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zeekdb.persistence.manifest import SUFFIX
from zeekdb.tools.aof_check import check_aof, repair_aof
from zeekdb.tools.console import (
    OK,
    PROBLEM,
    Progress,
    ToolError,
    add_output_options,
    parse_time,
    plural,
    progress_for,
    run,
    say,
    say_json,
    time_text,
    warn,
)
from zeekdb.tools.folder_check import check_folder, check_manifest, manifest_paths, members_of
from zeekdb.tools.moment_cut import cut_at
from zeekdb.tools.rdb_check import MAGIC, check_rdb, repair_rdb
from zeekdb.tools.reports import Report, mapped

HEAD: Final = 64  # bytes that tell what a file is


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="zeekdb check",
        description="Explain RDB files, append-only files, their manifests, and folders of them; repair them with "
        "--fix. Nothing is ever deleted: what a repair takes out stays in a file beside. Stop the server first.",
        epilog="Exit status: 0 all is well (or was repaired), 1 there is a problem, 2 wrong usage.",
    )
    made.add_argument("files", nargs="+", metavar="FILE", type=Path, help="a file or a folder")
    changing = made.add_mutually_exclusive_group()
    changing.add_argument("--fix", action="store_true", help="repair what can be repaired")
    changing.add_argument(
        "--cut-at", default="", metavar="TIME", help="cut an append-only file with timestamps behind its last command "
        "of that time or before: an ISO time or Unix seconds",
    )  # fmt: skip
    made.add_argument("--force", action="store_true", help="with --fix: cut at damage in the middle of a file too")
    add_output_options(made, "the findings")
    return made


def main(words: Sequence[str]) -> int:
    """The exit status."""
    return run(parser(), check_files, words)


def check_files(options: argparse.Namespace) -> int:
    """UsageError. A file that cannot be read does not keep the others from being checked."""
    until_s = int(parse_time(options.cut_at)) if options.cut_at else None
    reports = []
    failed = False
    for path in options.files:
        progress = progress_for(options, "checking", "record")
        try:
            report = check(path, options.fix, options.force, progress)
            reports.append(report if until_s is None else check_cut(path, report, until_s))
        except (ToolError, OSError) as error:
            warn(f"zeekdb check: {error}")
            failed = True
        finally:
            progress.end()
    if options.json:
        found = [report.to_json() for report in reports]
        say_json(found[0] if len(found) == 1 and len(options.files) == 1 else found)
    else:
        for report in reports:
            report.show()
    well = not failed and all(report.well for report in reports)
    if not options.json and reports:
        say("all is well" if well else "there are problems")
    sys.stdout.flush()
    return OK if well else PROBLEM


def check(path: Path, fix: bool = False, force: bool = False, progress: Progress | None = None) -> Report:
    """Whatever it is. ToolError, OSError."""
    if path.is_dir():
        return _check_directory(path, fix, force, progress)
    if not path.exists():
        raise ToolError(f"{path}: there is no such file")
    with mapped(path) as data:
        kind = recognise(path, bytes(data[:HEAD]))
        if kind == "manifest":
            return check_manifest(path, fix, force, progress)
        if kind == "rdb":
            report = check_rdb(path, data, progress)
            end = report.facts.get("rdb_bytes", 0)
            if not report.facts.get("fault") and data[end : end + 1] in (b"*", b"#"):
                kind = "aof"
            elif fix:
                repair_rdb(path, data, report)
        if kind == "aof":
            report = check_aof(path, data, progress)
            if fix:
                repair_aof(path, data, report, force)
    return report


def check_cut(path: Path, report: Report, until_s: int) -> Report:
    """Cuts what is well behind a moment; what it is then. ToolError, OSError."""
    if not report.well:
        return report
    done = cut_at(path, until_s)
    after = check(path)
    after.facts["cut"] = done
    for each in done:
        after.lines.append(
            f"{each['file']}: cut at offset {each['offset']:,}; the {plural(each['bytes'], 'byte')} behind it, later "
            f"than {time_text(until_s)}, are in {each['kept']}"
        )
    if not done:
        after.notes.append(f"nothing is later than {time_text(until_s)}")
    return after


def recognise(path: Path, head: bytes) -> str:
    """rdb, aof or manifest. ToolError."""
    if head.startswith(MAGIC):
        return "rdb"
    if path.name.endswith(SUFFIX) or head.startswith(b"file "):
        return "manifest"
    if head[:1] == b"*" or head.startswith(b"#TS:"):
        return "aof"
    suffix = path.suffix.removeprefix(".")
    if suffix in ("rdb", "aof"):
        return suffix
    raise ToolError(f"{path}: this is neither an RDB file nor an append-only file nor a manifest")


def _check_directory(folder: Path, fix: bool, force: bool, progress: Progress | None) -> Report:
    """An append-only file's folder, or a data directory that holds one, or snapshots, or both."""
    if manifest_paths(folder) or members_of(folder):
        return check_folder(folder, fix, force, progress)
    inner = [each for each in sorted(folder.iterdir()) if each.is_dir() and (manifest_paths(each) or members_of(each))]
    files = [each for each in sorted(folder.iterdir()) if each.is_file() and each.suffix in (".rdb", ".aof")]
    files = [each for each in files if not each.name.startswith("temp-")]
    if not inner and not files:
        raise ToolError(f"{folder}: no files of a server are in it")
    report = Report(folder, "data directory")
    report.parts = [check(each, fix, force, progress) for each in (*files, *inner)]
    return report
