"""How recently and how often keys are used, and Redis's policies that ask.

Redis's LRU clock counts seconds, so that whatever is used within the same one is as old. Three bits more count eighths:
a cache that turns over in seconds is still told apart, and the seconds wrap after 194 days as Redis's do.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

import os
import time

cdef uint64_t RANDOM_STATE = int.from_bytes(os.urandom(8), "little") | 1
cdef uint32_t MINUTES = 0       # 16 bits


cdef uint64_t random_bits() noexcept nogil:
    """Xorshift: good enough to choose keys by, not for secrets."""
    global RANDOM_STATE
    RANDOM_STATE ^= RANDOM_STATE << 13
    RANDOM_STATE ^= RANDOM_STATE >> 7
    RANDOM_STATE ^= RANDOM_STATE << 17
    return RANDOM_STATE


cdef void recency_set_clock(int64_t now_ms) noexcept nogil:
    global MINUTES
    R.clock = (<uint32_t>(now_ms // 1000) & 0xFFFFFF) | <uint32_t>((now_ms % 1000) // 125) << 29
    MINUTES = <uint32_t>(now_ms // 60000) & 0xFFFF


cdef void recency_choose(Policy* policy) noexcept nogil:
    R.policy = policy
    R.tracking = policy.tracking


cdef uint8_t lfu_counter(uint32_t meta) noexcept nogil:
    cdef uint32_t minutes = (MINUTES - (meta >> 8)) & 0xFFFF
    cdef uint32_t counter = meta & 0xFF
    if R.decay_minutes:
        minutes = minutes // R.decay_minutes
        counter = counter - minutes if counter > minutes else 0
    return <uint8_t>counter


cdef uint32_t lfu_field(uint32_t counter) noexcept nogil:
    return MINUTES << 8 | counter


cdef void lfu_used(Entry* e) noexcept nogil:
    """One more, with a probability that falls as the counter grows: it counts the order of magnitude."""
    cdef uint32_t counter = lfu_counter(e.meta)
    cdef uint32_t base
    if counter < 255:
        base = counter - LFU_INIT if counter > LFU_INIT else 0
        if random_bits() % (base * R.log_factor + 1) == 0:
            counter += 1
    set_field(e, lfu_field(counter))


cdef void recency_used(Entry* e) noexcept nogil:
    if R.tracking == BY_COUNT:
        lfu_used(e)
    else:
        R.policy.touch(e)


cdef uint32_t recency_fresh(uint64_t hash) noexcept nogil:
    if R.tracking == BY_TIME:
        return R.clock
    if R.tracking == BY_COUNT:
        return lfu_field(LFU_INIT)
    return R.policy.fresh(hash)


cdef inline uint32_t eighths(uint32_t field) noexcept nogil:
    return (field & 0xFFFFFF) << 3 | field >> 29


cdef uint64_t lru_score(const Entry* e) noexcept nogil:
    return (eighths(R.clock) - eighths(e.meta)) & 0x7FFFFFF


cdef uint64_t lfu_score(const Entry* e) noexcept nogil:
    """The rarest; of equals the one whose last use is longer ago."""
    return (<uint64_t>(255 - lfu_counter(e.meta)) << 16) | ((MINUTES - (e.meta >> 8)) & 0xFFFF)


memset(&R, 0, sizeof(R))
R.decay_minutes = 1
R.log_factor = 10
recency_set_clock(<int64_t>(time.time() * 1000))
LRU_POLICY = Policy(BY_TIME, NULL, NULL, lru_score, NULL, NULL, NULL)
LFU_POLICY = Policy(BY_COUNT, NULL, NULL, lfu_score, NULL, NULL, NULL)
ANY_POLICY = Policy(BY_TIME, NULL, NULL, NULL, NULL, NULL, NULL)
recency_choose(&LRU_POLICY)
