"""Lua's C API without linking: the interpreter is the one inside lupa's extension module, which exports it.

lupa itself, the bridge between Python and Lua objects, is not used: a script sees no Python object, and the way from
a script to a command and back costs no wrapper. What is used of the wheel is Lua 5.1 as its authors wrote it.
"""

import importlib.util
import os

from libc.string cimport memset

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* library, const char* name)
    const char* dlerror()
    int RTLD_NOW, RTLD_LOCAL

memset(&api, 0, sizeof(api))


cdef void* find(void* library, bytes name) except NULL:
    cdef void* found = dlsym(library, name)
    if found == NULL:
        raise ImportError(f"lupa's Lua 5.1 does not export {name.decode()}")
    return found


cdef int load() except -1:
    cdef void* library
    spec = importlib.util.find_spec("lupa.lua51")
    if spec is None or spec.origin is None:
        raise ImportError("the package lupa with Lua 5.1 is not installed")
    library = dlopen(os.fsencode(spec.origin), RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise ImportError((<bytes>dlerror()).decode())
    (<void**>&api.newstate)[0] = find(library, b"lua_newstate")
    (<void**>&api.close)[0] = find(library, b"lua_close")
    (<void**>&api.atpanic)[0] = find(library, b"lua_atpanic")
    (<void**>&api.gettop)[0] = find(library, b"lua_gettop")
    (<void**>&api.settop)[0] = find(library, b"lua_settop")
    (<void**>&api.pushvalue)[0] = find(library, b"lua_pushvalue")
    (<void**>&api.remove)[0] = find(library, b"lua_remove")
    (<void**>&api.insert)[0] = find(library, b"lua_insert")
    (<void**>&api.replace)[0] = find(library, b"lua_replace")
    (<void**>&api.checkstack)[0] = find(library, b"lua_checkstack")
    (<void**>&api.type)[0] = find(library, b"lua_type")
    (<void**>&api.isnumber)[0] = find(library, b"lua_isnumber")
    (<void**>&api.iscfunction)[0] = find(library, b"lua_iscfunction")
    (<void**>&api.rawequal)[0] = find(library, b"lua_rawequal")
    (<void**>&api.tonumber)[0] = find(library, b"lua_tonumber")
    (<void**>&api.toboolean)[0] = find(library, b"lua_toboolean")
    (<void**>&api.tolstring)[0] = find(library, b"lua_tolstring")
    (<void**>&api.objlen)[0] = find(library, b"lua_objlen")
    (<void**>&api.tocfunction)[0] = find(library, b"lua_tocfunction")
    (<void**>&api.touserdata)[0] = find(library, b"lua_touserdata")
    (<void**>&api.topointer)[0] = find(library, b"lua_topointer")
    (<void**>&api.pushnil)[0] = find(library, b"lua_pushnil")
    (<void**>&api.pushnumber)[0] = find(library, b"lua_pushnumber")
    (<void**>&api.pushlstring)[0] = find(library, b"lua_pushlstring")
    (<void**>&api.pushstring)[0] = find(library, b"lua_pushstring")
    (<void**>&api.pushcclosure)[0] = find(library, b"lua_pushcclosure")
    (<void**>&api.pushboolean)[0] = find(library, b"lua_pushboolean")
    (<void**>&api.pushlightuserdata)[0] = find(library, b"lua_pushlightuserdata")
    (<void**>&api.gettable)[0] = find(library, b"lua_gettable")
    (<void**>&api.getfield)[0] = find(library, b"lua_getfield")
    (<void**>&api.rawget)[0] = find(library, b"lua_rawget")
    (<void**>&api.rawgeti)[0] = find(library, b"lua_rawgeti")
    (<void**>&api.createtable)[0] = find(library, b"lua_createtable")
    (<void**>&api.newuserdata)[0] = find(library, b"lua_newuserdata")
    (<void**>&api.getmetatable)[0] = find(library, b"lua_getmetatable")
    (<void**>&api.settable)[0] = find(library, b"lua_settable")
    (<void**>&api.setfield)[0] = find(library, b"lua_setfield")
    (<void**>&api.rawset)[0] = find(library, b"lua_rawset")
    (<void**>&api.rawseti)[0] = find(library, b"lua_rawseti")
    (<void**>&api.setmetatable)[0] = find(library, b"lua_setmetatable")
    (<void**>&api.call)[0] = find(library, b"lua_call")
    (<void**>&api.pcall)[0] = find(library, b"lua_pcall")
    (<void**>&api.error)[0] = find(library, b"lua_error")
    (<void**>&api.next)[0] = find(library, b"lua_next")
    (<void**>&api.concat)[0] = find(library, b"lua_concat")
    (<void**>&api.gc)[0] = find(library, b"lua_gc")
    (<void**>&api.sethook)[0] = find(library, b"lua_sethook")
    (<void**>&api.getstack)[0] = find(library, b"lua_getstack")
    (<void**>&api.getinfo)[0] = find(library, b"lua_getinfo")
    (<void**>&api.lessthan)[0] = find(library, b"lua_lessthan")
    (<void**>&api.tothread)[0] = find(library, b"lua_tothread")
    (<void**>&api.status)[0] = find(library, b"lua_status")
    (<void**>&api.resume)[0] = find(library, b"lua_resume")
    (<void**>&api.xmove)[0] = find(library, b"lua_xmove")
    (<void**>&api.setlevel)[0] = find(library, b"lua_setlevel")
    (<void**>&api.dump)[0] = find(library, b"lua_dump")
    (<void**>&api.loadbuffer)[0] = find(library, b"luaL_loadbuffer")
    (<void**>&api.where)[0] = find(library, b"luaL_where")
    (<void**>&api.ref)[0] = find(library, b"luaL_ref")
    (<void**>&api.unref)[0] = find(library, b"luaL_unref")
    (<void**>&api.checknumber)[0] = find(library, b"luaL_checknumber")
    (<void**>&api.checklstring)[0] = find(library, b"luaL_checklstring")
    (<void**>&api.checktype)[0] = find(library, b"luaL_checktype")
    (<void**>&api.checkany)[0] = find(library, b"luaL_checkany")
    (<void**>&api.checkstack_or_raise)[0] = find(library, b"luaL_checkstack")
    (<void**>&api.argerror)[0] = find(library, b"luaL_argerror")
    (<void**>&api.open_base)[0] = find(library, b"luaopen_base")
    (<void**>&api.open_table)[0] = find(library, b"luaopen_table")
    (<void**>&api.open_string)[0] = find(library, b"luaopen_string")
    (<void**>&api.open_math)[0] = find(library, b"luaopen_math")
    (<void**>&api.open_os)[0] = find(library, b"luaopen_os")
    return 0


load()
