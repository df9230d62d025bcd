"""Where a shared server is: the URLs of the warm tier, read without its client library.

    redis://[user:password@]host[:port][/db]      rediss://… over TLS
    unix://[user:password@]/path/to/socket[?db=n]
    redis+sentinel://[user:password@]h1:p1,h2:p2/service[/db]      rediss+sentinel://…
    redis+cluster://[user:password@]h1:p1,h2:p2                    rediss+cluster://…

Users, passwords, hosts and paths are percent-decoded. Behind `?` may stand `db`, `protocol` (2 or 3), what TLS needs
(`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` files; `ssl_cert_reqs` required, optional or none; `ssl_check_hostname`),
and for the sentinels, which have users of their own, `sentinel_username` and `sentinel_password`; user and password
before the hosts are those of the servers. Messages of errors name parts of a URL, never what stands there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
TEXT_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
SCHEMES: Final = (
    "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster",
)  # fmt: skip

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart. `repr` shows no secrets."""

    mode: str  # single, sentinel, cluster
    hosts: tuple[Host, ...] = ()  # of the server, the sentinels, or some of the cluster's nodes
    path: str = ""  # of a Unix socket, then there are no hosts
    service: str = ""  # what the sentinels call the primary
    db: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    tls: dict[str, object] | None = None  # options of TLS; None: none
    protocol: int = 2

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        places = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        scheme = ("redis" if self.tls is None else "rediss") + ("" if self.mode == "single" else f"+{self.mode}")
        return (
            f"{scheme}://{places}" + (f"/{self.service}" if self.service else "") + (f"/{self.db}" if self.db else "")
        )


def parse(url: str) -> Address:
    """The address of a URL. ValueError, which says which part is wrong and shows none of it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the URL's hosts are not well formed") from None
    base, _, mode = parts.scheme.partition("+")
    if parts.scheme not in SCHEMES:
        raise ValueError(f"the URL's scheme is none of {', '.join(SCHEMES)}")
    if parts.fragment:
        raise ValueError("the URL has a fragment (a # in a password is written %23)")
    login, at, places = parts.netloc.rpartition("@")
    username, _, password = login.partition(":") if at else ("", "", "")
    options = _options(parts.query)
    db: str = options.pop("db", "")
    tls: dict[str, object] | None = None
    given: dict[str, str] = {
        name: options.pop(name) for name in (*TEXT_OPTIONS, "ssl_check_hostname") if name in options
    }
    if base == "rediss":
        tls = {**given}
        if "ssl_check_hostname" in given:
            tls["ssl_check_hostname"] = given["ssl_check_hostname"].lower() in ("yes", "true", "1")
    elif given:
        raise ValueError("the URL has options of TLS, and its scheme is not rediss")
    sentinel_username, sentinel_password = (options.pop(f"sentinel_{name}", "") for name in ("username", "password"))
    if (sentinel_username or sentinel_password) and mode != "sentinel":
        raise ValueError("the URL has options of sentinels, and its scheme is not redis+sentinel")
    protocol = options.pop("protocol", "2")
    if protocol not in ("2", "3"):
        raise ValueError("the URL's protocol is neither 2 nor 3")
    if options:
        raise ValueError(f"the URL has an unknown option {min(options)!r}")
    path, service = "", ""
    hosts: tuple[Host, ...] = ()
    if base == "unix":
        if places or not parts.path:
            raise ValueError("the URL of a Unix socket is unix:///path")
        path = unquote(parts.path)
    else:
        hosts = tuple(_host(place, SENTINEL_PORT if mode == "sentinel" else PORT) for place in places.split(","))
        steps = [unquote(step) for step in parts.path.split("/")[1:]]
        if mode == "sentinel":
            if not steps or not steps[0]:
                raise ValueError("the URL names no service: redis+sentinel://host:port/service")
            service = steps.pop(0)
        if len(steps) > 1 or (steps and steps[0] and db):
            raise ValueError("the URL's path is not that of a database")
        db = steps[0] if steps and steps[0] else db
    if (db and not db.isdecimal()) or (mode == "cluster" and db.strip("0")):
        raise ValueError("the URL's database is not a number, or not 0 in a cluster")
    if not mode and len(hosts) > 1:
        raise ValueError("the URL has several hosts, and its scheme is neither +sentinel nor +cluster")
    return Address(
        mode or "single", hosts, path, service, int(db or 0), unquote(username), unquote(password),
        sentinel_username, sentinel_password, tls, int(protocol),
    )  # fmt: skip


def _options(query: str) -> dict[str, str]:
    """What stands behind the `?`. Not a form's rules: a + is a +."""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    if not all(is_given for _, is_given, _ in pairs):
        raise ValueError("the URL's options are not name=value")
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _host(place: str, port: int) -> Host:
    """One of the hosts: name, name:port, [IPv6], [IPv6]:port."""
    if place.startswith("["):
        name, _, rest = place[1:].partition("]")
        digits = rest.removeprefix(":")
    else:
        name, _, digits = place.partition(":")
    if not name or (digits and not (digits.isdecimal() and 0 < int(digits) < 65536)):
        raise ValueError("one of the URL's hosts is not host:port")
    return unquote(name), int(digits) if digits else port
