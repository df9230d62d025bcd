# Twins of plain keys that the tensor region serves. See kv_twins.pyx.
from zeekdb.hot.wire cimport Arg, Port

cdef int twin_kv_exists(Port* port, Arg* argv, int argc) noexcept nogil
