"""Blocks by position: which range answers, and that ranges whose blocks are gone are forgotten."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from zeekdb.hot import region as index
from zeekdb.hot.arena import arena_close, arena_open
from zeekdb.tensors.layout import Layout, Model
from zeekdb.tensors.region import Range, Region, Tenant, newest_cover


@pytest.fixture
def tenant() -> Iterator[tuple[Region, Tenant]]:
    arena_open(1 << 20)
    region = Region()
    region.declare(Model(b"m", Layout(1, 1, 8, "f16")))
    yield region, region.tenant(b"m", b"")
    for each in region.forget(b"m"):
        index.close_space(each.space)
    arena_close()


@pytest.mark.parametrize("seed", range(40))
def test_the_newest_answers(seed: int) -> None:
    dice = random.Random(seed)
    ranges = []
    for version in range(1, dice.randrange(2, 30)):
        begin = dice.randrange(50)
        ranges.append(Range(begin, begin + dice.randrange(1, 20), version))
    low = dice.randrange(60)
    high = low + dice.randrange(1, 30)
    shown = {
        at: (piece.source.version, piece.begin) for piece in newest_cover(sorted(ranges), low, high)
        for at in range(piece.begin, piece.end)
    }  # fmt: skip
    for at in range(low, high):
        newest = max((each.version for each in ranges if each.begin <= at < each.end), default=None)
        assert (shown[at][0] if at in shown else None) == newest, at
    pieces = newest_cover(sorted(ranges), low, high)
    assert all(a.end <= b.begin for a, b in pairwise(pieces))
    assert all(low <= each.begin < each.end <= high for each in pieces)
    assert all(a.source != b.source or a.end < b.begin for a, b in pairwise(pieces))


def test_covered_ranges_are_taken_out(tenant: tuple[Region, Tenant]) -> None:
    region, owner = tenant
    dice = random.Random(1)
    held: list[Range] = []
    for _ in range(300):
        begin = dice.randrange(40)
        end = begin + dice.randrange(1, 12)
        added = region.add_range(owner, b"s", 0, begin, end)
        index.put(owner.space, list(added.names(b"s", 0)), [b"k", b"v"])
        gone = region.covered(owner, b"s", 0, added)
        assert gone == sorted(each for each in held if begin <= each.begin and each.end <= end)
        held = [each for each in held if each not in gone] + [added]
        assert owner.positions[(b"s", 0)] == sorted(held)


def test_ranges_of_evicted_blocks_are_forgotten(tenant: tuple[Region, Tenant]) -> None:
    region, owner = tenant
    for i in range(3000):
        sequence = b"seq%d" % (i // 10)
        added = region.add_range(owner, sequence, 0, i % 10, i % 10 + 1)
        index.put(owner.space, list(added.names(sequence, 0)), [bytes(4096), bytes(4096)])
    live = index.space_stats(owner.space)["blocks"] // 2
    assert sum(map(len, owner.positions.values())) <= 2 * live + 100
    assert len(owner.positions) <= 2 * live // 10 + 100
