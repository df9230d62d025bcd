"""Snapshots while commands go on: the file holds one moment, whatever changes, appears or goes during the walk."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import REDIS, Server, Wire, wait_for

Start = Callable[..., Server]
KEYS = 30_000
DATABASES = (0, 5)


def fill(wire: Wire, chance: random.Random) -> None:
    for database in DATABASES:
        wire("SELECT", database)
        for first in range(0, KEYS, 1000):
            wire.pipeline([make(i, chance) for i in range(first, first + 1000)])
        wire("HSET", "k:big", *(word for i in range(2000) for word in (f"f{i}", "v")))
        wire("SADD", "ints", 1, 2, 3)


def make(i: int, chance: random.Random) -> tuple[Any, ...]:
    """A command that creates the key i or changes it, by its type."""
    key, n = f"k:{i}", chance.randrange(1000)
    return (
        ("SET", key, n * 7), ("APPEND", key, "x" * n), ("RPUSH", key, n, "e"), ("SADD", key, n),
        ("ZADD", key, n, f"m{n}"), ("HSET", key, f"f{n}", n), ("XADD", key, "*", "f", n),
        ("SET", key, "v", "EX", 5000 + n),
    )[i % 8]  # fmt: skip


def change(chance: random.Random) -> tuple[Any, ...]:
    i = chance.randrange(KEYS * 5 // 4)
    other = f"k:{chance.randrange(KEYS)}"
    return chance.choice([
        make(i, chance), ("DEL", f"k:{i}"), ("RENAME", f"k:{i}", other), ("PERSIST", f"k:{i}"),
        ("PEXPIRE", f"k:{i}", chance.choice([1, 10**7])), ("COPY", f"k:{i}", other, "REPLACE"), ("LPOP", f"k:{i}"),
        ("MOVE", f"k:{i}", 1), ("SPOP", f"k:{i}"), ("HINCRBY", "k:big", f"f{i % 2000}", 1),
        ("SETRANGE", f"k:{i}", 3, "yyy"), ("ZPOPMIN", f"k:{i}"), ("HDEL", f"k:{i}", f"f{i % 1000}"),
        ("XTRIM", f"k:{i}", "MAXLEN", 0), ("GETEX", f"k:{i}", "PX", 1),
        ("UNLINK", f"k:{i}"), ("SINTERSTORE", other, f"k:{i}", "ints"), ("BITOP", "NOT", other, f"k:{i}"),
        ("SETBIT", f"k:{i}", 9, 1), ("HSET", "k:big", f"f{i % 2000}", i),
        ("EVAL", "return redis.call('APPEND', KEYS[1], 'z')", 1, f"k:{i}"), ("SORT", f"k:{i}", "ALPHA", "STORE", other),
    ])  # fmt: skip


def contents(wire: Wire) -> dict[tuple[int, bytes], tuple[Any, ...]]:
    """What every key holds and when it ends, by database."""
    found = {}
    for database in range(16):
        wire("SELECT", database)
        names = sorted(wire("KEYS", "*"))
        types = wire.pipeline([("TYPE", name) for name in names])
        reads = {
            "string": ("GET",), "list": ("LRANGE", 0, -1), "set": ("SMEMBERS",), "hash": ("HGETALL",),
            "zset": ("ZRANGE", 0, -1, "WITHSCORES"), "stream": ("XRANGE", "-", "+"),
        }  # fmt: skip
        kinds = zip(names, types, strict=True)
        values = wire.pipeline([(reads[kind][0], name, *reads[kind][1:]) for name, kind in kinds])
        ends = wire.pipeline([("PEXPIRETIME", name) for name in names])
        for name, kind, value, end in zip(names, types, values, ends, strict=True):
            if kind == "set":
                value = sorted(value)
            if kind == "hash":
                value = sorted(zip(value[::2], value[1::2], strict=True))
            found[database, name] = (kind, value, end)
    wire("SELECT", 0)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_file_holds_one_moment(start_server: Start, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with start_server("--dir", str(tmp_path)).wire() as wire:
        fill(wire, chance)
        before = contents(wire)
        assert wire("BGSAVE") == "Background saving started"
        during = 0
        while b"rdb_bgsave_in_progress:1" in wire("INFO", "persistence"):
            wire("SELECT", chance.choice(DATABASES))
            wire.pipeline([change(chance) for _ in range(50)])
            during += 1
        assert during > 3
        assert b"rdb_last_bgsave_status:ok" in wire("INFO", "persistence")
    file = tmp_path / "dump.rdb"
    assert "\\o/ RDB looks OK" in subprocess.run(["redis-check-rdb", str(file)], capture_output=True, text=True).stdout
    with start_server("--dir", str(tmp_path)).wire() as wire:
        assert contents(wire) == before
    with start_server("--dir", str(tmp_path), program=REDIS).wire() as wire:
        assert contents(wire) == before


@pytest.mark.parametrize("upheaval", [("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", 0, 5)], ids=lambda words: words[0])
def test_an_upheaval_makes_it_begin_again(start_server: Start, tmp_path: Path, upheaval: tuple[Any, ...]) -> None:
    with start_server("--dir", str(tmp_path)).wire() as wire:
        fill(wire, random.Random(7))
        wire.pipeline([("SELECT", 0), ("BGSAVE",), upheaval, ("SET", "k:after", "v")])
        wait_for(lambda: b"rdb_saves:1" in wire("INFO", "persistence"))
        assert wire("SAVE") == "OK"
        after = contents(wire)
    with start_server("--dir", str(tmp_path)).wire() as wire:
        assert contents(wire) == after


def test_a_failed_snapshot_leaves_nothing_out_of_the_next(start_server: Start, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with start_server("--dir", str(folder)).wire() as wire:
        fill(wire, random.Random(8))
        folder.rename(tmp_path / "away")
        assert wire("BGSAVE") == "Background saving started"
        wait_for(lambda: b"rdb_bgsave_in_progress:0" in wire("INFO", "persistence"))
        assert b"rdb_last_bgsave_status:err" in wire("INFO", "persistence")
        (tmp_path / "away").rename(folder)
        before = contents(wire)
        assert wire("SAVE") == "OK"
    with start_server("--dir", str(folder)).wire() as wire:
        assert contents(wire) == before
