"""What the stream commands' arguments mean: ids, intervals and trimming."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from zeekdb.commands.args import UINT64_MASK, parse_int
from zeekdb.commands.context import Context
from zeekdb.errors import CommandError, SyntaxError_
from zeekdb.hot.streams import format_id
from zeekdb.types import Stream
from zeekdb.types.stream_groups import MAX_ID

INVALID_ID: Final = "ERR Invalid stream ID specified as stream command argument"
ID_BYTES_MAX: Final = 127
TRIM_BLOCKS: Final = 100  # blocks that `~` without LIMIT removes at most
TRIM_LIMIT_DEFAULT: Final = 10_000  # where blocks have no limit of entries
TRIM_LIMIT_MAX: Final = 1_000_000
ENTRY_BYTES_MAX: Final = 1 << 30

_PLAIN = re.compile(rb"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)")


def _part(text: bytes) -> int:
    """Half of an id: what `strtoull` takes, but no plain negative number."""
    match = _NUMBER.fullmatch(text)
    if match is None or text.startswith(b"-"):
        raise CommandError(INVALID_ID)
    digits = match[2].lstrip(b"0") or b"0"
    if len(digits) > 20 or int(digits) > UINT64_MASK:
        raise CommandError(INVALID_ID)
    return -int(digits) & UINT64_MASK if match[1] == b"-" else int(digits)


def _halves(word: bytes) -> tuple[int, bytes | None]:
    if len(word) > ID_BYTES_MAX:
        raise CommandError(INVALID_ID)
    ms, dash, sequence = word.split(b"\0", 1)[0].partition(b"-")  # C reads up to a NUL
    return _part(ms), sequence if dash else None


def parse_id(word: bytes, sequence: int = 0) -> int:
    """`ms-seq` or `ms`, which stands for `ms-<sequence>`."""
    if match := _PLAIN.fullmatch(word):
        return int(match[1]) << 64 | int(match[2])
    if word in (b"-", b"+"):
        raise CommandError(INVALID_ID)
    ms, rest = _halves(word)
    return ms << 64 | (sequence if rest is None else _part(rest))


def parse_bound(word: bytes, sequence: int = 0) -> int:
    """The same, with `-` and `+` for the smallest and the largest id."""
    if word == b"-":
        return 0
    if word == b"+":
        return MAX_ID
    return parse_id(word, sequence)


def parse_new_id(word: bytes) -> tuple[int, bool]:
    """XADD's id and whether it is whole; of `ms-*` the sequence is 0 and still to be found."""
    ms, rest = _halves(word) if word not in (b"-", b"+") else (0, b"")
    if rest == b"*":
        return ms << 64, False
    return parse_id(word), True


def parse_interval_start(word: bytes) -> int:
    """Where a range begins; `(` leaves out the id itself."""
    if len(word) > 1 and word.startswith(b"("):
        start = parse_id(word[1:])
        if start == MAX_ID:
            raise CommandError("ERR invalid start ID for the interval")
        return start + 1
    return parse_bound(word)


def parse_interval_end(word: bytes) -> int:
    """Where a range ends; a time alone stands for all of that millisecond."""
    if len(word) > 1 and word.startswith(b"("):
        end = parse_id(word[1:], UINT64_MASK)
        if end == 0:
            raise CommandError("ERR invalid end ID for the interval")
        return end - 1
    return parse_bound(word, UINT64_MASK)


@dataclass
class Trim:
    """MAXLEN or MINID with what belongs to it. `limit` 0: none."""

    length: int | None = None
    below: int = 0
    approximate: bool = False
    limit: int = 0

    def apply(self, stream: Stream) -> int:
        """Trim the stream; how many entries went."""
        if self.length is None:
            return stream.trim_below(self.below, self.approximate, self.limit)
        return stream.trim_to_length(self.length, self.approximate, self.limit)


@dataclass
class Adding:
    """The words of XADD before the fields, or of XTRIM."""

    trim: Trim | None = None
    create: bool = True
    id: int | None = None  # None: *
    whole: bool = True  # False: ms-*
    fields: tuple[bytes, ...] = ()


def _parse_trim(words: tuple[bytes, ...], place: int) -> tuple[Trim, int]:
    """The strategy at `place`, which something follows, and where its last word stands."""
    trim = Trim()
    by_length = words[place].upper() == b"MAXLEN"
    place += 1
    if place + 1 < len(words) and words[place] in (b"~", b"="):
        trim.approximate = words[place] == b"~"
        place += 1
    if not by_length:
        trim.below = parse_id(words[place])
        return trim, place
    trim.length = parse_int(words[place])
    if trim.length < 0:
        raise CommandError("ERR The MAXLEN argument must be >= 0.")
    return trim, place


def parse_adding(ctx: Context, words: tuple[bytes, ...], has_entry: bool) -> Adding:
    """`[NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT count]] id field value …`, or without an entry for XTRIM."""
    adding = Adding()
    limit: int | None = None
    place = 0
    while place < len(words):
        word = words[place].upper()
        more = place + 1 < len(words)
        if has_entry and word == b"*":
            break
        if word in (b"MAXLEN", b"MINID") and more:
            if adding.trim is not None:
                raise CommandError("ERR syntax error, MAXLEN and MINID options at the same time are not compatible")
            adding.trim, place = _parse_trim(words, place)
        elif word == b"LIMIT" and more:
            place += 1
            limit = parse_int(words[place])
            if limit < 0:
                raise CommandError("ERR The LIMIT argument must be >= 0.")
        elif has_entry and word == b"NOMKSTREAM":
            adding.create = False
        elif has_entry:
            adding.id, adding.whole = parse_new_id(words[place])
            break
        else:
            raise SyntaxError_
        place += 1
    _set_limit(ctx, adding.trim, limit, has_entry)
    adding.fields = words[place + 1 :]
    return adding


def _set_limit(ctx: Context, trim: Trim | None, limit: int | None, has_entry: bool) -> None:
    if limit and trim is None:
        raise CommandError("ERR syntax error, LIMIT cannot be used without specifying a trimming strategy")
    if not has_entry and trim is None:
        raise CommandError("ERR syntax error, XTRIM must be called with a trimming strategy")
    if limit is not None and (trim is None or not trim.approximate):
        raise CommandError("ERR syntax error, LIMIT cannot be used without the special ~ option")
    if trim is None:
        return
    if limit is not None:
        trim.limit = limit
    elif trim.approximate:
        # Unless asked otherwise a command does not trim for long, on the expense of what stays a little longer. The
        # twin of XADD has the same numbers.
        wanted = TRIM_BLOCKS * ctx.server.config.stream_node_max_entries
        trim.limit = min(wanted, TRIM_LIMIT_MAX) or TRIM_LIMIT_DEFAULT


def entry_reply(id: int, fields: list[bytes]) -> list[bytes | list[bytes]]:
    """An entry as commands reply it."""
    return [format_id(id), fields]
