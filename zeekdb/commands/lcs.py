"""The longest common subsequence of two byte strings, a row of the table at a time.

The textbook table L[i][j] = length of the LCS of one[:i] and two[:j] is what Redis fills cell by cell. Neighbours in
a row differ by 0 or 1, so a row is a number with one bit per cell, and a whole row follows from the one above by an
addition, two logical operations and a subtraction on that number (H. Hyyrö, "Bit-parallel LCS-length computation
revisited", 2004). Python's integers do this at some thirty cells per machine operation; a table of four-byte cells in
Python would take minutes where this takes milliseconds.

The way back through the table needs no lengths, only the row's difference at the place where it stands: where the
bytes differ, L[i][j] = max(L[i-1][j], L[i][j-1]), so a difference of 1 to the left says that the cell above is the
larger, and 0 says that it is not. That is Redis's rule, so among several longest subsequences both find the same one.
"""

from __future__ import annotations


def _masks(text: bytes, wanted: bytes) -> dict[int, int]:
    """For each wanted byte that occurs, a number with a bit wherever it occurs."""
    masks = {}
    for byte in set(text) & set(wanted):
        flags = text.translate(bytes(byte) + b"\1" + bytes(255 - byte)) + bytes(-len(text) % 8)
        number = 0
        for bit in range(8):  # eight bytes of 0 or 1 become one, the first in its lowest bit
            number |= int.from_bytes(flags[bit::8], "little") << bit
        masks[byte] = number
    return masks


def _step(row: int, mask: int, every: int) -> int:
    """The next row; a zero bit means that the length grows by one there."""
    both = row & mask
    return ((row + both) | (row - both)) & every


def common_subsequence_length(one: bytes, two: bytes) -> int:
    """The length alone."""
    short, long = sorted((one, two), key=len)
    every = row = (1 << len(long)) - 1
    masks = _masks(long, short)
    for byte in short:
        row = _step(row, masks.get(byte, 0), every)
    return len(long) - row.bit_count()


def common_subsequence(one: bytes, two: bytes) -> tuple[bytes, list[tuple[int, int, int]]]:
    """The subsequence and, last first, its runs: (start in one, start in two, length)."""
    stride = (len(two) + 7) // 8
    table = bytearray(stride * len(one))  # row i is that of one[:i + 1]
    every = row = (1 << len(two)) - 1
    masks = _masks(two, one)
    for i, byte in enumerate(one):
        row = _step(row, masks.get(byte, 0), every)
        table[i * stride : (i + 1) * stride] = row.to_bytes(stride, "little")
    found = bytearray()
    ranges: list[tuple[int, int, int]] = []
    run = 0
    i, j = len(one) - 1, len(two) - 1
    while i >= 0 and j >= 0:
        if one[i] == two[j]:
            found.append(one[i])
            run += 1
            i -= 1
            j -= 1
            continue
        if run:
            ranges.append((i + 1, j + 1, run))
            run = 0
        if table[i * stride + (j >> 3)] >> (j & 7) & 1:
            j -= 1
        else:
            i -= 1
    if run:
        ranges.append((i + 1, j + 1, run))
    found.reverse()
    return bytes(found), ranges
