"""The engine: sockets, batches and execution.

How a turn goes. All client sockets hang in one epoll of the engine's own; the event loop watches that single
descriptor. When it is readable, `Engine.turn` takes the ready connections one by one: one read (into a scratch buffer
that all connections share, so an idle connection owns no buffer), then parse up to BATCH commands, look each up, hash
its keys and prefetch their buckets, prefetch the entries behind them, execute in order, and write the replies at once.
A command with a twin runs without any Python object as long as its connection's and the server's gate words are 0;
any other goes to its Python handler, in its place of the batch.

Rejected: asyncio protocols (three Python calls a request and no place to batch), and a thread per core (locks).

Large arguments are received straight into a blob that SET adopts; large values are sent from where they lie.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memmove, memset

from zeekdb.errors import CommandError, Refused
from zeekdb.hot.replies import DEFERRED, NO_REPLY

from zeekdb.hot.keyspace cimport G, Db, ks_prefetch_bucket, ks_prefetch_entry
from zeekdb.hot.kinds cimport CommandTable, Kind, log2_of, ticks_now
from zeekdb.hot.memory cimport blob_release, mem_alloc, mem_free, mem_resize
from zeekdb.hot.parser cimport COMMAND, FAULT, MORE, Parser, Request, drop_half, forget_half, parse, release_blobs
from zeekdb.hot.replies cimport write_error, write_reply
from zeekdb.hot.table cimport hash_bytes
from zeekdb.hot.wire cimport IOVECS, TWIN_DONE, Arg, Out, Part, advance, fill_vectors, iovec, out_pending, shift_parts

cdef extern from *:
    """
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <time.h>
    #include <unistd.h>
    static inline long long wall_us(void) {
        struct timespec t; clock_gettime(CLOCK_REALTIME, &t); return t.tv_sec * 1000000ll + t.tv_nsec / 1000; }
    /* How many bytes must be there before the socket counts as readable. */
    static inline void set_wake_bytes(int fd, size_t bytes) {
        int low = (int)bytes; setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low); }
    """
    int epoll_create1(int flags) nogil
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event) nogil
    int epoll_wait(int epfd, epoll_event* events, int n, int timeout) nogil
    int EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t recv(int fd, void* data, size_t n, int flags) nogil
    ssize_t send(int fd, const void* data, size_t n, int flags) nogil
    ssize_t sendmsg(int fd, const msghdr* message, int flags) nogil
    int MSG_DONTWAIT, MSG_NOSIGNAL
    int c_close "close"(int fd) nogil
    int64_t wall_us() nogil
    void set_wake_bytes(int fd, size_t bytes) nogil

cdef enum:
    SCRATCH = 262144              # bytes read at once
    SMALL_READ = 4096             # read where a large value is expected: what it takes is copied again
    OUTPUT_PAUSE = 268435456      # unsent bytes at which a connection's commands wait for its reader
    OUTPUT_FLUSH = 1048576        # replies of one batch are sent in pieces of about this size
    TURN_US = 2000                # time in the engine before the event loop has its turn
    WAKE_BYTES = 262144           # of a large argument that are waited for at a time
    C_AUTH = 1                    # gates.GATE_AUTH

@cython.final
cdef class Engine(CommandTable):
    """The reactor over one keyspace. Not thread-safe: everything happens on the event loop's thread."""

    def __cinit__(self, keyspace):
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd < 0:
            raise OSError("epoll_create1 failed")
        self.scratch_in = <uint8_t*>malloc(SCRATCH)
        self.parser.args_capacity = 4096
        self.parser.args = <Arg*>malloc(self.parser.args_capacity * sizeof(Arg))
        self.again = []
        self.keyspace = keyspace
        self.query_limit = 1 << 30
        self.parser.bulk_limit = 512 << 20

    def __dealloc__(self):
        free(self.parser.args)
        free(self.scratch_in)
        mem_free(self.scratch_out.data, self.scratch_out.capacity)
        if self.epfd >= 0:
            c_close(self.epfd)

    def fileno(self):
        """The descriptor that becomes readable when a turn has work."""
        return self.epfd

    # ------------------------------------------------------------ the turn

    def reset_stats(self):
        """CONFIG RESETSTAT, as far as the engine counts."""
        self.reset_command_stats()
        self.total_commands = self.total_in = self.total_out = self.reads = self.writes = self.error_replies = 0

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
        cdef Link connection
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

    cdef void wake(self, Link connection):
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
        if c.intake.blob != NULL:
            return self.receive_blob(c)
        if c.size == 0:
            want = SMALL_READ if c.intake.expect_big else SCRATCH
            c.intake.expect_big = False
            n = recv(c.fd, self.scratch_in, want, MSG_DONTWAIT)
            if not self.received(c, n):
                return 0
            return self.process(c, self.scratch_in, n, False)
        want = SMALL_READ if c.intake.expect_big else (c.size if c.size > SCRATCH else 65536)
        c.intake.expect_big = False
        if c.capacity - c.size < want:
            c.data = <uint8_t*>mem_resize(c.data, c.capacity, c.size + want)
            c.capacity = c.size + want
        n = recv(c.fd, c.data + c.size, c.capacity - c.size, MSG_DONTWAIT)
        if not self.received(c, n):
            return 0
        c.size += n
        if <int64_t>(c.size + c.intake.blob_bytes) > self.query_limit:
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
        cdef ssize_t n = recv(c.fd, c.intake.blob.data + c.intake.blob.size, c.intake.blob_want - c.intake.blob.size, MSG_DONTWAIT)
        if not self.received(c, n):
            return 0
        c.intake.blob.size += n
        if <int64_t>(c.size + c.intake.blob_bytes + c.intake.blob.size) > self.query_limit:
            self.close(c)
            return 0
        if c.intake.blob.size < c.intake.blob_want:
            if c.intake.blob_want - c.intake.blob.size < WAKE_BYTES:
                set_wake_bytes(c.fd, c.intake.blob_want - c.intake.blob.size)
            return 0
        set_wake_bytes(c.fd, 1)
        return self.process(c, c.data, c.size, True)

    cdef int process(self, Conn* c, uint8_t* data, size_t size, bint owned) except -1:
        """Parses and executes what is there, batch by batch; keeps what is left over; sends the replies."""
        cdef size_t used = 0
        cdef uint32_t n, done
        cdef int state = COMMAND
        if c.intake.blob != NULL and c.intake.blob.size < c.intake.blob_want:
            return self.flush(c)  # output went out, or came from elsewhere, while a large argument is on its way
        self.lend(c)
        while state == COMMAND and not c.closed and not c.closing and not c.blocked:
            n = 0
            self.parser.args_used = 0
            c.intake.limited = c.gate & C_AUTH
            while n < BATCH:
                state = parse(&self.parser, &c.intake, data, size, &used, &self.requests[n])
                if state != COMMAND:
                    break
                if self.requests[n].argc:  # an empty line is no command
                    n += 1
                    if c.gate & C_AUTH:  # what may follow depends on what it does
                        break
            if n:
                done = self.run(c, n)
                if self.parser.blobs_held:
                    release_blobs(&self.parser, &self.requests[0])
                if done < n:  # blocked or closing: what was parsed ahead goes back
                    used = self.requests[done].start
                    forget_half(&c.intake)
                    state = MORE
                    break
            if state == COMMAND and out_pending(&c.port.out) > OUTPUT_FLUSH:
                self.flush(c)
                if c.closed:
                    return 0
                if out_pending(&c.port.out) > OUTPUT_PAUSE:
                    break
                self.lend(c)
        if c.closed:
            return 0
        if state == FAULT:
            drop_half(&self.parser, &c.intake)
            self.protocol_error(c)
            used = size
        self.keep_tail(c, data + used, size - used if c.intake.half_end == 0 else c.intake.half_end, owned)
        if c.intake.blob != NULL:  # few wake-ups with much to copy cost less than many with little
            set_wake_bytes(c.fd, min(c.intake.blob_want - c.intake.blob.size, WAKE_BYTES))
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
        cdef bytes message = self.parser.fault
        if b"%c" in message:
            message = message.replace(b"%c", bytes([self.parser.fault_byte]))
        text = "ERR Protocol error: " + message.decode("latin-1")
        self.on_error(<object>c.owner, -1, CommandError(text))
        write_error(&c.port.out, text.encode("latin-1"))
        c.closing = True

    # ------------------------------------------------------------ executing

    cdef uint32_t run(self, Conn* c, uint32_t n) except? 0xFFFFFFFF:
        """Executes a batch; how many commands were taken (fewer when the connection blocked or closes)."""
        cdef uint32_t i, run_begin = 0
        cdef Request* r
        cdef Kind* kind
        cdef Kind* running = NULL
        cdef uint64_t begin = 0
        self.look_ahead(c, n)
        for i in range(n):
            r = &self.requests[i]
            kind = <Kind*>r.kind
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
                if kind.twin(&c.port, &self.parser.args[r.first], r.argc) == TWIN_DONE:
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
            argv = &self.parser.args[r.first]
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
        if self.parser.args_used < 5:
            return
        for i in range(n):
            r = &self.requests[i]
            kind = <Kind*>r.kind
            if kind == NULL or kind.first_key == 0 or kind.twin == NULL:
                continue
            argv = &self.parser.args[r.first]
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
    def bulk_limit(self):
        """The longest argument accepted, in bytes."""
        return self.parser.bulk_limit

    @bulk_limit.setter
    def bulk_limit(self, int64_t value):
        self.parser.bulk_limit = value

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
        cdef Arg* argv = &self.parser.args[r.first]
        return [PyBytes_FromStringAndSize(<char*>argv[i].p, argv[i].n) for i in range(r.argc)]

    cdef int call(self, Conn* c, Request* r) except -1:
        """One command in Python."""
        cdef Link owner = <Link>c.owner
        cdef Kind* kind = <Kind*>r.kind
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
                ) or isinstance(exc, Refused):
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
        if not whole and c.output_limit and out_pending(out) > c.output_limit:
            self.on_output_limit(<object>c.owner)
            self.close(c)
            return 0
        if not whole and out.lent:
            left = out.size - out.sent
            own = <uint8_t*>mem_alloc(left if left else 1)
            memcpy(own, out.data + out.sent, left)
            shift_parts(out)
            self.take_back(out)
            out.data = own
            out.capacity = left if left else 1
            out.size = left
        elif not whole and out.sent > OUTPUT_FLUSH:
            left = out.size - out.sent
            memmove(out.data, out.data + out.sent, left)
            shift_parts(out)
            out.size = left
        if whole == c.writable_wanted:
            c.writable_wanted = not whole
            self.watch(c)
        return 0

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
        c.readable_off = c.blocked or (c.writable_wanted and out_pending(&c.port.out) > OUTPUT_PAUSE)
        event.data.ptr = c
        event.events = EPOLLRDHUP
        if not c.readable_off:
            event.events |= EPOLLIN
        if c.writable_wanted:
            event.events |= EPOLLOUT
        epoll_ctl(self.epfd, EPOLL_CTL_MOD, c.fd, &event)

    # ------------------------------------------------------------ coming and going

    cdef int attach(self, Link connection, int fd) except -1:
        cdef Conn* c = <Conn*>calloc(1, sizeof(Conn))
        cdef epoll_event event
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
            if c.intake.blob != NULL:
                blob_release(c.intake.blob)
            mem_free(c.intake.args, c.intake.args_capacity * sizeof(Arg))
            connection = <Link>c.owner
            connection.c = &GONE
            free(c)
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
