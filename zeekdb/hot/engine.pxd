# Input and execution: the reactor that turns readable sockets into replies.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from zeekdb.hot.aoflog cimport AofLog
from zeekdb.hot.kinds cimport Kind
from zeekdb.hot.parser cimport Parser, Request
from zeekdb.hot.sockets cimport Conn, Link, Sockets, epoll_event
from zeekdb.hot.wire cimport Arg

cdef enum:
    BATCH = 128          # commands parsed ahead of execution
    EVENTS = 256

cdef class Engine(Sockets):
    cdef uint8_t* scratch_in
    cdef Parser parser
    cdef Request requests[BATCH]
    cdef epoll_event events[EVENTS]
    cdef public unsigned int gate
    cdef public object on_gate       # (connection, index, args) -> reply, when a gate is set
    cdef public object on_unknown    # (connection, args): raises CommandError
    cdef public object on_error      # (connection, index, CommandError): an error reply goes out
    cdef public object on_bug        # (connection, index, exception): our own fault
    cdef public object on_due        # (connection): its command is done, and `due` was set meanwhile
    cdef public object on_exec       # (connection, whether it begins): handlers run inside EXEC
    cdef public object on_journal    # (bytes): what has changed, in encoded commands; None: nobody but the log
    cdef public AofLog log           # the append-only file; None: there is none
    cdef public object on_slow       # (connection, index, args, microseconds): a call over slow_us
    cdef public object keyspace
    cdef public unsigned long long total_commands
    cdef public unsigned long long total_in
    cdef public unsigned long long reads
    cdef public long long query_limit
    cdef public unsigned long long error_replies
    cdef uint64_t slow_ticks
    cdef readonly bint in_turn
    cdef object __weakref__

    cdef void set_clock(self, int64_t now_us) noexcept
    cdef int serve(self, Conn* c, uint32_t what) except -1
    cdef int run_again(self, Conn* running) except -1
    cdef int receive(self, Conn* c) except -1
    cdef bint received(self, Conn* c, ssize_t n)
    cdef int receive_blob(self, Conn* c) except -1
    cdef int process(self, Conn* c, uint8_t* data, size_t size, bint owned) except -1
    cdef void keep_tail(self, Conn* c, uint8_t* tail, size_t n, bint owned) noexcept
    cdef void protocol_error(self, Conn* c)
    cdef uint32_t run(self, Conn* c, uint32_t n) except? 0xFFFFFFFF
    cdef int make_room(self, uint32_t n) except -1
    cdef void look_ahead(self, Conn* c, uint32_t n) noexcept nogil
    cdef uint64_t book(self, Conn* c, Kind* kind, uint64_t begin, uint32_t n, Request* last)
    cdef int call(self, Conn* c, Kind* kind, Arg* argv, uint32_t argc) except -1
    cdef bint may_transact(self, Conn* c, Kind* kind, uint32_t argc) noexcept nogil
    cdef bint transact(self, Conn* c, Kind* kind, Arg* argv, uint32_t argc) except -1
    cdef bint run_twin(self, Conn* c, Kind* kind, Arg* argv, uint32_t argc) noexcept
    cdef int run_queue(self, Conn* c) except -1
    cdef void rewind(self, Conn* c, size_t size, uint32_t nparts) noexcept nogil
