# Text under construction: a userdata on the Lua stack, so that an error frees it.
from libc.string cimport memcpy
from zeekdb.hot.lua_api cimport api, lua_State

ctypedef struct Text:
    char* data
    size_t size
    size_t capacity
    int place                # on the stack, from its bottom

cdef inline void begin_text(lua_State* L, Text* t) noexcept nogil:
    """Its place is the top of the stack."""
    t.capacity, t.size = 256, 0
    t.data = <char*>api.newuserdata(L, t.capacity)
    t.place = api.gettop(L)

cdef inline void reserve(lua_State* L, Text* t, size_t need) noexcept nogil:
    cdef char* more
    cdef size_t capacity
    if t.size + need <= t.capacity:
        return
    capacity = t.capacity * 2 if t.capacity * 2 > t.size + need else t.size + need
    more = <char*>api.newuserdata(L, capacity)
    memcpy(more, t.data, t.size)
    api.replace(L, t.place)
    t.data, t.capacity = more, capacity

cdef inline void add(lua_State* L, Text* t, const char* p, size_t n) noexcept nogil:
    reserve(L, t, n)
    memcpy(t.data + t.size, p, n)
    t.size += n

cdef inline void add_byte(lua_State* L, Text* t, char c) noexcept nogil:
    reserve(L, t, 1)
    t.data[t.size] = c
    t.size += 1
