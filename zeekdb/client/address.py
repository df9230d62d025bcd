"""Where a server listens and how to sign in there, out of one string."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

PORT_DEFAULT: Final = 6379


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address or the path of a Unix socket; `password` None: no AUTH."""

    host: str = ""
    port: int = PORT_DEFAULT
    path: str = ""  # of the Unix socket; empty: TCP
    user: str = ""
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """`redis://user:password@host:port`, `unix://user:password@/path`, or a bare path with a slash in it.

        User, password and path may be percent-encoded. ValueError for anything else.
        """
        if "://" not in text:
            if "/" not in text:
                raise ValueError("an address is redis://host:port, unix:///path, or a path")
            return cls(path=text)
        parts = urlsplit(text)
        user = unquote(parts.username or "")
        password = None if parts.password is None else unquote(parts.password)
        if parts.scheme == "unix":
            if parts.hostname or not parts.path:
                raise ValueError("an address of a Unix socket is unix:///path")
            return cls(path=unquote(parts.path), user=user, password=password)
        if parts.scheme != "redis":
            raise ValueError(f"no such kind of address: {parts.scheme}, there are redis and unix")
        return cls(parts.hostname or "localhost", parts.port or PORT_DEFAULT, "", user, password)

    def sign_in(self) -> list[bytes] | None:
        """The AUTH command, None where there is no password."""
        if self.password is None:
            return None
        return [b"AUTH", *([self.user.encode()] if self.user else []), self.password.encode()]

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"
