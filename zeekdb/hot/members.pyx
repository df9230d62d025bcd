"""Tables of members: what large hashes and sets share.

Entries of such a table have no deadline and no LRU field. A value of more than INLINE_MAX bytes is a blob, which copies
share: whoever overwrites one in place checks that nobody else refers to it.
"""

import os

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint64_t
from zeekdb.hot.memory cimport Blob, blob_release, blob_retain, mem_alloc, mem_footprint, mem_free
from zeekdb.hot.table cimport (
    BOXED, Entry, Table, entry_box, entry_free, entry_key, entry_new, entry_size, entry_type, entry_value,
    table_find, table_free, table_init, table_insert, table_memory, table_scan, table_step, table_take,
)

cdef extern from "Python.h" nogil:
    PyObject* PyBytes_FromStringAndSize(const char* p, Py_ssize_t n)
    int PyList_Append(PyObject* items, PyObject* item)
    void Py_DECREF(PyObject* o)
    void PyErr_Clear()

# What members_new allocates. The table comes first, so that a pointer to it is a pointer to all.
ctypedef struct Members:
    Table table
    uint64_t cursor     # how far members_destroy has come

cdef enum:
    DOOMED_MAX = 64     # entries that members_destroy takes out between two looks at its budget
    SAMPLES = 16        # entries that members_memory looks at
    STEP_BUCKETS = 2    # resize work that each insertion and removal does while a resize is under way


# --- tables ---------------------------------------------------------------------------------------------------------

cdef Table* members_new() noexcept nogil:
    cdef Members* members = <Members*>mem_alloc(sizeof(Members))
    table_init(&members.table, 0)
    members.cursor = 0
    return &members.table


cdef void members_insert(Table* t, Entry* e, uint64_t h) noexcept nogil:
    table_insert(t, e, h)
    if t.next.slots != NULL:
        table_step(t, STEP_BUCKETS)


cdef void members_remove(Table* t, uint64_t* slot) noexcept nogil:
    member_free(table_take(t, slot))
    if t.next.slots != NULL:
        table_step(t, STEP_BUCKETS)


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


cdef void copy_member(Entry* e, uint64_t h, void* arg) noexcept nogil:
    cdef size_t n
    cdef uint8_t* key = entry_key(e, &n)
    if e.flags & BOXED:
        blob_retain(<Blob*>entry_box(e))
    members_insert(<Table*>arg, entry_new(entry_type(e), key, n, entry_value(e), e.vlen, e.flags & BOXED), h)


cdef Table* members_copy(Table* t) noexcept nogil:
    cdef Table* copy = members_new()
    table_scan(t, 0, <size_t>-1, copy_member, copy)
    return copy


ctypedef struct Doomed:
    size_t count
    bint full
    Entry* entries[DOOMED_MAX]
    uint64_t hashes[DOOMED_MAX]


cdef void doom(Entry* e, uint64_t h, void* arg) noexcept nogil:
    cdef Doomed* doomed = <Doomed*>arg
    if doomed.count == DOOMED_MAX:
        doomed.full = True
        return
    doomed.entries[doomed.count] = e
    doomed.hashes[doomed.count] = h
    doomed.count += 1


cdef bint members_destroy(Table* t, size_t* budget) noexcept nogil:
    cdef Members* members = <Members*>t
    cdef Doomed doomed
    cdef uint64_t following
    cdef size_t i, n, count
    cdef uint8_t* key
    while t.used:
        if budget[0] == 0:
            return False
        doomed.count = 0
        doomed.full = False
        count = budget[0] if budget[0] < DOOMED_MAX // 2 else DOOMED_MAX // 2
        following = table_scan(t, members.cursor, count, doom, &doomed)
        if not doomed.full:  # otherwise what did not fit is found again
            members.cursor = following
        for i in range(doomed.count):
            key = entry_key(doomed.entries[i], &n)
            member_free(table_take(t, table_find(t, key, n, doomed.hashes[i])))
        budget[0] -= doomed.count if doomed.count < budget[0] else budget[0]
    table_free(t)
    mem_free(members, sizeof(Members))
    return True


# --- memory ---------------------------------------------------------------------------------------------------------

ctypedef struct Weight:
    size_t entries
    size_t bytes


cdef void weigh_member(Entry* e, uint64_t h, void* arg) noexcept nogil:
    cdef Weight* weight = <Weight*>arg
    cdef Blob* blob
    weight.entries += 1
    weight.bytes += mem_footprint(entry_size(e))
    if e.flags & BOXED:
        blob = <Blob*>entry_box(e)
        weight.bytes += mem_footprint(sizeof(Blob)) + blob.capacity


cdef size_t members_memory(Table* t) noexcept nogil:
    cdef Weight weight
    cdef size_t total = mem_footprint(sizeof(Members)) + table_memory(t)
    weight.entries = 0
    weight.bytes = 0
    table_scan(t, 0, SAMPLES, weigh_member, &weight)
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


# --- Python lists ---------------------------------------------------------------------------------------------------

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
