"""Counting different elements in strings of 12 KiB at most; what is in them: `hot/hyperloglog.pyx`."""

from __future__ import annotations

from typing import Final

from zeekdb.commands.args import INT64_MAX, show
from zeekdb.commands.context import Context
from zeekdb.commands.spec import ADMIN, DENYOOM, FAST, READONLY, WRITE, KeySpec, command, one_key
from zeekdb.errors import CommandError
from zeekdb.hot import hyperloglog as sketches

KEEP_DEADLINE: Final = -1
COUNTED: Final = (KeySpec(("RW", "access"), index=1, last=-1, notes="RW: the string keeps the count that was found"),)
SELFTEST_CYCLES: Final = 100
SELFTEST_ELEMENTS: Final = 1_000_000  # a tenth of a second; Redis takes ten times as many, and as long


def _checked(value: bytes | None) -> bytes | None:
    """A string that is a sketch, as far as its header says."""
    if value is not None and not sketches.is_valid(value):
        raise CommandError("WRONGTYPE Key is not a valid HyperLogLog string value.")
    return value


def _put(ctx: Context, key: bytes, value: bytes) -> None:
    ctx.db.set(key, value, KEEP_DEADLINE)


def _signed(count: int) -> int:
    """As the reply has it: a corrupt sketch may tell more than 63 bits hold."""
    return count if count <= INT64_MAX else count - (1 << 64)


@command(
    "PFADD", arity=-2, flags=WRITE | DENYOOM | FAST, keys=one_key("RW", "insert"), group="hyperloglog", since="2.8.9",
    complexity="O(1) to add every element.",
)  # fmt: skip
def pfadd(ctx: Context, key: bytes, *elements: bytes) -> int:
    """Adds elements to a HyperLogLog, creating the key when it does not exist."""
    old = _checked(ctx.peek(key, bytes))
    value, raised = sketches.add(sketches.empty() if old is None else old, elements, _sparse_max(ctx))
    if old is None:
        raised += 1
        value = value[:15] + bytes([value[15] | 0x80]) + value[16:]  # the new key's count is not known yet
    if raised:
        _put(ctx, key, value)
    if raised < 0:
        raise CommandError("INVALIDOBJ Corrupted HLL object detected")
    if raised:
        ctx.changed(key, "pfadd", raised)
    return int(raised > 0)


def _sparse_max(ctx: Context) -> int:
    return int(ctx.server.config.hll_sparse_max_bytes)


@command(
    "PFCOUNT", arity=-2, flags=READONLY, keys=COUNTED, group="hyperloglog", since="2.8.9",
    complexity="O(1) with a very small average constant time when called with a single key. O(N) with N being the "
               "number of keys, and much bigger constant times, when called with multiple keys.",
)  # fmt: skip
def pfcount(ctx: Context, key: bytes, *more: bytes) -> int:
    """Returns how many different elements HyperLogLogs have seen together, about."""
    if more:
        present = [value for each in (key, *more) if (value := _checked(ctx.read(each, bytes))) is not None]
        return _signed(sketches.count(present))
    value = _checked(ctx.read(key, bytes))
    if value is None:
        return 0
    count = sketches.cached_count(value)
    if count is None:
        count = sketches.count((value,))
        ctx.db.write_at(key, 8, count.to_bytes(8, "little"))
        ctx.changed(key, "pfcount")  # the string is another one now, though no event tells of it
    return _signed(count)


@command(
    "PFMERGE", arity=-2, flags=WRITE | DENYOOM,
    keys=(KeySpec(("RW", "access", "insert"), index=1), KeySpec(("RO", "access"), index=2, last=-1)),
    group="hyperloglog", since="2.8.9",
    complexity="O(N) to merge N HyperLogLogs, but with high constant times.",
)  # fmt: skip
def pfmerge(ctx: Context, target: bytes, *keys: bytes) -> str:
    """Adds what HyperLogLogs have seen to another one, creating it when it does not exist."""
    present = [value for key in (target, *keys) if (value := _checked(ctx.read(key, bytes))) is not None]
    old = ctx.peek(target, bytes)
    _put(ctx, target, sketches.merge(sketches.empty() if old is None else old, present, _sparse_max(ctx)))
    ctx.changed(target, "pfadd")
    return "OK"


@command(
    "PFDEBUG", arity=3, flags=WRITE | DENYOOM | ADMIN, keys=(KeySpec(("RW", "access"), index=2),),
    group="hyperloglog", since="2.8.9", complexity="N/A", doc_flags=("syscmd",),
)  # fmt: skip
def pfdebug(ctx: Context, word: bytes, key: bytes) -> list[int] | bytes | str | int:
    """Shows the inside of a HyperLogLog, or turns it dense."""
    value = _checked(ctx.peek(key, bytes))
    if value is None:
        raise CommandError("ERR The specified key does not exist")
    sparse = sketches.is_sparse(value)
    match word.upper():
        case b"GETREG":
            _make_dense(ctx, key, value)
            return sketches.registers(value)
        case b"DECODE":
            if not sparse:
                raise CommandError("ERR HLL encoding is not sparse")
            return sketches.decode(value)
        case b"ENCODING":
            return "sparse" if sparse else "dense"
        case b"TODENSE":
            _make_dense(ctx, key, value)
            return int(sparse)
    raise CommandError(f"ERR Unknown PFDEBUG subcommand '{show(word)}'")


def _make_dense(ctx: Context, key: bytes, value: bytes) -> None:
    if sketches.is_sparse(value):
        _put(ctx, key, sketches.to_dense(value))
        ctx.changed(key, "pfdebug")


@command(
    "PFSELFTEST", arity=1, flags=ADMIN, group="hyperloglog", since="2.8.9", complexity="N/A", doc_flags=("syscmd",)
)
def pfselftest(ctx: Context) -> str:
    """Tests registers and estimates against the truth."""
    failure = sketches.selftest(SELFTEST_CYCLES, SELFTEST_ELEMENTS)
    if failure is not None:
        raise CommandError(failure)
    return "OK"
