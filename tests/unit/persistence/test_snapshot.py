"""A snapshot shows one moment, whatever changes while it is being taken."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.fuzz.streams import TEMPLATES, arguments
from tests.unit.commands.harness import Bench
from zeekdb.commands.spec import REGISTRY, Flag
from zeekdb.config.config import Config
from zeekdb.hot.keyspace import Keyspace
from zeekdb.hot.snapshot import Snapshot
from zeekdb.persistence import rdb
from zeekdb.server.server import load_commands

load_commands()

READERS: dict[bytes, tuple[Any, ...]] = {
    b"string": ("GET",), b"list": ("LRANGE", 0, -1), b"hash": ("HGETALL",), b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", 0, -1, "WITHSCORES"), b"stream": ("XINFO", "STREAM", "FULL"),
}  # fmt: skip
GROUPS = {"generic", "string", "bitmap", "list", "hash", "set", "sorted-set", "stream", "hyperloglog", "geo"}


def plain(value: Any) -> Any:
    """Without an order where there is none."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return value


def state(bench: Bench) -> dict[bytes, Any]:
    """Every key: its type, its value, its deadline."""
    found = {}
    for key in bench.ctx.db.keys(None):
        name = str(bench("TYPE", key)).encode()
        reader, *rest = READERS[name]
        value = bench("XINFO", "STREAM", key, "FULL") if name == b"stream" else bench(reader, key, *rest)
        found[key] = (name, plain(value), bench.ctx.db.deadline(key))
    return found


def busy(dice: random.Random, bench: Bench, commands: int) -> None:
    """Random commands over all types, on few keys that often meet and many that do not."""
    templates = [t for t in TEMPLATES if t[0] in REGISTRY and REGISTRY[t[0]].group in GROUPS and t[0] != "MIGRATE"]
    for _ in range(commands):
        name, *words = arguments(dice, dice.choice(templates)) or [b""]
        spec = REGISTRY.get(name.decode("latin-1"))
        if spec and spec.group in GROUPS and not spec.subcommands and not spec.flags & Flag.BLOCKING:
            bench(spec.name, *words)
        key = b"many:%d" % dice.randrange(3000)
        dice.choice((
            lambda key=key: bench("SET", key, dice.random()), lambda key=key: bench("DEL", key),
            lambda key=key: bench("HSET", key + b"h", "f", dice.random()),
            lambda key=key: bench("RENAME", key, b"many:%d" % dice.randrange(3000)),
            lambda key=key: bench("EXPIRE", key, 100), lambda key=key: bench("APPEND", key, "x"),
            lambda key=key: bench("LPUSH", key + b"l", "x"), lambda key=key: bench("COPY", key, key + b"c"),
        ))()  # fmt: skip


def desk() -> Bench:
    """An empty keyspace with the default directives."""
    bench = Bench()
    bench.ctx.server.config = Config()
    return bench


def loaded(data: bytes) -> Bench:
    """What a file holds."""
    bench = Bench()
    rdb.load(bench.keyspace, data)
    return bench


def whole(bench: Bench, snapshot: Snapshot, records: list[bytes], head: bytes) -> bytes:
    while not snapshot.step(1):
        records.append(snapshot.take())
    records.append(snapshot.take())
    return b"".join((head, *records, rdb.END, bytes(8)))


@pytest.mark.parametrize("seed", range(4))
def test_it_shows_the_moment_when_it_began(seed: int) -> None:
    dice = random.Random(seed)
    bench = desk()
    busy(dice, bench, 1500)
    for _ in range(2):  # the second one finds what the first has left
        before = state(bench)
        head = rdb.head(bench.keyspace.databases, b"")
        snapshot = Snapshot(bench.keyspace.databases, True, False)
        records = []
        while not snapshot.step(1):
            records.append(snapshot.take())
            busy(dice, bench, 5)
        records.append(snapshot.take())
        assert state(loaded(b"".join((head, *records, rdb.END, bytes(8))))) == before
        assert state(bench) != before
        assert bench.ctx.db.faults() == 0


def test_tables_may_grow_meanwhile() -> None:
    bench = Bench()
    for n in range(2000):
        bench("SET", f"k{n}", n)
    before = state(bench)
    head = rdb.head(bench.keyspace.databases, b"")
    snapshot = Snapshot(bench.keyspace.databases, True, False)
    records: list[bytes] = []
    n = 2000
    while not snapshot.step(1):
        records.append(snapshot.take())
        for _ in range(500):
            bench("SET", f"k{n}", n)
            bench("DEL", f"k{n - 1990}")
            n += 1
    assert state(loaded(whole(bench, snapshot, records, head))) == before


def test_one_that_was_given_up_leaves_nothing_behind() -> None:
    bench = Bench()
    for n in range(3000):
        bench("SET", f"k{n}", n)
    first = Snapshot(bench.keyspace.databases, True, False)
    assert not first.step(1)
    with pytest.raises(RuntimeError):
        Snapshot(bench.keyspace.databases, True, False)
    first.give_up()
    bench("SET", "k0", "changed")
    assert first.step(0)
    assert first.take() == b""
    before = state(bench)
    second = Snapshot(bench.keyspace.databases, True, False)
    assert state(loaded(whole(bench, second, [], rdb.head(bench.keyspace.databases, b"")))) == before
    assert second.seen == second.total == 3000


def test_databases_keep_their_numbers() -> None:
    bench = Bench()
    databases = bench.keyspace.databases
    for index in (0, 3, 15):
        for n in range(500):
            databases[index].set(b"%d:%d" % (index, n), b"v")
    snapshot = Snapshot(databases, True, False)
    records = []
    while not snapshot.step(1):
        records.append(snapshot.take())
        for index in (15, 3, 0):  # pre-images of databases that the walk is not in
            databases[index].remove(b"%d:%d" % (index, len(records)))
    made = loaded(whole(bench, snapshot, records, rdb.head(databases, b""))).keyspace
    assert [len(db) for db in made.databases] == [500 if index in (0, 3, 15) else 0 for index in range(16)]
    assert all(key.startswith(b"%d:" % db.index) for db in made.databases for key in db.keys(None))


def test_what_is_overdue_is_left_out() -> None:
    bench = Bench()
    bench("SET", "a", "1", "PX", 10)
    bench("SET", "b", "1", "PX", 10_000)
    bench("HSET", "h", "f", "v")
    bench("HPEXPIRE", "h", 10, "FIELDS", 1, "f")
    bench.keyspace.set_clock(bench.keyspace.now_ms() + 10)
    snapshot = Snapshot(bench.keyspace.databases, True, False)
    made = loaded(whole(bench, snapshot, [], rdb.head(bench.keyspace.databases, b"")))
    assert state(made).keys() == {b"b"}


@pytest.mark.parametrize(("lfu", "expected"), [(False, 30), (True, 77)])
def test_recency_is_kept(lfu: bool, expected: int) -> None:
    keyspace = Keyspace()
    keyspace.touch_lfu = lfu
    db = keyspace.databases[0]
    db.set(b"k", b"v")
    if lfu:
        db.set_frequency(b"k", 77)
    else:
        db.set_idle_s(b"k", 30)
    snapshot = Snapshot(keyspace.databases, True, True)
    snapshot.step(0)
    data = snapshot.take()
    assert data[2 if data[:1] == b"\xfe" else 0 :].startswith((b"\xf9" if lfu else b"\xf8") + bytes([expected]))
