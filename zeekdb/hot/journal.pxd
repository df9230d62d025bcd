# The journal: every change as a command whose effect is the same anywhere, any time. See journal.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

# One per process.
ctypedef struct Journal:
    bint open           # somebody listens
    const uint64_t* dirty  # the count of changes
    bint told           # the call under way has said itself what it comes to
    bint apart          # what the call under way comes to does not belong together
    int depth           # of calls; what the outermost comes to is one unit
    uint8_t* data       # what nobody has taken yet
    size_t size
    size_t capacity
    size_t mark         # where the unit under way begins, behind its SELECT
    uint32_t units      # commands in it
    int selected        # the database that listeners see; -1: unknown
    uint64_t end        # bytes ever, these included

cdef Journal J

# What a call has to remember.
ctypedef struct Telling:
    uint64_t dirty
    bint told

cdef void journal_begin(Telling* t) noexcept nogil      # before a call, while the journal is open
cdef void journal_end(Telling* t) noexcept nogil        # after it
cdef bint journal_wants(Telling* t) noexcept nogil      # whether the call has changed something and not said what
# A command of so many words, which follow; it counts as what the call under way comes to.
cdef void journal_command(int db, uint32_t words) noexcept nogil
cdef void journal_word(const uint8_t* p, size_t n) noexcept nogil
cdef void journal_int(int64_t value) noexcept nogil
cdef void journal_gone(int db, const uint8_t* key, size_t n) noexcept nogil   # a key has expired or was evicted
cdef void journal_take() noexcept nogil                 # all of J.data was taken

cdef inline void journal_literal(const char* text) noexcept nogil:
    """A word of the protocol's own."""
    cdef size_t n = 0
    while text[n]:
        n += 1
    journal_word(<const uint8_t*>text, n)
