from typing import Any, Final

class NullArray:
    """The null of commands that otherwise answer an array: `*-1` in RESP2, `_` in RESP3. Use `NULL_ARRAY`."""

NULL_ARRAY: Final[NullArray]

class Verbatim:
    """Text with a three-letter format: a verbatim string in RESP3, a bulk string in RESP2."""

    format: str
    data: bytes
    def __init__(self, format: str, data: bytes) -> None: ...

class Push:
    """An out-of-band message: a push in RESP3, an array in RESP2."""

    items: list[Any]
    def __init__(self, items: list[Any]) -> None: ...

class Error:
    """An error inside an array. Alone, an error is raised: `CommandError`."""

    message: str
    def __init__(self, message: str) -> None: ...

class BigNumber:
    """An integer beyond 64 bits."""

    value: int
    def __init__(self, value: int) -> None: ...

class SpelledDouble:
    """A double in digits of the command's choice: a double in RESP3, a bulk string in RESP2."""

    text: bytes
    def __init__(self, text: bytes) -> None: ...

class Pairs:
    """Keys and values in an order that matters: a map in RESP3, a flat array in RESP2."""

    items: list[tuple[Any, Any]]
    def __init__(self, items: list[tuple[Any, Any]]) -> None: ...

class Deferred:
    """Returned by a handler whose reply comes later through `Connection.resume`."""

class NoReply:
    """Returned by a handler that has written its replies itself, or owes none."""

DEFERRED: Final[Deferred]
NO_REPLY: Final[NoReply]
