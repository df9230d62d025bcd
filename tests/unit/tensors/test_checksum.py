"""The checksum of blocks: what it must tell apart, how pieces add up, and that it stays what files already hold."""

from __future__ import annotations

import random

import numpy as np
import pytest

from zeekdb.hot.checksum import Sum, checksum

# These stand in files. Made by the definition at the head of checksum.pyx, in Python's integers (see `by_definition`).
KNOWN = {
    b"": 0x03F582A7E683DAAF,
    b"a": 0x4867779278750A24,
    b"zeekdb": 0x8424E3D22BBD1EDF,
    bytes(128): 0xFAF9AA5FA47127FC,
    bytes(range(256)): 0x52CD555B80603E34,
    bytes(range(251)) * 41: 0x6D2FBD0B280986F4,
}

WORD = (1 << 64) - 1


def splitmix64(counter: int) -> int:
    z = counter * 0x9E3779B97F4A7C15 & WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31


def by_definition(data: bytes) -> int:
    """checksum.pyx's docstring, word for word."""

    def fold(a: int, b: int) -> int:
        return (a * b >> 64) ^ (a * b & WORD)

    k = [splitmix64(i) for i in range(1, 18)]
    lanes = k[8:16]
    padded = data + bytes(-len(data) % 128)
    for at in range(0, len(padded), 128):
        for i in range(8):
            x = int.from_bytes(padded[at + 16 * i : at + 16 * i + 8], "little")
            y = int.from_bytes(padded[at + 16 * i + 8 : at + 16 * i + 16], "little")
            lanes[i] = fold(x ^ k[i], y ^ lanes[i])
    total = len(data) * k[16] & WORD
    for i in range(8):
        total = fold(total ^ lanes[i], k[i]) + lanes[i] & WORD
    total ^= total >> 32
    total = total * k[16] & WORD
    return total ^ total >> 29


@pytest.mark.parametrize("data", KNOWN, ids=[str(len(data)) for data in KNOWN])
def test_known_answers(data: bytes) -> None:
    assert checksum(data) == KNOWN[data] == by_definition(data)


@pytest.mark.parametrize("length", [*range(0, 300, 7), 127, 128, 129, 255, 256, 257, 1000, 4096])
def test_it_is_what_the_definition_says(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert checksum(data) == by_definition(data)


def test_any_split_equals_one_piece() -> None:
    chance = random.Random(3)
    for _ in range(500):
        data = chance.randbytes(chance.choice((0, 1, 100, 128, 129, 1000, 5000)))
        parts = Sum()
        at = 0
        while at < len(data):
            n = chance.choice((1, 2, 127, 128, 129, 300, 4000))
            parts.update(data[at : at + n])
            at += n
            assert parts.value() == checksum(data[:at])
        assert parts.value() == checksum(data)


def test_every_flipped_bit_changes_it() -> None:
    chance = random.Random(4)
    for length in (16, 28, 1000, 100_000):
        data = bytearray(chance.randbytes(length))
        whole = checksum(data)
        for _ in range(2500):
            bit = chance.randrange(8 * length)
            data[bit >> 3] ^= 1 << (bit & 7)
            assert checksum(data) != whole, (length, bit)
            data[bit >> 3] ^= 1 << (bit & 7)
        assert checksum(data) == whole


def test_flipped_bits_of_zeroes_change_it() -> None:
    """Blocks may be mostly zeroes, where a product could lose what it is multiplied by."""
    data = bytearray(512)
    sums = {checksum(data)}
    for bit in range(8 * len(data)):
        data[bit >> 3] ^= 1 << (bit & 7)
        sums.add(checksum(data))
        data[bit >> 3] ^= 1 << (bit & 7)
    assert len(sums) == 8 * len(data) + 1


def test_zeroes_at_the_end_change_it() -> None:
    for start in (b"", b"x", bytes(128), bytes(1000)):
        assert len({checksum(start + bytes(n)) for n in range(600)}) == 600


def test_order_changes_it() -> None:
    chance = random.Random(5)
    pieces = [chance.randbytes(128) for _ in range(2)]
    assert checksum(pieces[0] + pieces[1]) != checksum(pieces[1] + pieces[0])
    halves = [chance.randbytes(16) for _ in range(8)]
    assert checksum(b"".join(halves)) != checksum(b"".join(halves[::-1]))


def test_its_bits_are_even() -> None:
    """Each bit of the sum is set in about half of the sums of short counters."""
    sums = np.array([checksum(i.to_bytes(4, "little")) for i in range(20_000)], dtype=np.uint64)
    for bit in range(64):
        share = float(np.mean((sums >> np.uint64(bit)) & np.uint64(1)))
        assert 0.48 < share < 0.52, bit
    assert len(set(sums.tolist())) == len(sums)


def test_any_buffer_in_one_piece() -> None:
    array = np.arange(1000, dtype=np.float32)
    assert checksum(array) == checksum(array.tobytes()) == checksum(memoryview(array).cast("B"))
    with pytest.raises(ValueError):
        checksum(array[::2])
    with pytest.raises(ValueError):
        Sum().update(array[::2])
