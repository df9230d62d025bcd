# The expiry index. See deadlines.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.table cimport EXPIRES, LONG_KEY, Entry

ctypedef struct Deadline:
    int64_t when_ms
    Entry* entry

# All zeroes when empty.
ctypedef struct Deadlines:
    Deadline* heap
    uint32_t used
    uint32_t capacity

cdef inline uint8_t* deadline_at(const Entry* e) noexcept nogil:
    return <uint8_t*>e + sizeof(Entry) + (4 if e.flags & LONG_KEY else 0)

cdef inline int64_t deadline_of(const Entry* e) noexcept nogil:
    """0: none."""
    cdef int64_t when
    if not e.flags & EXPIRES:
        return 0
    memcpy(&when, deadline_at(e), 8)
    return when

# The entry has EXPIRES; its deadline is written here.
cdef void deadline_add(Deadlines* due, Entry* e, int64_t when_ms) noexcept nogil
cdef void deadline_change(Deadlines* due, Entry* e, int64_t when_ms) noexcept nogil
cdef void deadline_remove(Deadlines* due, Entry* e) noexcept nogil
cdef void deadline_moved(Deadlines* due, Entry* e) noexcept nogil    # it is somewhere else now
cdef void deadlines_free(Deadlines* due) noexcept nogil
cdef uint64_t deadlines_faults(Deadlines* due) noexcept nogil  # broken invariants: for tests
