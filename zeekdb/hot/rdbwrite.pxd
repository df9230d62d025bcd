# Values to Redis's serialisation. See rdbwrite.pyx.
from libc.stdint cimport uint8_t
from zeekdb.hot.rdbwire cimport Writer
from zeekdb.hot.table cimport Entry

cdef uint8_t rdb_type(const Writer* w, const Entry* e) noexcept nogil       # what is written before the value
cdef bint rdb_write(Writer* w, const Entry* e) noexcept nogil               # the value; False: it has no form in a file
