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
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memmove, memset

from zeekdb.errors import CommandError, Refused
from zeekdb.hot.replies import DEFERRED, NO_REPLY

from zeekdb.hot.blobview cimport view_blob
from zeekdb.hot.blocks cimport region_clock
from zeekdb.hot.clock cimport wall_us
from zeekdb.hot.eviction cimport E, evict, over_limit
from zeekdb.hot.journal cimport J, Telling, journal_begin, journal_end, journal_take, journal_wants
from zeekdb.hot.keyspace cimport G, Db, ks_prefetch_bucket, ks_prefetch_entry
from zeekdb.hot.kinds cimport (
    BEGINS, EXECUTES, F_BLOBS, NESTS, QUEUES, WANDERS, Kind, count_ticks, hash_keys, journal_call, last_key, log2_of, run_twin, takes, ticks_now,
)
from zeekdb.hot.lookahead cimport look_into
from zeekdb.hot.memory cimport blob_release, mem_alloc, mem_free, mem_resize
from zeekdb.hot.namespaces cimport NS, any_namespaced
from zeekdb.hot.notes cimport N
from zeekdb.hot.parser cimport (
    COMMAND, FAULT, MORE, Parser, Request, count_received, drop_blob, drop_half, forget_half, parse, release_blobs,
)
from zeekdb.hot.queue cimport CommandQueue, queue_add, queue_free, queue_next
from zeekdb.hot.recency cimport recency_set_clock
from zeekdb.hot.receiving cimport MSG_DONTWAIT, recv, recv_line, set_wake_bytes
from zeekdb.hot.region cimport place_argument
from zeekdb.hot.replies cimport write_error, write_reply
from zeekdb.hot.sockets cimport EVICTABLE, OUTPUT_FLUSH, OUTPUT_PAUSE, SCRATCH, Conn, Link, Sockets, epoll_event
from zeekdb.hot.table cimport hash_bytes
from zeekdb.hot.wire cimport TWIN_DONE, Arg, Out, out_length, out_pending, out_raw

cdef extern from "<sys/epoll.h>" nogil:
    int epoll_wait(int epfd, epoll_event* events, int n, int timeout)
    int EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR

cdef enum:
    SMALL_READ = 4096             # read where a large value is expected: what it takes is copied again
    RECEIVE_AT_ONCE = 1048576     # bytes of a large argument; then others have their turn
    TURN_US = 2000                # time in the engine before the event loop has its turn
    WAKE_BYTES = 262144           # of a large argument that are waited for at a time
    BUSY_EVENTS = 64              # connections served at once while a script runs on
    C_AUTH = 1                    # gates.GATE_AUTH
    C_MULTI = 8                   # gates.GATE_MULTI
    S_OOM = 1 << 11               # gates.GATE_OOM


cdef list list_args(Arg* argv, uint32_t argc):
    cdef uint32_t i
    return [PyBytes_FromStringAndSize(<char*>argv[i].p, argv[i].n) for i in range(argc)]


cdef list list_views(Arg* argv, uint32_t argc):
    """The same for a command that takes large values where they lie."""
    cdef uint32_t i
    return [view_blob(argv[i].blob) if argv[i].blob != NULL else PyBytes_FromStringAndSize(<char*>argv[i].p, argv[i].n)
            for i in range(argc)]


cdef inline int wake_bytes(const Conn* c) noexcept nogil:
    """For which to wait: what is left of a large argument without its line end, which may be late, or a part of it."""
    cdef size_t left = c.intake.blob_want - c.intake.blob.size
    return <int>min(left - 2 if left > 2 else 1, <size_t>WAKE_BYTES)


@cython.final
cdef class Engine(Sockets):
    """The reactor over one keyspace. Not thread-safe: everything happens on the event loop's thread."""

    def __cinit__(self, keyspace):
        self.scratch_in = <uint8_t*>malloc(SCRATCH)
        self.parser.args_capacity = 4096
        self.parser.args = <Arg*>malloc(self.parser.args_capacity * sizeof(Arg))
        self.keyspace = keyspace
        self.query_limit = 1 << 30
        self.parser.bulk_limit = 512 << 20
        self.parser.place = place_argument

    def __dealloc__(self):
        free(self.parser.args)
        free(self.scratch_in)

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
                    self.run_again(NULL)
                if J.size:
                    self.drain()
                if self.client_limit and self.sums[EVICTABLE] > self.client_limit:
                    self.evict_clients()
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
        recency_set_clock(G.now_ms)
        region_clock(G.now_ms)

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
        self.account(c)
        return 0

    cdef int run_again(self, Conn* running) except -1:
        """Connections that another one's command has given output or set free; `running`'s turn comes later."""
        cdef list waiting
        cdef Link connection
        cdef Conn* c
        cdef bint later = False
        while self.again:
            waiting, self.again = self.again, []
            for connection in waiting:
                c = connection.c
                if c == running:
                    later = True
                    continue
                c.queued = False
                if c.closed:
                    continue
                if c.blocked or c.writable_wanted or c.size == 0:
                    self.flush(c)
                else:
                    self.process(c, c.data, c.size, True)
                self.account(c)
        if later:
            self.again.append(<object>running.owner)
        return 0

    def settle(self):
        """Outside a turn: sends what timers and other tasks have written to connections."""
        cdef bint outer = self.in_turn
        if outer:
            return
        self.in_turn = True
        try:
            if self.again:
                self.run_again(NULL)
            if J.size:
                self.drain()
            if self.client_limit and self.sums[EVICTABLE] > self.client_limit:
                self.evict_clients()
        finally:
            self.in_turn = False
            if self.dead != NULL:
                self.bury()

    def drain(self):
        """Hands what the journal says to the append-only file and to whoever else listens."""
        if J.size == 0 or J.depth:
            return
        if self.on_journal is not None:
            self.on_journal(PyBytes_FromStringAndSize(<char*>J.data, J.size))
        if self.log is not None:
            if self.log.commit(J.data, J.size):
                journal_take()
                if self.synced != <uint64_t>-1:
                    self.release(self.log.t.synced)
                return
            self.log.append(J.data, J.size)
        elif self.synced != <uint64_t>-1:
            self.release(<uint64_t>-1)
        journal_take()

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
        """Reads the rest of a large argument into its blob, the line end beside it, and no byte beyond."""
        cdef size_t length = c.intake.blob_want - 2
        cdef size_t here = min(c.intake.blob.size, length)
        cdef size_t left = min(length - here, <size_t>RECEIVE_AT_ONCE)
        cdef size_t line_end = c.intake.blob_want - max(c.intake.blob.size, length) if here + left == length else 0
        cdef ssize_t n = recv_line(c.fd, c.intake.blob.data + here, left, line_end)
        if not self.received(c, n):
            return 0
        c.intake.blob.size += n
        count_received(&c.intake, c.intake.blob.size - n)
        if <int64_t>(c.size + c.intake.blob_bytes + c.intake.blob.size) > self.query_limit:
            self.close(c)
            return 0
        if c.intake.blob.size < c.intake.blob_want:
            if c.intake.blob_want - c.intake.blob.size < WAKE_BYTES:
                set_wake_bytes(c.fd, wake_bytes(c))
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
                    drop_blob(&c.intake)  # begun for a command that is parsed again: its bytes are still here
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
            set_wake_bytes(c.fd, wake_bytes(c))
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
        cdef Arg* argv
        cdef uint64_t begin = 0, journal_end = J.end
        if over_limit():
            self.make_room(n)
        self.look_ahead(c, n)
        for i in range(n):
            r = &self.requests[i]
            kind = <Kind*>r.kind
            argv = &self.parser.args[r.first]
            if kind != NULL and (c.gate == C_MULTI or kind.role == BEGINS) and self.may_transact(c, kind, r.argc):
                if running != NULL:
                    self.book(c, running, begin, i - run_begin, &self.requests[i - 1])
                    running = NULL
                if self.transact(c, kind, argv, r.argc):
                    if N.due:
                        self.on_due(<object>c.owner)
                    if c.closed or c.closing:
                        n = i + 1
                        break
                    continue
            if kind != running:
                if running != NULL:
                    begin = self.book(c, running, begin, i - run_begin, &self.requests[i - 1])
                else:
                    begin = ticks_now()
                running = kind
                run_begin = i
            if kind != NULL and kind.twin != NULL and (c.gate | self.gate) == 0 and takes(kind, r.argc):
                if run_twin(kind, &c.port, argv, r.argc) == TWIN_DONE:
                    if N.due:
                        self.on_due(<object>c.owner)
                    continue
            if running != NULL and i > run_begin:
                begin = self.book(c, running, begin, i - run_begin, &self.requests[i - 1])
            running = NULL
            self.call(c, kind, argv, r.argc)
            if N.due:
                self.on_due(<object>c.owner)
            if c.closed or c.closing or c.blocked:
                n = i + 1
                break
        if running != NULL:
            self.book(c, running, begin, n - run_begin, &self.requests[n - 1])
        c.commands += n
        self.total_commands += n
        if J.end != journal_end:
            c.wrote_end = J.end
        if J.end > self.synced:
            c.hold_end = J.end
        if running != NULL:
            c.last_kind = kind.index
        return n

    cdef int make_room(self, uint32_t n) except -1:
        """More memory is used than allowed: keys go, or commands that need more are refused."""
        evict(n)
        if E.stuck:
            self.gate |= S_OOM
        if N.due:
            self.on_due(None)
        return 0

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
            if NS.count and kind != NULL and kind.plain != NULL and r.argc > <uint32_t>kind.first_key:
                if any_namespaced(argv, kind.first_key, last_key(kind, r.argc), kind.key_step):
                    r.kind = kind.plain
                    continue
            if kind == NULL or kind.first_key == 0 or kind.twin == NULL:
                continue
            last = last_key(kind, r.argc)
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
            last = last_key(kind, r.argc)
            k = kind.first_key
            while k <= last:
                ks_prefetch_entry(db, argv[k].hash)
                k += kind.key_step
        look_into(db, self.requests, self.parser.args, n)

    cdef uint64_t book(self, Conn* c, Kind* kind, uint64_t begin, uint32_t n, Request* last):
        """Counts n calls of a kind that ran one after the other since `begin`."""
        cdef uint64_t now = ticks_now()
        cdef uint64_t spent = now - begin
        kind.calls += n
        kind.ticks += spent
        kind.histogram[min(log2_of(spent // n), 39)] += n
        if spent > self.slow_ticks and self.slow_ticks:
            self.on_slow(<object>c.owner, kind.index, list_args(&self.parser.args[last.first], last.argc), spent / self.ticks_per_us)
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

    cdef int call(self, Conn* c, Kind* kind, Arg* argv, uint32_t argc) except -1:
        """One command in Python."""
        cdef Link owner = <Link>c.owner
        cdef list args = list_views(argv, argc) if kind != NULL and kind.flags & F_BLOBS else list_args(argv, argc)
        cdef int index = kind.index if kind != NULL else -1
        cdef size_t size = c.port.out.size
        cdef uint32_t nparts = c.port.out.nparts
        cdef uint64_t begin = ticks_now(), spent
        cdef Telling telling
        cdef bint journal = J.open
        cdef int db = c.port.db.index
        if journal:
            journal_begin(&telling)
            if J.depth == 1 and kind != NULL and kind.journal_role == WANDERS:
                J.apart = True
        c.last_kind = index
        try:
            if kind == NULL:
                reply = self.on_unknown(owner, args)
            elif c.gate | self.gate:
                reply = self.on_gate(owner, index, args)
            elif not takes(kind, argc):
                raise CommandError(f"ERR wrong number of arguments for '{self.names[index].lower()}' command")
            else:
                args[0] = owner.ctx
                reply = (<object>kind.handler)(*args)
            if reply is DEFERRED:
                owner.blocked_call = args
                self.block(c)
            elif reply is not NO_REPLY:
                write_reply(&c.port.out, reply, c.port.protocol)
        except CommandError as exc:
            self.rewind(c, size, nparts)
            if kind != NULL:
                if not takes(kind, argc) or isinstance(exc, Refused):
                    kind.rejected += 1
                    kind.calls -= 1
                else:
                    kind.failed += 1
            self.error_replies += 1
            self.on_error(owner, index, exc)
            write_error(&c.port.out, exc.message.encode("utf-8", "surrogateescape"))
            exc.__traceback__ = None  # its frames hold the error, and the arguments: blobs would stay for the collector
        except Exception as exc:
            self.rewind(c, size, nparts)
            self.error_replies += 1
            self.on_bug(owner, index, exc)
            exc.__traceback__ = None
            write_error(&c.port.out, b"ERR internal error, see the server's log")
        if journal:
            if kind != NULL and kind.journal_role != NESTS and journal_wants(&telling):
                journal_call(db, argv, argc)
            journal_end(&telling)
        if kind != NULL:
            spent = ticks_now() - begin
            count_ticks(kind, spent)
            if spent > self.slow_ticks and self.slow_ticks:
                self.on_slow(owner, index, list_args(argv, argc), spent / self.ticks_per_us)
        return 0

    cdef void rewind(self, Conn* c, size_t size, uint32_t nparts) noexcept nogil:
        """Takes back what a failed handler had begun to answer."""
        cdef Out* out = &c.port.out
        while out.nparts > nparts:
            out.nparts -= 1
            out.part_bytes -= out.parts[out.nparts].end - out.parts[out.nparts].sent
            blob_release(out.parts[out.nparts].blob)
        if out.size > size:
            out.size = size

    # ------------------------------------------------------------ transactions

    cdef inline bint may_transact(self, Conn* c, Kind* kind, uint32_t argc) noexcept nogil:
        return kind.role and self.gate == 0 and c.gate | C_MULTI == C_MULTI and takes(kind, argc)

    cdef bint transact(self, Conn* c, Kind* kind, Arg* argv, uint32_t argc) except -1:
        """What needs no word from Python: MULTI, a command between, and an EXEC that nothing stands against."""
        cdef uint64_t begin
        if c.gate == 0:
            if kind.role != BEGINS:
                return False
            c.gate = C_MULTI
            c.queue.failed = False
            out_raw(&c.port.out, b"+OK\r\n", 5)
            kind.calls += 1
        elif kind.role == QUEUES:
            queue_add(&c.queue, kind, argv, argc)
            out_raw(&c.port.out, b"+QUEUED\r\n", 9)
            if <int64_t>c.queue.size > self.query_limit:
                self.close(c)
        elif kind.role == EXECUTES and not c.queue.failed and not c.watching:
            begin = ticks_now()
            c.gate = 0
            self.run_queue(c)
            count_ticks(kind, ticks_now() - begin)
        else:
            return False
        c.last_kind = kind.index
        return True

    cdef int run_queue(self, Conn* c) except -1:
        """The queued commands one after the other, their replies as one array."""
        cdef CommandQueue q = c.queue
        cdef Kind* kind = NULL
        cdef Arg* argv = <Arg*>malloc(max(q.most_args, <uint32_t>1) * sizeof(Arg))
        cdef size_t at = 0
        cdef uint32_t i, argc
        cdef bint told = False  # Python knows that its handlers run inside EXEC
        cdef Telling telling
        cdef bint journal = J.open
        if journal:
            journal_begin(&telling)
        memset(&c.queue, 0, sizeof(CommandQueue))
        out_length(&c.port.out, 42, q.count)
        try:
            for i in range(q.count):
                argc = queue_next(&q, &at, &kind, argv)
                if kind.twin == NULL or c.gate | self.gate or not self.run_twin(c, kind, argv, argc):
                    if not told:
                        told = True
                        self.on_exec(<object>c.owner, True)
                    self.call(c, kind, argv, argc)
        finally:
            if told:
                self.on_exec(<object>c.owner, False)
            free(argv)
            queue_free(&q)
            if journal:
                journal_end(&telling)
        return 0

    cdef bint run_twin(self, Conn* c, Kind* kind, Arg* argv, uint32_t argc) noexcept:
        cdef uint64_t begin = ticks_now()
        hash_keys(kind, argv, argc)
        if run_twin(kind, &c.port, argv, argc) != TWIN_DONE:
            return False
        count_ticks(kind, ticks_now() - begin)
        return True

    # ------------------------------------------------------------ while a script runs on

    def busy_turn(self, Link running):
        """From within a command that takes too long: serves the others behind `gate`, which the caller has set.

        The batch under way stays as it is: what a turn works with is put aside and brought back. Connections that
        end are buried by the outer turn, whose list of events may still name them.
        """
        cdef Parser parser = self.parser
        cdef uint8_t* scratch_in = self.scratch_in
        cdef Request* requests = <Request*>malloc(sizeof(self.requests))
        cdef epoll_event* events = <epoll_event*>malloc(BUSY_EVENTS * sizeof(epoll_event))
        cdef int64_t now_ms = G.now_ms
        cdef int i, n
        cdef Conn* c
        memcpy(requests, self.requests, sizeof(self.requests))
        self.scratch_in = <uint8_t*>malloc(SCRATCH)
        self.parser.args = <Arg*>malloc(parser.args_capacity * sizeof(Arg))
        self.parser.args_used = 0
        self.parser.blobs_held = False
        try:
            n = epoll_wait(self.epfd, events, BUSY_EVENTS, 0)
            for i in range(n):
                c = <Conn*>events[i].data.ptr
                if not c.closed and c != running.c:
                    self.serve(c, events[i].events)
            if self.again:
                self.run_again(running.c)
        finally:
            free(self.parser.args)
            free(self.scratch_in)
            memcpy(self.requests, requests, sizeof(self.requests))
            free(requests)
            free(events)
            self.parser = parser
            self.scratch_in = scratch_in
            G.now_ms = now_ms
