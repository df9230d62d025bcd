"""Graded LRU: how long a block is worth keeping.

A block's *grade* counts its uses: 0 stored, then one more for each, 3 at most. Each grade has an order of last use and a
*life*; time is counted in blocks stored. What goes is, of the oldest of each grade, the one whose age is the largest part
of its grade's life. A conversation that has gone on three times is three times as likely to go on as a new one, at every
age: so oldest first within a grade, and longer lives for higher grades, is the shape of the best order that such counts
can give. Uses come from the tail of a context to its head, and a head is used whenever its tail is: it is younger and
its grade no lower, so tails go first.

The lives are learned. An evicted block leaves a ghost; stored again while as many evictions as twice the blocks that fit
have not passed, it comes back one grade higher, and its grade's life grows by as much as this grade returns more often
than its share of the evictions would have it.

Measured on a chat service's trace (`bench/kv_trace.py`), percent of block references that were prefix hits, with room
for 5, 10 and 25% of the blocks: 21.6, 29.2, 35.5; LRU 19.5, 27.8, 35.3; LFU 12.6, 19.5, 33.6; ARC 21.0, 28.4, 33.5;
S3-FIFO 19.1, 24.5, 34.4; W-TinyLFU 15.9, 20.3, 26.0. Ranking whole chains by an index fitted offline to turn, length
and age brings no more on the half of the trace that it was not fitted to.
"""

from libc.math cimport exp, log
from libc.stdint cimport uint16_t
from libc.string cimport memset
from zeekdb.hot.ghosts cimport ghost_put, ghost_take, ghosts_resize

cdef enum:
    BLOCKS_MIN = 64          # below, rates are those of so many
    GHOST_EPOCHS = 64        # into which as many evictions as blocks fit are divided
    GHOST_AGE_MAX = 2 * GHOST_EPOCHS
    EPOCH_MASK = 0xFFF

cdef double LEARNING = 2.0   # how far one ghost moves its grade's life, in the logarithm, times the blocks that fit
cdef double SHARE_RATE = 4.0
cdef double SHARE_MIN = 0.02
cdef double LIFE_MAX = 32.0
cdef double FIRST_LIVES[GRADES]
FIRST_LIVES[0], FIRST_LIVES[1], FIRST_LIVES[2], FIRST_LIVES[3] = 1.0, 1.5, 2.0, 3.0


cdef inline uint64_t capacity() noexcept nogil:
    return GR.blocks if GR.blocks > BLOCKS_MIN else BLOCKS_MIN


cdef inline uint16_t epoch() noexcept nogil:
    cdef uint64_t step = capacity() // GHOST_EPOCHS
    return <uint16_t>((GR.evictions // (step if step else 1)) & EPOCH_MASK)


cdef void grades_forget() noexcept nogil:
    cdef int i
    for i in range(GRADES):
        GR.life[i] = FIRST_LIVES[i]
        GR.log_life[i] = log(FIRST_LIVES[i])
        GR.share[i] = 1.0 / GRADES
    GR.clock = 0
    GR.evictions = 0


cdef void grade_evicted(uint64_t hash, uint8_t grade) noexcept nogil:
    cdef int i
    cdef double rate = SHARE_RATE / capacity()
    if GR.evictions % GHOST_EPOCHS == 0:
        ghosts_resize(&GR.ghosts, capacity())
    GR.evictions += 1
    for i in range(GRADES):
        GR.share[i] += rate * ((1.0 if i == grade else 0.0) - GR.share[i])
    ghost_put(&GR.ghosts, hash, <uint16_t>(epoch() << 4 | grade))


cdef uint8_t grade_stored(uint64_t hash) noexcept nogil:
    cdef int note = ghost_take(&GR.ghosts, hash)
    if note < 0 or ((epoch() - (note >> 4)) & EPOCH_MASK) > GHOST_AGE_MAX:
        return 0
    return grade_returned(<uint8_t>(note & 3))


cdef uint8_t grade_returned(uint8_t grade) noexcept nogil:
    cdef double first, most = log(LIFE_MAX)
    cdef int i
    GR.log_life[grade] += LEARNING / max(SHARE_MIN, GR.share[grade]) / capacity()
    first = GR.log_life[0]
    for i in range(GRADES):
        GR.log_life[i] -= first
        if i:
            GR.log_life[i] = min(most, max(GR.log_life[i], GR.log_life[i - 1]))
        GR.life[i] = exp(GR.log_life[i])
    return <uint8_t>min(GRADES - 1, grade + 1)


def forget() -> None:
    grades_forget()


memset(&GR, 0, sizeof(GR))
grades_forget()
