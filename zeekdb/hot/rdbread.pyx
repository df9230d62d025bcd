"""Redis's serialisation to values, straight into the structures.

Everything that Redis up to 7.4 has written is read, and nothing of it is trusted: a payload may come from anybody. No
allocation is larger than a fixed multiple of the bytes that are there, whatever the lengths in them promise. What would
make a structure that cannot be (a member twice, a score that is no number, a sorted set out of order, half a pair) is
refused, in the small forms too, where nothing else would notice.

A small collection is first packed into the reader's `run`, in the form in which hashes, sets and sorted sets keep theirs.
If the limits allow, the structure takes over a copy of it; otherwise the elements are inserted one by one.
"""

from libc.math cimport isnan
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from zeekdb.hot.hash_deadlines cimport Timed, timed_begin, timed_expect, timed_of, timed_put, timed_set
from zeekdb.hot.hashes cimport hash_adopt, hash_expect, hash_put
from zeekdb.hot.intset cimport ints_load
from zeekdb.hot.lists cimport list_length, list_push
from zeekdb.hot.memory cimport Blob, blob_new, blob_release
from zeekdb.hot.packed cimport Packed, packed_read, packed_write
from zeekdb.hot.packs cimport LISTPACK, ZIPLIST, ZIPMAP, Pack, PackKind, Piece, fill_run, open_pack, pack_next
from zeekdb.hot.rdbobjects cimport object_read
from zeekdb.hot.rdbtypes cimport (
    RDB_HASH, RDB_HASH_LISTPACK, RDB_HASH_LISTPACK_TTL, RDB_HASH_LISTPACK_TTL_EARLY, RDB_HASH_TTL, RDB_HASH_TTL_EARLY,
    RDB_HASH_ZIPLIST, RDB_HASH_ZIPMAP, RDB_LIST, RDB_LIST_QUICKLIST, RDB_LIST_QUICKLIST_2, RDB_LIST_ZIPLIST,
    RDB_MODULE_2, RDB_SET, RDB_SET_INTSET, RDB_SET_LISTPACK, RDB_STREAM, RDB_STREAM_2, RDB_STREAM_3, RDB_STRING,
    RDB_ZSET, RDB_ZSET_2, RDB_ZSET_LISTPACK, RDB_ZSET_ZIPLIST,
)
from zeekdb.hot.rdbstreams cimport stream_read
from zeekdb.hot.rdbwire cimport (
    DAMAGED, EMPTY, NO_MEMORY, UNKNOWN, buffer_room, buffer_try, fail, get_byte, get_bytes, get_count, get_double,
    get_fixed, get_length, get_string,
)
from zeekdb.hot.sets cimport set_add, set_adopt, set_adopt_ints, set_expect
from zeekdb.hot.shards cimport ks_put, type_ops
from zeekdb.hot.table cimport (
    BOXED, FIELDS_EXPIRE, INLINE_MAX, T_HASH, T_LIST, T_OBJECT, T_SET, T_STREAM, T_STRING, T_ZSET, hash_bytes,
)
from zeekdb.hot.wire cimport format_int, parse_double, parse_int
from zeekdb.hot.zrun cimport pair_need, read_pair, score_write
from zeekdb.hot.zsets cimport ZADD_ADDED, zset_add, zset_adopt
from zeekdb.hot.ztree cimport order

cdef enum:
    PLAIN = 1               # a quicklist's node that is one element
    PACKED = 2
    ELEMENT_MAX = 1 << 31   # bytes of a list's element: chunks count with 32 bits
    FEW = 8                 # elements that are compared each with each
    NAN_SCORE = 253         # scores as text: lengths that are none
    PLUS_INFINITY = 254
    MINUS_INFINITY = 255
    WHEN_BITS = 48          # of a field's deadline


cdef bint rdb_read(Reader* r, uint8_t type, Value* v) noexcept nogil:
    cdef bint done
    v.box = NULL
    v.flags = BOXED
    if type == RDB_STRING:
        return read_string(r, v)
    if type == RDB_LIST or type == RDB_LIST_ZIPLIST or type == RDB_LIST_QUICKLIST or type == RDB_LIST_QUICKLIST_2:
        done = read_list(r, type, begin(v, T_LIST))
    elif type == RDB_SET:
        done = read_set(r, begin(v, T_SET))
    elif type == RDB_SET_INTSET:
        done = read_intset(r, begin(v, T_SET))
    elif type == RDB_SET_LISTPACK:
        done = read_set_pack(r, begin(v, T_SET))
    elif type == RDB_ZSET or type == RDB_ZSET_2:
        done = read_zset(r, begin(v, T_ZSET), type == RDB_ZSET_2)
    elif type == RDB_ZSET_ZIPLIST or type == RDB_ZSET_LISTPACK:
        done = read_zset_pack(r, begin(v, T_ZSET), LISTPACK if type == RDB_ZSET_LISTPACK else ZIPLIST)
    elif type == RDB_HASH:
        done = read_hash(r, begin(v, T_HASH))
    elif type == RDB_HASH_ZIPMAP or type == RDB_HASH_ZIPLIST or type == RDB_HASH_LISTPACK:
        done = read_hash_pack(r, begin(v, T_HASH), hash_kind(type))
    elif type == RDB_HASH_TTL or type == RDB_HASH_TTL_EARLY:
        done = read_timed(r, begin_timed(v), type == RDB_HASH_TTL)
    elif type == RDB_HASH_LISTPACK_TTL or type == RDB_HASH_LISTPACK_TTL_EARLY:
        done = read_timed_pack(r, begin_timed(v), type == RDB_HASH_LISTPACK_TTL)
    elif type == RDB_STREAM or type == RDB_STREAM_2 or type == RDB_STREAM_3:
        done = stream_read(r, type, begin(v, T_STREAM))
    elif type == RDB_MODULE_2:
        v.type = T_OBJECT
        v.box = object_read(r)
        return v.box != NULL
    else:
        return fail(r, UNKNOWN, b"a type that is not known")
    if not done:
        value_drop(v)
    return done


cdef inline PackKind hash_kind(uint8_t type) noexcept nogil:
    if type == RDB_HASH_LISTPACK:
        return LISTPACK
    return ZIPLIST if type == RDB_HASH_ZIPLIST else ZIPMAP


cdef inline void* begin(Value* v, uint8_t type) noexcept nogil:
    v.type = type
    v.box = type_ops(type).create()
    return v.box


cdef inline Timed* begin_timed(Value* v) noexcept nogil:
    begin(v, T_HASH)
    timed_begin(<Packed*>v.box)
    v.flags |= FIELDS_EXPIRE
    return timed_of(<Packed*>v.box)


cdef void value_drop(Value* v) noexcept nogil:
    cdef size_t budget = <size_t>-1
    if v.box == NULL:
        return
    if v.type == T_STRING:
        blob_release(<Blob*>v.box)
    else:
        type_ops(v.type).destroy(v.box, &budget)
    v.box = NULL


cdef Entry* value_store(Value* v, Db* db, const uint8_t* key, size_t n, uint64_t h, int64_t deadline_ms) noexcept nogil:
    cdef Entry* e
    if v.flags & BOXED:
        e = ks_put(db, key, n, h, v.type, <uint8_t*>&v.box, 8, v.flags, deadline_ms)
        v.box = NULL
        return e
    return ks_put(db, key, n, h, T_STRING, v.p, v.n, 0, deadline_ms)


cdef bint read_string(Reader* r, Value* v) noexcept nogil:
    cdef Blob* blob
    v.type = T_STRING
    if not get_string(r, &v.text, 0):
        return False
    v.p = v.text.p
    v.n = v.text.n
    if v.n <= INLINE_MAX:
        v.flags = 0
        return True
    blob = blob_new(v.n)
    memcpy(blob.data, v.p, v.n)
    blob.size = v.n
    v.box = blob
    return True


# --- differing ------------------------------------------------------------------------------------------------------

ctypedef struct Mark:
    const uint8_t* p
    uint64_t hash
    size_t n


cdef bint reader_seen(Reader* r, uint64_t count) noexcept nogil:
    """Makes ready to be shown `count` elements by `is_new`."""
    cdef size_t slots = FEW
    if count > FEW:
        while slots < 2 * count:
            slots *= 2
    r.seen.size = 0
    if not buffer_try(&r.seen, slots * sizeof(Mark)):
        return fail(r, NO_MEMORY, b"no memory to compare elements")
    r.seen.size = slots
    if slots > FEW:
        memset(r.seen.data, 0, slots * sizeof(Mark))
    return True


cdef inline bint is_new(Reader* r, uint64_t place, const uint8_t* p, size_t n) noexcept nogil:
    """Whether element number `place` differs from those before; they have to stay where they are."""
    cdef Mark* marks = <Mark*>r.seen.data
    cdef size_t slots = r.seen.size, i
    cdef uint64_t h
    if slots == FEW:
        for i in range(place):
            if marks[i].n == n and memcmp(marks[i].p, p, n) == 0:
                return False
        marks[place].p = p
        marks[place].n = n
        return True
    h = hash_bytes(p, n)
    i = h & (slots - 1)
    while marks[i].p != NULL:
        if marks[i].hash == h and marks[i].n == n and memcmp(marks[i].p, p, n) == 0:
            return False
        i = (i + 1) & (slots - 1)
    marks[i].p = p
    marks[i].n = n
    marks[i].hash = h
    return True


cdef bint run_differs(Reader* r, uint64_t count, int step) noexcept nogil:
    """Whether the run's strings at 0, step, 2 * step … are all different; there are `count` of them."""
    cdef const uint8_t* at = r.run.data
    cdef uint64_t i
    cdef int k
    cdef size_t n
    if not reader_seen(r, count):
        return False
    for i in range(count):
        at = packed_read(at, &n)
        if not is_new(r, i, at, n):
            return fail(r, DAMAGED, b"an element twice")
        at += n
        for k in range(1, step):
            at = packed_read(at, &n)
            at += n
    return True


# --- lists ----------------------------------------------------------------------------------------------------------

cdef bint push(Reader* r, void* self, const uint8_t* p, size_t n) noexcept nogil:
    if n > ELEMENT_MAX:
        return fail(r, DAMAGED, b"an element that is too long")
    list_push(self, p, n, False)
    return True


cdef bint push_pack(Reader* r, void* self, PackKind kind) noexcept nogil:
    cdef Pack pack
    cdef Piece piece
    cdef int got
    if not open_pack(r, &pack, kind):
        return False
    while True:
        got = pack_next(&pack, &piece)
        if got <= 0:
            return True if got == 0 else fail(r, DAMAGED, b"a damaged packed list")
        if not push(r, self, piece.p, piece.n):
            return False


cdef bint read_list(Reader* r, uint8_t type, void* self) noexcept nogil:
    cdef uint64_t nodes = 1, kind = PACKED, i
    cdef Text text
    if type != RDB_LIST_ZIPLIST and not get_count(r, 1, &nodes):
        return False
    for i in range(nodes):
        if type == RDB_LIST_QUICKLIST_2 and not get_length(r, &kind):
            return False
        if kind != PLAIN and kind != PACKED:
            return fail(r, DAMAGED, b"a list's node of a kind that is not known")
        if type == RDB_LIST or kind == PLAIN:
            if not get_string(r, &text, 0) or not push(r, self, text.p, text.n):
                return False
        elif not push_pack(r, self, LISTPACK if type == RDB_LIST_QUICKLIST_2 else ZIPLIST):
            return False
    return True if list_length(self) else fail(r, EMPTY, b"a list of nothing")


# --- sets -----------------------------------------------------------------------------------------------------------

cdef bint read_set(Reader* r, void* self) noexcept nogil:
    cdef uint64_t members, i
    cdef Text text
    if not get_count(r, 1, &members):
        return False
    for i in range(members):
        if not get_string(r, &text, 0):
            return False
        if text.n > UINT32_MAX:
            return fail(r, DAMAGED, b"a member that is too long")
        if i == 0:
            set_expect(self, members, text.p, text.n)
        if not set_add(self, text.p, text.n):
            return fail(r, DAMAGED, b"a member twice")
    return True if members else fail(r, EMPTY, b"a set of nothing")


cdef bint read_set_pack(Reader* r, void* self) noexcept nogil:
    cdef Pack pack
    cdef uint64_t members, i
    cdef size_t longest, n
    cdef const uint8_t* at
    if not open_pack(r, &pack, LISTPACK) or not fill_run(r, &pack, &members, &longest):
        return False
    if members == 0:
        return fail(r, EMPTY, b"a set of nothing")
    if not run_differs(r, members, 1):
        return False
    if set_adopt(self, r.run.data, r.run.size, members, longest):
        return True
    at = r.run.data
    for i in range(members):
        at = packed_read(at, &n)
        if i == 0:
            set_expect(self, members, at, n)
        set_add(self, at, n)
        at += n
    return True


cdef bint read_intset(Reader* r, void* self) noexcept nogil:
    cdef Text text
    cdef uint8_t[24] digits
    cdef uint32_t width, count, i
    cdef size_t n
    cdef int64_t v, before = 0
    if not get_string(r, &text, 0):
        return False
    if text.n < 8:
        return fail(r, DAMAGED, b"a set of integers without a head")
    memcpy(&width, text.p, 4)
    memcpy(&count, text.p + 4, 4)
    if (width != 2 and width != 4 and width != 8) or text.n - 8 != <size_t>count * width:
        return fail(r, DAMAGED, b"a set of integers of another size than it says")
    if count == 0:
        return fail(r, EMPTY, b"a set of nothing")
    for i in range(count):
        v = ints_load(text.p + 8, width, i)
        if i and v <= before:
            return fail(r, DAMAGED, b"integers that do not ascend")
        before = v
    if set_adopt_ints(self, text.p + 8, width, count):
        return True
    for i in range(count):
        n = format_int(digits, ints_load(text.p + 8, width, i))
        if i == 0:
            set_expect(self, count, digits, n)
        set_add(self, digits, n)
    return True


# --- hashes ---------------------------------------------------------------------------------------------------------

cdef bint read_hash(Reader* r, void* self) noexcept nogil:
    cdef uint64_t pairs, i
    cdef Text f, v
    if not get_count(r, 2, &pairs):
        return False
    hash_expect(self, pairs)
    for i in range(pairs):
        if not get_string(r, &f, 0) or not get_string(r, &v, 1):
            return False
        if f.n > UINT32_MAX:
            return fail(r, DAMAGED, b"a field that is too long")
        if hash_put(self, f.p, f.n, v.p, v.n) != 1:
            return fail(r, DAMAGED, b"a field twice")
    return True if pairs else fail(r, EMPTY, b"a hash of nothing")


cdef bint read_hash_pack(Reader* r, void* self, PackKind kind) noexcept nogil:
    cdef Pack pack
    cdef uint64_t strings, i
    cdef size_t longest, fn, vn
    cdef const uint8_t* f
    cdef const uint8_t* v
    if not open_pack(r, &pack, kind) or not fill_run(r, &pack, &strings, &longest):
        return False
    if strings == 0:
        return fail(r, EMPTY, b"a hash of nothing")
    if strings & 1:
        return fail(r, DAMAGED, b"a field without a value")
    if not run_differs(r, strings // 2, 2):
        return False
    if hash_adopt(self, r.run.data, r.run.size, strings // 2, longest):
        return True
    hash_expect(self, strings // 2)
    v = r.run.data
    vn = 0
    for i in range(strings // 2):
        f = packed_read(v + vn, &fn)
        v = packed_read(f + fn, &vn)
        hash_put(self, f, fn, v, vn)
    return True


cdef bint put_timed(
    Reader* r, Timed* t, const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, uint64_t when_ms,
) noexcept nogil:
    if fn > UINT32_MAX:
        return fail(r, DAMAGED, b"a field that is too long")
    if when_ms >> WHEN_BITS:
        return fail(r, DAMAGED, b"a deadline that is too late")
    if timed_put(t, f, fn, v, vn, False, 0) != 1:  # at time 0 nothing is overdue: that is found out later
        return fail(r, DAMAGED, b"a field twice")
    if when_ms:
        timed_set(t, f, fn, <int64_t>when_ms, 0)
    return True


cdef bint read_timed(Reader* r, Timed* t, bint relative) noexcept nogil:
    """Deadline, field, value; deadlines count from the first one plus 1, or (early) are what they are."""
    cdef uint64_t fields, i, when, first = 1
    cdef Text f, v
    if relative and not get_fixed(r, &first):
        return False
    if first >> WHEN_BITS:
        return fail(r, DAMAGED, b"a deadline that is too late")
    if not get_count(r, 3, &fields):
        return False
    timed_expect(t, fields)
    for i in range(fields):
        if not get_length(r, &when) or not get_string(r, &f, 0) or not get_string(r, &v, 1):
            return False
        if when and when >> WHEN_BITS == 0:
            when += first - 1
        if not put_timed(r, t, f.p, f.n, v.p, v.n, when):
            return False
    return True if fields else fail(r, EMPTY, b"a hash of nothing")


cdef bint read_timed_pack(Reader* r, Timed* t, bint has_first) noexcept nogil:
    cdef Pack pack
    cdef uint64_t strings, first, i
    cdef int64_t when
    cdef size_t longest, fn, vn, wn
    cdef const uint8_t* f
    cdef const uint8_t* v
    cdef const uint8_t* at
    if has_first and not get_fixed(r, &first):
        return False
    if not open_pack(r, &pack, LISTPACK) or not fill_run(r, &pack, &strings, &longest):
        return False
    if strings == 0:
        return fail(r, EMPTY, b"a hash of nothing")
    if strings % 3:
        return fail(r, DAMAGED, b"a field without a value or deadline")
    timed_expect(t, strings // 3)
    at = r.run.data
    for i in range(strings // 3):
        f = packed_read(at, &fn)
        v = packed_read(f + fn, &vn)
        at = packed_read(v + vn, &wn)
        if not parse_int(at, wn, &when) or when < 0:
            return fail(r, DAMAGED, b"a deadline that is none")
        at += wn
        if not put_timed(r, t, f, fn, v, vn, <uint64_t>when):
            return False
    return True


# --- sorted sets ----------------------------------------------------------------------------------------------------

cdef bint get_score(Reader* r, bint binary, double* score) noexcept nogil:
    cdef uint8_t n
    cdef const uint8_t* p
    if binary:
        if not get_double(r, score):
            return False
        return fail(r, DAMAGED, b"a score that is no number") if isnan(score[0]) else True
    if not get_byte(r, &n):
        return False
    if n == PLUS_INFINITY or n == MINUS_INFINITY:
        return parse_double(<const uint8_t*>b"+inf" if n == PLUS_INFINITY else <const uint8_t*>b"-inf", 4, score)
    if n == NAN_SCORE:
        return fail(r, DAMAGED, b"a score that is no number")
    if not get_bytes(r, n, &p):
        return False
    return True if parse_double(p, n, score) else fail(r, DAMAGED, b"a score that is no number")


cdef bint read_zset(Reader* r, void* self, bint binary) noexcept nogil:
    cdef uint64_t members, i
    cdef Text text
    cdef double score, now
    if not get_count(r, 9 if binary else 2, &members):
        return False
    for i in range(members):
        if not get_string(r, &text, 0) or not get_score(r, binary, &score):
            return False
        if text.n > UINT32_MAX:
            return fail(r, DAMAGED, b"a member that is too long")
        if zset_add(self, text.p, text.n, score, 0, &now) != ZADD_ADDED:
            return fail(r, DAMAGED, b"a member twice")
    return True if members else fail(r, EMPTY, b"a sorted set of nothing")


cdef bint fill_scored(Reader* r, Pack* pack, uint64_t* members, size_t* longest) noexcept nogil:
    """Members and scores of a pack as a sorted set's run (zrun.pxd), in the order they have to have."""
    cdef Piece member, value
    cdef double score, score_before = 0
    cdef size_t before = 0, begun, n
    cdef uint8_t* p
    cdef uint8_t* q
    cdef int got
    r.run.size = 0
    members[0] = 0
    longest[0] = 0
    while True:
        got = pack_next(pack, &member)
        if got == 0:
            return True
        if got < 0 or pack_next(pack, &value) != 1:
            return fail(r, DAMAGED, b"a damaged packed sorted set")
        score = <double>value.number
        if not value.is_int and not parse_double(value.p, value.n, &score):
            return fail(r, DAMAGED, b"a score that is no number")
        begun = r.run.size
        p = score_write(buffer_room(&r.run, pair_need(score, member.n)), score)
        packed_write(p, member.p, member.n)
        r.run.size += pair_need(score, member.n)
        if members[0]:
            read_pair(r.run.data + before, &score_before, &q, &n)
            if order(score_before, q, n, score, member.p, member.n) >= 0:
                return fail(r, DAMAGED, b"a sorted set out of order")
        before = begun
        members[0] += 1
        if member.n > longest[0]:
            longest[0] = member.n


cdef bint read_zset_pack(Reader* r, void* self, PackKind kind) noexcept nogil:
    cdef Pack pack
    cdef uint64_t members, i
    cdef size_t longest, n
    cdef double score, now
    cdef uint8_t* at
    cdef uint8_t* p
    if not open_pack(r, &pack, kind) or not fill_scored(r, &pack, &members, &longest):
        return False
    if members == 0:
        return fail(r, EMPTY, b"a sorted set of nothing")
    if not reader_seen(r, members):
        return False
    at = r.run.data
    for i in range(members):
        at = read_pair(at, &score, &p, &n)
        if not is_new(r, i, p, n):
            return fail(r, DAMAGED, b"a member twice")
    if zset_adopt(self, r.run.data, r.run.size, members, longest):
        return True
    at = r.run.data
    for i in range(members):
        at = read_pair(at, &score, &p, &n)
        zset_add(self, p, n, score, 0, &now)
    return True
