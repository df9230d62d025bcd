"""Replies that no plain Python type says. What the plain ones become is told in `zeekdb.commands.spec`."""

from __future__ import annotations

from typing import Any, Final


class NullArray:
    """The null of commands that otherwise answer an array: `*-1` in RESP2, `_` in RESP3. Use `NULL_ARRAY`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NULL_ARRAY"


NULL_ARRAY: Final = NullArray()


class Verbatim:
    """Text with a three-letter format (`txt`, `mkd`): a verbatim string in RESP3, a bulk string in RESP2."""

    __slots__ = ("data", "format")

    def __init__(self, format: str, data: bytes) -> None:
        self.format = format
        self.data = data


class Push:
    """An out-of-band message: a push in RESP3, an array in RESP2."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items = items


class Error:
    """An error inside an array (EXEC, scripts). Alone, an error is raised: `CommandError`."""

    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        self.message = message


class BigNumber:
    """An integer beyond 64 bits: a big number in RESP3, a bulk string in RESP2."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


class Pairs:
    """Keys and values in an order that matters, or with keys that repeat: a map in RESP3, a flat array in RESP2."""

    __slots__ = ("items",)

    def __init__(self, items: list[tuple[Any, Any]]) -> None:
        self.items = items
