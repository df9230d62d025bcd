# Hashes whose fields may have deadlines. Below the keyspace: see hash_deadlines.pyx.
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.deadlines cimport Deadlines
from zeekdb.hot.packed cimport Emit, Packed
from zeekdb.hot.table cimport Entry

ctypedef struct Timed:
    Packed fields        # small: field, value, deadline packed in threes; LARGE: a table whose entries may have EXPIRES
    Deadlines due        # of a large one: its fields by deadline
    int64_t next_ms      # the first deadline of all fields; 0: none
    Deadlines* index     # the shard's, where hashes stand by their first deadline; NULL outside of the keyspace
    Entry* ticket        # this hash in the index: its key, EXPIRES

ctypedef void (*TimedVisit)(
    const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, int64_t when_ms, void* arg,
) noexcept nogil

cdef inline Timed* timed_of(const Packed* box) noexcept nogil:
    return <Timed*>box.data

# A deadline in a small hash: a string of no or of six bytes, little endian.
cdef inline int64_t when_at(const uint8_t* at) noexcept nogil:
    """The deadline that begins at `at`; 0: none."""
    cdef int64_t when = 0
    if at[0]:
        memcpy(&when, at + 1, 6)
    return when

cdef inline bint overdue(int64_t when_ms, int64_t now_ms) noexcept nogil:
    return when_ms != 0 and when_ms <= now_ms

cdef void timed_begin(Packed* box) noexcept nogil                  # from now on the fields of this hash may have deadlines
cdef void timed_expect(Timed* t, uint64_t fields) noexcept nogil   # as hash_expect
# 1 created, 0 updated; what is overdue counts as absent. A field that is updated loses its deadline unless `keep`.
cdef int timed_put(
    Timed* t, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, bint keep, int64_t now_ms,
) noexcept nogil
# NULL when absent or overdue; *when is 0 without a deadline.
cdef const uint8_t* timed_get(
    Timed* t, const uint8_t* f, size_t fn, size_t* vn, int64_t* when, int64_t now_ms,
) noexcept nogil
cdef bint timed_remove(Timed* t, const uint8_t* f, size_t fn, int64_t now_ms) noexcept nogil  # False when absent or overdue
# Deadline 0 clears it. False when absent or overdue.
cdef bint timed_set(Timed* t, const uint8_t* f, size_t fn, int64_t when_ms, int64_t now_ms) noexcept nogil
cdef uint64_t timed_length(Timed* t) noexcept nogil                # fields, those that are overdue but not removed included
# Removes up to `most` fields that are due and tells their names; how many. A small hash goes at once.
cdef size_t timed_expire(Timed* t, int64_t now_ms, size_t most, Emit emit, void* arg) noexcept nogil
cdef void timed_walk(Timed* t, TimedVisit visit, void* arg) noexcept nogil  # all fields, those that are overdue too
cdef Timed* timed_copy(Timed* t) noexcept nogil                    # in no index
cdef bint timed_destroy(Timed* t, size_t* budget) noexcept nogil   # as TypeOps.destroy; the index is not touched any more
cdef size_t timed_memory(Timed* t) noexcept nogil
cdef uint64_t timed_faults(Timed* t) noexcept nogil                # broken invariants: for tests
cdef void timed_limits(uint64_t entries, uint64_t value) noexcept nogil
# The keyspace's business: a hash with FIELDS_EXPIRE stands in the index of its shard under its key.
cdef void timed_attach(Timed* t, Deadlines* index, const uint8_t* key, size_t n) noexcept nogil
cdef void timed_detach(Timed* t) noexcept nogil
