"""Lists: a double-ended sequence of chunks.

A chunk is one allocation of about CHUNK bytes in which the elements lie one after the other, each with its length
before it (for walking forward) and behind it (for walking back). Free room may be at both ends of a chunk, so a push at
either end writes a few bytes and moves nothing. A directory, an array with room at both ends as well, holds the chunks'
counts side by side: LINDEX runs over counts, a cache line for each two or three thousand elements, and then over one chunk.

A small list is a single chunk of nearly exact size. Elements longer than a chunk get one of their own.

Rejected: Redis's linked list of listpacks (a push at the head moves up to 8 KiB), and an array of pointers to strings
(an allocation and 16 bytes an element).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy, memmove, memset
from zeekdb.hot.keyspace cimport TypeOps, register_type
from zeekdb.hot.memory cimport mem_alloc, mem_footprint, mem_free, mem_resize
from zeekdb.hot.packed cimport Emit
from zeekdb.hot.table cimport T_LIST

cdef enum:
    CHUNK = 8192
    SMALL = 32             # bytes of the first chunk
    MERGE = 2048           # neighbours whose bytes together are fewer become one

cdef int64_t LIMIT = -2    # list-max-listpack-size: what OBJECT ENCODING calls a listpack


def set_limits(*, int size):
    """The directive list-max-listpack-size: a count, or -1 to -5 for 4, 8, 16, 32 or 64 KiB."""
    global LIMIT
    LIMIT = size


# ---------------------------------------------------------------- elements


cdef inline size_t need(size_t n) noexcept nogil:
    return n + (2 if n < 254 else 10)


cdef inline uint8_t* read_next(uint8_t* at, size_t* n) noexcept nogil:
    """The element that begins at `at`; the next begins at the result + n + tail_of(n)."""
    cdef uint32_t wide
    if at[0] < 254:
        n[0] = at[0]
        return at + 1
    memcpy(&wide, at + 1, 4)
    n[0] = wide
    return at + 5


cdef inline size_t tail_of(size_t n) noexcept nogil:
    return 1 if n < 254 else 5


cdef inline uint8_t* read_back(uint8_t* end, size_t* n) noexcept nogil:
    """The element that ends before `end`; it begins (with its length) at the result - tail_of(n)."""
    cdef uint32_t wide
    if end[-1] < 254:
        n[0] = end[-1]
        return end - 1 - n[0]
    memcpy(&wide, end - 5, 4)
    n[0] = wide
    return end - 5 - n[0]


cdef inline void write_element(uint8_t* at, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint32_t wide = <uint32_t>n
    if n < 254:
        at[0] = <uint8_t>n
        memcpy(at + 1, p, n)
        at[1 + n] = <uint8_t>n
    else:
        at[0] = 254
        memcpy(at + 1, &wide, 4)
        memcpy(at + 5, p, n)
        memcpy(at + 5 + n, &wide, 4)
        at[9 + n] = 254


# ---------------------------------------------------------------- chunks and their directory


cdef inline Chunk* chunk_at(ListValue* v, uint32_t i) noexcept nogil:
    return &v.chunks[v.first + i]


cdef inline uint32_t room_used(Chunk* c) noexcept nogil:
    return c.end - c.start


cdef void chunk_grow(Chunk* c, size_t more, bint head) noexcept nogil:
    """Room for `more` bytes at one end: by shifting where a quarter of the chunk is free, else by a larger one."""
    cdef size_t used = room_used(c)
    cdef size_t capacity = c.capacity
    cdef size_t slack, start
    cdef uint8_t* data
    if capacity < used + more + capacity // 4:
        capacity = used + more + (used + more) // 4
        if capacity < SMALL:
            capacity = SMALL
        if capacity > CHUNK - 512 and used + more <= CHUNK:
            capacity = CHUNK
    slack = capacity - used - more
    if used == 0:
        start = capacity if head else 0
    else:
        start = slack - slack // 8 + more if head else slack // 8
    if capacity == c.capacity:
        memmove(c.data + start, c.data + c.start, used)
    else:
        data = <uint8_t*>mem_alloc(capacity)
        if used:
            memcpy(data + start, c.data + c.start, used)
        mem_free(c.data, c.capacity)
        c.data = data
        c.capacity = <uint32_t>capacity
    c.start = <uint32_t>start
    c.end = <uint32_t>(start + used)


cdef Chunk* directory_insert(ListValue* v, uint32_t i) noexcept nogil:
    """A fresh, empty chunk at place i."""
    cdef uint32_t capacity, first
    cdef Chunk* chunks
    cdef Chunk* c
    if v.used == v.capacity or (i == v.used and v.first + v.used == v.capacity) or (i == 0 and v.used and v.first == 0):
        capacity = v.used * 2 + 2 if v.used else 1
        first = (capacity - v.used) // 2
        chunks = <Chunk*>mem_alloc(capacity * sizeof(Chunk))
        if v.used:
            memcpy(chunks + first, v.chunks + v.first, v.used * sizeof(Chunk))
        mem_free(v.chunks, v.capacity * sizeof(Chunk))
        v.chunks = chunks
        v.capacity = capacity
        v.first = first if v.used else 0
    if v.used and i == 0:
        v.first -= 1
    elif i < v.used and v.first + v.used < v.capacity:
        memmove(chunk_at(v, i + 1), chunk_at(v, i), (v.used - i) * sizeof(Chunk))
    elif i < v.used:
        memmove(v.chunks + v.first - 1, v.chunks + v.first, i * sizeof(Chunk))
        v.first -= 1
    v.used += 1
    c = chunk_at(v, i)
    memset(c, 0, sizeof(Chunk))
    return c


cdef void directory_remove(ListValue* v, uint32_t i) noexcept nogil:
    cdef Chunk* c = chunk_at(v, i)
    mem_free(c.data, c.capacity)
    if i == 0:
        v.first += 1
    elif i + 1 < v.used:
        memmove(c, c + 1, (v.used - i - 1) * sizeof(Chunk))
    v.used -= 1
    if v.used == 0:
        v.first = 0


cdef void chunk_push(Chunk* c, const uint8_t* p, size_t n, bint head) noexcept nogil:
    cdef size_t size = need(n)
    if head:
        if c.start < size:
            chunk_grow(c, size, True)
        c.start -= <uint32_t>size
        write_element(c.data + c.start, p, n)
    else:
        if c.capacity - c.end < size:
            chunk_grow(c, size, False)
        write_element(c.data + c.end, p, n)
        c.end += <uint32_t>size
    c.count += 1


cdef void list_push(void* self, const uint8_t* p, size_t n, bint head) noexcept nogil:
    cdef ListValue* v = <ListValue*>self
    cdef Chunk* c
    if v.used == 0:
        c = directory_insert(v, 0)
    else:
        c = chunk_at(v, 0 if head else v.used - 1)
        if room_used(c) + need(n) > CHUNK:
            c = directory_insert(v, 0 if head else v.used)
            if n < CHUNK // 4:
                c.data = <uint8_t*>mem_alloc(CHUNK)
                c.capacity = CHUNK
                c.start = c.end = CHUNK if head else 0
    chunk_push(c, p, n, head)
    v.length += 1


cdef bint list_pop(void* self, bint head, Emit emit, void* arg) noexcept nogil:
    cdef ListValue* v = <ListValue*>self
    cdef uint32_t i
    cdef Chunk* c
    cdef uint8_t* p
    cdef size_t n
    if v.length == 0:
        return False
    i = 0 if head else v.used - 1
    c = chunk_at(v, i)
    if head:
        p = read_next(c.data + c.start, &n)
        emit(p, n, arg)
        c.start += <uint32_t>need(n)
    else:
        p = read_back(c.data + c.end, &n)
        emit(p, n, arg)
        c.end -= <uint32_t>need(n)
    c.count -= 1
    v.length -= 1
    if c.count == 0:
        directory_remove(v, i)
    return True


cdef uint64_t list_length(void* self) noexcept nogil:
    return (<ListValue*>self).length


# ---------------------------------------------------------------- places


ctypedef struct Place:
    uint32_t chunk
    uint8_t* at            # where the element (with its length) begins


cdef Place seek(ListValue* v, uint64_t i) noexcept nogil:
    """The place of element i, which exists: over the counts from the nearer end, then from the nearer end of a chunk."""
    cdef Place place
    cdef Chunk* c
    cdef uint64_t left
    cdef size_t n
    cdef uint8_t* p
    if i <= v.length // 2:
        place.chunk = 0
        c = chunk_at(v, 0)
        while i >= c.count:
            i -= c.count
            c += 1
            place.chunk += 1
    else:
        left = v.length - i  # at least 1: how many from the end, this one included
        place.chunk = v.used - 1
        c = chunk_at(v, place.chunk)
        while left > c.count:
            left -= c.count
            c -= 1
            place.chunk -= 1
        i = c.count - left
    if i <= c.count // 2:
        place.at = c.data + c.start
        while i:
            p = read_next(place.at, &n)
            place.at = p + n + tail_of(n)
            i -= 1
    else:
        left = c.count - i
        place.at = c.data + c.end
        while left:
            p = read_back(place.at, &n)
            place.at = p - tail_of(n)
            left -= 1
    return place


cdef bint list_index(void* self, int64_t i, Emit emit, void* arg) noexcept nogil:
    cdef ListValue* v = <ListValue*>self
    cdef Place place
    cdef uint8_t* p
    cdef size_t n
    if i < 0:
        i += <int64_t>v.length
    if i < 0 or i >= <int64_t>v.length:
        return False
    place = seek(v, i)
    p = read_next(place.at, &n)
    emit(p, n, arg)
    return True


cdef size_t list_range(void* self, int64_t start, int64_t stop, Emit emit, void* arg) noexcept nogil:
    cdef ListValue* v = <ListValue*>self
    cdef Place place
    cdef Chunk* c
    cdef uint8_t* at
    cdef uint8_t* end
    cdef uint8_t* p
    cdef size_t n
    cdef int64_t left = stop - start + 1
    if left <= 0:
        return 0
    place = seek(v, start)
    c = chunk_at(v, place.chunk)
    at = place.at
    while True:
        end = c.data + c.end
        while at < end:
            p = read_next(at, &n)
            emit(p, n, arg)
            at = p + n + tail_of(n)
            left -= 1
            if left == 0:
                return stop - start + 1
        c += 1
        at = c.data + c.start


# ---------------------------------------------------------------- changes in the middle


cdef void splice(ListValue* v, Place* place, size_t drop, const uint8_t* p, size_t n, bint add) noexcept nogil:
    """Replaces `drop` bytes at a place by an element, or by nothing. Counts are the caller's; place.at is kept true."""
    cdef Chunk* c = chunk_at(v, place.chunk)
    cdef size_t size = need(n) if add else 0
    cdef size_t offset = place.at - (c.data + c.start)
    cdef uint8_t* at
    if size > drop and c.capacity - c.end < size - drop:
        chunk_grow(c, size - drop, False)
    at = c.data + c.start + offset
    memmove(at + size, at + drop, c.data + c.end - at - drop)
    c.end = <uint32_t>(c.end + size - drop)
    if add:
        write_element(at, p, n)
    place.at = at


cdef void split_if_large(ListValue* v, uint32_t i) noexcept nogil:
    """A chunk grown to twice its size by inserts is cut where its bytes are halved."""
    cdef Chunk* c = chunk_at(v, i)
    cdef Chunk* right
    cdef uint8_t* at
    cdef uint8_t* p
    cdef size_t n, tail
    cdef uint32_t count = 0
    if room_used(c) <= 2 * CHUNK or c.count < 2:
        return
    at = c.data + c.start
    while count + 1 < c.count and (count == 0 or at - (c.data + c.start) < room_used(c) // 2):
        p = read_next(at, &n)
        at = p + n + tail_of(n)
        count += 1
    right = directory_insert(v, i + 1)
    c = chunk_at(v, i)
    tail = c.data + c.end - at
    right.data = <uint8_t*>mem_alloc(tail)
    memcpy(right.data, at, tail)
    right.capacity = right.end = <uint32_t>tail
    right.count = c.count - count
    c.count = count
    c.end = <uint32_t>(at - c.data)


cdef void tidy(ListValue* v, uint32_t i) noexcept nogil:
    """After a removal in chunk i: an empty chunk goes, and two that have become small grow together."""
    cdef Chunk* c = chunk_at(v, i)
    cdef Chunk* right
    cdef uint32_t used
    if c.count == 0:
        directory_remove(v, i)
        return
    if i + 1 == v.used:
        if i == 0:
            return
        i -= 1
        c = chunk_at(v, i)
    right = chunk_at(v, i + 1)
    used = room_used(right)
    if room_used(c) + used > MERGE:
        return
    if c.capacity - c.end < used:
        chunk_grow(c, used, False)
    memcpy(c.data + c.end, right.data + right.start, used)
    c.end += used
    c.count += right.count
    directory_remove(v, i + 1)


cdef void drop_ends(ListValue* v, uint64_t from_head, uint64_t from_tail) noexcept nogil:
    """LTRIM: whole chunks first, then single elements."""
    cdef Chunk* c
    cdef size_t n
    cdef uint8_t* p
    v.length -= from_head + from_tail
    while from_head:
        c = chunk_at(v, 0)
        if c.count <= from_head:
            from_head -= c.count
            directory_remove(v, 0)
            continue
        p = read_next(c.data + c.start, &n)
        c.start += <uint32_t>need(n)
        c.count -= 1
        from_head -= 1
    while from_tail:
        c = chunk_at(v, v.used - 1)
        if c.count <= from_tail:
            from_tail -= c.count
            directory_remove(v, v.used - 1)
            continue
        p = read_back(c.data + c.end, &n)
        c.end -= <uint32_t>need(n)
        c.count -= 1
        from_tail -= 1


# ---------------------------------------------------------------- what the keyspace asks


cdef void* list_create() noexcept nogil:
    cdef void* v = mem_alloc(sizeof(ListValue))
    memset(v, 0, sizeof(ListValue))
    return v


cdef bint list_destroy(void* self, size_t* budget) noexcept nogil:
    cdef ListValue* v = <ListValue*>self
    while v.used:
        if budget[0] == 0:
            return False
        directory_remove(v, v.used - 1)
        budget[0] -= 1
    mem_free(v.chunks, v.capacity * sizeof(Chunk))
    mem_free(v, sizeof(ListValue))
    return True


cdef void* list_copy(void* self) noexcept nogil:
    cdef ListValue* v = <ListValue*>self
    cdef ListValue* w = <ListValue*>list_create()
    cdef uint32_t i
    cdef Chunk* c
    cdef Chunk* d
    w.length = v.length
    if v.used:
        w.chunks = <Chunk*>mem_alloc(v.used * sizeof(Chunk))
        w.capacity = w.used = v.used
    for i in range(v.used):
        c = chunk_at(v, i)
        d = &w.chunks[i]
        d.capacity = d.end = room_used(c)
        d.start = 0
        d.count = c.count
        d.data = <uint8_t*>mem_alloc(d.capacity)
        memcpy(d.data, c.data + c.start, d.capacity)
    return w


cdef size_t list_memory(void* self) noexcept nogil:
    cdef ListValue* v = <ListValue*>self
    cdef size_t total = mem_footprint(sizeof(ListValue)) + mem_footprint(v.capacity * sizeof(Chunk))
    cdef uint32_t i
    for i in range(min(v.used, 64)):
        total += mem_footprint(chunk_at(v, i).capacity)
    if v.used > 64:
        total += <size_t>(v.used - 64) * (CHUNK + 16)
    return total


cdef size_t list_effort(void* self) noexcept nogil:
    return (<ListValue*>self).used


cdef object list_wrap(void* self):
    cdef List door = List.__new__(List)
    door.v = <ListValue*>self
    return door


cdef void emit_to_list(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    with gil:
        (<list>arg).append(PyBytes_FromStringAndSize(<const char*>p, n))


cdef class List:
    """The Python door over a list of the keyspace. See lists.pyi."""

    cdef ListValue* v

    def __len__(self):
        return self.v.length

    def push(self, bytes value not None, bint head):
        list_push(self.v, <uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), head)

    def pop(self, bint head):
        cdef list out = []
        list_pop(self.v, head, emit_to_list, <void*>out)
        return out[0] if out else None

    def index(self, int64_t i):
        cdef list out = []
        list_index(self.v, i, emit_to_list, <void*>out)
        return out[0] if out else None

    def range(self, int64_t start, int64_t stop):
        cdef list out = []
        cdef int64_t length = <int64_t>self.v.length
        if start < 0:
            start = max(start + length, 0)
        if stop < 0:
            stop += length
        stop = min(stop, length - 1)
        if start <= stop:
            list_range(self.v, start, stop, emit_to_list, <void*>out)
        return out

    def __iter__(self):
        return iter(self.range(0, -1))

    def set(self, int64_t i, bytes value not None):
        """Replaces element i (negative: from the end); False when there is none."""
        cdef Place place
        cdef size_t n
        if i < 0:
            i += <int64_t>self.v.length
        if i < 0 or i >= <int64_t>self.v.length:
            return False
        place = seek(self.v, i)
        read_next(place.at, &n)
        splice(self.v, &place, need(n), <uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), True)
        split_if_large(self.v, place.chunk)
        return True

    def insert(self, bytes pivot not None, bytes value not None, bint before):
        """Puts value next to the first pivot; False when the pivot is absent."""
        cdef uint32_t i
        cdef Chunk* c
        cdef Place place
        cdef uint8_t* p
        cdef size_t n, m = PyBytes_GET_SIZE(pivot)
        for i in range(self.v.used):
            c = chunk_at(self.v, i)
            place.chunk = i
            place.at = c.data + c.start
            while place.at < c.data + c.end:
                p = read_next(place.at, &n)
                if n == m and memcmp(p, PyBytes_AS_STRING(pivot), n) == 0:
                    if not before:
                        place.at = p + n + tail_of(n)
                    splice(self.v, &place, 0, <uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), True)
                    chunk_at(self.v, i).count += 1
                    self.v.length += 1
                    split_if_large(self.v, i)
                    return True
                place.at = p + n + tail_of(n)
        return False

    def remove(self, bytes value not None, int64_t count):
        """LREM: up to |count| equal elements from the head (positive) or the tail (negative); 0: all. How many went."""
        cdef int64_t left = count if count > 0 else -count if count < 0 else <int64_t>self.v.length
        cdef int64_t removed = 0
        cdef int64_t i
        cdef uint32_t gone
        i = 0 if count >= 0 else <int64_t>self.v.used - 1
        while 0 <= i < <int64_t>self.v.used and removed < left:
            gone = self.remove_in(<uint32_t>i, value, left - removed, count >= 0)
            removed += gone
            if count >= 0:
                # an emptied chunk leaves its place to the next
                if gone and chunk_at(self.v, <uint32_t>i).count == 0:
                    directory_remove(self.v, <uint32_t>i)
                else:
                    i += 1
            else:
                if gone and chunk_at(self.v, <uint32_t>i).count == 0:
                    directory_remove(self.v, <uint32_t>i)
                i -= 1
        if removed and self.v.used > 1:
            i = <int64_t>self.v.used - 2
            while i >= 0:
                tidy(self.v, <uint32_t>i)
                i -= 1
        return removed

    cdef uint32_t remove_in(self, uint32_t i, bytes value, int64_t most, bint forward):
        """Equal elements of one chunk, in one pass either way."""
        cdef Chunk* c = chunk_at(self.v, i)
        cdef uint8_t* want = <uint8_t*>PyBytes_AS_STRING(value)
        cdef size_t m = PyBytes_GET_SIZE(value), n
        cdef uint8_t* at
        cdef uint8_t* p
        cdef uint8_t* to
        cdef uint8_t* end = c.data + c.end
        cdef uint32_t gone = 0
        if forward:
            at = to = c.data + c.start
            while at < end:
                p = read_next(at, &n)
                if gone < most and n == m and memcmp(p, want, n) == 0:
                    gone += 1
                else:
                    if to != at:
                        memmove(to, at, need(n))
                    to += need(n)
                at = p + n + tail_of(n)
            c.end = <uint32_t>(to - c.data)
        else:
            at = to = end
            while at > c.data + c.start:
                p = read_back(at, &n)
                at = p - tail_of(n)
                if gone < most and n == m and memcmp(p, want, n) == 0:
                    gone += 1
                else:
                    to -= need(n)
                    if to != at:
                        memmove(to, at, need(n))
            c.start = <uint32_t>(to - c.data)
        c.count -= gone
        self.v.length -= gone
        return gone

    def trim(self, int64_t start, int64_t stop):
        """Keeps what lies between (as LRANGE counts); how many were removed."""
        cdef int64_t length = <int64_t>self.v.length
        if start < 0:
            start = max(start + length, 0)
        if stop < 0:
            stop += length
        stop = min(stop, length - 1)
        if start > stop:
            drop_ends(self.v, length, 0)
            return length
        drop_ends(self.v, start, length - 1 - stop)
        return length - (stop - start + 1)

    def positions(self, bytes value not None, int64_t rank=1, int64_t count=1, int64_t most=0):
        """LPOS: places of equal elements from the rank-th match on; at most `count` (0: all), looking at `most` (0: all)."""
        cdef list found = []
        cdef uint8_t* want = <uint8_t*>PyBytes_AS_STRING(value)
        cdef size_t m = PyBytes_GET_SIZE(value), n
        cdef int64_t seen = 0, matches = 0, i
        cdef int64_t length = <int64_t>self.v.length
        cdef bint forward = rank > 0
        cdef int64_t k
        cdef Chunk* c
        cdef uint8_t* at
        cdef uint8_t* p
        rank = rank if forward else -rank
        k = 0 if forward else <int64_t>self.v.used - 1
        while 0 <= k < <int64_t>self.v.used:
            c = chunk_at(self.v, <uint32_t>k)
            at = c.data + (c.start if forward else c.end)
            while (at < c.data + c.end) if forward else (at > c.data + c.start):
                if most and seen >= most:
                    return found
                if forward:
                    p = read_next(at, &n)
                    at = p + n + tail_of(n)
                else:
                    p = read_back(at, &n)
                    at = p - tail_of(n)
                if n == m and memcmp(p, want, n) == 0:
                    matches += 1
                    if matches >= rank:
                        i = seen if forward else length - 1 - seen
                        found.append(i)
                        if count and len(found) >= count:
                            return found
                seen += 1
            k += 1 if forward else -1
        return found

    @property
    def encoding(self):
        """As Redis 7.2 names it."""
        cdef size_t used, limit
        if self.v.used == 0:
            return "listpack"
        if self.v.used > 1:
            return "quicklist"
        used = room_used(chunk_at(self.v, 0)) + 7
        if LIMIT >= 0:
            return "listpack" if self.v.length <= <uint64_t>LIMIT and used <= CHUNK else "quicklist"
        limit = <size_t>2048 << min(-LIMIT, 5)
        return "listpack" if used <= limit else "quicklist"


cdef TypeOps OPS
OPS.create = list_create
OPS.destroy = list_destroy
OPS.copy = list_copy
OPS.length = list_length
OPS.memory = list_memory
OPS.effort = list_effort
OPS.wrap = list_wrap
register_type(T_LIST, &OPS, List)
