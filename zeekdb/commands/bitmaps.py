"""Strings as arrays of bits, the highest bit of the first byte being bit 0.

Counting, searching and combining go through Python's integers and bytes, a mebibyte at a time, so that they run at
memory speed and need no more than that beside the value itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import and_, or_, xor
from typing import NamedTuple

from zeekdb.commands.args import parse_bit, parse_int, to_int
from zeekdb.commands.context import Context
from zeekdb.commands.spec import DENYOOM, FAST, READONLY, WRITE, KeySpec, command, one_key
from zeekdb.commands.strings import has_string, runs_backwards, slice_bounds
from zeekdb.errors import CommandError, OutOfRange, SyntaxError_

CHUNK_BYTES = 1 << 20
_INVERT = bytes(255 - byte for byte in range(256))


def _offset(ctx: Context, text: bytes, width: int = 0) -> int:
    """A bit offset; `#n` means n times the field's width, where there is one."""
    counted = width > 0 and text.startswith(b"#")
    offset = to_int(text[1:] if counted else text)
    if offset is not None and counted:
        offset *= width
    if offset is None or not 0 <= offset >> 3 < ctx.server.config.proto_max_bulk_len:
        raise OutOfRange("ERR bit offset is not an integer or out of range")
    return offset


def _read_byte(ctx: Context, key: bytes, place: int) -> int:
    return ctx.db.getrange(key, place, place)[0]


@command(
    "SETBIT", arity=4, flags=WRITE | DENYOOM, keys=one_key("RW", "access", "update"), group="bitmap", since="2.2.0",
    complexity="O(1)",
)  # fmt: skip
def setbit(ctx: Context, key: bytes, offset: bytes, value: bytes) -> int:
    """Sets or clears a bit and returns what it was; the string grows as needed."""
    at, bit = _offset(ctx, offset), parse_bit(value)
    place, mask = at >> 3, 0x80 >> (at & 7)
    grows = not has_string(ctx, key) or ctx.db.strlen(key) <= place
    byte = 0 if grows else _read_byte(ctx, key, place)
    old = int(bool(byte & mask))
    if grows or old != bit:
        ctx.db.write_at(key, place, bytes([byte | mask if bit else byte & ~mask]))
        ctx.changed(key, "setbit")
    return old


@command(
    "GETBIT", arity=3, flags=READONLY | FAST, keys=one_key("RO", "access"), group="bitmap", since="2.2.0",
    complexity="O(1)",
)  # fmt: skip
def getbit(ctx: Context, key: bytes, offset: bytes) -> int:
    """Returns a bit; beyond the end they are 0."""
    at = _offset(ctx, offset)
    if not has_string(ctx, key) or ctx.db.strlen(key) <= at >> 3:
        return 0
    return _read_byte(ctx, key, at >> 3) >> (7 - (at & 7)) & 1


# --- ranges -------------------------------------------------------------------------------------------------------


def _parse_unit(text: bytes) -> bool:
    """Whether a range counts bits."""
    unit = text.upper()
    if unit not in (b"BIT", b"BYTE"):
        raise SyntaxError_
    return unit == b"BIT"


class _Range(NamedTuple):
    """Bytes first..last, and the bits of the outer two that do not belong: from the left in first, from the right
    in last."""

    first: int
    last: int
    skip_left: int = 0
    skip_right: int = 0


def _resolve(start: int, stop: int, length: int, in_bits: bool) -> _Range | None:
    """The range that start and stop mean in a string of `length` bytes; None when it is empty."""
    bounds = slice_bounds(start, stop, length * 8 if in_bits else length)
    if bounds is None:
        return None
    if not in_bits:
        return _Range(*bounds)
    return _Range(bounds[0] >> 3, bounds[1] >> 3, bounds[0] & 7, 7 - (bounds[1] & 7))


def _chunks(ctx: Context, key: bytes, span: _Range, fill: int) -> Iterator[bytes]:
    """The span's bytes, a chunk at a time; the bits that do not belong are made `fill`."""
    for at in range(span.first, span.last + 1, CHUNK_BYTES):
        chunk = ctx.db.getrange(key, at, min(at + CHUNK_BYTES, span.last + 1) - 1)
        edges = bytearray(chunk) if span.skip_left or span.skip_right else None
        if edges is not None:
            if at == span.first:
                outside = 0xFF & ~(0xFF >> span.skip_left)
                edges[0] = edges[0] | outside if fill else edges[0] & ~outside
            if at + len(chunk) > span.last:
                outside = (1 << span.skip_right) - 1
                edges[-1] = edges[-1] | outside if fill else edges[-1] & ~outside
        yield chunk if edges is None else bytes(edges)


@command(
    "BITCOUNT", arity=-2, flags=READONLY, keys=one_key("RO", "access"), group="bitmap", since="2.6.0",
    complexity="O(N)", history=(("7.0.0", "Added the `BYTE|BIT` option."),),
)  # fmt: skip
def bitcount(ctx: Context, key: bytes, *words: bytes) -> int:
    """Counts the bits that are set, in all the string or in a range of it."""
    if len(words) not in (0, 2, 3):
        raise SyntaxError_
    start, stop = (parse_int(words[0]), parse_int(words[1])) if words else (0, -1)
    in_bits = len(words) == 3 and _parse_unit(words[2])
    if not has_string(ctx, key) or runs_backwards(start, stop):
        return 0
    span = _resolve(start, stop, ctx.db.strlen(key), in_bits)
    if span is None:
        return 0
    return sum(int.from_bytes(chunk, "little").bit_count() for chunk in _chunks(ctx, key, span, 0))


@command(
    "BITPOS", arity=-3, flags=READONLY, keys=one_key("RO", "access"), group="bitmap", since="2.8.7",
    complexity="O(N)", history=(("7.0.0", "Added the `BYTE|BIT` option."),),
)  # fmt: skip
def bitpos(ctx: Context, key: bytes, bit: bytes, *words: bytes) -> int:
    """Finds the first bit that is set, or clear, in all the string or in a range of it."""
    wanted = parse_int(bit)
    if wanted not in (0, 1):
        raise CommandError("ERR The bit argument must be 1 or 0.")
    if len(words) > 3:
        raise SyntaxError_
    start = parse_int(words[0]) if words else 0
    in_bits = len(words) == 3 and _parse_unit(words[2])
    stop = parse_int(words[1]) if len(words) > 1 else -1
    if not has_string(ctx, key):
        return -1 if wanted else 0
    span = _resolve(start, stop, ctx.db.strlen(key), in_bits)
    if span is None:
        return -1
    dull = b"\x00" if wanted else b"\xff"
    at = span.first
    for chunk in _chunks(ctx, key, span, 1 - wanted):
        rest = chunk.lstrip(dull)
        if rest:
            byte = rest[0] if wanted else rest[0] ^ 0xFF
            return (at + len(chunk) - len(rest)) * 8 + 8 - byte.bit_length()
        at += len(chunk)
    # All ones: without an end the string counts as followed by zeros, with one it does not.
    return at * 8 if not wanted and len(words) < 2 else -1


# --- BITOP --------------------------------------------------------------------------------------------------------

_COMBINE: dict[bytes, Callable[[int, int], int]] = {b"AND": and_, b"OR": or_, b"XOR": xor}


def _combine(operate: Callable[[int, int], int], sources: list[bytes], length: int) -> bytes:
    """The sources, taken as filled with zeros to `length`, combined."""
    result = bytearray(length)
    for at in range(0, length, CHUNK_BYTES):
        stop = min(at + CHUNK_BYTES, length)
        numbers = (int.from_bytes(source[at:stop], "little") for source in sources)
        result[at:stop] = reduce(operate, numbers).to_bytes(stop - at, "little")
    return bytes(result)


@command(
    "BITOP", arity=-4, flags=WRITE | DENYOOM,
    keys=(KeySpec(("OW", "update"), index=2), KeySpec(("RO", "access"), index=3, last=-1)), group="bitmap",
    since="2.6.0", complexity="O(N)",
)  # fmt: skip
def bitop(ctx: Context, operation: bytes, destination: bytes, *keys: bytes) -> int:
    """Combines strings bit by bit and stores the outcome."""
    name = operation.upper()
    if name not in (b"AND", b"OR", b"XOR", b"NOT"):
        raise SyntaxError_
    if name == b"NOT" and len(keys) != 1:
        raise CommandError("ERR BITOP NOT must be called with a single source key.")
    sources = [ctx.read(key, bytes) or b"" for key in keys]
    length = max(len(source) for source in sources)
    if not length:
        ctx.remove(destination)
        return 0
    result = sources[0].translate(_INVERT) if name == b"NOT" else _combine(_COMBINE[name], sources, length)
    ctx.db.set(destination, result)
    ctx.changed(destination, "set")
    return length


# --- BITFIELD -----------------------------------------------------------------------------------------------------


class _Step(NamedTuple):
    """One operation of a BITFIELD."""

    kind: bytes  # GET, SET, INCRBY
    signed: bool
    width: int
    offset: int
    operand: int
    overflow: bytes  # WRAP, SAT, FAIL

    def fit(self, number: int) -> tuple[int, bool]:
        """The number made to fit the field as the overflow mode says, and whether it fitted as it was."""
        low = -(1 << (self.width - 1)) if self.signed else 0
        high = low + (1 << self.width) - 1
        if low <= number <= high:
            return number, True
        if self.overflow == b"SAT":
            return (low if number < low else high), False
        wrapped = number & ((1 << self.width) - 1)
        return (wrapped - (1 << self.width) if wrapped > high else wrapped), False


def _parse_field(text: bytes) -> tuple[bool, int]:
    width = to_int(text[1:])
    signed = text[:1] == b"i"
    if text[:1] not in (b"i", b"u") or width is None or not 1 <= width <= (64 if signed else 63):
        raise CommandError(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
        )
    return signed, width


def _parse_steps(ctx: Context, words: tuple[bytes, ...]) -> list[_Step]:
    steps = []
    overflow = b"WRAP"
    at = 0
    while at < len(words):
        kind = words[at].upper()
        left = len(words) - at - 1
        if kind == b"OVERFLOW" and left >= 1:
            overflow = words[at + 1].upper()
            if overflow not in (b"WRAP", b"SAT", b"FAIL"):
                raise CommandError("ERR Invalid OVERFLOW type specified")
            at += 2
            continue
        if not (kind == b"GET" and left >= 2) and not (kind in (b"SET", b"INCRBY") and left >= 3):
            raise SyntaxError_
        signed, width = _parse_field(words[at + 1])
        offset = _offset(ctx, words[at + 2], width)
        operand = 0 if kind == b"GET" else parse_int(words[at + 3])
        steps.append(_Step(kind, signed, width, offset, operand, overflow))
        at += 3 if kind == b"GET" else 4
    return steps


def _window(ctx: Context, key: bytes, step: _Step, length: int) -> tuple[int, int, int, int]:
    """The bytes that a field lies in, as a number: (number, place, count, bits right of the field)."""
    place, last = step.offset >> 3, (step.offset + step.width - 1) >> 3
    count = last - place + 1
    data = ctx.db.getrange(key, place, min(last, length - 1)) if place < length else b""
    spare = count * 8 - (step.offset & 7) - step.width
    return int.from_bytes(data.ljust(count, b"\0"), "big"), place, count, spare


def _field_of(step: _Step, number: int, spare: int) -> int:
    value = number >> spare & ((1 << step.width) - 1)
    return value - (1 << step.width) if step.signed and value >> (step.width - 1) else value


def _apply(ctx: Context, key: bytes, step: _Step, length: int) -> tuple[int | None, bool]:
    """Does one SET or INCRBY: the reply, and whether bits changed."""
    number, place, count, spare = _window(ctx, key, step, length)
    old = _field_of(step, number, spare)
    target = step.operand if step.kind == b"SET" else old + step.operand
    if step.kind == b"SET" and not step.signed:
        target &= (1 << 64) - 1  # a negative operand is a large unsigned one
    new, fitted = step.fit(target)
    if not fitted and step.overflow == b"FAIL":
        return None, False
    if new != old:
        mask = (1 << step.width) - 1
        number = number & ~(mask << spare) | (new & mask) << spare
        ctx.db.write_at(key, place, number.to_bytes(count, "big"))
    return (old if step.kind == b"SET" else new), new != old


def _run(ctx: Context, key: bytes, steps: list[_Step]) -> list[int | None]:
    length = ctx.db.strlen(key) if has_string(ctx, key) else 0
    grown = False
    if ends := [step.offset + step.width for step in steps if step.kind != b"GET"]:
        needed = (max(ends) + 7) >> 3
        grown = needed > length
        if grown:
            length = ctx.db.write_at(key, needed - 1, b"\0")
    replies: list[int | None] = []
    changed = False
    for step in steps:
        if step.kind == b"GET":
            number, _, _, spare = _window(ctx, key, step, length)
            replies.append(_field_of(step, number, spare))
            continue
        reply, differs = _apply(ctx, key, step, length)
        replies.append(reply)
        changed |= differs or (grown and reply is not None)
    if changed:
        ctx.changed(key, "setbit")
    return replies


@command(
    "BITFIELD", arity=-2, flags=WRITE | DENYOOM, keys=one_key("RW", "access", "update", "variable_flags"),
    group="bitmap", since="3.2.0", complexity="O(1) for each subcommand specified",
)  # fmt: skip
def bitfield(ctx: Context, key: bytes, *words: bytes) -> list[int | None]:
    """Reads and writes integers of any width inside a string."""
    return _run(ctx, key, _parse_steps(ctx, words))


@command(
    "BITFIELD_RO", arity=-2, flags=READONLY | FAST, keys=one_key("RO", "access"), group="bitmap", since="6.0.0",
    complexity="O(1) for each subcommand specified",
)  # fmt: skip
def bitfield_ro(ctx: Context, key: bytes, *words: bytes) -> list[int | None]:
    """Reads integers of any width inside a string."""
    steps = _parse_steps(ctx, words)
    if any(step.kind != b"GET" for step in steps):
        raise CommandError("ERR BITFIELD_RO only supports the GET subcommand")
    return _run(ctx, key, steps)
