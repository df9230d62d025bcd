"""What the tests of the region's index share: an arena, a clock of their own, blocks that say whose they are."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

from zeekdb.hot import grades, region
from zeekdb.hot.arena import arena_close, arena_open, arena_stats

MIB = 1 << 20
BEGIN_MS = 1_700_000_000_000


class Clock:
    """The index's, which only tests set."""

    def __init__(self) -> None:
        self.ms = BEGIN_MS
        region.set_clock(self.ms)

    def on(self, ms: int) -> None:
        self.ms += ms
        region.set_clock(self.ms)

    @property
    def s(self) -> int:
        return self.ms // 1000


@contextlib.contextmanager
def opened(size: int) -> Iterator[Clock]:
    """At the end nothing may be left in the arena: `arena_close` refuses otherwise."""
    arena_open(size)
    grades.forget()
    region.configure_spilling(0, 1)
    try:
        yield Clock()
    finally:
        for space in range(64):
            with contextlib.suppress(IndexError):
                region.close_space(space)
        region.configure_spilling(0, 1)
        region.release_late()
        gc.collect()
        totals = region.totals()
        stats = arena_stats()
        arena_close()
    assert (totals["leased_blocks"], totals["waiting_blocks"], totals["spilling_bytes"]) == (0, 0, 0)
    assert (stats["used"], stats["blobs"], stats["largest"]) == (0, 0, stats["size"])


def value(key: bytes, size: int) -> bytes:
    return (key * (size // max(len(key), 1) + 1))[:size]


def told(space: int, key: bytes) -> dict[str, Any]:
    found = region.describe(space, key)
    assert found is not None, key
    return found


def put(space: int, *keys: bytes, size: int = 1024, **options: Any) -> list[int]:
    return region.put(space, list(keys), [value(key, size) for key in keys], **options)


def fill(space: int, count: int, size: int = 1024, stem: bytes = b"fill") -> list[int]:
    """Blocks stored one by one, as strangers do."""
    return [put(space, b"%b%d" % (stem, i), size=size)[0] for i in range(count)]
