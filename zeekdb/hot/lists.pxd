from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from zeekdb.hot.packed cimport Emit
cdef void list_push(void* self, const uint8_t* p, size_t n, bint head) noexcept nogil
cdef bint list_pop(void* self, bint head, Emit emit, void* arg) noexcept nogil
cdef size_t list_range(void* self, int64_t start, int64_t stop, Emit emit, void* arg) noexcept nogil
cdef uint64_t list_length(void* self) noexcept nogil
cdef bint list_index(void* self, int64_t i, Emit emit, void* arg) noexcept nogil
