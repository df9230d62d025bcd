# The room that scripts see: protected globals and libraries. See lua_sandbox.pyx.
from zeekdb.hot.lua_api cimport lua_CFunction, lua_State

# Builds the globals in a fresh state. Afterwards scripts see them through protected tables, and the host writes them
# by `set_global` (which takes the value on top of the stack).
cdef void sandbox_open(lua_State* L) noexcept nogil
cdef void push_globals(lua_State* L) noexcept nogil
cdef void set_global(lua_State* L, const char* name) noexcept nogil
# The table on top of the stack becomes one that scripts can read and not change. `strict`: an absent field is an error.
cdef void protect(lua_State* L, bint strict) noexcept nogil
# Globals are the value on top of the stack only, under this name; and all of them again.
cdef void show_only(lua_State* L, const char* name) noexcept nogil
cdef void show_all(lua_State* L) noexcept nogil
