"""The stream commands' twins: XADD without options, its id `*` or whole, and XLEN. What twins promise: twins.pyx."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from zeekdb.hot.keyspace cimport G, ks_create, ks_find
from zeekdb.hot.streamlog cimport TOTAL_MAX, Id, Log, id_compare, log_append, log_next
from zeekdb.hot.table cimport T_STREAM, Entry, entry_box, entry_type
from zeekdb.hot.twin_support cimport changed, collection, touch
from zeekdb.hot.wire cimport TWIN_DONE, TWIN_PASS, Arg, Port, format_int, out_bulk, out_int, parse_int


cdef inline bint parse_id(const Arg* arg, Id* id) noexcept nogil:
    """`ms-seq` or `ms` in plain numbers; False for whatever else may be an id, an option or a mistake."""
    cdef size_t i = 0
    cdef int64_t ms, seq = 0
    while i < arg.n and arg.p[i] != 45:
        i += 1
    if not parse_int(arg.p, i, &ms):
        return False
    if i < arg.n and (not parse_int(arg.p + i + 1, arg.n - i - 1, &seq) or seq < 0):
        return False
    id.ms = <uint64_t>ms
    id.seq = <uint64_t>seq
    return True


cdef int twin_xadd(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef Arg* key = &argv[1]
    cdef bint given = argv[2].n != 1 or argv[2].p[0] != 42
    cdef Entry* e
    cdef Log* log
    cdef Id id
    cdef uint8_t text[48]
    cdef size_t n, total = 0
    cdef int i
    if not argc & 1 or (given and not parse_id(&argv[2], &id)):
        return TWIN_PASS
    for i in range(3, argc):
        total += argv[i].n
    if total > TOTAL_MAX:
        return TWIN_PASS
    e = ks_find(port.db, key.p, key.n, key.hash)
    if e == NULL:
        if given and id.ms == 0 and id.seq == 0:
            return TWIN_PASS
        log = <Log*>ks_create(port.db, key.p, key.n, key.hash, T_STREAM)
    else:
        if entry_type(e) != T_STREAM:
            return TWIN_PASS
        log = <Log*>entry_box(e)
    if given:
        if id_compare(&id, &log.last) <= 0:
            return TWIN_PASS
    elif not log_next(log, <uint64_t>G.now_ms, &id) or id.ms > <uint64_t>INT64_MAX or id.seq > <uint64_t>INT64_MAX:
        return TWIN_PASS
    if e != NULL:
        touch(e)
    log_append(log, &id, argv + 3, (argc - 3) // 2)
    changed(port, key, 1)
    n = format_int(text, <int64_t>id.ms)
    text[n] = 45
    n += 1
    n += format_int(text + n, <int64_t>id.seq)
    out_bulk(&port.out, text, n)
    return TWIN_DONE


cdef int twin_xlen(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    if collection(port, &argv[1], T_STREAM, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    out_int(&port.out, (<Log*>found).length if found != NULL else 0)
    return TWIN_DONE
