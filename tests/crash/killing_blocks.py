"""SIGKILL of a server whose blocks spill, again and again on the same folder: what was on the SSD is there, and right.

    python -m tests.crash.killing_blocks --rounds 100

Every connection has keys of its own: it stores blocks, reads and deletes some, and asks where others are. What
KV.LOOKUP has shown on the SSD must be there after the restart, what KV.DEL has answered must not, and whatever is there
is what was stored last under its key. Some kills come while the server starts.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import tempfile
import threading
from collections import Counter
from pathlib import Path

from tests.kv import SSD, Kv
from tests.support import Server

CONNECTIONS = 4
KEYS = 60  # of each
BLOCK_BYTES_MAX = 400_000
ARENA = "8mb"
LIMIT = "4gb"  # nothing is dropped
FRESH = 25  # rounds, after which it begins again with an empty folder

ABSENT = 0  # as a version


def content(name: str, version: int) -> bytes:
    """What is stored under a key for the n-th time."""
    dice = random.Random(f"{name}:{version}")
    return dice.randbytes(dice.randint(1, BLOCK_BYTES_MAX))


class Writer(threading.Thread):
    """One connection. `may_be`: which versions of a key may be found after a crash."""

    def __init__(
        self, server: Server, name: str, seed: int, may_be: dict[str, set[int]], versions: Counter[str]
    ) -> None:  # fmt: skip
        super().__init__(daemon=True)
        self.server, self.name = server, name
        self.dice = random.Random(seed)
        self.may_be, self.versions = may_be, versions
        self.seen: Counter[str] = Counter()
        self.error = ""

    def run(self) -> None:
        try:
            with Kv(self.server) as kv:
                while True:
                    names = self.dice.sample(sorted(self.may_be), 5)
                    self.dice.choice((self.store, self.store, self.read, self.look, self.look, self.delete))(kv, names)
        except (OSError, EOFError):
            return  # the server was killed
        except AssertionError as error:
            self.error = f"{self.name}: {error}"

    def store(self, kv: Kv, names: list[str]) -> None:
        fresh = [name for name in names if self.may_be[name] == {ABSENT}]
        for name in fresh:
            self.versions[name] += 1
            self.may_be[name] = {ABSENT, self.versions[name]}
        if fresh:
            said = kv.store({name: content(name, self.versions[name]) for name in fresh})
            assert set(said) <= {1, -1}, said
            self.seen["stored"] += said.count(1)

    def read(self, kv: Kv, names: list[str]) -> None:
        for name, data in zip(names, kv.get(names), strict=True):
            self.check(name, data)
            self.seen["read"] += data is not None

    def check(self, name: str, data: bytes | None) -> None:
        """What was found is what may be there."""
        allowed = self.may_be[name]
        if data is None:
            assert ABSENT in allowed, f"{name} is lost: {allowed}"
        else:
            assert self.versions[name] in allowed, f"{name} is there again"
            assert data == content(name, self.versions[name]), f"{name} is not what was stored"

    def look(self, kv: Kv, names: list[str]) -> None:
        kv.of_keys("KV.DEMOTE", names)
        for name, tier in zip(names, kv.where(names), strict=True):
            if tier == SSD:
                self.seen["confirmed"] += ABSENT in self.may_be[name]
                self.may_be[name].discard(ABSENT)

    def delete(self, kv: Kv, names: list[str]) -> None:
        doomed = names[:2]
        for name in doomed:
            self.may_be[name].add(ABSENT)
        kv.of_keys("KV.DEL", doomed)
        for name in doomed:
            self.seen["deleted"] += self.may_be[name] != {ABSENT}
            self.may_be[name] = {ABSENT}


class Killing:
    """Rounds on one folder."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        self.seen: Counter[str] = Counter()
        self.may_be = {c: {f"{c}:{n}": {ABSENT} for n in range(KEYS)} for c in (f"c{n}" for n in range(CONNECTIONS))}
        self.versions: Counter[str] = Counter()

    def start(self, wait: bool = True) -> Server:
        """On what the round before has left."""
        options = ("--kv-memory", ARENA, "--kv-ssd-path", str(self.folder), "--kv-ssd-size", LIMIT)
        return Server("--save", "", *options, "--kv-ssd-uses", "1", wait=wait)

    def round(self, run_s: float) -> None:
        """Load, SIGKILL, restart, look. AssertionError says what is missing or wrong."""
        with self.start() as server:
            with Kv(server) as kv:
                kv.declare()
            writers = [
                Writer(server, name, self.dice.randrange(1 << 30), may_be, self.versions)
                for name, may_be in self.may_be.items()
            ]
            for writer in writers:
                writer.start()
            threading.Event().wait(run_s)
            server.terminate(signal.SIGKILL)
            for writer in writers:
                writer.join()
                assert not writer.error, writer.error
                self.seen += writer.seen
            assert "Traceback" not in server.log(), server.log()
        if self.dice.random() < 0.3:
            with self.start(wait=False) as server:
                threading.Event().wait(self.dice.uniform(0, 0.6))
        with self.start() as server, Kv(server) as kv:
            for writer in writers:
                for name in writer.may_be:
                    data = kv.get([name])[0]
                    writer.check(name, data)
                    writer.may_be[name] = {ABSENT if data is None else self.versions[name]}
                    self.seen["found"] += data is not None
            assert kv.tier()["corrupt"] == 0
        self.seen["rounds"] += 1


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.5, help="of load in a round, at most")
    arguments = parser.parse_args()
    seen: Counter[str] = Counter()
    for first in range(0, arguments.rounds, FRESH):
        folder = Path(tempfile.mkdtemp(prefix="zeekdb-crash-"))
        killing = Killing(arguments.seed + first, folder)
        for _ in range(first, min(first + FRESH, arguments.rounds)):
            killing.round(killing.dice.uniform(0.1, arguments.seconds))
            if killing.seen["rounds"] % 5 == 0:
                print(dict(seen + killing.seen), flush=True)
        seen += killing.seen
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
