"""The allocator: size classes on pages of their own, without headers; slabs for large values.

A small block's page is found by rounding its address down (pages.pyx), so a block costs its size class and nothing
more: the 124-byte entry of a 16-byte key and a 100-byte value takes 128 bytes. Classes step by 8 bytes to 256, then
there are eight to the doubling, to SMALL_MAX. Every multiple of 64 bytes is then a multiple of 64 bytes in its class
too, so that a table's buckets lie on cache lines.

Slabs: values of SLAB_MIN bytes and up live in mappings of their own that are kept when they are freed (IDLE_MAX bytes
at most), because touching a fresh mapping costs more than the copy into it. Slabs that nobody needed for a while are
given back: `blob_trim` sees, class by class, how many idle ones were never taken since it last looked.

Huge pages are not asked for: the first touch of one took 4.7 ms on a virtual machine (`bench/latency.py`: the worst
wait while keys are inserted fell from 5.4 to 1.6 ms without them), and neither lookups nor copies became faster.

Built with AddressSanitizer (`make fuzz`), every block is malloc's and exactly as long as was asked, so that a byte too
far is seen; and a block that is freed or resized under another size than its own ends the process.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset
from zeekdb.hot.pages cimport (
    KEYED, P, SMALL_MAX, map_memory, out_of_memory, page_alloc, page_class, page_free, page_marked, page_moved, pages_mark,
    pages_relax,
)

cdef extern from "<sys/mman.h>" nogil:
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    int MADV_DONTNEED

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size)

cdef extern from *:
    """
    #include <stdio.h>
    #include <stdlib.h>
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
    RELAXED = 16            # slabs and pages given back by one mem_relax
    LINE = 64
    SLAB_CLASSES = 128
    IDLE_MAX = 268435456    # bytes of idle slabs kept for the next large value
    TRIM_ROUND = 10         # calls of blob_trim between two looks at what lies idle
    TRIM_BYTES = 16777216   # given back by one call; to unmap that takes about a millisecond

ctypedef struct Slab:
    Slab* next

ctypedef struct SlabClass:
    Slab* idle
    uint32_t count          # idle slabs
    uint32_t low            # the fewest there were since the last look
    uint32_t spare          # to be given back

cdef size_t USED = 0
cdef size_t SLABBED = 0     # bytes of slabs, idle ones too
cdef size_t LARGE = 0       # bytes of malloc's blocks and of mappings
cdef SlabClass SLABS[SLAB_CLASSES]
cdef size_t IDLE_BYTES = 0
cdef uint32_t TRIM_LEFT = TRIM_ROUND
cdef uint8_t* LEAVING = NULL  # a slab too large to be unmapped at once
cdef size_t LEAVING_SIZE = 0
cdef void (*GIVE_TO_ARENA)(Blob* blob) noexcept nogil
GIVE_TO_ARENA = NULL        # whoever makes such a blob has set it
memset(SLABS, 0, sizeof(SLABS))


cdef void mem_relax() noexcept nogil:
    cdef uint32_t k, given = 0
    for k in range(SLAB_CLASSES):
        while SLABS[k].idle != NULL and given < RELAXED:
            drop_slab(k)
            given += 1
    pages_relax(RELAXED)


cdef size_t mem_resident() noexcept nogil:
    return P.resident + SLABBED + LARGE


cdef size_t mem_mark(bint scattered) noexcept nogil:
    return pages_mark(scattered)


cdef bint mem_marked(const void* block, size_t size) noexcept nogil:
    return P.marked and size <= SMALL_MAX and not SANITIZED and page_marked(block, page_class(size))


cdef void* mem_moved(void* block, size_t size) noexcept nogil:
    if block == NULL or not mem_marked(block, size):
        return block
    return page_moved(block, page_class(size), size)


cdef inline size_t mem_cost(size_t size) noexcept nogil:
    """What a block counts in USED."""
    return P.size[page_class(size)] if size <= SMALL_MAX else size + 16


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
        k = page_class(size)
        USED += P.size[k]
        if SANITIZED:
            return malloc(size if size else 1)
        return page_alloc(k)
    block = malloc(size)
    if block == NULL:
        out_of_memory(size)
    count_large(size + 16)
    return block


cdef void* mem_keyed(size_t size) noexcept nogil:
    global USED
    cdef uint32_t k
    if size > SMALL_MAX or SANITIZED:
        return mem_alloc(size)
    k = page_class(size)
    USED += P.size[k]
    return page_alloc(KEYED + k)


cdef void mem_free(void* block, size_t size) noexcept nogil:
    global USED
    cdef uint32_t k
    if block == NULL:
        return
    if SANITIZED:
        check_size(block, size)
    if size <= SMALL_MAX:
        k = page_class(size)
        USED -= P.size[k]
        if SANITIZED:
            free(block)
        else:
            page_free(block, k)
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
        if page_class(old_size) == page_class(new_size):
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
    global IDLE_BYTES, SLABBED
    cdef SlabClass* c = &SLABS[k]
    cdef Slab* slab
    if k >= SLAB_CLASSES or c.idle == NULL:
        slab = <Slab*>map_memory(size)
        if slab != NULL:
            SLABBED += size
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
    global IDLE_BYTES, SLABBED
    cdef SlabClass* c = &SLABS[k]
    if k >= SLAB_CLASSES or IDLE_BYTES + size > IDLE_MAX:
        if leave(slab, size) or munmap(slab, size) == 0 or k >= SLAB_CLASSES:
            SLABBED -= size
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
    blob.flags = 0
    if capacity >= SLAB_MIN and not SANITIZED:
        k = slab_class(capacity, &rounded)
        blob.data = <uint8_t*>take_slab(k, rounded)
        if blob.data != NULL:
            blob.flags = POOLED
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
    if blob.flags & ARENA:
        GIVE_TO_ARENA(blob)
        return
    if not blob.flags & POOLED:
        mem_free(blob.data, blob.capacity)
    else:
        USED -= blob.capacity
        give_slab(slab_class(blob.capacity, &rounded), blob.capacity, <Slab*>blob.data)
    mem_free(blob, sizeof(Blob))


cdef void blob_home(void (*give)(Blob* blob) noexcept nogil) noexcept nogil:
    global GIVE_TO_ARENA
    GIVE_TO_ARENA = give


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
    global IDLE_BYTES, SLABBED
    cdef SlabClass* c = &SLABS[k]
    cdef Slab* slab = c.idle
    cdef size_t size = slab_size(k)
    c.idle = slab.next
    c.count -= 1
    c.low = min(c.low, c.count)
    IDLE_BYTES -= size
    SLABBED -= size
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
    return P.moved


def idle() -> int:
    return IDLE_BYTES


def trim() -> None:
    blob_trim()
