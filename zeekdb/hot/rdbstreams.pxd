# Streams in Redis's serialisation. See rdbstreams.pyx.
from libc.stdint cimport uint8_t
from zeekdb.hot.rdbwire cimport Reader, Writer

cdef void stream_write(Writer* w, void* self) noexcept nogil
cdef bint stream_read(Reader* r, uint8_t type, void* self) noexcept nogil    # into a fresh one
