"""The library `cjson`: JSON text and Lua values.

Both directions walk without recursion on the C stack beyond DEPTH_LIMIT levels, which `encode_max_depth` and
`decode_max_depth` can only lower. A table with positive whole keys only is an array, unless it is too sparse: more
than `ratio` times as long as it has elements, and longer than `safe`.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport strtod
from libc.string cimport memcmp, memcpy, strcmp
from zeekdb.hot.lua_api cimport (
    LUA_TBOOLEAN, LUA_TLIGHTUSERDATA, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE, api, is_type, lua_State, pop,
    push_text, raise_text, set_function,
)
from zeekdb.hot.lua_guard cimport look, tick
from zeekdb.hot.lua_text cimport Text, add, add_byte, begin_text, reserve

cdef enum:
    DEPTH_LIMIT = 1000
    ERROR_MAX = 160

# What encode_* and decode_* set. Shared by all scripts, as in Redis.
ctypedef struct Settings:
    int encode_depth
    int decode_depth
    int precision
    bint sparse_convert
    int sparse_ratio
    int sparse_safe
    int encode_invalid       # 0 refuse, 1 write, 2 write null
    bint decode_invalid
    bint keep_buffer

cdef Settings S

# ---------------------------------------------------------------- encoding


cdef void add_string(lua_State* L, Text* t, int at) noexcept nogil:
    cdef size_t n = 0, i
    cdef const uint8_t* p = <const uint8_t*>api.tolstring(L, at, &n)
    cdef const char* digits = b"0123456789abcdef"
    cdef char* out
    cdef uint8_t c
    reserve(L, t, n * 6 + 2)
    out = t.data + t.size
    out[0] = 34
    out += 1
    for i in range(n):
        c = p[i]
        if c == 34 or c == 92 or c == 47:
            out[0], out[1] = 92, <char>c
            out += 2
        elif c >= 32 and c != 127:
            out[0] = <char>c
            out += 1
        else:
            out[0] = 92
            if c == 8:
                out[1] = 98
            elif c == 9:
                out[1] = 116
            elif c == 10:
                out[1] = 110
            elif c == 12:
                out[1] = 102
            elif c == 13:
                out[1] = 114
            else:
                memcpy(out + 1, b"u00", 3)
                out[4], out[5] = digits[c >> 4], digits[c & 15]
                out += 4
            out += 2
    out[0] = 34
    t.size = out + 1 - t.data


cdef int cannot(lua_State* L, const char* kind, const char* why) noexcept nogil:
    api.where(L, 1)
    push_text(L, b"Cannot serialise ")
    push_text(L, kind)
    push_text(L, b": ")
    push_text(L, why)
    api.concat(L, 5)
    return api.error(L)


cdef int add_number(lua_State* L, Text* t, int at) noexcept nogil:
    cdef double number = api.tonumber(L, at)
    cdef int n
    if number != number or number - number != 0:  # NaN or infinite
        if S.encode_invalid == 0:
            return cannot(L, b"number", b"must not be NaN or Inf")
        if S.encode_invalid == 2:
            add(L, t, b"null", 4)
            return 0
        if number != number:
            add(L, t, b"nan", 3)
        elif number > 0:
            add(L, t, b"inf", 3)
        else:
            add(L, t, b"-inf", 4)
        return 0
    reserve(L, t, 48)
    n = snprintf(t.data + t.size, 48, b"%.*g", S.precision, number)
    t.size += n
    return 0


cdef int64_t array_length(lua_State* L, bint* raised) noexcept nogil:
    """How long the table on top is as an array; -1: it is an object."""
    cdef int64_t most = 0, items = 0
    cdef double key
    raised[0] = False
    api.pushnil(L)
    while api.next(L, -2):
        if is_type(L, -2, LUA_TNUMBER):
            key = api.tonumber(L, -2)
            if key >= 1 and key == <double><int64_t>key and key < 2e9:
                if key > most:
                    most = <int64_t>key
                items += 1
                pop(L, 1)
                continue
        pop(L, 2)
        return -1
    if S.sparse_ratio > 0 and most > items * S.sparse_ratio and most > S.sparse_safe:
        if not S.sparse_convert:
            raised[0] = True
        return -1
    return most if items else -1


cdef int add_value(lua_State* L, Text* t, int depth) noexcept nogil:
    """The value on top of the stack, which stays."""
    cdef int type = api.type(L, -1)
    if type == LUA_TSTRING:
        add_string(L, t, -1)
    elif type == LUA_TNUMBER:
        return add_number(L, t, -1)
    elif type == LUA_TBOOLEAN:
        if api.toboolean(L, -1):
            add(L, t, b"true", 4)
        else:
            add(L, t, b"false", 5)
    elif type == LUA_TNIL or (type == LUA_TLIGHTUSERDATA and api.touserdata(L, -1) == NULL):
        add(L, t, b"null", 4)
    elif type == LUA_TTABLE:
        return add_table(L, t, depth + 1)
    else:
        return cannot(L, b"userdata" if type == 7 or type == LUA_TLIGHTUSERDATA else
                      (b"thread" if type == 8 else b"function"), b"type not supported")
    return 0


cdef int add_table(lua_State* L, Text* t, int depth) noexcept nogil:
    cdef bint sparse
    cdef int64_t length, i
    cdef int type
    cdef bint first = True
    if depth > S.encode_depth or not api.checkstack(L, 6):
        return cannot_depth(L, depth)
    look(L)  # to find its length may take long, and it can be found often in the same text
    length = array_length(L, &sparse)
    if sparse:
        return cannot(L, b"table", b"excessively sparse array")
    if length >= 0:
        add_byte(L, t, 91)
        for i in range(1, length + 1):
            tick(L)
            if i > 1:
                add_byte(L, t, 44)
            api.rawgeti(L, -1, <int>i)
            add_value(L, t, depth)
            pop(L, 1)
        add_byte(L, t, 93)
        return 0
    add_byte(L, t, 123)
    api.pushnil(L)
    while api.next(L, -2):
        if not first:
            add_byte(L, t, 44)
        first = False
        type = api.type(L, -2)
        if type == LUA_TNUMBER:
            add_byte(L, t, 34)
            add_number(L, t, -2)
            add_byte(L, t, 34)
        elif type == LUA_TSTRING:
            add_string(L, t, -2)
        else:
            return cannot(L, b"table", b"table key must be a number or string")
        add_byte(L, t, 58)
        add_value(L, t, depth)
        pop(L, 1)
    add_byte(L, t, 125)
    return 0


cdef int cannot_depth(lua_State* L, int depth) noexcept nogil:
    cdef char text[ERROR_MAX]
    snprintf(text, ERROR_MAX, b"Cannot serialise, excessive depth (%d)", depth)
    return raise_text(L, text)


cdef int json_encode(lua_State* L) noexcept nogil:
    cdef Text t
    if api.gettop(L) != 1:
        return api.argerror(L, 1, b"expected 1 argument")
    begin_text(L, &t)
    api.pushvalue(L, 1)
    add_value(L, &t, 0)
    api.pushlstring(L, t.data, t.size)
    return 1


# ---------------------------------------------------------------- decoding

ctypedef struct Source:
    const char* begin
    const char* at
    const char* end
    char* room               # for strings with escapes; as long as the source


cdef inline void skip_space(Source* s) noexcept nogil:
    while s.at < s.end and s.at[0] in (32, 9, 10, 13):
        s.at += 1


cdef const char* token_name(Source* s) noexcept nogil:
    """What stands next, in cjson's words."""
    cdef char c
    if s.at >= s.end:
        return b"T_END"
    c = s.at[0]
    if c == 123:
        return b"T_OBJ_BEGIN"
    if c == 125:
        return b"T_OBJ_END"
    if c == 91:
        return b"T_ARR_BEGIN"
    if c == 93:
        return b"T_ARR_END"
    if c == 34:
        return b"T_STRING"
    if c == 58:
        return b"T_COLON"
    if c == 44:
        return b"T_COMMA"
    if c == 45 or 48 <= c <= 57:
        return b"T_NUMBER"
    if s.end - s.at >= 4 and memcmp(s.at, b"null", 4) == 0:
        return b"T_NULL"
    if s.end - s.at >= 4 and memcmp(s.at, b"true", 4) == 0:
        return b"T_BOOLEAN"
    if s.end - s.at >= 5 and memcmp(s.at, b"false", 5) == 0:
        return b"T_BOOLEAN"
    return b"invalid token"


cdef int expected(lua_State* L, Source* s, const char* what) noexcept nogil:
    cdef char text[ERROR_MAX]
    snprintf(text, ERROR_MAX, b"Expected %s but found %s at character %ld", what, token_name(s),
             <long>(s.at - s.begin) + 1)
    return raise_text(L, text)


cdef int too_deep(lua_State* L, Source* s, int depth) noexcept nogil:
    cdef char text[ERROR_MAX]
    snprintf(text, ERROR_MAX, b"Found too many nested data structures (%d)", depth)
    return raise_text(L, text)


cdef int hex_digits(const char* p) noexcept nogil:
    """Four of them, -1 when they are none."""
    cdef int value = 0, i
    cdef char c
    for i in range(4):
        c = p[i]
        if 48 <= c <= 57:
            value = value * 16 + c - 48
        elif 97 <= (c | 32) <= 102:
            value = value * 16 + (c | 32) - 87
        else:
            return -1
    return value


cdef char* put_utf8(char* out, uint32_t point) noexcept nogil:
    if point < 0x80:
        out[0] = <char>point
        return out + 1
    if point < 0x800:
        out[0] = <char>(0xC0 | point >> 6)
        out[1] = <char>(0x80 | point & 63)
        return out + 2
    if point < 0x10000:
        out[0] = <char>(0xE0 | point >> 12)
        out[1] = <char>(0x80 | point >> 6 & 63)
        out[2] = <char>(0x80 | point & 63)
        return out + 3
    out[0] = <char>(0xF0 | point >> 18)
    out[1] = <char>(0x80 | point >> 12 & 63)
    out[2] = <char>(0x80 | point >> 6 & 63)
    out[3] = <char>(0x80 | point & 63)
    return out + 4


cdef char* put_unicode(Source* s, char* out) noexcept nogil:
    r"""`\uXXXX`, perhaps a pair of them; NULL when it is malformed. s.at stands behind the u."""
    cdef int high, low
    if s.end - s.at < 4:
        return NULL
    high = hex_digits(s.at)
    if high < 0:
        return NULL
    s.at += 4
    if 0xDC00 <= high <= 0xDFFF:
        return NULL
    if 0xD800 <= high <= 0xDBFF:
        if s.end - s.at < 6 or s.at[0] != 92 or s.at[1] != 117:
            return NULL
        low = hex_digits(s.at + 2)
        if not 0xDC00 <= low <= 0xDFFF:
            return NULL
        s.at += 6
        return put_utf8(out, <uint32_t>(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)))
    return put_utf8(out, <uint32_t>high)


cdef int bad_string(lua_State* L, Source* s, const char* begin, const char* what) noexcept nogil:
    cdef char text[ERROR_MAX]
    snprintf(text, ERROR_MAX, b"Expected value but found %s at character %ld", what, <long>(begin - s.begin) + 1)
    return raise_text(L, text)


cdef int read_string(lua_State* L, Source* s) noexcept nogil:
    """The string that begins at s.at, onto the stack."""
    cdef const char* begin = s.at
    cdef char* out = s.room
    cdef char c
    s.at += 1
    while True:
        if s.at >= s.end:
            return bad_string(L, s, s.end, b"unexpected end of string")
        c = s.at[0]
        s.at += 1
        if c == 34:
            break
        if c != 92:
            out[0] = c
            out += 1
            continue
        if s.at >= s.end:
            return bad_string(L, s, s.end, b"unexpected end of string")
        c = s.at[0]
        s.at += 1
        if c == 117:
            out = put_unicode(s, out)
            if out == NULL:
                return bad_string(L, s, s.at - 2, b"invalid unicode escape code")
            continue
        if c == 98:
            c = 8
        elif c == 102:
            c = 12
        elif c == 110:
            c = 10
        elif c == 114:
            c = 13
        elif c == 116:
            c = 9
        elif c != 34 and c != 92 and c != 47:
            return bad_string(L, s, s.at - 2, b"invalid escape code")
        out[0] = c
        out += 1
    api.pushlstring(L, s.room, out - s.room)
    return 0


cdef bint is_odd_number(Source* s) noexcept nogil:
    """What strtod takes and JSON does not: hexadecimal, leading zeros, infinities."""
    cdef const char* p = s.at
    if p < s.end and (p[0] == 45 or p[0] == 43):
        p += 1
    if p >= s.end:
        return True
    if p[0] == 48:
        return p + 1 < s.end and (p[1] in (120, 88) or 48 <= p[1] <= 57)
    return not 49 <= p[0] <= 57


cdef int read_number(lua_State* L, Source* s) noexcept nogil:
    cdef char* end
    cdef double value
    if is_odd_number(s) and not S.decode_invalid:
        return bad_string(L, s, s.at, b"invalid number")
    value = strtod(s.at, &end)  # Lua's strings end with a zero
    if end == s.at:
        return bad_string(L, s, s.at, b"invalid number")
    s.at = end
    api.pushnumber(L, value)
    return 0


cdef int read_value(lua_State* L, Source* s, int depth) noexcept nogil:
    cdef char c
    tick(L)
    skip_space(s)
    if s.at >= s.end:
        return expected(L, s, b"value")
    c = s.at[0]
    if c == 34:
        return read_string(L, s)
    if c == 123:
        return read_object(L, s, depth + 1)
    if c == 91:
        return read_array(L, s, depth + 1)
    if s.end - s.at >= 4 and memcmp(s.at, b"true", 4) == 0:
        s.at += 4
        api.pushboolean(L, 1)
        return 0
    if s.end - s.at >= 5 and memcmp(s.at, b"false", 5) == 0:
        s.at += 5
        api.pushboolean(L, 0)
        return 0
    if s.end - s.at >= 4 and memcmp(s.at, b"null", 4) == 0:
        s.at += 4
        api.pushlightuserdata(L, NULL)
        return 0
    if c == 45 or 48 <= c <= 57 or (S.decode_invalid and c in (43, 105, 73, 110, 78)):
        return read_number(L, s)
    return expected(L, s, b"value")


cdef int read_object(lua_State* L, Source* s, int depth) noexcept nogil:
    if depth > S.decode_depth or not api.checkstack(L, 6):
        return too_deep(L, s, depth)
    api.createtable(L, 0, 0)
    s.at += 1
    skip_space(s)
    if s.at < s.end and s.at[0] == 125:
        s.at += 1
        return 0
    while True:
        skip_space(s)
        if s.at >= s.end or s.at[0] != 34:
            return expected(L, s, b"object key string")
        read_string(L, s)
        skip_space(s)
        if s.at >= s.end or s.at[0] != 58:
            return expected(L, s, b"colon")
        s.at += 1
        read_value(L, s, depth)
        api.rawset(L, -3)
        skip_space(s)
        if s.at < s.end and s.at[0] == 125:
            s.at += 1
            return 0
        if s.at >= s.end or s.at[0] != 44:
            return expected(L, s, b"comma or object end")
        s.at += 1


cdef int read_array(lua_State* L, Source* s, int depth) noexcept nogil:
    cdef int i = 0
    if depth > S.decode_depth or not api.checkstack(L, 6):
        return too_deep(L, s, depth)
    api.createtable(L, 0, 0)
    s.at += 1
    skip_space(s)
    if s.at < s.end and s.at[0] == 93:
        s.at += 1
        return 0
    while True:
        i += 1
        read_value(L, s, depth)
        api.rawseti(L, -2, i)
        skip_space(s)
        if s.at < s.end and s.at[0] == 93:
            s.at += 1
            return 0
        if s.at >= s.end or s.at[0] != 44:
            return expected(L, s, b"comma or array end")
        s.at += 1


cdef int json_decode(lua_State* L) noexcept nogil:
    cdef Source s
    cdef size_t n = 0
    if api.gettop(L) != 1:
        return api.argerror(L, 1, b"expected 1 argument")
    s.begin = s.at = api.checklstring(L, 1, &n)
    s.end = s.begin + n
    if n >= 2 and (s.begin[0] == 0 or s.begin[1] == 0):
        return raise_text(L, b"JSON parser does not support UTF-16 or UTF-32")
    s.room = <char*>api.newuserdata(L, n + 8)
    read_value(L, &s, 0)
    skip_space(&s)
    if s.at < s.end:
        return expected(L, &s, b"the end")
    return 1


# ---------------------------------------------------------------- settings


cdef int whole_setting(lua_State* L, int at, int low, int high, int* value) noexcept nogil:
    cdef double number
    cdef char text[ERROR_MAX]
    if api.type(L, at) > LUA_TNIL:
        number = api.checknumber(L, at)
        if not low <= number <= high:
            snprintf(text, ERROR_MAX, b"expected integer between %d and %d", low, high)
            return api.argerror(L, at, text)
        value[0] = <int>number
    return 0


cdef bint flag_setting(lua_State* L, int at, bint value) noexcept nogil:
    return api.toboolean(L, at) if api.type(L, at) > LUA_TNIL else value


cdef int json_encode_max_depth(lua_State* L) noexcept nogil:
    whole_setting(L, 1, 1, DEPTH_LIMIT, &S.encode_depth)
    api.pushnumber(L, S.encode_depth)
    return 1


cdef int json_decode_max_depth(lua_State* L) noexcept nogil:
    whole_setting(L, 1, 1, DEPTH_LIMIT, &S.decode_depth)
    api.pushnumber(L, S.decode_depth)
    return 1


cdef int json_encode_number_precision(lua_State* L) noexcept nogil:
    whole_setting(L, 1, 1, 16, &S.precision)
    api.pushnumber(L, S.precision)
    return 1


cdef int json_encode_keep_buffer(lua_State* L) noexcept nogil:
    S.keep_buffer = flag_setting(L, 1, S.keep_buffer)
    api.pushboolean(L, S.keep_buffer)
    return 1


cdef int json_encode_sparse_array(lua_State* L) noexcept nogil:
    S.sparse_convert = flag_setting(L, 1, S.sparse_convert)
    whole_setting(L, 2, 0, 2147483647, &S.sparse_ratio)
    whole_setting(L, 3, 0, 2147483647, &S.sparse_safe)
    api.pushboolean(L, S.sparse_convert)
    api.pushnumber(L, S.sparse_ratio)
    api.pushnumber(L, S.sparse_safe)
    return 3


cdef int json_encode_invalid_numbers(lua_State* L) noexcept nogil:
    cdef const char* word
    if is_type(L, 1, LUA_TSTRING):
        word = api.tolstring(L, 1, NULL)
        if strcmp(word, b"null") == 0:
            S.encode_invalid = 2
        elif strcmp(word, b"on") == 0:
            S.encode_invalid = 1
        elif strcmp(word, b"off") == 0:
            S.encode_invalid = 0
        else:
            return api.argerror(L, 1, b"invalid option")
    elif api.type(L, 1) > LUA_TNIL:
        S.encode_invalid = api.toboolean(L, 1)
    if S.encode_invalid == 2:
        push_text(L, b"null")
    else:
        api.pushboolean(L, S.encode_invalid)
    return 1


cdef int json_decode_invalid_numbers(lua_State* L) noexcept nogil:
    S.decode_invalid = flag_setting(L, 1, S.decode_invalid)
    api.pushboolean(L, S.decode_invalid)
    return 1


cdef int json_new(lua_State* L) noexcept nogil:
    open_cjson(L)
    return 1


cdef void open_cjson(lua_State* L) noexcept nogil:
    S.encode_depth = S.decode_depth = DEPTH_LIMIT
    S.precision = 14
    S.sparse_convert, S.sparse_ratio, S.sparse_safe = False, 2, 10
    S.encode_invalid, S.decode_invalid, S.keep_buffer = 0, True, True
    api.createtable(L, 0, 16)
    set_function(L, b"encode", json_encode)
    set_function(L, b"decode", json_decode)
    set_function(L, b"encode_sparse_array", json_encode_sparse_array)
    set_function(L, b"encode_max_depth", json_encode_max_depth)
    set_function(L, b"decode_max_depth", json_decode_max_depth)
    set_function(L, b"encode_number_precision", json_encode_number_precision)
    set_function(L, b"encode_keep_buffer", json_encode_keep_buffer)
    set_function(L, b"encode_invalid_numbers", json_encode_invalid_numbers)
    set_function(L, b"decode_invalid_numbers", json_decode_invalid_numbers)
    set_function(L, b"new", json_new)
    api.pushlightuserdata(L, NULL)
    api.setfield(L, -2, b"null")
    push_text(L, b"cjson")
    api.setfield(L, -2, b"_NAME")
    push_text(L, b"2.1.0")
    api.setfield(L, -2, b"_VERSION")
