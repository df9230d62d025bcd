"""Lua scripts: one interpreter, its sandbox, the `redis` API, and the way to commands and back.

A script runs inside `lua_pcall` on the event loop's thread. `redis.call` turns the Lua arguments into bytes, makes one
Python call, and turns the reply into Lua values. The rule that keeps this safe: Lua raises errors by longjmp, so no
frame that Python knows of may lie between. Functions that Lua calls are therefore two: an outer one in plain C, and an
inner one that catches every exception, leaves a value or an error on the Lua stack and says which; the outer one then
raises. While the host is at work the allocator refuses nothing, so none of its own Lua calls can raise.

While a script runs the host is asked again and again whether it may go on (see lua_guard.pyx), which is also how the
server stays reachable while one does not end.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdio cimport snprintf
from libc.string cimport memset
from zeekdb.hot.lua_api cimport (
    LUA_GCCOLLECT, LUA_GCSTEP, LUA_REGISTRYINDEX, LUA_TFUNCTION, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE, api, is_type, lua_Debug, lua_State, pop, push_text, raise_text,
    set_function,
)
from zeekdb.hot.lua_bit cimport open_bit
from zeekdb.hot.lua_guard cimport allocate, begin_watch, end_watch, is_runnable, watch
from zeekdb.hot.lua_json cimport open_cjson
from zeekdb.hot.lua_msgpack cimport open_cmsgpack
from zeekdb.hot.lua_sandbox cimport protect, push_globals, sandbox_open, set_global, show_all, show_only
from zeekdb.hot.lua_struct cimport open_struct
from zeekdb.hot.lua_values cimport push_bytes, push_error, push_reply, take_value, text_at

import hashlib
import logging

from zeekdb.errors import CommandError
from zeekdb.hot.lua_values import CountedError
from zeekdb.hot.replies import Error

log = logging.getLogger("zeekdb")

cdef enum:
    CALL_MAX = 1 << 29       # bytes of the arguments of one call; equal ones would cost a script nothing
    NUMBER_MAX = 64          # bytes of a number as text

REDIS_VERSION = b"7.2.4"
REDIS_VERSION_NUM = 0x00070204
LOG_LEVELS = {b"LOG_DEBUG": 0, b"LOG_VERBOSE": 1, b"LOG_NOTICE": 2, b"LOG_WARNING": 3}
REPL_FLAGS = {b"REPL_NONE": 0, b"REPL_AOF": 1, b"REPL_SLAVE": 2, b"REPL_REPLICA": 2, b"REPL_ALL": 3}

cdef Interpreter CURRENT = None     # the one that runs


class ScriptError(CommandError):
    def __init__(self, str message, bint counted=False):
        super().__init__(message)
        self.counted = counted


# ---------------------------------------------------------------- what scripts call


cdef int raise_error_table(lua_State* L) noexcept nogil:
    """Raises the {err = …} on top, with the place in the script that caused it."""
    cdef lua_Debug place
    if api.getstack(L, 1, &place) and api.getinfo(L, b"Sl", &place):
        api.pushstring(L, place.source)
        api.setfield(L, -2, b"source")
        api.pushnumber(L, place.currentline)
        api.setfield(L, -2, b"line")
    return api.error(L)


cdef int fail(lua_State* L, bytes message) noexcept:
    """Leaves an error, which nobody has counted yet, and says so."""
    api.createtable(L, 0, 4)
    push_bytes(L, message)
    api.setfield(L, -2, b"err")
    return -1


cdef list arguments(lua_State* L):
    """The call's arguments as bytes; None when one is neither string nor number. CommandError."""
    cdef int i
    cdef char text[NUMBER_MAX]
    cdef double number
    cdef size_t n = 0, total = 0
    cdef const char* p
    cdef list words = []
    for i in range(1, api.gettop(L) + 1):
        if is_type(L, i, LUA_TSTRING):
            p = api.tolstring(L, i, &n)
            total += n
            if total > CALL_MAX:
                raise CommandError("ERR the arguments of a command are too large")
            words.append(PyBytes_FromStringAndSize(p, n))
        elif is_type(L, i, LUA_TNUMBER):
            number = api.tonumber(L, i)
            if number == <double><long long>number and -1e15 < number < 1e15:
                n = snprintf(text, NUMBER_MAX, b"%lld", <long long>number)
            else:
                n = snprintf(text, NUMBER_MAX, b"%.17g", number)
            words.append(PyBytes_FromStringAndSize(text, n))
        else:
            return None
    return words


cdef int call_command(lua_State* L) noexcept with gil:
    """How many results are on the stack; -1: an error table is."""
    cdef int results = 1
    CURRENT.budget.lenient = True
    try:
        if CURRENT.protocol == 2 and CURRENT.run is not None and CURRENT.run.call_twin(L):
            return 1
        if api.gettop(L) == 0:
            return fail(L, b"ERR Please specify at least one argument for this redis lib call")
        words = arguments(L)
        if words is None:
            return fail(L, b"ERR Lua redis lib command arguments must be strings or integers")
        api.settop(L, 0)  # so that there is room for the reply, however many they were
        reply = CURRENT.on_call(words)
        push_reply(L, reply, CURRENT.protocol)
        if isinstance(reply, (Error, CommandError)):
            results = -1
    except CommandError as error:
        push_error(L, error.message.encode("utf-8", "surrogateescape"))
        results = -1
    except Exception:
        log.exception("a command failed inside a script")
        results = fail(L, b"ERR internal error, see the server's log")
    finally:
        CURRENT.budget.lenient = False
    return results


cdef int redis_call(lua_State* L) noexcept nogil:
    if call_command(L) < 0:
        return raise_error_table(L)
    return 1


cdef int redis_pcall(lua_State* L) noexcept nogil:
    call_command(L)
    return 1


cdef int return_field(lua_State* L, const char* name) noexcept with gil:
    """{name = text}: what error_reply and status_reply make."""
    CURRENT.budget.lenient = True
    try:
        if api.gettop(L) != 1 or not is_type(L, 1, LUA_TSTRING):
            api.createtable(L, 0, 1)
            push_text(L, b"ERR wrong number or type of arguments")
            api.setfield(L, -2, b"err")
            return 1
        text = text_at(L, 1)
        if name[0] == b"e" and text[:1] == b"-":
            text = text[1:]
        if name[0] == b"e":  # without a code it gets one
            text = text.split(b"\0", 1)[0]
            text = text if b" " in text else b"ERR " + text
        api.createtable(L, 0, 1)
        push_bytes(L, text.replace(b"\r", b" ").replace(b"\n", b" "))
        api.setfield(L, -2, name)
        return 1
    finally:
        CURRENT.budget.lenient = False


cdef int redis_error_reply(lua_State* L) noexcept nogil:
    return return_field(L, b"err")


cdef int redis_status_reply(lua_State* L) noexcept nogil:
    return return_field(L, b"ok")


cdef int sha1hex(lua_State* L) noexcept with gil:
    CURRENT.budget.lenient = True
    try:
        if api.gettop(L) != 1:
            return fail(L, b"ERR wrong number of arguments")
        push_bytes(L, hashlib.sha1(text_at(L, 1) or b"", usedforsecurity=False).hexdigest().encode())
        return 1
    finally:
        CURRENT.budget.lenient = False


cdef int redis_sha1hex(lua_State* L) noexcept nogil:
    return 1 if sha1hex(L) > 0 else raise_error_table(L)


cdef int write_log(lua_State* L) noexcept with gil:
    cdef int i
    CURRENT.budget.lenient = True
    try:
        if api.gettop(L) < 2:
            return fail(L, b"ERR redis.log() requires two arguments or more.")
        if not is_type(L, 1, LUA_TNUMBER):
            return fail(L, b"ERR First argument must be a number (log level).")
        level = api.tonumber(L, 1)
        if not 0 <= level <= 3:
            return fail(L, b"ERR Invalid debug level.")
        words = [text_at(L, i) for i in range(2, api.gettop(L) + 1)]
        CURRENT.on_log(int(level), b" ".join([word for word in words if word is not None]).decode("utf-8", "replace"))
    except Exception:
        log.exception("a script's log line was lost")
    finally:
        CURRENT.budget.lenient = False
    return 0


cdef int redis_log(lua_State* L) noexcept nogil:
    return 0 if write_log(L) == 0 else raise_error_table(L)


cdef int set_protocol(lua_State* L) noexcept with gil:
    CURRENT.budget.lenient = True
    try:
        if api.gettop(L) != 1:
            return fail(L, b"ERR redis.setresp() requires one argument.")
        if api.tonumber(L, 1) not in (2, 3):
            return fail(L, b"ERR RESP version must be 2 or 3.")
        CURRENT.protocol = <int>api.tonumber(L, 1)
        return 0
    finally:
        CURRENT.budget.lenient = False


cdef int redis_setresp(lua_State* L) noexcept nogil:
    return 0 if set_protocol(L) == 0 else raise_error_table(L)


cdef int check_permission(lua_State* L) noexcept with gil:
    CURRENT.budget.lenient = True
    try:
        if api.gettop(L) == 0:
            return fail(L, b"ERR Please specify at least one argument for this redis lib call")
        words = arguments(L)
        if words is None:
            return fail(L, b"ERR Lua redis lib command arguments must be strings or integers")
        api.pushboolean(L, CURRENT.on_permission(words))
        return 1
    except CommandError as error:
        return fail(L, error.message.encode("utf-8", "surrogateescape"))
    except Exception:
        log.exception("redis.acl_check_cmd failed")
        return fail(L, b"ERR internal error, see the server's log")
    finally:
        CURRENT.budget.lenient = False


cdef int redis_acl_check_cmd(lua_State* L) noexcept nogil:
    return 1 if check_permission(L) > 0 else raise_error_table(L)


cdef int check_replication_flags(lua_State* L) noexcept with gil:
    CURRENT.budget.lenient = True
    try:
        if api.gettop(L) != 1:
            return fail(L, b"ERR redis.set_repl() requires two arguments.")
        if not 0 <= api.tonumber(L, 1) <= 3:
            return fail(L, b"ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.")
        return 0
    finally:
        CURRENT.budget.lenient = False


cdef int redis_set_repl(lua_State* L) noexcept nogil:
    """Accepted, and everything is replicated: what a script changes here alone would make the replicas differ."""
    return 0 if check_replication_flags(L) == 0 else raise_error_table(L)


cdef int redis_replicate_commands(lua_State* L) noexcept nogil:
    api.pushboolean(L, 1)
    return 1


cdef int redis_breakpoint(lua_State* L) noexcept nogil:
    api.pushboolean(L, 0)
    return 1


cdef int redis_debug(lua_State* L) noexcept nogil:
    return 0


# ---------------------------------------------------------------- libraries of functions

cdef dict FIELDS = {b"function_name": LUA_TSTRING, b"callback": LUA_TFUNCTION, b"flags": LUA_TTABLE,
                    b"description": LUA_TSTRING}


cdef list flag_words(lua_State* L):
    """The strings of the table on top; None when something else is in it."""
    cdef int i = 0
    words = []
    while True:
        i += 1
        api.rawgeti(L, -1, i)
        if is_type(L, -1, LUA_TNIL):
            pop(L, 1)
            return words
        if not is_type(L, -1, LUA_TSTRING):
            pop(L, 1)
            return None
        words.append(text_at(L, -1))
        pop(L, 1)


cdef int named_arguments(lua_State* L) except? -2:
    """redis.register_function{…}: leaves name and callback as the positional form has them, and registers."""
    name = description = None
    flags = []
    cdef int callback = 0
    api.pushnil(L)
    while api.next(L, 1):
        if not is_type(L, -2, LUA_TSTRING):
            return fail(L, b"ERR named argument key given to redis.register_function is not a string")
        field = text_at(L, -2)
        if field == b"function_name":
            if not is_type(L, -1, LUA_TSTRING):
                return fail(L, b"ERR function_name argument given to redis.register_function must be a string")
            name = text_at(L, -1)
        elif field == b"description":
            if not is_type(L, -1, LUA_TSTRING):
                return fail(L, b"ERR description argument given to redis.register_function must be a string")
            description = text_at(L, -1)
        elif field == b"callback":
            if not is_type(L, -1, LUA_TFUNCTION):
                return fail(L, b"ERR callback argument given to redis.register_function must be a function")
            api.pushvalue(L, -1)
            callback = api.ref(L, LUA_REGISTRYINDEX)
        elif field == b"flags":
            if not is_type(L, -1, LUA_TTABLE):
                return fail(L, b"ERR flags argument to redis.register_function must be a table representing function flags")
            flags = flag_words(L)
            if flags is None:
                return fail(L, b"ERR unknown flag given")
        else:
            return fail(L, b"ERR unknown argument given to redis.register_function")
        pop(L, 1)
    if name is None:
        return fail(L, b"ERR redis.register_function must get a function name argument")
    if not callback:
        return fail(L, b"ERR redis.register_function must get a callback argument")
    CURRENT.on_register(name, callback, flags, description)
    return 0


cdef int register_function(lua_State* L) noexcept with gil:
    CURRENT.budget.lenient = True
    try:
        if not CURRENT.loading:
            return fail(L, b"ERR redis.register_function can only be called on FUNCTION LOAD command")
        given = api.gettop(L)
        if given < 1 or given > 2:
            return fail(L, b"ERR wrong number of arguments to redis.register_function")
        if given == 1:
            if not is_type(L, 1, LUA_TTABLE):
                return fail(L, b"ERR calling redis.register_function with a single argument is only applicable to Lua "
                               b"table (representing named arguments).")
            return named_arguments(L)
        if not is_type(L, 1, LUA_TSTRING):
            return fail(L, b"ERR first argument to redis.register_function must be a string")
        if not is_type(L, 2, LUA_TFUNCTION):
            return fail(L, b"ERR second argument to redis.register_function must be a function")
        name = text_at(L, 1)
        CURRENT.on_register(name, api.ref(L, LUA_REGISTRYINDEX), [], None)
        return 0
    except CommandError as error:
        return fail(L, error.message.encode("utf-8", "surrogateescape"))
    except Exception:
        log.exception("redis.register_function failed")
        return fail(L, b"ERR internal error, see the server's log")
    finally:
        CURRENT.budget.lenient = False


cdef int redis_register_function(lua_State* L) noexcept nogil:
    return 0 if register_function(L) == 0 else raise_error_table(L)


# ---------------------------------------------------------------- errors and time


cdef void copy_field(lua_State* L, const char* name) noexcept nogil:
    """From the table at 1 to the one on top."""
    push_text(L, name)
    push_text(L, name)
    api.rawget(L, 1)
    api.rawset(L, -3)


cdef int handle_error(lua_State* L) noexcept nogil:
    """What lua_pcall calls with an error: makes it a table that says where it happened."""
    cdef lua_Debug place
    cdef bint known = False
    cdef int level = 1
    while level < 3 and api.getstack(L, level, &place):
        if api.getinfo(L, b"nSl", &place) and place.what[0] != 67:  # not C
            known = True
            break
        level += 1
    api.createtable(L, 0, 4)  # never the script's own: what it has raised may be a table that all scripts share
    if is_type(L, 1, LUA_TTABLE):
        copy_field(L, b"err")
        copy_field(L, b"ignore_error_stats_update")
    else:
        push_text(L, b"ERR ")
        if is_type(L, 1, LUA_TSTRING) or is_type(L, 1, LUA_TNUMBER):
            api.pushvalue(L, 1)
        else:
            push_text(L, b"nil" if is_type(L, 1, LUA_TNIL) else b"(error object is not a string)")
        api.concat(L, 2)
        api.setfield(L, -2, b"err")
    if known:
        push_text(L, b"source")
        api.pushstring(L, place.source)
        api.rawset(L, -3)
        push_text(L, b"line")
        api.pushnumber(L, place.currentline)
        api.rawset(L, -3)
    return 1


cdef int time_is_up(lua_State* L) noexcept with gil:
    """-1: the script must end, and the reason is on the stack."""
    if CURRENT is None:
        return 0
    CURRENT.budget.lenient = True
    try:
        if CURRENT.death is None:
            CURRENT.death = CURRENT.on_time()
        if CURRENT.death is None:
            return 0
        push_error(L, CURRENT.death)
        return -1
    except Exception:
        log.exception("the watch over a script failed")
        return 0
    finally:
        CURRENT.budget.lenient = False


watch.ask = time_is_up


cdef int panic(lua_State* L) noexcept with gil:
    log.critical("Lua raised an error outside of any script")
    return 0


# ---------------------------------------------------------------- the interpreter


cdef class Interpreter:
    """See lua.pyi."""

    def __cinit__(self, size_t memory_limit):
        memset(&self.budget, 0, sizeof(self.budget))
        self.budget.limit = memory_limit
        self.budget.lenient = True
        self.protocol = 2
        self.L = api.newstate(allocate, &self.budget)
        if self.L == NULL:
            raise MemoryError
        api.atpanic(self.L, panic)
        sandbox_open(self.L)
        self.build_api()
        api.pushcclosure(self.L, handle_error, 0)
        self.handler = api.ref(self.L, LUA_REGISTRYINDEX)
        push_globals(self.L)
        self.globals = api.ref(self.L, LUA_REGISTRYINDEX)
        push_text(self.L, b"KEYS")
        self.keys_name = api.ref(self.L, LUA_REGISTRYINDEX)
        push_text(self.L, b"ARGV")
        self.argv_name = api.ref(self.L, LUA_REGISTRYINDEX)
        self.budget.lenient = False

    def __dealloc__(self):
        if self.L != NULL:
            api.close(self.L)

    cdef int build_api(self) except -1:
        """`redis` as scripts see it, and as libraries see it while they are loaded; and the other libraries."""
        cdef lua_State* L = self.L
        cdef bint loads
        for loads in (False, True):
            api.createtable(L, 0, 24)
            set_function(L, b"log", redis_log)
            set_function(L, b"sha1hex", redis_sha1hex)
            set_function(L, b"error_reply", redis_error_reply)
            set_function(L, b"status_reply", redis_status_reply)
            for name, number in {**LOG_LEVELS, **REPL_FLAGS}.items():
                api.pushnumber(L, number)
                api.setfield(L, -2, <bytes>name)
            push_bytes(L, REDIS_VERSION)
            api.setfield(L, -2, b"REDIS_VERSION")
            api.pushnumber(L, REDIS_VERSION_NUM)
            api.setfield(L, -2, b"REDIS_VERSION_NUM")
            if loads:
                set_function(L, b"register_function", redis_register_function)
            else:
                set_function(L, b"call", redis_call)
                set_function(L, b"pcall", redis_pcall)
                set_function(L, b"setresp", redis_setresp)
                set_function(L, b"set_repl", redis_set_repl)
                set_function(L, b"replicate_commands", redis_replicate_commands)
                set_function(L, b"acl_check_cmd", redis_acl_check_cmd)
                set_function(L, b"breakpoint", redis_breakpoint)
                set_function(L, b"debug", redis_debug)
            protect(L, loads)
            if loads:
                self.load_api = api.ref(L, LUA_REGISTRYINDEX)
            else:
                api.pushvalue(L, -1)
                set_global(L, b"redis")
                api.pushvalue(L, -1)
                set_global(L, b"server")
                pop(L, 1)
        open_cjson(L)
        protect(L, False)
        set_global(L, b"cjson")
        open_cmsgpack(L)
        protect(L, False)
        set_global(L, b"cmsgpack")
        open_struct(L)
        protect(L, False)
        set_global(L, b"struct")
        open_bit(L)
        protect(L, False)
        set_global(L, b"bit")
        return 0

    @property
    def memory_used(self):
        return self.budget.used

    @property
    def memory_limit(self):
        return self.budget.limit

    @memory_limit.setter
    def memory_limit(self, size_t value):
        self.budget.limit = value

    def compile(self, bytes source not None, bytes name not None):
        cdef lua_State* L = self.L
        cdef int status
        if source[:1] == b"\x1b":
            raise ScriptError("attempt to load precompiled code")
        self.budget.lenient = False
        status = api.loadbuffer(L, PyBytes_AS_STRING(source), PyBytes_GET_SIZE(source), PyBytes_AS_STRING(name))
        self.budget.lenient = True
        try:
            if status:
                message = text_at(L, -1) or b"not enough memory"
                pop(L, 1)
                raise ScriptError(message.decode("utf-8", "surrogateescape"))
            fits = is_runnable(L)
            if fits <= 0:
                pop(L, 1)
                raise ScriptError("not enough memory" if fits else "too many parameters before '...'")
            return api.ref(L, LUA_REGISTRYINDEX)
        finally:
            self.budget.lenient = False

    def release(self, int reference):
        self.budget.lenient = True
        api.unref(self.L, LUA_REGISTRYINDEX, reference)
        self.budget.lenient = False

    def collect(self):
        self.budget.lenient = True
        api.gc(self.L, LUA_GCCOLLECT, 0)
        self.budget.lenient = False

    def step(self):
        self.budget.lenient = True
        api.gc(self.L, LUA_GCSTEP, 50)
        self.budget.lenient = False

    cpdef object execute(self, int reference, tuple words, int first, int nkeys, bytes name, int protocol, bint as_arguments):
        cdef lua_State* L = self.L
        self.budget.lenient = True
        if not as_arguments:
            api.rawgeti(L, LUA_REGISTRYINDEX, self.globals)
            api.rawgeti(L, LUA_REGISTRYINDEX, self.keys_name)
            push_words(L, words, first, first + nkeys)
            api.rawset(L, -3)
            api.rawgeti(L, LUA_REGISTRYINDEX, self.argv_name)
            push_words(L, words, first + nkeys, len(words))
            api.rawset(L, -3)
            pop(L, 1)
        api.rawgeti(L, LUA_REGISTRYINDEX, self.handler)
        api.rawgeti(L, LUA_REGISTRYINDEX, reference)
        if as_arguments:
            push_words(L, words, first, first + nkeys)
            push_words(L, words, first + nkeys, len(words))
            return self.protected_call(2, name, protocol)
        return self.protected_call(0, name, protocol)

    def load(self, int reference):
        cdef lua_State* L = self.L
        self.budget.lenient = True
        api.rawgeti(L, LUA_REGISTRYINDEX, self.load_api)
        show_only(L, b"redis")
        api.rawgeti(L, LUA_REGISTRYINDEX, self.handler)
        api.rawgeti(L, LUA_REGISTRYINDEX, reference)
        self.loading = True
        try:
            self.protected_call(0, None, 2)
        finally:
            self.loading = False
            self.budget.lenient = True
            show_all(L)
            self.budget.lenient = False

    cdef object protected_call(self, int arguments, bytes name, int protocol):
        """Stack: handler, function, its arguments. Everything goes; what is returned is the first result."""
        global CURRENT
        cdef lua_State* L = self.L
        cdef int bottom = api.gettop(L) - arguments - 1
        cdef int status
        if CURRENT is not None:
            api.settop(L, bottom - 1)
            raise RuntimeError("a script is running")
        CURRENT = self
        self.protocol = 2
        self.death = None
        self.budget.lenient = False
        begin_watch(L)
        try:
            status = api.pcall(L, arguments, 1, bottom)
            self.budget.lenient = True
            if status:
                raise self.complain(status, name)
            try:
                reply = take_value(L, self.protocol, 0)
            except CommandError as error:
                raise ScriptError(error.message) from None
            if isinstance(reply, Error):
                raise ScriptError(reply.message, isinstance(reply, CountedError))
            return reply
        finally:
            end_watch(L)
            self.death = None
            CURRENT = None
            self.budget.lenient = True
            api.settop(L, bottom - 1)
            if self.budget.used > self.budget.limit // 2:  # what a script leaves behind must not starve the next
                api.gc(L, LUA_GCCOLLECT, 0)
            self.budget.lenient = False

    cdef tuple error_parts(self):
        """(message, source, line, counted) of the error table on top; None for what it lacks."""
        cdef lua_State* L = self.L
        found = []
        for field in (b"err", b"source", b"line", b"ignore_error_stats_update"):
            push_bytes(L, field)
            api.rawget(L, -2)
            found.append(text_at(L, -1) if field != b"ignore_error_stats_update" else bool(api.toboolean(L, -1)))
            pop(L, 1)
        return tuple(found)

    cdef object complain(self, int status, bytes name):
        if not is_type(self.L, -1, LUA_TTABLE):
            message = b"ERR " + (text_at(self.L, -1) or b"unknown error")
            return ScriptError(message.decode("utf-8", "surrogateescape"))
        message, source, line, counted = self.error_parts()
        if message is None:
            message = b"ERR unknown error"
        if name is not None:
            message += b" script: " + name
            if source is not None and line is not None:
                message += b", on " + source + b":" + line + b"."
        return ScriptError(message.decode("utf-8", "surrogateescape"), counted)


cdef int push_words(lua_State* L, tuple words, Py_ssize_t begin, Py_ssize_t end) except -1:
    """words[begin:end] as a table."""
    cdef Py_ssize_t i
    if not 0 <= begin <= end <= len(words):
        raise IndexError
    api.createtable(L, <int>(end - begin), 0)
    for i in range(begin, end):
        push_bytes(L, <bytes?>words[i])
        api.rawseti(L, -2, <int>(i - begin + 1))
    return 0
