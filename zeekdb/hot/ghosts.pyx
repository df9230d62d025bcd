"""What was evicted is remembered for a while: policies judge a key that comes back by more than its coming."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memmove
from zeekdb.hot.memory cimport mem_map, mem_unmap

cdef enum:
    WAYS = 4


cdef void ghosts_resize(Ghosts* g, uint64_t keys) noexcept nogil:
    cdef uint64_t buckets = 16
    if g.buckets * WAYS >= keys and g.buckets * WAYS <= 8 * keys + 16 * WAYS:
        return
    while buckets * WAYS < keys + keys // 2:
        buckets *= 2
    if g.buckets:
        mem_unmap(g.slots, g.buckets * WAYS * sizeof(uint32_t))
    g.slots = <uint32_t*>mem_map(buckets * WAYS * sizeof(uint32_t))
    g.buckets = buckets


cdef inline uint32_t* bucket_of(Ghosts* g, uint64_t hash, uint32_t* print) noexcept nogil:
    cdef uint64_t mixed = hash * <uint64_t>0x9E3779B97F4A7C15ULL
    print[0] = <uint32_t>(mixed >> 48) | 1  # never the 0 of an empty slot
    return g.slots + ((mixed >> 8) & (g.buckets - 1)) * WAYS


cdef void ghost_put(Ghosts* g, uint64_t hash, uint16_t note) noexcept nogil:
    cdef uint32_t print
    cdef uint32_t* bucket
    if g.buckets == 0:
        return
    bucket = bucket_of(g, hash, &print)
    memmove(bucket + 1, bucket, (WAYS - 1) * sizeof(uint32_t))
    bucket[0] = print << 16 | note


cdef int ghost_take(Ghosts* g, uint64_t hash) noexcept nogil:
    cdef uint32_t print
    cdef uint32_t* bucket
    cdef int i, note
    if g.buckets == 0:
        return -1
    bucket = bucket_of(g, hash, &print)
    for i in range(WAYS):
        if bucket[i] >> 16 == print:
            note = bucket[i] & 0xFFFF
            memmove(bucket + i, bucket + i + 1, (WAYS - 1 - i) * sizeof(uint32_t))
            bucket[WAYS - 1] = 0
            return note
    return -1
