"""The allocator: size classes on pages of their own, without headers; slabs for large values.

A small block's page is found by rounding its address down, so a block costs its size class and nothing more: the
124-byte entry of a 16-byte key and a 100-byte value takes 128 bytes. Classes step by 8 bytes to 256, then there are
eight to the doubling, to SMALL_MAX. Every multiple of 64 bytes is then a multiple of 64 bytes in its class too, so that
a table's buckets lie on cache lines. Pages have 64 KiB, and WIDE_PAGE those of classes above WIDE_MIN. A page that
empties goes back to a pool, and beyond POOL_PAGES to the system.

A page with one block is as resident as a full one. When what is freed has other sizes than what comes, pages thin out,
and the process takes more than its blocks. `mem_mark` then names pages whose blocks would fit into the gaps of others,
nothing more is put there, and compaction.pyx moves the blocks away.

Slabs: values of SLAB_MIN bytes and up live in mappings of their own that are kept when they are freed (IDLE_MAX bytes
at most), because touching a fresh mapping costs more than the copy into it. Slabs that nobody needed for a while are
given back: `blob_trim` sees, class by class, how many idle ones were never taken since it last looked.

Huge pages are not asked for: the first touch of one took 4.7 ms on a virtual machine (`bench/latency.py`: the worst
wait while keys are inserted fell from 5.4 to 1.6 ms without them), and neither lookups nor copies became faster.

Built with AddressSanitizer (`make fuzz`), every block is malloc's and exactly as long as was asked, so that a byte too
far is seen; and a block that is freed or resized under another size than its own ends the process.
"""

from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MADV_DONTNEED
    void* MAP_FAILED

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size)

cdef extern from *:
    """
    #ifdef __SANITIZE_ADDRESS__
    #define SANITIZED 1
    size_t __sanitizer_get_allocated_size(const volatile void *block);
    static void check_size(void *block, size_t size) {
        size_t real = __sanitizer_get_allocated_size(block);
        if (real != (size ? size : 1)) {
            fprintf(stderr, "runtime error: a block of %zu bytes is given back as one of %zu\\n", real, size);
            abort();
        }
    }
    #else
    #define SANITIZED 0
    #define check_size(block, size)
    #endif
    """
    bint SANITIZED
    void check_size(void* block, size_t size) nogil

cdef enum:
    PAGE = 65536
    WIDE_PAGE = 262144
    REGION = 8388608        # bytes mapped at once
    WIDE_MIN = 2048         # blocks above are on wide pages
    SMALL_MAX = 32768       # blocks above are malloc's
    CLASSES = 96            # 88 in use
    POOL_PAGES = 128        # empty pages kept before the system gets them back
    GRADES = 32             # of fullness, by which pages are chosen to be emptied
    RELAXED = 16            # slabs and pages given back by one mem_relax
    STUCK_ROUNDS = 16       # for which a page is left alone that could not be emptied
    HEADER = 64
    LINE = 64
    SLAB_CLASSES = 128
    IDLE_MAX = 268435456    # bytes of idle slabs kept for the next large value
    TRIM_ROUND = 10         # calls of blob_trim between two looks at what lies idle
    TRIM_BYTES = 16777216   # given back by one call; to unmap that takes about a millisecond

ctypedef struct Page:
    Page* next              # in its class's list of pages with room or of marked ones, or in the pool
    Page* prev
    void* free_list
    uint32_t used
    uint32_t capacity
    uint32_t fresh          # blocks never handed out begin here
    uint32_t touched        # bytes that are resident
    uint16_t stuck          # the round in which it may be marked again
    uint8_t size_class
    uint8_t where           # NOWHERE: full, or empty

ctypedef struct SizeClass:
    Page* room              # pages with a free block
    Page* marked            # pages to be emptied; may be full
    uint32_t size
    uint32_t page           # bytes of its pages

cdef enum:
    NOWHERE = 0
    IN_ROOM = 1
    IN_MARKED = 2

ctypedef struct Slab:
    Slab* next

ctypedef struct SlabClass:
    Slab* idle
    uint32_t count          # idle slabs
    uint32_t low            # the fewest there were since the last look
    uint32_t spare          # to be given back

cdef SizeClass CLASS[CLASSES]
cdef uint8_t CLASS_OF[4097]  # SMALL_MAX / 8 + 1
cdef Page* POOL = NULL      # empty pages
cdef size_t POOLED = 0
cdef size_t RESIDENT = 0    # bytes of pages and slabs that were touched
cdef size_t MARKED = 0      # pages
cdef uint16_t ROUND = 0     # of marking
cdef uint64_t MOVED = 0     # blocks
cdef Page** COLD = NULL     # empty pages whose memory the system has back, so nothing can be noted in them
cdef size_t COLD_USED = 0
cdef size_t COLD_CAPACITY = 0
cdef uint8_t* REGION_AT = NULL
cdef uint8_t* REGION_END = NULL
cdef size_t USED = 0
cdef size_t LARGE = 0       # bytes of malloc's blocks and of mappings
cdef SlabClass SLABS[SLAB_CLASSES]
cdef size_t IDLE_BYTES = 0
cdef uint32_t TRIM_LEFT = TRIM_ROUND
cdef uint8_t* LEAVING = NULL  # a slab too large to be unmapped at once
cdef size_t LEAVING_SIZE = 0
memset(SLABS, 0, sizeof(SLABS))


cdef void build_classes() noexcept nogil:
    cdef uint32_t size = 8, step = 8, i = 0, n
    while size <= SMALL_MAX:
        CLASS[i].size = size
        CLASS[i].page = PAGE if size <= WIDE_MIN else WIDE_PAGE
        CLASS[i].room = CLASS[i].marked = NULL
        i += 1
        if size >= 256 and size & (size - 1) == 0:
            step = size // 8
        size += step
    n = 0
    for size in range(0, SMALL_MAX // 8 + 1):
        while CLASS[n].size < size * 8:
            n += 1
        CLASS_OF[size] = n


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
    global RESIDENT
    if bytes > page.touched:
        RESIDENT += bytes - page.touched
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
    global POOL, POOLED, COLD_USED, RESIDENT
    page.where = NOWHERE
    if CLASS[page.size_class].page != PAGE:
        RESIDENT -= page.touched
        munmap(page, WIDE_PAGE)
    elif POOLED < POOL_PAGES or not room_in_cold():
        page.next = POOL
        POOL = page
        POOLED += 1
    else:
        RESIDENT -= page.touched
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


cdef void* small_alloc(uint32_t k) noexcept nogil:
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


cdef void small_free(void* block, uint32_t k) noexcept nogil:
    global MARKED
    cdef SizeClass* c = &CLASS[k]
    cdef Page* page = <Page*>(<uintptr_t>block & ~<uintptr_t>(c.page - 1))
    (<void**>block)[0] = page.free_list
    page.free_list = block
    page.used -= 1
    if page.where == NOWHERE:
        page.where = IN_ROOM
        link_page(&c.room, page)
    elif page.used == 0:
        if page.where == IN_MARKED:
            unlink_page(&c.marked, page)
            MARKED -= 1
            give_page(page)
        elif page.next != NULL or page.prev != NULL:  # the last page of a class stays
            unlink_page(&c.room, page)
            give_page(page)


# ---------------------------------------------------------------- pages to be emptied


cdef inline uint32_t grade(const Page* page) noexcept nogil:
    return page.used * GRADES // page.capacity


cdef void mark_class(SizeClass* c) noexcept nogil:
    """The emptiest pages, as many as the gaps of the others take."""
    global MARKED
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
    for g in range(GRADES - 1):
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
                page.where = IN_MARKED
                link_page(&c.marked, page)
                MARKED += 1
        page = next


cdef size_t mem_mark() noexcept nogil:
    global ROUND, MARKED
    cdef uint32_t k
    cdef Page* page
    ROUND += 1
    for k in range(CLASSES):
        while CLASS[k].marked != NULL:  # what the last round could not empty
            page = CLASS[k].marked
            unlink_page(&CLASS[k].marked, page)
            MARKED -= 1
            page.stuck = ROUND + STUCK_ROUNDS
            page.where = NOWHERE
            if page.used < page.capacity:
                page.where = IN_ROOM
                link_page(&CLASS[k].room, page)
        if CLASS[k].room != NULL and CLASS[k].room.next != NULL:
            mark_class(&CLASS[k])
    return MARKED


cdef bint mem_marked(const void* block, size_t size) noexcept nogil:
    cdef uint32_t k
    if MARKED == 0 or size > SMALL_MAX or SANITIZED:
        return False
    k = CLASS_OF[(size + 7) >> 3]
    return (<Page*>(<uintptr_t>block & ~<uintptr_t>(CLASS[k].page - 1))).where == IN_MARKED


cdef void* mem_moved(void* block, size_t size) noexcept nogil:
    global MOVED
    cdef uint32_t k
    cdef void* moved
    if block == NULL or not mem_marked(block, size):
        return block
    k = CLASS_OF[(size + 7) >> 3]
    moved = small_alloc(k)
    memcpy(moved, block, size)
    small_free(block, k)
    MOVED += 1
    return moved


cdef void mem_relax() noexcept nogil:
    """Idle slabs and pooled pages go back to the system, a few at a time."""
    global POOL, POOLED, COLD_USED, RESIDENT
    cdef Page* page
    cdef uint32_t k, given = 0
    for k in range(SLAB_CLASSES):
        while SLABS[k].idle != NULL and given < RELAXED:
            drop_slab(k)
            given += 1
    while POOL != NULL and given < RELAXED and room_in_cold():
        page = POOL
        POOL = page.next
        POOLED -= 1
        RESIDENT -= page.touched
        madvise(page, PAGE, MADV_DONTNEED)
        COLD[COLD_USED] = page
        COLD_USED += 1
        given += 1


cdef size_t mem_resident() noexcept nogil:
    """What the process really takes for its blocks: pages with their gaps, pooled pages and idle slabs besides."""
    return RESIDENT + LARGE


cdef inline size_t mem_cost(size_t size) noexcept nogil:
    """What a block counts in USED."""
    return CLASS[CLASS_OF[(size + 7) >> 3]].size if size <= SMALL_MAX else size + 16


cdef inline void count_large(size_t size) noexcept nogil:
    global USED, LARGE
    USED += size
    LARGE += size


cdef inline void uncount_large(size_t size) noexcept nogil:
    global USED, LARGE
    USED -= size
    LARGE -= size


cdef void* mem_alloc(size_t size) noexcept nogil:
    global USED
    cdef void* block
    cdef uint32_t k
    if size <= SMALL_MAX:
        k = CLASS_OF[(size + 7) >> 3]
        USED += CLASS[k].size
        if SANITIZED:
            return malloc(size if size else 1)
        return small_alloc(k)
    block = malloc(size)
    if block == NULL:
        out_of_memory(size)
    count_large(size + 16)
    return block


cdef void mem_free(void* block, size_t size) noexcept nogil:
    global USED
    cdef uint32_t k
    if block == NULL:
        return
    if SANITIZED:
        check_size(block, size)
    if size <= SMALL_MAX:
        k = CLASS_OF[(size + 7) >> 3]
        USED -= CLASS[k].size
        if SANITIZED:
            free(block)
        else:
            small_free(block, k)
        return
    uncount_large(size + 16)
    free(block)


cdef void* mem_resize(void* block, size_t old_size, size_t new_size) noexcept nogil:
    cdef void* moved
    if block == NULL:
        return mem_alloc(new_size)
    if SANITIZED:
        check_size(block, old_size)  # and it moves, always
    elif old_size <= SMALL_MAX and new_size <= SMALL_MAX:
        if CLASS_OF[(old_size + 7) >> 3] == CLASS_OF[(new_size + 7) >> 3]:
            return block
    elif old_size > SMALL_MAX and new_size > SMALL_MAX:
        moved = realloc(block, new_size)
        if moved == NULL:
            out_of_memory(new_size)
        uncount_large(old_size)
        count_large(new_size)
        return moved
    moved = mem_alloc(new_size)
    memcpy(moved, block, old_size if old_size < new_size else new_size)
    mem_free(block, old_size)
    return moved


cdef void* mem_lines(size_t size) noexcept nogil:
    cdef void* block
    if size <= SMALL_MAX and not SANITIZED:
        return mem_alloc(size)  # the class is a multiple of the line, and so is the page's header
    block = aligned_alloc(LINE, size)
    if block == NULL:
        out_of_memory(size)
    count_large(mem_cost(size))
    return block


cdef void* mem_map(size_t size) noexcept nogil:
    cdef void* block = map_memory(size)
    if block == NULL:
        out_of_memory(size)
    count_large(size)
    return block


cdef void mem_unmap(void* block, size_t size) noexcept nogil:
    munmap(block, size)
    uncount_large(size)


cdef size_t mem_footprint(size_t size) noexcept nogil:
    if SANITIZED:
        return size  # whoever stretches inside a footprint gets none to stretch in
    return mem_cost(size)


cdef size_t mem_used() noexcept nogil:
    return USED


# ---------------------------------------------------------------- blobs


cdef inline uint32_t slab_class(size_t size, size_t* rounded) noexcept nogil:
    """Eight classes to the doubling, from SLAB_MIN up; sizes of whole system pages, or huge pages where it is large."""
    cdef uint32_t shift = 0
    cdef size_t step, base = SLAB_MIN
    while base * 2 < size:
        base *= 2
        shift += 1
    step = base // 8
    rounded[0] = (size + step - 1) // step * step
    return shift * 8 + <uint32_t>((rounded[0] - base) // step)


cdef Slab* take_slab(uint32_t k, size_t size) noexcept nogil:
    """Of the class if one is idle, fresh otherwise; NULL when the system has no memory or no mapping left."""
    global IDLE_BYTES, RESIDENT
    cdef SlabClass* c = &SLABS[k]
    cdef Slab* slab
    if k >= SLAB_CLASSES or c.idle == NULL:
        slab = <Slab*>map_memory(size)
        if slab != NULL:
            RESIDENT += size
        return slab
    slab = c.idle
    c.idle = slab.next
    c.count -= 1
    if c.count < c.low:
        c.low = c.count
    IDLE_BYTES -= size
    return slab


cdef bint leave(Slab* slab, size_t size) noexcept nogil:
    """Leaves a very large slab to blob_trim, one at a time."""
    global LEAVING, LEAVING_SIZE
    if size <= 2 * TRIM_BYTES or LEAVING_SIZE:
        return False
    LEAVING = <uint8_t*>slab
    LEAVING_SIZE = size
    return True


cdef void give_slab(uint32_t k, size_t size, Slab* slab) noexcept nogil:
    global IDLE_BYTES, RESIDENT
    cdef SlabClass* c = &SLABS[k]
    if k >= SLAB_CLASSES or IDLE_BYTES + size > IDLE_MAX:
        if leave(slab, size) or munmap(slab, size) == 0 or k >= SLAB_CLASSES:
            RESIDENT -= size
            return
        # a hole among mappings makes one more of them, and the system sets a limit
        madvise(slab, size, MADV_DONTNEED)
    slab.next = c.idle
    c.idle = slab
    c.count += 1
    IDLE_BYTES += size


cdef Blob* blob_new(size_t capacity) noexcept nogil:
    global USED
    cdef Blob* blob = <Blob*>mem_alloc(sizeof(Blob))
    cdef size_t rounded
    cdef uint32_t k
    blob.refs = 1
    blob.size = 0
    blob.pooled = 0
    if capacity >= SLAB_MIN and not SANITIZED:
        k = slab_class(capacity, &rounded)
        blob.data = <uint8_t*>take_slab(k, rounded)
        if blob.data != NULL:
            blob.pooled = 1
            blob.capacity = rounded
            USED += rounded
            return blob
    blob.capacity = capacity if capacity else 1
    blob.data = <uint8_t*>mem_alloc(blob.capacity)
    return blob


cdef void blob_release(Blob* blob) noexcept nogil:
    global USED
    cdef size_t rounded
    blob.refs -= 1
    if blob.refs:
        return
    if not blob.pooled:
        mem_free(blob.data, blob.capacity)
    else:
        USED -= blob.capacity
        give_slab(slab_class(blob.capacity, &rounded), blob.capacity, <Slab*>blob.data)
    mem_free(blob, sizeof(Blob))


cdef Blob* blob_grow(Blob* blob, size_t capacity) noexcept nogil:
    cdef Blob* larger
    if capacity <= blob.capacity:
        return blob
    larger = blob_new(capacity if capacity > blob.capacity * 2 else blob.capacity * 2)
    memcpy(larger.data, blob.data, blob.size)
    larger.size = blob.size
    blob_release(blob)
    return larger


cdef inline size_t slab_size(uint32_t k) noexcept nogil:
    cdef size_t base = <size_t>SLAB_MIN << (k >> 3)
    return base + (base >> 3) * (k & 7)


cdef void drop_slab(uint32_t k) noexcept nogil:
    """An idle one goes back to the system."""
    global IDLE_BYTES, RESIDENT
    cdef SlabClass* c = &SLABS[k]
    cdef Slab* slab = c.idle
    cdef size_t size = slab_size(k)
    c.idle = slab.next
    c.count -= 1
    c.low = min(c.low, c.count)
    IDLE_BYTES -= size
    RESIDENT -= size
    if not leave(slab, size):
        munmap(slab, size)


cdef void blob_trim() noexcept nogil:
    """Slabs that were idle through TRIM_ROUND calls go back to the system, about TRIM_BYTES a call."""
    global TRIM_LEFT, LEAVING_SIZE
    cdef uint32_t k
    cdef size_t given = 0
    cdef SlabClass* c
    if LEAVING_SIZE:
        given = min(LEAVING_SIZE, TRIM_BYTES)
        LEAVING_SIZE -= given
        munmap(LEAVING + LEAVING_SIZE, given)
    TRIM_LEFT -= 1
    for k in range(SLAB_CLASSES):
        c = &SLABS[k]
        while c.spare and c.idle != NULL and given < TRIM_BYTES:
            c.spare -= 1
            given += slab_size(k)
            drop_slab(k)
        c.low = min(c.low, c.count)
        if TRIM_LEFT == 0:
            c.spare = c.low
            c.low = c.count
    if TRIM_LEFT == 0:
        TRIM_LEFT = TRIM_ROUND


def used() -> int:
    return USED


def charge(int64_t delta) -> None:
    """More bytes, or fewer, that others have taken from the system and that count all the same."""
    count_large(<size_t>delta)


def resident() -> int:
    return mem_resident()


def moved() -> int:
    return MOVED


def idle() -> int:
    return IDLE_BYTES


def trim() -> None:
    blob_trim()
