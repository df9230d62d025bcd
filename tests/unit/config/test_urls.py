"""Secrets in URLs stay out of whatever is shown."""

from __future__ import annotations

import pytest

from zeekdb.config.config import Config
from zeekdb.config.file import FileError, load_text
from zeekdb.config.units import ConfigError
from zeekdb.config.urls import Url, redacted, scrubber, secrets_of

SECRET = "s3cr3t-p%40ss"
URLS = [
    f"redis://:{SECRET}@host:6379/0",
    f"redis+sentinel://user:{SECRET}@h1:1,h2:2/main/0",
    f"postgresql://writer:{SECRET}@host/db?sslmode=require",
    f"postgresql://host/db?user=u&password={SECRET}",
    f"s3://bucket/prefix?aws_secret_access_key={SECRET}&region=x",
    f"s3://bucket/prefix?secret={SECRET}",
    f"az://container?account_key={SECRET}",
    f"https://host:6333?api_key={SECRET}",
    f"https://host/object?X-Amz-Signature={SECRET}&X-Amz-Expires=60",
]


@pytest.mark.parametrize("url", URLS)
def test_no_secret_is_shown(url: str) -> None:
    assert SECRET not in redacted(url)
    assert "host" in redacted(url) or "h1" in redacted(url) or "bucket" in redacted(url) or "container" in redacted(url)
    assert {SECRET, "s3cr3t-p@ss"} <= secrets_of(url)
    scrub = scrubber([url])
    for text in (url, f"cannot connect to {url}", "password s3cr3t-p@ss is wrong", f"wrong: {SECRET}."):
        assert SECRET not in scrub(text)
        assert "s3cr3t-p@ss" not in scrub(text)


@pytest.mark.parametrize("url", ["redis://host:6379/0", "file:///var/blocks", "embedded:/var/lib", "memory:", "s3://b/p?region=x"])
def test_what_is_no_secret_stays(url: str) -> None:
    assert redacted(url) == url
    assert not secrets_of(url)


def test_a_password_with_an_at_sign() -> None:
    assert redacted("redis://u:a@b@host/0") == "redis://u:***@host/0"


def test_urls_are_checked() -> None:
    kind = Url("redis", "embedded")
    assert kind.parse(["redis://h:1"]) == "redis://h:1"
    assert kind.parse([""]) == ""
    for wrong in ("http://h", "redis", "redis://h:port", "redis://a b", "embedded:", "redis://[::1"):
        with pytest.raises(ConfigError):
            kind.parse([wrong])


def test_errors_hide_secrets() -> None:
    with pytest.raises(ConfigError) as error:
        Url("redis").parse(["redis://:hunter2@[::1"])
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "line",
    ["kv-warm-url redis://u:topsecret@[bad", 'kv-warm-url "redis://u:topsecret@[bad"', "requirepass topsecret more"],
)
def test_lines_that_cannot_be_read_are_shown_without_secrets(line: str) -> None:
    with pytest.raises(FileError) as error:
        load_text(Config(), line)
    assert "topsecret" not in str(error.value)
    assert line.split()[0] in str(error.value)
