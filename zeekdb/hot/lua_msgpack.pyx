"""The library `cmsgpack`: MessagePack and Lua values.

A table whose keys are 1 to n is an array, any other a map; what lies deeper than NESTING_MAX tables is packed as nil,
which also ends tables that contain themselves. Numbers are packed in the shortest form that keeps them.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy
from zeekdb.hot.lua_api cimport (
    LUA_TBOOLEAN, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE, api, is_type, lua_State, pop, push_text, raise_text,
    set_function,
)
from zeekdb.hot.lua_guard cimport look, tick

cdef enum:
    NESTING_MAX = 16         # tables in tables, packing
    DEPTH_MAX = 1000         # unpacking
    ERROR_MAX = 120

# The bytes under construction: a userdata on the Lua stack, so that an error frees it.
ctypedef struct Text:
    uint8_t* data
    size_t size
    size_t capacity
    int place


cdef uint8_t* room(lua_State* L, Text* t, size_t need) noexcept nogil:
    cdef uint8_t* more
    cdef size_t capacity
    if t.size + need > t.capacity:
        capacity = t.capacity * 2 if t.capacity * 2 > t.size + need else t.size + need
        more = <uint8_t*>api.newuserdata(L, capacity)
        memcpy(more, t.data, t.size)
        api.replace(L, t.place)
        t.data, t.capacity = more, capacity
    return t.data + t.size


cdef void put(lua_State* L, Text* t, uint8_t kind, uint64_t bits, int n) noexcept nogil:
    """The kind's byte and n bytes of the number, the highest first."""
    cdef uint8_t* at = room(L, t, 9)
    cdef int i
    at[0] = kind
    for i in range(n):
        at[1 + i] = <uint8_t>(bits >> (8 * (n - 1 - i)))
    t.size += 1 + n


cdef void put_count(lua_State* L, Text* t, uint64_t n, uint8_t few, int few_max, uint8_t wide) noexcept nogil:
    """The length of an array or map; `wide` is the kind with 16 bits, the next one has 32."""
    if n <= <uint64_t>few_max:
        put(L, t, few | <uint8_t>n, 0, 0)
    elif n <= 0xFFFF:
        put(L, t, wide, n, 2)
    else:
        put(L, t, wide + 1, n, 4)


cdef void put_string(lua_State* L, Text* t, int at) noexcept nogil:
    cdef size_t n = 0
    cdef const char* p = api.tolstring(L, at, &n)
    if n < 32:
        put(L, t, 0xA0 | <uint8_t>n, 0, 0)
    elif n <= 0xFF:
        put(L, t, 0xD9, n, 1)
    elif n <= 0xFFFF:
        put(L, t, 0xDA, n, 2)
    else:
        put(L, t, 0xDB, n, 4)
    memcpy(room(L, t, n), p, n)
    t.size += n


cdef void put_integer(lua_State* L, Text* t, int64_t n) noexcept nogil:
    if n >= 0:
        if n <= 127:
            put(L, t, <uint8_t>n, 0, 0)
        elif n <= 0xFF:
            put(L, t, 0xCC, n, 1)
        elif n <= 0xFFFF:
            put(L, t, 0xCD, n, 2)
        elif n <= 0xFFFFFFFFLL:
            put(L, t, 0xCE, n, 4)
        else:
            put(L, t, 0xCF, n, 8)
    elif n >= -32:
        put(L, t, <uint8_t>n, 0, 0)
    elif n >= -128:
        put(L, t, 0xD0, <uint64_t>n, 1)
    elif n >= -32768:
        put(L, t, 0xD1, <uint64_t>n, 2)
    elif n >= -2147483648LL:
        put(L, t, 0xD2, <uint64_t>n, 4)
    else:
        put(L, t, 0xD3, <uint64_t>n, 8)


cdef void put_number(lua_State* L, Text* t, double number) noexcept nogil:
    cdef float single
    cdef uint32_t bits
    cdef uint64_t wide
    if -9.2e18 < number < 9.2e18 and number == <double><int64_t>number:
        put_integer(L, t, <int64_t>number)
        return
    single = <float>number
    if number == <double>single:
        memcpy(&bits, &single, 4)
        put(L, t, 0xCA, bits, 4)
    else:
        memcpy(&wide, &number, 8)
        put(L, t, 0xCB, wide, 8)


cdef int64_t array_length(lua_State* L, uint64_t* items) noexcept nogil:
    """The length of the table on top as an array, -1 when it is a map; how many pairs it has."""
    cdef int64_t most = 0
    cdef double key
    cdef bint is_array = True
    items[0] = 0
    api.pushnil(L)
    while api.next(L, -2):
        pop(L, 1)
        items[0] += 1
        if is_array:
            is_array = False
            if is_type(L, -1, LUA_TNUMBER):
                key = api.tonumber(L, -1)
                if 1 <= key < 2e9 and key == <double><int64_t>key:
                    is_array = True
                    if key > most:
                        most = <int64_t>key
    return most if is_array and <uint64_t>most == items[0] else -1


cdef void put_table(lua_State* L, Text* t, int depth) noexcept nogil:
    cdef uint64_t items = 0
    cdef int64_t length, i
    look(L)  # to find its length may take long, and one table can be packed many times
    length = array_length(L, &items)
    api.checkstack_or_raise(L, 6, b"in function mp_encode_lua_table")
    if length >= 0:
        put_count(L, t, length, 0x90, 15, 0xDC)
        for i in range(1, length + 1):
            api.rawgeti(L, -1, <int>i)
            put_value(L, t, depth + 1)
            pop(L, 1)
        return
    put_count(L, t, items, 0x80, 15, 0xDE)
    api.pushnil(L)
    while api.next(L, -2):
        api.pushvalue(L, -2)
        put_value(L, t, depth + 1)
        pop(L, 1)
        put_value(L, t, depth + 1)
        pop(L, 1)


cdef void put_value(lua_State* L, Text* t, int depth) noexcept nogil:
    """The value on top of the stack, which stays."""
    cdef int type = api.type(L, -1)
    if type == LUA_TTABLE and depth == NESTING_MAX:
        type = LUA_TNIL
    if type == LUA_TSTRING:
        put_string(L, t, -1)
    elif type == LUA_TBOOLEAN:
        put(L, t, 0xC3 if api.toboolean(L, -1) else 0xC2, 0, 0)
    elif type == LUA_TNUMBER:
        put_number(L, t, api.tonumber(L, -1))
    elif type == LUA_TTABLE:
        put_table(L, t, depth)
    else:
        put(L, t, 0xC0, 0, 0)


cdef int msgpack_pack(lua_State* L) noexcept nogil:
    cdef Text t
    cdef int values = api.gettop(L)
    cdef int i
    if values == 0:
        return api.argerror(L, 0, b"MessagePack pack needs input.")
    api.checkstack_or_raise(L, values, b"Too many arguments for MessagePack pack.")
    t.capacity, t.size, t.place = 256, 0, values + 1
    t.data = <uint8_t*>api.newuserdata(L, t.capacity)
    for i in range(1, values + 1):
        api.pushvalue(L, i)
        put_value(L, &t, 0)
        pop(L, 1)
    api.pushlstring(L, <char*>t.data, t.size)
    return 1


# ---------------------------------------------------------------- unpacking

ctypedef struct Source:
    const uint8_t* at
    size_t left


cdef int missing(lua_State* L) noexcept nogil:
    return raise_text(L, b"Missing bytes in input.")


cdef uint64_t take(lua_State* L, Source* s, size_t n) noexcept nogil:
    """The number in the n bytes behind the kind's, and past them all."""
    cdef uint64_t bits = 0
    cdef size_t i
    if s.left < n + 1:
        missing(L)
    for i in range(n):
        bits = bits << 8 | s.at[1 + i]
    s.at += n + 1
    s.left -= n + 1
    return bits


cdef void take_string(lua_State* L, Source* s, size_t n) noexcept nogil:
    if s.left < n:
        missing(L)
    api.pushlstring(L, <const char*>s.at, n)
    s.at += n
    s.left -= n


cdef void take_array(lua_State* L, Source* s, uint64_t n, int depth) noexcept nogil:
    cdef uint64_t i
    api.createtable(L, 0, 0)
    api.checkstack_or_raise(L, 4, b"in function mp_decode_to_lua_array")
    for i in range(1, n + 1):
        take_value(L, s, depth)
        api.rawseti(L, -2, <int>i)


cdef void take_map(lua_State* L, Source* s, uint64_t n, int depth) noexcept nogil:
    cdef uint64_t i
    cdef double key
    api.createtable(L, 0, 0)
    api.checkstack_or_raise(L, 4, b"in function mp_decode_to_lua_hash")
    for i in range(n):
        take_value(L, s, depth)
        key = api.tonumber(L, -1) if is_type(L, -1, LUA_TNUMBER) else 0
        if is_type(L, -1, LUA_TNIL) or key != key:
            raise_text(L, b"Bad data format in input.")
        take_value(L, s, depth)
        api.rawset(L, -3)


cdef void take_value(lua_State* L, Source* s, int depth) noexcept nogil:
    cdef uint8_t kind
    cdef uint64_t bits
    cdef uint32_t narrow
    cdef float single
    cdef double number
    tick(L)
    if s.left == 0:
        missing(L)
    if depth > DEPTH_MAX:
        raise_text(L, b"too many nested values in input.")
    kind = s.at[0]
    if kind < 0x80:
        take(L, s, 0)
        api.pushnumber(L, kind)
    elif kind >= 0xE0:
        take(L, s, 0)
        api.pushnumber(L, <int>kind - 256)
    elif kind <= 0x8F:
        take(L, s, 0)
        take_map(L, s, kind & 15, depth + 1)
    elif kind <= 0x9F:
        take(L, s, 0)
        take_array(L, s, kind & 15, depth + 1)
    elif kind <= 0xBF:
        take(L, s, 0)
        take_string(L, s, kind & 31)
    elif kind == 0xC0:
        take(L, s, 0)
        api.pushnil(L)
    elif kind == 0xC2 or kind == 0xC3:
        take(L, s, 0)
        api.pushboolean(L, kind & 1)
    elif kind == 0xCA:
        narrow = <uint32_t>take(L, s, 4)
        memcpy(&single, &narrow, 4)
        api.pushnumber(L, single)
    elif kind == 0xCB:
        bits = take(L, s, 8)
        memcpy(&number, &bits, 8)
        api.pushnumber(L, number)
    elif 0xCC <= kind <= 0xCF:
        api.pushnumber(L, <double>take(L, s, <size_t>1 << (kind - 0xCC)))
    elif kind == 0xD0:
        api.pushnumber(L, <double><signed char>take(L, s, 1))
    elif kind == 0xD1:
        api.pushnumber(L, <double><short>take(L, s, 2))
    elif kind == 0xD2:
        api.pushnumber(L, <double><int>take(L, s, 4))
    elif kind == 0xD3:
        api.pushnumber(L, <double><int64_t>take(L, s, 8))
    elif 0xD9 <= kind <= 0xDB:
        bits = take(L, s, <size_t>1 << (kind - 0xD9))
        take_string(L, s, bits)
    elif kind == 0xDC or kind == 0xDD:
        bits = take(L, s, 2 if kind == 0xDC else 4)
        take_array(L, s, bits, depth + 1)
    elif kind == 0xDE or kind == 0xDF:
        bits = take(L, s, 2 if kind == 0xDE else 4)
        take_map(L, s, bits, depth + 1)
    else:
        raise_text(L, b"Bad data format in input.")


cdef int unpack(lua_State* L, double limit, double offset, bint tells) noexcept nogil:
    """`limit` values (0: all) from `offset`; before them, if asked, where the next one begins (-1: at the end)."""
    cdef size_t n = 0
    cdef const char* data = api.checklstring(L, 1, &n)
    cdef char text[ERROR_MAX]
    cdef Source s
    cdef int values = 0
    if not offset >= 0 or not limit >= 0:
        snprintf(text, ERROR_MAX, b"Invalid request to unpack with offset of %.0f and limit of %.0f.", offset, <double>n)
        return raise_text(L, text)
    if offset > n:
        snprintf(text, ERROR_MAX, b"Start offset %.0f greater than input length %.0f.", offset, <double>n)
        return raise_text(L, text)
    if tells:
        api.pushnil(L)  # its place
    s.at, s.left = <const uint8_t*>data + <size_t>offset, n - <size_t>offset
    while s.left and (limit == 0 or values < limit):
        api.checkstack_or_raise(L, 4, b"too many values to unpack")
        take_value(L, &s, 0)
        values += 1
    if tells:
        api.pushnumber(L, -1 if s.left == 0 else <double>(n - s.left))
        api.replace(L, -values - 2)
        return values + 1
    return values


cdef int msgpack_unpack(lua_State* L) noexcept nogil:
    api.settop(L, 1)
    return unpack(L, 0, 0, False)


cdef double optional(lua_State* L, int at) noexcept nogil:
    cdef double value = api.checknumber(L, at) if api.type(L, at) > LUA_TNIL else 0
    return <double><int64_t>value if -1e15 < value < 1e15 else -1


cdef int msgpack_unpack_one(lua_State* L) noexcept nogil:
    cdef double offset = optional(L, 2)
    api.settop(L, 1)
    return unpack(L, 1, offset, True)


cdef int msgpack_unpack_limit(lua_State* L) noexcept nogil:
    cdef double limit = optional(L, 2)
    cdef double offset = optional(L, 3)
    api.settop(L, 1)
    return unpack(L, limit, offset, True)


cdef void open_cmsgpack(lua_State* L) noexcept nogil:
    api.createtable(L, 0, 8)
    set_function(L, b"pack", msgpack_pack)
    set_function(L, b"unpack", msgpack_unpack)
    set_function(L, b"unpack_one", msgpack_unpack_one)
    set_function(L, b"unpack_limit", msgpack_unpack_limit)
    push_text(L, b"cmsgpack")
    api.setfield(L, -2, b"_NAME")
    push_text(L, b"lua-cmsgpack 0.4.0")
    api.setfield(L, -2, b"_VERSION")
