"""The kinds of value that a directive can hold: parse (in Redis's error words), print, and rewrite.

A kind turns the arguments that follow a directive's name into a value and back. Text is `str`, decoded from the wire
and from files as UTF-8 with surrogate escapes, so that any bytes survive the round trip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

NAMESPACES_MAX = 64  # pairs of kv-namespace, as many as hot/namespaces has room for, and of kv-gpu
INT_MAX, UINT_MAX = 2**31 - 1, 2**32 - 1
INT_MIN = -(2**31)
LONG_MAX, ULONG_MAX = 2**63 - 1, 2**64 - 1


class ConfigError(Exception):
    """A value that a directive does not take; the text is Redis's."""


def quoted(text: str) -> str:
    """A double-quoted form that `config.file.split_arguments` reads back (Redis's sdscatrepr)."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a", "\b": "\\b"}
    raw = text.encode("utf-8", "surrogateescape")
    return '"' + "".join(
        escapes.get(chr(byte)) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in raw
    ) + '"'


class Kind:
    """One kind of value. Subclasses say how it reads; the defaults suit single, unquoted words."""

    multi = False  # takes any number of arguments; a single one is split at spaces

    def parse(self, arguments: Sequence[str]) -> Any:
        """The value, or ConfigError. Kinds that are not `multi` get exactly one argument."""
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """As CONFIG GET prints it."""
        return str(value)

    def lines(self, value: Any) -> list[str]:
        """What follows the name in a configuration file: one item a line."""
        return [self.show(value)]

    def describe(self) -> str:
        """The range or the choices, for the documentation."""
        return ""

    def add(self, old: Any, new: Any) -> Any:
        """What a further line of the same directive in one file makes of the value."""
        return new


class Bool(Kind):
    """yes or no."""

    def parse(self, arguments: Sequence[str]) -> bool:
        word = arguments[0].lower()
        if word not in ("yes", "no"):
            raise ConfigError("argument must be 'yes' or 'no'")
        return word == "yes"

    def show(self, value: Any) -> str:
        return "yes" if value else "no"

    def describe(self) -> str:
        return "yes|no"


class Int(Kind):
    """An integer within bounds, inclusive."""

    def __init__(self, low: int = 0, high: int = INT_MAX) -> None:
        self.low = low
        self.high = high

    def parse(self, arguments: Sequence[str]) -> int:
        if not re.fullmatch(r"-?(0|[1-9][0-9]*)", arguments[0]) or arguments[0] == "-0":
            raise ConfigError("argument couldn't be parsed into an integer")
        return self.within(int(arguments[0]))

    def within(self, value: int) -> int:
        if not self.low <= value <= self.high:
            raise ConfigError(f"argument must be between {self.low} and {self.high} inclusive")
        return value

    def describe(self) -> str:
        low = "" if self.low == INT_MIN else str(self.low)
        high = "" if self.high in (INT_MAX, UINT_MAX, LONG_MAX, ULONG_MAX) else str(self.high)
        return f"{low}-{high}" if high else low and f"at least {low}"


class PowerOfTwo(Int):
    """A power of two within bounds."""

    def parse(self, arguments: Sequence[str]) -> int:
        value = super().parse(arguments)
        if value & (value - 1):
            raise ConfigError("argument must be a power of two")
        return value


class Octal(Int):
    """File permission bits, written in octal."""

    def parse(self, arguments: Sequence[str]) -> int:
        if not re.fullmatch(r"[0-7]{1,9}", arguments[0]):
            raise ConfigError("argument couldn't be parsed as an octal number")
        value = int(arguments[0], 8)
        if not self.low <= value <= self.high:
            raise ConfigError(f"argument must be between {self.low:o} and {self.high:o} inclusive")
        return value

    def show(self, value: Any) -> str:
        return f"{value:o}"

    def describe(self) -> str:
        return f"{self.low:o}-{self.high:o} (octal)"


UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1 << 10, "m": 10**6, "mb": 1 << 20, "g": 10**9, "gb": 1 << 30}


def parse_memory(text: str) -> int:
    """Bytes from `512mb`, `1g`, `1000`; ValueError."""
    match = re.fullmatch(r"([0-9]+)([a-z]*)", text.lower())
    if not match or match[2] not in UNITS or len(match[1]) > 20:
        raise ValueError(text)
    return int(match[1]) * UNITS[match[2]]


class Memory(Int):
    """An amount of memory, with a unit: k, kb, m, mb, g, gb (powers of 1000 without b, of 1024 with it)."""

    def __init__(self, low: int = 0, high: int = LONG_MAX) -> None:
        super().__init__(low, high)

    def parse(self, arguments: Sequence[str]) -> int:
        try:
            value = parse_memory(arguments[0])
        except ValueError:
            raise ConfigError("argument must be a memory value") from None
        return self.within(value)

    def lines(self, value: Any) -> list[str]:
        for unit in ("gb", "mb", "kb"):
            if value and value % UNITS[unit] == 0:
                return [f"{value // UNITS[unit]}{unit}"]
        return [str(value)]


class MemoryOrPercent(Memory):
    """An amount of memory, or a share (`10%`), which is held as a negative number."""

    def parse(self, arguments: Sequence[str]) -> int:
        text = arguments[0]
        if text.endswith("%") and text[:-1].isdecimal():
            if int(text[:-1]) > 100:
                raise ConfigError("percentage argument must be less or equal to 100")
            return -int(text[:-1])
        try:
            return self.within(parse_memory(text))
        except ValueError:
            raise ConfigError("argument must be a memory or percent value") from None

    def show(self, value: Any) -> str:
        return f"{-value}%" if value < 0 else str(value)

    def lines(self, value: Any) -> list[str]:
        return [self.show(value)] if value < 0 else super().lines(value)


class Enum(Kind):
    """One word of a list. Words that mean the same are folded by `same`."""

    def __init__(self, *choices: str, same: dict[str, str] | None = None) -> None:
        self.choices = choices
        self.same = same or {}

    def refuse(self) -> ConfigError:
        return ConfigError("argument(s) must be one of the following: " + ", ".join(self.choices))

    def parse(self, arguments: Sequence[str]) -> Any:
        word = arguments[0].lower()
        if word not in self.choices:
            raise self.refuse()
        return self.same.get(word, word)

    def describe(self) -> str:
        return "|".join(self.choices)


class Flags(Enum):
    """Several words of a list; the value is a tuple in the list's order. The first word stands for none."""

    multi = True

    def parse(self, arguments: Sequence[str]) -> tuple[str, ...]:
        words = {word.lower() for word in arguments}
        if not words <= set(self.choices):
            raise self.refuse()
        words -= {self.choices[0]}
        if {"save", "nosave"} <= words:
            raise ConfigError("shutdown options SAVE and NOSAVE can't be used simultaneously")
        return tuple(word for word in self.choices if word in words)

    def show(self, value: Any) -> str:
        return " ".join(value) or self.choices[0]


class Text(Kind):
    """Any text; `check` returns what is wrong with it, or nothing."""

    def __init__(self, check: Callable[[str], str | None] | None = None) -> None:
        self.check = check

    def parse(self, arguments: Sequence[str]) -> str:
        wrong = self.check(arguments[0]) if self.check else None
        if wrong:
            raise ConfigError(wrong)
        return arguments[0]

    def lines(self, value: Any) -> list[str]:
        return [quoted(value)]


class Words(Kind):
    """A list of words, at most `most` of them."""

    multi = True

    def __init__(self, most: int = 16, too_many: str = "wrong number of arguments") -> None:
        self.most = most
        self.too_many = too_many

    def parse(self, arguments: Sequence[str]) -> tuple[str, ...]:
        words = tuple(word for word in arguments if word)
        if len(words) > self.most:
            raise ConfigError(self.too_many)
        return words

    def show(self, value: Any) -> str:
        return " ".join(value)

    def lines(self, value: Any) -> list[str]:
        return [self.show(value) or '""']


class Namespaces(Kind):
    """Pairs of a glob pattern for keys and a model's name; `""` is none. In a file, further lines add up."""

    multi = True

    def parse(self, arguments: Sequence[str]) -> tuple[tuple[bytes, bytes], ...]:
        words = [word.encode("utf-8", "surrogateescape") for word in arguments if word]
        if len(words) == 1:  # CONFIG SET has one argument
            words = words[0].split()
        if len(words) % 2:
            raise ConfigError("patterns and models must come in pairs")
        return self._checked(tuple(zip(words[::2], words[1::2], strict=True)))

    def _checked(self, pairs: tuple[tuple[bytes, Any], ...]) -> tuple[tuple[bytes, Any], ...]:
        """Of one line, or of all of them."""
        if len(pairs) > NAMESPACES_MAX:
            raise ConfigError(f"more than {NAMESPACES_MAX} patterns")
        return pairs

    def show(self, value: Any) -> str:
        return b" ".join(word for pair in value for word in pair).decode("utf-8", "surrogateescape")

    def lines(self, value: Any) -> list[str]:
        return [" ".join(quoted(word.decode("utf-8", "surrogateescape")) for word in pair) for pair in value] or ['""']

    def describe(self) -> str:
        return "PATTERN MODEL …"

    def add(self, old: Any, new: Any) -> Any:
        return self._checked((*old, *new)) if new else ()


class ModelSizes(Namespaces):
    """Pairs of a model's name and an amount of memory; `""` is none. In a file, further lines add up."""

    def parse(self, arguments: Sequence[str]) -> tuple[tuple[bytes, Any], ...]:
        words = [word for word in arguments if word]
        if len(words) == 1:
            words = words[0].split()
        if len(words) % 2:
            raise ConfigError("models and sizes must come in pairs")
        names = [word.encode("utf-8", "surrogateescape") for word in words[::2]]
        size = Memory(1)
        return self._checked(tuple((name, size.parse([word])) for name, word in zip(names, words[1::2], strict=True)))

    def _checked(self, pairs: tuple[tuple[bytes, Any], ...]) -> tuple[tuple[bytes, Any], ...]:
        if len(pairs) > NAMESPACES_MAX:
            raise ConfigError(f"more than {NAMESPACES_MAX} models")
        if len({name for name, _ in pairs}) < len(pairs):
            raise ConfigError("a model has one size")
        return pairs

    def show(self, value: Any) -> str:
        return " ".join(f"{name.decode('utf-8', 'surrogateescape')} {size}" for name, size in value)

    def lines(self, value: Any) -> list[str]:
        return [f"{quoted(name.decode('utf-8', 'surrogateescape'))} {size}" for name, size in value] or ['""']

    def describe(self) -> str:
        return "MODEL BYTES …"


class ReplicaOf(Words):
    """`host port`, or nothing (also `no one`)."""

    def parse(self, arguments: Sequence[str]) -> tuple[str, ...]:
        words = super().parse(arguments)
        if not words or [word.lower() for word in words] == ["no", "one"]:
            return ()
        if len(words) != 2:
            raise ConfigError("wrong number of arguments")
        if not words[1].isdecimal() or int(words[1]) > 65535:
            raise ConfigError("Invalid master port")
        return words


class SavePoints(Kind):
    """Pairs of seconds and changes; `""` is none. In a file, one pair a line; further lines add up."""

    multi = True

    def parse(self, arguments: Sequence[str]) -> tuple[tuple[int, int], ...]:
        if not arguments or list(arguments) == [""]:
            return ()
        pairs = list(zip(arguments[::2], arguments[1::2], strict=False))
        plain = all(word.isascii() and word.isdecimal() for word in arguments)
        if len(arguments) % 2 or not plain or any(int(seconds) < 1 for seconds, _ in pairs):
            raise ConfigError("Invalid save parameters")
        return tuple((int(seconds), int(changes)) for seconds, changes in pairs)

    def show(self, value: Any) -> str:
        return " ".join(f"{seconds} {changes}" for seconds, changes in value)

    def lines(self, value: Any) -> list[str]:
        return [f"{seconds} {changes}" for seconds, changes in value] or ['""']

    def add(self, old: Any, new: Any) -> Any:
        return (*old, *new) if new else ()


class OutputLimits(Kind):
    """Per class of client: hard limit, soft limit (bytes) and how long the soft one may last (seconds)."""

    multi = True
    classes = ("normal", "slave", "pubsub")

    def parse(self, arguments: Sequence[str]) -> dict[str, tuple[int, int, int]]:
        if not arguments or len(arguments) % 4:
            raise ConfigError("Wrong number of arguments in buffer limit configuration.")
        limits = {}
        for at in range(0, len(arguments), 4):
            name = arguments[at].lower()
            name = "slave" if name == "replica" else name
            if name not in self.classes:
                raise ConfigError("Invalid client class specified in buffer limit configuration.")
            try:
                hard, soft = parse_memory(arguments[at + 1]), parse_memory(arguments[at + 2])
                seconds = int(arguments[at + 3])
            except ValueError:
                seconds = -1
            if seconds < 0:
                raise ConfigError("Error in hard, soft or soft_seconds setting in buffer limit configuration.")
            limits[name] = (hard, soft, seconds)
        return limits

    def add(self, old: Any, new: Any) -> Any:
        return {**old, **new}

    def show(self, value: Any) -> str:
        return " ".join(f"{name} {hard} {soft} {seconds}" for name, (hard, soft, seconds) in value.items())

    def lines(self, value: Any) -> list[str]:
        memory = Memory()
        return [
            f"{'replica' if name == 'slave' else name} {memory.lines(hard)[0]} {memory.lines(soft)[0]} {seconds}"
            for name, (hard, soft, seconds) in value.items()
        ]


class Integers(Kind):
    """A fixed number of integers within bounds (oom-score-adj-values), ascending."""

    multi = True

    def __init__(self, count: int, low: int, high: int) -> None:
        self.count = count
        self.low = low
        self.high = high

    def parse(self, arguments: Sequence[str]) -> tuple[int, ...]:
        if len(arguments) != self.count:
            raise ConfigError("wrong number of arguments")
        try:
            numbers = tuple(int(word) for word in arguments)
        except ValueError:
            numbers = (self.low - 1,)
        if any(not self.low <= number <= self.high for number in numbers):
            raise ConfigError(f"Invalid oom-score-adj-values, elements must be between {self.low} and {self.high}.")
        return numbers

    def show(self, value: Any) -> str:
        return " ".join(map(str, value))


class Percentiles(Kind):
    """Percentiles, 0 to 100; none switches them off."""

    multi = True

    def parse(self, arguments: Sequence[str]) -> tuple[float, ...]:
        if list(arguments) == [""]:
            return ()
        try:
            numbers = tuple(float(word) for word in arguments)
        except ValueError:
            raise ConfigError("Invalid latency-tracking-info-percentiles parameters") from None
        if any(not 0 <= number <= 100 for number in numbers):
            raise ConfigError("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]")
        return numbers

    def show(self, value: Any) -> str:
        return " ".join(repr(number).removesuffix(".0") for number in value)

    def lines(self, value: Any) -> list[str]:
        return [self.show(value) or '""']


class Events(Kind):
    """Classes of keyspace events: K, E and g $ l s h z x e t d m n, or A for all but m and n."""

    order = "g$lshzxetd"

    def parse(self, arguments: Sequence[str]) -> str:
        wanted = set(arguments[0])
        if wanted - set(self.order + "AKEmn"):
            raise ConfigError("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
        if "A" in wanted or set(self.order) <= wanted:
            classes = "A"
        else:
            classes = "".join(c for c in self.order if c in wanted)
        return classes + "".join(c for c in "nKEm" if c in wanted)

    def lines(self, value: Any) -> list[str]:
        return [quoted(value)]
