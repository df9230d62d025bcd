"""FIFO, and S3-FIFO (Yang et al., SOSP 2023): policies that go by the order in which keys came.

Nothing is linked: an entry holds the moment of its arrival, in ticks of a thousandth of the cache's turnover, and the
head of a queue is the oldest of a sample.

S3-FIFO keeps a small queue, a tenth of the keys, for what is new. Who is not used twice there leaves early, and a scan
with it, without having touched the main queue; who was, or comes back soon after having left (a ghost), enters the
main queue, in which every use up to three buys another round.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from zeekdb.hot.ghosts cimport Ghosts, ghost_put, ghost_take, ghosts_resize
from zeekdb.hot.recency cimport BY_POLICY, FIELD, Policy, set_field
from zeekdb.hot.table cimport Entry, entry_key, hash_bytes

cdef enum:
    TICKS = 1024            # to a turnover
    SMALL_PART = 10         # of all keys, one in so many is in the small queue
    MEMORY = 8192           # sampled entries after which what was seen counts half

    # S3-FIFO's field: 20 bits of tick, then
    MAIN = 8
    USES = 3

cdef uint32_t TICK = 0
cdef uint32_t LEFT = 1      # arrivals until the next tick
cdef uint32_t UNIT = 1      # arrivals in a tick
cdef Ghosts GHOSTS
cdef uint32_t SEEN = 0      # entries in samples, and those of the small queue among them
cdef uint32_t SEEN_SMALL = 0
memset(&GHOSTS, 0, sizeof(GHOSTS))


cdef uint32_t arrival() noexcept nogil:
    global TICK, LEFT
    LEFT -= 1
    if LEFT == 0:
        LEFT = UNIT
        TICK += 1
    return TICK


cdef void fifo_resize(uint64_t keys) noexcept nogil:
    global UNIT
    UNIT = <uint32_t>(keys // TICKS) + 1


cdef uint32_t fifo_fresh(uint64_t hash) noexcept nogil:
    return arrival() & 0xFFFFFF


cdef void fifo_touch(Entry* e) noexcept nogil:
    pass


cdef uint64_t fifo_score(const Entry* e) noexcept nogil:
    return (TICK - e.meta) & 0xFFFFFF


cdef void s3fifo_resize(uint64_t keys) noexcept nogil:
    fifo_resize(keys)
    ghosts_resize(&GHOSTS, keys)


cdef inline void s3fifo_place(Entry* e, uint32_t flags) noexcept nogil:
    set_field(e, (arrival() & 0xFFFFF) << 4 | flags)


cdef uint32_t s3fifo_fresh(uint64_t hash) noexcept nogil:
    return (arrival() & 0xFFFFF) << 4 | (MAIN if ghost_take(&GHOSTS, hash) >= 0 else 0)


cdef void s3fifo_touch(Entry* e) noexcept nogil:
    if e.meta & USES < USES:
        set_field(e, (e.meta & FIELD) + 1)


cdef uint64_t s3fifo_score(const Entry* e) noexcept nogil:
    """The oldest of the queue whose turn it is."""
    global SEEN, SEEN_SMALL
    cdef uint32_t is_small = not e.meta & MAIN
    SEEN += 1
    SEEN_SMALL += is_small
    if SEEN == MEMORY:
        SEEN //= 2
        SEEN_SMALL //= 2
    return (<uint64_t>(is_small == (SEEN_SMALL * SMALL_PART >= SEEN)) << 32) | ((TICK - (e.meta >> 4)) & 0xFFFFF)


cdef bint s3fifo_spare(Entry* e) noexcept nogil:
    cdef uint32_t uses = e.meta & USES
    if e.meta & MAIN:
        if uses == 0:
            return False
        s3fifo_place(e, MAIN | (uses - 1))
        return True
    if uses <= 1:
        return False
    s3fifo_place(e, MAIN)
    return True


cdef void s3fifo_gone(const Entry* e) noexcept nogil:
    cdef size_t n
    cdef const unsigned char* key
    if not e.meta & MAIN:
        key = entry_key(e, &n)
        ghost_put(&GHOSTS, hash_bytes(key, n), 0)


FIFO_POLICY = Policy(BY_POLICY, fifo_fresh, fifo_touch, fifo_score, NULL, NULL, fifo_resize)
S3FIFO_POLICY = Policy(
    BY_POLICY, s3fifo_fresh, s3fifo_touch, s3fifo_score, s3fifo_spare, s3fifo_gone, s3fifo_resize
)
