"""MIGRATE: keys to another server. The wire is `server/migration.py`'s; here are the command's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zeekdb.commands.args import INT64_MAX, INT64_MIN, parse_int, parse_range, show
from zeekdb.commands.context import Context
from zeekdb.commands.spec import WRITE, Flag, KeySpec, command
from zeekdb.errors import CommandError, SyntaxError_

TIMEOUT_MS_DEFAULT = 1000
KEY_NOT_EMPTY = "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string"
VALUES_OF = {b"AUTH": 1, b"AUTH2": 2}  # arguments of options


@dataclass
class Order:
    """What a MIGRATE asks for."""

    host: str
    port: int
    keys: list[bytes]
    db_index: int
    timeout_s: float  # of every step, as in Redis: to connect, to write, to read a reply
    copy: bool = False
    replace: bool = False
    password: tuple[bytes, ...] = ()  # AUTH's arguments


def keys_of(args: tuple[bytes, ...]) -> list[int]:
    """Places of the keys: the third argument, or what follows KEYS. None where both are given, which is an error."""
    at = 6
    while at < len(args):
        if args[at].upper() == b"KEYS":
            return [] if args[3] else list(range(at + 1, len(args)))
        at += 1 + VALUES_OF.get(args[at].upper(), 0)
    return [3]


@command(
    "MIGRATE", arity=-6, flags=WRITE | Flag.MOVABLEKEYS,
    keys=(
        KeySpec(("RW", "access", "delete"), index=3),
        KeySpec(("RW", "access", "delete", "incomplete"), keyword="KEYS", start_from=-2, last=-1),
    ),
    get_keys=keys_of, group="generic", since="2.6.0", acl=("keyspace", "dangerous"),
    complexity="O(N) for the values' sizes: DUMP and DEL here, RESTORE there, and the way between.",
    tips=("nondeterministic_output",),
    history=(
        ("3.0.0", "Added the `COPY` and `REPLACE` options."),
        ("3.0.6", "Added the `KEYS` option."),
        ("4.0.7", "Added the `AUTH` option."),
        ("6.0.0", "Added the `AUTH2` option."),
    ),
)  # fmt: skip
def migrate(ctx: Context, host: bytes, port: bytes, key: bytes, db: bytes, timeout: bytes, *words: bytes) -> Any:
    """Moves keys to another server, each of which is here or there at any time."""
    order = Order(show(host), 0, [key], 0, 0.0)
    parse_options(order, key, words)
    timeout_ms = parse_int(timeout)
    order.timeout_s = (timeout_ms if timeout_ms > 0 else TIMEOUT_MS_DEFAULT) / 1000
    order.db_index = parse_range(db, INT64_MIN, INT64_MAX)
    order.port = int(port) if port.isdigit() else 0
    order.keys = [key for key in dict.fromkeys(order.keys) if ctx.seen(key)]
    if not order.keys:
        return "NOKEY"
    return ctx.server.migration.start(ctx, order)


def parse_options(order: Order, key: bytes, words: tuple[bytes, ...]) -> None:
    """The words behind the timeout."""
    at = 0
    while at < len(words):
        word = words[at].upper()
        more = len(words) - at - 1
        if word == b"COPY":
            order.copy = True
        elif word == b"REPLACE":
            order.replace = True
        elif more >= VALUES_OF.get(word, len(words)):
            order.password = words[at + 1 : at + 1 + VALUES_OF[word]]
            at += VALUES_OF[word]
        elif word == b"KEYS":
            if key:
                raise CommandError(KEY_NOT_EMPTY)
            order.keys = list(words[at + 1 :])
            return
        else:
            raise SyntaxError_
        at += 1
