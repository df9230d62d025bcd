"""`zeekdb backup`: create, list, verify, restore and prune backups of a running server."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from zeekdb.tools.backup_create import create
from zeekdb.tools.backup_prune import Policy, plan
from zeekdb.tools.backup_restore import restore
from zeekdb.tools.backup_store import Backup, Store
from zeekdb.tools.backup_verify import verify
from zeekdb.tools.console import (
    OK,
    PROBLEM,
    ToolError,
    UsageError,
    add_output_options,
    parse_span,
    parse_time,
    plural,
    progress_for,
    run,
    say,
    say_json,
    size_text,
    table,
    time_text,
    warn,
)
from zeekdb.tools.wire import Address

PLACE_VARIABLE: Final = "ZEEKDB_BACKUPS"  # the directory of backups, where none is named


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="zeekdb backup",
        description="Backups of a running server, ZeekDB or redis-server.",
        epilog="Exit status: 0 done, 1 there is a problem, 2 wrong usage. `zeekdb backup create --help` and so on say "
        f"more. The directory of backups may stand in the environment variable {PLACE_VARIABLE}.",
    )
    actions = made.add_subparsers(dest="action", required=True, metavar="create|list|verify|restore|prune")
    place = os.environ.get(PLACE_VARIABLE, "")

    making = actions.add_parser("create", help="make a backup", description="Make a backup: of the append-only file "
                                "where it is on this machine, otherwise a snapshot.")  # fmt: skip
    making.add_argument("--from", dest="source", default="127.0.0.1:6379", metavar="ADDRESS",
                        help="HOST:PORT, a socket's path, or a URL")  # fmt: skip
    making.add_argument("--to", default=place, required=not place, metavar="DIR", help="the directory of backups")
    making.add_argument("--incremental", action="store_true", help="only what was appended since the last backup")
    making.add_argument("--snapshot", action="store_true", help="an RDB file even where there is an append-only file")
    making.add_argument("--user", default="")
    making.add_argument("--password", default="", help="also by the environment variable REDISCLI_AUTH")

    listing = actions.add_parser("list", help="what there is")
    checking = actions.add_parser("verify", help="whether backups are what they were")
    checking.add_argument("ids", nargs="*", metavar="ID", help="all, if none is named; or `latest`")
    restoring = actions.add_parser("restore", help="make a data directory of a backup", description="Make a data "
                                   "directory that `zeekdb serve` starts on.")  # fmt: skip
    restoring.add_argument("id", metavar="ID|latest")
    restoring.add_argument("--to", required=True, type=Path, metavar="DATADIR")
    restoring.add_argument("--at", default="", metavar="TIME", help="as it was then: an ISO time or Unix seconds")
    restoring.add_argument("--force", action="store_true", help="move what is in DATADIR aside")
    pruning = actions.add_parser("prune", help="remove backups that are not needed any more")
    for name, default, text in (
        ("all", "24h", "keep all that are younger"), ("daily", "7d", "one a day up to this age"),
        ("weekly", "30d", "one a week up to this age"), ("monthly", "365d", "one a month up to this age"),
    ):  # fmt: skip
        option = "--keep-all" if name == "all" else f"--{name}"
        pruning.add_argument(option, dest=name, default=default, metavar="SPAN", help=f"{text} ({default})")
    pruning.add_argument("--dry-run", action="store_true", help="only say what would be done")
    for each in (listing, checking, restoring, pruning):
        each.add_argument("--in", dest="place", default=place, required=not place, metavar="DIR",
                          help="the directory of backups")  # fmt: skip
    for each in (making, listing, checking, restoring, pruning):
        add_output_options(each)
    return made


def main(words: Sequence[str]) -> int:
    """The exit status."""
    return run(parser(), lambda options: ACTIONS[options.action](options), words)


def create_backup(options: argparse.Namespace) -> int:
    """ToolError, UsageError, OSError."""
    address = Address.login(options.source, options.user, options.password)
    progress = progress_for(options, "backup")
    backup, reason = create(address, Store(Path(options.to)), options.incremental, options.snapshot, progress)
    seconds = progress.end()
    if options.json:
        say_json({"ok": True, "path": str(backup.path), "reason": reason, **backup.to_json()})
        return OK
    if reason:
        say(f"no increment but a full backup: {reason}")
    what = {"aof": "the append-only file", "rdb": "a snapshot"}[backup.content]
    kind = f"what was appended since {backup.parent}" if backup.parent else what
    say(f"{backup.path}: {kind}, {plural(backup.keys, 'key')}, {size_text(backup.size)} in {seconds:.2f} s")
    return OK


def list_backups(options: argparse.Namespace) -> int:
    """ToolError."""
    backups, complaints = Store(Path(options.place)).backups()
    if options.json:
        say_json({"backups": [{**each.to_json(), "size": each.size} for each in backups], "problems": complaints})
    elif backups:
        rows: list[tuple[str, ...]] = [("ID", "CONTENT", "SIZE", "KEYS", "SERVER", "TIMES", "PARENT")]
        rows += [row_of(each) for each in backups]
        say(table(rows, frozenset((2, 3))))
    else:
        say(f"no backups in {options.place}")
    for complaint in complaints:
        warn(complaint)
    return PROBLEM if complaints else OK


def row_of(backup: Backup) -> tuple[str, ...]:
    """A line of the table."""
    times = "-"
    if backup.aof and backup.aof.first_s >= 0:
        times = f"{time_text(backup.aof.first_s)} to {time_text(backup.aof.last_s)}"
    size, parent = size_text(backup.size), backup.parent or "-"
    return backup.id, backup.content, size, f"{backup.keys:,}", backup.source, times, parent


def verify_backups(options: argparse.Namespace) -> int:
    """ToolError."""
    store, progress = Store(Path(options.place)), progress_for(options, "verifying")
    every, complaints = store.backups()
    chosen = [store.find(name) for name in options.ids] if options.ids else every
    if not chosen and not complaints:
        raise ToolError(f"no backups in {options.place}")
    found: dict[str, list[str]] = {}
    for backup in chosen:
        found[backup.id] = verify(store, backup, progress)
        if not options.json:
            progress.end()
            say(f"{backup.id}: " + ("; ".join(found[backup.id]) if found[backup.id] else "right"))
    others = [] if options.ids else complaints
    broken = sum(map(bool, found.values())) + len(others)
    if options.json:
        say_json({"ok": not broken, "backups": found, "problems": others})
        return PROBLEM if broken else OK
    for complaint in others:
        say(f"PROBLEM: {complaint}")
    say(f"{plural(broken, 'backup')} of {len(found) + len(others)} broken" if broken else "all is well")
    return PROBLEM if broken else OK


def restore_backup(options: argparse.Namespace) -> int:
    """ToolError, UsageError, OSError."""
    at_s = parse_time(options.at) if options.at else None
    progress = progress_for(options, "restoring")
    outcome = restore(Store(Path(options.place)), options.id, options.to, at_s, options.force, progress)
    progress.end()
    command = shlex.join(["zeekdb", "serve", *outcome.options])
    if options.json:
        say_json({"ok": True, "id": outcome.backup.id, "directory": str(outcome.directory), "cut": outcome.cut,
                  "shows": outcome.shows_s, "notes": outcome.notes, "command": command})  # fmt: skip
        return OK
    backup = outcome.backup
    say(f"{outcome.directory}: {backup.id} of {backup.source}, as it was at {time_text(outcome.shows_s)}")
    if outcome.cut:
        say(f"{plural(outcome.cut, 'byte')} of later commands left out")
    for note in outcome.notes:
        say(f"note: {note}")
    say(f"start it with: {command}")
    return OK


def prune_backups(options: argparse.Namespace) -> int:
    """ToolError, UsageError, OSError."""
    spans = [parse_span(getattr(options, name)) for name in ("all", "daily", "weekly", "monthly")]
    if spans != sorted(spans):
        raise UsageError("the spans must not become shorter: --keep-all, --daily, --weekly, --monthly")
    store = Store(Path(options.place))
    if not store.root.is_dir():
        raise ToolError(f"{store.root}: there is no such directory")
    with store.locked():
        backups, complaints = store.backups()
        kept = plan(backups, Policy(*spans), time.time())
        gone = [backup for backup in backups if backup.id not in kept]
        if not options.dry_run:
            store.clear()
            for backup in reversed(gone):  # children first: what stays has its parents at every moment
                store.remove(backup)
    size = sum(backup.size for backup in gone)
    outcome: dict[str, Any] = {"kept": kept, "removed": [each.id for each in gone], "bytes": size}
    if options.json:
        say_json({"ok": True, "dry_run": options.dry_run, **outcome, "problems": complaints})
        return OK
    for backup in backups:
        reason = f"kept: {kept[backup.id]}" if backup.id in kept else "to go" if options.dry_run else "removed"
        say(f"{backup.id}  {reason}")
    verb = "would go" if options.dry_run else "removed"
    say(f"{plural(len(gone), 'backup')} {verb}, {size_text(size)}; {plural(len(kept), 'backup')} kept")
    for complaint in complaints:
        warn(f"left alone: {complaint}")
    return OK


ACTIONS: Final = {
    "create": create_backup,
    "list": list_backups,
    "verify": verify_backups,
    "restore": restore_backup,
    "prune": prune_backups,
}
