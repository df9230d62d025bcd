# XADD and XLEN without Python. See stream_twins.pyx.
from zeekdb.hot.wire cimport Arg, Port

cdef int twin_xadd(Port* port, Arg* argv, int argc) noexcept nogil
cdef int twin_xlen(Port* port, Arg* argv, int argc) noexcept nogil
