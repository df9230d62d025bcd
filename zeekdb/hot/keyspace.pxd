# The sharded keyspace: databases, shards, expiry, and what every type owes it.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from zeekdb.hot.memory cimport Blob
from zeekdb.hot.table cimport Entry, Table

# What a type owes the keyspace. A collection is a structure at a stable address, boxed in its entry.
ctypedef struct TypeOps:
    void* (*create)() noexcept nogil
    bint (*destroy)(void* self, size_t* budget) noexcept nogil  # frees up to *budget elements (and counts it down); True when all is gone
    void* (*copy)(void* self) noexcept nogil
    uint64_t (*length)(void* self) noexcept nogil
    size_t (*memory)(void* self) noexcept nogil                 # bytes, exact or estimated, in O(log n)
    size_t (*effort)(void* self) noexcept nogil                 # what freeing costs, in allocations
    object (*wrap)(void* self)                                  # the Python door over the structure; does not own it

ctypedef struct Deadline:
    int64_t when_ms
    Entry* entry

ctypedef struct Shard:
    Table table
    Deadline* heap      # 4-ary min-heap: the expiry index; an entry knows its place in it
    uint32_t heap_used
    uint32_t heap_capacity

ctypedef struct Db:
    Shard* shards
    uint32_t nshards
    int index

# One per process; the hot room and Python read and write it.
ctypedef struct Globals:
    int64_t now_ms              # the clock, set once a batch
    uint32_t clock              # what a touch writes: LRU seconds (24 bits), see touch_lfu
    bint touch_lfu
    bint active_expire
    uint64_t dirty              # changes since the last save
    uint64_t hits
    uint64_t misses
    uint64_t expired
    uint64_t evicted
    uint64_t lazyfreed
    size_t lazyfree_pending     # objects waiting to be freed

cdef Globals G

# Called by each type's module at import; `cls` is the door's class, which Database.create takes.
cdef int register_type(uint8_t type, TypeOps* ops, object cls) except -1

cdef inline Shard* shard_of(Db* db, uint64_t h) noexcept nogil:
    return &db.shards[h & (db.nshards - 1)]

# Finds without side effects but lazy expiry: an expired entry is removed and NULL returned.
cdef Entry* ks_find(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil
# The same for a command that reads: counts hit or miss and touches the LRU/LFU field.
cdef Entry* ks_read(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil
# Stores a string, overwriting what is there (of any type). Deadline: -1 keeps the old one, 0 clears it.
cdef Entry* ks_set(Db* db, const uint8_t* key, size_t n, uint64_t h, const uint8_t* value, size_t vn, int64_t deadline_ms) noexcept nogil
# The same with a blob whose reference the keyspace takes over.
cdef Entry* ks_set_blob(Db* db, const uint8_t* key, size_t n, uint64_t h, Blob* blob, int64_t deadline_ms) noexcept nogil
# Creates a collection under an absent key.
cdef void* ks_create(Db* db, const uint8_t* key, size_t n, uint64_t h, uint8_t type) noexcept nogil
cdef bint ks_delete(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil  # large values are freed later, in slices
cdef Entry* ks_expire_at(Db* db, const uint8_t* key, size_t n, uint64_t h, int64_t deadline_ms) noexcept nogil  # 0 persists; the entry may move
cdef int64_t ks_deadline(const Entry* e) noexcept nogil                                # 0: none

# The bytes of a string entry.
cdef const uint8_t* entry_string(const Entry* e, size_t* n) noexcept nogil

cdef Db* db_pointer(object database) except NULL
cdef object wrap_value(Entry* e)
cdef void ks_prefetch_bucket(Db* db, uint64_t h) noexcept nogil
cdef void ks_prefetch_entry(Db* db, uint64_t h) noexcept nogil
