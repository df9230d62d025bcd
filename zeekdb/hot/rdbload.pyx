"""A whole RDB file into the databases, without a Python object for what has no need of one.

The file is trusted in nothing: every length is held against what is left, a database against those that there are, and
the checksum at the end against everything before it. A Loader loads in slices: it may stop between two keys.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from zeekdb.hot.clock cimport steady_us
from zeekdb.hot.crc64 cimport crc64_update
from zeekdb.hot.keyspace cimport Db, G, db_pointer, ks_delete, ks_find
from zeekdb.hot.rdbfile cimport (
    CHECKED_SINCE, CHECKSUM, MAGIC, OP_AUX, OP_END, OP_EXPIRE_MS, OP_EXPIRE_S, OP_FREQUENCY, OP_FUNCTION, OP_IDLE,
    OP_SELECT_DB, OP_SIZES,
)
from zeekdb.hot.rdbread cimport Value, rdb_read, value_drop, value_store
from zeekdb.hot.rdbtypes cimport RDB_VERSION_MAX
from zeekdb.hot.rdbwire cimport (
    DAMAGED, Reader, SOUND, Text, get_byte, get_bytes, get_fixed, get_length, get_string, fail, reader_free,
)
from zeekdb.hot.recency cimport BY_COUNT, BY_TIME, R, idle_field, lfu_field, set_field
from zeekdb.hot.table cimport Entry, hash_bytes

from zeekdb.hot.rdb import DamagedValue

cdef enum:
    AT_ONCE = 64             # keys between two looks at the clock

# What stands before a key and holds for it alone.
ctypedef struct Attributes:
    int64_t deadline_ms
    int64_t idle_s           # -1: not said
    int frequency            # -1: not said

# How the loading goes.
ctypedef struct Loading:
    Reader r
    const uint8_t* begin
    const uint8_t* summed    # what is before it is in `crc`
    uint64_t crc
    Attributes a
    Db* db
    int64_t stop_us          # when to stop; 0: never
    uint64_t stream_db
    int64_t now_ms
    bint replace
    uint64_t keys
    uint64_t expired
    const uint8_t* key       # the one under way, for the complaint
    size_t key_size


cdef void clear(Attributes* a) noexcept nogil:
    a.deadline_ms = 0
    a.idle_s = a.frequency = -1


cdef bint load_key(Loading* l, Db* db, uint8_t type, Attributes* a) noexcept nogil:
    """The key and the value that follow. False: see the fault."""
    cdef Text name
    cdef Value value
    cdef Entry* e
    cdef uint64_t h
    if not get_string(&l.r, &name, 2):
        return False
    l.key, l.key_size = name.p, name.n
    h = hash_bytes(name.p, name.n)
    if not l.replace and ks_find(db, name.p, name.n, h) != NULL:
        return fail(&l.r, DAMAGED, b"the key is there already")
    if not rdb_read(&l.r, type, &value):
        return False
    if a.deadline_ms and a.deadline_ms <= l.now_ms:
        value_drop(&value)
        l.expired += 1
        return True
    if l.replace:
        ks_delete(db, name.p, name.n, h)
    e = value_store(&value, db, name.p, name.n, h, a.deadline_ms)
    l.keys += 1
    if a.frequency >= 0 and R.tracking == BY_COUNT:
        set_field(e, lfu_field(<uint32_t>a.frequency & 0xFF))
    elif a.idle_s >= 0 and R.tracking == BY_TIME:
        set_field(e, idle_field(a.idle_s))
    return True


cdef bint is_stream_db(const Text* name) noexcept nogil:
    return name.n == 14 and memcmp(name.p, b"repl-stream-db", 14) == 0


cdef uint64_t number(const Text* text) noexcept nogil:
    """Decimal digits; 0 if it is anything else."""
    cdef uint64_t n = 0
    cdef size_t i
    for i in range(text.n):
        if text.n > 9 or not 48 <= text.p[i] <= 57:
            return 0
        n = n * 10 + text.p[i] - 48
    return n


cdef enum:
    FAULTY = 0
    WHOLE = 1
    PAUSED = 2

cdef int load_records(Loading* l, list databases, list libraries) except -1:
    """Everything up to the end; FAULTY: see the fault; PAUSED: it is time to stop."""
    cdef Text text, name
    cdef uint32_t left = AT_ONCE
    cdef uint8_t kind, byte
    cdef uint64_t n
    cdef const uint8_t* p
    while True:
        l.key = NULL
        if not get_byte(&l.r, &kind):
            return FAULTY
        if kind == OP_END:
            return WHOLE
        if kind == OP_AUX:
            if not get_string(&l.r, &name, 0) or not get_string(&l.r, &text, 1):
                return FAULTY
            if is_stream_db(&name):
                l.stream_db = number(&text)
        elif kind == OP_SELECT_DB:
            if not get_length(&l.r, &n):
                return FAULTY
            if n >= <uint64_t>len(databases):
                raise DamagedValue(f"it has a database {n}, there are {len(databases)} here")
            l.db = db_pointer(databases[n])
        elif kind == OP_SIZES:
            if not get_length(&l.r, &n) or not get_length(&l.r, &n):
                return FAULTY
        elif kind == OP_EXPIRE_MS:
            if not get_fixed(&l.r, <uint64_t*>&l.a.deadline_ms):
                return FAULTY
        elif kind == OP_EXPIRE_S:
            if not get_bytes(&l.r, 4, &p):
                return FAULTY
            n = 0
            memcpy(&n, p, 4)
            l.a.deadline_ms = <int64_t>n * 1000
        elif kind == OP_IDLE:
            if not get_length(&l.r, &n):
                return FAULTY
            l.a.idle_s = <int64_t>(n & 0x7FFFFFFF)
        elif kind == OP_FREQUENCY:
            if not get_byte(&l.r, &byte):
                return FAULTY
            l.a.frequency = byte
        elif kind == OP_FUNCTION:
            if not get_string(&l.r, &text, 0):
                return FAULTY
            libraries.append(PyBytes_FromStringAndSize(<const char*>text.p, text.n))
        else:
            if not load_key(l, l.db, kind, &l.a):
                return FAULTY
            clear(&l.a)
            left -= 1
            if left == 0:
                left = AT_ONCE
                if l.stop_us and steady_us() > l.stop_us:
                    return PAUSED


cdef version_of(const uint8_t* p, size_t n):
    if n < MAGIC + 1 or memcmp(p, b"REDIS", 5) != 0 or not PyBytes_FromStringAndSize(<const char*>p + 5, 4).isdigit():
        raise DamagedValue("no RDB image")
    version = int(PyBytes_FromStringAndSize(<const char*>p + 5, 4))
    if not 1 <= version <= RDB_VERSION_MAX:
        raise DamagedValue(f"RDB version {version}; this release reads up to {RDB_VERSION_MAX}")
    return version


cdef class Loader:
    """See rdbload.pyi."""

    cdef Py_buffer view
    cdef Loading l
    cdef list databases
    cdef bint open
    cdef int version
    cdef readonly list libraries

    def __init__(self, list databases not None, data not None, bint replace, int64_t now_ms):
        memset(&self.l, 0, sizeof(Loading))
        self.databases = databases
        self.libraries = []
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
        self.open = True
        try:
            self.version = version_of(<const uint8_t*>self.view.buf, <size_t>self.view.len)
        except BaseException:
            self.close()
            raise
        clear(&self.l.a)
        self.l.db = db_pointer(databases[0])
        self.l.begin, self.l.replace, self.l.now_ms = <const uint8_t*>self.view.buf, replace, now_ms
        self.l.summed = self.l.begin
        self.l.r.at, self.l.r.end = self.l.begin + MAGIC, self.l.begin + self.view.len
        self.l.r.string_max = <uint64_t>-1
        self.l.r.fault = SOUND

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        if self.open:
            self.open = False
            reader_free(&self.l.r)
            PyBuffer_Release(&self.view)

    def step(self, int64_t budget_us):
        cdef Loading* l = &self.l
        cdef int how
        if not self.open:
            raise ValueError("the image was closed")
        l.stop_us = steady_us() + budget_us if budget_us else 0
        how = load_records(l, self.databases, self.libraries)
        l.crc = crc64_update(l.crc, l.summed, l.r.at - l.summed)  # now that it is in the cache
        l.summed = l.r.at
        if how == PAUSED:
            return False
        if how == FAULTY:
            where = f" (offset {self.at})"
            if l.key != NULL:
                name = PyBytes_FromStringAndSize(<const char*>l.key, min(l.key_size, <size_t>64))
                where = f" (key {name!r}, offset {self.at})"
            raise DamagedValue((<bytes>l.r.why).decode() + where)
        if self.version >= CHECKED_SINCE:
            self.check_sum()
        return True

    cdef check_sum(self):
        """The eight bytes that follow the end; all zero: none was made."""
        cdef const uint8_t* p
        cdef uint64_t wanted
        if not get_bytes(&self.l.r, CHECKSUM, &p):
            raise DamagedValue("it ends before its checksum")
        memcpy(&wanted, p, CHECKSUM)
        if wanted and wanted != self.l.crc:
            raise DamagedValue("the checksum differs")

    @property
    def at(self):
        return self.l.r.at - self.l.begin

    @property
    def keys(self):
        return self.l.keys

    @property
    def expired(self):
        return self.l.expired

    @property
    def stream_db(self):
        return self.l.stream_db
