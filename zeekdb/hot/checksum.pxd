# A 64-bit checksum for bulk data, not a cryptographic one. See checksum.pyx.
from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    LANES = 8
    STRIPE = 128            # bytes: 16 to a lane

# A sum under way; the pieces may be cut anywhere.
ctypedef struct Checksum:
    uint64_t[8] lanes
    uint64_t total          # bytes so far
    uint8_t[128] held       # the total % STRIPE bytes that wait for their stripe

cdef void checksum_init(Checksum* c) noexcept nogil
cdef void checksum_update(Checksum* c, const uint8_t* p, size_t n) noexcept nogil
cdef uint64_t checksum_final(const Checksum* c) noexcept nogil      # of what came so far; more may come
cdef uint64_t checksum_of(const uint8_t* p, size_t n) noexcept nogil  # of one piece
