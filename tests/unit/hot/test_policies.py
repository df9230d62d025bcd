"""What the eviction policies keep, by replays through a keyspace of a few hundred or thousand keys."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from zeekdb.hot import eviction, learned, memory
from zeekdb.hot.keyspace import Keyspace

NOW_MS = 1_700_000_000_000
VALUE = b"v" * 200
IDLE = Keyspace(1, 1)
NO_MATTER = 1 << 30  # other tests leave gaps in this process
PER_KEY = 260  # bytes of an entry with that value, about


class Cache:
    """Reads through a keyspace with a limit; what is not there is set."""

    def __init__(self, policy: str, keys: int) -> None:
        self.keyspace = Keyspace(1, 1)
        self.db = self.keyspace.databases[0]
        self.policy = policy
        self.keyspace.set_clock(NOW_MS)
        eviction.configure(self.keyspace, memory.used() + keys * PER_KEY, f"allkeys-{policy}", 5, 100, NO_MATTER)
        self.turns = 0

    def read(self, number: int) -> bool:
        """Whether it was there."""
        key = b"key:%09d" % number
        self.turns += 1
        if self.turns % 50 == 0:
            self.keyspace.set_clock(NOW_MS + self.turns * 10)
            if self.policy == "learned" and learned.begin():
                learned.fit()
        if self.db.read(key) is not None:
            return True
        self.db.set(key, VALUE)
        eviction.make_room()
        return False

    def hits(self, trace: Iterable[int]) -> int:
        return sum(self.read(number) for number in trace)


@pytest.fixture(autouse=True)
def no_limit() -> Iterator[None]:
    yield
    IDLE.set_clock(NOW_MS)  # all keyspaces share one clock
    eviction.configure(IDLE, 0, "noeviction", 5, 10)


def popular(rng: random.Random, count: int, keys: int) -> list[int]:
    """Draws with a probability that falls with the number."""
    return [int(keys * rng.random() ** 3) for _ in range(count)]


def scanned(rng: random.Random) -> list[int]:
    trace: list[int] = []
    for turn in range(20):
        trace += popular(rng, 2000, 4000)
        trace += range(10_000 + turn * 1000, 11_000 + turn * 1000)
    return trace


@pytest.mark.parametrize("policy", ["lru", "lfu", "random", "fifo", "s3fifo", "learned"])
def test_nobody_forgets_more_than_must_be(policy: str) -> None:
    cache = Cache(policy, 2000)
    cache.hits(range(10_000))
    assert 1300 < len(cache.db) < 2200
    cache = Cache(policy, 2000)
    rng = random.Random(1)
    trace = popular(rng, 30_000, 8000)
    assert cache.hits(trace) > 0.4 * len(trace)


def test_fifo_goes_by_arrival_alone() -> None:
    cache = Cache("fifo", 1000)
    cache.hits(range(500))
    for _ in range(20):
        cache.hits(range(100))  # used, but not new
    cache.hits(range(500, 1600))
    early = sum(cache.db.exists(b"key:%09d" % number) for number in range(100))
    late = sum(cache.db.exists(b"key:%09d" % number) for number in range(1500, 1600))
    assert early < 10
    assert late > 95


@pytest.mark.parametrize("policy", ["s3fifo", "learned"])
def test_a_scan_does_not_wash_out_what_is_popular(policy: str) -> None:
    trace = scanned(random.Random(2))
    lru = Cache("lru", 1000).hits(trace)
    assert Cache(policy, 1000).hits(trace) > 1.05 * lru


def test_a_ghost_that_comes_back_enters_the_main_queue() -> None:
    cache = Cache("s3fifo", 1000)
    cache.hits(range(2000))
    again = [number for number in range(1000) if not cache.read(number)]
    assert len(again) > 500
    cache.hits(range(5000, 7000))  # new ones pass through the small queue
    kept = sum(cache.db.exists(b"key:%09d" % number) for number in again)
    assert kept > 0.4 * len(again)


def test_the_learned_policy_falls_back_to_lru() -> None:
    """Sessions that are used for a while and never again: nothing beats LRU."""
    rng = random.Random(3)
    trace = [turn // 20 + rng.randrange(900) for turn in range(60_000)]
    lru = Cache("lru", 500).hits(trace)
    ours = Cache("learned", 500).hits(trace)
    assert ours > lru - 0.01 * len(trace)


def test_the_learned_policy_learns_a_loop() -> None:
    trace = list(range(1500)) * 60
    assert Cache("lru", 1000).hits(trace) < 0.4 * len(trace)
    before = learned.stats()["fits"]
    assert Cache("learned", 1000).hits(trace) > 0.4 * len(trace)
    stats = learned.stats()
    assert stats["fits"] > before
    assert stats["using_model"]
    assert stats["model_hit_ratio"] > stats["lru_hit_ratio"]


@pytest.mark.parametrize("policy", ["fifo", "s3fifo", "learned"])
def test_fields_of_other_policies_do_no_harm(policy: str) -> None:
    cache = Cache("lru", 1000)
    cache.hits(range(3000))
    eviction.configure(cache.keyspace, memory.used(), f"allkeys-{policy}", 5, 100, NO_MATTER)
    cache.policy = policy
    cache.hits(popular(random.Random(4), 20_000, 5000))
    eviction.configure(cache.keyspace, memory.used(), "allkeys-lfu", 5, 100, NO_MATTER)
    cache.hits(popular(random.Random(5), 20_000, 5000))
    assert 500 < len(cache.db) < 1300
