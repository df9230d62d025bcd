"""SIGKILL under load, again and again on the same data: what was acknowledged is there after the restart.

    python -m tests.crash.killing --rounds 100 --mode always
    python -m tests.crash.killing --rounds 100 --mode everysec

Every connection changes keys of its own, one call after the other, so its data must be what its first K calls make of
them: with `always` K is what was acknowledged (the call under way may be there, too), with `everysec` at least what
was acknowledged two seconds before. Transactions and scripts must be whole. Rewrites and snapshots go on meanwhile; the
kill comes in a rewrite, in a snapshot, while the append-only file is turned off and on, or while the server loads.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support import Server, Wire, wait_for

CONNECTIONS = 6
KINDS = 8
MOMENTS = ("load", "rewrite", "snapshot", "switch", "loading")
IDLE = (b"aof_rewrite_in_progress:0", b"rdb_bgsave_in_progress:0")
BALLAST = 100_000  # keys beside, so that a rewrite, a snapshot and a start take their time
FRESH = 25  # rounds, after which it begins again with an empty folder
LATE_S = 2.0  # what everysec may lose
SCRIPT = "redis.call('incr', KEYS[1]) redis.call('incr', KEYS[2]) return redis.call('incr', KEYS[3])"


def calls(name: str, i: int) -> list[tuple[Any, ...]]:
    """The i-th call of a connection: a command, or a transaction."""
    match i % KINDS:
        case 0:
            return [("RPUSH", f"{name}:list", i)]
        case 1:
            return [("HSET", f"{name}:hash", f"f{i}", i)]
        case 2:
            return [("ZADD", f"{name}:zset", i, f"m{i}")]
        case 3:
            return [("XADD", f"{name}:stream", f"{i}-1", "n", i)]
        case 4:
            return [("MULTI",), ("INCR", f"{name}:a"), ("SADD", f"{name}:set", i), ("INCR", f"{name}:b"), ("EXEC",)]
        case 5:
            return [("EVAL", SCRIPT, 3, f"{name}:x", f"{name}:y", f"{name}:z")]
        case 6:
            return [("SET", f"{name}:string", i, "EX", 100_000)]
        case _:
            return [("APPEND", f"{name}:text", "x" * (i % 7000))]


def model(name: str, done: int) -> dict[str, Any]:
    """What a connection's keys hold after so many calls."""
    by_kind = [range(kind or KINDS, done + 1, KINDS) for kind in range(KINDS)]
    return {
        "list": [b"%d" % i for i in by_kind[0]],
        "hash": {b"f%d" % i: b"%d" % i for i in by_kind[1]},
        "zset": [b"m%d" % i for i in by_kind[2]],
        "stream": [b"%d-1" % i for i in by_kind[3]],
        "set": {b"%d" % i for i in by_kind[4]},
        "counters": [b"%d" % len(by_kind[4])] * 2 + [b"%d" % len(by_kind[5])] * 3,
        "string": b"%d" % by_kind[6][-1] if by_kind[6] else None,
        "text": sum(i % 7000 for i in by_kind[7]),
    }


def stored(wire: Wire, name: str) -> dict[str, Any]:
    """What they do hold."""
    pairs = wire("HGETALL", f"{name}:hash")
    return {
        "list": wire("LRANGE", f"{name}:list", 0, -1),
        "hash": dict(zip(pairs[::2], pairs[1::2], strict=True)),
        "zset": wire("ZRANGE", f"{name}:zset", 0, -1),
        "stream": [id for id, _ in wire("XRANGE", f"{name}:stream", "-", "+")],
        "set": set(wire("SMEMBERS", f"{name}:set")),
        "counters": [wire("GET", f"{name}:{key}") or b"0" for key in "abxyz"],
        "string": wire("GET", f"{name}:string"),
        "text": wire("STRLEN", f"{name}:text"),
    }


def newest(found: dict[str, Any]) -> int:
    """The last call that has left its number. Two kinds of calls leave none, and never one after the other."""
    numbers = [*found["list"][-1:], *(id.split(b"-")[0] for id in found["stream"][-1:]), found["string"] or b"0"]
    numbers += [*found["hash"].values(), *found["set"], *(member[1:] for member in found["zset"])]
    return max(map(int, numbers), default=0)


class Writer(threading.Thread):
    """One connection; `acknowledged` grows with its replies."""

    def __init__(self, server: Server, name: str, done: int) -> None:
        super().__init__(daemon=True)
        self.server, self.name = server, name
        self.sent = self.acknowledged = done
        self.times: list[tuple[float, int]] = []
        self.error = ""

    def run(self) -> None:
        try:
            with self.server.wire() as wire:
                while True:
                    commands = calls(self.name, self.sent + 1)
                    self.sent += 1
                    replies = wire.pipeline(commands)
                    if any(isinstance(reply, str) and reply.startswith(("ERR", "MISCONF")) for reply in replies):
                        self.error = str(replies)
                        return
                    self.acknowledged = self.sent
                    self.times.append((time.monotonic(), self.sent))
        except (OSError, EOFError):
            return  # the server was killed

    def acknowledged_before(self, moment_s: float) -> int:
        """How much of it that long ago."""
        return max((count for at, count in self.times if at <= moment_s), default=0)


def forms(dice: random.Random) -> list[str]:
    """Directives about how the file is written, which may differ from one start to the next."""
    names = ("--aof-timestamp-enabled", "--aof-use-rdb-preamble")
    return [word for name in names for word in (name, dice.choice(("yes", "no")))]


class Killing:
    """Rounds on one data directory."""

    def __init__(self, mode: str, seed: int, directory: Path, program: tuple[str, ...] | None = None) -> None:
        self.mode = mode
        self.dice = random.Random(seed)
        self.directory = directory
        self.options = {"program": program} if program else {}
        self.done = dict.fromkeys((f"c{n}" for n in range(CONNECTIONS)), 0)
        self.seen: Counter[str] = Counter()
        self.ballasted = False

    def start(self, wait: bool = True) -> Server:
        """On what the round before has left."""
        return Server(
            "--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", self.mode, "--save", "",
            "--auto-aof-rewrite-min-size", "300kb", *forms(self.dice), wait=wait, **self.options,  # type: ignore[arg-type]
        )  # fmt: skip

    def round(self, run_s: float, moment: str = "load") -> None:
        """Load, SIGKILL, restart, look. AssertionError says what is missing."""
        with self.start() as server:
            writers = [Writer(server, name, done) for name, done in self.done.items()]
            for writer in writers:
                writer.start()
            with server.wire(60) as wire:
                if not wire("EXISTS", "ballast:0"):
                    self.load_ballast(wire)
                end = time.monotonic() + run_s
                while time.monotonic() < end:
                    reply = wire(self.dice.choice(["BGREWRITEAOF", "BGSAVE", "PING", "PING", "PING"]))
                    self.seen[str(reply)[:30]] += 1
                    self.pause(0.1)
                safe_s = self.approach(wire, moment)
            killed_s = time.monotonic()
            server.terminate(signal.SIGKILL)
            for writer in writers:
                writer.join()
                assert not writer.error, writer.error
        self.seen[f"killed: {moment}"] += 1
        if moment == "loading":
            self.kill_while_loading()
        with self.start() as server, server.wire(60) as wire:
            there = wire("EXISTS", *(f"ballast:{n}" for n in range(BALLAST))) == BALLAST
            assert there or not self.ballasted
            self.ballasted = there
            for writer in writers:
                self.check(wire, writer, min(killed_s, safe_s) if self.mode == "everysec" else safe_s)

    def load_ballast(self, wire: Wire) -> None:
        """Once in a data directory."""
        for first in range(BALLAST - 1000, -1, -1000):
            wire("MSET", *(word for n in range(first, first + 1000) for word in (f"ballast:{n}", "x" * 50)))
        self.ballasted = self.mode == "always"

    def pause(self, longest_s: float) -> None:
        """While the writers go on."""
        threading.Event().wait(self.dice.uniform(0, longest_s))

    def approach(self, wire: Wire, moment: str) -> float:
        """The moment at which to kill; until when what was acknowledged is safe."""
        safe_s = float("inf")
        if moment in ("rewrite", "snapshot"):
            wait_for(lambda: all(word in wire("INFO", "persistence") for word in IDLE))
            wire("BGREWRITEAOF" if moment == "rewrite" else "BGSAVE")
        elif moment == "switch":
            wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"))
            safe_s = time.monotonic()
            assert wire("CONFIG", "SET", "appendonly", "no") == "OK"
            self.pause(0.05)
            assert wire("CONFIG", "SET", "appendonly", "yes") == "OK"
        self.pause(0.02 if moment in ("rewrite", "snapshot") else 0.1)
        if moment == "switch" and self.dice.random() < 0.3:
            wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"))
            safe_s = float("inf")
        if moment in ("rewrite", "snapshot"):
            word = b"aof_rewrite" if moment == "rewrite" else b"rdb_bgsave"
            self.seen[f"inside: {moment}"] += word + b"_in_progress:1" in wire("INFO", "persistence")
        return safe_s

    def kill_while_loading(self) -> None:
        """Some starts that are cut short."""
        for _ in range(self.dice.randint(1, 3)):
            server = self.start(wait=False)
            self.pause(0.8)
            self.seen["inside: loading"] += b"Ready to accept" not in server.log_file.read_bytes()
            server.stop()

    def check(self, wire: Wire, writer: Writer, safe_s: float) -> None:
        """Its data are what its first calls make of them, and enough calls."""
        before = self.done[writer.name]
        late_s = 0 if self.mode == "always" else LATE_S
        least = max(writer.acknowledged_before(safe_s - late_s), before)
        found = stored(wire, writer.name)
        first = newest(found)
        for count in range(max(least, first), min(first + 2, writer.sent) + 1):
            if found == model(writer.name, count):
                self.seen["calls"] += count - before
                self.seen["not promised, and lost"] += max(writer.acknowledged - count, 0)
                self.done[writer.name] = count
                return
        raise AssertionError(
            f"{writer.name}: sent {writer.sent}, acknowledged {writer.acknowledged}, at least {least} wanted; found "
            f"{ {key: value if isinstance(value, (int, bytes)) else len(value) for key, value in found.items()} }"
        )


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--mode", choices=("always", "everysec"), default="always")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of load in a round, at most")
    arguments = parser.parse_args()
    seen: Counter[str] = Counter()
    for first in range(0, arguments.rounds, FRESH):
        directory = Path(tempfile.mkdtemp(prefix="zeekdb-crash-"))
        killing = Killing(arguments.mode, arguments.seed + first, directory)
        for number in range(first, min(first + FRESH, arguments.rounds)):
            longest = arguments.seconds if arguments.mode == "always" else arguments.seconds + LATE_S
            killing.round(killing.dice.uniform(0.1, longest), MOMENTS[number % len(MOMENTS)])
            if number % 10 == 9:
                print(f"{number + 1} rounds: {dict(seen + killing.seen)}", flush=True)
        seen += killing.seen
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
