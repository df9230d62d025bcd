"""The library `bit`: operations on 32 bits. Numbers are taken modulo 2^32, results are signed."""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.lua_api cimport api, lua_State, set_function

cdef enum:
    LOW_BITS = 6755399441055744  # 2**52 + 2**51: added to a double, it leaves the rounded number in the lowest bits


cdef inline uint32_t operand(lua_State* L, int at) noexcept nogil:
    cdef double number = api.checknumber(L, at) + <double>LOW_BITS
    cdef uint64_t bits
    memcpy(&bits, &number, 8)
    return <uint32_t>bits


cdef inline int give(lua_State* L, uint32_t bits) noexcept nogil:
    api.pushnumber(L, <double><int32_t>bits)
    return 1


cdef int bit_tobit(lua_State* L) noexcept nogil:
    return give(L, operand(L, 1))


cdef int bit_bnot(lua_State* L) noexcept nogil:
    return give(L, ~operand(L, 1))


cdef int bit_band(lua_State* L) noexcept nogil:
    cdef uint32_t bits = operand(L, 1)
    cdef int i
    for i in range(api.gettop(L), 1, -1):
        bits &= operand(L, i)
    return give(L, bits)


cdef int bit_bor(lua_State* L) noexcept nogil:
    cdef uint32_t bits = operand(L, 1)
    cdef int i
    for i in range(api.gettop(L), 1, -1):
        bits |= operand(L, i)
    return give(L, bits)


cdef int bit_bxor(lua_State* L) noexcept nogil:
    cdef uint32_t bits = operand(L, 1)
    cdef int i
    for i in range(api.gettop(L), 1, -1):
        bits ^= operand(L, i)
    return give(L, bits)


cdef int bit_lshift(lua_State* L) noexcept nogil:
    cdef uint32_t a = operand(L, 1)
    cdef uint32_t b = operand(L, 2)
    return give(L, a << (b & 31))


cdef int bit_rshift(lua_State* L) noexcept nogil:
    cdef uint32_t a = operand(L, 1)
    cdef uint32_t b = operand(L, 2)
    return give(L, a >> (b & 31))


cdef int bit_arshift(lua_State* L) noexcept nogil:
    cdef uint32_t a = operand(L, 1)
    cdef uint32_t b = operand(L, 2)
    return give(L, <uint32_t>(<int32_t>a >> (b & 31)))


cdef inline uint32_t rotate(uint32_t bits, uint32_t n) noexcept nogil:
    n &= 31
    return bits << n | bits >> (32 - n) if n else bits


cdef int bit_rol(lua_State* L) noexcept nogil:
    cdef uint32_t a = operand(L, 1)
    cdef uint32_t b = operand(L, 2)
    return give(L, rotate(a, b))


cdef int bit_ror(lua_State* L) noexcept nogil:
    cdef uint32_t a = operand(L, 1)
    cdef uint32_t b = operand(L, 2)
    return give(L, rotate(a, 32 - (b & 31)))


cdef int bit_bswap(lua_State* L) noexcept nogil:
    cdef uint32_t b = operand(L, 1)
    return give(L, b >> 24 | (b >> 8 & 0xFF00U) | (b & 0xFF00U) << 8 | b << 24)


cdef int bit_tohex(lua_State* L) noexcept nogil:
    """The last n digits, 8 unless told; upper case when n is negative."""
    cdef uint32_t bits = operand(L, 1)
    cdef int32_t n = 8
    cdef int32_t i
    cdef char text[8]
    cdef const char* digits = b"0123456789abcdef"
    if api.gettop(L) > 1:
        n = <int32_t>operand(L, 2)
    if n < 0:
        digits = b"0123456789ABCDEF"
        n = -n if n > -8 else 8
    if n > 8:
        n = 8
    for i in range(n - 1, -1, -1):
        text[i] = digits[bits & 15]
        bits >>= 4
    api.pushlstring(L, text, n)
    return 1


cdef void open_bit(lua_State* L) noexcept nogil:
    api.createtable(L, 0, 12)
    set_function(L, b"tobit", bit_tobit)
    set_function(L, b"bnot", bit_bnot)
    set_function(L, b"band", bit_band)
    set_function(L, b"bor", bit_bor)
    set_function(L, b"bxor", bit_bxor)
    set_function(L, b"lshift", bit_lshift)
    set_function(L, b"rshift", bit_rshift)
    set_function(L, b"arshift", bit_arshift)
    set_function(L, b"rol", bit_rol)
    set_function(L, b"ror", bit_ror)
    set_function(L, b"bswap", bit_bswap)
    set_function(L, b"tohex", bit_tohex)
