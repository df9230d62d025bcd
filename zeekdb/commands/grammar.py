"""The arguments of every command, as COMMAND DOCS lists them: written one line a command in `grammar.txt`, parsed here.

    SET key#0 value [condition: NX | XX]@2.6.12 [GET]@6.2.0 [expiration: EX seconds:integer | KEEPTTL@6.0.0]

- A word in small letters is a value: a string, or of the type behind the colon. `#n` makes it a key, of the command's
  n-th key specification.
- A word in capitals is written as it stands: a token. It belongs to the value or group behind it (`EX seconds`),
  unless a comma or bracket parts them; alone it is an argument, called as itself in small letters, or `name=TOKEN`.
- `[…]` may be left out. `(…)` must not. Alternatives are parted by bars, and the group has a name, `name: `; several
  arguments in a row are a block, and without a name it is called by theirs, joined by `_`.
- `...` may come several times, `...GET` with that token before each. `@6.2.0` is since when, `@-2.8.12` until when.
- Names and tokens with other characters stand in quotes: `'ip:port'`, `"*"`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_name("grammar.txt")
VALUE, TOKEN, ONE_OF, BLOCK = "string", "pure-token", "oneof", "block"

_WORDS = re.compile(
    r"""(?P<open>[\[(]) | (?P<close>[\])]) | (?P<bar>\|) | (?P<comma>,)
    | (?P<repeat>\.\.\.)(?P<again>[A-Z-]*) | @(?P<until>-?)(?P<version>[0-9.]*[0-9])
    | :(?P<type>[a-z-]+) | (?P<colon>:)(?=\s) | \#(?P<key>[0-9]+) | (?P<equals>=)
    | (?P<token>[A-Z][A-Z0-9_-]*) | "(?P<quoted_token>[^"]*)"
    | (?P<name>[a-z][a-z0-9_/-]*) | '(?P<quoted_name>[^']+)'""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Argument:
    """One argument, in COMMAND DOCS' terms."""

    name: str
    type: str = VALUE
    key_spec_index: int | None = None
    token: str | None = None
    since: str = ""
    deprecated_since: str = ""
    flags: tuple[str, ...] = ()  # optional, multiple, multiple_token
    arguments: tuple[Argument, ...] = ()  # of a oneof or a block


class Parser:
    """One command's line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = list(_WORDS.finditer(text))
        between = _WORDS.sub("", text).strip()
        if between:
            raise ValueError(f"{between.split()[0]!r} in {text!r}")
        self.at = 0

    def peek(self, *kinds: str) -> str | None:
        """The next word's text if it is of one of these kinds."""
        if self.at == len(self.words):
            return None
        word = self.words[self.at]
        return next((word[kind] for kind in kinds if word[kind] is not None), None)

    def take(self, *kinds: str) -> str | None:
        """The same, and goes on to the one behind it."""
        word = self.peek(*kinds)
        self.at += word is not None
        return word

    def fail(self) -> ValueError:
        """What was not understood."""
        place = self.words[self.at].start() if self.at < len(self.words) else len(self.text)
        return ValueError(f"not understood: {self.text[place:]!r} in {self.text!r}")

    def whole(self) -> tuple[Argument, ...]:
        """All arguments of the command."""
        found = self.sequence()
        if self.at < len(self.words):
            raise self.fail()
        return found

    def sequence(self) -> tuple[Argument, ...]:
        """Arguments up to a bar or a closing bracket."""
        found: list[Argument] = []
        while self.at < len(self.words) and not self.peek("bar", "close"):
            found.append(self.argument())
            self.take("comma")
        return tuple(found)

    def argument(self) -> Argument:
        """A value, a token with or without one, or a group; and what stands behind it."""
        token = self.take("token", "quoted_token")
        followed = self.peek("name", "quoted_name") is not None or self.peek("open") == "("
        if token is not None and not followed:
            return self.decorated(Argument(token.lower(), TOKEN, token=token))
        if self.peek("open"):
            made = self.group()
        else:
            made = self.value()
        return self.decorated(made if token is None else replace(made, token=token))

    def value(self) -> Argument:
        """`name`, `name:type`, `name#n`, `name=TOKEN`."""
        name = self.take("name", "quoted_name")
        if name is None:
            raise self.fail()
        if self.take("equals"):
            token = self.take("token", "quoted_token")
            if token is None:
                raise self.fail()
            return Argument(name, TOKEN, token=token)
        type_, key = self.take("type"), self.take("key")
        if key is None:
            return Argument(name, type_ or VALUE)
        return Argument(name, type_ or "key", int(key))

    def group(self) -> Argument:
        """What stands in brackets."""
        optional = self.take("open") == "["
        name = self.group_name()
        choices = [self.sequence()]
        while self.take("bar"):
            choices.append(self.sequence())
        if self.take("close") is None:
            raise self.fail()
        if len(choices) > 1:
            if name is None:
                raise self.fail()
            made = Argument(name, ONE_OF, arguments=tuple(block(choice) for choice in choices))
        elif name is None:
            made = block(choices[0])
        else:
            made = Argument(name, BLOCK, arguments=choices[0])
        return replace(made, flags=("optional", *made.flags)) if optional else made

    def group_name(self) -> str | None:
        """`name: ` at a group's beginning."""
        begin = self.at
        name = self.take("name", "quoted_name")
        if name is not None and self.take("colon"):
            return name
        self.at = begin
        return None

    def decorated(self, made: Argument) -> Argument:
        """The argument with the repeats and versions that follow it."""
        while True:
            if self.peek("repeat"):
                again = self.words[self.at]["again"]
                self.at += 1
                if again and again != made.token:
                    raise self.fail()
                made = replace(made, flags=(*made.flags, "multiple", *(["multiple_token"] if again else [])))
            elif self.peek("version"):
                until = self.peek("until") == "-"
                version = self.take("version") or ""
                made = replace(made, deprecated_since=version) if until else replace(made, since=version)
            else:
                return made


def block(arguments: tuple[Argument, ...]) -> Argument:
    """Several arguments as one; a single one stays what it is."""
    if len(arguments) == 1:
        return arguments[0]
    if not arguments:
        raise ValueError("a group with nothing in it")
    return Argument("_".join(each.name for each in arguments), BLOCK, arguments=arguments)


def parse(text: str) -> tuple[Argument, ...]:
    """The arguments that a line means. ValueError when it means none."""
    return Parser(text).whole()


@functools.cache
def lines() -> dict[str, str]:
    """The table: names in capitals (`CLIENT|KILL`) to their arguments."""
    found: dict[str, str] = {}
    name = ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            found[name] += line
        elif line and not line.startswith("# "):
            name, _, rest = line.partition(" ")
            if name in found:
                raise ValueError(f"{name} stands there twice")
            found[name] = rest
    return found


@functools.cache
def arguments_of(name: str) -> tuple[Argument, ...]:
    """The arguments of a command or subcommand, in capitals; none where it takes none."""
    return parse(lines().get(name, ""))
