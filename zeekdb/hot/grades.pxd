# How long a block is worth keeping: graded LRU. See grades.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from zeekdb.hot.ghosts cimport Ghosts

cdef enum:
    GRADES = 4

ctypedef struct Grades:
    uint32_t clock           # blocks stored so far; wraps
    uint64_t evictions
    uint64_t blocks          # in host memory
    double life[GRADES]      # relative to grade 0's
    double log_life[GRADES]
    double share[GRADES]     # of the evictions, a moving average
    Ghosts ghosts

cdef Grades GR

cdef inline double grade_age(uint8_t grade, uint32_t used) noexcept nogil:
    """The age of a block as a part of its grade's life: the largest goes first."""
    return (GR.clock - used + 1) / GR.life[grade]

cdef void grade_evicted(uint64_t hash, uint8_t grade) noexcept nogil     # a block was
cdef uint8_t grade_stored(uint64_t hash) noexcept nogil                  # what a block begins with that comes now
cdef uint8_t grade_returned(uint8_t grade) noexcept nogil                # what one has that was away too early
