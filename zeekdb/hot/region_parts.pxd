# What the doors to the region's index share: spaces by number, blocks by a Python key.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from zeekdb.hot.blocks cimport RG, Space, block_find, block_find_any
from zeekdb.hot.table cimport Entry, entry_key


cdef inline Space* space_at(uint32_t index) except NULL:
    if index >= RG.nspaces or RG.spaces[index] == NULL:
        raise IndexError("no such space")
    return RG.spaces[index]


cdef inline Entry* find(Space* space, bytes key) noexcept:
    return block_find(space, <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))


cdef inline Entry* find_any(Space* space, bytes key) noexcept:
    return block_find_any(space, <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))


cdef inline bytes key_of(Entry* e):
    cdef size_t n = 0
    cdef const uint8_t* p = entry_key(e, &n)
    return PyBytes_FromStringAndSize(<const char*>p, n)
