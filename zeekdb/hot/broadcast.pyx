"""One message to many connections: written once, copied to each, sent when the round is over."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from zeekdb.hot.sockets cimport Conn, Link
from zeekdb.hot.wire cimport out_raw


def broadcast(list receivers not None, bytes resp2 not None, bytes resp3 not None):
    cdef const char* two = PyBytes_AS_STRING(resp2)
    cdef const char* three = PyBytes_AS_STRING(resp3)
    cdef size_t n2 = PyBytes_GET_SIZE(resp2), n3 = PyBytes_GET_SIZE(resp3)
    cdef Link receiver
    cdef Conn* c
    for receiver in receivers:
        c = receiver.c
        if c.closed:
            continue
        if c.port.protocol == 3:
            out_raw(&c.port.out, three, n3)
        else:
            out_raw(&c.port.out, two, n2)
        if not c.queued:
            receiver.engine.wake(receiver)
