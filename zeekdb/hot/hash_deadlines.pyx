"""Hashes whose fields may have deadlines.

Most hashes never have one, and cost nothing for it: a hash becomes a `Timed` when its first field gets a deadline, and
stays one. Its box does not move; the count there says TIMED and the data is the Timed, which holds the fields as an
ordinary hash would, in one of two forms:

- small: field, value and deadline packed in threes, a deadline taking one byte or seven. The first deadline is found
  by a walk, which costs no more than looking up a field does;
- large: the field's own entry has EXPIRES, and a heap as in a shard tells what is due.

Every shard has a second index, of hashes by their first deadline. A Timed keeps its place there up to date by itself: it
owns a ticket, an entry that stands in the index and has the hash's key. So nothing is sampled, and what happens to a key
(renaming, moving, copying, a new entry) does not concern its fields.

A field that is due is absent for all that read, whether or not it was removed yet.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset
from zeekdb.hot.deadlines cimport (
    Deadline, deadline_add, deadline_change, deadline_of, deadline_remove, deadlines_faults, deadlines_free,
)
from zeekdb.hot.members cimport (
    LARGE, PACKED_MAX, TIMED, box_table, member_free, member_new, member_overwrite, member_value, members_destroy,
    members_memory, members_new, members_walk, packed_skip,
)
from zeekdb.hot.memory cimport Blob, blob_retain, mem_alloc, mem_footprint, mem_free
from zeekdb.hot.packed cimport packed_clear, packed_find, packed_need, packed_read, packed_splice, packed_write
from zeekdb.hot.table cimport (
    BOXED, EXPIRES, T_HASH, Entry, Table, entry_box, entry_free, entry_key, entry_new, entry_size, entry_value,
    hash_bytes, slot_entry, table_find, table_insert, table_replace, table_take,
)

cdef enum:
    WHEN = 6             # bytes of a deadline: 2^48 ms

cdef uint64_t entries_max = 128
cdef uint64_t value_max = 64


cdef void timed_limits(uint64_t entries, uint64_t value) noexcept nogil:
    global entries_max, value_max
    entries_max = entries
    value_max = value


# --- the first deadline -----------------------------------------------------------------------------------------------

cdef int64_t first_deadline(Timed* t) noexcept nogil:
    cdef int64_t first = 0, when
    cdef uint8_t* at = t.fields.data
    cdef uint8_t* end
    if t.fields.count == LARGE:
        return t.due.heap[0].when_ms if t.due.used else 0
    end = at + t.fields.size
    while at < end:
        at = packed_skip(packed_skip(at))
        when = when_at(at)
        if when and (first == 0 or when < first):
            first = when
        at += 1 + at[0]
    return first


cdef void settle(Timed* t) noexcept nogil:
    """Finds the first deadline anew and takes the place in the index that it gives."""
    cdef int64_t before = t.next_ms
    t.next_ms = first_deadline(t)
    if t.index == NULL or t.next_ms == before:
        return
    if before == 0:
        deadline_add(t.index, t.ticket, t.next_ms)
    elif t.next_ms == 0:
        deadline_remove(t.index, t.ticket)
    else:
        deadline_change(t.index, t.ticket, t.next_ms)


cdef inline void deadline_gone(Timed* t, int64_t when_ms) noexcept nogil:
    """A field has lost this deadline."""
    if when_ms and when_ms == t.next_ms:
        settle(t)


cdef void timed_attach(Timed* t, Deadlines* index, const uint8_t* key, size_t n) noexcept nogil:
    t.index = index
    t.ticket = entry_new(T_HASH, key, n, NULL, 0, EXPIRES)
    if t.next_ms:
        deadline_add(index, t.ticket, t.next_ms)


cdef void timed_detach(Timed* t) noexcept nogil:
    if t.next_ms:
        deadline_remove(t.index, t.ticket)
    entry_free(t.ticket)
    t.ticket = NULL
    t.index = NULL


# --- the small form -----------------------------------------------------------------------------------------------------

cdef inline uint8_t* write_when(uint8_t* at, int64_t when_ms) noexcept nogil:
    at[0] = WHEN if when_ms else 0
    if when_ms:
        memcpy(at + 1, &when_ms, WHEN)
    return at + 1 + at[0]


cdef int small_put(
    Timed* t, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, bint keep, int64_t now_ms,
) noexcept nogil:
    """1 created, 0 updated, -1 when this takes a table."""
    cdef Packed* box = &t.fields
    cdef uint8_t* at
    cdef uint8_t* end
    cdef size_t offset
    cdef int64_t when
    cdef int created = 0
    if fn > value_max or vn > value_max or box.size + packed_need(fn) + packed_need(vn) + 1 + WHEN > PACKED_MAX:
        return -1
    at = packed_find(box, f, fn, 3)
    if at == NULL:
        if box.count // 3 >= entries_max:
            return -1
        at = packed_splice(box, box.size, 0, packed_need(fn) + packed_need(vn) + 1)
        write_when(packed_write(packed_write(at, f, fn), v, vn), 0)
        box.count += 3
        return 1
    at = packed_skip(at)
    end = packed_skip(at)
    when = when_at(end)
    offset = at - box.data
    if overdue(when, now_ms):
        created = 1
        keep = False
    if keep:
        packed_write(packed_splice(box, offset, end - at, packed_need(vn)), v, vn)
        return created
    at = packed_splice(box, offset, end + 1 + end[0] - at, packed_need(vn) + 1)
    write_when(packed_write(at, v, vn), 0)
    deadline_gone(t, when)
    return created


cdef bint small_remove(Timed* t, const uint8_t* f, size_t fn, int64_t now_ms) noexcept nogil:
    cdef Packed* box = &t.fields
    cdef uint8_t* at = packed_find(box, f, fn, 3)
    cdef uint8_t* end
    cdef int64_t when
    if at == NULL:
        return False
    end = packed_skip(packed_skip(at))
    when = when_at(end)
    end += 1 + end[0]
    if box.count == 3:
        packed_clear(box)
    else:
        packed_splice(box, at - box.data, end - at, 0)
        box.count -= 3
    deadline_gone(t, when)
    return not overdue(when, now_ms)


cdef size_t small_expire(Timed* t, int64_t now_ms, Emit emit, void* arg) noexcept nogil:
    cdef Packed* box = &t.fields
    cdef uint8_t* at = box.data
    cdef uint8_t* end = at + box.size
    cdef uint8_t* kept = at
    cdef uint8_t* f
    cdef uint8_t* when
    cdef uint8_t* following
    cdef size_t n, gone = 0
    while at < end:
        f = packed_read(at, &n)
        when = packed_skip(f + n)
        following = when + 1 + when[0]
        if overdue(when_at(when), now_ms):
            gone += 1
            if emit != NULL:
                emit(f, n, arg)
        else:
            while at < following:  # downwards and perhaps onto itself
                kept[0] = at[0]
                kept += 1
                at += 1
        at = following
    if gone * 3 == box.count:
        packed_clear(box)
    elif gone:
        packed_splice(box, kept - box.data, end - kept, 0)
        box.count -= <unsigned int>(gone * 3)
    return gone


# --- the large form -----------------------------------------------------------------------------------------------------

cdef void insert(Timed* t, Table* table, Entry* e, int64_t when_ms) noexcept nogil:
    """A fresh entry, which has EXPIRES exactly when there is a deadline."""
    cdef size_t n
    cdef uint8_t* f = entry_key(e, &n)
    table_insert(table, e, hash_bytes(f, n))
    if when_ms:
        deadline_add(&t.due, e, when_ms)


ctypedef struct Moving:
    Timed* timed
    Table* table


cdef void move_field(
    const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, int64_t when_ms, void* arg,
) noexcept nogil:
    cdef Moving* to = <Moving*>arg
    insert(to.timed, to.table, member_new(f, fn, v, vn, EXPIRES if when_ms else 0), when_ms)


cdef void enlarge(Timed* t) noexcept nogil:
    cdef Moving to
    to.timed = t
    to.table = members_new()
    timed_walk(t, move_field, &to)
    if t.fields.data != NULL:
        packed_clear(&t.fields)
    t.fields.data = <uint8_t*>to.table
    t.fields.count = LARGE


cdef int large_put(
    Timed* t, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, bint keep, int64_t now_ms,
) noexcept nogil:
    cdef Table* table = box_table(&t.fields)
    cdef uint64_t h = hash_bytes(f, fn)
    cdef uint64_t* slot = table_find(table, f, fn, h)
    cdef Entry* e
    cdef Entry* fresh
    cdef int64_t when
    if slot == NULL:
        table_insert(table, member_new(f, fn, v, vn, 0), h)
        return 1
    e = slot_entry(slot[0])
    when = deadline_of(e)
    if overdue(when, now_ms):
        keep = False
    if (when == 0 or keep) and member_overwrite(e, v, vn):
        return 0
    fresh = member_new(f, fn, v, vn, EXPIRES if keep and when else 0)
    if when:
        deadline_remove(&t.due, e)
    if keep and when:
        deadline_add(&t.due, fresh, when)
    table_replace(slot, fresh)
    member_free(e)
    if when and not keep:
        deadline_gone(t, when)
    return overdue(when, now_ms)


cdef void take(Timed* t, uint64_t* slot) noexcept nogil:
    """Removes a field; the first deadline is the caller's."""
    cdef Entry* e = slot_entry(slot[0])
    if e.flags & EXPIRES:
        deadline_remove(&t.due, e)
    member_free(table_take(box_table(&t.fields), slot))


cdef bint large_set(Timed* t, const uint8_t* f, size_t fn, int64_t when_ms, int64_t now_ms) noexcept nogil:
    cdef uint64_t* slot = table_find(box_table(&t.fields), f, fn, hash_bytes(f, fn))
    cdef Entry* e
    cdef Entry* fresh
    if slot == NULL or overdue(deadline_of(slot_entry(slot[0])), now_ms):
        return False
    e = slot_entry(slot[0])
    if e.flags & EXPIRES and when_ms:
        deadline_change(&t.due, e, when_ms)
    elif (e.flags & EXPIRES != 0) != (when_ms != 0):
        if e.flags & EXPIRES:
            deadline_remove(&t.due, e)
        fresh = entry_new(T_HASH, f, fn, entry_value(e), e.vlen, (e.flags & BOXED) | (EXPIRES if when_ms else 0))
        table_replace(slot, fresh)
        entry_free(e)  # what it boxes has moved
        if when_ms:
            deadline_add(&t.due, fresh, when_ms)
    settle(t)
    return True


cdef size_t large_expire(Timed* t, int64_t now_ms, size_t most, Emit emit, void* arg) noexcept nogil:
    cdef Table* table = box_table(&t.fields)
    cdef size_t n, gone
    cdef uint8_t* f
    for gone in range(most):
        if t.due.used == 0 or t.due.heap[0].when_ms > now_ms:
            return gone
        f = entry_key(t.due.heap[0].entry, &n)
        if emit != NULL:
            emit(f, n, arg)
        take(t, table_find(table, f, n, hash_bytes(f, n)))
    return most


# --- both ---------------------------------------------------------------------------------------------------------------

cdef Timed* new_timed() noexcept nogil:
    cdef Timed* t = <Timed*>mem_alloc(sizeof(Timed))
    memset(t, 0, sizeof(Timed))
    return t


cdef void timed_begin(Packed* box) noexcept nogil:
    cdef Timed* t = new_timed()
    cdef const uint8_t* at = box.data
    cdef const uint8_t* end
    cdef uint8_t* to
    if box.count == LARGE:
        t.fields = box[0]
    elif box.count:
        end = at + box.size
        to = packed_splice(&t.fields, 0, 0, box.size + box.count // 2)
        while at < end:
            to = packed_write_pair(to, &at)
        t.fields.count = box.count // 2 * 3
        packed_clear(box)
    box.data = <uint8_t*>t
    box.size = 0
    box.count = TIMED


cdef inline uint8_t* packed_write_pair(uint8_t* to, const uint8_t** at) noexcept nogil:
    """A field and its value as they are packed, then no deadline."""
    cdef const uint8_t* end = packed_skip(packed_skip(at[0]))
    memcpy(to, at[0], end - at[0])
    to += end - at[0]
    at[0] = end
    return write_when(to, 0)


cdef void timed_expect(Timed* t, uint64_t fields) noexcept nogil:
    if fields > entries_max and t.fields.count != LARGE:
        enlarge(t)


cdef int timed_put(
    Timed* t, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, bint keep, int64_t now_ms,
) noexcept nogil:
    cdef int done
    if t.fields.count != LARGE:
        done = small_put(t, f, fn, v, vn, keep, now_ms)
        if done >= 0:
            return done
        enlarge(t)
    return large_put(t, f, fn, v, vn, keep, now_ms)


cdef const uint8_t* timed_get(
    Timed* t, const uint8_t* f, size_t fn, size_t* vn, int64_t* when, int64_t now_ms,
) noexcept nogil:
    cdef const uint8_t* v = NULL
    cdef uint8_t* at
    cdef uint64_t* slot
    when[0] = 0
    if t.fields.count == LARGE:
        slot = table_find(box_table(&t.fields), f, fn, hash_bytes(f, fn))
        if slot != NULL:
            v = member_value(slot_entry(slot[0]), vn)
            when[0] = deadline_of(slot_entry(slot[0]))
    else:
        at = packed_find(&t.fields, f, fn, 3)
        if at != NULL:
            v = packed_read(packed_skip(at), vn)
            when[0] = when_at(v + vn[0])
    return NULL if overdue(when[0], now_ms) else v


cdef bint timed_remove(Timed* t, const uint8_t* f, size_t fn, int64_t now_ms) noexcept nogil:
    cdef uint64_t* slot
    cdef int64_t when
    if t.fields.count != LARGE:
        return small_remove(t, f, fn, now_ms)
    slot = table_find(box_table(&t.fields), f, fn, hash_bytes(f, fn))
    if slot == NULL:
        return False
    when = deadline_of(slot_entry(slot[0]))
    take(t, slot)
    deadline_gone(t, when)
    return not overdue(when, now_ms)


cdef bint timed_set(Timed* t, const uint8_t* f, size_t fn, int64_t when_ms, int64_t now_ms) noexcept nogil:
    cdef uint8_t* at
    if t.fields.count == LARGE:
        return large_set(t, f, fn, when_ms, now_ms)
    at = packed_find(&t.fields, f, fn, 3)
    if at == NULL:
        return False
    at = packed_skip(packed_skip(at))
    if overdue(when_at(at), now_ms):
        return False
    write_when(packed_splice(&t.fields, at - t.fields.data, 1 + at[0], 1 + (WHEN if when_ms else 0)), when_ms)
    settle(t)
    return True


cdef uint64_t timed_length(Timed* t) noexcept nogil:
    return box_table(&t.fields).used if t.fields.count == LARGE else t.fields.count // 3


cdef size_t timed_expire(Timed* t, int64_t now_ms, size_t most, Emit emit, void* arg) noexcept nogil:
    cdef size_t gone
    if not overdue(t.next_ms, now_ms):
        return 0
    if t.fields.count == LARGE:
        gone = large_expire(t, now_ms, most, emit, arg)
    else:
        gone = small_expire(t, now_ms, emit, arg)
    settle(t)
    return gone


ctypedef struct Walk:
    TimedVisit visit
    void* arg


cdef bint walk_entry(Entry* e, void* arg) noexcept nogil:
    cdef Walk* walk = <Walk*>arg
    cdef size_t fn, vn
    cdef const uint8_t* f = entry_key(e, &fn)
    cdef const uint8_t* v = member_value(e, &vn)
    walk.visit(f, fn, v, vn, deadline_of(e), walk.arg)
    return False


cdef void timed_walk(Timed* t, TimedVisit visit, void* arg) noexcept nogil:
    cdef const uint8_t* at = t.fields.data
    cdef const uint8_t* end = at + t.fields.size
    cdef const uint8_t* f
    cdef const uint8_t* v
    cdef size_t fn, vn
    cdef Walk walk
    if t.fields.count == LARGE:
        walk.visit = visit
        walk.arg = arg
        members_walk(box_table(&t.fields), walk_entry, &walk)
        return
    while at < end:
        f = packed_read(at, &fn)
        v = packed_read(f + fn, &vn)
        at = v + vn
        visit(f, fn, v, vn, when_at(at), arg)
        at += 1 + at[0]


cdef bint copy_field(Entry* e, void* arg) noexcept nogil:
    cdef Moving* to = <Moving*>arg
    cdef size_t n
    cdef uint8_t* f = entry_key(e, &n)
    if e.flags & BOXED:
        blob_retain(<Blob*>entry_box(e))
    insert(to.timed, to.table, entry_new(T_HASH, f, n, entry_value(e), e.vlen, e.flags & (BOXED | EXPIRES)),
           deadline_of(e))
    return False


cdef Timed* timed_copy(Timed* t) noexcept nogil:
    cdef Moving to
    to.timed = new_timed()
    to.timed.next_ms = t.next_ms
    if t.fields.count == LARGE:
        to.table = members_new()
        to.timed.fields.data = <uint8_t*>to.table
        to.timed.fields.count = LARGE
        members_walk(box_table(&t.fields), copy_field, &to)
    elif t.fields.count:
        memcpy(packed_splice(&to.timed.fields, 0, 0, t.fields.size), t.fields.data, t.fields.size)
        to.timed.fields.count = t.fields.count
    return to.timed


cdef bint timed_destroy(Timed* t, size_t* budget) noexcept nogil:
    deadlines_free(&t.due)
    if t.fields.count == LARGE:
        if not members_destroy(box_table(&t.fields), budget):
            return False
    elif t.fields.data != NULL:
        packed_clear(&t.fields)
    if t.ticket != NULL:
        entry_free(t.ticket)
    mem_free(t, sizeof(Timed))
    return True


cdef size_t timed_memory(Timed* t) noexcept nogil:
    cdef size_t size = mem_footprint(sizeof(Timed)) + t.due.capacity * sizeof(Deadline)
    if t.ticket != NULL:
        size += mem_footprint(entry_size(t.ticket)) + sizeof(Deadline)
    if t.fields.count == LARGE:
        return size + members_memory(box_table(&t.fields))
    return size + (mem_footprint(t.fields.size) if t.fields.size else 0)


cdef uint64_t timed_faults(Timed* t) noexcept nogil:
    cdef uint64_t faults = deadlines_faults(&t.due)
    faults += t.next_ms != first_deadline(t)
    if t.index != NULL:
        faults += t.next_ms != 0 and deadline_of(t.ticket) != t.next_ms
    return faults
