"""qdrant-edge's shards: sealed, indexed by another process, taken over, and found again after any end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qdrant_edge")

from tests.support import wait_for
from zeekdb.tiers.vectors import keeper as keeper_module
from zeekdb.tiers.vectors.keeper import Builder, Collection, Keeper, Shard, copy_sparse

DIM = 16
SHAPE = (DIM, 8, 32)
SEALED = 100


def vector(seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal(DIM).astype("<f4")
    return found / np.linalg.norm(found)


def rows(*seeds: int) -> list[tuple[str, bytes, dict[str, Any]]]:
    return [(f"{seed + 1:032x}", vector(seed).tobytes(), {"tenant": "t", "seed": seed}) for seed in seeds]


def ids(*seeds: int) -> list[str]:
    return [f"{seed + 1:032x}" for seed in seeds]


def open_collection(folder: Path) -> Collection:
    made = Collection(folder, *SHAPE)
    made.sealed_points = SEALED
    return made


def seeds_in(collection: Collection) -> set[int]:
    """Asked one by one, exactly."""
    found = collection.search([vector(1).tobytes()], 1000, "t", None)[0]
    assert len(found) == len({payload["seed"] for _, _, payload in found}), "a point is there twice"
    return {payload["seed"] for _, _, payload in found}


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    made = open_collection(tmp_path / "c")
    yield made
    made.close()


@pytest.fixture
def builder() -> Iterator[Builder]:
    made = Builder()
    yield made
    made.stop()


def built(builder: Builder, collection: Collection, count: int = 1) -> None:
    """Until so many shards have been taken over."""
    end = builder.built + count

    def step() -> bool:
        builder.step([collection])
        assert not builder.failed
        return builder.built >= end

    wait_for(step, 60, "a shard is built")


def test_shards_are_sealed_when_they_are_full(collection: Collection) -> None:
    for begin in range(0, 350, 50):
        collection.upsert(rows(*range(begin, begin + 50)))
    assert [shard.points for shard in collection.shards] == [100, 100, 100, 50]
    assert seeds_in(collection) == set(range(350))
    assert collection.points == 350


def test_a_point_is_in_one_shard(collection: Collection) -> None:
    collection.upsert(rows(*range(100)))
    collection.upsert(rows(3, 200))
    assert [shard.points for shard in collection.shards] == [99, 2]
    assert seeds_in(collection) == {*range(100), 200}


def test_a_sealed_shard_is_indexed_elsewhere(collection: Collection, builder: Builder) -> None:
    collection.upsert(rows(*range(100)))
    assert collection.sealed[0].wants_index()
    builder.step([collection])
    assert builder.process is not None
    assert seeds_in(collection) == set(range(100))  # searched meanwhile
    collection.delete(ids(7))
    collection.upsert(rows(8))  # moves to the last shard
    built(builder, collection)
    assert not collection.sealed[0].wants_index() and collection.sealed[0].indexed
    assert seeds_in(collection) == {*range(100)} - {7}
    assert [shard.points for shard in collection.shards] == [98, 1]
    assert sorted(path.name for path in collection.folder.iterdir()) == ["000001", "000002"]
    builder.step([collection])
    assert builder.process is None, "there is nothing more to build"


def test_a_shard_that_lost_much_is_built_again_and_an_empty_one_goes(collection: Collection, builder: Builder) -> None:
    collection.upsert(rows(*range(100)))
    built(builder, collection)
    collection.delete(ids(*range(20)))
    assert not collection.sealed[0].wants_index()
    collection.delete(ids(*range(20, 40)))
    assert collection.sealed[0].wants_index()
    built(builder, collection)
    assert collection.sealed[0].indexed == 60 and seeds_in(collection) == set(range(40, 100))
    collection.delete(ids(*range(100)))
    builder.step([collection])
    assert len(collection.shards) == 1 and not (collection.folder / "000001").exists()


def test_after_a_restart_all_is_there_and_numbers_go_on(
    collection: Collection, tmp_path: Path, builder: Builder
) -> None:
    collection.upsert(rows(*range(100)))
    built(builder, collection)
    collection.upsert(rows(*range(100, 130)))
    collection.delete(ids(5))
    collection.close()
    again = open_collection(tmp_path / "c")
    assert seeds_in(again) == set(range(130)) - {5} and again.shards[0].indexed
    again.upsert(rows(*range(200, 280)))
    assert [shard.number for shard in again.shards] == [1, 2, 3]
    again.close()
    collection.shards.clear()


@pytest.mark.parametrize("stage", ["copied", "put aside", "renamed"])
def test_an_end_in_the_middle_of_taking_over_loses_nothing(collection: Collection, tmp_path: Path, stage: str) -> None:
    collection.upsert(rows(*range(100)))
    collection.delete(ids(5))
    collection.close()
    collection.shards.clear()
    folder = tmp_path / "c"
    shutil.copytree(folder / "000001", folder / "000001.new")
    if stage != "copied":
        (folder / "000001").rename(folder / "000001.old")
    if stage == "renamed":
        (folder / "000001.new").rename(folder / "000001")
    again = open_collection(folder)
    assert seeds_in(again) == set(range(100)) - {5}
    assert sorted(path.name for path in folder.iterdir()) == ["000001", "000002"]
    again.close()


def test_a_build_that_fails_is_tried_later(
    collection: Collection, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.upsert(rows(*range(100)))
    builder.step([collection])
    assert builder.process is not None
    builder.process.kill()

    def step() -> bool:
        builder.step([collection])
        return builder.failed == 1

    wait_for(step, 30, "the failure is seen")
    assert seeds_in(collection) == set(range(100)) and builder.process is None
    assert sorted(path.name for path in collection.folder.iterdir()) == ["000001", "000002"]
    builder.step([collection])
    assert builder.process is None, "not at once"
    builder.failed = 0
    builder.not_before_s = 0
    built(builder, collection)


def test_a_copy_that_lost_too_much_is_given_up(
    collection: Collection, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "GONE_SET_MAX", 5)
    collection.upsert(rows(*range(100)))
    builder.step([collection])
    collection.delete(ids(*range(6)))
    builder.step([collection])
    assert builder.process is None and collection.sealed[0].gone_since is None
    built(builder, collection)
    assert seeds_in(collection) == set(range(6, 100))


def test_what_cannot_be_read_is_left_aside(collection: Collection, tmp_path: Path) -> None:
    collection.upsert(rows(*range(100)))
    collection.upsert(rows(*range(100, 110)))
    collection.close()
    collection.shards.clear()
    broken = tmp_path / "c" / "000001"
    shutil.rmtree(broken)
    broken.mkdir()
    (broken / "edge_config.json").write_text("{")
    again = open_collection(tmp_path / "c")
    assert again.broken == 1 and seeds_in(again) == set(range(100, 110))
    again.close()


def test_a_dropped_collection_under_construction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "SEALED_POINTS", (SEALED, SEALED))
    keeper = Keeper(tmp_path / "k", *SHAPE)
    name = f"c-{DIM}"
    keeper.answer("upsert", [name, rows(*range(100))])
    keeper.housekeeping()
    assert keeper.builder.process is not None and keeper.answer("figures", [])["waiting"] == 1
    keeper.answer("drop", [name])
    assert keeper.builder.process is None and list((tmp_path / "k").iterdir()) == []
    keeper.answer("upsert", [name, rows(1)])
    keeper.close()
    (tmp_path / "k" / "dropped-1").mkdir()
    again = Keeper(tmp_path / "k", *SHAPE)
    assert again.answer("count", [""]) == {name: 1}
    assert [path.name for path in (tmp_path / "k").iterdir()] == [name]
    again.close()


def test_a_shard_counts_what_is_there(collection: Collection) -> None:
    collection.upsert(rows(1, 2, 3))
    shard: Shard = collection.shards[-1]
    shard.delete(ids(2, 99))
    assert shard.points == 2


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000])
def test_a_copy_has_holes_where_the_file_has_nothing(tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"x" * min(1, size))
    copy_sparse(str(source), str(target))
    assert source.read_bytes() == target.read_bytes()
    assert target.stat().st_blocks * 512 <= max(source.stat().st_blocks * 512, 128 << 10)
