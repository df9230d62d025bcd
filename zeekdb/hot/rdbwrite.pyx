"""Values to Redis's serialisation, straight from the structures: no Python object is made.

What is written is what redis-server 7.0 reads (RDB 10), but for hashes with fields that expire: these take 7.4. A small
collection becomes the packed form of its type, a large one a count and its elements; large sorted sets go from the
greatest to the least, which redis-server loads fastest.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.hash_deadlines cimport Timed, overdue, timed_walk
from zeekdb.hot.hashes cimport hash_is_large, hash_length, hash_timed, hash_walk
from zeekdb.hot.keyspace cimport G, entry_string
from zeekdb.hot.lists cimport ListValue, list_length, list_range
from zeekdb.hot.packs cimport listpack_add, listpack_add_int, listpack_add_text, listpack_begin, listpack_end
from zeekdb.hot.rdbobjects cimport object_write
from zeekdb.hot.rdbtypes cimport (
    RDB_HASH, RDB_HASH_LISTPACK, RDB_HASH_TTL, RDB_LIST_QUICKLIST_2, RDB_MODULE_2, RDB_SET, RDB_SET_INTSET,
    RDB_STREAM_2, RDB_STREAM_3, RDB_STRING, RDB_ZSET_2, RDB_ZSET_LISTPACK,
)
from zeekdb.hot.rdbstreams cimport stream_write
from zeekdb.hot.rdbwire cimport (
    Buffer, buffer_put, buffer_room, put_blob, put_double, put_fixed, put_length, put_string,
)
from zeekdb.hot.sets cimport set_ints, set_length, set_walk
from zeekdb.hot.table cimport FIELDS_EXPIRE, T_HASH, T_LIST, T_OBJECT, T_SET, T_STREAM, T_STRING, T_ZSET, entry_box, entry_type
from zeekdb.hot.wire cimport spell_double
from zeekdb.hot.zsets cimport zset_is_large, zset_length, zset_range

cdef enum:
    PLAIN = 1               # a list's node that is one element
    PACKED = 2              # a listpack
    PLAIN_MIN = 1 << 30     # bytes of an element that a listpack is no place for


cdef inline bint has_deadlines(void* hash) noexcept nogil:
    cdef Timed* t = hash_timed(hash)
    return t != NULL and t.next_ms != 0


cdef uint8_t rdb_type(const Writer* w, const Entry* e) noexcept nogil:
    cdef uint8_t type = entry_type(e)
    cdef uint32_t width
    cdef uint64_t members
    if type == T_STRING:
        return RDB_STRING
    if type == T_LIST:
        return RDB_LIST_QUICKLIST_2
    if type == T_SET:
        return RDB_SET_INTSET if set_ints(entry_box(e), &width, &members) != NULL else RDB_SET
    if type == T_ZSET:
        return RDB_ZSET_2 if zset_is_large(entry_box(e)) else RDB_ZSET_LISTPACK
    if type == T_HASH and has_deadlines(entry_box(e)):
        return RDB_HASH_TTL
    if type == T_HASH:
        return RDB_HASH if hash_is_large(entry_box(e)) else RDB_HASH_LISTPACK
    if type == T_STREAM:
        return RDB_STREAM_3 if w.modern else RDB_STREAM_2
    return RDB_MODULE_2


cdef bint rdb_is_empty(const Entry* e) noexcept nogil:
    cdef uint64_t fields = 0
    if not e.flags & FIELDS_EXPIRE or not has_deadlines(entry_box(e)):
        return False
    timed_walk(hash_timed(entry_box(e)), count_field, &fields)
    return fields == 0


cdef bint rdb_write(Writer* w, const Entry* e) noexcept nogil:
    cdef uint8_t type = entry_type(e)
    cdef size_t n
    cdef const uint8_t* p
    if type == T_STRING:
        p = entry_string(e, &n)
        put_string(w, p, n)
    elif type == T_LIST:
        write_list(w, entry_box(e))
    elif type == T_SET:
        write_set(w, entry_box(e))
    elif type == T_ZSET:
        write_zset(w, entry_box(e))
    elif type == T_HASH:
        write_hash(w, entry_box(e))
    elif type == T_STREAM:
        stream_write(w, entry_box(e))
    elif type == T_OBJECT:
        return object_write(w, entry_box(e))
    else:
        return False
    return True


# --- lists ----------------------------------------------------------------------------------------------------------

ctypedef struct Nodes:
    Writer* w
    ListValue* v
    uint32_t chunk          # whose elements are written
    uint32_t left           # of them


cdef void write_element(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    """An element of a list, whose chunks are the nodes."""
    cdef Nodes* nodes = <Nodes*>arg
    cdef uint32_t count = nodes.v.chunks[nodes.v.first + nodes.chunk].count
    cdef Buffer* pack = &nodes.w.pack
    if n >= PLAIN_MIN and count == 1:
        put_length(nodes.w, PLAIN)
        put_blob(nodes.w, p, n)
        nodes.left = 0
    else:
        if nodes.left == 0:
            listpack_begin(pack)
            nodes.left = count
        listpack_add(pack, p, n)
        nodes.left -= 1
        if nodes.left == 0:
            listpack_end(pack, count)
            put_length(nodes.w, PACKED)
            put_blob(nodes.w, pack.data, pack.size)
    if nodes.left == 0:
        nodes.chunk += 1


cdef void write_list(Writer* w, void* self) noexcept nogil:
    cdef Nodes nodes
    nodes.w = w
    nodes.v = <ListValue*>self
    nodes.chunk = 0
    nodes.left = 0
    put_length(w, nodes.v.used)
    list_range(self, 0, <int64_t>list_length(self) - 1, write_element, &nodes)


# --- hashes and sets ------------------------------------------------------------------------------------------------

cdef void pack_pair(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil:
    listpack_add(&(<Writer*>arg).pack, f, fn)
    listpack_add(&(<Writer*>arg).pack, v, vn)


cdef void write_pair(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil:
    put_string(<Writer*>arg, f, fn)
    put_string(<Writer*>arg, v, vn)


cdef void count_field(
    const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, int64_t when_ms, void* arg,
) noexcept nogil:
    (<uint64_t*>arg)[0] += not overdue(when_ms, G.now_ms)


ctypedef struct TimedWriter:
    Writer* w
    int64_t first_ms


cdef void write_timed_pair(
    const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, int64_t when_ms, void* arg,
) noexcept nogil:
    cdef TimedWriter* to = <TimedWriter*>arg
    if overdue(when_ms, G.now_ms):
        return
    put_length(to.w, <uint64_t>(when_ms - to.first_ms + 1) if when_ms else 0)
    put_string(to.w, f, fn)
    put_string(to.w, v, vn)


cdef void write_timed(Writer* w, Timed* t) noexcept nogil:
    """The first deadline, then every field after its own deadline, counted from there; 0 for none."""
    cdef TimedWriter to
    cdef uint64_t fields = 0
    to.w = w
    to.first_ms = t.next_ms
    timed_walk(t, count_field, &fields)
    put_fixed(w, <uint64_t>t.next_ms)
    put_length(w, fields)
    timed_walk(t, write_timed_pair, &to)


cdef void write_hash(Writer* w, void* self) noexcept nogil:
    if has_deadlines(self):
        write_timed(w, hash_timed(self))
        return
    if hash_is_large(self):
        put_length(w, hash_length(self))
        hash_walk(self, write_pair, w)
        return
    listpack_begin(&w.pack)
    hash_walk(self, pack_pair, w)
    listpack_end(&w.pack, 2 * hash_length(self))
    put_blob(w, w.pack.data, w.pack.size)


cdef bint write_member(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    put_string(<Writer*>arg, p, n)
    return False


cdef void write_set(Writer* w, void* self) noexcept nogil:
    cdef uint32_t width, count
    cdef uint64_t members
    cdef const uint8_t* ints = set_ints(self, &width, &members)
    if ints == NULL:
        put_length(w, set_length(self))
        set_walk(self, write_member, w)
        return
    count = <uint32_t>members
    w.pack.size = 0
    buffer_put(&w.pack, &width, 4)
    buffer_put(&w.pack, &count, 4)
    buffer_put(&w.pack, ints, members * width)
    put_blob(w, w.pack.data, w.pack.size)


# --- sorted sets ----------------------------------------------------------------------------------------------------

cdef void pack_scored(const uint8_t* p, size_t n, double score, void* arg) noexcept nogil:
    cdef Writer* w = <Writer*>arg
    cdef uint8_t[40] text
    listpack_add(&w.pack, p, n)
    if -9e18 < score < 9e18 and <double><int64_t>score == score and not (score == 0 and 1.0 / score < 0):
        listpack_add_int(&w.pack, <int64_t>score)
    else:
        listpack_add_text(&w.pack, text, spell_double(text, score))


cdef void write_scored(const uint8_t* p, size_t n, double score, void* arg) noexcept nogil:
    put_string(<Writer*>arg, p, n)
    put_double(<Writer*>arg, score)


cdef void write_zset(Writer* w, void* self) noexcept nogil:
    cdef uint64_t members = zset_length(self)
    if zset_is_large(self):
        put_length(w, members)
        zset_range(self, 0, <int64_t>members - 1, True, write_scored, w)
        return
    listpack_begin(&w.pack)
    zset_range(self, 0, <int64_t>members - 1, False, pack_scored, w)
    listpack_end(&w.pack, 2 * members)
    put_blob(w, w.pack.data, w.pack.size)
