# Keys that somebody asks about, and notes of their changes. See notes.pyx.
from libc.stdint cimport uint8_t, uint16_t, uint64_t

cdef enum:
    FILTER = 65536           # places of the filter, a power of two

ctypedef struct Noted:
    uint8_t* key
    size_t n
    int db

# One per process.
ctypedef struct Notes:
    uint16_t* filter         # by key hash: how many interests fall on this place
    uint64_t interests
    bint due                 # the end of the command has something to do
    Noted* noted
    size_t used
    size_t capacity

cdef Notes N

cdef void note_add(uint64_t h) noexcept nogil           # an interest in keys of this hash
cdef void note_drop(uint64_t h) noexcept nogil
cdef void note_down(int db, const uint8_t* key, size_t n) noexcept nogil
cdef list notes_take()                                   # (index of the database, key) …, oldest first

cdef inline void note_key(int db, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    """A key was changed. Costs a look at one word while nobody asks about any key."""
    if N.interests and N.filter[h & (FILTER - 1)]:
        note_down(db, key, n)
