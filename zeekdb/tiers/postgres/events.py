"""What happened to blocks since the last batch: bounded queues, and how events of one block become few rows.

Two queues of facts share one bound and one order (every event has a number). Where a block lies, and that it is
gone, is what other nodes act on; so when there is no room, an older event of another kind makes room for those, and
only what is neither can be dropped at once. Accesses have a queue of their own: they are many, and can be missed.
One is written after the facts that were told before it, for it is counted in the row that they make.

A batch of facts becomes *rounds*: in a round every name occurs once, so that it is one statement of each kind.
Events of a name that say more of the same bytes merge into one state; bytes that replace others open the next round,
because each replacement must become a version.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from zeekdb.tiers.tier import Meta, Name, name_of

FACTS_MAX: Final = 100_000
FACTS_BYTES_MAX: Final = 64 << 20
ACCESSES_MAX: Final = 200_000
ACCESSES_BYTES_MAX: Final = 64 << 20
EVENT_BYTES: Final = 400  # of an event beside its names, about


class Context(NamedTuple):
    """Where a block stands in what was computed: what KV.STORE was told beside its bytes."""

    layer_from: int = 0  # layers layer_from … layer_to - 1
    layer_to: int = 0
    token_from: int = 0  # tokens token_from … token_to - 1 of the sequence
    token_to: int = 0
    parent: bytes = b""  # key of the block before it
    sequence: bytes = b""
    plain_size: int = 0  # bytes before the model's codec; 0: as many as are stored
    metadata: Mapping[str, Any] | str = {}  # a text: JSON already
    vector_id: str = ""  # of the context, in Qdrant: a UUID


class Stored(NamedTuple):
    """A block was put into the region."""

    meta: Meta
    context: Context


class Placed(NamedTuple):
    """These tiers have it; all others do not."""

    meta: Meta
    levels: tuple[str, ...]
    stored_size: int
    coding: str


class Removed(NamedTuple):
    """Nobody has it any more."""

    name: Name


class Overwritten(NamedTuple):
    """Other bytes under the same name."""

    old: Meta
    new: Meta
    who: str
    why: str
    snapshot: bytes | None


class Shared(NamedTuple):
    """So many more contexts of this node (fewer, below 0) have these blocks in common."""

    names: tuple[Name, ...]
    change: int


class Access(NamedTuple):
    """Somebody asked for a block."""

    name: Name
    kind: str
    tier: str
    is_hit: bool
    latency_us: int
    request: int
    at_s: float
    after: int  # the number of the last fact before it


Fact = Stored | Placed | Removed | Overwritten | Shared


def _bytes_of(event: Fact) -> int:
    if isinstance(event, Stored):
        meta, context = event
        said = len(context.sequence) + len(context.parent) + len(context.metadata)
        return EVENT_BYTES + len(meta.model) + len(meta.salt) + len(meta.key) + said
    if isinstance(event, Placed):
        meta = event.meta
        return EVENT_BYTES + len(meta.model) + len(meta.salt) + len(meta.key)
    if isinstance(event, Removed):
        return EVENT_BYTES + sum(map(len, event.name))
    if isinstance(event, Overwritten):
        kept = 0 if event.snapshot is None else len(event.snapshot)
        return EVENT_BYTES + kept + 2 * (len(event.old.model) + len(event.old.salt) + len(event.old.key))
    return EVENT_BYTES + sum(100 + sum(map(len, name)) for name in event.names)


class Facts:
    """The two queues of facts."""

    def __init__(self, count_most: int = FACTS_MAX, bytes_most: int = FACTS_BYTES_MAX) -> None:
        self.bytes = 0
        self.dropped = 0
        self._count_most, self._bytes_most = count_most, bytes_most
        self.number = 0  # of the last one that was told
        self.taken = 0  # of the last one that was taken
        self._places: deque[tuple[int, int, Fact]] = deque()  # number, bytes, event
        self._others: deque[tuple[int, int, Fact]] = deque()

    def __len__(self) -> int:
        return len(self._places) + len(self._others)

    def add(self, event: Fact) -> None:
        """At the end; what there is no room for is dropped and counted."""
        size = _bytes_of(event)
        is_place = isinstance(event, Placed | Removed)
        while len(self) >= self._count_most or (self.bytes + size > self._bytes_most and self.bytes):
            self.dropped += 1
            if not is_place:
                return
            _, freed, _ = (self._others or self._places).popleft()
            self.bytes -= freed
        self.number += 1
        self.bytes += size
        (self._places if is_place else self._others).append((self.number, size, event))

    def take(self, most: int) -> list[Fact]:
        """The oldest, in order."""
        found: list[Fact] = []
        places, others = self._places, self._others
        while len(found) < most and (places or others):
            queue = others if not places or (others and others[0][0] < places[0][0]) else places
            self.taken, size, event = queue.popleft()
            self.bytes -= size
            found.append(event)
        if not places and not others:
            self.taken = self.number
        return found


class Accesses:
    """Their queue: when it is full, new ones are not taken."""

    def __init__(self, count_most: int = ACCESSES_MAX, bytes_most: int = ACCESSES_BYTES_MAX) -> None:
        self.bytes = 0
        self.dropped = 0
        self._count_most, self._bytes_most = count_most, bytes_most
        self._queue: deque[Access] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, name: Name, kind: str, tier: str, is_hit: bool, latency_us: int, request: int, after: int) -> None:
        """Now, after the fact of this number."""
        size = EVENT_BYTES + len(name.key)
        if len(self._queue) >= self._count_most or self.bytes + size > self._bytes_most:
            self.dropped += 1
            return
        self.bytes += size
        self._queue.append(Access(name, kind, tier, is_hit, latency_us, request, time.time(), after))

    def take(self, most: int, upto: int) -> list[Access]:
        """The oldest, of those that came before the next fact after this number."""
        queue = self._queue
        found: list[Access] = []
        while queue and len(found) < most and queue[0].after <= upto:
            found.append(queue.popleft())
        self.bytes -= sum(EVENT_BYTES + len(access.name.key) for access in found)
        return found


# ---- merging -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class State:
    """What a row shall say after a round."""

    meta: Meta | None  # None: there shall be no row
    context: Context | None = None  # None: nothing is said of it
    placed: Placed | None = None
    overwritten: Overwritten | None = None  # the bytes that these replace become a version
    is_old: bool = False  # only where the catalogue does not know so yet

    @property
    def may_go(self) -> bool:
        """Whether nobody misses it when the block is removed in the same batch."""
        return self.overwritten is None and not self.is_old


@dataclass(slots=True)
class Batch:
    """Facts, merged."""

    rounds: list[dict[Name, State]] = field(default_factory=list)
    shared: dict[Name, int] = field(default_factory=dict)


class Merger:
    """Takes events in order, and makes a batch of them."""

    def __init__(self) -> None:
        self.batch = Batch()
        self._round_of: dict[Name, int] = {}

    def add(self, events: Iterable[Fact]) -> None:
        """The next ones."""
        for event in events:
            if isinstance(event, Stored):
                self._of(event.meta).context = event.context
            elif isinstance(event, Placed):
                self._of(event.meta).placed = event
            elif isinstance(event, Removed):
                self._removed(event.name)
            elif isinstance(event, Overwritten):
                self._overwritten(event)
            else:
                shared = self.batch.shared
                for name in event.names:
                    shared[name] = shared.get(name, 0) + event.change

    def _last(self, name: Name) -> State | None:
        at = self._round_of.get(name)
        return None if at is None else self.batch.rounds[at][name]

    def _open(self, name: Name, state: State) -> State:
        at = self._round_of.get(name, -1) + 1
        if at == len(self.batch.rounds):
            self.batch.rounds.append({})
        self.batch.rounds[at][name] = state
        self._round_of[name] = at
        return state

    def _of(self, meta: Meta) -> State:
        """The state that says of these bytes."""
        name = name_of(meta)
        state = self._last(name)
        if state is None or state.meta is None or state.meta.checksum != meta.checksum:
            return self._open(name, State(meta))
        state.meta = meta
        state.is_old = False
        return state

    def _removed(self, name: Name) -> None:
        at = self._round_of.get(name)
        if at is not None and self.batch.rounds[at][name].may_go:
            self.batch.rounds[at][name] = State(None)
        else:
            self._open(name, State(None))

    def _overwritten(self, event: Overwritten) -> None:
        if event.old.checksum == event.new.checksum:
            return  # the same bytes again
        name = name_of(event.new)
        state = self._last(name)
        if state is not None and state.meta is not None and state.meta.checksum == event.new.checksum:
            state.overwritten = event  # that they were stored was said first
            return
        if state is None or state.meta is None or state.meta.checksum != event.old.checksum:
            self._open(name, State(event.old, is_old=True))
        self._open(name, State(event.new, overwritten=event))


def merged(events: Sequence[Fact]) -> Batch:
    """The batch of these events."""
    merger = Merger()
    merger.add(events)
    return merger.batch
