"""The connections of a server: how they come and go, and how their output leaves.

A connection owns buffers only while it has something unsent or half received: replies are written into a buffer that
all share, and what the socket takes at once is never copied. Large values go out from where they lie, by reference.
The engine adds input and execution.

What connections hold is summed up as it changes: after a connection was served or its output was sent, the difference
is added. Those that may be evicted (`maxmemory-clients`) hang in lists by the power of two of what they hold, so that
the largest are found without a search.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from zeekdb.hot.eviction cimport E
from zeekdb.hot.keyspace cimport G
from zeekdb.hot.kinds cimport CommandTable
from zeekdb.hot.memory cimport blob_release, mem_alloc, mem_free
from zeekdb.hot.parser cimport drop_blob
from zeekdb.hot.queue cimport queue_free
from zeekdb.hot.wire cimport IOVECS, Arg, Out, Part, advance, fill_vectors, iovec, out_pending, shift_parts

cdef extern from *:
    """
    #include <sys/socket.h>
    #include <unistd.h>
    """
    int epoll_create1(int flags) nogil
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event) nogil
    int EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t send(int fd, const void* data, size_t n, int flags) nogil
    ssize_t sendmsg(int fd, const msghdr* message, int flags) nogil
    int MSG_DONTWAIT, MSG_NOSIGNAL
    int c_close "close"(int fd) nogil


cdef enum:
    SEND_AT_ONCE = 1048576   # bytes; then others have their turn: it takes about 0.2 ms
    BUCKET_LOG = 15          # of the bytes at which the second bucket begins


cdef size_t conn_memory(const Conn* c) noexcept nogil:
    """What a connection holds: its structures, both buffers, and what Python holds for it."""
    cdef const Out* out = &c.port.out
    return (sizeof(Conn) + c.extra + c.capacity + c.queue.capacity + c.intake.args_capacity * sizeof(Arg)
            + (0 if out.lent else out.capacity) + out.part_bytes + out.parts_capacity * sizeof(Part)
            + (c.intake.blob.capacity if c.intake.blob != NULL else 0) + c.intake.blob_bytes)


cdef int bucket_of(size_t size) noexcept nogil:
    cdef int bucket = 0
    size >>= BUCKET_LOG
    while size > 1 and bucket < BUCKETS - 1:
        size >>= 1
        bucket += 1
    return bucket


cdef class Sockets(CommandTable):
    """All connections in one epoll, and the buffer that their replies are written to."""

    def __cinit__(self):
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd < 0:
            raise OSError("epoll_create1 failed")
        self.again = []
        self.held = []
        self.synced = <uint64_t>-1

    def __dealloc__(self):
        mem_free(self.scratch_out.data, self.scratch_out.capacity)
        if self.epfd >= 0:
            c_close(self.epfd)

    def fileno(self):
        """The descriptor that becomes readable when a turn has work."""
        return self.epfd

    cdef void wake(self, Link connection):
        """Have the connection's output sent and its waiting commands run, soon."""
        if not connection.c.queued and not connection.c.closed:
            connection.c.queued = True
            self.again.append(connection)

    # ------------------------------------------------------------ what connections hold

    cdef void account(self, Conn* c) noexcept nogil:
        cdef size_t size
        cdef int bucket
        if c.closed:
            return
        size = conn_memory(c)
        if size == c.counted:
            return
        self.sums[c.side] += size - c.counted
        c.counted = size
        if c.side == REPLICA:
            E.exempt = self.sums[REPLICA]
        elif c.side == EVICTABLE:
            bucket = bucket_of(size)
            if bucket != c.bucket:
                self.leave_bucket(c)
                c.bucket = bucket
                c.bucket_next = self.buckets[bucket]
                if c.bucket_next != NULL:
                    c.bucket_next.bucket_prev = c
                self.buckets[bucket] = c

    cdef void leave_bucket(self, Conn* c) noexcept nogil:
        if c.bucket < 0:
            return
        if c.bucket_prev != NULL:
            c.bucket_prev.bucket_next = c.bucket_next
        else:
            self.buckets[c.bucket] = c.bucket_next
        if c.bucket_next != NULL:
            c.bucket_next.bucket_prev = c.bucket_prev
        c.bucket_prev = c.bucket_next = NULL
        c.bucket = -1

    cdef void unaccount(self, Conn* c) noexcept nogil:
        self.leave_bucket(c)
        self.sums[c.side] -= c.counted
        c.counted = 0
        if c.side == REPLICA:
            E.exempt = self.sums[REPLICA]

    cdef int evict_clients(self) except -1:
        """Closes those that hold most, until the others may stay."""
        cdef int bucket = BUCKETS - 1
        cdef Conn* c
        while bucket >= 0 and self.sums[EVICTABLE] > self.client_limit:
            c = self.buckets[bucket]
            if c == NULL:
                bucket -= 1
                continue
            self.on_evict(<object>c.owner)
            self.close(c)
        return 0

    @property
    def client_bytes(self):
        """(of those that may be evicted, of those that may not, of replicas)."""
        return self.sums[EVICTABLE], self.sums[KEPT], self.sums[REPLICA]

    # ------------------------------------------------------------ sending

    cdef void lend(self, Conn* c) noexcept nogil:
        """A connection without unsent output writes into the engine's buffer."""
        cdef Out* out = &c.port.out
        if out.data == NULL and not self.scratch_lent:
            if self.scratch_out.data == NULL:
                self.scratch_out.data = <uint8_t*>mem_alloc(SCRATCH)
                self.scratch_out.capacity = SCRATCH
            out.data = self.scratch_out.data
            out.capacity = self.scratch_out.capacity
            out.lent = True
            self.scratch_lent = True

    cdef void take_back(self, Out* out) noexcept nogil:
        self.scratch_out.data = out.data  # it may have grown
        self.scratch_out.capacity = out.capacity
        if out.capacity > 4 * OUTPUT_FLUSH:
            mem_free(out.data, out.capacity)
            self.scratch_out.data = NULL
            self.scratch_out.capacity = 0
        out.data = NULL
        out.capacity = 0
        out.lent = False
        self.scratch_lent = False

    cdef int flush(self, Conn* c) except -1:
        """Sends what can be sent. What cannot waits in a buffer of the connection's own for EPOLLOUT."""
        cdef Out* out = &c.port.out
        cdef bint whole = True
        cdef size_t left
        if c.hold_end > self.synced and not (self.log_fails and c.wrote_end <= self.synced):
            return self.hold(c)
        if out.size > out.sent or out.first_part < out.nparts:
            whole = self.send_out(c, out)
            if c.closed:
                return 0
        if whole:
            out.size = out.sent = 0
            out.nparts = out.first_part = 0
            if out.lent:
                self.take_back(out)
            elif out.data != NULL:
                mem_free(out.data, out.capacity)
                out.data = NULL
                out.capacity = 0
            if out.parts != NULL:
                mem_free(out.parts, out.parts_capacity * sizeof(Part))
                out.parts = NULL
                out.parts_capacity = 0
            if c.closing:
                self.close(c)
                return 0
        if not whole and c.output_limit and out_pending(out) > c.output_limit:
            self.on_output_limit(<object>c.owner)
            self.close(c)
            return 0
        if not whole and out.lent:
            self.keep(out)
        elif not whole and out.sent > OUTPUT_FLUSH:
            left = out.size - out.sent
            memmove(out.data, out.data + out.sent, left)
            shift_parts(out)
            out.size = left
        if whole == c.writable_wanted:
            c.writable_wanted = not whole
            self.watch(c)
        if whole and c.tell_drained:
            c.tell_drained = False
            self.on_drained(<object>c.owner)
        return 0

    cdef void keep(self, Out* out) noexcept nogil:
        """What is unsent moves from the lent buffer to one of the connection's own."""
        cdef size_t left = out.size - out.sent
        cdef uint8_t* own = <uint8_t*>mem_alloc(left if left else 1)
        memcpy(own, out.data + out.sent, left)
        shift_parts(out)
        self.take_back(out)
        out.data = own
        out.capacity = left if left else 1
        out.size = left

    cdef int hold(self, Conn* c) except -1:
        """The output stands for changes that are not on the disk yet."""
        if c.port.out.lent:
            self.keep(&c.port.out)
        if not c.held:
            c.held = True
            self.held.append(<object>c.owner)
        if c.output_limit and out_pending(&c.port.out) > c.output_limit:
            self.on_output_limit(<object>c.owner)
            self.close(c)
        return 0

    def release(self, uint64_t synced):
        """The journal is on the disk up to there: output that waited for it leaves."""
        cdef list waiting
        cdef Link connection
        self.synced = synced
        waiting, self.held = self.held, []
        for connection in waiting:
            if connection.c == &GONE:
                continue
            connection.c.held = False
            if not connection.c.closed:
                self.flush(connection.c)

    cdef bint send_out(self, Conn* c, Out* out):
        """True when all went out that may at a time. Closes the connection on a broken pipe."""
        cdef iovec vectors[IOVECS]
        cdef msghdr message
        cdef ssize_t n
        cdef size_t left = SEND_AT_ONCE
        while left:
            if out.first_part == out.nparts:
                if out.sent == out.size:
                    return True
                n = send(c.fd, out.data + out.sent, out.size - out.sent, MSG_NOSIGNAL | MSG_DONTWAIT)
            else:
                memset(&message, 0, sizeof(message))
                message.msg_iov = vectors
                message.msg_iovlen = fill_vectors(out, vectors, left)
                n = sendmsg(c.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
            if n < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN:
                    self.close(c)
                return False
            c.net_out += n
            self.total_out += n
            self.writes += 1
            advance(out, n)
            left -= min(left, <size_t>n)
        return out.first_part == out.nparts and out.sent == out.size

    cdef void watch(self, Conn* c) noexcept:
        """Tells epoll what the connection waits for."""
        cdef epoll_event event
        c.readable_off = c.blocked or (c.writable_wanted and out_pending(&c.port.out) > OUTPUT_PAUSE)
        event.data.ptr = c
        event.events = EPOLLRDHUP
        if not c.readable_off:
            event.events |= EPOLLIN
        if c.writable_wanted:
            event.events |= EPOLLOUT
        epoll_ctl(self.epfd, EPOLL_CTL_MOD, c.fd, &event)

    cdef void block(self, Conn* c) noexcept:
        c.blocked = True
        self.watch(c)

    # ------------------------------------------------------------ coming and going

    cdef int attach(self, Link connection, int fd) except -1:
        cdef Conn* c = <Conn*>mem_alloc(sizeof(Conn))
        cdef epoll_event event
        memset(c, 0, sizeof(Conn))
        c.bucket = -1
        c.side = KEPT if fd < 0 else EVICTABLE
        connection.c = c
        connection.engine = self
        c.fd = fd
        c.intake.args_left = -1
        c.port.protocol = 2
        c.last_kind = -1
        c.seen_ms = G.now_ms
        c.owner = <void*>connection
        event.data.ptr = c
        event.events = EPOLLIN | EPOLLRDHUP
        if fd >= 0 and epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &event) < 0:
            mem_free(c, sizeof(Conn))
            connection.c = &GONE
            raise OSError("epoll_ctl failed")
        Py_INCREF(connection)
        self.account(c)
        return 0

    cdef int close(self, Conn* c) except -1:
        """Ends the connection at once; its memory is freed when the round is over."""
        if c.closed:
            return 0
        c.closed = True
        self.unaccount(c)
        if c.fd >= 0:
            epoll_ctl(self.epfd, EPOLL_CTL_DEL, c.fd, NULL)
            c_close(c.fd)
        c.next_dead = self.dead
        self.dead = c
        self.on_close(<object>c.owner)
        return 0

    cdef void bury(self):
        cdef Conn* c
        cdef Out* out
        cdef uint32_t i
        cdef Link connection
        while self.dead != NULL:
            c = self.dead
            self.dead = <Conn*>c.next_dead
            out = &c.port.out
            for i in range(out.first_part, out.nparts):
                blob_release(out.parts[i].blob)
            mem_free(out.parts, out.parts_capacity * sizeof(Part))
            if out.lent:
                self.take_back(out)
            mem_free(out.data, out.capacity)
            mem_free(c.data, c.capacity)
            for i in range(c.intake.argc):
                if c.intake.args[i].blob != NULL:
                    blob_release(c.intake.args[i].blob)
            drop_blob(&c.intake)
            queue_free(&c.queue)
            mem_free(c.intake.args, c.intake.args_capacity * sizeof(Arg))
            connection = <Link>c.owner
            connection.c = &GONE
            mem_free(c, sizeof(Conn))
            Py_DECREF(connection)


memset(&GONE, 0, sizeof(GONE))
GONE.closed = True
GONE.fd = -1
GONE.intake.args_left = -1
GONE.port.protocol = 2


cdef class Link:
    """What the engine knows of a client's Python object."""

    def __cinit__(self, *args, **kwargs):
        self.c = &GONE
