# See lua_json.pyx.
from zeekdb.hot.lua_api cimport lua_State

cdef void open_cjson(lua_State* L) noexcept nogil     # leaves the library on the stack
