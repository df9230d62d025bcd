"""Replies to Lua values and Lua values to replies, by Redis's rules.

What a script gets of a command is what RESP would have carried, 2 by default and 3 after `redis.setresp(3)`: null is
false (nil in RESP3), a status {ok = …}, a map {map = …} only in RESP3. Back: a number loses its fraction, an array
ends at its first nil, and tables with certain fields are errors, statuses and the types of RESP3.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from zeekdb.hot.lua_api cimport (
    LUA_TBOOLEAN, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE, api, is_type, lua_State, pop, push_text,
)
from libc.stdint cimport uint8_t
from zeekdb.hot.wire cimport format_double

from zeekdb.errors import CommandError
from zeekdb.hot.replies import BigNumber, Error, NullArray, Pairs, Push, SpelledDouble, Verbatim

cdef enum:
    DEPTH_MAX = 500              # tables in tables of a reply
    REPLY_MAX = 1 << 29          # bytes of a reply; one table in many places would cost a script nothing
    VALUE_COST = 128             # bytes of one value, with its place in a list

cdef size_t TAKEN = 0            # bytes of the reply that is being taken


cdef bytes double_text(double value):
    cdef uint8_t text[40]
    cdef size_t n = format_double(text, value)
    return PyBytes_FromStringAndSize(<char*>text, n)


cdef inline void push_bytes(lua_State* L, bytes text) noexcept:
    api.pushlstring(L, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef void push_error(lua_State* L, bytes message) noexcept:
    api.createtable(L, 0, 4)
    push_bytes(L, message.replace(b"\r", b" ").replace(b"\n", b" "))
    api.setfield(L, -2, b"err")
    api.pushboolean(L, 1)
    api.setfield(L, -2, b"ignore_error_stats_update")


cdef int push_items(lua_State* L, object items, int protocol) except -1:
    cdef int i = 0
    api.createtable(L, len(items), 0)
    api.checkstack(L, 8)
    for item in items:
        i += 1
        push_reply(L, item, protocol)
        api.rawseti(L, -2, i)
    return 0


cdef int push_pairs(lua_State* L, object pairs, int protocol) except -1:
    cdef int i = 0
    if protocol == 3:
        api.createtable(L, 0, 1)
    api.createtable(L, 0, 0)
    for key, value in pairs:
        if protocol == 3:
            push_reply(L, key, protocol)
            push_reply(L, value, protocol)
            api.rawset(L, -3)
        else:
            push_reply(L, key, protocol)
            api.rawseti(L, -2, i + 1)
            push_reply(L, value, protocol)
            api.rawseti(L, -2, i + 2)
            i += 2
    if protocol == 3:
        api.setfield(L, -2, b"map")
    return 0


cdef int push_field(lua_State* L, const char* name, object value) except -1:
    """{name = value}"""
    api.createtable(L, 0, 1)
    if isinstance(value, float):
        api.pushnumber(L, value)
    else:
        push_bytes(L, value)
    api.setfield(L, -2, name)
    return 0


cdef int push_special(lua_State* L, object reply, int protocol) except -1:
    if isinstance(reply, (float, SpelledDouble)):
        text = reply.text if isinstance(reply, SpelledDouble) else double_text(reply)
        if protocol == 3:
            push_field(L, b"double", float(text))
        else:
            push_bytes(L, text)
    elif isinstance(reply, (set, frozenset)):
        if protocol == 3:
            api.createtable(L, 0, 1)
            api.createtable(L, 0, len(reply))
            for item in reply:
                push_reply(L, item, protocol)
                api.pushboolean(L, 1)
                api.rawset(L, -3)
            api.setfield(L, -2, b"set")
        else:
            push_items(L, reply, protocol)
    elif isinstance(reply, NullArray):
        push_reply(L, None, protocol)
    elif isinstance(reply, Pairs):
        push_pairs(L, reply.items, protocol)
    elif isinstance(reply, Push):
        push_items(L, reply.items, protocol)
    elif isinstance(reply, Verbatim):
        if protocol == 3:
            api.createtable(L, 0, 1)
            push_field(L, b"string", reply.data)
            push_bytes(L, reply.format.encode())
            api.setfield(L, -2, b"format")
            api.setfield(L, -2, b"verbatim_string")
        else:
            push_bytes(L, reply.data)
    elif isinstance(reply, (Error, CommandError)):
        push_error(L, reply.message.encode("utf-8", "surrogateescape"))
    elif isinstance(reply, BigNumber):
        text = str(reply.value).encode()
        if protocol == 3:
            push_field(L, b"big_number", text)
        else:
            push_bytes(L, text)
    elif isinstance(reply, (bytearray, memoryview)):
        push_bytes(L, bytes(reply))
    else:
        raise TypeError(f"a handler returned {type(reply).__name__}")
    return 0


cdef int push_reply(lua_State* L, object reply, int protocol) except -1:
    kind = type(reply)
    if kind is bytes:
        push_bytes(L, reply)
    elif kind is int:
        api.pushnumber(L, <double>reply)
    elif reply is None:
        if protocol == 3:
            api.pushnil(L)
        else:
            api.pushboolean(L, 0)
    elif kind is str:
        push_field(L, b"ok", (<str>reply).encode("utf-8", "surrogateescape"))
    elif kind is list or kind is tuple:
        api.checkstack(L, 8)
        push_items(L, reply, protocol)
    elif kind is bool:
        if protocol == 3:
            api.pushboolean(L, reply)
        else:
            api.pushnumber(L, 1 if reply else 0)
    elif isinstance(reply, dict):
        push_pairs(L, reply.items(), protocol)
    else:
        push_special(L, reply, protocol)
    return 0


# ---------------------------------------------------------------- back


cdef bytes text_at(lua_State* L, int at):
    cdef size_t n = 0
    cdef const char* text
    if not is_type(L, at, LUA_TSTRING) and not is_type(L, at, LUA_TNUMBER):
        return None
    text = api.tolstring(L, at, &n)
    return PyBytes_FromStringAndSize(text, n)


cdef object whole(double number):
    """As C casts to 64 bits on this kind of machine."""
    if not -9223372036854775808.0 <= number < 9223372036854775808.0:
        return -9223372036854775808
    return <long long>number


cdef bint field_is(lua_State* L, const char* name, int type) noexcept:
    """Leaves the field of the table on top on the stack, if it is of that type."""
    push_text(L, name)
    api.rawget(L, -2)
    if is_type(L, -1, type):
        return True
    pop(L, 1)
    return False


cdef bytes one_line(bytes text):
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


cdef object take_table(lua_State* L, int protocol, int depth):
    cdef int i = 0
    if field_is(L, b"err", LUA_TSTRING):
        text = text_at(L, -1).decode("utf-8", "surrogateescape")
        pop(L, 1)
        if field_is(L, b"ignore_error_stats_update", LUA_TBOOLEAN):
            pop(L, 1)
            return CountedError(text)
        return Error(text)
    if field_is(L, b"ok", LUA_TSTRING):
        status = one_line(text_at(L, -1)).decode("utf-8", "surrogateescape")
        pop(L, 1)
        return status
    if field_is(L, b"double", LUA_TNUMBER):
        number = api.tonumber(L, -1)
        pop(L, 1)
        return number
    if field_is(L, b"map", LUA_TTABLE):
        pairs = []
        api.pushnil(L)
        while api.next(L, -2):
            api.pushvalue(L, -2)
            key = take_value(L, protocol, depth + 1)
            pop(L, 1)
            pairs.append((key, take_value(L, protocol, depth + 1)))
            pop(L, 1)
        pop(L, 1)
        return Pairs(pairs)
    if field_is(L, b"set", LUA_TTABLE):
        members = []
        api.pushnil(L)
        while api.next(L, -2):
            pop(L, 1)
            api.pushvalue(L, -1)
            members.append(take_value(L, protocol, depth + 1))
            pop(L, 1)
        pop(L, 1)
        return Members(members)
    if field_is(L, b"big_number", LUA_TSTRING):
        digits = one_line(text_at(L, -1))
        pop(L, 1)
        return BigNumber(digits.decode("utf-8", "surrogateescape"))
    if field_is(L, b"verbatim_string", LUA_TTABLE):
        text = format = None
        if field_is(L, b"string", LUA_TSTRING):
            text = text_at(L, -1)
            pop(L, 1)
        if field_is(L, b"format", LUA_TSTRING):
            format = text_at(L, -1)
            pop(L, 1)
        pop(L, 1)
        if text is not None and format is not None:
            return Verbatim((format + b"   ")[:3].decode("latin-1"), text)
    items = []
    while True:
        i += 1
        api.rawgeti(L, -1, i)
        if is_type(L, -1, LUA_TNIL):
            pop(L, 1)
            return items
        items.append(take_value(L, protocol, depth + 1))
        pop(L, 1)


class CountedError(Error):
    """An error that a command has raised inside the script: it is counted already."""


class Members(frozenset):
    """A RESP3 set of whatever a script has put in."""

    def __new__(cls, items):
        made = super().__new__(cls)
        made.items = items
        return made

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return iter(self.items)


cdef object take_value(lua_State* L, int protocol, int depth):
    global TAKEN
    cdef int type = api.type(L, -1)
    TAKEN = (TAKEN if depth else 0) + VALUE_COST + (api.objlen(L, -1) if type == LUA_TSTRING else 0)
    if TAKEN > REPLY_MAX:
        raise CommandError("ERR the reply of a script is too large")
    if type == LUA_TSTRING:
        return text_at(L, -1)
    if type == LUA_TNUMBER:
        return whole(api.tonumber(L, -1))
    if type == LUA_TBOOLEAN:
        if protocol == 3:
            return bool(api.toboolean(L, -1))
        return 1 if api.toboolean(L, -1) else None
    if type == LUA_TTABLE:
        if depth >= DEPTH_MAX or not api.checkstack(L, 8):
            raise CommandError("ERR reached lua stack limit")
        return take_table(L, protocol, depth)
    return None
