"""Sorted sets: packed while small, a hash table beside a counted B+tree when large.

Order is by score, then by the members' bytes. The packed form is one sorted run (zrun.pxd). The large form keeps each
member once, as an entry of a Table whose value is the score, beside a tree of (score, entry) (ztree.pyx). Every range,
by score or by member, is first turned into a range of ranks.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport isnan
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset
from zeekdb.hot.keyspace cimport TypeOps, register_type
from zeekdb.hot.members cimport prefetch
from zeekdb.hot.memory cimport mem_alloc, mem_footprint, mem_free, mem_moved, mem_resize
from zeekdb.hot.packed cimport Emit
from zeekdb.hot.recency cimport random_bits
from zeekdb.hot.zrun cimport pair_need, read_pair, score_write
from zeekdb.hot.ztree cimport (
    Bound, Leaf, Node, Path, check_node, find_path, first_item, free_tree, is_below, order, path_to_rank,
    tree_count_below, tree_insert, tree_remove, tree_remove_at,
)
from zeekdb.hot.table cimport (
    T_ZSET, Entry, Table, entry_free, entry_key, entry_new, entry_size, entry_value, hash_bytes, slot_entry, table_find,
    table_free, table_init, table_insert, table_memory, table_prefetch_bucket, table_prefetch_entry, table_scan,
    table_take,
)

cdef extern from *:
    void __builtin_prefetch(const void* p) nogil

ctypedef struct ZSetValue:
    uint8_t* data          # the packed run
    uint32_t size
    uint32_t count
    Table* table           # NULL while packed
    Node* root
    uint64_t cursor        # of an incremental destruction

cdef uint32_t ENTRIES_MAX = 128
cdef size_t VALUE_MAX = 64


def set_limits(*, int entries, int value):
    """The directives zset-max-listpack-entries and zset-max-listpack-value: beyond them the large form begins."""
    global ENTRIES_MAX, VALUE_MAX
    ENTRIES_MAX, VALUE_MAX = max(entries, 0), max(value, 0)


# ---------------------------------------------------------------- the packed run


cdef uint8_t* run_find(ZSetValue* v, const uint8_t* p, size_t n, double* score, uint8_t** after) noexcept nogil:
    """The pair of a member, or NULL."""
    cdef uint8_t* at = v.data
    cdef uint8_t* end = v.data + v.size
    cdef uint8_t* member
    cdef uint8_t* following
    cdef size_t m
    while at < end:
        following = read_pair(at, score, &member, &m)
        if m == n and memcmp(member, p, n) == 0:
            after[0] = following
            return at
        at = following
    return NULL


cdef void run_splice(ZSetValue* v, size_t offset, size_t drop, size_t add) noexcept nogil:
    cdef size_t size = v.size - drop + add
    cdef size_t tail = v.size - offset - drop
    if add > drop:
        v.data = <uint8_t*>mem_resize(v.data, v.size, size)
    memmove(v.data + offset + add, v.data + offset + drop, tail)
    if add < drop:
        if size:
            v.data = <uint8_t*>mem_resize(v.data, v.size, size)
        else:
            mem_free(v.data, v.size)
            v.data = NULL
    v.size = <uint32_t>size


cdef void run_insert(ZSetValue* v, const uint8_t* p, size_t n, double score) noexcept nogil:
    """The member must be absent and must not lie in the run's own memory."""
    cdef uint8_t* at = v.data
    cdef uint8_t* end = v.data + v.size
    cdef uint8_t* member
    cdef uint8_t* following
    cdef double s
    cdef size_t m, offset, add = pair_need(score, n)
    cdef uint32_t wide = <uint32_t>n
    while at < end:
        following = read_pair(at, &s, &member, &m)
        if order(s, member, m, score, p, n) > 0:
            break
        at = following
    offset = at - v.data if v.data != NULL else 0
    run_splice(v, offset, 0, add)
    at = score_write(v.data + offset, score)
    if n < 254:
        at[0] = <uint8_t>n
        at += 1
    else:
        at[0] = 254
        memcpy(at + 1, &wide, 4)
        at += 5
    memcpy(at, p, n)
    v.count += 1


# ---------------------------------------------------------------- both forms


cdef uint64_t count_below(ZSetValue* v, Bound* b) noexcept nogil:
    """The rank of the first item not below the bound."""
    cdef uint8_t* at = v.data
    cdef uint8_t* member
    cdef uint64_t total = 0
    cdef double score
    cdef size_t n
    if v.table != NULL:
        return tree_count_below(v.root, b)
    while at < v.data + v.size:
        at = read_pair(at, &score, &member, &n)
        if not is_below(score, member, n, b):
            break
        total += 1
    return total


cdef void to_large(ZSetValue* v) noexcept nogil:
    cdef uint8_t* data = v.data
    cdef uint8_t* at = data
    cdef uint8_t* end = data + v.size
    cdef uint8_t* member
    cdef size_t n
    cdef double score
    cdef Entry* e
    v.table = <Table*>mem_alloc(sizeof(Table))
    table_init(v.table, 0)
    while at < end:
        at = read_pair(at, &score, &member, &n)
        e = entry_new(T_ZSET, member, n, <uint8_t*>&score, 8, 0)
        table_insert(v.table, e, hash_bytes(member, n))
        tree_insert(&v.root, e, score, member, n)
    mem_free(data, v.size)
    v.data = NULL
    v.size = v.count = 0


cdef inline int decide(double old, double* score, int flags) noexcept nogil:
    """What ZADD's options make of a member that is there."""
    if flags & ZADD_NX:
        return ZADD_NOP
    if flags & ZADD_INCR:
        score[0] += old
        if isnan(score[0]):
            return ZADD_NAN
    if (flags & ZADD_GT and score[0] <= old) or (flags & ZADD_LT and score[0] >= old):
        return ZADD_NOP
    return ZADD_UPDATED if score[0] != old else 0


cdef int zset_add(void* self, const uint8_t* m, size_t n, double score, int flags, double* now) noexcept nogil:
    """ZADD_* as said in zsets.pxd; 0: the member was there with this score. *now is the score in force."""
    cdef ZSetValue* v = <ZSetValue*>self
    cdef uint8_t* at
    cdef uint8_t* after
    cdef uint64_t* slot
    cdef Entry* e
    cdef uint64_t h
    cdef double old
    cdef int what
    if v.table == NULL:
        at = run_find(v, m, n, &old, &after)
        if at != NULL:
            now[0] = old
            what = decide(old, &score, flags)
            if what == ZADD_UPDATED:
                v.count -= 1
                run_splice(v, at - v.data, after - at, 0)
                run_insert(v, m, n, score)
            if what & (ZADD_NOP | ZADD_NAN) == 0:
                now[0] = score
            return what
        if flags & ZADD_XX:
            return ZADD_NOP
        if v.count < ENTRIES_MAX and n <= VALUE_MAX:
            run_insert(v, m, n, score)
            now[0] = score
            return ZADD_ADDED
        to_large(v)
    h = hash_bytes(m, n)
    slot = table_find(v.table, m, n, h)
    if slot != NULL:
        e = slot_entry(slot[0])
        memcpy(&old, entry_value(e), 8)
        now[0] = old
        what = decide(old, &score, flags)
        if what == ZADD_UPDATED:
            tree_remove(&v.root, old, m, n)
            memcpy(entry_value(e), &score, 8)
            tree_insert(&v.root, e, score, m, n)
        if what & (ZADD_NOP | ZADD_NAN) == 0:
            now[0] = score
        return what
    if flags & ZADD_XX:
        return ZADD_NOP
    e = entry_new(T_ZSET, m, n, <uint8_t*>&score, 8, 0)
    table_insert(v.table, e, h)
    tree_insert(&v.root, e, score, m, n)
    now[0] = score
    return ZADD_ADDED


cdef bint zset_adopt(void* self, const uint8_t* run, size_t size, uint64_t members, size_t longest) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    if members > ENTRIES_MAX or longest > VALUE_MAX or size == 0 or size > <size_t>1 << 30:
        return False
    v.data = <uint8_t*>mem_alloc(size)
    memcpy(v.data, run, size)
    v.size = <uint32_t>size
    v.count = <uint32_t>members
    return True


cdef bint zset_is_large(void* self) noexcept nogil:
    return (<ZSetValue*>self).table != NULL


cdef bint zset_score(void* self, const uint8_t* m, size_t n, double* score) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    cdef uint8_t* after
    cdef uint64_t* slot
    if v.table == NULL:
        return run_find(v, m, n, score, &after) != NULL
    slot = table_find(v.table, m, n, hash_bytes(m, n))
    if slot == NULL:
        return False
    memcpy(score, entry_value(slot_entry(slot[0])), 8)
    return True


cdef void zset_prefetch(void* self, uint64_t h) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    if v.table != NULL:
        table_prefetch_bucket(v.table, h)
    else:
        prefetch(v.data)


cdef void zset_prefetch_entry(void* self, uint64_t h) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    if v.table != NULL:
        table_prefetch_entry(v.table, h)


cdef bint zset_remove(void* self, const uint8_t* m, size_t n) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    cdef uint8_t* at
    cdef uint8_t* after
    cdef uint64_t* slot
    cdef double score
    if v.table == NULL:
        at = run_find(v, m, n, &score, &after)
        if at == NULL:
            return False
        run_splice(v, at - v.data, after - at, 0)
        v.count -= 1
        return True
    slot = table_find(v.table, m, n, hash_bytes(m, n))
    if slot == NULL:
        return False
    memcpy(&score, entry_value(slot_entry(slot[0])), 8)
    tree_remove(&v.root, score, m, n)
    entry_free(table_take(v.table, slot))
    return True


cdef uint64_t zset_length(void* self) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    return v.count if v.table == NULL else v.table.used


cdef bint zset_pop(void* self, bint max, Emit emit, void* arg, double* score) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    cdef Path path
    cdef Entry* e
    cdef uint8_t* at
    cdef uint8_t* after
    cdef uint8_t* p
    cdef size_t n
    cdef uint32_t i
    if zset_length(v) == 0:
        return False
    if v.table == NULL:
        at = v.data
        after = read_pair(at, score, &p, &n)
        if max:
            for i in range(v.count - 1):
                at = after
                after = read_pair(at, score, &p, &n)
        emit(p, n, arg)
        run_splice(v, at - v.data, after - at, 0)
        v.count -= 1
        return True
    path_to_rank(&v.root, v.table.used - 1 if max else 0, &path)
    e = path.leaf.items[path.place].entry
    score[0] = path.leaf.items[path.place].score
    if path.place + 8 < path.leaf.head.n:
        __builtin_prefetch(path.leaf.items[path.place + 8].entry)  # pops come in rows
    p = entry_key(e, &n)
    emit(p, n, arg)
    tree_remove_at(&v.root, &path)
    entry_free(table_take(v.table, table_find(v.table, p, n, hash_bytes(p, n))))
    return True


cdef int64_t zset_rank(void* self, const uint8_t* m, size_t n, bint reverse, double* score) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    cdef Path path
    cdef uint8_t* at
    cdef uint8_t* p
    cdef size_t size
    cdef uint64_t rank = 0
    cdef int level
    cdef uint16_t i
    if v.table == NULL:
        at = v.data
        while at < v.data + v.size:
            at = read_pair(at, score, &p, &size)
            if size == n and memcmp(p, m, n) == 0:
                return v.count - 1 - rank if reverse else rank
            rank += 1
        return -1
    if not zset_score(v, m, n, score):
        return -1
    find_path(&v.root, score[0], m, n, &path)
    for level in range(path.depth):
        for i in range(path.at[level]):
            rank += path.nodes[level].counts[i]
    rank += path.place - 1
    return v.table.used - 1 - rank if reverse else rank


cdef uint8_t* run_at(ZSetValue* v, uint64_t rank) noexcept nogil:
    cdef uint8_t* at = v.data
    cdef uint8_t* p
    cdef double score
    cdef size_t n
    while rank:
        at = read_pair(at, &score, &p, &n)
        rank -= 1
    return at


cdef size_t zset_range(void* self, int64_t start, int64_t stop, bint reverse, ZEmit emit, void* arg) noexcept nogil:
    """Ranks start..stop of the order asked for, both included and existing."""
    cdef ZSetValue* v = <ZSetValue*>self
    cdef int64_t left = stop - start + 1, length = <int64_t>zset_length(v), k
    cdef Path path
    cdef Leaf* leaf
    cdef int64_t place
    cdef uint8_t* at
    cdef uint8_t* p
    cdef size_t n
    cdef double score
    if left <= 0:
        return 0
    if v.table == NULL:
        if reverse:
            for k in range(left):  # 128 short pairs at the most: from the front each time
                at = run_at(v, length - 1 - start - k)
                read_pair(at, &score, &p, &n)
                emit(p, n, score, arg)
            return left
        at = run_at(v, start)
        for k in range(left):
            at = read_pair(at, &score, &p, &n)
            emit(p, n, score, arg)
        return left
    path_to_rank(&v.root, length - 1 - start if reverse else start, &path)
    leaf = path.leaf
    place = path.place
    for k in range(left):
        if place < 0:
            leaf = leaf.prev
            place = leaf.head.n - 1
        elif place == leaf.head.n:
            leaf = leaf.next
            place = 0
        p = entry_key(leaf.items[place].entry, &n)
        emit(p, n, leaf.items[place].score, arg)
        place += -1 if reverse else 1
    return left


cdef void remove_ranks(ZSetValue* v, uint64_t start, uint64_t count) noexcept nogil:
    cdef uint8_t* at
    cdef uint8_t* after
    cdef uint8_t* p
    cdef size_t n
    cdef double score
    cdef Path path
    cdef Entry* e
    cdef uint64_t k
    if v.table == NULL:
        at = after = run_at(v, start)
        for k in range(count):
            after = read_pair(after, &score, &p, &n)
        run_splice(v, at - v.data, after - at, 0)
        v.count -= <uint32_t>count
        return
    for k in range(count):
        path_to_rank(&v.root, start, &path)
        e = path.leaf.items[path.place].entry
        tree_remove_at(&v.root, &path)
        p = entry_key(e, &n)
        entry_free(table_take(v.table, table_find(v.table, p, n, hash_bytes(p, n))))


# ---------------------------------------------------------------- what the keyspace asks


cdef void* zset_create() noexcept nogil:
    cdef void* v = mem_alloc(sizeof(ZSetValue))
    memset(v, 0, sizeof(ZSetValue))
    return v


cdef bint zset_destroy(void* self, size_t* budget) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    if v.table != NULL:
        if not free_tree(&v.root, budget):
            return False
        table_free(v.table)
        mem_free(v.table, sizeof(Table))
    mem_free(v.data, v.size)
    mem_free(v, sizeof(ZSetValue))
    if budget[0]:
        budget[0] -= 1
    return True


cdef void copy_item(const uint8_t* p, size_t n, double score, void* arg) noexcept nogil:
    cdef double now
    zset_add(arg, p, n, score, 0, &now)


cdef void* zset_copy(void* self) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    cdef ZSetValue* w = <ZSetValue*>zset_create()
    if v.table == NULL:
        if v.size:
            w.data = <uint8_t*>mem_alloc(v.size)
            memcpy(w.data, v.data, v.size)
        w.size = v.size
        w.count = v.count
        return w
    w.table = <Table*>mem_alloc(sizeof(Table))
    table_init(w.table, 0)
    zset_range(v, 0, <int64_t>v.table.used - 1, False, copy_item, w)
    return w


cdef void* zset_compact(void* self) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    v.data = <uint8_t*>mem_moved(v.data, v.size)
    return mem_moved(v, sizeof(ZSetValue))


cdef size_t zset_memory(void* self) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    cdef size_t total = mem_footprint(sizeof(ZSetValue)) + mem_footprint(v.size)
    if v.table == NULL or v.root == NULL:
        return total
    # about 45 items fill a leaf; the first entry stands for all
    total += table_memory(v.table) + v.table.used // 45 * (sizeof(Leaf) + 48) + sizeof(Leaf)
    return total + v.table.used * mem_footprint(entry_size(first_item(v.root).entry))


cdef size_t zset_effort(void* self) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    return 1 if v.table == NULL else v.table.used


cdef object zset_wrap(void* self):
    cdef ZSet door = ZSet.__new__(ZSet)
    door.v = <ZSetValue*>self
    return door


# ---------------------------------------------------------------- the Python door


cdef void emit_pair(const uint8_t* p, size_t n, double score, void* arg) noexcept nogil:
    with gil:
        (<list>arg).append((PyBytes_FromStringAndSize(<const char*>p, n), score))


cdef void emit_member(const uint8_t* p, size_t n, double score, void* arg) noexcept nogil:
    with gil:
        (<list>arg).append(PyBytes_FromStringAndSize(<const char*>p, n))


cdef void emit_bytes(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    with gil:
        (<list>arg).append(PyBytes_FromStringAndSize(<const char*>p, n))


cdef void scan_entry(Entry* e, uint64_t h, void* arg) noexcept nogil:
    cdef size_t n
    cdef uint8_t* p = entry_key(e, &n)
    cdef double score
    memcpy(&score, entry_value(e), 8)
    emit_pair(p, n, score, arg)


cdef class ZSet:
    """The Python door over a sorted set of the keyspace. See zsets.pyi."""

    cdef ZSetValue* v

    def __len__(self):
        return zset_length(self.v)

    def __contains__(self, bytes member not None):
        cdef double score
        return zset_score(self.v, <uint8_t*>PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), &score)

    def __iter__(self):
        return iter(self.range(0, len(self) - 1))

    def add(self, bytes member not None, double score, int flags=0):
        """(what, score in force): ADDED 1, UPDATED 2, NOP 4, NAN 8."""
        cdef double now = score
        cdef int what = zset_add(self.v, <uint8_t*>PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), score, flags, &now)
        return what, now

    def score(self, bytes member not None):
        cdef double score
        if zset_score(self.v, <uint8_t*>PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), &score):
            return score
        return None

    def remove(self, bytes member not None):
        return zset_remove(self.v, <uint8_t*>PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member))

    def pop(self, bint max=False):
        cdef list out = []
        cdef double score
        if not zset_pop(self.v, max, emit_bytes, <void*>out, &score):
            return None
        return out[0], score

    def rank(self, bytes member not None, bint reverse=False):
        """(rank, score), or None."""
        cdef double score
        cdef int64_t rank = zset_rank(self.v, <uint8_t*>PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), reverse, &score)
        return None if rank < 0 else (rank, score)

    def range(self, int64_t start, int64_t stop, bint reverse=False):
        """Members of the ranks start..stop, both included and inside the set."""
        cdef list out = []
        zset_range(self.v, start, stop, reverse, emit_member, <void*>out)
        return out

    def pairs(self, int64_t start=0, stop=None, bint reverse=False):
        """(member, score) of the ranks start..stop; all without arguments."""
        cdef list out = []
        zset_range(self.v, start, len(self) - 1 if stop is None else stop, reverse, emit_pair, <void*>out)
        return out

    def count_below_score(self, double score, bint with_equal):
        """How many items have a lower score (or an equal one)."""
        cdef Bound b
        memset(&b, 0, sizeof(b))
        b.score = score
        b.with_equal = with_equal
        return count_below(self.v, &b)

    def count_below_member(self, bytes member not None, bint with_equal):
        """How many members sort before (or with) this one, where all scores are equal."""
        cdef Bound b
        b.by_member = True
        b.with_equal = with_equal
        b.score = 0
        b.p = <uint8_t*>PyBytes_AS_STRING(member)
        b.n = PyBytes_GET_SIZE(member)
        return count_below(self.v, &b)

    def remove_ranks(self, uint64_t start, uint64_t count):
        """Removes `count` items from rank `start` on, all of which exist."""
        remove_ranks(self.v, start, count)

    def scan(self, uint64_t cursor, size_t count):
        """(next cursor, [(member, score)])."""
        cdef list out = []
        if self.v.table == NULL:
            return 0, self.pairs()
        cursor = table_scan(self.v.table, cursor, count, scan_entry, <void*>out)
        return cursor, out

    def random(self):
        """A (member, score) at random; the set is not empty."""
        cdef uint64_t rank = random_bits() % zset_length(self.v)
        return self.pairs(rank, rank)[0]

    @property
    def encoding(self):
        return "listpack" if self.v.table == NULL else "skiplist"

    def check(self):
        """Tests only: raises AssertionError when an invariant of the tree does not hold."""
        if self.v.table != NULL and self.v.root != NULL:
            assert check_node(self.v.root, True)[0] == self.v.table.used


cdef TypeOps OPS
OPS.create = zset_create
OPS.destroy = zset_destroy
OPS.copy = zset_copy
OPS.length = zset_length
OPS.memory = zset_memory
OPS.effort = zset_effort
OPS.compact = zset_compact
OPS.wrap = zset_wrap
register_type(T_ZSET, &OPS, ZSet)
