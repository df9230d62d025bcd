# Connections, parsing and execution: the reactor that turns readable sockets into replies.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from zeekdb.hot.kinds cimport CommandTable, Kind
from zeekdb.hot.parser cimport Intake, Parser, Request
from zeekdb.hot.wire cimport Out, Port

ctypedef struct Conn:
    Port port            # first: a twin's Port* is the connection
    int fd
    uint32_t gate        # not 0: the slow path decides
    bint closing         # close once the output is sent
    bint closed
    bint blocked         # no further command until resumed
    bint writable_wanted
    bint readable_off
    bint queued          # waits in the engine's list of connections to process again
    # input not consumed yet
    uint8_t* data
    size_t size
    size_t capacity
    Intake intake
    void* owner          # the Python Connection, borrowed
    size_t output_limit
    uint64_t commands
    uint64_t net_in
    uint64_t net_out
    int64_t seen_ms      # last interaction
    int last_kind
    void* next_dead

cdef extern from *:
    """
    #include <sys/epoll.h>
    """
    union epoll_data:
        void* ptr
    struct epoll_event:
        uint32_t events
        epoll_data data

cdef enum:
    BATCH = 128          # commands parsed ahead of execution
    EVENTS = 256

cdef class Engine(CommandTable)

# What the engine knows of a client's Python object; Connection builds on it.
cdef class Link:
    cdef Conn* c
    cdef Engine engine
    cdef public object ctx
    cdef object __weakref__

cdef class Engine(CommandTable):
    cdef int epfd
    cdef uint8_t* scratch_in
    cdef Out scratch_out
    cdef Parser parser
    cdef Request requests[BATCH]
    cdef epoll_event events[EVENTS]
    cdef Conn* dead
    cdef list again
    cdef public unsigned int gate
    cdef public object on_gate       # (connection, index, args) -> reply, when a gate is set
    cdef public object on_unknown    # (connection, args): raises CommandError
    cdef public object on_error      # (connection, index, CommandError): an error reply goes out
    cdef public object on_bug        # (connection, index, exception): our own fault
    cdef public object on_close      # (connection)
    cdef public object on_output_limit  # (connection): it is closed for not reading
    cdef public object on_slow       # (connection, index, args, microseconds): a call over slow_us
    cdef public object keyspace
    cdef object __weakref__
    cdef public unsigned long long total_commands
    cdef public unsigned long long total_in
    cdef public unsigned long long total_out
    cdef public unsigned long long reads
    cdef public unsigned long long writes
    cdef public long long query_limit
    cdef public unsigned long long error_replies
    cdef uint64_t slow_ticks
    cdef readonly bint in_turn
    cdef bint scratch_lent

    cdef void set_clock(self, int64_t now_us) noexcept
    cdef int serve(self, Conn* c, uint32_t what) except -1
    cdef int run_again(self) except -1
    cdef void wake(self, Link connection)
    cdef int receive(self, Conn* c) except -1
    cdef bint received(self, Conn* c, ssize_t n)
    cdef int receive_blob(self, Conn* c) except -1
    cdef int process(self, Conn* c, uint8_t* data, size_t size, bint owned) except -1
    cdef void keep_tail(self, Conn* c, uint8_t* tail, size_t n, bint owned) noexcept
    cdef void protocol_error(self, Conn* c)
    cdef uint32_t run(self, Conn* c, uint32_t n) except? 0xFFFFFFFF
    cdef void look_ahead(self, Conn* c, uint32_t n) noexcept nogil
    cdef uint64_t book(self, Conn* c, Kind* kind, uint64_t begin, uint32_t n, Request* last)
    cdef list list_args(self, Request* r)
    cdef int call(self, Conn* c, Request* r) except -1
    cdef void rewind(self, Conn* c, size_t size, uint32_t nparts) noexcept nogil
    cdef void block(self, Conn* c) noexcept
    cdef void lend(self, Conn* c) noexcept nogil
    cdef void take_back(self, Out* out) noexcept nogil
    cdef int flush(self, Conn* c) except -1
    cdef bint send_out(self, Conn* c, Out* out)
    cdef void watch(self, Conn* c) noexcept
    cdef int attach(self, Link connection, int fd) except -1
    cdef int close(self, Conn* c) except -1
    cdef void bury(self)

cdef Conn GONE           # what a closed connection's Python object looks at
