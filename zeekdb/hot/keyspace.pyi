from collections.abc import Callable
from typing import Any, TypeVar

V = TypeVar("V")

class Database:
    """One database: shards of one table each. Keys and string values are bytes; deadlines are Unix ms."""

    index: int
    keyspace: Keyspace
    def __len__(self) -> int: ...
    def read(self, key: bytes) -> Any:
        """bytes | Hash | List | Set | ZSet | object | None; counts hit/miss, touches, expires lazily."""
    def peek(self, key: bytes) -> Any:
        """The same without counting or touching."""
    def type_of(self, key: bytes) -> str | None:
        """"string", "list", "set", "zset", "hash" …; None when absent."""
    def exists(self, key: bytes) -> bool: ...
    def touch(self, key: bytes) -> bool: ...
    def set(self, key: bytes, value: bytes, deadline_ms: int = 0) -> None:
        """Store a string over whatever is there. Deadline 0: none; -1: keep the present one."""
    def create(self, key: bytes, kind: type[V]) -> V: ...
    def set_object(self, key: bytes, value: object, deadline_ms: int = 0) -> None: ...
    def remove(self, key: bytes) -> bool: ...
    def deadline(self, key: bytes) -> int:
        """-2 absent, -1 without deadline, otherwise Unix ms."""
    def set_deadline(self, key: bytes, deadline_ms: int) -> bool:
        """0 clears it. False when the key is absent."""
    def time_fields(self, key: bytes) -> bool:
        """From now on fields of the hash at `key` may have deadlines (`Hash.set_deadline`). False without a hash."""
    def expire_fields(self, key: bytes) -> None:
        """Removes all fields that are due, and the key with the last one. Other doors remove only some on the way."""
    def rename(self, old: bytes, new: bytes) -> bool:
        """Moves value and deadline, replacing what `new` held; False when `old` is absent."""
    def move(self, key: bytes, other: Database, new: bytes | None = None) -> bool:
        """To another database (and name), replacing nothing; False when source absent or target present."""
    def copy(self, key: bytes, other: Database, new: bytes) -> bool:
        """A deep copy with the deadline, replacing what is there; False when `key` is absent."""
    # strings in place (TypeError on other types: callers check first with type_of)
    def strlen(self, key: bytes) -> int: ...
    def getrange(self, key: bytes, start: int, stop: int) -> bytes:
        """Bytes start..stop (inclusive, already normalised to 0 <= start <= stop < length); counts a read."""
    def append(self, key: bytes, tail: bytes) -> int:
        """New length; creates. Keeps the deadline."""
    def write_at(self, key: bytes, offset: int, data: bytes) -> int:
        """SETRANGE: zero-fills up to offset; new length; creates. Keeps the deadline."""
    # whole database
    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Next cursor (0: through) and keys; Redis's SCAN guarantees, resizes included. No expired keys, no
        cursor of 2^53 or more (with up to 32 shards): JavaScript's numbers hold it."""
    def keys(self, pattern: bytes | None = None) -> list[bytes]:
        """All live keys, or those that match the glob."""
    def random_key(self) -> bytes | None: ...
    def clear(self) -> int:
        """Empties the database at once to its users; the memory is freed in slices. How many keys there were."""
    # introspection
    def volatile_count(self) -> int: ...
    def timed_count(self) -> int:
        """Hashes with a field that has a deadline."""
    def average_ttl_ms(self) -> int: ...
    def memory_of(self, key: bytes, samples: int = 5) -> int | None: ...
    def idle_s(self, key: bytes) -> int | None: ...
    def set_idle_s(self, key: bytes, idle_s: int) -> None: ...
    def frequency(self, key: bytes) -> int | None: ...
    def set_frequency(self, key: bytes, frequency: int) -> None: ...
    def table_stats(self) -> dict[str, int]:
        """entries, slots, resizing shards, overhead bytes: for DEBUG HTSTATS, INFO and MEMORY STATS."""
    def faults(self) -> int:
        """Broken invariants of tables and expiry indexes, found by a walk over everything: for tests."""

class Keyspace:
    databases: list[Database]
    dirty: int
    hits: int
    misses: int
    expired: int
    expired_fields: int
    evicted: int
    lazyfreed: int
    lazyfree_pending: int
    active_expire: bool
    touch_lfu: bool  # what entries remember: how often they were used
    @property
    def touch_time(self) -> bool: ...  # when they were used last
    touching: bool  # False: reads leave recency and frequency alone (CLIENT NO-TOUCH)
    subscribers: list[Callable[[Database, bytes, str], None]]
    database_listeners: list[Callable[[list[Database], bool], None]]  # before a flush, or (True) before a swap of two
    on_miss: Callable[[Database, bytes], None] | None  # a read finds nothing
    on_new: Callable[[Database, bytes], None] | None  # a key is about to come into being
    due: bool  # the end of the command has something to do: notes to read, or what the server wants done then
    def __init__(self, databases: int = 16, shards: int = 16) -> None: ...
    def now_ms(self) -> int:
        """The keyspace's clock: constant within a command."""
    def set_clock(self, now_ms: int) -> None: ...
    def set_lfu(self, decay_minutes: int, log_factor: int) -> None:
        """The directives lfu-decay-time and lfu-log-factor."""
    def changed(self, db: Database, key: bytes, event: str) -> None:
        """Counts the change and tells the subscribers (the journal's doors)."""
    def watch_key(self, key: bytes) -> None:
        """Somebody asks about this key, in any database: its changes leave notes until `unwatch_key`. They count."""
    def unwatch_key(self, key: bytes) -> None: ...
    def take_notes(self) -> list[tuple[int, bytes]]:
        """Keys changed that perhaps somebody asks about: (index of the database, key), oldest first."""
    def clear(self, databases: list[Database]) -> int:
        """Empties databases, and tells the database listeners before; how many keys there were."""
    def swap(self, first: int, second: int) -> None: ...
    def run_expiry(self, budget_us: int) -> int:
        """Removes keys and fields that are due, most overdue first, for at most the budget; how many."""
    def run_lazyfree(self, budget_us: int) -> int:
        """Frees detached values in slices, and once a second some slabs long idle; how many values are pending."""
    def run_resize(self, budget_us: int) -> bool:
        """Goes on with resizes under way; whether one is left."""
    def memory_used(self) -> int:
        """Bytes of everything the hot room holds, slot arrays included."""
    def memory_resident(self) -> int:
        """What the process takes for it, gaps in pages and what is kept for later included."""
    def next_deadline_ms(self) -> int:
        """The first deadline of all, 0 for none."""

def glob_match(pattern: bytes, text: bytes, nocase: bool = False) -> bool:
    """Redis's glob: * ? [a-z] [^x] and backslash; linear memory, bounded recursion."""
