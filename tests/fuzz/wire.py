"""Fuzzes a running server over a Unix socket: many connections at once, slow senders, hostile bytes, sudden ends.

What must hold after every round: the server lives, answers a fresh connection, its memory is bounded, its log holds
neither a sanitizer's report nor a traceback; and sound commands get the same replies whole and in pieces.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import tensors
from tests.fuzz.streams import cuts, load_corpus, repeatable, stream
from tests.support import ROOT, Server, Wire

FINDINGS = ROOT / ".cache" / "fuzz"
RSS_MAX = 2 << 30  # under a sanitizer, freed memory is kept back for a while
CONNECTIONS = 8
# Values of 1 MiB at most keep SETRANGE and APPEND small; no sleeping, no saving.
DIRECTIVES = ("--save", "", "--appendonly", "no", "--proto-max-bulk-len", "1mb", "--enable-debug-command", "yes",
              "--client-output-buffer-limit", "normal 64mb 0 0", "--client-query-buffer-limit", "16mb",
              *tensors.DIRECTIVES)  # fmt: skip
# A sanitizer's report, or an error of our own that a handler let through.
REPORT = re.compile(r"AddressSanitizer|runtime error:|LeakSanitizer|Traceback \(most recent call last\)|Fatal Python")


class Finding(Exception):
    """The server broke a promise; the message says how to play it again."""


class WireFuzzer:
    """Rounds against one server; a finding ends with the server."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.seed = seed
        self.corpus = load_corpus()
        self.log_read = 0
        with server.wire(60) as wire:
            tidy(wire)

    def round(self, number: int) -> None:
        """One round; Finding when something is wrong."""
        dice = Random(f"{self.seed}/{number}")
        if dice.random() < 0.15:
            self._same_replies(dice, number)
            return
        streams = [cuts(dice, stream(dice, self.corpus)) for _ in range(dice.randrange(1, CONNECTIONS + 1))]
        try:
            self._send(dice, streams)
            self._check()
        except (OSError, EOFError, AssertionError) as error:
            raise Finding(self._report(number, streams, error)) from error

    def _send(self, dice: Random, streams: list[list[bytes]]) -> None:
        """Deliver the pieces of all streams in any order; replies are read by some, ignored by others."""
        connections = []
        for pieces in streams:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.server.unix)
            sock.setblocking(False)
            connections.append((sock, list(reversed(pieces)), dice.random() < 0.8))
        live = list(connections)
        stalls = 0
        while live and stalls < 2000:
            each = dice.choice(live)
            sock, pieces, reads = each
            try:
                if reads:
                    with contextlib.suppress(BlockingIOError):
                        while sock.recv(1 << 16):
                            pass
                sent = sock.send(pieces[-1]) if pieces[-1] else 0
                pieces[-1] = pieces[-1][sent:]
                if not pieces[-1]:
                    pieces.pop()
                    stalls = 0
            except BlockingIOError:
                stalls += 1  # a reader that does not read is not written to either
            except ConnectionError:
                pieces.clear()
            if not pieces:
                live.remove(each)
        for sock, _, _ in connections:
            if dice.random() < 0.3:  # no goodbye
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif dice.random() < 0.3:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
                sock.settimeout(1)
                with contextlib.suppress(OSError):
                    while sock.recv(1 << 16):
                        pass
            sock.close()

    def _same_replies(self, dice: Random, number: int) -> None:
        """Sound commands, once in one piece and once in many, each on an empty keyspace."""
        commands = repeatable(dice, dice.choice((10, 60, 200)))
        whole = b"".join(commands)
        pieces = cuts(dice, whole)
        try:
            first = self._replies([whole], len(commands))
            second = self._replies(pieces, len(commands))
            self._check()
        except (OSError, EOFError, AssertionError) as error:
            raise Finding(self._report(number, [pieces], error)) from error
        for place, (one, two) in enumerate(zip(first, second, strict=True)):
            if one != two and not (one != one and two != two):
                text = f"command {place} {commands[place][:300]!r}: whole {one!r:.300}, in pieces {two!r:.300}"
                raise Finding(self._report(number, [pieces], AssertionError(text)))

    def _replies(self, pieces: list[bytes], count: int) -> list[Any]:
        with self.server.wire(60) as wire:
            wire("FLUSHALL")
            for piece in pieces:
                wire.send(piece)
            return [wire.read() for _ in range(count)]

    def _check(self) -> None:
        assert self.server.process.poll() is None, f"the server ended with {self.server.process.returncode}"
        with self.server.wire(60) as wire:
            assert wire("PING") == "PONG"
            tidy(wire)
        rss = self.server.rss_bytes()
        assert rss < RSS_MAX, f"{rss >> 20} MiB resident"
        with self.server.log_file.open("rb") as log:
            log.seek(self.log_read)
            text = log.read().decode(errors="replace")
            self.log_read += len(text.encode())
        assert not REPORT.search(text), "the log holds a report"

    def _report(self, number: int, streams: list[list[bytes]], error: BaseException) -> str:
        place = FINDINGS / f"{self.seed}-{number}"
        place.mkdir(parents=True, exist_ok=True)
        for index, pieces in enumerate(streams):
            (place / f"{index}.resp").write_bytes(b"".join(pieces))
        with contextlib.suppress(Exception):
            self.server.process.wait(5)
        log = self.server.log()
        (place / "log").write_text(log)
        found = REPORT.search(log)
        excerpt = log[found.start() : found.start() + 4000] if found else log[-1500:]
        return (
            f"{type(error).__name__}: {error}\nplay it again: make fuzz ARGS='--seed {self.seed} --round {number}'; "
            f"its streams: {shown(place)}\n{excerpt}"
        )


def tidy(wire: Wire) -> None:
    """Between rounds the data goes, and what a stream may have switched off comes back."""
    for line in (
        ("FLUSHALL",),
        ("CONFIG", "SET", "hash-max-listpack-entries", "128", "zset-max-listpack-value", "64"),
        ("DEBUG", "SET-ACTIVE-EXPIRE", "1"),
    ):
        wire(*line)
    tensors.tidy_region(wire)


def shown(place: Path) -> str:
    """The path as a reader of the report can use it."""
    return str(place.relative_to(ROOT))
