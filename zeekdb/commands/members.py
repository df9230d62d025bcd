"""What the commands of several collection types share: the options of HSCAN and SSCAN, writes that create nothing."""

from __future__ import annotations

from typing import Final, TypeVar

from zeekdb.commands.args import parse_int
from zeekdb.commands.context import Context
from zeekdb.errors import CommandError, SyntaxError_

V = TypeVar("V")

SCAN_COUNT_DEFAULT: Final = 10
SAMPLES_MAX: Final = 1 << 22
"""Members that one command draws with repetition; Redis goes on until the client's output buffer is full."""


def for_change(ctx: Context, key: bytes, kind: type[V]) -> V | None:
    """The collection at `key` for writing; None when absent, where `ctx.write` would create it. WrongType."""
    if ctx.peek(key, kind) is None:
        return None
    return ctx.write(key, kind)


def parse_scan_options(options: tuple[bytes, ...]) -> tuple[bytes | None, int]:
    """`[MATCH pattern] [COUNT count]` in any order: the pattern (None: everything) and the count."""
    pattern: bytes | None = None
    count = SCAN_COUNT_DEFAULT
    for place in range(0, len(options), 2):
        word = options[place].upper()
        if place + 1 == len(options) or word not in (b"MATCH", b"COUNT"):
            raise SyntaxError_
        if word == b"MATCH":
            pattern = options[place + 1]
            continue
        count = parse_int(options[place + 1])
        if count < 1:
            raise SyntaxError_
    return (None if pattern == b"*" else pattern), count


def check_samples(count: int) -> int:
    """How many members a negative count asks for, repetitions allowed."""
    if -count > SAMPLES_MAX:
        raise CommandError("ERR value is out of range")
    return -count
