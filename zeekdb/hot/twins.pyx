"""The hot commands' twins: the common form of a command, on C structures only.

A twin answers exactly what the Python handler of the same name would answer; whatever is uncommon (an option, a wrong
type, a malformed number) it passes to the handler with TWIN_PASS before it has changed or written anything. The tests
drive both with the same commands. A twin runs only while nobody listens to the journal, so it just counts the change.
"""

from libc.stdint cimport INT64_MIN, int64_t, uint8_t
from libc.string cimport memcpy

from zeekdb.hot cimport read_twins
from zeekdb.hot.hashes cimport hash_expect, hash_get, hash_put
from zeekdb.hot.journal cimport J, journal_command, journal_literal, journal_word
from zeekdb.hot.keyspace cimport (
    G, entry_string, ks_create, ks_deadline, ks_delete, ks_expire_at, ks_find, ks_read, ks_set, ks_set_blob,
)
from zeekdb.hot.kv_twins cimport twin_kv_exists
from zeekdb.hot.lists cimport list_index, list_length, list_pop, list_push, list_range
from zeekdb.hot.sets cimport set_add, set_contains, set_expect, set_length, set_pop
from zeekdb.hot.stream_twins cimport twin_xadd, twin_xlen
from zeekdb.hot.recency cimport touch_entry
from zeekdb.hot.table cimport BOXED, T_HASH, T_LIST, T_SET, T_STRING, T_ZSET, Entry, entry_type
from zeekdb.hot.twin_parts cimport (
    TTL_MAX, bounds, changed, collection, emit_bulk, out_score, parse_score, say_string, tell_deadline, tell_set,
    word_is,
)
from zeekdb.hot.wire cimport (
    TWIN_DONE, TWIN_PASS, Arg, Out, Port, format_int, out_bulk, out_int, out_length, out_null, out_raw, out_room, parse_int,
)
from zeekdb.hot.zsets cimport ZADD_ADDED, ZADD_INCR, ZADD_NAN, ZADD_UPDATED, zset_add, zset_length, zset_pop, zset_score


cdef extern from *:
    bint __builtin_add_overflow(int64_t a, int64_t b, int64_t* sum) nogil


cdef inline void say_ok(Port* port) noexcept nogil:
    out_raw(&port.out, b"+OK\r\n", 5)


# ---------------------------------------------------------------- strings


cdef int twin_ping(Port* port, Arg* argv, int argc) noexcept nogil:
    if argc != 1:
        return TWIN_PASS
    out_raw(&port.out, b"+PONG\r\n", 7)
    return TWIN_DONE


cdef int twin_echo(Port* port, Arg* argv, int argc) noexcept nogil:
    out_bulk(&port.out, argv[1].p, argv[1].n)
    return TWIN_DONE


cdef int twin_get(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef Entry* e = ks_read(port.db, argv[1].p, argv[1].n, argv[1].hash)
    if e == NULL:
        out_null(&port.out, port.protocol)
        return TWIN_DONE
    if entry_type(e) != T_STRING:
        G.hits -= 1  # the handler counts it
        return TWIN_PASS
    say_string(port, e)
    return TWIN_DONE


cdef inline void store(Port* port, Arg* key, Arg* value, int64_t deadline_ms) noexcept nogil:
    if value.blob != NULL:
        ks_set_blob(port.db, key.p, key.n, key.hash, value.blob, deadline_ms)
        value.blob = NULL  # adopted
    else:
        ks_set(port.db, key.p, key.n, key.hash, value.p, value.n, deadline_ms)
    if deadline_ms:
        tell_set(port.db.index, key, value, deadline_ms)
    changed(port, key, 1)


cdef int twin_set(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef int64_t number
    if argc == 3:
        store(port, &argv[1], &argv[2], 0)
    elif argc == 5 and parse_int(argv[4].p, argv[4].n, &number) and 0 < number < TTL_MAX:
        if word_is(&argv[3], b"EX", 2):
            store(port, &argv[1], &argv[2], G.now_ms + number * 1000)
        elif word_is(&argv[3], b"PX", 2):
            store(port, &argv[1], &argv[2], G.now_ms + number)
        else:
            return TWIN_PASS
    else:
        return TWIN_PASS
    say_ok(port)
    return TWIN_DONE


cdef int twin_setex(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef int64_t seconds
    if not parse_int(argv[2].p, argv[2].n, &seconds) or not 0 < seconds < TTL_MAX:
        return TWIN_PASS
    store(port, &argv[1], &argv[3], G.now_ms + seconds * 1000)
    say_ok(port)
    return TWIN_DONE


cdef int twin_setnx(Port* port, Arg* argv, int argc) noexcept nogil:
    if ks_find(port.db, argv[1].p, argv[1].n, argv[1].hash) != NULL:
        out_int(&port.out, 0)
        return TWIN_DONE
    store(port, &argv[1], &argv[2], 0)
    out_int(&port.out, 1)
    return TWIN_DONE


cdef int add_to(Port* port, Arg* key, int64_t by) noexcept nogil:
    """INCR's family: the stored text is the number, so that reads need no conversion."""
    cdef Entry* e = ks_find(port.db, key.p, key.n, key.hash)
    cdef int64_t value = 0
    cdef uint8_t text[24]
    cdef const uint8_t* p
    cdef uint8_t* at
    cdef size_t n, old = 0
    if e != NULL:
        if entry_type(e) != T_STRING:
            return TWIN_PASS
        p = entry_string(e, &old)
        if not parse_int(p, old, &value):
            return TWIN_PASS
    if __builtin_add_overflow(value, by, &value):
        return TWIN_PASS
    n = format_int(text, value)
    if e != NULL and n == old and not e.flags & BOXED:
        memcpy(<uint8_t*>p, text, n)
        touch_entry(e)
    else:
        ks_set(port.db, key.p, key.n, key.hash, text, n, -1)
    changed(port, key, 1)
    at = out_room(&port.out, 26)
    at[0] = 58
    memcpy(at + 1, text, n)
    at[n + 1] = 13
    at[n + 2] = 10
    port.out.size += n + 3
    return TWIN_DONE


cdef int twin_incr(Port* port, Arg* argv, int argc) noexcept nogil:
    return add_to(port, &argv[1], 1)


cdef int twin_decr(Port* port, Arg* argv, int argc) noexcept nogil:
    return add_to(port, &argv[1], -1)


cdef int twin_incrby(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef int64_t by
    if not parse_int(argv[2].p, argv[2].n, &by):
        return TWIN_PASS
    return add_to(port, &argv[1], by)


cdef int twin_decrby(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef int64_t by
    if not parse_int(argv[2].p, argv[2].n, &by) or by == INT64_MIN:
        return TWIN_PASS
    return add_to(port, &argv[1], -by)


cdef int twin_mget(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef int i
    cdef Entry* e
    out_length(&port.out, 42, argc - 1)
    for i in range(1, argc):
        e = ks_read(port.db, argv[i].p, argv[i].n, argv[i].hash)
        if e == NULL or entry_type(e) != T_STRING:
            out_null(&port.out, port.protocol)
        else:
            say_string(port, e)
    return TWIN_DONE


cdef int twin_mset(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef int i
    if not argc & 1:
        return TWIN_PASS
    for i in range(1, argc, 2):
        store(port, &argv[i], &argv[i + 1], 0)
    say_ok(port)
    return TWIN_DONE


cdef int twin_strlen(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef Entry* e = ks_read(port.db, argv[1].p, argv[1].n, argv[1].hash)
    cdef size_t n = 0
    if e != NULL:
        if entry_type(e) != T_STRING:
            G.hits -= 1
            return TWIN_PASS
        entry_string(e, &n)
    out_int(&port.out, n)
    return TWIN_DONE


# ---------------------------------------------------------------- keys


cdef int twin_exists(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef int i
    cdef int64_t n = 0
    for i in range(1, argc):
        # a hit or a miss, but no use: the key does not look younger for it
        n += ks_find(port.db, argv[i].p, argv[i].n, argv[i].hash) != NULL
    G.hits += n
    G.misses += argc - 1 - n
    out_int(&port.out, n)
    return TWIN_DONE


cdef int twin_del(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef int i
    cdef int64_t n = 0
    for i in range(1, argc):
        if ks_find(port.db, argv[i].p, argv[i].n, argv[i].hash) != NULL:
            n += ks_delete(port.db, argv[i].p, argv[i].n, argv[i].hash)
            changed(port, &argv[i], 1)
    out_int(&port.out, n)
    return TWIN_DONE


cdef int say_ttl(Port* port, Arg* key, int64_t unit_ms) noexcept nogil:
    cdef Entry* e = ks_find(port.db, key.p, key.n, key.hash)
    cdef int64_t deadline_ms
    if e == NULL:
        G.misses += 1
        out_int(&port.out, -2)
        return TWIN_DONE
    G.hits += 1
    deadline_ms = ks_deadline(e)
    if deadline_ms == 0:
        out_int(&port.out, -1)
    else:
        deadline_ms -= G.now_ms
        if deadline_ms < 0:
            deadline_ms = 0
        out_int(&port.out, (deadline_ms + unit_ms // 2) // unit_ms)
    return TWIN_DONE


cdef int twin_ttl(Port* port, Arg* argv, int argc) noexcept nogil:
    return say_ttl(port, &argv[1], 1000)


cdef int twin_pttl(Port* port, Arg* argv, int argc) noexcept nogil:
    return say_ttl(port, &argv[1], 1)


cdef inline int expire(Port* port, Arg* argv, int argc, int64_t unit_ms) noexcept nogil:
    cdef int64_t n
    if argc != 3 or not parse_int(argv[2].p, argv[2].n, &n) or not 0 < n < TTL_MAX:
        return TWIN_PASS
    if ks_expire_at(port.db, argv[1].p, argv[1].n, argv[1].hash, G.now_ms + n * unit_ms) == NULL:
        out_int(&port.out, 0)
    else:
        tell_deadline(port.db.index, &argv[1], G.now_ms + n * unit_ms)
        changed(port, &argv[1], 1)
        out_int(&port.out, 1)
    return TWIN_DONE


cdef int twin_expire(Port* port, Arg* argv, int argc) noexcept nogil:
    return expire(port, argv, argc, 1000)


cdef int twin_pexpire(Port* port, Arg* argv, int argc) noexcept nogil:
    return expire(port, argv, argc, 1)


# ---------------------------------------------------------------- collections


cdef inline int push(Port* port, Arg* argv, int argc, bint head) noexcept nogil:
    cdef void* found
    cdef int i
    if collection(port, &argv[1], T_LIST, True, False, &found) == TWIN_PASS:
        return TWIN_PASS
    for i in range(2, argc):
        list_push(found, argv[i].p, argv[i].n, head)
    changed(port, &argv[1], argc - 2)
    out_int(&port.out, list_length(found))
    return TWIN_DONE


cdef int twin_lpush(Port* port, Arg* argv, int argc) noexcept nogil:
    return push(port, argv, argc, True)


cdef int twin_rpush(Port* port, Arg* argv, int argc) noexcept nogil:
    return push(port, argv, argc, False)


cdef inline int pop(Port* port, Arg* argv, int argc, bint head) noexcept nogil:
    cdef void* found
    if argc != 2 or collection(port, &argv[1], T_LIST, False, False, &found) == TWIN_PASS:
        return TWIN_PASS
    if found == NULL:
        out_null(&port.out, port.protocol)
        return TWIN_DONE
    list_pop(found, head, emit_bulk, &port.out)
    if list_length(found) == 0:
        ks_delete(port.db, argv[1].p, argv[1].n, argv[1].hash)
    changed(port, &argv[1], 1)
    return TWIN_DONE


cdef int twin_lpop(Port* port, Arg* argv, int argc) noexcept nogil:
    return pop(port, argv, argc, True)


cdef int twin_rpop(Port* port, Arg* argv, int argc) noexcept nogil:
    return pop(port, argv, argc, False)


cdef int twin_lrange(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef int64_t start, stop
    if collection(port, &argv[1], T_LIST, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    if not bounds(&argv[2], <int64_t>list_length(found) if found != NULL else 0, &start, &stop):
        if found != NULL:
            G.hits -= 1
        else:
            G.misses -= 1
        return TWIN_PASS
    if found == NULL or start > stop:
        out_length(&port.out, 42, 0)
        return TWIN_DONE
    out_length(&port.out, 42, stop - start + 1)
    list_range(found, start, stop, emit_bulk, &port.out)
    return TWIN_DONE


cdef int twin_llen(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    if collection(port, &argv[1], T_LIST, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    out_int(&port.out, list_length(found) if found != NULL else 0)
    return TWIN_DONE


cdef int twin_lindex(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef int64_t i
    if not parse_int(argv[2].p, argv[2].n, &i):
        return TWIN_PASS
    if collection(port, &argv[1], T_LIST, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    if found == NULL or not list_index(found, i, emit_bulk, &port.out):
        out_null(&port.out, port.protocol)
    return TWIN_DONE


cdef int twin_hset(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef int i
    cdef int64_t created = 0
    if argc & 1 or collection(port, &argv[1], T_HASH, True, False, &found) == TWIN_PASS:
        return TWIN_PASS
    hash_expect(found, (argc - 2) // 2)
    for i in range(2, argc, 2):
        created += hash_put(found, argv[i].p, argv[i].n, argv[i + 1].p, argv[i + 1].n)
    changed(port, &argv[1], (argc - 2) // 2)
    out_int(&port.out, created)
    return TWIN_DONE


cdef int twin_hget(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef const uint8_t* value = NULL
    cdef size_t n
    if collection(port, &argv[1], T_HASH, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    if found != NULL:
        value = hash_get(found, argv[2].p, argv[2].n, &n)
    if value == NULL:
        out_null(&port.out, port.protocol)
    else:
        out_bulk(&port.out, value, n)
    return TWIN_DONE


cdef int twin_hmget(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef const uint8_t* value
    cdef size_t n
    cdef int i
    if collection(port, &argv[1], T_HASH, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    out_length(&port.out, 42, argc - 2)
    for i in range(2, argc):
        value = hash_get(found, argv[i].p, argv[i].n, &n) if found != NULL else NULL
        if value == NULL:
            out_null(&port.out, port.protocol)
        else:
            out_bulk(&port.out, value, n)
    return TWIN_DONE


cdef int twin_sadd(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef int i
    cdef int64_t added = 0
    if collection(port, &argv[1], T_SET, True, False, &found) == TWIN_PASS:
        return TWIN_PASS
    set_expect(found, argc - 2, argv[2].p, argv[2].n)
    for i in range(2, argc):
        added += set_add(found, argv[i].p, argv[i].n)
    if added:
        changed(port, &argv[1], added)
    out_int(&port.out, added)
    return TWIN_DONE


cdef int twin_sismember(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    if collection(port, &argv[1], T_SET, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    out_int(&port.out, 1 if found != NULL and set_contains(found, argv[2].p, argv[2].n) else 0)
    return TWIN_DONE


cdef void emit_told(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    out_bulk(<Out*>arg, p, n)
    journal_word(p, n)


cdef int twin_spop(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    if argc != 2 or collection(port, &argv[1], T_SET, False, False, &found) == TWIN_PASS:
        return TWIN_PASS
    if found == NULL:
        out_null(&port.out, port.protocol)
        return TWIN_DONE
    if J.open:
        journal_command(port.db.index, 3)
        journal_literal(b"SREM")
        journal_word(argv[1].p, argv[1].n)
        set_pop(found, emit_told, &port.out)
    else:
        set_pop(found, emit_bulk, &port.out)
    if set_length(found) == 0:
        ks_delete(port.db, argv[1].p, argv[1].n, argv[1].hash)
    changed(port, &argv[1], 1)
    return TWIN_DONE


cdef int twin_zadd(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef int i
    cdef double score, now
    cdef int64_t added = 0, altered = 0
    cdef int what
    if argc & 1:
        return TWIN_PASS
    for i in range(2, argc, 2):  # all or nothing: the scores first (an option is not a number either)
        if not parse_score(&argv[i], &score):
            return TWIN_PASS
    if collection(port, &argv[1], T_ZSET, True, False, &found) == TWIN_PASS:
        return TWIN_PASS
    for i in range(2, argc, 2):
        parse_score(&argv[i], &score)
        what = zset_add(found, argv[i + 1].p, argv[i + 1].n, score, 0, &now)
        added += what & ZADD_ADDED != 0
        altered += what & (ZADD_ADDED | ZADD_UPDATED) != 0
    if altered:
        changed(port, &argv[1], altered)
    out_int(&port.out, added)
    return TWIN_DONE


cdef int twin_zincrby(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef double by, now
    cdef int what
    if not parse_score(&argv[2], &by) or collection(port, &argv[1], T_ZSET, True, False, &found) == TWIN_PASS:
        return TWIN_PASS
    what = zset_add(found, argv[3].p, argv[3].n, by, ZADD_INCR, &now)
    if what & ZADD_NAN:  # of a member that is there: nothing has changed
        return TWIN_PASS
    if what & (ZADD_ADDED | ZADD_UPDATED):
        changed(port, &argv[1], 1)
    out_score(port, now)
    return TWIN_DONE


cdef int twin_zscore(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef double score
    if collection(port, &argv[1], T_ZSET, False, True, &found) == TWIN_PASS:
        return TWIN_PASS
    if found == NULL or not zset_score(found, argv[2].p, argv[2].n, &score):
        out_null(&port.out, port.protocol)
    else:
        out_score(port, score)
    return TWIN_DONE


cdef int twin_zpopmin(Port* port, Arg* argv, int argc) noexcept nogil:
    cdef void* found
    cdef double score
    if argc != 2 or collection(port, &argv[1], T_ZSET, False, False, &found) == TWIN_PASS:
        return TWIN_PASS
    if found == NULL:
        out_length(&port.out, 42, 0)
        return TWIN_DONE
    out_length(&port.out, 42, 2)
    zset_pop(found, False, emit_bulk, &port.out, &score)
    out_score(port, score)
    if zset_length(found) == 0:
        ks_delete(port.db, argv[1].p, argv[1].n, argv[1].hash)
    changed(port, &argv[1], 1)
    return TWIN_DONE


cdef Twin find(bytes name):
    """The twin called `name`; NULL when there is none."""
    if name == b"ping":
        return twin_ping
    if name == b"echo":
        return twin_echo
    if name == b"get":
        return twin_get
    if name == b"set":
        return twin_set
    if name == b"setex":
        return twin_setex
    if name == b"setnx":
        return twin_setnx
    if name == b"incr":
        return twin_incr
    if name == b"decr":
        return twin_decr
    if name == b"incrby":
        return twin_incrby
    if name == b"decrby":
        return twin_decrby
    if name == b"mget":
        return twin_mget
    if name == b"mset":
        return twin_mset
    if name == b"strlen":
        return twin_strlen
    if name == b"exists":
        return twin_exists
    if name == b"kv_exists":
        return twin_kv_exists
    if name == b"del":
        return twin_del
    if name == b"ttl":
        return twin_ttl
    if name == b"pttl":
        return twin_pttl
    if name == b"expire":
        return twin_expire
    if name == b"pexpire":
        return twin_pexpire
    if name == b"lpush":
        return twin_lpush
    if name == b"rpush":
        return twin_rpush
    if name == b"lpop":
        return twin_lpop
    if name == b"rpop":
        return twin_rpop
    if name == b"lrange":
        return twin_lrange
    if name == b"llen":
        return twin_llen
    if name == b"lindex":
        return twin_lindex
    if name == b"hset":
        return twin_hset
    if name == b"hget":
        return twin_hget
    if name == b"hmget":
        return twin_hmget
    if name == b"sadd":
        return twin_sadd
    if name == b"sismember":
        return twin_sismember
    if name == b"spop":
        return twin_spop
    if name == b"zadd":
        return twin_zadd
    if name == b"zincrby":
        return twin_zincrby
    if name == b"zscore":
        return twin_zscore
    if name == b"zpopmin":
        return twin_zpopmin
    if name == b"xadd":
        return twin_xadd
    if name == b"xlen":
        return twin_xlen
    return read_twins.find(name)
