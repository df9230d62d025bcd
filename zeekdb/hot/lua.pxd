# The interpreter. See lua.pyx.
from zeekdb.hot.lua_api cimport lua_State
from zeekdb.hot.lua_guard cimport Budget
from zeekdb.hot.script_runs cimport Run

cdef class Interpreter:
    cdef lua_State* L
    cdef Budget budget
    cdef int handler         # registry reference of the error handler
    cdef int globals         # of the table of globals, and of two names in it
    cdef int keys_name
    cdef int argv_name
    cdef int load_api        # of what libraries see as `redis` while they are loaded
    cdef bint running
    cdef bint loading
    cdef readonly int protocol   # of replies to scripts
    cdef public Run run              # what the running script is to the server; None: nothing
    cdef public object on_call       # (list of bytes) -> reply: redis.call; CommandError
    cdef public object on_register   # (name, reference, flags, description): redis.register_function
    cdef public object on_log        # (level, text)
    cdef public object on_permission # (list of bytes) -> bool: redis.acl_check_cmd; CommandError
    cdef public object on_time       # () -> None, or a message that ends the script
    cdef bytes death                 # the message that ends the running script, None while it may go on

    cpdef object execute(
        self, int reference, tuple words, int first, int nkeys, bytes name, int protocol, bint as_arguments
    )
    cdef int build_api(self) except -1
    cdef object protected_call(self, int arguments, bytes name, int protocol)
    cdef object complain(self, int status, bytes name)
    cdef tuple error_parts(self)
