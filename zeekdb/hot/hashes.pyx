"""Hashes: packed while small, a table of entries when large.

A small hash is field, value, field, value … packed in the order of creation; it is searched from its beginning, which
for up to a hundred short fields costs less than a cache miss and no memory beyond the bytes. It becomes a table for
good when it outgrows the limits. There a field is the key of an entry and its value stands in the same allocation, or,
over INLINE_MAX bytes, in a blob. A value is overwritten in place when the new one takes the same room.

A hash whose fields may have deadlines is another structure behind the same functions: hash_deadlines.pyx.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.deadlines cimport deadline_of
from zeekdb.hot.hash_deadlines cimport (
    overdue, timed_copy, timed_destroy, timed_expect, timed_faults, timed_get, timed_length, timed_limits, timed_memory,
    timed_of, timed_put, timed_remove, timed_set, timed_walk, when_at,
)
from zeekdb.hot.keyspace cimport G, TypeOps, register_type
from zeekdb.hot.members cimport (
    LARGE, PACKED_MAX, SCAN_MAX, TIMED, Harvest, box_table, chance, chance_below, check_size, harvest, harvest_to,
    harvested, member_free, member_new, member_overwrite, member_value, members_compact, members_copy,
    members_destroy, members_memory, members_new, members_walk, packed_skip, prefetch, raw, size_of,
)
from zeekdb.hot.memory cimport mem_alloc, mem_footprint, mem_free, mem_moved
from zeekdb.hot.packed cimport (
    Emit, Packed, packed_clear, packed_find, packed_need, packed_read, packed_splice, packed_write,
)
from zeekdb.hot.table cimport (
    EXPIRES, T_HASH, Entry, Table, entry_key, hash_bytes, slot_entry, table_find, table_insert, table_prefetch_bucket,
    table_prefetch_entry, table_random, table_replace, table_scan, table_take,
)

cdef extern from *:
    """
    #define ZEEK_FIELD_DEADLINE_MAX (1ll << 48)
    """
    const int64_t DEADLINE_MAX "ZEEK_FIELD_DEADLINE_MAX"

cdef uint64_t entries_max = 128
cdef uint64_t value_max = 64


def set_limits(*, entries=None, value=None):
    global entries_max, value_max
    if entries is not None:
        entries_max = entries
    if value is not None:
        value_max = value
    timed_limits(entries_max, value_max)


# --- the small form -------------------------------------------------------------------------------------------------

cdef inline int small_put(Packed* box, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn) noexcept nogil:
    """1 created, 0 updated, -1 when this takes a table."""
    cdef size_t offset
    cdef size_t need = packed_need(vn)
    cdef uint8_t* at
    if fn > value_max or vn > value_max or box.size + packed_need(fn) + need > PACKED_MAX:
        return -1
    at = packed_find(box, f, fn, 2)
    if at == NULL:
        if box.count // 2 >= entries_max:
            return -1
        at = packed_splice(box, box.size, 0, packed_need(fn) + need)
        packed_write(packed_write(at, f, fn), v, vn)
        box.count += 2
        return 1
    at = packed_skip(at)
    offset = at - box.data
    packed_write(packed_splice(box, offset, packed_skip(at) - at, need), v, vn)
    return 0


cdef inline bint small_remove(Packed* box, const uint8_t* f, size_t fn) noexcept nogil:
    cdef uint8_t* at = packed_find(box, f, fn, 2)
    cdef uint8_t* end
    if at == NULL:
        return False
    end = packed_skip(packed_skip(at))
    if box.count == 2:
        packed_clear(box)
    else:
        packed_splice(box, at - box.data, end - at, 0)
        box.count -= 2
    return True


cdef void insert_pair(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil:
    table_insert(<Table*>arg, member_new(f, fn, v, vn, 0), hash_bytes(f, fn))


cdef void enlarge(Packed* box) noexcept nogil:
    cdef Table* t = members_new()
    hash_walk(box, insert_pair, t)
    packed_clear(box)
    box.data = <uint8_t*>t
    box.count = LARGE


# --- the large form -------------------------------------------------------------------------------------------------

cdef int large_put(Table* t, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = table_find(t, f, fn, h)
    cdef Entry* e
    if slot == NULL:
        table_insert(t, member_new(f, fn, v, vn, 0), h)
        return 1
    e = slot_entry(slot[0])
    if not member_overwrite(e, v, vn):
        table_replace(slot, member_new(f, fn, v, vn, 0))
        member_free(e)
    return 0


# --- both -----------------------------------------------------------------------------------------------------------

cdef void hash_expect(void* self, uint64_t fields) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if fields <= entries_max or box.count == LARGE:
        return
    if box.count == TIMED:
        timed_expect(timed_of(box), fields)
    else:
        enlarge(box)


cdef bint hash_adopt(void* self, const uint8_t* run, size_t size, uint64_t pairs, size_t longest) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if pairs > entries_max or longest > value_max or size > PACKED_MAX or size == 0:
        return False
    box.data = <uint8_t*>mem_alloc(size)
    memcpy(box.data, run, size)
    box.size = <uint32_t>size
    box.count = <uint32_t>(2 * pairs)
    return True


cdef int hash_put(void* self, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef int done
    if box.count < TIMED:
        done = small_put(box, f, fn, v, vn)
        if done >= 0:
            return done
        enlarge(box)
    elif box.count == TIMED:
        return timed_put(timed_of(box), f, fn, v, vn, False, G.now_ms)
    return large_put(box_table(box), f, fn, v, vn, hash_bytes(f, fn))


cdef int hash_change(void* self, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == TIMED:
        return timed_put(timed_of(box), f, fn, v, vn, True, G.now_ms)
    return hash_put(self, f, fn, v, vn)


cdef int hash_put_h(void* self, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, uint64_t h) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        return large_put(box_table(box), f, fn, v, vn, h)
    return hash_put(self, f, fn, v, vn)


cdef inline const uint8_t* small_get(Packed* box, const uint8_t* f, size_t fn, size_t* vn) noexcept nogil:
    cdef uint8_t* at = packed_find(box, f, fn, 2)
    if at == NULL:
        return NULL
    at = packed_read(at, vn)
    return packed_read(at + vn[0], vn)


cdef inline const uint8_t* large_get(Table* t, const uint8_t* f, size_t fn, size_t* vn, uint64_t h) noexcept nogil:
    cdef uint64_t* slot = table_find(t, f, fn, h)
    return member_value(slot_entry(slot[0]), vn) if slot != NULL else NULL


cdef const uint8_t* hash_get(void* self, const uint8_t* f, size_t fn, size_t* vn) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef int64_t when
    if box.count == LARGE:
        return large_get(box_table(box), f, fn, vn, hash_bytes(f, fn))
    if box.count == TIMED:
        return timed_get(timed_of(box), f, fn, vn, &when, G.now_ms)
    return small_get(box, f, fn, vn)


cdef const uint8_t* hash_get_h(void* self, const uint8_t* f, size_t fn, size_t* vn, uint64_t h) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        return large_get(box_table(box), f, fn, vn, h)
    return hash_get(self, f, fn, vn)


cdef bint hash_remove(void* self, const uint8_t* f, size_t fn) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef Table* t
    cdef uint64_t* slot
    if box.count < TIMED:
        return small_remove(box, f, fn)
    if box.count == TIMED:
        return timed_remove(timed_of(box), f, fn, G.now_ms)
    t = box_table(box)
    slot = table_find(t, f, fn, hash_bytes(f, fn))
    if slot == NULL:
        return False
    member_free(table_take(t, slot))
    return True


cdef uint64_t hash_length(void* self) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == TIMED:
        return timed_length(timed_of(box))
    return box_table(box).used if box.count == LARGE else box.count // 2


cdef inline Packed* fields_of(Packed* box) noexcept nogil:
    """The box itself, or that of a hash with deadlines, which packs in threes while small."""
    return &timed_of(box).fields if box.count == TIMED else box


cdef Timed* hash_timed(void* self) noexcept nogil:
    return timed_of(<Packed*>self) if (<Packed*>self).count == TIMED else NULL


cdef bint hash_is_large(void* self) noexcept nogil:
    return fields_of(<Packed*>self).count == LARGE


cdef void hash_prefetch(void* self, uint64_t h) noexcept nogil:
    cdef Packed* box = fields_of(<Packed*>self)
    if box.count == LARGE:
        table_prefetch_bucket(box_table(box), h)
    else:
        prefetch(box.data)


cdef void hash_prefetch_entry(void* self, uint64_t h) noexcept nogil:
    cdef Packed* box = fields_of(<Packed*>self)
    if box.count == LARGE:
        table_prefetch_entry(box_table(box), h)


# --- walks ----------------------------------------------------------------------------------------------------------

ctypedef struct PairWalk:
    PairVisit visit
    void* arg


cdef bint walk_entry(Entry* e, void* arg) noexcept nogil:
    cdef PairWalk* walk = <PairWalk*>arg
    cdef size_t fn, vn
    cdef const uint8_t* f = entry_key(e, &fn)
    cdef const uint8_t* v = member_value(e, &vn)
    if not e.flags & EXPIRES or deadline_of(e) > G.now_ms:
        walk.visit(f, fn, v, vn, walk.arg)
    return False


cdef void hash_walk(void* self, PairVisit visit, void* arg) noexcept nogil:
    cdef Packed* box = fields_of(<Packed*>self)
    cdef bint timed = (<Packed*>self).count == TIMED
    cdef PairWalk walk
    cdef size_t fn, vn
    cdef const uint8_t* at
    cdef const uint8_t* end
    cdef const uint8_t* f
    cdef const uint8_t* v
    if box.count == LARGE:
        walk.visit = visit
        walk.arg = arg
        members_walk(box_table(box), walk_entry, &walk)
        return
    at = box.data
    end = at + box.size
    while at < end:
        f = packed_read(at, &fn)
        v = packed_read(f + fn, &vn)
        at = v + vn
        if timed:
            at += 1 + at[0]
            if overdue(when_at(v + vn), G.now_ms):
                continue
        visit(f, fn, v, vn, arg)


ctypedef struct PairEmit:
    Emit emit
    void* arg


cdef void emit_pair(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil:
    cdef PairEmit* out = <PairEmit*>arg
    out.emit(f, fn, out.arg)
    out.emit(v, vn, out.arg)


cdef void hash_each(void* self, Emit emit, void* arg) noexcept nogil:
    cdef PairEmit out
    out.emit = emit
    out.arg = arg
    hash_walk(self, emit_pair, &out)


cdef bint random_pair(Packed* self, PairVisit visit, void* arg) noexcept nogil:
    """Visits any pair, each as likely as the other; False when there is none. Nothing may be overdue."""
    cdef Packed* box = fields_of(self)
    cdef bint timed = self.count == TIMED
    cdef PairWalk walk
    cdef size_t fn, vn
    cdef uint64_t skip, length = hash_length(self)
    cdef const uint8_t* f
    cdef const uint8_t* v
    if length == 0:
        return False
    if box.count == LARGE:
        walk.visit = visit
        walk.arg = arg
        walk_entry(table_random(box_table(box), chance), &walk)
        return True
    f = packed_read(box.data, &fn)
    v = packed_read(f + fn, &vn)
    for skip in range(chance_below(length)):
        f = v + vn
        if timed:
            f += 1 + f[0]
        f = packed_read(f, &fn)
        v = packed_read(f + fn, &vn)
    visit(f, fn, v, vn, arg)
    return True


# --- what the keyspace asks of a type ---------------------------------------------------------------------------------

cdef void* hash_create() noexcept nogil:
    cdef Packed* box = <Packed*>mem_alloc(sizeof(Packed))
    box.data = NULL
    box.size = 0
    box.count = 0
    return box


cdef bint hash_destroy(void* self, size_t* budget) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        if not members_destroy(box_table(box), budget):
            return False
    elif box.count == TIMED:
        if not timed_destroy(timed_of(box), budget):
            return False
    else:
        if box.data != NULL:
            packed_clear(box)
        if budget[0]:
            budget[0] -= 1
    mem_free(box, sizeof(Packed))
    return True


cdef void* hash_copy(void* self) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef Packed* copy = <Packed*>hash_create()
    if box.count == LARGE:
        copy.data = <uint8_t*>members_copy(box_table(box))
    elif box.count == TIMED:
        copy.data = <uint8_t*>timed_copy(timed_of(box))
    elif box.size:
        copy.data = <uint8_t*>mem_alloc(box.size)
        memcpy(copy.data, box.data, box.size)
    copy.size = box.size
    copy.count = box.count
    return copy


cdef void* hash_compact(void* self) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == TIMED:
        return box  # its tickets know where it is
    if box.count == LARGE:
        box.data = <uint8_t*>members_compact(box_table(box))
    else:
        box.data = <uint8_t*>mem_moved(box.data, box.size)
    return mem_moved(box, sizeof(Packed))


cdef size_t hash_memory(void* self) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef size_t size = mem_footprint(sizeof(Packed))
    if box.count == LARGE:
        return size + members_memory(box_table(box))
    if box.count == TIMED:
        return size + timed_memory(timed_of(box))
    return size + (mem_footprint(box.size) if box.size else 0)


cdef size_t hash_effort(void* self) noexcept nogil:
    cdef Packed* box = fields_of(<Packed*>self)
    return box_table(box).used if box.count == LARGE else 1


# --- the door -------------------------------------------------------------------------------------------------------

cdef void harvest_field(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil:
    harvest(f, fn, arg)


cdef void harvest_value(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil:
    harvest(v, vn, arg)


cdef void harvest_pair(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil:
    harvest(f, fn, arg)
    harvest(v, vn, arg)


cdef void harvest_entry(Entry* e, uint64_t h, void* arg) noexcept nogil:
    cdef size_t fn, vn
    cdef const uint8_t* f = entry_key(e, &fn)
    cdef const uint8_t* v = member_value(e, &vn)
    if not e.flags & EXPIRES or deadline_of(e) > G.now_ms:
        harvest_pair(f, fn, v, vn, arg)


ctypedef struct Sample:
    uint64_t wanted     # still to be chosen
    uint64_t left       # still to come
    Harvest into


cdef void sample_pair(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil:
    # Selection sampling (Knuth, volume 2, 3.4.2, algorithm S): one pass, every choice equally likely.
    cdef Sample* sample = <Sample*>arg
    if chance_below(sample.left) < sample.wanted:
        sample.wanted -= 1
        harvest_pair(f, fn, v, vn, &sample.into)
    sample.left -= 1


cdef void collect_row(
    const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, int64_t when_ms, void* arg,
) noexcept nogil:
    if overdue(when_ms, G.now_ms):
        return
    with gil:
        (<list>arg).append((
            PyBytes_FromStringAndSize(<const char*>f, <Py_ssize_t>fn),
            PyBytes_FromStringAndSize(<const char*>v, <Py_ssize_t>vn), when_ms,
        ))


cdef list paired(list flat):
    cdef Py_ssize_t i
    return [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]


cdef class Hash:
    cdef Packed* box

    def __init__(self):
        raise TypeError("hashes belong to a database: Database.create")

    cdef list collect(self, PairVisit visit):
        cdef list items = []
        cdef Harvest into = harvest_to(items)
        hash_walk(self.box, visit, &into)
        return harvested(items, &into)

    @property
    def encoding(self):
        if fields_of(self.box).count == LARGE:
            return "hashtable"
        return "listpackex" if self.box.count == TIMED else "listpack"

    def __len__(self):
        return hash_length(self.box)

    def __contains__(self, bytes field not None):
        cdef size_t n
        return hash_get(self.box, raw(field), size_of(field), &n) != NULL

    def get(self, bytes field not None):
        cdef size_t n
        cdef const uint8_t* v = hash_get(self.box, raw(field), size_of(field), &n)
        return None if v == NULL else PyBytes_FromStringAndSize(<const char*>v, <Py_ssize_t>n)

    def get_many(self, fields not None):
        return [self.get(field) for field in fields]

    def strlen(self, bytes field not None):
        cdef size_t n
        return n if hash_get(self.box, raw(field), size_of(field), &n) != NULL else 0

    def put(self, bytes field not None, bytes value not None):
        check_size(field)
        return hash_put(self.box, raw(field), size_of(field), raw(value), size_of(value)) == 1

    def change(self, bytes field not None, bytes value not None):
        check_size(field)
        return hash_change(self.box, raw(field), size_of(field), raw(value), size_of(value)) == 1

    def put_many(self, pairs not None):
        cdef Py_ssize_t i, n = len(pairs)
        cdef bytes field, value
        cdef uint64_t created = 0
        for i in range(0, n, 2):
            check_size(pairs[i])
        hash_expect(self.box, n // 2)
        for i in range(0, n, 2):
            field, value = pairs[i], pairs[i + 1]
            created += hash_put(self.box, raw(field), size_of(field), raw(value), size_of(value))
        return created

    def remove(self, bytes field not None):
        return hash_remove(self.box, raw(field), size_of(field))

    def fields(self):
        return self.collect(harvest_field)

    def values(self):
        return self.collect(harvest_value)

    def flat(self):
        return self.collect(harvest_pair)

    def items(self):
        return paired(self.flat())

    def to_dict(self):
        return dict(self.items())

    def scan(self, uint64_t cursor, size_t count):
        cdef list items = []
        cdef Harvest into = harvest_to(items)
        if fields_of(self.box).count != LARGE:
            return 0, self.flat()
        cursor = table_scan(box_table(fields_of(self.box)), cursor, min(count, SCAN_MAX), harvest_entry, &into)
        return cursor, harvested(items, &into)

    def random(self):
        cdef list items = []
        cdef Harvest into = harvest_to(items)
        if not random_pair(self.box, harvest_pair, &into):
            return None
        harvested(items, &into)
        return items[0], items[1]

    def sample(self, uint64_t count):
        cdef Sample sample
        cdef list items = []
        cdef dict chosen = {}
        cdef uint64_t length = hash_length(self.box)
        if count >= length:
            return self.items()
        if fields_of(self.box).count == LARGE and count < length // 4:
            # A few of many: draw until they differ, at most a quarter of the draws in vain.
            while <uint64_t>len(chosen) < count:
                field, value = self.random()
                chosen[field] = value
            return list(chosen.items())
        sample.wanted = count
        sample.left = length
        sample.into = harvest_to(items)
        hash_walk(self.box, sample_pair, &sample)
        return paired(harvested(items, &sample.into))

    @property
    def timed(self):
        return self.box.count == TIMED

    def deadline(self, bytes field not None):
        cdef size_t n
        cdef int64_t when = 0
        cdef const uint8_t* v
        if self.box.count == TIMED:
            v = timed_get(timed_of(self.box), raw(field), size_of(field), &n, &when, G.now_ms)
        else:
            v = hash_get(self.box, raw(field), size_of(field), &n)
        return -2 if v == NULL else when if when else -1

    def set_deadline(self, bytes field not None, int64_t deadline_ms):
        if not 0 <= deadline_ms < DEADLINE_MAX:
            raise ValueError("a field's deadline has 48 bits")
        if self.box.count == TIMED:
            return timed_set(timed_of(self.box), raw(field), size_of(field), deadline_ms, G.now_ms)
        if deadline_ms:
            raise ValueError("Database.time_fields comes first")
        return field in self

    def faults(self):
        return timed_faults(timed_of(self.box)) if self.box.count == TIMED else 0

    def first_deadline(self):
        return timed_of(self.box).next_ms if self.box.count == TIMED else 0

    def items_with_deadlines(self):
        cdef list rows = []
        if self.box.count != TIMED:
            return [(field, value, 0) for field, value in self.items()]
        timed_walk(timed_of(self.box), collect_row, <void*>rows)
        return rows


cdef object wrap(void* self):
    cdef Hash door = Hash.__new__(Hash)
    door.box = <Packed*>self
    return door


cdef TypeOps ops
ops.create = hash_create
ops.destroy = hash_destroy
ops.copy = hash_copy
ops.length = hash_length
ops.memory = hash_memory
ops.effort = hash_effort
ops.compact = hash_compact
ops.wrap = wrap
register_type(T_HASH, &ops, Hash)
