# Connections and their output. See sockets.pyx; the engine adds input and execution.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from zeekdb.hot.kinds cimport CommandTable
from zeekdb.hot.parser cimport Intake
from zeekdb.hot.queue cimport CommandQueue
from zeekdb.hot.wire cimport Out, Port

# Whose memory is summed up together.
cdef enum:
    EVICTABLE = 0
    KEPT = 1             # CLIENT NO-EVICT, and who has no socket
    REPLICA = 2

ctypedef struct Conn:
    Port port            # first: a twin's Port* is the connection
    int fd
    uint32_t gate        # not 0: the slow path decides
    bint closing         # close once the output is sent
    bint closed
    bint blocked         # no further command until resumed
    bint writable_wanted
    bint readable_off
    bint watching        # WATCHes keys
    bint tell_drained    # somebody waits until its output has left
    bint held            # its output waits until what it has changed is on the disk
    bint queued          # waits in the engine's list of connections to process again
    # input not consumed yet
    uint8_t* data
    size_t size
    size_t capacity
    Intake intake
    void* owner          # the Python Connection, borrowed
    size_t output_limit
    uint64_t hold_end    # of the journal, which must be synced before the output leaves
    uint64_t wrote_end   # of the journal behind its last change
    uint64_t commands
    uint64_t net_in
    uint64_t net_out
    int64_t seen_ms      # last interaction
    int last_kind
    CommandQueue queue   # between MULTI and EXEC
    size_t extra         # bytes that Python holds for it
    size_t counted       # what it is counted with
    uint8_t side         # in which sum
    int bucket           # of the clients that take about as much; -1: in none
    Conn* bucket_next
    Conn* bucket_prev
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
    BUCKETS = 20                  # of clients by memory: below 64 KiB, below 128 KiB, …
    SCRATCH = 262144              # bytes read at once, and of replies written before they are sent
    OUTPUT_PAUSE = 268435456      # unsent bytes at which a connection's commands wait for its reader
    OUTPUT_FLUSH = 1048576        # replies of one batch are sent in pieces of about this size

cdef class Sockets(CommandTable)

# What the server knows of a client's Python object; Connection builds on it.
cdef class Link:
    cdef Conn* c
    cdef Sockets engine
    cdef public object ctx
    cdef object __weakref__

cdef class Sockets(CommandTable):
    cdef int epfd
    cdef Out scratch_out
    cdef bint scratch_lent
    cdef Conn* dead
    cdef uint64_t synced             # of the journal: output that stands for more waits
    cdef public bint log_fails       # it cannot be at the moment: whoever has only read does not wait for it
    cdef list held                   # connections whose output waits for that
    cdef list again                  # connections that another one's command has given output or set free
    cdef size_t sums[3]              # bytes of the clients of each side
    cdef Conn* buckets[BUCKETS]      # evictable ones, by the power of two of their memory
    cdef public size_t client_limit  # bytes of all that are evictable; 0: none
    cdef public object on_evict      # (connection): it is closed because clients take too much
    cdef public object on_close      # (connection)
    cdef public object on_drained    # (connection): its output has left, and it was said that this is awaited
    cdef public object on_output_limit  # (connection): it is closed for not reading
    cdef public unsigned long long total_out
    cdef public unsigned long long writes

    cdef void wake(self, Link connection)
    cdef void block(self, Conn* c) noexcept
    cdef void lend(self, Conn* c) noexcept nogil
    cdef void take_back(self, Out* out) noexcept nogil
    cdef int flush(self, Conn* c) except -1
    cdef int hold(self, Conn* c) except -1
    cdef void keep(self, Out* out) noexcept nogil
    cdef bint send_out(self, Conn* c, Out* out)
    cdef void watch(self, Conn* c) noexcept
    cdef int attach(self, Link connection, int fd) except -1
    cdef int close(self, Conn* c) except -1
    cdef void bury(self)
    cdef void leave_bucket(self, Conn* c) noexcept nogil
    cdef void account(self, Conn* c) noexcept nogil
    cdef void unaccount(self, Conn* c) noexcept nogil
    cdef int evict_clients(self) except -1

cdef size_t conn_memory(const Conn* c) noexcept nogil

cdef Conn GONE           # what a closed connection's Python object looks at
