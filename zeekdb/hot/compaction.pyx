"""Compaction: entries and values leave pages that are nearly empty, so that the system gets the pages back.

It can run between any two commands, in slices: an entry has one pointer to it in its table and one in the expiry index,
a value one in its entry. The allocator names the pages. Entries are on pages of their own, and each tells by its key
where it is known, so their pages are emptied one by one. For everything else a walk over all tables has to find what
lies on marked pages, which is done more rarely. Parts of very large values stay where they are, and so do the nodes of
large sorted sets and streams.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from zeekdb.hot.clock cimport steady_us
from zeekdb.hot.keyspace cimport Db, db_pointer
from zeekdb.hot.lists cimport Chunk, ListValue
from zeekdb.hot.memory cimport ARENA, POOLED, Blob, mem_mark, mem_moved, mem_relax, mem_resident, mem_used
from zeekdb.hot.pages cimport LIVE_MAX, P, pages_live
from zeekdb.hot.shards cimport TypeOps, ks_moved, type_ops
from zeekdb.hot.table cimport BOXED, T_LIST, T_STRING, Entry, entry_box, entry_key, entry_type, entry_value, hash_bytes, table_scan

cdef enum:
    AT_ONCE = 32                    # entries between two looks at the clock
    CHUNKS_MAX = 1000               # of a list, that is handled at once
    PATIENCE = 20                   # times what marking took, until the next one
    WALK_PATIENCE = 5               # times what a walk took, until the next one
    IGNORED = 33554432              # bytes of gaps that nobody minds while there is no limit

cdef object KEYSPACE = None
cdef int64_t NEXT_US = 0            # no round begins before
cdef int64_t NEXT_WALK_US = 0       # no walk over all tables
cdef int64_t BEGIN_US = 0           # of the walk under way
cdef bint ACTIVE = False            # a walk is under way
cdef int DB = 0
cdef uint32_t SHARD = 0
cdef uint64_t CURSOR = 0


cdef void* compact_list(ListValue* v) noexcept nogil:
    cdef uint32_t i
    cdef Chunk* c
    if v.used <= CHUNKS_MAX:
        for i in range(v.first, v.first + v.used):
            c = &v.chunks[i]
            c.data = <unsigned char*>mem_moved(c.data, c.capacity)
        v.chunks = <Chunk*>mem_moved(v.chunks, v.capacity * sizeof(Chunk))
    return mem_moved(v, sizeof(ListValue))


cdef void* compact_string(Blob* blob) noexcept nogil:
    if blob.refs > 1 or blob.flags & ARENA:
        return blob     # on its way to a client, or known to the arena by its place
    if not blob.flags & POOLED:
        blob.data = <unsigned char*>mem_moved(blob.data, blob.capacity)
    return mem_moved(blob, sizeof(Blob))


cdef void visit(Entry* e, uint64_t hash, void* arg) noexcept nogil:
    cdef void* box
    cdef TypeOps* ops
    if e.flags & BOXED:
        box = entry_box(e)
        if entry_type(e) == T_STRING:
            box = compact_string(<Blob*>box)
        elif entry_type(e) == T_LIST:
            box = compact_list(<ListValue*>box)
        else:
            ops = type_ops(entry_type(e))
            if ops.compact != NULL:
                box = ops.compact(box)
        memcpy(entry_value(e), &box, sizeof(box))


cdef bint begin() noexcept nogil:
    """False: there is nothing to move, or it is too early to look again; that takes a walk over all pages with gaps."""
    global ACTIVE, DB, SHARD, CURSOR, NEXT_US, BEGIN_US
    cdef int64_t now = steady_us()
    cdef bint walks = now >= NEXT_WALK_US
    cdef size_t marked
    if now < NEXT_US:
        return False
    marked = mem_mark(walks)
    ACTIVE = walks and marked > 0
    NEXT_US = now + (steady_us() - now) * PATIENCE + 100
    BEGIN_US = now
    DB = SHARD = CURSOR = 0
    return marked > 0


cdef void empty_page() noexcept nogil:
    """Moves the entries of a marked page away, each found in its table by its key."""
    cdef void* live[LIVE_MAX]
    cdef uint32_t i, n = pages_live(live)
    cdef int db
    cdef size_t size
    cdef uint64_t hash
    cdef const uint8_t* key
    for i in range(n):
        key = entry_key(<Entry*>live[i], &size)
        hash = hash_bytes(key, size)
        for db in range(NDBS):
            if DBS[db].shards != NULL and ks_moved(DBS[db], <Entry*>live[i], key, size, hash):
                break


cdef void step() noexcept nogil:
    global ACTIVE, DB, SHARD, CURSOR, NEXT_WALK_US
    while DB < NDBS:
        while DBS[DB].shards != NULL and SHARD < DBS[DB].nshards:
            CURSOR = table_scan(&DBS[DB].shards[SHARD].table, CURSOR, AT_ONCE, visit, DBS[DB])
            if CURSOR == 0:
                SHARD += 1
            return
        DB += 1
        SHARD = CURSOR = 0
    ACTIVE = False
    NEXT_WALK_US = steady_us() + (steady_us() - BEGIN_US) * WALK_PATIENCE


cdef bint compact_step() noexcept nogil:
    if P.to_empty != NULL:
        empty_page()
        return True
    if not ACTIVE:
        mem_relax()
        if not begin():
            return False
    if ACTIVE:
        step()
    return True


cpdef configure(keyspace):
    global KEYSPACE, DBS, NDBS, ACTIVE
    cdef int i
    if keyspace is KEYSPACE:
        return
    databases = keyspace.databases
    free(DBS)
    DBS = <Db**>malloc(len(databases) * sizeof(Db*))
    if DBS == NULL:
        raise MemoryError
    NDBS = len(databases)
    for i in range(NDBS):
        DBS[i] = db_pointer(databases[i])
    KEYSPACE = keyspace
    ACTIVE = False


def urge():
    global NEXT_US, NEXT_WALK_US
    if not ACTIVE:
        NEXT_US = NEXT_WALK_US = 0
        mem_relax()
        begin()


def work(int64_t budget_us):
    cdef size_t used = mem_used()
    cdef int64_t end = steady_us() + budget_us
    if not ACTIVE and P.to_empty == NULL and mem_resident() < used + used // 10 + IGNORED:
        return False
    while compact_step():
        if steady_us() >= end:
            return True
    return False
