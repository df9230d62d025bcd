"""How events of blocks become rounds of rows, and what happens where there is no room for them."""

from __future__ import annotations

from random import Random

from zeekdb.tiers.postgres.events import (
    EVENT_BYTES,
    Accesses,
    Context,
    Fact,
    Facts,
    Overwritten,
    Placed,
    Removed,
    Shared,
    State,
    Stored,
    merged,
)
from zeekdb.tiers.tier import Meta, Name, name_of


def meta(number: int, checksum: int = 1) -> Meta:
    return Meta(b"m", b"", b"k%d" % number, 100, checksum)


def name(number: int) -> Name:
    return name_of(meta(number))


def test_what_is_said_of_the_same_bytes_is_one_row() -> None:
    placed = Placed(meta(1), ("warm",), 50, "zstd")
    batch = merged([Stored(meta(1), Context(token_to=16)), Placed(meta(1), (), 0, "raw"), placed])
    assert batch.rounds == [{name(1): State(meta(1), Context(token_to=16), placed)}]


def test_each_replacement_has_a_round_of_its_own() -> None:
    first = Overwritten(meta(1, 1), meta(1, 2), "me", "because", b"old")
    second = Overwritten(meta(1, 2), meta(1, 3), "me", "again", None)
    batch = merged([first, Stored(meta(1, 2), Context()), second, Stored(meta(2), Context())])
    assert batch.rounds == [
        {name(1): State(meta(1, 1), is_old=True), name(2): State(meta(2), Context())},
        {name(1): State(meta(1, 2), Context(), overwritten=first)},
        {name(1): State(meta(1, 3), overwritten=second)},
    ]


def test_an_overwrite_that_is_told_after_the_storing_belongs_to_it() -> None:
    event = Overwritten(meta(1, 1), meta(1, 2), "me", "because", None)
    assert merged([Stored(meta(1, 2), Context()), event]).rounds == [
        {name(1): State(meta(1, 2), Context(), overwritten=event)}
    ]
    same = Overwritten(meta(1), meta(1), "me", "the same bytes", None)
    assert merged([same]).rounds == []


def test_what_is_removed_in_the_same_batch_needs_no_row() -> None:
    batch = merged([Stored(meta(1), Context()), Placed(meta(1), ("warm",), 5, "raw"), Removed(name(1))])
    assert batch.rounds == [{name(1): State(None)}]
    again = merged([Removed(name(1)), Stored(meta(1, 2), Context())])
    assert again.rounds == [{name(1): State(None)}, {name(1): State(meta(1, 2), Context())}]
    event = Overwritten(meta(1, 1), meta(1, 2), "me", "", None)
    assert merged([event, Removed(name(1))]).rounds[-1] == {name(1): State(None)}, "after its version"
    assert len(merged([event, Removed(name(1))]).rounds) == 3


def test_references_add_up() -> None:
    batch = merged([Shared((name(1), name(2)), 2), Shared((name(2),), -1)])
    assert batch.shared == {name(1): 2, name(2): 1}


def test_facts_come_in_the_order_in_which_they_were_told() -> None:
    random, facts = Random(3), Facts()
    told: list[Fact] = []
    for number in range(500):
        told.append(
            random.choice(
                [Stored(meta(number), Context()), Placed(meta(number), (), 0, "raw"), Removed(name(number)),
                 Shared((name(number),), 1)]
            )
        )  # fmt: skip
        facts.add(told[-1])
    taken: list[Fact] = []
    while len(facts):
        taken += facts.take(random.randrange(1, 50))
    assert taken == told
    assert (facts.bytes, facts.dropped, facts.taken) == (0, 0, 500)


def test_where_a_block_lies_makes_room_for_itself() -> None:
    facts = Facts(count_most=4)
    for number in range(3):
        facts.add(Stored(meta(number), Context()))
    facts.add(Placed(meta(0), ("warm",), 1, "raw"))
    facts.add(Stored(meta(9), Context()))
    assert facts.dropped == 1, "there is no room, and it is none of those that make it"
    places: list[Fact] = [Removed(name(1)), Placed(meta(2), ("warm",), 1, "raw"), Removed(name(3))]
    for event in places:
        facts.add(event)
    assert facts.dropped == 4
    assert facts.take(10) == [Placed(meta(0), ("warm",), 1, "raw"), *places]
    for number in range(6):  # nothing but places: the oldest go
        facts.add(Removed(name(number)))
    assert facts.take(10) == [Removed(name(number)) for number in range(2, 6)]
    assert facts.dropped == 6


def test_bytes_are_bounded_too() -> None:
    facts = Facts(bytes_most=10 * EVENT_BYTES)
    long = Meta(b"m", b"", b"k" * 10_000, 1, 1)
    for _ in range(50):
        facts.add(Placed(long, (), 0, "raw"))
    assert len(facts) == 1, "more than there is room for goes alone"
    for number in range(50):
        facts.add(Removed(name(number)))
    assert facts.bytes <= 10 * EVENT_BYTES
    accesses = Accesses(bytes_most=3 * EVENT_BYTES)
    for _ in range(5):
        accesses.add(name_of(long), "read", "host", True, 1, 1, 0)
        accesses.add(name(1), "read", "host", True, 1, 1, 0)
    assert accesses.bytes <= 3 * EVENT_BYTES
    assert len(accesses) + accesses.dropped == 10


def test_an_access_waits_for_the_facts_before_it() -> None:
    facts, accesses = Facts(), Accesses()
    facts.add(Stored(meta(1), Context()))
    facts.add(Stored(meta(2), Context()))
    accesses.add(name(2), "read", "host", True, 1, 1, facts.number)
    facts.add(Stored(meta(3), Context()))
    facts.take(1)
    assert accesses.take(10, facts.taken) == []
    facts.take(1)
    assert [access.name for access in accesses.take(10, facts.taken)] == [name(2)]
    assert accesses.bytes == 0
