# Shards and what every type owes them. Users take all of this from keyspace.pxd.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from zeekdb.hot.deadlines cimport Deadlines, deadline_of
from zeekdb.hot.memory cimport Blob
from zeekdb.hot.table cimport BOXED, Entry, Table, entry_box, entry_value

# What a type owes the keyspace. A collection is a structure at a stable address, boxed in its entry.
ctypedef struct TypeOps:
    void* (*create)() noexcept nogil
    bint (*destroy)(void* self, size_t* budget) noexcept nogil  # frees up to *budget elements (and counts it down); True when all is gone
    void* (*copy)(void* self) noexcept nogil
    uint64_t (*length)(void* self) noexcept nogil
    size_t (*memory)(void* self) noexcept nogil                 # bytes, exact or estimated, in O(log n)
    size_t (*effort)(void* self) noexcept nogil                 # what freeing costs, in allocations
    void* (*compact)(void* self) noexcept nogil                 # moves what compaction has marked; where it is now. May be NULL
    object (*wrap)(void* self)                                  # the Python door over the structure; does not own it

ctypedef struct Shard:
    Table table
    Deadlines due       # the expiry index
    Deadlines fields    # hashes by the first deadline of their fields: their tickets, see hash_deadlines.pyx

ctypedef struct Db:
    Shard* shards
    uint32_t nshards
    int index

# One per process; the hot room and Python read and write it.
ctypedef struct Globals:
    int64_t now_ms              # the clock, set once a batch
    bint active_expire
    uint64_t dirty              # changes since the last save
    uint64_t hits
    uint64_t misses
    uint64_t expired
    uint64_t expired_fields
    uint64_t evicted
    uint64_t lazyfreed
    size_t lazyfree_pending     # objects waiting to be freed
    bint no_touch               # reads leave recency and frequency alone

cdef Globals G

# A snapshot under way. Bit 28 of an entry's meta is its epoch: an entry of another epoch than the current one has not
# been saved yet, and is, before anything may change it. See snapshot.pyx.
ctypedef struct Snap:
    bint active
    uint32_t epoch              # 0 or EPOCH
    void (*save)(Db* db, Entry* e) noexcept nogil

cdef enum:
    EPOCH = 1 << 28

cdef Snap SNAP

cdef inline void before_write(Db* db, Entry* e) noexcept nogil:
    if SNAP.active and e.meta & EPOCH != SNAP.epoch:
        SNAP.save(db, e)

# Called by each type's module at import; `cls` is the door's class, which Database.create takes.
cdef int register_type(uint8_t type, TypeOps* ops, object cls) except -1

cdef inline Shard* shard_of(Db* db, uint64_t h) noexcept nogil:
    return &db.shards[h & (db.nshards - 1)]

# Finds, for whoever may change the value, without side effects but lazy expiry: an expired entry is removed and NULL
# returned.
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

# From now on the fields of the hash may have deadlines. False when there is no hash.
cdef bint ks_time_fields(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil
# Removes all fields that are due now, and the key with the last one.
cdef void ks_expire_fields(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil

cdef inline int64_t ks_deadline(const Entry* e) noexcept nogil:
    """0: none."""
    return deadline_of(e)

cdef inline const uint8_t* entry_string(const Entry* e, size_t* n) noexcept nogil:
    """The bytes of a string entry."""
    cdef Blob* blob
    if e.flags & BOXED:
        blob = <Blob*>entry_box(e)
        n[0] = blob.size
        return blob.data
    n[0] = e.vlen
    return entry_value(e)

# Compaction: the entry leaves its page, if that is marked. False when it is not one of this database's.
cdef bint ks_moved(Db* db, Entry* e, const uint8_t* key, size_t n, uint64_t h) noexcept nogil
cdef Entry* ks_glance(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil  # whatever is there, overdue or not
cdef object wrap_value(Entry* e)
cdef void ks_prefetch_bucket(Db* db, uint64_t h) noexcept nogil
cdef void ks_prefetch_entry(Db* db, uint64_t h) noexcept nogil

# ---- for the doors of keyspace.pyx

# A value on its way from one key to another.
ctypedef struct Held:
    int64_t deadline_ms
    uint32_t field              # see recency.pxd
    uint16_t size
    uint8_t type
    uint8_t flags
    uint8_t value[1024]         # INLINE_MAX

cdef TypeOps* type_ops(uint8_t type) noexcept nogil
cdef int type_of_class(object cls) except -1
# Any value under any key: its bytes, or with BOXED the 8 of a pointer, which the keyspace takes over.
cdef Entry* ks_put(
    Db* db, const uint8_t* key, size_t n, uint64_t h, uint8_t type, const uint8_t* value, size_t vn, uint8_t flags,
    int64_t deadline_ms,
) noexcept nogil
cdef bint ks_take(Db* db, const uint8_t* key, size_t n, uint64_t h, Held* held) noexcept nogil  # removes; False when absent
cdef void ks_give(Db* db, const uint8_t* key, size_t n, uint64_t h, Held* held) noexcept nogil  # replaces what is there
cdef void ks_expire(Db* db, Shard* s, uint64_t* slot) noexcept nogil
cdef size_t ks_expire_due(Db* db, Shard* s, size_t most) noexcept nogil
cdef void ks_clear(Db* db) noexcept nogil                   # at once; the memory follows by ks_free
cdef void ks_close(Db* db) noexcept nogil                   # the same, and frees all
cdef bint ks_free(size_t budget) noexcept nogil             # frees up to `budget` elements; True while more is left
cdef size_t ks_expire_due_fields(Db* db, Shard* s, size_t most) noexcept nogil
# While the list, which must stay the same one, is not empty, expiries call `call(index of the database, key)`, and
# `call_fields(index, key, fields, whether the key is gone with them)`.
cdef void on_expired(object listeners, object call, object call_fields)
