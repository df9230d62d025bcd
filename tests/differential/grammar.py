"""A small language for commands, and random sentences of it.

    SET <key> <value> [NX|XX] {GET} [EX <ttl>|KEEPTTL]

Words stand for themselves, `<name>` is drawn from a pool, `[a|b]` is one of them or nothing, `(a|b)` one of them,
`(…)+` one to four times, `#(…)+` the same with the number in front, `{…}` nothing or that, and a run of `[…]` and
`{…}` comes in any order, because options do.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Words = list[bytes]
Make = Callable[[random.Random], Words]
Pools = dict[str, Callable[[random.Random], bytes]]

_TOKEN = re.compile(r"<\w+>|#?\(|[\[\]){}|]|\+(?=\s|$)|[^\s\[\](){}|<>]+")
_CLOSING = {"[": "]", "(": ")", "#(": ")", "{": "}"}
REPEATS_MAX = 4
MISCOUNTED = 0.15  # how often the number in front is wrong


def compile_template(text: str, pools: Pools) -> Make:
    """A maker of random commands of this form."""
    tokens = _TOKEN.findall(text)
    make, rest = _sequence(tokens, 0, pools, "")
    assert rest == len(tokens), f"unbalanced: {text}"
    return make


def _sequence(tokens: list[str], at: int, pools: Pools, end: str) -> tuple[Make, int]:
    """What stands up to `end` or a bar."""
    fixed: list[Make] = []
    options: list[Make] = []

    def settle() -> None:
        if options:
            fixed.append(_in_any_order(tuple(options)))
            options.clear()

    while at < len(tokens) and tokens[at] not in (end, "|"):
        token = tokens[at]
        if token in _CLOSING:
            part, at = _alternatives(tokens, at + 1, pools, _CLOSING[token])
            if token.endswith("("):
                settle()
                if at < len(tokens) and tokens[at] == "+":
                    part, at = _repeated(part, counted=token == "#("), at + 1
                fixed.append(part)
            else:
                options.append(_maybe(part))
            continue
        settle()
        fixed.append(_drawn(pools[token[1:-1]]) if token.startswith("<") else _word(token.encode()))
        at += 1
    settle()
    parts = tuple(fixed)
    return (lambda r: [word for part in parts for word in part(r)]), at


def _alternatives(tokens: list[str], at: int, pools: Pools, end: str) -> tuple[Make, int]:
    choices = []
    while True:
        choice, at = _sequence(tokens, at, pools, end)
        choices.append(choice)
        if tokens[at] == end:
            return (lambda r: r.choice(choices)(r)), at + 1
        at += 1


def _word(word: bytes) -> Make:
    return lambda r: [word if r.random() < 0.9 else word.lower()]


def _drawn(pool: Callable[[random.Random], bytes]) -> Make:
    return lambda r: [pool(r)]


def _maybe(part: Make) -> Make:
    return lambda r: part(r) if r.random() < 0.4 else []


def _repeated(part: Make, counted: bool) -> Make:
    def make(r: random.Random) -> Words:
        times = r.randint(1, REPEATS_MAX)
        told = times if r.random() > MISCOUNTED else r.randint(-1, REPEATS_MAX + 1)
        return [b"%d" % told] * counted + [word for _ in range(times) for word in part(r)]

    return make


def _in_any_order(parts: tuple[Make, ...]) -> Make:
    def make(r: random.Random) -> Words:
        groups = [part(r) for part in parts]
        r.shuffle(groups)
        return [word for group in groups for word in group]

    return make
