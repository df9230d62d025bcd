# Packed small collections: length-prefixed byte strings one after the other in one allocation.
# Prefix: one byte below 254, or 254 and four bytes (little endian).
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memmove
from zeekdb.hot.memory cimport mem_alloc, mem_free, mem_resize

# How structures hand out elements without making Python objects.
ctypedef void (*Emit)(const uint8_t* p, size_t n, void* arg) noexcept nogil

ctypedef struct Packed:
    uint8_t* data
    uint32_t size       # bytes
    uint32_t count      # strings

cdef inline size_t packed_need(size_t n) noexcept nogil:
    return n + (1 if n < 254 else 5)

cdef inline uint8_t* packed_read(const uint8_t* at, size_t* n) noexcept nogil:
    """The bytes of the string at `at`; the next string begins at the result + n."""
    cdef uint32_t wide
    if at[0] < 254:
        n[0] = at[0]
        return <uint8_t*>at + 1
    memcpy(&wide, at + 1, 4)
    n[0] = wide
    return <uint8_t*>at + 5

cdef inline uint8_t* packed_write(uint8_t* at, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint32_t wide = <uint32_t>n
    if n < 254:
        at[0] = <uint8_t>n
        at += 1
    else:
        at[0] = 254
        memcpy(at + 1, &wide, 4)
        at += 5
    memcpy(at, p, n)
    return at + n

cdef inline uint8_t* packed_splice(Packed* k, size_t offset, size_t drop, size_t add) noexcept nogil:
    """Replaces `drop` bytes at `offset` by room for `add` bytes; returns the room. The count is the caller's."""
    cdef size_t size = k.size - drop + add
    cdef size_t tail = k.size - offset - drop
    if add > drop:
        k.data = <uint8_t*>mem_resize(k.data, k.size, size)
        memmove(k.data + offset + add, k.data + offset + drop, tail)
    elif add < drop:
        memmove(k.data + offset + add, k.data + offset + drop, tail)
        k.data = <uint8_t*>mem_resize(k.data, k.size, size)
    k.size = <uint32_t>size
    return k.data + offset

cdef inline uint8_t* packed_find(Packed* k, const uint8_t* p, size_t n, size_t step) noexcept nogil:
    """The start (prefix) of the first string equal to p among those at places 0, step, 2*step …; NULL when absent."""
    cdef uint8_t* at = k.data
    cdef uint8_t* end = at + k.size
    cdef uint8_t* s
    cdef size_t m, i
    while at < end:
        s = packed_read(at, &m)
        if m == n and memcmp(s, p, n) == 0:
            return at
        at = s + m
        for i in range(1, step):
            s = packed_read(at, &m)
            at = s + m
    return NULL

cdef inline void packed_append(Packed* k, const uint8_t* p, size_t n) noexcept nogil:
    packed_write(packed_splice(k, k.size, 0, packed_need(n)), p, n)
    k.count += 1

cdef inline void packed_clear(Packed* k) noexcept nogil:
    mem_free(k.data, k.size)
    k.data = NULL
    k.size = 0
    k.count = 0
