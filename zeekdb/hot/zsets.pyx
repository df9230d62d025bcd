"""Sorted sets: packed while small, a hash table beside a counted B+tree when large.

Order is by score, then by the members' bytes. The packed form is one sorted run of (score, member), the score in one
byte where it is a small integer. The large form keeps each member once, as an entry of a Table whose value is the
score; the tree's leaves hold (score, entry) and are linked both ways, inner nodes hold for every child its first
item and how many items lie below it. So rank, range by rank, by score and by member, and counts are all O(log n):
every range is first turned into a range of ranks.

Invariants: `low[i]` is exactly the first item of child i (its entry is read when searching, so it must never
outlive the item); counts are exact; all leaves have the same depth; no node but the root is empty.

Rejected: a skiplist (a cache miss at every step, where a leaf of 64 items is a few lines side by side).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport isnan
from libc.stdint cimport int16_t, int32_t
from libc.string cimport memcmp, memcpy, memmove, memset
from zeekdb.hot.keyspace cimport TypeOps, register_type
from zeekdb.hot.memory cimport mem_alloc, mem_footprint, mem_free, mem_resize
from zeekdb.hot.packed cimport Emit
from zeekdb.hot.table cimport (
    T_ZSET, Entry, Table, entry_free, entry_key, entry_new, entry_size, entry_value, hash_bytes, slot_entry, table_find,
    table_free, table_init, table_insert, table_memory, table_scan, table_take,
)

import os

cdef extern from *:
    void __builtin_prefetch(const void* p) nogil

cdef enum:
    LEAF = 64              # items of a leaf
    INNER = 32             # children of an inner node
    DEPTH_MAX = 16         # 64 * 16^15 items at the least filling: out of reach

ctypedef struct Item:
    double score
    Entry* entry

ctypedef struct Node:
    uint16_t n
    uint16_t is_leaf

ctypedef struct Leaf:
    Node head
    uint32_t pad
    Leaf* prev
    Leaf* next
    Item items[LEAF]

ctypedef struct Inner:
    Node head
    uint32_t pad
    Node* children[INNER]
    uint64_t counts[INNER]
    Item low[INNER]

ctypedef struct ZSetValue:
    uint8_t* data          # the packed run
    uint32_t size
    uint32_t count
    Table* table           # NULL while packed
    Node* root
    uint64_t cursor        # of an incremental destruction

# The way down to an item: at each inner node the child taken.
ctypedef struct Path:
    int depth
    Inner* nodes[DEPTH_MAX]
    uint16_t at[DEPTH_MAX]
    Leaf* leaf
    uint16_t place

cdef uint32_t ENTRIES_MAX = 128
cdef size_t VALUE_MAX = 64


def set_limits(*, int entries, int value):
    """The directives zset-max-listpack-entries and zset-max-listpack-value: beyond them the large form begins."""
    global ENTRIES_MAX, VALUE_MAX
    ENTRIES_MAX, VALUE_MAX = max(entries, 0), max(value, 0)


cdef uint64_t RANDOM_STATE = int.from_bytes(os.urandom(8), "little") | 1


cdef uint64_t random_bits() noexcept nogil:
    global RANDOM_STATE
    RANDOM_STATE ^= RANDOM_STATE >> 12
    RANDOM_STATE ^= RANDOM_STATE << 25
    RANDOM_STATE ^= RANDOM_STATE >> 27
    return RANDOM_STATE * <uint64_t>2685821657736338717ULL


# ---------------------------------------------------------------- the packed run


cdef inline size_t score_need(double score) noexcept nogil:
    cdef int64_t whole
    if -2147483648.0 <= score <= 2147483647.0:
        whole = <int64_t>score
        if <double>whole == score and not (whole == 0 and 1.0 / score < 0):
            if 0 <= whole <= 250:
                return 1
            if -32768 <= whole <= 32767:
                return 3
            return 5
    return 9


cdef inline uint8_t* score_write(uint8_t* at, double score) noexcept nogil:
    cdef size_t n = score_need(score)
    cdef int16_t narrow
    cdef int32_t wide
    if n == 1:
        at[0] = <uint8_t>score
    elif n == 3:
        at[0] = 251
        narrow = <int16_t>score
        memcpy(at + 1, &narrow, 2)
    elif n == 5:
        at[0] = 252
        wide = <int32_t>score
        memcpy(at + 1, &wide, 4)
    else:
        at[0] = 253
        memcpy(at + 1, &score, 8)
    return at + n


cdef inline uint8_t* read_pair(uint8_t* at, double* score, uint8_t** member, size_t* n) noexcept nogil:
    """Reads the pair at `at`; returns where the next begins."""
    cdef int16_t narrow
    cdef int32_t wide
    cdef uint32_t length
    if at[0] <= 250:
        score[0] = at[0]
        at += 1
    elif at[0] == 251:
        memcpy(&narrow, at + 1, 2)
        score[0] = narrow
        at += 3
    elif at[0] == 252:
        memcpy(&wide, at + 1, 4)
        score[0] = wide
        at += 5
    else:
        memcpy(score, at + 1, 8)
        at += 9
    if at[0] < 254:
        n[0] = at[0]
        at += 1
    else:
        memcpy(&length, at + 1, 4)
        n[0] = length
        at += 5
    member[0] = at
    return at + n[0]


cdef inline size_t pair_need(double score, size_t n) noexcept nogil:
    return score_need(score) + n + (1 if n < 254 else 5)


cdef inline int order(double a, const uint8_t* p, size_t n, double b, const uint8_t* q, size_t m) noexcept nogil:
    """Below, equal to or above 0 as (a, p) sorts before, with or after (b, q)."""
    cdef int c
    if a != b:
        return -1 if a < b else 1
    c = memcmp(p, q, n if n < m else m)
    if c:
        return c
    return 0 if n == m else -1 if n < m else 1


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


# ---------------------------------------------------------------- the tree


cdef inline int item_order(Item* a, double score, const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t m
    cdef uint8_t* q
    if a.score != score:
        return -1 if a.score < score else 1
    q = entry_key(a.entry, &m)
    return order(score, q, m, score, p, n)


cdef inline uint16_t upper(Item* items, uint16_t n, double score, const uint8_t* p, size_t m) noexcept nogil:
    """How many of the items sort before or with (score, p)."""
    cdef uint16_t low = 0, high = n, mid
    while low < high:
        mid = (low + high) >> 1
        if item_order(&items[mid], score, p, m) <= 0:
            low = mid + 1
        else:
            high = mid
    return low


cdef inline void warm(Item* items, uint16_t n) noexcept nogil:
    """Asks for the entries that the search's first steps will compare, all at once instead of one after the other."""
    cdef uint16_t k, step = n >> 3
    if step:
        k = step
        while k < n:
            __builtin_prefetch(items[k].entry)
            k += step


cdef Leaf* new_leaf() noexcept nogil:
    cdef Leaf* leaf = <Leaf*>mem_alloc(sizeof(Leaf))
    leaf.head.n = 0
    leaf.head.is_leaf = 1
    leaf.prev = leaf.next = NULL
    return leaf


cdef Inner* new_inner() noexcept nogil:
    cdef Inner* inner = <Inner*>mem_alloc(sizeof(Inner))
    inner.head.n = 0
    inner.head.is_leaf = 0
    return inner


cdef void find_path(ZSetValue* v, double score, const uint8_t* p, size_t n, Path* path) noexcept nogil:
    """The way to where (score, p) is or would be; place counts the leaf's items at or before it."""
    cdef Node* node = v.root
    cdef Inner* inner
    cdef uint16_t i
    path.depth = 0
    while not node.is_leaf:
        inner = <Inner*>node
        i = upper(inner.low, node.n, score, p, n)
        if i:
            i -= 1
        path.nodes[path.depth] = inner
        path.at[path.depth] = i
        path.depth += 1
        node = inner.children[i]
    path.leaf = <Leaf*>node
    if node.n > 16:
        warm(path.leaf.items, node.n)
    path.place = upper(path.leaf.items, node.n, score, p, n)


cdef inline Item first_item(Node* node) noexcept nogil:
    return (<Leaf*>node).items[0] if node.is_leaf else (<Inner*>node).low[0]


cdef uint64_t subtree_count(Node* node) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint16_t i
    if node.is_leaf:
        return node.n
    for i in range(node.n):
        total += (<Inner*>node).counts[i]
    return total


cdef void add_child(ZSetValue* v, Path* path, int level, Node* right) noexcept nogil:
    """`right` was split from the child that the path takes at `level`; splits upwards as far as it must."""
    cdef Inner* inner
    cdef Inner* other
    cdef uint16_t i, half, moved
    cdef uint64_t count
    while True:
        count = subtree_count(right)
        if level < 0:  # the root was split
            inner = new_inner()
            inner.head.n = 2
            inner.children[0] = v.root
            inner.children[1] = right
            inner.counts[0] = subtree_count(v.root)
            inner.counts[1] = count
            inner.low[0] = first_item(v.root)
            inner.low[1] = first_item(right)
            v.root = <Node*>inner
            return
        inner = path.nodes[level]
        i = path.at[level] + 1
        inner.counts[i - 1] -= count
        other = NULL
        if inner.head.n == INNER:
            other = new_inner()
            half = INNER // 2 if i < INNER else INNER - 2  # a set that grows at its end keeps full nodes
            moved = INNER - half
            memcpy(other.children, inner.children + half, moved * sizeof(Node*))
            memcpy(other.counts, inner.counts + half, moved * sizeof(uint64_t))
            memcpy(other.low, inner.low + half, moved * sizeof(Item))
            other.head.n = moved
            inner.head.n = half
            if i > half:
                put_child(other, i - half, right, count)
            else:
                put_child(inner, i, right, count)
        else:
            put_child(inner, i, right, count)
            return
        right = <Node*>other
        level -= 1


cdef void put_child(Inner* inner, uint16_t i, Node* child, uint64_t count) noexcept nogil:
    cdef uint16_t tail = inner.head.n - i
    memmove(inner.children + i + 1, inner.children + i, tail * sizeof(Node*))
    memmove(inner.counts + i + 1, inner.counts + i, tail * sizeof(uint64_t))
    memmove(inner.low + i + 1, inner.low + i, tail * sizeof(Item))
    inner.children[i] = child
    inner.counts[i] = count
    inner.low[i] = first_item(child)
    inner.head.n += 1


cdef void fix_low(Path* path, Item first) noexcept nogil:
    """The leaf has a new first item: so have the nodes above, as far as they begin with it."""
    cdef int level = path.depth - 1
    while level >= 0:
        path.nodes[level].low[path.at[level]] = first
        if path.at[level]:
            return
        level -= 1


cdef void tree_insert(ZSetValue* v, Entry* e, double score, const uint8_t* p, size_t n) noexcept nogil:
    cdef Path path
    cdef Leaf* leaf
    cdef Leaf* right
    cdef Item item
    cdef uint16_t half
    cdef int level
    item.score = score
    item.entry = e
    if v.root == NULL:
        v.root = <Node*>new_leaf()
    find_path(v, score, p, n, &path)
    for level in range(path.depth):
        path.nodes[level].counts[path.at[level]] += 1
    leaf = path.leaf
    right = NULL
    if leaf.head.n == LEAF:
        right = new_leaf()
        half = LEAF // 2 if path.place < LEAF else LEAF - 4
        right.head.n = LEAF - half
        memcpy(right.items, leaf.items + half, (LEAF - half) * sizeof(Item))
        leaf.head.n = half
        right.next = leaf.next
        right.prev = leaf
        if leaf.next != NULL:
            leaf.next.prev = right
        leaf.next = right
        if path.place > half:
            leaf = right
            path.place -= half
    memmove(leaf.items + path.place + 1, leaf.items + path.place, (leaf.head.n - path.place) * sizeof(Item))
    leaf.items[path.place] = item
    leaf.head.n += 1
    if path.place == 0 and leaf == path.leaf:
        fix_low(&path, item)
    if right != NULL:
        add_child(v, &path, path.depth - 1, <Node*>right)


cdef void remove_child(ZSetValue* v, Path* path, int level) noexcept nogil:
    """The child that the path takes at `level` is gone (merged or empty, already freed)."""
    cdef Inner* inner
    cdef uint16_t i, tail
    while True:
        inner = path.nodes[level]
        i = path.at[level]
        tail = inner.head.n - i - 1
        memmove(inner.children + i, inner.children + i + 1, tail * sizeof(Node*))
        memmove(inner.counts + i, inner.counts + i + 1, tail * sizeof(uint64_t))
        memmove(inner.low + i, inner.low + i + 1, tail * sizeof(Item))
        inner.head.n -= 1
        if inner.head.n == 0:
            mem_free(inner, sizeof(Inner))
            if level == 0:
                v.root = NULL
                return
            level -= 1
            continue
        if i == 0:  # the node begins elsewhere now
            while level > 0:
                level -= 1
                path.nodes[level].low[path.at[level]] = inner.low[0]
                if path.at[level]:
                    break
        return


cdef void merge_inner(ZSetValue* v, Path* path) noexcept nogil:
    """Inner nodes that have become small are joined with a neighbour, and a root with one child goes."""
    cdef int level = path.depth - 1
    cdef Inner* node
    cdef Inner* parent
    cdef Inner* other
    cdef uint16_t i
    while level > 0:
        node = path.nodes[level]
        parent = path.nodes[level - 1]
        i = path.at[level - 1]
        if node.head.n >= INNER // 4:
            return
        if i + 1 < parent.head.n:
            i += 1
        elif i == 0:
            return
        other = <Inner*>parent.children[i]
        node = <Inner*>parent.children[i - 1]
        if node.head.n + other.head.n > INNER - 4:
            return
        memcpy(node.children + node.head.n, other.children, other.head.n * sizeof(Node*))
        memcpy(node.counts + node.head.n, other.counts, other.head.n * sizeof(uint64_t))
        memcpy(node.low + node.head.n, other.low, other.head.n * sizeof(Item))
        node.head.n += other.head.n
        parent.counts[i - 1] += parent.counts[i]
        mem_free(other, sizeof(Inner))
        path.at[level - 1] = i
        remove_child(v, path, level - 1)
        level -= 1


cdef void shrink_root(ZSetValue* v) noexcept nogil:
    cdef Inner* inner
    while v.root != NULL and not v.root.is_leaf and v.root.n == 1:
        inner = <Inner*>v.root
        v.root = inner.children[0]
        mem_free(inner, sizeof(Inner))


cdef void unlink_leaf(Leaf* leaf) noexcept nogil:
    if leaf.prev != NULL:
        leaf.prev.next = leaf.next
    if leaf.next != NULL:
        leaf.next.prev = leaf.prev
    mem_free(leaf, sizeof(Leaf))


cdef void tree_remove_at(ZSetValue* v, Path* path) noexcept nogil:
    """Removes the item at path.place of path.leaf."""
    cdef Leaf* leaf = path.leaf
    cdef Leaf* other
    cdef Inner* parent
    cdef uint16_t i
    cdef int level
    for level in range(path.depth):
        path.nodes[level].counts[path.at[level]] -= 1
    leaf.head.n -= 1
    memmove(leaf.items + path.place, leaf.items + path.place + 1, (leaf.head.n - path.place) * sizeof(Item))
    if path.depth == 0:
        if leaf.head.n == 0:
            mem_free(leaf, sizeof(Leaf))
            v.root = NULL
        return
    if leaf.head.n == 0:
        unlink_leaf(leaf)
        remove_child(v, path, path.depth - 1)
    else:
        if path.place == 0:
            fix_low(path, leaf.items[0])
        if leaf.head.n >= LEAF // 4:
            return
        parent = path.nodes[path.depth - 1]
        i = path.at[path.depth - 1]
        if i + 1 < parent.head.n:
            i += 1
        elif i == 0:
            return
        leaf = <Leaf*>parent.children[i - 1]
        other = <Leaf*>parent.children[i]
        if leaf.head.n + other.head.n > LEAF - 8:
            return
        memcpy(leaf.items + leaf.head.n, other.items, other.head.n * sizeof(Item))
        leaf.head.n += other.head.n
        parent.counts[i - 1] += parent.counts[i]
        unlink_leaf(other)
        path.at[path.depth - 1] = i
        remove_child(v, path, path.depth - 1)
    if v.root != NULL and not v.root.is_leaf:
        if path.depth > 1:
            merge_small(v, path)
        shrink_root(v)


cdef void merge_small(ZSetValue* v, Path* path) noexcept nogil:
    """remove_child may have freed nodes of the path: only a path whose nodes all stand may be merged along."""
    cdef int level
    cdef Inner* node
    for level in range(path.depth - 1):
        node = path.nodes[level]
        if level == 0 and <Node*>node != v.root:
            return
        if path.at[level] >= node.head.n or node.children[path.at[level]] != <Node*>path.nodes[level + 1]:
            return
    merge_inner(v, path)


cdef void tree_remove(ZSetValue* v, double score, const uint8_t* p, size_t n) noexcept nogil:
    """The item is there."""
    cdef Path path
    find_path(v, score, p, n, &path)
    path.place -= 1
    tree_remove_at(v, &path)


cdef uint64_t large_length(ZSetValue* v) noexcept nogil:
    return v.table.used


# Where a search by bound goes: how many items lie below it.
ctypedef struct Bound:
    bint by_member
    bint with_equal        # items equal to the bound count as below
    double score
    const uint8_t* p
    size_t n


cdef inline bint is_below(double score, const uint8_t* p, size_t n, Bound* b) noexcept nogil:
    cdef int c
    if not b.by_member:
        return score < b.score or (b.with_equal and score == b.score)
    c = order(0, p, n, 0, b.p, b.n)
    return c < 0 or (b.with_equal and c == 0)


cdef inline bint item_below(Item* item, Bound* b) noexcept nogil:
    cdef size_t n
    cdef uint8_t* p
    if not b.by_member:
        return item.score < b.score or (b.with_equal and item.score == b.score)
    p = entry_key(item.entry, &n)
    return is_below(0, p, n, b)


cdef uint16_t items_below(Item* items, uint16_t n, Bound* b) noexcept nogil:
    cdef uint16_t low = 0, high = n, mid
    while low < high:
        mid = (low + high) >> 1
        if item_below(&items[mid], b):
            low = mid + 1
        else:
            high = mid
    return low


cdef uint64_t count_below(ZSetValue* v, Bound* b) noexcept nogil:
    """The rank of the first item not below the bound."""
    cdef Node* node = v.root
    cdef Inner* inner
    cdef uint64_t total = 0
    cdef uint16_t i, k
    cdef uint8_t* at
    cdef uint8_t* member
    cdef double score
    cdef size_t n
    if v.table == NULL:
        at = v.data
        while at < v.data + v.size:
            at = read_pair(at, &score, &member, &n)
            if not is_below(score, member, n, b):
                break
            total += 1
        return total
    if node == NULL:
        return 0
    while not node.is_leaf:
        inner = <Inner*>node
        i = items_below(inner.low, node.n, b)
        if i == 0:
            return total
        for k in range(i - 1):
            total += inner.counts[k]
        node = inner.children[i - 1]
    return total + items_below((<Leaf*>node).items, node.n, b)


cdef void path_to_rank(ZSetValue* v, uint64_t rank, Path* path) noexcept nogil:
    """The way to the item of a rank that exists."""
    cdef Node* node = v.root
    cdef Inner* inner
    cdef uint16_t i
    path.depth = 0
    while not node.is_leaf:
        inner = <Inner*>node
        i = 0
        while rank >= inner.counts[i]:
            rank -= inner.counts[i]
            i += 1
        path.nodes[path.depth] = inner
        path.at[path.depth] = i
        path.depth += 1
        node = inner.children[i]
    path.leaf = <Leaf*>node
    path.place = <uint16_t>rank


# ---------------------------------------------------------------- both forms


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
        tree_insert(v, e, score, member, n)
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
            tree_remove(v, old, m, n)
            memcpy(entry_value(e), &score, 8)
            tree_insert(v, e, score, m, n)
        if what & (ZADD_NOP | ZADD_NAN) == 0:
            now[0] = score
        return what
    if flags & ZADD_XX:
        return ZADD_NOP
    e = entry_new(T_ZSET, m, n, <uint8_t*>&score, 8, 0)
    table_insert(v.table, e, h)
    tree_insert(v, e, score, m, n)
    now[0] = score
    return ZADD_ADDED


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
    tree_remove(v, score, m, n)
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
    path_to_rank(v, v.table.used - 1 if max else 0, &path)
    e = path.leaf.items[path.place].entry
    score[0] = path.leaf.items[path.place].score
    if path.place + 8 < path.leaf.head.n:
        __builtin_prefetch(path.leaf.items[path.place + 8].entry)  # pops come in rows
    p = entry_key(e, &n)
    emit(p, n, arg)
    tree_remove_at(v, &path)
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
    find_path(v, score[0], m, n, &path)
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
    path_to_rank(v, length - 1 - start if reverse else start, &path)
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
        path_to_rank(v, start, &path)
        e = path.leaf.items[path.place].entry
        tree_remove_at(v, &path)
        p = entry_key(e, &n)
        entry_free(table_take(v.table, table_find(v.table, p, n, hash_bytes(p, n))))


# ---------------------------------------------------------------- what the keyspace asks


cdef void* zset_create() noexcept nogil:
    cdef void* v = mem_alloc(sizeof(ZSetValue))
    memset(v, 0, sizeof(ZSetValue))
    return v


cdef bint free_tree(ZSetValue* v, size_t* budget) noexcept nogil:
    """Frees from the left, a leaf at a time, entries included; True when the tree is gone."""
    cdef Path path
    cdef Leaf* leaf
    cdef uint16_t i
    cdef int level
    while v.root != NULL:
        if budget[0] == 0:
            return False
        path_to_first(v, &path)
        leaf = path.leaf
        for i in range(leaf.head.n):
            entry_free(leaf.items[i].entry)
        budget[0] -= min(budget[0], <size_t>leaf.head.n)
        for level in range(path.depth):
            path.nodes[level].counts[0] -= leaf.head.n
        unlink_leaf(leaf)
        if path.depth == 0:
            v.root = NULL
        else:
            remove_child(v, &path, path.depth - 1)
            shrink_root(v)
    return True


cdef void path_to_first(ZSetValue* v, Path* path) noexcept nogil:
    cdef Node* node = v.root
    path.depth = 0
    while not node.is_leaf:
        path.nodes[path.depth] = <Inner*>node
        path.at[path.depth] = 0
        path.depth += 1
        node = (<Inner*>node).children[0]
    path.leaf = <Leaf*>node
    path.place = 0


cdef bint zset_destroy(void* self, size_t* budget) noexcept nogil:
    cdef ZSetValue* v = <ZSetValue*>self
    if v.table != NULL:
        if not free_tree(v, budget):
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


cdef check_node(Node* node, bint is_root):
    cdef Inner* inner
    cdef Leaf* leaf
    cdef uint16_t i
    cdef Item first
    cdef uint64_t total = 0
    assert node.n > 0
    if node.is_leaf:
        leaf = <Leaf*>node
        assert node.n <= LEAF
        assert leaf.next == NULL or leaf.next.prev == leaf
        return node.n, 0
    inner = <Inner*>node
    assert node.n <= INNER and (not is_root or node.n > 1)
    depths = set()
    for i in range(node.n):
        count, depth = check_node(inner.children[i], False)
        depths.add(depth)
        assert count == inner.counts[i]
        first = first_item(inner.children[i])
        assert first.entry == inner.low[i].entry and first.score == inner.low[i].score
        total += count
    assert len(depths) == 1
    return total, depths.pop() + 1


cdef TypeOps OPS
OPS.create = zset_create
OPS.destroy = zset_destroy
OPS.copy = zset_copy
OPS.length = zset_length
OPS.memory = zset_memory
OPS.effort = zset_effort
OPS.wrap = zset_wrap
register_type(T_ZSET, &OPS, ZSet)
