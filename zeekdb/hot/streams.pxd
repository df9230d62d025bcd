# Streams, for the twins. `self` is what TypeOps.create returned.
from libc.stdint cimport uint64_t
from zeekdb.hot.streamlog cimport Id, Log
from zeekdb.hot.wire cimport Arg

cdef void* stream_create() noexcept nogil
cdef bint stream_destroy(void* self, size_t* budget) noexcept nogil
cdef uint64_t stream_length(void* self) noexcept nogil
