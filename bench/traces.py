"""Traces for `bench/hit_ratio.py`: arrays of keys in the order of their use, made from seeds or read from files."""

from __future__ import annotations

import gzip
import heapq
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

Trace = npt.NDArray[np.int64]


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


def conversations(path: Path) -> Trace:
    """The block ids of a trace of real chat requests, one JSON object a line with `hash_ids`."""
    with gzip.open(path, "rt") as lines:
        return np.array([block for line in lines for block in json.loads(line)["hash_ids"]])


MADE = {"scans": scans, "loops": loops, "shifts": shifts, "prefixes": prefixes}


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
