"""The library `struct`: values as bytes in a layout that a format string describes.

`<` `>` little or big endian, `!n` alignment; `b` `B` `h` `H` `i` `I` `l` `L` `T` and `iN` integers, `f` `d`
floats, `x` a byte of nothing, `cN` exactly N characters (`c0`: as many as the number read before says, or the whole
string), `s` up to a zero.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcpy, memset
from zeekdb.hot.lua_api cimport (
    LUA_TNUMBER, api, is_type, lua_State, pop, push_text, raise_text, set_function,
)

cdef extern from "<ctype.h>" nogil:
    int isalnum(int c)

cdef enum:
    INTEGER_MAX = 32         # bytes
    ALIGN_MAX = 8

ctypedef struct Layout:
    const char* format
    bint little
    size_t align


cdef inline bint is_digit(char c) noexcept nogil:
    return 48 <= c <= 57


cdef size_t number(Layout* layout, size_t otherwise) noexcept nogil:
    """The digits that come next, bounded."""
    cdef size_t n = 0
    if not is_digit(layout.format[0]):
        return otherwise
    while is_digit(layout.format[0]):
        if n < 100000000:
            n = n * 10 + <size_t>(layout.format[0] - 48)
        layout.format += 1
    return n


# What an option stands for; size -1: an error has to be raised (bad integer size).
cdef size_t option_size(Layout* layout, char option, bint* bad) noexcept nogil:
    cdef size_t n
    bad[0] = False
    if option in (98, 66, 120):      # b B x
        return 1
    if option in (104, 72):          # h H
        return 2
    if option in (108, 76, 84):      # l L T
        return 8
    if option == 102:                # f
        return 4
    if option == 100:                # d
        return 8
    if option == 99:                 # c
        return number(layout, 1)
    if option in (105, 73):          # i I
        n = number(layout, 4)
        bad[0] = n > INTEGER_MAX
        return n
    return 0


cdef inline bint is_integer(char option) noexcept nogil:
    return option in (98, 66, 104, 72, 108, 76, 84, 105, 73)


cdef inline bint is_signed(char option) noexcept nogil:
    return option in (98, 104, 108, 105)


cdef size_t padding(Layout* layout, char option, size_t size, size_t at) noexcept nogil:
    if size == 0 or option == 99 or option == 120 or option == 115:
        return 0
    if size > layout.align:
        size = layout.align
    return (size - (at & (size - 1))) & (size - 1) if size > 1 else 0


cdef bint control(lua_State* L, Layout* layout, char option, int* raised) noexcept nogil:
    """Whether the option says how to read the others."""
    cdef size_t n
    if option == 32:
        return True
    if option == 60:
        layout.little = True
    elif option == 62:
        layout.little = False
    elif option == 33:
        n = number(layout, ALIGN_MAX)
        if n == 0 or n & (n - 1):
            raised[0] = raise_text(L, b"alignment is not a power of 2")
        layout.align = n
    else:
        return False
    return True


cdef uint64_t as_bits(double value) noexcept nogil:
    if value < 0:
        return <uint64_t><int64_t>value if value >= -9223372036854775808.0 else <uint64_t>1 << 63
    return <uint64_t>value if value < 18446744073709551616.0 else <uint64_t>-1


cdef void write_integer(uint8_t* at, uint64_t bits, size_t size, bint negative, bint little) noexcept nogil:
    cdef size_t i
    cdef uint8_t byte
    for i in range(size):
        byte = <uint8_t>(bits >> (8 * i)) if i < 8 else (0xFF if negative else 0)
        at[i if little else size - 1 - i] = byte


cdef double read_integer(const uint8_t* at, size_t size, bint signed_, bint little) noexcept nogil:
    cdef uint64_t bits = 0
    cdef size_t i, used = size if size < 8 else 8
    for i in range(used):
        bits |= <uint64_t>at[i if little else size - 1 - i] << (8 * i)
    if not signed_:
        return <double>bits
    if 0 < used < 8 and bits >> (8 * used - 1) & 1:
        bits |= <uint64_t>-1 << (8 * used)
    return <double><int64_t>bits


cdef void write_float(uint8_t* at, double value, size_t size, bint little) noexcept nogil:
    cdef uint8_t bytes[8]
    cdef float single = <float>value
    cdef size_t i
    if size == 4:
        memcpy(bytes, &single, 4)
    else:
        memcpy(bytes, &value, 8)
    for i in range(size):
        at[i if little else size - 1 - i] = bytes[i]


cdef double read_float(const uint8_t* at, size_t size, bint little) noexcept nogil:
    cdef uint8_t bytes[8]
    cdef float single
    cdef double value
    cdef size_t i
    for i in range(size):
        bytes[i] = at[i if little else size - 1 - i]
    if size == 4:
        memcpy(&single, bytes, 4)
        return single
    memcpy(&value, bytes, 8)
    return value


cdef int invalid_option(lua_State* L, char option) noexcept nogil:
    cdef char text[40]
    snprintf(text, sizeof(text), b"invalid format option '%c'", option)
    return api.argerror(L, 1, text)


cdef int too_wide(lua_State* L, size_t size) noexcept nogil:
    cdef char text[80]
    snprintf(text, sizeof(text), b"integral size %d is larger than limit of %d", <int>size, INTEGER_MAX)
    return raise_text(L, text)


cdef int lay_out(lua_State* L, uint8_t* out, size_t* total) noexcept nogil:
    """Writes the values to `out`, or only counts their bytes where it is NULL. Below 0: an error was raised."""
    cdef Layout layout
    cdef char option
    cdef size_t size, n = 0, gap, at = 0
    cdef double value
    cdef bint bad
    cdef int arg = 2, raised = 0
    cdef const char* text
    layout.format, layout.little, layout.align = api.checklstring(L, 1, NULL), True, 1
    while layout.format[0]:
        option = layout.format[0]
        layout.format += 1
        if control(L, &layout, option, &raised):
            if raised:
                return raised
            continue
        size = option_size(&layout, option, &bad)
        if bad:
            return too_wide(L, size)
        gap = padding(&layout, option, size, at)
        if out != NULL:
            memset(out + at, 0, gap)
        at += gap
        if is_integer(option):
            value = api.checknumber(L, arg)
            if out != NULL:
                write_integer(out + at, as_bits(value), size, value < 0, layout.little)
        elif option == 102 or option == 100:
            value = api.checknumber(L, arg)
            if out != NULL:
                write_float(out + at, value, size, layout.little)
        elif option == 120:
            arg -= 1
            if out != NULL:
                out[at] = 0
        elif option == 99 or option == 115:
            text = api.checklstring(L, arg, &n)
            if option == 115 or size == 0:
                size = n
            if n < size:
                return api.argerror(L, arg + 1, b"string too short")  # Redis's counts so
            if out != NULL:
                memcpy(out + at, text, size)
            if option == 115:
                if out != NULL:
                    out[at + size] = 0
                size += 1
        else:
            return invalid_option(L, option)
        arg += 1
        at += size
    total[0] = at
    return 0


cdef int struct_pack(lua_State* L) noexcept nogil:
    cdef size_t total = 0
    cdef uint8_t* out
    cdef int values = api.gettop(L)
    api.checklstring(L, 1, NULL)
    api.pushnil(L)  # behind the values: what is missing is no number and no string
    lay_out(L, NULL, &total)
    out = <uint8_t*>api.newuserdata(L, total + 1)
    api.insert(L, values + 2)
    lay_out(L, out, &total)
    api.pushlstring(L, <const char*>out, total)
    return 1


cdef int struct_unpack(lua_State* L) noexcept nogil:
    cdef Layout layout
    cdef const uint8_t* data
    cdef const uint8_t* end
    cdef char option
    cdef size_t size, n = 0, at = 0
    cdef bint bad
    cdef int raised = 0, results = 0
    cdef double start
    layout.format, layout.little, layout.align = api.checklstring(L, 1, NULL), True, 1
    data = <const uint8_t*>api.checklstring(L, 2, &n)
    if api.type(L, 3) > 0:
        start = api.checknumber(L, 3)
        if -1 < start < 1:
            return api.argerror(L, 3, b"offset must be 1 or greater")
        at = <size_t>start - 1 if 1 <= start < 1e15 else <size_t>1 << 50  # as in Redis, below 0 is far behind the end
    api.settop(L, 2)
    while layout.format[0]:
        option = layout.format[0]
        layout.format += 1
        if control(L, &layout, option, &raised):
            if raised:
                return raised
            continue
        size = option_size(&layout, option, &bad)
        if bad:
            return too_wide(L, size)
        at += padding(&layout, option, size, at)
        if at > n or size > n - at:
            return api.argerror(L, 2, b"data string too short")
        api.checkstack_or_raise(L, 2, b"too many results")
        if is_integer(option):
            api.pushnumber(L, read_integer(data + at, size, is_signed(option), layout.little))
            results += 1
        elif option == 120:
            pass
        elif option == 102 or option == 100:
            api.pushnumber(L, read_float(data + at, size, layout.little))
            results += 1
        elif option == 99:
            if size == 0:
                if results == 0 or not is_type(L, -1, LUA_TNUMBER):
                    return raise_text(L, b"format 'c0' needs a previous size")
                start = api.tonumber(L, -1)
                if not 0 <= start <= <double>(n - at):
                    return api.argerror(L, 2, b"data string too short")
                size = <size_t>start
                pop(L, 1)
                results -= 1
            api.pushlstring(L, <const char*>data + at, size)
            results += 1
        elif option == 115:
            end = <const uint8_t*>memchr(data + at, 0, n - at)
            if end == NULL:
                return raise_text(L, b"unfinished string in data")
            size = end - (data + at) + 1
            api.pushlstring(L, <const char*>data + at, size - 1)
            results += 1
        else:
            return invalid_option(L, option)
        at += size
    api.pushnumber(L, <double>(at + 1))
    return results + 1


cdef int struct_size(lua_State* L) noexcept nogil:
    cdef Layout layout
    cdef char option
    cdef size_t size, total = 0
    cdef bint bad
    cdef int raised = 0
    layout.format, layout.little, layout.align = api.checklstring(L, 1, NULL), True, 1
    while layout.format[0]:
        option = layout.format[0]
        layout.format += 1
        if control(L, &layout, option, &raised):
            if raised:
                return raised
            continue
        size = option_size(&layout, option, &bad)
        if bad:
            return too_wide(L, size)
        if option == 115:
            return api.argerror(L, 1, b"option 's' has no fixed size")
        if option == 99 and size == 0:
            return api.argerror(L, 1, b"option 'c0' has no fixed size")
        if size == 0 and not isalnum(<unsigned char>option):
            return invalid_option(L, option)  # Redis's overlooks letters that mean nothing
        total += padding(&layout, option, size, total) + size
    api.pushnumber(L, <double>total)
    return 1


cdef void open_struct(lua_State* L) noexcept nogil:
    api.createtable(L, 0, 3)
    set_function(L, b"pack", struct_pack)
    set_function(L, b"unpack", struct_unpack)
    set_function(L, b"size", struct_size)
