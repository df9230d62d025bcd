"""The client's protocol core without a socket: replies cut anywhere, sinks, limits; commands as pieces."""

from __future__ import annotations

import random
from typing import Any

import pytest

from zeekdb.client.wire import (
    BUFFER_BYTES,
    BULK_BYTES_MAX,
    DEPTH_MAX,
    ITEMS_MAX,
    JOINED_BYTES_MAX,
    ProtocolError,
    Reader,
    Word,
    WrongSize,
    advance,
    encode,
)
from zeekdb.errors import CommandError


class Feed:
    """Bytes that come in pieces of at most `step`; EOF afterwards."""

    def __init__(self, data: bytes, step: int = 1 << 30, chance: random.Random | None = None) -> None:
        self.data = data
        self.at = 0
        self.step = step
        self.chance = chance
        self.asked: list[int] = []

    def read(self, reader: Reader, sinks: tuple[memoryview, ...] = ()) -> Any:
        """The next reply."""
        receiving = reader.reply(sinks)
        try:
            target = next(receiving)
            while True:
                step = self.chance.randint(1, self.step) if self.chance else self.step
                n = min(step, len(target), len(self.data) - self.at)
                self.asked.append(len(target))
                target[:n] = self.data[self.at : self.at + n]
                self.at += n
                target = receiving.send(n)
        except StopIteration as done:
            return done.value


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


REPLIES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", "OK"),
    (b":-12\r\n", -12),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (bulk(b"a\r\nb"), b"a\r\nb"),
    (b"*0\r\n", []),
    (b"*3\r\n:1\r\n$-1\r\n*1\r\n+x\r\n", [1, None, ["x"]]),
    (bulk(bytes(range(256)) * 1000), bytes(range(256)) * 1000),
]


@pytest.mark.parametrize("step", [1, 2, 7, 4096, 1 << 30])
def test_replies_cut_anywhere(step: int) -> None:
    reader, feed = Reader(), Feed(b"".join(data for data, _ in REPLIES), step)
    for _, value in REPLIES:
        assert feed.read(reader) == value
    with pytest.raises(EOFError):
        feed.read(reader)


def test_an_error_is_returned_and_the_next_reply_is_read() -> None:
    reader, feed = Reader(), Feed(b"-ERR no\r\n:1\r\n")
    error = feed.read(reader)
    assert isinstance(error, CommandError) and error.message == "ERR no"
    assert feed.read(reader) == 1


@pytest.mark.parametrize("seed", range(20))
def test_sinks_get_their_bytes_whatever_the_pieces(seed: int) -> None:
    chance = random.Random(seed)
    reader = Reader()
    blocks = [chance.randbytes(chance.choice([0, 1, 100, BUFFER_BYTES, 3 * BUFFER_BYTES + 1])) for _ in range(20)]
    absent = {at for at in range(20) if chance.random() < 0.2}
    data = b"*20\r\n" + b"".join(b"$-1\r\n" if at in absent else bulk(block) for at, block in enumerate(blocks))
    targets = [bytearray(len(block)) for block in blocks]
    feed = Feed(data + b":7\r\n", chance.choice([3, 1000, 10**6]), chance)
    reply = feed.read(reader, tuple(memoryview(target) for target in targets))
    assert reply == [None if at in absent else True for at in range(20)]
    for at, block in enumerate(blocks):
        assert targets[at] == (bytes(len(block)) if at in absent else block)
    assert feed.read(reader) == 7


def test_a_large_sink_is_asked_to_be_filled_directly() -> None:
    size = 4 << 20
    target = bytearray(size)
    feed = Feed(b"*2\r\n" + 2 * bulk(b"x" * size))
    assert feed.read(Reader(), (memoryview(target), memoryview(bytearray(size)))) == [True, True]
    in_buffers = sum(asked for asked in feed.asked if asked <= BUFFER_BYTES)
    assert in_buffers <= 3 * BUFFER_BYTES
    assert target == b"x" * size


def test_a_wrong_size_is_skipped_and_said() -> None:
    target = bytearray(5)
    feed = Feed(b"*3\r\n" + bulk(b"y" * 200_000) + bulk(b"abcde") + bulk(b"more") + b"+OK\r\n", 1000)
    reader = Reader()
    reply = feed.read(reader, (memoryview(bytearray(7)), memoryview(target)))
    assert reply == [200_000, True, b"more"] and type(reply[0]) is WrongSize
    assert target == b"abcde"
    assert feed.read(reader) == "OK"


@pytest.mark.parametrize(
    "data",
    [
        b"?\r\n", b":x\r\n", b"$1\r\nabc", b"$-2\r\n", b"$%d\r\n" % (BULK_BYTES_MAX + 1), b"*%d\r\n" % (ITEMS_MAX + 1),
        b"*1\r\n" * (DEPTH_MAX + 1), b"+" + b"x" * (BUFFER_BYTES + 1), b"\r\n",
    ],
)  # fmt: skip
def test_what_is_no_reply_ends_the_connection(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Feed(data).read(Reader())


@pytest.mark.parametrize("data", [b"", b"*2\r\n:1\r\n", b"$5\r\nab", b"$2\r\nab", b"+O"])
def test_an_end_within_a_reply(data: bytes) -> None:
    with pytest.raises(EOFError):
        Feed(data).read(Reader())


def test_large_words_are_not_joined() -> None:
    large = memoryview(bytearray(b"L" * (JOINED_BYTES_MAX + 1)))
    pieces = encode([b"SET", b"k", large, b"tail", large])
    assert sum(piece is large for piece in pieces) == 2
    assert b"".join(pieces) == b"*5\r\n" + b"".join(bulk(bytes(word)) for word in (b"SET", b"k", large, b"tail", large))
    assert encode([b"PING"]) == [b"*1\r\n$4\r\nPING\r\n"]


@pytest.mark.parametrize("seed", range(10))
def test_advance_loses_nothing(seed: int) -> None:
    chance = random.Random(seed)
    pieces: list[Word] = [memoryview(chance.randbytes(chance.randint(0, 50))) for _ in range(30)]
    whole, sent = b"".join(pieces), b""
    while pieces:
        n = chance.randint(0, min(60, sum(map(len, pieces))))
        sent += b"".join(pieces)[:n]
        advance(pieces, n)
        if not any(map(len, pieces)):
            break
    assert sent == whole
