# Pages of blocks of one size. See pages.pyx; users take memory from memory.pxd.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SMALL_MAX = 32768       # bytes; longer blocks have no page
    CLASSES = 96            # of sizes; 88 in use
    KEYED = CLASSES         # added to the class: pages that hold entries of the keyspace and nothing else

ctypedef struct Page:
    Page* next              # in its class's list of pages with room or of marked ones, or in the pool
    Page* prev
    void* free_list
    uint32_t used
    uint32_t capacity
    uint32_t fresh          # blocks never handed out begin here
    uint32_t touched        # bytes that are resident
    uint16_t stuck          # the round in which it may be marked again
    uint8_t size_class      # KEYED or not
    uint8_t where           # see pages.pyx

ctypedef struct Paging:
    uint8_t class_of[4097]  # by (size + 7) / 8
    uint32_t size[CLASSES]  # of a class's blocks
    size_t resident         # bytes of pages that were touched
    size_t marked           # pages to be emptied
    uint64_t moved          # blocks
    Page* to_empty          # marked KEYED pages that nobody has looked at yet

cdef Paging P

cdef inline uint32_t page_class(size_t size) noexcept nogil:
    return P.class_of[(size + 7) >> 3]

cdef void* page_alloc(uint32_t k) noexcept nogil
cdef void page_free(void* block, uint32_t k) noexcept nogil     # the class without KEYED will do
cdef void pages_relax(uint32_t most) noexcept nogil             # gives pooled pages back to the system
cdef void out_of_memory(size_t size) noexcept nogil             # ends the process
cdef void* map_memory(size_t size) noexcept nogil               # a mapping of zeroes; NULL when the system has none

# Chooses pages to be emptied, KEYED ones and perhaps others, which ends the round before; how many.
cdef size_t pages_mark(bint scattered) noexcept nogil
cdef bint page_marked(const void* block, uint32_t k) noexcept nogil
cdef void* page_moved(void* block, uint32_t k, size_t size) noexcept nogil   # to another page
# The blocks in use of the next marked KEYED page, at most LIVE_MAX; 0: there is none. They must be dealt with at once.
cdef enum:
    LIVE_MAX = 4096
cdef uint32_t pages_live(void** blocks) noexcept nogil
