"""What commands tell the journal, for tests without a server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from zeekdb.hot import journal
from zeekdb.server.replica import parse_command


def taken() -> list[str]:
    """The commands told since the last time, but for SELECT."""
    data, at, found = bytearray(journal.take()), 0, []
    while at < len(data):
        parsed = parse_command(data, at)
        assert parsed is not None, data
        words, at = parsed
        if words[0] != b"SELECT":
            found.append(b" ".join(words).decode("latin-1"))
    return found


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], list[str]]]:
    """While this lasts the journal is open."""
    journal.set_open(True)
    try:
        yield taken
    finally:
        journal.set_open(False)
        journal.take()
