"""URLs of other servers: they may hold passwords, which never leave this process but to those servers.

Shown (CONFIG GET, logs, errors, tables), a URL has `***` for each of its secrets. Text of drivers and engines may quote
a URL or one of its secrets: `scrub` takes them out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from zeekdb.config.units import ConfigError, Kind, quoted

HIDDEN: Final = "***"
EMBEDDED: Final = "embedded:"
SECRET_LEAST: Final = 3  # characters: to take out all of a shorter one would make text unreadable, not safe
# The part between the scheme and the last @ before the host, and parameters that say that they are secret.
USER_INFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/?#\s:@]*):(?P<password>[^/?#\s]*)@", re.IGNORECASE)
PARAMETER = re.compile(
    r"(?P<name>[?&;\s](?:[a-z0-9_-]*(?:password|passwd|secret|token|credential|signature|api[_-]?key|access[_-]?key|account[_-]?key"
    r"|sas[_-]?key|passfile)[a-z0-9_-]*|sig|pwd|key))=(?P<value>[^&;\s]+)",
    re.IGNORECASE,
)


def redacted(url: str) -> str:
    """The URL, or any text with URLs in it, with `***` for passwords and secret parameters."""
    shown = USER_INFO.sub(lambda found: f"{found['scheme']}{found['user']}:{HIDDEN}@", url)
    return PARAMETER.sub(lambda found: f"{found['name']}={HIDDEN}", shown)


def secrets_of(url: str) -> set[str]:
    """The secrets in a URL, as they stand there and decoded."""
    found = {match["password"] for match in USER_INFO.finditer(url)}
    found |= {match["value"] for match in PARAMETER.finditer(url)}
    return {each for secret in found for each in (secret, unquote(secret)) if len(each) >= SECRET_LEAST}


def scrubber(urls: Iterable[str]) -> Callable[[str], str]:
    """Takes the secrets of these URLs, and whatever looks like one, out of a text."""
    secrets = sorted({secret for url in urls for secret in secrets_of(url)}, key=len, reverse=True)

    def scrub(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        return redacted(text)

    return scrub


class Url(Kind):
    """A URL of one of the schemes, `embedded:DIR` where that is one of them, or nothing."""

    def __init__(self, *schemes: str) -> None:
        self.schemes = schemes

    def parse(self, arguments: Sequence[str]) -> str:
        url = arguments[0]
        if not url:
            return url
        if any(ord(c) < 33 for c in url):
            raise ConfigError("a URL has no spaces or control characters")
        scheme = url.split(":", 1)[0] if ":" in url else ""
        if scheme not in self.schemes:
            raise ConfigError(f"argument must be a URL: {', '.join(self.schemes)}")
        try:
            parts = urlsplit(url)
            if "," not in parts.netloc:  # several hosts: whoever connects looks at each
                _ = parts.port
        except ValueError as error:
            raise ConfigError(f"argument is no URL: {redacted(str(error))}") from None
        if scheme == "embedded" and not url.removeprefix(EMBEDDED):
            raise ConfigError("argument must name a folder: embedded:DIR")
        return url

    def show(self, value: Any) -> str:
        return redacted(value)

    def lines(self, value: Any) -> list[str]:
        return [quoted(value)]

    def describe(self) -> str:
        return ", ".join(self.schemes)
