"""The log of a stream: blocks of packed entries in an ordered array.

Entries come only at the end and mostly go at the beginning, so no tree is needed: the blocks stand in an array ordered
by the id of their first entry, and an id is found by bisection. The array is cut into chunks of up to 256 slots, which
in turn are bisected, so that neither growing nor removing anywhere moves more than 6 KiB, and what goes at the front
moves nothing. A slot repeats the id of its block: bisection touches no block.

A block is one allocation. It begins with the field names of its first entry; an entry with the same fields, the usual
case, stores values only. An entry is

    flags | ms minus the block's | sequence | [number of fields] | [name] value … | length of all before, backwards

with numbers of seven bits a byte. The sequence is counted from the block's while the ms are equal. The last part is
written so that it can be read from its end: that is how the log is walked backwards. Deleting sets a flag; a block
goes when its last live entry goes. Only the last block grows, and it is cut to size when the next one begins.

When a block is full is a promise to users: XADD MAXLEN ~ keeps whole blocks. Redis counts the bytes of its listpack
there, so every block keeps count of what it would weigh as one (`weight`), and blocks break where Redis's nodes do.
Source: listpack.c, t_stream.c.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset
from zeekdb.hot.memory cimport mem_alloc, mem_footprint, mem_free, mem_resize
from zeekdb.hot.streampack cimport (
    entry_start, get_number, get_text, put_length_back, put_number, put_text, skip_text, weight_of_int, weight_of_text,
)
from zeekdb.hot.wire cimport Arg

cdef extern from *:
    int clz "__builtin_clzll"(uint64_t v) nogil

cdef enum:
    CHUNK_SLOTS = 256
    BLOCK_MIN = 64          # bytes of a log's first block
    BLOCK_AHEAD = 4096      # bytes that a later block is given at once, at most
    NODES_MAX = 65536       # blocks that log_nodes looks at

cdef uint64_t size_max = 4096
cdef uint64_t entries_max = 100


cdef void log_limits(uint64_t bytes_max, uint64_t entries) noexcept nogil:
    global size_max, entries_max
    size_max = bytes_max if 0 < bytes_max < TOTAL_MAX else TOTAL_MAX
    entries_max = entries


cdef uint64_t log_entries_max() noexcept nogil:
    return entries_max


cdef inline uint64_t block_weight(const Block* b) noexcept nogil:
    return <uint64_t>b.weight + weight_of_int(b.live) + weight_of_int(b.dead)


# --- the array of blocks ---------------------------------------------------------------------------------------------

cdef inline uint8_t* block_data(Block* b) noexcept nogil:
    return <uint8_t*>b + sizeof(Block)


cdef inline size_t block_size(const Block* b) noexcept nogil:
    return sizeof(Block) + b.capacity


cdef inline Slot* slots(Chunk* chunk) noexcept nogil:
    """The taken ones."""
    return <Slot*>(<uint8_t*>chunk + 16) + chunk.first


cdef inline size_t chunk_size(uint32_t capacity) noexcept nogil:
    return 16 + capacity * sizeof(Slot)


cdef inline Chunk* chunk_at(Log* log, uint32_t place) noexcept nogil:
    return log.chunks[log.first + place]


cdef inline Slot* last_slot(Log* log) noexcept nogil:
    """NULL when there is no block."""
    cdef Chunk* chunk
    if log.count == 0:
        return NULL
    chunk = chunk_at(log, log.count - 1)
    return slots(chunk) + chunk.count - 1


cdef Chunk* new_chunk(Log* log, uint32_t capacity) noexcept nogil:
    """Opens an empty chunk at the end."""
    cdef Chunk* chunk = <Chunk*>mem_alloc(chunk_size(capacity))
    cdef uint32_t wanted
    chunk.first = chunk.count = 0
    chunk.capacity = capacity
    log.bytes += mem_footprint(chunk_size(capacity))
    if log.first + log.count == log.capacity:
        if log.first > log.capacity // 2:
            memmove(log.chunks, log.chunks + log.first, log.count * sizeof(Chunk*))
            log.first = 0
        else:
            wanted = log.capacity * 2 if log.capacity else 1
            log.chunks = <Chunk**>mem_resize(log.chunks, log.capacity * sizeof(Chunk*), wanted * sizeof(Chunk*))
            log.capacity = wanted
    log.chunks[log.first + log.count] = chunk
    log.count += 1
    return chunk


cdef Slot* new_slot(Log* log) noexcept nogil:
    """Room for one more block at the end."""
    cdef Chunk* chunk = chunk_at(log, log.count - 1) if log.count else new_chunk(log, 1)
    cdef uint32_t wanted
    if chunk.first + chunk.count == chunk.capacity:
        if chunk.first > chunk.capacity // 2:
            memmove(<uint8_t*>chunk + 16, slots(chunk), chunk.count * sizeof(Slot))
            chunk.first = 0
        elif chunk.capacity < CHUNK_SLOTS:
            wanted = chunk.capacity * 2
            log.bytes += mem_footprint(chunk_size(wanted)) - mem_footprint(chunk_size(chunk.capacity))
            chunk = <Chunk*>mem_resize(chunk, chunk_size(chunk.capacity), chunk_size(wanted))
            chunk.capacity = wanted
            log.chunks[log.first + log.count - 1] = chunk
        else:
            chunk = new_chunk(log, CHUNK_SLOTS)
    chunk.count += 1
    log.blocks += 1
    return slots(chunk) + chunk.count - 1


cdef void drop_block(Log* log, uint32_t place, uint32_t slot) noexcept nogil:
    """Frees a block and closes the gap."""
    cdef Chunk* chunk = chunk_at(log, place)
    cdef Slot* s = slots(chunk) + slot
    log.bytes -= mem_footprint(block_size(s.block))
    mem_free(s.block, block_size(s.block))
    log.blocks -= 1
    chunk.count -= 1
    if slot == 0:
        chunk.first += 1
    else:
        memmove(s, s + 1, (chunk.count - slot) * sizeof(Slot))
    if chunk.count:
        return
    log.bytes -= mem_footprint(chunk_size(chunk.capacity))
    mem_free(chunk, chunk_size(chunk.capacity))
    log.count -= 1
    if place == 0:
        log.first += 1
    else:
        memmove(&log.chunks[log.first + place], &log.chunks[log.first + place + 1],
                (log.count - place) * sizeof(Chunk*))


cdef bint find_block(Log* log, const Id* id, uint32_t* place, uint32_t* slot) noexcept nogil:
    """The last block that begins at or below the id; False when all begin above it."""
    cdef uint32_t low = 0, high = log.count, middle
    cdef Chunk* chunk
    cdef Slot* s
    while low < high:
        middle = (low + high) // 2
        if id_compare(&slots(chunk_at(log, middle)).id, id) <= 0:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return False
    place[0] = low - 1
    chunk = chunk_at(log, low - 1)
    s = slots(chunk)
    low = 1
    high = chunk.count
    while low < high:
        middle = (low + high) // 2
        if id_compare(&s[middle].id, id) <= 0:
            low = middle + 1
        else:
            high = middle
    slot[0] = low - 1
    return True


# --- adding ----------------------------------------------------------------------------------------------------------

cdef void resize_block(Log* log, Slot* s, uint64_t capacity) noexcept nogil:
    log.bytes -= mem_footprint(block_size(s.block))
    s.block = <Block*>mem_resize(s.block, block_size(s.block), sizeof(Block) + capacity)
    s.block.capacity = <uint32_t>capacity
    log.bytes += mem_footprint(block_size(s.block))


cdef inline uint8_t* room(Log* log, Slot* s, uint64_t need) noexcept nogil:
    """The end of a block, with room for so many bytes more."""
    cdef Block* b = s.block
    cdef uint64_t capacity
    if b.size + need > b.capacity:
        capacity = b.capacity + (b.capacity if b.capacity < 2048 else b.capacity // 2)
        resize_block(log, s, capacity if capacity > b.size + need else b.size + need)
        b = s.block
    return block_data(b) + b.size


cdef void finish_block(Log* log) noexcept nogil:
    """The last block grows no more."""
    cdef Slot* s = last_slot(log)
    log.full_size = s.block.size
    if mem_footprint(sizeof(Block) + s.block.size) < mem_footprint(block_size(s.block)):
        resize_block(log, s, s.block.size)


cdef void log_begin_block(Log* log, const Id* id, const Arg* names, uint64_t step, uint64_t fields) noexcept nogil:
    cdef uint64_t i, need = 0
    cdef uint32_t weight = 9 + weight_of_int(<int64_t>fields)  # header, end and terminator, and the count of names
    cdef Slot* s
    cdef Block* b
    cdef uint8_t* at
    if log.count:
        finish_block(log)
    for i in range(fields):
        need += names[i * step].n + 10
        weight += weight_of_text(names[i * step].p, names[i * step].n)
    need += min(max(<uint64_t>log.full_size, <uint64_t>BLOCK_MIN), <uint64_t>BLOCK_AHEAD)
    s = new_slot(log)
    s.id = id[0]
    b = s.block = <Block*>mem_alloc(sizeof(Block) + need)
    b.capacity = <uint32_t>need
    b.live = b.dead = 0
    b.names = <uint32_t>fields
    b.weight = weight
    at = block_data(b)
    for i in range(fields):
        at = put_text(at, names[i * step].p, names[i * step].n)
    b.head = b.size = <uint32_t>(at - block_data(b))
    log.bytes += mem_footprint(block_size(b))


cdef inline bint same_fields(Block* b, const Arg* words, uint64_t fields) noexcept nogil:
    cdef const uint8_t* at = block_data(b)
    cdef size_t n
    cdef uint64_t i
    if fields != b.names:
        return False
    for i in range(fields):
        at = get_text(at, &n)
        if n != words[2 * i].n or memcmp(at, words[2 * i].p, n) != 0:
            return False
        at += n
    return True


cdef void log_put(
    Log* log, const Id* id, const Arg* words, uint64_t step, uint64_t fields, uint32_t flags
) noexcept nogil:
    cdef Slot* s = last_slot(log)
    cdef Block* b
    cdef bint same = flags & ENTRY_SAME
    cdef uint64_t i, n = fields if same else 2 * fields
    cdef uint64_t need = 40  # flags, two ids, a count and the length, each as long as it can be
    cdef uint64_t ms = id.ms - s.id.ms
    cdef uint32_t weight = 2 + weight_of_int(<int64_t>ms) + weight_of_int(<int64_t>(id.seq - s.id.seq))
    cdef const Arg* word
    cdef uint8_t* begin
    cdef uint8_t* at
    for i in range(n):
        need += words[i * step].n + 5
    begin = at = room(log, s, need)
    b = s.block
    at[0] = <uint8_t>flags
    at = put_number(at + 1, ms)
    at = put_number(at, id.seq if ms else id.seq - s.id.seq)
    if same:
        weight += weight_of_int(<int64_t>fields + 3)
    else:
        at = put_number(at, fields)
        weight += weight_of_int(<int64_t>fields) + weight_of_int(2 * <int64_t>fields + 4)
    for i in range(n):
        word = &words[i * step]
        at = put_text(at, word.p, word.n)
        weight += weight_of_text(word.p, word.n)
    at = put_length_back(at, at - begin)
    b.size += <uint32_t>(at - begin)
    b.weight += weight
    if flags & ENTRY_DEAD:
        b.dead += 1
    else:
        b.live += 1
        log.length += 1


cdef void log_append(Log* log, const Id* id, const Arg* words, uint64_t fields) noexcept nogil:
    cdef Slot* s = last_slot(log)
    cdef Block* b = s.block if s != NULL else NULL
    cdef uint64_t i, total = 0
    for i in range(2 * fields):
        total += words[i].n
    if b != NULL and (
        block_weight(b) + total >= size_max or (entries_max and <uint64_t>b.live + b.dead >= entries_max)
    ):
        b = NULL
    if b == NULL:
        log_begin_block(log, id, words, 2, fields)
        log_put(log, id, words + 1, 2, fields, ENTRY_SAME)
    elif same_fields(b, words, fields):
        log_put(log, id, words + 1, 2, fields, ENTRY_SAME)
    else:
        log_put(log, id, words, 1, fields, 0)
    if log.length == 1:
        log.head = id[0]
    log.last = id[0]
    log.added += 1


cdef bint log_next(Log* log, uint64_t now_ms, Id* id) noexcept nogil:
    cdef uint64_t most = <uint64_t>-1
    if now_ms > log.last.ms:
        id.ms = now_ms
        id.seq = 0
    elif log.last.seq < most:
        id.ms = log.last.ms
        id.seq = log.last.seq + 1
    elif log.last.ms < most:
        id.ms = log.last.ms + 1
        id.seq = 0
    else:
        return False
    return True


# --- walking ---------------------------------------------------------------------------------------------------------

cdef inline void enter(Cursor* c, uint32_t chunk, uint32_t slot, bint at_end) noexcept nogil:
    cdef Slot* s = slots(chunk_at(c.log, chunk)) + slot
    c.chunk = chunk
    c.slot = slot
    c.block = s.block
    c.master = s.id
    c.at = block_data(s.block) + (s.block.size if at_end else s.block.head)


cdef inline bint enter_next(Cursor* c) noexcept nogil:
    if c.slot + 1 < chunk_at(c.log, c.chunk).count:
        enter(c, c.chunk, c.slot + 1, False)
    elif c.chunk + 1 < c.log.count:
        enter(c, c.chunk + 1, 0, False)
    else:
        c.block = NULL
    return c.block != NULL


cdef inline bint enter_prev(Cursor* c) noexcept nogil:
    if c.slot:
        enter(c, c.chunk, c.slot - 1, True)
    elif c.chunk:
        enter(c, c.chunk - 1, chunk_at(c.log, c.chunk - 1).count - 1, True)
    else:
        c.block = NULL
    return c.block != NULL


cdef inline void decode(Cursor* c, const uint8_t* at) noexcept nogil:
    cdef uint64_t ms, seq
    c.flags = at[0]
    at = get_number(at + 1, &ms)
    at = get_number(at, &seq)
    c.id.ms = c.master.ms + ms
    c.id.seq = seq if ms else c.master.seq + seq
    if c.flags & ENTRY_SAME:
        c.names = block_data(c.block)
        c.fields = c.block.names
    else:
        c.names = NULL
        at = get_number(at, &c.fields)
    c.body = at


cdef inline const uint8_t* entry_end(Cursor* c) noexcept nogil:
    cdef uint64_t i
    cdef const uint8_t* at = c.body
    cdef const uint8_t* end = block_data(c.block) + c.block.size
    for i in range(c.fields if c.flags & ENTRY_SAME else 2 * c.fields):
        at = skip_text(at)
    at += 1
    while at < end and at[0] & 128:  # flags have not got that bit
        at += 1
    return at


cdef bint cursor_any(Cursor* c) noexcept nogil:
    if c.at == block_data(c.block) + c.block.size:
        return False
    decode(c, c.at)
    c.at = entry_end(c)
    return True


cdef bint cursor_next(Cursor* c) noexcept nogil:
    while c.block != NULL:
        while cursor_any(c):
            if not c.flags & ENTRY_DEAD:
                return True
        enter_next(c)
    return False


cdef bint cursor_prev(Cursor* c) noexcept nogil:
    while c.block != NULL:
        while c.at > block_data(c.block) + c.block.head:
            c.at = entry_start(c.at)
            decode(c, c.at)
            if not c.flags & ENTRY_DEAD:
                return True
        enter_prev(c)
    return False


cdef bint cursor_from(Cursor* c, Log* log, const Id* id) noexcept nogil:
    cdef uint32_t place = 0, slot = 0
    c.log = log
    c.block = NULL
    if log.count == 0:
        return False
    find_block(log, id, &place, &slot)
    enter(c, place, slot, False)
    while cursor_next(c):
        if id_compare(&c.id, id) >= 0:
            return True
    return False


cdef bint cursor_until(Cursor* c, Log* log, const Id* id) noexcept nogil:
    cdef uint32_t place, slot
    c.log = log
    c.block = NULL
    if not find_block(log, id, &place, &slot):
        return False
    enter(c, place, slot, True)
    while cursor_prev(c):
        if id_compare(&c.id, id) <= 0:
            return True
    return False


cdef bint cursor_block(Cursor* c, Log* log, const Id* after) noexcept nogil:
    cdef uint32_t place, slot
    c.log = log
    c.block = NULL
    if log.count == 0:
        return False
    if after == NULL or not find_block(log, after, &place, &slot):
        enter(c, 0, 0, False)
        return True
    enter(c, place, slot, False)
    return enter_next(c)


# --- removing --------------------------------------------------------------------------------------------------------

cdef void find_head(Log* log) noexcept nogil:
    cdef Cursor c
    memset(&log.head, 0, sizeof(Id))
    if log.length and cursor_from(&c, log, &log.head):
        log.head = c.id


cdef inline void bury(Log* log, const uint8_t* at, Block* b) noexcept nogil:
    (<uint8_t*>at)[0] |= ENTRY_DEAD
    b.live -= 1
    b.dead += 1
    log.length -= 1


cdef bint log_remove(Log* log, const Id* id) noexcept nogil:
    cdef Cursor c
    cdef const uint8_t* at
    c.log = log
    if not find_block(log, id, &c.chunk, &c.slot):
        return False
    enter(&c, c.chunk, c.slot, False)
    at = c.at
    while cursor_any(&c) and id_compare(&c.id, id) < 0:
        at = c.at
    if id_compare(&c.id, id) != 0 or c.flags & ENTRY_DEAD:
        return False
    bury(log, at, c.block)
    if c.block.live == 0:
        drop_block(log, c.chunk, c.slot)
    if id_compare(id, &log.head) == 0:
        find_head(log)
    return True


cdef uint64_t trim_block(Log* log, uint64_t length, const Id* below) noexcept nogil:
    """Buries the first block's oldest entries."""
    cdef Cursor c
    cdef const uint8_t* at
    cdef uint64_t before = log.length
    c.log = log
    enter(&c, 0, 0, False)
    at = c.at
    while cursor_any(&c):
        if id_compare(&c.id, below) >= 0 if below != NULL else log.length <= length:
            break
        if not c.flags & ENTRY_DEAD:
            bury(log, at, c.block)
        at = c.at
    if c.block.live == 0:
        drop_block(log, 0, 0)
    return before - log.length


cdef uint64_t log_trim(Log* log, uint64_t length, const Id* below, bint whole, uint64_t most) noexcept nogil:
    cdef uint64_t gone = 0
    cdef Cursor c
    cdef bint all_of_it
    c.log = log
    while log.count:
        if below == NULL and log.length <= length:
            break
        enter(&c, 0, 0, True)
        if most and gone + c.block.live > most:
            break
        if below == NULL:
            all_of_it = log.length - c.block.live >= length
        else:
            decode(&c, entry_start(c.at))
            all_of_it = id_compare(&c.id, below) < 0
        if not all_of_it:
            if not whole:
                gone += trim_block(log, length, below)
            break
        gone += c.block.live
        log.length -= c.block.live
        drop_block(log, 0, 0)
    if gone:
        find_head(log)
    return gone


# --- all of it -------------------------------------------------------------------------------------------------------

cdef Log* log_new() noexcept nogil:
    cdef Log* log = <Log*>mem_alloc(sizeof(Log))
    memset(log, 0, sizeof(Log))
    return log


cdef bint log_free(Log* log, size_t* budget) noexcept nogil:
    while log.count:
        if budget[0] == 0:
            return False
        budget[0] -= 1
        drop_block(log, 0, 0)
    if log.capacity:
        mem_free(log.chunks, log.capacity * sizeof(Chunk*))
    mem_free(log, sizeof(Log))
    return True


cdef Log* log_copy(Log* log) noexcept nogil:
    cdef Log* copy = log_new()
    cdef uint32_t place, i
    cdef Chunk* chunk
    cdef Slot* s
    for place in range(log.count):
        chunk = chunk_at(log, place)
        for i in range(chunk.count):
            s = new_slot(copy)
            s.id = slots(chunk)[i].id
            s.block = <Block*>mem_alloc(block_size(slots(chunk)[i].block))
            memcpy(s.block, slots(chunk)[i].block, sizeof(Block) + slots(chunk)[i].block.size)
            copy.bytes += mem_footprint(block_size(s.block))
    copy.full_size = log.full_size
    copy.length = log.length
    copy.added = log.added
    copy.last = log.last
    copy.head = log.head
    copy.deleted = log.deleted
    return copy


cdef inline int shared_bytes(const Id* a, const Id* b) noexcept nogil:
    """How many bytes two different ids have in common, as big-endian numbers."""
    if a.ms != b.ms:
        return clz(a.ms ^ b.ms) // 8
    return 8 + clz(a.seq ^ b.seq) // 8


cdef uint64_t log_nodes(Log* log) noexcept nogil:
    """A compressed tree of 16-byte keys has a node for each key, for each place where keys part, and for each run of
    bytes between two of these; the places are found with a stack, from what neighbours share."""
    cdef int depth[17]
    cdef int top = -1, shared, above, before = -1
    cdef uint64_t nodes = 0, seen = 0
    cdef uint32_t place, i
    cdef Chunk* chunk
    cdef const Id* last = NULL
    if log.blocks == 0:
        return 1
    for place in range(log.count):
        if seen >= NODES_MAX:
            break
        chunk = chunk_at(log, place)
        for i in range(chunk.count):
            if last != NULL:
                shared = shared_bytes(last, &slots(chunk)[i].id)
                above = before if before > shared else shared
                nodes += 1 + (16 - above > 1)       # the key before: its node, and its own last bytes
                while top >= 0 and depth[top] > shared:
                    above = depth[top - 1] if top and depth[top - 1] > shared else shared
                    nodes += 1 + (depth[top] - above > 1)
                    top -= 1
                if top < 0 or depth[top] < shared:
                    top += 1
                    depth[top] = shared
                before = shared
            last = &slots(chunk)[i].id
        seen += chunk.count
    nodes += 1 + (16 - before > 1)
    while top >= 0:
        above = depth[top - 1] if top else -1
        nodes += 1 + (depth[top] - above > 1)
        top -= 1
    if seen < log.blocks:
        nodes = <uint64_t>(<double>nodes / seen * log.blocks)
    return nodes
