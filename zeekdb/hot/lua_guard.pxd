# What bounds a script: memory, time, and the forms of functions that are safe. See lua_guard.pyx.
from libc.stdint cimport int64_t
from zeekdb.hot.lua_api cimport lua_State

# What the allocator works with.
ctypedef struct Budget:
    size_t used
    size_t limit
    bint lenient             # the host is at work: it is never refused

cdef void* allocate(void* budget, void* p, size_t old, size_t new) noexcept nogil

# The watch over the running script. `ask` leaves an error on the stack and answers -1 once the script must end.
ctypedef struct Watch:
    int (*ask)(lua_State* L) noexcept nogil
    lua_State* running       # the coroutine that runs, NULL between scripts
    int64_t looked_us        # when the clock was last looked at
    bint dying               # the script must end
    unsigned int ticks

cdef Watch watch

cdef void begin_watch(lua_State* L) noexcept nogil
cdef void end_watch(lua_State* L) noexcept nogil
# Every host function that may work for long calls this: raises when the script must end.
cdef void look(lua_State* L) noexcept nogil
# The cheap form, for what is small and often.
cdef inline void tick(lua_State* L) noexcept nogil:
    watch.ticks += 1
    if watch.ticks & 15 == 0:
        look(L)

# Whether the function on top, and all within it, can be run by this Lua; see the .pyx. -1: no memory.
cdef int is_runnable(lua_State* L) noexcept nogil
