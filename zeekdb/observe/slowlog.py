"""The slow log: the last commands that took longer than `slowlog-log-slower-than`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

ARGUMENTS_MAX = 32
ARGUMENT_BYTES_MAX = 128


@dataclass(frozen=True, slots=True)
class Entry:
    """One slow command."""

    id: int
    time_s: int
    duration_us: int
    arguments: list[bytes]
    client_address: str
    client_name: bytes


class SlowLog:
    """Newest first. Whoever runs commands compares durations with the threshold and calls `add`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: deque[Entry] = deque()
        self._next_id = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, arguments: Sequence[bytes], duration_us: int, address: str, name: bytes, length_max: int) -> None:
        """Log a command, `arguments` beginning with its name, and keep the newest `length_max` entries."""
        entry = Entry(self._next_id, int(self._clock()), duration_us, shortened(arguments), address, name)
        self._next_id += 1
        self._entries.appendleft(entry)
        while len(self._entries) > length_max:
            self._entries.pop()

    def get(self, count: int) -> list[Entry]:
        """The newest entries, at most `count`; -1 is all of them."""
        return list(self._entries) if count < 0 else list(islice(self._entries, count))

    def reset(self) -> None:
        """Forget all entries; their numbers go on."""
        self._entries.clear()


def shortened(arguments: Sequence[bytes]) -> list[bytes]:
    """A command for the log: at most 32 arguments of at most 128 bytes each, saying what was left out."""
    kept = arguments if len(arguments) <= ARGUMENTS_MAX else arguments[: ARGUMENTS_MAX - 1]
    out = [
        bytes(argument) if len(argument) <= ARGUMENT_BYTES_MAX
        else b"%b... (%d more bytes)" % (argument[:ARGUMENT_BYTES_MAX], len(argument) - ARGUMENT_BYTES_MAX)
        for argument in kept
    ]  # fmt: skip
    if len(kept) < len(arguments):
        out.append(b"... (%d more arguments)" % (len(arguments) - len(kept)))
    return out
