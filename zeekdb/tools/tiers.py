"""`zeekdb tiers check`: tries every tier that a configuration names, as the server would, and says what is wrong."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from zeekdb.config.command_line import Refused, configured
from zeekdb.config.config import Config
from zeekdb.config.file import FileError
from zeekdb.tools.console import OK, PROBLEM, ToolError, UsageError, add_output_options, run, say, say_json, table, warn
from zeekdb.tools.tiers_probe import Finding, check_all

OURS: Final = ("--json", "--quiet", "-h", "--help")  # all other words are the server's
DEADLINE_S: Final = 30.0  # for one step with one tier, unless told otherwise


def parser() -> argparse.ArgumentParser:
    """The command line, the server's part left out."""
    made = argparse.ArgumentParser(
        prog="zeekdb tiers",
        usage="%(prog)s check [FILE] [--directive value ...] [-] [--deadline SECONDS] [--json] [--quiet]",
        description="Try every tier that a configuration names: open it, write blocks of our own there, find, read and "
        "delete them. The configuration is given as to `zeekdb serve`. An embedded PostgreSQL is "
        "refused while the server that it belongs to runs.",
        epilog="Exit status: 0 all tiers are well, 1 one is not, 2 wrong usage.",
        allow_abbrev=False,
    )
    made.add_argument("action", choices=["check"])
    made.add_argument("--deadline", type=float, default=DEADLINE_S, metavar="SECONDS", help="for each step (30)")
    add_output_options(made, "the findings")
    return made


def main(words: Sequence[str]) -> int:
    """The exit status."""
    ours, servers = split(words)
    return run(parser(), lambda options: check(options, servers), ours)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(words for our own parser, words as the server takes them)."""
    ours, servers = list(words[:1]), []
    rest = iter(words[1:])
    for word in rest:
        if word in OURS:
            ours.append(word)
        elif word == "--deadline":
            ours += [word, *([value] if (value := next(rest, None)) is not None else [])]
        else:
            servers.append(word)
    return ours, servers


def check(options: argparse.Namespace, servers: list[str]) -> int:
    """Read the configuration, try its tiers, say what was found. UsageError, ToolError."""
    try:
        config = configured(servers)
    except (FileError, Refused) as error:
        raise UsageError(str(error)) from None
    if options.deadline <= 0:
        raise UsageError("--deadline is a number of seconds")
    findings = look(config, options.deadline, quiet=options.quiet or options.json)
    bad = [finding for finding in findings if finding.problems]
    if options.json:
        say_json({"ok": not bad, "tiers": [finding.to_json() for finding in findings]})
    elif not findings:
        say("No tier is configured: kv-ssd-path, kv-warm-url, kv-postgres-url, kv-objects-url and kv-qdrant-url are.")
    else:
        show(findings)
    return PROBLEM if bad else OK


def look(config: Config, deadline_s: float, quiet: bool) -> list[Finding]:
    """What each tier is like, tried from the folder that the server would be in. ToolError: there is no such folder."""
    logger = logging.getLogger("zeekdb")
    before = logger.level
    logger.setLevel(logging.CRITICAL)  # breakers and retries are for the table to tell

    def tell(name: str) -> None:
        if not quiet and sys.stderr.isatty():
            warn(f"trying {name}")

    try:
        with contextlib.chdir(config.dir):
            return asyncio.run(check_all(config, deadline_s, tell))
    except FileNotFoundError as error:
        raise ToolError(f"dir: {os.strerror(error.errno or 0)}: {config.dir}") from None
    finally:
        logger.setLevel(before)


def show(findings: Sequence[Finding]) -> None:
    """The table, and below it what is wrong and what can be done."""
    rows = [["tier", "state", "round trip", "write", "read", "server", "where"]]
    rows += [
        [
            finding.tier, finding.state, number(finding.round_trip_ms, ".2f", "ms"),
            number(finding.write_mb_s, ",.0f", "MB/s"), number(finding.read_mb_s, ",.0f", "MB/s"),
            finding.server or "-", finding.where,
        ]
        for finding in findings
    ]  # fmt: skip
    say(table(rows, right=frozenset((2, 3, 4))))
    for finding in findings:
        for problem in finding.problems:
            say(f"\n{finding.tier}: {problem.text}" + (f"\n  {problem.advice}" if problem.advice else ""))
        for note in finding.notes:
            say(f"\n{finding.tier}: note: {note}")


def number(value: float | None, form: str, unit: str) -> str:
    """With its unit, or a dash for what was not measured."""
    return "-" if value is None else f"{value:{form}} {unit}"
