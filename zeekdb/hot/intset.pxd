# Sorted arrays of integers: the small form of sets that hold nothing else. All are as wide as the widest needs: 2, 4
# or 8 bytes. The array lives in a `Packed` whose size is INTS | width and whose count is the number of integers; the
# bytes are count * width. Widths only grow. An empty one is a blank box: no data, size and count 0.
from libc.stdint cimport INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN, int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memmove
from zeekdb.hot.memory cimport mem_alloc, mem_free, mem_resize
from zeekdb.hot.packed cimport Packed

cdef extern from *:
    """
    #define ZEEK_INTS 0x80000000u
    """
    const uint32_t INTS "ZEEK_INTS"  # packed bytes stay below PACKED_MAX, so the bit is free

cdef enum:
    DIGITS_MAX = 20     # of a 64-bit integer, with its sign

cdef inline bint ints_is(const Packed* k) noexcept nogil:
    return k.size & INTS != 0

cdef inline uint32_t ints_width(const Packed* k) noexcept nogil:
    return k.size & ~INTS

cdef inline size_t ints_bytes(const Packed* k) noexcept nogil:
    return <size_t>k.count * ints_width(k)

cdef inline uint32_t ints_need(int64_t v) noexcept nogil:
    if INT16_MIN <= v <= INT16_MAX:
        return 2
    return 4 if INT32_MIN <= v <= INT32_MAX else 8

cdef inline int64_t ints_load(const uint8_t* data, uint32_t width, size_t i) noexcept nogil:
    cdef int16_t v16
    cdef int32_t v32
    cdef int64_t v64
    if width == 2:
        memcpy(&v16, data + 2 * i, 2)
        return v16
    if width == 4:
        memcpy(&v32, data + 4 * i, 4)
        return v32
    memcpy(&v64, data + 8 * i, 8)
    return v64

cdef inline void ints_store(uint8_t* data, uint32_t width, size_t i, int64_t v) noexcept nogil:
    cdef int16_t v16 = <int16_t>v
    cdef int32_t v32 = <int32_t>v
    if width == 2:
        memcpy(data + 2 * i, &v16, 2)
    elif width == 4:
        memcpy(data + 4 * i, &v32, 4)
    else:
        memcpy(data + 8 * i, &v, 8)

cdef inline int64_t ints_get(const Packed* k, size_t i) noexcept nogil:
    return ints_load(k.data, ints_width(k), i)

cdef inline bint ints_find(const Packed* k, int64_t v, size_t* place) noexcept nogil:
    """Where v stands, or would have to be inserted."""
    cdef size_t low = 0
    cdef size_t high = k.count
    cdef size_t middle
    cdef uint32_t width = ints_width(k)
    place[0] = high
    if high == 0 or ints_load(k.data, width, high - 1) < v:  # ascending insertion is common
        return False
    while low < high:
        middle = (low + high) >> 1
        if ints_load(k.data, width, middle) < v:
            low = middle + 1
        else:
            high = middle
    place[0] = low
    return ints_load(k.data, width, low) == v

cdef inline void ints_widen(Packed* k, uint32_t width) noexcept nogil:
    cdef size_t i
    cdef uint8_t* wide = <uint8_t*>mem_alloc(<size_t>k.count * width)
    for i in range(k.count):
        ints_store(wide, width, i, ints_get(k, i))
    mem_free(k.data, ints_bytes(k))
    k.data = wide
    k.size = INTS | width

cdef inline void ints_insert(Packed* k, size_t place, int64_t v) noexcept nogil:
    """Inserts at the place that ints_find told; the box may be blank."""
    cdef uint32_t width = ints_need(v)
    cdef size_t bytes
    if k.count == 0:
        k.size = INTS | width
    elif width > ints_width(k):
        ints_widen(k, width)
    width = ints_width(k)
    bytes = ints_bytes(k)
    k.data = <uint8_t*>(mem_resize(k.data, bytes, bytes + width) if bytes else mem_alloc(width))
    memmove(k.data + (place + 1) * width, k.data + place * width, bytes - place * width)
    ints_store(k.data, width, place, v)
    k.count += 1

cdef inline void ints_delete(Packed* k, size_t place) noexcept nogil:
    cdef uint32_t width = ints_width(k)
    cdef size_t bytes = ints_bytes(k)
    if k.count == 1:
        ints_clear(k)
        return
    memmove(k.data + place * width, k.data + (place + 1) * width, bytes - (place + 1) * width)
    k.data = <uint8_t*>mem_resize(k.data, bytes, bytes - width)
    k.count -= 1

cdef inline void ints_clear(Packed* k) noexcept nogil:
    if k.count:
        mem_free(k.data, ints_bytes(k))
    k.data = NULL
    k.size = 0
    k.count = 0
