"""The families of error, and the reply texts that several commands share.

Three families: the client's mistakes (`CommandError`: an error reply, nothing else happens), the outside world's
(`Unavailable`: a disk, a tier; degrade, retry, report) and our own bugs (any other exception: the command fails, the
log gets the whole story, the data stays).
"""

from __future__ import annotations


class CommandError(Exception):
    """An error reply. The first word of the message is its code: `ERR`, `WRONGTYPE`, `NOAUTH` …"""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(CommandError):
    """The command did not run at all: its arity, a missing password, or no memory stood before it."""


class WrongType(CommandError):
    """The key holds a value of another type."""

    def __init__(self) -> None:
        super().__init__("WRONGTYPE Operation against a key holding the wrong kind of value")


class WrongArity(CommandError):
    """Too few or too many arguments."""

    def __init__(self, command: str) -> None:
        super().__init__(f"ERR wrong number of arguments for '{command}' command")


class SyntaxError_(CommandError):
    """Arguments that do not follow the command's grammar."""

    def __init__(self) -> None:
        super().__init__("ERR syntax error")


class NotInteger(CommandError):
    """A number was wanted that fits 64 bits."""

    def __init__(self) -> None:
        super().__init__("ERR value is not an integer or out of range")


class NotFloat(CommandError):
    """A floating-point number was wanted."""

    def __init__(self) -> None:
        super().__init__("ERR value is not a valid float")


class NoSuchKey(CommandError):
    """The key does not exist."""

    def __init__(self) -> None:
        super().__init__("ERR no such key")


class OutOfRange(CommandError):
    """An index or offset outside what the command takes."""

    def __init__(self, message: str = "ERR index out of range") -> None:
        super().__init__(message)


class Unavailable(Exception):
    """The disk, the network or a tier failed; the caller degrades and says so."""
