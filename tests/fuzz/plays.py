"""What the fuzzers that play one numbered case after another share: the guard around a case, and their arguments."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import sys
from collections.abc import Iterator
from typing import NamedTuple

COUNT = 100_000


class Arguments(NamedTuple):
    """Which cases to play: until either bound is reached, or the one alone."""

    seed: int
    count: int
    seconds: float
    only: int | None


@contextlib.contextmanager
def guarded(case: str, limit_s: float) -> Iterator[None]:
    """Whatever ends the case, its name is said, so that it can be played again; after `limit_s` the process ends."""
    faulthandler.dump_traceback_later(limit_s, exit=True)  # a loop without end is a finding too
    try:
        yield
    except BaseException:
        print(case, file=sys.stderr, flush=True)
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()


def arguments(description: str, noun: str) -> Arguments:
    """Of the command line: so many cases, or so many seconds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, help=f"{noun}; {COUNT:,} unless seconds are given")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--only", type=int, help="play only this one")
    options = parser.parse_args()
    count = options.count or (COUNT if options.seconds == float("inf") else sys.maxsize)
    return Arguments(options.seed, count, options.seconds, options.only)
