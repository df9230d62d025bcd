from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from zeekdb.hot.packed cimport Emit
cdef enum:
    ZADD_ADDED = 1
    ZADD_UPDATED = 2
cdef int zset_add(void* self, const uint8_t* m, size_t n, double score, int flags, double* now) noexcept nogil
cdef bint zset_score(void* self, const uint8_t* m, size_t n, double* score) noexcept nogil
cdef uint64_t zset_length(void* self) noexcept nogil
cdef bint zset_pop(void* self, bint max, Emit emit, void* arg, double* score) noexcept nogil
