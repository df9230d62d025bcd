"""Snapshots without fork: all databases as they are at one moment, while they go on changing.

A snapshot begins by turning the epoch: every entry is of the other epoch from then on, which says that it has not been
saved. A walk over the shards saves entries in slices and brings them to the current epoch; whoever wants to change one
that the walk has not reached saves it first (`before_write` in shards.pxd). New entries are of the current epoch and
not saved. So what is written is the state at the beginning, each entry once, in no order; memory grows by what is
written and not yet taken, and no pause is longer than it takes to save one value.

A snapshot that is given up leaves entries of both epochs. The walk then goes on without writing, so that all are of
one epoch again before the next one begins.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from zeekdb.hot.aofwrite cimport aof_select, aof_write
from zeekdb.hot.clock cimport steady_us
from zeekdb.hot.filewriter cimport FileWriter
from zeekdb.hot.keyspace cimport G, Db, db_pointer, ks_deadline
from zeekdb.hot.rdbfile cimport OP_EXPIRE_MS, OP_FREQUENCY, OP_IDLE, OP_SELECT_DB
from zeekdb.hot.rdbwire cimport Writer, put_byte, put_fixed, put_length, put_string, writer_free
from zeekdb.hot.rdbwrite cimport rdb_is_empty, rdb_type, rdb_write
from zeekdb.hot.recency cimport BY_COUNT, BY_TIME, R, idle_seconds, lfu_counter
from zeekdb.hot.shards cimport EPOCH, SNAP
from zeekdb.hot.table cimport EXPIRES, Entry, entry_key, table_scan

cdef enum:
    AT_ONCE = 16             # entries between two looks at the clock
    KEPT = 1 << 22           # bytes of the buffer that stay

cdef Writer W                # what the snapshot under way has written and nobody has taken yet
memset(&W, 0, sizeof(W))
cdef int SELECTED = -1       # the database of the record written last
cdef uint64_t SEEN = 0       # entries of the old epoch met so far
cdef bint DISCARDS = False   # nothing is written any more
cdef bint COMMANDS = False   # commands are written, not records of an RDB file
cdef bint RECENCY = False    # idle times or frequencies are written


cdef void save_entry(Db* db, Entry* e) noexcept nogil:
    global SELECTED, SEEN
    cdef size_t before = W.out.size, n
    cdef const uint8_t* key
    cdef int64_t deadline_ms
    e.meta ^= EPOCH
    SEEN += 1
    if DISCARDS:
        return
    deadline_ms = ks_deadline(e) if e.flags & EXPIRES else 0
    if (deadline_ms and deadline_ms <= G.now_ms) or rdb_is_empty(e):
        return
    key = entry_key(e, &n)
    if COMMANDS:
        if db.index != SELECTED:
            aof_select(&W, db.index)
        if aof_write(&W, e, key, n, deadline_ms):
            SELECTED = db.index
        else:
            W.out.size = before
        return
    if db.index != SELECTED:
        put_byte(&W, OP_SELECT_DB)
        put_length(&W, db.index)
    if deadline_ms:
        put_byte(&W, OP_EXPIRE_MS)
        put_fixed(&W, <uint64_t>deadline_ms)
    if RECENCY and R.tracking == BY_COUNT:
        put_byte(&W, OP_FREQUENCY)
        put_byte(&W, lfu_counter(e.meta))
    elif RECENCY and R.tracking == BY_TIME:
        put_byte(&W, OP_IDLE)
        put_length(&W, idle_seconds(e))
    put_byte(&W, rdb_type(&W, e))
    put_string(&W, key, n)
    if rdb_write(&W, e):
        SELECTED = db.index
    else:
        W.out.size = before  # a value that has no form in a file


SNAP.save = save_entry


cdef void visit(Entry* e, uint64_t hash, void* db) noexcept nogil:
    if e.meta & EPOCH != SNAP.epoch:
        save_entry(<Db*>db, e)


cdef class Snapshot:
    """See snapshot.pyi."""

    cdef list databases
    cdef Py_ssize_t at
    cdef uint32_t shard
    cdef uint64_t cursor
    cdef readonly bint done
    cdef readonly bint given_up
    cdef readonly uint64_t total

    def __init__(self, list databases not None, bint compress, bint recency, bint commands=False):
        global SELECTED, SEEN, DISCARDS, RECENCY, COMMANDS
        if SNAP.active:
            raise RuntimeError("another snapshot is under way")
        self.databases = databases
        self.total = sum([len(database) for database in databases])
        W.compress = compress
        W.out.size = 0
        SELECTED, SEEN, DISCARDS, RECENCY, COMMANDS = -1, 0, False, recency, commands
        SNAP.epoch ^= EPOCH
        SNAP.active = True

    def step(self, int64_t budget_us):
        cdef int64_t end = steady_us() + budget_us
        cdef Db* db
        if self.done:  # another one may be under way by now
            return True
        while self.at < len(self.databases):
            db = db_pointer(self.databases[self.at])
            if db.shards == NULL or self.shard == db.nshards:
                self.at += 1
                self.shard = 0
                self.cursor = 0
                continue
            while True:
                self.cursor = table_scan(&db.shards[self.shard].table, self.cursor, AT_ONCE, visit, db)
                if self.cursor == 0:
                    self.shard += 1
                    break
                if budget_us and steady_us() > end:
                    return False
            if budget_us and steady_us() > end:
                return False
        SNAP.active = False
        self.done = True
        return True

    def give_up(self):
        global DISCARDS
        if self.done or self.given_up:
            return
        self.given_up = DISCARDS = True
        writer_free(&W)

    @property
    def seen(self):
        return SEEN

    @property
    def size(self):
        return W.out.size

    def give(self, FileWriter file not None):
        return file.offer(&W.out)

    def take(self):
        cdef bytes data = PyBytes_FromStringAndSize(<char*>W.out.data, W.out.size)
        W.out.size = 0
        if W.out.capacity > KEPT:
            writer_free(&W)
        return data
