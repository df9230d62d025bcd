# Moves blocks so that pages empty. See compaction.pyx.
from zeekdb.hot.keyspace cimport Db

# The databases in order; eviction goes through them, too.
cdef Db** DBS
cdef int NDBS

cpdef configure(keyspace)
cdef bint compact_step() noexcept nogil             # some entries; False when there is nothing to move, by now
