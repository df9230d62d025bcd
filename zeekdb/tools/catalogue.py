"""`zeekdb report`: what the catalogue in PostgreSQL knows, as a table or as JSON."""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from zeekdb.tiers.postgres import reports
from zeekdb.tools.console import (
    OK,
    UsageError,
    add_output_options,
    parse_span,
    run,
    say,
    say_json,
    size_text,
    table,
    text_of,
    time_text,
)
from zeekdb.tools.database import ask, url_of

if TYPE_CHECKING:
    from asyncpg import Connection

NAMES: Final = {
    "entries": "blocks of --model, the newest first",
    "recent": "blocks of the last day, the newest first",
    "hot": "blocks with more than 10 accesses, the most first",
    "tokens": "blocks of --model and --sequence that hold tokens of --range FROM-TO in --layer",
    "hits": "hit rate of each model in the last --window",
    "slow": "tiers whose p95 in the last --window is above --over milliseconds",
    "slowest": "single accesses above --over milliseconds in the last --window",
    "savings": "compression ratio and megabytes saved, by model",
    "minute": "statistics of each minute of the last --window",
    "hour": "statistics of each hour of the last --window",
    "day": "statistics of each day of the last --window",
}
WINDOWS: Final = {"minute": "1h", "hour": "1d", "day": "4w"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="zeekdb report",
        description="What the catalogue in PostgreSQL knows.",
        epilog="Reports: " + "; ".join(f"{name}: {text}" for name, text in NAMES.items()) + ".",
    )
    made.add_argument("name", metavar="NAME", choices=sorted(NAMES), help=", ".join(NAMES))
    made.add_argument("place", metavar="URL|FILE", help="postgresql://…, embedded:DIR, or a configuration "
                      "file; of a file the reader's URL, if it has one")  # fmt: skip
    made.add_argument("--model", default="")
    made.add_argument("--sequence", default="")
    made.add_argument("--layer", type=int, default=0)
    made.add_argument("--range", default="", metavar="FROM-TO", help="tokens; TO is the first behind")
    made.add_argument("--window", default="", metavar="SPAN", help="1h, 7d …")
    made.add_argument("--over", type=float, default=reports.SLOW_MS, metavar="MS")
    made.add_argument("--limit", type=int, default=reports.LIMIT)
    add_output_options(made, "the rows")
    return made


def main(words: Sequence[str]) -> int:
    """The exit status."""
    return run(parser(), report, words)


def report(options: argparse.Namespace) -> int:
    """UsageError, ToolError."""
    rows: Sequence[Any] = ask(url_of(options.place, reader=True), _question(options))
    if options.json:
        say_json([{name: _plain(name, value) for name, value in row._asdict().items()} for row in rows])
    elif not rows:
        say("nothing")
    else:
        columns = [name for name in rows[0]._fields if name not in ("digest", "metadata", "salt")]
        shown = [tuple(name.upper() for name in columns)]
        shown += [tuple(_shown(name, getattr(row, name)) for name in columns) for row in rows]
        numbers = (int, float)
        right = frozenset(at for at, name in enumerate(columns) if isinstance(getattr(rows[0], name), numbers))
        say(table(shown, right))
    return OK


def _question(options: argparse.Namespace) -> Callable[[Connection], Awaitable[Sequence[Any]]]:
    """UsageError."""
    name, model, limit, now = options.name, options.model.encode(), options.limit, time.time()
    window_s = parse_span(options.window or WINDOWS.get(name, "1h"))
    if name in ("entries", "tokens") and not model:
        raise UsageError(f"{name} is about a --model")
    if name == "tokens":
        try:
            first, last = (int(part) for part in options.range.split("-"))
        except ValueError:
            raise UsageError("tokens is about a --range, as 0-4096") from None
        sequence, layer = options.sequence.encode(), options.layer
        return lambda ask: reports.token_range(ask, model, sequence, layer, first, last, limit=limit)
    if name in WINDOWS:
        since, one = now - window_s, model or None
        return lambda ask: reports.statistics(ask, name, since=since, until=now, model=one, limit=limit)
    over_ms = options.over
    questions: dict[str, Callable[[Connection], Awaitable[Sequence[Any]]]] = {
        "entries": lambda ask: reports.entries(ask, model, limit=limit),
        "recent": lambda ask: reports.recent_entries(ask, limit=limit),
        "hot": lambda ask: reports.hot_entries(ask, limit=limit),
        "hits": lambda ask: reports.hit_rates(ask, now=now, window_s=window_s),
        "slow": lambda ask: reports.slow_tiers(ask, now=now, over_ms=over_ms, window_s=window_s),
        "slowest": lambda ask: reports.slow_accesses(ask, now=now, over_ms=over_ms, window_s=window_s, limit=limit),
        "savings": lambda ask: reports.savings(ask),
    }
    return questions[name]


def _plain(name: str, value: Any) -> Any:
    """For JSON: digests as hex, other bytes as people read them."""
    if not isinstance(value, bytes):
        return value
    return value.hex() if name == "digest" else text_of(value, len(value))


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bytes):
        return text_of(value)
    if name.endswith("at") and isinstance(value, float):
        return time_text(value)
    if name in ("rate",):
        return f"{value:.1%}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if name == "size" or name.endswith(("_size", "bytes")):
        return size_text(value)
    if isinstance(value, tuple):
        return ",".join(value) or "-"
    return str(value)
