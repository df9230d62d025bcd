"""The script under way, and the direct way from `redis.call` to the twins.

While nothing stands between a script and what it calls (no gate, no limit that the script runs under), a command that
has a twin runs on the Lua strings where they lie, and what the twin has written, RESP2, is read back into Lua values.
No Python object is made. Everything else goes through `Interpreter.on_call`.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from zeekdb.hot.clock cimport steady_ns
from zeekdb.hot.engine cimport Engine
from zeekdb.hot.keyspace cimport db_pointer
from zeekdb.hot.kinds cimport F_NOT_IN_SCRIPTS, F_WRITE, Kind, count_ticks, hash_keys, run_twin, takes, ticks_now
from zeekdb.hot.lua_api cimport LUA_TNUMBER, LUA_TSTRING, api, is_type, lua_State
from zeekdb.hot.memory cimport blob_release, mem_free
from zeekdb.hot.sockets cimport Link
from zeekdb.hot.wire cimport TWIN_DONE, Arg, Part, Port, format_int, parse_int

cdef enum:
    NO_WRITES = 1            # scripting.shebang.ScriptFlag.NO_WRITES
    WORDS_MAX = 64           # of a call that goes the direct way
    DIGITS_MAX = 24          # bytes of a whole number as text
    REPLY_KEPT = 1 << 20     # bytes of the reply buffer that stay for the next call

cdef Port PORT               # what twins see instead of the client's; its output is empty between calls
memset(&PORT, 0, sizeof(Port))
PORT.protocol = 2


cdef void forget_reply() noexcept nogil:
    while PORT.out.nparts:
        PORT.out.nparts -= 1
        blob_release(PORT.out.parts[PORT.out.nparts].blob)
    PORT.out.part_bytes = 0
    PORT.out.size = 0
    if PORT.out.capacity > REPLY_KEPT:
        mem_free(PORT.out.data, PORT.out.capacity)
        PORT.out.data = NULL
        PORT.out.capacity = 0


# A place in PORT.out.
ctypedef struct Reading:
    size_t at
    uint32_t part            # the next blob that stands beside the text


cdef int64_t read_number(Reading* r) noexcept nogil:
    """The number up to the end of the line; goes behind it."""
    cdef int64_t value = 0
    cdef size_t begin = r.at
    while PORT.out.data[r.at] != 13:
        r.at += 1
    parse_int(PORT.out.data + begin, r.at - begin, &value)
    r.at += 2
    return value


cdef void push_line(lua_State* L, Reading* r) noexcept nogil:
    cdef size_t begin = r.at
    while PORT.out.data[r.at] != 13:
        r.at += 1
    api.pushlstring(L, <char*>PORT.out.data + begin, r.at - begin)
    r.at += 2


cdef void push_value(lua_State* L, Reading* r) noexcept nogil:
    """The value at `r` as a script sees it. Twins write statuses, numbers, strings, nulls and arrays."""
    cdef uint8_t kind = PORT.out.data[r.at]
    cdef int64_t n, i
    cdef Part* part
    r.at += 1
    if kind == b"$":
        n = read_number(r)
        if n < 0:
            api.pushboolean(L, 0)
            return
        part = &PORT.out.parts[r.part] if r.part < PORT.out.nparts else NULL
        if part != NULL and part.at == r.at:
            api.pushlstring(L, <char*>part.blob.data, part.blob.size)
            r.part += 1
        else:
            api.pushlstring(L, <char*>PORT.out.data + r.at, n)
            r.at += n
        r.at += 2
    elif kind == b":":
        api.pushnumber(L, <double>read_number(r))
    elif kind == b"*":
        n = read_number(r)
        if n < 0:
            api.pushboolean(L, 0)
            return
        api.checkstack(L, 4)
        api.createtable(L, <int>n, 0)
        for i in range(n):
            push_value(L, r)
            api.rawseti(L, -2, <int>(i + 1))
    else:
        api.createtable(L, 0, 1)
        push_line(L, r)
        api.setfield(L, -2, b"ok")


cdef class Run:
    """See script_runs.pyi."""

    @staticmethod
    cdef Run begin(Engine engine, client, bytes name, tuple call, int flags, bint is_function, bint read_only):
        cdef Run run = Run.__new__(Run)
        run.engine = engine
        run.client = client
        run.name = name
        run.call = call
        run.flags = flags
        run.is_function = is_function
        run.read_only = read_only or flags & NO_WRITES
        run.begin_s = steady_ns() / 1e9
        if isinstance(client, Link):
            run.c = (<Link>client).c
            run.db = run.c.port.db
            run.plain = run.c.gate | engine.gate == 0
        return run

    cdef int protocol(self) except -1:
        """The client's."""
        return self.c.port.protocol if self.c != NULL else self.client.protocol

    def use_database(self, database):
        self.db = db_pointer(database)

    @property
    def duration_ms(self):
        return int((steady_ns() / 1e9 - self.begin_s) * 1000)

    @property
    def kill_word(self):
        return "FUNCTION" if self.is_function else "SCRIPT"

    cdef bint call_twin(self, lua_State* L) noexcept:
        """The call whose words are the stack, which its reply replaces; False when it has to go the long way."""
        cdef Arg argv[WORDS_MAX]
        cdef uint8_t digits[WORDS_MAX][DIGITS_MAX]
        cdef int argc = api.gettop(L), i
        cdef double number
        cdef uint64_t begin
        cdef Kind* kind
        cdef Reading reading
        if not self.plain or self.engine.gate or not 0 < argc <= WORDS_MAX or not is_type(L, 1, LUA_TSTRING):
            return False
        argv[0].p = <uint8_t*>api.tolstring(L, 1, &argv[0].n)
        kind = self.engine.lookup(argv[0].p, argv[0].n)
        if kind == NULL or kind.twin == NULL or kind.flags & F_NOT_IN_SCRIPTS or not takes(kind, argc):
            return False
        if self.read_only and kind.flags & F_WRITE:
            return False
        for i in range(1, argc):
            argv[i].blob = NULL
            if is_type(L, i + 1, LUA_TSTRING):
                argv[i].p = <uint8_t*>api.tolstring(L, i + 1, &argv[i].n)
            elif is_type(L, i + 1, LUA_TNUMBER):
                number = api.tonumber(L, i + 1)
                if not -1e15 < number < 1e15 or number != <double><int64_t>number:
                    return False
                argv[i].p = digits[i]
                argv[i].n = format_int(digits[i], <int64_t>number)
            else:
                return False
        begin = ticks_now()
        hash_keys(kind, argv, argc)
        PORT.db = self.db
        if run_twin(kind, &PORT, argv, argc) != TWIN_DONE:
            return False
        count_ticks(kind, ticks_now() - begin)
        if kind.flags & F_WRITE:
            self.wrote = True
        api.settop(L, 0)
        reading.at = reading.part = 0
        push_value(L, &reading)
        forget_reply()
        return True
