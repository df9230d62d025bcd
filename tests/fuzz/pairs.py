"""A collection of the hot room and its model: what the structure fuzzer steps and compares."""

from __future__ import annotations

import copy
from random import Random
from typing import Any, ClassVar, Self

from zeekdb.hot import hashes, sets

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

    def copy(self) -> Self:
        """The model of a copy."""
        twin = copy.copy(self)
        twin.model = self.model.copy()
        return twin

    @staticmethod
    def limit(dice: Random) -> None:
        """Choose where the small form ends."""
        raise NotImplementedError


def scanned(dice: Random, door: Any) -> list[bytes]:
    """Everything that a scan to the end gives."""
    found: list[bytes] = []
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
        for name, expected in (
            ("add_union", self.model | rows),
            ("add_intersection", self.model & rows),
        ):
            result = sets.Set()
            getattr(result, name)([door, other])
            same(set(result.members()), expected, name)
        result = sets.Set()
        result.add_difference(door, [other])
        same(set(result.members()), self.model - rows, "difference")
        same(sets.intersection_length([door, other]), len(self.model & rows), "intersection_length")

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
