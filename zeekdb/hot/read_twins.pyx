"""Twins of commands that only read: what twins.pyx says about twins holds here too."""

from libc.stdint cimport int64_t, uint8_t

from zeekdb.hot.hashes cimport hash_get, hash_length
from zeekdb.hot.keyspace cimport G, entry_string, ks_find
from zeekdb.hot.sets cimport set_length
from zeekdb.hot.recency cimport touch_entry
from zeekdb.hot.table cimport (
    T_HASH, T_LIST, T_SET, T_STREAM, T_STRING, T_ZSET, Entry, entry_type,
)
from zeekdb.hot.twin_parts cimport bounds, collection, emit_bulk, out_score, word_is
from zeekdb.hot.wire cimport (
    TWIN_DONE, TWIN_PASS, Arg, Port, out_bulk, out_int, out_length, out_null, out_raw, parse_int,
)
from zeekdb.hot.zsets cimport zset_length, zset_range, zset_rank


# ---------------------------------------------------------------- keys and strings


cdef int twin_type(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef Entry* e = ks_find(port.db, argv[1].p, argv[1].n, argv[1].hash)
    cdef uint8_t type
    if e == NULL:
        G.misses += 1
        out_raw(&port.out, b"+none\r\n", 7)
        return TWIN_DONE
    type = entry_type(e)
    if type == T_STRING:
        out_raw(&port.out, b"+string\r\n", 9)
    elif type == T_LIST:
        out_raw(&port.out, b"+list\r\n", 7)
    elif type == T_SET:
        out_raw(&port.out, b"+set\r\n", 6)
    elif type == T_ZSET:
        out_raw(&port.out, b"+zset\r\n", 7)
    elif type == T_HASH:
        out_raw(&port.out, b"+hash\r\n", 7)
    elif type == T_STREAM:
        out_raw(&port.out, b"+stream\r\n", 9)
    else:
        return TWIN_PASS  # the object knows what it is called
    G.hits += 1
    return TWIN_DONE


cdef int twin_getrange(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef Entry* e
    cdef int64_t start, stop, length
    cdef size_t n = 0
    cdef const uint8_t* p = NULL
    if not parse_int(argv[2].p, argv[2].n, &start) or not parse_int(argv[3].p, argv[3].n, &stop):
        return TWIN_PASS
    e = ks_find(port.db, argv[1].p, argv[1].n, argv[1].hash)
    if e != NULL:
        if entry_type(e) != T_STRING:
            return TWIN_PASS
        p = entry_string(e, &n)
    length = <int64_t>n
    if n == 0 or (start < 0 and stop < 0 and start > stop):
        out_bulk(&port.out, p, 0)
        return TWIN_DONE
    if start < 0:
        start = start + length if start >= -length else 0
    if stop < 0:
        stop = stop + length if stop >= -length else 0
    elif stop >= length:
        stop = length - 1
    if start > stop:
        out_bulk(&port.out, p, 0)
        return TWIN_DONE
    G.hits += 1
    touch_entry(e)
    out_bulk(&port.out, p + start, stop - start + 1)
    return TWIN_DONE


# ---------------------------------------------------------------- lengths and members


cdef int twin_hlen(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    if collection(port, &argv[1], T_HASH, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    out_int(&port.out, <int64_t>hash_length(found) if found != NULL else 0)
    return TWIN_DONE


cdef int twin_hexists(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef size_t n
    if collection(port, &argv[1], T_HASH, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    out_int(&port.out, found != NULL and hash_get(found, argv[2].p, argv[2].n, &n) != NULL)
    return TWIN_DONE


cdef int twin_hstrlen(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef size_t n = 0
    if collection(port, &argv[1], T_HASH, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    if found != NULL and hash_get(found, argv[2].p, argv[2].n, &n) == NULL:
        n = 0
    out_int(&port.out, <int64_t>n)
    return TWIN_DONE


cdef int twin_scard(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    if collection(port, &argv[1], T_SET, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    out_int(&port.out, <int64_t>set_length(found) if found != NULL else 0)
    return TWIN_DONE


cdef int twin_zcard(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    if collection(port, &argv[1], T_ZSET, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    out_int(&port.out, <int64_t>zset_length(found) if found != NULL else 0)
    return TWIN_DONE


# ---------------------------------------------------------------- sorted sets


cdef inline int rank(Port* port, Arg* argv, int argc, bint reverse) noexcept nogil:
    cdef void* found
    cdef double score
    cdef int64_t place = -1
    if argc != 3 or collection(port, &argv[1], T_ZSET, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    if found != NULL:
        place = zset_rank(found, argv[2].p, argv[2].n, reverse, &score)
    if place < 0:
        out_null(&port.out, port.protocol)
    else:
        out_int(&port.out, place)
    return TWIN_DONE


cdef int twin_zrank(Port* port, Arg* argv, int argc) noexcept nogil:
    return rank(port, argv, argc, False)


cdef int twin_zrevrank(Port* port, Arg* argv, int argc) noexcept nogil:
    return rank(port, argv, argc, True)


cdef void emit_member(const uint8_t* p, size_t n, double score, void* arg) noexcept nogil:
    emit_bulk(p, n, &(<Port*>arg).out)


cdef void emit_scored(const uint8_t* p, size_t n, double score, void* arg) noexcept nogil:
    cdef Port* port = <Port*>arg
    if port.protocol == 3:
        out_length(&port.out, 42, 2)
    emit_bulk(p, n, &port.out)
    out_score(port, score)


cdef inline int ranks(Port* port, Arg* argv, int argc, bint reverse) noexcept nogil:
    """ZRANGE by rank, with or without scores; every other option goes the long way."""
    cdef void* found
    cdef int64_t start, stop
    cdef bint scores = argc == 5
    if argc > 5 or (scores and not word_is(&argv[4], b"WITHSCORES", 10)):
        return TWIN_PASS
    if not parse_int(argv[2].p, argv[2].n, &start) or not parse_int(argv[3].p, argv[3].n, &stop):
        return TWIN_PASS
    if collection(port, &argv[1], T_ZSET, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    bounds(&argv[2], <int64_t>zset_length(found) if found != NULL else 0, &start, &stop)
    if found == NULL or start > stop:
        out_length(&port.out, 42, 0)
        return TWIN_DONE
    out_length(&port.out, 42, (stop - start + 1) * (2 if scores and port.protocol != 3 else 1))
    zset_range(found, start, stop, reverse, emit_scored if scores else emit_member, port)
    return TWIN_DONE


cdef int twin_zrange(Port* port, Arg* argv, int argc) noexcept nogil:
    return ranks(port, argv, argc, False)


cdef int twin_zrevrange(Port* port, Arg* argv, int argc) noexcept nogil:
    return ranks(port, argv, argc, True)


cdef Twin find(bytes name):
    """The twin called `name`; NULL when there is none."""
    if name == b"type":
        return twin_type
    if name == b"getrange":
        return twin_getrange
    if name == b"hlen":
        return twin_hlen
    if name == b"hexists":
        return twin_hexists
    if name == b"hstrlen":
        return twin_hstrlen
    if name == b"scard":
        return twin_scard
    if name == b"zcard":
        return twin_zcard
    if name == b"zrank":
        return twin_zrank
    if name == b"zrevrank":
        return twin_zrevrank
    if name == b"zrange":
        return twin_zrange
    if name == b"zrevrange":
        return twin_zrevrange
    return NULL
