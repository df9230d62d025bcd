"""CRC-64/Jones, eight bytes a step.

The polynomial is 0xAD93D23594C935A9, input and output reflected, initial value and final exclusive-or 0. Slicing by
eight (Kounavis and Berry 2005): table k holds what a byte does to the remainder k bytes further on, so that eight
independent look-ups take the place of a chain of eight.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef uint64_t[8][256] TABLES


cdef void fill() noexcept nogil:
    cdef uint64_t crc
    cdef int byte, bit, k
    for byte in range(256):
        crc = byte
        for bit in range(8):
            crc = (crc >> 1) ^ (0x95AC9329AC4BC9B5ULL if crc & 1 else 0)  # the polynomial, reflected
        TABLES[0][byte] = crc
    for byte in range(256):
        for k in range(1, 8):
            crc = TABLES[k - 1][byte]
            TABLES[k][byte] = (crc >> 8) ^ TABLES[0][crc & 0xFF]


fill()


cdef uint64_t crc64_update(uint64_t crc, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint64_t eight
    while n >= 8:
        memcpy(&eight, p, 8)
        crc ^= eight
        crc = (
            TABLES[7][crc & 0xFF] ^ TABLES[6][(crc >> 8) & 0xFF] ^ TABLES[5][(crc >> 16) & 0xFF]
            ^ TABLES[4][(crc >> 24) & 0xFF] ^ TABLES[3][(crc >> 32) & 0xFF] ^ TABLES[2][(crc >> 40) & 0xFF]
            ^ TABLES[1][(crc >> 48) & 0xFF] ^ TABLES[0][crc >> 56]
        )
        p += 8
        n -= 8
    while n:
        crc = (crc >> 8) ^ TABLES[0][(crc ^ p[0]) & 0xFF]
        p += 1
        n -= 1
    return crc


def crc64(data, uint64_t crc=0):
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            crc = crc64_update(crc, <const uint8_t*>view.buf, <size_t>view.len)
        return crc
    finally:
        PyBuffer_Release(&view)
