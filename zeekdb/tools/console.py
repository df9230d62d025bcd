"""What the tools say: lines, tables, sizes and times for people, JSON for programs, progress for whoever waits."""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

OK: Final = 0
PROBLEM: Final = 1
USAGE: Final = 2

REDRAW_S: Final = 0.1  # of a bar on a terminal
REPEAT_S: Final = 3.0  # of a line elsewhere
BAR_CELLS: Final = 24
UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class ToolError(Exception):
    """What was asked cannot be done; the message says why. The exit status is 1."""


class UsageError(Exception):
    """What was asked makes no sense; the exit status is 2."""


def say(text: str = "") -> None:
    """A line of the answer."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """A line beside the answer."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say_json(value: Any) -> None:
    """The answer for a program."""
    say(json.dumps(value, indent=2, ensure_ascii=True))


def run(parser: ArgumentParser, act: Callable[[Namespace], int], words: Sequence[str]) -> int:
    """What a tool does with its words; the exit status. An error that ends it is said, with `--json` as JSON too."""
    options = parser.parse_args(words)
    try:
        return act(options)
    except UsageError as error:
        warn(f"{parser.prog}: {error}")
        return USAGE
    except BrokenPipeError:  # nobody listens: whoever started the tool knows what to do
        raise
    except (ToolError, OSError) as error:
        if options.json:
            say_json({"ok": False, "error": str(error)})
        warn(f"{parser.prog}: {error}")
        return PROBLEM


def add_output_options(parser: ArgumentParser, outcome: str = "the outcome") -> None:
    """`--json` and `--quiet`, which every tool takes."""
    parser.add_argument("--json", action="store_true", help=f"{outcome} as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def progress_for(options: Namespace, what: str, noun: str = "") -> Progress:
    """For whoever waits and has not asked for silence; a program that reads JSON has."""
    return Progress(what, noun, quiet=options.quiet or options.json)


def plural(n: int, noun: str) -> str:
    """`1 key`, `1,234 keys`, `2 libraries`."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun[:-1]}ies" if noun.endswith("ry") else f"{n:,} {noun}s"


def size_text(size: float) -> str:
    """Bytes as `1.5 MiB`."""
    for unit in UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {UNITS[-1]}"


def text_of(data: bytes, most: int = 64) -> str:
    """A key for people to read: quoted and escaped only where it has to be."""
    text = data[:most].decode("utf-8", "backslashreplace")
    if not text.isprintable() or not text or " " in text or '"' in text:
        text = json.dumps(text, ensure_ascii=False)
    return text + ("…" if len(data) > most else "")


def time_text(seconds: float) -> str:
    """Unix seconds as UTC, `2026-11-21T07:19:41Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float:
    """Unix seconds, or an ISO time (UTC where it names no zone), as Unix seconds. UsageError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: Unix seconds, or ISO like 2026-11-21T07:19:41Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parse_span(text: str) -> int:
    """`24h`, `7d`, `2w`: seconds. UsageError."""
    match = re.fullmatch(r"(\d+)([smhdw])", text)
    if not match:
        raise UsageError(f"{text!r} is no span of time: a number and s, m, h, d or w")
    return int(match[1]) * SECONDS[match[2]]


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """Rows (the first one is the head) in columns; those in `right` are aligned there."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


class Progress:
    """How far something is: a bar on a terminal, a plain line every few seconds elsewhere; `total` 0 is unknown."""

    def __init__(self, what: str, noun: str = "", stream: TextIO | None = None, quiet: bool = False) -> None:
        self.what, self.noun, self.quiet = what, noun, quiet
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.begin_s = self.shown_s = time.monotonic()
        self.drawn = False

    def show(self, done: int, total: int, count: int, size: int) -> None:
        """`done` of `total` (any unit), `count` things of `size` bytes so far; most calls cost a look at the clock."""
        now_s = time.monotonic()
        if self.quiet or now_s - self.shown_s < (REDRAW_S if self.terminal else REPEAT_S):
            return
        self.shown_s = now_s
        text = self._text(done, total, count, size, now_s - self.begin_s)
        self.stream.write(f"\r{text}\x1b[K" if self.terminal else text + "\n")
        self.stream.flush()
        self.drawn = True

    def _text(self, done: int, total: int, count: int, size: int, seconds: float) -> str:
        seconds = max(seconds, 0.001)
        parts = f"{size_text(size)}, {size_text(size / seconds)}/s"
        if self.noun:
            parts = f"{plural(count, self.noun)}, {parts}, {count / seconds:,.0f}/s"
        if not total:
            return f"{self.what}: {parts}"
        share = min(done / total, 1.0)
        full = int(share * BAR_CELLS)
        bar = f"[{'#' * full}{'.' * (BAR_CELLS - full)}] " if self.terminal else ""
        return f"{self.what} {bar}{share:.0%}: {parts}"

    def end(self) -> float:
        """The bar goes away; seconds since the begin."""
        if self.terminal and self.drawn:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
        return time.monotonic() - self.begin_s
