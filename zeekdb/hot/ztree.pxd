# The counted B+tree of a large sorted set. See ztree.pyx.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp
from zeekdb.hot.table cimport Entry

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

# The way down to an item: at each inner node the child taken.
ctypedef struct Path:
    int depth
    Inner* nodes[DEPTH_MAX]
    uint16_t at[DEPTH_MAX]
    Leaf* leaf
    uint16_t place

# Where a search by bound goes: how many items lie below it.
ctypedef struct Bound:
    bint by_member
    bint with_equal        # items equal to the bound count as below
    double score
    const uint8_t* p
    size_t n

cdef inline int order(double a, const uint8_t* p, size_t n, double b, const uint8_t* q, size_t m) noexcept nogil:
    """Below, equal to or above 0 as (a, p) sorts before, with or after (b, q)."""
    cdef int c
    if a != b:
        return -1 if a < b else 1
    c = memcmp(p, q, n if n < m else m)
    if c:
        return c
    return 0 if n == m else -1 if n < m else 1

cdef inline bint is_below(double score, const uint8_t* p, size_t n, Bound* b) noexcept nogil:
    cdef int c
    if not b.by_member:
        return score < b.score or (b.with_equal and score == b.score)
    c = order(0, p, n, 0, b.p, b.n)
    return c < 0 or (b.with_equal and c == 0)

cdef inline Item first_item(Node* node) noexcept nogil:
    return (<Leaf*>node).items[0] if node.is_leaf else (<Inner*>node).low[0]

# The root is NULL while the tree is empty.
cdef void tree_insert(Node** root, Entry* e, double score, const uint8_t* p, size_t n) noexcept nogil
cdef void tree_remove(Node** root, double score, const uint8_t* p, size_t n) noexcept nogil  # the item is there
cdef void tree_remove_at(Node** root, Path* path) noexcept nogil
cdef void find_path(Node** root, double score, const uint8_t* p, size_t n, Path* path) noexcept nogil
cdef void path_to_rank(Node** root, uint64_t rank, Path* path) noexcept nogil               # the rank exists
cdef uint64_t tree_count_below(Node* root, Bound* b) noexcept nogil
cdef bint free_tree(Node** root, size_t* budget) noexcept nogil                             # entries included
cdef check_node(Node* node, bint is_root)                                                   # tests: (items, depth)
