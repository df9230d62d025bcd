# Entries and the hash table that holds them: the keyspace's shards, and the fields and members of large collections.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

# An entry is one allocation:
#   8 bytes of header | LONG_KEY: 4 bytes key length | EXPIRES: 8 bytes deadline ms, 4 bytes place in the expiry heap
#   | key | value (inline bytes, or with BOXED an 8-byte pointer: Blob* for strings, the type's structure otherwise)
ctypedef packed struct Entry:
    uint32_t meta       # low 24 bits: LRU clock or LFU counter; bits 24-27: type; bits 28-31: free for the owner
    uint8_t flags
    uint8_t klen        # 255 with LONG_KEY
    uint16_t vlen       # inline value bytes (8 with BOXED)

cdef enum:
    EXPIRES = 1
    LONG_KEY = 2
    BOXED = 4
    FIELDS_EXPIRE = 8   # a hash whose fields may have deadlines: see hash_deadlines.pxd
    INLINE_MAX = 1024   # longest value kept inside an entry

cdef enum:
    T_STRING = 0
    T_LIST = 1
    T_SET = 2
    T_ZSET = 3
    T_HASH = 4
    T_MODULE = 5
    T_STREAM = 6
    T_OBJECT = 7        # a Python object

cdef inline uint8_t entry_type(const Entry* e) noexcept nogil:
    return (e.meta >> 24) & 15

cdef inline uint8_t* entry_key(const Entry* e, size_t* n) noexcept nogil:
    cdef uint8_t* p = <uint8_t*>e + sizeof(Entry)
    cdef uint32_t long_n
    if e.flags & LONG_KEY:
        memcpy(&long_n, p, 4)
        n[0] = long_n
        p += 4
    else:
        n[0] = e.klen
    if e.flags & EXPIRES:
        p += 12
    return p

cdef inline uint8_t* entry_value(const Entry* e) noexcept nogil:
    cdef size_t n
    cdef uint8_t* k = entry_key(e, &n)
    return k + n

cdef inline void* entry_box(const Entry* e) noexcept nogil:
    cdef void* box
    memcpy(&box, entry_value(e), 8)
    return box

cdef inline size_t entry_size(const Entry* e) noexcept nogil:
    return <size_t>(entry_value(e) - <uint8_t*>e) + e.vlen

cdef uint64_t hash_bytes(const uint8_t* p, size_t n) noexcept nogil   # seeded per process

cdef Entry* keyed_new(uint8_t type, const uint8_t* key, size_t klen, const uint8_t* value, size_t vlen, uint8_t flags) noexcept nogil  # of the keyspace
cdef Entry* entry_new(uint8_t type, const uint8_t* key, size_t klen, const uint8_t* value, size_t vlen, uint8_t flags) noexcept nogil
cdef void entry_free(Entry* e) noexcept nogil                          # the entry alone, not what it boxes

# The table: 64-byte buckets of 8 slots, (flag, guest, tag 14 bits, pointer 48 bits), bucket = spot * buckets >> 64, the
# spot being the hash mixed in a way of the table's own. So the table is ordered by spot: a scan's cursor is a place
# among spots and survives every resize, and while a resize is under way a key's home is the new table exactly when its
# spot lies below the boundary. Resizes proceed in steps.
ctypedef struct Half:
    uint64_t* slots
    uint64_t buckets

ctypedef struct Table:
    Half now
    Half next           # while a resize is under way
    uint64_t moved      # buckets of `now` already moved to `next`
    uint64_t used
    uint64_t salt       # growth phase, so that shards do not resize together
    uint64_t mix        # spot = hash * mix; odd

ctypedef void (*EntryVisitor)(Entry* e, uint64_t hash, void* arg) noexcept nogil

cdef void table_init(Table* t, uint64_t salt) noexcept nogil
cdef void table_free(Table* t) noexcept nogil                          # the slots; entries must be gone or the caller's
cdef uint64_t* table_find(Table* t, const uint8_t* key, size_t n, uint64_t h) noexcept nogil   # slot or NULL
cdef void table_insert(Table* t, Entry* e, uint64_t h) noexcept nogil  # the key must be absent
cdef void table_replace(uint64_t* slot, Entry* e) noexcept nogil       # same key, entry moved
cdef Entry* table_take(Table* t, uint64_t* slot) noexcept nogil        # removes from the table, returns the entry
cdef Entry* table_random(Table* t, uint64_t (*rand)() noexcept nogil) noexcept nogil  # uniform; NULL when empty
# Visits every entry of the buckets from `cursor` until at least `count` were visited; 0 when through. Below 2^48.
cdef uint64_t table_scan(Table* t, uint64_t cursor, size_t count, EntryVisitor visit, void* arg) noexcept nogil
cdef size_t table_memory(Table* t) noexcept nogil                      # bytes of the slot arrays
cdef uint64_t table_faults(Table* t) noexcept nogil                    # broken invariants, by a walk over all: for tests
cdef bint table_step(Table* t, size_t buckets) noexcept nogil          # resize work; True while more is left

cdef inline Entry* slot_entry(uint64_t slot) noexcept nogil:
    return <Entry*>(slot & 0xFFFFFFFFFFFFULL)

cdef inline void table_prefetch(Table* t, uint64_t h) noexcept nogil:
    table_prefetch_bucket(t, h)
cdef void table_prefetch_bucket(Table* t, uint64_t h) noexcept nogil   # touch 1: the bucket's cache line
cdef void table_prefetch_entry(Table* t, uint64_t h) noexcept nogil    # touch 2: the entry that the tag promises
