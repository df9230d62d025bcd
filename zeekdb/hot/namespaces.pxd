# Which plain keys the tensor region serves. See namespaces.pyx.
from libc.stdint cimport uint8_t, uint32_t
from zeekdb.hot.wire cimport Arg

cdef enum:
    PATTERNS_MAX = 64

ctypedef struct Pattern:
    uint8_t* text
    size_t size
    uint32_t space

ctypedef struct Namespaces:
    uint32_t count
    Pattern patterns[PATTERNS_MAX]

cdef Namespaces NS

cdef int namespace_of(const uint8_t* key, size_t n) noexcept nogil   # the space of its blocks; -1: the keyspace has it

cdef inline bint any_namespaced(const Arg* argv, uint32_t first, uint32_t last, uint32_t step) noexcept nogil:
    """Whether one of these arguments is the region's key."""
    cdef uint32_t i = first
    while i <= last:
        if namespace_of(argv[i].p, argv[i].n) >= 0:
            return True
        i += step
    return False
