"""What a user may do: rules are applied one word at a time, described as words again, and asked about calls.

A user has a root selector and may have more; a call is allowed when one of them allows all of it, so the permissions of
two selectors never add up. Commands are bits of one integer per selector: its sign is the bit of every command that may
come later, so `+@all` is -1 and the question is a shift. Beside the bits stand the rules themselves, in the order in
which they were given, because 7.2 shows those and not what could be guessed from the bits (redis/redis#11224).

Invariant: `described()` applied to a fresh user gives an equal user. Files of users rest on it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import cache
from typing import Final

from zeekdb.commands.introspection import CATEGORIES, categories, everything, exact_access, key_places, lookup_name
from zeekdb.commands.spec import REGISTRY, Command, Flag
from zeekdb.config.file import split_arguments
from zeekdb.config.units import quoted
from zeekdb.errors import CommandError
from zeekdb.hot.keyspace import glob_match

READ, WRITE = 1, 2
BY_OPTIONS = -1
EVERY_COMMAND: Final = -1  # all bits, those of commands yet to come too
# What a key specification's words ask of a pattern. The others (RO, RW …) say how a value is used, not what is learnt.
NEEDS: Final = {"access": READ, "insert": WRITE, "delete": WRITE, "update": WRITE}
CHANNELS: Final = {  # command: (whether all of its arguments are channels, whether they are patterns)
    "PUBLISH": (False, False), "SPUBLISH": (False, False), "SUBSCRIBE": (True, False), "SSUBSCRIBE": (True, False),
    "PSUBSCRIBE": (True, True),
}  # fmt: skip
_SPACE = re.compile(rb"[ \t\n\v\f\r\0]")
_HASH = re.compile(rb"[0-9a-f]{64}")


class RuleError(Exception):
    """A rule that is refused; the text is Redis's. `unknown`: it names a command or category that is not there."""

    unknown = False


class UnknownCommand(RuleError):
    """The one error that a command of a later version may cause, and that tells no secret."""

    unknown = True

    def __init__(self) -> None:
        super().__init__("Unknown command or category name in ACL")


class RuleSyntax(RuleError):
    """A word that is no rule."""

    def __init__(self) -> None:
        super().__init__("Syntax error")


class Unmatched(Exception):
    """A selector that is not closed; the text is the word that opens it."""


class Reason(IntEnum):
    """Why a call is denied; of several selectors' reasons the greatest counts."""

    COMMAND = 1
    KEY = 2
    AUTH = 3
    CHANNEL = 4


def has_space(word: bytes) -> bool:
    """Whether a name or pattern holds what would break a line of rules apart."""
    return _SPACE.search(word) is not None


# --- commands as bits ---------------------------------------------------------------------------------------------

_PLACES: dict[str, int] = {}  # a command's bit; given once and kept


def place_of(spec: Command) -> int:
    """The bit of a command or subcommand."""
    return _PLACES.setdefault(spec.name, len(_PLACES))


def bits_of(spec: Command) -> int:
    """A command with all of its subcommands."""
    bits = 1 << place_of(spec)
    for sub in spec.subcommands.values():
        bits |= 1 << place_of(sub)
    return bits


@cache
def _category_bits(name: str, commands: int) -> int:
    bits = 0
    for spec in everything():
        if name in categories(spec):
            bits |= bits_of(spec)
    return bits


def category_bits(name: str) -> int:
    """All commands of a category, without '@'. UnknownCommand."""
    if name not in CATEGORIES:
        raise UnknownCommand
    return _category_bits(name, len(REGISTRY))


# --- a call -------------------------------------------------------------------------------------------------------


@cache
def needs(access: tuple[str, ...]) -> int:
    """READ and WRITE as a key's access flags ask for them; 0 is content with any pattern."""
    mask = 0
    for word in access:
        mask |= NEEDS.get(word, 0)
    return mask


_LAYOUTS: dict[str, tuple[int, int, int, int] | None] = {}


def layout(spec: Command) -> tuple[int, int, int, int] | None:
    """(first, last, step, what is needed) of a command whose keys stand at plain places, as most do; `last` counts
    from the first, or from the end where it is negative. BY_OPTIONS stands for what a call's options decide."""
    if spec.name not in _LAYOUTS:
        plain = None
        if len(spec.keys) == 1 and spec.get_keys is None:
            only = spec.keys[0]
            ruled_out = {"not_key", "incomplete"} & set(only.flags)
            if not (only.unknown or only.keyword or only.count_at >= 0 or only.limit or ruled_out):
                mask = BY_OPTIONS if "variable_flags" in only.flags else needs(only.flags)
                plain = (only.index, only.last, only.step, mask)
        _LAYOUTS[spec.name] = plain
    return _LAYOUTS[spec.name]


class Call:
    """A command with its arguments, name included, taken apart once for all selectors."""

    __slots__ = ("_keys", "spec", "words")

    def __init__(self, spec: Command, words: Sequence[bytes]) -> None:
        self.spec = spec
        self.words = words
        self._keys: list[tuple[int, int]] | None = None

    @property
    def keys(self) -> list[tuple[int, int]]:
        """(place, what is needed) of every key; none where the call is malformed: its handler will say so."""
        if self._keys is None:
            self._keys = self._find_keys()
        return self._keys

    def _find_keys(self) -> list[tuple[int, int]]:
        plain = layout(self.spec)
        if plain is not None:
            first, last, step, mask = plain
            last = first + last if last >= 0 else len(self.words) + last
            if mask == BY_OPTIONS:
                mask = needs(exact_access(self.spec, self.spec.keys[0], tuple(self.words)))
            return [(at, mask) for at in range(first, last + 1, step)] if last < len(self.words) else []
        if not self.spec.keys and self.spec.get_keys is None:
            return []
        try:
            return [(at, needs(access)) for at, access in key_places(self.spec, tuple(self.words))]
        except CommandError:
            return []

    @property
    def channels(self) -> range:
        """Places of the channels, or of patterns of channels."""
        how = CHANNELS.get(self.spec.name)
        if how is None:
            return range(0)
        return range(1, len(self.words) if how[0] else min(2, len(self.words)))

    @property
    def names_patterns(self) -> bool:
        """Whether the channels are patterns."""
        return CHANNELS[self.spec.name][1]


# --- selectors ----------------------------------------------------------------------------------------------------


class Selector:
    """Commands, keys and channels that go together."""

    __slots__ = ("all_channels", "all_keys", "allowed", "channels", "first_args", "patterns", "rules")

    def __init__(self, all_channels: bool = False) -> None:
        self.allowed = 0
        self.rules: list[bytes] = []  # "+get", "-@read" …: what came after the last +@all or -@all
        self.first_args: dict[int, list[bytes]] = {}  # of commands that are not allowed otherwise
        self.all_keys = False
        self.patterns: dict[bytes, int] = {}  # of keys: READ, WRITE or both
        self.all_channels = all_channels
        self.channels: dict[bytes, None] = {}

    def copy(self) -> Selector:
        twin = Selector(self.all_channels)
        twin.allowed = self.allowed
        twin.rules = list(self.rules)
        twin.first_args = {place: list(words) for place, words in self.first_args.items()}
        twin.all_keys = self.all_keys
        twin.patterns = dict(self.patterns)
        twin.channels = dict(self.channels)
        return twin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selector) and all(
            getattr(self, name) == getattr(other, name) for name in Selector.__slots__
        )

    # ------------------------------------------------------------ rules

    def apply(self, rule: bytes) -> None:
        """Change the selector as one rule says. RuleError."""
        match rule.lower():
            case b"allkeys" | b"~*":
                self.all_keys = True
                self.patterns.clear()
            case b"resetkeys":
                self.all_keys = False
                self.patterns.clear()
            case b"allchannels" | b"&*":
                self.all_channels = True
                self.channels.clear()
            case b"resetchannels":
                self.all_channels = False
                self.channels.clear()
            case b"allcommands" | b"+@all":
                self._set_all(EVERY_COMMAND)
            case b"nocommands" | b"-@all":
                self._set_all(0)
            case _:
                self._apply_prefixed(rule)

    def _apply_prefixed(self, rule: bytes) -> None:
        kind = rule[:1]
        if kind in (b"~", b"%"):
            self._add_pattern(rule)
        elif kind == b"&":
            self._add_channel(rule[1:])
        elif kind in (b"+", b"-") and rule[1:2] == b"@":
            self._change(category_bits(rule[2:].lower().decode("latin-1")), kind == b"+")
            self._note(rule)
        elif kind == b"-":
            spec = lookup(rule[1:])
            self._change(bits_of(spec), False)
            self._note(b"-" + spec.lower.encode())
        elif kind == b"+":
            self._allow(rule[1:])
        else:
            raise RuleSyntax

    def _set_all(self, allowed: int) -> None:
        self.allowed = allowed
        self.rules.clear()
        self.first_args.clear()

    def _change(self, bits: int, allow: bool) -> None:
        self.allowed = self.allowed | bits if allow else self.allowed & ~bits
        if self.first_args:
            self.first_args = {place: words for place, words in self.first_args.items() if not bits >> place & 1}

    def _note(self, rule: bytes) -> None:
        """Keep a rule for showing, in place of earlier ones about the same command or its subcommands."""
        rule = rule.lower()
        name, inside = rule[1:], rule[1:] + b"|"
        self.rules = [old for old in self.rules if old[1:] != name and not old[1:].startswith(inside)]
        self.rules.append(rule)

    def _allow(self, name: bytes) -> None:
        """+command, +command|subcommand, or +command|first-argument of a command without subcommands."""
        parent, bar, sub = name.rpartition(b"|")
        if not bar:
            spec = lookup(name)
            self._change(bits_of(spec), True)
            self._note(b"+" + spec.lower.encode())
            return
        spec = lookup(parent)
        if "|" in spec.name:
            raise RuleError("Allowing first-arg of a subcommand is not supported")
        if not sub or has_space(sub):  # a space would not come back from a file
            raise RuleSyntax
        if spec.subcommands:
            self._change(bits_of(lookup(name)), True)
        else:
            words = self.first_args.setdefault(place_of(spec), [])
            if sub.lower() not in words:
                words.append(sub.lower())
        self._note(b"+" + name)

    def _add_pattern(self, rule: bytes) -> None:
        if self.all_keys:
            raise RuleError(
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any "
                "effect. Try 'resetkeys' to start with an empty list of patterns"
            )
        access, pattern = READ | WRITE, rule[1:]
        if rule[:1] == b"%":
            letters, _, pattern = rule[1:].partition(b"~")
            if sorted(letters.upper()) not in ([82], [87], [82, 87]):  # R, W, or both once
                raise RuleSyntax
            access = (READ if b"R" in letters.upper() else 0) | (WRITE if b"W" in letters.upper() else 0)
        if has_space(pattern):
            raise RuleSyntax
        self.patterns[pattern] = self.patterns.get(pattern, 0) | access

    def _add_channel(self, pattern: bytes) -> None:
        if self.all_channels:
            raise RuleError(
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any "
                "effect. Try 'resetchannels' to start with an empty list of channels"
            )
        if has_space(pattern):
            raise RuleSyntax
        self.channels[pattern] = None

    # ------------------------------------------------------------ described

    def described_commands(self) -> bytes:
        """`+@all` or `-@all` and what came after it."""
        return b" ".join([b"+@all" if self.allowed < 0 else b"-@all", *self.rules])

    def described_keys(self) -> bytes:
        """The patterns of keys as rules."""
        return b"~*" if self.all_keys else b" ".join(pattern_rule(*pattern) for pattern in self.patterns.items())

    def described_channels(self) -> bytes:
        """The patterns of channels as rules."""
        return b"&*" if self.all_channels else b" ".join(b"&" + pattern for pattern in self.channels)

    def described(self) -> bytes:
        """All rules."""
        channels = self.described_channels()
        if not self.all_channels:
            channels = b"resetchannels " + channels
        parts = (self.described_keys(), channels.rstrip(), self.described_commands())
        return b" ".join(part for part in parts if part)

    # ------------------------------------------------------------ asked

    @property
    def unrestricted(self) -> bool:
        """Whether nothing needs to be asked."""
        return self.allowed == EVERY_COMMAND and self.all_keys and self.all_channels

    def denies(self, call: Call) -> tuple[Reason, int] | None:
        """Why the call is not allowed, with the place of the key or channel in it; None when it is."""
        if not self._allows_command(call):
            return Reason.COMMAND, 0
        if not self.all_keys:
            for at, mask in call.keys:
                if not self.allows_key(call.words[at], mask):
                    return Reason.KEY, at
        if not self.all_channels:
            for at in call.channels:
                if not self.allows_channel(call.words[at], call.names_patterns):
                    return Reason.CHANNEL, at
        return None

    def _allows_command(self, call: Call) -> bool:
        spec = call.spec
        place = place_of(spec)
        if self.allowed >> place & 1 or spec.flags & Flag.NO_AUTH:
            return True
        words = self.first_args.get(place)
        return words is not None and len(call.words) > 1 and call.words[1].lower() in words

    def allows_key(self, key: bytes, mask: int) -> bool:
        """Whether one pattern grants all of `mask` for the key."""
        if self.all_keys:
            return True
        for pattern, access in self.patterns.items():  # noqa: SIM110 (a generator costs as much as the question)
            if access & mask == mask and glob_match(pattern, key):
                return True
        return False

    def allows_every_key(self, mask: int) -> bool:
        """Whether `mask` is granted for whatever key."""
        return self.all_keys or self.patterns.get(b"*", 0) & mask == mask

    def allows_channel(self, channel: bytes, is_pattern: bool) -> bool:
        """Whether the channel is granted. A pattern must be among the rules as it is: whether one glob covers another
        is not asked."""
        if self.all_channels:
            return True
        if is_pattern:
            return channel in self.channels
        return any(glob_match(pattern, channel) for pattern in self.channels)


def spelled(rules: bytes) -> bytes:
    """Rules as they stand in a file that is split at blanks outside quotes: words with quotes in them are quoted."""
    if b'"' not in rules and b"'" not in rules:
        return rules
    words = rules.decode("utf-8", "surrogateescape").split(" ")
    return " ".join(quoted(word) if "\"" in word or "'" in word else word for word in words).encode()


def pattern_rule(pattern: bytes, access: int) -> bytes:
    """A pattern of keys as a rule. A full `*` that was given as %RW~* stays that: `~*` would end the list of patterns,
    and those behind it would be refused when the rules are read back."""
    if access == READ | WRITE:
        return b"%RW~*" if pattern == b"*" else b"~" + pattern
    return (b"%R~" if access == READ else b"%W~") + pattern


def lookup(name: bytes) -> Command:
    """A command or `command|subcommand` under its own name, whatever it was renamed to. UnknownCommand."""
    spec = lookup_name(name) if name.count(b"|") < 2 else None
    if spec is None:
        raise UnknownCommand
    return spec


# --- users --------------------------------------------------------------------------------------------------------


def hashed(password: bytes) -> bytes:
    """A password as it is kept."""
    return hashlib.sha256(password).hexdigest().encode()


class User:
    """Passwords, switches and selectors. `name` is shown with `show`."""

    __slots__ = ("enabled", "name", "nopass", "passwords", "sanitize", "selectors", "unrestricted")

    def __init__(self, name: bytes, all_channels: bool = False) -> None:
        self.name = name
        self.enabled = False
        self.nopass = False
        self.sanitize = True  # RESTORE checks this user's payloads deeply
        self.passwords: dict[bytes, None] = {}  # hashes
        self.selectors = [Selector(all_channels)]
        self.unrestricted = False  # derived, but asked about each command: `become` and `apply` keep it

    @property
    def root(self) -> Selector:
        return self.selectors[0]

    def become(self, other: User) -> None:
        """Take over everything but the name."""
        self.enabled, self.nopass, self.sanitize = other.enabled, other.nopass, other.sanitize
        self.passwords = dict(other.passwords)
        self.selectors = [selector.copy() for selector in other.selectors]
        self.unrestricted = other.unrestricted

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and all(getattr(self, name) == getattr(other, name) for name in User.__slots__)

    # ------------------------------------------------------------ rules

    def apply(self, rule: bytes, all_channels: bool = False) -> None:
        """Change the user as one rule says; `all_channels` is what acl-pubsub-default gives. RuleError."""
        if not rule:
            return
        if not self._switch(rule.lower(), all_channels) and not self._apply_password(rule):
            if rule[:1] == b"(" and rule[-1:] == b")":
                self.selectors.append(selector_from(rule[1:-1], all_channels))
            else:
                self.root.apply(rule)
        self.unrestricted = any(selector.unrestricted for selector in self.selectors)

    def _switch(self, word: bytes, all_channels: bool) -> bool:
        """Rules that are one fixed word; False for any other."""
        match word:
            case b"on" | b"off":
                self.enabled = word == b"on"
            case b"sanitize-payload" | b"skip-sanitize-payload":
                self.sanitize = word == b"sanitize-payload"
            case b"nopass" | b"resetpass":
                self.nopass = word == b"nopass"
                self.passwords.clear()
            case b"clearselectors":
                del self.selectors[1:]
            case b"reset":
                self.become(User(self.name, all_channels))
            case _:
                return False
        return True

    def _apply_password(self, rule: bytes) -> bool:
        """Rules that add or take a password; False for any other."""
        kind, text = rule[:1], rule[1:]
        if kind not in (b">", b"<", b"#", b"!"):
            return False
        if kind in (b"#", b"!") and _HASH.fullmatch(text) is None:
            raise RuleError(
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            )
        digest = hashed(text) if kind in (b">", b"<") else text
        if kind in (b">", b"#"):
            self.passwords[digest] = None
            self.nopass = False
        elif digest in self.passwords:
            del self.passwords[digest]
        else:
            raise RuleError("The password you are trying to remove from the user does not exist")
        return True

    # ------------------------------------------------------------ described

    @property
    def flags(self) -> list[bytes]:
        """The switches as rules."""
        words = [b"on" if self.enabled else b"off"]
        words += [b"nopass"] if self.nopass else []
        return [*words, b"sanitize-payload" if self.sanitize else b"skip-sanitize-payload"]

    def described(self) -> bytes:
        """All rules, as a file of users holds them."""
        more = (b"(" + spelled(selector.described()) + b")" for selector in self.selectors[1:])
        return b" ".join([*self.flags, *(b"#" + digest for digest in self.passwords), self.root.described(), *more])

    # ------------------------------------------------------------ asked

    def denies(self, spec: Command, words: Sequence[bytes]) -> tuple[Reason, int] | None:
        """Why no selector allows the call: the worst reason, the furthest place. None when one does."""
        if self.unrestricted:
            return None
        call = Call(spec, words)
        worst = (Reason.COMMAND, 0)
        for selector in self.selectors:
            denial = selector.denies(call)
            if denial is None:
                return None
            worst = max(worst, denial)
        return worst

    def reads_every_key(self, spec: Command, words: Sequence[bytes]) -> bool:
        """Whether a selector allows the call and, beside it, the reading of any key: what SORT's patterns want."""
        call = Call(spec, words)
        return self.unrestricted or any(
            selector.denies(call) is None and selector.allows_every_key(READ) for selector in self.selectors
        )


def selector_from(inside: bytes, all_channels: bool) -> Selector:
    """The selector that the rules between two parentheses make. RuleError."""
    words = split_arguments(inside.decode("utf-8", "surrogateescape"))
    if words is None:
        raise RuleSyntax
    selector = Selector(all_channels)
    for word in words:
        rule = word.encode("utf-8", "surrogateescape")
        if rule.endswith(b")"):  # written to a file it would end the selector there
            raise RuleSyntax
        selector.apply(rule)
    return selector


def merged(words: Iterable[bytes]) -> list[bytes]:
    """Rules of which each selector is one word again, however many it was spread over. Unmatched."""
    rules: list[bytes] = []
    open_: list[bytes] = []
    for word in words:
        if open_:
            open_.append(word)
        elif word[:1] == b"(" and word[-1:] != b")":
            open_ = [word]
        else:
            rules.append(word)
        if open_ and word[-1:] == b")":
            rules.append(b" ".join(open_))
            open_ = []
    if open_:
        raise Unmatched(open_[0].decode("utf-8", "surrogateescape"))
    return rules

