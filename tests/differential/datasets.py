"""What one server writes the other reads, and nothing is another than it was: generated datasets of all types.

    python -m tests.differential.datasets --datasets 50000 --seed 1

Many datasets share a file, each under a prefix of its own in one of 16 databases. A file is an RDB file, or an
append-only file with a base (an RDB image, or commands) and an increment; redis-check-rdb and redis-check-aof look at
it, too. Every file goes from ZeekDB to redis-server or back, in turns.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.support import REDIS, ZEEKDB, Server, Wire, wait_for

DATABASES = 16
TOGETHER = 256  # datasets of a file
PORTION = 512  # commands of a pipeline
FAR_MS = 4_000_000_000_000  # deadlines lie behind this moment
LARGE = 0.01  # how often a collection is larger than any packed form

Command = tuple[Any, ...]


class Kind(NamedTuple):
    """How a file comes into being."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    form: str  # rdb, aof, or commands: an append-only file whose base is one of commands

    @property
    def is_aof(self) -> bool:
        """Whether there is an increment, too."""
        return self.form != "rdb"


KINDS = (
    *(Kind(*pair, form) for form in ("rdb", "aof") for pair in ((ZEEKDB, REDIS), (REDIS, ZEEKDB))),
    Kind(ZEEKDB, REDIS, "commands"),
    Kind(ZEEKDB, ZEEKDB, "commands"),  # redis-server's own forgets what is pending of entries that were deleted
)

# ---- datasets ------------------------------------------------------------------------------------------------------


def text(dice: Random) -> bytes:
    """What a value or a member may be."""
    draw = dice.random()
    if draw < 0.3:
        return b"%d" % dice.choice((0, 1, -1, 127, 128, -4097, 2**31, -(2**63), 2**63 - 1, dice.getrandbits(40)))
    if draw < 0.4:
        return dice.choice((b"", b"007", b"-0", b"1.5", b"\0", b"\r\n", b"9223372036854775808", b" 1"))
    if draw < 0.9:
        return bytes(dice.choices(b"abcdef", k=dice.randrange(70)))
    size = dice.choice((43, 44, 45, 63, 64, 65, 253, 254, 300, 4095, 4096))
    return dice.randbytes(size) if dice.random() < 0.5 else b"ab" * (size // 2)


def count(dice: Random) -> int:
    """Elements of a collection."""
    return dice.randint(200, 3000) if dice.random() < LARGE else dice.choice((1, 2, 3, 5, 9, 20))


def string(dice: Random, key: bytes) -> Iterator[Command]:
    value = text(dice)
    if dice.random() < LARGE:
        value = dice.choice((dice.randbytes, bytes))(dice.choice((16_383, 65_536, 300_000)))
    yield "SET", key, value
    if dice.random() < 0.2:
        yield "APPEND", key, text(dice)
    if dice.random() < 0.1:
        yield "SETBIT", key, dice.randrange(2000), 1


def list_(dice: Random, key: bytes) -> Iterator[Command]:
    yield dice.choice(("RPUSH", "LPUSH")), key, *(text(dice) for _ in range(count(dice)))
    if dice.random() < 0.2:
        yield "LINSERT", key, "BEFORE", text(dice), text(dice)
        yield "LSET", key, -1, text(dice)


def set_(dice: Random, key: bytes) -> Iterator[Command]:
    if dice.random() < 0.4:
        bits = dice.choice((8, 20, 40, 62))
        yield "SADD", key, *(dice.getrandbits(bits) - (1 << bits - 1) for _ in range(count(dice)))
    else:
        yield "SADD", key, *(text(dice) for _ in range(count(dice)))


def hash_(dice: Random, key: bytes) -> Iterator[Command]:
    yield "HSET", key, *(word for _ in range(count(dice)) for word in (text(dice), text(dice)))
    if dice.random() < 0.2:
        yield "HDEL", key, text(dice)


def zset(dice: Random, key: bytes) -> Iterator[Command]:
    def score() -> str:
        return dice.choice(("0", "-0", "inf", "-inf", "1e300", "5e-324", "0.1", "17179869184", repr(dice.gauss(0, 9))))

    yield "ZADD", key, *(word for _ in range(count(dice)) for word in (score(), text(dice)))


def stream(dice: Random, key: bytes) -> Iterator[Command]:
    names = [text(dice) for _ in range(dice.randint(1, 3))]
    at, ids = dice.randrange(1, 10**12), []
    for _ in range(count(dice)):
        at += dice.choice((0, 1, 1000))
        ids.append(b"%d-%d" % (at, len(ids)))
        used = names if dice.random() < 0.7 else [text(dice)]
        yield "XADD", key, ids[-1], *(word for name in used for word in (name, text(dice)))
    for number in range(dice.choice((0, 0, 1, 2))):
        yield "XGROUP", "CREATE", key, b"g%d" % number, dice.choice((b"0", b"$", dice.choice(ids)))
        for _ in range(dice.randrange(3)):
            who = b"c%d" % dice.randrange(3)
            yield "XREADGROUP", "GROUP", b"g%d" % number, who, "COUNT", dice.randint(1, 9), "STREAMS", key, ">"
        if dice.random() < 0.5:
            yield "XACK", key, b"g%d" % number, dice.choice(ids)
            yield "XCLAIM", key, b"g%d" % number, b"other", 0, *ids[:3], "RETRYCOUNT", dice.randrange(9)
            yield "XGROUP", "CREATECONSUMER", key, b"g%d" % number, text(dice)
    if dice.random() < 0.3:
        yield "XDEL", key, *dice.sample(ids, dice.randint(1, len(ids)))
    if dice.random() < 0.1:
        yield "XTRIM", key, "MAXLEN", dice.randrange(4)


MAKERS = (string, list_, set_, hash_, zset, stream)


def dataset(dice: Random, prefix: bytes) -> Iterator[Command]:
    """Some keys of any type."""
    for number in range(dice.randint(1, 6)):
        key = prefix + dice.choice((b"%d" % number, b"%d:" % number + text(dice), b"%d\0\xff" % number))
        yield from dice.choice(MAKERS)(dice, key)
        if dice.random() < 0.3:
            yield "PEXPIREAT", key, FAR_MS + dice.getrandbits(35)


def library(number: int) -> Command:
    """A function library, another one in every file."""
    code = f"redis.register_function('f{number}', function() return {number} end)"
    return "FUNCTION", "LOAD", f"#!lua name=l{number}\n{code}"


def fill(wire: Wire, commands: list[Command]) -> None:
    """All of them, in portions."""
    for at in range(0, len(commands), PORTION):
        for reply in wire.pipeline(commands[at : at + PORTION]):
            assert not str(reply).startswith(("MISCONF", "OOM", "LOADING")), reply


# ---- what is there -------------------------------------------------------------------------------------------------

READERS: dict[str, tuple[Any, ...]] = {
    "string": ("GET",), "list": ("LRANGE", 0, -1), "hash": ("HGETALL",), "set": ("SMEMBERS",),
    "zset": ("ZRANGE", 0, -1, "WITHSCORES"), "stream": ("XRANGE", "-", "+"),
}  # fmt: skip
STREAM = (b"length", b"last-generated-id", b"max-deleted-entry-id", b"entries-added", b"recorded-first-entry-id")
GROUP = (b"name", b"last-delivered-id", b"pel-count", b"pending")
COUNTED = (b"entries-read", b"lag")  # 7.0's append-only file forgets them: `streamPropagateGroupID` comes with 7.2


def pairs(flat: list[Any]) -> dict[Any, Any]:
    """A map as RESP2 gives it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def stream_facts(full: list[Any], counted: bool) -> Any:
    """What XINFO STREAM FULL says that a file has to keep; `counted`: how much of it was read, too."""
    facts = pairs(full)
    groups = []
    for flat in facts[b"groups"]:
        group = pairs(flat)
        consumers = sorted((each[b"name"], each[b"pel"] if b"pel" in each else each[b"pending"])
                           for each in map(pairs, group[b"consumers"]))  # fmt: skip
        groups.append([group.get(name) for name in GROUP + COUNTED * counted] + [group.get(b"pel"), consumers])
    return [facts[name] for name in STREAM], groups


def contents(wire: Wire, counted: bool) -> dict[Any, Any]:
    """Every key of every database, and the functions. `counted`: see stream_facts."""
    found: dict[Any, Any] = {"functions": sorted(map(str, wire("FUNCTION", "LIST", "WITHCODE")))}
    for index in range(DATABASES):
        wire("SELECT", index)
        keys = wire("KEYS", "*")
        for at in range(0, len(keys), PORTION):
            some = keys[at : at + PORTION]
            kinds = [str(kind) for kind in wire.pipeline([("TYPE", key) for key in some])]
            asked = [(READERS[kind][0], key, *READERS[kind][1:]) for key, kind in zip(some, kinds, strict=True)]
            streams = [key for key, kind in zip(some, kinds, strict=True) if kind == "stream"]
            replies = wire.pipeline(asked + [("PEXPIRETIME", key) for key in some])
            facts = wire.pipeline([("XINFO", "STREAM", key, "FULL", "COUNT", 0) for key in streams])
            for key, kind, value, deadline_ms in zip(some, kinds, replies, replies[len(some) :], strict=False):
                if kind == "hash":
                    value = sorted(pairs(value).items())
                if kind == "zset":  # the servers differ in how they spell a score, and 7.0 forgets the sign of a zero
                    value = [(name, float(score)) for name, score in zip(value[::2], value[1::2], strict=True)]
                found[index, key] = kind, sorted(value) if kind == "set" else value, deadline_ms
            told = zip(streams, facts, strict=True)
            found.update({(index, key, "stream"): stream_facts(full, counted) for key, full in told})
    return found


# ---- there and back ------------------------------------------------------------------------------------------------


class Differs(AssertionError):
    """A file did not bring everything over."""


def options(place: Path, kind: Kind) -> list[str]:
    """For either server."""
    append = ["--appendonly", "yes" if kind.is_aof else "no", "--appendfsync", "no"]
    append += ["--auto-aof-rewrite-percentage", "0"]
    append += ["--aof-use-rdb-preamble", "no" if kind.form == "commands" else "yes"]
    return ["--dir", str(place), "--save", "", *append]


def carry(place: Path, kind: Kind, seed: int, datasets: int) -> int:
    """One file from one server to the other; how many keys. Differs."""
    dice, counted = Random(seed), kind.source == ZEEKDB or not kind.is_aof
    commands: list[Command] = [library(seed % 1000)]
    for number in range(datasets):
        commands += [("SELECT", dice.randrange(DATABASES)), *dataset(dice, b"d%d:" % number)]
    with Server(*options(place, kind), program=kind.source) as server, server.wire(60) as wire:
        half = dice.randrange(len(commands)) if kind.is_aof else len(commands)
        fill(wire, commands[:half])
        if kind.is_aof:
            wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"))
            assert "started" in wire("BGREWRITEAOF")
            fill(wire, [("SELECT", 0), *select_before(commands, half), *commands[half:]])
            wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"), 60)
        else:
            assert wire("SAVE") == "OK"
        expected = contents(wire, counted)
        server.terminate()
    look_at(place, kind.is_aof)
    with Server(*options(place, kind), program=kind.target) as server, server.wire(60) as wire:
        wait_for(lambda: b"\r\nloading:0" in wire("INFO", "persistence"), 60)
        found = contents(wire, counted)
    if found != expected:
        lines = [f"seed {seed}, {kind}:"]
        others = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
        lines += [f"  {key}: {str(expected.get(key))[:600]}\n    -> {str(found.get(key))[:600]}" for key in others[:5]]
        raise Differs("\n".join(lines))
    return len(expected)


def select_before(commands: list[Command], at: int) -> list[Command]:
    """The database that was chosen there."""
    return [command for command in commands[:at] if command[0] == "SELECT"][-1:]


def look_at(place: Path, is_aof: bool) -> None:
    """Redis's own tools find nothing wrong. Differs."""
    file = place / "appendonlydir" / "appendonly.aof.manifest" if is_aof else place / "dump.rdb"
    tool = "redis-check-aof" if is_aof else "redis-check-rdb"
    looked = subprocess.run([tool, str(file)], capture_output=True, text=True)
    if looked.returncode or not ("is valid" in looked.stdout or "RDB looks OK" in looked.stdout):
        raise Differs(f"{tool}: {looked.stdout[-2000:]}{looked.stderr[-500:]}")


def run(datasets: int, seed: int, together: int = TOGETHER, say_every_s: float = 60) -> int:
    """So many datasets each way; how many keys. Differs."""
    keys, done, number, said = 0, 0, 0, time.monotonic()
    while done < datasets:
        size = min(together, datasets - done)
        for kind in KINDS[number % 2 :: 2]:
            place = Path(tempfile.mkdtemp(prefix="zeekdb-datasets-"))
            keys += carry(place, kind, seed + number, size)
            shutil.rmtree(place)
        done, number = done + size, number + 1
        if time.monotonic() - said > say_every_s:
            said = time.monotonic()
            print(f"{done} datasets, {keys} keys", flush=True)
    return keys


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=1000, help="each way")
    parser.add_argument("--seed", type=int, default=1)
    parsed = parser.parse_args()
    begin_s = time.monotonic()
    keys = run(parsed.datasets, parsed.seed)
    print(f"{parsed.datasets} datasets each way, {keys} keys, {time.monotonic() - begin_s:.0f} s: no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
