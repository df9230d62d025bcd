# What hashes and sets share: the box, the table of a large collection, chance, and bytes from and for Python.
#
# A collection is a box of 16 bytes at a stable address, a `Packed`. While small it is just that. When it grows large
# its count becomes LARGE and its data points to a Table of entries (key = field or member); it never goes back. A hash
# whose fields may have deadlines has the count TIMED, and its data points to a Timed: see hash_deadlines.pxd.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from zeekdb.hot.packed cimport Packed, packed_read
from zeekdb.hot.table cimport Entry, Table

cdef extern from *:
    """
    #define ZEEK_LARGE 0xFFFFFFFFu
    #define ZEEK_TIMED 0xFFFFFFFEu
    #define ZEEK_PACKED_MAX (1u << 30)
    #define ZEEK_SCAN_MAX ((size_t)1 << 30)
    #define ZEEK_PREFETCH(p) __builtin_prefetch(p)
    static inline uint64_t zeek_scale(uint64_t x, uint64_t n) { return (uint64_t)(((unsigned __int128)x * n) >> 64); }
    """
    const uint32_t LARGE "ZEEK_LARGE"
    const uint32_t TIMED "ZEEK_TIMED"
    const uint32_t PACKED_MAX "ZEEK_PACKED_MAX"  # bytes of a small form; beyond, it becomes large whatever the limits
    const size_t SCAN_MAX "ZEEK_SCAN_MAX"        # a larger COUNT means the same: everything
    void prefetch "ZEEK_PREFETCH"(const void* p) nogil
    uint64_t scale "zeek_scale"(uint64_t x, uint64_t n) nogil  # 64 random bits to a number below n

cdef inline Table* box_table(const Packed* box) noexcept nogil:
    return <Table*>box.data

cdef inline uint8_t* packed_skip(const uint8_t* at) noexcept nogil:
    """Where the string after the one at `at` begins."""
    cdef size_t n
    cdef uint8_t* p = packed_read(at, &n)  # alone: C may read n before the call within one expression
    return p + n

ctypedef bint (*MemberVisit)(Entry* e, void* arg) noexcept nogil              # True: enough

cdef Table* members_new() noexcept nogil
cdef bint members_destroy(Table* t, size_t* budget) noexcept nogil            # as TypeOps.destroy
# Every entry once, unless a visit said enough (then True). Visits do not change the table.
cdef bint members_walk(Table* t, MemberVisit visit, void* arg) noexcept nogil
cdef Table* members_compact(Table* t) noexcept nogil                          # as TypeOps.compact
cdef Table* members_copy(Table* t) noexcept nogil
cdef size_t members_memory(Table* t) noexcept nogil                           # estimated from a few entries
cdef void member_free(Entry* e) noexcept nogil
# The field of a large hash: flags are 0 or EXPIRES.
cdef Entry* member_new(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, uint8_t flags) noexcept nogil
# Gives the entry a new value where it stands; False when that takes another entry.
cdef bint member_overwrite(Entry* e, const uint8_t* v, size_t vn) noexcept nogil
cdef const uint8_t* member_value(const Entry* e, size_t* n) noexcept nogil    # inline or in its blob

# The fair dice of SPOP, HRANDFIELD and the like.
cdef uint64_t chance() noexcept nogil

cdef inline uint64_t chance_below(uint64_t n) noexcept nogil:
    return scale(chance(), n)

# A Python list that C code fills with bytes objects. The GIL must be held although the functions are nogil: they are
# called back from walks that know nothing of Python.
ctypedef struct Harvest:
    void* list          # borrowed
    bint failed         # out of memory; nothing more is added

cdef void harvest(const uint8_t* p, size_t n, void* arg) noexcept nogil       # an Emit; arg is the Harvest

cdef inline Harvest harvest_to(list items):
    cdef Harvest into
    into.list = <void*>items
    into.failed = False
    return into

cdef inline list harvested(list items, const Harvest* into):
    if into.failed:
        raise MemoryError
    return items

cdef inline const uint8_t* raw(bytes text) noexcept:
    return <const uint8_t*>PyBytes_AS_STRING(text)

cdef inline size_t size_of(bytes text) noexcept:
    return <size_t>PyBytes_GET_SIZE(text)

cdef int check_size(bytes key) except -1    # CommandError for a field or member that no entry can hold
