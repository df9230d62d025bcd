"""The base of an append-only file as commands (aof-use-rdb-preamble no): all but the keys, see hot/aofwrite.pyx."""

from __future__ import annotations

from collections.abc import Iterable


def head(libraries: Iterable[bytes], moment_s: int | None) -> bytes:
    """The file's first bytes: the moment that it shows in Unix seconds (None: it does not say), function libraries."""
    parts = [b"#TS:%d\r\n" % moment_s] if moment_s is not None else []
    parts += [b"*3\r\n$8\r\nFUNCTION\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(code), code) for code in libraries]
    return b"".join(parts)
