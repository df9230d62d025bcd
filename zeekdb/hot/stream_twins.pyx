"""The stream commands' twins: XADD with no option but MAXLEN, its id `*` or whole, and XLEN.

What twins promise: twins.pyx.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from zeekdb.hot.journal cimport J, journal_command, journal_int, journal_literal, journal_word
from zeekdb.hot.keyspace cimport G, ks_create, ks_find
from zeekdb.hot.streamlog cimport TOTAL_MAX, Id, Log, id_compare, log_append, log_entries_max, log_next, log_trim
from zeekdb.hot.recency cimport touch_entry
from zeekdb.hot.table cimport T_STREAM, Entry, entry_box, entry_type
from zeekdb.hot.twin_parts cimport changed, collection
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


cdef inline bint is_maxlen(const Arg* arg) noexcept nogil:
    cdef int i
    cdef const char* word = b"MAXLEN"
    if arg.n != 6:
        return False
    for i in range(6):
        if arg.p[i] & 0xDF != <uint8_t>word[i]:
            return False
    return True


cdef inline uint64_t trim_limit() noexcept nogil:
    """What `~` without LIMIT removes at most: as in commands/stream_words.py."""
    cdef uint64_t wanted = 100 * log_entries_max()
    return 10000 if wanted == 0 else 1000000 if wanted > 1000000 else wanted


cdef int parse_maxlen(Arg* argv, int argc, int64_t* length, bint* whole) noexcept nogil:
    """How many words `MAXLEN [~|=] n` takes, which leave room for an entry; 0 for the handler's to judge."""
    cdef int at = 1
    whole[0] = False
    if argv[1].n == 1 and (argv[1].p[0] == 126 or argv[1].p[0] == 61):
        whole[0] = argv[1].p[0] == 126
        at = 2
    if argc < at + 4 or not parse_int(argv[at].p, argv[at].n, length) or length[0] < 0:
        return 0
    return at + 1


cdef int twin_xadd(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef Arg* key = &argv[1]
    cdef int64_t length = -1
    cdef bint whole = False
    cdef int words
    if is_maxlen(&argv[2]):
        words = parse_maxlen(argv + 2, argc - 2, &length, &whole)
        if words == 0:
            return TWIN_PASS
        argv += words
        argc -= words
    return add(port, key, argv, argc, length, whole)


cdef void tell_added(
    int db, Arg* key, const uint8_t* id, size_t n, Arg* fields, int nfields, int64_t length, uint64_t left,
) noexcept nogil:
    """The entry with its id, and what trimming has left exactly."""
    cdef int i
    journal_command(db, 3 + nfields + (3 if length >= 0 else 0))
    journal_literal(b"XADD")
    journal_word(key.p, key.n)
    if length >= 0:
        journal_literal(b"MAXLEN")
        journal_literal(b"=")
        journal_int(<int64_t>left)
    journal_word(id, n)
    for i in range(nfields):
        journal_word(fields[i].p, fields[i].n)


cdef inline int add(Port* port, Arg* key, Arg* argv, int argc, int64_t length, bint whole) noexcept nogil:
    """The id stands at argv[2], the fields behind it. Length -1: no trimming."""
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
        touch_entry(e)
    log_append(log, &id, argv + 3, (argc - 3) // 2)
    if length >= 0 and log.length > <uint64_t>length:
        log_trim(log, <uint64_t>length, NULL, whole, trim_limit() if whole else 0)
    changed(port, key, 1)
    n = format_int(text, <int64_t>id.ms)
    text[n] = 45
    n += 1
    n += format_int(text + n, <int64_t>id.seq)
    if J.open:
        tell_added(port.db.index, key, text, n, argv + 3, argc - 3, length, log.length)
    out_bulk(&port.out, text, n)
    return TWIN_DONE


cdef int twin_xlen(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    if collection(port, &argv[1], T_STREAM, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    out_int(&port.out, (<Log*>found).length if found != NULL else 0)
    return TWIN_DONE
