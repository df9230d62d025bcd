"""Pages: the small blocks of the allocator, each page's of one size.

A block's page is found by rounding its address down. Pages have 64 KiB, and WIDE_PAGE those of classes above WIDE_MIN.
A page that empties goes back to a pool, and beyond POOL_PAGES to the system.

A page with one block is as resident as a full one. When what is freed has other sizes than what comes, pages thin out,
and the process takes more than its blocks. `pages_mark` then names pages whose blocks would fit into the gaps of
others, nothing more is put there, and compaction.pyx moves the blocks away. Entries of the keyspace have pages of their
own: whoever finds one of them there finds its place in the tables by its key.
"""

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, realloc
from libc.string cimport memcpy, memset

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MADV_DONTNEED
    void* MAP_FAILED

cdef enum:
    PAGE = 65536
    WIDE_PAGE = 262144
    REGION = 8388608        # bytes mapped at once
    WIDE_MIN = 2048         # blocks above are on wide pages
    POOL_PAGES = 128        # empty pages kept before the system gets them back
    GRADES = 32             # of fullness, by which pages are chosen to be emptied
    FULL_GRADE = 29         # from which emptying a page costs more than it gains
    STUCK_ROUNDS = 16       # for which a page is left alone that could not be emptied
    HEADER = 64

    # where a page is
    NOWHERE = 0             # full, or empty
    IN_ROOM = 1
    IN_MARKED = 2
    TO_EMPTY = 3

ctypedef struct SizeClass:
    Page* room              # pages with a free block
    Page* marked            # pages to be emptied; may be full
    uint32_t size
    uint32_t page           # bytes of its pages

cdef SizeClass CLASS[2 * CLASSES]
cdef Page* POOL = NULL      # empty pages
cdef size_t POOLED = 0
cdef uint16_t ROUND = 0     # of marking
cdef Page** COLD = NULL     # empty pages whose memory the system has back, so nothing can be noted in them
cdef size_t COLD_USED = 0
cdef size_t COLD_CAPACITY = 0
cdef uint8_t* REGION_AT = NULL
cdef uint8_t* REGION_END = NULL
memset(&P, 0, sizeof(P))
memset(CLASS, 0, sizeof(CLASS))


cdef void build_classes() noexcept nogil:
    cdef uint32_t size = 8, step = 8, i = 0, n
    while size <= SMALL_MAX:
        P.size[i] = CLASS[i].size = CLASS[KEYED + i].size = size
        CLASS[i].page = CLASS[KEYED + i].page = PAGE if size <= WIDE_MIN else WIDE_PAGE
        i += 1
        if size >= 256 and size & (size - 1) == 0:
            step = size // 8
        size += step
    n = 0
    for size in range(0, SMALL_MAX // 8 + 1):
        while CLASS[n].size < size * 8:
            n += 1
        P.class_of[size] = n


build_classes()


cdef void out_of_memory(size_t size) noexcept nogil:
    fprintf(stderr, b"zeekdb: out of memory allocating %zu bytes\n", size)
    abort()


cdef void* map_memory(size_t size) noexcept nogil:
    """A mapping of zeroes; NULL when the system has none."""
    cdef void* block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    return NULL if block == MAP_FAILED else block


cdef uint8_t* map_aligned(size_t size, size_t alignment) noexcept nogil:
    cdef uint8_t* block = <uint8_t*>map_memory(size + alignment)
    cdef uint8_t* begin
    if block == NULL:
        out_of_memory(size)
    begin = <uint8_t*>((<uintptr_t>block + alignment - 1) & ~<uintptr_t>(alignment - 1))
    if begin > block:  # what is cut off goes back
        munmap(block, begin - block)
    if block + size + alignment > begin + size:
        munmap(begin + size, (block + alignment) - begin)
    return begin


cdef void open_region() noexcept nogil:
    global REGION_AT, REGION_END
    REGION_AT = map_aligned(REGION, PAGE)
    REGION_END = REGION_AT + REGION


cdef Page* take_page() noexcept nogil:
    """An empty page: from the pool, or cut from the region."""
    global POOL, POOLED, COLD_USED, REGION_AT
    cdef Page* page = POOL
    if page != NULL:
        POOL = page.next
        POOLED -= 1
        return page
    if COLD_USED:
        COLD_USED -= 1
        return COLD[COLD_USED]
    if REGION_AT == REGION_END:
        open_region()
    page = <Page*>REGION_AT
    REGION_AT += PAGE
    return page


cdef void touch(Page* page, size_t bytes) noexcept nogil:
    if bytes > page.touched:
        P.resident += bytes - page.touched
        page.touched = <uint32_t>bytes


cdef bint room_in_cold() noexcept nogil:
    global COLD, COLD_CAPACITY
    cdef Page** wider
    if COLD_USED < COLD_CAPACITY:
        return True
    wider = <Page**>realloc(COLD, (2 * COLD_CAPACITY + 64) * sizeof(Page*))
    if wider == NULL:
        return False
    COLD = wider
    COLD_CAPACITY = 2 * COLD_CAPACITY + 64
    return True


cdef void give_page(Page* page) noexcept nogil:
    global POOL, POOLED, COLD_USED
    page.where = NOWHERE
    if CLASS[page.size_class].page != PAGE:
        P.resident -= page.touched
        munmap(page, WIDE_PAGE)
    elif POOLED < POOL_PAGES or not room_in_cold():
        page.next = POOL
        POOL = page
        POOLED += 1
    else:
        P.resident -= page.touched
        madvise(page, PAGE, MADV_DONTNEED)
        COLD[COLD_USED] = page
        COLD_USED += 1


cdef inline void link_page(Page** head, Page* page) noexcept nogil:
    page.prev = NULL
    page.next = head[0]
    if page.next != NULL:
        page.next.prev = page
    head[0] = page


cdef inline void unlink_page(Page** head, Page* page) noexcept nogil:
    if page.prev != NULL:
        page.prev.next = page.next
    else:
        head[0] = page.next
    if page.next != NULL:
        page.next.prev = page.prev


cdef Page* open_page(uint32_t k) noexcept nogil:
    cdef SizeClass* c = &CLASS[k]
    cdef Page* page = take_page() if c.page == PAGE else <Page*>map_aligned(WIDE_PAGE, WIDE_PAGE)
    page.free_list = NULL
    page.used = page.fresh = 0
    page.capacity = (c.page - HEADER) // c.size
    page.size_class = k
    page.stuck = ROUND
    page.where = IN_ROOM
    link_page(&c.room, page)
    return page


cdef void* page_alloc(uint32_t k) noexcept nogil:
    cdef SizeClass* c = &CLASS[k]
    cdef Page* page = c.room
    cdef void* block
    if page == NULL:
        page = open_page(k)
    block = page.free_list
    if block != NULL:
        page.free_list = (<void**>block)[0]
    else:
        block = <uint8_t*>page + HEADER + <size_t>page.fresh * c.size
        page.fresh += 1
        touch(page, HEADER + <size_t>page.fresh * c.size)
    page.used += 1
    if page.used == page.capacity:
        unlink_page(&c.room, page)
        page.where = NOWHERE
    return block


cdef inline Page* page_of(const void* block, uint32_t k) noexcept nogil:
    return <Page*>(<uintptr_t>block & ~<uintptr_t>(CLASS[k].page - 1))


cdef void page_free(void* block, uint32_t k) noexcept nogil:
    cdef Page* page = page_of(block, k)
    cdef SizeClass* c = &CLASS[page.size_class]
    (<void**>block)[0] = page.free_list
    page.free_list = block
    page.used -= 1
    if page.where == NOWHERE:
        page.where = IN_ROOM
        link_page(&c.room, page)
    elif page.used == 0:
        if page.where >= IN_MARKED:
            unlink_page(&P.to_empty if page.where == TO_EMPTY else &c.marked, page)
            P.marked -= 1
            give_page(page)
        elif page.next != NULL or page.prev != NULL:  # the last page of a class stays
            unlink_page(&c.room, page)
            give_page(page)


# ---------------------------------------------------------------- pages to be emptied


cdef inline uint32_t grade(const Page* page) noexcept nogil:
    return page.used * GRADES // page.capacity


cdef void mark_class(SizeClass* c) noexcept nogil:
    """The emptiest pages, as many as the gaps of the others take."""
    cdef uint64_t used[GRADES]
    cdef uint64_t free_in[GRADES]
    cdef uint64_t gaps = 0, leaving = 0
    cdef uint32_t g, limit = 0
    cdef Page* page = c.room
    cdef Page* next
    memset(used, 0, sizeof(used))
    memset(free_in, 0, sizeof(free_in))
    while page != NULL:
        if <int16_t>(page.stuck - ROUND) <= 0:
            used[grade(page)] += page.used
            free_in[grade(page)] += page.capacity - page.used
        gaps += page.capacity - page.used
        page = page.next
    for g in range(FULL_GRADE):
        gaps -= free_in[g]
        leaving += used[g]
        if leaving > gaps:
            break
        limit = g + 1
    page = c.room
    while page != NULL and limit:
        next = page.next
        if <int16_t>(page.stuck - ROUND) <= 0 and grade(page) < limit:
            unlink_page(&c.room, page)
            if page.used == 0:
                give_page(page)
            else:
                page.where = TO_EMPTY if page.size_class >= KEYED else IN_MARKED
                link_page(&P.to_empty if page.where == TO_EMPTY else &c.marked, page)
                P.marked += 1
        page = next


cdef void keep_page(Page** head, Page* page) noexcept nogil:
    """It could not be emptied."""
    unlink_page(head, page)
    P.marked -= 1
    page.stuck = ROUND + STUCK_ROUNDS
    page.where = NOWHERE
    if page.used < page.capacity:
        page.where = IN_ROOM
        link_page(&CLASS[page.size_class].room, page)


cdef size_t pages_mark(bint scattered) noexcept nogil:
    global ROUND
    cdef uint32_t k
    ROUND += 1
    while P.to_empty != NULL:
        keep_page(&P.to_empty, P.to_empty)
    for k in range(2 * CLASSES):
        while CLASS[k].marked != NULL:
            keep_page(&CLASS[k].marked, CLASS[k].marked)
        if CLASS[k].room != NULL and CLASS[k].room.next != NULL and (scattered or k >= KEYED):
            mark_class(&CLASS[k])
    return P.marked


cdef bint page_marked(const void* block, uint32_t k) noexcept nogil:
    return page_of(block, k).where >= IN_MARKED


cdef void* page_moved(void* block, uint32_t k, size_t size) noexcept nogil:
    cdef void* moved = page_alloc(page_of(block, k).size_class)
    memcpy(moved, block, size)
    page_free(block, k)
    P.moved += 1
    return moved


cdef uint32_t pages_live(void** blocks) noexcept nogil:
    cdef Page* page = P.to_empty
    cdef uint8_t[LIVE_MAX] is_free
    cdef uint32_t i, n = 0, size
    cdef void* block
    if page == NULL:
        return 0
    unlink_page(&P.to_empty, page)
    page.where = IN_MARKED
    link_page(&CLASS[page.size_class].marked, page)
    size = CLASS[page.size_class].size
    if page.fresh > LIVE_MAX:
        return pages_live(blocks)
    memset(is_free, 0, page.fresh)
    block = page.free_list
    while block != NULL:
        is_free[(<uint8_t*>block - <uint8_t*>page - HEADER) // size] = 1
        block = (<void**>block)[0]
    for i in range(page.fresh):
        if not is_free[i]:
            blocks[n] = <uint8_t*>page + HEADER + <size_t>i * size
            n += 1
    return n


cdef void pages_relax(uint32_t most) noexcept nogil:
    global POOL, POOLED, COLD_USED
    cdef Page* page
    while POOL != NULL and most and room_in_cold():
        page = POOL
        POOL = page.next
        POOLED -= 1
        P.resident -= page.touched
        madvise(page, PAGE, MADV_DONTNEED)
        COLD[COLD_USED] = page
        COLD_USED += 1
        most -= 1
