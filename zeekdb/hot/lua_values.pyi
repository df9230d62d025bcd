from typing import Any

from zeekdb.hot.replies import Error

class CountedError(Error):
    """An error that a command has raised inside the script: it is counted already."""

class Members(frozenset[object]):
    """A RESP3 set whose members keep their order."""

    def __new__(cls, items: list[Any]) -> Members: ...
