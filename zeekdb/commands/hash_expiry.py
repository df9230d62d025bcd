"""Commands that give fields of a hash a time to live, of Redis 7.4 and 8.0.

A field's deadline is in milliseconds and below 2^46. Setting one that has come deletes the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from zeekdb.commands.args import parse_int, show, to_int
from zeekdb.commands.context import Context
from zeekdb.commands.members import for_change
from zeekdb.commands.spec import DENYOOM, FAST, READONLY, WRITE, command, one_key
from zeekdb.errors import CommandError, WrongArity
from zeekdb.types import Hash

DEADLINE_MAX_MS: Final = (1 << 46) - 1
INT32_MAX: Final = (1 << 31) - 1

ABSENT, UNMET, DONE, DELETED = -2, 0, 1, 2
"""What HEXPIRE's family answers for a field."""

UPDATE = one_key("RW", "update")
READ = one_key("RO", "access")
PER_FIELD = "O(N) where N is the number of fields named."


def _deadline(ctx: Context, name: str, text: bytes, unit_ms: int, relative: bool) -> int:
    """A time to live, or a moment, as a moment in Unix ms."""
    number = parse_int(text)
    if number < 0:
        raise CommandError("ERR invalid expire time, must be >= 0")
    deadline = number * unit_ms + (ctx.keyspace.now_ms() if relative else 0)
    if deadline > DEADLINE_MAX_MS:
        raise CommandError(f"ERR invalid expire time in '{name}' command")
    return deadline


UNITS: Final = {b"EX": (1000, True), b"PX": (1, True), b"EXAT": (1000, False), b"PXAT": (1, False)}
"""The options that name a moment: milliseconds in a unit, and whether from now on."""


def _fields(words: Sequence[bytes], message: str = "Number of fields must be a positive integer") -> Sequence[bytes]:
    """What follows `FIELDS numfields`."""
    if words[0].upper() != b"FIELDS":
        raise CommandError("ERR Mandatory argument FIELDS is missing or not at the right position")
    if len(words) < 2:
        raise CommandError(f"ERR {message}")
    count = to_int(words[1])
    if count is None or count < 1:
        raise CommandError(f"ERR {message}")
    if count != len(words) - 2:
        raise CommandError("ERR The `numfields` parameter must match the number of arguments")
    return words[2:]


# --- changing deadlines -----------------------------------------------------------------------------------------------


@dataclass
class Changes:
    """Fields of one hash that were given a deadline, and those that were deleted since it had come."""

    set_: list[bytes]
    deleted: list[bytes]

    def note(self, outcome: int, field: bytes) -> None:
        """A field that was DONE or DELETED."""
        if outcome in (DONE, DELETED):
            (self.set_ if outcome == DONE else self.deleted).append(field)

    def report(self, ctx: Context, key: bytes, present: Hash, deadline: int) -> None:
        """The events, and what replicas are told."""
        if self.set_ or self.deleted:
            event = "hdel" if self.deleted else "hexpire"
            ctx.changed(key, event, len(self.set_) + len(self.deleted))
            ctx.keyspace.expired_fields += len(self.deleted)
            ctx.remove_if_empty(key, present)
        if self.deleted:
            ctx.effect(b"HDEL", key, *self.deleted)
        if self.set_:
            ctx.effect(b"HPEXPIREAT", key, b"%d" % deadline, b"FIELDS", b"%d" % len(self.set_), *self.set_)


def _may_set(condition: bytes, present: int, deadline: int) -> bool:
    """Whether NX, XX, GT or LT allows it: without a deadline a field counts as one that lives for ever."""
    if condition == b"NX":
        return present < 0
    if condition == b"XX":
        return present >= 0
    if condition == b"GT":
        return 0 <= present < deadline
    if condition == b"LT":
        return present < 0 or deadline < present
    return True


def _set(ctx: Context, key: bytes, present: Hash, field: bytes, deadline: int, condition: bytes = b"") -> int:
    """Give one field a deadline: ABSENT, UNMET, DONE or DELETED."""
    now = present.deadline(field)
    if now == -2:
        return ABSENT
    if not _may_set(condition, now, deadline):
        return UNMET
    if deadline <= ctx.keyspace.now_ms():
        present.remove(field)
        return DELETED
    if not present.timed:
        ctx.db.time_fields(key)
    present.set_deadline(field, deadline)
    return DONE


def _expire(
    ctx: Context, name: str, key: bytes, time: bytes, words: Sequence[bytes], *, unit_ms: int, relative: bool
) -> list[int]:
    present = for_change(ctx, key, Hash)
    deadline = _deadline(ctx, name, time, unit_ms, relative)
    condition = words[0].upper()
    if condition in (b"NX", b"XX", b"GT", b"LT"):
        words = words[1:]
    fields = _fields(words, "Parameter `numFields` should be greater than 0")
    if present is None:
        return [ABSENT] * len(fields)
    changes = Changes([], [])
    outcomes = []
    for field in fields:
        outcome = _set(ctx, key, present, field, deadline, condition)
        changes.note(outcome, field)
        outcomes.append(outcome)
    changes.report(ctx, key, present, deadline)
    return outcomes


@command("HEXPIRE", arity=-6, flags=WRITE | DENYOOM | FAST, keys=UPDATE, group="hash", since="7.4.0",
         complexity=PER_FIELD)  # fmt: skip
def hexpire(ctx: Context, key: bytes, seconds: bytes, *words: bytes) -> list[int]:
    """Lets fields of a hash expire after seconds."""
    return _expire(ctx, "hexpire", key, seconds, words, unit_ms=1000, relative=True)


@command("HPEXPIRE", arity=-6, flags=WRITE | DENYOOM | FAST, keys=UPDATE, group="hash", since="7.4.0",
         complexity=PER_FIELD)  # fmt: skip
def hpexpire(ctx: Context, key: bytes, milliseconds: bytes, *words: bytes) -> list[int]:
    """Lets fields of a hash expire after milliseconds."""
    return _expire(ctx, "hpexpire", key, milliseconds, words, unit_ms=1, relative=True)


@command("HEXPIREAT", arity=-6, flags=WRITE | DENYOOM | FAST, keys=UPDATE, group="hash", since="7.4.0",
         complexity=PER_FIELD)  # fmt: skip
def hexpireat(ctx: Context, key: bytes, second: bytes, *words: bytes) -> list[int]:
    """Lets fields of a hash expire at a Unix time in seconds."""
    return _expire(ctx, "hexpireat", key, second, words, unit_ms=1000, relative=False)


@command("HPEXPIREAT", arity=-6, flags=WRITE | DENYOOM | FAST, keys=UPDATE, group="hash", since="7.4.0",
         complexity=PER_FIELD)  # fmt: skip
def hpexpireat(ctx: Context, key: bytes, millisecond: bytes, *words: bytes) -> list[int]:
    """Lets fields of a hash expire at a Unix time in milliseconds."""
    return _expire(ctx, "hpexpireat", key, millisecond, words, unit_ms=1, relative=False)


def _persist(present: Hash, fields: Iterable[bytes]) -> list[int]:
    """Takes deadlines away: for every field DONE, -1 when it had none, ABSENT."""
    outcomes = []
    for field in fields:
        before = present.deadline(field)
        outcomes.append(DONE if before >= 0 else before)
        if before >= 0:
            present.set_deadline(field, 0)
    return outcomes


@command("HPERSIST", arity=-5, flags=WRITE | FAST, keys=UPDATE, group="hash", since="7.4.0", complexity=PER_FIELD)
def hpersist(ctx: Context, key: bytes, *words: bytes) -> list[int]:
    """Takes the expiry of fields of a hash away."""
    present = for_change(ctx, key, Hash)
    fields = _fields(words)
    if present is None:
        return [ABSENT] * len(fields)
    outcomes = _persist(present, fields)
    if DONE in outcomes:
        ctx.changed(key, "hpersist")
    return outcomes


# --- reading deadlines ------------------------------------------------------------------------------------------------


def _moments(ctx: Context, key: bytes, words: Sequence[bytes]) -> list[int]:
    """Deadlines in Unix ms; -1 without one, -2 without field."""
    present = ctx.read(key, Hash)
    fields = _fields(words)
    return [ABSENT if present is None else present.deadline(field) for field in fields]


def _to_seconds(milliseconds: int) -> int:
    """Rounded up, unlike a key's; -1 and -2 stand for themselves."""
    return milliseconds if milliseconds < 0 else (milliseconds + 999) // 1000


def _remaining(ctx: Context, key: bytes, words: Sequence[bytes]) -> list[int]:
    now = ctx.keyspace.now_ms()
    return [moment if moment < 0 else moment - now for moment in _moments(ctx, key, words)]


@command("HTTL", arity=-5, flags=READONLY | FAST, keys=READ, group="hash", since="7.4.0", complexity=PER_FIELD,
         tips=("nondeterministic_output",))  # fmt: skip
def httl(ctx: Context, key: bytes, *words: bytes) -> list[int]:
    """Returns the seconds that fields of a hash have to live: -1 without expiry, -2 without field."""
    return [_to_seconds(left) for left in _remaining(ctx, key, words)]


@command("HPTTL", arity=-5, flags=READONLY | FAST, keys=READ, group="hash", since="7.4.0", complexity=PER_FIELD,
         tips=("nondeterministic_output",))  # fmt: skip
def hpttl(ctx: Context, key: bytes, *words: bytes) -> list[int]:
    """Returns the milliseconds that fields of a hash have to live: -1 without expiry, -2 without field."""
    return _remaining(ctx, key, words)


@command("HEXPIRETIME", arity=-5, flags=READONLY | FAST, keys=READ, group="hash", since="7.4.0", complexity=PER_FIELD)
def hexpiretime(ctx: Context, key: bytes, *words: bytes) -> list[int]:
    """Returns the Unix times in seconds at which fields of a hash expire."""
    return [_to_seconds(moment) for moment in _moments(ctx, key, words)]


@command("HPEXPIRETIME", arity=-5, flags=READONLY | FAST, keys=READ, group="hash", since="7.4.0", complexity=PER_FIELD)
def hpexpiretime(ctx: Context, key: bytes, *words: bytes) -> list[int]:
    """Returns the Unix times in milliseconds at which fields of a hash expire."""
    return _moments(ctx, key, words)


# --- values and deadlines ---------------------------------------------------------------------------------------------


@command("HGETDEL", arity=-5, flags=WRITE | FAST, keys=one_key("RW", "access", "delete"), group="hash", since="8.0.0",
         complexity=PER_FIELD)  # fmt: skip
def hgetdel(ctx: Context, key: bytes, *words: bytes) -> list[bytes | None]:
    """Returns the values of fields and deletes the fields, and the hash with its last field."""
    present = for_change(ctx, key, Hash)
    fields = _fields(words)
    if present is None:
        return [None] * len(fields)
    values: list[bytes | None] = []
    removed = []
    for field in fields:
        values.append(present.get(field))
        if present.remove(field):
            removed.append(field)
    if removed:
        ctx.changed(key, "hdel", len(removed))
        ctx.remove_if_empty(key, present)
        ctx.effect(b"HDEL", key, *removed)
    return values


@command("HGETEX", arity=-5, flags=WRITE | FAST,
         keys=one_key("RW", "access", "update"), group="hash", since="8.0.0", complexity=PER_FIELD)  # fmt: skip
def hgetex(ctx: Context, key: bytes, *words: bytes) -> list[bytes | None]:
    """Returns the values of fields and changes when they expire."""
    present = for_change(ctx, key, Hash)
    option = words[0].upper()
    deadline = -1
    if option in UNITS:
        unit_ms, relative = UNITS[option]
        deadline = _deadline(ctx, "hgetex", words[1], unit_ms, relative)
        words = words[2:]
    elif option == b"PERSIST":
        words = words[1:]
    fields = _fields(words)
    if present is None:
        return [None] * len(fields)
    if deadline >= 0:
        return _get_and_expire(ctx, key, present, fields, deadline)
    values = present.get_many(fields)
    if option == b"PERSIST":
        freed = [field for field, done in zip(fields, _persist(present, fields), strict=True) if done == DONE]
        if freed:
            ctx.changed(key, "hpersist", len(freed))
            ctx.effect(b"HPERSIST", key, b"FIELDS", b"%d" % len(freed), *freed)
    return values


def _get_and_expire(
    ctx: Context, key: bytes, present: Hash, fields: Sequence[bytes], deadline: int
) -> list[bytes | None]:
    changes = Changes([], [])
    values: list[bytes | None] = []
    for field in fields:
        values.append(present.get(field))
        changes.note(_set(ctx, key, present, field, deadline), field)
    changes.report(ctx, key, present, deadline)
    return values


@dataclass
class SetOptions:
    """What stands before the pairs of HSETEX."""

    condition: bytes = b""  # FNX or FXX
    keep: bool = False
    deadline: int = -1  # Unix ms, -1: none given
    pairs: Sequence[bytes] = ()


def _parse_hsetex(ctx: Context, words: Sequence[bytes]) -> SetOptions:
    options = SetOptions()
    at = 0
    while at < len(words):
        word = words[at].upper()
        if word == b"FIELDS":
            if len(words) - at < 4:
                raise WrongArity("hsetex")
            count = to_int(words[at + 1])
            if count is None or not 1 <= count <= INT32_MAX:
                raise CommandError("ERR invalid number of fields")
            options.pairs = words[at + 2 :]
            if len(options.pairs) != 2 * count:
                raise WrongArity("hsetex")
            return options
        if word in UNITS or word == b"KEEPTTL":
            if options.keep or options.deadline >= 0:
                raise CommandError("ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified")
            options.keep = word == b"KEEPTTL"
            if word in UNITS:
                at += 1
                if at == len(words):
                    raise CommandError("ERR missing expire time")
                options.deadline = _deadline(ctx, "hsetex", words[at], *UNITS[word])
        elif word in (b"FXX", b"FNX"):
            if options.condition:
                raise CommandError("ERR Only one of FXX or FNX arguments can be specified")
            options.condition = word
        else:
            raise CommandError(f"ERR unknown argument: {show(words[at])}")
        at += 1
    raise WrongArity("hsetex")


@command("HSETEX", arity=-6, flags=WRITE | DENYOOM | FAST, keys=UPDATE, group="hash", since="8.0.0",
         complexity="O(N) where N is the number of fields being set.")  # fmt: skip
def hsetex(ctx: Context, key: bytes, *words: bytes) -> int:
    """Sets fields of a hash and when they expire, if all of them exist or none does."""
    options = _parse_hsetex(ctx, words)
    pairs, deadline = options.pairs, options.deadline
    fields = pairs[::2]
    if options.condition:
        before = ctx.peek(key, Hash)
        wanted = options.condition == b"FXX"
        if any((before is not None and field in before) != wanted for field in fields):
            return 0
    present = ctx.write(key, Hash)
    if options.keep or deadline >= 0:
        for at in range(0, len(pairs), 2):
            present.change(pairs[at], pairs[at + 1])
    else:
        present.put_many(pairs)
    ctx.changed(key, "hset", len(fields))
    if deadline >= 0:
        _expire_set(ctx, key, present, pairs, deadline)
    return 1


def _expire_set(ctx: Context, key: bytes, present: Hash, pairs: Sequence[bytes], deadline: int) -> None:
    """The deadline of fields that HSETEX has set."""
    fields = pairs[::2]
    outcomes = [_set(ctx, key, present, field, deadline) for field in fields]
    if DELETED in outcomes:
        ctx.changed(key, "hdel", 0)
        ctx.keyspace.expired_fields += outcomes.count(DELETED)
        ctx.remove_if_empty(key, present)
        ctx.effect(b"HDEL", key, *dict.fromkeys(fields))
    else:
        ctx.changed(key, "hexpire", 0)
        ctx.effect(b"HSETEX", key, b"PXAT", b"%d" % deadline, b"FIELDS", b"%d" % len(fields), *pairs)
