"""The server's users: who is who, what is refused, and the files that users live in.

A connection without a restricted user costs nothing: only others have GATE_ACL in their gate word, which sends each of
their commands through the dispatcher and `Acl.check`. `Acl.follow` sets that bit and GATE_AUTH, and runs for every
connection concerned whenever a user changes; nobody else touches the two.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeekdb.commands.args import show
from zeekdb.commands.connection import client_line
from zeekdb.commands.spec import Command
from zeekdb.config.file import write_durably
from zeekdb.errors import CommandError, Refused
from zeekdb.hot.gates import GATE_ACL, GATE_AUTH
from zeekdb.observe import log
from zeekdb.server.acl.log import AclLog
from zeekdb.server.acl.rules import Reason, RuleError, Unmatched, User, has_space, hashed, merged, spelled

if TYPE_CHECKING:
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

DEFAULT = b"default"
NO_FILE = (
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER "
    "command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store "
    "users in the Redis configuration."
)
NO_CHANGE = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
IN_EXEC = (
    "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is "
    "no longer allowed for the following reason: "
)
WHY_IN_EXEC = {
    Reason.COMMAND: "no permission to execute the command or subcommand",
    Reason.KEY: "no permission to touch the specified keys",
    Reason.CHANNEL: "no permission to access one of the channels used as arguments to the command",
}
ERRORS_MAX = 100  # mistakes of one file that are told

Users = dict[bytes, User]


def default_user() -> User:
    """The user of connections that do not log in: everything is allowed."""
    user = User(DEFAULT)
    for rule in (b"+@all", b"~*", b"&*", b"on", b"nopass"):
        user.apply(rule)
    return user


def explained(reason: Reason, user: User, spec: Command, what: bytes, verbose: bool = False) -> str:
    """The refusal in words; DRYRUN's are `verbose` and name the key or channel."""
    who = show(user.name)
    if reason is Reason.COMMAND:
        return f"User {who} has no permissions to run the '{spec.lower}' command"
    kind = "key" if reason is Reason.KEY else "channel"
    if verbose:
        return f"User {who} has no permissions to access the '{show(what)}' {kind}"
    return f"No permissions to access a {kind}"


class Acl:
    """All users, the log, and the connections' standing."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.default = default_user()  # this object for ever: connections and others hold it
        self.users: Users = {DEFAULT: self.default}
        self.log = AclLog()

    @property
    def _all_channels(self) -> bool:
        """What acl-pubsub-default gives new users and selectors."""
        return bool(self.server.config.acl_pubsub_default == "allchannels")

    # ------------------------------------------------------------ connections

    def admit(self, client: Client) -> None:
        """A new connection, or one that starts over (RESET): the default user, logged in if it needs no password."""
        client.account = self.default
        client.logged_in = self.default.nopass and self.default.enabled
        self.follow(client)

    def follow(self, client: Client) -> None:
        """Bring the connection's gate up to date with its user."""
        gate = client.gate & ~(GATE_AUTH | GATE_ACL)
        if not client.logged_in and not (self.default.nopass and self.default.enabled):
            gate |= GATE_AUTH
        if not client.account.unrestricted:
            gate |= GATE_ACL
        client.gate = gate

    def _changed(self, user: User) -> None:
        """The connections of a user follow; whether logging in is needed is the default user's to say, for all."""
        for client in self.server.clients():
            if user is self.default or client.account is user:
                self.follow(client)

    def authenticate(self, client: Client, name: bytes, password: bytes, command: bytes = b"AUTH") -> bool:
        """Log the connection in; False, and an entry in the log, when name or password is wrong."""
        user = self.users.get(name)
        digest = hashed(password)
        right = False
        for known in user.passwords if user else (digest[::-1],):  # as long for a name that is not there
            right |= hmac.compare_digest(digest, known)
        if user is None or not user.enabled or not (user.nopass or right):
            self._note(client, Reason.AUTH, self._context(client), command, name)
            return False
        client.account = user
        client.logged_in = True
        self.follow(client)
        return True

    def _expel(self, users: Iterable[User], by: Client | None) -> None:
        """Users are gone: so are their connections, the one that asked after its reply."""
        gone = {id(user) for user in users}
        for client in self.server.clients():
            if id(client.account) in gone:
                client.account = self.default
                client.logged_in = False
                self.follow(client)
                client.kill(after_reply=client is by)

    def _silence(self, old: User, new: User, by: Client | None) -> None:
        """Ends connections of a user that listen where the user may no longer."""
        if any(selector.all_channels for selector in new.selectors):
            return
        for client in self.server.clients():
            if client.account is old and not (
                all(any(s.allows_channel(name, True) for s in new.selectors) for name in client.patterns)
                and all(
                    any(s.allows_channel(name, False) for s in new.selectors)
                    for names in (client.channels, client.shard_channels)
                    for name in names
                )
            ):
                client.kill(after_reply=client is by)

    # ------------------------------------------------------------ permission

    def _context(self, client: Client) -> str:
        return "multi" if client.in_multi or client.in_exec else "toplevel"

    def check(
        self, client: Client, spec: Command, words: Sequence[bytes], context: str | None = None
    ) -> CommandError | None:
        """Why the connection must not run a call (name included; `spec` is the subcommand's, if it names one), or None.

        What is refused is logged. `context` is "lua" where a script asks; otherwise the connection tells.
        """
        denial = client.account.denies(spec, words)
        if denial is None:
            return None
        reason, at = denial
        what = spec.lower.encode() if reason is Reason.COMMAND else words[at]
        self._note(client, reason, context or self._context(client), what, client.account.name)
        if context == "lua":
            return Refused("ERR ACL failure in script: " + explained(reason, client.account, spec, what))
        if client.in_exec:
            return Refused(IN_EXEC + WHY_IN_EXEC[reason])
        return Refused("NOPERM " + explained(reason, client.account, spec, what))

    def allows(self, client: Client, spec: Command, words: Sequence[bytes]) -> bool:
        """The same question without a trace: redis.acl_check_cmd."""
        return client.account.denies(spec, words) is None

    def reads_every_key(self, client: Client, spec: Command, words: Sequence[bytes]) -> bool:
        """Whether the call may read keys that its words do not name."""
        return client.account.reads_every_key(spec, words)

    def dry_run(self, user: User, spec: Command, words: Sequence[bytes]) -> str | None:
        """ACL DRYRUN: the refusal in words, or None."""
        denial = user.denies(spec, words)
        return None if denial is None else explained(denial[0], user, spec, words[denial[1]], verbose=True)

    def _note(self, client: Client, reason: Reason, context: str, what: bytes, name: bytes) -> None:
        who: Any = client  # a ClientPort but for what is read-only in it
        line = client_line(who, time.time()).rstrip("\n")
        self.log.add(reason, context, what, name, line, self.server.config.acllog_max_len)

    # ------------------------------------------------------------ users

    def lines(self) -> list[bytes]:
        """Every user as a line of a file, by name."""
        return [b"user " + name + b" " + self.users[name].described() for name in sorted(self.users)]

    def config_lines(self) -> list[str]:
        """The same for CONFIG REWRITE; none where users have a file of their own."""
        if self.server.config.aclfile:
            return []
        return [spelled(line).decode("utf-8", "surrogateescape") for line in self.lines()]

    def set_user(self, name: bytes, rules: Sequence[bytes], by: Client | None = None) -> None:
        """ACL SETUSER, asked by a connection: all of the rules or none. CommandError."""
        if has_space(name):
            raise CommandError("ERR Usernames can't contain spaces or null characters")
        user = self.users.get(name)
        changed = User(name, self._all_channels)
        if user is not None:
            changed.become(user)
        try:
            words = merged(rules)
        except Unmatched as error:
            raise CommandError(f"ERR Unmatched parenthesis in acl selector starting at '{error}'.") from None
        for rule in words:
            try:
                changed.apply(rule, self._all_channels)
            except RuleError as error:
                told = show(rule.partition(b"\0")[0])
                raise CommandError(f"ERR Error in ACL SETUSER modifier '{told}': {error}") from None
        if user is None:
            self.users[name] = changed
            return
        self._silence(user, changed, by)
        user.become(changed)
        self._changed(user)

    def delete(self, names: Iterable[bytes], by: Client | None = None) -> int:
        """ACL DELUSER, asked by a connection: how many there were. Never the default user."""
        gone = [user for user in (self.users.pop(name, None) for name in names) if user is not None]
        self._expel(gone, by)
        return len(gone)

    def set_default_password(self) -> None:
        """requirepass is the default user's one password; empty asks for none."""
        password = self.server.config.requirepass.encode("utf-8", "surrogateescape")
        self.default.apply(b"resetpass")
        self.default.apply(b">" + password if password else b"nopass")
        self._changed(self.default)

    # ------------------------------------------------------------ files

    def load_at_start(self) -> bool:
        """The users of the configuration, or those of `aclfile`; False, and the reason in the log, when that fails."""
        config = self.server.config
        if config.aclfile and config.users:
            log.logger.warning(
                "Configuring Redis with users defined in redis.conf and at the same setting an ACL file path is "
                "invalid. This setup is very likely to lead to configuration errors and security holes, please define "
                "either an ACL file or declare users directly in your redis.conf, but not both."
            )
            return False
        if not self._load_configured(config.users):
            log.logger.warning("Critical error while loading ACLs. Exiting.")
            return False
        try:
            if config.aclfile:
                self.load()
        except CommandError as error:
            log.logger.warning("Aborting Redis startup because of ACL errors: %s", error.message.removeprefix("ERR "))
            return False
        return True

    def _load_configured(self, lines: Iterable[Sequence[str]]) -> bool:
        """`user` lines of the configuration, already split into words."""
        for line in lines:
            name, *rules = (word.encode("utf-8", "surrogateescape") for word in line)
            if has_space(name):
                log.logger.warning("Spaces not allowed in ACL usernames")
                return False
            user = self.users.setdefault(name, User(name, self._all_channels))
            rule = b""
            try:
                user.apply(b"reset", self._all_channels)
                for rule in merged(rules):
                    user.apply(rule, self._all_channels)
            except Unmatched as error:
                log.logger.warning("Unmatched parenthesis in acl selector starting at '%s'.", error)
                return False
            except RuleError as error:
                text = f"Error loading ACL rule '{show(rule)}' for the user named '{line[0]}': {error}"
                log.logger.warning("%s", text)
                return False
            if not user.enabled:
                log.notice(
                    "The user '%s' is disabled (there is no 'on' modifier in the user description). Make sure this is "
                    "not a configuration error.", line[0],
                )  # fmt: skip
        return True

    def load(self, by: Client | None = None) -> None:
        """ACL LOAD, asked by a connection: all users are the file's, or nothing changes. CommandError."""
        path = self._path()
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise CommandError(f"ERR Error loading ACLs, opening file '{path}': {error.strerror}") from None
        users, mistakes = self._parse(text, path)
        if mistakes:
            raise CommandError("ERR " + "".join(mistakes[:ERRORS_MAX]) + NO_CHANGE)
        old = [user for user in self.users.values() if user is not self.default]
        default = users.get(DEFAULT) or default_user()
        self._silence(self.default, default, by)
        self.default.become(default)
        self.users = {**users, DEFAULT: self.default}
        self._changed(self.default)
        self._expel(old, by)

    def _parse(self, text: bytes, path: str) -> tuple[Users, list[str]]:
        """A file's users, and what is wrong with it."""
        users: Users = {}
        mistakes: list[str] = []
        for number, raw in enumerate(text.split(b"\n"), 1):
            line = raw.strip(b" \t\r\n")
            if not line:
                continue
            word, *words = line.split(b" ")
            if word != b"user" or not words:
                mistakes.append(f"{path}:{number} should start with user keyword followed by the username. ")
                continue
            name = words[0]
            if has_space(name):
                mistakes.append(f"'{path}:{number}: username '{show(name)}' contains invalid characters. ")
            elif name in users:
                mistakes.append(f"WARNING: Duplicate user '{show(name)}' found on line {number}. ")
            else:
                users[name] = user = User(name, self._all_channels)
                mistakes += self._apply_line(user, words[1:], f"{path}:{number}: ")
        return users, mistakes

    def _apply_line(self, user: User, words: Sequence[bytes], where: str) -> list[str]:
        """One line of a file; its mistakes. Of syntax errors only the first is told, and never the rule, which may be
        a password."""
        try:
            rules = merged(words)
        except Unmatched:
            return [f"{where}Unmatched parenthesis in selector definition."]
        mistakes: list[str] = []
        told = False
        for rule in rules:
            rule = rule.strip(b"\t\r\n")
            try:
                user.apply(rule, self._all_channels)
            except RuleError as error:
                if error.unknown:
                    mistakes.append(f"{where}Error in applying operation '{show(rule)}': {error}. ")
                elif not told:
                    told = True
                    mistakes.append(f"{where}{error}. ")
        return mistakes

    def save(self) -> None:
        """ACL SAVE: the file is replaced whole or not at all. CommandError."""
        path = self._path()
        text = b"".join(line + b"\n" for line in self.lines()).decode("utf-8", "surrogateescape")
        try:
            write_durably(Path(path), text)
        except OSError as error:
            log.logger.warning("Writing ACL file for ACL SAVE: %s", error.strerror)
            raise CommandError(
                "ERR There was an error trying to save the ACLs. Please check the server logs for more information"
            ) from None

    def _path(self) -> str:
        path: str = self.server.config.aclfile
        if not path:
            raise CommandError(NO_FILE)
        return path
