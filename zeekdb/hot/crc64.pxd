# CRC-64 as Redis computes it: Jones's polynomial, reflected, beginning with 0.
from libc.stdint cimport uint8_t, uint64_t

cdef uint64_t crc64_update(uint64_t crc, const uint8_t* p, size_t n) noexcept nogil
