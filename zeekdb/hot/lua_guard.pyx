"""What bounds a script: memory, time, and the forms of functions that are safe to run.

Time. Every HOOK_COUNT instructions, whenever much memory has been asked for, and in host functions that may work for
long, the clock is looked at, and once a millisecond the host is asked whether the script may go on. When it may not,
an error is raised, again at every further line and at every resumption of a coroutine: no pcall gets past that.

The stack. Lua 5.1 makes room for the frame of a function with `...`, and then moves its named parameters up without
making room for that (CVE-2014-5461). The library cannot be changed, so two things are done about it. Functions with
`...` and more than PARAMETERS_MAX named parameters are refused, by looking at the compiled form. What the others may
write too far is PARAMETERS_MAX slots for each time that the stack has been grown by less than a function needs, which
is four times at most, since it doubles: so every block that may be a stack gets STACK_SLACK bytes more.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from zeekdb.hot.clock cimport steady_us
from zeekdb.hot.lua_api cimport LUA_MASKCOUNT, LUA_MASKLINE, api, lua_Debug, lua_State

cdef enum:
    HOOK_COUNT = 1000           # instructions between two looks at the clock
    LOOK_US = 1000              # between two questions to the host
    BIG_BLOCK = 1 << 20         # of memory: work that a few instructions can cause
    PARAMETERS_MAX = 10         # named ones of a function with `...`
    STACK_MIN = 720             # bytes of the smallest stack
    STACK_SLOT = 16
    STACK_SLACK = 1024          # PARAMETERS_MAX slots, four times, and a half more
    DUMP_HEADER = 12            # bytes
    DUMP_DEPTH = 250            # functions in functions; the compiler allows 200

memset(&watch, 0, sizeof(watch))


# ---------------------------------------------------------------- memory


cdef inline size_t with_slack(size_t size) noexcept nogil:
    return size + STACK_SLACK if size >= STACK_MIN and size % STACK_SLOT == 0 else size


cdef void* allocate(void* ud, void* p, size_t old, size_t new) noexcept nogil:
    cdef Budget* budget = <Budget*>ud
    cdef void* got
    old = with_slack(old) if p != NULL else 0
    if new == 0:
        free(p)
        budget.used -= old
        return NULL
    new = with_slack(new)
    if new > old and budget.used - old + new > budget.limit and not budget.lenient:
        return NULL
    got = realloc(p, new)
    if got == NULL:
        return p if new <= old else NULL  # Lua takes for granted that less can always be had
    budget.used += new - old
    if new >= BIG_BLOCK and watch.running != NULL:
        api.sethook(watch.running, on_count, LUA_MASKCOUNT, 1)
    return got


# ---------------------------------------------------------------- time


cdef void begin_watch(lua_State* L) noexcept nogil:
    watch.running, watch.dying, watch.looked_us = L, False, steady_us()
    api.sethook(L, on_count, LUA_MASKCOUNT, HOOK_COUNT)


cdef void end_watch(lua_State* L) noexcept nogil:
    watch.running, watch.dying = NULL, False


cdef void look(lua_State* L) noexcept nogil:
    cdef int64_t now = steady_us()
    if watch.running == NULL or (now - watch.looked_us < LOOK_US and not watch.dying):
        return
    if watch.ask(L) < 0:
        watch.dying = True
        api.sethook(L, on_count, LUA_MASKLINE | LUA_MASKCOUNT, 1)
        api.error(L)
    watch.looked_us = steady_us()


cdef void on_count(lua_State* L, lua_Debug* where) noexcept nogil:
    if not watch.dying:
        api.sethook(L, on_count, LUA_MASKCOUNT, HOOK_COUNT)
    look(L)


# ---------------------------------------------------------------- functions

# The compiled form as lua_dump writes it.
ctypedef struct Dump:
    uint8_t* data
    size_t size
    size_t capacity
    size_t at


cdef int gather(lua_State* L, const void* p, size_t n, void* ud) noexcept nogil:
    cdef Dump* dump = <Dump*>ud
    cdef size_t capacity = dump.capacity
    cdef uint8_t* more
    if dump.size + n > capacity:
        capacity = capacity * 2 + n
        more = <uint8_t*>realloc(dump.data, capacity)
        if more == NULL:
            return 1
        dump.data, dump.capacity = more, capacity
    memcpy(dump.data + dump.size, p, n)
    dump.size += n
    return 0


cdef inline uint64_t number(Dump* dump, size_t n) noexcept nogil:
    """The next n bytes; what lies behind the end is zero."""
    cdef uint64_t value = 0
    if dump.at + n <= dump.size:
        memcpy(&value, dump.data + dump.at, n)
    dump.at += n
    return value


cdef void skip(Dump* dump, size_t each) noexcept nogil:
    """A vector: its length and then its items, of so many bytes each."""
    cdef size_t n = <size_t>number(dump, 4 if each > 1 else 8)  # strings have wide lengths
    dump.at += n * each


cdef void skip_constants(Dump* dump) noexcept nogil:
    cdef uint32_t left = <uint32_t>number(dump, 4)
    cdef uint64_t kind
    while left and dump.at < dump.size:
        left -= 1
        kind = number(dump, 1)
        if kind == 1:
            dump.at += 1
        elif kind == 3:
            dump.at += 8
        elif kind == 4:
            skip(dump, 1)


cdef void skip_debug(Dump* dump) noexcept nogil:
    cdef uint32_t left
    skip(dump, 4)  # lines
    left = <uint32_t>number(dump, 4)
    while left and dump.at < dump.size:  # local variables
        left -= 1
        skip(dump, 1)
        dump.at += 8
    left = <uint32_t>number(dump, 4)
    while left and dump.at < dump.size:  # names of what is outside
        left -= 1
        skip(dump, 1)


cdef bint functions_fit(Dump* dump, int depth) noexcept nogil:
    """The function at dump.at and those within it; goes behind them."""
    cdef uint64_t parameters, varargs
    cdef uint32_t inner
    if depth > DUMP_DEPTH:
        return False
    skip(dump, 1)                # its source
    dump.at += 9                 # first line, last line, upvalues
    parameters = number(dump, 1)
    varargs = number(dump, 1)
    dump.at += 1                 # size of the frame
    if varargs and parameters > PARAMETERS_MAX:
        return False
    skip(dump, 4)                # instructions
    skip_constants(dump)
    inner = <uint32_t>number(dump, 4)
    while inner and dump.at < dump.size:
        inner -= 1
        if not functions_fit(dump, depth + 1):
            return False
    skip_debug(dump)
    return True


cdef int is_runnable(lua_State* L) noexcept nogil:
    cdef Dump dump
    cdef int fits
    memset(&dump, 0, sizeof(dump))
    if api.dump(L, gather, &dump):
        free(dump.data)
        return -1
    dump.at = DUMP_HEADER
    # The reading must end where the writing did: otherwise something here is not as this code believes.
    fits = functions_fit(&dump, 0) and dump.at == dump.size
    free(dump.data)
    return fits
