cdef void list_push(void* self, const uint8_t* p, size_t n, bint head) noexcept nogil: pass
cdef bint list_pop(void* self, bint head, Emit emit, void* arg) noexcept nogil: return 0
cdef size_t list_range(void* self, int64_t start, int64_t stop, Emit emit, void* arg) noexcept nogil: return 0
cdef uint64_t list_length(void* self) noexcept nogil: return 0
cdef bint list_index(void* self, int64_t i, Emit emit, void* arg) noexcept nogil: return 0
cdef class List: pass
def set_limits(**k): pass
