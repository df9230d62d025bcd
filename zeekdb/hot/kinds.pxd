# Commands by name, with their counters. See kinds.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from zeekdb.hot.table cimport hash_bytes
from zeekdb.hot.journal cimport J, journal_command, journal_word
from zeekdb.hot.wire cimport Arg, Port, Twin

cdef extern from *:
    """
    #include <time.h>
    #if defined(__x86_64__)
    #include <x86intrin.h>
    static inline unsigned long long ticks_now(void) { return __rdtsc(); }
    #else
    static inline unsigned long long ticks_now(void) {
        struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
    #endif
    static inline int log2_of(unsigned long long v) { return v ? 63 - __builtin_clzll(v) : 0; }
    """
    uint64_t ticks_now() nogil
    int log2_of(uint64_t v) nogil

cdef enum:
    KINDS = 2048         # places of the name table, a power of two

# What a command is to a transaction, as far as the engine may act on it without a word from Python.
ctypedef enum Role:
    APART = 0            # Python decides
    QUEUES = 1           # between MULTI and EXEC it waits for EXEC
    BEGINS = 2           # MULTI
    EXECUTES = 3         # EXEC

# What its calls are to the journal.
ctypedef enum JournalRole:
    TELLS = 0            # a change is told in the call's own words, unless it says otherwise
    NESTS = 1            # what it runs is told, not it
    WANDERS = 2          # it comes upon keys of any kind: the expiries it meets have nothing to do with each other

# Bits of Kind.flags, which are those of commands.spec.Flag.
cdef enum:
    F_WRITE = 1
    F_NOT_IN_SCRIPTS = 1 << 5 | 1 << 6   # NOSCRIPT, BLOCKING
    F_BLOBS = 1 << 20                    # large arguments come as views, not as bytes

# What the engine knows of a command; the rest is in its declaration.
ctypedef struct Kind:
    uint8_t name[32]     # upper case
    uint8_t name_size
    int arity
    uint32_t flags
    int first_key        # places of keys by range, for hashing ahead; first_key 0: none
    int last_key
    int key_step
    Twin twin
    int member           # place of the field or member that the twin looks up in what the key holds; 0: none
    void* handler        # borrowed: Engine.handlers keeps it
    int index
    Role role
    JournalRole journal_role
    Kind* plain          # stands in for it where a key is the tensor region's; NULL: none does
    uint64_t calls
    uint64_t ticks       # time stamp counter, spent in calls
    uint64_t rejected
    uint64_t failed
    uint64_t histogram[40]  # calls by log2 of their ticks

cdef inline bint takes(Kind* kind, uint32_t argc) noexcept nogil:
    """Whether the command's arity allows so many words."""
    return kind.arity == <int>argc or (kind.arity < 0 and <int>argc >= -kind.arity)

cdef inline uint32_t last_key(Kind* kind, uint32_t argc) noexcept nogil:
    """The place of a call's last key."""
    return min(<uint32_t>kind.last_key, argc - 1) if kind.last_key > 0 else argc - 1

cdef inline void hash_keys(Kind* kind, Arg* argv, uint32_t argc) noexcept nogil:
    cdef uint32_t k = kind.first_key
    if k:
        while k <= last_key(kind, argc):
            argv[k].hash = hash_bytes(argv[k].p, argv[k].n)
            k += kind.key_step

cdef inline void journal_call(int db, const Arg* argv, uint32_t argc) noexcept nogil:
    """Tells a call in its own words."""
    cdef uint32_t i
    journal_command(db, argc)
    for i in range(argc):
        journal_word(argv[i].p, argv[i].n)

cdef inline int run_twin(Kind* kind, Port* port, Arg* argv, int argc) noexcept nogil:
    """The twin's answer; what it changes is told to the journal."""
    if J.open:
        return tell_twin(kind, port, argv, argc)
    return kind.twin(port, argv, argc)

cdef inline void count_ticks(Kind* kind, uint64_t spent) noexcept nogil:
    """Books one call."""
    kind.calls += 1
    kind.ticks += spent
    kind.histogram[min(log2_of(spent), 39)] += 1

cdef int tell_twin(Kind* kind, Port* port, Arg* argv, int argc) noexcept nogil

cdef class CommandTable:
    cdef Kind* kinds[KINDS]
    cdef Kind** by_index
    cdef int kind_count
    cdef list handlers
    cdef list names
    cdef public double ticks_per_us

    cdef void calibrate(self)
    cdef void place(self, Kind* kind)
    cdef Kind* lookup(self, const uint8_t* p, size_t n) noexcept nogil
