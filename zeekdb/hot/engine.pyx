"""The engine: sockets, batches and execution.

How a turn goes. All client sockets hang in one epoll of the engine's own; the event loop watches that single
descriptor. When it is readable, `Engine.turn` takes the ready connections one by one: one read (into a scratch buffer
that all connections share, so an idle connection owns no buffer), then parse up to BATCH commands, look each up, hash
its keys and prefetch their buckets, prefetch the entries behind them, execute in order, and write the replies at once.
A command with a twin runs without any Python object as long as its connection's and the server's gate words are 0;
any other goes to its Python handler, in its place of the batch.

Rejected: asyncio protocols (three Python calls and two queue hops a request, and no place to batch), and a thread per
core (the table would need locks; a process per hash-slot range scales without them).

Arguments of SLAB_MIN bytes and up are received straight into a blob that SET adopts, and large values are sent
from where they lie by sendmsg, holding a reference until the last byte is gone.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from zeekdb.commands.reply import BigNumber, Error, NullArray, Pairs, Push, Verbatim
from zeekdb.errors import CommandError

from zeekdb.hot cimport twins
from zeekdb.hot.keyspace cimport G, Db, db_pointer, ks_prefetch_bucket, ks_prefetch_entry
from zeekdb.hot.memory cimport SLAB_MIN, Blob, blob_new, blob_release, mem_alloc, mem_free, mem_resize
from zeekdb.hot.table cimport hash_bytes
from zeekdb.hot.wire cimport (
    TWIN_DONE, TWIN_PASS, Arg, Out, Part, Port, Twin, format_double, format_int, out_bulk, out_grow,
    out_int, out_length, out_null, out_raw, out_room, parse_int, put_length,
)

cdef extern from *:
    """
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <unistd.h>
    #if defined(__x86_64__)
    #include <x86intrin.h>
    static inline unsigned long long ticks_now(void) { return __rdtsc(); }
    #else
    static inline unsigned long long ticks_now(void) {
        struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
    #endif
    static inline long long wall_us(void) {
        struct timespec t; clock_gettime(CLOCK_REALTIME, &t); return t.tv_sec * 1000000ll + t.tv_nsec / 1000; }
    static inline long long steady_ns(void) {
        struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ll + t.tv_nsec; }
    /* How many bytes must be there before the socket counts as readable. */
    static inline void set_wake_bytes(int fd, size_t bytes) {
        int low = (int)bytes; setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low); }
    static inline int log2_of(unsigned long long v) { return v ? 63 - __builtin_clzll(v) : 0; }
    """
    struct epoll_data:
        void* ptr
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int flags) nogil
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event) nogil
    int epoll_wait(int epfd, epoll_event* events, int n, int timeout) nogil
    int EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t recv(int fd, void* data, size_t n, int flags) nogil
    ssize_t send(int fd, const void* data, size_t n, int flags) nogil
    ssize_t sendmsg(int fd, const msghdr* message, int flags) nogil
    int MSG_DONTWAIT, MSG_NOSIGNAL
    int c_close "close"(int fd) nogil
    uint64_t ticks_now() nogil
    int64_t wall_us() nogil
    int64_t steady_ns() nogil
    void set_wake_bytes(int fd, size_t bytes) nogil
    int log2_of(uint64_t v) nogil

cdef enum:
    BATCH = 128                   # commands parsed ahead of execution
    SCRATCH = 262144              # bytes read at once
    SMALL_READ = 4096             # read where a large value is expected: what it takes is copied again
    EVENTS = 256
    INLINE_LIMIT = 65536          # bytes of an inline command or of a length line, as in Redis
    ARGS_LIMIT = 2147483647
    ARGS_LIMIT_UNKNOWN = 10       # before AUTH
    BULK_LIMIT_UNKNOWN = 16384
    OUTPUT_PAUSE = 268435456      # unsent bytes at which a connection's commands wait for its reader
    OUTPUT_FLUSH = 1048576        # replies of one batch are sent in pieces of about this size
    TURN_US = 2000                # time in the engine before the event loop has its turn
    IOVECS = 64
    WAKE_BYTES = 262144           # of a large argument that are waited for at a time
    KINDS = 2048                  # places of the name table, a power of two

# Bits of the gate words; connections and the engine share the numbering.
GATE_AUTH = 1
GATE_REPLY = 2
GATE_SUBSCRIBED = 4
GATE_MULTI = 8
GATE_NO_TOUCH = 16
GATE_TRACKING = 32
GATE_ACL = 64
GATE_PAUSED = 1 << 8
GATE_LOADING = 1 << 9
GATE_READONLY = 1 << 10
GATE_OOM = 1 << 11
GATE_MONITOR = 1 << 12
GATE_SLOWLOG = 1 << 13
GATE_JOURNAL = 1 << 14
GATE_LATENCY = 1 << 15

cdef enum:
    C_AUTH = 1

# What the parser says.
cdef enum:
    MORE = 0
    COMMAND = 1
    FAULT = 2


class Deferred:
    """Returned by a handler whose reply comes later through `Connection.resume`."""


DEFERRED = Deferred()


class NoReply:
    """Returned by a handler that has written its replies itself, or owes none."""


NO_REPLY = NoReply()

# ---------------------------------------------------------------- replies of Python handlers


cdef void write_error(Out* out, bytes message):
    # A line break in an error would let data pose as replies.
    cdef bytes clean = message.replace(b"\r", b" ").replace(b"\n", b" ")
    out_raw(out, b"-", 1)
    out_raw(out, PyBytes_AS_STRING(clean), PyBytes_GET_SIZE(clean))
    out_raw(out, b"\r\n", 2)


cdef int write_float(Out* out, double value, uint8_t protocol) except -1:
    cdef uint8_t text[40]
    cdef size_t n = format_double(text, value)
    if protocol == 3:
        out_raw(out, b",", 1)
        out_raw(out, <char*>text, n)
        out_raw(out, b"\r\n", 2)
    else:
        out_bulk(out, text, n)
    return 0


cdef int write_items(Out* out, object items, uint8_t protocol) except -1:
    for item in items:
        write_reply(out, item, protocol)
    return 0


cdef int write_pairs(Out* out, object pairs, size_t n, uint8_t protocol) except -1:
    out_length(out, 37 if protocol == 3 else 42, n if protocol == 3 else 2 * n)
    for key, value in pairs:
        write_reply(out, key, protocol)
        write_reply(out, value, protocol)
    return 0


cdef int write_special(Out* out, object reply, uint8_t protocol) except -1:
    cdef bytes text
    cdef Py_buffer view
    if isinstance(reply, float):
        return write_float(out, reply, protocol)
    if isinstance(reply, (set, frozenset)):
        out_length(out, 126 if protocol == 3 else 42, len(reply))
        return write_items(out, reply, protocol)
    if isinstance(reply, NullArray):
        if protocol == 3:
            out_raw(out, b"_\r\n", 3)
        else:
            out_raw(out, b"*-1\r\n", 5)
    elif isinstance(reply, Pairs):
        write_pairs(out, reply.items, len(reply.items), protocol)
    elif isinstance(reply, Push):
        out_length(out, 62 if protocol == 3 else 42, len(reply.items))
        write_items(out, reply.items, protocol)
    elif isinstance(reply, Verbatim):
        text = reply.data
        if protocol == 3:
            kind = reply.format.encode() if isinstance(reply.format, str) else reply.format
            text = kind + b":" + text
            out_length(out, 61, len(text))
            out_raw(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
            out_raw(out, b"\r\n", 2)
        else:
            out_bulk(out, <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    elif isinstance(reply, Error):
        write_error(out, reply.message.encode("utf-8", "surrogateescape"))
    elif isinstance(reply, CommandError):
        write_error(out, reply.message.encode("utf-8", "surrogateescape"))
    elif isinstance(reply, BigNumber):
        text = str(reply.value).encode()
        if protocol == 3:
            out_raw(out, b"(", 1)
            out_raw(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
            out_raw(out, b"\r\n", 2)
        else:
            out_bulk(out, <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    elif isinstance(reply, bool):
        if protocol == 3:
            out_raw(out, b"#t\r\n" if reply else b"#f\r\n", 4)
        else:
            out_int(out, 1 if reply else 0)
    elif isinstance(reply, (bytearray, memoryview)):
        text = bytes(reply)
        out_bulk(out, <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    else:
        raise TypeError(f"a handler returned {type(reply).__name__}")
    return 0


cdef int write_reply(Out* out, object reply, uint8_t protocol) except -1:
    """The RESP form of what a handler returned; the types are listed in docs/ARCHITECTURE.md."""
    cdef bytes text
    kind = type(reply)
    if reply is None:
        out_null(out, protocol)
    elif kind is bytes:
        out_bulk(out, <const uint8_t*>PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))
    elif kind is int:
        out_int(out, reply)
    elif kind is str:
        text = (<str>reply).encode("utf-8", "surrogateescape")
        out_raw(out, b"+", 1)
        out_raw(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        out_raw(out, b"\r\n", 2)
    elif kind is list:
        out_length(out, 42, len(<list>reply))
        write_items(out, reply, protocol)
    elif kind is tuple:
        out_length(out, 42, len(<tuple>reply))
        write_items(out, reply, protocol)
    elif kind is dict:
        write_pairs(out, (<dict>reply).items(), len(<dict>reply), protocol)
    else:
        write_special(out, reply, protocol)
    return 0


# ---------------------------------------------------------------- the parser


cdef inline uint32_t name_hash(const uint8_t* p, size_t n) noexcept nogil:
    cdef uint32_t h = 2166136261U
    cdef size_t i
    for i in range(n):
        h = (h ^ p[i]) * 16777619U
    return h ^ (h >> 15)


cdef enum:
    LINE_BAD = -1
    LINE_MORE = 0
    LINE_OK = 1


cdef inline int read_length(uint8_t** at, uint8_t* end, int64_t* value) noexcept nogil:
    """The number of a `*` or `$` line; `at` stands behind the type byte and is moved behind CRLF."""
    cdef uint8_t* p = at[0]
    cdef uint8_t* cr
    cdef int64_t v = 0
    cdef uint8_t d
    while p < end and p - at[0] < 10:
        d = p[0] - 48
        if d > 9:
            break
        v = v * 10 + d
        p += 1
    if p + 1 < end and p[0] == 13 and p > at[0] and (at[0][0] != 48 or p - at[0] == 1):
        value[0] = v
        at[0] = p + 2
        return LINE_OK
    cr = <uint8_t*>memchr(at[0], 13, end - at[0])
    if cr == NULL or cr + 1 >= end:
        return LINE_MORE
    if not parse_int(at[0], cr - at[0], value):
        return LINE_BAD
    at[0] = cr + 2
    return LINE_OK


@cython.final
cdef class Engine:
    """The reactor over one keyspace. Not thread-safe: everything happens on the event loop's thread."""

    cdef int epfd
    cdef uint8_t* scratch_in
    cdef Out scratch_out
    cdef Kind* kinds[KINDS]
    cdef list handlers
    cdef list names
    cdef Kind** by_index
    cdef int kind_count
    cdef Arg* args
    cdef uint32_t args_capacity
    cdef uint32_t args_used
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
    cdef public long long bulk_limit
    cdef public unsigned long long error_replies
    cdef public double ticks_per_us
    cdef uint64_t slow_ticks
    cdef readonly bint in_turn
    cdef const char* fault
    cdef uint8_t fault_byte
    cdef bint blobs_held
    cdef bint scratch_lent

    def __cinit__(self, keyspace):
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd < 0:
            raise OSError("epoll_create1 failed")
        self.scratch_in = <uint8_t*>malloc(SCRATCH)
        self.args_capacity = 4096
        self.args = <Arg*>malloc(self.args_capacity * sizeof(Arg))
        self.by_index = <Kind**>calloc(KINDS, sizeof(void*))
        self.handlers = []
        self.names = []
        self.again = []
        self.keyspace = keyspace
        self.query_limit = 1 << 30
        self.bulk_limit = 512 << 20
        self.calibrate()

    def __dealloc__(self):
        cdef int i
        for i in range(self.kind_count):
            free(self.by_index[i])
        free(self.by_index)
        free(self.args)
        free(self.scratch_in)
        mem_free(self.scratch_out.data, self.scratch_out.capacity)
        if self.epfd >= 0:
            c_close(self.epfd)

    cdef void calibrate(self):
        """How many ticks the time stamp counter makes in a microsecond, over a millisecond of waiting."""
        cdef int64_t begin = steady_ns()
        cdef uint64_t ticks = ticks_now()
        while steady_ns() - begin < 1000000:
            pass
        self.ticks_per_us = (ticks_now() - ticks) * 1000.0 / (steady_ns() - begin)

    def fileno(self):
        """The descriptor that becomes readable when a turn has work."""
        return self.epfd

    # ------------------------------------------------------------ commands

    def register(self, str name, int arity, unsigned int flags, tuple keys, object handler, str twin, bint callable=True):
        """Makes a command known; `keys` is (first, last, step) or (0, 0, 0). Returns its index.

        A subcommand is registered for its statistics only (callable=False): clients cannot call it by that name.
        """
        cdef bytes upper = name.upper().encode()
        cdef Kind* kind
        if len(upper) > 31 or self.kind_count >= KINDS // 2:
            raise ValueError(name)
        kind = <Kind*>calloc(1, sizeof(Kind))
        memcpy(kind.name, PyBytes_AS_STRING(upper), len(upper))
        kind.name_size = len(upper)
        kind.arity = arity
        kind.flags = flags
        kind.first_key, kind.last_key, kind.key_step = keys
        kind.twin = twins.find(twin.encode()) if twin else NULL
        if twin and kind.twin == NULL:
            twin = ""
        kind.handler = <void*>handler
        kind.index = self.kind_count
        self.handlers.append(handler)
        self.names.append(name)
        self.by_index[self.kind_count] = kind
        self.kind_count += 1
        if callable:
            self.place(kind)
        return kind.index

    cdef void place(self, Kind* kind):
        cdef uint32_t i = name_hash(kind.name, kind.name_size)
        while self.kinds[i & (KINDS - 1)] != NULL:
            i += 1
        self.kinds[i & (KINDS - 1)] = kind

    def use_twins(self, bint wanted, dict twin_of):
        """Switches all twins off or on; tests demand equal answers both ways."""
        cdef int i
        for i in range(self.kind_count):
            name = twin_of.get(self.names[i], "")
            self.by_index[i].twin = twins.find(name.encode()) if wanted and name else NULL

    cdef Kind* lookup(self, const uint8_t* p, size_t n) noexcept nogil:
        cdef uint8_t upper[32]
        cdef size_t i
        cdef uint32_t at
        cdef Kind* kind
        if n > 31:
            return NULL
        for i in range(n):
            upper[i] = p[i] - 32 if 97 <= p[i] <= 122 else p[i]
        at = name_hash(upper, n)
        while True:
            kind = self.kinds[at & (KINDS - 1)]
            if kind == NULL or (kind.name_size == n and memcmp(kind.name, upper, n) == 0):
                return kind
            at += 1

    def command_stats(self, int index):
        """(calls, microseconds, rejected, failed, histogram by log2 of ticks) of the command at `index`."""
        cdef Kind* kind = self.by_index[index]
        cdef int i
        return (kind.calls, kind.ticks / self.ticks_per_us, kind.rejected, kind.failed,
                [kind.histogram[i] for i in range(40)])

    def count_call(self, int index, double us, bint failed=False, bint rejected=False):
        """Adds a call made outside the engine (a subcommand, a script) to the statistics."""
        cdef Kind* kind = self.by_index[index]
        if rejected:
            kind.rejected += 1
            return
        kind.calls += 1
        kind.ticks += <uint64_t>(us * self.ticks_per_us)
        kind.histogram[min(log2_of(<uint64_t>(us * self.ticks_per_us)), 39)] += 1
        if failed:
            kind.failed += 1

    def count_outcome(self, int index, bint failed, bint rejected):
        """Marks the call under way as failed or rejected; the engine itself counts and times it."""
        cdef Kind* kind = self.by_index[index]
        if failed:
            kind.failed += 1
        if rejected:
            kind.rejected += 1
            kind.calls -= 1

    def reset_stats(self):
        cdef int i
        for i in range(self.kind_count):
            self.by_index[i].calls = self.by_index[i].ticks = 0
            self.by_index[i].rejected = self.by_index[i].failed = 0
            memset(self.by_index[i].histogram, 0, sizeof(self.by_index[i].histogram))
        self.total_commands = self.total_in = self.total_out = self.reads = self.writes = self.error_replies = 0

    # ------------------------------------------------------------ the turn

    def turn(self):
        """Serves the ready connections, round after round while there are any, for at most TURN_US."""
        cdef int i, n
        cdef int64_t begin = wall_us()
        cdef int64_t now = begin
        cdef Conn* c
        cdef uint32_t what
        self.in_turn = True
        try:
            while True:
                n = epoll_wait(self.epfd, self.events, EVENTS, 0)
                if n <= 0:
                    break
                self.set_clock(now)
                for i in range(n):
                    c = <Conn*>self.events[i].data.ptr
                    what = self.events[i].events
                    if not c.closed:
                        self.serve(c, what)
                if self.again:
                    self.run_again()
                if self.dead != NULL:
                    self.bury()
                now = wall_us()
                if now - begin > TURN_US:
                    break
        finally:
            self.in_turn = False
            if self.dead != NULL:
                self.bury()

    cdef void set_clock(self, int64_t now_us) noexcept:
        G.now_ms = now_us // 1000
        if not G.touch_lfu:
            G.clock = <uint32_t>((now_us // 1000000) & 0xFFFFFF)

    def tick(self):
        """Sets the keyspace's clock outside a turn (timers, tests)."""
        self.set_clock(wall_us())

    cdef int serve(self, Conn* c, uint32_t what) except -1:
        cdef object owner = <object>c.owner  # stays alive while its commands run
        try:
            if what & EPOLLOUT:
                self.flush(c)
                if not c.closed and not c.writable_wanted and c.size and not c.blocked:
                    self.process(c, c.data, c.size, True)
            if c.closed:
                return 0
            if what & EPOLLIN and not c.readable_off:
                self.receive(c)
            elif what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                self.close(c)
        except Exception as exc:
            # Our own bug: this connection ends, the others and the data stay.
            self.close(c)
            self.on_bug(owner, -1, exc)
        return 0

    cdef int run_again(self) except -1:
        """Connections that another one's command has given output or set free."""
        cdef list waiting
        cdef Connection connection
        cdef Conn* c
        while self.again:
            waiting, self.again = self.again, []
            for connection in waiting:
                c = connection.c
                c.queued = False
                if c.closed:
                    continue
                if c.blocked or c.writable_wanted or c.size == 0:
                    self.flush(c)
                else:
                    self.process(c, c.data, c.size, True)
        return 0

    cdef void wake(self, Connection connection):
        """Have the connection's output sent and its waiting commands run, soon."""
        if not connection.c.queued and not connection.c.closed:
            connection.c.queued = True
            self.again.append(connection)

    def settle(self):
        """Outside a turn: sends what timers and other tasks have written to connections."""
        cdef bint outer = self.in_turn
        if outer:
            return
        self.in_turn = True
        try:
            if self.again:
                self.run_again()
        finally:
            self.in_turn = False
            if self.dead != NULL:
                self.bury()

    # ------------------------------------------------------------ receiving

    cdef int receive(self, Conn* c) except -1:
        cdef ssize_t n
        cdef size_t want
        if c.blob != NULL:
            return self.receive_blob(c)
        if c.size == 0:
            want = SMALL_READ if c.expect_big else SCRATCH
            c.expect_big = False
            n = recv(c.fd, self.scratch_in, want, MSG_DONTWAIT)
            if not self.received(c, n):
                return 0
            return self.process(c, self.scratch_in, n, False)
        want = SMALL_READ if c.expect_big else (c.size if c.size > SCRATCH else 65536)
        c.expect_big = False
        if c.capacity - c.size < want:
            c.data = <uint8_t*>mem_resize(c.data, c.capacity, c.size + want)
            c.capacity = c.size + want
        n = recv(c.fd, c.data + c.size, c.capacity - c.size, MSG_DONTWAIT)
        if not self.received(c, n):
            return 0
        c.size += n
        if <int64_t>(c.size + c.blob_bytes) > self.query_limit:
            self.close(c)
            return 0
        return self.process(c, c.data, c.size, True)

    cdef bint received(self, Conn* c, ssize_t n):
        """Books what recv said; False when there is nothing to process."""
        if n > 0:
            c.net_in += n
            self.total_in += n
            self.reads += 1
            c.seen_ms = G.now_ms
            return True
        if n == 0 or (errno != EAGAIN and errno != EINTR):
            self.close(c)
        return False

    cdef int receive_blob(self, Conn* c) except -1:
        """Reads the rest of a large argument into its blob, and no byte beyond it."""
        cdef ssize_t n = recv(c.fd, c.blob.data + c.blob.size, c.blob_want - c.blob.size, MSG_DONTWAIT)
        if not self.received(c, n):
            return 0
        c.blob.size += n
        if <int64_t>(c.size + c.blob_bytes + c.blob.size) > self.query_limit:
            self.close(c)
            return 0
        if c.blob.size < c.blob_want:
            if c.blob_want - c.blob.size < WAKE_BYTES:
                set_wake_bytes(c.fd, c.blob_want - c.blob.size)
            return 0
        set_wake_bytes(c.fd, 1)
        return self.process(c, c.data, c.size, True)

    cdef int process(self, Conn* c, uint8_t* data, size_t size, bint owned) except -1:
        """Parses and executes what is there, batch by batch; keeps what is left over; sends the replies."""
        cdef size_t used = 0
        cdef uint32_t n, done
        cdef int state = COMMAND
        self.lend(c)
        while state == COMMAND and not c.closed and not c.closing and not c.blocked:
            n = 0
            self.args_used = 0
            while n < BATCH:
                state = self.parse(c, data, size, &used, &self.requests[n])
                if state != COMMAND:
                    break
                if self.requests[n].argc:  # an empty line is no command
                    n += 1
                    if c.gate & C_AUTH:  # what may follow depends on what it does
                        break
            if n:
                done = self.run(c, n)
                if self.blobs_held:
                    self.release_blobs()
                if done < n:  # blocked or closing: what was parsed ahead goes back
                    used = self.requests[done].start
                    self.forget_half(c)
                    state = MORE
                    break
            if state == COMMAND and pending(&c.port.out) > OUTPUT_FLUSH:
                self.flush(c)
                if c.closed:
                    return 0
                if pending(&c.port.out) > OUTPUT_PAUSE:
                    break
                self.lend(c)
        if c.closed:
            return 0
        if state == FAULT:
            self.drop_half(c)
            self.protocol_error(c)
            used = size
        self.keep_tail(c, data + used, size - used if c.half_end == 0 else c.half_end, owned)
        return self.flush(c)

    cdef void keep_tail(self, Conn* c, uint8_t* tail, size_t n, bint owned) noexcept:
        """The bytes not consumed move to the front of the connection's own buffer; none, no buffer."""
        if c.closing:
            n = 0
        if n == 0:
            if c.data != NULL:
                mem_free(c.data, c.capacity)
                c.data = NULL
                c.size = c.capacity = 0
            return
        if owned:
            if tail != c.data:
                memmove(c.data, tail, n)
        else:
            if c.capacity < n:
                mem_free(c.data, c.capacity)
                c.data = <uint8_t*>mem_alloc(n)
                c.capacity = n
            memcpy(c.data, tail, n)
        c.size = n

    cdef void protocol_error(self, Conn* c):
        cdef bytes message = self.fault
        if b"%c" in message:
            message = message.replace(b"%c", bytes([self.fault_byte]))
        text = "ERR Protocol error: " + message.decode("latin-1")
        self.on_error(<object>c.owner, -1, CommandError(text))
        write_error(&c.port.out, text.encode("latin-1"))
        c.closing = True

    # ------------------------------------------------------------ parsing

    cdef inline Arg* next_arg(self) noexcept nogil:
        cdef Arg* arg
        if self.args_used == self.args_capacity:
            self.args = <Arg*>realloc(self.args, self.args_capacity * 2 * sizeof(Arg))
            self.args_capacity *= 2
        arg = &self.args[self.args_used]
        self.args_used += 1
        return arg

    cdef int refuse(self, const char* why, uint8_t byte) noexcept nogil:
        self.fault = why
        self.fault_byte = byte
        return FAULT

    cdef int parse(self, Conn* c, uint8_t* data, size_t size, size_t* used, Request* r) noexcept nogil:
        """The next command of data[used:size]. MORE keeps the state of a half command in the connection."""
        cdef uint8_t* start = data + used[0]
        cdef uint8_t* end = data + size
        cdef uint8_t* p = start
        cdef int64_t left, n = -1
        cdef uint8_t* start_line
        cdef int line
        cdef Arg* arg
        r.start = used[0]
        r.first = self.args_used
        r.argc = 0
        if c.args_left >= 0:
            left = c.args_left
            n = c.bulk
            if c.blob != NULL:  # complete: receive_blob has seen to it
                left -= 1
                n = -1
            p = self.recall_half(c, start)
        else:
            if p >= end:
                return MORE
            if p[0] != 42:
                return self.parse_inline(c, start, end, used, r)
            p += 1
            line = read_length(&p, end, &left)
            if line == LINE_MORE:
                return self.refuse(b"too big mbulk count string", 0) if end - start > INLINE_LIMIT else MORE
            if line == LINE_BAD or left > ARGS_LIMIT:
                return self.refuse(b"invalid multibulk length", 0)
            if left > ARGS_LIMIT_UNKNOWN and c.gate & C_AUTH:
                return self.refuse(b"unauthenticated multibulk length", 0)
            if left <= 0:
                used[0] = p - data
                return COMMAND
        while left > 0:
            if n < 0:
                if p >= end:
                    return self.keep_half(c, r, start, p, left, -1)
                if p[0] != 36:
                    return self.refuse(b"expected '$', got '%c'", p[0])
                start_line = p
                p += 1
                line = read_length(&p, end, &n)
                if line == LINE_MORE:
                    if end - p > INLINE_LIMIT:
                        return self.refuse(b"too big bulk count string", 0)
                    return self.keep_half(c, r, start, start_line, left, -1)
                if line == LINE_BAD or n < 0 or n > self.bulk_limit:
                    return self.refuse(b"invalid bulk length", 0)
                if n > BULK_LIMIT_UNKNOWN and c.gate & C_AUTH:
                    return self.refuse(b"unauthenticated bulk length", 0)
            if end - p < n + 2:
                if n >= SLAB_MIN:
                    self.begin_blob(c, p, end, n)
                return self.keep_half(c, r, start, p, left, n)
            arg = self.next_arg()
            arg.p = p
            arg.n = n
            arg.blob = NULL
            p += n + 2
            n = -1
            left -= 1
        r.argc = self.args_used - r.first
        used[0] = p - data
        self.forget_half(c)
        return COMMAND

    cdef void begin_blob(self, Conn* c, uint8_t* p, uint8_t* end, int64_t n) noexcept nogil:
        """What is there of a large argument moves to a blob; the rest will be received into it."""
        c.blob = blob_new(n + 2)
        c.blob_want = n + 2
        memcpy(c.blob.data, p, end - p)
        c.blob.size = end - p
        c.expect_big = True
        # Few wake-ups with much to copy cost less than many with little.
        set_wake_bytes(c.fd, min(c.blob_want - c.blob.size, WAKE_BYTES))

    cdef int keep_half(self, Conn* c, Request* r, uint8_t* start, uint8_t* p, int64_t left, int64_t bulk) noexcept nogil:
        """Keeps the parser's place, so that a command that comes in a thousand pieces is read once."""
        cdef uint32_t i, argc = self.args_used - r.first
        cdef uint32_t capacity
        if argc > c.args_capacity:
            capacity = argc + argc // 2 + 4
            c.args = <Arg*>mem_resize(c.args, c.args_capacity * sizeof(Arg), capacity * sizeof(Arg))
            c.args_capacity = capacity
        for i in range(argc):
            c.args[i] = self.args[r.first + i]
            if c.args[i].blob == NULL:
                c.args[i].p = <uint8_t*><size_t>(c.args[i].p - start)
        c.argc = argc
        c.args_left = left
        c.bulk = bulk
        c.parsed = p - start
        c.half_end = c.parsed if c.blob != NULL else 0
        self.args_used = r.first
        return MORE

    cdef uint8_t* recall_half(self, Conn* c, uint8_t* start) noexcept nogil:
        """Puts the arguments of a half command back; a blob just completed becomes the next."""
        cdef uint32_t i
        cdef Arg* arg
        for i in range(c.argc):
            arg = self.next_arg()
            arg[0] = c.args[i]
            if arg.blob == NULL:
                arg.p = start + <size_t>arg.p
            else:
                self.blobs_held = True
        c.half_end = 0
        if c.blob != NULL:
            arg = self.next_arg()
            c.blob.size -= 2
            arg.p = c.blob.data
            arg.n = c.blob.size
            arg.blob = c.blob
            c.blob_bytes += c.blob.size
            c.blob = NULL
            self.blobs_held = True
        return start + c.parsed

    cdef void forget_half(self, Conn* c) noexcept nogil:
        if c.args_left >= 0:
            c.args_left = -1
            c.argc = 0
            c.half_end = 0
            c.blob_bytes = 0
            if c.args_capacity:
                mem_free(c.args, c.args_capacity * sizeof(Arg))
                c.args = NULL
                c.args_capacity = 0

    cdef void drop_half(self, Conn* c) noexcept nogil:
        """A command that turned out wrong: its large arguments go."""
        cdef uint32_t i
        for i in range(self.args_used):
            if self.args[i].blob != NULL:
                blob_release(self.args[i].blob)
        self.args_used = 0
        self.blobs_held = False
        self.forget_half(c)

    cdef void release_blobs(self) noexcept nogil:
        """Drops the arguments' blobs that no twin has adopted. Only the first command of a batch can have some."""
        cdef uint32_t i
        for i in range(self.requests[0].argc):
            if self.args[i].blob != NULL:
                blob_release(self.args[i].blob)
                self.args[i].blob = NULL
        self.blobs_held = False

    cdef int parse_inline(self, Conn* c, uint8_t* start, uint8_t* end, size_t* used, Request* r) noexcept nogil:
        """A line of words, as typed into telnet; quotes and escapes as in Redis."""
        cdef uint8_t* lf = <uint8_t*>memchr(start, 10, end - start)
        cdef uint8_t* p = start
        cdef uint8_t* stop
        cdef Arg* arg
        if lf == NULL:
            return self.refuse(b"too big inline request", 0) if end - start > INLINE_LIMIT else MORE
        stop = lf - 1 if lf > start and lf[-1] == 13 else lf
        while True:
            while p < stop and is_space(p[0]):
                p += 1
            if p >= stop:
                break
            arg = self.next_arg()
            arg.blob = NULL
            p = inline_word(p, stop, arg)
            if p == NULL:
                return self.refuse(b"unbalanced quotes in request", 0)
        r.argc = self.args_used - r.first
        used[0] += lf + 1 - start
        return COMMAND

    # ------------------------------------------------------------ executing

    cdef uint32_t run(self, Conn* c, uint32_t n) except? 0xFFFFFFFF:
        """Executes a batch; how many commands were taken (fewer when the connection blocked or closes)."""
        cdef uint32_t i, run_begin = 0
        cdef Request* r
        cdef Kind* kind
        cdef Kind* running = NULL
        cdef uint64_t begin = 0
        cdef Db* db = c.port.db
        self.look_ahead(c, n)
        for i in range(n):
            r = &self.requests[i]
            kind = r.kind
            if kind != running:
                if running != NULL:
                    begin = self.book(c, running, begin, i - run_begin, &self.requests[i - 1])
                else:
                    begin = ticks_now()
                running = kind
                run_begin = i
            if kind != NULL and kind.twin != NULL and (c.gate | self.gate) == 0 and (
                kind.arity == <int>r.argc or (kind.arity < 0 and <int>r.argc >= -kind.arity)
            ):
                if kind.twin(&c.port, &self.args[r.first], r.argc) == TWIN_DONE:
                    continue
            if running != NULL and i > run_begin:
                begin = self.book(c, running, begin, i - run_begin, &self.requests[i - 1])
            running = NULL
            self.call(c, r)
            if c.closed or c.closing or c.blocked:
                n = i + 1
                break
        if running != NULL:
            self.book(c, running, begin, n - run_begin, &self.requests[n - 1])
        c.commands += n
        self.total_commands += n
        if running != NULL:
            c.last_kind = kind.index
        return n

    cdef void look_ahead(self, Conn* c, uint32_t n) noexcept nogil:
        """Finds the commands, hashes their keys, and asks for the cache lines that they will need."""
        cdef uint32_t i, k, last
        cdef Request* r
        cdef Arg* argv
        cdef Kind* kind = NULL
        cdef Db* db = c.port.db
        for i in range(n):
            r = &self.requests[i]
            argv = &self.args[r.first]
            if kind == NULL or argv.n != kind.name_size or memcmp(argv.p, kind.name, argv.n) != 0:
                kind = self.lookup(argv.p, argv.n)
            r.kind = kind
            if kind == NULL or kind.first_key == 0 or kind.twin == NULL:
                continue
            last = kind.last_key if kind.last_key > 0 else r.argc - 1
            if last >= r.argc:
                last = r.argc - 1
            k = kind.first_key
            while k <= last:
                argv[k].hash = hash_bytes(argv[k].p, argv[k].n)
                ks_prefetch_bucket(db, argv[k].hash)
                k += kind.key_step
        if self.args_used < 5:
            return
        for i in range(n):
            r = &self.requests[i]
            kind = r.kind
            if kind == NULL or kind.first_key == 0 or kind.twin == NULL:
                continue
            argv = &self.args[r.first]
            last = kind.last_key if kind.last_key > 0 else r.argc - 1
            if last >= r.argc:
                last = r.argc - 1
            k = kind.first_key
            while k <= last:
                ks_prefetch_entry(db, argv[k].hash)
                k += kind.key_step

    cdef uint64_t book(self, Conn* c, Kind* kind, uint64_t begin, uint32_t n, Request* last):
        """Counts n calls of a kind that ran one after the other since `begin`."""
        cdef uint64_t now = ticks_now()
        cdef uint64_t spent = now - begin
        kind.calls += n
        kind.ticks += spent
        kind.histogram[min(log2_of(spent // n), 39)] += n
        if spent > self.slow_ticks and self.slow_ticks:
            self.on_slow(<object>c.owner, kind.index, self.list_args(last), spent / self.ticks_per_us)
        return now

    @property
    def slow_us(self):
        """Calls that take longer are reported to on_slow; 0: none."""
        return self.slow_ticks / self.ticks_per_us

    @slow_us.setter
    def slow_us(self, double us):
        self.slow_ticks = <uint64_t>(us * self.ticks_per_us)
        if us > 0 and self.slow_ticks == 0:
            self.slow_ticks = 1

    cdef list list_args(self, Request* r):
        cdef uint32_t i
        cdef Arg* argv = &self.args[r.first]
        return [PyBytes_FromStringAndSize(<char*>argv[i].p, argv[i].n) for i in range(r.argc)]

    cdef int call(self, Conn* c, Request* r) except -1:
        """One command in Python."""
        cdef Connection owner = <Connection>c.owner
        cdef Kind* kind = r.kind
        cdef list args = self.list_args(r)
        cdef int index = kind.index if kind != NULL else -1
        cdef size_t size = c.port.out.size
        cdef uint32_t nparts = c.port.out.nparts
        cdef uint64_t begin = ticks_now(), spent
        c.last_kind = index
        try:
            if kind == NULL:
                reply = self.on_unknown(owner, args)
            elif c.gate | self.gate:
                reply = self.on_gate(owner, index, args)
            elif kind.arity != <int>r.argc and (kind.arity > 0 or <int>r.argc < -kind.arity):
                raise CommandError(f"ERR wrong number of arguments for '{self.names[index].lower()}' command")
            else:
                args[0] = owner.ctx
                reply = (<object>kind.handler)(*args)
            if reply is DEFERRED:
                self.block(c)
            elif reply is not NO_REPLY:
                write_reply(&c.port.out, reply, c.port.protocol)
        except CommandError as exc:
            self.rewind(c, size, nparts)
            if kind != NULL:
                if c.gate | self.gate == 0 and kind.arity != <int>r.argc and (
                    kind.arity > 0 or <int>r.argc < -kind.arity
                ):
                    kind.rejected += 1
                    kind.calls -= 1
                else:
                    kind.failed += 1
            self.error_replies += 1
            self.on_error(owner, index, exc)
            write_error(&c.port.out, exc.message.encode("utf-8", "surrogateescape"))
        except Exception as exc:
            self.rewind(c, size, nparts)
            self.error_replies += 1
            self.on_bug(owner, index, exc)
            write_error(&c.port.out, b"ERR internal error, see the server's log")
        if kind != NULL:
            spent = ticks_now() - begin
            kind.calls += 1
            kind.ticks += spent
            kind.histogram[min(log2_of(spent), 39)] += 1
            if spent > self.slow_ticks and self.slow_ticks:
                self.on_slow(owner, index, self.list_args(r), spent / self.ticks_per_us)
        return 0

    cdef void rewind(self, Conn* c, size_t size, uint32_t nparts) noexcept nogil:
        """Takes back what a failed handler had begun to answer."""
        cdef Out* out = &c.port.out
        while out.nparts > nparts:
            out.nparts -= 1
            out.part_bytes -= out.parts[out.nparts].blob.size
            blob_release(out.parts[out.nparts].blob)
        if out.size > size:
            out.size = size

    cdef void block(self, Conn* c) noexcept:
        c.blocked = True
        self.watch(c)

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
        cdef uint8_t* own
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
        if not whole and c.output_limit and pending(out) > c.output_limit:
            self.on_output_limit(<object>c.owner)
            self.close(c)
            return 0
        if not whole and out.lent:
            left = out.size - out.sent
            own = <uint8_t*>mem_alloc(left if left else 1)
            memcpy(own, out.data + out.sent, left)
            self.shift_parts(out)
            self.take_back(out)
            out.data = own
            out.capacity = left if left else 1
            out.size = left
        elif not whole and out.sent > OUTPUT_FLUSH:
            left = out.size - out.sent
            memmove(out.data, out.data + out.sent, left)
            self.shift_parts(out)
            out.size = left
        if whole == c.writable_wanted:
            c.writable_wanted = not whole
            self.watch(c)
        return 0

    cdef void shift_parts(self, Out* out) noexcept nogil:
        """The small bytes sent are dropped: parts stand that much nearer to the begin."""
        cdef uint32_t i
        for i in range(out.first_part, out.nparts):
            out.parts[i].at = out.parts[i].at - out.sent
        out.sent = 0

    cdef bint send_out(self, Conn* c, Out* out):
        """True when all went out. Closes the connection on a broken pipe."""
        cdef iovec vectors[IOVECS]
        cdef msghdr message
        cdef ssize_t n
        while True:
            if out.first_part == out.nparts:
                if out.sent == out.size:
                    return True
                n = send(c.fd, out.data + out.sent, out.size - out.sent, MSG_NOSIGNAL | MSG_DONTWAIT)
            else:
                memset(&message, 0, sizeof(message))
                message.msg_iov = vectors
                message.msg_iovlen = fill_vectors(out, vectors)
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

    cdef void watch(self, Conn* c) noexcept:
        """Tells epoll what the connection waits for."""
        cdef epoll_event event
        c.readable_off = c.blocked or (c.writable_wanted and pending(&c.port.out) > OUTPUT_PAUSE)
        event.data.ptr = c
        event.events = EPOLLRDHUP
        if not c.readable_off:
            event.events |= EPOLLIN
        if c.writable_wanted:
            event.events |= EPOLLOUT
        epoll_ctl(self.epfd, EPOLL_CTL_MOD, c.fd, &event)

    # ------------------------------------------------------------ coming and going

    cdef int attach(self, Connection connection, int fd) except -1:
        cdef Conn* c = <Conn*>calloc(1, sizeof(Conn))
        cdef epoll_event event
        connection.c = c
        connection.engine = self
        c.fd = fd
        c.args_left = -1
        c.port.protocol = 2
        c.last_kind = -1
        c.seen_ms = G.now_ms
        c.owner = <void*>connection
        event.data.ptr = c
        event.events = EPOLLIN | EPOLLRDHUP
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &event) < 0:
            free(c)
            connection.c = NULL
            raise OSError("epoll_ctl failed")
        Py_INCREF(connection)
        return 0

    cdef int close(self, Conn* c) except -1:
        """Ends the connection at once; its memory is freed when the round is over."""
        if c.closed:
            return 0
        c.closed = True
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
        cdef Connection connection
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
            for i in range(c.argc):
                if c.args[i].blob != NULL:
                    blob_release(c.args[i].blob)
            if c.blob != NULL:
                blob_release(c.blob)
            mem_free(c.args, c.args_capacity * sizeof(Arg))
            connection = <Connection>c.owner
            connection.c = &GONE
            free(c)
            Py_DECREF(connection)


cdef Conn GONE  # what a closed connection's Python object looks at
memset(&GONE, 0, sizeof(GONE))
GONE.closed = True
GONE.fd = -1
GONE.args_left = -1
GONE.port.protocol = 2


cdef inline size_t pending(Out* out) noexcept nogil:
    return out.size - out.sent + out.part_bytes


cdef size_t fill_vectors(Out* out, iovec* vectors) noexcept nogil:
    """The next pieces to send, small bytes and parts in their order; how many."""
    cdef size_t at = out.sent, n = 0
    cdef uint32_t i = out.first_part
    cdef Part* part
    while n + 2 <= IOVECS:
        if i == out.nparts:
            if at < out.size:
                vectors[n].iov_base = out.data + at
                vectors[n].iov_len = out.size - at
                n += 1
            break
        part = &out.parts[i]
        if part.at > at:
            vectors[n].iov_base = out.data + at
            vectors[n].iov_len = part.at - at
            n += 1
            at = part.at
        vectors[n].iov_base = part.blob.data + part.sent
        vectors[n].iov_len = part.blob.size - part.sent
        n += 1
        i += 1
    return n


cdef void advance(Out* out, size_t n) noexcept nogil:
    """Books n bytes as sent and lets go of the parts that are through."""
    cdef Part* part
    cdef size_t step
    while n:
        if out.first_part == out.nparts:
            out.sent += n
            return
        part = &out.parts[out.first_part]
        if out.sent < part.at:
            step = part.at - out.sent
            if step > n:
                step = n
            out.sent += step
            n -= step
            continue
        step = part.blob.size - part.sent
        if step > n:
            step = n
        part.sent += step
        out.part_bytes -= step
        n -= step
        if part.sent == part.blob.size:
            blob_release(part.blob)
            out.first_part += 1


cdef inline bint is_space(uint8_t b) noexcept nogil:
    return b == 32 or 9 <= b <= 13 or b == 0


cdef inline int hex_digit(uint8_t b) noexcept nogil:
    if 48 <= b <= 57:
        return b - 48
    b |= 32
    if 97 <= b <= 102:
        return b - 87
    return -1


cdef uint8_t* inline_word(uint8_t* p, uint8_t* end, Arg* arg) noexcept nogil:
    """One word, unquoted in place; where it ends, or NULL for unbalanced quotes."""
    cdef uint8_t* to = p
    cdef uint8_t quote = 0
    cdef uint8_t b
    arg.p = p
    while p < end:
        b = p[0]
        if quote:
            if b == quote:
                if p + 1 < end and not is_space(p[1]):
                    return NULL  # a closing quote must end the word
                quote = 0
                p += 1
                break
            if b == 92 and quote == 34 and p + 3 < end and p[1] == 120 and hex_digit(p[2]) >= 0 and hex_digit(p[3]) >= 0:
                to[0] = <uint8_t>(hex_digit(p[2]) * 16 + hex_digit(p[3]))
                p += 4
            elif b == 92 and quote == 34 and p + 1 < end:
                b = p[1]
                to[0] = 10 if b == 110 else 13 if b == 114 else 9 if b == 116 else 8 if b == 98 else 7 if b == 97 else b
                p += 2
            elif b == 92 and quote == 39 and p + 1 < end and p[1] == 39:
                to[0] = 39
                p += 2
            else:
                to[0] = b
                p += 1
            to += 1
            continue
        if is_space(b):
            break
        if b == 34 or b == 39:
            quote = b
            p += 1
            continue
        to[0] = b
        to += 1
        p += 1
    if quote:
        return NULL
    arg.n = to - arg.p
    return p


cdef class Connection:
    """A client's connection; the server subclasses it with what commands need to know of a client."""

    cdef Conn* c
    cdef Engine engine
    cdef public object ctx
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.c = &GONE

    def attach(self, Engine engine, int fd):
        """Hands the connected, non-blocking socket over; the engine closes it."""
        engine.attach(self, fd)

    def select(self, database):
        """Makes `database` the one that the connection's commands see."""
        self.c.port.db = db_pointer(database)

    def write(self, reply):
        """Sends a reply or push beside the ordinary ones; errors are CommandError objects."""
        if self.c.closed:
            return
        write_reply(&self.c.port.out, reply, self.c.port.protocol)
        self.engine.wake(self)

    def write_raw(self, bytes data):
        """Sends bytes as they are."""
        if self.c.closed:
            return
        out_raw(&self.c.port.out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.engine.wake(self)

    def block(self):
        """No further command runs until `resume`."""
        if not self.c.closed:
            self.engine.block(self.c)

    def resume(self, reply):
        """Answers a deferred command and lets the next ones run. NO_REPLY answers nothing."""
        if self.c.closed or not self.c.blocked:
            return
        self.c.blocked = False
        if reply is not NO_REPLY:
            write_reply(&self.c.port.out, reply, self.c.port.protocol)
        self.engine.watch(self.c)
        self.engine.wake(self)

    def close(self):
        """Ends the connection now, unsent output is lost."""
        if not self.c.closed:
            self.engine.close(self.c)

    def close_after_reply(self):
        """Ends the connection once its output is sent; it runs no further command."""
        if not self.c.closed:
            self.c.closing = True
            self.engine.wake(self)

    @property
    def closed(self):
        return self.c.closed

    @property
    def closing(self):
        return self.c.closing or self.c.closed

    @property
    def blocked(self):
        return self.c.blocked

    @property
    def gate(self):
        return self.c.gate

    @gate.setter
    def gate(self, unsigned int value):
        if self.c is not &GONE:
            self.c.gate = value

    @property
    def protocol(self):
        return self.c.port.protocol

    @protocol.setter
    def protocol(self, int value):
        if self.c is not &GONE:
            self.c.port.protocol = value

    @property
    def fd(self):
        return self.c.fd

    @property
    def query_bytes(self):
        """Bytes of input that wait."""
        return self.c.size + (self.c.blob.size if self.c.blob != NULL else 0) + self.c.blob_bytes

    @property
    def query_capacity(self):
        return self.c.capacity

    @property
    def output_bytes(self):
        """Bytes of output that wait."""
        return pending(&self.c.port.out)

    @property
    def memory_bytes(self):
        """What the connection holds: its structures and both buffers."""
        cdef Out* out = &self.c.port.out
        return (sizeof(Conn) + self.c.capacity + self.c.args_capacity * sizeof(Arg)
                + (0 if out.lent else out.capacity) + out.part_bytes
                + (self.c.blob.capacity if self.c.blob != NULL else 0) + self.c.blob_bytes)

    @property
    def output_limit(self):
        """Unsent bytes that end the connection; 0: no limit."""
        return self.c.output_limit

    @output_limit.setter
    def output_limit(self, size_t value):
        if self.c is not &GONE:
            self.c.output_limit = value

    @property
    def net_in(self):
        return self.c.net_in

    @property
    def net_out(self):
        return self.c.net_out

    @property
    def commands(self):
        return self.c.commands

    @property
    def seen_ms(self):
        """Unix ms of the last byte received."""
        return self.c.seen_ms

    @property
    def last_command_index(self):
        """Index of the last command run or running; -1: none. A container sets its subcommand's."""
        return self.c.last_kind

    @last_command_index.setter
    def last_command_index(self, int index):
        if self.c is not &GONE:
            self.c.last_kind = index
