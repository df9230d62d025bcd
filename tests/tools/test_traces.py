"""What `bench/kv_trace.py` compares with: the optimum for prefixes is one, and exact LRU and LFU are below it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from bench import traces


def tiny(rng: np.random.Generator) -> traces.Chains:
    """Seven prompts out of a tree of seven blocks."""
    paths = [[0], [0, 1], [0, 1, 2], [0, 3], [4], [4, 5], [4, 5, 6]]
    return [paths[at] for at in rng.integers(0, len(paths), 7)]


def best_of_all(requests: traces.Chains, capacity: int) -> int:
    """The most prefix hits that any choice of what to keep after each request has."""
    most: dict[frozenset[int], int] = {frozenset(): 0}
    for chain in requests:
        after: dict[frozenset[int], int] = {}
        for cached, hits in most.items():
            there = cached | set(chain)
            total = hits + traces.prefix(cached, chain)
            for kept in itertools.combinations(sorted(there), min(capacity, len(there))):
                key = frozenset(kept)
                after[key] = max(after.get(key, 0), total)
        most = after
    return max(most.values())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("capacity", [2, 3, 4])
def test_the_optimum_for_prefixes_is_the_best_of_all_choices(seed: int, capacity: int) -> None:
    requests = tiny(np.random.default_rng(seed))
    assert sum(traces.chain_optimum(requests, capacity)) == best_of_all(requests, capacity)


@pytest.mark.parametrize("simulate", [traces.chain_lru, traces.chain_lfu])
def test_a_cache_with_room_for_all_misses_only_first_uses(simulate: Callable[[traces.Chains, int], list[int]]) -> None:
    requests = traces.shared_prompts(1)[:300]
    blocks = {block for chain in requests for block in chain}
    references = sum(len(chain) for chain in requests)
    assert sum(simulate(requests, len(blocks))) == references - len(blocks)
    assert sum(simulate(requests, len(blocks) // 10)) < sum(traces.chain_optimum(requests, len(blocks) // 10))


def test_lru_and_lfu_let_go_of_different_blocks() -> None:
    requests = [[1], [1], [2], [3], [1]]
    assert traces.chain_lru(requests, 2) == [0, 1, 0, 0, 0]
    assert traces.chain_lfu(requests, 2) == [0, 1, 0, 0, 1]
