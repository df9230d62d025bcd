# What goes when memory is full. See eviction.pyx.
from libc.stdint cimport int64_t, uint32_t
from zeekdb.hot.memory cimport mem_resident, mem_used
from zeekdb.hot.recency cimport Policy

# One per process.
ctypedef struct Eviction:
    size_t limit             # bytes; 0: none
    size_t exempt            # bytes of replicas' buffers: if they counted, what evictions tell replicas would evict more
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

cdef Eviction E

cdef inline size_t counted_use() noexcept nogil:
    """What `maxmemory` bounds."""
    cdef size_t used = mem_used()
    return used - E.exempt if used > E.exempt else 0

cdef inline size_t counted_resident() noexcept nogil:
    cdef size_t resident = mem_resident()
    return resident - E.exempt if resident > E.exempt else 0

cdef inline bint over_limit() noexcept nogil:
    return E.limit and (
        counted_use() > E.limit or (counted_resident() > E.ceiling and counted_use() > E.floor)
    )

# Until there is room, or the time is up, or nothing is left that may go; before so many commands.
cdef void evict(uint32_t commands) noexcept nogil
