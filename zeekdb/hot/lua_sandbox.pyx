"""What scripts may touch: Redis's list of builtins, in tables that cannot be changed.

Plain Lua has no read-only tables. A protected table is an empty one whose metatable leads reads to the real table and
refuses writes; what goes past metatables (rawset, table.insert, next …) is replaced here by functions that ask first
whether the table is one of the few protected ones. No real table ever reaches a script, so nothing that one script
does is seen by the next.

Nothing that reads files, loads modules, or sees the interpreter's inside is there; `load` and `loadstring` take source
text only, since compiled code is not checked by Lua 5.1 and would be a way out. Builtins that could work for hours in
one instruction are replaced by ones that cannot or that look at the clock, and so are those through which a script
could outlive the error that ends it: xpcall, whose handler Lua would run where no hook is called, and coroutines.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy
from zeekdb.hot.lua_api cimport (
    LUA_GLOBALSINDEX, LUA_MULTRET, LUA_REGISTRYINDEX, LUA_TFUNCTION, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING,
    LUA_TTABLE, LUA_YIELD, api, is_type, lua_CFunction, lua_Debug, lua_State, pop, push_text, raise_text, set_function,
)
from zeekdb.hot.lua_guard cimport is_runnable, look, tick, watch
from zeekdb.hot.lua_match cimport match_find, match_gmatch, match_gsub, match_match

cdef enum:
    REPEATED_MAX = 1 << 30      # bytes that string.rep makes
    SHIFT_MIN = -1000           # where table.insert may insert: it moves all from there on
    SORT_PLAIN_MAX = 50000      # elements that are sorted without a look at the clock
    SOURCE_MAX = 16777216       # bytes of what `load` gathers
    RESULTS_MAX = 8000          # of unpack: what the stack of a C function holds

# The originals behind the bounded functions.
cdef lua_CFunction TABLE_INSERT, TABLE_REMOVE, TABLE_SORT, TABLE_SETN, TABLE_MAXN, BASE_COLLECTGARBAGE, CO_CREATE


cdef bint is_protected(lua_State* L, int at) noexcept nogil:
    """Protected tables are keys of the registry, and no other table is."""
    cdef bint known
    api.pushvalue(L, at)
    api.rawget(L, LUA_REGISTRYINDEX)
    known = is_type(L, -1, LUA_TTABLE)
    pop(L, 1)
    return known


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
    api.pushvalue(L, -1)
    api.createtable(L, 0, 0)
    api.rawset(L, LUA_REGISTRYINDEX)
    api.pushvalue(L, -1)
    api.setfield(L, LUA_REGISTRYINDEX, b"zeekdb.blank")


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
    api.pushvalue(L, -1)  # the registry knows the real one behind it
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
    api.setmetatable(L, 1)
    return 1


cdef int safe_next(lua_State* L) noexcept nogil:
    api.checktype(L, 1, LUA_TTABLE)
    api.settop(L, 2)
    if is_protected(L, 1):
        push_real(L, 1)
        api.replace(L, 1)
    tick(L)  # a table can have long holes
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
    if is_protected(L, 1):
        return refuse(L)
    if api.gettop(L) == 3 and not SHIFT_MIN <= api.checknumber(L, 2) <= 2147483647.0:
        return api.argerror(L, 2, b"position out of bounds")
    look(L)
    return TABLE_INSERT(L)


cdef int safe_remove(lua_State* L) noexcept nogil:
    if is_protected(L, 1):
        return refuse(L)
    look(L)
    return TABLE_REMOVE(L)


cdef int before(lua_State* L) noexcept nogil:
    """What sorting asks when no function is given."""
    tick(L)
    api.pushboolean(L, api.lessthan(L, 1, 2))
    return 1


cdef int safe_sort(lua_State* L) noexcept nogil:
    if is_protected(L, 1):
        return refuse(L)
    if api.type(L, 2) <= LUA_TNIL and is_type(L, 1, LUA_TTABLE) and api.objlen(L, 1) > SORT_PLAIN_MAX:
        api.settop(L, 1)
        api.pushcclosure(L, before, 0)
    return TABLE_SORT(L)


cdef int safe_setn(lua_State* L) noexcept nogil:
    return refuse(L) if is_protected(L, 1) else TABLE_SETN(L)


cdef int safe_maxn(lua_State* L) noexcept nogil:
    look(L)
    return TABLE_MAXN(L)


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


cdef int safe_rep(lua_State* L) noexcept nogil:
    """Lua's own appends one copy after the other, also empty ones."""
    cdef size_t n = 0, total, made
    cdef const char* text = api.checklstring(L, 1, &n)
    cdef double given = api.checknumber(L, 2)
    cdef int times = <int><int64_t>given if -9e18 < given < 9e18 else 0
    cdef char* out
    if times <= 0 or n == 0:
        push_text(L, b"")
        return 1
    total = n * <size_t>times
    if total > REPEATED_MAX:
        return raise_text(L, b"resulting string too large")
    out = <char*>api.newuserdata(L, total)
    memcpy(out, text, n)
    made = n
    while made < total:
        n = made if made <= total - made else total - made
        memcpy(out + made, out, n)
        made += n
    api.pushlstring(L, out, total)
    return 1


cdef int safe_collectgarbage(lua_State* L) noexcept nogil:
    """Scripts may have garbage collected, but not keep the collector from the next script's."""
    cdef const char* what = b"collect"
    look(L)
    if api.type(L, 1) > LUA_TNIL:
        what = api.checklstring(L, 1, NULL)
    if what[0] == 115 and (what[1] == 116 and what[2] == 111 or what[1] == 101):  # stop, set…
        api.pushnumber(L, 0)
        return 1
    return BASE_COLLECTGARBAGE(L)


# ---------------------------------------------------------------- errors and coroutines


cdef int safe_pcall(lua_State* L) noexcept nogil:
    """As Redis's: of an error that is a table with a string `err`, that string is shown."""
    api.checkany(L, 1)
    api.pushboolean(L, 1)
    api.insert(L, 1)
    if api.pcall(L, api.gettop(L) - 2, LUA_MULTRET, 0) == 0:
        return api.gettop(L)
    look(L)
    if is_type(L, -1, LUA_TTABLE):
        push_text(L, b"err")
        api.rawget(L, -2)
        if is_type(L, -1, LUA_TSTRING) or is_type(L, -1, LUA_TNUMBER):
            api.replace(L, -2)
        else:
            pop(L, 1)
    api.pushboolean(L, 0)
    api.insert(L, -2)
    return 2


cdef int safe_xpcall(lua_State* L) noexcept nogil:
    """Calls the handler when the stack is unwound: no script can see where it is called from."""
    api.checkany(L, 2)
    api.settop(L, 2)
    api.pushvalue(L, 1)
    if api.pcall(L, 0, LUA_MULTRET, 0) == 0:
        api.pushboolean(L, 1)
        api.replace(L, 2)
        return api.gettop(L) - 1
    look(L)
    api.pushvalue(L, 2)
    api.insert(L, -2)
    api.pcall(L, 1, 1, 0)
    api.pushboolean(L, 0)
    api.insert(L, -2)
    return 2


cdef const char* why_not_resumable(lua_State* L, lua_State* co) noexcept nogil:
    """NULL: it can be resumed."""
    cdef lua_Debug place
    cdef int status = api.status(co)
    if L == co:
        return b"cannot resume running coroutine"
    if status == LUA_YIELD:
        return NULL
    if status == 0 and api.getstack(co, 0, &place) > 0:
        return b"cannot resume normal coroutine"
    if status == 0 and api.gettop(co):
        return NULL
    return b"cannot resume dead coroutine"


cdef int resume(lua_State* L, lua_State* co, int given) noexcept nogil:
    """With so many arguments from the top of the stack. How many results are there, -1: an error is."""
    cdef const char* refusal
    cdef int status, results
    look(L)  # one that must end does not go on in another coroutine
    if not api.checkstack(co, given):
        return raise_text(L, b"too many arguments to resume")
    refusal = why_not_resumable(L, co)
    if refusal != NULL:
        push_text(L, refusal)
        return -1
    api.xmove(L, co, given)
    api.setlevel(L, co)
    if watch.running == L:
        watch.running = co
    status = api.resume(co, given)
    if watch.running == co:
        watch.running = L
    if status != 0 and status != LUA_YIELD:
        api.xmove(co, L, 1)
        return -1
    results = api.gettop(co)
    if not api.checkstack(L, results + 1):
        return raise_text(L, b"too many results to resume")
    api.xmove(co, L, results)
    return results


cdef int safe_resume(lua_State* L) noexcept nogil:
    cdef lua_State* co = api.tothread(L, 1)
    cdef int results
    if co == NULL:
        return api.argerror(L, 1, b"coroutine expected")
    results = resume(L, co, api.gettop(L) - 1)
    api.pushboolean(L, results >= 0)
    api.insert(L, -2 if results < 0 else -(results + 1))
    return 2 if results < 0 else results + 1


cdef int call_wrapped(lua_State* L) noexcept nogil:
    cdef int results = resume(L, api.tothread(L, LUA_GLOBALSINDEX - 1), api.gettop(L))
    if results >= 0:
        return results
    if is_type(L, -1, LUA_TSTRING):
        api.where(L, 1)
        api.insert(L, -2)
        api.concat(L, 2)
    return api.error(L)


cdef int safe_wrap(lua_State* L) noexcept nogil:
    CO_CREATE(L)
    api.pushcclosure(L, call_wrapped, 1)
    return 1


# ---------------------------------------------------------------- code


cdef int compile_text(lua_State* L, const char* source, size_t n, const char* name) noexcept nogil:
    """The function, or nil and a message. Only text: compiled code is not safe to run."""
    cdef int fits
    if n and source[0] == 27:
        api.pushnil(L)
        push_text(L, b"attempt to load precompiled code")
        return 2
    if api.loadbuffer(L, source, n, name) == 0:
        fits = is_runnable(L)
        if fits > 0:
            return 1
        push_text(L, b"too many parameters before '...'" if fits == 0 else b"not enough memory")
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


cdef void push_globals(lua_State* L) noexcept nogil:
    """The table of all globals, which scripts see behind a guard."""
    api.getfield(L, LUA_REGISTRYINDEX, b"zeekdb.globals")


cdef void set_global(lua_State* L, const char* name) noexcept nogil:
    push_globals(L)
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
    global TABLE_INSERT, TABLE_REMOVE, TABLE_SORT, TABLE_SETN, TABLE_MAXN, CO_CREATE
    open_library(L, api.open_base, b"")
    open_library(L, api.open_table, b"table")
    open_library(L, api.open_string, b"string")
    open_library(L, api.open_math, b"math")
    open_library(L, api.open_os, b"os")
    api.pushvalue(L, LUA_GLOBALSINDEX)
    for_globals(L)
    api.getfield(L, -1, b"string")
    take(L, b"find", match_find)
    take(L, b"match", match_match)
    take(L, b"gmatch", match_gmatch)
    take(L, b"gfind", match_gmatch)
    take(L, b"gsub", match_gsub)
    take(L, b"rep", safe_rep)
    pop(L, 1)
    api.getfield(L, -1, b"table")
    TABLE_INSERT = take(L, b"insert", safe_insert)
    TABLE_REMOVE = take(L, b"remove", safe_remove)
    TABLE_SORT = take(L, b"sort", safe_sort)
    TABLE_SETN = take(L, b"setn", safe_setn)
    TABLE_MAXN = take(L, b"maxn", safe_maxn)
    pop(L, 1)
    api.getfield(L, -1, b"coroutine")
    api.getfield(L, -1, b"create")
    CO_CREATE = api.tocfunction(L, -1)
    pop(L, 1)
    take(L, b"resume", safe_resume)
    take(L, b"wrap", safe_wrap)
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
    global BASE_COLLECTGARBAGE
    BASE_COLLECTGARBAGE = take(L, b"collectgarbage", safe_collectgarbage)
    take(L, b"pcall", safe_pcall)
    take(L, b"xpcall", safe_xpcall)
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
