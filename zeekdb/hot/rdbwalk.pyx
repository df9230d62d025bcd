"""An RDB file read record by record, with no database behind it: for tools.

`rdbload` stops where a file breaks; here a file is explained. Every value is read as `rdbload` reads it, with the same
distrust, and dropped again, so that memory holds one value at a time and what passes here can be loaded. Records say
where they lie in the file: a tool copies or sends them as they are.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from zeekdb.hot.crc64 cimport crc64_update
from zeekdb.hot.rdbfile cimport (
    CHECKED_SINCE, CHECKSUM, MAGIC, OP_AUX, OP_END, OP_EXPIRE_MS, OP_EXPIRE_S, OP_FREQUENCY, OP_FUNCTION, OP_IDLE,
    OP_MODULE_AUX, OP_SELECT_DB, OP_SIZES, OP_SLOTS,
)
from zeekdb.hot.rdbobjects cimport skip_values
from zeekdb.hot.rdbread cimport Value, rdb_read, value_drop
from zeekdb.hot.rdbtypes cimport RDB_MODULE_2, RDB_VERSION_MAX
from zeekdb.hot.rdbwire cimport (
    EMPTY, Reader, SOUND, TORN, Text, UNKNOWN, get_byte, get_bytes, get_fixed, get_length, get_string, reader_free,
)

from collections import namedtuple

FINE, NOTHING, FOREIGN = range(3)
Record = namedtuple("Record", "db key type begin value end deadline_ms idle_s frequency state")


cdef class RdbWalk:
    cdef Py_buffer view
    cdef bint viewed
    cdef Reader r
    cdef const uint8_t* base
    cdef uint64_t db
    cdef bint over
    cdef readonly int version
    cdef readonly list aux
    cdef readonly list libraries
    cdef readonly list cuts
    cdef readonly dict sizes
    cdef readonly int foreign
    cdef readonly size_t whole
    cdef readonly size_t end
    cdef readonly str checksum
    cdef readonly str fault
    cdef readonly bint torn
    cdef readonly size_t fault_at
    cdef readonly object fault_key

    def __init__(self, data not None):
        cdef const uint8_t* p
        cdef size_t n
        memset(&self.r, 0, sizeof(Reader))
        self.aux, self.libraries, self.cuts, self.sizes = [], [], [], {}
        self.checksum = self.fault = ""
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
        self.viewed = True
        p, n = <const uint8_t*>self.view.buf, <size_t>self.view.len
        self.base = p
        digits = PyBytes_FromStringAndSize(<const char*>p + 5, 4) if n >= MAGIC else b""
        if n < MAGIC or memcmp(p, b"REDIS", 5) != 0 or not digits.isdigit():
            self.give_up("it does not begin as an RDB file does", n < MAGIC)
            return
        self.version = int(digits)
        if not 1 <= self.version <= RDB_VERSION_MAX:
            self.give_up(f"RDB version {self.version}; this release reads up to {RDB_VERSION_MAX}", False)
            return
        self.r.at, self.r.end = p + MAGIC, p + n
        self.r.string_max = <uint64_t>-1
        self.r.fault = SOUND
        self.whole = MAGIC

    def __dealloc__(self):
        reader_free(&self.r)
        self.release()

    cdef void release(self):
        if self.viewed:
            self.viewed = False
            PyBuffer_Release(&self.view)

    def close(self):
        self.over = True
        self.release()

    cdef give_up(self, str why, bint torn):
        self.fault, self.torn, self.over = why, torn, True
        self.release()

    cdef broken(self, key):
        """The fault that the reader has noted."""
        self.fault_at = self.r.at - self.base
        self.fault_key = key
        self.give_up((<bytes>self.r.why).decode(), self.r.fault == TORN)

    cdef finish(self):
        """The end was seen; the checksum follows, all zero where none was made."""
        cdef uint64_t wanted, found
        cdef size_t n = self.view.len, size = self.r.at - self.base
        self.whole = size - 1
        self.end = size
        self.over = True
        if self.version < CHECKED_SINCE:
            self.checksum = "none"
        elif n - size < CHECKSUM:
            self.checksum = "missing"
            self.fault, self.torn, self.fault_at = "it ends before its checksum", True, size
        else:
            memcpy(&wanted, self.base + size, CHECKSUM)
            self.end = size + CHECKSUM
            with nogil:
                found = crc64_update(0, self.base, size)
            self.checksum = "none" if not wanted else "right" if wanted == found else "wrong"
            if self.checksum == "wrong":
                self.fault, self.fault_at = "the checksum differs", size
        self.release()

    def __iter__(self):
        return self

    def __next__(self):
        cdef Text text, second
        cdef Value value
        cdef uint8_t kind, byte
        cdef uint64_t n, m
        cdef const uint8_t* p
        cdef int64_t deadline_ms = 0, idle_s = -1
        cdef int frequency = -1, state = FINE
        cdef size_t begin, value_at, at
        if self.over:
            raise StopIteration
        begin = self.r.at - self.base
        while True:
            at = self.r.at - self.base
            if deadline_ms == 0 and idle_s < 0 and frequency < 0:
                begin = self.whole = at
            if not get_byte(&self.r, &kind):
                break
            if kind == OP_END:
                self.finish()
                raise StopIteration
            if kind == OP_AUX:
                if not get_string(&self.r, &text, 0) or not get_string(&self.r, &second, 1):
                    break
                self.aux.append((
                    PyBytes_FromStringAndSize(<const char*>text.p, text.n),
                    PyBytes_FromStringAndSize(<const char*>second.p, second.n),
                ))
            elif kind == OP_SELECT_DB:
                if not get_length(&self.r, &self.db):
                    break
            elif kind == OP_SIZES:
                if not get_length(&self.r, &n) or not get_length(&self.r, &m):
                    break
                self.sizes[self.db] = (n, m)
            elif kind == OP_EXPIRE_MS:
                if not get_fixed(&self.r, <uint64_t*>&deadline_ms):
                    break
            elif kind == OP_EXPIRE_S:
                if not get_bytes(&self.r, 4, &p):
                    break
                n = 0
                memcpy(&n, p, 4)
                deadline_ms = <int64_t>n * 1000
            elif kind == OP_IDLE:
                if not get_length(&self.r, &n):
                    break
                idle_s = <int64_t>(n & 0x7FFFFFFF)
            elif kind == OP_FREQUENCY:
                if not get_byte(&self.r, &byte):
                    break
                frequency = byte
            elif kind == OP_FUNCTION:
                if not get_string(&self.r, &text, 0):
                    break
                self.libraries.append(PyBytes_FromStringAndSize(<const char*>text.p, text.n))
            elif kind == OP_MODULE_AUX:
                if not get_length(&self.r, &n) or not skip_values(&self.r):
                    break
                self.foreign += 1
            elif kind == OP_SLOTS:  # a slot of a cluster, and how many keys are to come for it
                if not get_length(&self.r, &n) or not get_length(&self.r, &n) or not get_length(&self.r, &n):
                    break
            else:
                if not get_string(&self.r, &text, 1):
                    break
                key = PyBytes_FromStringAndSize(<const char*>text.p, text.n)
                value_at = self.r.at - self.base
                if rdb_read(&self.r, kind, &value):
                    value_drop(&value)
                elif self.r.fault == EMPTY:  # its bytes are all read
                    state = NOTHING
                    self.cuts.append((begin, self.r.at - self.base))
                elif self.r.fault == UNKNOWN and kind == RDB_MODULE_2:  # and so are these
                    state = FOREIGN
                    self.foreign += 1
                else:
                    self.broken(key)
                    raise StopIteration
                self.r.fault = SOUND
                self.whole = self.r.at - self.base
                return tuple.__new__(Record, (
                    self.db, key, kind, begin, value_at, self.whole, deadline_ms, idle_s, frequency, state,
                ))
        self.broken(None)
        raise StopIteration
