"""Compaction: after most values are gone, pages go back, and what stays is what it was."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from zeekdb.hot import compaction, memory
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.persistence import payload
from zeekdb.types import Hash, List, Set, ZSet

NOW_MS = 1_700_000_000_000


@pytest.fixture
def keyspace() -> Iterator[Keyspace]:
    keyspace = Keyspace(2, 4)
    keyspace.set_clock(NOW_MS)
    compaction.configure(keyspace)
    yield keyspace
    compaction.configure(IDLE)
    keyspace.clear(list(keyspace.databases))
    while keyspace.run_lazyfree(1000):
        pass


IDLE = Keyspace(1, 1)


def fill(db: Database, rng: random.Random, number: int) -> None:
    key = b"key:%d" % number
    text = [b"%d" % rng.randrange(10**9) + bytes(rng.randrange(60)) for _ in range(rng.choice([1, 5, 30, 300]))]
    kind = rng.randrange(6)
    if kind <= 1:
        db.set(key, b"v" * rng.choice([10, 300, 1000, 1500, 9000, 40_000, 70_000]) + key)
    elif kind == 2:
        hash_ = db.create(key, Hash)
        for word in text:
            hash_.put(word, b"x" * rng.choice([5, 1200]))
    elif kind == 3:
        list_ = db.create(key, List)
        for word in text:
            list_.push(word, head=False)
    elif kind == 4:
        set_ = db.create(key, Set)
        for word in text:
            set_.add(word)
    else:
        zset = db.create(key, ZSet)
        for word in text:
            zset.add(word, rng.random())
    if rng.random() < 0.3:
        db.set_deadline(key, NOW_MS + rng.randrange(1, 10**9))


def test_values_stay_what_they_were_and_pages_go_back(keyspace: Keyspace) -> None:
    rng = random.Random(1)
    db = keyspace.databases[1]
    for number in range(6000):
        fill(db, rng, number)
    kept = [number for number in range(6000) if rng.random() < 0.15]
    gone = set(range(6000)) - set(kept)
    for number in gone:
        db.remove(b"key:%d" % number)
    while keyspace.run_lazyfree(1000):
        pass
    before = {n: (payload.dump(db, b"key:%d" % n), db.deadline(b"key:%d" % n)) for n in kept}
    gaps = memory.resident() - memory.used()
    moved = memory.moved()
    for _ in range(30):
        compaction.urge()
        while compaction.work(50):
            assert db.faults() == 0
    assert memory.moved() > moved + 1000
    assert memory.resident() - memory.used() < gaps // 2
    assert db.faults() == 0
    after = {n: (payload.dump(db, b"key:%d" % n), db.deadline(b"key:%d" % n)) for n in kept}
    assert after == before
    keyspace.set_clock(NOW_MS + 2 * 10**9)
    while keyspace.run_expiry(1000):
        pass
    assert db.faults() == 0
    assert {n for n in kept if db.exists(b"key:%d" % n)} == {n for n in kept if (before[n][1] or 0) <= 0}


def test_values_change_while_others_move(keyspace: Keyspace) -> None:
    rng = random.Random(2)
    db = keyspace.databases[0]
    model: dict[bytes, bytes] = {}
    for turn in range(40_000):
        key = b"%d" % rng.randrange(3000)
        if rng.random() < 0.6:
            model[key] = b"v" * rng.randrange(2000 if turn < 20_000 else 100)
            db.set(key, model[key], NOW_MS + 10**6 if rng.random() < 0.2 else 0)
        else:
            db.remove(key)
            model.pop(key, None)
        if turn % 50 == 0:
            compaction.urge()
            compaction.work(20)
    assert db.faults() == 0
    assert {key: db.peek(key) for key in model} == model
    assert len(db) == len(model)
