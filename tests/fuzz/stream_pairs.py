"""A stream with its consumer groups and their models, for the structure fuzzer."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.fuzz.pairs import Pair, same, small, word
from zeekdb.hot import streams
from zeekdb.hot.pending import PendingList
from zeekdb.types.stream_groups import MAX_ID, Group

LEAPS = (1, 1, 1, 2, 1 << 64, 1 << 64, 70_000 << 64, (1 << 64) - 1, 1 << 90)
Records = dict[int, tuple[bytes, int, int]]


class StreamPair(Pair):
    """A stream and a list of its entries; a group and a dict of what is pending in it."""

    door = streams.Stream

    def __init__(self) -> None:
        self.model: list[tuple[int, list[bytes]]] = []
        self.records: Records = {}

    def fill(self, dice: Random, door: Any) -> None:
        for _ in range(small(dice, 600)):
            self.append(dice, door)

    def append(self, dice: Random, door: Any) -> None:
        id = door.last_id + dice.choice(LEAPS)
        if id > MAX_ID:
            return
        names = dice.choice(([b"f"], [b"f"], [b"f"], [b"f", b"g"], [b"g", b"f"], [b"", b"long" * 60]))
        self.model.append((id, [text for name in names for text in (name, word(dice))]))
        door.append(*self.model[-1])

    def step(self, dice: Random, door: Any) -> None:
        kind = dice.randrange(10)
        if kind < 3:
            self.append(dice, door)
        elif kind == 3:
            self.remove(dice, door)
        elif kind == 4:
            self.trim(dice, door)
        elif kind < 7:
            self.look(dice, door)
        elif kind < 9:
            self.deliver(dice, door)
        else:
            self.restore(door)

    def pick(self, dice: Random) -> int:
        return dice.choice(self.model)[0] if self.model and dice.random() < 0.9 else dice.choice((0, 5, MAX_ID))

    def remove(self, dice: Random, door: Any) -> None:
        for _ in range(small(dice, 30)):
            id = self.pick(dice)
            there = any(id == each for each, _ in self.model)
            same(door.remove(id), there, "remove")
            self.model = [entry for entry in self.model if entry[0] != id]

    def trim(self, dice: Random, door: Any) -> None:
        if dice.random() < 0.5:
            length = dice.randrange(len(self.model) + 2)
            same(door.trim_to_length(length), max(len(self.model) - length, 0), "trim to length")
            self.model = self.model[max(len(self.model) - length, 0) :]
        elif dice.random() < 0.5:
            id = self.pick(dice)
            kept = [entry for entry in self.model if entry[0] >= id]
            same(door.trim_below(id), len(self.model) - len(kept), "trim below")
            self.model = kept
        else:
            gone = door.trim_to_length(dice.randrange(len(self.model) + 2), True, dice.choice((0, 5, 500)))
            self.model = self.model[gone:]

    def look(self, dice: Random, door: Any) -> None:
        start, end, count = self.pick(dice), self.pick(dice), small(dice, 300)
        wanted = [entry for entry in self.model if start <= entry[0] <= end]
        same(door.entries(start, end, count), wanted[:count], "entries")
        same(door.entries(start, end, count, True), wanted[::-1][:count], "entries backwards")
        same(door.get(start), dict(self.model).get(start), "get")
        same(start in door, any(start == id for id, _ in self.model), "contains")

    def deliver(self, dice: Random, door: Any) -> None:
        group = door.groups.setdefault(b"g", Group(0))
        for _ in range(small(dice, 200)):
            id = self.pick(dice)
            if dice.random() < 0.4:
                same(group.acknowledge(id), self.records.pop(id, None) is not None, "acknowledge")
                continue
            name = dice.choice((b"a", b"b", b"c"))
            consumer = group.consumers.get(name) or group.add_consumer(name, 0)
            self.records[id] = (name, dice.randrange(1000), dice.randrange(9))
            group.deliver(id, consumer, *self.records[id][1:])

    def restore(self, door: Any) -> None:
        """The blocks are in order, and of what they should be."""
        after = -1
        live = []
        while (block := door.next_block(after)) is not None:
            assert block.id > after, "blocks"
            after = block.id
            live += [entry.id for entry in block.entries if not entry.dead]
        same(live, [id for id, _ in self.model], "blocks")

    def check(self, door: Any) -> None:
        same(len(door), len(self.model), "length")
        same(door.entries(0, MAX_ID), self.model, "contents")
        same(door.first_id, self.model[0][0] if self.model else 0, "first id")
        group = door.groups.get(b"g", Group(0))
        rows = [(id, *self.records[id]) for id in sorted(self.records)]
        pending = group.pending.range(0, MAX_ID)
        same([(id, group.owner(owner).name, *rest) for id, owner, *rest in pending], rows, "pending")
        for name, consumer in group.consumers.items():
            owned: PendingList = consumer.pending
            same([row[0] for row in owned.range(0, MAX_ID)], [row[0] for row in rows if row[1] == name], "owned")

    def copy(self) -> StreamPair:
        twin = super().copy()
        twin.records = self.records.copy()
        return twin

    @staticmethod
    def limit(dice: Random) -> None:
        streams.set_limits(size=dice.choice((0, 50, 300, 4096)), entries=dice.choice((0, 1, 7, 100)))
