# The allocator of the hot room. Frees and resizes are told the size, so small blocks carry no header.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

# A refcounted byte buffer: the value of a string too long for its entry. Blobs of SLAB_MIN bytes and up come from
# a pool of pre-faulted slabs that overwrites reuse, so that a large SET never page-faults twice.
ctypedef struct Blob:
    uint32_t refs
    uint32_t flags
    uint64_t size      # bytes used
    uint64_t capacity  # bytes of data
    uint8_t* data

cdef enum:
    SLAB_MIN = 65536

    # Blob.flags; those from 8 up are the arena's own
    POOLED = 1         # data is a slab
    ARENA = 2          # header and data are the arena's, see arena.pyx; the header never moves
    FIXED = 4          # somebody outside knows where the data lies: it is never moved

cdef void* mem_alloc(size_t size) noexcept nogil            # aborts the process when the system has no memory
cdef void* mem_keyed(size_t size) noexcept nogil            # the same for entries of the keyspace, see pages.pyx
cdef void mem_free(void* block, size_t size) noexcept nogil
cdef void* mem_resize(void* block, size_t old_size, size_t new_size) noexcept nogil
cdef size_t mem_footprint(size_t size) noexcept nogil       # bytes that a block of this size really takes
cdef void* mem_lines(size_t size) noexcept nogil            # begins on a cache line, freed by mem_free; a multiple of 64
cdef void* mem_map(size_t size) noexcept nogil              # zeroes that take no memory until touched, on system pages
cdef void mem_unmap(void* block, size_t size) noexcept nogil
cdef size_t mem_used() noexcept nogil                       # sum of all footprints, blobs included
cdef size_t mem_resident() noexcept nogil                   # what the process takes for it, gaps included

# Compaction: chooses pages to be emptied (how many), which ends the round before; where a block is now that was on one;
# gives back what is kept for later.
cdef size_t mem_mark(bint scattered) noexcept nogil
cdef bint mem_marked(const void* block, size_t size) noexcept nogil
cdef void* mem_moved(void* block, size_t size) noexcept nogil
cdef void mem_relax() noexcept nogil

cdef Blob* blob_new(size_t capacity) noexcept nogil         # refs = 1, size = 0
cdef Blob* blob_grow(Blob* blob, size_t capacity) noexcept nogil  # contents kept; needs refs == 1; at least doubles
cdef void blob_release(Blob* blob) noexcept nogil
cdef void blob_home(void (*give)(Blob* blob) noexcept nogil) noexcept nogil  # who takes those with ARENA back
cdef void blob_trim() noexcept nogil                        # once a second: slabs idle for long go back to the system

cdef inline Blob* blob_retain(Blob* blob) noexcept nogil:
    blob.refs += 1
    return blob
