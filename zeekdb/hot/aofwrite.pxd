# Values as commands that make them again. See aofwrite.pyx.
from libc.stdint cimport int64_t, uint8_t
from zeekdb.hot.rdbwire cimport Writer
from zeekdb.hot.table cimport Entry

cdef void aof_select(Writer* w, int db) noexcept nogil
# Everything about a key; a deadline of 0: none. False: its type has no form in a file (some of it may be written then).
cdef bint aof_write(Writer* w, const Entry* e, const uint8_t* key, size_t n, int64_t deadline_ms) noexcept nogil
