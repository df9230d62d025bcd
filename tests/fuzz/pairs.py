"""A collection of the hot room and its model: what the structure fuzzer steps and compares."""

from __future__ import annotations

import copy
import math
from random import Random
from typing import Any, ClassVar, Self

from zeekdb.hot import hashes, lists, setalgebra, sets, zsets
from zeekdb.hot.keyspace import Database

LENGTHS = (0, 1, 3, 8, 16, 20, 21, 63, 64, 65, 200, 253, 254, 255, 1023, 1024, 1025, 5000)


def small(dice: Random, most: int) -> int:
    """Between 1 and `most`, small ones far more often."""
    return max(1, int(most ** dice.random()))


def word(dice: Random) -> bytes:
    """A value: a number, a short text, sometimes a length where forms change."""
    kind = dice.random()
    if kind < 0.3:
        return b"%d" % dice.choice((0, -1, 7, 127, 128, 32767, -32769, 1 << 31, (1 << 63) - 1, -(1 << 63), 1 << 63))
    if kind < 0.8:
        return b"w%d" % dice.randrange(1000)
    if kind < 0.995:
        return bytes([dice.randrange(256)]) * dice.choice(LENGTHS)
    return dice.randbytes(dice.choice((16_384, 65_535, 65_536, 70_000)))


def member(dice: Random) -> bytes:
    """A field or member, from a range that makes them meet."""
    kind = dice.random()
    if kind < 0.4:
        return b"%d" % dice.randrange(-50, 400)
    if kind < 0.95:
        return b"m%d" % dice.randrange(400)
    return word(dice)


def same(real: object, expected: object, what: str) -> None:
    """An assertion that stays short when the values are long."""
    assert real == expected, f"{what}: {real!r:.400} is not {expected!r:.400}"


class Pair:
    """The model of one collection; `step` does the same to the door and compares what both say."""

    door: ClassVar[Any]
    model: Any

    def __len__(self) -> int:
        return len(self.model)

    def fill(self, dice: Random, door: Any) -> None:
        """Many additions to a new collection."""
        raise NotImplementedError

    def step(self, dice: Random, door: Any) -> None:
        """One operation."""
        raise NotImplementedError

    def check(self, door: Any) -> None:
        """Compare everything."""
        raise NotImplementedError

    def prepare(self, db: Database, key: bytes, now_ms: int) -> None:
        """Before a step or a filling: what its door alone cannot do."""

    def forget(self, now_ms: int) -> None:
        """What is due is gone."""

    def copy(self) -> Self:
        """The model of a copy."""
        twin = copy.copy(self)
        twin.model = self.model.copy()
        return twin

    @staticmethod
    def limit(dice: Random) -> None:
        """Choose where the small form ends."""
        raise NotImplementedError


def scanned(dice: Random, door: Any) -> list[Any]:
    """Everything that a scan to the end gives."""
    found: list[Any] = []
    cursor, rounds = 0, 0
    while True:
        cursor, rows = door.scan(cursor, dice.choice((1, 10, 100)))
        found += rows
        rounds += 1
        assert rounds < 100_000, "a scan without end"
        if not cursor:
            return found


class HashPair(Pair):
    """A hash and a dict."""

    door = hashes.Hash

    def __init__(self) -> None:
        self.model: dict[bytes, bytes] = {}

    def fill(self, dice: Random, door: Any) -> None:
        rows = [(member(dice), word(dice)) for _ in range(small(dice, 600))]
        created = len({field for field, _ in rows})
        same(door.put_many([part for row in rows for part in row]), created, "put_many")
        self.model.update(rows)

    def step(self, dice: Random, door: Any) -> None:
        field = dice.choice(list(self.model)) if self.model and dice.random() < 0.3 else member(dice)
        kind = dice.randrange(8)
        if kind < 3:
            value = word(dice)
            same(door.put(field, value), field not in self.model, "put")
            self.model[field] = value
        elif kind < 5:
            same(door.remove(field), self.model.pop(field, None) is not None, "remove")
        elif kind == 5:
            same(door.get(field), self.model.get(field), "get")
            same(field in door, field in self.model, "contains")
            same(door.strlen(field), len(self.model.get(field, b"")), "strlen")
        elif kind == 6:
            rows = scanned(dice, door)
            same(dict(zip(rows[::2], rows[1::2], strict=True)), self.model, "scan")
        else:
            pair = door.random()
            assert self.model.get(pair[0]) == pair[1] if self.model else pair is None, "random"
            wanted = small(dice, 50)
            sample = door.sample(wanted)
            same(len(dict(sample)), min(wanted, len(self.model)), "sample")
            assert all(self.model[f] == v for f, v in sample), "sample"

    def check(self, door: Any) -> None:
        same(len(door), len(self.model), "length")
        same(door.to_dict(), self.model, "contents")

    @staticmethod
    def limit(dice: Random) -> None:
        hashes.set_limits(entries=dice.choice((0, 1, 16, 128, 512)), value=dice.choice((0, 8, 64, 300)))


class TimedHashPair(HashPair):
    """A hash whose fields expire."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: dict[bytes, int] = {}
        self.now_ms = 0

    def prepare(self, db: Database, key: bytes, now_ms: int) -> None:
        self.now_ms = now_ms
        db.expire_fields(key)
        assert db.time_fields(key)

    def forget(self, now_ms: int) -> None:
        for field in [field for field, at in self.deadlines.items() if at <= now_ms]:
            del self.model[field], self.deadlines[field]

    def fill(self, dice: Random, door: Any) -> None:
        super().fill(dice, door)
        for field in list(self.model):
            if dice.random() < 0.7:
                self.expire(dice, door, field)

    def expire(self, dice: Random, door: Any, field: bytes) -> None:
        """A deadline, or none any more."""
        at = dice.choice((0, self.now_ms + dice.randrange(1, 3000), self.now_ms + 500))
        same(door.set_deadline(field, at), field in self.model, "set_deadline")
        if at and field in self.model:
            self.deadlines[field] = at
        else:
            self.deadlines.pop(field, None)

    def step(self, dice: Random, door: Any) -> None:
        kind = dice.random()
        field = dice.choice(list(self.model)) if self.model and kind < 0.4 else member(dice)
        if kind < 0.5:
            self.expire(dice, door, field)
        elif kind < 0.6:
            value = word(dice)
            same(door.change(field, value), field not in self.model, "change")
            self.model[field] = value
        else:
            self.watch_puts(dice, door)

    def watch_puts(self, dice: Random, door: Any) -> None:
        """An ordinary step: what it overwrites or removes loses its deadline."""
        before = dict(self.model)
        super().step(dice, door)
        for field in list(self.deadlines):
            if self.model.get(field) != before.get(field) or door.deadline(field) == -1:
                del self.deadlines[field]

    def check(self, door: Any) -> None:
        assert len(door) >= len(self.model), "length"
        same(door.to_dict(), self.model, "contents")
        rows = {field: at for field, _, at in door.items_with_deadlines() if at}
        same(rows, self.deadlines, "deadlines")
        same(door.faults(), 0, "faults")

    def copy(self) -> Self:
        twin = super().copy()
        twin.deadlines = self.deadlines.copy()
        return twin


class SetPair(Pair):
    """A set and a set."""

    door = sets.Set

    def __init__(self) -> None:
        self.model: set[bytes] = set()

    def fill(self, dice: Random, door: Any) -> None:
        only_numbers = dice.random() < 0.5
        rows = [
            b"%d" % (dice.randrange(-400, 400) * dice.choice((1, 1, 1000, 10**9, 10**15)))
            if only_numbers
            else member(dice)
            for _ in range(small(dice, 700))
        ]
        same(door.add_many(rows), len(set(rows)), "add_many")
        self.model.update(rows)

    def step(self, dice: Random, door: Any) -> None:
        one = dice.choice(sorted(self.model)) if self.model and dice.random() < 0.3 else member(dice)
        kind = dice.randrange(9)
        if kind < 3:
            same(door.add(one), one not in self.model, "add")
            self.model.add(one)
        elif kind < 5:
            same(door.remove(one), one in self.model, "remove")
            self.model.discard(one)
        elif kind == 5:
            popped = [door.pop()] if dice.random() < 0.7 else door.pop_many(small(dice, 60))
            assert set(popped) <= self.model or (popped == [None] and not self.model), "pop"
            same(len(popped), len(set(popped)), "pop")
            self.model.difference_update(popped)
        elif kind == 6:
            same(set(scanned(dice, door)), self.model, "scan")
        elif kind == 7:
            same(one in door, one in self.model, "contains")
            wanted = small(dice, 50)
            sample = door.sample(wanted)
            assert set(sample) <= self.model and len(set(sample)) == min(wanted, len(self.model)), "sample"
        else:
            self.algebra(dice, door)

    def algebra(self, dice: Random, door: Any) -> None:
        """Union, intersection and difference with a second set."""
        other = sets.Set()
        rows = {member(dice) for _ in range(small(dice, 200))}
        other.add_many(list(rows))
        both = [door, other] if dice.random() < 0.5 else [other, door]
        same(set(setalgebra.union(both).members()), self.model | rows, "union")
        same(set(setalgebra.intersection(both).members()), self.model & rows, "intersection")
        same(set(setalgebra.difference(door, [other]).members()), self.model - rows, "difference")
        same(set(setalgebra.common_members(both)), self.model & rows, "common_members")
        same(setalgebra.common_count(both), len(self.model & rows), "common_count")

    def check(self, door: Any) -> None:
        same(len(door), len(self.model), "length")
        members = door.members()
        same(len(members), len(self.model), "members")
        same(set(members), self.model, "members")

    @staticmethod
    def limit(dice: Random) -> None:
        sets.set_limits(
            intset=dice.choice((0, 4, 512)), entries=dice.choice((0, 1, 16, 128)), value=dice.choice((0, 8, 64, 300))
        )


class ListPair(Pair):
    """A list and a list."""

    door = lists.List

    def __init__(self) -> None:
        self.model: list[bytes] = []

    def fill(self, dice: Random, door: Any) -> None:
        for _ in range(small(dice, 800)):
            self.push(dice, door)

    def push(self, dice: Random, door: Any) -> None:
        """At either end."""
        value, head = word(dice), dice.random() < 0.5
        door.push(value, head)
        self.model.insert(0 if head else len(self.model), value)

    def step(self, dice: Random, door: Any) -> None:
        n = len(self.model)
        at = dice.randrange(-n - 2, n + 2)
        there = -n <= at < n
        kind = dice.randrange(12)
        if kind < 3:
            self.push(dice, door)
        elif kind == 3:
            head = dice.random() < 0.5
            same(door.pop(head), self.model.pop(0 if head else -1) if n else None, "pop")
        elif kind == 4:
            same(door.index(at), self.model[at] if there else None, "index")
        elif kind == 5:
            value = word(dice)
            same(door.set(at, value), there, "set")
            if there:
                self.model[at] = value
        elif kind == 6:
            pivot, value, before = self.pick(dice), word(dice), dice.random() < 0.5
            same(door.insert(pivot, value, before), pivot in self.model, "insert")
            if pivot in self.model:
                self.model.insert(self.model.index(pivot) + (not before), value)
        elif kind == 7:
            value, count = self.pick(dice), dice.choice((0, 1, 2, -1, -2))
            places = [i for i, v in enumerate(self.model) if v == value]
            gone = places[count:] if count < 0 else places[: count or None]
            same(door.remove(value, count), len(gone), "remove")
            self.model = [v for i, v in enumerate(self.model) if i not in set(gone)]
        elif kind == 8:
            start, stop = sorted((dice.randrange(n + 1), dice.randrange(n + 1)))
            same(door.range(start, stop), self.model[start : stop + 1], "range")
            same(door.range(start - n, -1), self.model[start:] if start < n else self.model, "range")
        elif kind == 9 and n > 300:
            start, stop = dice.randrange(20), n - dice.randrange(1, 20)
            kept = self.model[start : stop + 1]
            same(door.trim(start, stop), n - len(kept), "trim")
            self.model = kept
        elif kind == 10:
            value, rank, count = self.pick(dice), dice.choice((1, 2, -1, -2)), dice.choice((0, 1, 2))
            places = [i for i, v in enumerate(self.model) if v == value]
            found = places[rank - 1 :] if rank > 0 else places[::-1][-rank - 1 :]
            same(door.positions(value, rank, count), found[: count or None], "positions")
        else:
            same(list(door), self.model, "iteration")

    def pick(self, dice: Random) -> bytes:
        """A value that is there, mostly."""
        return dice.choice(self.model) if self.model and dice.random() < 0.8 else word(dice)

    def check(self, door: Any) -> None:
        same(len(door), len(self.model), "length")
        same(door.range(0, -1), self.model, "contents")

    @staticmethod
    def limit(dice: Random) -> None:
        lists.set_limits(size=dice.choice((1, 4, 128, -1, -2, -5)))


NX, XX, GT, LT, INCR = 1, 2, 4, 8, 16
ADDED, UPDATED, REFUSED, NAN = 1, 2, 4, 8
SCORES = (0.0, -0.0, 1.0, -1.5, 3.0, 1e300, -1e300, 5e-324, math.inf, -math.inf, 0.1, 2.0**53)


class ZSetPair(Pair):
    """A sorted set and a dict of scores."""

    door = zsets.ZSet

    def __init__(self) -> None:
        self.model: dict[bytes, float] = {}

    def fill(self, dice: Random, door: Any) -> None:
        flat = dice.random() < 0.2  # all scores equal: ranges by member
        for _ in range(small(dice, 600)):
            self.add(dice, door, 0.0 if flat else score(dice), 0)

    def add(self, dice: Random, door: Any, value: float, flags: int) -> None:
        """ZADD of one member, its conditions included."""
        name = member(dice)
        old = self.model.get(name)
        what, now = door.add(name, value, flags)
        new = value + old if flags & INCR and old is not None else value
        if (flags & NX and old is not None) or (flags & XX and old is None):
            same(what, REFUSED, "refused")
        elif math.isnan(new):
            same(what, NAN, "nan")
        elif old is not None and ((flags & GT and new <= old) or (flags & LT and new >= old)):
            same(what & (ADDED | UPDATED), 0, "GT, LT")
        else:
            same(what, ADDED if old is None else UPDATED if new != old else 0, "what happened")
            same(now, new, "score in force")
            self.model[name] = new

    def order(self) -> list[tuple[bytes, float]]:
        """Members by score, then bytes."""
        return sorted(self.model.items(), key=lambda row: (row[1], row[0]))

    def step(self, dice: Random, door: Any) -> None:
        name = dice.choice(list(self.model)) if self.model and dice.random() < 0.5 else member(dice)
        kind = dice.randrange(11)
        if kind < 3:
            self.add(dice, door, score(dice), dice.choice((0, 0, NX, XX, GT, LT, INCR, INCR | XX, INCR | GT, XX | LT)))
        elif kind < 5:
            same(door.remove(name), self.model.pop(name, None) is not None, "remove")
        elif kind == 5:
            highest = dice.random() < 0.5
            row = self.order()[-1 if highest else 0] if self.model else None
            same(door.pop(highest), row, "pop")
            if row:
                del self.model[row[0]]
        elif kind == 6:
            same(door.score(name), self.model.get(name), "score")
            same(name in door, name in self.model, "contains")
            place = next(((i, s) for i, (m, s) in enumerate(self.order()) if m == name), None)
            same(door.rank(name), place, "rank")
        elif kind == 7 and self.model:
            start, stop = sorted((dice.randrange(len(self.model)), dice.randrange(len(self.model))))
            order = self.order()
            same(door.range(start, stop), [m for m, _ in order[start : stop + 1]], "range")
            same(door.range(start, stop, True), [m for m, _ in order[::-1][start : stop + 1]], "range reversed")
        elif kind == 8:
            edge = score(dice)
            same(door.count_below_score(edge, True), sum(s <= edge for s in self.model.values()), "up to a score")
            same(door.count_below_score(edge, False), sum(s < edge for s in self.model.values()), "below a score")
        elif kind == 9 and len(self.model) > 100:
            start, count = dice.randrange(60), dice.randrange(1, 30)
            for gone, _ in self.order()[start : start + count]:
                del self.model[gone]
            door.remove_ranks(start, count)
        elif kind == 10 and self.model:
            same(dict(scanned(dice, door)), self.model, "scan")
            assert door.random()[0] in self.model

    def check(self, door: Any) -> None:
        same(len(door), len(self.model), "length")
        same(door.pairs(), self.order(), "contents")
        door.check()

    @staticmethod
    def limit(dice: Random) -> None:
        zsets.set_limits(entries=dice.choice((0, 1, 16, 128, 512)), value=dice.choice((0, 8, 64, 300)))


def score(dice: Random) -> float:
    """A score: often the same as another, sometimes where doubles end."""
    kind = dice.random()
    if kind < 0.2:
        return dice.choice(SCORES)
    return float(dice.randrange(50)) if kind < 0.7 else dice.uniform(-1000, 1000)
