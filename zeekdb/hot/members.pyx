"""Tables of members: what large hashes and sets share.

Entries of such a table have no LRU field, and no deadlines but in hashes that are Timed. A value of more than INLINE_MAX bytes
is a blob, which copies share: whoever overwrites one in place checks that nobody else refers to it.
"""

import os

from zeekdb.errors import CommandError

from cpython.ref cimport PyObject
from libc.stdint cimport UINT32_MAX, uint8_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.memory cimport (
    Blob, blob_new, blob_release, blob_retain, mem_alloc, mem_footprint, mem_free, mem_marked, mem_moved,
)
from zeekdb.hot.table cimport (
    BOXED, EXPIRES, INLINE_MAX, T_HASH, Entry, Table, entry_box, entry_free, entry_key, entry_new, entry_size,
    entry_type, entry_value, hash_bytes, slot_entry, table_find, table_free, table_init, table_insert, table_memory,
    table_replace, table_scan,
)

cdef extern from "Python.h" nogil:
    PyObject* PyBytes_FromStringAndSize(const char* p, Py_ssize_t n)
    int PyList_Append(PyObject* items, PyObject* item)
    void Py_DECREF(PyObject* o)
    void PyErr_Clear()

# What members_new allocates. The table comes first, so that a pointer to it is a pointer to all.
ctypedef struct Members:
    Table table
    uint64_t destroyed  # slots that members_destroy has emptied

cdef enum:
    BUCKET_SLOTS = 8
    AHEAD = 16          # slots between fetching an entry and looking at it
    COMPACT_MAX = 1000  # entries
    SAMPLES = 16        # entries that members_memory looks at


# --- tables ---------------------------------------------------------------------------------------------------------

cdef Table* members_new() noexcept nogil:
    cdef Members* members = <Members*>mem_alloc(sizeof(Members))
    table_init(&members.table, 0)
    members.destroyed = 0
    return &members.table


cdef void member_free(Entry* e) noexcept nogil:
    if e.flags & BOXED:
        blob_release(<Blob*>entry_box(e))
    entry_free(e)


cdef const uint8_t* member_value(const Entry* e, size_t* n) noexcept nogil:
    cdef Blob* blob
    if e.flags & BOXED:
        blob = <Blob*>entry_box(e)
        n[0] = blob.size
        return blob.data
    n[0] = e.vlen
    return entry_value(e)


cdef inline Blob* blob_of(const uint8_t* v, size_t vn) noexcept nogil:
    cdef Blob* blob = blob_new(vn)
    memcpy(blob.data, v, vn)
    blob.size = vn
    return blob


cdef Entry* member_new(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, uint8_t flags) noexcept nogil:
    cdef Blob* blob
    if vn <= INLINE_MAX:
        return entry_new(T_HASH, f, fn, v, vn, flags)
    blob = blob_of(v, vn)
    return entry_new(T_HASH, f, fn, <uint8_t*>&blob, sizeof(blob), BOXED | flags)


cdef bint member_overwrite(Entry* e, const uint8_t* v, size_t vn) noexcept nogil:
    cdef size_t size
    cdef Blob* blob
    if e.flags & BOXED:
        if vn <= INLINE_MAX:
            return False
        blob = <Blob*>entry_box(e)
        if blob.refs == 1 and vn <= blob.capacity and vn >= blob.capacity // 2:
            memcpy(blob.data, v, vn)
            blob.size = vn
            return True
        blob_release(blob)
        blob = blob_of(v, vn)
        memcpy(entry_value(e), &blob, sizeof(blob))
        return True
    if vn > INLINE_MAX:
        return False
    if vn != e.vlen:
        # The allocator is told sizes, and only their footprints matter to it: within one, an entry may change its own.
        size = entry_size(e)
        if mem_footprint(size) != mem_footprint(size - e.vlen + vn):
            return False
        e.vlen = <unsigned short>vn
    memcpy(entry_value(e), v, vn)
    return True


cdef inline Entry* entry_at(Table* t, uint64_t place) noexcept nogil:
    """The slots of both arrays in one row; NULL in an empty one and beyond the end."""
    cdef uint64_t first = t.now.buckets * BUCKET_SLOTS
    if place < first:
        return slot_entry(t.now.slots[place])
    return slot_entry(t.next.slots[place - first]) if place - first < t.next.buckets * BUCKET_SLOTS else NULL


cdef bint members_walk(Table* t, MemberVisit visit, void* arg) noexcept nogil:
    # Not table_scan, whose cursors may meet an entry twice, and which hashes every key.
    cdef uint64_t slots = (t.now.buckets + t.next.buckets) * BUCKET_SLOTS
    cdef uint64_t place
    cdef Entry* e
    for place in range(slots):
        prefetch(entry_at(t, place + AHEAD))
        e = entry_at(t, place)
        if e != NULL and visit(e, arg):
            return True
    return False


cdef void compact_member(Entry* e, uint64_t hash, void* arg) noexcept nogil:
    cdef size_t n, size = entry_size(e)
    cdef const uint8_t* key = entry_key(e, &n)
    cdef uint64_t* slot
    if mem_marked(e, size) and not e.flags & EXPIRES:
        slot = table_find(<Table*>arg, key, n, hash)
        table_replace(slot, <Entry*>mem_moved(e, size))


cdef Table* members_compact(Table* t) noexcept nogil:
    """Entries of tables up to COMPACT_MAX alone: it is done at once."""
    if t.used <= COMPACT_MAX:
        table_scan(t, 0, <size_t>-1, compact_member, t)
    return <Table*>mem_moved(t, sizeof(Members))


cdef bint copy_member(Entry* e, void* arg) noexcept nogil:
    cdef size_t n
    cdef uint8_t* key = entry_key(e, &n)
    if e.flags & BOXED:
        blob_retain(<Blob*>entry_box(e))
    e = entry_new(entry_type(e), key, n, entry_value(e), e.vlen, e.flags & BOXED)
    table_insert(<Table*>arg, e, hash_bytes(key, n))
    return False


cdef Table* members_copy(Table* t) noexcept nogil:
    cdef Table* copy = members_new()
    members_walk(t, copy_member, copy)
    return copy


cdef bint members_destroy(Table* t, size_t* budget) noexcept nogil:
    cdef Members* members = <Members*>t
    cdef uint64_t slots = (t.now.buckets + t.next.buckets) * BUCKET_SLOTS
    cdef Entry* e
    while members.destroyed < slots:
        if budget[0] == 0:
            return False
        prefetch(entry_at(t, members.destroyed + AHEAD))
        e = entry_at(t, members.destroyed)
        members.destroyed += 1
        if e != NULL:
            member_free(e)
        if e != NULL or members.destroyed % BUCKET_SLOTS == 0:  # empty slots cost time as well
            budget[0] -= 1
    table_free(t)
    mem_free(members, sizeof(Members))
    return True


# --- memory ---------------------------------------------------------------------------------------------------------

ctypedef struct Weight:
    size_t entries
    size_t bytes


cdef bint weigh_member(Entry* e, void* arg) noexcept nogil:
    cdef Weight* weight = <Weight*>arg
    cdef Blob* blob
    weight.entries += 1
    weight.bytes += mem_footprint(entry_size(e))
    if e.flags & BOXED:
        blob = <Blob*>entry_box(e)
        weight.bytes += mem_footprint(sizeof(Blob)) + blob.capacity
    return weight.entries == SAMPLES


cdef size_t members_memory(Table* t) noexcept nogil:
    cdef Weight weight
    cdef size_t total = mem_footprint(sizeof(Members)) + table_memory(t)
    weight.entries = 0
    weight.bytes = 0
    members_walk(t, weigh_member, &weight)
    if weight.entries:
        total += <size_t>(<double>weight.bytes / weight.entries * t.used)
    return total


# --- chance ---------------------------------------------------------------------------------------------------------

cdef uint64_t dice = int.from_bytes(os.urandom(8), "little")


cdef uint64_t chance() noexcept nogil:
    # splitmix64 (Steele, Lea, Flood 2014): one word of state, equidistributed, seedable.
    global dice
    cdef uint64_t x
    dice += <uint64_t>0x9E3779B97F4A7C15
    x = dice
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


def seed(uint64_t value):
    """Make what follows repeatable, for tests."""
    global dice
    dice = value


# --- Python's bytes -------------------------------------------------------------------------------------------------

cdef void harvest(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    cdef Harvest* into = <Harvest*>arg
    cdef PyObject* item
    if into.failed:
        return
    item = PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>n)
    if item == NULL or PyList_Append(<PyObject*>into.list, item) < 0:
        PyErr_Clear()
        into.failed = True
    if item != NULL:
        Py_DECREF(item)


cdef int check_size(bytes key) except -1:
    if size_of(key) > UINT32_MAX:  # the length has four bytes in an entry
        raise CommandError("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
    return 0
