"""RESP2 without I/O: commands become lists of buffers, replies are read out of whatever the caller receives.

`Reader.reply` is a generator that yields the memory where the next bytes belong and is sent their number. Large bulk
strings have their own memory, a *sink*, so that their bytes are received where the caller wants them; everything else
passes through one buffer of 64 KiB. Before a sink's turn only few bytes are asked for, because what comes in with the
bulk's header has to be copied.

A command is not joined either: small words gather in one piece, each large one is a piece of its own, for `sendmsg`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final

from zeekdb.errors import CommandError, Unavailable

BUFFER_BYTES: Final = 64 << 10
HEAD_BYTES: Final = 1 << 10  # asked for where a large sink is next
JOINED_BYTES_MAX: Final = 8 << 10  # a longer word is sent from where it lies
BULK_BYTES_MAX: Final = 512 << 20  # as the server's
ITEMS_MAX: Final = 1 << 20  # of an array
DEPTH_MAX: Final = 8  # arrays within arrays

Word = bytes | memoryview
Sinks = Sequence[memoryview]
Reply = Any  # int, str (a status), bytes, None, list, CommandError; True or WrongSize where there was a sink
Receiving = Generator[memoryview, int, Reply]


class WrongSize(int):
    """Bytes of a bulk string that was thrown away, since its sink has another size."""


class ProtocolError(Unavailable):
    """What came is no RESP2, or exceeds this module's limits: the connection is of no use any more."""


def encode(words: Sequence[Word]) -> list[Word]:
    """A command as the pieces to be sent, in order."""
    pieces: list[Word] = []
    small: list[bytes] = [b"*%d\r\n" % len(words)]
    for word in words:
        size = len(word)
        if size <= JOINED_BYTES_MAX:
            small.append(b"$%d\r\n%b\r\n" % (size, word if type(word) is bytes else bytes(word)))
            continue
        small.append(b"$%d\r\n" % size)
        pieces += [b"".join(small), word]
        small = [b"\r\n"]
    pieces.append(b"".join(small))
    return pieces


def advance(pieces: list[Word], sent: int) -> None:
    """Takes what was sent off the front of the pieces."""
    done = 0
    while done < len(pieces) and sent >= len(pieces[done]):
        sent -= len(pieces[done])
        done += 1
    del pieces[:done]
    if sent:
        pieces[0] = memoryview(pieces[0])[sent:]


class Reader:
    """The receiving side of one connection. After an exception it is of no use: the place in the stream is lost."""

    def __init__(self) -> None:
        self._data = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._data)
        self._begin = 0
        self._end = 0

    def reply(self, sinks: Sinks = ()) -> Receiving:
        """The next reply. Bulk strings of its outermost array go to `sinks`, one for each, as far as there are any.

        An item with a sink is True, None (null) or WrongSize. A server's error is returned, not raised, so that the
        caller knows that the connection is fit for more. ProtocolError; EOFError when the connection ends within.
        """
        return (yield from self._item(sinks, None, 0))

    def _item(self, sinks: Sinks, sink: memoryview | None, depth: int) -> Receiving:
        while (line := self._line()) is None:
            yield from self._more(sink)
        kind, rest = line[:1], line[1:]
        if kind == b":":
            return _number(rest)
        if kind == b"$":
            size = _number(rest)
            if not -1 <= size <= BULK_BYTES_MAX:
                raise ProtocolError(f"a bulk string of {size} bytes")
            return (yield from self._bulk(size, sink)) if size >= 0 else None
        if kind == b"+":
            return rest.decode("utf-8", "surrogateescape")
        if kind == b"-":
            return CommandError(rest.decode("utf-8", "surrogateescape"))
        if kind != b"*":
            raise ProtocolError(f"no reply begins with {kind!r}")
        count = _number(rest)
        if count > ITEMS_MAX or depth == DEPTH_MAX:
            raise ProtocolError(f"an array of {count} items, {depth} deep")
        items = []
        for index in range(count):
            items.append((yield from self._item((), sinks[index] if index < len(sinks) else None, depth + 1)))  # noqa: PERF401
        return items if count >= 0 else None

    def _line(self) -> bytes | None:
        """The next line if it has come, without its end."""
        at = self._data.find(b"\r\n", self._begin, self._end)
        if at < 0:
            return None
        line = bytes(self._view[self._begin : at])
        self._begin = at + 2
        return line

    def _more(self, sink: memoryview | None = None) -> Generator[memoryview, int, None]:
        """Receives at least a byte more into the buffer."""
        if self._begin:  # what is left is the begin of a line, or nothing
            left = self._end - self._begin
            self._data[:left] = self._data[self._begin : self._end]
            self._begin, self._end = 0, left
        if self._end == BUFFER_BYTES:
            raise ProtocolError("a line has no end")
        limit = BUFFER_BYTES
        if sink is not None and len(sink) >= BUFFER_BYTES:
            limit = min(limit, self._end + HEAD_BYTES)
        received = yield self._view[self._end : limit]
        if not received:
            raise EOFError("the server closed the connection")
        self._end += received

    def _bulk(self, size: int, sink: memoryview | None) -> Receiving:
        if sink is not None and len(sink) != size:
            yield from self._skip(size)
            yield from self._bulk_end()
            return WrongSize(size)
        held = min(size, self._end - self._begin)
        begin = self._begin
        self._begin += held
        if sink is None and held == size:
            data = bytes(self._view[begin : begin + size])
            yield from self._bulk_end()
            return data
        own = bytearray(size) if sink is None else b""
        target = memoryview(own) if sink is None else sink
        target[:held] = self._view[begin : begin + held]
        got = held
        while got < size:
            received = yield target[got:]
            if not received:
                raise EOFError("the server closed the connection")
            got += received
        yield from self._bulk_end()
        return bytes(own) if sink is None else True

    def _bulk_end(self) -> Generator[memoryview, int, None]:
        while self._end - self._begin < 2:
            yield from self._more()
        if self._data[self._begin : self._begin + 2] != b"\r\n":
            raise ProtocolError("a bulk string does not end where it should")
        self._begin += 2

    def _skip(self, size: int) -> Generator[memoryview, int, None]:
        while size > 0:
            if self._begin == self._end:
                yield from self._more()
            step = min(size, self._end - self._begin)
            self._begin += step
            size -= step


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise ProtocolError(f"{text!r} is no number") from None
