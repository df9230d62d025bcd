"""Entries that a consumer group has delivered and nobody has acknowledged, ordered by id.

Both a group and each of its consumers keep such a list. It is an array cut into chunks of up to 256 records: entries
are delivered in ascending order, so most records come at the end, and those acknowledged go near the beginning; an
id is found by bisection over the chunks and then within one. Records hold no Python object, so that a list with
millions of them costs the collector nothing and is copied and freed at the speed of memory.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove
from zeekdb.hot.memory cimport mem_alloc, mem_footprint, mem_free, mem_resize
from zeekdb.hot.streamlog cimport Id, id_compare

cdef enum:
    RECORDS = 256       # of a chunk
    RECORDS_FIRST = 4   # of a list's first chunk, which grows

ctypedef struct Record:
    Id id
    int64_t time_ms
    uint64_t count
    uint64_t owner

ctypedef struct Chunk:
    Record* records
    uint32_t used
    uint32_t capacity

cdef object LOW = (1 << 64) - 1


cdef inline object number_of(const Id* id):
    return (<object>id.ms << 64) | <object>id.seq


cdef inline int id_of(object number, Id* id) except -1:
    id.ms = <uint64_t>(number >> 64)
    id.seq = <uint64_t>(number & LOW)
    return 0


cdef class PendingList:
    """See pending.pyi for what each method promises."""

    cdef Chunk* chunks
    cdef uint32_t count         # of chunks
    cdef uint32_t capacity
    cdef uint64_t length

    def __dealloc__(self):
        self.drop()

    cdef void drop(self) noexcept:
        cdef uint32_t i
        for i in range(self.count):
            mem_free(self.chunks[i].records, self.chunks[i].capacity * sizeof(Record))
        if self.capacity:
            mem_free(self.chunks, self.capacity * sizeof(Chunk))
        self.chunks = NULL
        self.count = self.capacity = 0
        self.length = 0

    cdef void open_chunk(self, uint32_t place, uint32_t capacity) noexcept:
        """Makes room for a chunk at `place`, empty."""
        cdef uint32_t wanted
        if self.count == self.capacity:
            wanted = self.capacity * 2 if self.capacity else 1
            self.chunks = <Chunk*>mem_resize(self.chunks, self.capacity * sizeof(Chunk), wanted * sizeof(Chunk))
            self.capacity = wanted
        memmove(&self.chunks[place + 1], &self.chunks[place], (self.count - place) * sizeof(Chunk))
        self.count += 1
        self.chunks[place].records = <Record*>mem_alloc(capacity * sizeof(Record))
        self.chunks[place].capacity = capacity
        self.chunks[place].used = 0

    cdef bint find(self, const Id* id, uint32_t* place, uint32_t* slot) noexcept:
        """Where the id is, or else where it belongs: in the chunk whose first record is the last at or below it."""
        cdef uint32_t low = 0, high = self.count, middle
        cdef Chunk* chunk
        place[0] = slot[0] = 0
        if self.count == 0:
            return False
        while low < high:
            middle = (low + high) // 2
            if id_compare(&self.chunks[middle].records[0].id, id) <= 0:
                low = middle + 1
            else:
                high = middle
        place[0] = low - 1 if low else 0
        chunk = &self.chunks[place[0]]
        low = 0
        high = chunk.used
        if id_compare(&chunk.records[high - 1].id, id) < 0:  # behind all: the usual case
            slot[0] = high
            return False
        while low < high:
            middle = (low + high) // 2
            if id_compare(&chunk.records[middle].id, id) < 0:
                low = middle + 1
            else:
                high = middle
        slot[0] = low
        return id_compare(&chunk.records[low].id, id) == 0

    cdef Record* insert(self, uint32_t place, uint32_t slot) noexcept:
        """Room for a record that belongs there."""
        cdef Chunk* chunk
        cdef uint32_t wanted, half
        if self.count == 0:
            self.open_chunk(0, RECORDS_FIRST)
        chunk = &self.chunks[place]
        if chunk.used == chunk.capacity and chunk.capacity < RECORDS:
            wanted = chunk.capacity * 2
            chunk.records = <Record*>mem_resize(
                chunk.records, chunk.capacity * sizeof(Record), wanted * sizeof(Record)
            )
            chunk.capacity = wanted
        elif chunk.used == RECORDS and slot == RECORDS:
            place += 1
            if place < self.count and self.chunks[place].used < self.chunks[place].capacity:
                slot = 0
            else:
                self.open_chunk(place, RECORDS)
                slot = 0
        elif chunk.used == RECORDS:
            half = RECORDS // 2
            self.open_chunk(place + 1, RECORDS)
            chunk = &self.chunks[place]
            memcpy(self.chunks[place + 1].records, chunk.records + half, half * sizeof(Record))
            self.chunks[place + 1].used = half
            chunk.used = half
            if slot > half:
                place += 1
                slot -= half
        chunk = &self.chunks[place]
        memmove(chunk.records + slot + 1, chunk.records + slot, (chunk.used - slot) * sizeof(Record))
        chunk.used += 1
        self.length += 1
        return chunk.records + slot

    cdef bint locate(self, number, Record** record) except -1:
        cdef Id id
        cdef uint32_t place, slot
        id_of(number, &id)
        if not self.find(&id, &place, &slot):
            return False
        record[0] = &self.chunks[place].records[slot]
        return True

    # ------------------------------------------------------------ the door

    def __len__(self):
        return self.length

    def __contains__(self, number):
        cdef Record* record
        return self.locate(number, &record)

    def get(self, number):
        cdef Record* record
        if not self.locate(number, &record):
            return None
        return record.owner, record.time_ms, record.count

    def put(self, number, uint64_t owner, int64_t time_ms, uint64_t count):
        cdef Id id
        cdef uint32_t place, slot
        cdef Record* record
        id_of(number, &id)
        if self.find(&id, &place, &slot):
            record = &self.chunks[place].records[slot]
        else:
            record = self.insert(place, slot)
            record.id = id
        record.owner = owner
        record.time_ms = time_ms
        record.count = count

    def remove(self, number):
        cdef Id id
        cdef uint32_t place, slot
        cdef Chunk* chunk
        id_of(number, &id)
        if not self.find(&id, &place, &slot):
            return False
        self.length -= 1
        if self.length == 0:
            self.drop()
            return True
        chunk = &self.chunks[place]
        chunk.used -= 1
        memmove(chunk.records + slot, chunk.records + slot + 1, (chunk.used - slot) * sizeof(Record))
        if chunk.used == 0:
            mem_free(chunk.records, chunk.capacity * sizeof(Record))
            self.count -= 1
            memmove(chunk, chunk + 1, (self.count - place) * sizeof(Chunk))
        return True

    def first(self):
        return number_of(&self.chunks[0].records[0].id) if self.length else None

    def last(self):
        cdef Chunk* chunk
        if not self.length:
            return None
        chunk = &self.chunks[self.count - 1]
        return number_of(&chunk.records[chunk.used - 1].id)

    def range(self, start, end, uint64_t count=0):
        cdef Id low, high
        cdef uint32_t place, slot
        cdef Record* record
        cdef list found = []
        id_of(start, &low)
        id_of(end, &high)
        self.find(&low, &place, &slot)
        while place < self.count:
            while slot < self.chunks[place].used:
                record = &self.chunks[place].records[slot]
                if id_compare(&record.id, &high) > 0:
                    return found
                found.append((number_of(&record.id), record.owner, record.time_ms, record.count))
                if count and <uint64_t>len(found) == count:
                    return found
                slot += 1
            place += 1
            slot = 0
        return found

    def clear(self):
        self.drop()

    def copy(self):
        cdef PendingList copy = PendingList.__new__(PendingList)
        cdef uint32_t i
        for i in range(self.count):
            copy.open_chunk(i, self.chunks[i].capacity)
            memcpy(copy.chunks[i].records, self.chunks[i].records, self.chunks[i].used * sizeof(Record))
            copy.chunks[i].used = self.chunks[i].used
        copy.length = self.length
        return copy

    def __sizeof__(self):
        cdef uint32_t i
        cdef size_t total = 64 + self.capacity * sizeof(Chunk)
        for i in range(self.count):
            total += mem_footprint(self.chunks[i].capacity * sizeof(Record))
        return total
