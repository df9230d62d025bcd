"""Fuzzes HyperLogLog strings, whole and damaged, against a plain Python reading of the format.

    python -m tests.fuzz.sketches --seed 7 --seconds 20
"""

from __future__ import annotations

import argparse
import faulthandler
import time
from random import Random

from zeekdb.errors import CommandError
from zeekdb.hot import hyperloglog

REGISTERS = 16384
HEADER = 16
DENSE_SIZE = 12304
MASK = (1 << 64) - 1


def murmur(data: bytes) -> int:
    """MurmurHash64A with Redis's seed."""
    m = 0xC6A4A7935BD1E995
    h = 0xADC83B19 ^ (len(data) * m & MASK)
    whole = len(data) & ~7
    for at in range(0, whole, 8):
        k = int.from_bytes(data[at : at + 8], "little") * m & MASK
        k = (k ^ k >> 47) * m & MASK
        h = (h ^ k) * m & MASK
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & MASK
    h = (h ^ h >> 47) * m & MASK
    return h ^ h >> 47


def place(element: bytes) -> tuple[int, int]:
    """(register, value) of an element."""
    h = murmur(element)
    rest = h >> 14 | 1 << 50
    return h & (REGISTERS - 1), (rest & -rest).bit_length()


def read(value: bytes) -> list[int] | None:
    """The registers of a string that has a valid header, None when its runs are not 16384 registers."""
    if value[4] == 0:
        bits = int.from_bytes(value[HEADER:], "little")
        return [bits >> 6 * index & 63 for index in range(REGISTERS)]
    found: list[int] = []
    at = HEADER
    while at < len(value):
        byte = value[at]
        if byte & 0x80:
            found += [(byte >> 2 & 31) + 1] * ((byte & 3) + 1)
        elif byte & 0x40:
            at += 1
            if at == len(value):
                return None
            found += [0] * (((byte & 63) << 8 | value[at]) + 1)
        else:
            found += [0] * ((byte & 63) + 1)
        at += 1
        if len(found) > REGISTERS:
            return None
    return found if len(found) == REGISTERS else None


def damaged(dice: Random, value: bytes) -> bytes:
    """The string with a few changes behind the magic word, which would only hide the rest."""
    data = bytearray(value)
    for _ in range(dice.choice((0, 1, 1, 2, 5))):
        at = dice.randrange(HEADER - 1, len(data) + 1)
        match dice.randrange(5):
            case 0:
                data[at : at + 1] = dice.randbytes(1)
            case 1:
                del data[at : at + dice.choice((1, 2, 100))]
            case 2:
                data[at:at] = dice.randbytes(dice.choice((1, 2, 50)))
            case 3:
                data[at:at] = b"\x7f\xff" * dice.choice((1, 3))
            case _:
                data[4] = dice.choice((0, 1))
        data.extend(bytes(max(HEADER - len(data), 0)))
    return bytes(data)


def check(dice: Random, value: bytes) -> None:
    """Every door with one string."""
    expected = read(value) if hyperloglog.is_valid(value) else None
    if not hyperloglog.is_valid(value):
        assert value[4] == 0 and len(value) != DENSE_SIZE
        return
    hyperloglog.decode(value)
    try:
        assert hyperloglog.registers(value) == expected
        told = hyperloglog.count((value, value))
        assert told == hyperloglog.count((value,))
        assert read(hyperloglog.to_dense(value)) == expected
    except CommandError:
        assert expected is None
    elements = [dice.randbytes(dice.randrange(20)) for _ in range(dice.choice((1, 3, 40)))]
    sparse_max = dice.choice((0, 100, 3000, 100_000))
    after, raised = hyperloglog.add(value, elements, sparse_max)
    try:
        merged = hyperloglog.merge(value, (value, after), sparse_max)
        assert read(merged) == read(after)
    except CommandError:
        assert expected is None or raised < 0
    if expected is None:
        return
    wanted, changes = list(expected), 0
    for index, count in map(place, elements):
        changes += count > wanted[index]
        wanted[index] = max(wanted[index], count)
    assert (read(after), raised) == (wanted, changes)


def play(seed: int, rounds: int, seconds: float = 1e9) -> int:
    """So many strings, or as many as the time allows; how many there were."""
    dice = Random(seed)
    end = time.monotonic() + seconds
    value = hyperloglog.empty()
    for number in range(rounds):
        if time.monotonic() > end:
            return number
        if dice.random() < 0.02:
            value = hyperloglog.empty()
        elements = [dice.randbytes(8) for _ in range(dice.choice((0, 1, 10, 300)))]
        value, _ = hyperloglog.add(value, elements, dice.choice((100, 3000, 20_000)))
        check(dice, damaged(dice, value))
    return rounds


def main() -> None:
    """Parse the arguments and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    faulthandler.enable()
    print(f"sketches: {play(options.seed, 1 << 60, options.seconds)} strings", flush=True)


if __name__ == "__main__":
    main()
