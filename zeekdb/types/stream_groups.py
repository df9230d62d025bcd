"""Consumer groups: who has read how far in a stream, and what was delivered and not yet acknowledged.

A group and each consumer keep the pending entries in a list of their own. Delivery time and count stand in the
group's; a consumer's list is an index into it, so that both answer ranges in order without filtering.
Source: https://redis.io/docs/latest/develop/data-types/streams/, t_stream.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zeekdb.hot.pending import PendingList

if TYPE_CHECKING:
    from zeekdb.hot.streams import Stream

MAX_ID: Final = (1 << 128) - 1
NOT_COUNTED: Final = -1
"""A group's `entries_read` when it cannot be known."""


class Consumer:
    """One reader of a group. Times are Unix ms; `active_ms` is -1 before anything was delivered."""

    __slots__ = ("active_ms", "name", "number", "pending", "seen_ms")

    def __init__(self, name: bytes, number: int, seen_ms: int, active_ms: int) -> None:
        self.name = name
        self.number = number  # how the group's list names it
        self.pending = PendingList()
        self.seen_ms = seen_ms  # the last attempt to read or claim
        self.active_ms = active_ms  # the last success


class Group:
    """A consumer group. `last_id` is the last entry delivered, `entries_read` its place counted from the first ever."""

    __slots__ = ("_by_number", "_next", "consumers", "entries_read", "last_id", "pending")

    def __init__(self, last_id: int, entries_read: int = NOT_COUNTED) -> None:
        self.last_id = last_id
        self.entries_read = entries_read
        self.pending = PendingList()
        self.consumers: dict[bytes, Consumer] = {}
        self._by_number: dict[int, Consumer] = {}
        self._next = 0

    def add_consumer(self, name: bytes, seen_ms: int, active_ms: int = -1) -> Consumer:
        """A new consumer; there is none of that name."""
        consumer = Consumer(name, self._next, seen_ms, active_ms)
        self._next += 1
        self.consumers[name] = self._by_number[consumer.number] = consumer
        return consumer

    def remove_consumer(self, name: bytes) -> int:
        """Forget a consumer and what is pending for it; how many entries that was."""
        consumer = self.consumers.pop(name)
        del self._by_number[consumer.number]
        for id, *_ in consumer.pending.range(0, MAX_ID):
            self.pending.remove(id)
        return len(consumer.pending)

    def sorted_consumers(self) -> list[Consumer]:
        """By name, as replies list them."""
        return [self.consumers[name] for name in sorted(self.consumers)]

    def deliver(self, id: int, consumer: Consumer, time_ms: int, count: int = 1) -> None:
        """Make an entry pending for a consumer, and for no other."""
        before = self.pending.get(id)
        if before is not None and before[0] != consumer.number:
            self._by_number[before[0]].pending.remove(id)
        self.pending.put(id, consumer.number, time_ms, count)
        consumer.pending.put(id, consumer.number, 0, 0)

    def acknowledge(self, id: int) -> bool:
        """Nobody waits for this entry any more; False when nobody did."""
        before = self.pending.get(id)
        if before is None:
            return False
        self.pending.remove(id)
        self._by_number[before[0]].pending.remove(id)
        return True

    def owner(self, number: int) -> Consumer:
        """The consumer that a record of `pending` names."""
        return self._by_number[number]

    def advance(self, stream: Stream, ids: list[int]) -> None:
        """Entries above `last_id` are being delivered: count them as read, while their number can be known."""
        first, deleted = stream.first_id, stream.max_deleted_id
        if self.entries_read != NOT_COUNTED and (not deleted or first > deleted):
            self.entries_read += len(ids)
        else:
            for id in ids:
                if self.entries_read != NOT_COUNTED and not has_gaps(stream, id):
                    self.entries_read += 1
                elif stream.entries_added:
                    self.entries_read = entries_until(stream, id)
        self.last_id = ids[-1]

    def lag(self, stream: Stream) -> int | None:
        """Entries that are still to be delivered; None when deletions make that unknowable."""
        if not stream.entries_added:
            return 0
        read = self.entries_read
        if read == NOT_COUNTED or has_gaps(stream, self.last_id):
            read = entries_until(stream, self.last_id)
        return None if read == NOT_COUNTED else stream.entries_added - read

    def copy(self) -> Group:
        """Equal, and sharing nothing."""
        copy = Group(self.last_id, self.entries_read)
        copy.pending = self.pending.copy()
        copy._next = self._next
        for name, consumer in self.consumers.items():
            other = Consumer(name, consumer.number, consumer.seen_ms, consumer.active_ms)
            other.pending = consumer.pending.copy()
            copy.consumers[name] = copy._by_number[other.number] = other
        return copy

    def __sizeof__(self) -> int:
        tables = self.consumers.__sizeof__() + self._by_number.__sizeof__() + self.pending.__sizeof__()
        return 128 + tables + sum(160 + len(c.name) + c.pending.__sizeof__() for c in self.consumers.values())


def has_gaps(stream: Stream, start: int) -> bool:
    """Whether something was deleted at or above `start`, among the entries that are there."""
    deleted = stream.max_deleted_id
    return bool(len(stream) and deleted and stream.first_id <= deleted and start <= deleted)


def entries_until(stream: Stream, id: int) -> int:
    """How many entries were ever added up to and including `id`; NOT_COUNTED where that cannot be known."""
    added = stream.entries_added
    if not added:
        return 0
    if id == stream.last_id or (not len(stream) and id < stream.last_id):
        return added
    if id > stream.last_id:
        return NOT_COUNTED
    first, deleted = stream.first_id, stream.max_deleted_id
    if not deleted or deleted < first:
        if id < first:
            return added - len(stream)
        if id == first:
            return added - len(stream) + 1
    return NOT_COUNTED
