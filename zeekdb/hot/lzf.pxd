# LZF, the compression of Redis's files. See lzf.pyx.
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    LZF_SLOTS = 8192        # places remembered: as many as a reference can reach back
    LZF_RATIO_MAX = 88      # 264 bytes from 3: no stream expands further

# Where three bytes were seen last, as base + place + 1. Starts as zeroes and is never cleared between inputs.
ctypedef struct Lzf:
    uint32_t base
    uint32_t[LZF_SLOTS] seen

# Bytes written to `to`, 0 when they would be more than `room`.
cdef size_t lzf_pack(Lzf* z, const uint8_t* p, size_t n, uint8_t* to, size_t room) noexcept nogil
# False unless the stream is whole and makes exactly `size` bytes; writes no further.
cdef bint lzf_unpack(const uint8_t* p, size_t n, uint8_t* to, size_t size) noexcept nogil
