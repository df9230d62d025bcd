"""Values as commands that make them again: the base of an append-only file under `aof-use-rdb-preamble no`.

The commands are those of Redis's rewriteAppendOnlyFile, so any redis-server with the types reads them; large
collections come in commands of 64 items. What no command could make comes as RESTORE with the payload of DUMP: vector
sets, and streams where something is pending whose entry was deleted (XCLAIM would forget it).
Source: aof.c of Redis 7.0.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from zeekdb.hot.crc64 cimport crc64_update
from zeekdb.hot.hash_deadlines cimport Timed, overdue, timed_walk
from zeekdb.hot.hashes cimport hash_length, hash_timed, hash_walk
from zeekdb.hot.keyspace cimport G, entry_string
from zeekdb.hot.lists cimport list_length, list_range
from zeekdb.hot.rdbwire cimport buffer_put, buffer_room, put_byte, put_fixed, writer_free
from zeekdb.hot.rdbwrite cimport rdb_type, rdb_version, rdb_write
from zeekdb.hot.sets cimport set_length, set_walk
from zeekdb.hot.streamlog cimport Cursor, Id, Log, cursor_from, cursor_next, get_text, id_compare
from zeekdb.hot.table cimport T_HASH, T_LIST, T_OBJECT, T_SET, T_STREAM, T_STRING, T_ZSET, entry_box, entry_type
from zeekdb.hot.wire cimport format_int, put_length, spell_double
from zeekdb.hot.zsets cimport zset_length, zset_range

cdef enum:
    ITEMS = 64              # of a command; AOF_REWRITE_ITEMS_PER_CMD
    ARRAY = 42              # *
    BULK = 36               # $
    ID_TEXT = 41            # bytes of an id as text
    KEEP_MAX = 1 << 20      # bytes of the payloads' buffer that stay

cdef object LOW = (1 << 64) - 1
cdef object MAX_ID = (1 << 128) - 1

cdef Writer PAYLOAD          # of a RESTORE
memset(&PAYLOAD, 0, sizeof(PAYLOAD))


# --- words ----------------------------------------------------------------------------------------------------------

cdef inline void put_header(Writer* w, uint8_t kind, uint64_t n) noexcept nogil:
    cdef uint8_t* at = buffer_room(&w.out, 24)
    w.out.size += put_length(at, kind, n) - at


cdef inline void put_word(Writer* w, const uint8_t* p, size_t n) noexcept nogil:
    put_header(w, BULK, n)
    buffer_put(&w.out, p, n)
    buffer_put(&w.out, b"\r\n", 2)


cdef inline void put_literal(Writer* w, const char* text) noexcept nogil:
    cdef size_t n = 0
    while text[n]:
        n += 1
    put_word(w, <const uint8_t*>text, n)


cdef inline void put_number(Writer* w, int64_t value) noexcept nogil:
    cdef uint8_t[24] text
    put_word(w, text, format_int(text, value))


cdef size_t spell_unsigned(uint8_t* at, uint64_t value) noexcept nogil:
    """Half an id is any number of 64 bits."""
    cdef uint8_t[20] digits
    cdef size_t n = 0, i
    while True:
        digits[n] = 48 + <uint8_t>(value % 10)
        value //= 10
        n += 1
        if not value:
            break
    for i in range(n):
        at[i] = digits[n - 1 - i]
    return n


cdef inline void put_id(Writer* w, const Id* id) noexcept nogil:
    cdef uint8_t[ID_TEXT] text
    cdef size_t n = spell_unsigned(text, id.ms)
    text[n] = 45
    put_word(w, text, n + 1 + spell_unsigned(text + n + 1, id.seq))


# The commands of a collection, and what of them is still to come.
ctypedef struct Items:
    Writer* w
    const char* name        # of the command
    uint32_t words          # of an item
    const uint8_t* key
    size_t n
    uint64_t left           # items
    uint64_t open           # of them in the command that was begun


cdef inline void begin_items(
    Items* items, Writer* w, const char* name, uint32_t words, const uint8_t* key, size_t n, uint64_t count,
) noexcept nogil:
    items.w, items.name, items.words, items.key, items.n = w, name, words, key, n
    items.left, items.open = count, 0


cdef inline Writer* next_item(Items* items) noexcept nogil:
    if items.open == 0:
        items.open = items.left if items.left < ITEMS else ITEMS
        items.left -= items.open
        put_header(items.w, ARRAY, 2 + items.open * items.words)
        put_literal(items.w, items.name)
        put_word(items.w, items.key, items.n)
    items.open -= 1
    return items.w


# --- values ---------------------------------------------------------------------------------------------------------

cdef void emit_element(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    put_word(next_item(<Items*>arg), p, n)


cdef bint emit_member(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    put_word(next_item(<Items*>arg), p, n)
    return False


cdef void emit_scored(const uint8_t* p, size_t n, double score, void* arg) noexcept nogil:
    cdef Writer* w = next_item(<Items*>arg)
    cdef uint8_t[40] text
    put_word(w, text, spell_double(text, score))
    put_word(w, p, n)


cdef void emit_pair(const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, void* arg) noexcept nogil:
    cdef Writer* w = next_item(<Items*>arg)
    put_word(w, f, fn)
    put_word(w, v, vn)


cdef void count_timed(
    const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, int64_t when_ms, void* arg,
) noexcept nogil:
    (<uint64_t*>arg)[0] += not overdue(when_ms, G.now_ms)


cdef void emit_timed(
    const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, int64_t when_ms, void* arg,
) noexcept nogil:
    if not overdue(when_ms, G.now_ms):
        emit_pair(f, fn, v, vn, arg)


cdef void emit_deadline(
    const uint8_t* f, size_t fn, const uint8_t* v, size_t vn, int64_t when_ms, void* arg,
) noexcept nogil:
    cdef Items* items = <Items*>arg
    if not when_ms or overdue(when_ms, G.now_ms):
        return
    put_header(items.w, ARRAY, 6)
    put_literal(items.w, b"HPEXPIREAT")
    put_word(items.w, items.key, items.n)
    put_number(items.w, when_ms)
    put_literal(items.w, b"FIELDS")
    put_literal(items.w, b"1")
    put_word(items.w, f, fn)


cdef void write_hash(Writer* w, void* self, const uint8_t* key, size_t n) noexcept nogil:
    cdef Timed* t = hash_timed(self)
    cdef Items items
    cdef uint64_t fields = 0
    if t == NULL or t.next_ms == 0:
        begin_items(&items, w, b"HMSET", 2, key, n, hash_length(self))
        hash_walk(self, emit_pair, &items)
        return
    timed_walk(t, count_timed, &fields)
    begin_items(&items, w, b"HMSET", 2, key, n, fields)
    timed_walk(t, emit_timed, &items)
    timed_walk(t, emit_deadline, &items)


cdef bint restore(Writer* w, const Entry* e, const uint8_t* key, size_t n) noexcept nogil:
    """RESTORE without a deadline. False: the value cannot be serialised."""
    if PAYLOAD.out.capacity > KEEP_MAX or PAYLOAD.pack.capacity > KEEP_MAX:
        writer_free(&PAYLOAD)
    PAYLOAD.out.size = 0
    PAYLOAD.compress = w.compress
    put_byte(&PAYLOAD, rdb_type(&PAYLOAD, e))
    if not rdb_write(&PAYLOAD, e):
        return False
    put_byte(&PAYLOAD, rdb_version(PAYLOAD.out.data[0]))
    put_byte(&PAYLOAD, 0)
    put_fixed(&PAYLOAD, crc64_update(0, PAYLOAD.out.data, PAYLOAD.out.size))
    put_header(w, ARRAY, 4)
    put_literal(w, b"RESTORE")
    put_word(w, key, n)
    put_literal(w, b"0")
    put_word(w, PAYLOAD.out.data, PAYLOAD.out.size)
    return True


# --- streams --------------------------------------------------------------------------------------------------------

cdef void write_entries(Writer* w, Log* log, const uint8_t* key, size_t n) noexcept nogil:
    cdef Cursor c
    cdef Id lowest
    cdef const uint8_t* name
    cdef const uint8_t* value
    cdef size_t name_n, value_n
    cdef uint64_t i
    cdef bint more
    lowest.ms = lowest.seq = 0
    more = cursor_from(&c, log, &lowest)
    while more:
        put_header(w, ARRAY, 3 + 2 * c.fields)
        put_literal(w, b"XADD")
        put_word(w, key, n)
        put_id(w, &c.id)
        name, value = c.names, c.body
        for i in range(c.fields):
            if c.names == NULL:
                name = value
            name = get_text(name, &name_n)
            put_word(w, name, name_n)
            name += name_n
            value = get_text(name if c.names == NULL else value, &value_n)
            put_word(w, value, value_n)
            value += value_n
        more = cursor_next(&c)


cdef bint write_stream(Writer* w, Log* log, const uint8_t* key, size_t n) noexcept nogil:
    """False: commands cannot say it."""
    if log.groups != NULL and misses_pending(log):
        return False
    if log.length == 0:  # the only way to make one without entries and groups
        put_header(w, ARRAY, 7)
        put_literal(w, b"XADD")
        put_word(w, key, n)
        put_literal(w, b"MAXLEN")
        put_literal(w, b"0")
        put_literal(w, b"0-1")
        put_literal(w, b"x")
        put_literal(w, b"y")
    write_entries(w, log, key, n)
    put_header(w, ARRAY, 7)
    put_literal(w, b"XSETID")
    put_word(w, key, n)
    put_id(w, &log.last)
    put_literal(w, b"ENTRIESADDED")
    put_number(w, <int64_t>log.added)
    put_literal(w, b"MAXDELETEDID")
    put_id(w, &log.deleted)
    if log.groups != NULL:
        write_groups(w, log.groups, key, n)
    return True


cdef inline void id_of(object number, Id* id):
    id.ms = <uint64_t>(number >> 64)
    id.seq = <uint64_t>(number & LOW)


cdef inline void put_bytes(Writer* w, bytes text):
    put_word(w, <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef bint misses_pending(Log* log) noexcept with gil:
    """Whether something is pending whose entry is not there any more."""
    cdef Cursor c
    cdef Id id
    for group in (<dict>log.groups).values():
        for number, _, _, _ in group.pending.range(0, MAX_ID):
            id_of(number, &id)
            if not cursor_from(&c, log, &id) or id_compare(&c.id, &id) != 0:
                return True
    return False


cdef void write_groups(Writer* w, void* groups, const uint8_t* key, size_t n) noexcept with gil:
    cdef Id id
    for name, group in (<dict>groups).items():
        put_header(w, ARRAY, 7)
        put_literal(w, b"XGROUP")
        put_literal(w, b"CREATE")
        put_word(w, key, n)
        put_bytes(w, name)
        id_of(group.last_id, &id)
        put_id(w, &id)
        put_literal(w, b"ENTRIESREAD")
        put_number(w, group.entries_read)
        for consumer in group.consumers.values():
            if not len(consumer.pending):
                put_header(w, ARRAY, 5)
                put_literal(w, b"XGROUP")
                put_literal(w, b"CREATECONSUMER")
                put_word(w, key, n)
                put_bytes(w, name)
                put_bytes(w, consumer.name)
            for number, _, _, _ in consumer.pending.range(0, MAX_ID):
                write_claim(w, key, n, name, consumer.name, number, group.pending.get(number))


cdef write_claim(Writer* w, const uint8_t* key, size_t n, bytes group, bytes consumer, number, record):
    cdef Id id
    id_of(number, &id)
    put_header(w, ARRAY, 12)
    put_literal(w, b"XCLAIM")
    put_word(w, key, n)
    put_bytes(w, group)
    put_bytes(w, consumer)
    put_literal(w, b"0")
    put_id(w, &id)
    put_literal(w, b"TIME")
    put_number(w, record[1])
    put_literal(w, b"RETRYCOUNT")
    put_number(w, record[2])
    put_literal(w, b"JUSTID")
    put_literal(w, b"FORCE")


# --- keys -----------------------------------------------------------------------------------------------------------

cdef void aof_select(Writer* w, int db) noexcept nogil:
    put_header(w, ARRAY, 2)
    put_literal(w, b"SELECT")
    put_number(w, db)


cdef bint write_value(Writer* w, const Entry* e, const uint8_t* key, size_t n) noexcept nogil:
    cdef uint8_t type = entry_type(e)
    cdef Items items
    cdef const uint8_t* p
    cdef size_t size
    if type == T_STRING:
        p = entry_string(e, &size)
        put_header(w, ARRAY, 3)
        put_literal(w, b"SET")
        put_word(w, key, n)
        put_word(w, p, size)
    elif type == T_LIST:
        begin_items(&items, w, b"RPUSH", 1, key, n, list_length(entry_box(e)))
        list_range(entry_box(e), 0, <int64_t>items.left - 1, emit_element, &items)
    elif type == T_SET:
        begin_items(&items, w, b"SADD", 1, key, n, set_length(entry_box(e)))
        set_walk(entry_box(e), emit_member, &items)
    elif type == T_ZSET:
        begin_items(&items, w, b"ZADD", 2, key, n, zset_length(entry_box(e)))
        zset_range(entry_box(e), 0, <int64_t>items.left - 1, False, emit_scored, &items)
    elif type == T_HASH:
        write_hash(w, entry_box(e), key, n)
    elif type == T_STREAM:
        return write_stream(w, <Log*>entry_box(e), key, n) or restore(w, e, key, n)
    elif type == T_OBJECT:
        return restore(w, e, key, n)
    else:
        return False
    return True


cdef bint aof_write(Writer* w, const Entry* e, const uint8_t* key, size_t n, int64_t deadline_ms) noexcept nogil:
    if not write_value(w, e, key, n):
        return False
    if deadline_ms:
        put_header(w, ARRAY, 3)
        put_literal(w, b"PEXPIREAT")
        put_word(w, key, n)
        put_number(w, deadline_ms)
    return True
