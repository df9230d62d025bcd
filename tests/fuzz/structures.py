"""Fuzzes the structures of the hot room through their doors, against plain Python models of the same operations.

A `World` holds a keyspace and what should be in it. Every step picks an operation and compares what both say; now and
then everything is compared, and the background work (expiry, freeing, resizing) gets small slices in between. Limits of
the small forms are low and change, so that collections cross from one form to the other all the time.

    python -m tests.fuzz.structures --seed 7 --seconds 20
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.pairs import HashPair, ListPair, Pair, SetPair, TimedHashPair, ZSetPair, small, word
from tests.fuzz.plays import guarded
from tests.fuzz.stream_pairs import StreamPair
from zeekdb.hot.keyspace import Database, Keyspace

KEYS = 40
DATABASES = 3
STEPS = 3000  # of one world; then a new one, with another shape
WORLD_S = 60  # longer than any world takes, under a sanitizer too
START_MS = 1_700_000_000_000
KINDS: dict[str, type[Pair]] = {
    "hash": HashPair, "timed hash": TimedHashPair, "set": SetPair, "list": ListPair, "zset": ZSetPair,
    "stream": StreamPair,
}  # fmt: skip

Value = bytes | Pair


class World:
    """One keyspace and its model: per database, key → (value, deadline)."""

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.keyspace = Keyspace(DATABASES, dice.choice((1, 2, 16)))
        self.model: list[dict[bytes, Value]] = [{} for _ in range(DATABASES)]
        self.deadlines: list[dict[bytes, int]] = [{} for _ in range(DATABASES)]
        self.now_ms = START_MS
        self.keyspace.set_clock(self.now_ms)
        # wide worlds make the tables resize, narrow ones make keys meet
        self.keys = dice.choice((5, KEYS, KEYS, 3000))
        self.operations: list[Callable[[int, bytes], None]] = [
            self.set_string, self.set_string, self.change_string, self.change_collection, self.change_collection,
            self.change_collection, self.read, self.remove, self.expire, self.pass_time, self.rename, self.move,
            self.copy, self.rest, self.swap, self.scan, self.look, self.clear,
        ]  # fmt: skip
        self.weights = [6, 6, 6, 12, 12, 12, 6, 4, 4, 1, 2, 2, 2, 2, 0.3, 0.5, 2, 0.1]

    def run(self, steps: int) -> None:
        """So many operations, everything compared now and then and at the end."""
        for step in range(steps):
            database = self.dice.randrange(DATABASES)
            self.forget_expired(database)
            operation = self.dice.choices(self.operations, self.weights)[0]
            operation(database, b"k%d" % self.dice.randrange(self.keys))
            if step % 500 == 499:
                self.compare()
        self.compare()

    # ---- helpers ---------------------------------------------------------------------------------------------------

    def db(self, database: int) -> Database:
        """The real one."""
        return self.keyspace.databases[database]

    def forget_expired(self, database: int) -> None:
        """The model's lazy expiry."""
        due = [key for key, at in self.deadlines[database].items() if at <= self.now_ms]
        for key in due:
            self.drop(database, key)

    def drop(self, database: int, key: bytes) -> None:
        """Forget a key of the model."""
        self.model[database].pop(key, None)
        self.deadlines[database].pop(key, None)

    def door(self, database: int, key: bytes) -> Any:
        """The real value: bytes or a door, None when absent."""
        return self.db(database).peek(key)

    def compare(self) -> None:
        """Everything."""
        for database, model in enumerate(self.model):
            self.forget_expired(database)
            db = self.db(database)
            same(sorted(db.keys()), sorted(model), "keys")
            for key, value in model.items():
                if isinstance(value, bytes):
                    same(db.peek(key), value, key)
                else:
                    value.check(db.peek(key))
                same(db.deadline(key), self.deadlines[database].get(key, -1), key)
            same(db.faults(), 0, "faults")
        assert self.keyspace.memory_used() >= 0

    # ---- operations ------------------------------------------------------------------------------------------------

    def set_string(self, database: int, key: bytes) -> None:
        value = word(self.dice)
        keep = self.dice.random() < 0.2
        at = -1 if keep else self.dice.choice((0, 0, self.now_ms + self.dice.randrange(1, 5000)))
        self.db(database).set(key, value, at)
        self.model[database][key] = value
        if at == 0:
            self.deadlines[database].pop(key, None)
        elif at > 0:
            self.deadlines[database][key] = at

    def change_string(self, database: int, key: bytes) -> None:
        old = self.model[database].get(key, b"")
        if not isinstance(old, bytes):
            return
        db = self.db(database)
        if self.dice.random() < 0.5:
            tail = word(self.dice)
            if len(old) + len(tail) > 300_000 or not tail:
                return
            new = old + tail
            same(db.append(key, tail), len(new), key)
        else:
            offset, data = self.dice.randrange(len(old) + 50), word(self.dice)
            if not data:
                return
            new = old.ljust(offset, b"\0")[:offset] + data + old[offset + len(data) :]
            same(db.write_at(key, offset, data), len(new), key)
        self.model[database][key] = new

    def change_collection(self, database: int, key: bytes) -> None:
        pair = self.model[database].get(key)
        if isinstance(pair, bytes):
            return
        db = self.db(database)
        if pair is None:
            pair = KINDS[self.dice.choice(list(KINDS))]()
            same(db.peek(key), None, key)  # as ctx.write does; what is overdue goes now
            door = db.create(key, pair.door)
            self.model[database][key] = pair
            pair.prepare(db, key, self.now_ms)
            pair.fill(self.dice, door)
        else:
            pair.prepare(db, key, self.now_ms)
            door = db.peek(key)
            for _ in range(self.dice.choice((1, 1, 3, 20))):
                pair.step(self.dice, door)
        if not len(pair):
            same(len(door), 0, key)
            same(db.remove(key), True, key)
            self.drop(database, key)

    def read(self, database: int, key: bytes) -> None:
        value, real = self.model[database].get(key), self.db(database).read(key)
        if isinstance(value, Pair):
            value.check(real)
            return
        same(real, value, key)
        if value:
            first = self.dice.randrange(len(value))
            last = self.dice.randrange(first, len(value))
            same(self.db(database).getrange(key, first, last), value[first : last + 1], key)
            same(self.db(database).strlen(key), len(value), key)

    def remove(self, database: int, key: bytes) -> None:
        same(self.db(database).remove(key), key in self.model[database], key)
        self.drop(database, key)

    def expire(self, database: int, key: bytes) -> None:
        at = self.dice.choice((0, self.now_ms + self.dice.randrange(1, 3000)))
        same(self.db(database).set_deadline(key, at), key in self.model[database], key)
        if key in self.model[database]:
            self.deadlines[database].pop(key, None)
            if at:
                self.deadlines[database][key] = at

    def pass_time(self, database: int, key: bytes) -> None:
        self.now_ms += self.dice.choice((0, 1, 100, 1500))
        self.keyspace.set_clock(self.now_ms)
        for each in range(DATABASES):
            self.forget_expired(each)
            self.forget_fields(each)

    def forget_fields(self, database: int) -> None:
        """The model's fields that are due; what listed an empty hash still would not be wrong, but it would differ."""
        for key, value in list(self.model[database].items()):
            if isinstance(value, Pair):
                value.forget(self.now_ms)
                if not len(value):
                    self.db(database).expire_fields(key)
                    self.drop(database, key)

    def rename(self, database: int, key: bytes) -> None:
        new = b"k%d" % self.dice.randrange(self.keys)
        if new == key:
            return
        same(self.db(database).rename(key, new), key in self.model[database], key)
        self.carry(database, key, database, new, take=True)

    def move(self, database: int, key: bytes) -> None:
        other = self.dice.randrange(DATABASES)
        self.forget_expired(other)
        if other == database:
            return
        can = key in self.model[database] and key not in self.model[other]
        same(self.db(database).move(key, self.db(other)), can, key)
        if can:
            self.carry(database, key, other, key, take=True)

    def copy(self, database: int, key: bytes) -> None:
        other, new = self.dice.randrange(DATABASES), b"k%d" % self.dice.randrange(self.keys)
        self.forget_expired(other)
        if (other, new) == (database, key):
            return
        same(self.db(database).copy(key, self.db(other), new), key in self.model[database], key)
        self.carry(database, key, other, new, take=False)

    def carry(self, source: int, key: bytes, target: int, new: bytes, *, take: bool) -> None:
        """The model's rename, move and copy."""
        value = self.model[source].get(key)
        if value is None:
            return
        at = self.deadlines[source].get(key)
        if take:
            self.drop(source, key)
        self.drop(target, new)
        self.model[target][new] = value if isinstance(value, bytes) or take else value.copy()
        if at is not None:
            self.deadlines[target][new] = at

    def swap(self, database: int, key: bytes) -> None:
        other = self.dice.randrange(DATABASES)
        self.keyspace.swap(database, other)
        self.model[database], self.model[other] = self.model[other], self.model[database]
        deadlines = self.deadlines
        deadlines[database], deadlines[other] = deadlines[other], deadlines[database]

    def rest(self, database: int, key: bytes) -> None:
        """What the server does between batches."""
        budget_us = self.dice.choice((1, 50, 2000))
        self.keyspace.run_lazyfree(budget_us)
        self.keyspace.run_resize(budget_us)
        self.keyspace.run_expiry(budget_us)
        if self.dice.random() < 0.2:
            for pair in KINDS.values():
                pair.limit(self.dice)

    def scan(self, database: int, key: bytes) -> None:
        """Every key that is there throughout is seen, whatever happens in between."""
        db = self.db(database)
        lasting = set(self.model[database])
        seen: set[bytes] = set()
        cursor, rounds = 0, 0
        while True:
            cursor, keys = db.scan(cursor, self.dice.choice((1, 10, 100)))
            seen.update(keys)
            rounds += 1
            assert rounds < 100_000, "a scan without end"
            if not cursor:
                break
            if self.dice.random() < 0.5:
                extra = b"s%d" % self.dice.randrange(2000)
                if self.dice.random() < 0.6:
                    db.set(extra, b"")
                    self.model[database][extra] = b""
                    self.deadlines[database].pop(extra, None)
                else:
                    db.remove(extra)
                    self.drop(database, extra)
                    lasting.discard(extra)
        assert lasting <= seen, f"scan missed {lasting - seen}"

    def look(self, database: int, key: bytes) -> None:
        db, model = self.db(database), self.model[database]
        same(db.exists(key), key in model, key)
        some = db.random_key()
        assert (some in model) if model else some is None
        memory = db.memory_of(key)
        assert (memory is None) == (key not in model), key
        same(db.type_of(key) is None, key not in model, key)

    def clear(self, database: int, key: bytes) -> None:
        self.db(database).clear()
        self.model[database].clear()
        self.deadlines[database].clear()


def same(real: object, expected: object, key: object) -> None:
    """An assertion that stays short when the values are long."""
    assert real == expected, f"{key!r}: {real!r:.400} is not {expected!r:.400}"


def fuzz(seed: int, seconds: float, only: int | None = None) -> int:
    """Worlds until the time is over; how many."""
    end = time.monotonic() + seconds
    number = only or 0
    while time.monotonic() < end:
        dice = Random(f"{seed}/{number}")
        for pair in KINDS.values():
            pair.limit(dice)
        with guarded(f"world {number} of seed {seed}", WORLD_S):
            World(dice).run(small(dice, STEPS))
        number += 1
        if only is not None:
            break
    return number


def main() -> None:
    """Parse the arguments and fuzz."""
    parser = argparse.ArgumentParser(description="Fuzz the structures against models")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--world", type=int, help="play only this one")
    options = parser.parse_args()
    print(f"structures: {fuzz(options.seed, options.seconds, options.world)} worlds without a finding", flush=True)


if __name__ == "__main__":
    main()
