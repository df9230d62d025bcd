# Sorted sets: packed runs and counted B+trees. See zsets.pyx.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from zeekdb.hot.packed cimport Emit
from zeekdb.hot.table cimport Entry, Table

ctypedef void (*ZEmit)(const uint8_t* p, size_t n, double score, void* arg) noexcept nogil

cdef enum:                 # what zset_add is asked
    ZADD_NX = 1
    ZADD_XX = 2
    ZADD_GT = 4
    ZADD_LT = 8
    ZADD_INCR = 16

cdef enum:                 # and what it says
    ZADD_ADDED = 1
    ZADD_UPDATED = 2
    ZADD_NOP = 4
    ZADD_NAN = 8

cdef int zset_add(void* self, const uint8_t* m, size_t n, double score, int flags, double* now) noexcept nogil
cdef bint zset_score(void* self, const uint8_t* m, size_t n, double* score) noexcept nogil
cdef bint zset_remove(void* self, const uint8_t* m, size_t n) noexcept nogil
cdef uint64_t zset_length(void* self) noexcept nogil
cdef bint zset_pop(void* self, bint max, Emit emit, void* arg, double* score) noexcept nogil
cdef int64_t zset_rank(void* self, const uint8_t* m, size_t n, bint reverse, double* score) noexcept nogil  # -1: absent
cdef size_t zset_range(void* self, int64_t start, int64_t stop, bint reverse, ZEmit emit, void* arg) noexcept nogil  # normalised
# Fills an empty sorted set with a packed run (zrun.pxd) of different members in order; False where the limits ask for
# the large form.
cdef bint zset_adopt(void* self, const uint8_t* run, size_t size, uint64_t members, size_t longest) noexcept nogil
cdef bint zset_is_large(void* self) noexcept nogil
# For batches, as hash_prefetch and hash_prefetch_entry.
cdef void zset_prefetch(void* self, uint64_t h) noexcept nogil
cdef void zset_prefetch_entry(void* self, uint64_t h) noexcept nogil
