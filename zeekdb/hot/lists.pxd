# Lists: a double-ended sequence of chunks. See lists.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from zeekdb.hot.packed cimport Emit

# Elements lie one after the other in data[start:end], each with its length before and behind it.
ctypedef struct Chunk:
    uint8_t* data
    uint32_t capacity
    uint32_t start
    uint32_t end
    uint32_t count

ctypedef struct ListValue:
    Chunk* chunks          # the directory; chunks[first:first + used] are in use
    uint32_t first
    uint32_t used
    uint32_t capacity
    uint32_t pad
    uint64_t length

cdef void list_push(void* self, const uint8_t* p, size_t n, bint head) noexcept nogil
cdef bint list_pop(void* self, bint head, Emit emit, void* arg) noexcept nogil
cdef size_t list_range(void* self, int64_t start, int64_t stop, Emit emit, void* arg) noexcept nogil  # normalised bounds
cdef uint64_t list_length(void* self) noexcept nogil
cdef bint list_index(void* self, int64_t i, Emit emit, void* arg) noexcept nogil  # negative: from the end
