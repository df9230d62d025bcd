"""How a block lies in a shared Redis: keys and values, without I/O.

    PREFIX{digest}                            the block: header (envelope.py), tail, and the bytes if they fit one chunk
    PREFIX{digest}:checksum:coding:chunk:i    chunk i of a larger one
    PREFIX{digest}:lock                       who loads it from a colder tier now

    tail      kind 1 (0: the bytes follow, 1: they lie in chunks), bytes of a chunk 4, little-endian

The digest alone is hashed, so all of a block lies in one slot of a cluster. A chunk's key tells which bytes it belongs
to: chunks of two versions, codings or sizes of chunk cannot be mixed up, whoever writes at the same time. They are
written before the value that names them, so a put that was torn is no block; whatever is missing later (a server under
memory pressure evicts single keys) makes a miss. Chunks outlive their header by CHUNK_GRACE_MS. Where blocks have no
time to live, chunks have one until just before the head is written: what is torn goes by itself. (What two nodes leave
who replace a block at the same moment does not, there: that is for the server's eviction.)

Why chunks of 1 MiB: hiredis and asyncio grow a buffer for a value step by step, and from 2 MiB on get slower with its
size (`python bench/warm.py --chunks`); and an event loop that copies a value is busy for so long.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from zeekdb.tiers.envelope import CRC, DIGEST_BYTES, HEADER_MAX, PREFIX, Damaged, Sealed, seal, unseal

TAIL: Final = struct.Struct("<BI")
CHUNK_BYTES: Final = 1 << 20
CHUNK_LEAST: Final = 4 << 10
CHUNKS_MAX: Final = 1 << 13  # of a block
CHUNK_GRACE_MS: Final = 60_000
ORPHAN_MS: Final = 3_600_000  # how long chunks stay whose block has no time to live, until its head is written
HEAD_BYTES: Final = 512  # asked for first: enough for the header of a block with usual names
HEAD_MAX: Final = HEADER_MAX + TAIL.size
VALUE_MAX: Final = 64 << 20  # bytes that one key is believed to have
INLINE: Final = 0
CHUNKED: Final = 1


class Head(NamedTuple):
    """What the value of a block's key begins with."""

    sealed: Sealed
    size: int  # bytes of header and tail
    chunk_bytes: int  # 0: the bytes follow

    @property
    def chunks(self) -> int:
        """How many keys the bytes lie in beside this one."""
        return -(-self.sealed.stored_size // self.chunk_bytes) if self.chunk_bytes else 0


class Keys:
    """The keys of one prefix."""

    def __init__(self, prefix: bytes) -> None:
        if b"{" in prefix or b"}" in prefix:
            raise ValueError("a prefix with braces would decide the slot")
        self.prefix = prefix
        escaped = b"".join(b"\\%c" % byte if byte in b"*?[]\\" else b"%c" % byte for byte in prefix)
        self.pattern = escaped + b"{" + b"?" * 2 * DIGEST_BYTES + b"}"  # of blocks, for SCAN

    def block(self, digest: str) -> bytes:
        """Of a block."""
        return b"%b{%b}" % (self.prefix, digest.encode())

    def digest(self, key: bytes) -> str:
        """Of a block's key."""
        return key[len(self.prefix) + 1 : -1].decode()

    def lock(self, digest: str) -> bytes:
        """Of the right to load it."""
        return self.block(digest) + b":lock"

    def chunks(self, digest: str, head: Head) -> list[bytes]:
        """Of all of its chunks, in their order."""
        sealed = head.sealed
        stem = b"%b:%016x:%b:%d:" % (
            self.block(digest), sealed.stored_checksum, sealed.coding.encode(), head.chunk_bytes,
        )  # fmt: skip
        return [b"%b%d" % (stem, index) for index in range(head.chunks)]


def write_head(sealed: Sealed, chunk_bytes: int) -> tuple[Head, bytes]:
    """The head of a block whose bytes are split at `chunk_bytes`, or follow when they are no more than that; its bytes.

    ValueError: names too long, too many chunks.
    """
    is_chunked = sealed.stored_size > chunk_bytes
    data = seal(sealed) + TAIL.pack(CHUNKED if is_chunked else INLINE, chunk_bytes if is_chunked else 0)
    head = Head(sealed, len(data), chunk_bytes if is_chunked else 0)
    if head.chunks > CHUNKS_MAX:
        raise ValueError("a block of too many chunks")
    return head, data


def head_size(data: bytes | memoryview) -> int:
    """How many bytes of a value to ask for so that its head is whole, from some that it begins with."""
    if len(data) < PREFIX.size:
        return 0
    fields: int = PREFIX.unpack_from(data)[2]
    return min(PREFIX.size + fields + CRC.size + TAIL.size, HEAD_MAX)


def read_head(data: bytes | memoryview) -> Head:
    """The head that a value begins with. Damaged."""
    sealed, size = unseal(data)
    if len(data) < size + TAIL.size:
        raise Damaged("the value ends behind the header")
    kind, chunk_bytes = TAIL.unpack_from(data, size)
    head = Head(sealed, size + TAIL.size, chunk_bytes)
    if (kind == CHUNKED) != (chunk_bytes > 0) or kind not in (INLINE, CHUNKED):
        raise Damaged("the value has a tail that makes no sense")
    if (chunk_bytes and not CHUNK_LEAST <= chunk_bytes <= VALUE_MAX) or head.chunks > CHUNKS_MAX:
        raise Damaged("the value claims chunks that nobody writes")
    return head
