# The packed run of a small sorted set: (score, member) pairs in order, one after the other.
# A score takes one byte where it is a whole number up to 250, else a tag and 2, 4 or 8 bytes; then the member's length
# (one byte below 254, or 254 and four bytes) and its bytes.
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

cdef inline size_t score_need(double score) noexcept nogil:
    cdef int64_t whole
    if -2147483648.0 <= score <= 2147483647.0:
        whole = <int64_t>score
        if <double>whole == score and not (whole == 0 and 1.0 / score < 0):
            if 0 <= whole <= 250:
                return 1
            if -32768 <= whole <= 32767:
                return 3
            return 5
    return 9


cdef inline uint8_t* score_write(uint8_t* at, double score) noexcept nogil:
    cdef size_t n = score_need(score)
    cdef int16_t narrow
    cdef int32_t wide
    if n == 1:
        at[0] = <uint8_t>score
    elif n == 3:
        at[0] = 251
        narrow = <int16_t>score
        memcpy(at + 1, &narrow, 2)
    elif n == 5:
        at[0] = 252
        wide = <int32_t>score
        memcpy(at + 1, &wide, 4)
    else:
        at[0] = 253
        memcpy(at + 1, &score, 8)
    return at + n


cdef inline uint8_t* read_pair(uint8_t* at, double* score, uint8_t** member, size_t* n) noexcept nogil:
    """Reads the pair at `at`; returns where the next begins."""
    cdef int16_t narrow
    cdef int32_t wide
    cdef uint32_t length
    if at[0] <= 250:
        score[0] = at[0]
        at += 1
    elif at[0] == 251:
        memcpy(&narrow, at + 1, 2)
        score[0] = narrow
        at += 3
    elif at[0] == 252:
        memcpy(&wide, at + 1, 4)
        score[0] = wide
        at += 5
    else:
        memcpy(score, at + 1, 8)
        at += 9
    if at[0] < 254:
        n[0] = at[0]
        at += 1
    else:
        memcpy(&length, at + 1, 4)
        n[0] = length
        at += 5
    member[0] = at
    return at + n[0]


cdef inline size_t pair_need(double score, size_t n) noexcept nogil:
    return score_need(score) + n + (1 if n < 254 else 5)
