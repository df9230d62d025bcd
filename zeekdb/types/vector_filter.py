"""FILTER expressions of vector sets: compiled once to postfix form, run on the attributes of each candidate.

    .year >= 1980 and .genre in ["drama", "comedy"] and not (.rating / 2 < 3 ** 0.5)

The language and its conversions are Redis 8's, learned from its documentation and tests: numbers are doubles, booleans
are 1 and 0, anything may stand where a number is wanted (a string that spells none counts as 0), `in` looks into a
list or into a string, and an element that lacks a field the expression names does not match, whatever else the
expression says. `or` and `and` therefore need no short cut: every field is fetched before anything is computed.

A client writes these programs, so nothing recurses over them, and their length, their numbers' and their lists' are
bounded: running one costs at most TOKENS_MAX steps. An operation without a value (a division by zero, a power out of
range) gives what C's doubles give, an infinity or NaN.

Source: https://redis.io/docs/latest/develop/data-types/vector-sets/filtered-search/
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final

TOKENS_MAX: Final = 4096
EXPRESSION_CHARS_MAX: Final = 1 << 16  # a string literal costs the pattern matcher some 100 bytes a character
ATTRIBUTES_BYTES_MAX: Final = 1 << 20  # longer ones are not read: parsing them would hold the loop
NUMBER_BYTES_MAX: Final = 255
ATTRIBUTE_NUMBER_BYTES_MAX: Final = 255

Value = float | str | tuple[Any, ...] | None
Operation = Callable[[list[Value]], None]

_PRECEDENCE: Final = {
    "or": 0, "and": 1, ">": 2, ">=": 2, "<": 2, "<=": 2, "==": 2, "!=": 2, "in": 2, "+": 3, "-": 3, "*": 4, "/": 4,
    "%": 4, "**": 5, "not": 6,
}  # fmt: skip
_SPELLINGS: Final = {"||": "or", "&&": "and", "!": "not"}
_SYMBOLS: Final = ("**", ">=", "<=", "==", "!=", "&&", "||", ">", "<", "+", "-", "*", "/", "%", "!", "(", ")")
_WORDS: Final = ("null", "not", "and", "or", "in")

_SPACE: Final = re.compile(r"[ \t\n\v\f\r]*")
_SELECTOR: Final = re.compile(r"\.([A-Za-z0-9_-]+)")
_NUMBER: Final = re.compile(r"-?[0-9.eE]+(?:(?<=[eE])[+-][0-9]+)?")
_STRING: Final = re.compile(r"""(["'])((?:\\.|(?!\1)[^\\])*)\1""", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t"}
_DECIMAL: Final = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class FilterError(ValueError):
    """The expression has no meaning; `place` is where that was noticed, in characters."""

    def __init__(self, place: int) -> None:
        super().__init__(f"syntax error at {place}")
        self.place = place


# --- values -------------------------------------------------------------------------------------------------------


def _number(value: Value) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, str) and len(value) <= NUMBER_BYTES_MAX and _DECIMAL.fullmatch(value):
        return float(value)
    return 0.0


def _truth(value: Value) -> bool:
    if isinstance(value, float):
        return value != 0
    return value is not None and value != ""


def _equal(left: Value, right: Value) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    if left is None or right is None:
        return left is right
    return _number(left) == _number(right)


def _inside(value: Value, container: Value) -> bool:
    if isinstance(container, tuple):
        return any(_equal(value, each) for each in container)
    return isinstance(value, str) and isinstance(container, str) and value in container


def _power(left: float, right: float) -> float:
    try:
        result = left**right
    except OverflowError:
        return -math.inf if left < 0 and right % 2 == 1 else math.inf
    except ZeroDivisionError:
        return math.inf
    return result if isinstance(result, float) else math.nan  # a root of a negative number


def _divide(left: float, right: float) -> float:
    if right:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _modulo(left: float, right: float) -> float:
    try:
        return math.fmod(left, right)
    except ValueError:  # by zero, or of an infinity
        return math.nan


_NUMERIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": _modulo,
    "**": _power,
    ">": lambda a, b: float(a > b),
    ">=": lambda a, b: float(a >= b),
    "<": lambda a, b: float(a < b),
    "<=": lambda a, b: float(a <= b),
}
_GENERAL: Final[dict[str, Callable[[Value, Value], bool]]] = {
    "==": _equal,
    "!=": lambda a, b: not _equal(a, b),
    "in": _inside,
    "and": lambda a, b: _truth(a) and _truth(b),
    "or": lambda a, b: _truth(a) or _truth(b),
}


def _operation(name: str) -> Operation:
    """What `name` does to the stack: takes its operands, leaves its result."""
    if name == "not":

        def invert(stack: list[Value]) -> None:
            stack[-1] = float(not _truth(stack[-1]))

        return invert
    if name in _NUMERIC:
        calculate = _NUMERIC[name]

        def numeric(stack: list[Value]) -> None:
            right = stack.pop()
            stack[-1] = calculate(_number(stack[-1]), _number(right))

        return numeric
    decide = _GENERAL[name]

    def general(stack: list[Value]) -> None:
        right = stack.pop()
        stack[-1] = float(decide(stack[-1], right))

    return general


_OPERATIONS: Final = {name: _operation(name) for name in _PRECEDENCE}


# --- attributes ---------------------------------------------------------------------------------------------------


def _bounded_number(text: str) -> float:
    if len(text) > ATTRIBUTE_NUMBER_BYTES_MAX:
        raise ValueError("a number too long")
    return float(text)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


_DECODER: Final = json.JSONDecoder(
    parse_int=_bounded_number, parse_float=_bounded_number, parse_constant=_no_constant, strict=False
)


def parse_attributes(text: bytes) -> dict[str, Any] | None:
    """The fields of a JSON object; None for anything else."""
    if len(text) > ATTRIBUTES_BYTES_MAX:
        return None
    try:
        found = _DECODER.decode(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _value(found: Any) -> Value:
    """A JSON value in the expression's terms. KeyError for those it has none for: objects, and lists with them."""
    if isinstance(found, (float, str)) or found is None:
        return found
    if isinstance(found, bool):
        return float(found)
    if isinstance(found, list):
        values = tuple(float(each) if isinstance(each, bool) else each for each in found)
        if all(isinstance(each, (float, str)) or each is None for each in values):
            return values
    raise KeyError


# --- compiling ----------------------------------------------------------------------------------------------------


class _Reader:
    """Tokens of an expression, one after the other: ("value", …), ("field", …), ("op", …) or ("end", None)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.count = 0

    def skip_space(self) -> str:
        """The character after any space; "" at the end."""
        match = _SPACE.match(self.text, self.place)
        self.place = match.end() if match else self.place
        return self.text[self.place : self.place + 1]

    def take(self, minus_is_sign: bool) -> tuple[str, Any]:
        """The next token."""
        char = self.skip_space()
        self.count += 1
        if self.count > TOKENS_MAX:
            raise FilterError(self.place)
        follower = self.text[self.place + 1 : self.place + 2]
        if not char:
            return "end", None
        if char in "0123456789" or (minus_is_sign and char == "-" and follower.isdigit()):
            return "value", self.number()
        if char in "\"'":
            return "value", self.string()
        if char == "[":
            return "value", self.list()
        match = _SELECTOR.match(self.text, self.place)
        if match is not None:
            self.place = match.end()
            return "field", match[1]
        return self.operator()

    def number(self) -> float:
        match = _NUMBER.match(self.text, self.place)
        try:
            if match is None or len(match[0]) > NUMBER_BYTES_MAX:
                raise FilterError(self.place)
            value = float(match[0])
        except ValueError:
            raise FilterError(self.place) from None
        self.place = match.end()
        return value

    def string(self) -> str:
        match = _STRING.match(self.text, self.place)
        if match is None:
            raise FilterError(self.place)
        self.place = match.end()
        return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), match[2])

    def list(self) -> tuple[Value, ...]:
        self.place += 1
        values: list[Value] = []
        char = self.skip_space()
        while char != "]":
            self.count += 1
            if self.count > TOKENS_MAX or not char or char not in "-0123456789\"'":
                raise FilterError(self.place)
            values.append(self.string() if char in "\"'" else self.number())
            char = self.skip_space()
            if char == ",":
                self.place += 1
                char = self.skip_space()
            elif char != "]":
                raise FilterError(self.place)
        self.place += 1
        return tuple(values)

    def operator(self) -> tuple[str, Any]:
        for symbol in _SYMBOLS:
            if self.text.startswith(symbol, self.place):
                self.place += len(symbol)
                return "op", _SPELLINGS.get(symbol, symbol)
        for word in _WORDS:
            if self.text.startswith(word, self.place):
                self.place += len(word)
                return ("value", None) if word == "null" else ("op", word)
        raise FilterError(self.place)


class _Compiler:
    """Shunting yard: operators wait on `pending` until one that binds less comes; `depth` is the stack to be."""

    def __init__(self) -> None:
        self.program: list[tuple[str, Any]] = []
        self.pending: list[tuple[str, int]] = []
        self.depth = 0

    def push(self, kind: str, what: Any) -> None:
        self.program.append((kind, what))
        self.depth += 1

    def emit(self, name: str, place: int) -> None:
        needed = 1 if name == "not" else 2
        if self.depth < needed:
            raise FilterError(place)
        self.depth -= needed - 1
        self.program.append(("op", name))

    def operator(self, name: str, place: int) -> None:
        if name == "(":
            self.pending.append((name, place))
            return
        if name == ")":
            while self.pending and self.pending[-1][0] != "(":
                self.emit(*self.pending.pop())
            if not self.pending:
                raise FilterError(place)
            self.pending.pop()
            return
        binding = _PRECEDENCE[name]
        right_first = name in ("**", "not")
        while self.pending and self.pending[-1][0] != "(":
            other = _PRECEDENCE[self.pending[-1][0]]
            if other < binding or (other == binding and right_first):
                break
            self.emit(*self.pending.pop())
        self.pending.append((name, place))

    def finish(self, place: int) -> None:
        while self.pending:
            name, where = self.pending.pop()
            if name == "(":
                raise FilterError(where)
            self.emit(name, where)
        if self.depth != 1:
            raise FilterError(place)


class Filter:
    """A compiled expression. FilterError when it has none."""

    __slots__ = ("fields", "steps")

    def __init__(self, text: str) -> None:
        if len(text) > EXPRESSION_CHARS_MAX:
            raise FilterError(EXPRESSION_CHARS_MAX)
        reader, compiler = _Reader(text), _Compiler()
        minus_is_sign = True
        while True:
            reader.skip_space()
            place = reader.place
            kind, what = reader.take(minus_is_sign)
            if kind == "end":
                break
            minus_is_sign = kind == "op" and what != ")"
            if kind == "op":
                compiler.operator(what, place)
            else:
                compiler.push(kind, what)
        compiler.finish(place)
        names = dict.fromkeys(what for kind, what in compiler.program if kind == "field")
        self.fields: tuple[str, ...] = tuple(names)
        order = {name: place for place, name in enumerate(self.fields)}
        # an operation, or the place of a field, or a value wrapped so that it is neither
        self.steps: list[Operation | int | tuple[Value]] = [
            _OPERATIONS[what] if kind == "op" else order[what] if kind == "field" else (what,)
            for kind, what in compiler.program
        ]

    def matches(self, attributes: dict[str, Any]) -> bool:
        """Whether an element with these attributes (see `parse_attributes`) passes."""
        try:
            fields = [_value(attributes[name]) for name in self.fields]
        except KeyError:
            return False
        stack: list[Value] = []
        for step in self.steps:
            if isinstance(step, int):
                stack.append(fields[step])
            elif isinstance(step, tuple):
                stack.append(step[0])
            else:
                step(stack)
        return _truth(stack[0])
