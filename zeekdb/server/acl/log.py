"""ACL LOG: what was refused, to whom, how often. Repetitions within a minute are one entry."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from zeekdb.server.acl.rules import Reason

GROUPING_MS = 60_000  # events further apart are told apart
GROUPING_LOOKBACK = 10  # entries among which an earlier event of the same kind is looked for


@dataclass(slots=True)
class Entry:
    """One kind of refusal."""

    reason: Reason
    context: str  # "toplevel", "multi", "lua"
    object: bytes  # the command, key or channel
    user: bytes
    client: str  # as CLIENT INFO shows it
    number: int
    created_ms: int
    updated_ms: int
    count: int = 1

    def is_like(self, other: Entry) -> bool:
        """Whether the other one repeats this one."""
        return (
            (self.reason, self.context, self.object, self.user)
            == (other.reason, other.context, other.object, other.user)
            and abs(self.updated_ms - other.updated_ms) <= GROUPING_MS
        )  # fmt: skip


class AclLog:
    """The latest entries first."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self.now_s = now_s
        self.entries: deque[Entry] = deque()
        self.created = 0  # entries ever, which numbers them
        self.denied = {reason.name.lower(): 0 for reason in Reason}  # events since the start, for INFO

    def add(self, reason: Reason, context: str, what: bytes, user: bytes, client: str, length_max: int) -> None:
        """Note a refusal; at most `length_max` entries stay."""
        self.denied[reason.name.lower()] += 1
        now_ms = int(self.now_s() * 1000)
        entry = Entry(reason, context, what, user, client, self.created, now_ms, now_ms)
        same = next((old for old in islice(self.entries, GROUPING_LOOKBACK) if old.is_like(entry)), None)
        if same is not None:
            same.count += 1
            same.client, same.updated_ms = entry.client, now_ms
            self.entries.remove(same)
            self.entries.appendleft(same)
            return
        self.created += 1
        self.entries.appendleft(entry)
        while len(self.entries) > length_max:
            self.entries.pop()

    def reset(self) -> None:
        """ACL LOG RESET; numbers go on."""
        self.entries.clear()

    def latest(self, count: int) -> Iterator[Entry]:
        """The newest entries."""
        return islice(self.entries, max(count, 0))
