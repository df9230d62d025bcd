"""Ten thousand random commands, and the harness tested on itself."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.differential.accepted import accepted_as, reset_after
from tests.differential.generators import FAMILIES, MAKERS, story
from tests.differential.grammar import compile_template
from tests.differential.oracle import Pair, servers, spell, tree, words
from tests.differential.run import STORY_COMMANDS, check
from tests.support import Failure, NullArray, SetReply, Simple

SEED = int(os.environ.get("ZEEKDB_SEED", "20250101"))  # another one looks elsewhere; a failure names its own
STORIES_PER_FAMILY = 4
STORIES_MIXED = 36


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with servers() as running:
        yield running


def agree(pair: Pair, stories: int, families: tuple[str, ...]) -> None:
    if found := check(pair, SEED, stories, families):
        pytest.fail(f"ZEEKDB_SEED={SEED}\n{found}", pytrace=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(pair: Pair, family: str) -> None:
    agree(pair, STORIES_PER_FAMILY, (family,))


def test_all_families_mixed(pair: Pair) -> None:
    agree(pair, STORIES_MIXED, tuple(FAMILIES))


# --- the harness --------------------------------------------------------------------------------------------------


def test_redis_agrees_with_itself() -> None:
    with servers("redis") as twins:
        assert check(twins, SEED, 4) is None
        twins.subject("CONFIG", "SET", "hash-max-listpack-entries", "0")
        found = twins.compare([words("HSET h1 a 1"), words("OBJECT ENCODING h1")])
        assert found is not None
        assert spell(found.commands[-1]) == "OBJECT ENCODING h1"


def test_a_difference_is_found_and_made_small() -> None:
    with servers("redis") as twins:
        twins.subject("CONFIG", "SET", "hash-max-listpack-entries", "1")
        long = [
            *story(1, 20, ("string",)),
            words("HSET small a 1 b 2"),
            *story(2, 20, ("list",)),
            words("OBJECT ENCODING small"),
        ]
        found = twins.compare(long)
        assert found is not None
        small = twins.minimise(found)
        assert [spell(command) for command in small.commands] == [
            "HSET small a 1 b 2", "OBJECT ENCODING small",
        ]  # fmt: skip


def test_types_are_kept() -> None:
    replies = [Simple("OK"), b"OK", Failure("OK"), 1, True, 1.0, None, NullArray(), [1], SetReply([1]), {b"a": 1}]
    trees = [tree(reply) for reply in replies]
    assert all(one != two for at, one in enumerate(trees) for two in trees[:at])


def test_the_same_seed_tells_the_same_story() -> None:
    assert story(7, 50) == story(7, 50) != story(8, 50)
    assert len(story(7, STORY_COMMANDS)) == STORY_COMMANDS


def test_grammar() -> None:
    pools = {"n": lambda r: b"%d" % r.randint(1, 3)}
    make = compile_template("CMD <n> [A|B <n>] {C} (X|Y) (<n> v)+", pools)
    seen = {tuple(make(random.Random(seed))) for seed in range(300)}
    heads = {sentence[0].upper() for sentence in seen}
    assert heads == {b"CMD"}
    assert any(b"C" in sentence and b"A" in sentence for sentence in seen)
    orders = {sentence.index(b"C") < sentence.index(b"A") for sentence in seen if {b"A", b"C"} <= set(sentence)}
    assert orders == {True, False}
    for maker in (maker for family in MAKERS.values() for maker in family):
        assert maker(random.Random(1))


def test_what_is_accepted_and_what_is_not() -> None:
    one, two = ("bulk", b"0.1"), ("bulk", b"0.10000000000000001")
    assert accepted_as(words("ZSCORE z m"), two, one)
    assert accepted_as(words("HGET h f"), two, one) is None
    members = ("array", [("bulk", b"a"), ("bulk", b"b")])
    assert accepted_as(words("smembers s"), members, ("array", members[1][::-1]))
    assert accepted_as(words("LRANGE l 0 -1"), members, ("array", members[1][::-1])) is None
    assert accepted_as(words("SRANDMEMBER s 2"), members, ("array", members[1][:1])) is None
    assert accepted_as(words("TTL k"), ("int", 100), ("int", 99))
    assert accepted_as(words("TTL k"), ("int", -1), ("int", 0)) is None
    assert reset_after(words("spop k 3")) == [words("DEL k")]
    assert reset_after(words("SORT k BY w* STORE out LIMIT 0 1")) == [words("DEL out")]
