"""`zeekdb import`: everything in a file, or in another server, into a running server."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from zeekdb.tools.console import (
    OK,
    PROBLEM,
    ToolError,
    UsageError,
    add_output_options,
    plural,
    progress_for,
    run,
    say,
    say_json,
    size_text,
    warn,
)
from zeekdb.tools.sending import Sender, Tally
from zeekdb.tools.sources import ServerSource, Source, file_source
from zeekdb.tools.wire import Address, Link, is_url


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="zeekdb import",
        description="Send everything that is in SOURCE into a running server: keys with their expiry and idle time, "
        "and function libraries. SOURCE is an RDB file, an append-only file or its folder, or another server.",
        epilog="Passwords may also stand in the URL, or in the environment variable REDISCLI_AUTH (for --to). Exit "
        "status: 0 everything has arrived, 1 something has not, 2 wrong usage.",
    )
    made.add_argument("source", metavar="SOURCE", help="a file, a folder, or redis://[user:password@]host:port[/db]")
    made.add_argument("--to", default="127.0.0.1:6379", metavar="ADDRESS", help="HOST:PORT, a socket's path, or a URL")
    made.add_argument("--user", default="", help="of the server that is sent to")
    made.add_argument("--password", default="", help="of the server that is sent to")
    made.add_argument("--db-filter", action="append", default=[], metavar="N", help="only this database; may be given "
                      "several times")  # fmt: skip
    made.add_argument("--replace", action="store_true", help="overwrite keys and libraries that are there already")
    add_output_options(made)
    return made


def main(words: Sequence[str]) -> int:
    """The exit status."""
    return run(parser(), import_all, words)


def import_all(options: argparse.Namespace) -> int:
    """UsageError. Of what breaks on the way the outcome tells, beside what has arrived before."""
    try:
        dbs = frozenset(int(n) for text in options.db_filter for n in text.split(","))
    except ValueError:
        raise UsageError("--db-filter takes the number of a database") from None
    tally, progress = Tally(), progress_for(options, "importing", "key")
    error, name = "", options.source
    with contextlib.ExitStack() as stack:
        try:
            source = open_source(options.source, stack)
            name = source.name
            target = stack.enter_context(Link(Address.login(options.to, options.user, options.password)))
            refuse_loading(target)
            source.send(Sender(target, tally, options.replace), dbs, progress)
        except (ToolError, OSError) as wrong:
            error = str(wrong)
    seconds = progress.end()
    if options.json:
        say_json({"source": name, "seconds": round(seconds, 3), **tally.to_json(), "ok": tally.well and not error,
                  "error": error})  # fmt: skip
    else:
        if tally != Tally() or not error:
            tell(tally, seconds)
        if error:
            warn(f"zeekdb import: {error}")
    return OK if tally.well and not error else PROBLEM


def open_source(text: str, stack: contextlib.ExitStack) -> Source:
    """ToolError, UsageError."""
    if is_url(text):
        return ServerSource(stack.enter_context(Link(Address.parse(text))))
    return file_source(Path(text))


def refuse_loading(target: Link) -> None:
    """ToolError when the server cannot take anything now."""
    info = target.info()
    if info.get("loading", "0") != "0":
        raise ToolError(f"{target.address} is loading its own data; try again when it is done")
    if info.get("role") == "slave":
        raise ToolError(f"{target.address} is a replica: send to its primary, {info.get('master_host')}")


def tell(tally: Tally, seconds: float) -> None:
    """The outcome for people."""
    rate = f" ({tally.keys / seconds:,.0f} keys/s)" if seconds > 0.01 and tally.keys else ""
    say(f"{plural(tally.keys, 'key')}, {size_text(tally.size)} in {seconds:.2f} s{rate}")
    if tally.libraries:
        say(plural(tally.libraries, "function library"))
    if tally.expired:
        say(f"{plural(tally.expired, 'key')} past the expiry, left out")
    if tally.empty:
        say(f"{plural(tally.empty, 'collection')} without elements, left out")
    if tally.gone:
        say(f"{plural(tally.gone, 'key')} deleted over there meanwhile")
    if tally.busy:
        more = ", …" if tally.busy > len(tally.busy_names) else ""
        names = ", ".join(tally.busy_names) + more
        say(f"{plural(tally.busy, 'key')} NOT sent, as they are there already (--replace overwrites): {names}")
    for failure, count in tally.failures.most_common():
        first = tally.failed_names[failure]
        say(f"{count:,} FAILED: {failure}" + (f" (first: {first})" if first != '""' else ""))
