"""Data on their way into a running server: pipelined, bounded, and counted.

One batch is on the wire while the next one is made, so that neither side waits for the other; replies are read a batch
late. A change of database is waited for, because keys must not go where they were not meant to.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from zeekdb.hot.crc64 import crc64
from zeekdb.hot.rdb import encode_string, footer
from zeekdb.tools.console import ToolError, text_of
from zeekdb.tools.wire import Failure, Link, encode

BATCH_BYTES: Final = 1 << 20
BATCH_COMMANDS: Final = 512
NAMES_KEPT: Final = 5  # of keys, for the complaint
# Errors that the next command would get, too.
FATAL: Final = ("OOM", "MISCONF", "READONLY", "NOAUTH", "NOPERM", "LOADING", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN")
FUNCTION: Final = b"\xf5"  # how the record of a library begins
# The oldest version of the format that knows a value's type: what older servers can read shall be read by them.
VERSIONS: Final = ((15, 9), (19, 10), (21, 11), (255, 12))


@dataclass
class Tally:
    """What has become of the data."""

    keys: int = 0
    size: int = 0  # bytes of all values
    libraries: int = 0
    expired: int = 0  # left out: past their expiry
    empty: int = 0  # left out: collections without elements
    gone: int = 0  # left out: they were deleted over there meanwhile
    busy: int = 0  # not replaced
    busy_names: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)  # by error
    failed_names: dict[str, str] = field(default_factory=dict)  # the first key, by error

    @property
    def well(self) -> bool:
        """Whether everything has arrived."""
        return not self.busy and not self.failures

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "keys": self.keys,
            "bytes": self.size,
            "functions": self.libraries,
            "expired": self.expired,
            "empty": self.empty,
            "gone": self.gone,
            "busy": self.busy,
            "busy_keys": self.busy_names,
            "failures": dict(self.failures),
        }

    def fail(self, error: str, what: bytes) -> None:
        """One that did not arrive."""
        self.failures[error] += 1
        self.failed_names.setdefault(error, text_of(what))


def payload_of(kind: int, value: bytes) -> bytes:
    """A value of an RDB file (its type's byte, its bytes) as RESTORE takes it."""
    version = next(version for last, version in VERSIONS if kind <= last)
    body = b"%c%b%b" % (kind, value, version.to_bytes(2, "little"))
    return body + crc64(body).to_bytes(8, "little")


def functions_payload(libraries: list[bytes]) -> bytes:
    """Libraries as FUNCTION RESTORE takes them."""
    records = b"".join(FUNCTION + encode_string(code) for code in libraries)
    return records + footer(records)


class Sender:
    """Sends commands to one server. ToolError when going on makes no sense."""

    def __init__(self, link: Link, tally: Tally, replace: bool) -> None:
        self.link = link
        self.tally = tally
        self.replace = replace
        self.duplicates_are_ours = False  # the server was empty: a key that is there is one that came twice
        self.db = -1
        self.pieces: list[bytes] = []
        self.size = 0
        self.waiting: list[bytes] = []  # the keys of the batch
        self.owed: list[bytes] = []  # the same for the batch on the wire

    # ------------------------------------------------------------ what is sent

    def select(self, db: int) -> None:
        """What follows goes there."""
        if db == self.db:
            return
        self.drain()
        try:
            self.link("SELECT", db)
        except Failure as error:
            raise ToolError(f"{self.link.address} has no database {db}: {error}") from None
        self.db = db

    def restore(self, key: bytes, payload: bytes, deadline_ms: int = 0, idle_s: int = -1, frequency: int = -1) -> None:
        """A key. Deadline (Unix ms) 0: none; idle time and frequency -1: not known."""
        words: list[bytes | str | int] = ["RESTORE", key, deadline_ms, payload]
        if self.replace:
            words.append("REPLACE")
        if deadline_ms:
            words.append("ABSTTL")
        if frequency >= 0:
            words += ["FREQ", frequency]
        elif idle_s >= 0:
            words += ["IDLETIME", idle_s]
        request = encode(*words)
        self.pieces.append(request)
        self.size += len(request)
        self.waiting.append(key)
        if self.size >= BATCH_BYTES or len(self.waiting) >= BATCH_COMMANDS:
            self._flush()

    def functions(self, payload: bytes, count: int) -> None:
        """Libraries."""
        self.drain()
        try:
            self.link("FUNCTION", "RESTORE", payload, "REPLACE" if self.replace else "APPEND")
            self.tally.libraries += count
        except Failure as error:
            self.tally.fail(str(error), b"functions")

    def _flush(self) -> None:
        if self.pieces:
            self.link.send(b"".join(self.pieces))
        self._hear()
        self.owed, self.waiting = self.waiting, []
        self.pieces, self.size = [], 0

    def drain(self) -> None:
        """Everything was sent and answered."""
        self._flush()
        self._hear()

    # ------------------------------------------------------------ what is answered

    def _hear(self) -> None:
        fatal = ""
        for key in self.owed:
            reply = self.link.read()
            if isinstance(reply, Failure):
                fatal = self._failed(str(reply), key) or fatal
            else:
                self.tally.keys += 1
        self.owed = []
        if fatal:
            raise ToolError(f"{self.link.address} takes no more: {fatal}")

    def _failed(self, error: str, key: bytes) -> str:
        """The error if it is to end everything."""
        if error.startswith("BUSYKEY"):
            if not self.duplicates_are_ours:
                self.tally.busy += 1
                if len(self.tally.busy_names) < NAMES_KEPT:
                    self.tally.busy_names.append(text_of(key))
            return ""
        self.tally.fail(error, key)
        return error if error.partition(" ")[0] in FATAL else ""
