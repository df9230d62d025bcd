# Values to Redis's serialisation. See rdbwrite.pyx.
from libc.stdint cimport uint8_t
from zeekdb.hot.rdbtypes cimport RDB_HASH_TTL_EARLY, RDB_SET_LISTPACK, RDB_VERSION
from zeekdb.hot.rdbwire cimport Writer
from zeekdb.hot.table cimport Entry

cdef uint8_t rdb_type(const Writer* w, const Entry* e) noexcept nogil       # what is written before the value
cdef bint rdb_is_empty(const Entry* e) noexcept nogil                       # a hash whose fields are all overdue
cdef bint rdb_write(Writer* w, const Entry* e) noexcept nogil               # the value; False: it has no form in a file

cdef inline uint8_t rdb_version(uint8_t type) noexcept nogil:
    """The version of the format that brought a type we write."""
    if type >= RDB_HASH_TTL_EARLY:
        return 12
    return 11 if type >= RDB_SET_LISTPACK else RDB_VERSION
