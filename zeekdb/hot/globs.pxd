# Redis's globs. See globs.pyx.
from libc.stdint cimport uint8_t

cdef bint glob_matches(const uint8_t* p, size_t n, const uint8_t* t, size_t m, bint nocase) noexcept nogil  # pattern, text
