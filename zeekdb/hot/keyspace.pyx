"""The sharded keyspace: databases, expiry, deferred freeing, and the Python doors.

Each database is split into shards; a shard owns its table and its expiry index, so that growing, expiring and freeing
go on in small slices whatever the size of the whole. The index is a 4-ary heap of (deadline, entry); an entry with a
deadline stores its place in the heap, so that a deadline is changed or cleared in O(log n) without a search.

What is large is never freed inside a command: whole tables (FLUSHALL) and structures of more than EFFORT_MAX
allocations wait in a list that `run_lazyfree` works off in slices.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset
from zeekdb.hot.memory cimport (
    Blob, blob_grow, blob_new, blob_release, blob_retain, blob_trim, mem_alloc, mem_footprint, mem_free, mem_resize, mem_used,
)
from zeekdb.hot.table cimport (
    BOXED, EXPIRES, INLINE_MAX, LONG_KEY, T_OBJECT, T_STRING, Entry, Table, entry_box, entry_free, entry_key, entry_new,
    entry_size, entry_type, entry_value, hash_bytes, slot_entry, table_faults, table_find, table_free, table_init, table_insert,
    table_memory, table_prefetch_bucket, table_prefetch_entry, table_random, table_replace, table_scan, table_step,
    table_take,
)

import os

cdef extern from "Python.h":
    ctypedef struct PyVarObject:
        Py_ssize_t ob_size

cdef extern from *:
    """
    #include <time.h>
    static inline long long keyspace_us(void) {
        struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000ll + t.tv_nsec / 1000; }
    static inline long long keyspace_wall_ms(void) {
        struct timespec t; clock_gettime(CLOCK_REALTIME, &t); return t.tv_sec * 1000ll + t.tv_nsec / 1000000; }
    """
    int64_t keyspace_us() nogil
    int64_t keyspace_wall_ms() nogil
    void __builtin_prefetch(const void* p) nogil

cdef enum:
    TYPES = 8
    EFFORT_MAX = 64          # allocations beyond which a value is freed later
    SHARDS_MAX = 65536
    LFU_INIT = 5
    SLICE = 64               # steps between two looks at the clock
    TRIM_EVERY_US = 1000000

cdef uint32_t LFU_DECAY_MINUTES = 1
cdef uint32_t LFU_LOG_FACTOR = 10
cdef bint TOUCHING = True
cdef TypeOps* OPS[TYPES]
cdef list CLASSES = [bytes] + [None] * (TYPES - 1)
cdef list NAMES = ["string", "list", "set", "zset", "hash", "module", "stream", "object"]
memset(&G, 0, sizeof(G))
G.active_expire = True
G.now_ms = keyspace_wall_ms()
G.clock = <uint32_t>((G.now_ms // 1000) & 0xFFFFFF)

cdef uint64_t RANDOM_STATE = int.from_bytes(os.urandom(8), "little") | 1


cdef uint64_t random_bits() noexcept nogil:
    """xorshift64*: places in tables, nothing secret."""
    global RANDOM_STATE
    RANDOM_STATE ^= RANDOM_STATE >> 12
    RANDOM_STATE ^= RANDOM_STATE << 25
    RANDOM_STATE ^= RANDOM_STATE >> 27
    return RANDOM_STATE * <uint64_t>2685821657736338717ULL


cdef int register_type(uint8_t type, TypeOps* ops, object cls) except -1:
    OPS[type] = ops
    CLASSES[type] = cls
    return 0


# ---------------------------------------------------------------- Python objects as values


cdef void* object_create() noexcept nogil:
    return NULL


cdef bint object_destroy(void* self, size_t* budget) noexcept nogil:
    with gil:
        Py_DECREF(<object>self)
    if budget[0]:
        budget[0] -= 1
    return True


cdef void* object_copy(void* self) noexcept nogil:
    with gil:
        try:
            twin = (<object>self).copy()
            Py_INCREF(twin)
            return <void*>twin
        except Exception:
            return NULL


cdef uint64_t object_length(void* self) noexcept nogil:
    with gil:
        try:
            return len(<object>self)
        except Exception:
            return 0


cdef size_t object_memory(void* self) noexcept nogil:
    with gil:
        try:
            return (<object>self).__sizeof__()
        except Exception:
            return 0


cdef size_t object_effort(void* self) noexcept nogil:
    return 1


cdef object object_wrap(void* self):
    return <object>self


cdef TypeOps OBJECT_OPS
OBJECT_OPS.create = object_create
OBJECT_OPS.destroy = object_destroy
OBJECT_OPS.copy = object_copy
OBJECT_OPS.length = object_length
OBJECT_OPS.memory = object_memory
OBJECT_OPS.effort = object_effort
OBJECT_OPS.wrap = object_wrap
register_type(T_OBJECT, &OBJECT_OPS, None)

# ---------------------------------------------------------------- deferred freeing

ctypedef struct Doomed:
    Doomed* next
    uint8_t type             # TYPES: a whole shard's table
    void* value
    Table table
    uint64_t cursor          # the next slot of the table
    Deadline* heap
    uint32_t heap_capacity

cdef Doomed* DOOMED = NULL
cdef Doomed* DOOMED_LAST = NULL


cdef void doom(uint8_t type, void* value, Shard* shard) noexcept nogil:
    """Puts a value, or all that a shard holds, on the list of what is to be freed."""
    global DOOMED, DOOMED_LAST
    cdef Doomed* d = <Doomed*>mem_alloc(sizeof(Doomed))
    memset(d, 0, sizeof(Doomed))
    d.type = type
    d.value = value
    if shard != NULL:
        d.table = shard.table
        d.heap = shard.heap
        d.heap_capacity = shard.heap_capacity
        G.lazyfree_pending += shard.table.used
    else:
        G.lazyfree_pending += 1
    if DOOMED == NULL:
        DOOMED = d
    else:
        DOOMED_LAST.next = d
    DOOMED_LAST = d


cdef void free_value(Entry* e, bint may_wait) noexcept nogil:
    """What an entry boxes; the entry itself is the caller's."""
    cdef uint8_t type = entry_type(e)
    cdef void* box
    cdef size_t budget = <size_t>-1
    if not e.flags & BOXED:
        return
    box = entry_box(e)
    if type == T_STRING:
        blob_release(<Blob*>box)
    elif may_wait and OPS[type].effort(box) > EFFORT_MAX:
        doom(type, box, NULL)
    else:
        OPS[type].destroy(box, &budget)


cdef bint free_slots(Doomed* d, size_t* budget) noexcept nogil:
    """Frees the entries of a detached shard; True when it is empty."""
    cdef uint64_t slots = d.table.now.buckets * 8
    cdef uint64_t total = slots + d.table.next.buckets * 8
    cdef uint64_t slot, ahead
    cdef Entry* e
    if d.heap != NULL:
        mem_free(d.heap, d.heap_capacity * sizeof(Deadline))
        d.heap = NULL
    while d.cursor < total:
        if budget[0] == 0:
            return False
        ahead = d.cursor + 16
        if ahead < total:
            slot = d.table.now.slots[ahead] if ahead < slots else d.table.next.slots[ahead - slots]
            __builtin_prefetch(slot_entry(slot))
        slot = d.table.now.slots[d.cursor] if d.cursor < slots else d.table.next.slots[d.cursor - slots]
        d.cursor += 1
        e = slot_entry(slot)
        if e != NULL:
            free_value(e, True)
            entry_free(e)
            G.lazyfreed += 1
            G.lazyfree_pending -= 1
            budget[0] -= 1
        elif d.cursor & 7 == 0:
            budget[0] -= 1
    table_free(&d.table)
    return True


cdef bint free_some(size_t budget) noexcept nogil:
    """Works off the list of what is to be freed; True while something is left."""
    global DOOMED, DOOMED_LAST
    cdef Doomed* d
    cdef bint gone
    while DOOMED != NULL and budget:
        d = DOOMED
        if d.type == TYPES:
            gone = free_slots(d, &budget)
        else:
            gone = OPS[d.type].destroy(d.value, &budget)
            if gone:
                G.lazyfreed += 1
                G.lazyfree_pending -= 1
                if budget:
                    budget -= 1
        if not gone:
            return True
        DOOMED = d.next
        if DOOMED == NULL:
            DOOMED_LAST = NULL
        mem_free(d, sizeof(Doomed))
    return DOOMED != NULL


# ---------------------------------------------------------------- the expiry index


cdef inline uint8_t* deadline_at(const Entry* e) noexcept nogil:
    return <uint8_t*>e + sizeof(Entry) + (4 if e.flags & LONG_KEY else 0)


cdef int64_t ks_deadline(const Entry* e) noexcept nogil:
    cdef int64_t when
    if not e.flags & EXPIRES:
        return 0
    memcpy(&when, deadline_at(e), 8)
    return when


cdef inline uint32_t heap_place(const Entry* e) noexcept nogil:
    cdef uint32_t i
    memcpy(&i, deadline_at(e) + 8, 4)
    return i


cdef inline void heap_put(Shard* s, uint32_t i, Deadline d) noexcept nogil:
    s.heap[i] = d
    memcpy(deadline_at(d.entry) + 8, &i, 4)


cdef void heap_up(Shard* s, uint32_t i, Deadline d) noexcept nogil:
    cdef uint32_t parent
    while i:
        parent = (i - 1) >> 2
        if s.heap[parent].when_ms <= d.when_ms:
            break
        heap_put(s, i, s.heap[parent])
        i = parent
    heap_put(s, i, d)


cdef void heap_down(Shard* s, uint32_t i, Deadline d) noexcept nogil:
    cdef uint32_t child, best, k
    while True:
        child = 4 * i + 1
        if child >= s.heap_used:
            break
        best = child
        for k in range(child + 1, min(child + 4, s.heap_used)):
            if s.heap[k].when_ms < s.heap[best].when_ms:
                best = k
        if s.heap[best].when_ms >= d.when_ms:
            break
        heap_put(s, i, s.heap[best])
        i = best
    heap_put(s, i, d)


cdef void heap_add(Shard* s, Entry* e, int64_t when_ms) noexcept nogil:
    """The entry has EXPIRES; its deadline is set here."""
    cdef Deadline d
    cdef uint32_t capacity
    if s.heap_used == s.heap_capacity:
        capacity = s.heap_capacity + s.heap_capacity // 2 + 16
        s.heap = <Deadline*>mem_resize(s.heap, s.heap_capacity * sizeof(Deadline), capacity * sizeof(Deadline))
        s.heap_capacity = capacity
    memcpy(deadline_at(e), &when_ms, 8)
    d.when_ms = when_ms
    d.entry = e
    s.heap_used += 1
    heap_up(s, s.heap_used - 1, d)


cdef void heap_remove(Shard* s, Entry* e) noexcept nogil:
    cdef uint32_t i = heap_place(e)
    cdef uint32_t capacity
    cdef Deadline last
    s.heap_used -= 1
    if i != s.heap_used:
        last = s.heap[s.heap_used]
        if i and s.heap[(i - 1) >> 2].when_ms > last.when_ms:
            heap_up(s, i, last)
        else:
            heap_down(s, i, last)
    if s.heap_capacity > 64 and s.heap_used * 4 < s.heap_capacity:
        capacity = s.heap_capacity // 2
        s.heap = <Deadline*>mem_resize(s.heap, s.heap_capacity * sizeof(Deadline), capacity * sizeof(Deadline))
        s.heap_capacity = capacity


cdef void heap_change(Shard* s, Entry* e, int64_t when_ms) noexcept nogil:
    cdef uint32_t i = heap_place(e)
    cdef Deadline d
    memcpy(deadline_at(e), &when_ms, 8)
    d.when_ms = when_ms
    d.entry = e
    if i and s.heap[(i - 1) >> 2].when_ms > when_ms:
        heap_up(s, i, d)
    else:
        heap_down(s, i, d)


# ---------------------------------------------------------------- finding and removing

# While somebody subscribes to the journal an expiry is reported, which needs Python; the list's length tells.
cdef object KEYSPACE = None
cdef PyVarObject* LISTENERS = NULL  # KEYSPACE's list, which is changed in place only


cdef void report(Db* db, const uint8_t* key, size_t n, const char* event) noexcept nogil:
    with gil:
        if KEYSPACE is not None:
            try:
                (<Keyspace>KEYSPACE).tell(db.index, PyBytes_FromStringAndSize(<char*>key, n), event)
            except Exception:
                pass


cdef void remove_slot(Shard* s, uint64_t* slot) noexcept nogil:
    cdef Entry* e = slot_entry(slot[0])
    if e.flags & EXPIRES:
        heap_remove(s, e)
    table_take(&s.table, slot)
    free_value(e, True)
    entry_free(e)


cdef void expire_slot(Db* db, Shard* s, uint64_t* slot) noexcept nogil:
    cdef Entry* e = slot_entry(slot[0])
    cdef size_t n
    cdef uint8_t* key
    cdef uint8_t* copy
    G.expired += 1
    if LISTENERS != NULL and LISTENERS.ob_size:
        key = entry_key(e, &n)
        copy = <uint8_t*>mem_alloc(n if n else 1)
        memcpy(copy, key, n)
        remove_slot(s, slot)
        report(db, copy, n, b"expired")
        mem_free(copy, n if n else 1)
    else:
        remove_slot(s, slot)


cdef inline uint64_t* find_slot(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    """The slot of a live key; an expired one is removed on the way."""
    cdef Shard* s
    cdef uint64_t* slot
    cdef Entry* e
    if db.shards == NULL:
        return NULL
    s = shard_of(db, h)
    slot = table_find(&s.table, key, n, h)
    if slot == NULL:
        return NULL
    e = slot_entry(slot[0])
    if e.flags & EXPIRES and ks_deadline(e) <= G.now_ms:
        expire_slot(db, s, slot)
        return NULL
    return slot


cdef Entry* ks_find(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = find_slot(db, key, n, h)
    return slot_entry(slot[0]) if slot != NULL else NULL


cdef inline uint8_t lfu_decayed(uint32_t meta) noexcept nogil:
    """Redis's logarithmic counter after the minutes since the last touch: 16 bits of minutes, 8 of counter."""
    cdef uint32_t then = (meta >> 8) & 0xFFFF
    cdef uint32_t now = <uint32_t>((G.now_ms // 60000) & 0xFFFF)
    cdef uint32_t minutes = (now - then) & 0xFFFF
    cdef uint32_t counter = meta & 0xFF
    if LFU_DECAY_MINUTES:
        minutes = minutes // LFU_DECAY_MINUTES
        counter = counter - minutes if counter > minutes else 0
    return <uint8_t>counter


cdef inline void set_clock_field(Entry* e, uint32_t clock) noexcept nogil:
    e.meta = (e.meta & 0xFF000000U) | clock


cdef inline uint32_t minutes_now() noexcept nogil:
    cdef uint32_t minutes = <uint32_t>((G.now_ms // 60000) & 0xFFFF)
    return minutes << 8


cdef void lfu_touch(Entry* e) noexcept nogil:
    cdef uint32_t counter = lfu_decayed(e.meta)
    cdef uint32_t base
    if counter < 255:
        base = counter - LFU_INIT if counter > LFU_INIT else 0
        if random_bits() % (base * LFU_LOG_FACTOR + 1) == 0:
            counter += 1
    set_clock_field(e, minutes_now() | counter)


cdef inline void touch_entry(Entry* e) noexcept nogil:
    if G.touch_lfu:
        lfu_touch(e)
    else:
        set_clock_field(e, G.clock)


cdef inline uint32_t first_touch() noexcept nogil:
    if G.touch_lfu:
        return minutes_now() | LFU_INIT
    return G.clock


cdef Entry* ks_read(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = find_slot(db, key, n, h)
    cdef Entry* e
    if slot == NULL:
        G.misses += 1
        return NULL
    G.hits += 1
    e = slot_entry(slot[0])
    if TOUCHING:
        touch_entry(e)
    return e


cdef bint ks_delete(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = find_slot(db, key, n, h)
    if slot == NULL:
        return False
    remove_slot(shard_of(db, h), slot)
    return True


cdef void ks_prefetch_bucket(Db* db, uint64_t h) noexcept nogil:
    if db.shards != NULL:
        table_prefetch_bucket(&shard_of(db, h).table, h)


cdef void ks_prefetch_entry(Db* db, uint64_t h) noexcept nogil:
    if db.shards != NULL:
        table_prefetch_entry(&shard_of(db, h).table, h)


# ---------------------------------------------------------------- storing


cdef void open_shards(Db* db) noexcept nogil:
    """A database that was never written to has none."""
    cdef uint32_t i
    db.shards = <Shard*>mem_alloc(db.nshards * sizeof(Shard))
    memset(db.shards, 0, db.nshards * sizeof(Shard))
    for i in range(db.nshards):
        table_init(&db.shards[i].table, i + 1)


cdef inline bint has_room(const Entry* e, size_t vn) noexcept nogil:
    """Whether a value of vn bytes may take the place of the entry's own: no block changes its footprint."""
    cdef size_t size = entry_size(e)
    return e.vlen == vn or mem_footprint(size) == mem_footprint(size - e.vlen + vn)


cdef void close_shards(Db* db) noexcept nogil:
    cdef uint32_t i
    cdef Doomed d
    cdef size_t budget = <size_t>-1
    for i in range(db.nshards):
        memset(&d, 0, sizeof(d))
        d.table = db.shards[i].table
        d.heap = db.shards[i].heap
        d.heap_capacity = db.shards[i].heap_capacity
        G.lazyfree_pending += d.table.used
        free_slots(&d, &budget)
    mem_free(db.shards, db.nshards * sizeof(Shard))
    db.shards = NULL


cdef Entry* put_entry(Db* db, Shard* s, uint64_t* slot, Entry* e, uint64_t h, int64_t deadline_ms) noexcept nogil:
    """Places a fresh entry, replacing what the slot holds. `e` has EXPIRES exactly when the deadline is not 0."""
    cdef Entry* old
    cdef uint32_t clock = first_touch()
    if slot != NULL:
        old = slot_entry(slot[0])
        if G.touch_lfu:
            clock = old.meta & 0xFFFFFF  # a new value is no new key
        if old.flags & EXPIRES:
            heap_remove(s, old)
        table_replace(slot, e)
        free_value(old, True)
        entry_free(old)
    else:
        table_insert(&s.table, e, h)
    set_clock_field(e, clock)
    if deadline_ms:
        heap_add(s, e, deadline_ms)
    return e


cdef Entry* put_value(
    Db* db, const uint8_t* key, size_t n, uint64_t h, uint8_t type, const uint8_t* value, size_t vn, uint8_t flags,
    int64_t deadline_ms,
) noexcept nogil:
    """Any value under any key: in place where only the bytes change, in a fresh entry otherwise."""
    cdef uint64_t* slot = find_slot(db, key, n, h)
    cdef Shard* s
    cdef Entry* e
    if db.shards == NULL:
        open_shards(db)
    s = shard_of(db, h)
    if slot != NULL:
        e = slot_entry(slot[0])
        if deadline_ms < 0:
            deadline_ms = ks_deadline(e)
        if (e.flags & EXPIRES != 0) == (deadline_ms != 0) and entry_type(e) == type and has_room(e, vn):
            if e.flags & BOXED:
                free_value(e, True)
            e.vlen = <uint16_t>vn
            memcpy(entry_value(e), value, vn)
            e.flags = (e.flags & ~<uint8_t>BOXED) | flags
            touch_entry(e)
            if deadline_ms:
                heap_change(s, e, deadline_ms)
            return e
    elif deadline_ms < 0:
        deadline_ms = 0
    e = entry_new(type, key, n, value, vn, flags | (EXPIRES if deadline_ms else 0))
    return put_entry(db, s, slot, e, h, deadline_ms)


cdef Entry* ks_set(Db* db, const uint8_t* key, size_t n, uint64_t h, const uint8_t* value, size_t vn, int64_t deadline_ms) noexcept nogil:
    cdef Blob* blob
    if vn <= INLINE_MAX:
        return put_value(db, key, n, h, T_STRING, value, vn, 0, deadline_ms)
    blob = blob_new(vn)
    memcpy(blob.data, value, vn)
    blob.size = vn
    return ks_set_blob(db, key, n, h, blob, deadline_ms)


cdef Entry* ks_set_blob(Db* db, const uint8_t* key, size_t n, uint64_t h, Blob* blob, int64_t deadline_ms) noexcept nogil:
    return put_value(db, key, n, h, T_STRING, <uint8_t*>&blob, 8, BOXED, deadline_ms)


cdef void* ks_create(Db* db, const uint8_t* key, size_t n, uint64_t h, uint8_t type) noexcept nogil:
    cdef void* box = OPS[type].create()
    put_value(db, key, n, h, type, <uint8_t*>&box, 8, BOXED, 0)
    return box


cdef Entry* ks_expire_at(Db* db, const uint8_t* key, size_t n, uint64_t h, int64_t deadline_ms) noexcept nogil:
    cdef uint64_t* slot = find_slot(db, key, n, h)
    cdef Shard* s
    cdef Entry* e
    cdef Entry* moved
    if slot == NULL:
        return NULL
    s = shard_of(db, h)
    e = slot_entry(slot[0])
    if (e.flags & EXPIRES != 0) == (deadline_ms != 0):
        if deadline_ms:
            heap_change(s, e, deadline_ms)
        return e
    if e.flags & EXPIRES:
        heap_remove(s, e)
    moved = entry_new(
        entry_type(e), key, n, entry_value(e), e.vlen, (e.flags & BOXED) | (EXPIRES if deadline_ms else 0)
    )
    moved.meta = e.meta
    table_replace(slot, moved)
    entry_free(e)
    if deadline_ms:
        heap_add(s, moved, deadline_ms)
    return moved


cdef const uint8_t* entry_string(const Entry* e, size_t* n) noexcept nogil:
    cdef Blob* blob
    if e.flags & BOXED:
        blob = <Blob*>entry_box(e)
        n[0] = blob.size
        return blob.data
    n[0] = e.vlen
    return entry_value(e)


# ---------------------------------------------------------------- globs


def glob_match(bytes pattern not None, bytes text not None, bint nocase=False) -> bool:
    """Whether the text matches Redis's glob: `*`, `?`, `[a-z]`, `[^x]`, backslash."""
    return glob(<uint8_t*>PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern),
                <uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), nocase)


cdef inline uint8_t fold(uint8_t b, bint nocase) noexcept nogil:
    return b + 32 if nocase and 65 <= b <= 90 else b


cdef size_t match_class(const uint8_t* p, size_t n, uint8_t b, bint nocase, bint* hit) noexcept nogil:
    """A `[...]` whose `[` stands at p[0]: how many bytes it takes, and whether b is in it."""
    cdef size_t i = 1
    cdef bint negated = False, found = False
    cdef uint8_t low, high
    if i < n and p[i] == 94:
        negated = True
        i += 1
    while True:
        if i >= n:
            i -= 1  # unterminated: Redis takes what is there
            break
        if p[i] == 92 and i + 1 < n:
            i += 1
            if fold(p[i], nocase) == b:
                found = True
        elif p[i] == 93:
            break
        elif i + 2 < n and p[i + 1] == 45:
            low, high = p[i], p[i + 2]
            if low > high:
                low, high = high, low
            low, high = fold(low, nocase), fold(high, nocase)
            if low <= b <= high:
                found = True
            i += 2
        elif fold(p[i], nocase) == b:
            found = True
        i += 1
    hit[0] = found != negated
    return i + 1


cdef bint glob(const uint8_t* p, size_t n, const uint8_t* t, size_t m, bint nocase) noexcept nogil:
    """Without recursion: a mismatch goes back to the last star only, so the work is at most n * m."""
    cdef size_t i = 0, j = 0, star_i = 0, star_j = 0, taken
    cdef bint star = False, hit
    cdef uint8_t b
    if m == 0:
        return n == 0 or (n == 1 and p[0] == 42)  # Redis finds the empty key by `*`, not by `**`
    while j < m:
        b = fold(t[j], nocase)
        if i < n:
            if p[i] == 42:
                while i < n and p[i] == 42:
                    i += 1
                if i == n:
                    return True
                star, star_i, star_j = True, i, j
                continue
            taken = 1
            if p[i] == 63:
                hit = True
            elif p[i] == 91:
                taken = match_class(p + i, n - i, b, nocase, &hit)
            elif p[i] == 92 and i + 1 < n:
                taken = 2
                hit = fold(p[i + 1], nocase) == b
            else:
                hit = fold(p[i], nocase) == b
            if hit:
                i += taken
                j += 1
                continue
        if not star:
            return False
        star_j += 1
        i, j = star_i, star_j
    while i < n and p[i] == 42:
        i += 1
    return i >= n


# ---------------------------------------------------------------- Python doors


cdef object wrap_value(Entry* e):
    cdef size_t n
    cdef const uint8_t* p
    cdef uint8_t type = entry_type(e)
    if type == T_STRING:
        p = entry_string(e, &n)
        return PyBytes_FromStringAndSize(<const char*>p, n)
    return OPS[type].wrap(entry_box(e))


cdef Db* db_pointer(object database) except NULL:
    return &(<Database?>database).db


ctypedef struct Collector:
    void* keys               # a Python list, borrowed
    Db* db
    const uint8_t* pattern
    size_t pattern_size
    bint filtered


cdef void collect(Entry* e, uint64_t h, void* arg) noexcept nogil:
    cdef Collector* c = <Collector*>arg
    cdef size_t n
    cdef uint8_t* key
    if e.flags & EXPIRES and ks_deadline(e) <= G.now_ms:
        return
    key = entry_key(e, &n)
    if c.filtered and not glob(c.pattern, c.pattern_size, key, n, False):
        return
    with gil:
        (<list>c.keys).append(PyBytes_FromStringAndSize(<char*>key, n))


cdef class Database:
    """One database. See keyspace.pyi for what each method promises."""

    cdef Db db
    cdef readonly Keyspace keyspace

    def __cinit__(self, Keyspace keyspace, int index, uint32_t shards):
        self.keyspace = keyspace
        self.db.index = index
        self.db.nshards = shards

    def __dealloc__(self):
        if self.db.shards != NULL:
            close_shards(&self.db)

    @property
    def index(self):
        return self.db.index

    cdef inline Entry* find(self, bytes key) except? NULL:
        return ks_find(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key))

    cdef inline uint64_t hash(self, bytes key) noexcept:
        return hash_bytes(<uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))

    def __len__(self):
        cdef uint32_t i
        cdef uint64_t n = 0
        if self.db.shards != NULL:
            for i in range(self.db.nshards):
                n += self.db.shards[i].table.used
        return n

    def read(self, bytes key not None):
        cdef Entry* e = ks_read(
            &self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key)
        )
        return wrap_value(e) if e != NULL else None

    def peek(self, bytes key not None):
        cdef Entry* e = self.find(key)
        return wrap_value(e) if e != NULL else None

    def type_of(self, bytes key not None):
        cdef Entry* e = self.find(key)
        if e == NULL:
            return None
        if entry_type(e) == T_OBJECT:
            return getattr(<object>entry_box(e), "type_name", "object")
        return NAMES[entry_type(e)]

    def exists(self, bytes key not None):
        return self.find(key) != NULL

    def touch(self, bytes key not None):
        cdef Entry* e = self.find(key)
        if e == NULL:
            return False
        touch_entry(e)
        return True

    def set(self, bytes key not None, bytes value not None, int64_t deadline_ms=0):
        ks_set(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key),
               <uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), deadline_ms)

    def create(self, bytes key not None, kind):
        cdef uint8_t type = CLASSES.index(kind)
        cdef uint64_t h = self.hash(key)
        cdef void* box = ks_create(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), h, type)
        return OPS[type].wrap(box)

    def set_object(self, bytes key not None, value not None, int64_t deadline_ms=0):
        cdef void* box = <void*>value
        Py_INCREF(value)
        put_value(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key), T_OBJECT,
                  <uint8_t*>&box, 8, BOXED, deadline_ms)

    def remove(self, bytes key not None):
        return ks_delete(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key))

    def deadline(self, bytes key not None):
        cdef Entry* e = self.find(key)
        if e == NULL:
            return -2
        return ks_deadline(e) if e.flags & EXPIRES else -1

    def set_deadline(self, bytes key not None, int64_t deadline_ms):
        return ks_expire_at(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key),
                            deadline_ms) != NULL

    # ------------------------------------------------------------ whole values

    cdef bint take(self, bytes key, uint8_t* type, uint8_t* value, uint16_t* vn, uint8_t* flags, int64_t* deadline, uint32_t* clock):
        """Removes the key and hands its value's bytes (or box) to the caller, who has room for INLINE_MAX."""
        cdef uint64_t h = self.hash(key)
        cdef uint64_t* slot = find_slot(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), h)
        cdef Entry* e
        if slot == NULL:
            return False
        e = slot_entry(slot[0])
        type[0] = entry_type(e)
        vn[0] = e.vlen
        flags[0] = e.flags & BOXED
        deadline[0] = ks_deadline(e)
        clock[0] = e.meta & 0xFFFFFF
        memcpy(value, entry_value(e), e.vlen)
        if e.flags & EXPIRES:
            heap_remove(shard_of(&self.db, h), e)
        table_take(&shard_of(&self.db, h).table, slot)
        entry_free(e)
        return True

    cdef void give(self, bytes key, uint8_t type, uint8_t* value, uint16_t vn, uint8_t flags, int64_t deadline, uint32_t clock):
        cdef Entry* e = put_value(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key),
                                  type, value, vn, flags, deadline)
        e.meta = (e.meta & 0xFF000000U) | clock

    cdef bint carry(self, bytes key, Database other, bytes new):
        cdef uint8_t value[1024]  # INLINE_MAX
        cdef uint8_t type, flags
        cdef uint16_t vn
        cdef int64_t deadline
        cdef uint32_t clock
        if not self.take(key, &type, value, &vn, &flags, &deadline, &clock):
            return False
        other.give(new, type, value, vn, flags, deadline, clock)
        return True

    def rename(self, bytes old not None, bytes new not None):
        if old == new:
            return self.find(old) != NULL
        return self.carry(old, self, new)

    def move(self, bytes key not None, Database other not None, new=None):
        cdef bytes name = key if new is None else new
        if self.find(key) == NULL or other.find(name) != NULL:
            return False
        return self.carry(key, other, name)

    def copy(self, bytes key not None, Database other not None, bytes new not None):
        cdef Entry* e = self.find(key)
        cdef void* box
        cdef size_t n
        cdef const uint8_t* p
        cdef int64_t deadline
        cdef uint8_t type
        if e == NULL:
            return False
        if self is other and key == new:
            return True
        deadline = ks_deadline(e)
        type = entry_type(e)
        if type == T_STRING and not e.flags & BOXED:
            value = wrap_value(e)
            other.set(new, value, deadline)
            return True
        if type == T_STRING:
            box = blob_retain(<Blob*>entry_box(e))
        else:
            box = OPS[type].copy(entry_box(e))
            if box == NULL:
                return False
        put_value(&other.db, <uint8_t*>PyBytes_AS_STRING(new), PyBytes_GET_SIZE(new), self.hash(new), type,
                  <uint8_t*>&box, 8, BOXED, deadline)
        return True

    # ------------------------------------------------------------ strings in place

    cdef const uint8_t* string(self, bytes key, size_t* n) except? NULL:
        cdef Entry* e = self.find(key)
        n[0] = 0
        if e == NULL:
            return NULL
        if entry_type(e) != T_STRING:
            raise TypeError("not a string")
        return entry_string(e, n)

    def strlen(self, bytes key not None):
        cdef size_t n
        self.string(key, &n)
        return n

    def getrange(self, bytes key not None, size_t start, size_t stop):
        cdef size_t n
        cdef Entry* e = ks_read(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key))
        cdef const uint8_t* p
        if e == NULL or entry_type(e) != T_STRING:
            return b""
        p = entry_string(e, &n)
        if stop >= n:
            stop = n - 1
        if n == 0 or start > stop:
            return b""
        return PyBytes_FromStringAndSize(<const char*>p + start, stop - start + 1)

    def append(self, bytes key not None, bytes tail not None):
        cdef size_t n
        if self.string(key, &n) == NULL:
            self.set(key, tail)
            return PyBytes_GET_SIZE(tail)
        return self.write_at(key, n, tail)

    def write_at(self, bytes key not None, size_t offset, bytes data not None):
        cdef size_t n, m = PyBytes_GET_SIZE(data)
        cdef size_t size
        cdef const uint8_t* p = self.string(key, &n)
        cdef uint8_t text[1024]  # INLINE_MAX
        cdef uint64_t h = self.hash(key)
        cdef uint8_t* name = <uint8_t*>PyBytes_AS_STRING(key)
        cdef Entry* e
        cdef Blob* blob
        if m == 0 and offset <= n:
            return n
        size = offset + m if offset + m > n else n
        if size <= INLINE_MAX:
            if n:
                memcpy(text, p, n)
            if offset > n:
                memset(text + n, 0, offset - n)
            memcpy(text + offset, PyBytes_AS_STRING(data), m)
            ks_set(&self.db, name, PyBytes_GET_SIZE(key), h, text, size, -1)
            return size
        e = self.find(key)
        if e != NULL and e.flags & BOXED and (<Blob*>entry_box(e)).refs == 1:
            blob = <Blob*>entry_box(e)
            if blob.capacity < size:
                blob = blob_grow(blob, size)
                memcpy(entry_value(e), &blob, 8)
            touch_entry(e)
        else:
            blob = blob_new(size)
            if n:
                memcpy(blob.data, p, n)
            blob.size = n
            ks_set_blob(&self.db, name, PyBytes_GET_SIZE(key), h, blob, -1)
        if offset > n:
            memset(blob.data + n, 0, offset - n)
        memcpy(blob.data + offset, PyBytes_AS_STRING(data), m)
        blob.size = size
        return size

    # ------------------------------------------------------------ the whole database

    def scan(self, uint64_t cursor, size_t count):
        cdef list found = []
        cdef Collector c
        cdef uint64_t shard = cursor % self.db.nshards
        cdef uint64_t at = cursor // self.db.nshards
        c.keys = <void*>found
        c.db = &self.db
        c.filtered = False
        if self.db.shards == NULL:
            return 0, found
        at = table_scan(&self.db.shards[shard].table, at, count, collect, &c)
        while at == 0:
            shard += 1
            if shard == self.db.nshards:
                return 0, found
            if <size_t>len(found) >= count:
                break
            at = table_scan(&self.db.shards[shard].table, 0, count - len(found), collect, &c)
        return at * self.db.nshards + shard, found

    def keys(self, pattern=None):
        cdef list found = []
        cdef Collector c
        cdef uint32_t i
        cdef uint64_t at
        cdef bytes text = pattern
        c.keys = <void*>found
        c.db = &self.db
        c.filtered = text is not None
        if c.filtered:
            c.pattern = <uint8_t*>PyBytes_AS_STRING(text)
            c.pattern_size = PyBytes_GET_SIZE(text)
        if self.db.shards == NULL:
            return found
        for i in range(self.db.nshards):
            # one go over the whole table: nothing resizes in between
            if self.db.shards[i].table.used:
                table_scan(&self.db.shards[i].table, 0, <size_t>1 << 48, collect, &c)
        return found

    def random_key(self):
        cdef uint64_t total = len(self), place
        cdef uint32_t i
        cdef Entry* e
        cdef Shard* s
        cdef size_t n
        cdef uint8_t* key
        cdef int tries
        for tries in range(100):
            total = len(self)
            if total == 0:
                return None
            place = random_bits() % total
            i = 0
            while place >= self.db.shards[i].table.used:
                place -= self.db.shards[i].table.used
                i += 1
            s = &self.db.shards[i]
            e = table_random(&s.table, random_bits)
            key = entry_key(e, &n)
            if not e.flags & EXPIRES or ks_deadline(e) > G.now_ms or tries == 99:
                return PyBytes_FromStringAndSize(<char*>key, n)
            expire_slot(&self.db, s, table_find(&s.table, key, n, hash_bytes(key, n)))
        return None

    def clear(self):
        cdef uint32_t i
        cdef uint64_t n = len(self)
        if self.db.shards == NULL:
            return 0
        for i in range(self.db.nshards):
            doom(TYPES, NULL, &self.db.shards[i])
        mem_free(self.db.shards, self.db.nshards * sizeof(Shard))
        self.db.shards = NULL
        return n

    # ------------------------------------------------------------ introspection

    def volatile_count(self):
        cdef uint32_t i
        cdef uint64_t n = 0
        if self.db.shards != NULL:
            for i in range(self.db.nshards):
                n += self.db.shards[i].heap_used
        return n

    def average_ttl_ms(self):
        """Estimated from up to 16 deadlines of each shard."""
        cdef uint32_t i, k, step
        cdef int64_t total = 0, n = 0
        cdef Shard* s
        if self.db.shards == NULL:
            return 0
        for i in range(self.db.nshards):
            s = &self.db.shards[i]
            step = s.heap_used // 16 + 1
            k = 0
            while k < s.heap_used:
                if s.heap[k].when_ms > G.now_ms:
                    total += s.heap[k].when_ms - G.now_ms
                n += 1
                k += step
        return total // n if n else 0

    def memory_of(self, bytes key not None, int64_t samples=5):
        cdef Entry* e = self.find(key)
        cdef size_t total
        if e == NULL:
            return None
        total = mem_footprint(entry_size(e)) + 10  # its share of the slots
        if e.flags & EXPIRES:
            total += sizeof(Deadline)
        if e.flags & BOXED:
            if entry_type(e) == T_STRING:
                total += mem_footprint(sizeof(Blob)) + (<Blob*>entry_box(e)).capacity
            else:
                total += OPS[entry_type(e)].memory(entry_box(e))
        return total

    def idle_s(self, bytes key not None):
        cdef Entry* e = self.find(key)
        if e == NULL:
            return None
        return (<uint32_t>(G.now_ms // 1000) - (e.meta & 0xFFFFFF)) & 0xFFFFFF

    def set_idle_s(self, bytes key not None, int64_t idle_s):
        cdef Entry* e = self.find(key)
        if e != NULL:
            e.meta = (e.meta & 0xFF000000U) | (<uint32_t>(G.now_ms // 1000 - idle_s) & 0xFFFFFF)

    def frequency(self, bytes key not None):
        cdef Entry* e = self.find(key)
        return lfu_decayed(e.meta) if e != NULL else None

    def set_frequency(self, bytes key not None, int frequency):
        cdef Entry* e = self.find(key)
        if e != NULL:
            set_clock_field(e, minutes_now() | <uint32_t>(frequency & 0xFF))

    def table_stats(self):
        cdef uint32_t i
        cdef uint64_t slots = 0, resizing = 0, used = 0
        cdef size_t bytes_ = 0
        if self.db.shards != NULL:
            for i in range(self.db.nshards):
                slots += (self.db.shards[i].table.now.buckets + self.db.shards[i].table.next.buckets) * 8
                resizing += self.db.shards[i].table.next.slots != NULL
                used += self.db.shards[i].table.used
                bytes_ += table_memory(&self.db.shards[i].table) + self.db.shards[i].heap_capacity * sizeof(Deadline)
        return {"entries": used, "slots": slots, "resizing": resizing, "overhead": bytes_}

    def faults(self):
        cdef uint32_t i, k
        cdef uint64_t n = 0
        cdef Shard* s
        for i in range(self.db.nshards if self.db.shards != NULL else 0):
            s = &self.db.shards[i]
            n += table_faults(&s.table)
            for k in range(s.heap_used):
                n += heap_place(s.heap[k].entry) != k
                n += ks_deadline(s.heap[k].entry) != s.heap[k].when_ms
                n += s.heap[k].when_ms < s.heap[(k - 1) >> 2 if k else 0].when_ms
        return n


cdef class Keyspace:
    """All databases and what they share."""

    cdef readonly list databases
    cdef list listeners
    cdef uint32_t turn
    cdef int64_t trimmed_us

    def __init__(self, int databases=16, int shards=16):
        global KEYSPACE, LISTENERS
        if databases < 1:
            raise ValueError("databases must be at least 1")
        if shards < 1 or shards > SHARDS_MAX or shards & (shards - 1):
            raise ValueError("shards must be a power of two, 65536 at most")
        self.databases = [Database(self, i, shards) for i in range(databases)]
        self.listeners = []
        KEYSPACE = self
        LISTENERS = <PyVarObject*>self.listeners

    @property
    def subscribers(self):
        return self.listeners

    @subscribers.setter
    def subscribers(self, list value not None):
        self.listeners[:] = value

    cdef tell(self, int index, bytes key, const char* event):
        for listener in self.listeners:
            listener(self.databases[index], key, event.decode())

    def changed(self, db, key, event):
        G.dirty += 1
        if self.listeners:
            for listener in self.listeners:
                listener(db, key, event)

    def now_ms(self):
        return G.now_ms

    def set_clock(self, int64_t now_ms):
        G.now_ms = now_ms
        if not G.touch_lfu:
            G.clock = <uint32_t>((now_ms // 1000) & 0xFFFFFF)

    def set_lfu(self, int decay_minutes, int log_factor):
        """The directives lfu-decay-time and lfu-log-factor."""
        global LFU_DECAY_MINUTES, LFU_LOG_FACTOR
        LFU_DECAY_MINUTES, LFU_LOG_FACTOR = decay_minutes, log_factor

    def swap(self, int first, int second):
        cdef Database a = self.databases[first]
        cdef Database b = self.databases[second]
        a.db.shards, b.db.shards = b.db.shards, a.db.shards

    def run_expiry(self, int64_t budget_us):
        cdef int64_t end = keyspace_us() + budget_us
        cdef uint64_t n = 0, idle = 0
        cdef uint32_t shards = (<Database>self.databases[0]).db.nshards
        cdef uint32_t total = len(self.databases) * shards
        cdef Database database
        cdef Shard* s
        cdef Entry* e
        cdef size_t size
        cdef uint8_t* key
        cdef int k
        if not G.active_expire:
            return 0
        while idle < total:
            database = self.databases[self.turn // shards % len(self.databases)]
            if database.db.shards == NULL:
                idle += shards
                self.turn = (self.turn // shards + 1) * shards
                continue
            s = &database.db.shards[self.turn % shards]
            self.turn += 1
            idle += 1
            for k in range(SLICE):
                if s.heap_used == 0 or s.heap[0].when_ms > G.now_ms:
                    break
                e = s.heap[0].entry
                key = entry_key(e, &size)
                expire_slot(&database.db, s, table_find(&s.table, key, size, hash_bytes(key, size)))
                n += 1
                idle = 0
            if keyspace_us() > end:
                break
        return n

    def run_lazyfree(self, int64_t budget_us):
        cdef int64_t begin = keyspace_us()
        if begin - self.trimmed_us >= TRIM_EVERY_US:
            self.trimmed_us = begin
            blob_trim()
        while free_some(SLICE) and keyspace_us() < begin + budget_us:
            pass
        return G.lazyfree_pending

    def run_resize(self, int64_t budget_us):
        cdef int64_t end = keyspace_us() + budget_us
        cdef Database database
        cdef uint32_t i
        for database in self.databases:
            if database.db.shards == NULL:
                continue
            for i in range(database.db.nshards):
                if database.db.shards[i].table.next.slots != NULL:
                    while table_step(&database.db.shards[i].table, SLICE):
                        if keyspace_us() > end:
                            return True
        return False

    def memory_used(self):
        return mem_used()

    def next_deadline_ms(self):
        cdef Database database
        cdef uint32_t i
        cdef int64_t first = 0
        for database in self.databases:
            if database.db.shards != NULL:
                for i in range(database.db.nshards):
                    if database.db.shards[i].heap_used:
                        if first == 0 or database.db.shards[i].heap[0].when_ms < first:
                            first = database.db.shards[i].heap[0].when_ms
        return first

    @property
    def dirty(self): return G.dirty
    @dirty.setter
    def dirty(self, value): G.dirty = value
    @property
    def hits(self): return G.hits
    @hits.setter
    def hits(self, value): G.hits = value
    @property
    def misses(self): return G.misses
    @misses.setter
    def misses(self, value): G.misses = value
    @property
    def expired(self): return G.expired
    @expired.setter
    def expired(self, value): G.expired = value
    @property
    def evicted(self): return G.evicted
    @evicted.setter
    def evicted(self, value): G.evicted = value
    @property
    def lazyfreed(self): return G.lazyfreed
    @lazyfreed.setter
    def lazyfreed(self, value): G.lazyfreed = value
    @property
    def lazyfree_pending(self): return G.lazyfree_pending
    @property
    def active_expire(self): return G.active_expire
    @active_expire.setter
    def active_expire(self, value): G.active_expire = value
    @property
    def touching(self): return TOUCHING
    @touching.setter
    def touching(self, value):
        global TOUCHING
        TOUCHING = value
    @property
    def touch_lfu(self): return G.touch_lfu
    @touch_lfu.setter
    def touch_lfu(self, value): G.touch_lfu = value
