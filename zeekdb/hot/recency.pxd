# What an entry remembers of its use, in the 27 bits of its header that are left for that; and what each eviction
# policy makes of it. An entry's field means what the policy that wrote it says: after a change of policy it takes a
# while until the fields are right again, as in Redis.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from zeekdb.hot.table cimport Entry

cdef enum:
    BY_TIME = 0             # seconds of the last use, in the low 24 bits, and eighths of one, in the upper three
    BY_COUNT = 1            # 16 bits of minutes, 8 of Redis's logarithmic counter
    BY_POLICY = 2           # 24 bits of the policy's own
    LFU_INIT = 5

cdef extern from *:
    """
    #define FIELD 0xE0FFFFFFu
    """
    uint32_t FIELD          # the bits of an entry's meta

# One per policy. All but `score` may be NULL.
ctypedef struct Policy:
    int tracking
    uint32_t (*fresh)(uint64_t hash) noexcept nogil         # the field of a new key; BY_POLICY alone
    void (*touch)(Entry* e) noexcept nogil                  # a key is read, or its value replaced; BY_POLICY alone
    uint64_t (*score)(const Entry* e) noexcept nogil        # the highest of a sample goes; NULL: any
    bint (*spare)(Entry* e) noexcept nogil                  # whether the highest stays after all, having been changed
    void (*gone)(const Entry* e) noexcept nogil             # it goes
    void (*resize)(uint64_t keys) noexcept nogil            # how many keys there are; before each choice

ctypedef struct Recency:
    Policy* policy
    int tracking            # of the policy
    uint32_t clock          # what a use writes BY_TIME
    uint32_t decay_minutes  # lfu-decay-time
    uint32_t log_factor     # lfu-log-factor

cdef Recency R
cdef Policy LRU_POLICY, LFU_POLICY, ANY_POLICY

cdef void recency_set_clock(int64_t now_ms) noexcept nogil
cdef void recency_choose(Policy* policy) noexcept nogil
cdef void recency_used(Entry* e) noexcept nogil                     # not BY_TIME
cdef uint32_t recency_fresh(uint64_t hash) noexcept nogil
cdef uint8_t lfu_counter(uint32_t meta) noexcept nogil              # after the minutes since the last use
cdef uint32_t lfu_field(uint32_t counter) noexcept nogil            # used now
cdef uint64_t random_bits() noexcept nogil

cdef inline void set_field(Entry* e, uint32_t field) noexcept nogil:
    e.meta = (e.meta & ~FIELD) | field

cdef inline void touch_entry(Entry* e) noexcept nogil:
    if R.tracking == BY_TIME:
        set_field(e, R.clock)
    else:
        recency_used(e)

cdef inline uint32_t idle_seconds(const Entry* e) noexcept nogil:
    """BY_TIME alone."""
    return (R.clock - e.meta) & 0xFFFFFF

cdef inline uint32_t idle_field(int64_t idle_s) noexcept nogil:
    return (R.clock - <uint32_t>idle_s) & 0xFFFFFF
