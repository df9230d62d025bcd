cdef int zset_add(void* self, const uint8_t* m, size_t n, double score, int flags, double* now) noexcept nogil: return 0
cdef bint zset_score(void* self, const uint8_t* m, size_t n, double* score) noexcept nogil: return 0
cdef uint64_t zset_length(void* self) noexcept nogil: return 0
cdef bint zset_pop(void* self, bint max, Emit emit, void* arg, double* score) noexcept nogil: return 0
cdef class ZSet: pass
def set_limits(**k): pass
