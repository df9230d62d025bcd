"""Sets: sorted integers, packed strings, or a table of entries.

Which form follows from what was added, as in Redis: integers only are an intset, up to its limit; the first other
member turns a short one into packed strings; whatever outgrows the limits becomes a table, for good. A blank box (no
data, size and count 0) is none yet: the first member decides.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.intset cimport (
    DIGITS_MAX, INTS, ints_bytes, ints_clear, ints_delete, ints_find, ints_get, ints_insert, ints_is, ints_width,
)
from zeekdb.hot.keyspace cimport TypeOps, register_type
from zeekdb.hot.members cimport (
    LARGE, PACKED_MAX, SCAN_MAX, Harvest, box_table, chance, chance_below, check_size, harvest, harvest_to,
    harvested, member_free, members_compact, members_copy, members_destroy, members_memory, members_new,
    members_walk, packed_skip, prefetch, raw, size_of,
)
from zeekdb.hot.memory cimport mem_alloc, mem_footprint, mem_free, mem_moved
from zeekdb.hot.packed cimport (
    Emit, Packed, packed_append, packed_clear, packed_find, packed_need, packed_read, packed_splice,
)
from zeekdb.hot.table cimport (
    T_SET, Entry, Table, entry_key, entry_new, hash_bytes, table_find, table_insert, table_prefetch_bucket,
    table_prefetch_entry, table_random, table_scan, table_take,
)
from zeekdb.hot.wire cimport format_int, parse_int

cdef uint64_t intset_max = 512
cdef uint64_t entries_max = 128
cdef uint64_t value_max = 64


def set_limits(*, intset=None, entries=None, value=None):
    global intset_max, entries_max, value_max
    if intset is not None:
        intset_max = min(intset, 1 << 30)
    if entries is not None:
        entries_max = entries
    if value is not None:
        value_max = value


# --- conversions ----------------------------------------------------------------------------------------------------

cdef bint insert_member(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    table_insert(<Table*>arg, entry_new(T_SET, p, n, NULL, 0, 0), hash_bytes(p, n))
    return False


cdef bint append_member(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    packed_append(<Packed*>arg, p, n)
    return False


cdef void clear_small(Packed* box) noexcept nogil:
    if ints_is(box):
        ints_clear(box)
    elif box.data != NULL:
        packed_clear(box)


cdef void enlarge(Packed* box) noexcept nogil:
    cdef Table* t = members_new()
    set_walk(box, insert_member, t)
    clear_small(box)
    box.data = <uint8_t*>t
    box.count = LARGE


cdef void spell_out(Packed* box) noexcept nogil:
    """Integers to packed strings."""
    cdef Packed packed
    packed.data = NULL
    packed.size = 0
    packed.count = 0
    set_walk(box, append_member, &packed)
    ints_clear(box)
    box[0] = packed


cdef bint can_spell_out(Packed* box, size_t n) noexcept nogil:
    """Whether the integers and a member of n bytes keep the limits of packed strings."""
    cdef uint8_t digits[DIGITS_MAX]
    if box.count >= entries_max or n > value_max:
        return False
    if value_max >= DIGITS_MAX:
        return True
    n = format_int(digits, ints_get(box, 0))  # the longest is the least or the greatest
    return n <= value_max and format_int(digits, ints_get(box, box.count - 1)) <= value_max


# --- the forms ------------------------------------------------------------------------------------------------------

cdef inline int small_add(Packed* box, const uint8_t* p, size_t n) noexcept nogil:
    """1 added, 0 present, -1 when this takes a table."""
    cdef int64_t v
    cdef size_t place
    if box.size == 0 or ints_is(box):
        if parse_int(p, n, &v) and (box.size or intset_max):
            if box.size and ints_find(box, v, &place):
                return 0
            if box.count >= intset_max:
                return -1
            ints_insert(box, place if box.size else 0, v)
            return 1
        if box.size:
            if not can_spell_out(box, n):
                return -1
            spell_out(box)
    elif packed_find(box, p, n, 1) != NULL:
        return 0
    if box.count >= entries_max or n > value_max or box.size + packed_need(n) > PACKED_MAX:
        return -1
    packed_append(box, p, n)
    return 1


cdef inline bint small_contains(Packed* box, const uint8_t* p, size_t n) noexcept nogil:
    cdef int64_t v
    cdef size_t place
    if ints_is(box):
        return parse_int(p, n, &v) and ints_find(box, v, &place)
    return packed_find(box, p, n, 1) != NULL


cdef void packed_drop(Packed* box, const uint8_t* at) noexcept nogil:
    cdef const uint8_t* end = packed_skip(at)
    if box.count == 1:
        packed_clear(box)
    else:
        packed_splice(box, at - box.data, end - at, 0)
        box.count -= 1


cdef bint small_remove(Packed* box, const uint8_t* p, size_t n) noexcept nogil:
    cdef int64_t v
    cdef size_t place
    cdef uint8_t* at
    if ints_is(box):
        if not parse_int(p, n, &v) or not ints_find(box, v, &place):
            return False
        ints_delete(box, place)
        return True
    at = packed_find(box, p, n, 1)
    if at == NULL:
        return False
    packed_drop(box, at)
    return True


cdef bint large_add(Table* t, const uint8_t* p, size_t n, uint64_t h) noexcept nogil:
    if table_find(t, p, n, h) != NULL:
        return False
    table_insert(t, entry_new(T_SET, p, n, NULL, 0, 0), h)
    return True


cdef inline bint large_remove(Table* t, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint64_t* slot = table_find(t, p, n, hash_bytes(p, n))
    if slot == NULL:
        return False
    member_free(table_take(t, slot))
    return True


# --- what is exported -----------------------------------------------------------------------------------------------

cdef void set_expect(void* self, uint64_t members, const uint8_t* first, size_t first_n) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef int64_t v
    cdef bint ints
    if box.count == LARGE or (members <= entries_max and members <= intset_max):
        return
    ints = ints_is(box) if box.size else parse_int(first, first_n, &v)
    if members > (intset_max if ints else entries_max):
        enlarge(box)


cdef bint set_adopt(void* self, const uint8_t* run, size_t size, uint64_t members, size_t longest) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if members > entries_max or longest > value_max or size > PACKED_MAX or size == 0:
        return False
    box.data = <uint8_t*>mem_alloc(size)
    memcpy(box.data, run, size)
    box.size = <uint32_t>size
    box.count = <uint32_t>members
    return True


cdef bint set_adopt_ints(void* self, const uint8_t* ints, uint32_t width, uint64_t members) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if members > intset_max or members == 0:
        return False
    box.data = <uint8_t*>mem_alloc(members * width)
    memcpy(box.data, ints, members * width)
    box.size = INTS | width
    box.count = <uint32_t>members
    return True


cdef const uint8_t* set_ints(void* self, uint32_t* width, uint64_t* members) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE or not ints_is(box):
        return NULL
    width[0] = ints_width(box)
    members[0] = box.count
    return box.data


cdef bint set_add(void* self, const uint8_t* p, size_t n) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef int done
    if box.count != LARGE:
        done = small_add(box, p, n)
        if done >= 0:
            return done
        enlarge(box)
    return large_add(box_table(box), p, n, hash_bytes(p, n))


cdef bint set_add_h(void* self, const uint8_t* p, size_t n, uint64_t h) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        return large_add(box_table(box), p, n, h)
    return set_add(self, p, n)


cdef bint set_contains(void* self, const uint8_t* p, size_t n) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        return table_find(box_table(box), p, n, hash_bytes(p, n)) != NULL
    return small_contains(box, p, n)


cdef bint set_contains_h(void* self, const uint8_t* p, size_t n, uint64_t h) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        return table_find(box_table(box), p, n, h) != NULL
    return small_contains(box, p, n)


cdef bint set_remove(void* self, const uint8_t* p, size_t n) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        return large_remove(box_table(box), p, n)
    return small_remove(box, p, n)


cdef uint64_t set_length(void* self) noexcept nogil:
    cdef Packed* box = <Packed*>self
    return box_table(box).used if box.count == LARGE else box.count


cdef bint set_is_large(void* self) noexcept nogil:
    return (<Packed*>self).count == LARGE


cdef void set_prefetch(void* self, uint64_t h) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        table_prefetch_bucket(box_table(box), h)
    else:
        prefetch(box.data)


cdef void set_prefetch_entry(void* self, uint64_t h) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        table_prefetch_entry(box_table(box), h)


cdef uint8_t* packed_at(Packed* box, uint64_t place) noexcept nogil:
    cdef uint8_t* at = box.data
    cdef uint64_t i
    for i in range(place):
        at = packed_skip(at)
    return at


cdef bint set_random(void* self, Emit emit, void* arg) noexcept nogil:
    return draw(<Packed*>self, emit, arg, False)


cdef bint set_pop(void* self, Emit emit, void* arg) noexcept nogil:
    return draw(<Packed*>self, emit, arg, True)


cdef bint draw(Packed* box, Emit emit, void* arg, bint remove) noexcept nogil:
    cdef uint8_t digits[DIGITS_MAX]
    cdef uint64_t place
    cdef size_t n
    cdef uint8_t* at
    cdef const uint8_t* p
    if set_length(box) == 0:
        return False
    if box.count == LARGE:
        at = entry_key(table_random(box_table(box), chance), &n)
        emit(at, n, arg)
        if remove:
            large_remove(box_table(box), at, n)
        return True
    place = chance_below(box.count)
    if ints_is(box):
        emit(digits, format_int(digits, ints_get(box, place)), arg)
        if remove:
            ints_delete(box, place)
        return True
    at = packed_at(box, place)
    p = packed_read(at, &n)
    emit(p, n, arg)
    if remove:
        packed_drop(box, at)
    return True


# --- walks ----------------------------------------------------------------------------------------------------------

ctypedef struct Walk:
    Visit visit
    void* arg


cdef bint walk_entry(Entry* e, void* arg) noexcept nogil:
    cdef Walk* walk = <Walk*>arg
    cdef size_t n
    cdef const uint8_t* p = entry_key(e, &n)
    return walk.visit(p, n, walk.arg)


cdef bint walk_small(Packed* box, Visit visit, void* arg) noexcept nogil:
    cdef uint8_t digits[DIGITS_MAX]
    cdef const uint8_t* p
    cdef const uint8_t* end
    cdef size_t i, n
    if ints_is(box):
        for i in range(box.count):
            n = format_int(digits, ints_get(box, i))
            if visit(digits, n, arg):
                return True
        return False
    p = box.data
    end = p + box.size
    while p < end:
        p = packed_read(p, &n)
        if visit(p, n, arg):
            return True
        p += n
    return False


cdef bint set_walk(void* self, Visit visit, void* arg) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef Walk walk
    if box.count != LARGE:
        return walk_small(box, visit, arg)
    walk.visit = visit
    walk.arg = arg
    return members_walk(box_table(box), walk_entry, &walk)


ctypedef struct Output:
    Emit emit
    void* arg


cdef bint emit_member(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    cdef Output* out = <Output*>arg
    out.emit(p, n, out.arg)
    return False


cdef void set_each(void* self, Emit emit, void* arg) noexcept nogil:
    cdef Output out
    out.emit = emit
    out.arg = arg
    set_walk(self, emit_member, &out)


# --- what the keyspace asks of a type -------------------------------------------------------------------------------

cdef void* set_create() noexcept nogil:
    cdef Packed* box = <Packed*>mem_alloc(sizeof(Packed))
    box.data = NULL
    box.size = 0
    box.count = 0
    return box


cdef bint set_destroy(void* self, size_t* budget) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        if not members_destroy(box_table(box), budget):
            return False
    else:
        clear_small(box)
        if budget[0]:
            budget[0] -= 1
    mem_free(box, sizeof(Packed))
    return True


cdef inline size_t small_bytes(Packed* box) noexcept nogil:
    return ints_bytes(box) if ints_is(box) else box.size


cdef void* set_copy(void* self) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef Packed* copy = <Packed*>set_create()
    if box.count == LARGE:
        copy.data = <uint8_t*>members_copy(box_table(box))
    elif box.size:
        copy.data = <uint8_t*>mem_alloc(small_bytes(box))
        memcpy(copy.data, box.data, small_bytes(box))
    copy.size = box.size
    copy.count = box.count
    return copy


cdef void* set_compact(void* self) noexcept nogil:
    cdef Packed* box = <Packed*>self
    if box.count == LARGE:
        box.data = <uint8_t*>members_compact(box_table(box))
    elif box.data != NULL:
        box.data = <uint8_t*>mem_moved(box.data, small_bytes(box))
    return mem_moved(box, sizeof(Packed))


cdef size_t set_memory(void* self) noexcept nogil:
    cdef Packed* box = <Packed*>self
    cdef size_t size = mem_footprint(sizeof(Packed))
    if box.count == LARGE:
        return size + members_memory(box_table(box))
    return size + (mem_footprint(small_bytes(box)) if box.size else 0)


cdef size_t set_effort(void* self) noexcept nogil:
    cdef Packed* box = <Packed*>self
    return box_table(box).used if box.count == LARGE else 1


# --- the door -------------------------------------------------------------------------------------------------------

cdef void add_to(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    set_add(arg, p, n)


cdef void harvest_entry(Entry* e, uint64_t h, void* arg) noexcept nogil:
    cdef size_t n
    cdef const uint8_t* p = entry_key(e, &n)
    harvest(p, n, arg)


ctypedef struct Sample:
    uint64_t wanted     # still to be chosen
    uint64_t left       # still to come
    Harvest into


cdef void sample_member(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    # Selection sampling (Knuth, volume 2, 3.4.2, algorithm S): one pass, every choice equally likely.
    cdef Sample* sample = <Sample*>arg
    if chance_below(sample.left) < sample.wanted:
        sample.wanted -= 1
        harvest(p, n, &sample.into)
    sample.left -= 1


cdef class Set:
    def __init__(self):
        if self.box == NULL:
            self.box = <Packed*>set_create()
            self.owned = True

    def __dealloc__(self):
        cdef size_t budget = <size_t>-1
        if self.owned:
            set_destroy(self.box, &budget)

    @property
    def encoding(self):
        if self.box.count == LARGE:
            return "hashtable"
        return "intset" if ints_is(self.box) else "listpack"

    def __len__(self):
        return set_length(self.box)

    def __contains__(self, bytes member not None):
        return set_contains(self.box, raw(member), size_of(member))

    def add(self, bytes member not None):
        check_size(member)
        return set_add(self.box, raw(member), size_of(member))

    def add_many(self, members not None):
        cdef bytes member
        cdef uint64_t added = 0
        for member in members:
            check_size(member)
        if len(members):
            member = members[0]
            set_expect(self.box, len(members), raw(member), size_of(member))
        for member in members:
            added += set_add(self.box, raw(member), size_of(member))
        return added

    def remove(self, bytes member not None):
        return set_remove(self.box, raw(member), size_of(member))

    def members(self):
        cdef list items = []
        cdef Harvest into = harvest_to(items)
        set_each(self.box, harvest, &into)
        return harvested(items, &into)

    def scan(self, uint64_t cursor, size_t count):
        cdef list items = []
        cdef Harvest into = harvest_to(items)
        if self.box.count != LARGE:
            return 0, self.members()
        cursor = table_scan(box_table(self.box), cursor, min(count, SCAN_MAX), harvest_entry, &into)
        return cursor, harvested(items, &into)

    def random(self):
        cdef list items = []
        cdef Harvest into = harvest_to(items)
        return harvested(items, &into)[0] if set_random(self.box, harvest, &into) else None

    def sample(self, uint64_t count):
        cdef Sample sample
        cdef list items = []
        cdef dict chosen = {}
        cdef uint64_t length = set_length(self.box)
        if count >= length:
            return self.members()
        if self.box.count == LARGE and count < length // 4:
            # A few of many: draw until they differ, at most a quarter of the draws in vain.
            while <uint64_t>len(chosen) < count:
                chosen[self.random()] = None
            return list(chosen)
        sample.wanted = count
        sample.left = length
        sample.into = harvest_to(items)
        set_each(self.box, sample_member, &sample)
        return harvested(items, &sample.into)

    def pop(self):
        cdef list items = []
        cdef Harvest into = harvest_to(items)
        return harvested(items, &into)[0] if set_pop(self.box, harvest, &into) else None

    def pop_many(self, uint64_t count):
        cdef list items = []
        cdef Harvest into = harvest_to(items)
        cdef uint64_t i
        cdef uint64_t length = set_length(self.box)
        cdef Set rest
        if count >= length or (length - count) * 5 <= count:
            # Nearly all: draw those that stay, into a set that is as small as it can be, and give away the others.
            rest = Set()
            for i in range(length - count if count < length else 0):
                set_pop(self.box, add_to, rest.box)
            self.swap(rest)
            set_each(rest.box, harvest, &into)
        else:
            for i in range(count):
                set_pop(self.box, harvest, &into)
        return harvested(items, &into)

    def swap(self, Set other not None):
        cdef Packed mine = self.box[0]
        self.box[0] = other.box[0]
        other.box[0] = mine


cdef object wrap(void* self):
    cdef Set door = Set.__new__(Set)
    door.box = <Packed*>self
    return door


cdef TypeOps ops
ops.create = set_create
ops.destroy = set_destroy
ops.copy = set_copy
ops.length = set_length
ops.memory = set_memory
ops.effort = set_effort
ops.compact = set_compact
ops.wrap = wrap
register_type(T_SET, &ops, Set)
