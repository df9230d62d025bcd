"""Append-only files explained: commands, transactions, times, and where the last whole one ends.

A crash tears a tail: the last command goes on behind the end, a transaction has no EXEC, or the file system has left
zeros. Nothing behind a torn tail was ever whole, so cutting it loses nothing that a server would have kept. Damage in
the middle is another matter: whole commands follow it, which a cut would throw away. So a break counts as a torn tail
only if no whole command is found behind it.
"""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeekdb.hot.aofwalk import AofWalk
from zeekdb.persistence.manifest import sync_folder
from zeekdb.tools.console import Progress, plural, time_text
from zeekdb.tools.rdb_check import MAGIC, describe, inspect
from zeekdb.tools.reports import Report, chunks, free_name, write_whole

COMMAND: Final = re.compile(rb"\r\n\*[1-9]\d{0,6}\r\n\$\d{1,10}\r\n")  # how a command may begin behind another one
TRIES_MAX: Final = 1 << 12  # places looked at for whole commands behind a break
RUN: Final = 1 << 16  # commands between two looks at the clock
NAMES_SHOWN: Final = 6


@dataclass
class Walked:
    """A walk that is over; offsets are bytes from the file's begin."""

    walk: AofWalk
    verdict: str  # "whole", "torn" or what is wrong
    whole: int
    resumes: int = 0  # where a whole command is found behind a break; 0: nowhere


def walk_commands(data: mmap.mmap | bytes, at: int = 0, progress: Progress | None = None) -> Walked:
    """All commands from `at` on."""
    walk = AofWalk(data, at)
    while walk.run(commands_max=RUN):
        if progress is not None:
            progress.show(walk.at, walk.size, walk.commands, walk.at)
    if walk.verdict == "whole":
        return Walked(walk, "whole", walk.whole)
    if only_zeros(data, walk.at):
        return Walked(walk, "torn", walk.whole)
    resumes = 0 if walk.at == walk.size or walk.verdict.endswith("MULTI") else find_command(data, walk.at)
    verdict = walk.verdict
    if verdict == "torn" and resumes:
        verdict = "a command that goes on behind the end"
    return Walked(walk, verdict, walk.whole, resumes)


def only_zeros(data: mmap.mmap | bytes, at: int) -> bool:
    """Whether nothing but zeros stands from `at` to the end, and there is something."""
    return at < len(data) and not any(piece.strip(b"\0") for piece in chunks(data, at, len(data)))


def find_command(data: mmap.mmap | bytes, at: int) -> int:
    """Where behind `at` a whole command begins; 0: nowhere that was looked at."""
    for _, match in zip(range(TRIES_MAX), COMMAND.finditer(data, at), strict=False):
        begin = match.start() + 2
        probe = AofWalk(data, begin)
        if probe.run(commands_max=1) or probe.verdict.endswith("without MULTI"):
            probe.close()
            return begin
        probe.close()
    return 0


def check_aof(path: Path, data: mmap.mmap | bytes, progress: Progress | None = None) -> Report:
    """A base of commands, an increment, or the one file of servers before 7.0 (with or without an RDB part)."""
    report = Report(path, "append-only file", len(data))
    at = 0
    if data[: len(MAGIC)] == MAGIC:
        found = inspect(data, progress)
        report.kind = "append-only file that begins with an RDB part"
        describe(found, report)
        if report.problems:
            report.facts["verdict"] = "damaged"
            report.remedy = "the RDB part is broken, so where the commands begin is not known: nothing is repaired"
            return report
        at = found.walk.end
    walked = walk_commands(data, at, progress)
    describe_commands(walked, report)
    walked.walk.close()
    return report


def describe_commands(walked: Walked, report: Report) -> None:
    """Adds what was found to a report."""
    walk, size = walked.walk, walked.walk.size
    names = sorted(walk.names.items(), key=lambda item: -item[1])
    report.facts |= {
        "commands": walk.commands,
        "transactions": walk.transactions,
        "by_name": {name.decode("utf-8", "backslashreplace"): count for name, count in names},
        "timestamps": walk.annotations,
        "first_time": walk.first_s if walk.first_s >= 0 else None,
        "last_time": walk.last_s if walk.last_s >= 0 else None,
        "whole_bytes": walked.whole,
        "verdict": walked.verdict if walked.verdict in ("whole", "torn") else "damaged",
    }
    shown = ", ".join(f"{name.decode('utf-8', 'backslashreplace')} {count:,}" for name, count in names[:NAMES_SHOWN])
    more = ", …" if len(names) > NAMES_SHOWN else ""
    report.lines.append(plural(walk.commands, "command") + (f" ({shown}{more})" if shown else ""))
    if walk.transactions or walk.open:
        half = ", and one without its EXEC" if walk.open else ""
        report.lines.append(plural(walk.transactions, "transaction") + half)
    if walk.first_s >= 0:
        times = f"{time_text(walk.first_s)} to {time_text(walk.last_s)}"
        report.lines.append(f"{plural(walk.annotations, 'timestamp')}, {times}")
    if walked.verdict == "whole":
        return
    dropped = size - walked.whole
    where = f"the last whole command ends at offset {walked.whole:,}"
    if walked.verdict == "torn":
        report.problems.append(f"its end is torn off: {where}, {plural(dropped, 'byte')} before the end")
        report.remedy = f"--fix cuts those {plural(dropped, 'byte')} off and keeps them in a file beside this one"
    else:
        follow = f"; whole commands follow from offset {walked.resumes:,}" if walked.resumes else ""
        report.problems.append(f"damaged at offset {walk.at:,}: {walked.verdict}; {where}{follow}")
        report.remedy = (
            f"--fix leaves it alone, as this is no torn end; --fix --force cuts {plural(dropped, 'byte')} from the "
            f"damage on, whole commands among them, and keeps them in a file beside this one"
        )


def repair_aof(path: Path, data: mmap.mmap | bytes, report: Report, force: bool) -> None:
    """Cuts a torn end, or (`force`) everything from a break on; what is cut is kept. OSError."""
    verdict, whole = report.facts.get("verdict"), report.facts.get("whole_bytes", 0)
    if "commands" not in report.facts or not (verdict == "torn" or (verdict == "damaged" and force)):
        return
    kept = free_name(path.with_name(f"{path.name}.cut-{whole}"))
    dropped = write_whole(kept, chunks(data, whole, len(data)))
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    sync_folder(path.parent)
    report.fixed.append(f"cut at offset {whole:,}; the {plural(dropped, 'byte')} behind it are in {kept.name}")
