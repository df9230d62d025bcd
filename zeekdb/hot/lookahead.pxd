# Looking ahead into collections. See lookahead.pyx.
from libc.stdint cimport uint32_t
from zeekdb.hot.keyspace cimport Db
from zeekdb.hot.parser cimport Request
from zeekdb.hot.wire cimport Arg

# After the entries of the keys were asked for; `kind` and the keys' hashes are set.
cdef void look_into(Db* db, const Request* requests, Arg* args, uint32_t n) noexcept nogil
