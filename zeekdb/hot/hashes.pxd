# Hashes, for the keyspace and the twins. `self` is what TypeOps.create returned. Nothing handed in may point into the
# hash itself, and a field is shorter than 4 GiB. Fields that are due are absent; those that were not removed yet count
# in the length.
from libc.stdint cimport uint8_t, uint64_t
from zeekdb.hot.hash_deadlines cimport Timed
from zeekdb.hot.packed cimport Emit

ctypedef void (*PairVisit)(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil

cdef void* hash_create() noexcept nogil
cdef bint hash_destroy(void* self, size_t* budget) noexcept nogil
# Before a command puts `fields` fields at once: converts now what would be converted anyway (and as Redis does, even
# if some of the fields turn out to be the same). Free to call with small numbers.
cdef void hash_expect(void* self, uint64_t fields) noexcept nogil
# Fills an empty hash with a packed run of different fields, `longest` bytes the longest of all; False where the limits
# ask for a table.
cdef bint hash_adopt(void* self, const uint8_t* run, size_t size, uint64_t pairs, size_t longest) noexcept nogil
# 1 created, 0 updated. The field has no deadline then.
cdef int hash_put(void* self, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn) noexcept nogil
# The same, but a field keeps its deadline.
cdef int hash_change(void* self, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn) noexcept nogil
cdef int hash_put_h(void* self, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, uint64_t h) noexcept nogil
# NULL when absent; good until the next change of the hash.
cdef const uint8_t* hash_get(void* self, const uint8_t* f, size_t fn, size_t* vn) noexcept nogil
cdef const uint8_t* hash_get_h(void* self, const uint8_t* f, size_t fn, size_t* vn, uint64_t h) noexcept nogil
cdef bint hash_remove(void* self, const uint8_t* f, size_t fn) noexcept nogil
cdef Timed* hash_timed(void* self) noexcept nogil                                  # NULL: no field has had a deadline
cdef uint64_t hash_length(void* self) noexcept nogil
cdef void hash_each(void* self, Emit emit, void* arg) noexcept nogil              # field, value, field, value …
cdef void hash_walk(void* self, PairVisit visit, void* arg) noexcept nogil
# For batches: h is hash_bytes(field). A small hash is one block of bytes, of which the beginning is touched.
cdef bint hash_is_large(void* self) noexcept nogil                                # False: the *_h functions ignore h
cdef void hash_prefetch(void* self, uint64_t h) noexcept nogil                    # touch 1: the bucket
cdef void hash_prefetch_entry(void* self, uint64_t h) noexcept nogil              # touch 2: the entry
