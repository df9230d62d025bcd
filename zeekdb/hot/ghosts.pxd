# Keys that were evicted not long ago, by a fingerprint of 16 bits, with 16 bits of what a policy wants to remember of
# them. About as many as there are keys; the oldest of a bucket of four makes room.
from libc.stdint cimport uint16_t, uint32_t, uint64_t

ctypedef struct Ghosts:
    uint32_t* slots         # fingerprint << 16 | note
    uint64_t buckets        # a power of two; 0 before the first resize

cdef void ghosts_resize(Ghosts* g, uint64_t keys) noexcept nogil    # forgets all when it has to change
cdef void ghost_put(Ghosts* g, uint64_t hash, uint16_t note) noexcept nogil
cdef int ghost_take(Ghosts* g, uint64_t hash) noexcept nogil        # the note, and forgets the key; -1 when not there
