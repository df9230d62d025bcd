"""Traces for `bench/hit_ratio.py` and `bench/kv_trace.py`, made from seeds or read from files.

A `Trace` is an array of keys in the order of their use. `Chains` are the requests of inference engines: each is the
list of a prompt's blocks, two of which share a prefix as far as their ids agree.
"""

from __future__ import annotations

import gzip
import heapq
import json
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

Trace = npt.NDArray[np.int64]
Chains = list[list[int]]


def zipf(rng: np.random.Generator, count: int, keys: int, skew: float) -> Trace:
    """`count` draws of 0 .. keys - 1, the n-th with a probability proportional to n to the power of -skew."""
    weights = np.arange(1, keys + 1) ** -skew
    return np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(count))


def scans(rng: np.random.Generator) -> Trace:
    """Zipf over 100,000 keys; after each 20,000 requests, 5,000 keys in a row of another 100,000 that nobody wants."""
    popular, parts, at = zipf(rng, 700_000, 100_000, 0.9), [], 0
    for begin in range(0, len(popular), 20_000):
        parts += [popular[begin : begin + 20_000], 100_000 + np.arange(at, at + 5_000)]
        at = (at + 5_000) % 100_000
    return np.concatenate(parts)


def loops(rng: np.random.Generator) -> Trace:
    """A loop over 20,000 keys, forty times, and 10,000 Zipf requests to 20,000 others after each round."""
    return np.concatenate(
        [part for _ in range(40) for part in (20_000 + np.arange(20_000), zipf(rng, 10_000, 20_000, 0.8))]
    )


def shifts(rng: np.random.Generator) -> Trace:
    """Zipf over 100,000 keys; after each 40,000 requests, 30,000 of the keys change places in the order."""
    order, parts = rng.permutation(100_000), []
    for _ in range(20):
        parts.append(order[zipf(rng, 40_000, 100_000, 1.0)])
        moved = rng.permutation(100_000)[:30_000]
        order[moved] = np.roll(order[moved], 1)
    return np.concatenate(parts)


def prefixes(rng: np.random.Generator) -> Trace:
    """Blocks of the prompts of 30,000 chat turns.

    A conversation begins with one of 200 system prompts of 4 to 39 blocks (Zipf), each turn adds 1 to 4 blocks and
    reads all before them, one turn in four opens a conversation, the others fall on recent ones (geometric, mean 60
    back), and one in five is a conversation's last; nobody goes beyond 150 blocks.
    """
    fresh = 0

    def blocks(count: int) -> list[int]:
        nonlocal fresh
        fresh += count
        return list(range(fresh - count, fresh))

    systems = [blocks(int(rng.integers(4, 40))) for _ in range(200)]
    weights = np.arange(1, 201) ** -1.0
    weights /= weights.sum()
    live: list[list[int]] = []
    requests: list[int] = []
    for _ in range(30_000):
        if not live or rng.random() < 0.25:
            live.append(list(systems[rng.choice(200, p=weights)]))
            at = len(live) - 1
        else:
            at = max(len(live) - int(rng.geometric(1 / 60)), 0)
        live[at] += blocks(int(rng.integers(1, 5)))
        requests += live[at]
        if rng.random() < 0.2 or len(live[at]) > 150:
            live.pop(at)
    return np.array(requests)


def chains(path: Path) -> Chains:
    """The prompts of a trace of real chat requests, one JSON object a line with `hash_ids`."""
    with gzip.open(path, "rt") as lines:
        return [json.loads(line)["hash_ids"] for line in lines]


def conversations(path: Path) -> Trace:
    """The block ids of such a trace, one after the other."""
    return np.array([block for chain in chains(path) for block in chain])


MADE = {"scans": scans, "loops": loops, "shifts": shifts, "prefixes": prefixes}


class Blocks:
    """New block ids, and the random numbers that prompts are made with."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.fresh = 0

    def new(self, low: int, high: int) -> list[int]:
        """From `low` to `high` - 1 of them."""
        count = int(self.rng.integers(low, high))
        self.fresh += count
        return list(range(self.fresh - count, self.fresh))

    def popular(self, texts: Chains, skew: float) -> Iterator[list[int]]:
        """Texts without end, the n-th with a probability proportional to n to the power of -skew."""
        weights = np.arange(1, len(texts) + 1) ** -skew
        weights /= weights.sum()
        while True:
            yield texts[self.rng.choice(len(texts), p=weights)]


def tails_of(blocks: Blocks, systems: int) -> Iterator[list[int]]:
    """A system prompt of 4 to 39 blocks, Zipf (0.9) of `systems`, and 1 to 11 blocks that nobody asks for again."""
    for system in blocks.popular([blocks.new(4, 40) for _ in range(systems)], 0.9):
        yield system + blocks.new(1, 12)


def turns_of(blocks: Blocks) -> Iterator[list[int]]:
    """Chat turns as in `prefixes`, without end."""
    openings = blocks.popular([blocks.new(4, 40) for _ in range(200)], 1.0)
    live: Chains = []
    while True:
        if not live or blocks.rng.random() < 0.25:
            live.append(list(next(openings)))
            at = len(live) - 1
        else:
            at = max(len(live) - int(blocks.rng.geometric(1 / 60)), 0)
        live[at] = live[at] + blocks.new(1, 5)
        yield live[at]
        if blocks.rng.random() < 0.2 or len(live[at]) > 150:
            live.pop(at)


def shared_prompts(seed: int) -> Chains:
    """15,000 prompts with one of 2,000 popular system prompts and a tail of their own."""
    found = tails_of(Blocks(seed), 2_000)
    return [next(found) for _ in range(15_000)]


def documents(seed: int) -> Chains:
    """14,000 chat turns; after each hundred a document of 100 blocks that nobody asks for again, or eight of 200."""
    blocks = Blocks(seed)
    turns, requests = turns_of(blocks), []
    for at in range(1, 14_001):
        requests.append(next(turns))
        if at % 100 == 0:
            requests += [blocks.new(200, 201) for _ in range(8)] if at % 1_000 == 0 else [blocks.new(100, 101)]
    return requests


def document_loop(seed: int) -> Chains:
    """500 documents of 10 to 69 blocks, asked for in turn, twenty times."""
    blocks = Blocks(seed)
    return [blocks.new(10, 70) for _ in range(500)] * 20


def tenants(seed: int) -> Chains:
    """Four tenants in random order: chat turns, system prompts with tails, a loop of 250 documents, and scans."""
    blocks = Blocks(seed)
    loop = [blocks.new(10, 70) for _ in range(250)]
    parts: list[Iterator[list[int]]] = [
        turns_of(blocks),
        tails_of(blocks, 500),
        (loop[at % 250] for at in range(3_000)),
        (blocks.new(20, 150) for _ in range(700)),
    ]
    order = np.repeat(np.arange(4), [6_000, 6_000, 3_000, 700])
    blocks.rng.shuffle(order)
    return [next(parts[tenant]) for tenant in order]


CHAINS = {"shared_prompts": shared_prompts, "documents": documents, "document_loop": document_loop, "tenants": tenants}


def belady(trace: Trace, capacity: int) -> int:
    """The hits of a cache of `capacity` equal keys that knows the future: the one used last of all goes."""
    following = np.full(len(trace), len(trace), np.int64)
    last: dict[int, int] = {}
    for at in range(len(trace) - 1, -1, -1):
        following[at] = last.get(trace[at], len(trace))
        last[trace[at]] = at
    # The cached ones by their next use, farthest first; what was used since has a newer entry.
    heap: list[tuple[int, int]] = []
    cached: dict[int, int] = {}
    hits = 0
    for key, then in zip(trace.tolist(), following.tolist(), strict=True):
        if key in cached:
            hits += 1
        cached[key] = then
        heapq.heappush(heap, (-then, key))
        while len(cached) > capacity:
            farthest, victim = heapq.heappop(heap)
            if cached.get(victim) == -farthest:
                del cached[victim]
    return hits


def exact_lru(trace: Trace, capacity: int) -> int:
    """The hits of a cache of `capacity` equal keys that forgets the one used longest ago."""
    cached: dict[int, None] = {}
    hits = 0
    for key in trace.tolist():
        if key in cached:
            hits += 1
            del cached[key]
        elif len(cached) >= capacity:
            del cached[next(iter(cached))]
        cached[key] = None
    return hits


def prefix(cached: Container[int], chain: list[int]) -> int:
    """The blocks of a chain before the first that is not there."""
    return next((at for at, block in enumerate(chain) if block not in cached), len(chain))


def chain_lru(requests: Chains, capacity: int) -> list[int]:
    """Prefix hits of each request when single blocks go, least recently used first, and are touched from the head."""
    cached: dict[int, None] = {}
    hits = []
    for chain in requests:
        hits.append(prefix(cached, chain))
        missing = []
        for block in chain:
            if block in cached:
                del cached[block]
                cached[block] = None
            else:
                missing.append(block)
        for block in missing:
            if len(cached) >= capacity:
                del cached[next(iter(cached))]
            cached[block] = None
    return hits


def chain_lfu(requests: Chains, capacity: int) -> list[int]:
    """Likewise when the one used least often goes, of equals the one used longest ago; counts go with their block."""
    uses: dict[int, int] = {}
    stamps: dict[int, int] = {}
    heap: list[tuple[int, int, int]] = []
    clock = 0

    def use(block: int) -> None:
        nonlocal clock
        clock += 1
        uses[block] = uses.get(block, 0) + 1
        stamps[block] = clock
        heapq.heappush(heap, (uses[block], clock, block))

    hits = []
    for chain in requests:
        hits.append(prefix(uses, chain))
        missing = [block for block in chain if block not in uses]
        for block in chain:
            if block in uses:
                use(block)
        for block in missing:
            while len(uses) >= capacity:
                _, stamp, victim = heapq.heappop(heap)
                if stamps.get(victim) == stamp:
                    del uses[victim], stamps[victim]
            use(block)
    return hits


def chain_optimum(requests: Chains, capacity: int) -> list[int]:
    """Prefix hits of the cache that knows the future, of each request; no cache of single blocks has more in all.

    Belady's rule, with the right not to keep a block, has the most block hits, and prefix hits are block hits. A block
    is asked for only behind all blocks before it, so its next use is later than theirs: farthest-first drops tails
    before heads, what is kept is always whole prefixes, and each of its block hits is a prefix hit. The bound is exact.
    """
    refs = [block for chain in requests for block in chain]
    following = [0] * len(refs)
    last: dict[int, int] = {}
    for at in range(len(refs) - 1, -1, -1):
        following[at] = last.get(refs[at], len(refs) + at)
        last[refs[at]] = at
    heap: list[tuple[int, int]] = []
    cached: dict[int, int] = {}
    hits, at = [], 0
    for chain in requests:
        hits.append(prefix(cached, chain))
        for block in chain:
            cached[block] = following[at]
            heapq.heappush(heap, (-following[at], block))
            while len(cached) > capacity:
                farthest, victim = heapq.heappop(heap)
                if cached.get(victim) == -farthest:
                    del cached[victim]
            at += 1
    return hits
