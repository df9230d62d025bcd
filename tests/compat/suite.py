"""Redis's own Tcl suite: where it comes from, one unit's run, and what its lines mean.

The suite is taken from Debian's source package with the machine's own package sources, into `.cache/redis-suite`;
`ZEEKDB_REDIS_TREE` names a tree that is already unpacked. It is run against one server, unit by unit: a unit that
hangs or kills the server takes nothing else with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import ROOT, Server

CACHE = ROOT / ".cache" / "redis-suite"
REPORT_LINES_MAX = 16
STALL_S = 60  # a test that does nothing for so long ends its unit
# what the suite's own servers have beyond the defaults
DIRECTIVES = ("--save", "", "--appendonly", "no", "--enable-debug-command", "yes", "--enable-protected-configs", "yes")
COLOUR = re.compile(r"\x1b?\[[0-9;]*m")
LINE = re.compile(r"^\[(ok|err|exception|skip|ignore|TIMEOUT)\]: ?(.*)$")


def tree() -> Path:
    """The unpacked source tree, with the installed binaries linked where the suite looks for them."""
    given = os.environ.get("ZEEKDB_REDIS_TREE")
    place = Path(given) if given else CACHE / "tree"
    if not (place / "runtest").exists():
        if given:
            sys.exit(f"ZEEKDB_REDIS_TREE names no source tree of Redis: {given}")
        download(place)
    for name in ("redis-server", "redis-cli", "redis-benchmark", "redis-check-aof", "redis-check-rdb"):
        link, installed = place / "src" / name, shutil.which(name)
        if not link.exists() and installed:
            link.unlink(missing_ok=True)
            link.symlink_to(installed)
    return place


def download(place: Path) -> None:
    """Fetch and unpack the source package; apt's own lists and sources stay as they are."""
    state = CACHE / "apt"
    for folder in ("lists/partial", "archives/partial", "sources.d"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    for path in Path("/etc/apt/sources.list.d").glob("*.sources"):
        text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", path.read_text())
        (state / "sources.d" / path.name).write_text(text)
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.list")]:
        if path.exists():
            text = re.sub(r"(?m)^deb\s", "deb-src ", path.read_text())
            (state / "sources.d" / f"{path.stem}.list").write_text(text)
    options = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": state / "sources.d",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-qq", *(part for k, v in options.items() for part in ("-o", f"{k}={v}"))]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "source", "--download-only", "redis"], check=True, cwd=state)
    shutil.rmtree(place, ignore_errors=True)
    description = next(state.glob("redis_*.dsc"))
    if shutil.which("dpkg-source"):
        subprocess.run(
            ["dpkg-source", "--no-check", "-x", description.name, str(place)],
            check=True, cwd=state, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    else:  # without Debian's patches, of which few touch the suite
        place.mkdir(parents=True)
        archive = next(state.glob("redis_*.orig.tar.*"))
        subprocess.run(["tar", "-xf", str(archive), "-C", str(place), "--strip-components=1"], check=True)


def units(place: Path) -> list[str]:
    """The suite's units in its own order."""
    listed = subprocess.run(
        ["tclsh", "tests/test_helper.tcl", "--list-tests"], cwd=place, check=True, capture_output=True, text=True
    )
    return listed.stdout.split()


@dataclass
class Outcome:
    """What one unit's run said. Tests of the same name are told apart by a count: `name`, `name (2)`."""

    unit: str
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # name: the suite's report
    skipped: int = 0
    ending: str = ""  # why the unit stopped early; empty when it ran to its end

    @property
    def seen(self) -> set[str]:
        """Every test that was run."""
        return {*self.passed, *self.failed}


def reports(text: str) -> Iterator[tuple[str, list[str]]]:
    """The suite's output as (kind, lines of its report)."""
    lines: list[str] | None = None
    for line in COLOUR.sub("", text).splitlines():
        if match := LINE.match(line):
            kind, first = match.groups()
            lines = [first]
            yield kind, lines
        elif line.startswith(("[", "Testing ", "Cleanup")):
            lines = None
        elif "The End" in line:
            yield "end", [line]
            lines = None
        elif lines is not None and len(lines) < REPORT_LINES_MAX:
            lines.append(line)


def parse(unit: str, text: str) -> Outcome:
    """The suite's output as an outcome."""
    outcome = Outcome(unit)
    times: Counter[str] = Counter()
    finished = False
    for kind, lines in list(reports(text)):  # a list: a report grows until the next one begins
        if kind == "end":
            finished = True
            break  # what follows repeats the failures
        if kind in ("skip", "ignore"):
            outcome.skipped += 1
        elif kind in ("exception", "TIMEOUT"):
            outcome.ending = "\n".join(lines)
        else:
            raw = re.sub(r" \(\d+ ms\)$", "", lines[0]) if kind == "ok" else lines[0].rsplit(" in tests/", 1)[0]
            name = " ".join(raw.replace("|", "/").split())
            times[name] += 1
            if times[name] > 1:
                name = f"{name} ({times[name]})"
            if kind == "ok":
                outcome.passed.append(name)
            else:
                outcome.failed[name] = "\n".join(lines[1:])
    if not finished and not outcome.ending:
        outcome.ending = "stopped after: " + "\n".join(COLOUR.sub("", text).splitlines()[-8:])
    return outcome


def run_unit(unit: str, place: Path, program: tuple[str, ...], deadline_s: float, base_port: int) -> Outcome:
    """Run one unit against a server of its own. The whole output stays in the cache, under `output/`."""
    with Server(*DIRECTIVES, program=program) as server:
        command = [
            "tclsh", "tests/test_helper.tcl", "--host", "127.0.0.1", "--port", str(server.port),
            "--baseport", str(base_port), "--ignore-encoding", "--ignore-digest", "--clients", "1",
            "--tags", "-slow -large-memory", "--verbose", "--durable", "--timeout", str(STALL_S), "--single", unit,
        ]  # fmt: skip
        output = CACHE / "output" / (unit.replace("/", ".") + ".txt")
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as sink:
            suite = subprocess.Popen(command, cwd=place, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                suite.wait(deadline_s)
                overdue = False
            except subprocess.TimeoutExpired:
                overdue = True
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(suite.pid, signal.SIGKILL)
                suite.wait()
        outcome = parse(unit, output.read_text(errors="replace"))
        if overdue:
            outcome.ending = f"the unit's deadline of {deadline_s:.0f} s passed"
        if server.process.poll() is not None:
            outcome.ending = f"the server ended with status {server.process.returncode}:\n{server.log()[-2000:]}"
        return outcome
