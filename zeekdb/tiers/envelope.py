"""What stands beside a block's bytes in engines that others share: a header that says which block it is.

    magic 4 · version 1 · length of the fields 4, little-endian · the fields, msgpack · CRC-32 of all before it 4

A block's name in such an engine is `digest`. What clients call their models, salts and keys never becomes part of a
path, a key or a statement; the header has it, and whoever reads compares it with what was asked for.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import Final, NamedTuple

import msgpack

from zeekdb.tiers.tier import Meta, Name

MAGIC: Final = b"ZKBH"
VERSION: Final = 1
HEADER_MAX: Final = 64 << 10  # bytes; names are shorter
PREFIX: Final = struct.Struct("<4sBI")
CRC: Final = struct.Struct("<I")
CODINGS: Final = ("raw", "zstd", "fp16", "int8")
DIGEST_BYTES: Final = 16


class Damaged(Exception):
    """These bytes are no header, or not one of ours."""


class Sealed(NamedTuple):
    """A block as an engine keeps it."""

    meta: Meta  # of the block as it was put
    coding: str  # of the bytes that are stored, one of CODINGS
    stored_size: int  # bytes
    stored_checksum: int  # 64 bits, of the bytes that are stored
    plain_checksum: int  # of what they decode to: meta.checksum, unless the coding is lossy


def digest(name: Name | Meta) -> str:
    """32 hex digits that stand for a name: BLAKE2b over its parts, each behind its length."""
    parts = (name.model, name.salt, name.key)
    said = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return hashlib.blake2b(said, digest_size=DIGEST_BYTES).hexdigest()


def seal(sealed: Sealed) -> bytes:
    """The header. ValueError: the names are too long."""
    fields = msgpack.packb([*sealed.meta, *sealed[1:]])
    head: bytes = PREFIX.pack(MAGIC, VERSION, len(fields)) + fields
    if len(head) + CRC.size > HEADER_MAX:
        raise ValueError("a block's names are too long for a header")
    return head + CRC.pack(zlib.crc32(head))


def unseal(data: bytes | bytearray | memoryview) -> tuple[Sealed, int]:
    """(the header's fields, bytes of the header), of bytes that begin with one. Damaged."""
    if len(data) < PREFIX.size:
        raise Damaged("it is shorter than a header")
    magic, version, length = PREFIX.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise Damaged("it is no header, or one of another version")
    end = PREFIX.size + length
    if length > HEADER_MAX or len(data) < end + CRC.size:
        raise Damaged("the header is cut off")
    if CRC.unpack_from(data, end)[0] != zlib.crc32(memoryview(data)[:end]):
        raise Damaged("the header's checksum is wrong")
    try:
        fields = msgpack.unpackb(memoryview(data)[PREFIX.size : end])
        meta = Meta(*fields[: len(Meta._fields)])
        sealed = Sealed(meta, *fields[len(Meta._fields) :])
    except (ValueError, TypeError) as error:
        raise Damaged(f"the header can't be read: {error}") from None
    if not _is_sound(sealed):
        raise Damaged("the header makes no sense")
    return sealed, end + CRC.size


def _is_sound(sealed: Sealed) -> bool:
    """Whether fields have the types that their users rely on: a header may come from anybody who can write there."""
    meta = sealed.meta
    numbers = (meta.size, meta.checksum, meta.deadline, *sealed[2:])
    return (
        all(isinstance(part, bytes) for part in (meta.model, meta.salt, meta.key, meta.group))
        and all(isinstance(number, int) and 0 <= number < 1 << 64 for number in numbers)
        and isinstance(meta.codec, str)
        and sealed.coding in CODINGS
    )
