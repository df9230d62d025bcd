"""The configuration in force: values by name, the rules of CONFIG GET and CONFIG SET, hooks that apply a change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zeekdb.config.options import DIRECTIVES, NAMES, Directive
from zeekdb.config.units import ConfigError
from zeekdb.errors import CommandError

Hook = Callable[[], None]

USERS_MAX = 10_000  # `user` and `rename-command` lines kept from a file


class Config:
    """All directives as attributes, hyphens as underscores: `config.hash_max_listpack_entries`.

    A hook runs after a change, once per CONFIG SET however many of its directives changed. It raises ConfigError to
    refuse: all values then go back, and the hooks that ran before run again with the old ones.
    """

    def __init__(self) -> None:
        self.path = ""  # the file it came from, absolute; CONFIG REWRITE writes it
        self.renamed_commands: dict[str, str] = {}  # upper-case name -> new name, "" removes the command
        self.users: list[list[str]] = []  # `user` lines, for the ACL
        self.user_lines: Callable[[], list[str]] | None = None  # the users in force, as such lines
        self.given: set[str] = set()  # directives that a file or the command line named
        self._hooks: dict[str, list[Hook]] = {}
        for directive in DIRECTIVES.values():
            setattr(self, directive.attribute, directive.default)

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no directive {name.replace('_', '-')!r}")

    def on_change(self, name: str, hook: Hook) -> None:
        """Call `hook()` when the directive, or a directive with that hook name, changes. Order is kept."""
        if name not in DIRECTIVES and name not in {d.hook for d in DIRECTIVES.values()}:
            raise ValueError(f"no directive or hook {name!r}")
        self._hooks.setdefault(name, []).append(hook)

    def apply_all(self) -> None:
        """Run every hook once: at start, when the server has registered them all. ConfigError."""
        self._apply(DIRECTIVES.values())

    def output_buffer_limit(self, kind: str) -> tuple[int, int, int]:
        """(hard bytes, soft bytes, soft seconds) for a kind of client: "normal", "replica", "pubsub"; 0: no limit."""
        name = {"replica": "slave", "master": "slave"}.get(kind, kind)
        limits: dict[str, tuple[int, int, int]] = self.client_output_buffer_limit
        return limits.get(name, (0, 0, 0))

    def value(self, directive: Directive) -> Any:
        """The value of a directive of the table."""
        return getattr(self, directive.attribute)

    def get(self, *patterns: str) -> dict[str, str]:
        """CONFIG GET: names (older ones too) that match a pattern, case ignored, with their values as text."""
        found: dict[str, str] = {}
        for pattern in patterns:
            lower = pattern.lower()
            directive = NAMES.get(lower)
            if directive:
                found[lower] = directive.kind.show(self.value(directive))
            elif re.search(r"[*?\[]", lower):
                glob = glob_to_regex(lower)
                are_ours = lower[0] not in "*?["  # whoever asks for `kv-*` does not ask for all there is
                for name, directive in NAMES.items():
                    if not directive.hidden and (are_ours or not directive.ours) and glob.fullmatch(name):
                        found[name] = directive.kind.show(self.value(directive))
        return found

    def set(self, values: Mapping[str, str] | Iterable[tuple[str, str]], *, local: bool = False) -> None:
        """CONFIG SET: all of the values or none. `local`: asked over a local connection. CommandError."""
        pairs = list(values.items() if isinstance(values, Mapping) else values)
        directives = self._admit(pairs, local)
        old = {directive.attribute: self.value(directive) for directive in directives}
        changed = []
        for directive, (name, text) in zip(directives, pairs, strict=True):
            arguments = text.split(" ") if directive.kind.multi else [text]
            try:
                value = directive.kind.parse(arguments)
            except ConfigError as error:
                self.__dict__.update(old)
                raise failed(name, str(error)) from None
            if isinstance(value, dict):  # classes that are not named keep their limits
                value = directive.kind.add(self.value(directive), value)
            if value != old[directive.attribute]:
                changed.append(directive)
            setattr(self, directive.attribute, value)
        self._apply_or_restore(changed, old)

    def parse(self, name: str, arguments: list[str], *, first: bool = True) -> None:
        """One directive of a file or command line, `first` when this source has not named it yet. ConfigError."""
        directive = NAMES[name]
        if directive.kind.multi:
            if len(arguments) == 1:
                arguments = arguments[0].split() or [""]
        elif len(arguments) != 1:
            raise ConfigError("wrong number of arguments")
        value = directive.kind.parse(arguments)
        if not first or isinstance(value, dict):
            value = directive.kind.add(self.value(directive), value)
        setattr(self, directive.attribute, value)
        self.given.add(directive.name)

    def rewrite(self) -> None:
        """CONFIG REWRITE: bring the file up to date, keeping its comments and order. CommandError."""
        from zeekdb.config.file import rewrite_file

        if not self.path:
            raise CommandError("ERR The server is running without a config file")
        try:
            rewrite_file(self)
        except OSError as error:
            raise CommandError(f"ERR Rewriting config file: {error.strerror}") from None

    def _admit(self, pairs: list[tuple[str, str]], local: bool) -> list[Directive]:
        """The directives to set, or Redis's reason why not."""
        directives: list[Directive] = []
        seen: set[str] = set()
        for name, _ in pairs:
            directive = NAMES.get(name.lower())
            if directive is None:
                raise CommandError(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            if directive.immutable:
                raise failed(name, "can't set immutable config")
            allowed: str = self.enable_protected_configs
            if directive.protected and not (allowed == "yes" or (allowed == "local" and local)):
                raise failed(name, "can't set protected config")
            if name.lower() in seen:
                raise failed(name, "duplicate parameter")
            seen.add(name.lower())
            directives.append(directive)
        return directives

    def _apply_or_restore(self, changed: list[Directive], old: dict[str, Any]) -> None:
        for done, directive in enumerate(changed):
            try:
                self._apply([directive], skip=changed[:done])
            except (ConfigError, OSError) as error:
                self.__dict__.update(old)
                self._apply(changed[: done + 1], forgiving=True)
                why = error.strerror if isinstance(error, OSError) else str(error)
                raise failed(directive.name, why or str(error)) from None

    def _apply(
        self, directives: Iterable[Directive], *, skip: Iterable[Directive] = (), forgiving: bool = False
    ) -> None:
        """Run the hooks of these directives once each, but those that the ones to skip have run."""
        done = {name for directive in skip for name in (directive.name, directive.hook)}
        for directive in directives:
            for name in (directive.name, directive.hook):
                if not name or name in done:
                    continue
                done.add(name)
                for hook in self._hooks.get(name, ()):
                    try:
                        hook()
                    except (ConfigError, OSError):
                        if not forgiving:
                            raise


def failed(name: str, why: str) -> CommandError:
    """CONFIG SET's error."""
    return CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")


def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """Redis's glob, for names of directives: the hot room's matcher is for keys, and this house stands below it."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        closing = pattern.find("]", at + 1) if char == "[" else -1
        if char == "*":
            if out[-1:] != [".*"]:
                out.append(".*")
        elif char == "?":
            out.append(".")
        elif closing > 0:
            inside = pattern[at + 1 : closing]
            negated = "^" if inside.startswith("^") else ""
            inside = inside[len(negated) :].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            out.append(f"[{negated}{inside}]" if inside else "(?!)")
            at = closing
        else:
            at += char == "\\" and at + 1 < len(pattern)
            out.append(re.escape(pattern[at]))
        at += 1
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error:
        return re.compile("(?!)")
