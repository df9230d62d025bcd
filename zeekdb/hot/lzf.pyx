"""LZF: back references of 3 to 264 bytes over at most 8 KiB, and runs of up to 32 literal bytes.

A control byte below 32 begins a run of that many literals and one more. Otherwise its upper three bits are the length
less 2 (7: a byte with the rest follows), its lower five and the next byte the distance less 1. The format is Marc
Lehmann's liblzf.

The compressor remembers for every hash of three bytes where it saw them last. Places count on from one input to the
next (`base`), so an entry of an earlier input is recognised and the table needs no clearing: most inputs are short.
Where nothing has matched for long it looks at fewer places, because incompressible data should cost little.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef enum:
    LITERALS_MAX = 32
    LENGTH_MAX = 264
    DISTANCE_MAX = 8192
    INPUT_MAX = 1 << 30     # longer inputs are left alone: places have 32 bits
    PATIENCE = 5            # after 2^5 places in vain two at a time, and so on


cdef inline uint32_t three(const uint8_t* p) noexcept nogil:
    return p[0] | (<uint32_t>p[1] << 8) | (<uint32_t>p[2] << 16)


cdef inline uint32_t slot_of(uint32_t bytes3) noexcept nogil:
    return (bytes3 * 2654435761U) >> 19  # 13 bits: LZF_SLOTS


cdef inline uint8_t* put_literals(const uint8_t* p, size_t n, uint8_t* to, const uint8_t* end) noexcept nogil:
    """Where the output goes on; NULL when there is no room."""
    cdef size_t run
    if n + (n + LITERALS_MAX - 1) // LITERALS_MAX > <size_t>(end - to):
        return NULL
    while n:
        run = n if n < LITERALS_MAX else LITERALS_MAX
        to[0] = <uint8_t>(run - 1)
        memcpy(to + 1, p, run)
        to += run + 1
        p += run
        n -= run
    return to


cdef size_t lzf_pack(Lzf* z, const uint8_t* p, size_t n, uint8_t* to, size_t room) noexcept nogil:
    cdef uint8_t* out = to
    cdef const uint8_t* end = to + room
    cdef size_t at = 0, begin = 0, last, distance, length, limit
    cdef uint32_t bytes3, slot, seen, vain = 1 << PATIENCE
    if n < 4 or n > INPUT_MAX:
        return 0
    if z.base > 0xFFFFFFFFU - INPUT_MAX - 2:
        memset(z, 0, sizeof(Lzf))
    last = n - 3
    while at <= last:
        bytes3 = three(p + at)
        slot = slot_of(bytes3)
        seen = z.seen[slot]
        z.seen[slot] = z.base + <uint32_t>at + 1
        if seen <= z.base or at - (seen - z.base - 1) > DISTANCE_MAX or three(p + (seen - z.base - 1)) != bytes3:
            at += vain >> PATIENCE
            vain += 1
            continue
        vain = 1 << PATIENCE
        distance = at - (seen - z.base - 1) - 1
        limit = n - at if n - at < LENGTH_MAX else LENGTH_MAX
        length = 3
        while length < limit and p[at + length] == p[at + length - distance - 1]:
            length += 1
        out = put_literals(p + begin, at - begin, out, end)
        if out == NULL or end - out < 3:
            z.base += <uint32_t>n + 1
            return 0
        length -= 2
        if length < 7:
            out[0] = <uint8_t>((length << 5) | (distance >> 8))
            out += 1
        else:
            out[0] = <uint8_t>((7 << 5) | (distance >> 8))
            out[1] = <uint8_t>(length - 7)
            out += 2
        out[0] = <uint8_t>distance
        out += 1
        at += length + 2
        begin = at
        if at <= last:  # the end of a match often begins the next
            z.seen[slot_of(three(p + at - 2))] = z.base + <uint32_t>at - 1
            z.seen[slot_of(three(p + at - 1))] = z.base + <uint32_t>at
    z.base += <uint32_t>n + 1
    out = put_literals(p + begin, n - begin, out, end)
    return out - to if out != NULL else 0


cdef bint lzf_unpack(const uint8_t* p, size_t n, uint8_t* to, size_t size) noexcept nogil:
    cdef const uint8_t* end = p + n
    cdef uint8_t* out = to
    cdef uint8_t* stop = to + size
    cdef const uint8_t* back
    cdef size_t length, distance
    cdef uint32_t control
    while p < end:
        control = p[0]
        p += 1
        if control < 32:
            length = control + 1
            if length > <size_t>(end - p) or length > <size_t>(stop - out):
                return False
            memcpy(out, p, length)
            p += length
            out += length
            continue
        length = control >> 5
        if length == 7:
            if p == end:
                return False
            length += p[0]
            p += 1
        if p == end:
            return False
        distance = ((control & 31) << 8 | p[0]) + 1
        p += 1
        length += 2
        if distance > <size_t>(out - to) or length > <size_t>(stop - out):
            return False
        back = out - distance
        if distance >= length:
            memcpy(out, back, length)
            out += length
        else:
            while length:  # what is copied may be what was just written
                out[0] = back[0]
                out += 1
                back += 1
                length -= 1
    return out == stop


cdef Lzf STATE
memset(&STATE, 0, sizeof(STATE))


def compress(bytes data not None):
    cdef size_t n = PyBytes_GET_SIZE(data), size
    cdef uint8_t* to
    if n < 2:
        return None
    to = <uint8_t*>malloc(n)
    if to == NULL:
        raise MemoryError
    try:
        size = lzf_pack(&STATE, <const uint8_t*>PyBytes_AS_STRING(data), n, to, n - 1)
        return PyBytes_FromStringAndSize(<char*>to, size) if size else None
    finally:
        free(to)


def decompress(bytes data not None, size_t size):
    cdef size_t n = PyBytes_GET_SIZE(data)
    cdef bytes out
    if size > n * LZF_RATIO_MAX:
        raise ValueError("no LZF stream is that much shorter than its content")
    out = PyBytes_FromStringAndSize(NULL, size)
    if not lzf_unpack(<const uint8_t*>PyBytes_AS_STRING(data), n, <uint8_t*>PyBytes_AS_STRING(out), size):
        raise ValueError("a damaged LZF stream")
    return out
