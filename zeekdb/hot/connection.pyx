"""A client's connection as Python sees it."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from zeekdb.hot.engine cimport Engine
from zeekdb.hot.keyspace cimport db_pointer
from zeekdb.hot.kinds cimport Kind
from zeekdb.hot.queue cimport CommandQueue, queue_add, queue_free, queue_next
from zeekdb.hot.replies cimport write_reply
from zeekdb.hot.sockets cimport EVICTABLE, GONE, KEPT, REPLICA, Conn, Link, conn_memory
from zeekdb.hot.wire cimport Arg, Out, out_pending, out_raw

from zeekdb.hot.replies import NO_REPLY


cdef class Connection(Link):
    """A client's connection; the server subclasses it with what commands need to know of a client."""

    def attach(self, Engine engine, int fd):
        """Hands the connected, non-blocking socket over; the engine closes it."""
        engine.attach(self, fd)

    def use_database(self, database):
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

    def queue_command(self, int index, list args not None):
        """Keeps a command for EXEC: what the engine does itself while nothing else stands in its way."""
        cdef Engine engine = <Engine>self.engine
        cdef list words = [word if type(word) is bytes else bytes(word) for word in args]  # or a BlobView
        cdef Arg* argv
        cdef bytes arg
        cdef int i
        if self.c is &GONE:
            return
        argv = <Arg*>malloc(len(words) * sizeof(Arg))
        for i in range(len(words)):
            arg = words[i]
            argv[i].p = <uint8_t*>PyBytes_AS_STRING(arg)
            argv[i].n = PyBytes_GET_SIZE(arg)
        queue_add(&self.c.queue, engine.by_index[index], argv, len(words))
        free(argv)
        if <long long>self.c.queue.size > engine.query_limit:
            engine.close(self.c)

    def run_queue(self):
        """Runs what is queued, and answers it as one array."""
        (<Engine>self.engine).run_queue(self.c)

    def queued_calls(self):
        """[(index, [word, …]), …]: what is queued, which stays."""
        cdef CommandQueue* q = &self.c.queue
        cdef Arg* argv = <Arg*>malloc(max(q.most_args, <uint32_t>1) * sizeof(Arg))
        cdef Kind* kind = NULL
        cdef size_t at = 0
        cdef uint32_t i, k, argc
        cdef list calls = []
        for i in range(q.count):
            argc = queue_next(q, &at, &kind, argv)
            calls.append((kind.index, [PyBytes_FromStringAndSize(<char*>argv[k].p, argv[k].n) for k in range(argc)]))
        free(argv)
        return calls

    def drop_queue(self):
        """Forgets what is queued."""
        queue_free(&self.c.queue)

    @property
    def queue_failed(self):
        """Whether some command could not be queued."""
        return self.c.queue.failed

    @queue_failed.setter
    def queue_failed(self, bint value):
        if self.c is not &GONE:
            self.c.queue.failed = value

    @property
    def watching(self):
        """Whether EXEC has to ask about watched keys."""
        return self.c.watching

    @watching.setter
    def watching(self, bint value):
        if self.c is not &GONE:
            self.c.watching = value

    @property
    def queue_length(self):
        return self.c.queue.count

    @property
    def queue_bytes(self):
        return self.c.queue.capacity

    @property
    def queue_flags(self):
        """The flags of all commands queued, or-ed."""
        return self.c.queue.flags

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
    def wrote_end(self):
        return self.c.wrote_end

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
        """Bytes of input that wait, without those that are arguments already."""
        return (self.c.size - min(self.c.size, self.c.intake.parsed) + self.c.intake.blob_bytes
                + (self.c.intake.blob.size if self.c.intake.blob != NULL else 0))

    @property
    def query_capacity(self):
        return self.c.capacity

    @property
    def output_bytes(self):
        """Bytes of output that wait."""
        return out_pending(&self.c.port.out)

    @property
    def memory_bytes(self):
        """What the connection holds: its structures, both buffers, and what Python holds for it."""
        return conn_memory(self.c)

    @property
    def extra_bytes(self):
        """What Python holds for the connection; a part of `memory_bytes`."""
        return self.c.extra

    @extra_bytes.setter
    def extra_bytes(self, size_t value):
        if self.c is not &GONE:
            self.c.extra = value
            self.engine.account(self.c)

    def take_side(self, bint kept, bint replica):
        """Where its memory counts: with what `maxmemory-clients` limits, or with what is kept, or with replicas."""
        cdef uint8_t side = REPLICA if replica else KEPT if kept else EVICTABLE
        if self.c is &GONE or self.c.closed or self.c.side == side:
            return
        self.engine.unaccount(self.c)
        self.c.side = side
        self.engine.account(self.c)

    @property
    def tell_drained(self):
        """Whether the engine's `on_drained` shall be called once the output has left."""
        return self.c.tell_drained

    @tell_drained.setter
    def tell_drained(self, bint value):
        if self.c is not &GONE:
            self.c.tell_drained = value

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
