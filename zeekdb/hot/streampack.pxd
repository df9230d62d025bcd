# How numbers, strings and lengths stand in a stream's block, and what Redis's listpack would take for them.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.wire cimport parse_int

cdef inline const uint8_t* get_number(const uint8_t* at, uint64_t* value) noexcept nogil:
    """Seven bits a byte, the lowest first; bit 7 says that another follows."""
    cdef uint64_t byte = at[0]
    cdef int shift = 7
    value[0] = byte & 127
    at += 1
    while byte & 128:
        byte = at[0]
        at += 1
        value[0] |= (byte & 127) << shift
        shift += 7
    return at

cdef inline const uint8_t* get_text(const uint8_t* at, size_t* n) noexcept nogil:
    """The string at `at`; what follows begins at the result + n."""
    cdef uint64_t size
    at = get_number(at, &size)
    n[0] = size
    return at

cdef inline uint8_t* put_number(uint8_t* at, uint64_t value) noexcept nogil:
    while value >= 128:
        at[0] = <uint8_t>(value & 127) | 128
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    return at + 1

cdef inline uint8_t* put_text(uint8_t* at, const uint8_t* p, size_t n) noexcept nogil:
    at = put_number(at, n)
    memcpy(at, p, n)
    return at + n

cdef inline const uint8_t* skip_text(const uint8_t* at) noexcept nogil:
    cdef size_t n
    at = get_text(at, &n)
    return at + n

cdef inline uint8_t* put_length_back(uint8_t* at, uint64_t n) noexcept nogil:
    """Seven bits a byte, the lowest last; bit 7 says that another precedes. The first byte has it never."""
    cdef int more = 0
    cdef uint64_t rest = n >> 7
    while rest:
        more += 7
        rest >>= 7
    at[0] = <uint8_t>((n >> more) & 127)
    at += 1
    while more:
        more -= 7
        at[0] = <uint8_t>((n >> more) & 127) | 128
        at += 1
    return at

cdef inline const uint8_t* entry_start(const uint8_t* end) noexcept nogil:
    """Where the entry begins that ends here."""
    cdef uint64_t byte, n
    cdef int shift = 7
    end -= 1
    byte = end[0]
    n = byte & 127
    while byte & 128:
        end -= 1
        byte = end[0]
        n |= (byte & 127) << shift
        shift += 7
    return end - n

# What a listpack takes for an integer and for a string, its length at the end included.

cdef inline uint32_t weight_of_int(int64_t value) noexcept nogil:
    if 0 <= value < 128:
        return 2
    if -4096 <= value < 4096:
        return 3
    if -32768 <= value < 32768:
        return 4
    if -8388608 <= value < 8388608:
        return 5
    if -2147483648LL <= value < 2147483648LL:
        return 6
    return 10

cdef inline uint32_t weight_of_text(const uint8_t* p, size_t n) noexcept nogil:
    cdef int64_t value
    cdef size_t size
    if 0 < n <= 20 and (48 <= p[0] <= 57 or p[0] == 45) and parse_int(p, n, &value):
        return weight_of_int(value)
    size = n + (1 if n < 64 else 2 if n < 4096 else 5)
    size += 1 if size < 128 else 2 if size < 16383 else 3 if size < 2097151 else 4 if size < 268435455 else 5
    return <uint32_t>size
