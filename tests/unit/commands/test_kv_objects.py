"""KV.URL: its words, and what it makes of the answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from zeekdb.commands.kv_objects import URL_S_DEFAULT, URL_S_MAX, kv_url
from zeekdb.errors import CommandError, Unavailable


class Desk:
    """The server's side of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answer: str | Exception | None = "https://b.example/p/blocks/ab/cd?X-Amz-Signature=1"
        tensors = SimpleNamespace(
            region=SimpleNamespace(reader=lambda model, salt: (model, salt)),
            object_url=self.object_url,
            defer_read=lambda client, work: work,
        )
        self.context: Any = SimpleNamespace(server=SimpleNamespace(tensors=tensors), client=None, deny_blocking=False)

    async def object_url(self, *arguments: Any) -> str | None:
        self.asked.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def __call__(self, *words: bytes) -> Any:
        return await kv_url(self.context, *words)


async def test_a_url() -> None:
    desk = Desk()
    assert await desk(b"m", b"k") == b"https://b.example/p/blocks/ab/cd?X-Amz-Signature=1"
    assert await desk(b"m", b"SALT", b"s", b"k", b"ttl", b"60") is not None
    assert await desk(b"m", b"SALT") is not None, "a key may be called SALT"
    assert desk.asked == [
        ((b"m", b""), b"k", URL_S_DEFAULT),
        ((b"m", b"s"), b"k", 60),
        ((b"m", b""), b"SALT", URL_S_DEFAULT),
    ]
    desk.answer = None
    assert await desk(b"m", b"k") is None


@pytest.mark.parametrize(
    "words",
    [(b"k", b"TTL"), (b"k", b"TTL", b"0"), (b"k", b"TTL", b"%d" % (URL_S_MAX + 1)), (b"k", b"TTL", b"x"),
     (b"k", b"EX", b"5"), (b"k", b"TTL", b"5", b"x"), (b"x" * 100_000,)],
)  # fmt: skip
async def test_words_that_make_no_sense(words: tuple[bytes, ...]) -> None:
    desk = Desk()
    with pytest.raises(CommandError, match=r"^ERR "):
        await desk(b"m", *words)
    assert not desk.asked


async def test_what_cannot_be_had() -> None:
    desk = Desk()
    desk.answer = Unavailable("kv-objects-url is a directory")
    with pytest.raises(CommandError, match=r"^ERR kv-objects-url is a directory$"):
        await desk(b"m", b"k")
    desk.context.deny_blocking = True
    with pytest.raises(CommandError, match="transaction"):
        await desk(b"m", b"k")
