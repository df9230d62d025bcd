# Between Python replies and Lua values. See lua_values.pyx.
from zeekdb.hot.lua_api cimport lua_State

cdef int push_reply(lua_State* L, object reply, int protocol) except -1    # one value onto the stack
cdef object take_value(lua_State* L, int protocol, int depth)              # the value on top, as a reply; the stack stays
cdef bytes text_at(lua_State* L, int at)                                   # of a string or number, None otherwise
cdef void push_bytes(lua_State* L, bytes text) noexcept
cdef void push_error(lua_State* L, bytes message) noexcept                 # {err = message, ignore_error_stats_update = true}
