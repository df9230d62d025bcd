"""The expiry index of a shard: a 4-ary min-heap of (deadline, entry).

An entry with a deadline stores its place in the heap, so that a deadline is changed or cleared in O(log n) without a
search, and so that what is due is exactly what expires: nothing is sampled. Four children to a parent halve the depth
of a binary heap, and siblings share a cache line.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from zeekdb.hot.memory cimport mem_free, mem_resize
from zeekdb.hot.table cimport Entry


cdef inline uint32_t place_of(const Entry* e) noexcept nogil:
    cdef uint32_t i
    memcpy(&i, deadline_at(e) + 8, 4)
    return i


cdef inline void put(Deadlines* due, uint32_t i, Deadline d) noexcept nogil:
    due.heap[i] = d
    memcpy(deadline_at(d.entry) + 8, &i, 4)


cdef void rise(Deadlines* due, uint32_t i, Deadline d) noexcept nogil:
    cdef uint32_t parent
    while i:
        parent = (i - 1) >> 2
        if due.heap[parent].when_ms <= d.when_ms:
            break
        put(due, i, due.heap[parent])
        i = parent
    put(due, i, d)


cdef void sink(Deadlines* due, uint32_t i, Deadline d) noexcept nogil:
    cdef uint32_t child, best, k
    while True:
        child = 4 * i + 1
        if child >= due.used:
            break
        best = child
        for k in range(child + 1, min(child + 4, due.used)):
            if due.heap[k].when_ms < due.heap[best].when_ms:
                best = k
        if due.heap[best].when_ms >= d.when_ms:
            break
        put(due, i, due.heap[best])
        i = best
    put(due, i, d)


cdef void deadline_add(Deadlines* due, Entry* e, int64_t when_ms) noexcept nogil:
    """The entry has EXPIRES; its deadline is set here."""
    cdef Deadline d
    cdef uint32_t capacity
    if due.used == due.capacity:
        capacity = due.capacity + due.capacity // 2 + 16
        due.heap = <Deadline*>mem_resize(due.heap, due.capacity * sizeof(Deadline), capacity * sizeof(Deadline))
        due.capacity = capacity
    memcpy(deadline_at(e), &when_ms, 8)
    d.when_ms = when_ms
    d.entry = e
    due.used += 1
    rise(due, due.used - 1, d)


cdef void deadline_remove(Deadlines* due, Entry* e) noexcept nogil:
    cdef uint32_t i = place_of(e)
    cdef uint32_t capacity
    cdef Deadline last
    due.used -= 1
    if i != due.used:
        last = due.heap[due.used]
        if i and due.heap[(i - 1) >> 2].when_ms > last.when_ms:
            rise(due, i, last)
        else:
            sink(due, i, last)
    if due.capacity > 64 and due.used * 4 < due.capacity:
        capacity = due.capacity // 2
        due.heap = <Deadline*>mem_resize(due.heap, due.capacity * sizeof(Deadline), capacity * sizeof(Deadline))
        due.capacity = capacity


cdef void deadline_change(Deadlines* due, Entry* e, int64_t when_ms) noexcept nogil:
    cdef uint32_t i = place_of(e)
    cdef Deadline d
    memcpy(deadline_at(e), &when_ms, 8)
    d.when_ms = when_ms
    d.entry = e
    if i and due.heap[(i - 1) >> 2].when_ms > when_ms:
        rise(due, i, d)
    else:
        sink(due, i, d)


cdef void deadline_moved(Deadlines* due, Entry* e) noexcept nogil:
    due.heap[place_of(e)].entry = e


cdef void deadlines_free(Deadlines* due) noexcept nogil:
    mem_free(due.heap, due.capacity * sizeof(Deadline))
    memset(due, 0, sizeof(Deadlines))


cdef uint64_t deadlines_faults(Deadlines* due) noexcept nogil:
    cdef uint64_t faults = 0
    cdef uint32_t i
    for i in range(due.used):
        faults += place_of(due.heap[i].entry) != i
        faults += deadline_of(due.heap[i].entry) != due.heap[i].when_ms
        faults += due.heap[(i - 1) >> 2 if i else 0].when_ms > due.heap[i].when_ms
    return faults
