# What twins share. See twins.pyx.
from libc.stdint cimport int64_t, uint8_t
from zeekdb.hot.journal cimport J, journal_command, journal_int, journal_literal, journal_word
from zeekdb.hot.keyspace cimport G, entry_string, ks_create, ks_find, ks_read
from zeekdb.hot.memory cimport Blob
from zeekdb.hot.notes cimport note_key
from zeekdb.hot.recency cimport touch_entry
from zeekdb.hot.table cimport BOXED, Entry, entry_box, entry_type
from zeekdb.hot.wire cimport (
    TWIN_DONE, TWIN_PASS, Arg, Out, Port, format_double, out_blob, out_bulk, out_raw, parse_double, parse_int,
)

cdef extern from *:
    """
    #define ZEEK_TTL_MAX 4000000000000ll
    """
    const int64_t TTL_MAX "ZEEK_TTL_MAX"  # longer times to live, in either unit, go the long way, which checks them

cdef inline bint word_is(Arg* arg, const char* upper, size_t n) noexcept nogil:
    cdef size_t i
    if arg.n != n:
        return False
    for i in range(n):
        if (arg.p[i] & 0xDF) != <uint8_t>upper[i]:
            return False
    return True

cdef inline void changed(Port* port, Arg* key, int64_t count) noexcept nogil:
    """The journal's door for twins: they run only while nobody wants to know what has happened to every key."""
    G.dirty += count
    note_key(port.db.index, key.p, key.n, key.hash)

cdef inline void tell_deadline(int db, Arg* key, int64_t deadline_ms) noexcept nogil:
    """A relative time to live as a moment, if anybody listens."""
    if J.open:
        journal_command(db, 3)
        journal_literal(b"PEXPIREAT")
        journal_word(key.p, key.n)
        journal_int(deadline_ms)

cdef inline void tell_set(int db, Arg* key, Arg* value, int64_t deadline_ms) noexcept nogil:
    if J.open:
        journal_command(db, 5)
        journal_literal(b"SET")
        journal_word(key.p, key.n)
        journal_word(value.p, value.n)
        journal_literal(b"PXAT")
        journal_int(deadline_ms)

cdef inline void say_string(Port* port, Entry* e) noexcept nogil:
    cdef size_t n
    cdef const uint8_t* p
    if e.flags & BOXED:
        out_blob(&port.out, <Blob*>entry_box(e))
    else:
        p = entry_string(e, &n)
        out_bulk(&port.out, p, n)

cdef inline void emit_bulk(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    out_bulk(<Out*>arg, p, n)

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
        touch_entry(e)
    found[0] = entry_box(e)
    return TWIN_DONE

cdef inline bint parse_score(Arg* arg, double* score) noexcept nogil:
    cdef int64_t whole
    if arg.n < 16 and parse_int(arg.p, arg.n, &whole):
        score[0] = <double>whole
        return True
    return parse_double(arg.p, arg.n, score)

cdef inline void out_score(Port* port, double score) noexcept nogil:
    cdef uint8_t text[40]
    cdef size_t n = format_double(text, score)
    if port.protocol == 3:
        out_raw(&port.out, b",", 1)
        out_raw(&port.out, <char*>text, n)
        out_raw(&port.out, b"\r\n", 2)
    else:
        out_bulk(&port.out, text, n)

cdef inline bint bounds(Arg* argv, int64_t length, int64_t* start, int64_t* stop) noexcept nogil:
    """Redis's start and stop, normalised to 0 <= start <= stop < length, or start > stop for nothing."""
    if not parse_int(argv[0].p, argv[0].n, start) or not parse_int(argv[1].p, argv[1].n, stop):
        return False
    if start[0] < 0:
        start[0] = start[0] + length if start[0] >= -length else 0
    if stop[0] < 0:
        stop[0] = stop[0] + length if stop[0] >= -length else -1
    if stop[0] >= length:
        stop[0] = length - 1
    return True
