"""Shards: finding, storing, expiring and freeing, without Python.

Each database is split into shards; a shard owns its table and its expiry index, so that growing, expiring and freeing
go on in small slices whatever the size of the whole.

What is large is never freed inside a command: whole shards (FLUSHALL) and structures of more than EFFORT_MAX
allocations wait in a list that `ks_free` works off in slices.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from zeekdb.hot.deadlines cimport (
    deadline_add, deadline_change, deadline_moved, deadline_of, deadline_remove, deadlines_free,
)
from zeekdb.hot.hash_deadlines cimport (
    Timed, overdue, timed_attach, timed_begin, timed_detach, timed_expire, timed_length, timed_of,
)
from zeekdb.hot.members cimport Harvest, harvest, harvest_to
from zeekdb.hot.memory cimport Blob, blob_new, blob_release, mem_alloc, mem_footprint, mem_free, mem_moved
from zeekdb.hot.journal cimport J, journal_gone
from zeekdb.hot.notes cimport N, note_key
from zeekdb.hot.packed cimport Packed
from zeekdb.hot.recency cimport FIELD, recency_fresh, set_field, touch_entry
from zeekdb.hot.table cimport (
    BOXED, EXPIRES, FIELDS_EXPIRE, INLINE_MAX, T_HASH, T_OBJECT, T_STRING, Entry, Table, entry_box, entry_free, entry_key,
    entry_size, entry_type, entry_value, hash_bytes, keyed_new, slot_entry, table_find, table_free, table_init, table_insert,
    table_prefetch_bucket, table_prefetch_entry, table_replace, table_take,
)

import logging
import time

cdef extern from "Python.h":
    ctypedef struct PyVarObject:
        Py_ssize_t ob_size

cdef extern from *:
    void __builtin_prefetch(const void* p) nogil

cdef enum:
    TYPES = 8
    SHARD = TYPES            # of what is to be freed: not a value but a shard
    EFFORT_MAX = 64          # allocations beyond which a value is freed later
    FIELDS_MAX = 64          # due fields of one hash that whoever meets it removes; the rest goes by the clock

cdef TypeOps* OPS[TYPES]
cdef list CLASSES = [bytes] + [None] * (TYPES - 1)
memset(&G, 0, sizeof(G))
memset(&SNAP, 0, sizeof(SNAP))
G.active_expire = True
G.now_ms = <int64_t>(time.time() * 1000)
J.dirty = &G.dirty


cdef int register_type(uint8_t type, TypeOps* ops, object cls) except -1:
    OPS[type] = ops
    CLASSES[type] = cls
    return 0


cdef TypeOps* type_ops(uint8_t type) noexcept nogil:
    return OPS[type]


cdef int type_of_class(object cls) except -1:
    return CLASSES.index(cls)


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
    uint8_t type             # SHARD: all that a shard held
    void* value
    Shard shard
    uint64_t cursor          # the next slot of its table

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
        d.shard = shard[0]
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
    cdef uint64_t slots = d.shard.table.now.buckets * 8
    cdef uint64_t total = slots + d.shard.table.next.buckets * 8
    cdef uint64_t slot, ahead
    cdef Entry* e
    deadlines_free(&d.shard.due)
    deadlines_free(&d.shard.fields)
    while d.cursor < total:
        if budget[0] == 0:
            return False
        ahead = d.cursor + 16
        if ahead < total:
            slot = d.shard.table.now.slots[ahead] if ahead < slots else d.shard.table.next.slots[ahead - slots]
            __builtin_prefetch(slot_entry(slot))
        slot = d.shard.table.now.slots[d.cursor] if d.cursor < slots else d.shard.table.next.slots[d.cursor - slots]
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
    table_free(&d.shard.table)
    return True


cdef bint ks_free(size_t budget) noexcept nogil:
    """Works off the list of what is to be freed; True while something is left."""
    global DOOMED, DOOMED_LAST
    cdef Doomed* d
    cdef bint gone
    while DOOMED != NULL and budget:
        d = DOOMED
        if d.type == SHARD:
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


# ---------------------------------------------------------------- finding and removing

# While somebody subscribes to the journal an expiry is reported, which needs Python; the list's length tells.
cdef PyVarObject* LISTENERS = NULL  # the keyspace's list, which is changed in place only
cdef object ON_EXPIRED = None       # what is called with a database's index and a key
cdef object ON_FIELDS_EXPIRED = None


cdef void on_expired(object listeners, object call, object call_fields):
    global LISTENERS, ON_EXPIRED, ON_FIELDS_EXPIRED
    LISTENERS, ON_EXPIRED, ON_FIELDS_EXPIRED = <PyVarObject*>listeners, call, call_fields


cdef void report(Db* db, const uint8_t* key, size_t n) noexcept nogil:
    with gil:
        try:
            ON_EXPIRED(db.index, PyBytes_FromStringAndSize(<char*>key, n))
        except Exception:
            logging.getLogger("zeekdb").exception("a listener failed when a key expired")


cdef inline Timed* timed_box(const Entry* e) noexcept nogil:  # of a hash with FIELDS_EXPIRE
    return timed_of(<Packed*>entry_box(e))


cdef inline void drop_value(Entry* e) noexcept nogil:
    if e.flags & FIELDS_EXPIRE:
        timed_detach(timed_box(e))
    free_value(e, True)


cdef void remove_slot(Shard* s, uint64_t* slot) noexcept nogil:
    cdef Entry* e = slot_entry(slot[0])
    if e.flags & EXPIRES:
        deadline_remove(&s.due, e)
    table_take(&s.table, slot)
    drop_value(e)
    entry_free(e)


cdef void ks_expire(Db* db, Shard* s, uint64_t* slot) noexcept nogil:
    cdef Entry* e = slot_entry(slot[0])
    cdef size_t n
    cdef uint8_t* key
    cdef uint8_t* copy
    G.expired += 1
    key = entry_key(e, &n)
    if N.interests:
        note_key(db.index, key, n, hash_bytes(key, n))
    if J.open:
        journal_gone(db.index, key, n)
    if LISTENERS != NULL and LISTENERS.ob_size:
        copy = <uint8_t*>mem_alloc(n if n else 1)
        memcpy(copy, key, n)
        remove_slot(s, slot)
        report(db, copy, n)
        mem_free(copy, n if n else 1)
    else:
        remove_slot(s, slot)


cdef size_t drop_fields(Timed* t, size_t most, list names):
    cdef Harvest into = harvest_to(names)
    return timed_expire(t, G.now_ms, most, harvest, &into)


cdef uint64_t* report_fields(Db* db, Shard* s, uint64_t* slot, size_t most) noexcept nogil:
    """`expire_fields` while somebody listens."""
    cdef size_t n
    cdef uint8_t* key = entry_key(slot_entry(slot[0]), &n)
    cdef bint gone
    with gil:
        name = PyBytes_FromStringAndSize(<char*>key, n)
        names = []
        G.expired_fields += drop_fields(timed_box(slot_entry(slot[0])), most, names)
        gone = timed_length(timed_box(slot_entry(slot[0]))) == 0
        if gone:
            remove_slot(s, slot)
        try:
            ON_FIELDS_EXPIRED(db.index, name, names, gone)
        except Exception:
            logging.getLogger("zeekdb").exception("a listener failed when fields expired")
        if gone or db.shards == NULL:
            return NULL
        key = <uint8_t*>PyBytes_AS_STRING(name)
        return table_find(&shard_of(db, hash_bytes(key, n)).table, key, n, hash_bytes(key, n))


cdef uint64_t* expire_fields(Db* db, Shard* s, uint64_t* slot, size_t most) noexcept nogil:
    """Removes fields that are due from a hash, and the hash with its last one: then NULL, otherwise its slot."""
    cdef Timed* t = timed_box(slot_entry(slot[0]))
    cdef size_t n
    cdef uint8_t* key
    if N.interests:
        key = entry_key(slot_entry(slot[0]), &n)
        note_key(db.index, key, n, hash_bytes(key, n))
    if J.open or (LISTENERS != NULL and LISTENERS.ob_size):
        return report_fields(db, s, slot, most)
    G.expired_fields += timed_expire(t, G.now_ms, most, NULL, NULL)
    if timed_length(t):
        return slot
    remove_slot(s, slot)
    return NULL


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
    if e.flags & (EXPIRES | FIELDS_EXPIRE):
        if e.flags & EXPIRES and deadline_of(e) <= G.now_ms:
            ks_expire(db, s, slot)
            return NULL
        if e.flags & FIELDS_EXPIRE and overdue(timed_box(e).next_ms, G.now_ms):
            return expire_fields(db, s, slot, FIELDS_MAX)
    return slot


cdef inline uint64_t* slot_to_write(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    """The same for whoever may change the value: a snapshot under way has it first."""
    cdef uint64_t* slot = find_slot(db, key, n, h)
    if slot != NULL:
        before_write(db, slot_entry(slot[0]))
    return slot


cdef Entry* ks_find(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = slot_to_write(db, key, n, h)
    return slot_entry(slot[0]) if slot != NULL else NULL


cdef Entry* ks_read(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = find_slot(db, key, n, h)
    cdef Entry* e
    if slot == NULL:
        G.misses += 1
        return NULL
    G.hits += 1
    e = slot_entry(slot[0])
    if not G.no_touch:
        touch_entry(e)
    return e


cdef bint ks_delete(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = slot_to_write(db, key, n, h)
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


cdef Entry* ks_glance(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = table_find(&shard_of(db, h).table, key, n, h) if db.shards != NULL else NULL
    return slot_entry(slot[0]) if slot != NULL else NULL


cdef size_t ks_expire_due(Db* db, Shard* s, size_t most) noexcept nogil:
    """Removes what is due in a shard, most overdue first."""
    cdef size_t n
    cdef size_t size
    cdef uint8_t* key
    for n in range(most):
        if s.due.used == 0 or s.due.heap[0].when_ms > G.now_ms:
            return n
        key = entry_key(s.due.heap[0].entry, &size)
        ks_expire(db, s, table_find(&s.table, key, size, hash_bytes(key, size)))
    return most


cdef size_t ks_expire_due_fields(Db* db, Shard* s, size_t most) noexcept nogil:
    """Removes fields that are due from the hashes of a shard."""
    cdef uint64_t before = G.expired_fields
    cdef uint64_t* slot
    cdef size_t size, removed = 0
    cdef uint8_t* key
    while removed < most and s.fields.used and s.fields.heap[0].when_ms <= G.now_ms:
        key = entry_key(s.fields.heap[0].entry, &size)
        slot = table_find(&s.table, key, size, hash_bytes(key, size))
        if overdue(deadline_of(slot_entry(slot[0])), G.now_ms):
            ks_expire(db, s, slot)
            removed += 1
            continue
        expire_fields(db, s, slot, most - removed)
        removed += G.expired_fields - before
        before = G.expired_fields
    return removed


cdef void ks_expire_fields(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = slot_to_write(db, key, n, h)
    while slot != NULL and slot_entry(slot[0]).flags & FIELDS_EXPIRE:
        if not overdue(timed_box(slot_entry(slot[0])).next_ms, G.now_ms):
            return
        slot = expire_fields(db, shard_of(db, h), slot, <size_t>-1)


cdef bint ks_time_fields(Db* db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = slot_to_write(db, key, n, h)
    cdef Entry* e
    if slot == NULL or entry_type(slot_entry(slot[0])) != T_HASH:
        return False
    e = slot_entry(slot[0])
    if not e.flags & FIELDS_EXPIRE:
        e.flags |= FIELDS_EXPIRE
        timed_begin(<Packed*>entry_box(e))
        timed_attach(timed_box(e), &shard_of(db, h).fields, key, n)
    return True


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


cdef Entry* put_entry(Db* db, Shard* s, uint64_t* slot, Entry* e, uint64_t h, int64_t deadline_ms) noexcept nogil:
    """Places a fresh entry, replacing what the slot holds. `e` has EXPIRES exactly when the deadline is not 0."""
    cdef Entry* old
    if slot != NULL:
        old = slot_entry(slot[0])
        set_field(e, old.meta & FIELD)  # a new value is no new key
        touch_entry(e)
        if old.flags & EXPIRES:
            deadline_remove(&s.due, old)
        table_replace(slot, e)
        drop_value(old)
        entry_free(old)
    else:
        table_insert(&s.table, e, h)
        set_field(e, recency_fresh(h))
    e.meta |= SNAP.epoch  # a snapshot under way does not know it
    if deadline_ms:
        deadline_add(&s.due, e, deadline_ms)
    return e


cdef inline Entry* attached(Shard* s, Entry* e) noexcept nogil:
    cdef size_t n
    cdef uint8_t* key
    if e.flags & FIELDS_EXPIRE:
        key = entry_key(e, &n)
        timed_attach(timed_box(e), &s.fields, key, n)
    return e


cdef Entry* ks_put(
    Db* db, const uint8_t* key, size_t n, uint64_t h, uint8_t type, const uint8_t* value, size_t vn, uint8_t flags,
    int64_t deadline_ms,
) noexcept nogil:
    """Any value under any key: in place where only the bytes change, in a fresh entry otherwise."""
    cdef uint64_t* slot = slot_to_write(db, key, n, h)
    cdef Shard* s
    cdef Entry* e
    if db.shards == NULL:
        open_shards(db)
    s = shard_of(db, h)
    if slot != NULL:
        e = slot_entry(slot[0])
        if deadline_ms < 0:
            deadline_ms = deadline_of(e)
        if (e.flags & EXPIRES != 0) == (deadline_ms != 0) and entry_type(e) == type and has_room(e, vn):
            if e.flags & BOXED:
                drop_value(e)
            e.vlen = <uint16_t>vn
            memcpy(entry_value(e), value, vn)
            e.flags = (e.flags & ~<uint8_t>(BOXED | FIELDS_EXPIRE)) | flags
            touch_entry(e)
            if deadline_ms:
                deadline_change(&s.due, e, deadline_ms)
            return attached(s, e)
    elif deadline_ms < 0:
        deadline_ms = 0
    e = keyed_new(type, key, n, value, vn, flags | (EXPIRES if deadline_ms else 0))
    return attached(s, put_entry(db, s, slot, e, h, deadline_ms))


cdef Entry* ks_set(Db* db, const uint8_t* key, size_t n, uint64_t h, const uint8_t* value, size_t vn, int64_t deadline_ms) noexcept nogil:
    cdef Blob* blob
    if vn <= INLINE_MAX:
        return ks_put(db, key, n, h, T_STRING, value, vn, 0, deadline_ms)
    blob = blob_new(vn)
    memcpy(blob.data, value, vn)
    blob.size = vn
    return ks_set_blob(db, key, n, h, blob, deadline_ms)


cdef Entry* ks_set_blob(Db* db, const uint8_t* key, size_t n, uint64_t h, Blob* blob, int64_t deadline_ms) noexcept nogil:
    return ks_put(db, key, n, h, T_STRING, <uint8_t*>&blob, 8, BOXED, deadline_ms)


cdef void* ks_create(Db* db, const uint8_t* key, size_t n, uint64_t h, uint8_t type) noexcept nogil:
    cdef void* box = OPS[type].create()
    ks_put(db, key, n, h, type, <uint8_t*>&box, 8, BOXED, 0)
    return box


cdef Entry* ks_expire_at(Db* db, const uint8_t* key, size_t n, uint64_t h, int64_t deadline_ms) noexcept nogil:
    cdef uint64_t* slot = slot_to_write(db, key, n, h)
    cdef Shard* s
    cdef Entry* e
    cdef Entry* moved
    if slot == NULL:
        return NULL
    s = shard_of(db, h)
    e = slot_entry(slot[0])
    if (e.flags & EXPIRES != 0) == (deadline_ms != 0):
        if deadline_ms:
            deadline_change(&s.due, e, deadline_ms)
        return e
    if e.flags & EXPIRES:
        deadline_remove(&s.due, e)
    moved = keyed_new(
        entry_type(e), key, n, entry_value(e), e.vlen,
        (e.flags & (BOXED | FIELDS_EXPIRE)) | (EXPIRES if deadline_ms else 0),
    )
    moved.meta = e.meta
    table_replace(slot, moved)
    entry_free(e)
    if deadline_ms:
        deadline_add(&s.due, moved, deadline_ms)
    return moved


cdef bint ks_moved(Db* db, Entry* e, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef Shard* s = shard_of(db, h)
    cdef uint64_t* slot = table_find(&s.table, key, n, h)
    if slot == NULL or slot_entry(slot[0]) != e:
        return False
    e = <Entry*>mem_moved(e, entry_size(e))
    table_replace(slot, e)
    if e.flags & EXPIRES:
        deadline_moved(&s.due, e)
    return True


cdef bint ks_take(Db* db, const uint8_t* key, size_t n, uint64_t h, Held* held) noexcept nogil:
    cdef uint64_t* slot = slot_to_write(db, key, n, h)
    cdef Shard* s
    cdef Entry* e
    if slot == NULL:
        return False
    s = shard_of(db, h)
    e = slot_entry(slot[0])
    held.type = entry_type(e)
    held.size = e.vlen
    held.flags = e.flags & (BOXED | FIELDS_EXPIRE)
    held.deadline_ms = deadline_of(e)
    held.field = e.meta & FIELD
    memcpy(held.value, entry_value(e), e.vlen)
    if e.flags & EXPIRES:
        deadline_remove(&s.due, e)
    if e.flags & FIELDS_EXPIRE:
        timed_detach(timed_box(e))
    table_take(&s.table, slot)
    entry_free(e)
    return True


cdef void ks_give(Db* db, const uint8_t* key, size_t n, uint64_t h, Held* held) noexcept nogil:
    cdef Entry* e = ks_put(db, key, n, h, held.type, held.value, held.size, held.flags, held.deadline_ms)
    set_field(e, held.field)


cdef void ks_clear(Db* db) noexcept nogil:
    cdef uint32_t i
    if db.shards == NULL:
        return
    for i in range(db.nshards):
        doom(SHARD, NULL, &db.shards[i])
    mem_free(db.shards, db.nshards * sizeof(Shard))
    db.shards = NULL


cdef void ks_close(Db* db) noexcept nogil:
    cdef uint32_t i
    cdef Doomed d
    cdef size_t budget = <size_t>-1
    if db.shards == NULL:
        return
    for i in range(db.nshards):
        memset(&d, 0, sizeof(d))
        d.shard = db.shards[i]
        G.lazyfree_pending += d.shard.table.used
        free_slots(&d, &budget)
    mem_free(db.shards, db.nshards * sizeof(Shard))
    db.shards = NULL


cdef object wrap_value(Entry* e):
    cdef size_t n
    cdef const uint8_t* p
    cdef uint8_t type = entry_type(e)
    if type == T_STRING:
        p = entry_string(e, &n)
        return PyBytes_FromStringAndSize(<const char*>p, n)
    return OPS[type].wrap(entry_box(e))
