"""Calls as the steps they make, answered by hand: batches, parents, bounds, what is bound to a link."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zeekdb.client import calls
from zeekdb.client.calls import NOWHERE, Abandon, Calls, Connected, Exchange, Job, Link, LinkLost, Steps
from zeekdb.client.leases import Mapping
from zeekdb.errors import CommandError, Unavailable

Answer = Callable[[Exchange], Any]


def drive(steps: Steps[Any], answer: Answer, link: Link | None = None) -> tuple[Any, list[Any]]:
    """The result and the steps; jobs are done, exceptions of `answer` are thrown in."""
    seen: list[Any] = []
    link = link or Link()
    try:
        step = next(steps)
        while True:
            seen.append(step)
            try:
                if isinstance(step, Exchange):
                    result = answer(step)
                else:
                    result = step.run() if isinstance(step, Job) else link if isinstance(step, Connected) else None
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value, seen


def linked(size: int = 1 << 20) -> tuple[Link, mmap.mmap]:
    """A link whose mapping is memory of our own."""
    fd = os.memfd_create("arena")
    os.ftruncate(fd, size)
    arena = mmap.mmap(fd, size)
    link = Link(Mapping(fd, size, 60_000))
    os.close(fd)
    return link, arena


def exchanges(seen: list[Any]) -> list[list[bytes]]:
    return [[bytes(word) for word in step.words] for step in seen if isinstance(step, Exchange)]


def test_stored_batches_name_the_key_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "BATCH_KEYS", 2)
    keys = [b"a", b"b", b"c", b"d", b"e"]
    steps = Calls("m", "s").put_from(keys, [b"1"] * 5, 9, b"g", b"p")
    said, seen = drive(steps, lambda step: [1] * ((len(step.words) - 11) // 2))
    assert said == [1] * 5
    head = [b"KV.MSET", b"m", b"SALT", b"s", b"TTL", b"9", b"GROUP", b"g", b"PARENT"]
    assert exchanges(seen) == [
        [*head, b"p", b"2", b"a", b"1", b"b", b"1"],
        [*head, b"b", b"2", b"c", b"1", b"d", b"1"],
        [*head, b"d", b"1", b"e", b"1"],
    ]


def test_lookups_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "BATCH_KEYS", 2)
    replies = iter([[2, b"\3", b"\2\2"], [0, b"\2", b"\0\3"]])
    found, seen = drive(Calls("m").lookup([b"a", b"b", b"c", b"d"], 50), lambda step: next(replies))
    assert (found.prefix, found.present.tolist(), found.tiers.tolist()) == (2, [1, 1, 0, 1], [2, 2, 0, 3])
    assert found.leased == [b"a", b"b", b"d"]
    assert exchanges(seen)[1] == [b"KV.LOOKUP", b"m", b"LEASE", b"50", b"2", b"c", b"d"]


def places(*each: tuple[int, int]) -> bytes:
    return np.array([(offset, size, 0) for offset, size in each], "<u8").tobytes()


def test_what_is_not_mapped_comes_through_the_socket() -> None:
    link, arena = linked()
    arena[100:103] = b"abc"
    targets = [bytearray(3) for _ in range(3)]

    def answer(step: Exchange) -> Any:
        if step.words[0] == b"KV.LOOKUP":
            assert step.link is link
            return [3, b"\3", b"\2\3\0", places((100, 3), (NOWHERE, 3), (NOWHERE, 0))]
        if step.words[0] == b"KV.UNLOCK":
            return 2
        assert [bytes(word) for word in step.words] == [b"KV.MGET", b"m", b"1", b"y"] and step.link is None
        step.sinks[0][:] = b"xyz"
        return [True]

    done, _ = drive(Calls("m").get_into([b"x", b"y", b"z"], targets, 5000), answer, link)
    assert done == [True, True, False] and targets[:2] == [b"abc", b"xyz"]


@pytest.mark.parametrize("known", [1, LinkLost("gone")])
def test_a_copy_without_all_of_its_leases_does_not_count(known: Any) -> None:
    link, _ = linked()
    targets = [bytearray(3), bytearray(3)]

    def answer(step: Exchange) -> Any:
        if step.words[0] == b"KV.LOOKUP":
            return [2, b"\3", b"\2\2", places((0, 3), (64, 3))]
        if step.words[0] == b"KV.UNLOCK":
            if isinstance(known, Exception):
                raise known
            return known
        return [None, True]

    done, seen = drive(Calls("m").get_into([b"x", b"y"], targets, 5000), answer, link)
    assert done == [False, True] and exchanges(seen)[-1] == [b"KV.MGET", b"m", b"2", b"x", b"y"]


def test_a_place_outside_of_the_arena_is_not_read() -> None:
    link, _ = linked(4096)
    with pytest.raises(Unavailable, match="outside"):
        drive(
            Calls("m").get_into([b"x"], [bytearray(3)], 5000),
            lambda step: [1, b"\1", b"\2", places((4095, 3))] if step.words[0] == b"KV.LOOKUP" else 1, link,
        )  # fmt: skip


def test_what_got_no_room_is_sent_in_the_order_of_the_context() -> None:
    link, arena = linked()

    def answer(step: Exchange) -> Any:
        return [0, -1, 64] if step.words[0] == b"KV.RESERVE" else [1]

    said, seen = drive(Calls("m").put_from([b"x", b"y", b"z"], [b"abc", b"def", b"ghi"], 0, None, b"p"), answer, link)
    assert said == [1, 1, 1] and arena[:3] == b"abc" and arena[64:67] == b"ghi"
    assert exchanges(seen) == [
        [b"KV.RESERVE", b"3", b"3", b"3", b"3"],
        [b"KV.COMMIT", b"m", b"PARENT", b"p", b"1", b"x", b"0"],
        [b"KV.MSET", b"m", b"PARENT", b"x", b"1", b"y", b"def"],
        [b"KV.COMMIT", b"m", b"PARENT", b"y", b"1", b"z", b"64"],
    ]


def test_a_link_that_is_lost_before_the_commit() -> None:
    link, _ = linked()

    def answer(step: Exchange) -> Any:
        if step.words[0] == b"KV.COMMIT":
            raise LinkLost("gone")
        return [0] if step.words[0] == b"KV.RESERVE" else [1]

    said, seen = drive(Calls("m").put_from([b"x"], [b"abc"], 0, None, None), answer, link)
    assert said == [1] and exchanges(seen)[-1] == [b"KV.MSET", b"m", b"1", b"x", b"abc"]


def test_a_commit_that_is_refused_ends_the_link() -> None:
    link, _ = linked()
    seen: list[Any] = []

    def answer(step: Exchange) -> Any:
        if step.words[0] == b"KV.COMMIT":
            raise CommandError("ERR no")
        return [0]

    steps = Calls("m").put_from([b"x"], [b"abc"], 0, None, None)
    with pytest.raises(CommandError):
        drive(watched(steps, seen), answer, link)
    assert isinstance(seen[-1], Abandon) and seen[-1].link is link


def watched(steps: Steps[Any], seen: list[Any]) -> Steps[Any]:
    """The same steps, noted."""
    step = next(steps)
    while True:
        seen.append(step)
        try:
            result = yield step
        except Exception as error:
            step = steps.throw(error)
        else:
            try:
                step = steps.send(result)
            except StopIteration as done:
                return done.value
