"""The allocator, seen through what the keyspace stores: accounting, reuse, and what goes back to the system."""

from __future__ import annotations

import random

import pytest

from zeekdb.hot import memory
from zeekdb.hot.keyspace import Database, Keyspace

MIB = 1 << 20


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.fixture
def db() -> Database:
    return Keyspace(1, 1).databases[0]


def test_what_is_removed_is_no_longer_counted(db: Database) -> None:
    sizes = [*range(0, 300, 7), 511, 512, 513, 1023, 1024, 1025, 2048, 4096, 65535, 65536, 65537, 131072, 3 * MIB + 1]
    for i in range(50):  # the table's own memory settles
        db.set(b"warm%d" % i, b"")
    for i in range(50):
        db.remove(b"warm%d" % i)
    before = memory.used()
    for size in sizes:
        key = b"k%d" % size
        db.set(key, b"x" * size)
        assert memory.used() - before >= size
        assert (db.memory_of(key) or 0) >= size
        assert db.remove(key)
        assert memory.used() == before


def test_blocks_do_not_overlap(db: Database) -> None:
    chance = random.Random(5)
    model: dict[bytes, bytes] = {}
    for step in range(30_000):
        key = b"%d" % chance.randrange(2000)
        if chance.random() < 0.4:
            assert db.remove(key) == (model.pop(key, None) is not None)
        else:
            size = chance.choice((chance.randrange(64), chance.randrange(600), chance.randrange(5000)))
            model[key] = bytes([step & 255]) * size
            db.set(key, model[key])
    assert {key: db.peek(key) for key in db.keys()} == model  # noqa: SIM118


def test_overwriting_a_large_value_reuses_its_slab(db: Database) -> None:
    value = bytes(8 * MIB)
    db.set(b"big", value)
    db.set(b"big", value)
    before = resident()
    idle = memory.idle()
    for _ in range(50):
        db.set(b"big", value)
    assert memory.idle() == idle
    assert resident() < before + 2 * MIB


def test_idle_slabs_are_bounded(db: Database) -> None:
    for i in range(12):
        db.set(b"%d" % i, bytes(32 * MIB))
    for i in range(12):
        db.remove(b"%d" % i)
    assert memory.idle() <= 256 * MIB


def test_slabs_that_nobody_needs_are_given_back(db: Database) -> None:
    for _ in range(200):
        memory.trim()
    assert memory.idle() == 0
    for i in range(4):
        db.set(b"%d" % i, bytes(5 * MIB))
    for i in range(4):
        db.remove(b"%d" % i)
    assert memory.idle() >= 20 * MIB
    before = resident()
    for _ in range(25):
        memory.trim()
        db.set(b"used", bytes(5 * MIB))  # one of the four is in use all the while
        db.remove(b"used")
    assert 5 * MIB <= memory.idle() < 10 * MIB
    assert resident() < before - 10 * MIB


def test_a_very_large_slab_leaves_in_slices(db: Database) -> None:
    db.set(b"huge", bytes(300 * MIB))  # more than may lie idle
    before = resident()
    db.remove(b"huge")
    for _ in range(5):
        memory.trim()
    assert resident() > before - 200 * MIB
    for _ in range(40):
        memory.trim()
    assert resident() < before - 290 * MIB


def test_emptied_pages_go_back_to_the_system(db: Database) -> None:
    before = resident()
    value = b"x" * 100
    for i in range(400_000):
        db.set(b"key:%012d" % i, value)
    full = resident() - before
    assert full < 400_000 * 150  # 128 an entry, and its share of the slots
    db.clear()
    while db.keyspace.run_lazyfree(10_000):
        pass
    assert resident() - before < full // 4


def test_keys_take_what_was_promised(db: Database) -> None:
    """A key of 16 bytes with a value of 100 makes an entry of 124 bytes, which takes 128."""
    for i in range(1000):
        db.set(b"key:%012d" % i, b"x" * 100)
    entries = memory.used() - db.table_stats()["overhead"]
    before = memory.used() - db.table_stats()["overhead"]
    db.set(b"one more key 016", b"x" * 100)
    assert memory.used() - db.table_stats()["overhead"] - before == 128
    assert entries > 128_000
