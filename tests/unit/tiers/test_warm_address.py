"""URLs of the warm tier."""

from __future__ import annotations

import pytest

from zeekdb.tiers.warm_address import SCHEMES, Address, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", Address("single", (("h", 6379),))),
        ("redis://h:1/2", Address("single", (("h", 1),), db=2)),
        ("redis://h?db=2", Address("single", (("h", 6379),), db=2)),
        ("redis://:p%40%2F%3A+@h", Address("single", (("h", 6379),), password="p@/:+")),
        ("redis://u%20u:p@[::1]:7/", Address("single", (("::1", 7),), username="u u", password="p")),
        ("redis://u@h?protocol=3", Address("single", (("h", 6379),), username="u", protocol=3)),
        ("unix:///run/a%20b.sock", Address("single", path="/run/a b.sock")),
        ("unix://:p@/s?db=3", Address("single", path="/s", password="p", db=3)),
        ("rediss://h", Address("single", (("h", 6379),), tls={})),
        (
            "rediss://h?ssl_ca_certs=/ca&ssl_check_hostname=no&ssl_cert_reqs=none",
            Address("single", (("h", 6379),), tls={
                "ssl_ca_certs": "/ca", "ssl_check_hostname": False, "ssl_cert_reqs": "none"}),
        ),
        ("redis+sentinel://a,b:2/svc", Address("sentinel", (("a", 26379), ("b", 2)), service="svc")),
        (
            "redis+sentinel://u:p@a:1,[::2]:3/s%2Fvc/4?sentinel_username=x&sentinel_password=a+b%26",
            Address("sentinel", (("a", 1), ("::2", 3)), "", "s/vc", 4, "u", "p", "x", "a+b&"),
        ),
        ("redis+cluster://a:1,b", Address("cluster", (("a", 1), ("b", 6379)))),
        ("rediss+cluster://u:p@a", Address("cluster", (("a", 6379),), username="u", password="p", tls={})),
    ],
)  # fmt: skip
def test_addresses(url: str, address: Address) -> None:
    found = parse(url)
    assert found == address
    assert (found.password, found.sentinel_password) == (address.password, address.sentinel_password)
    for secret in filter(None, (found.password, found.sentinel_password)):
        assert len(secret) < 3 or secret not in f"{found} {found!r}"


def test_what_is_shown_leads_there_again() -> None:
    for url in ("redis://h:1/2", "redis+sentinel://[::1]:1,b:2/svc/4", "redis+cluster://a:1,b:2", "unix:///s"):
        assert str(parse(url)) == url
    assert str(parse("rediss://user:password@h")) == "rediss://h:6379"


@pytest.mark.parametrize(
    "url",
    [
        "", "h:1", "http://u:secret@h", "redis://", "redis://u:secret@", "redis://u:secret@h:0", "redis://u:secret@h:x",
        "redis://u:secret@h:99999", "redis://u:secret@a,b", "redis://u:secret@h/x", "redis://u:secret@h/1/2",
        "redis://u:secret@h/1?db=2", "redis://u:secret@h?password=secret", "redis://h?secret", "redis://u:secret@h#x",
        "redis://u:secret@h?ssl_ca_certs=/secret", "redis://u:secret@h?sentinel_password=secret",
        "redis://u:secret@h?protocol=secret", "unix://", "unix://u:secret@host/path", "redis+sentinel://u:secret@a",
        "redis+sentinel://u:secret@a/", "redis+sentinel://u:secret@a/svc/1/2", "redis+cluster://u:secret@a/1",
        "redis+cluster://u:secret@a,/", "redis://u:secret@[::1", "redis+other://u:secret@h",
    ],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(url)
    assert "secret" not in f"{caught.value} {caught.value.__context__ if not caught.value.__suppress_context__ else ''}"


def test_all_schemes_are_known() -> None:
    assert {scheme.partition("+")[0] for scheme in SCHEMES} == {"redis", "rediss", "unix"}
