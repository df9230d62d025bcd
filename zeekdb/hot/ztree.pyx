"""A counted B+tree of (score, entry): the order of a large sorted set.

Leaves hold up to LEAF items side by side and are linked both ways; an inner node holds for every child its first item
and how many items lie below it, so that rank, range by rank and search by score or member are O(log n).

Invariants: `low[i]` is exactly the first item of child i (its entry is read when searching, so it must never
outlive the item); counts are exact; all leaves have the same depth; no node but the root is empty.

Rejected: a skiplist (a cache miss at every step, where a leaf of 64 items is a few lines side by side).
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove
from zeekdb.hot.memory cimport mem_alloc, mem_free
from zeekdb.hot.table cimport Entry, entry_free, entry_key

cdef extern from *:
    void __builtin_prefetch(const void* p) nogil


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


cdef void find_path(Node** root, double score, const uint8_t* p, size_t n, Path* path) noexcept nogil:
    """The way to where (score, p) is or would be; place counts the leaf's items at or before it."""
    cdef Node* node = root[0]
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


cdef uint64_t subtree_count(Node* node) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint16_t i
    if node.is_leaf:
        return node.n
    for i in range(node.n):
        total += (<Inner*>node).counts[i]
    return total


cdef void add_child(Node** root, Path* path, int level, Node* right) noexcept nogil:
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
            inner.children[0] = root[0]
            inner.children[1] = right
            inner.counts[0] = subtree_count(root[0])
            inner.counts[1] = count
            inner.low[0] = first_item(root[0])
            inner.low[1] = first_item(right)
            root[0] = <Node*>inner
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


cdef void tree_insert(Node** root, Entry* e, double score, const uint8_t* p, size_t n) noexcept nogil:
    cdef Path path
    cdef Leaf* leaf
    cdef Leaf* right
    cdef Item item
    cdef uint16_t half
    cdef int level
    item.score = score
    item.entry = e
    if root[0] == NULL:
        root[0] = <Node*>new_leaf()
    find_path(root, score, p, n, &path)
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
        add_child(root, &path, path.depth - 1, <Node*>right)


cdef void remove_child(Node** root, Path* path, int level) noexcept nogil:
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
                root[0] = NULL
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


cdef void merge_inner(Node** root, Path* path) noexcept nogil:
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
        remove_child(root, path, level - 1)
        level -= 1


cdef void shrink_root(Node** root) noexcept nogil:
    cdef Inner* inner
    while root[0] != NULL and not root[0].is_leaf and root[0].n == 1:
        inner = <Inner*>root[0]
        root[0] = inner.children[0]
        mem_free(inner, sizeof(Inner))


cdef void unlink_leaf(Leaf* leaf) noexcept nogil:
    if leaf.prev != NULL:
        leaf.prev.next = leaf.next
    if leaf.next != NULL:
        leaf.next.prev = leaf.prev
    mem_free(leaf, sizeof(Leaf))


cdef void tree_remove_at(Node** root, Path* path) noexcept nogil:
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
            root[0] = NULL
        return
    if leaf.head.n == 0:
        unlink_leaf(leaf)
        remove_child(root, path, path.depth - 1)
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
        remove_child(root, path, path.depth - 1)
    if root[0] != NULL and not root[0].is_leaf:
        if path.depth > 1:
            merge_small(root, path)
        shrink_root(root)


cdef void merge_small(Node** root, Path* path) noexcept nogil:
    """remove_child may have freed nodes of the path: only a path whose nodes all stand may be merged along."""
    cdef int level
    cdef Inner* node
    for level in range(path.depth - 1):
        node = path.nodes[level]
        if level == 0 and <Node*>node != root[0]:
            return
        if path.at[level] >= node.head.n or node.children[path.at[level]] != <Node*>path.nodes[level + 1]:
            return
    merge_inner(root, path)


cdef void tree_remove(Node** root, double score, const uint8_t* p, size_t n) noexcept nogil:
    """The item is there."""
    cdef Path path
    find_path(root, score, p, n, &path)
    path.place -= 1
    tree_remove_at(root, &path)


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


cdef uint64_t tree_count_below(Node* root, Bound* b) noexcept nogil:
    """The rank of the first item not below the bound."""
    cdef Node* node = root
    cdef Inner* inner
    cdef uint64_t total = 0
    cdef uint16_t i, k
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


cdef void path_to_rank(Node** root, uint64_t rank, Path* path) noexcept nogil:
    """The way to the item of a rank that exists."""
    cdef Node* node = root[0]
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


cdef bint free_tree(Node** root, size_t* budget) noexcept nogil:
    """Frees from the left, a leaf at a time, entries included; True when the tree is gone."""
    cdef Path path
    cdef Leaf* leaf
    cdef uint16_t i
    cdef int level
    while root[0] != NULL:
        if budget[0] == 0:
            return False
        path_to_first(root, &path)
        leaf = path.leaf
        for i in range(leaf.head.n):
            entry_free(leaf.items[i].entry)
        budget[0] -= min(budget[0], <size_t>leaf.head.n)
        for level in range(path.depth):
            path.nodes[level].counts[0] -= leaf.head.n
        unlink_leaf(leaf)
        if path.depth == 0:
            root[0] = NULL
        else:
            remove_child(root, &path, path.depth - 1)
            shrink_root(root)
    return True


cdef void path_to_first(Node** root, Path* path) noexcept nogil:
    cdef Node* node = root[0]
    path.depth = 0
    while not node.is_leaf:
        path.nodes[path.depth] = <Inner*>node
        path.at[path.depth] = 0
        path.depth += 1
        node = (<Inner*>node).children[0]
    path.leaf = <Leaf*>node
    path.place = 0


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
