"""The commands as the engine knows them: found by name, counted and timed.

Time is read from the processor's time stamp counter, once for a run of equal commands, because a call of the clock
would cost as much as the command.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from zeekdb.hot cimport twins
from zeekdb.hot.clock cimport steady_ns
from zeekdb.hot.journal cimport J, Telling, journal_begin, journal_end, journal_wants
from zeekdb.hot.wire cimport TWIN_DONE, TWIN_PASS

from zeekdb.hot.journal import tell


cdef inline uint32_t name_hash(const uint8_t* p, size_t n) noexcept nogil:
    cdef uint32_t h = 2166136261U
    cdef size_t i
    for i in range(n):
        h = (h ^ p[i]) * 16777619U
    return h ^ (h >> 15)


cdef int tell_twin(Kind* kind, Port* port, Arg* argv, int argc) noexcept nogil:
    cdef Telling telling
    cdef int i, done
    if not kind.flags & F_WRITE:
        return kind.twin(port, argv, argc)
    if kind.key_step > 1:  # of several values that it adopts it lets one go again, if a key comes twice
        for i in range(argc):
            if argv[i].blob != NULL:
                return TWIN_PASS
    journal_begin(&telling)
    done = kind.twin(port, argv, argc)
    if done == TWIN_DONE and journal_wants(&telling):
        journal_call(port.db.index, argv, argc)
    journal_end(&telling)
    return done


# Twins that look one thing up in a collection: where its name stands.
cdef dict MEMBERS = {
    "hget": 2, "hexists": 2, "hstrlen": 2, "hmget": 2, "hset": 2, "sadd": 2, "sismember": 2, "zscore": 2, "zrank": 2,
    "zrevrank": 2, "zadd": 3, "zincrby": 3,
}


cdef class CommandTable:
    """Every command, in the order of registration; the engine is one."""

    def __cinit__(self, *args):
        self.by_index = <Kind**>calloc(KINDS, sizeof(void*))
        self.handlers = []
        self.names = []
        self.calibrate()

    def __dealloc__(self):
        cdef int i
        for i in range(self.kind_count):
            free(self.by_index[i])
        free(self.by_index)

    cdef void calibrate(self):
        """How many ticks the time stamp counter makes in a microsecond, over a millisecond of waiting."""
        cdef int64_t begin = steady_ns()
        cdef uint64_t ticks = ticks_now()
        while steady_ns() - begin < 1000000:
            pass
        self.ticks_per_us = (ticks_now() - ticks) * 1000.0 / (steady_ns() - begin)

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
        kind.member = MEMBERS.get(twin, 0)
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

    def set_role(self, int index, str role not None):
        """What the command is to a transaction: "queues", "begins" or "executes"."""
        self.by_index[index].role = {"queues": QUEUES, "begins": BEGINS, "executes": EXECUTES}[role]

    def set_plain(self, int index, int plain):
        """The command at `plain` stands in for the one at `index` where a key is the tensor region's."""
        self.by_index[index].plain = self.by_index[plain]

    def set_journal_role(self, int index, str role not None):
        """What the command's calls are to the journal: "nests" or "wanders"."""
        self.by_index[index].journal_role = {"nests": NESTS, "wanders": WANDERS}[role]

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

    def run_counted(self, int index, handler, ctx, int db, list words not None):
        """The handler's reply to a call made outside the engine, counted, timed and told; the words are used up."""
        cdef Kind* kind = self.by_index[index]
        cdef uint64_t begin = ticks_now(), spent
        cdef bint failed = True
        cdef Telling telling
        cdef bint journal = J.open
        name, words[0] = words[0], ctx
        if journal:
            journal_begin(&telling)
        try:
            reply = handler(*words)
            failed = False
            return reply
        finally:
            if journal:
                if journal_wants(&telling) and kind.journal_role != NESTS:
                    words[0] = name
                    tell(db, words)
                journal_end(&telling)
            spent = ticks_now() - begin
            kind.calls += 1
            kind.ticks += spent
            kind.histogram[min(log2_of(spent), 39)] += 1
            kind.failed += failed

    def count_outcome(self, int index, bint failed, bint rejected):
        """Marks the call under way as failed or rejected; the engine itself counts and times it."""
        cdef Kind* kind = self.by_index[index]
        if failed:
            kind.failed += 1
        if rejected:
            kind.rejected += 1
            kind.calls -= 1

    def count_late_failure(self, int index):
        """A call that was counted when it began to wait has failed after all."""
        self.by_index[index].failed += 1

    def reset_command_stats(self):
        """Zeroes every command's counters."""
        cdef int i
        for i in range(self.kind_count):
            self.by_index[i].calls = self.by_index[i].ticks = 0
            self.by_index[i].rejected = self.by_index[i].failed = 0
            memset(self.by_index[i].histogram, 0, sizeof(self.by_index[i].histogram))
