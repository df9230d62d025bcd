"""Fuzzes RESTORE with payloads that are damaged and carry the right checksum.

A payload is made of a value of any type, or by hand in an encoding that only old versions of Redis wrote; some of its
bytes are changed, inserted or cut. It has to be refused, or give a value that holds together: all of it is read, it
survives being copied, serialised and changed, and what it says of its size is true.

    python -m tests.fuzz.payloads --seed 7 --count 100000
"""

from __future__ import annotations

import time
from random import Random
from typing import Any

import numpy as np

from tests.fuzz import packs
from tests.fuzz.pairs import member, small, word
from tests.fuzz.plays import arguments, guarded
from zeekdb.errors import CommandError
from zeekdb.hot import hashes, rdb, sets, zsets
from zeekdb.hot.keyspace import Database, Keyspace
from zeekdb.persistence import payload
from zeekdb.types import Hash, List, Set, Stream, ZSet
from zeekdb.types.stream_groups import Group
from zeekdb.types.vector_codec import BIN, NOQUANT, Q8
from zeekdb.types.vectorset import VectorSet

NOW_MS = 1_700_000_000_000
STEP_S = 60  # longer than any payload takes, under a sanitizer too
ELEMENTS_MAX = 300
VARIANTS = 40  # damaged ones of each payload
MAX_ID = (1 << 128) - 1
BYTES = (0, 1, 2, 3, 0x3F, 0x40, 0x7F, 0x80, 0x81, 0xC0, 0xC1, 0xC3, 0xE0, 0xF0, 0xF1, 0xF4, 0xFD, 0xFE, 0xFF)


def score(dice: Random) -> float:
    """Any score but NaN."""
    return dice.choice((0.0, -0.0, 1.0, 2.5, -1e9, float("inf"), float("-inf"), 1e300, 5e-324, dice.uniform(-9, 9)))


class Maker:
    """Values of all types under one key, and their payloads."""

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.keyspace = Keyspace(1, 1)
        self.keyspace.set_clock(NOW_MS)
        self.db: Database = self.keyspace.databases[0]

    def data(self) -> bytes:
        """A sound value: its type and what follows, without the footer."""
        if self.dice.random() < 0.4:
            return packs.old_value(self.dice)
        self.db.remove(b"k")
        makers = (self.string, self.list_, self.hash_, self.set_, self.zset, self.stream, self.timed, self.vectors)
        self.dice.choices(makers, (1, 1, 1, 1, 1, 1, 1, 0.2))[0]()
        data = rdb.encode(self.db, b"k", self.dice.random() < 0.3)
        assert data is not None
        return data

    def string(self) -> None:
        self.db.set(b"k", word(self.dice))

    def list_(self) -> None:
        door = self.db.create(b"k", List)
        for _ in range(small(self.dice, ELEMENTS_MAX)):
            door.push(word(self.dice), self.dice.random() < 0.5)

    def hash_(self) -> None:
        door = self.db.create(b"k", Hash)
        for _ in range(small(self.dice, ELEMENTS_MAX)):
            door.put(member(self.dice), word(self.dice))

    def timed(self) -> None:
        door = self.db.create(b"k", Hash)
        self.db.time_fields(b"k")
        for _ in range(small(self.dice, ELEMENTS_MAX)):
            field = member(self.dice)
            door.put(field, word(self.dice))
            door.set_deadline(field, self.dice.choice((0, NOW_MS + self.dice.randrange(1, 10**9))))

    def set_(self) -> None:
        door = self.db.create(b"k", Set)
        whole = self.dice.random() < 0.4
        for _ in range(small(self.dice, ELEMENTS_MAX)):
            door.add(b"%d" % self.dice.getrandbits(self.dice.choice((8, 20, 60))) if whole else member(self.dice))

    def zset(self) -> None:
        door = self.db.create(b"k", ZSet)
        for _ in range(small(self.dice, ELEMENTS_MAX)):
            door.add(member(self.dice), score(self.dice))

    def stream(self) -> None:
        door = self.db.create(b"k", Stream)
        names = [member(self.dice) for _ in range(self.dice.randint(1, 3))]
        at = self.dice.getrandbits(60) << 64
        for _ in range(small(self.dice, ELEMENTS_MAX)):
            at += self.dice.choice((1, 2, 1 << 64, 3 << 64))
            used = names if self.dice.random() < 0.7 else [word(self.dice)]
            door.append(at, [text for name in used for text in (name, word(self.dice))])
        ids = [number for number, _ in door.entries(0, MAX_ID)]
        for number in self.dice.sample(ids, len(ids) // 4):
            door.remove(number)
        for at in range(self.dice.choice((0, 0, 1, 3))):
            group = door.groups[b"g%d" % at] = Group(self.dice.choice(ids), self.dice.choice((-1, 1)))
            consumers = [group.add_consumer(b"c%d" % n, NOW_MS) for n in range(2)]
            for number in self.dice.sample(ids, len(ids) // 2):
                group.deliver(number, self.dice.choice(consumers), NOW_MS, self.dice.randint(1, 300))

    def vectors(self) -> None:
        made = VectorSet(self.dice.choice((Q8, NOQUANT, BIN)), self.dice.randint(1, 9), 4)
        for _ in range(small(self.dice, 30)):
            values = np.array([self.dice.uniform(-1, 1) for _ in range(made.dim)], np.float32)
            name = member(self.dice)
            made.add(name, made.prepare(values))
            made.set_attributes(name, self.dice.choice((b"", b'{"a": 1}')))
        for name in made.sample(len(made) // 4):
            made.remove(name)
        self.db.set_object(b"k", made)


def damaged(dice: Random, data: bytes) -> bytes:
    """The same with up to four pieces changed, most of them near the beginning, where the lengths are."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        if not changed:
            break
        at = min(int(len(changed) ** dice.random()), len(changed) - 1)
        kind = dice.random()
        if kind < 0.45:
            changed[at] = dice.choice(BYTES) if dice.random() < 0.6 else dice.randrange(256)
        elif kind < 0.6:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind < 0.7:
            del changed[at : at + dice.randint(1, 4)]
        elif kind < 0.8:
            changed[at:at] = bytes(dice.choice(BYTES) for _ in range(dice.randint(1, 9)))
        elif kind < 0.9:
            span = changed[at : at + dice.randint(1, 40)]
            place = dice.randrange(len(changed) + 1)
            changed[place:place] = span
        else:
            del changed[at:]
    if dice.random() < 0.05 and changed:
        changed[0] = dice.randrange(27)
    return bytes(changed)


def content(value: Any) -> Any:
    """Everything that a value holds, comparable."""
    if isinstance(value, List):
        return value.range(0, -1)
    if isinstance(value, Hash):
        return sorted(value.items_with_deadlines() if value.timed else [(*pair, 0) for pair in value.items()])
    if isinstance(value, Set):
        return sorted(value.members())
    if isinstance(value, ZSet):
        value.check()
        pairs = value.pairs()
        assert pairs == sorted(pairs, key=lambda pair: (pair[1], pair[0]))
        assert len({name for name, _ in pairs}) == len(pairs) == len(value)
        return pairs
    if isinstance(value, Stream):
        entries = value.entries(0, MAX_ID)
        assert len(entries) == len(value)
        assert [number for number, _ in entries] == sorted({number for number, _ in entries})
        return entries, value.last_id, [(name, content_of_group(group)) for name, group in value.groups.items()]
    if isinstance(value, VectorSet):
        names = sorted(value.sample(len(value)))
        stored = [value.stored(name) for name in names]
        rows = [(each.row.tobytes(), each.norm, each.range) for each in stored if each is not None]
        return names, rows, [value.attributes(name) for name in names], len(value.nearest(stored[0].row, 5, 50))
    return value


def content_of_group(group: Group) -> Any:
    """What is pending, for whom."""
    waiting = {number for number, *_ in group.pending.range(0, MAX_ID)}
    shares = {name: {n for n, *_ in each.pending.range(0, MAX_ID)} for name, each in group.consumers.items()}
    assert waiting == set().union(*shares.values()) if shares else not waiting
    assert len(waiting) == sum(map(len, shares.values()))
    return group.last_id, group.entries_read, waiting, shares


def try_out(db: Database, dice: Random) -> None:
    """Uses the value that a payload made."""
    value = db.peek(b"t")
    if value is None:  # all fields were due
        return
    before = content(value)
    if not isinstance(value, bytes | Stream):
        assert len(value) > 0
    db.memory_of(b"t")
    data = payload.dump(db, b"t", dice.random() < 0.5)
    assert data is not None
    payload.restore(db, b"u", data)
    assert content(db.peek(b"u")) == before, "another value after a round trip"
    db.copy(b"t", db, b"c")
    assert content(db.peek(b"c")) == before, "another value as a copy"
    change(db.peek(b"t"), dice)
    content(db.peek(b"t"))
    for key in (b"t", b"u", b"c"):
        db.remove(key)
    assert db.faults() == 0


def change(value: Any, dice: Random) -> None:
    """Some additions and removals."""
    for _ in range(4):
        if isinstance(value, List):
            value.push(word(dice), dice.random() < 0.5)
            value.pop(dice.random() < 0.5)
            value.insert(value.index(0) or b"", b"x", True)
            value.trim(0, dice.randrange(200))
        elif isinstance(value, Hash):
            value.put(member(dice), word(dice))
            for field in value.fields()[:2]:
                value.remove(field)
        elif isinstance(value, Set):
            value.add(member(dice))
            value.remove(value.members()[0])
        elif isinstance(value, ZSet):
            value.add(member(dice), score(dice))
            value.pop(dice.random() < 0.5)
        elif isinstance(value, Stream):
            number = value.next_id(NOW_MS)
            if number is not None:
                value.append(number, [b"a", b"b"])
            for entry, _ in value.entries(0, MAX_ID, 2):
                value.remove(entry)
            value.trim_to_length(dice.randrange(300), dice.random() < 0.5)
        elif isinstance(value, VectorSet):
            value.add(member(dice), value.prepare(np.ones(value.dim, np.float32)))
            value.remove(value.sample(1)[0])


def limit(dice: Random) -> None:
    """Where small forms end."""
    entries, longest = dice.choice((0, 3, 128)), dice.choice((3, 64))
    hashes.set_limits(entries=entries, value=longest)
    sets.set_limits(intset=dice.choice((0, 3, 512)), entries=entries, value=longest)
    zsets.set_limits(entries=entries, value=longest)


def fuzz(seed: int, count: int, seconds: float = float("inf"), only: int | None = None) -> tuple[int, int]:
    """So many payloads, or until the time is over; how many there were, and how many of them were taken."""
    end = time.monotonic() + seconds
    number, tried, taken = only or 0, 0, 0
    while tried < count and time.monotonic() < end:
        dice = Random(f"{seed}/{number}")
        limit(dice)
        maker = Maker(dice)
        with guarded(f"payload {number} of seed {seed}", STEP_S):
            data = maker.data()
            payload.restore(maker.db, b"t", data + payload.footer(data))  # sound so far
            try_out(maker.db, dice)
            for _ in range(VARIANTS):
                tried += 1
                bad = damaged(dice, data)
                try:
                    payload.restore(maker.db, b"t", bad + payload.footer(bad), string_max=1 << 28)
                except CommandError as error:
                    if error.message != "ERR Bad data format" or maker.db.exists(b"t"):
                        raise
                else:
                    taken += 1
                    try_out(maker.db, dice)
        number += 1
        if only is not None:
            break
    return tried, taken


def main() -> None:
    """Parse the arguments and fuzz."""
    tried, taken = fuzz(*arguments("Fuzz RESTORE with damaged payloads", "payloads"))
    print(f"payloads: {tried} damaged ones, {taken} of them taken, without a finding", flush=True)


if __name__ == "__main__":
    main()
