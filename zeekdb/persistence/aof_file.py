"""Where a file of commands stops making sense, and whether a crash explains that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from mmap import mmap
from typing import Final

SECTOR: Final = 512  # bytes that a disk writes as one
LENGTH: Final = re.compile(rb"(0|[1-9]\d{0,9})\r\n")
BEGIN: Final = re.compile(rb"(?<=\r\n)\*[1-9]\d{0,9}\r\n\$\d")
NUMBERS: Final = b"0123456789"


def command_end(data: bytes | mmap, at: int) -> tuple[int, int]:
    """Where the command at this place ends, or -1; and where it stops being one (its end, if it does not)."""
    left, kind = 1, b"*"
    while True:
        if data[at : at + 1] != kind:
            return -1, at
        found = LENGTH.match(data, at + 1)
        if found is None:
            digits = at + 1
            while data[digits : digits + 1] and data[digits : digits + 1] in NUMBERS:
                digits += 1
            return -1, digits + (data[digits : digits + 2] == b"\r\n" or data[digits : digits + 1] == b"\r")
        number, at = int(found[1]), found.end()
        if kind == b"*":
            left, kind = number, b"$"
        else:
            at += number
            if data[at : at + 2] != b"\r\n":
                return -1, at + (data[at : at + 1] == b"\r")
            at, left = at + 2, left - 1
        if left <= 0:
            return at, at


def commands(data: bytes | mmap, at: int) -> Iterator[tuple[int, int]]:
    """The ends of the commands from this place on; at last (-1, where there is none any more), unless all are whole.

    An annotation counts as one; the last may lack its end.
    """
    while at < len(data):
        if data[at : at + 1] == b"#":
            end = data.find(b"\n", at)
            hole = data.find(b"\0", at, end if end >= 0 else len(data))
            if hole >= 0:
                yield -1, hole
            if hole >= 0 or end < 0:
                return
            at = end + 1
            yield at, at
            continue
        end, stop = command_end(data, at)
        yield end, stop
        if end < 0:
            return
        at = end


def is_unwritten(data: bytes | mmap, at: int) -> bool:
    """Whether what is wrong from this place on is that the disk never got some of it.

    After a power failure a file may have its length and not its data: there are zeros up to the end of a sector, from
    its beginning on, or from the end of a command, where a sync or a write has ended.
    """
    end, stop = at, at
    for place, stops in commands(data, at):
        end, stop, at = place, stops, max(place, at)
    edge = (stop // SECTOR + 1) * SECTOR
    rest = data[stop : min(edge, len(data))]
    if end >= 0 or not rest or any(rest):
        return False
    return not any(data[edge - SECTOR : stop]) or not any(data[at:stop])


def follows_whole(data: bytes | mmap, at: int) -> int:
    """Where whole commands begin that reach to the very end, inside one that seems to be cut off; -1: nowhere.

    Then not the end is missing: a length is wrong, and cutting the command off would cut them off, too.
    """
    for end, _ in commands(data, at):  # a transaction may lack no more than its end
        at = end if end >= 0 else at
    bad: set[int] = set()
    for found in BEGIN.finditer(data, at + 1):
        begin, passed = found.start(), []
        if begin in bad:
            continue
        place, end = begin, 0
        for end, _ in commands(data, begin):
            passed.append(place)
            place = end
            if place in bad:
                end = -1
                break
            if end < 0:
                break
        if end >= 0:
            return begin
        bad.update(passed)
    return -1
