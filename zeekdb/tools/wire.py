"""A plain connection to a server for the tools: RESP2, pipelined, in blocking calls.

Tools send payloads of any size and read a replication stream, which client libraries do not offer; what they need of
the protocol is a page long, so they bring it themselves and work where no client library is installed.
"""

from __future__ import annotations

import io
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from zeekdb.tools.console import ToolError, UsageError

PORT: Final = 6379
CONNECT_S: Final = 10.0
ANSWER_S: Final = 60.0  # between two pieces of an answer
DEPTH_MAX: Final = 64  # of arrays in arrays
PASSWORD_VARIABLE: Final = "REDISCLI_AUTH"  # redis-cli's own: a password on the command line is seen by all


class Failure(Exception):
    """An error reply; inside arrays it stands as a value."""


def encode(*words: bytes | str | int) -> bytes:
    """A command as an array of bulk strings."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n%b" % (len(parts), b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))


@dataclass(frozen=True)
class Address:
    """Where a server is, and as whom one comes."""

    host: str = ""
    port: int = 0
    path: str = ""  # of a Unix socket
    user: str = ""
    password: str = ""
    tls: bool = False
    db: int | None = None

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, user: str = "", password: str = "") -> Address:
        """HOST:PORT, PORT, the path of a Unix socket, or redis[s]://[user[:password]@]host[:port][/db]. UsageError."""
        if is_url(text):
            return cls._parse_url(text, user, password)
        if "/" in text:
            return cls(path=text, user=user, password=password)
        host, _, port = text.rpartition(":")
        if not port.isdigit():
            if ":" in text:
                raise UsageError(f"{text!r} is no address: HOST:PORT, a socket's path, or a redis:// URL")
            host, port = text, str(PORT)
        return cls(host.strip("[]") or "127.0.0.1", int(port), user=user, password=password)

    @classmethod
    def login(cls, text: str, user: str, password: str) -> Address:
        """The same, with the password of the environment where none is given. UsageError."""
        address = cls.parse(text, user, password)
        return address if address.password else replace(address, password=os.environ.get(PASSWORD_VARIABLE, ""))

    @classmethod
    def _parse_url(cls, text: str, user: str, password: str) -> Address:
        try:
            url = urlsplit(text)
            port = url.port or PORT
        except ValueError as error:
            raise UsageError(f"not a URL of a server: {error}") from None
        user = unquote(url.username or "") or user
        password = unquote(url.password or "") or password
        if url.scheme in ("unix", "redis+unix"):
            return cls(path=unquote(url.path), user=user, password=password)
        db = url.path.strip("/")
        if db and not db.isdigit():
            raise UsageError(f"{db!r} in the URL is no database")
        tls = url.scheme == "rediss"
        return cls(url.hostname or "127.0.0.1", port, "", user, password, tls, int(db) if db else None)


def is_url(text: str) -> bool:
    """Whether it names a server, not a file."""
    return text.partition("://")[0] in ("redis", "rediss", "unix", "redis+unix") and "://" in text


class Link:
    """A connection. All methods raise ToolError when it cannot be had or breaks, Failure for an error reply."""

    def __init__(self, address: Address, timeout_s: float = ANSWER_S) -> None:
        self.address = address
        try:
            self.socket = self._connect(address, timeout_s)
        except OSError as error:
            raise ToolError(f"cannot connect to {address}: {error.strerror or error}") from None
        self.file = cast(io.BufferedReader, self.socket.makefile("rb", buffering=1 << 18))
        if address.password:
            words = [word for word in (address.user, address.password) if word]
            try:
                self("AUTH", *words)
            except Failure as error:
                if "without any password" in str(error):  # none is wanted
                    return
                self.close()
                raise ToolError(f"{address} refuses the login: {error}") from None

    @staticmethod
    def _connect(address: Address, timeout_s: float) -> socket.socket:
        if address.path:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            link.settimeout(timeout_s)
            link.connect(address.path)
            return link
        link = socket.create_connection((address.host, address.port), CONNECT_S)
        link.settimeout(timeout_s)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls:
            link = ssl.create_default_context().wrap_socket(link, server_hostname=address.host)
        return link

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Harmless when it is closed."""
        self.file.close()
        self.socket.close()

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine: a connection to oneself has the same address at both ends."""
        if self.socket.family == socket.AF_UNIX:
            return True
        return bool(self.socket.getsockname()[0] == self.socket.getpeername()[0])

    # ------------------------------------------------------------ asking

    def __call__(self, *words: bytes | str | int) -> Any:
        """One command, one reply."""
        self.send(encode(*words))
        reply = self.read()
        if isinstance(reply, Failure):
            raise reply
        return reply

    def pipeline(self, commands: Iterable[tuple[bytes | str | int, ...]]) -> list[Any]:
        """All commands at once, and their replies; errors are values."""
        requests = [encode(*command) for command in commands]
        self.send(b"".join(requests))
        return self.read_many(len(requests))

    def send(self, data: bytes | memoryview) -> None:
        """Exactly these bytes."""
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise ToolError(f"the connection to {self.address} broke: {error.strerror or error}") from None

    def read_many(self, count: int) -> list[Any]:
        """So many replies; errors are values."""
        return [self.read() for _ in range(count)]

    def read(self) -> Any:
        """The next reply: str (a status), int, bytes, None, list or Failure."""
        try:
            return self._read(0)
        except OSError as error:
            raise ToolError(f"the connection to {self.address} broke: {error.strerror or error}") from None

    def read_line(self) -> bytes:
        """A line without its end."""
        try:
            line = self.file.readline(1 << 16)
        except OSError as error:
            raise ToolError(f"the connection to {self.address} broke: {error.strerror or error}") from None
        if not line.endswith(b"\n"):
            raise ToolError(f"{self.address} closed the connection")
        return line.rstrip(b"\r\n")

    def read_some(self, most: int) -> bytes:
        """Up to so many bytes, at least one."""
        try:
            data = self.file.read1(most)
        except OSError as error:
            raise ToolError(f"the connection to {self.address} broke: {error.strerror or error}") from None
        if not data:
            raise ToolError(f"{self.address} closed the connection")
        return data

    def _read(self, depth: int) -> Any:
        line = self.read_line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode("utf-8", "replace")
        if kind == b"-":
            return Failure(rest.decode("utf-8", "replace"))
        try:
            n = int(rest)
        except ValueError:
            raise ToolError(f"{self.address} does not speak Redis's protocol: {line[:40]!r}") from None
        if kind == b":":
            return n
        if kind == b"$":
            if n < 0:
                return None
            data = self.file.read(n + 2)
            if len(data) != n + 2:
                raise ToolError(f"{self.address} closed the connection")
            return data[:-2]
        if kind == b"*" and depth < DEPTH_MAX:
            return None if n < 0 else [self._read(depth + 1) for _ in range(n)]
        raise ToolError(f"{self.address} does not speak Redis's protocol: {line[:40]!r}")

    # ------------------------------------------------------------ what tools ask for

    def info(self, section: str = "") -> dict[str, str]:
        """INFO's fields. ToolError when it is not allowed."""
        try:
            text = self("INFO", *([section] if section else [])).decode("utf-8", "replace")
        except Failure as error:
            raise ToolError(f"{self.address} refuses INFO: {error}") from None
        pairs = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: value.strip() for name, _, value in pairs}

    def config(self, name: str) -> str:
        """A directive; "" where there is none or CONFIG is not allowed."""
        try:
            reply = self("CONFIG", "GET", name)
        except Failure:
            return ""
        return reply[1].decode("utf-8", "surrogateescape") if reply else ""

    def key_counts(self) -> dict[int, int]:
        """How many keys each database has."""
        counts = {}
        for name, value in self.info("keyspace").items():
            if name.startswith("db") and name[2:].isdigit():
                fields = dict(part.partition("=")[::2] for part in value.split(","))
                counts[int(name[2:])] = int(fields.get("keys", 0))
        return counts
