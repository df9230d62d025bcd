# The script under way, and its direct way to the twins. See script_runs.pyx.
from zeekdb.hot.engine cimport Engine
from zeekdb.hot.keyspace cimport Db
from zeekdb.hot.lua_api cimport lua_State
from zeekdb.hot.sockets cimport Conn

cdef class Run:
    cdef Engine engine
    cdef Conn* c                         # the client's; NULL when it has no connection
    cdef Db* db
    cdef readonly object client
    cdef readonly bytes name
    cdef readonly tuple call             # all words
    cdef readonly int flags
    cdef readonly bint is_function
    cdef readonly double begin_s
    cdef public double served_s          # when others were served last while it ran on
    cdef public bint read_only
    cdef public bint out_of_memory
    cdef public bint plain               # nothing stands between the script and what it calls
    cdef public bint placed
    cdef public bint wrote
    cdef public bint read
    cdef public bint killed
    cdef public bint slow

    @staticmethod
    cdef Run begin(Engine engine, client, bytes name, tuple call, int flags, bint is_function, bint read_only)
    cdef int protocol(self) except -1
    cdef bint call_twin(self, lua_State* L) noexcept
