# Lua 5.1's C API, found at run time in the interpreter that lupa brings along. See lua_api.pyx.
from libc.stddef cimport ptrdiff_t

cdef extern from *:
    """
    typedef struct lua_State lua_State;
    typedef struct {
        int event;
        const char *name, *namewhat, *what, *source;
        int currentline, nups, linedefined, lastlinedefined;
        char short_src[60];
        int i_ci;
    } lua_Debug;
    """
    ctypedef struct lua_State:
        pass
    ctypedef struct lua_Debug:
        int event
        const char* name
        const char* what
        const char* source
        int currentline
        char short_src[60]

ctypedef int (*lua_CFunction)(lua_State* L) noexcept nogil
ctypedef void (*lua_Hook)(lua_State* L, lua_Debug* ar) noexcept nogil
ctypedef int (*lua_Writer)(lua_State* L, const void* p, size_t n, void* ud) noexcept nogil
ctypedef void* (*lua_Alloc)(void* ud, void* p, size_t old, size_t new) noexcept nogil

cdef enum:
    LUA_REGISTRYINDEX = -10000
    LUA_GLOBALSINDEX = -10002
    LUA_MULTRET = -1
    LUA_TNONE = -1
    LUA_TNIL = 0
    LUA_TBOOLEAN = 1
    LUA_TLIGHTUSERDATA = 2
    LUA_TNUMBER = 3
    LUA_TSTRING = 4
    LUA_TTABLE = 5
    LUA_TFUNCTION = 6
    LUA_TUSERDATA = 7
    LUA_TTHREAD = 8
    LUA_YIELD = 1
    LUA_ERRRUN = 2
    LUA_ERRSYNTAX = 3
    LUA_ERRMEM = 4
    LUA_MASKLINE = 4
    LUA_MASKCOUNT = 8
    LUA_GCSTOP = 0
    LUA_GCCOLLECT = 2
    LUA_GCCOUNT = 3
    LUA_GCSTEP = 5
    LUA_GCRESTART = 1
    LUA_GCSETPAUSE = 6
    LUA_GCSETSTEPMUL = 7

# The functions, by their names without `lua_` (`luaL_` where marked).
ctypedef struct LuaApi:
    lua_State* (*newstate)(lua_Alloc alloc, void* ud) noexcept nogil
    void (*close)(lua_State* L) noexcept nogil
    lua_CFunction (*atpanic)(lua_State* L, lua_CFunction panic) noexcept nogil
    int (*gettop)(lua_State* L) noexcept nogil
    void (*settop)(lua_State* L, int top) noexcept nogil
    void (*pushvalue)(lua_State* L, int at) noexcept nogil
    void (*remove)(lua_State* L, int at) noexcept nogil
    void (*insert)(lua_State* L, int at) noexcept nogil
    void (*replace)(lua_State* L, int at) noexcept nogil
    int (*checkstack)(lua_State* L, int n) noexcept nogil
    int (*type)(lua_State* L, int at) noexcept nogil
    int (*isnumber)(lua_State* L, int at) noexcept nogil
    int (*iscfunction)(lua_State* L, int at) noexcept nogil
    int (*rawequal)(lua_State* L, int a, int b) noexcept nogil
    double (*tonumber)(lua_State* L, int at) noexcept nogil
    int (*toboolean)(lua_State* L, int at) noexcept nogil
    const char* (*tolstring)(lua_State* L, int at, size_t* n) noexcept nogil
    size_t (*objlen)(lua_State* L, int at) noexcept nogil
    lua_CFunction (*tocfunction)(lua_State* L, int at) noexcept nogil
    void* (*touserdata)(lua_State* L, int at) noexcept nogil
    const void* (*topointer)(lua_State* L, int at) noexcept nogil
    void (*pushnil)(lua_State* L) noexcept nogil
    void (*pushnumber)(lua_State* L, double n) noexcept nogil
    void (*pushlstring)(lua_State* L, const char* s, size_t n) noexcept nogil
    void (*pushstring)(lua_State* L, const char* s) noexcept nogil
    void (*pushcclosure)(lua_State* L, lua_CFunction f, int n) noexcept nogil
    void (*pushboolean)(lua_State* L, int b) noexcept nogil
    void (*pushlightuserdata)(lua_State* L, void* p) noexcept nogil
    void (*gettable)(lua_State* L, int at) noexcept nogil
    void (*getfield)(lua_State* L, int at, const char* name) noexcept nogil
    void (*rawget)(lua_State* L, int at) noexcept nogil
    void (*rawgeti)(lua_State* L, int at, int n) noexcept nogil
    void (*createtable)(lua_State* L, int narr, int nrec) noexcept nogil
    void* (*newuserdata)(lua_State* L, size_t n) noexcept nogil
    int (*getmetatable)(lua_State* L, int at) noexcept nogil
    void (*settable)(lua_State* L, int at) noexcept nogil
    void (*setfield)(lua_State* L, int at, const char* name) noexcept nogil
    void (*rawset)(lua_State* L, int at) noexcept nogil
    void (*rawseti)(lua_State* L, int at, int n) noexcept nogil
    int (*setmetatable)(lua_State* L, int at) noexcept nogil
    void (*call)(lua_State* L, int nargs, int nresults) noexcept nogil
    int (*pcall)(lua_State* L, int nargs, int nresults, int handler) noexcept nogil
    int (*error)(lua_State* L) noexcept nogil
    int (*next)(lua_State* L, int at) noexcept nogil
    void (*concat)(lua_State* L, int n) noexcept nogil
    int (*gc)(lua_State* L, int what, int data) noexcept nogil
    int (*sethook)(lua_State* L, lua_Hook hook, int mask, int count) noexcept nogil
    int (*getstack)(lua_State* L, int level, lua_Debug* ar) noexcept nogil
    int (*getinfo)(lua_State* L, const char* what, lua_Debug* ar) noexcept nogil
    int (*lessthan)(lua_State* L, int a, int b) noexcept nogil
    lua_State* (*tothread)(lua_State* L, int at) noexcept nogil
    int (*status)(lua_State* L) noexcept nogil
    int (*resume)(lua_State* L, int nargs) noexcept nogil
    void (*xmove)(lua_State* source, lua_State* target, int n) noexcept nogil
    void (*setlevel)(lua_State* source, lua_State* target) noexcept nogil
    int (*dump)(lua_State* L, lua_Writer writer, void* data) noexcept nogil
    # luaL_
    int (*loadbuffer)(lua_State* L, const char* p, size_t n, const char* name) noexcept nogil
    void (*where)(lua_State* L, int level) noexcept nogil
    int (*ref)(lua_State* L, int table) noexcept nogil
    void (*unref)(lua_State* L, int table, int ref) noexcept nogil
    double (*checknumber)(lua_State* L, int arg) noexcept nogil
    const char* (*checklstring)(lua_State* L, int arg, size_t* n) noexcept nogil
    void (*checktype)(lua_State* L, int arg, int type) noexcept nogil
    void (*checkany)(lua_State* L, int arg) noexcept nogil
    void (*checkstack_or_raise)(lua_State* L, int n, const char* message) noexcept nogil
    int (*argerror)(lua_State* L, int arg, const char* message) noexcept nogil
    # the libraries
    lua_CFunction open_base
    lua_CFunction open_table
    lua_CFunction open_string
    lua_CFunction open_math
    lua_CFunction open_os

cdef LuaApi api

cdef inline void pop(lua_State* L, int n) noexcept nogil:
    api.settop(L, -n - 1)

cdef inline bint is_type(lua_State* L, int at, int type) noexcept nogil:
    return api.type(L, at) == type

cdef inline void push_text(lua_State* L, const char* text) noexcept nogil:
    api.pushstring(L, text)

# Raises `text` as an error of the function that calls, with the place in the script in front, as luaL_error does.
cdef inline int raise_text(lua_State* L, const char* text) noexcept nogil:
    api.where(L, 1)
    api.pushstring(L, text)
    api.concat(L, 2)
    return api.error(L)

cdef inline void set_function(lua_State* L, const char* name, lua_CFunction f) noexcept nogil:
    """Into the table on top of the stack."""
    api.pushcclosure(L, f, 0)
    api.setfield(L, -2, name)
