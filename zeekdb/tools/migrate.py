"""`zeekdb migrate`: what of the catalogue's schema a database has; bring it there, or back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from zeekdb.tiers.postgres import migrate
from zeekdb.tools.console import OK, PROBLEM, add_output_options, plural, run, say, say_json, table, time_text, warn
from zeekdb.tools.database import ask, url_of


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="zeekdb migrate",
        description="The schema of the catalogue in PostgreSQL. A server brings its database up by itself when it "
        "starts; this is for whoever wants to do it beforehand, look at it, or take steps back.",
        epilog="Exit status: 0 done (status: nothing is pending and nothing wrong), 1 not, 2 wrong usage.",
    )
    actions = made.add_subparsers(dest="action", required=True, metavar="status|up|down")
    for name, text in (
        ("status", "every step, applied or not"),
        ("up", "apply what is pending"),
        ("down", "take the newest step back, or all behind --to N; their tables go with all rows"),
    ):
        each = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        each.add_argument("place", metavar="URL|FILE", help="postgresql://…, embedded:DIR, or a "
                          "configuration file with kv-postgres-url")  # fmt: skip
        if name != "status":
            each.add_argument("--to", type=int, metavar="N", help="the step that is the newest then; 0: none")
        add_output_options(each)
    return made


def main(words: Sequence[str]) -> int:
    """The exit status."""
    return run(parser(), lambda options: ACTIONS[options.action](options), words)


def show_status(options: argparse.Namespace) -> int:
    """ToolError, UsageError."""
    steps = ask(url_of(options.place), migrate.status)
    well = all(step.state == "applied" for step in steps)
    if options.json:
        shown = [
            {"number": step.number, "name": step.name, "state": step.state, "said": step.said,
             "applied_at": step.applied.applied_at if step.applied else None,
             "applied_by": step.applied.applied_by if step.applied else None}
            for step in steps
        ]  # fmt: skip
        say_json({"ok": well, "steps": shown})
        return OK if well else PROBLEM
    rows = [("STEP", "NAME", "STATE", "APPLIED", "BY", "MS")]
    rows += [
        (f"{step.number:04}", step.name, step.state, time_text(step.applied.applied_at), step.applied.applied_by,
         str(step.applied.took_ms)) if step.applied else (f"{step.number:04}", step.name, step.state, "-", "-", "-")
        for step in steps
    ]  # fmt: skip
    say(table(rows, frozenset((5,))))
    for step in steps:
        if step.said:
            warn(step.said)
    return OK if well else PROBLEM


def go_up(options: argparse.Namespace) -> int:
    """ToolError, UsageError."""
    done = ask(url_of(options.place), lambda connection: migrate.up(connection, options.to))
    return _tell(options, "applied", done)


def go_down(options: argparse.Namespace) -> int:
    """ToolError, UsageError."""
    done = ask(url_of(options.place), lambda connection: migrate.down(connection, options.to))
    return _tell(options, "taken back", done)


def _tell(options: argparse.Namespace, what: str, done: list[migrate.Migration]) -> int:
    if options.json:
        say_json({"ok": True, "steps": [step.number for step in done]})
    elif not done:
        say("nothing to do")
    else:
        for step in done:
            say(f"{step.number:04}_{step.name}")
        say(f"{plural(len(done), 'step')} {what}")
    return OK


ACTIONS = {"status": show_status, "up": go_up, "down": go_down}
