"""The allocator: size classes on 64 KiB pages, without headers; slabs for large values.

A small block's page is found by rounding its address down, so a block costs its size class and nothing more: the
124-byte entry of a 16-byte key and a 100-byte value takes 128 bytes. Classes step by 8 bytes to 256, then by an
eighth, to SMALL_MAX. A page that empties goes back to a pool, and beyond POOL_PAGES to the system.

Slabs: values of SLAB_MIN bytes and up live in mappings of their own that are kept when they are freed (IDLE_MAX bytes
at most), because touching a fresh mapping costs more than the copy into it.

Huge pages are not asked for: the first touch of one took 4.7 ms on a virtual machine (`bench/latency.py`: the worst
wait while keys are inserted fell from 5.4 to 1.6 ms without them), and neither lookups nor copies became faster.

Built with AddressSanitizer (`make fuzz`), every block is malloc's and exactly as long as was asked, so that a byte too
far is seen; and a block that is freed or resized under another size than its own ends the process.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MADV_DONTNEED
    void* MAP_FAILED

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
    REGION = 8388608        # bytes mapped at once
    SMALL_MAX = 2048        # longer blocks are malloc's
    CLASSES = 64
    POOL_PAGES = 128        # empty pages kept before the system gets them back
    HEADER = 64
    SLAB_CLASSES = 128
    IDLE_MAX = 268435456    # bytes of idle slabs kept for the next large value

ctypedef struct Page:
    Page* next              # in its class's list of pages with room, or in the pool
    Page* prev
    void* free_list
    uint32_t used
    uint32_t capacity
    uint32_t fresh          # blocks never handed out begin here
    uint16_t size_class
    uint8_t listed
    uint8_t resident        # the pool: its memory was not given back

ctypedef struct SizeClass:
    Page* room              # pages with a free block
    uint32_t size

ctypedef struct Slab:
    Slab* next

cdef SizeClass CLASS[CLASSES]
cdef uint8_t CLASS_OF[257]  # SMALL_MAX / 8 + 1
cdef Page* POOL = NULL
cdef size_t POOL_RESIDENT = 0
cdef uint8_t* REGION_AT = NULL
cdef uint8_t* REGION_END = NULL
cdef size_t USED = 0
cdef Slab* IDLE[SLAB_CLASSES]
cdef size_t IDLE_BYTES = 0


cdef void build_classes() noexcept nogil:
    cdef uint32_t size = 8, i = 0, n
    while size <= SMALL_MAX:
        CLASS[i].size = size
        i += 1
        if size < 256:
            size += 8
        else:
            size += (size // 8 + 15) & ~<uint32_t>15
            if size > SMALL_MAX and CLASS[i - 1].size < SMALL_MAX:
                size = SMALL_MAX
    n = 0
    for size in range(0, SMALL_MAX // 8 + 1):
        while CLASS[n].size < size * 8:
            n += 1
        CLASS_OF[size] = n


build_classes()


cdef void out_of_memory(size_t size) noexcept nogil:
    fprintf(stderr, b"zeekdb: out of memory allocating %zu bytes\n", size)
    abort()


cdef Page* take_page() noexcept nogil:
    """An empty page: from the pool, or cut from the region."""
    global POOL, POOL_RESIDENT, REGION_AT, REGION_END
    cdef Page* page = POOL
    cdef uint8_t* region
    if page != NULL:
        POOL = page.next
        if page.resident:
            POOL_RESIDENT -= 1
        return page
    if REGION_AT == REGION_END:
        region = <uint8_t*>mmap(NULL, REGION + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if region == <uint8_t*>MAP_FAILED:
            out_of_memory(REGION)
        # aligned to pages of ours; what is cut off goes back
        REGION_AT = <uint8_t*>((<uintptr_t>region + PAGE - 1) & ~<uintptr_t>(PAGE - 1))
        REGION_END = REGION_AT + REGION
        if REGION_AT > region:
            munmap(region, REGION_AT - region)
        if region + REGION + PAGE > REGION_END:
            munmap(REGION_END, region + REGION + PAGE - REGION_END)
    page = <Page*>REGION_AT
    REGION_AT += PAGE
    return page


cdef void give_page(Page* page) noexcept nogil:
    global POOL, POOL_RESIDENT
    page.listed = 0
    page.resident = POOL_RESIDENT < POOL_PAGES
    if page.resident:
        POOL_RESIDENT += 1
    else:
        # all but the header's system page
        madvise(<uint8_t*>page + 4096, PAGE - 4096, MADV_DONTNEED)
    page.next = POOL
    POOL = page


cdef void* small_alloc(uint32_t k) noexcept nogil:
    cdef SizeClass* c = &CLASS[k]
    cdef Page* page = c.room
    cdef void* block
    if page == NULL:
        page = take_page()
        page.next = page.prev = NULL
        page.free_list = NULL
        page.used = page.fresh = 0
        page.capacity = (PAGE - HEADER) // c.size
        page.size_class = k
        page.listed = 1
        c.room = page
    block = page.free_list
    if block != NULL:
        page.free_list = (<void**>block)[0]
    else:
        block = <uint8_t*>page + HEADER + <size_t>page.fresh * c.size
        page.fresh += 1
    page.used += 1
    if page.used == page.capacity:
        c.room = page.next
        if page.next != NULL:
            page.next.prev = NULL
        page.listed = 0
    return block


cdef void small_free(void* block, uint32_t k) noexcept nogil:
    cdef Page* page = <Page*>(<uintptr_t>block & ~<uintptr_t>(PAGE - 1))
    cdef SizeClass* c = &CLASS[k]
    (<void**>block)[0] = page.free_list
    page.free_list = block
    page.used -= 1
    if not page.listed:
        page.listed = 1
        page.prev = NULL
        page.next = c.room
        if c.room != NULL:
            c.room.prev = page
        c.room = page
    elif page.used == 0 and (page.next != NULL or page.prev != NULL):  # the last page of a class stays
        if page.prev != NULL:
            page.prev.next = page.next
        else:
            c.room = page.next
        if page.next != NULL:
            page.next.prev = page.prev
        give_page(page)


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
    USED += size + 16
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
    USED -= size + 16
    free(block)


cdef void* mem_resize(void* block, size_t old_size, size_t new_size) noexcept nogil:
    global USED
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
        USED += new_size - old_size
        return moved
    moved = mem_alloc(new_size)
    memcpy(moved, block, old_size if old_size < new_size else new_size)
    mem_free(block, old_size)
    return moved


cdef size_t mem_footprint(size_t size) noexcept nogil:
    if SANITIZED:
        return size  # whoever stretches inside a footprint gets none to stretch in
    return CLASS[CLASS_OF[(size + 7) >> 3]].size if size <= SMALL_MAX else size + 16


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


cdef Blob* blob_new(size_t capacity) noexcept nogil:
    global USED, IDLE_BYTES
    cdef Blob* blob = <Blob*>mem_alloc(sizeof(Blob))
    cdef size_t rounded
    cdef uint32_t k
    blob.refs = 1
    blob.size = 0
    blob.pooled = capacity >= SLAB_MIN and not SANITIZED
    if not blob.pooled:
        blob.capacity = capacity if capacity else 1
        blob.data = <uint8_t*>mem_alloc(blob.capacity)
        return blob
    k = slab_class(capacity, &rounded)
    blob.capacity = rounded
    USED += rounded
    if k < SLAB_CLASSES and IDLE[k] != NULL:
        blob.data = <uint8_t*>IDLE[k]
        IDLE[k] = IDLE[k].next
        IDLE_BYTES -= rounded
        return blob
    blob.data = <uint8_t*>mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if blob.data == <uint8_t*>MAP_FAILED:
        out_of_memory(rounded)
    return blob


cdef void blob_release(Blob* blob) noexcept nogil:
    global USED, IDLE_BYTES
    cdef size_t rounded
    cdef uint32_t k
    cdef Slab* slab
    blob.refs -= 1
    if blob.refs:
        return
    if not blob.pooled:
        mem_free(blob.data, blob.capacity)
    else:
        USED -= blob.capacity
        k = slab_class(blob.capacity, &rounded)
        if k < SLAB_CLASSES and IDLE_BYTES + blob.capacity <= IDLE_MAX:
            slab = <Slab*>blob.data
            slab.next = IDLE[k]
            IDLE[k] = slab
            IDLE_BYTES += blob.capacity
        else:
            munmap(blob.data, blob.capacity)
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


cdef void blob_trim() noexcept nogil:
    """Gives the idle slabs back to the system, a few at a time: called by the cron while nobody stores large values."""
    global IDLE_BYTES
    cdef uint32_t k
    cdef Slab* slab
    cdef size_t size
    for k in range(SLAB_CLASSES):
        slab = IDLE[k]
        if slab != NULL:
            size = (SLAB_MIN << (k // 8)) + (SLAB_MIN << (k // 8)) // 8 * (k % 8)
            IDLE[k] = slab.next
            IDLE_BYTES -= size
            munmap(slab, size)
            return


def used() -> int:
    """Bytes in use: the sum of all footprints, blobs included."""
    return USED


def idle() -> int:
    """Bytes of slabs kept for the next large value."""
    return IDLE_BYTES


def trim() -> None:
    """Give one idle slab back to the system."""
    blob_trim()
