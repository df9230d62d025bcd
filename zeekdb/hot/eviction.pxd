# What goes when memory is full. See eviction.pyx.
from libc.stdint cimport int64_t, uint32_t
from zeekdb.hot.keyspace cimport Db
from zeekdb.hot.memory cimport mem_resident, mem_used
from zeekdb.hot.recency cimport Policy

# One per process.
ctypedef struct Eviction:
    size_t limit             # bytes; 0: none
    size_t ceiling           # what the process may take for them, gaps and all …
    size_t floor             # … unless less than this is used: then gaps have another reason
    Policy* policy           # NULL: noeviction
    bint by_deadline         # the key that would expire first goes, whatever the policy's score
    bint volatile_only       # keys with a deadline alone may go
    uint32_t samples
    int64_t budget_us        # of one go
    bint stuck               # over the limit, and nothing may go
    int64_t exceeded_us      # since when more is used than allowed; 0: it is not
    int64_t total_us         # that it was, before
    Db** dbs
    int ndbs

cdef Eviction E

cdef inline bint over_limit() noexcept nogil:
    return E.limit and (mem_used() > E.limit or (mem_resident() > E.ceiling and mem_used() > E.floor))

# Until there is room, or the time is up, or nothing is left that may go; before so many commands.
cdef void evict(uint32_t commands) noexcept nogil
