"""The records of a segment file.

    record    header, then its data, both padded with zeros to the grid of 4 KiB
    header    magic (4 bytes), CRC-32 of what follows and of the seed, length of the body (u32 little-endian), body
    body      a msgpack array: kind, batch, bytes of data, then what the kind says

Everything lies on the grid because direct I/O wants it so, and because that is what a reader can try when a header is
damaged: the next one stands on some later page. Such a search walks over data, which clients choose; so that no block
can pass for a record, the CRC is seeded with a random number of the directory's own, the segment's number and the
page. The same seed tells a record that was written to, or copied to, a place that is not its own.

`batch` counts the writes of a segment that were made safe together. After a crash only the last batch can be half
there: its records are the ones whose data is read and compared at start.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgpack

from zeekdb.tiers.tier import Meta

GRID: Final = 4096
PREFIX: Final = struct.Struct("<4sII")
MAGIC: Final = b"ZKV1"
HEADER_PAGES_MAX: Final = 16
BODY_MAX: Final = HEADER_PAGES_MAX * GRID - PREFIX.size
SEEDED: Final = struct.Struct("<QQ")
FORMAT: Final = 1
NUMBER_MAX: Final = (1 << 23) - 1  # of a segment; with the bits below a place stays under 2^59
PAGE_MAX: Final = (1 << 32) - 1


class Kind(IntEnum):
    """What a record is, and what its body holds after kind, batch and size."""

    SEGMENT = 0  # the first page of a file: format, the directory's nonce, the segment's number
    BLOCK = 1  # model, salt, key, checksum, deadline, group, codec
    TOMBSTONES = 2  # [model, salt, key] …: no earlier record of these blocks counts
    SUMMARY = 3  # CRC-32 of the data, a msgpack array: page, body, page, body … of the segment's records
    TRAILER = 4  # the summary's page; the last page of a file that was finished


class Record(NamedTuple):
    """A header that was read. Pages are counted from the file's beginning."""

    kind: Kind
    batch: int
    size: int  # bytes of data
    page: int
    pages: int  # of the header
    fields: list[Any]

    @property
    def data_page(self) -> int:
        """Where the data begins."""
        return self.page + self.pages

    @property
    def end(self) -> int:
        """The page after the record."""
        return self.page + self.pages + pages_of(self.size)

    @property
    def meta(self) -> Meta:
        """Of a BLOCK."""
        model, salt, key, checksum, deadline, group, codec = self.fields
        return Meta(model, salt, key, self.size, checksum, deadline, group, codec)


def pages_of(size: int) -> int:
    """How many pages so many bytes take."""
    return -(-size // GRID)


def header_pages(body: bytes) -> int:
    """How many pages a header with this body takes."""
    return pages_of(PREFIX.size + len(body))


def place_of(number: int, page: int, pages: int) -> int:
    """A record's place as one integer: segment, pages of its header, page."""
    return number << 36 | (pages - 1) << 32 | page


def split_place(place: int) -> tuple[int, int, int]:
    """(number, page, pages) again."""
    return place >> 36, place & PAGE_MAX, (place >> 32 & (HEADER_PAGES_MAX - 1)) + 1


def pack_body(kind: Kind, batch: int, size: int, *fields: Any) -> bytes:
    """A header's body."""
    packed: bytes = msgpack.packb([int(kind), batch, size, *fields])
    return packed


def pack_block(batch: int, meta: Meta) -> bytes:
    """The body of a block's header."""
    model, salt, key, size, checksum, deadline, group, codec = meta
    return pack_body(Kind.BLOCK, batch, size, model, salt, key, checksum, deadline, group, codec)


def unpack_body(body: bytes | memoryview, page: int) -> Record | None:
    """A record from its header's body; None: it makes no sense."""
    try:
        kind, batch, size, *fields = msgpack.unpackb(body)
        record = Record(Kind(kind), batch, size, page, header_pages(bytes(body)), fields)
        if size < 0 or (record.kind == Kind.BLOCK and len(fields) != len(Meta._fields) - 1):
            return None
        return record
    except (ValueError, TypeError, msgpack.UnpackException):
        return None


class Seed:
    """What the CRC of a header depends on beside its bytes."""

    __slots__ = ("nonce", "number")

    def __init__(self, nonce: bytes, number: int) -> None:
        self.nonce = nonce
        self.number = number

    def crc(self, page: int, data: bytes | memoryview) -> int:
        """The CRC-32 of a header's length and body."""
        return crc32(data, crc32(SEEDED.pack(self.number, page), crc32(self.nonce)))

    def write(self, into: memoryview, at: int, page: int, body: bytes) -> None:
        """Frame a body for this page. The rest of the pages in `into` is zeros already."""
        framed = len(body).to_bytes(4, "little") + body
        into[at : at + 8] = MAGIC + self.crc(page, framed).to_bytes(4, "little")
        into[at + 8 : at + 8 + len(framed)] = framed

    def body(self, data: memoryview, page: int) -> memoryview | None:
        """The body of the header that begins with these bytes; None: there is none, or it is damaged."""
        if len(data) < PREFIX.size:
            return None
        magic, crc, length = PREFIX.unpack_from(data)
        if magic != MAGIC or length > min(BODY_MAX, len(data) - PREFIX.size):
            return None
        if self.crc(page, data[8 : PREFIX.size + length]) != crc:
            return None
        return data[PREFIX.size : PREFIX.size + length]

    def read(self, data: memoryview, page: int) -> Record | None:
        """The header that begins with these bytes; None: there is none, or it is damaged."""
        body = self.body(data, page)
        return None if body is None else unpack_body(body, page)
