# Redis's serialisation to values. See rdbread.pyx.
from libc.stdint cimport int64_t, uint8_t, uint64_t
from zeekdb.hot.keyspace cimport Db
from zeekdb.hot.rdbwire cimport Reader, Text
from zeekdb.hot.table cimport Entry

# A value without a key. Bytes of a short string may lie in what was read or in the reader; everything else is owned.
ctypedef struct Value:
    uint8_t type            # T_STRING …
    uint8_t flags           # BOXED, or 0 for a short string
    const uint8_t* p
    size_t n
    void* box
    Text text

cdef bint rdb_read(Reader* r, uint8_t type, Value* v) noexcept nogil            # False: see the fault; nothing is owned
cdef void value_drop(Value* v) noexcept nogil
# Puts it under a key, over whatever is there. The keyspace owns it then. Deadline 0: none.
cdef Entry* value_store(Value* v, Db* db, const uint8_t* key, size_t n, uint64_t h, int64_t deadline_ms) noexcept nogil
