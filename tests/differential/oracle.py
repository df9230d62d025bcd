"""Two servers given the same commands: redis-server, which knows, and ZeekDB, which is asked.

Replies are compared as trees of (type, value), so that `+OK` is not `$2\\r\\nOK`, a set is not an array and 1 is not
1.0. What may differ nevertheless is listed, with reasons, in `accepted.py`.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.differential.accepted import accepted_as, reset_after
from tests.support import (
    REDIS,
    ZEEKDB,
    Big,
    Failure,
    NullArray,
    Push,
    Server,
    SetReply,
    Simple,
    Verbatim,
    Wire,
)

Command = tuple[bytes, ...]
Tree = tuple[str, Any]

DATABASES = 3  # the generated commands use no others
PIPELINE_COMMANDS = 16  # more at once, and neither side might read what the other writes
SHOWN_CHARACTERS = 600
NO_PERSISTENCE = ("--save", "", "--appendonly", "no")


def tree(value: Any) -> Tree:
    """A decoded reply with its type beside every value. Doubles are kept as text, so that NaN equals itself."""
    for kind, name in ((Simple, "simple"), (Failure, "error"), (Verbatim, "verbatim"), (bytes, "bulk")):
        if isinstance(value, kind):
            return name, bytes(value) if isinstance(value, bytes) else str(value)
    if value is None or isinstance(value, NullArray):
        return ("null" if value is None else "null array"), None
    if isinstance(value, bool | float | int):
        name = "big number" if isinstance(value, Big) else type(value).__name__
        return name, repr(value) if isinstance(value, float) else int(value)
    if isinstance(value, dict):
        return "map", [(tree(key), tree(item)) for key, item in value.items()]
    name = "set" if isinstance(value, SetReply) else "push" if isinstance(value, Push) else "array"
    return name, [tree(item) for item in value]


@dataclass
class Difference:
    """One command to which the servers did not answer the same: the last one, or one of the looks at the keys after."""

    commands: list[Command]
    expected: Tree
    actual: Tree
    protocol: int
    looks: tuple[Command, ...] = ()

    def __str__(self) -> str:
        lines = [f"RESP{self.protocol}, redis-server and ZeekDB differ on the last of:"]
        lines += ["  " + spell(command) for command in (*self.commands, *self.looks)]
        lines += [f"  redis-server: {_cut(str(self.expected))}", f"  ZeekDB:       {_cut(str(self.actual))}"]
        return "\n".join(lines)


def _settled(commands: Sequence[Command]) -> list[Command]:
    """The commands, each one whose outcome is chance with what undoes it behind."""
    settled = []
    for at, command in enumerate(commands):
        settled.append(command)
        settled += [reset for reset in reset_after(command) if (reset,) != tuple(commands[at + 1 : at + 2])]
    return settled


def spell(command: Sequence[bytes]) -> str:
    """A command as one types it into redis-cli."""
    words = []
    for word in command:
        plain = word and all(0x21 <= byte <= 0x7E and byte not in b"\"'\\" for byte in word)
        text = "".join(chr(b) if 0x20 <= b <= 0x7E and b not in b'"\\' else f"\\x{b:02x}" for b in word)
        words.append(word.decode() if plain else f'"{text}"')
    return _cut(" ".join(words))


def _cut(text: str) -> str:
    """A long text without its middle; the seed brings back the whole."""
    return (
        text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS // 2]} … {text[-SHOWN_CHARACTERS // 2 :]}"
    )


def words(text: str) -> Command:
    """The opposite, for commands without spaces in their arguments; `""` is the empty string."""
    return tuple(b"" if word == '""' else word.encode("utf-8", "surrogateescape") for word in text.split())


class ServerLost(Exception):
    """A server ended or closed the connection while it was asked."""


@dataclass
class Pair:
    """A connection to either server."""

    reference: Wire
    subject: Wire
    allowed: Counter[str] = field(default_factory=Counter)

    def ask(self, commands: Sequence[Command]) -> list[tuple[Tree, Tree]]:
        """Both servers' replies, the commands sent in short pipelines."""
        answers = []
        for wire in (self.reference, self.subject):
            try:
                portions = [commands[at : at + PIPELINE_COMMANDS] for at in range(0, len(commands), PIPELINE_COMMANDS)]
                answers.append([tree(reply) for portion in portions for reply in wire.pipeline(list(portion))])
            except (EOFError, OSError) as error:
                who = "redis-server" if wire is self.reference else "ZeekDB"
                shown = "\n".join("  " + spell(command) for command in commands)
                raise ServerLost(f"{who} was lost ({error!r}) during:\n{shown}") from error
        return list(zip(*answers, strict=True))

    def start(self, protocol: int) -> None:
        """Empty servers without users of their own, database 0, the protocol wanted."""
        for expected, actual in self.ask([(b"FLUSHALL",), (b"SELECT", b"0")]):
            assert expected == actual == ("simple", "OK"), (expected, actual)
        self.ask([(b"ACL", b"LOG", b"RESET"), (b"FUNCTION", b"FLUSH"), (b"SCRIPT", b"FLUSH")])
        self.ask([(b"HELLO", b"%d" % protocol)])
        (((_, one), (_, two)),) = self.ask([(b"ACL", b"USERS")])
        users = {name for _, name in (*one, *two)} - {b"default"}
        if users:
            self.ask([(b"ACL", b"DELUSER", *sorted(users))])

    def compare(self, commands: Sequence[Command], protocol: int = 2, state: bool = True) -> Difference | None:
        """Run commands on empty servers; the first reply, or the first piece of what they left, that differs."""
        self.ask([(b"DISCARD",), (b"UNWATCH",)])  # what the last story may have left open
        self.start(protocol)
        commands = _settled(commands)
        answers = self.ask(commands)
        at = self._first(commands, answers)
        if at is not None:
            return Difference(commands[: at + 1], *answers[at], protocol)
        return self._compare_state(commands, protocol) if state else None

    def _first(self, asked: Sequence[Command], answers: list[tuple[Tree, Tree]]) -> int | None:
        """The place of the first difference that no rule allows."""
        for at, (command, (expected, actual)) in enumerate(zip(asked, answers, strict=True)):
            if expected == actual:
                continue
            reason = accepted_as(command, expected, actual)
            if reason is None:
                return at
            self.allowed[reason] += 1
        return None

    def _compare_state(self, story: list[Command], protocol: int) -> Difference | None:
        """What the keys hold in the end."""
        self.ask([(b"DISCARD",)])
        for index in range(DATABASES):
            select = (b"SELECT", b"%d" % index)
            looks: list[Command] = [select, (b"DBSIZE",), (b"KEYS", b"*")]
            answers = self.ask(looks)
            at = self._first(looks, answers)
            if at is None:
                keys = sorted(name for _, name in answers[2][0][1])
                looks = [look for key in keys for look in ((b"TYPE", key), (b"PTTL", key))]
                answers = self.ask(looks)
                at = self._first(looks, answers)
            if at is None:
                looks = [_CONTENT[kind[1]](key) for key, (kind, _) in zip(keys, answers[::2], strict=True)]
                answers = self.ask(looks)
                at = self._first(looks, answers)
            if at is not None:
                return Difference(story, *answers[at], protocol, (select, looks[at]))
        return None

    def minimise(self, found: Difference) -> Difference:
        """The same difference, or another, after as few commands as leaving out some and then fewer leads to."""
        step = max(len(found.commands) // 2, 1)
        while step:
            at = 0
            while at < len(found.commands):
                shorter = found.commands[:at] + found.commands[at + step :]
                smaller = self.compare(shorter, found.protocol)
                if smaller is not None and len(smaller.commands) < len(found.commands):
                    found = smaller
                else:
                    at += step
            step //= 2
        return found


_CONTENT: dict[str, Any] = {
    "string": lambda key: (b"GET", key),
    "list": lambda key: (b"LRANGE", key, b"0", b"-1"),
    "hash": lambda key: (b"HGETALL", key),
    "set": lambda key: (b"SMEMBERS", key),
    "zset": lambda key: (b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"),
    "stream": lambda key: (b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"),
    "none": lambda key: (b"EXISTS", key),
}


@contextlib.contextmanager
def servers(subject: str = "") -> Iterator[Pair]:
    """Both servers on Unix sockets. The subject is ZeekDB; `redis` tests the tests (or ZEEKDB_SUBJECT=redis)."""
    program = REDIS if (subject or os.environ.get("ZEEKDB_SUBJECT")) == "redis" else ZEEKDB
    with (
        Server(*NO_PERSISTENCE, program=REDIS, unix=True) as reference,
        Server(*NO_PERSISTENCE, program=program, unix=True) as asked,
        reference.wire(60) as one,
        asked.wire(60) as two,
    ):
        yield Pair(one, two)
