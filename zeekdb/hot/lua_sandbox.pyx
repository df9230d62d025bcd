"""What scripts may touch: Redis's list of builtins, in tables that cannot be changed.

Plain Lua has no read-only tables. A protected table is an empty one whose metatable leads reads to the real table and
refuses writes; what goes past metatables (rawset, table.insert, next …) is replaced here by functions that ask first
whether the table is one of the few protected ones. No real table ever reaches a script, so nothing that one script
does is seen by the next.

Nothing that reads files, loads modules, or sees the interpreter's inside is there; `load` and `loadstring` take source
text only, since compiled code is not checked by Lua 5.1 and would be a way out. Patterns are bounded, because the
matcher recurses on the C stack once for every item.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from zeekdb.hot.lua_api cimport (
    LUA_GLOBALSINDEX, LUA_REGISTRYINDEX, LUA_TFUNCTION, LUA_TNIL, LUA_TSTRING, LUA_TTABLE, api, is_type,
    lua_CFunction, lua_State, pop, push_text, raise_text, set_function,
)

cdef enum:
    PROTECTED_MAX = 64          # tables per process: two interpreters of a dozen each
    PATTERN_MAX = 8192          # bytes of a pattern
    SOURCE_MAX = 16777216       # bytes of what `load` gathers
    RESULTS_MAX = 8000          # of unpack: what the stack of a C function holds

cdef const void* PROTECTED[PROTECTED_MAX]
cdef int PROTECTED_COUNT = 0

# The originals behind the bounded functions.
cdef lua_CFunction STRING_FIND, STRING_MATCH, STRING_GMATCH, STRING_GSUB
cdef lua_CFunction TABLE_INSERT, TABLE_REMOVE, TABLE_SORT, TABLE_SETN


cdef inline bint is_protected(lua_State* L, int at) noexcept nogil:
    cdef const void* table = api.topointer(L, at)
    cdef int i
    for i in range(PROTECTED_COUNT):
        if PROTECTED[i] == table:
            return True
    return False


cdef int refuse(lua_State* L) noexcept nogil:
    """__newindex of protected tables, and the end of everything else that would change one."""
    return raise_text(L, b"Attempt to modify a readonly table")


cdef int absent(lua_State* L) noexcept nogil:
    """__index of globals: there is none of that name."""
    api.where(L, 1)
    push_text(L, b"Script attempted to access nonexistent global variable '")
    if is_type(L, 2, LUA_TSTRING):
        api.pushvalue(L, 2)
    else:
        push_text(L, b"?")
    push_text(L, b"'")
    api.concat(L, 4)
    return api.error(L)


cdef void push_blank(lua_State* L) noexcept nogil:
    """What `getmetatable` shows of protected tables: an empty one, as closed as they are."""
    api.getfield(L, LUA_REGISTRYINDEX, b"zeekdb.blank")
    if not is_type(L, -1, LUA_TNIL):
        return
    pop(L, 1)
    api.createtable(L, 0, 0)
    api.createtable(L, 0, 2)
    set_function(L, b"__newindex", refuse)
    api.pushboolean(L, 0)
    api.setfield(L, -2, b"__metatable")
    api.setmetatable(L, -2)
    remember(L)
    api.pushvalue(L, -1)
    api.setfield(L, LUA_REGISTRYINDEX, b"zeekdb.blank")


cdef void remember(lua_State* L) noexcept nogil:
    """The table on top is a protected one from now on."""
    global PROTECTED_COUNT
    if PROTECTED_COUNT < PROTECTED_MAX:
        PROTECTED[PROTECTED_COUNT] = api.topointer(L, -1)
        PROTECTED_COUNT += 1


cdef void protect(lua_State* L, bint strict) noexcept nogil:
    """Stack: table → protected table."""
    if strict:  # what the real table lacks is asked of `absent`
        api.createtable(L, 0, 1)
        set_function(L, b"__index", absent)
        api.setmetatable(L, -2)
    api.createtable(L, 0, 0)
    api.createtable(L, 0, 3)
    api.pushvalue(L, -3)
    api.setfield(L, -2, b"__index")
    set_function(L, b"__newindex", refuse)
    push_blank(L)
    api.setfield(L, -2, b"__metatable")
    api.setmetatable(L, -2)
    remember(L)
    api.pushvalue(L, -1)  # the registry keeps it, so that its address stays its own, and the real one behind it
    api.pushvalue(L, -3)
    api.rawset(L, LUA_REGISTRYINDEX)
    api.remove(L, -2)


cdef void push_real(lua_State* L, int at) noexcept nogil:
    """The table behind a protected one."""
    api.pushvalue(L, at)
    api.rawget(L, LUA_REGISTRYINDEX)


# ---------------------------------------------------------------- builtins that go past metatables


cdef int safe_rawset(lua_State* L) noexcept nogil:
    api.checktype(L, 1, LUA_TTABLE)
    api.checkany(L, 2)
    api.checkany(L, 3)
    if is_protected(L, 1):
        return refuse(L)
    api.settop(L, 3)
    api.rawset(L, 1)
    return 1


cdef int safe_rawget(lua_State* L) noexcept nogil:
    api.checktype(L, 1, LUA_TTABLE)
    api.checkany(L, 2)
    api.settop(L, 2)
    if is_protected(L, 1):
        push_real(L, 1)
        api.replace(L, 1)
    api.rawget(L, 1)
    return 1


cdef int safe_setmetatable(lua_State* L) noexcept nogil:
    api.checktype(L, 1, LUA_TTABLE)
    if is_protected(L, 1):
        return refuse(L)
    if not is_type(L, 2, LUA_TNIL) and not is_type(L, 2, LUA_TTABLE):
        return api.argerror(L, 2, b"nil or table expected")
    if api.getmetatable(L, 1):
        push_text(L, b"__metatable")
        api.rawget(L, -2)
        if not is_type(L, -1, LUA_TNIL):
            return raise_text(L, b"cannot change a protected metatable")
    api.settop(L, 2)
    if is_type(L, 2, LUA_TTABLE):
        # A finalizer would run whenever the collector does, between scripts too. Only userdata have them in Lua 5.1,
        # and scripts make none, so there is nothing to forbid.
        pass
    api.setmetatable(L, 1)
    return 1


cdef int safe_next(lua_State* L) noexcept nogil:
    api.checktype(L, 1, LUA_TTABLE)
    api.settop(L, 2)
    if is_protected(L, 1):
        push_real(L, 1)
        api.replace(L, 1)
    if api.next(L, 1):
        return 2
    api.pushnil(L)
    return 1


cdef int safe_pairs(lua_State* L) noexcept nogil:
    api.checktype(L, 1, LUA_TTABLE)
    api.pushcclosure(L, safe_next, 0)
    api.pushvalue(L, 1)
    api.pushnil(L)
    return 3


cdef int safe_insert(lua_State* L) noexcept nogil:
    return refuse(L) if is_protected(L, 1) else TABLE_INSERT(L)


cdef int safe_remove(lua_State* L) noexcept nogil:
    return refuse(L) if is_protected(L, 1) else TABLE_REMOVE(L)


cdef int safe_sort(lua_State* L) noexcept nogil:
    return refuse(L) if is_protected(L, 1) else TABLE_SORT(L)


cdef int safe_setn(lua_State* L) noexcept nogil:
    return refuse(L) if is_protected(L, 1) else TABLE_SETN(L)


cdef int safe_unpack(lua_State* L) noexcept nogil:
    """Lua 5.1's own adds up its bounds in an int, and overflows."""
    cdef double begin = 1, end
    cdef int i
    api.checktype(L, 1, LUA_TTABLE)
    if api.type(L, 2) > LUA_TNIL:
        begin = api.checknumber(L, 2)
    end = api.checknumber(L, 3) if api.type(L, 3) > LUA_TNIL else <double>api.objlen(L, 1)
    if begin > end:
        return 0
    if not -2147483648.0 <= begin <= end <= 2147483647.0 or end - begin >= RESULTS_MAX:
        return raise_text(L, b"too many results to unpack")
    if not api.checkstack(L, <int>(end - begin) + 1):
        return raise_text(L, b"too many results to unpack")
    for i in range(<int>(end - begin) + 1):
        api.rawgeti(L, 1, <int>(begin + i))
    return <int>(end - begin) + 1


# ---------------------------------------------------------------- patterns


cdef inline bint pattern_fits(lua_State* L) noexcept nogil:
    cdef size_t n = 0
    api.checklstring(L, 2, &n)
    return n <= PATTERN_MAX


cdef int safe_find(lua_State* L) noexcept nogil:
    # A plain search has no pattern: any length will do.
    if api.toboolean(L, 4) or pattern_fits(L):
        return STRING_FIND(L)
    return raise_text(L, b"pattern too complex")


cdef int safe_match(lua_State* L) noexcept nogil:
    return STRING_MATCH(L) if pattern_fits(L) else raise_text(L, b"pattern too complex")


cdef int safe_gmatch(lua_State* L) noexcept nogil:
    return STRING_GMATCH(L) if pattern_fits(L) else raise_text(L, b"pattern too complex")


cdef int safe_gsub(lua_State* L) noexcept nogil:
    return STRING_GSUB(L) if pattern_fits(L) else raise_text(L, b"pattern too complex")


# ---------------------------------------------------------------- code


cdef int compile_text(lua_State* L, const char* source, size_t n, const char* name) noexcept nogil:
    """The function, or nil and a message. Only text: compiled code is not safe to run."""
    if n and source[0] == 27:
        api.pushnil(L)
        push_text(L, b"attempt to load precompiled code")
        return 2
    if api.loadbuffer(L, source, n, name) == 0:
        return 1
    api.pushnil(L)
    api.insert(L, -2)
    return 2


cdef int safe_loadstring(lua_State* L) noexcept nogil:
    cdef size_t n = 0
    cdef const char* source = api.checklstring(L, 1, &n)
    cdef const char* name = source
    if api.gettop(L) > 1 and not is_type(L, 2, LUA_TNIL):
        name = api.checklstring(L, 2, NULL)
    return compile_text(L, source, n, name)


cdef int safe_load(lua_State* L) noexcept nogil:
    """Gathers what the function returns until it returns nothing, and compiles that."""
    cdef const char* name = b"=(load)"
    cdef size_t n = 0, total = 0
    cdef int pieces = 0
    api.checktype(L, 1, LUA_TFUNCTION)
    if api.gettop(L) > 1 and not is_type(L, 2, LUA_TNIL):
        name = api.checklstring(L, 2, NULL)
    api.settop(L, 2)
    push_text(L, b"")
    while True:
        api.pushvalue(L, 1)
        api.call(L, 0, 1)
        if is_type(L, -1, LUA_TNIL):
            break
        if not is_type(L, -1, LUA_TSTRING):
            return raise_text(L, b"reader function must return a string")
        api.tolstring(L, -1, &n)
        if n == 0:
            break
        total += n
        if total > SOURCE_MAX:
            return raise_text(L, b"chunk too large")
        api.concat(L, 2)
    pop(L, 1)
    return compile_text(L, api.tolstring(L, -1, &n), api.objlen(L, -1), name)


# ---------------------------------------------------------------- the room


cdef void open_library(lua_State* L, lua_CFunction opener, const char* name) noexcept nogil:
    api.pushcclosure(L, opener, 0)
    api.pushstring(L, name)
    api.call(L, 1, 0)


cdef lua_CFunction take(lua_State* L, const char* name, lua_CFunction substitute) noexcept nogil:
    """Replaces a function in the table on top of the stack; the original."""
    cdef lua_CFunction original
    api.getfield(L, -1, name)
    original = api.tocfunction(L, -1)
    pop(L, 1)
    set_function(L, name, substitute)
    return original


cdef void drop(lua_State* L, const char* name) noexcept nogil:
    api.pushnil(L)
    api.setfield(L, -2, name)


cdef void set_global(lua_State* L, const char* name) noexcept nogil:
    api.getfield(L, LUA_REGISTRYINDEX, b"zeekdb.globals")
    api.insert(L, -2)
    push_text(L, name)
    api.insert(L, -2)
    api.rawset(L, -3)
    pop(L, 1)


cdef void show_globals(lua_State* L) noexcept nogil:
    """What scripts see as globals from now on: the table on top of the stack, which is strict."""
    api.getfield(L, LUA_REGISTRYINDEX, b"zeekdb.view")
    api.insert(L, -2)
    api.setfield(L, -2, b"__index")
    pop(L, 1)


cdef void show_only(lua_State* L, const char* name) noexcept nogil:
    """Globals are one thing, the value on top of the stack, under this name."""
    api.createtable(L, 0, 1)
    api.insert(L, -2)
    api.setfield(L, -2, name)
    api.createtable(L, 0, 1)
    set_function(L, b"__index", absent)
    api.setmetatable(L, -2)
    show_globals(L)


cdef void show_all(lua_State* L) noexcept nogil:
    """Globals are all of them again."""
    api.getfield(L, LUA_REGISTRYINDEX, b"zeekdb.globals")
    show_globals(L)


cdef void protect_field(lua_State* L, const char* name) noexcept nogil:
    """The library of that name in the table on top of the stack."""
    api.getfield(L, -1, name)
    protect(L, False)
    api.setfield(L, -2, name)


cdef void sandbox_open(lua_State* L) noexcept nogil:
    global STRING_FIND, STRING_MATCH, STRING_GMATCH, STRING_GSUB, TABLE_INSERT, TABLE_REMOVE, TABLE_SORT, TABLE_SETN
    open_library(L, api.open_base, b"")
    open_library(L, api.open_table, b"table")
    open_library(L, api.open_string, b"string")
    open_library(L, api.open_math, b"math")
    open_library(L, api.open_os, b"os")
    api.pushvalue(L, LUA_GLOBALSINDEX)
    for_globals(L)
    api.getfield(L, -1, b"string")
    STRING_FIND = take(L, b"find", safe_find)
    STRING_MATCH = take(L, b"match", safe_match)
    STRING_GMATCH = take(L, b"gmatch", safe_gmatch)
    take(L, b"gfind", safe_gmatch)
    STRING_GSUB = take(L, b"gsub", safe_gsub)
    pop(L, 1)
    api.getfield(L, -1, b"table")
    TABLE_INSERT = take(L, b"insert", safe_insert)
    TABLE_REMOVE = take(L, b"remove", safe_remove)
    TABLE_SORT = take(L, b"sort", safe_sort)
    TABLE_SETN = take(L, b"setn", safe_setn)
    pop(L, 1)
    protect_strings(L)
    protect_field(L, b"table")
    protect_field(L, b"math")
    protect_field(L, b"coroutine")
    protect_field(L, b"os")
    api.pushvalue(L, -1)
    api.setfield(L, LUA_REGISTRYINDEX, b"zeekdb.globals")
    api.pushvalue(L, -1)
    protect(L, True)
    api.pushvalue(L, -1)
    api.setfield(L, -3, b"_G")
    api.getmetatable(L, -1)
    api.setfield(L, LUA_REGISTRYINDEX, b"zeekdb.view")
    api.replace(L, LUA_GLOBALSINDEX)  # what scripts, and everything compiled from now on, see
    pop(L, 1)


cdef void for_globals(lua_State* L) noexcept nogil:
    """Of the base library, what Redis allows; stack: the globals."""
    drop(L, b"dofile")
    drop(L, b"loadfile")
    drop(L, b"print")
    drop(L, b"newproxy")
    drop(L, b"setfenv")
    drop(L, b"getfenv")
    drop(L, b"require")
    drop(L, b"module")
    take(L, b"rawset", safe_rawset)
    take(L, b"rawget", safe_rawget)
    take(L, b"setmetatable", safe_setmetatable)
    take(L, b"next", safe_next)
    take(L, b"pairs", safe_pairs)
    take(L, b"unpack", safe_unpack)
    take(L, b"load", safe_load)
    take(L, b"loadstring", safe_loadstring)
    api.getfield(L, -1, b"os")  # of the system, the time that the script has taken
    api.createtable(L, 0, 1)
    api.getfield(L, -2, b"clock")
    api.setfield(L, -2, b"clock")
    api.setfield(L, -3, b"os")
    pop(L, 1)


cdef void protect_strings(lua_State* L) noexcept nogil:
    """The string library, and the metatable that all strings share: it stays, but scripts get a protected one to see."""
    api.getfield(L, -1, b"string")
    push_text(L, b"")
    api.getmetatable(L, -1)
    api.remove(L, -2)
    api.createtable(L, 0, 1)
    api.pushvalue(L, -3)
    protect(L, False)
    api.setfield(L, -2, b"__index")
    protect(L, False)
    api.setfield(L, -2, b"__metatable")
    pop(L, 1)
    protect(L, False)
    api.setfield(L, -2, b"string")
