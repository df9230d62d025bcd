# What all twins share: the door for changes, recency, and finding a collection.
from libc.stdint cimport int64_t
from zeekdb.hot.keyspace cimport G, ks_create, ks_find, ks_read
from zeekdb.hot.notes cimport note_key
from zeekdb.hot.table cimport Entry, entry_box, entry_type
from zeekdb.hot.wire cimport TWIN_DONE, TWIN_PASS, Arg, Port

cdef inline void changed(Port* port, Arg* key, int64_t count) noexcept nogil:
    """The journal's door for twins: they run only while nobody wants to know what has happened to every key."""
    G.dirty += count
    note_key(port.db.index, key.p, key.n, key.hash)

cdef inline void touch(Entry* e) noexcept nogil:
    """What a write does to the recency of a key that stays; the LFU counter is left to reads."""
    if not G.touch_lfu:
        e.meta = (e.meta & 0xFF000000U) | G.clock

cdef inline int collection(Port* port, Arg* key, int type, bint create, bint reads, void** found) noexcept nogil:
    """TWIN_PASS on another type; otherwise *found is the structure, NULL when absent and not to be created."""
    cdef Entry* e
    if reads:
        e = ks_read(port.db, key.p, key.n, key.hash)
    else:
        e = ks_find(port.db, key.p, key.n, key.hash)
    found[0] = NULL
    if e == NULL:
        if create:
            found[0] = ks_create(port.db, key.p, key.n, key.hash, type)
        return TWIN_DONE
    if entry_type(e) != type:
        if reads:
            G.hits -= 1
        return TWIN_PASS
    if not reads:
        touch(e)
    found[0] = entry_box(e)
    return TWIN_DONE
