"""The power fails under load: of every disk that it may leave, a server starts by itself and has what it acknowledged.

    python -m tests.crash.power --rounds 20 --images 200 --mode always
    python -m tests.crash.power --rounds 20 --scenario adopting

A server works on a disk whose syncs are known (see disk.py) and is killed. A crash is then tried at many moments of
the journal, wherever they were: for each, some image of the disk as it may be is loaded, and the data of every
connection must be what its first K calls make of them (see killing.py); K is at least what was acknowledged before
the moment, or two seconds before it under `everysec`. The next round goes on with one of the images.

Scenarios: `steady`, with rewrites and snapshots; `switching`, where the append-only file is turned off and on;
`snapshots`, where there is none, and what a SAVE or BGSAVE has seen that said it was done is safe; and those that begin
anew each time: `beginning`, where it is turned on for the first time after a SAVE, and `adopting`, where a server that
had only snapshots is started with it.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import signal
import tempfile
import threading
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from random import Random

from tests.crash import disk
from tests.crash.killing import CONNECTIONS, LATE_S, Writer, calls, forms, model, newest
from tests.crash.loading import Loader, Refused, held
from tests.support import Server, Wire, wait_for

SYNCS_US = (0, 300, 3000, 20_000)
ACTIONS = ("BGREWRITEAOF", "BGSAVE", "PING", "PING")
SCENARIOS = ("steady", "switching", "snapshots", "beginning", "adopting")
TELLING = "ORUMT"  # records around which a crash is the most interesting


class Lost(AssertionError):
    """Something acknowledged is not there, or nothing can be loaded; the image is kept."""


class Power:
    """Rounds on one data directory under `place`."""

    def __init__(self, mode: str, seed: int, place: Path, library: Path) -> None:
        self.mode, self.place, self.library = mode, place, library
        self.late_s = LATE_S if mode == "everysec" else 0.0
        self.dice = Random(seed)
        self.loader = Loader(appendfsync=mode)
        self.data = place / "data"
        self.data.mkdir()
        self.done = dict.fromkeys((f"c{n}" for n in range(CONNECTIONS)), 0)
        self.seen: Counter[str] = Counter()
        self.numbers = itertools.count()
        self.promises: list[tuple[float, float | None]] = []  # from when on, until when; None: until the crash

    def start(self, appendonly: bool, environment: dict[str, str]) -> Server:
        """On what the round before has left."""
        return Server(
            "--dir", str(self.data), "--appendonly", "yes" if appendonly else "no", "--appendfsync", self.mode,
            "--save", "", "--auto-aof-rewrite-min-size", "200kb", *forms(self.dice), environment=environment,
        )  # fmt: skip

    def round(self, run_s: float, images: int, scenario: str = "steady") -> None:
        """Load, SIGKILL, so many images; one of them is what the next round begins with. Lost."""
        before, journal = self.place / "before", self.place / "journal"
        journal.unlink(missing_ok=True)
        shutil.rmtree(before, ignore_errors=True)
        if scenario in ("beginning", "adopting"):
            self.begin_anew(scenario == "adopting")
        shutil.copytree(self.data, before)
        environment = disk.environment(self.library, self.data, journal, self.dice.choice(SYNCS_US))
        without = scenario in ("beginning", "snapshots")
        self.promises = [(0.0, 0.0 if without else None)]
        self.loader.config.appendonly = scenario != "snapshots"
        with self.start(not without, environment) as server:
            writers = [Writer(server, name, done) for name, done in self.done.items()]
            for writer in writers:
                writer.start()
            with server.wire(60) as wire:
                end = time.monotonic() + run_s
                if scenario == "beginning":
                    self.pause()
                    begin_s = time.monotonic()
                    assert wire("SAVE") == "OK"
                    self.promises.append((time.monotonic(), begin_s))
                    self.turn_on(wire, end)
                while time.monotonic() < end:
                    if scenario == "switching" and self.dice.random() < 0.3:
                        begin_s = time.monotonic()
                        self.promises.append((begin_s, begin_s - self.late_s))
                        assert wire("CONFIG", "SET", "appendonly", "no") == "OK"
                        self.promises.append((time.monotonic(), begin_s))
                        self.turn_on(wire, end)
                    if scenario == "snapshots":
                        self.take_snapshot(wire)
                    else:
                        wire(self.dice.choice(ACTIONS))
                    self.pause()
            server.terminate(signal.SIGKILL)
            for writer in writers:
                writer.join()
                assert not writer.error, writer.error
        self.seen["rounds"] += 1
        self.seen["calls"] += sum(writer.acknowledged - self.done[writer.name] for writer in writers)
        records = disk.records(journal)
        self.check_the_journal(before, records)
        self.try_images(before, records, writers, images)

    def pause(self) -> None:
        """While the writers go on."""
        threading.Event().wait(self.dice.uniform(0.005, 0.08))

    def take_snapshot(self, wire: Wire) -> None:
        """What was acknowledged before it began is safe when it is done."""
        begin_s, before = time.monotonic(), wire("LASTSAVE")
        if self.dice.random() < 0.5:
            assert wire("SAVE") == "OK"
        else:
            assert wire("BGSAVE") == "Background saving started"
            wait_for(lambda: b"rdb_bgsave_in_progress:0" in wire("INFO", "persistence"), 60)
            assert b"rdb_last_bgsave_status:ok" in wire("INFO", "persistence")
            assert wire("LASTSAVE") >= before
        self.promises.append((time.monotonic(), begin_s))
        self.seen["snapshots"] += 1

    def begin_anew(self, snapshot: bool) -> None:
        """An empty folder, or one with a snapshot of some data."""
        shutil.rmtree(self.data)
        self.data.mkdir()
        self.done = dict.fromkeys(self.done, 0)
        if not snapshot:
            return
        with self.start(False, {}) as server, server.wire() as wire:
            for name in self.done:
                self.done[name] = self.dice.randrange(1000)
                for i in range(self.done[name]):
                    wire.pipeline(calls(name, i + 1))
            assert wire("SAVE") == "OK"

    def turn_on(self, wire: Wire, end_s: float) -> None:
        """CONFIG SET appendonly yes, and perhaps waits until it is so."""
        self.pause()
        assert wire("CONFIG", "SET", "appendonly", "yes") == "OK"
        while time.monotonic() < end_s:
            info = wire("INFO", "persistence")
            if b"aof_enabled:1" in info and b"aof_rewrite_in_progress:0" in info:
                self.promises.append((time.monotonic(), None))
                self.seen["turned on"] += 1
                return
            self.pause()

    def safe_s(self, crash_s: float) -> float:
        """What was acknowledged before this moment has to be there after a crash."""
        promise = [since_s for from_s, since_s in self.promises if from_s <= crash_s][-1]
        return crash_s - self.late_s if promise is None else promise

    def check_the_journal(self, before: Path, records: list[disk.Record]) -> None:
        """What the process has seen, if nothing is lost: the folder, but for what each thread was about to record."""
        seen = disk.Disk(str(self.data), before)
        for record in records:
            seen.do(record)
        copy = self.image(seen, None)
        here = {path.relative_to(self.data) for path in self.data.rglob("*")}
        there = {path.relative_to(copy) for path in copy.rglob("*")}
        assert len(here ^ there) <= 2, here ^ there
        files = [path for path in here & there if (copy / path).is_file()]
        others = [p for p in files if not (self.data / p).read_bytes().startswith((copy / p).read_bytes())]
        assert len(others) <= len(here ^ there), others  # a file moved over another one
        shutil.rmtree(copy)

    def image(self, state: disk.Disk, dice: Random | None) -> Path:
        """A folder as it may be found."""
        place = self.place / f"image-{next(self.numbers)}"
        state.write(place, dice)
        return place

    def try_images(self, before: Path, records: list[disk.Record], writers: list[Writer], count: int) -> None:
        """Crashes all over the journal."""
        telling = [at for at, record in enumerate(records) if record.kind in TELLING] or [0]
        moments = sorted(
            min(max(self.dice.choice(telling) + self.dice.randint(-3, 3), 0), len(records))
            if self.dice.random() < 0.5
            else self.dice.randint(0, len(records))
            for _ in range(count)
        )
        last = self.dice.randrange(count)
        state, done = disk.Disk(str(self.data), before), 0
        kept: tuple[Path, dict[str, int]] | None = None
        for number, moment in enumerate(moments):
            for record in records[done:moment]:
                state.do(record)
            done = moment
            crash_s = records[moment].time_s if moment < len(records) else records[-1].time_s
            place = self.image(state, self.dice)
            if number == last:
                whole = self.place / "next"
                shutil.copytree(place, whole)
                kept = whole, self.check(place, writers, crash_s, moment)
            else:
                self.check(place, writers, crash_s, moment)
            shutil.rmtree(place)
        assert kept is not None
        shutil.rmtree(self.data)
        kept[0].rename(self.data)
        self.done = kept[1]

    def check(self, image: Path, writers: list[Writer], crash_s: float, moment: int) -> dict[str, int]:
        """How many calls of each connection are there. Lost."""
        self.seen["images"] += 1
        try:
            self.loader.load(image)
        except Refused as why:
            raise Lost(f"{image}, record {moment}: {why}") from None
        if self.loader.faults():
            raise Lost(f"{image}: the tables are broken")
        if any("loses" in line for line in self.loader.said):
            self.seen["cut"] += 1
        found = {writer.name: self.calls_held(writer, crash_s, image, moment) for writer in writers}
        return found

    def calls_held(self, writer: Writer, crash_s: float, image: Path, moment: int) -> int:
        """How many calls of one connection are there."""
        before = self.done[writer.name]
        at = bisect_left(writer.times, (self.safe_s(crash_s), 0))
        least = max(writer.times[at - 1][1] if at else 0, before)
        found = held(self.loader.databases[0], writer.name)
        if found.pop("holes"):
            self.seen["values with holes"] += 1
        first = newest(found)
        for count in range(max(least, first), min(first + 2, writer.sent) + 1):
            if found == model(writer.name, count):
                self.seen["not acknowledged, and there"] += count > least
                return count
        shown = {key: value if isinstance(value, int | bytes | None) else len(value) for key, value in found.items()}
        wanted = f"{writer.name} sent {writer.sent}, at least {least} wanted"
        raise Lost(f"{image}, record {moment}: {wanted}; found {shown}")


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=200, help="disks that are tried in a round")
    parser.add_argument("--mode", choices=("always", "everysec"), default="always")
    parser.add_argument("--scenario", choices=SCENARIOS, default="steady")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.5, help="of load in a round, at most")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="zeekdb-power-"))
    power = Power(arguments.mode, arguments.seed, place, disk.build(place))
    longer = LATE_S if arguments.mode == "everysec" else 0
    for number in range(arguments.rounds):
        power.round(power.dice.uniform(0.2, arguments.seconds) + longer, arguments.images, arguments.scenario)
        print(f"{number + 1} rounds: {dict(power.seen)}", flush=True)
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
