"""Values in encodings that ZeekDB reads and never writes: ziplists, zipmaps, plain lists, scores as text …"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from zeekdb.hot.rdb import encode_length, encode_string

INT_MAX = (1 << 63) - 1


def ziplist(items: list[bytes]) -> bytes:
    """Redis's packed list before 7.0."""
    body, before, tail = b"", 0, 10
    for item in items:
        tail = 10 + len(body)
        entry = (bytes([before]) if before < 254 else b"\xfe" + struct.pack("<I", before)) + _ziplist_item(item)
        body += entry
        before = len(entry)
    return struct.pack("<IIH", 11 + len(body), tail, len(items)) + body + b"\xff"


def _ziplist_item(item: bytes) -> bytes:
    if item.isdigit() and len(item) < 19 and (item == b"0" or item[0] != 48):
        number = int(item)
        if number <= 12:
            return bytes([0xF1 + number])
        for code, size in ((0xFE, 1), (0xC0, 2), (0xF0, 3), (0xD0, 4), (0xE0, 8)):
            if number < 1 << (8 * size - 1):
                return bytes([code]) + number.to_bytes(size, "little")
    if len(item) < 64:
        return bytes([len(item)]) + item
    if len(item) < 16384:
        return struct.pack(">H", 0x4000 | len(item)) + item
    return b"\x80" + struct.pack(">I", len(item)) + item


def listpack(items: list[bytes | int]) -> bytes:
    """Redis's packed list; integers in their shortest form."""
    body = b""
    for item in items:
        entry = _listpack_int(item) if isinstance(item, int) else _listpack_text(item)
        body += entry + _back_length(len(entry))
    return struct.pack("<IH", 7 + len(body), len(items)) + body + b"\xff"


def _listpack_int(number: int) -> bytes:
    if 0 <= number <= 127:
        return bytes([number])
    if -4096 <= number <= 4095:
        return struct.pack(">H", 0xC000 | (number & 0x1FFF))
    for code, size in ((0xF1, 2), (0xF2, 3), (0xF3, 4), (0xF4, 8)):
        if -(1 << (8 * size - 1)) <= number < 1 << (8 * size - 1):
            return bytes([code]) + number.to_bytes(size, "little", signed=True)
    raise ValueError(number)


def _listpack_text(text: bytes) -> bytes:
    if len(text) < 64:
        return bytes([0x80 | len(text)]) + text
    if len(text) < 4096:
        return struct.pack(">H", 0xE000 | len(text)) + text
    return b"\xf0" + struct.pack("<I", len(text)) + text


def _back_length(size: int) -> bytes:
    limits = (127, 16382, 2097150, 268435454)
    count = next((at + 1 for at, most in enumerate(limits) if size <= most), 5)
    digits = [size >> (7 * place) & 127 for place in range(count)]  # the lowest comes last
    return bytes([digits[-1], *(digit | 128 for digit in reversed(digits[:-1]))])


def zipmap(pairs: list[tuple[bytes, bytes]], spare: int = 0) -> bytes:
    """Redis's packed hash before 2.6; `spare` bytes unused behind every value."""

    def size(text: bytes) -> bytes:
        return bytes([len(text)]) if len(text) < 254 else b"\xfe" + struct.pack("<I", len(text))

    body = b"".join(size(f) + f + size(v) + bytes([spare]) + v + bytes(spare) for f, v in pairs)
    return bytes([min(len(pairs), 254)]) + body + b"\xff"


def old_value(dice: Random) -> bytes:
    """The type and value of a sound collection in some such encoding."""
    names = list(dict.fromkeys(_text(dice) for _ in range(dice.choice((1, 2, 5, 9, 40)))))
    makers: list[Callable[[Random, list[bytes]], bytes]] = [
        _list, _list_ziplist, _quicklist, _set, _set_listpack, _hash, _hash_ziplist, _hash_zipmap, _zset, _zset_ziplist,
    ]  # fmt: skip
    return dice.choice(makers)(dice, names)


def _text(dice: Random) -> bytes:
    if dice.random() < 0.4:
        return b"%d" % dice.getrandbits(dice.choice((3, 7, 15, 23, 31, 62)))
    return bytes(dice.choices(range(256), k=dice.choice((0, 1, 5, 20, 63, 64, 253, 254, 300))))


def _strings(items: list[bytes]) -> bytes:
    return b"".join(encode_string(item) for item in items)


def _list(_: Random, names: list[bytes]) -> bytes:
    return b"\x01" + encode_length(len(names)) + _strings(names)


def _list_ziplist(_: Random, names: list[bytes]) -> bytes:
    return b"\x0a" + encode_string(ziplist(names))


def _quicklist(dice: Random, names: list[bytes]) -> bytes:
    nodes = [names[at : at + 5] for at in range(0, len(names), 5)]
    return b"\x0e" + encode_length(len(nodes)) + _strings([ziplist(node) for node in nodes])


def _set(_: Random, names: list[bytes]) -> bytes:
    return b"\x02" + encode_length(len(names)) + _strings(names)


def _set_listpack(_: Random, names: list[bytes]) -> bytes:
    return b"\x14" + encode_string(listpack(list(names)))


def _hash(dice: Random, names: list[bytes]) -> bytes:
    return b"\x04" + encode_length(len(names)) + _strings([text for name in names for text in (name, _text(dice))])


def _hash_ziplist(dice: Random, names: list[bytes]) -> bytes:
    return b"\x0d" + encode_string(ziplist([text for name in names for text in (name, _text(dice))]))


def _hash_zipmap(dice: Random, names: list[bytes]) -> bytes:
    return b"\x09" + encode_string(zipmap([(name, _text(dice)) for name in names], dice.choice((0, 0, 3))))


def _zset(dice: Random, names: list[bytes]) -> bytes:
    scores = [dice.choice((b"\xfe", b"\xff", b"\x011", b"\x04-2.5", b"\x051e300")) for _ in names]
    scored = [encode_string(name) + score for name, score in zip(names, scores, strict=True)]
    return b"\x03" + encode_length(len(names)) + b"".join(scored)


def _zset_ziplist(dice: Random, names: list[bytes]) -> bytes:
    scored = sorted((dice.choice((-1.5, 0.0, 2.0, 1e10)), name) for name in names)
    return b"\x0c" + encode_string(ziplist([text for score, name in scored for text in (name, b"%.17g" % score)]))
