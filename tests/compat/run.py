"""Redis's own test suite against ZeekDB: `make compat`.

Every unit is run against a fresh server, and every test that redis-server passes (tests.txt, written by `--baseline`)
is either passed here too or stands in expected.txt with the reason. A test that fails without standing there fails
the run; a unit with such a test is tried once more first, since some of the suite's tests measure time.

    make compat                                  everything
    make compat ARGS='--unit unit/type/hash'     one unit, or several
    make compat ARGS='--update'                  rewrite expected.txt; written reasons are kept
    make compat ARGS='--baseline'                run redis-server itself, rewrite tests.txt
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.compat import suite
from tests.compat.reasons import is_derived, reason
from tests.support import REDIS, ZEEKDB

HERE = Path(__file__).resolve().parent
TESTS = HERE / "tests.txt"  # unit | test: what redis-server passes
EXPECTED = HERE / "expected.txt"  # unit | test | reason: what does not pass yet
HEADER = """\
# Tests of Redis's own suite that ZeekDB does not pass yet: unit | test | reason.
# `make compat` fails on a test that is missing here, `make compat ARGS=--update` rewrites the list and keeps reasons.
"""

Rows = dict[tuple[str, str], str]


def read(path: Path) -> Rows:
    """(unit, test) → reason."""
    rows: Rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        if line and not line.startswith("# "):
            unit, test, why = [*(part.strip() for part in line.split(" | ", 2)), ""][:3]
            rows[unit, test] = why
    return rows


def write(path: Path, header: str, rows: Rows, order: list[str]) -> None:
    """The rows by unit, in the suite's order."""
    place = {unit: n for n, unit in enumerate(order)}
    ordered = sorted(rows.items(), key=lambda row: place.get(row[0][0], len(order)))
    path.write_text(header + "".join(" | ".join(part for part in (*key, why) if part) + "\n" for key, why in ordered))


def judge(outcome: suite.Outcome, known: list[str]) -> Rows:
    """What of this unit does not pass, and why."""
    rows: Rows = {}
    unit = outcome.unit
    for test in dict.fromkeys([*known, *outcome.failed]):
        if test in outcome.failed:
            rows[unit, test] = reason(unit, test, outcome.failed[test])
        elif test not in outcome.seen:
            rows[unit, test] = f"not reached: {reason(unit, test, outcome.ending)}"
    return rows


def baseline(place: Path, wanted: list[str], options: argparse.Namespace) -> int:
    """Run redis-server itself and keep the names of what passes."""
    rows = {key: "" for key in read(TESTS) if key[0] not in wanted}
    failures = 0
    for unit in wanted:
        outcome = suite.run_unit(unit, place, REDIS, options.deadline, options.base_port)
        rows |= {(unit, test): "" for test in outcome.passed}
        failures += len(outcome.failed)
        print(f"{unit:36} {len(outcome.passed):5} ok {len(outcome.failed):4} err  {outcome.ending[:60]}", flush=True)
        for test, report in outcome.failed.items():
            print(f"    {test}: {report.splitlines()[0] if report else ''}")
    write(TESTS, "# What redis-server passes, run as `make compat` does: unit | test.\n", rows, suite.units(place))
    print(f"{len(rows)} tests pass, {failures} do not")
    return 0


def compare(place: Path, wanted: list[str], options: argparse.Namespace) -> int:
    """Run ZeekDB; 1 when a test fails that the list does not name."""
    expected, known = read(EXPECTED), read(TESTS)
    failing: Rows = {}
    passed = 0
    print(f"{'unit':36} {'ok':>5} {'not':>5} {'new':>4} {'fixed':>5} {'s':>6}")
    for unit in wanted:
        started = time.monotonic()
        tests = [test for u, test in known if u == unit]
        for attempt in (1, 2):
            outcome = suite.run_unit(unit, place, ZEEKDB, options.deadline, options.base_port)
            rows = judge(outcome, tests)
            new = rows.keys() - expected.keys()
            if not new or options.update or attempt == 2:
                break
        failing |= rows
        passed += len(outcome.passed)
        fixed = [key for key in expected if key[0] == unit and key not in rows]
        seconds = time.monotonic() - started
        print(f"{unit:36} {len(outcome.passed):5} {len(rows):5} {len(new):4} {len(fixed):5} {seconds:6.1f}", flush=True)
        for key in sorted(new) if not options.update else []:
            print(f"    new: {key[1]}: {rows[key]}")
    new = failing.keys() - expected.keys()
    fixed = [key for key in expected if key[0] in wanted and key not in failing]
    print(f"\n{passed} tests pass, {len(failing)} do not ({len(new)} of them new, {len(fixed)} fixed); "
          f"redis-server passes {sum(unit in wanted for unit, _ in known)} in these units")  # fmt: skip
    if options.update:
        kept = {key: why for key, why in expected.items() if key[0] not in wanted}
        written = {key: why for key, why in expected.items() if why and not is_derived(why)}
        rows = kept | {key: written.get(key, why) for key, why in failing.items()}
        write(EXPECTED, HEADER, rows, suite.units(place))
        return 0
    if fixed:
        print("fixed (ARGS=--update takes them off the list):")
        print(*(f"    {unit} | {test}" for unit, test in fixed), sep="\n")
    return 1 if new else 0


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Redis's own test suite against ZeekDB")
    parser.add_argument("--unit", action="append", default=[], help="only this unit; may be repeated")
    parser.add_argument("--update", action="store_true", help="rewrite expected.txt, keeping written reasons")
    parser.add_argument("--baseline", action="store_true", help="run redis-server and rewrite tests.txt")
    parser.add_argument("--deadline", type=float, default=240.0, help="seconds that one unit may take")
    parser.add_argument("--base-port", type=int, default=21111, help="where the suite's own ports begin")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with us
    place = suite.tree()
    known = {unit for unit, _ in read(TESTS)}
    wanted = options.unit or [u for u in suite.units(place) if options.baseline or u in known]
    return (baseline if options.baseline else compare)(place, wanted, options)


if __name__ == "__main__":
    sys.exit(main())
