"""The keyspace's Python doors: databases, and what they share. The work is done in shards.pyx, without Python."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from zeekdb.hot.clock cimport steady_us
from zeekdb.hot.deadlines cimport Deadline, Deadlines, deadlines_faults
from zeekdb.hot.globs cimport glob_matches
from zeekdb.hot.journal cimport J
from zeekdb.hot.memory cimport Blob, blob_grow, blob_new, blob_retain, blob_trim, mem_footprint, mem_resident, mem_used
from zeekdb.hot.notes cimport N, note_add, note_drop, note_key, notes_take
from zeekdb.hot.recency cimport (
    BY_COUNT, BY_TIME, LFU_POLICY, LRU_POLICY, R, idle_field, idle_seconds, lfu_counter, lfu_field, random_bits,
    recency_choose, recency_set_clock, set_field, touch_entry,
)
from zeekdb.hot.shards cimport (
    Held, before_write, ks_clear, ks_close, ks_expire, ks_expire_due, ks_expire_due_fields, ks_expire_fields, ks_free,
    ks_give, ks_put, ks_set, ks_set_blob, ks_take, ks_time_fields, on_expired, type_of_class, type_ops,
)
from zeekdb.hot.table cimport (
    BOXED, EXPIRES, FIELDS_EXPIRE, INLINE_MAX, T_OBJECT, T_STRING, Entry, entry_box, entry_key, entry_size, entry_type, entry_value,
    hash_bytes, table_faults, table_find, table_memory, table_random, table_scan, table_step,
)

from zeekdb.hot.journal import tell

cdef enum:
    SHARDS_MAX = 65536
    SLICE = 64               # steps between two looks at the clock
    TRIM_EVERY_US = 1000000

cdef list NAMES = ["string", "list", "set", "zset", "hash", "module", "stream", "object"]


def glob_match(bytes pattern not None, bytes text not None, bint nocase=False) -> bool:
    """Whether the text matches Redis's glob: `*`, `?`, `[a-z]`, `[^x]`, backslash."""
    return glob_matches(<uint8_t*>PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern),
                        <uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), nocase)


cdef Db* db_pointer(object database) except NULL:
    return &(<Database?>database).db


ctypedef struct Collector:
    void* keys               # a Python list, borrowed
    void* dead               # another, of keys that are due and were met; NULL: they are passed over
    Db* db
    const uint8_t* pattern
    size_t pattern_size
    bint filtered


cdef void collect(Entry* e, uint64_t h, void* arg) noexcept nogil:
    cdef Collector* c = <Collector*>arg
    cdef size_t n
    cdef uint8_t* key
    key = entry_key(e, &n)
    if e.flags & EXPIRES and ks_deadline(e) <= G.now_ms:
        if c.dead != NULL:
            with gil:
                (<list>c.dead).append(PyBytes_FromStringAndSize(<char*>key, n))
        return
    if c.filtered and not glob_matches(c.pattern, c.pattern_size, key, n, False):
        return
    with gil:
        (<list>c.keys).append(PyBytes_FromStringAndSize(<char*>key, n))


cdef class Database:
    """One database. See keyspace.pyi for what each method promises."""

    cdef Db db
    cdef readonly Keyspace keyspace

    def __cinit__(self, Keyspace keyspace, int index, uint32_t shards):
        self.keyspace = keyspace
        self.db.index = index
        self.db.nshards = shards

    def __dealloc__(self):
        ks_close(&self.db)

    @property
    def index(self):
        return self.db.index

    cdef inline Entry* find(self, bytes key) except? NULL:
        return ks_find(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key))

    cdef inline uint64_t hash(self, bytes key) noexcept:
        return hash_bytes(<uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))

    def __len__(self):
        cdef uint32_t i
        cdef uint64_t n = 0
        if self.db.shards != NULL:
            for i in range(self.db.nshards):
                n += self.db.shards[i].table.used
        return n

    def read(self, bytes key not None):
        cdef Entry* e = ks_read(
            &self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key)
        )
        if e == NULL:
            if self.keyspace.on_miss is not None:
                self.keyspace.on_miss(self, key)
            return None
        before_write(&self.db, e)  # a stream's groups, say, may be changed by whoever reads it
        return wrap_value(e)

    cdef inline int announce(self, bytes key) except -1:
        """Before a key is written: tells whoever wants to know of new ones."""
        if self.keyspace.on_new is not None and self.find(key) == NULL:
            self.keyspace.on_new(self, key)
        return 0

    def peek(self, bytes key not None):
        cdef Entry* e = self.find(key)
        return wrap_value(e) if e != NULL else None

    def type_of(self, bytes key not None):
        cdef Entry* e = self.find(key)
        if e == NULL:
            return None
        if entry_type(e) == T_OBJECT:
            return getattr(<object>entry_box(e), "type_name", "object")
        return NAMES[entry_type(e)]

    def exists(self, bytes key not None):
        return self.find(key) != NULL

    def touch(self, bytes key not None):
        cdef Entry* e = self.find(key)
        if e == NULL:
            return False
        touch_entry(e)
        return True

    def set(self, bytes key not None, bytes value not None, int64_t deadline_ms=0):
        self.announce(key)
        ks_set(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key),
               <uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), deadline_ms)

    def create(self, bytes key not None, kind):
        cdef uint8_t type = type_of_class(kind)
        cdef uint64_t h = self.hash(key)
        cdef void* box
        self.announce(key)
        box = ks_create(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), h, type)
        return type_ops(type).wrap(box)

    def set_object(self, bytes key not None, value not None, int64_t deadline_ms=0):
        cdef void* box = <void*>value
        self.announce(key)
        Py_INCREF(value)
        ks_put(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key), T_OBJECT,
                  <uint8_t*>&box, 8, BOXED, deadline_ms)

    def remove(self, bytes key not None):
        return ks_delete(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key))

    def deadline(self, bytes key not None):
        cdef Entry* e = self.find(key)
        if e == NULL:
            return -2
        return ks_deadline(e) if e.flags & EXPIRES else -1

    def set_deadline(self, bytes key not None, int64_t deadline_ms):
        return ks_expire_at(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key),
                            deadline_ms) != NULL

    def time_fields(self, bytes key not None):
        return ks_time_fields(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key))

    def expire_fields(self, bytes key not None):
        ks_expire_fields(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key))

    # ------------------------------------------------------------ whole values

    cdef bint carry(self, bytes key, Database other, bytes new) except -1:
        cdef Held held
        other.announce(new)
        if not ks_take(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key), &held):
            return False
        ks_give(&other.db, <uint8_t*>PyBytes_AS_STRING(new), PyBytes_GET_SIZE(new), self.hash(new), &held)
        return True

    def rename(self, bytes old not None, bytes new not None):
        if old == new:
            return self.find(old) != NULL
        return self.carry(old, self, new)

    def move(self, bytes key not None, Database other not None, new=None):
        cdef bytes name = key if new is None else new
        if self.find(key) == NULL or other.find(name) != NULL:
            return False
        return self.carry(key, other, name)

    def copy(self, bytes key not None, Database other not None, bytes new not None):
        cdef Entry* e = self.find(key)
        cdef void* box
        cdef size_t n
        cdef const uint8_t* p
        cdef int64_t deadline
        cdef uint8_t type
        if e == NULL:
            return False
        if self is other and key == new:
            return True
        other.announce(new)
        deadline = ks_deadline(e)
        type = entry_type(e)
        if type == T_STRING and not e.flags & BOXED:
            value = wrap_value(e)
            other.set(new, value, deadline)
            return True
        if type == T_STRING:
            box = blob_retain(<Blob*>entry_box(e))
        else:
            box = type_ops(type).copy(entry_box(e))
            if box == NULL:
                return False
        ks_put(&other.db, <uint8_t*>PyBytes_AS_STRING(new), PyBytes_GET_SIZE(new), self.hash(new), type,
                  <uint8_t*>&box, 8, BOXED | (e.flags & FIELDS_EXPIRE), deadline)
        return True

    # ------------------------------------------------------------ strings in place

    cdef const uint8_t* string(self, bytes key, size_t* n) except? NULL:
        cdef Entry* e = self.find(key)
        n[0] = 0
        if e == NULL:
            return NULL
        if entry_type(e) != T_STRING:
            raise TypeError("not a string")
        return entry_string(e, n)

    def strlen(self, bytes key not None):
        cdef size_t n
        self.string(key, &n)
        return n

    def getrange(self, bytes key not None, size_t start, size_t stop):
        cdef size_t n
        cdef Entry* e = ks_read(&self.db, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.hash(key))
        cdef const uint8_t* p
        if e == NULL or entry_type(e) != T_STRING:
            return b""
        p = entry_string(e, &n)
        if stop >= n:
            stop = n - 1
        if n == 0 or start > stop:
            return b""
        return PyBytes_FromStringAndSize(<const char*>p + start, stop - start + 1)

    def append(self, bytes key not None, bytes tail not None):
        cdef size_t n
        if self.string(key, &n) == NULL:
            self.set(key, tail)
            return PyBytes_GET_SIZE(tail)
        return self.write_at(key, n, tail)

    def write_at(self, bytes key not None, size_t offset, bytes data not None):
        cdef size_t n, m = PyBytes_GET_SIZE(data)
        cdef size_t size
        cdef const uint8_t* p = self.string(key, &n)
        cdef uint8_t text[1024]  # INLINE_MAX
        cdef uint64_t h = self.hash(key)
        cdef uint8_t* name = <uint8_t*>PyBytes_AS_STRING(key)
        cdef Entry* e
        cdef Blob* blob
        if m == 0 and offset <= n:
            return n
        size = offset + m if offset + m > n else n
        if size <= INLINE_MAX:
            if n:
                memcpy(text, p, n)
            if offset > n:
                memset(text + n, 0, offset - n)
            memcpy(text + offset, PyBytes_AS_STRING(data), m)
            ks_set(&self.db, name, PyBytes_GET_SIZE(key), h, text, size, -1)
            return size
        e = self.find(key)
        if e != NULL and e.flags & BOXED and (<Blob*>entry_box(e)).refs == 1:
            blob = <Blob*>entry_box(e)
            if blob.capacity < size:
                blob = blob_grow(blob, size)
                memcpy(entry_value(e), &blob, 8)
            touch_entry(e)
        else:
            blob = blob_new(size)
            if n:
                memcpy(blob.data, p, n)
            blob.size = n
            ks_set_blob(&self.db, name, PyBytes_GET_SIZE(key), h, blob, -1)
        if offset > n:
            memset(blob.data + n, 0, offset - n)
        memcpy(blob.data + offset, PyBytes_AS_STRING(data), m)
        blob.size = size
        return size

    # ------------------------------------------------------------ the whole database

    def scan(self, uint64_t cursor, size_t count):
        cdef list found = []
        cdef list dead = []
        cdef uint64_t following = self.walk(cursor, count, found, dead)
        for key in dead:  # a walk takes with it what is due
            self.find(key)
        return following, found

    cdef uint64_t walk(self, uint64_t cursor, size_t count, list found, list dead):
        cdef Collector c
        cdef uint64_t shard = cursor % self.db.nshards
        cdef uint64_t at = cursor // self.db.nshards
        c.keys, c.dead = <void*>found, <void*>dead
        c.db = &self.db
        c.filtered = False
        if self.db.shards == NULL:
            return 0
        at = table_scan(&self.db.shards[shard].table, at, count, collect, &c)
        while at == 0:
            shard += 1
            if shard == self.db.nshards:
                return 0
            if <size_t>len(found) >= count:
                break
            at = table_scan(&self.db.shards[shard].table, 0, count - len(found), collect, &c)
        return at * self.db.nshards + shard

    def keys(self, pattern=None):
        cdef list found = []
        cdef Collector c
        cdef uint32_t i
        cdef uint64_t at
        cdef bytes text = pattern
        c.keys, c.dead = <void*>found, NULL
        c.db = &self.db
        c.filtered = text is not None
        if c.filtered:
            c.pattern = <uint8_t*>PyBytes_AS_STRING(text)
            c.pattern_size = PyBytes_GET_SIZE(text)
        if self.db.shards == NULL:
            return found
        for i in range(self.db.nshards):
            # one go over the whole table: nothing resizes in between
            if self.db.shards[i].table.used:
                table_scan(&self.db.shards[i].table, 0, <size_t>1 << 48, collect, &c)
        return found

    def random_key(self):
        cdef uint64_t total = len(self), place
        cdef uint32_t i
        cdef Entry* e
        cdef Shard* s
        cdef size_t n
        cdef uint8_t* key
        cdef int tries
        for tries in range(100):
            total = len(self)
            if total == 0:
                return None
            place = random_bits() % total
            i = 0
            while place >= self.db.shards[i].table.used:
                place -= self.db.shards[i].table.used
                i += 1
            s = &self.db.shards[i]
            e = table_random(&s.table, random_bits)
            key = entry_key(e, &n)
            if not e.flags & EXPIRES or ks_deadline(e) > G.now_ms or tries == 99:
                return PyBytes_FromStringAndSize(<char*>key, n)
            ks_expire(&self.db, s, table_find(&s.table, key, n, hash_bytes(key, n)))
        return None

    def clear(self):
        cdef uint64_t n = len(self)
        ks_clear(&self.db)
        return n

    # ------------------------------------------------------------ introspection

    def volatile_count(self):
        cdef uint32_t i
        cdef uint64_t n = 0
        if self.db.shards != NULL:
            for i in range(self.db.nshards):
                n += self.db.shards[i].due.used
        return n

    def timed_count(self):
        cdef uint32_t i
        cdef uint64_t n = 0
        if self.db.shards != NULL:
            for i in range(self.db.nshards):
                n += self.db.shards[i].fields.used
        return n

    def average_ttl_ms(self):
        """Estimated from up to 16 deadlines of each shard."""
        cdef uint32_t i, k, step
        cdef int64_t total = 0, n = 0
        cdef Shard* s
        if self.db.shards == NULL:
            return 0
        for i in range(self.db.nshards):
            s = &self.db.shards[i]
            step = s.due.used // 16 + 1
            k = 0
            while k < s.due.used:
                if s.due.heap[k].when_ms > G.now_ms:
                    total += s.due.heap[k].when_ms - G.now_ms
                n += 1
                k += step
        return total // n if n else 0

    def memory_of(self, bytes key not None, int64_t samples=5):
        cdef Entry* e = self.find(key)
        cdef size_t total
        if e == NULL:
            return None
        total = mem_footprint(entry_size(e)) + 10  # its share of the slots
        if e.flags & EXPIRES:
            total += sizeof(Deadline)
        if e.flags & BOXED:
            if entry_type(e) == T_STRING:
                total += mem_footprint(sizeof(Blob)) + (<Blob*>entry_box(e)).capacity
            else:
                total += type_ops(entry_type(e)).memory(entry_box(e))
        return total

    def idle_s(self, bytes key not None):
        cdef Entry* e = self.find(key)
        if e == NULL:
            return None
        return idle_seconds(e)

    def set_idle_s(self, bytes key not None, int64_t idle_s):
        cdef Entry* e = self.find(key)
        if e != NULL:
            set_field(e, idle_field(idle_s))

    def frequency(self, bytes key not None):
        cdef Entry* e = self.find(key)
        return lfu_counter(e.meta) if e != NULL else None

    def set_frequency(self, bytes key not None, int frequency):
        cdef Entry* e = self.find(key)
        if e != NULL:
            set_field(e, lfu_field(<uint32_t>frequency & 0xFF))

    def table_stats(self):
        cdef uint32_t i
        cdef uint64_t slots = 0, resizing = 0, used = 0
        cdef size_t bytes_ = 0
        if self.db.shards != NULL:
            for i in range(self.db.nshards):
                slots += (self.db.shards[i].table.now.buckets + self.db.shards[i].table.next.buckets) * 8
                resizing += self.db.shards[i].table.next.slots != NULL
                used += self.db.shards[i].table.used
                bytes_ += table_memory(&self.db.shards[i].table) + sizeof(Deadline) * (
                    self.db.shards[i].due.capacity + self.db.shards[i].fields.capacity)
        return {"entries": used, "slots": slots, "resizing": resizing, "overhead": bytes_}

    def faults(self):
        cdef uint32_t i
        cdef uint64_t n = 0
        for i in range(self.db.nshards if self.db.shards != NULL else 0):
            n += table_faults(&self.db.shards[i].table) + deadlines_faults(&self.db.shards[i].due)
            n += deadlines_faults(&self.db.shards[i].fields)
        return n


cdef int64_t earlier(int64_t first, Deadlines* due) noexcept nogil:
    if due.used and (first == 0 or due.heap[0].when_ms < first):
        return due.heap[0].when_ms
    return first


cdef void tell_expired_fields(int db, bytes key, list fields):
    cdef bint told = J.told
    tell(db, (b"HDEL", key, *fields))
    J.told = told


cdef class Keyspace:
    """All databases and what they share."""

    cdef readonly list databases
    cdef list listeners
    cdef readonly list database_listeners
    cdef public object on_miss      # (database, key), for notifications; None: nobody wants to know
    cdef public object on_new
    cdef uint32_t turn
    cdef int64_t trimmed_us

    def __init__(self, int databases=16, int shards=16):
        if databases < 1:
            raise ValueError("databases must be at least 1")
        if shards < 1 or shards > SHARDS_MAX or shards & (shards - 1):
            raise ValueError("shards must be a power of two, 65536 at most")
        self.databases = [Database(self, i, shards) for i in range(databases)]
        self.listeners = []
        self.database_listeners = []
        on_expired(self.listeners, self.tell_expired, self.tell_fields_expired)

    @property
    def subscribers(self):
        return self.listeners

    @subscribers.setter
    def subscribers(self, list value not None):
        self.listeners[:] = value

    def tell_expired(self, int index, bytes key):
        for listener in self.listeners:
            listener(self.databases[index], key, "expired")

    def tell_fields_expired(self, int index, bytes key, list fields, bint gone):
        if J.open:
            tell_expired_fields(index, key, fields)
        for listener in self.listeners:
            listener(self.databases[index], key, "hexpired")
            if gone:
                listener(self.databases[index], key, "del")

    def changed(self, Database db not None, bytes key not None, event):
        G.dirty += 1
        if N.interests:
            note_key(db.db.index, <uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), db.hash(key))
        if self.listeners:
            for listener in self.listeners:
                listener(db, key, event)

    def watch_key(self, bytes key not None):
        note_add(hash_bytes(<uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)))

    def unwatch_key(self, bytes key not None):
        note_drop(hash_bytes(<uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)))

    def take_notes(self):
        return notes_take() if N.used else []

    @property
    def due(self):
        return N.due

    @due.setter
    def due(self, bint value):
        N.due = value

    def now_ms(self):
        return G.now_ms

    def set_clock(self, int64_t now_ms):
        G.now_ms = now_ms
        recency_set_clock(now_ms)

    def set_lfu(self, int decay_minutes, int log_factor):
        """The directives lfu-decay-time and lfu-log-factor."""
        R.decay_minutes, R.log_factor = decay_minutes, log_factor

    def clear(self, list databases not None):
        cdef uint64_t n = 0
        for listener in self.database_listeners:
            listener(databases, False)
        for database in databases:
            n += database.clear()
        return n

    def swap(self, int first, int second):
        cdef Database a = self.databases[first]
        cdef Database b = self.databases[second]
        for listener in self.database_listeners:
            listener([a, b], True)
        a.db.shards, b.db.shards = b.db.shards, a.db.shards

    def run_expiry(self, int64_t budget_us):
        cdef int64_t end = steady_us() + budget_us
        cdef uint64_t n = 0, idle = 0
        cdef uint32_t shards = (<Database>self.databases[0]).db.nshards
        cdef uint32_t total = len(self.databases) * shards
        cdef Database database
        cdef Shard* s
        cdef size_t removed
        if not G.active_expire:
            return 0
        while idle < total:
            database = self.databases[self.turn // shards % len(self.databases)]
            if database.db.shards == NULL:
                idle += shards
                self.turn = (self.turn // shards + 1) * shards
                continue
            s = &database.db.shards[self.turn % shards]
            self.turn += 1
            idle += 1
            removed = ks_expire_due(&database.db, s, SLICE)
            removed += ks_expire_due_fields(&database.db, s, SLICE)
            if removed:
                n += removed
                idle = 0
            if steady_us() > end:
                break
        return n

    def run_lazyfree(self, int64_t budget_us):
        cdef int64_t begin = steady_us()
        if begin - self.trimmed_us >= TRIM_EVERY_US:
            self.trimmed_us = begin
            blob_trim()
        while ks_free(SLICE) and steady_us() < begin + budget_us:
            pass
        return G.lazyfree_pending

    def run_resize(self, int64_t budget_us):
        cdef int64_t end = steady_us() + budget_us
        cdef Database database
        cdef uint32_t i
        for database in self.databases:
            if database.db.shards == NULL:
                continue
            for i in range(database.db.nshards):
                if database.db.shards[i].table.next.slots != NULL:
                    while table_step(&database.db.shards[i].table, SLICE):
                        if steady_us() > end:
                            return True
        return False

    def memory_used(self):
        return mem_used()

    def memory_resident(self):
        return mem_resident()

    def next_deadline_ms(self):
        cdef Database database
        cdef uint32_t i
        cdef int64_t first = 0
        for database in self.databases:
            if database.db.shards != NULL:
                for i in range(database.db.nshards):
                    first = earlier(first, &database.db.shards[i].due)
                    first = earlier(first, &database.db.shards[i].fields)
        return first

    @property
    def dirty(self): return G.dirty
    @dirty.setter
    def dirty(self, value): G.dirty = value
    @property
    def hits(self): return G.hits
    @hits.setter
    def hits(self, value): G.hits = value
    @property
    def misses(self): return G.misses
    @misses.setter
    def misses(self, value): G.misses = value
    @property
    def expired(self): return G.expired
    @expired.setter
    def expired(self, value): G.expired = value
    @property
    def expired_fields(self): return G.expired_fields
    @expired_fields.setter
    def expired_fields(self, value): G.expired_fields = value
    @property
    def evicted(self): return G.evicted
    @evicted.setter
    def evicted(self, value): G.evicted = value
    @property
    def lazyfreed(self): return G.lazyfreed
    @lazyfreed.setter
    def lazyfreed(self, value): G.lazyfreed = value
    @property
    def lazyfree_pending(self): return G.lazyfree_pending
    @property
    def active_expire(self): return G.active_expire
    @active_expire.setter
    def active_expire(self, value): G.active_expire = value
    @property
    def touching(self): return not G.no_touch
    @touching.setter
    def touching(self, value): G.no_touch = not value
    @property
    def touch_lfu(self): return R.tracking == BY_COUNT
    @touch_lfu.setter
    def touch_lfu(self, value): recency_choose(&LFU_POLICY if value else &LRU_POLICY)
    @property
    def touch_time(self): return R.tracking == BY_TIME
