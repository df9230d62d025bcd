"""An interpreter on a desk: scripts run, and the calls that they made."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from zeekdb.hot.lua import Interpreter, ScriptError

MEMORY_LIMIT = 64 << 20


class Desk:
    """An interpreter whose `redis.call` answers what `reply` is, and which ends scripts after `limit_s`."""

    def __init__(self) -> None:
        self.lua = Interpreter(MEMORY_LIMIT)
        self.reply: Callable[[list[bytes]], Any] = lambda words: words
        self.calls: list[list[bytes]] = []
        self.limit_s = 20.0
        self.end_s = 0.0
        self.lua.on_call = self._call
        self.lua.on_log = lambda *_: None
        self.lua.on_permission = lambda words: words[0] == b"get"
        self.lua.on_time = lambda: b"ERR killed" if time.monotonic() > self.end_s else None

    def _call(self, words: list[bytes]) -> Any:
        self.calls.append(words)
        return self.reply(words)

    def run(self, source: str, *args: bytes, protocol: int = 2) -> Any:
        """The reply. ScriptError."""
        self.end_s = time.monotonic() + self.limit_s
        reference = self.lua.compile(source.encode("latin-1"), b"@user_script")
        try:
            return self.lua.execute(reference, (b"k1", b"k2", *args), 0, 2, b"f_name", protocol, False)
        finally:
            self.lua.release(reference)

    def fails(self, source: str) -> str:
        """The error."""
        with pytest.raises(ScriptError) as caught:
            self.run(source)
        return caught.value.message
