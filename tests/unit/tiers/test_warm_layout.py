"""Keys and values of the warm tier, and commands as bytes."""

from __future__ import annotations

from random import Random

import pytest

from zeekdb.tiers.envelope import HEADER_MAX, Damaged, Sealed, digest
from zeekdb.tiers.tier import Meta
from zeekdb.tiers.warm_client import COPIED_MAX, pack
from zeekdb.tiers.warm_layout import (
    CHUNK_LEAST,
    CHUNKS_MAX,
    HEAD_BYTES,
    TAIL,
    Head,
    Keys,
    head_size,
    read_head,
    write_head,
)

META = Meta(b"m", b"s", b"k", 10_000, 7)


def sealed(size: int, meta: Meta = META) -> Sealed:
    return Sealed(meta, "raw", size, 1, 1)


@pytest.mark.parametrize(("size", "chunks"), [(0, 0), (4096, 0), (4097, 2), (8192, 2), (8193, 3)])
def test_heads(size: int, chunks: int) -> None:
    head, data = write_head(sealed(size), CHUNK_LEAST)
    assert read_head(data) == read_head(data + b"more") == head
    assert (head.size, head.chunks) == (len(data), chunks)
    assert len(Keys(b"p:").chunks(digest(META), head)) == chunks
    for cut in range(len(data)):
        with pytest.raises(Damaged):
            read_head(data[:cut])


def test_a_long_head_says_how_long_it_is() -> None:
    _, data = write_head(sealed(5, META._replace(key=b"k" * 10_000)), CHUNK_LEAST)
    assert head_size(data[:HEAD_BYTES]) == len(data) > HEAD_BYTES
    assert head_size(b"") == 0
    assert head_size(b"\xff" * HEAD_BYTES) <= HEADER_MAX + TAIL.size, "whatever it says, no more is asked for"


def test_what_no_head_holds() -> None:
    with pytest.raises(ValueError, match="names"):
        write_head(sealed(5, META._replace(key=b"k" * HEADER_MAX)), CHUNK_LEAST)
    with pytest.raises(ValueError, match="chunks"):
        write_head(sealed(CHUNK_LEAST * CHUNKS_MAX + 1), CHUNK_LEAST)


@pytest.mark.parametrize("tail", [(2, 0), (0, 4096), (1, 0), (1, 1), (1, 1 << 31)])
def test_tails_that_nobody_writes(tail: tuple[int, int]) -> None:
    _, data = write_head(sealed(5000), CHUNK_LEAST)
    with pytest.raises(Damaged):
        read_head(data[: -TAIL.size] + TAIL.pack(*tail))


def test_keys() -> None:
    keys = Keys(b"a*b:")
    name = digest(META)
    assert keys.block(name) == b"a*b:{%b}" % name.encode()
    assert keys.digest(keys.block(name)) == name
    assert keys.lock(name).startswith(keys.block(name))
    assert keys.pattern == b"a\\*b:{" + b"?" * 32 + b"}"
    heads = [Head(Sealed(META, coding, 9000, checksum, 1), 0, chunk) for coding, checksum, chunk in
             (("raw", 1, 4096), ("zstd", 1, 4096), ("raw", 2, 4096), ("raw", 1, 8192))]  # fmt: skip
    chunks = [key for head in heads for key in keys.chunks(name, head)]
    assert len(set(chunks)) == len(chunks) == 11, "no chunk is another's"
    assert {key[: len(keys.block(name))] for key in chunks} == {keys.block(name)}, "one slot"
    with pytest.raises(ValueError, match="braces"):
        Keys(b"{x}")


def test_commands_as_bytes() -> None:
    random = Random(1)
    large = bytearray(random.randbytes(COPIED_MAX + 1))
    commands = [(b"GET", b"k"), (b"SET", b"", b"\r\n"), (b"SET", b"k", (b"head", large, b"", memoryview(b"tail")))]
    pieces = pack([*commands, (b"SET", b"k", memoryview(large).cast("H") if len(large) % 2 == 0 else large)])
    value = b"head" + large + b"tail"
    said = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n"
    said += b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%b\r\n" % (len(value), value)
    said += b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%b\r\n" % (len(large), large)
    assert b"".join(pieces) == said
    assert sum(isinstance(piece, memoryview) for piece in pieces) == 2
    large[0] ^= 1
    assert b"".join(pieces) != said, "what is large is sent from where it lies"
