# See lua_msgpack.pyx.
from zeekdb.hot.lua_api cimport lua_State

cdef void open_cmsgpack(lua_State* L) noexcept nogil     # leaves the library on the stack
