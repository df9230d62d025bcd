# Replies of Python handlers. See replies.pyx.
from libc.stdint cimport uint8_t
from zeekdb.hot.wire cimport Out

cdef void write_error(Out* out, bytes message)
cdef int write_reply(Out* out, object reply, uint8_t protocol) except -1
