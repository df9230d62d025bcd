# Values that are Python objects, as module records. See rdbobjects.pyx.
from libc.stdint cimport uint64_t
from zeekdb.hot.rdbwire cimport Reader, Writer

cdef bint object_write(Writer* w, void* self) noexcept with gil     # False: its type has no codec, or the codec failed
cdef void* object_read(Reader* r) noexcept with gil                 # a new reference; NULL: see the fault
cdef bint skip_values(Reader* r) noexcept nogil                     # steps over a record behind its module's id
