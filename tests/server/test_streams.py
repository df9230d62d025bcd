"""XREAD and XREADGROUP that wait, and blocks as Redis would have cut them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import pytest

from tests.differential.oracle import servers
from tests.support import Failure, NullArray, Server, Wire, encode, wait_for

GONE = "UNBLOCKED the stream key no longer exists"


@pytest.fixture
def block(server: Server, wire: Wire) -> Iterator[Callable[..., Wire]]:
    """A new connection that waits in a command."""
    with contextlib.ExitStack() as stack:

        def start(*command: str) -> Wire:
            waiter = stack.enter_context(server.wire())
            number = waiter("CLIENT", "ID")
            waiter.send(encode(*command))
            wait_for(lambda: b" flags=b " in wire("CLIENT", "LIST", "ID", number))
            return waiter

        yield start


def test_xread_waits_for_what_comes_later(wire: Wire, block: Callable[..., Wire]) -> None:
    wire("XADD", "s", "1", "f", "old")
    waiter = block("XREAD", "BLOCK", "0", "STREAMS", "t", "s", "0", "$")
    wire("DEL", "s")
    wire("SET", "t", "no stream")
    wire("XADD", "s", "1", "f", "below")
    wire("XADD", "s", "2", "f", "new")
    assert waiter.read() == [[b"s", [[b"2-0", [b"f", b"new"]]]]]


def test_a_transaction_serves_once_with_all_it_added(wire: Wire, block: Callable[..., Wire]) -> None:
    waiter = block("XREAD", "BLOCK", "0", "STREAMS", "s", "t", "$", "0")
    wire("MULTI")
    wire("XADD", "s", "1", "f", "a")
    wire("XADD", "t", "1", "f", "b")
    wire("XADD", "s", "2", "f", "c")
    wire("XREAD", "BLOCK", "0", "STREAMS", "none", "0")
    assert isinstance(wire("EXEC")[-1], NullArray)
    assert waiter.read() == [
        [b"s", [[b"1-0", [b"f", b"a"]], [b"2-0", [b"f", b"c"]]]],
        [b"t", [[b"1-0", [b"f", b"b"]]]],
    ]


def test_waiting_ends_in_time(wire: Wire) -> None:
    wire("XADD", "s", "5", "f", "v")
    wire("XGROUP", "CREATE", "s", "g", "$")
    assert isinstance(wire("XREAD", "BLOCK", "1", "STREAMS", "s", "$"), NullArray)
    assert isinstance(wire("XREADGROUP", "GROUP", "g", "c", "BLOCK", "1", "STREAMS", "s", ">"), NullArray)
    assert wire("XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "s", "0") == [[b"s", []]]


def test_an_entry_goes_to_one_consumer_of_a_group(wire: Wire, block: Callable[..., Wire]) -> None:
    wire("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
    wire("XGROUP", "CREATE", "s", "h", "$")
    first, second, other = (
        block("XREADGROUP", "GROUP", group, name, "BLOCK", "0", "STREAMS", "s", ">")
        for group, name in (("g", "one"), ("g", "two"), ("h", "three"))
    )
    assert wire("XINFO", "CONSUMERS", "s", "g") == []
    wire("XADD", "s", "1", "f", "v")
    entry = [[b"s", [[b"1-0", [b"f", b"v"]]]]]
    assert first.read() == entry
    assert other.read() == entry
    assert wire("XPENDING", "s", "g") == [1, b"1-0", b"1-0", [[b"one", b"1"]]]
    wire("XADD", "s", "2", "f", "v")
    assert second.read() == [[b"s", [[b"2-0", [b"f", b"v"]]]]]


@pytest.mark.parametrize(("commands", "error"), [
    ([("DEL", "s")], GONE),
    ([("SET", "s", "v")], GONE),
    ([("FLUSHALL",)], GONE),
    ([("XGROUP", "DESTROY", "s", "g")], "NOGROUP the consumer group this client was blocked on no longer exists"),
    ([("XADD", "other", "7", "f", "v"), ("RENAME", "other", "s")], "NOGROUP"),
])  # fmt: skip
def test_a_group_that_goes_is_an_error(
    wire: Wire, block: Callable[..., Wire], commands: list[tuple[str, ...]], error: str
) -> None:
    wire("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
    waiter = block("XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "s", ">")
    for command in commands:
        wire(*command)
    reply = waiter.read()
    assert isinstance(reply, Failure)
    assert reply.startswith(error)


def test_maps_in_resp3(wire: Wire, block: Callable[..., Wire]) -> None:
    wire("HELLO", "3")
    wire("XADD", "s", "1", "f", "v")
    assert wire("XREAD", "STREAMS", "s", "0") == {b"s": [[b"1-0", [b"f", b"v"]]]}
    assert wire("XINFO", "STREAM", "s")[b"length"] == 1


def test_blocks_break_where_redis_breaks_them() -> None:
    """Approximate trimming keeps whole blocks: what is in one, and what the tree over them looks like, is Redis's."""
    dice = random.Random(5)
    texts = [b"", b"1", b"127", b"-4096", b"99999", b"8388607", b"-2147483649", b"007", b"x" * 63, b"x" * 64,
             b"y" * 126, b"y" * 127, b"y" * 128, b"z" * 1000, b"z" * 4095, b"z" * 4096]  # fmt: skip
    with servers() as pair:
        for story in range(30):
            pair.start(2)
            commands = [
                (b"CONFIG", b"SET", b"stream-node-max-entries", b"%d" % dice.choice([0, 1, 3, 100, 150, 1000])),
                (b"CONFIG", b"SET", b"stream-node-max-bytes", b"%d" % dice.choice([0, 40, 300, 4096, 70_000])),
            ]
            ms = 1
            for _ in range(dice.choice([20, 300])):
                ms += dice.choice([0, 0, 1, 100, 70_000, 1 << 36])
                names = dice.choice([[b"f"], [b"f"], [b"f"], [b"a", b"5"], [b"n" * 130]])
                fields = [text for name in names for text in (name, dice.choice(texts))]
                commands.append((b"XADD", b"s", b"%d-*" % ms, *fields))
                if dice.random() < 0.1:
                    commands.append((b"XDEL", b"s", b"%d-0" % ms))
                if dice.random() < 0.1:
                    commands.append((b"XTRIM", b"s", b"MAXLEN", b"~", b"%d" % dice.choice([10, 150])))
                if dice.random() < 0.1:
                    commands.append((b"XINFO", b"STREAM", b"s"))
            found = pair.compare(commands)
            assert found is None, f"{story}: {found}"
