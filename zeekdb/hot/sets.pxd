# Sets, for the keyspace and the twins. `self` is what TypeOps.create returned. Nothing handed in may point into the
# set itself, and a member is shorter than 4 GiB.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from zeekdb.hot.packed cimport Emit, Packed

ctypedef bint (*Visit)(const uint8_t* p, size_t n, void* arg) noexcept nogil      # True: enough

cdef void* set_create() noexcept nogil
cdef bint set_destroy(void* self, size_t* budget) noexcept nogil
# Before a command adds `members` members at once: converts now what would be converted anyway (and as Redis does, even
# if some of the members turn out to be the same). Free to call with small numbers.
cdef void set_expect(void* self, uint64_t members, const uint8_t* first, size_t first_n) noexcept nogil
# Fills an empty set with a packed run of different members, or with ascending integers of 2, 4 or 8 bytes; False where
# the limits ask for another form.
cdef bint set_adopt(void* self, const uint8_t* run, size_t size, uint64_t members, size_t longest) noexcept nogil
cdef bint set_adopt_ints(void* self, const uint8_t* ints, uint32_t width, uint64_t members) noexcept nogil
# The integers of a set that is small and holds nothing else; NULL for any other.
cdef const uint8_t* set_ints(void* self, uint32_t* width, uint64_t* members) noexcept nogil
cdef bint set_add(void* self, const uint8_t* p, size_t n) noexcept nogil
cdef bint set_add_h(void* self, const uint8_t* p, size_t n, uint64_t h) noexcept nogil
cdef bint set_contains(void* self, const uint8_t* p, size_t n) noexcept nogil
cdef bint set_contains_h(void* self, const uint8_t* p, size_t n, uint64_t h) noexcept nogil
cdef bint set_remove(void* self, const uint8_t* p, size_t n) noexcept nogil
cdef uint64_t set_length(void* self) noexcept nogil
cdef bint set_random(void* self, Emit emit, void* arg) noexcept nogil             # fair; False when empty
cdef bint set_pop(void* self, Emit emit, void* arg) noexcept nogil                # fair, emitted, then removed
cdef void set_each(void* self, Emit emit, void* arg) noexcept nogil
cdef bint set_walk(void* self, Visit visit, void* arg) noexcept nogil             # True when a visit said enough
# For batches: h is hash_bytes(member). A small set is one block of bytes, of which the beginning is touched.
cdef bint set_is_large(void* self) noexcept nogil                                 # False: the *_h functions ignore h
cdef void set_prefetch(void* self, uint64_t h) noexcept nogil                     # touch 1: the bucket
cdef void set_prefetch_entry(void* self, uint64_t h) noexcept nogil               # touch 2: the entry

cdef class Set:
    cdef Packed* box
    cdef bint owned     # not of a keyspace
