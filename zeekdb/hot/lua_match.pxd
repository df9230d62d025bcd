# Patterns, within bounds. See lua_match.pyx.
from zeekdb.hot.lua_api cimport lua_State

cdef int match_find(lua_State* L) noexcept nogil
cdef int match_match(lua_State* L) noexcept nogil
cdef int match_gmatch(lua_State* L) noexcept nogil
cdef int match_gsub(lua_State* L) noexcept nogil
