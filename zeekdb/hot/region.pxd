# The tensor region's door to Python, and the parser's to the arena. See region.pyx.
from libc.stdint cimport uint32_t
from zeekdb.hot.memory cimport Blob
from zeekdb.hot.table cimport Entry
from zeekdb.hot.wire cimport Arg

cdef Blob* place_argument(const Arg* argv, uint32_t argc, size_t n) noexcept nogil
cdef uint32_t use_all(Entry* e) noexcept nogil                    # the block and its group were asked for; its mates
