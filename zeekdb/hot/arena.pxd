# The host arena of the tensor region: one mapping that other processes may map too. See arena.pyx; arena_room.pxd
# makes room where the free bytes lie scattered. Everything here is the loop's thread's alone.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.memory cimport ARENA, FIXED, Blob

cdef enum:
    BIG_STEP = 4096         # big extents begin at and have multiples of it
    BIG_MIN = 65536         # bytes; what is shorter lies in a span
    SMALL_STEP = 64
    ROWS = 48               # of bins, a doubling each
    COLUMNS = 32            # steps of a doubling

    # Blob.flags beside memory.pxd's
    FREE = 8
    SPAN = 16               # a big extent that is cut into small ones
    END = 32                # no extent: both ends of a list
    HELD = 64               # free, but not to be taken: it is about to be part of something larger
    SUMMED = 128            # in use, and the checksum is known

# A stretch of the arena, in use (then it is the blob that its user knows), free, or a span.
ctypedef struct Extent:
    Blob blob               # of a free one only data, capacity and flags count; of a span, size is what is used in it and refs
                            # the search that could not have it
    Extent* left            # neighbours by address, to the list's END at both sides
    Extent* right
    Extent* prev            # in its bin while it is free; of one in use that is SUMMED, the checksum lies here
    Extent* next            # the same; a span's is the END of the list of its small extents
    Extent* span            # that it lies in; NULL: it is a big one

# Free extents by size: what is shorter than COLUMNS steps has a bin for each size, the rest COLUMNS to the doubling.
ctypedef struct Bins:
    uint64_t rows                       # a bit per row with an extent
    uint32_t columns[48]                # a bit per bin with an extent
    Extent* heads[48][32]

ctypedef struct Arena:
    uint8_t* base           # NULL: closed
    size_t size             # bytes
    size_t used             # the blobs' capacities
    size_t taken            # bytes of big extents in use, spans included
    size_t high             # nothing beyond it was ever in use
    size_t blobs
    uint64_t moved_blobs
    uint64_t moved_bytes
    int fd
    Extent ends             # END of the big extents
    Extent* rover           # a big extent, where the next search for room goes on
    Bins bins[2]            # of big ones, of small ones

cdef Arena A

# A blob with refs = 1 and size = 0 whose data lies in the arena; NULL when there is no room. It is born FIXED, since
# whoever fills it knows its place; whoever keeps it, and looks at blob.data anew each time, clears the flag.
cdef Blob* arena_blob(size_t capacity) noexcept nogil
cdef void arena_trim(Blob* blob, size_t size) noexcept nogil    # gives back what lies beyond `size` bytes

cdef inline void arena_sum(Blob* blob, uint64_t checksum) noexcept nogil:
    """The blob's contents, which will not change any more, have this checksum."""
    memcpy(&(<Extent*>blob).prev, &checksum, 8)
    blob.flags |= SUMMED

cdef inline uint64_t arena_sum_of(const Blob* blob) noexcept nogil:
    """The checksum of a SUMMED one."""
    cdef uint64_t checksum
    memcpy(&checksum, &(<const Extent*>blob).prev, 8)
    return checksum

cdef inline size_t arena_offset(const Blob* blob) noexcept nogil:
    """Where it begins in the descriptor's file, bytes."""
    return blob.data - A.base

cdef inline size_t arena_footprint(size_t size) noexcept nogil:
    """Bytes that a blob of this size takes."""
    if size <= BIG_MIN - SMALL_STEP:
        return (size + SMALL_STEP - 1) & ~<size_t>(SMALL_STEP - 1) if size else SMALL_STEP
    return (size + BIG_STEP - 1) & ~<size_t>(BIG_STEP - 1)

cdef inline void link(Extent* a, Extent* b) noexcept nogil:
    a.right = b
    b.left = a

# For arena_room.pyx.
cdef Extent* find(bint small, size_t need) noexcept nogil       # a free extent of at least so many bytes; NULL
cdef Extent* take(bint small, size_t need) noexcept nogil       # exactly so many bytes, whole steps; NULL
cdef Extent* reserve(size_t need, bint opens) noexcept nogil    # a footprint, exactly, perhaps in a new span; NULL
cdef Extent* give(Extent* e) noexcept nogil                     # in use or HELD, it is free; what it became part of
cdef Extent* make_free(Extent* e) noexcept nogil                # the same without the accounts
cdef void bin_out(Extent* e) noexcept nogil
cdef void extent_drop(Extent* e, Extent* instead) noexcept nogil
